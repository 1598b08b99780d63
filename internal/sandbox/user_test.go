package sandbox

import (
	"errors"
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

// FuzzPasswd holds lookUp to a regular expression.
func FuzzPasswd(f *testing.F) {
	for _, name := range []string{
		"root", "daemon", "twice", "müller", "most", "nobody", // and those that must not be found
		"", "x", "Root", "roo", "roott", "# a comment", "short", "none", "minus", "sign", "space", "large",
		"unchanged", "group", "long", "lead", "1000", "root:x", "daemon\nroot", "nobody:x:65534",
	} {
		f.Add(passwd, name)
	}
	for _, end := range []string{"", "\n", "\r\n"} { // no carriage return is in a number
		f.Add("a:x:1:2:::"+end, "a")
	}
	f.Add(":x:9:9:::", "") // Set refuses the name
	f.Add("a\x00:x:1:1:::\n\xff:x:1:1:::\r\na:::::::", "a\x00")
	f.Fuzz(func(t *testing.T, passwd, name string) {
		want := User{text: name}
		line := regexp.MustCompile(`(?m)^([^:\n]*):[^:\n]*:([0-9]+):([0-9]+):[^:\n]*:[^:\n]*:[^:\n]*$`)
		for _, m := range line.FindAllStringSubmatch(passwd, -1) {
			uid, err1 := strconv.ParseUint(m[2], 10, 64)
			gid, err2 := strconv.ParseUint(m[3], 10, 64)
			if m[1] == name && err1 == nil && err2 == nil && max(uid, gid) <= 1<<32-2 {
				want.uid, want.gid, want.found = int(uid), int(gid), true
				break
			}
		}
		got := User{text: name}
		if found := got.lookUp(passwd); found != want.found || got != want {
			t.Errorf("%q: %+v, %v; want %+v", name, got, found, want)
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
	if err := errors.Join(none.Find(), Become(none)); err != nil {
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
