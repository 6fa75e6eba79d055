// SPDX-License-Identifier: Apache-2.0

// Package messages maintains docs/messages.md, the only place where tests assert the sentences that
// people read. Tests record what the code says, and fail if the page differs. With the flag -update
// they write the page instead.
//
// Each test has a part of the page, between the markers <!-- name --> and <!-- /name -->. Titles and
// introductions are written by hand.
package messages

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/docs"
)

// Page is the file, relative to the root of the repository.
const Page = "docs/messages.md"

// update is registered in each test program that records messages. Tests of several packages must not
// write at the same time (go test -p 1), see make generate.
var update = flag.Bool("update", false, "write "+Page+" instead of comparing with it")

// Part is what one test has recorded. The zero value is empty. It is not safe for concurrent use.
type Part struct {
	findings map[findingText]string // the smallest subject
	texts    map[text]bool
}

type findingText struct{ title, message, remedy string }

type text struct{ title, text string }

// Record starts a part of the page. At the end of the test the part is compared with the page, or
// written to it. If -run selects subtests, the page must contain what they have recorded.
func Record(t *testing.T, name string) *Part {
	t.Helper()
	p := &Part{}
	t.Cleanup(func() { p.finish(t, name) })
	return p
}

// Finding adds a result with its reason, an example of its subject, and its remedy. A pass without a
// message is ignored.
func (p *Part) Finding(r finding.Result) {
	if r.Message == "" {
		return
	}
	title := r.Outcome.String()
	if r.Reason != "" {
		title = string(r.Reason) + " (" + r.Reason.Outcome().String() + ")"
	}
	if p.findings == nil {
		p.findings = map[findingText]string{}
	}
	key := findingText{title, r.Message, r.Remedy}
	if known, ok := p.findings[key]; !ok || r.Subject.String() < known {
		p.findings[key] = r.Subject.String()
	}
}

// Unobserved adds the results that are unknown because the subject itself could not be observed, not
// because of another failure.
func (p *Part) Unobserved(results []finding.Result) {
	for _, r := range results {
		if r.Outcome == finding.Unknown && r.Reason.Outcome() == finding.Unknown {
			p.Finding(r)
		}
	}
}

// Text adds a sentence under a title, which can be the name of a test case. An empty sentence is
// ignored.
func (p *Part) Text(title, sentence string) {
	if sentence == "" {
		return
	}
	if p.texts == nil {
		p.texts = map[text]bool{}
	}
	p.texts[text{title, sentence}] = true
}

// Error adds the text of an error under a title. A nil error is ignored.
func (p *Part) Error(title string, err error) {
	if err != nil {
		p.Text(title, err.Error())
	}
}

// String formats the part as in the page. Messages with the same remedies are grouped, and so are
// titles with the same sentences. The order of titles does not depend on their sentences, so that a
// rewording moves little.
func (p *Part) String() string {
	titles := map[string][]string{} // by the lines below them
	for title, entries := range p.entries() {
		slices.Sort(entries)
		below := strings.Join(entries, "")
		titles[below] = append(titles[below], title)
	}
	var blocks []string
	for below, all := range titles {
		slices.Sort(all)
		blocks = append(blocks, strings.Join(all, "; ")+"\n"+below)
	}
	slices.Sort(blocks)
	return strings.Join(blocks, "\n")
}

// entries are the indented lines of each title.
func (p *Part) entries() map[string][]string {
	type line struct{ title, message string }
	remedies := map[line][]string{}
	for key, subject := range p.findings {
		at := line{key.title, subject + ": " + key.message}
		remedies[at] = append(remedies[at], key.remedy)
	}
	type advice struct{ title, remedies string }
	together := map[advice][]string{}
	for at, all := range remedies {
		slices.Sort(all)
		to := advice{title: at.title}
		for _, remedy := range all {
			if remedy != "" {
				to.remedies += "        Fix: " + remedy + "\n"
			}
		}
		together[to] = append(together[to], "    "+at.message+"\n")
	}
	entries := map[string][]string{}
	for to, lines := range together {
		slices.Sort(lines)
		entries[to.title] = append(entries[to.title], strings.Join(lines, "")+to.remedies)
	}
	for t := range p.texts {
		lines := strings.ReplaceAll("    "+strings.TrimSpace(t.text)+"\n", "\n", "\n    ")
		lines = strings.ReplaceAll(strings.TrimSuffix(lines, "    "), "\n    \n", "\n\n")
		entries[t.title] = append(entries[t.title], lines)
	}
	return entries
}

// finish compares the part with the page, or writes it.
func (p *Part) finish(t *testing.T, name string) {
	path, err := find(Page)
	if err != nil {
		t.Errorf("find %s: %v", Page, err)
		return
	}
	page, err := os.ReadFile(path)
	if err != nil {
		t.Errorf("read %s: %v", Page, err)
		return
	}
	whole := "```text\n" + p.String() + "```\n"
	changed, err := docs.Between(string(page), name, whole)
	if err != nil {
		t.Errorf("%s: %v. Fix: add the markers where the part belongs", Page, err)
		return
	}
	if selected := flag.Lookup("test.run"); selected != nil && strings.Contains(selected.Value.String(), "/") {
		for line := range strings.Lines(whole) {
			if !strings.Contains(string(page), line) {
				t.Errorf("%s does not contain %q. Fix: run make generate", Page, line)
			}
		}
		return
	}
	if *update {
		if err := os.WriteFile(path, []byte(changed), 0o644); err != nil {
			t.Errorf("write %s: %v", Page, err)
		}
		return
	}
	if d := cmp.Diff(strings.Split(string(page), "\n"), strings.Split(changed, "\n")); d != "" {
		t.Errorf("%s is not up to date. Fix: run make generate and review the diff (-page +recorded):\n%s", Page, d)
	}
}

// find looks for a file of the repository in the working directory and its parents.
func find(name string) (string, error) {
	directory, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		path := filepath.Join(directory, name)
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
		parent := filepath.Dir(directory)
		if parent == directory {
			return "", fmt.Errorf("not in the working directory or its parents: %w", os.ErrNotExist)
		}
		directory = parent
	}
}
