// SPDX-License-Identifier: Apache-2.0

package docs_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/docs"
)

const repository = "../.."

// TestRunbook: a section for each reason and for nothing else, with its severity
// and all that a section says.
func TestRunbook(t *testing.T) {
	sections, err := docs.Sections(repository, "runbook.md", "## ")
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, reason := range finding.Reasons() {
		want = append(want, string(reason))
	}
	got := slices.DeleteFunc(slices.Sorted(slices.Values(sections)), func(title string) bool { return title == "First look" })
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("sections (-reasons +sections):\n%s", d)
	}
	text := read(t, "docs/runbook.md")
	for _, reason := range finding.Reasons() {
		_, section, _ := strings.Cut(text, "\n## "+string(reason)+"\n")
		section, _, _ = strings.Cut(section, "\n## ")
		if !strings.HasPrefix(strings.TrimSpace(section), reason.Severity().String()+".") {
			t.Errorf("%s: the section does not begin with its severity, %s", reason, reason.Severity())
		}
		for _, word := range []string{"means", "confirm", "mend", "false alarm"} {
			if !regexp.MustCompile(`(?i)\*\*[a-z, ]*` + word + `[a-z, ]*[.?]\*\*`).MatchString(section) {
				t.Errorf("%s: the section does not say: %s", reason, word)
			}
		}
		if !strings.HasSuffix(reason.HelpURI(), "/docs/runbook.md#"+strings.ToLower(string(reason))) {
			t.Errorf("%s: the link is %s", reason, reason.HelpURI())
		}
	}
}

// TestMapping: every reason serves a control, there is no other, and the page has
// what the file has.
func TestMapping(t *testing.T) {
	mapping, err := docs.ReadMapping(repository)
	if err != nil {
		t.Fatal(err)
	}
	known := finding.Reasons()
	mapped := map[finding.Reason]bool{}
	for _, c := range mapping.Controls {
		for _, reason := range c.Reasons {
			if mapped[finding.Reason(reason)] = true; !slices.Contains(known, finding.Reason(reason)) {
				t.Errorf("%s: there is no reason %s", c.ID, reason)
			}
		}
		if c.Title == "" || c.Automated == "" || c.LeftToTheAuditor == "" {
			t.Errorf("%s: it does not say all", c.ID)
		}
	}
	for _, reason := range known {
		if !mapped[reason] {
			t.Errorf("%s serves no control", reason)
		}
	}
	own := mapping.Controls[0]
	if d := cmp.Diff(finding.Controls(), append([]string{own.ID}, own.Also...)); d != "" {
		t.Errorf("the first control is another one than findings carry (-findings +mapping):\n%s", d)
	}
	page := read(t, "docs/control-mapping.md")
	if same, err := docs.Between(page, "mapping", mapping.Table()); err != nil || same != page {
		t.Errorf("docs/control-mapping.md is not up to date (make generate): %v", err)
	}
}

// TestLinks: what a page links to within the repository is there, sections too.
func TestLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	err := filepath.WalkDir(repository, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && strings.HasPrefix(entry.Name(), ".") && path != repository, entry.IsDir() && entry.Name() == "testdata":
			return filepath.SkipDir
		case !strings.HasSuffix(path, ".md"):
			return nil
		}
		for _, found := range link.FindAllStringSubmatch(read(t, strings.TrimPrefix(path, repository+"/")), -1) {
			target, anchor, _ := strings.Cut(found[1], "#")
			if strings.Contains(target, "://") {
				continue
			}
			file := path
			if target != "" {
				file = filepath.Join(filepath.Dir(path), target)
			}
			if _, err := os.Stat(file); err != nil {
				t.Errorf("%s: %s is not there", path, found[1])
				continue
			}
			if anchor != "" && !slices.Contains(anchors(t, strings.TrimPrefix(file, repository+"/")), anchor) {
				t.Errorf("%s: %s has no such section", path, found[1])
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// anchors are those that forges give a page's sections.
func anchors(t *testing.T, page string) []string {
	t.Helper()
	var all []string
	for line := range strings.Lines(read(t, page)) {
		if title := strings.TrimLeft(line, "#"); title != line && strings.HasPrefix(title, " ") {
			anchor := regexp.MustCompile(`[^\p{L}\p{N}\- ]`).ReplaceAllString(strings.ToLower(strings.TrimSpace(title)), "")
			all = append(all, strings.ReplaceAll(anchor, " ", "-"))
		}
	}
	return all
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(repository, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
