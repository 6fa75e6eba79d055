// SPDX-License-Identifier: Apache-2.0

package kubeletconfig

import (
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// logicalLines returns the lines of a unit file: a backslash at the end joins a line with the
// next one. Empty lines and comments are removed, also comments within a joined line
// (systemd.syntax(7)).
func logicalLines(text string) []string {
	var lines []string
	joined, open := "", false
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		trimmed := strings.TrimSpace(line)
		if strings.HasPrefix(trimmed, "#") || strings.HasPrefix(trimmed, ";") {
			continue
		}
		if before, more := strings.CutSuffix(line, `\`); more {
			joined, open = joined+before+" ", true
			continue
		}
		joined = strings.TrimSpace(joined + line)
		if joined != "" {
			lines = append(lines, joined)
		}
		joined, open = "", false
	}
	if open {
		lines = append(lines, strings.TrimSpace(joined))
	}
	return lines
}

var errQuote = errors.New("a quote is not closed")

// splitWords splits as systemd does (src/basic/extract-word.c): at white space outside
// quotes, and removes the quotes. With escapes, as in a unit file, a backslash begins an
// escape as in C, and an open quote is an error. Without, as in a variable that is split, a
// backslash makes the next character literal.
func splitWords(text string, escapes bool) ([]string, error) {
	var words []string
	var b strings.Builder
	inWord, quote := false, byte(0)
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case c == '\\' && i+1 < len(text):
			inWord = true
			if escapes {
				piece, length := unescape(text[i+1:])
				b.WriteString(piece)
				i += length
			} else {
				i++
				b.WriteByte(text[i])
			}
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == '"' || c == '\''):
			quote, inWord = c, true
		case quote == 0 && strings.IndexByte(" \t\n\r", c) >= 0:
			if inWord {
				words = append(words, b.String())
				b.Reset()
			}
			inWord = false
		default:
			inWord = true
			b.WriteByte(c)
		}
	}
	if quote != 0 && escapes {
		return nil, errQuote
	}
	if inWord {
		words = append(words, b.String())
	}
	return words, nil
}

// unescape reads an escape after its backslash (systemd src/basic/escape.c, cunescape_one).
// Anything that is not an escape keeps its backslash. length is the number of bytes read.
func unescape(text string) (piece string, length int) {
	const simple = `abfnrtv\"'s`
	const means = "\a\b\f\n\r\t\v\\\"' "
	if i := strings.IndexByte(simple, text[0]); i >= 0 {
		return means[i : i+1], 1
	}
	number := func(digits string, base int) (string, bool) {
		n, err := strconv.ParseUint(digits, base, 8)
		return string([]byte{byte(n)}), err == nil && n != 0
	}
	switch {
	case text[0] == 'x' && len(text) >= 3:
		if piece, ok := number(text[1:3], 16); ok {
			return piece, 3
		}
	case text[0] >= '0' && text[0] <= '7' && len(text) >= 3:
		if piece, ok := number(text[:3], 8); ok {
			return piece, 3
		}
	}
	return `\` + text[:1], 1
}

// parseEnvironment reads a file of variables (systemd src/basic/env-file.c): lines
// NAME=value, with or without quotes. A backslash makes the next character literal, also the
// end of the line. In double quotes it does so only before "\, `, " and $, in single quotes
// never.
func parseEnvironment(data []byte) map[string]string {
	environment := map[string]string{}
	text := string(data)
	for len(text) > 0 {
		line, rest, _ := strings.Cut(text, "\n")
		trimmed := strings.TrimLeft(line, " \t\r")
		if trimmed == "" || trimmed[0] == '#' || trimmed[0] == ';' {
			text = rest
			continue
		}
		name, _, isSet := strings.Cut(line, "=")
		if !isSet {
			text = rest
			continue
		}
		var value string
		value, text = environmentValue(text[len(name)+1:])
		environment[strings.TrimSpace(name)] = value
	}
	return environment
}

// environmentValue reads a value up to the end of its line, and returns the rest of the text.
func environmentValue(text string) (value, rest string) {
	text = strings.TrimLeft(text, " \t")
	var b strings.Builder
	quote := byte(0)
	kept := 0 // how many bytes of the value must not be trimmed
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case c == '\\' && quote != '\'' && i+1 < len(text):
			i++
			switch {
			case text[i] == '\n':
				continue
			case quote == '"' && !strings.ContainsRune("\"\\`$", rune(text[i])):
				b.WriteByte('\\')
			}
			b.WriteByte(text[i])
			kept = b.Len()
		case quote == 0 && c == '\n':
			return b.String()[:kept] + strings.TrimRight(b.String()[kept:], " \t\r"), text[i+1:]
		case quote != 0 && c == quote:
			quote = 0
			kept = b.Len()
		case quote == 0 && (c == '"' || c == '\''):
			quote = c
		default:
			b.WriteByte(c)
		}
	}
	return b.String()[:kept] + strings.TrimRight(b.String()[kept:], " \t\r"), ""
}

func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }
