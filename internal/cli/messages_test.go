package cli

import (
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// Messages keep to the rules of the package comment: those of the product's Go files and of
// pipeline.sh. With -v, this prints all there are.
func TestMessages(t *testing.T) {
	const root = "../.."
	odd := regexp.MustCompile(`(?i)\b(he|she|nobody|somebody|whoever|lest|please|oops)\b|[^.]\.$|!$|^\s|\n\n`)
	upper := regexp.MustCompile(`^[A-Z][a-z]+ `)
	names := regexp.MustCompile(`^(Go|Linux|Ethernet) `)
	found := 0
	check := func(where, text string) {
		found++
		t.Logf("%-40s %s", where, strings.ReplaceAll(text, "\n", " | "))
		if odd.MatchString(text) || upper.MatchString(text) && !names.MatchString(text) {
			t.Errorf("%s: %q", where, text)
		}
	}
	// The functions that make messages. The text is the first argument, and the second of Hint.
	makers := regexp.MustCompile(`^(errors\.New|fmt\.Errorf|(.*\.)?(Usagef|Hint|Warnf|Verbosef|warn|fail|refuse))$`)
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
			if !ok || len(call.Args) == 0 || !makers.MatchString(types.ExprString(call.Fun)) {
				return true
			}
			text := call.Args[0]
			if strings.HasSuffix(types.ExprString(call.Fun), "Hint") {
				text = call.Args[1]
			}
			if s, err := strconv.Unquote(strings.ReplaceAll(types.ExprString(text), `" + "`, "")); err == nil {
				check(set.Position(call.Pos()).String(), s)
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
	for _, m := range said.FindAllStringSubmatch(string(script), -1) {
		check("pipeline.sh", m[1])
		if hint := m[2]; hint != "" {
			check("pipeline.sh, hint", hint)
		}
	}
	if found < 200 {
		t.Errorf("only %d messages are found", found)
	}
}
