// SPDX-License-Identifier: Apache-2.0

package docs

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// ADR is one architecture decision record, docs/adr/NNNN-title.md.
type ADR struct {
	// File is its name in docs/adr.
	File string
	// Number has four digits.
	Number string
	Title  string
	// Status is "accepted" or "superseded by " and a link.
	Status string
	// Dates are the days of the decision and its amendments, as in 2026-11-22, 2026-11-29.
	Dates string
}

// adrForm is what every record looks like. Its sections are not empty.
var adrForm = regexp.MustCompile(`\A# (\d{4}): ([^\n]+)\n\n` +
	`- Status: (accepted|superseded by \[\d{4}\]\([^)\n]+\))\n` +
	`- Date: (\d{4}-\d\d-\d\d(?:, \d{4}-\d\d-\d\d)*)\n\n` +
	`## Context\n\n\S[\s\S]*\n\n## Decision\n\n\S[\s\S]*\n\n## Consequences\n\n\S[\s\S]*\n\z`)

// ADRs reads the records of a repository, in the order of their numbers. The error names a
// file that does not have the form of a record, or whose number is not the next one.
func ADRs(repository string) ([]ADR, error) {
	paths, err := filepath.Glob(filepath.Join(repository, "docs", "adr", "[0-9]*.md")) // sorted
	if err != nil {
		return nil, err
	}
	var records []ADR
	for i, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		file := filepath.Base(path)
		match := adrForm.FindStringSubmatch(string(data))
		if match == nil {
			return nil, fmt.Errorf("%s: does not have the form that docs/adr/README.md describes", file)
		}
		want := fmt.Sprintf("%04d", i+1)
		if match[1] != want || !strings.HasPrefix(file, want+"-") {
			return nil, fmt.Errorf("%s: file name and title must begin with %s, the next number", file, want)
		}
		records = append(records, ADR{File: file, Number: match[1], Title: match[2], Status: match[3], Dates: match[4]})
	}
	return records, nil
}

// ADRIndex is the table of records in docs/adr/README.md.
func ADRIndex(records []ADR) string {
	var table strings.Builder
	table.WriteString("| | decision | status | date |\n| --- | --- | --- | --- |\n")
	for _, r := range records {
		fmt.Fprintf(&table, "| %s | [%s](%s) | %s | %s |\n", r.Number, r.Title, r.File, r.Status, r.Dates)
	}
	return table.String()
}
