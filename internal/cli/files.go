package cli

import (
	"cmp"
	"errors"
	"os"
	"path/filepath"
	"strings"
)

// UTF8 reports whether the environment asks for UTF-8, in the first of
// these variables that is set, as setlocale(3) does.
func UTF8() bool {
	locale := strings.ToLower(cmp.Or(os.Getenv("LC_ALL"), os.Getenv("LC_CTYPE"), os.Getenv("LANG")))
	return strings.Contains(locale, "utf-8") || strings.Contains(locale, "utf8")
}

// Write replaces a file as Replace does. It writes in place to other files, such as a fifo or a
// link: to replace /dev/stdout would take it away from all programs.
func Write(name string, content []byte) error {
	if info, err := os.Lstat(name); err == nil && !info.Mode().IsRegular() {
		return os.WriteFile(name, content, 0o644)
	}
	return Replace(name, content)
}

// Replace replaces a file atomically, so that readers see either the old content or
// all of the new.
func Replace(name string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*")
	if err != nil {
		return &os.PathError{Op: "open", Path: name, Err: errors.Unwrap(err)} // not its temporary name
	}
	_, err = f.Write(content)
	if err = cmp.Or(err, f.Chmod(0o644), f.Close()); err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}
