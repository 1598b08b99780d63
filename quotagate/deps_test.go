package main

import (
	"os/exec"
	"strings"
	"testing"
)

// The gate does not link the code that draws and reads bills.
func TestDependencies(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range strings.Fields(string(out)) {
		if name == "framepipe/internal/bill" || name == "encoding/xml" || name == "encoding/csv" {
			t.Errorf("quotagate depends on %s", name)
		}
	}
}
