package e2e

import (
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"framepipe/internal/nettest"
)

// cloned copies the project without what was built, for a user, to a directory that all
// may enter. It returns that directory, and a command that runs a script in the copy,
// which is where the project is, so that nothing needs to be compiled again.
func cloned(t *testing.T, owner int) (dir string, in func(script string) *exec.Cmd) {
	t.Helper()
	nettest.Need(t, "unshare", "mount", "tar", "setpriv")
	dir = openDir(t)
	nettest.Run(t, "sh", "-ec", fmt.Sprintf("mkdir %[1]s/clone; cd %[2]s; tar c --exclude=.git --exclude=./bin . | tar x -C %[1]s/clone; chown -R %[3]d:%[3]d %[1]s/clone", dir, root, owner))
	return dir, func(script string) *exec.Cmd {
		return exec.Command("unshare", "-m", "bash", "-c", `mount --bind "$1/clone" "$2" && cd "$2" && eval "$3"`, "bash", dir, project(t), script)
	}
}

// installed returns the files below a directory, with their modes.
func installed(t *testing.T, dir string) []string {
	t.Helper()
	return strings.Fields(output(t, exec.Command("find", dir, "!", "-type", "d", "-printf", `%M:%P\n`)))
}

// placed are the files that install puts in place, as installed has them, and others: the
// completion of zsh, and the pages, with their suffix.
func placed(t *testing.T, suffix string, others ...string) []string {
	t.Helper()
	all := append(others, "share/framepipe/status.sh", "lib/systemd/system/framepipe@.service")
	for _, name := range programs {
		all = append(all, "bin/"+name, "share/bash-completion/completions/"+name, "share/fish/vendor_completions.d/"+name+".fish")
	}
	for name := range pages(t) {
		all = append(all, "share/man/man"+name[len(name)-1:]+"/"+name+suffix)
	}
	for i, name := range all {
		all[i] = "-rw-r--r--:" + name
		if strings.HasPrefix(name, "bin/") {
			all[i] = "-rwxr-xr-x:" + name
		}
	}
	return all
}

// install puts everything where it belongs, and uninstall removes that and nothing else,
// from the sources and from where it is installed. What root builds belongs to the owner
// of the sources, who can build again.
func TestInstall(t *testing.T) {
	t.Parallel()
	const owner = 12345
	dir, in := cloned(t, owner)
	to := dir + "/usr" // which is made
	left := []string{}
	for _, name := range []string{"bin/tun", "share/man/man1/tun.1", "share/bash-completion/completions/tun", "lib/systemd/system/tun.service"} {
		nettest.Run(t, "install", "-Dm644", "/dev/null", to+"/"+name)
		left = append(left, "-rw-r--r--:"+name)
	}
	must := func(c *exec.Cmd) {
		t.Helper()
		if says, status := outcome(c); status != 0 || says != "" {
			t.Fatalf("%v: status %d, %s", c.Args, status, says)
		}
	}
	install := func() {
		t.Helper()
		must(in("umask 077; ./pipeline.sh install " + to))
		sameSet(t, "installed", installed(t, to), append(placed(t, "", "share/zsh/site-functions/_framepipe"), left...))
	}

	install()
	unit := read(t, to+"/lib/systemd/system/framepipe@.service")
	if !strings.Contains(unit, "\nExecStart="+to+"/bin/pipeline.sh up %i ") || strings.Contains(unit, "/usr/local") {
		t.Errorf("the unit:\n%s", unit)
	}
	// It needs neither the sources nor Go.
	script := func(args ...string) *exec.Cmd {
		c := exec.Command(to+"/bin/pipeline.sh", args...)
		c.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
		return c
	}
	if says, status := outcome(script("-h")); status != 0 || !strings.HasPrefix(says, "usage: pipeline.sh demo\n") {
		t.Errorf("-h: status %d, %s", status, says)
	}
	if says, _ := outcome(script("run", "no0", "no1")); !strings.Contains(says, "tunread: no0: ") {
		t.Errorf("run: %s", says)
	}
	for _, odd := range []string{"a b", "a&b", "a|b"} { // which the unit and the script that writes it would misread
		if says, status := outcome(in("./pipeline.sh install '" + to + "/" + odd + "'")); status == 0 || !strings.Contains(says, "the unit names this directory") {
			t.Errorf("install to %s: status %d, %s", odd, status, says)
		}
	}
	if out, _ := outcome(script("install", to)); out != "pipeline.sh: the sources are not here\npipeline.sh: hint: run it where they are\n" {
		t.Errorf("install: %s", out)
	}
	must(script("uninstall", to))
	sameSet(t, "left", installed(t, to), left)
	install()
	must(in("./pipeline.sh uninstall " + to))
	sameSet(t, "left", installed(t, to), left)

	must(exec.Command("find", dir+"/clone", "!", "-uid", fmt.Sprint(owner)))
	// The owner may read all, as the sources and Go's files may be root's in this test, and
	// has what root has compiled. Where there is no overlay, all is compiled again.
	must(in(fmt.Sprintf(`echo "// It was changed." >>tunread/main.go
export GOCACHE=$(go env GOCACHE) GOMODCACHE=$(go env GOMODCACHE) GOFLAGS=-buildvcs=false HOME=%s/home
mkdir "$HOME" %[1]s/up %[1]s/work
mount -t overlay -o lowerdir="$GOCACHE",upperdir=%[1]s/up,workdir=%[1]s/work none "$GOCACHE" 2>/dev/null || mount -t tmpfs none "$GOCACHE"
chmod -f 777 "$GOCACHE" "$GOCACHE"/??; chmod -f 666 "$GOCACHE"/*.txt; chown %[2]d "$HOME"
setpriv --reuid=%[2]d --regid=%[2]d --clear-groups --inh-caps=-all,+dac_read_search --ambient-caps=+dac_read_search go build -o bin/ ./tunread &&
[ bin/tunread -nt tunread/main.go ] && [ "$(stat -c %%u bin/tunread)" = %[2]d ]`, dir, owner)))
}

// Without Go, or with one that is too old, one line says which is needed.
func TestInstallGo(t *testing.T) {
	t.Parallel()
	dir, in := cloned(t, 0)
	need := matches(`(?m)^go (\S+)$`, read(t, root+"/go.mod"))[0]
	const old = "pipeline.sh: Go %s or later is needed to build the tools, and %s is here: https://go.dev/dl\n"
	const none = "pipeline.sh: no tunread, and no Go to build it, of which %s or later is needed: https://go.dev/dl\n"
	for version, want := range map[string]string{
		"go1.9.7":   fmt.Sprintf(old, need, "go1.9.7"),
		"go1.23.12": fmt.Sprintf(old, need, "go1.23.12"),
		"":          fmt.Sprintf(none, need),
	} {
		path := t.TempDir()
		nettest.Run(t, "sh", "-ec", "for n in bash id readlink realpath sed sort tail; do ln -s $(command -v $n) "+path+"; done")
		if version != "" {
			write(t, path+"/go", "#!/bin/bash\n[ \"$*\" = 'env GOVERSION' ] && echo "+version+"\n")
		}
		says, status := outcome(in("for d in /usr/local/go /usr/lib/go/; do [ ! -d $d ] || mount -t tmpfs none $d; done; PATH=" + path + " ./pipeline.sh install " + dir + "/usr"))
		if says != want || status != 1 {
			t.Errorf("%s: status %d, %q, want %q", version, status, says, want)
		}
	}
	if exists(dir + "/usr") {
		t.Error("something was installed")
	}
}

// The package has what install puts in place, for another directory, and dpkg leaves none of
// it. Each tool tells the commit, though root builds the clone of another user.
func TestDeb(t *testing.T) {
	t.Parallel()
	nettest.Programs(t, "git", "dpkg", "dpkg-deb", "gzip")
	const owner = 12345
	dir, in := cloned(t, owner)
	debian := dir + "/debian" // a system of its own, with no package
	write(t, dir+"/build", `set -e
git config --global --add safe.directory "$PWD"
git init -q && git add . && git -c user.name=me -c user.email=me@localhost commit -qm All && git rev-parse HEAD >`+dir+`/commit
chown -R 12345 .git
rm "$HOME/.gitconfig"
mkdir -p `+debian+`/var/lib/dpkg/{info,updates} && touch `+debian+`/var/lib/dpkg/{status,available}
examples/deb.sh `+dir+`
PATH=$PATH:/usr/sbin:/sbin
dpkg --root=`+debian+` --force-depends -i `+dir+`/framepipe_*.deb >`+dir+`/dpkg 2>&1
`)
	c := in("GOFLAGS=-buildvcs=auto GOCACHE=$(go env GOCACHE) GOMODCACHE=$(go env GOMODCACHE) HOME=" + dir + " bash " + dir + "/build")
	says, status := outcome(c)
	if status != 0 {
		t.Fatalf("status %d, %s%s", status, says, read(t, dir+"/dpkg"))
	}
	sameSet(t, "in the package", installed(t, debian+"/usr"), placed(t, ".gz", "share/doc/framepipe/copyright", "share/zsh/vendor-completions/_framepipe"))
	unit := read(t, debian+"/usr/lib/systemd/system/framepipe@.service")
	if !strings.Contains(unit, "\nExecStart=/usr/bin/pipeline.sh up %i ") || strings.Contains(unit, dir) {
		t.Errorf("the unit:\n%s", unit)
	}
	commit := read(t, dir+"/commit")[:12]
	for _, name := range manTools {
		version := output(t, exec.Command(debian+"/usr/bin/"+name, "-version"))
		if !regexp.MustCompile(`^` + name + ` v\S+-` + commit + ` go1\.\S+\n$`).MatchString(version) {
			t.Errorf("it is of commit %s, and says %s", commit, version)
		}
		f, err := elf.Open(debian + "/usr/bin/" + name)
		if err != nil || f.Section(".interp") != nil {
			t.Errorf("%s is not static: %v", name, err)
		}
	}
	if !regexp.MustCompile(`/framepipe_\S+~` + commit + `_\w+\.deb\n$`).MatchString(says) {
		t.Errorf("it says %s", says)
	}
	c = exec.Command("dpkg", "--root="+debian, "-r", "framepipe")
	c.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	if says, status := outcome(c); status != 0 || exists(debian+"/usr") {
		t.Errorf("status %d, %s; left: %v", status, says, installed(t, debian))
	}
}

// The script of a clone has its own parts, also if another version is installed beside the clone.
func TestCloneBesideInstalled(t *testing.T) {
	nettest.Need(t, "bash")
	dir := t.TempDir()
	nettest.Run(t, "sh", "-ec", fmt.Sprintf(`mkdir -p %[1]s/clone/internal/status %[1]s/share/framepipe
		cp %[2]s/pipeline.sh %[1]s/clone; cp %[2]s/internal/status/status.sh %[1]s/clone/internal/status
		echo "die another version" >%[1]s/share/framepipe/status.sh`, dir, root))
	c := exec.Command(dir+"/clone/pipeline.sh", "status")
	c.Env = append(os.Environ(), "PIPELINE_RUN="+dir+"/none")
	if said, status := outcome(c); status != 1 || !strings.HasPrefix(said, "pipeline.sh: nothing is up") {
		t.Errorf("status %d, %s", status, said)
	}
}
