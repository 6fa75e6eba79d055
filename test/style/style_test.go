// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestPhrases: each expression matches its example and not what to say instead.
func TestPhrases(t *testing.T) {
	phrases := read(t)
	if len(phrases) == 0 {
		t.Fatal("words.txt has no phrase")
	}
	for _, phrase := range phrases {
		if !phrase.Expression.MatchString(phrase.Example) {
			t.Errorf("%s does not match its example %q", phrase.Expression, phrase.Example)
		}
		if phrase.Expression.MatchString(phrase.Instead) {
			t.Errorf("%s matches what to say instead, %q", phrase.Expression, phrase.Instead)
		}
	}
}

// The phrases of these tests are put together, so that this file passes the check.
const (
	anyone = "who" + "ever"
	failed = "came" + " about"
	never  = "for" + " ever"
	wide   = 115
)

func TestCheck(t *testing.T) {
	const sayAnyone = "say: anyone who, a user who"
	long := strings.Repeat("word ", wide/5) + "123456" // 121 columns
	tests := map[string]struct {
		file, text string
		want       []string
	}{
		"clean": {file: "a.go", text: "// A user who may delete it.\n"},
		"comment": {
			file: "pkg/a.go", text: "package a\n\n// " + anyone + " may delete it.\n",
			want: []string{`pkg/a.go:3: "` + anyone + `"; ` + sayAnyone},
		},
		"first line": {
			file: "a.md", text: anyone + " may.\n",
			want: []string{`a.md:1: "` + anyone + `"; ` + sayAnyone},
		},
		"capital letter in the middle of a string": {
			file: "a.go", text: `x := "Fix: Who` + `ever may"`,
			want: []string{`a.go:1: "Who` + `ever"; ` + sayAnyone},
		},
		"part of a word": {file: "a.go", text: "un" + anyone + "s\n"},
		"across lines of a Go comment": {
			file: "a.go", text: "x\n\t// no handshake came\n\t// about, so\n",
			want: []string{`a.go:2: "` + failed + `"; say: happen, succeed, fail`},
		},
		"across lines of a shell comment": {
			file: ".ci/run", text: "# no handshake came\n# about\n",
			want: []string{`.ci/run:1: "` + failed + `"; say: happen, succeed, fail`},
		},
		"not across paragraphs": {file: "a.md", text: "it came\n\nabout ten\n"},
		"two on one line, and order": {
			file: "Makefile", text: "a:\n\t# " + never + "\n\t# " + anyone + " " + never + "\n",
			want: []string{
				`Makefile:2: "` + never + `"; say: forever`,
				`Makefile:3: "` + anyone + `"; ` + sayAnyone,
				`Makefile:3: "` + never + `"; say: forever`,
			},
		},
		"chart template": {
			file: "charts/x/templates/_a.tpl", text: "{{- /* " + anyone + " */}}",
			want: []string{`charts/x/templates/_a.tpl:1: "` + anyone + `"; ` + sayAnyone},
		},
		"test data":     {file: "pkg/testdata/a.yaml", text: anyone},
		"the list":      {file: "test/style/words.txt", text: anyone},
		"license":       {file: "LICENSE", text: anyone},
		"checksums":     {file: "tools/go.sum", text: anyone},
		"binary":        {file: "a.txt", text: anyone + "\x00"},
		"no such file":  {},
		"quoted as bad": {file: "a.md", text: "<!-- style: bad -->\n" + anyone + "\n" + long + "\n<!-- /style -->\n"},
		"after a quoted": {
			file: "a.md", text: "<!-- style: bad -->\nx\n<!-- /style -->\n" + anyone,
			want: []string{`a.md:4: "` + anyone + `"; ` + sayAnyone},
		},
		"121 columns": {
			file: "a.md", text: "x\n" + long + "\n",
			want: []string{"a.md:2: 121 columns; wrap at 120 (tables, code and URLs are not counted)"},
		},
		"121 columns in a list": {
			file: "a.md", text: "1. x\n   - y\n     " + long[5:] + "\n",
			want: []string{"a.md:3: 121 columns; wrap at 120 (tables, code and URLs are not counted)"},
		},
		"121 columns after code": {
			file: "a.md", text: "```sh\nx\n```\n" + long + "\n",
			want: []string{"a.md:4: 121 columns; wrap at 120 (tables, code and URLs are not counted)"},
		},
		"120 columns":                  {file: "a.md", text: long[1:]},
		"120 columns, 121 bytes":       {file: "a.md", text: long[2:] + "→"},
		"121 columns in a table":       {file: "a.md", text: "| " + long + " |"},
		"121 columns in a heading":     {file: "a.md", text: "# " + long},
		"121 columns of fenced code":   {file: "a.md", text: "```text\n" + long + "\n```\n"},
		"121 columns of indented code": {file: "a.md", text: "x\n\n    a\n    " + long + "\n"},
		"121 columns with a link":      {file: "a.md", text: "[x](" + strings.Repeat("y", 120) + ")"},
		"121 columns of code alone":    {file: "a.md", text: "`" + strings.Repeat("y", 120) + "`."},
		"121 columns with a URL":       {file: "a.md", text: "https://" + strings.Repeat("y", 120)},
		"121 columns of Go":            {file: "a.go", text: "// " + long},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			file := "missing.md"
			if tt.file != "" {
				file = tt.file
				full := filepath.Join(root, file)
				if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(full, []byte(tt.text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			hits, err := Check(os.DirFS(root), []string{file}, read(t))
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, hit := range hits {
				got = append(got, hit.String())
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("hits (-want +got):\n%s", d)
			}
		})
	}
}

func read(t *testing.T) []Phrase {
	t.Helper()
	phrases, err := Phrases()
	if err != nil {
		t.Fatal(err)
	}
	return phrases
}
