package sandbox

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"framepipe/internal/cli"
)

const passwd = `# a comment
root:x:0:0:root:/root:/bin/bash
daemon:*:1:2:,,,:/:/usr/sbin/nologin

short:x:4:4::/
none:x:::::
minus:x:-2:-2::/:/bin/false
sign:x:+5:5::/:
space:x: 5:5::/:
large:x:4294967296:1::/:
unchanged:x:4294967295:1::/:
group:x:1:4294967295::/:
long:x:5:5::/:/bin/sh:more
twice:x:broken:6::/:
twice:x:6:7::/:
twice:x:8:8::/:
 lead:x:9:9::/:
müller:x:10:11:Müller:/home/müller:
most:x:4294967294:4294967294::/:
nobody:x:65534:65533:nobody:/nonexistent:/usr/sbin/nologin`

func TestLookUp(t *testing.T) {
	for name, want := range map[string]string{
		"root": "0:0", "daemon": "1:2", "twice": "6:7", "müller": "10:11", "most": "4294967294:4294967294", "nobody": "65534:65533",
	} {
		u := User{text: name}
		found := u.lookUp(passwd)
		if got := fmt.Sprintf("%d:%d", u.uid, u.gid); !found || !u.found || got != want {
			t.Errorf("%s: %s, %v, want %s", name, got, found, want)
		}
	}
	for _, name := range []string{
		"", "x", "Root", "roo", "roott", "# a comment", "short", "none", "minus", "sign", "space", "large",
		"unchanged", "group", "long", "lead", "1000", "root:x", "daemon\nroot", "nobody:x:65534",
	} {
		if u := (User{text: name}); u.lookUp(passwd) || u != (User{text: name}) {
			t.Errorf("%q: %+v", name, u)
		}
	}
	for _, end := range []string{"", "\n", "\r\n"} { // no carriage return is in a number
		u := User{text: "a"}
		if !u.lookUp("a:x:1:2:::"+end) || u.uid != 1 || u.gid != 2 {
			t.Errorf("%q: %+v", end, u)
		}
	}
}

// FuzzPasswd holds lookUp to a regular expression.
func FuzzPasswd(f *testing.F) {
	for _, name := range []string{"root", "twice", "nobody", "lead", "müller", ""} {
		f.Add([]byte(passwd), name)
	}
	f.Add([]byte("a\x00:x:1:1:::\n\xff:x:1:1:::\r\na:::::::"), "a\x00")
	f.Fuzz(func(t *testing.T, passwd []byte, name string) {
		var uid, gid uint64
		want := false
		if name != "" && !strings.ContainsAny(name, ":\n") {
			line := regexp.MustCompile(`(?m)^[^:\n]*:[^:\n]*:([0-9]+):([0-9]+):[^:\n]*:[^:\n]*:[^:\n]*$`)
			for _, at := range line.FindAllSubmatchIndex(passwd, -1) {
				var err1, err2 error
				uid, err1 = strconv.ParseUint(string(passwd[at[2]:at[3]]), 10, 64)
				gid, err2 = strconv.ParseUint(string(passwd[at[4]:at[5]]), 10, 64)
				if strings.HasPrefix(string(passwd[at[0]:at[1]]), name+":") && err1 == nil && err2 == nil && max(uid, gid) <= 1<<32-2 {
					want = true
					break
				}
			}
		}
		got := User{text: name}
		found := got.lookUp(string(passwd))
		if found != want || found && (got.uid != int(uid) || got.gid != int(gid)) {
			t.Errorf("%q: %+v, %v; want %d, %d, %v", name, got, found, uid, gid, want)
		}
		// What is found by name can be given as numbers.
		var u User
		if found {
			if err := u.Set(fmt.Sprintf("%d:%d", got.uid, got.gid)); err != nil || u.uid != got.uid || u.gid != got.gid {
				t.Errorf("%+v, %v", u, err)
			}
		}
	})
}

func TestUserSet(t *testing.T) {
	for _, text := range []string{"nobody", "0:0", "65534:65534", "4294967294:0", "_a.b-c$", "müller", "0x10"} {
		var u User
		if err := u.Set(text); err != nil || u.String() != text || u.found != strings.Contains(text, ":") {
			t.Errorf("%q: %+v, %v", text, u, err)
		}
	}
	for _, text := range []string{
		"", ":", "1:", ":1", "1:2:3", "root:root", "+1:1", "-1:-1", "1: 1", "4294967295:0", "0:4294967295",
		"4294967296:0", "0x10:0", "a:", "１:1",
	} {
		u := User{text: "before"}
		if err := u.Set(text); err == nil || u != (User{text: "before"}) {
			t.Errorf("%q is taken: %+v, %v", text, u, err)
		}
	}
}

func TestFind(t *testing.T) {
	var none User
	if err := none.Find(); err != nil {
		t.Error(err)
	}
	if err := Become(none); err != nil {
		t.Error(err)
	}
	u := User{text: "no-such-user"}
	err := u.Find()
	if err == nil || err.Error() != "-user no-such-user: no such user in /etc/passwd" ||
		cli.HintOf(err) != `a user of another database goes by number: -user "$(id -u no-such-user):$(id -g no-such-user)"` {
		t.Errorf("%v, %s", err, cli.HintOf(err))
	}
	u = User{text: "root"}
	err = u.Find()
	if _, e := os.Stat(passwdFile); e == nil && (!u.found || u.uid != 0 || u.gid != 0 || (err == nil) != (os.Geteuid() == 0)) {
		t.Errorf("%+v, %v", u, err)
	}
	// One that was not looked up has no numbers, and would be root.
	if err := Become(User{text: "nobody"}); err == nil {
		t.Error("a user that was not looked up")
	}
}
