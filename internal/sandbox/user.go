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

// User is the value of a flag -user: the user that a process is to become. The zero
// User is none.
type User struct {
	text     string
	found    bool // uid and gid are known
	uid, gid uint32
}

// passwdFile is where users are looked up: passwd(5). Package os/user would link C,
// and then no call can be made on all threads (syscall.AllThreadsSyscall).
const passwdFile = "/etc/passwd"

// String is flag.Value's.
func (u *User) String() string { return u.text }

// Set is flag.Value's. It takes the name of a user, or UID:GID.
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

// isName tells a name from a number whose group is missing, and from a flag whose
// value is.
func isName(s string) bool {
	return strings.Trim(s, "0123456789") != "" && s[0] != '-' && s[0] != '+' &&
		!strings.ContainsFunc(s, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) })
}

// number reads the number of a user or of a group. The largest is none: to setresuid(2)
// it means no change.
func number(s string) (uint32, bool) {
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), err == nil && n < math.MaxUint32
}

// Find looks the user up, and whether this process may become it. It does nothing if
// there is none.
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

// lookUp finds the numbers of a user and of its group in the text of passwd(5). The
// first line of that name that has them holds, as in getpwnam(3).
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
