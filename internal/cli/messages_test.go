package cli

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// message is a text that a tool can print, as it stands in the source.
type message struct{ where, text string }

// makers are the functions that make messages, and which argument is the text.
var makers = map[string]int{
	"errors.New": 0, "fmt.Errorf": 0, "cli.Usagef": 0, "Usagef": 0, "cli.Hint": 1, "Hint": 1,
	"Warnf": 0, "Verbosef": 0, "warn": 0, "fail": 0, "refuse": 0,
}

// messages returns the messages of the product's Go files and of pipeline.sh.
func messages(t *testing.T) (all []message) {
	const root = "../.."
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "bench" || d.Name() == "examples" || d.Name() == "testdata"):
			return fs.SkipDir
		case !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go"):
			return nil
		}
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, name, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			var made string
			switch f := call.Fun.(type) {
			case *ast.Ident:
				made = f.Name
			case *ast.SelectorExpr:
				made = f.Sel.Name
				if x, ok := f.X.(*ast.Ident); ok && (x.Name == "errors" || x.Name == "fmt" || x.Name == "cli") {
					made = x.Name + "." + made
				}
			}
			if i, ok := makers[made]; ok && i < len(call.Args) {
				if text, ok := literal(call.Args[i]); ok {
					at := set.Position(call.Pos())
					all = append(all, message{fmt.Sprintf("%s:%d", strings.TrimPrefix(at.Filename, root+"/"), at.Line), text})
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	script, err := os.ReadFile(root + "/pipeline.sh")
	if err != nil {
		t.Fatal(err)
	}
	said := regexp.MustCompile(`\b(?:say|die|wrong) "((?:[^"\\]|\\.)*)"(?: "((?:[^"\\]|\\.)*)")?`)
	for i, line := range bytes.Split(script, []byte("\n")) {
		for _, m := range said.FindAllSubmatch(line, -1) {
			for _, text := range m[1:] {
				if len(text) > 0 {
					all = append(all, message{fmt.Sprintf("pipeline.sh:%d", i+1), string(text)})
				}
			}
		}
	}
	return all
}

// literal returns the text of a string literal, or of several that are added.
func literal(e ast.Expr) (string, bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		s, err := strconv.Unquote(e.Value)
		return s, err == nil
	case *ast.BinaryExpr:
		a, _ := literal(e.X)
		b, _ := literal(e.Y)
		return a + b, a+b != ""
	}
	return "", false
}

// Messages keep to the rules of the package comment. With -v, this prints all there are.
func TestMessages(t *testing.T) {
	all := messages(t)
	slices.SortFunc(all, func(a, b message) int { return strings.Compare(a.text, b.text) })
	odd := regexp.MustCompile(`(?i)\b(he|she|nobody|somebody|whoever|lest|please|oops)\b|[^.]\.$|!$|^\s|\n\n`)
	upper := regexp.MustCompile(`^[A-Z][a-z]+ `)
	names := regexp.MustCompile(`^(Go|Linux|Ethernet) `)
	for _, m := range all {
		t.Logf("%-40s %s", m.where, strings.ReplaceAll(m.text, "\n", " | "))
		if odd.MatchString(m.text) || upper.MatchString(m.text) && !names.MatchString(m.text) {
			t.Errorf("%s: %q", m.where, m.text)
		}
	}
	if len(all) < 200 {
		t.Errorf("only %d messages are found", len(all))
	}
}
