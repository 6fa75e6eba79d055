// SPDX-License-Identifier: Apache-2.0

package docs_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/control"
)

// TestOnlyTheTableNamesControls: the numbers of controls are in the table of package control and nowhere else in the
// programs. The files of the chart that repeat them, as they cannot be generated, have the table's numbers.
func TestOnlyTheTableNamesControls(t *testing.T) {
	number := regexp.MustCompile(`(?i)\bcis[- ](openshift|ocp)[- ]v?[0-9]`)
	for _, c := range control.Table() {
		for _, name := range append(c.RefIDs(), c.String()) {
			if len(c.Refs) > 0 && !number.MatchString(name) {
				t.Errorf("the test would not find %q", name)
			}
		}
	}
	literals := 0
	for _, root := range []string{"internal", "pkg", "webhook", "nodeagent"} {
		err := filepath.WalkDir(filepath.Join(repository, root), func(path string, _ fs.DirEntry, err error) error {
			path = strings.TrimPrefix(path, repository+"/")
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") ||
				path == "pkg/control/table.go" {
				return err
			}
			set := token.NewFileSet()
			file, err := parser.ParseFile(set, path, read(t, path), parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			ast.Inspect(file, func(n ast.Node) bool {
				if literal, ok := n.(*ast.BasicLit); ok && literal.Kind == token.STRING {
					if literals++; number.MatchString(literal.Value) {
						t.Errorf("%s: %s: take the name from package control", set.Position(literal.Pos()), literal.Value)
					}
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if literals < 1000 {
		t.Errorf("found only %d strings: the test is broken", literals)
	}
	refs := control.ByID(control.UseHTTPS).Refs
	first, from := refs[0], refs[1]
	for path, text := range map[string]string{
		"charts/kubelet-https-guard/Chart.yaml":           "(" + first.Number + ", " + from.Number + " from v" + from.Version + ")",
		"charts/kubelet-https-guard/files/dashboard.json": control.ByID(control.UseHTTPS).String(),
	} {
		if !strings.Contains(read(t, path), text) {
			t.Errorf("%s does not have %q", path, text)
		}
	}
}
