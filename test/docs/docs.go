// SPDX-License-Identifier: Apache-2.0

// Package docs knows the documentation: what in it is generated from the code
// (go run ./test/docs/generate), and which commands stand in it.
package docs

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Mapping is docs/control-mapping.json.
type Mapping struct {
	APIVersion string    `json:"apiVersion"`
	Controls   []Control `json:"controls"`
}

// Control is one control of a benchmark, and what is looked at for it.
type Control struct {
	ID               string   `json:"id"`
	Also             []string `json:"also"`
	Benchmark        string   `json:"benchmark"`
	Title            string   `json:"title"`
	Relation         string   `json:"relation"`
	Reasons          []string `json:"reasons"`
	Automated        string   `json:"automated"`
	LeftToTheAuditor string   `json:"leftToTheAuditor"`
}

// ReadMapping reads it, strictly.
func ReadMapping(repository string) (Mapping, error) {
	var m Mapping
	data, err := os.ReadFile(filepath.Join(repository, "docs", "control-mapping.json"))
	if err != nil {
		return m, err
	}
	decoder := json.NewDecoder(strings.NewReader(string(data)))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&m); err != nil {
		return m, fmt.Errorf("control-mapping.json: %w", err)
	}
	return m, nil
}

// Table is the mapping as Markdown.
func (m Mapping) Table() string {
	var text strings.Builder
	text.WriteString("| control | relation | automated here | left to the auditor | reasons |\n| --- | --- | --- | --- | --- |\n")
	for _, c := range m.Controls {
		ids := strings.Join(append([]string{"`" + c.ID + "`"}, quoted(c.Also)...), ", ")
		links := make([]string, len(c.Reasons))
		for i, reason := range c.Reasons {
			links[i] = "[" + reason + "](runbook.md#" + strings.ToLower(reason) + ")"
		}
		fmt.Fprintf(&text, "| %s<br>%s | %s | %s | %s | %s |\n", ids, c.Title, c.Relation, c.Automated, c.LeftToTheAuditor, strings.Join(links, ", "))
	}
	return text.String()
}

func quoted(words []string) []string {
	out := make([]string, len(words))
	for i, word := range words {
		out[i] = "`" + word + "`"
	}
	return out
}

// Between replaces what stands between a page's markers <!-- name --> and
// <!-- /name -->. The error says that there are none.
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

// Pages are the pages with commands that are run, in the order in which they are:
// each finds the cluster as the one before has left it.
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

// Sections are the titles of a page of one level, such as "## ", in their order.
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
