// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	_ "embed" // words.txt
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// columns is how wide prose in Markdown may be. Tables, code, headings, URLs and link
// targets are not counted.
const columns = 120

// Hit is one place to change.
type Hit struct {
	File string
	Line int
	// Found is the phrase, or the width of the line.
	Found string
	// Instead is what to do about it.
	Instead string
}

// String is a hit as file:line: found; instead.
func (h Hit) String() string {
	return fmt.Sprintf("%s:%d: %s; %s", h.File, h.Line, h.Found, h.Instead)
}

// Phrase is a line of words.txt.
type Phrase struct {
	Expression *regexp.Regexp
	Instead    string
	Example    string
}

//go:embed words.txt
var words string

// Phrases parses words.txt. The error names a line that does not have its form.
func Phrases() ([]Phrase, error) {
	var phrases []Phrase
	for i, line := range strings.Split(words, "\n") {
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		fields := strings.Split(line, "\t")
		if len(fields) != 3 {
			return nil, fmt.Errorf("words.txt:%d: has %d fields, want 3, with tabs between", i+1, len(fields))
		}
		expression, err := regexp.Compile("(?im)" + fields[0])
		if err != nil {
			return nil, fmt.Errorf("words.txt:%d: %w", i+1, err)
		}
		phrases = append(phrases, Phrase{Expression: expression, Instead: fields[1], Example: fields[2]})
	}
	return phrases, nil
}

// exempt are files that need not be in our words: other people's texts, test data, and
// the list itself.
func exempt(file string) bool {
	switch path.Base(file) {
	case "LICENSE", "go.sum":
		return true
	}
	return file == "test/style/words.txt" || path.Ext(file) == ".xsd" ||
		slices.Contains(strings.Split(file, "/"), "testdata")
}

// Check reads the files and returns what to change in them, in the order of the files
// and lines. It skips binary files, files that are exempt, and files that do not exist
// (deleted but still tracked). The error names the file that could not be read.
func Check(tree fs.FS, files []string, phrases []Phrase) ([]Hit, error) {
	var hits []Hit
	for _, file := range files {
		if exempt(file) {
			continue
		}
		info, err := fs.Stat(tree, file)
		if errors.Is(err, fs.ErrNotExist) || err == nil && !info.Mode().IsRegular() {
			continue
		}
		data, err := fs.ReadFile(tree, file)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", file, err)
		}
		if bytes.IndexByte(data, 0) >= 0 || !utf8.Valid(data) {
			continue
		}
		text := withoutExamples(string(data))
		found := checkPhrases(file, text, phrases)
		if path.Ext(file) == ".md" {
			found = append(found, checkWidth(file, text)...)
		}
		slices.SortStableFunc(found, func(a, b Hit) int { return a.Line - b.Line })
		hits = append(hits, found...)
	}
	return hits, nil
}

var (
	// examples are what a page quotes as bad style.
	examples = regexp.MustCompile(`(?s)<!-- style: .*?<!-- /style -->`)
	// lineBreak joins two lines of one sentence: it includes a comment's marker, but no
	// blank line.
	lineBreak = regexp.MustCompile(`[ \t]*\n[ \t]*((//|#+|\*|>)[ \t]+)?`)
)

// withoutExamples removes what lies between the markers, and keeps the numbers of lines.
func withoutExamples(text string) string {
	return examples.ReplaceAllStringFunc(text, func(s string) string {
		return strings.Repeat("\n", strings.Count(s, "\n"))
	})
}

func checkPhrases(file, text string, phrases []Phrase) []Hit {
	// A line break becomes one space, so that a phrase is found across it. starts are the
	// offsets in the result at which lines begin.
	var joined strings.Builder
	starts := []int{0}
	rest := 0
	for _, at := range lineBreak.FindAllStringIndex(text, -1) {
		joined.WriteString(text[rest:at[0]])
		joined.WriteByte(' ')
		starts = append(starts, joined.Len())
		rest = at[1]
	}
	joined.WriteString(text[rest:])
	var hits []Hit
	for _, phrase := range phrases {
		for _, at := range phrase.Expression.FindAllStringIndex(joined.String(), -1) {
			line, exact := slices.BinarySearch(starts, at[0])
			if exact {
				line++
			}
			hits = append(hits, Hit{
				File: file, Line: line,
				Found:   fmt.Sprintf("%q", joined.String()[at[0]:at[1]]),
				Instead: "say: " + phrase.Instead,
			})
		}
	}
	return hits
}

// notCounted are URLs, the targets of links, and code that fills a line and cannot be wrapped.
var notCounted = regexp.MustCompile("\\]\\([^)\\s]*\\)|<?https?://[^\\s)>]*>?|^`[^`]*`[.,:;]?$")

func checkWidth(file, text string) []Hit {
	var hits []Hit
	fenced, blank, code := false, true, false
	for i, line := range strings.Split(text, "\n") {
		content := strings.TrimLeft(line, " \t")
		if strings.HasPrefix(content, "```") {
			fenced = !fenced
			continue
		}
		indented := len(line)-len(content) >= 4 || strings.HasPrefix(line, "\t")
		code = indented && (code || blank)
		blank = content == ""
		if fenced || code || strings.HasPrefix(content, "|") || strings.HasPrefix(line, "#") ||
			strings.HasPrefix(content, "<!--") {
			continue
		}
		if width := utf8.RuneCountInString(notCounted.ReplaceAllString(line, "")); width > columns {
			hits = append(hits, Hit{
				File: file, Line: i + 1,
				Found:   fmt.Sprintf("%d columns", width),
				Instead: fmt.Sprintf("wrap at %d (tables, code and URLs are not counted)", columns),
			})
		}
	}
	return hits
}
