// SPDX-License-Identifier: Apache-2.0

package docs_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kubelet-https-guard/kubelet-https-guard/test/docs"
)

// TestADRs: every decision record has the common form and is in the index.
func TestADRs(t *testing.T) {
	records, err := docs.ADRs(repository)
	if err != nil {
		t.Fatal(err)
	}
	page := read(t, "docs/adr/README.md")
	want, err := docs.Between(page, "index", docs.ADRIndex(records))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, page); d != "" {
		t.Errorf("docs/adr/README.md is not up to date, run make generate (-want +got):\n%s", d)
	}
}

func TestADRsRefuses(t *testing.T) {
	const valid = "# 0001: Title\n\n- Status: accepted\n- Date: 2026-11-22\n\n## Context\n\nC.\n\n## " +
		"Decision\n\nD.\n\n## Consequences\n\nK.\n"
	tests := map[string]struct {
		file, text string
		want       string // of the error; empty if the file is valid
	}{
		"valid": {file: "0001-title.md", text: valid},
		"superseded": {
			file: "0001-title.md",
			text: strings.Replace(valid, "accepted", "superseded by [0002](0002-other.md)", 1),
		},
		"unknown status": {
			file: "0001-title.md", text: strings.Replace(valid, "accepted", "fine", 1),
			want: "0001-title.md: does not have the form that docs/adr/README.md describes",
		},
		"no date": {
			file: "0001-title.md", text: strings.Replace(valid, "- Date: 2026-11-22\n", "", 1),
			want: "0001-title.md: does not have the form that docs/adr/README.md describes",
		},
		"empty section": {
			file: "0001-title.md", text: strings.Replace(valid, "\nK.\n", "", 1),
			want: "0001-title.md: does not have the form that docs/adr/README.md describes",
		},
		"number left out": {
			file: "0002-title.md", text: strings.Replace(valid, "0001", "0002", 1),
			want: "0002-title.md: file name and title must begin with 0001, the next number",
		},
		"number of the title differs": {
			file: "0001-title.md", text: strings.Replace(valid, "0001", "0002", 1),
			want: "0001-title.md: file name and title must begin with 0001, the next number",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			dir := filepath.Join(root, "docs", "adr")
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, tt.file), []byte(tt.text), 0o644); err != nil {
				t.Fatal(err)
			}
			_, err := docs.ADRs(root)
			got := ""
			if err != nil {
				got = err.Error()
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("error (-want +got):\n%s", d)
			}
		})
	}
}
