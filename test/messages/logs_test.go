// SPDX-License-Identifier: Apache-2.0

package messages_test

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/kubelet-https-guard/kubelet-https-guard/test/messages"
)

const repository = "../.."

// TestLogs records level, message and keys of each call of a logger in the product. The messages of
// notices are recorded by package report's tests.
func TestLogs(t *testing.T) {
	page := messages.Record(t, "log")
	calls := 0
	for _, root := range []string{"internal", "pkg", "webhook", "nodeagent"} {
		err := filepath.WalkDir(filepath.Join(repository, root), func(path string, entry fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // not every directory must exist
			}
			if err != nil || !entry.IsDir() {
				return err
			}
			files, err := parse(path)
			if err != nil {
				return err
			}
			constants := constantsOf(files)
			for _, file := range files {
				ast.Inspect(file, func(n ast.Node) bool {
					if call, ok := n.(*ast.CallExpr); ok {
						if line, ok := logLine(call, constants); ok {
							calls++
							page.Text(strings.TrimPrefix(path, repository+"/"), line)
						}
					}
					return true
				})
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if calls < 40 {
		t.Errorf("found only %d calls of a logger: the test is broken", calls)
	}
}

// parse parses a directory's files, without tests.
func parse(directory string) ([]*ast.File, error) {
	paths, err := filepath.Glob(filepath.Join(directory, "*.go"))
	if err != nil {
		return nil, err
	}
	var files []*ast.File
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			return nil, err
		}
		files = append(files, file)
	}
	return files, nil
}

// constantsOf are the values of a package's string constants.
func constantsOf(files []*ast.File) map[string]string {
	constants := map[string]string{}
	for _, file := range files {
		ast.Inspect(file, func(n ast.Node) bool {
			if spec, ok := n.(*ast.ValueSpec); ok {
				for i, value := range spec.Values {
					if text, ok := constant(value, nil); ok {
						constants[spec.Names[i].Name] = text
					}
				}
			}
			return true
		})
	}
	return constants
}

// constant is the value of a string literal or constant.
func constant(e ast.Expr, constants map[string]string) (string, bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		text, err := strconv.Unquote(e.Value)
		return text, e.Kind == token.STRING && err == nil
	case *ast.Ident:
		text, ok := constants[e.Name]
		return text, ok
	case *ast.BinaryExpr:
		left, ok := constant(e.X, constants)
		right, too := constant(e.Y, constants)
		return left + right, ok && too && e.Op == token.ADD
	}
	return "", false
}

// levels are the methods of a [slog.Logger].
var levels = map[string]string{
	"Debug": "DEBUG", "Info": "INFO", "Warn": "WARN", "Error": "ERROR", "Log": "a level", "LogAttrs": "a level",
	"DebugContext": "DEBUG", "InfoContext": "INFO", "WarnContext": "WARN", "ErrorContext": "ERROR",
}

// logLine formats what a call logs: its level, its message and its keys. It returns false if the call
// is not one of a logger with a known message.
func logLine(call *ast.CallExpr, constants map[string]string) (string, bool) {
	method, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || levels[method.Sel.Name] == "" {
		return "", false
	}
	i := slices.IndexFunc(call.Args, func(e ast.Expr) bool { _, ok := constant(e, constants); return ok })
	if receiver := name(method.X); !strings.EqualFold(receiver, "log") || i < 0 {
		return "", false
	}
	message, _ := constant(call.Args[i], constants)
	line := levels[method.Sel.Name] + ": " + message
	var keys []string
	for j := i + 1; j < len(call.Args); j++ {
		if attribute, ok := call.Args[j].(*ast.CallExpr); ok && len(attribute.Args) > 0 && name(attribute.Fun) != "" {
			if key, ok := constant(attribute.Args[0], constants); ok && (j-i)%2 == 1 {
				keys = append(keys, "<"+key+">")
				i++
				continue
			}
		}
		if key, ok := constant(call.Args[j], constants); ok && (j-i)%2 == 1 {
			keys = append(keys, "<"+key+">")
		}
	}
	return strings.TrimSpace(line + " " + strings.Join(keys, " ")), true
}

// name is the last part of x, a.x and a.b.x.
func name(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return e.Sel.Name
	}
	return ""
}
