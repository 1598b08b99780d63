package sandbox

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"unicode"

	"framepipe/internal/cli"
)

// User is the value of the flag -user: the user that a process switches to. The zero
// User means no switch.
type User struct {
	text     string
	found    bool // uid and gid are set
	uid, gid uint32
}

// passwdFile is passwd(5), for looking up users. Package os/user would link C, and
// then syscall.AllThreadsSyscall fails.
const passwdFile = "/etc/passwd"

// String implements flag.Value.
func (u *User) String() string { return u.text }

// Set implements flag.Value. It takes the name of a user, or UID:GID.
func (u *User) Set(text string) error {
	set := User{text: text}
	if a, b, numeric := strings.Cut(text, ":"); numeric {
		var ok1, ok2 bool
		set.uid, ok1 = number(a)
		set.gid, ok2 = number(b)
		if set.found = ok1 && ok2; !set.found {
			return errUser
		}
	} else if !isName(text) {
		return errUser
	}
	*u = set
	return nil
}

var errUser = errors.New("want the name of a user, or UID:GID")

// isName reports whether s can be a user's name. A UID without a GID is none, nor is
// the next flag, taken for the missing value of -user.
func isName(s string) bool {
	return strings.Trim(s, "0123456789") != "" && s[0] != '-' && s[0] != '+' &&
		!strings.ContainsFunc(s, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) })
}

// number parses a UID or GID. It refuses the largest number, which means no change to
// setresuid(2).
func number(s string) (uint32, bool) {
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), err == nil && n < math.MaxUint32
}

// Find looks up the user and checks that the process may switch to it. It does nothing
// for the zero User.
func (u *User) Find() error {
	if u.text == "" {
		return nil
	}
	if !u.found {
		passwd, err := os.ReadFile(passwdFile)
		if err != nil {
			return fmt.Errorf("-user %s: %w", u.text, err)
		}
		if u.uid, u.gid, u.found = lookUp(passwd, u.text); !u.found {
			return cli.Hint(fmt.Errorf("-user %s: no such user in %s", u.text, passwdFile),
				`a user of another database goes by number: -user "$(id -u %s):$(id -g %[1]s)"`, u.text)
		}
	}
	if os.Geteuid() != 0 {
		return cli.Hint(fmt.Errorf("-user %s: only root can become another user", u.text), "run it as root, or leave out -user")
	}
	return nil
}

// lookUp finds the UID and GID of a user in the text of passwd(5). It uses the first
// valid line with the name, as getpwnam(3) does.
func lookUp(passwd []byte, name string) (uid, gid uint32, found bool) {
	if !isName(name) {
		return 0, 0, false
	}
	for line := range bytes.Lines(passwd) {
		// name:password:UID:GID:comment:directory:shell
		f := strings.Split(strings.TrimSuffix(string(line), "\n"), ":")
		if len(f) != 7 || f[0] != name {
			continue
		}
		uid, ok1 := number(f[2])
		gid, ok2 := number(f[3])
		if ok1 && ok2 {
			return uid, gid, true
		}
	}
	return 0, 0, false
}
