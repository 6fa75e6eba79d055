// SPDX-License-Identifier: Apache-2.0

package messages_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/messages"
)

// TestPart: the format of a part in the page.
func TestPart(t *testing.T) {
	missing := finding.Result{
		Subject: finding.File("/b"), Outcome: finding.Fail, Reason: finding.KeyMissing, Message: "it is missing", Remedy: "put it there",
	}
	elsewhere, empty, other, unknown := missing, missing, missing, missing
	elsewhere.Subject = finding.File("/a") // the smaller subject is the example
	empty.Message = "it is empty"
	other.Remedy = "ask for it"
	unknown.Outcome = finding.Unknown // because of the failure, which is recorded already
	cases := map[string]struct {
		record func(p *messages.Part)
		want   string
	}{
		"a finding of two subjects": {
			func(p *messages.Part) { p.Finding(missing); p.Finding(elsewhere) },
			"KeyMissing (fail)|    /a: it is missing|        Fix: put it there|",
		},
		"messages with one remedy": {
			func(p *messages.Part) { p.Finding(missing); p.Finding(empty) },
			"KeyMissing (fail)|    /b: it is empty|    /b: it is missing|        Fix: put it there|",
		},
		"remedies of one message": {
			func(p *messages.Part) { p.Finding(missing); p.Finding(other) },
			"KeyMissing (fail)|    /b: it is missing|        Fix: ask for it|        Fix: put it there|",
		},
		"not applicable": {
			func(p *messages.Part) {
				p.Finding(finding.Result{Subject: finding.File("/a"), Outcome: finding.NotApplicable, Message: "it is elsewhere"})
			},
			"notApplicable|    /a: it is elsewhere|",
		},
		"nothing to say": {func(p *messages.Part) { p.Finding(finding.Result{Outcome: finding.Pass}); p.Error("a", nil) }, ""},
		"not unobserved": {func(p *messages.Part) { p.Unobserved([]finding.Result{missing, unknown}) }, ""},
		"cases that agree": {
			func(p *messages.Part) { p.Error("b", errors.New("no")); p.Text("a", "no"); p.Text("c", "one\n\ntwo\n") },
			"a; b|    no||c|    one||    two|",
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var p messages.Part
			c.record(&p)
			if d := cmp.Diff(strings.ReplaceAll(c.want, "|", "\n"), p.String()); d != "" {
				t.Errorf("part (-want +got):\n%s", d)
			}
		})
	}
}

// TestParts: exactly one test records each part of the page, so that no part is left over.
func TestParts(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(repository, messages.Page))
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, marker := range regexp.MustCompile(`(?m)^<!-- ([^/].*) -->$`).FindAllStringSubmatch(string(page), -1) {
		want = append(want, marker[1])
	}
	var got []string
	call := regexp.MustCompile(`\tpage := messages\.Record\(t, "(.*)"\)`)
	for _, root := range []string{"internal", "pkg", "webhook", "nodeagent", "test"} {
		err := filepath.WalkDir(filepath.Join(repository, root), func(path string, _ fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // not every directory must exist
			}
			if err != nil || !strings.HasSuffix(path, "_test.go") {
				return err
			}
			code, err := os.ReadFile(path)
			for _, found := range call.FindAllStringSubmatch(string(code), -1) {
				got = append(got, found[1])
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("parts (-of the page +recorded):\n%s", d)
	}
}
