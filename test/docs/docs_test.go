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
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/docs"
)

const repository = "../.."

// TestRunbook: there is one section for each reason and no other, with its severity and all required
// parts.
func TestRunbook(t *testing.T) {
	sections, err := docs.Sections(repository, "runbook.md", "## ")
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, reason := range finding.Reasons() {
		want = append(want, string(reason))
	}
	got := slices.DeleteFunc(slices.Sorted(slices.Values(sections)),
		func(title string) bool { return title == "First look" })
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("sections (-reasons +sections):\n%s", d)
	}
	text := read(t, "docs/runbook.md")
	for _, reason := range finding.Reasons() {
		_, section, _ := strings.Cut(text, "\n## "+string(reason)+"\n")
		section, _, _ = strings.Cut(section, "\n## ")
		if !strings.HasPrefix(strings.TrimSpace(section), reason.Severity()+".") {
			t.Errorf("%s: the section does not begin with its severity, %s", reason, reason.Severity())
		}
		for _, word := range []string{"means", "why it matters", "confirm", "fix", "false alarm"} {
			if !regexp.MustCompile(`(?i)\*\*[a-z, ]*` + word + `[a-z, ]*[.?]\*\*`).MatchString(section) {
				t.Errorf("%s: the section does not say: %s", reason, word)
			}
		}
		if !strings.HasSuffix(reason.HelpURI(), "/docs/runbook.md#"+strings.ToLower(string(reason))) {
			t.Errorf("%s: the link is %s", reason, reason.HelpURI())
		}
	}
}

// TestMapping: every requirement has reasons, every reason serves a requirement, and the files are up
// to date.
func TestMapping(t *testing.T) {
	mapping := docs.NewMapping(check.Reasons)
	known := finding.Reasons()
	mapped := map[finding.Reason]bool{}
	for _, c := range mapping.Controls {
		for _, r := range c.Requirements {
			// Only findings have reasons. This requirement is only recorded.
			if len(r.Reasons) == 0 && r.ID != finding.Guard.Requires(finding.Action) {
				t.Errorf("%s: no check answers %s", c.ID, r.ID)
			}
			for _, reason := range r.Reasons {
				if mapped[reason] = true; !slices.Contains(known, reason) {
					t.Errorf("%s: %s has the unknown reason %s", c.ID, r.ID, reason)
				}
			}
		}
	}
	for _, reason := range known {
		if !mapped[reason] {
			t.Errorf("%s serves no control", reason)
		}
	}
	text, err := mapping.JSON()
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(text, read(t, "docs/control-mapping.json")); d != "" {
		t.Errorf("docs/control-mapping.json is not up to date (make generate):\n%s", d)
	}
	page := read(t, "docs/control-mapping.md")
	if same, err := docs.Between(page, "mapping", mapping.Markdown()); err != nil || same != page {
		t.Errorf("docs/control-mapping.md is not up to date (make generate): %v", err)
	}
}

// TestMarkdown: the page has each control's requirements with their special rules, and links to the
// runbook.
func TestMarkdown(t *testing.T) {
	page := docs.NewMapping(func(finding.Requirement) []finding.Reason {
		return []finding.Reason{finding.WeakKey, finding.KeyMissing, finding.WeakKey}
	}).Markdown()
	const links = "[KeyMissing](runbook.md#keymissing), [WeakKey](runbook.md#weakkey)"
	for _, line := range []string{
		"| [`use-https`](#use-https)<br>Use https for kubelet connections | `cis-ocp-1.7:1.2.4`, `cis-ocp-1.8:1.2.2`, " +
			"`cis-ocp-1.9:1.2.2`, `cis-ocp-2.0:1.2.2` | yes | " +
			"NIST SP 800-53 SC-8, SC-8(1), CM-6; PCI-DSS 4.0 2.2.7, 2.2.5; ",
		"| [`guard-in-force`](#guard-in-force)<br>The guard is in force | none | yes | none |\n",
		"| [`kubelet-ca`](#kubelet-ca)<br>Verify that the kubelet certificate authority is set | `cis-ocp-1.7:1.2.6`, " +
			"`cis-ocp-1.8:1.2.4`, ",
		"\n### kubelet-ca\n\nCIS OpenShift 1.2.6 (1.2.4 from v1.8): Verify that the kubelet certificate authority is set.\n",
		"\n### guard-in-force\n\nThe guard is in force.\n",
		"\n**Checked.** ",
		"\n**Left to the auditor.** ",
		"| `config/readable` | node, cluster | " + links + " |\n",
		"| `config/certificate-authority` (a warning fails it) | node, cluster | " + links + " |\n",
		"| `kubelet/tls` (optional) | node | " + links + " |\n",
	} {
		if !strings.Contains(page, line) {
			t.Errorf("the page has no line %q", line)
		}
	}
	for line := range strings.Lines(page) {
		if utf8.RuneCountInString(strings.TrimSuffix(line, "\n")) > 120 && !strings.HasPrefix(line, "|") {
			t.Errorf("the page has a line of prose longer than 120 characters: %s", line)
		}
	}
}

// TestFences: each block of code is a block on every page, so make docs-test runs all commands.
func TestFences(t *testing.T) {
	eachPage(t, func(page string) {
		for _, line := range docs.BrokenFences(read(t, page)) {
			t.Errorf("%s:%d: the fence of a block of code shares its line, or its block has no end", page, line)
		}
	})
}

func TestBrokenFences(t *testing.T) {
	cases := map[string]struct {
		page string
		want []int
	}{
		"no block":                    {page: "text with `code`\n"},
		"two blocks":                  {page: "```sh\nls\n```\n\n- item\n\n  ```text\n  x\n  ```\n"},
		"the first line is joined":    {page: "```sh ls\nls\n```\n", want: []int{1, 3}},
		"the last line is joined":     {page: "```sh\nls ```\n", want: []int{2, 1}},
		"all lines are joined":        {page: "text\n```sh ls\nls ```\n", want: []int{2, 3}},
		"the second block has no end": {page: "```sh\nls\n```\n```sh\nls\n", want: []int{4}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if d := cmp.Diff(c.want, docs.BrokenFences(c.page)); d != "" {
				t.Errorf("lines (-want +got):\n%s", d)
			}
		})
	}
}

// TestLinks: link targets within the repository exist, sections included.
func TestLinks(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	eachPage(t, func(page string) {
		for _, found := range link.FindAllStringSubmatch(read(t, page), -1) {
			target, anchor, _ := strings.Cut(found[1], "#")
			if strings.Contains(target, "://") {
				continue
			}
			file := page
			if target != "" {
				file = filepath.Join(filepath.Dir(page), target)
			}
			if _, err := os.Stat(filepath.Join(repository, file)); err != nil {
				t.Errorf("%s: %s does not exist", page, found[1])
				continue
			}
			if anchor != "" && !slices.Contains(anchors(t, file), anchor) {
				t.Errorf("%s: the section %s does not exist", page, found[1])
			}
		}
	})
}

// eachPage calls check with the path of each Markdown page of the repository, relative to its root.
func eachPage(t *testing.T, check func(page string)) {
	t.Helper()
	err := filepath.WalkDir(repository, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && strings.HasPrefix(entry.Name(), ".") && path != repository,
			entry.IsDir() && entry.Name() == "testdata":
			return filepath.SkipDir
		case strings.HasSuffix(path, ".md"):
			check(strings.TrimPrefix(path, repository+"/"))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// anchors are the anchors that forges generate for a page's sections.
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
