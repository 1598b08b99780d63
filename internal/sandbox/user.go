package sandbox

import (
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"

	"framepipe/internal/cli"
)

// User is the value of the flag -user: the user that a process switches to. The zero
// User means no switch.
type User struct {
	text     string
	found    bool // uid and gid are set
	uid, gid int
}

// passwdFile is passwd(5), for looking up users. Package os/user would link C, and
// then syscall.AllThreadsSyscall fails.
const passwdFile = "/etc/passwd"

// String implements flag.Value.
func (u *User) String() string { return u.text }

// Set implements flag.Value. It takes the name of a user, or UID:GID.
func (u *User) Set(text string) error {
	set := User{text: text}
	if text == "" || strings.Contains(text, ":") && !set.parse(text) {
		return errors.New("want the name of a user, or UID:GID")
	}
	*u = set
	return nil
}

// parse sets the numbers from UID:GID. It refuses the largest number, which means no
// change to setresuid(2).
func (u *User) parse(text string) (ok bool) {
	a, b, _ := strings.Cut(text, ":")
	uid, err1 := strconv.ParseUint(a, 10, 32)
	gid, err2 := strconv.ParseUint(b, 10, 32)
	if err1 != nil || err2 != nil || max(uid, gid) == math.MaxUint32 {
		return false
	}
	u.uid, u.gid, u.found = int(uid), int(gid), true
	return true
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
		if !u.lookUp(string(passwd)) {
			return cli.Hint(fmt.Errorf("-user %s: no such user in %s", u.text, passwdFile),
				`a user of another database goes by number: -user "$(id -u %s):$(id -g %[1]s)"`, u.text)
		}
	}
	if os.Geteuid() != 0 {
		return cli.Hint(fmt.Errorf("-user %s: only root can become another user", u.text), "run it as root, or leave out -user")
	}
	return nil
}

// lookUp sets the numbers from the text of passwd(5): from the first valid line with the
// name, as getpwnam(3) does.
func (u *User) lookUp(passwd string) (found bool) {
	for line := range strings.Lines(passwd) {
		// name:password:UID:GID:comment:directory:shell
		f := strings.Split(line, ":")
		if len(f) == 7 && f[0] == u.text && u.parse(f[2]+":"+f[3]) {
			return true
		}
	}
	return false
}
