// SPDX-License-Identifier: Apache-2.0

package cmdline

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"mvdan.cc/sh/v3/syntax"
)

// call evaluates a simple command. ended is true if the next commands do not run.
func (s *shell) call(c *syntax.CallExpr, redirects []*syntax.Redirect) (ended bool) {
	if len(c.Args) == 0 {
		for _, a := range c.Assigns {
			s.assign(a, false)
		}
		s.succeeds = !slices.ContainsFunc(c.Assigns, func(a *syntax.Assign) bool { return hasSubstitution(a) })
		return false
	}
	var words []word
	for _, w := range c.Args {
		words = append(words, s.fields(w)...)
	}
	if len(words) == 0 || s.stopped != "" {
		return false
	}
	// Assignments before a command apply only to the command. With some builtins they last
	// in one shell and not in another.
	inside := maps.Clone(s.variables)
	s.spend(len(inside))
	if name, _ := words[0].whole(); len(c.Assigns) > 0 && (isSpecial(name) || hasKey(s.functions, name)) {
		forget := func() {
			for _, a := range c.Assigns {
				if s.sideEffects(a); a.Name != nil {
					s.forget(a.Name.Value, "is set for one command")
				}
			}
		}
		forget()
		ended = s.dispatch(words, inside, s.input(redirects), true)
		forget()
		return ended
	}
	for _, a := range c.Assigns {
		s.sideEffects(a)
		if a.Name == nil {
			continue
		}
		before, known := s.variables[a.Name.Value]
		s.assign(a, true)
		inside[a.Name.Value] = s.variables[a.Name.Value]
		if delete(s.variables, a.Name.Value); known {
			s.variables[a.Name.Value] = before
		}
	}
	ended = s.dispatch(words, inside, s.input(redirects), true)
	if name, _ := words[0].whole(); isDeclaration(name) {
		s.declared(c.Args[1:])
	}
	return ended
}

func isDeclaration(name string) bool {
	return slices.Contains([]string{"export", "readonly", "local", "declare", "typeset"}, name)
}

// declared forgets the variables that export and similar commands set to values that only some
// shells split at blanks.
func (s *shell) declared(args []*syntax.Word) {
	for _, w := range args {
		lit, ok := w.Parts[0].(*syntax.Lit)
		if !ok {
			continue
		}
		if name, _, assigns := strings.Cut(lit.Value, "="); assigns && syntax.ValidName(name) &&
			!isSimple(&syntax.Word{Parts: w.Parts}) {
			s.forget(name, "is set in a way that depends on the shell")
		}
	}
}

// isSimple reports whether splitting does not change the word.
func isSimple(w *syntax.Word) bool {
	simple := true
	for _, p := range w.Parts {
		switch p := p.(type) {
		case *syntax.Lit:
			simple = simple && !strings.ContainsAny(p.Value, `~\`+patternChars)
		case *syntax.SglQuoted:
		case *syntax.DblQuoted:
			syntax.Walk(p, func(n syntax.Node) bool {
				if parameter, ok := n.(*syntax.ParamExp); ok && (parameter.Param == nil || parameter.Param.Value == "@" ||
					parameter.Index != nil) {
					simple = false
				}
				return simple
			})
		default:
			simple = false
		}
	}
	return simple
}

// isSpecial reports whether the command is a special builtin of POSIX that does not start a
// program.
func isSpecial(name string) bool {
	return slices.Contains(
		[]string{
			":", ".", "break", "continue", "eval", "export", "readonly", "return", "set", "shift", "source", "times",
			"trap", "unset", "command", "builtin",
		},
		name,
	)
}

func hasKey[V any](m map[string]V, key string) bool { _, has := m[key]; return has }

// input returns the text of the here-document in the redirections, or nil without one.
func (s *shell) input(redirects []*syntax.Redirect) *value {
	var found *value
	for _, r := range redirects {
		switch r.Op {
		case syntax.Hdoc, syntax.DashHdoc:
			if r.Hdoc != nil {
				v := s.hereDocument(r)
				found = &v
			}
		case syntax.WordHdoc:
			v := s.value(r.Word)
			found = &v
		case syntax.RdrIn, syntax.DplIn, syntax.RdrInOut:
			found = nil
		default: // output
		}
	}
	return found
}

func hasSubstitution(node syntax.Node) (found bool) {
	syntax.Walk(node, func(n syntax.Node) bool {
		if _, substitutes := n.(*syntax.CmdSubst); substitutes {
			found = true
		}
		return !found
	})
	return found
}

// assign sets a variable as "name=value" does.
func (s *shell) assign(a *syntax.Assign, exported bool) {
	if a.Name == nil {
		return
	}
	name := a.Name.Value
	switch old := s.get(name); {
	case a.Index != nil:
		s.sideEffects(a.Index)
		s.forget(name, "is set element by element")
	case a.Array != nil:
		var list []word
		if a.Append {
			if !old.isList {
				s.forget(name, "is set element by element")
				return
			}
			list = slices.Clone(old.list)
		}
		for _, element := range a.Array.Elems {
			if element.Index != nil || element.Value == nil {
				s.forget(name, "is set element by element")
				return
			}
			list = append(list, s.fields(element.Value)...)
		}
		s.spend(len(list))
		s.set(name, variable{list: list, isList: true, exported: exported})
	case a.Append && (old.isList || old.isUnset):
		s.sideEffects(a)
		s.forget(name, "is added to")
	case old.isList:
		s.sideEffects(a)
		s.forget(name, "is set element by element") // the first one only
	case a.Append:
		s.set(name, variable{value: slices.Concat(old.value, s.value(a.Value)), exported: exported})
		s.spendValue(s.variables[name].value)
	default:
		s.set(name, variable{value: s.value(a.Value), exported: exported})
	}
}

func (s *shell) spendValue(v value) {
	for _, p := range v {
		s.spend(len(p.text) + 1)
	}
}

// declare runs declare, local, export, readonly and similar commands.
func (s *shell) declare(c *syntax.DeclClause) {
	exports := c.Variant.Value == "export"
	strange := c.Variant.Value == "nameref" || (s.kind != "bash" && isBashOnly(c.Variant.Value))
	assigned := map[string]bool{}
	for _, a := range c.Args {
		if a.Naked && a.Name == nil {
			for _, w := range s.fields(a.Value) {
				text, known := w.whole()
				switch {
				case !known:
					s.forgetAll(c.Variant.Value + " has unknown arguments: " + w.why())
				case !exports && isAttribute(text):
					s.stop("the script declares a variable with an attribute (%s)", quoted(text))
					return
				case strings.HasPrefix(text, "-") && strings.Trim(text, "-axrgp") == "":
					exports = exports || strings.Contains(text, "x")
				case strings.HasPrefix(text, "-") || strings.HasPrefix(text, "+"):
					strange = true
				default:
					s.declareWord(text, exports)
				}
			}
			continue
		}
		if a.Name == nil {
			continue
		}
		switch name := a.Name.Value; {
		case strange:
			s.sideEffects(a)
			s.forget(name, "is declared with an attribute")
		case a.Naked:
			s.declareWord(name, exports)
		default:
			// All of them are expanded before the first one is set.
			early := refersTo(a, assigned)
			s.assign(a, exports)
			if early || (s.kind != "bash" && a.Value != nil && !isSimple(a.Value)) {
				s.forget(name, "is set in a way that depends on the shell")
			}
			assigned[name] = true
		}
	}
	s.succeeds = !hasSubstitution(c)
}

// isBashOnly reports whether only bash has the command.
func isBashOnly(name string) bool { return name == "declare" || name == "typeset" }

// isAttribute reports whether an option of declare and similar commands makes a variable a
// reference, or changes the values that it is set to later.
func isAttribute(option string) bool {
	return strings.HasPrefix(option, "-") && strings.ContainsAny(option, "nilucA")
}

// refersTo reports whether an assignment refers to one of these variables.
func refersTo(a *syntax.Assign, names map[string]bool) (found bool) {
	if len(names) == 0 {
		return false
	}
	syntax.Walk(a, func(n syntax.Node) bool {
		if p, ok := n.(*syntax.ParamExp); ok && p.Param != nil {
			found = found || names[p.Param.Value]
		}
		return !found
	})
	return found
}

// declareWord runs "export NAME".
func (s *shell) declareWord(name string, exports bool) {
	if exports && syntax.ValidName(name) {
		v := s.get(name)
		v.exported = true
		s.variables[name] = v
	}
}

// dispatch runs a command by its words. variables are those that the program sees, if
// they are exported.
func (s *shell) dispatch(words []word, variables map[string]variable, input *value, functions bool) (ended bool) {
	name, known := words[0].whole()
	if known && functions {
		if f, declared := s.functions[name]; declared {
			return s.function(f, words)
		}
	}
	rest := words[1:]
	switch name {
	case "exec":
		return s.exec(rest, variables, input)
	case "command", "builtin":
		for len(rest) > 0 && rest[0].text() == "-p" {
			rest = rest[1:]
		}
		if len(rest) == 0 || strings.HasPrefix(rest[0].text(), "-") {
			return false
		}
		return s.dispatch(rest, variables, input, false)
	case "exit", "logout":
		return true
	case "return":
		s.saveState(s.calls)
		return true
	case "break", "continue":
		for i := range s.loops {
			// With a number, it leaves several loops.
			s.saveState(s.loops[:i+1])
		}
		return true
	case "eval":
		return s.eval(rest)
	case "true", ":":
		s.succeeds = true
	case "false":
		s.fails = true
	case "export", "readonly", "local", "declare", "typeset":
		s.exportWords(name, rest)
	case "unset":
		s.unset(rest)
	case "set":
		s.setOptions(rest)
	case "shift":
		s.shift(rest)
	case "read", "mapfile", "readarray", "getopts", "wait":
		s.fill(name, rest)
	case "printf":
		if len(rest) > 0 && rest[0].text() == "-v" {
			s.fill(name, rest)
		}
	case "let":
		s.forgetAll("let sets variables")
	case "source", ".":
		file := "a file"
		if len(rest) > 0 && rest[0].text() != "" {
			file = quoted(rest[0].text())
		}
		s.forgetAll("the script reads " + file + ", which is not in the manifest")
	case "shopt":
		for _, w := range rest {
			if option := w.text(); slices.Contains([]string{"lastpipe", "nullglob", "failglob"}, option) {
				s.stop("the script sets option %s, which is not supported", option)
			}
		}
	case "alias":
		s.stop("the script sets an alias")
	case "trap", "enable", "bind", "complete":
	default:
		s.start(words, variables, input, false)
	}
	return false
}

// start runs a program. replaces is true if the program replaces the shell.
func (s *shell) start(words []word, variables map[string]variable, input *value, replaces bool) {
	other := ""
	s.nested(func() { other = s.run(words, variables, input) })
	if other == "" {
		return
	}
	named := slices.ContainsFunc(words[1:], func(w word) bool { return w.namesProgram(isKubeAPIServer) })
	if replaces || named {
		s.starts = append(s.starts, undecided(other))
	} else if s.other == "" {
		s.other = other
	}
}

func (s *shell) exec(words []word, variables map[string]variable, input *value) (ended bool) {
	for len(words) > 0 && !words[0].several {
		option, known := words[0].whole()
		if !known || !strings.HasPrefix(option, "-") {
			break
		}
		words = words[1:]
		if option == "--" {
			break
		}
		if strings.Contains(option, "c") {
			variables = nil // an empty environment
		}
		if strings.HasSuffix(option, "a") && len(words) > 0 {
			words = words[1:]
		}
	}
	if len(words) == 0 {
		return false // its redirections apply to the shell from here on
	}
	s.start(words, variables, input, true)
	return true
}

// function runs a function's body.
func (s *shell) function(f *syntax.FuncDecl, words []word) (ended bool) {
	if f == nil {
		s.starts = append(s.starts, undecided("function "+quoted(words[0].text())+" is declared conditionally"))
		return false
	}
	inner := s.clone()
	inner.arguments, inner.argumentsUnknown = words[1:], ""
	for _, w := range words[1:] {
		if w.several {
			inner.argumentsUnknown = w.why()
		}
	}
	inner.calls = append(slices.Clone(s.calls), nil)
	s.nested(func() { ended = inner.statement(f.Body) })
	after := inner.calls[len(inner.calls)-1]
	if !ended {
		after = append(after, inner)
	}
	if len(after) == 0 {
		return true
	}
	arguments, argumentsUnknown, locals := s.arguments, s.argumentsUnknown, s.clone().variables
	s.join(after...)
	s.arguments, s.argumentsUnknown = arguments, argumentsUnknown
	first, others := localNames(f)
	for _, name := range first {
		if before, known := locals[name]; known {
			s.variables[name] = before
		} else {
			delete(s.variables, name)
		}
	}
	for _, name := range others {
		s.forget(name, "may be local to a function")
	}
	s.succeeds, s.fails = false, false
	return false
}

// localNames returns the variables that a function declares as local: first are those declared at
// its beginning. The others may refer to variables of the caller before their declaration, or
// always.
func localNames(f *syntax.FuncDecl) (first, others []string) {
	beginning := map[syntax.Node]bool{}
	if block, ok := f.Body.Cmd.(*syntax.Block); ok {
		for _, st := range block.Stmts {
			if len(namesOf(st.Cmd)) == 0 {
				break
			}
			beginning[st.Cmd] = true
			first = append(first, namesOf(st.Cmd)...)
		}
	}
	syntax.Walk(f.Body, func(n syntax.Node) bool {
		if _, nested := n.(*syntax.FuncDecl); nested {
			return false
		}
		for _, name := range namesOf(n) {
			if !beginning[n] && !slices.Contains(first, name) {
				others = append(others, name)
			}
		}
		return true
	})
	return first, others
}

// namesOf returns the variables that a command declares as local to a function.
func namesOf(n syntax.Node) (names []string) {
	switch n := n.(type) {
	case *syntax.DeclClause:
		if n.Variant.Value == "export" || n.Variant.Value == "readonly" {
			break
		}
		for _, a := range n.Args {
			if a.Name != nil {
				names = append(names, a.Name.Value)
			}
		}
	case *syntax.CallExpr:
		if len(n.Args) == 0 || n.Args[0].Lit() != "local" {
			break
		}
		for _, w := range n.Args[1:] {
			if lit, ok := w.Parts[0].(*syntax.Lit); ok {
				name, _, _ := strings.Cut(lit.Value, "=")
				names = append(names, name)
			}
		}
	}
	return names
}

// eval runs its arguments as a script.
func (s *shell) eval(words []word) (ended bool) {
	var script value
	for i, w := range words {
		if w.several {
			s.forgetAll("eval runs a text that is not known: " + w.why())
			return false
		}
		if i > 0 {
			script = append(script, part{text: " "})
		}
		script = append(script, w.value...)
	}
	text, known := script.decided()
	if !known {
		s.forgetAll("eval runs a text that is not known: " + script.why())
		return false
	}
	s.spend(len(text))
	before := s.placeholders
	s.placeholders = &placeholders{}
	s.nested(func() { ended = s.script(text) })
	s.placeholders = before
	return ended
}

// exportWords runs export and similar commands if the parser reads them as simple commands.
func (s *shell) exportWords(command string, words []word) {
	exports := command == "export"
	for _, w := range words {
		text := w.text()
		name, _, assigns := strings.Cut(text, "=")
		switch {
		case w.several:
			s.forgetAll("unknown variables are exported: " + w.why())
		case !exports && isAttribute(text):
			s.stop("the script declares a variable with an attribute (%s)", quoted(text))
			return
		case strings.HasPrefix(text, "-"):
		case assigns && syntax.ValidName(name) && (s.get(name).isList || (s.kind != "bash" && isBashOnly(command))):
			s.forget(name, "is set in a way that depends on the shell")
		case assigns && syntax.ValidName(name):
			s.set(name, variable{value: w.after(len(name) + 1), exported: exports})
		case !w.decided():
			s.forgetAll("unknown variables are exported: " + w.why())
		default:
			s.declareWord(text, exports)
		}
	}
	s.succeeds = true
}

func (s *shell) unset(words []word) {
	functions := false
	for _, w := range words {
		text, known := w.whole()
		switch {
		case !known:
			s.forgetAll("unknown variables are unset: " + w.why())
		case strings.HasPrefix(text, "-"):
			functions = strings.Contains(text, "f")
		case functions:
			delete(s.functions, text)
		case strings.Contains(text, "["):
			name, _, _ := strings.Cut(text, "[")
			s.forget(name, "is set element by element")
		case text == "IFS":
			s.defaultIFS = true
		case !isSetByShell(text):
			s.variables[text] = variable{isUnset: true}
		}
	}
}

// setOptions runs the command set, which changes options and arguments.
func (s *shell) setOptions(words []word) {
	for i, w := range words {
		text, known := w.whole()
		switch {
		case !known && (w.several || w.text() == "" || strings.HasPrefix(w.text(), "-")):
			s.argumentsUnknown = "they are set to unknown values: " + w.why()
			return
		case text == "--":
			s.arguments, s.argumentsUnknown = words[i+1:], ""
			return
		case known && strings.HasPrefix(text, "-") && text != "-":
			s.exportsAll = s.exportsAll || strings.Contains(text, "a")
		case known && strings.HasPrefix(text, "+"):
			if strings.Contains(text, "a") {
				s.exportsAll = false
			}
		case i > 0 && (strings.HasSuffix(words[i-1].text(), "o") && len(words[i-1].text()) > 1):
			// the name after -o
			s.exportsAll = s.exportsAll || text == "allexport"
		default:
			s.arguments, s.argumentsUnknown = words[i:], ""
			return
		}
	}
	s.succeeds = true
}

func (s *shell) shift(words []word) {
	by := 1
	if len(words) > 0 {
		text, known := words[0].whole()
		number, err := strconv.Atoi(text)
		if !known || err != nil || number < 0 {
			s.argumentsUnknown = "they are shifted by an unknown number"
			return
		}
		by = number
	}
	for _, w := range s.arguments {
		if w.several {
			s.argumentsUnknown = w.why()
		}
	}
	if by <= len(s.arguments) {
		s.arguments = s.arguments[by:]
	}
}

// fill forgets the variables that a builtin sets.
func (s *shell) fill(builtin string, words []word) {
	for _, w := range words {
		text, known := w.whole()
		if !known && !strings.HasPrefix(w.text(), "-") {
			s.forgetAll(builtin + " sets unknown variables: " + w.why())
			return
		}
		if name, _, _ := strings.Cut(text, "["); syntax.ValidName(name) {
			s.forget(name, "is set by "+builtin)
		}
	}
	s.forget("REPLY", "is set by "+builtin)
	s.forget("MAPFILE", "is set by "+builtin)
}
