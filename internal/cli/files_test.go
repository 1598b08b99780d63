package cli

import (
	"os"
	"path/filepath"
	"testing"
)

// A link is written through, as the /dev/stdout of root would otherwise become a file.
func TestWriteLink(t *testing.T) {
	dir := t.TempDir()
	file, link := filepath.Join(dir, "file"), filepath.Join(dir, "link")
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	for _, content := range []string{"new", "again"} { // the first makes the file
		if err := Write(link, []byte(content)); err != nil {
			t.Fatal(err)
		}
		info, err := os.Lstat(link)
		if err != nil || info.Mode().Type() != os.ModeSymlink {
			t.Errorf("the link has become %v, %v", info, err)
		}
		if got, err := os.ReadFile(file); string(got) != content || err != nil {
			t.Errorf("the file has %q, want %q: %v", got, content, err)
		}
	}
}
