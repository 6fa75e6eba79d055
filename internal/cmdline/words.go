// SPDX-License-Identifier: Apache-2.0

package cmdline

import (
	"slices"
	"strconv"
	"strings"

	"mvdan.cc/sh/v3/syntax"
)

// splitter collects the words that one word of a script expands to.
type splitter struct {
	words []word
	// current is the word that is being collected. If quoted is true, it counts even if it is
	// empty.
	current word
	quoted  bool
	// pattern is true if the rest of the word is a pattern of file names, or has alternatives.
	pattern bool
}

func (f *splitter) add(v value) {
	f.current.value = append(f.current.value, v...)
}

// patternHere notes that the rest of the word depends on which files exist. Each word that it
// expands to begins with the text before it.
func (f *splitter) patternHere(why string) {
	f.current.several = f.current.several || len(f.current.value.merged()) == 0
	f.add(value{{why: why, plain: !f.current.several}})
	f.pattern = true
}

// unknown adds an unquoted part that may be several words.
func (f *splitter) unknown(why string) {
	f.add(value{{why: why}})
	f.current.several = true
}

func (f *splitter) end() {
	if f.quoted || len(f.current.value.merged()) > 0 {
		f.words = append(f.words, f.current)
	}
	f.current, f.quoted, f.pattern = word{}, false, false
}

const (
	aPattern     = "it is a pattern of file names"
	blanks       = " \t\n"
	patternChars = "*?["
)

// unquoted adds the value of an expansion that is not quoted: it is split at blanks.
func (s *shell) unquoted(f *splitter, v value) {
	for _, p := range v {
		switch {
		case p.why != "" && p.plain && s.defaultIFS:
			f.add(value{p})
			continue
		case p.why != "":
			f.unknown(p.why)
			continue
		case !s.defaultIFS && p.text != "":
			f.unknown("the script sets IFS")
			continue
		}
		rest := p.text
		for rest != "" {
			i := strings.IndexAny(rest, blanks)
			if i == 0 {
				f.end()
				rest = strings.TrimLeft(rest, blanks)
				continue
			}
			if i < 0 {
				i = len(rest)
			}
			field := rest[:i]
			rest = rest[i:]
			if at := strings.IndexAny(field, patternChars); at >= 0 {
				f.add(literal(field[:at]))
				f.patternHere(aPattern)
				continue
			}
			f.add(literal(field))
		}
	}
}

// fields returns the words that a word of a script expands to.
func (s *shell) fields(w *syntax.Word) []word {
	if w == nil {
		return nil
	}
	f := &splitter{}
	if s.kind != "dash" && hasBraces(w) {
		// {a,b}: only bash expands it to several words. Each begins with the text before it.
		s.sideEffects(w)
		if lit, ok := w.Parts[0].(*syntax.Lit); ok {
			before, _, _ := strings.Cut(lit.Value, "{")
			if !strings.ContainsAny(before, `\~`+patternChars) {
				f.add(s.placeholders.value(before))
			}
		}
		f.patternHere("it has braces, which may expand to several words")
		f.end()
		return f.words
	}
	for i, p := range w.Parts {
		s.part(f, p, i == 0)
		if s.stopped != "" {
			return nil
		}
	}
	f.end()
	s.spend(len(f.words))
	return f.words
}

// hasBraces reports whether the word has a brace expansion. It searches a copy, because the
// search changes the word.
func hasBraces(w *syntax.Word) bool {
	maybe := slices.ContainsFunc(w.Parts, func(p syntax.WordPart) bool {
		lit, ok := p.(*syntax.Lit)
		return ok && strings.Contains(lit.Value, "{")
	})
	if !maybe {
		return false
	}
	c := &syntax.Word{Parts: slices.Clone(w.Parts)}
	syntax.SplitBraces(c)
	return slices.ContainsFunc(c.Parts, func(p syntax.WordPart) bool {
		_, braces := p.(*syntax.BraceExp)
		return braces
	})
}

func (s *shell) part(f *splitter, p syntax.WordPart, first bool) {
	switch p := p.(type) {
	case *syntax.Lit:
		s.literal(f, p.Value, first)
	case *syntax.SglQuoted:
		f.quoted = true
		f.add(s.single(p))
	case *syntax.DblQuoted:
		s.double(f, p)
	case *syntax.ParamExp:
		list, isList := s.parameter(p, false)
		if !isList {
			s.unquoted(f, list[0].value)
			f.current.several = f.current.several || list[0].several
			return
		}
		for i, element := range list {
			if i > 0 {
				f.end()
			}
			if element.several {
				f.unknown(element.why())
				continue
			}
			s.unquoted(f, element.value)
		}
	case *syntax.CmdSubst:
		if len(p.Stmts) > 0 { // else a comment within a command, `# like this`
			f.unknown("it is the output of a command")
		}
	case *syntax.ArithmExp:
		s.sideEffects(p)
		f.add(value{{why: "it is computed", plain: true}})
	case *syntax.ProcSubst:
		f.add(value{{why: "it is a pipe to a command", plain: true}})
	default: // extended patterns
		f.patternHere(aPattern)
	}
}

// literal adds text that is not quoted.
func (s *shell) literal(f *splitter, text string, first bool) {
	if first && strings.HasPrefix(text, "~") {
		f.add(value{{why: "it is a path in a home directory", plain: true}})
		return
	}
	var plain strings.Builder
	flush := func() {
		f.add(s.placeholders.value(plain.String()))
		plain.Reset()
	}
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\' && i+1 < len(text):
			i++
			plain.WriteByte(text[i])
			f.quoted = true
		case strings.IndexByte(patternChars, c) >= 0 && text != "[" && text != "[[":
			flush()
			f.patternHere(aPattern)
		default:
			plain.WriteByte(c)
		}
	}
	flush()
}

func (s *shell) single(p *syntax.SglQuoted) value {
	if p.Dollar && (s.kind != "bash" || strings.Contains(p.Value, `\`)) {
		return value{{why: "it has escape sequences that are not supported"}}
	}
	return s.placeholders.value(p.Value)
}

// double adds text in double quotes. "$@" in it expands to several words.
func (s *shell) double(f *splitter, p *syntax.DblQuoted) {
	f.quoted = f.quoted || len(p.Parts) != 1 || !isAll(p.Parts[0])
	if p.Dollar {
		f.add(value{{why: "the shell translates it"}})
		return
	}
	for _, inner := range p.Parts {
		switch inner := inner.(type) {
		case *syntax.Lit:
			f.add(s.placeholders.value(unescaped(inner.Value, "$`\"\\")))
		case *syntax.ParamExp:
			list, isList := s.quotedParameter(inner, isQuotedOtherwise)
			for i, element := range list {
				if i > 0 {
					f.end()
				}
				f.add(element.value)
				f.quoted = true
				f.current.several = f.current.several || (isList && element.several)
			}
		case *syntax.CmdSubst:
			if len(inner.Stmts) > 0 {
				f.add(value{{why: "it is the output of a command"}})
			}
		default:
			s.sideEffects(inner)
			f.add(value{{why: "it is computed", plain: true}})
		}
	}
}

// isAll reports whether a part is "$@" or similar, which expands to nothing if there are no
// arguments.
func isAll(p syntax.WordPart) bool {
	parameter, ok := p.(*syntax.ParamExp)
	return ok && parameter.Param != nil && (parameter.Param.Value == "@" || isWholeList(parameter.Index) == "@")
}

// isWholeList returns the index if it is "@" or "*", and otherwise nothing.
func isWholeList(index syntax.ArithmExpr) string {
	if w, ok := index.(*syntax.Word); ok {
		if lit := w.Lit(); lit == "@" || lit == "*" {
			return lit
		}
	}
	return ""
}

// unescaped removes the backslashes before the given characters. If none are given, it removes
// all, as outside of quotes.
func unescaped(text, characters string) string {
	if !strings.Contains(text, `\`) {
		return text
	}
	var all strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] == '\\' && i+1 < len(text) && (characters == "" || strings.IndexByte(characters, text[i+1]) >= 0) {
			i++
		}
		all.WriteByte(text[i])
	}
	return all.String()
}

// value returns what a word expands to if it is not split: after "=" in an assignment.
func (s *shell) value(w *syntax.Word) value {
	if w == nil {
		return nil
	}
	var all value
	for i, p := range w.Parts {
		switch p := p.(type) {
		case *syntax.Lit:
			if (i == 0 && strings.HasPrefix(p.Value, "~")) || strings.Contains(p.Value, ":~") {
				all = append(all, part{why: "it is a path in a home directory"})
				continue
			}
			all = append(all, s.placeholders.value(unescaped(p.Value, ""))...)
		case *syntax.SglQuoted:
			all = append(all, s.single(p)...)
		case *syntax.DblQuoted:
			f := &splitter{}
			s.double(f, p)
			f.end()
			all = append(all, joined(f.words)...)
		case *syntax.ParamExp:
			list, _ := s.parameter(p, true)
			all = append(all, joined(list)...)
		case *syntax.CmdSubst:
			if len(p.Stmts) > 0 {
				all = append(all, part{why: "it is the output of a command"})
			}
		case *syntax.ExtGlob:
			all = append(all, part{why: aPattern})
		default:
			s.sideEffects(p)
			all = append(all, part{why: "it is computed", plain: true})
		}
	}
	s.spendValue(all)
	return all.merged()
}

// joined joins words with spaces.
func joined(words []word) value {
	var all value
	for i, w := range words {
		if i > 0 {
			all = append(all, part{text: " "})
		}
		all = append(all, w.value...)
	}
	return all
}

// hereDocument returns the text of a here-document. If its delimiter is not quoted, the text is
// expanded as in double quotes, but double quotes in it have no special meaning.
func (s *shell) hereDocument(r *syntax.Redirect) value {
	quoted := r.Word.Lit() == "" || strings.Contains(r.Word.Lit(), `\`)
	var all value
	for _, p := range r.Hdoc.Parts {
		switch p := p.(type) {
		case *syntax.Lit:
			text := p.Value
			if !quoted {
				text = unescaped(text, "$`\\")
			}
			all = append(all, s.placeholders.value(text)...)
		case *syntax.ParamExp:
			list, _ := s.quotedParameter(p, hasQuotes)
			all = append(all, joined(list)...)
		default:
			s.sideEffects(p)
			all = append(all, part{why: "it is the output of a command"})
		}
	}
	s.spendValue(all)
	return all.merged()
}

// quotedParameter expands a parameter in double quotes or a here-document. Quotes in the word
// after its operator have another meaning there. notRead reports whether the word has quotes that
// are not supported.
func (s *shell) quotedParameter(p *syntax.ParamExp, notRead func(w *syntax.Word) bool) (words []word, isList bool) {
	if p.Param == nil || p.Exp == nil || p.Exp.Word == nil || isError(p.Exp.Op) || !notRead(p.Exp.Word) {
		return s.parameter(p, true)
	}
	s.sideEffects(p)
	why := "the expansion of variable " + quoted(p.Param.Value) + " is not supported"
	return []word{{value: value{{why: why}}, several: namesList(p)}}, true
}

// isError reports whether the operator is followed by an error message.
func isError(op syntax.ParExpOperator) bool {
	return op == syntax.ErrorUnset || op == syntax.ErrorUnsetOrNull
}

// isQuotedOtherwise reports whether the word has single quotes or backslashes. In double quotes
// they are text, or escape fewer characters.
func isQuotedOtherwise(w *syntax.Word) (found bool) {
	syntax.Walk(w, func(n syntax.Node) bool {
		switch n := n.(type) {
		case *syntax.SglQuoted:
			found = true
		case *syntax.Lit:
			found = found || strings.ContainsAny(n.Value, `'\`)
		}
		return !found
	})
	return found
}

// namesList reports whether the expansion refers to a list. Then it may expand to several words
// although it is quoted.
func namesList(p *syntax.ParamExp) (found bool) {
	syntax.Walk(p, func(n syntax.Node) bool {
		if inner, ok := n.(*syntax.ParamExp); ok {
			found = found || inner.Excl || inner.Names != 0 || isAll(inner)
		}
		return !found
	})
	return found
}

// parameter expands "$NAME". It returns one word, or those of a list.
func (s *shell) parameter(p *syntax.ParamExp, quotes bool) (words []word, isList bool) {
	one := func(v value) ([]word, bool) { return []word{{value: v}}, false }
	unknown := func(why string) ([]word, bool) {
		if namesList(p) {
			return []word{{value: value{{why: why}}, several: true}}, true
		}
		return one(value{{why: why}})
	}
	s.spend(1)
	if p.Param == nil {
		s.sideEffects(p)
		return unknown("its expansion is not supported")
	}
	name := p.Param.Value
	switch {
	case p.Length:
		return one(value{{why: "it is a length", plain: true}})
	case p.Excl || p.Width || p.IsSet || p.Flags != nil || p.NestedParam != nil || p.Slice != nil || p.Repl != nil ||
		p.Names != 0 || len(p.Modifiers) > 0:
		s.sideEffects(p)
		return unknown("the expansion of variable " + quoted(name) + " is not supported")
	case p.Index != nil && isWholeList(p.Index) == "":
		s.sideEffects(p)
		return unknown("the element of variable " + quoted(name) + " is not known")
	}
	all := isWholeList(p.Index)
	if name == "@" || name == "*" {
		all = name
	}
	if all != "" {
		if p.Exp != nil {
			s.sideEffects(p)
			return unknown("the expansion of variable " + quoted(name) + " is not supported")
		}
		list, why := s.elements(name)
		switch {
		case why != "":
			return []word{{value: value{{why: why}}, several: true}}, true
		case all == "*" && quotes && !s.defaultIFS:
			return unknown("the script sets IFS")
		case all == "*" && quotes:
			return one(joined(list))
		}
		return list, true
	}
	v := s.scalar(name)
	switch {
	case p.Exp == nil:
		return one(v.value)
	case quotes && !isError(p.Exp.Op) && namesList(p):
		s.sideEffects(p)
		return unknown("the expansion of variable " + quoted(name) + " is not supported")
	}
	return one(s.operator(p, name, v, quotes))
}

// elements returns the elements of an array, or the arguments.
func (s *shell) elements(name string) (list []word, why string) {
	if name == "@" || name == "*" {
		if s.argumentsUnknown != "" {
			return nil, "the arguments are not known: " + s.argumentsUnknown
		}
		return s.arguments, ""
	}
	v := s.get(name)
	switch {
	case v.isList:
		return v.list, ""
	case v.isUnset:
		return nil, ""
	case v.value.why() != "":
		return nil, v.value.why()
	}
	return []word{{value: v.value}}, ""
}

// scalar returns a variable, an argument or one of the shell's own parameters.
func (s *shell) scalar(name string) variable {
	number, err := strconv.Atoi(name)
	switch {
	case name == "0":
		return variable{value: s.name.value}
	case err == nil && s.argumentsUnknown != "":
		return variable{value: value{{why: "the arguments are not known: " + s.argumentsUnknown}}}
	case err == nil && slices.ContainsFunc(s.arguments[:min(number, len(s.arguments))],
		func(w word) bool { return w.several }):
		return variable{value: value{{why: "the arguments are not known"}}}
	case err == nil && number > 0 && number <= len(s.arguments):
		return variable{value: s.arguments[number-1].value}
	case err == nil:
		return variable{isUnset: true}
	case name == "#" || name == "?" || name == "$":
		return variable{value: value{{why: "it is a number that is known only at run time", plain: true}}}
	case name == "!" || name == "-":
		return variable{value: value{{why: "it is known only at run time"}}}
	}
	v := s.get(name)
	if v.isList {
		// The first element, which may be any of several.
		if len(v.list) == 0 {
			return variable{isUnset: true}
		}
		if v.list[0].several {
			return variable{value: value{{why: v.list[0].why()}}}
		}
		return variable{value: v.list[0].value}
	}
	return v
}

// operator expands ${NAME:-word} and similar expansions.
func (s *shell) operator(p *syntax.ParamExp, name string, v variable, quotes bool) value {
	null := false // an empty value counts as unset
	switch p.Exp.Op {
	case syntax.DefaultUnsetOrNull, syntax.AssignUnsetOrNull, syntax.AlternateUnsetOrNull, syntax.ErrorUnsetOrNull:
		null = true
	case syntax.DefaultUnset, syntax.AssignUnset, syntax.AlternateUnset, syntax.ErrorUnset:
	default:
		s.sideEffects(p)
		return value{{why: "the expansion of variable " + quoted(name) + " is not supported"}}
	}
	text, decided := v.value.decided()
	there := !v.isUnset && (!null || !decided || text != "")
	if !decided && !v.isUnset && !isNeverEmpty(v.value) {
		// It may be set or not. If it must be set, the shell ends otherwise.
		s.sideEffects(p)
		if p.Exp.Op == syntax.ErrorUnset || p.Exp.Op == syntax.ErrorUnsetOrNull {
			return v.value
		}
		return value{{why: v.value.why()}}
	}
	word := func() value {
		w := s.value(p.Exp.Word)
		if !quotes && p.Exp.Word != nil && hasQuotes(p.Exp.Word) {
			// Quotes in it determine where it is split, and whether it counts if it is empty.
			return value{{why: "the expansion of variable " + quoted(name) + " is not supported"}}
		}
		return w
	}
	switch p.Exp.Op {
	case syntax.AlternateUnset, syntax.AlternateUnsetOrNull:
		if there {
			return word()
		}
		return nil
	case syntax.AssignUnset, syntax.AssignUnsetOrNull:
		if there {
			return v.value
		}
		w := word()
		s.set(name, variable{value: w})
		return w
	case syntax.ErrorUnset, syntax.ErrorUnsetOrNull:
		return v.value
	default: // ${NAME-word}, ${NAME:-word}
		if there {
			return v.value
		}
		return word()
	}
}

// hasQuotes reports whether anything in the word is quoted, at any depth.
func hasQuotes(w *syntax.Word) (found bool) {
	syntax.Walk(w, func(n syntax.Node) bool {
		switch n := n.(type) {
		case *syntax.SglQuoted, *syntax.DblQuoted:
			found = true
		case *syntax.Lit:
			found = found || strings.Contains(n.Value, `\`)
		}
		return !found
	})
	return found
}

// isNeverEmpty reports whether the value is not empty, whatever its unknown parts are.
func isNeverEmpty(v value) bool {
	return slices.ContainsFunc(v, func(p part) bool { return p.text != "" || p.plain })
}
