// SPDX-License-Identifier: Apache-2.0

// Package docs reads the documentation: the parts that are generated from the code
// (go run ./test/docs/generate), and the commands in it.
package docs

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/control"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// Mapping is docs/control-mapping.json: which control each requirement and reason serves.
type Mapping struct {
	APIVersion string    `json:"apiVersion"`
	Controls   []Control `json:"controls"`
}

// Control is one control, with all that is required for it.
type Control struct {
	ID               string        `json:"id"`
	Name             string        `json:"name"`
	Title            string        `json:"title"`
	Neighbour        bool          `json:"neighbour"`
	References       []Reference   `json:"references"`
	Mappings         []Framework   `json:"mappings"`
	Automated        string        `json:"automated"`
	LeftToTheAuditor string        `json:"leftToTheAuditor"`
	Requirements     []Requirement `json:"requirements"`
}

// Reference is the control's number in one version of a benchmark.
type Reference struct {
	Benchmark string `json:"benchmark"`
	Version   string `json:"version"`
	Number    string `json:"number"`
	ID        string `json:"id"`
}

// Framework is another framework with the same requirement.
type Framework struct {
	Framework string   `json:"framework"`
	Numbers   []string `json:"numbers"`
}

// Requirement of a control, and the reasons for which it is not met.
type Requirement struct {
	ID       finding.Requirement `json:"id"`
	Scopes   []string            `json:"scopes"`
	Optional bool                `json:"optional"`
	// Supplementary: it may be unknown, whatever the reason.
	Supplementary bool             `json:"supplementary"`
	Strict        bool             `json:"strict"`
	Reasons       []finding.Reason `json:"reasons"`
}

// NewMapping is the mapping of all controls, with the reasons that checks give for each
// requirement.
func NewMapping(reasons func(finding.Requirement) []finding.Reason) Mapping {
	m := Mapping{APIVersion: "mapping.kubelet-https-guard.io/v1"}
	for _, c := range control.Table() {
		out := Control{
			ID: c.ID, Name: c.String(), Title: c.Title, Neighbour: c.Neighbour, Automated: c.Automated,
			LeftToTheAuditor: c.LeftToTheAuditor,
			References:       []Reference{}, Mappings: []Framework{}, Requirements: []Requirement{},
		}
		for _, ref := range c.Refs {
			out.References = append(out.References, Reference{ref.Benchmark, ref.Version, ref.Number, ref.ID()})
		}
		for _, m := range c.Mappings {
			out.Mappings = append(out.Mappings, Framework(m))
		}
		for _, required := range c.Requirements {
			out.Requirements = append(out.Requirements, requirementOf(required, reasons(required.Requirement)))
		}
		m.Controls = append(m.Controls, out)
	}
	return m
}

func requirementOf(required control.Required, reasons []finding.Reason) Requirement {
	out := Requirement{
		ID:       required.Requirement,
		Optional: required.Optional, Supplementary: required.Supplementary,
		Strict:  required.Strict,
		Reasons: append([]finding.Reason{}, reasons...),
	}
	slices.Sort(out.Reasons)
	out.Reasons = slices.Compact(out.Reasons)
	for _, scope := range required.Scopes {
		out.Scopes = append(out.Scopes, scope.String())
	}
	return out
}

// JSON formats docs/control-mapping.json.
func (m Mapping) JSON() (string, error) {
	var text strings.Builder
	encoder := json.NewEncoder(&text)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(m)
	return text.String(), err
}

// Markdown formats the mapping for docs/control-mapping.md: a table of the controls, and a section
// with the requirements of each.
func (m Mapping) Markdown() string {
	var text strings.Builder
	text.WriteString("| control | numbers | counts in the exit code | other frameworks |\n| --- | --- | --- | --- |\n")
	for _, c := range m.Controls {
		var numbers, frameworks []string
		for _, ref := range c.References {
			numbers = append(numbers, "`"+ref.ID+"`")
		}
		for _, f := range c.Mappings {
			frameworks = append(frameworks, f.Framework+" "+strings.Join(f.Numbers, ", "))
		}
		counts := "yes"
		if c.Neighbour {
			counts = "no, a neighbour"
		}
		fmt.Fprintf(&text, "| [`%s`](#%s)<br>%s | %s | %s | %s |\n", c.ID, c.ID, c.Title,
			orNone(numbers, ", "), counts, orNone(frameworks, "; "))
	}
	for _, c := range m.Controls {
		fmt.Fprintf(&text, "\n### %s\n\n%s.\n\n", c.ID, c.fullName())
		fmt.Fprintf(&text, "%s\n\n%s\n\n", wrapped("**Checked.** "+c.Automated),
			wrapped("**Left to the auditor.** "+c.LeftToTheAuditor))
		text.WriteString("| requirement | observed in the | reasons |\n| --- | --- | --- |\n")
		for _, r := range c.Requirements {
			fmt.Fprintf(&text, "| `%s`%s | %s | %s |\n", r.ID, r.notes(), strings.Join(r.Scopes, ", "), r.links())
		}
	}
	return text.String()
}

func (c Control) fullName() string {
	if c.Name == c.Title {
		return c.Title
	}
	return c.Name + ": " + c.Title
}

// notes are the special rules for the requirement in its control.
func (r Requirement) notes() string {
	var notes []string
	switch {
	case r.Supplementary:
		notes = append(notes, "may be unknown")
	case r.Optional:
		notes = append(notes, "optional")
	}
	if r.Strict {
		notes = append(notes, "a warning fails it")
	}
	if notes == nil {
		return ""
	}
	return " (" + strings.Join(notes, ", ") + ")"
}

func (r Requirement) links() string {
	var links []string
	for _, reason := range r.Reasons {
		links = append(links, "["+string(reason)+"](runbook.md#"+strings.ToLower(string(reason))+")")
	}
	return orNone(links, ", ")
}

// wrapped breaks a paragraph into lines of at most 120 characters, as in all prose of the
// documentation. A longer word has its own line.
func wrapped(paragraph string) string {
	const width = 120
	var text strings.Builder
	column := 0
	for word := range strings.FieldsSeq(paragraph) {
		length := utf8.RuneCountInString(word)
		switch {
		case column == 0:
		case column+1+length > width:
			text.WriteByte('\n')
			column = 0
		default:
			text.WriteByte(' ')
			column++
		}
		text.WriteString(word)
		column += length
	}
	return text.String()
}

func orNone(words []string, separator string) string {
	if len(words) == 0 {
		return "none"
	}
	return strings.Join(words, separator)
}

// Between replaces the text between a page's markers <!-- name --> and <!-- /name -->. It returns an
// error if the page does not have them.
func Between(page, name, text string) (string, error) {
	begin, end := "<!-- "+name+" -->\n", "<!-- /"+name+" -->"
	before, rest, ok := strings.Cut(page, begin)
	_, after, closed := strings.Cut(rest, end)
	if !ok || !closed {
		return "", fmt.Errorf("no markers %q", name)
	}
	return before + begin + text + end + after, nil
}

// Block is a block of commands in a page.
type Block struct {
	Page, Section string
	Line          int
	Script        string
}

// GettingStarted is the page that leads from a clone to a guarded cluster.
const GettingStarted = "getting-started.md"

// Pages are the other pages with commands that tests run, in the order of the tests: each page depends on
// the state of the cluster that the page before leaves.
func Pages() []string {
	return []string{"install.md", "runbook.md", "operations.md", "evidence.md", "uninstall.md"}
}

// Blocks are the blocks of a page that are marked as sh.
func Blocks(repository, page string) ([]Block, error) {
	data, err := os.ReadFile(filepath.Join(repository, "docs", page))
	if err != nil {
		return nil, err
	}
	var blocks []Block
	section, within := "", -1
	for i, line := range strings.Split(string(data), "\n") {
		switch {
		case within >= 0 && line == "```":
			within = -1
		case within >= 0:
			blocks[within].Script += line + "\n"
		case line == "```sh":
			blocks = append(blocks, Block{Page: page, Section: section, Line: i + 1})
			within = len(blocks) - 1
		case strings.HasPrefix(line, "#"):
			section = strings.TrimLeft(line, "# ")
		}
	}
	return blocks, nil
}

// fence is a line that begins or ends a block of code.
var fence = regexp.MustCompile("^ *```[a-z]*$")

// BrokenFences returns the numbers of the lines of a page that contain a fence and something else, as after wrapping,
// and that of a fence whose block has no end. [Blocks] does not find such blocks, so nothing would run them.
func BrokenFences(page string) []int {
	var broken []int
	begun := 0
	for i, line := range strings.Split(page, "\n") {
		switch {
		case !strings.Contains(line, "```"):
		case !fence.MatchString(line):
			broken = append(broken, i+1)
		case begun == 0:
			begun = i + 1
		default:
			begun = 0
		}
	}
	if begun > 0 {
		broken = append(broken, begun)
	}
	return broken
}

// Sections are the section titles of one level of a page, such as "## ", in their order.
func Sections(repository, page, level string) ([]string, error) {
	data, err := os.ReadFile(filepath.Join(repository, "docs", page))
	if err != nil {
		return nil, err
	}
	var titles []string
	for line := range strings.Lines(string(data)) {
		if title, ok := strings.CutPrefix(line, level); ok {
			titles = append(titles, strings.TrimSpace(title))
		}
	}
	return slices.Clip(titles), nil
}
