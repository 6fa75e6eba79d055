// SPDX-License-Identifier: Apache-2.0

package cmdline

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"mvdan.cc/sh/v3/syntax"
)

// variable of a shell.
type variable struct {
	value value
	// list has the elements of an array. Then value is not used.
	list    []word
	isList  bool
	isUnset bool
	// exported is true if programs that the shell starts see the variable.
	exported bool
}

func (v variable) equal(other variable) bool {
	return v.isList == other.isList && v.isUnset == other.isUnset && v.exported == other.exported &&
		v.value.equal(other.value) &&
		slices.EqualFunc(v.list, other.list, equalWords)
}

func equalWords(a, b word) bool { return a.several == b.several && a.value.equal(b.value) }

// shell is the state of a shell at one point of its script.
type shell struct {
	*reader
	kind      string
	variables map[string]variable
	// lost is why a variable that is not in variables is unknown. If it is empty, the variable is
	// only not set in the manifest.
	lost string
	// functions by name. The value is nil if the function is declared conditionally.
	functions map[string]*syntax.FuncDecl
	// name is $0, arguments are $1 and so on. argumentsUnknown is why the arguments are not known;
	// empty if they are known.
	name             word
	arguments        []word
	argumentsUnknown string
	// defaultIFS is true if IFS has its default value.
	defaultIFS bool
	// exportsAll is true after set -a. readsInput is true after -s: the shell reads its script from
	// its input, even if it has arguments.
	exportsAll, readsInput bool
	// succeeds and fails say how the last command ended, if that is known.
	succeeds, fails bool
	// loops and calls are the states in which loops and functions are left, innermost last.
	loops, calls [][]*shell
	// placeholders replace the unknown parts of the script.
	placeholders *placeholders
}

// placeholders replace the parts of a script that are unknown, but plain.
type placeholders struct {
	prefix string
	parts  []part
}

const endOfPlaceholder = "Z"

// scriptText returns the text of a script, with placeholders for unknown parts, or why it is not
// known.
func (r *reader) scriptText(script value) (text string, m *placeholders, why string) {
	if known, decided := script.decided(); decided {
		return known, &placeholders{}, ""
	}
	if !script.plain() {
		return "", nil, "the script is not known: " + script.why()
	}
	m = &placeholders{prefix: "UNDECIDED"}
	for slices.ContainsFunc(script.merged(), func(p part) bool { return strings.Contains(p.text, m.prefix) }) {
		m.prefix += "X"
	}
	var all strings.Builder
	for _, p := range script {
		if p.why == "" {
			all.WriteString(p.text)
			continue
		}
		fmt.Fprintf(&all, "%s%d%s", m.prefix, len(m.parts), endOfPlaceholder)
		m.parts = append(m.parts, p)
	}
	return all.String(), m, ""
}

// value converts a text that may contain placeholders.
func (m *placeholders) value(text string) value {
	if m.prefix == "" {
		return literal(text)
	}
	var all value
	for {
		before, rest, found := strings.Cut(text, m.prefix)
		number, after, closed := strings.Cut(rest, endOfPlaceholder)
		index := 0
		if _, err := fmt.Sscanf(number, "%d", &index); !found || !closed || err != nil || index >= len(m.parts) {
			return append(all, literal(text)...)
		}
		all = append(append(all, literal(before)...), m.parts[index])
		text = after
	}
}

// shell records what a shell starts. words are its arguments, which begin with its options. If
// its script is not known, shell returns why.
func (r *reader) shell(kind string, words []word, variables map[string]variable, input *value) (other string) {
	s := &shell{
		reader: r, kind: kind, variables: map[string]variable{}, functions: map[string]*syntax.FuncDecl{}, defaultIFS: true,
		name: word{value: value{{why: "it is the name by which the shell was started", plain: true}}},
	}
	for name, v := range variables {
		if v.exported && syntax.ValidName(name) && !isSetByShell(name) {
			s.variables[name] = v
		}
		if kind != "dash" && v.exported &&
			(strings.HasPrefix(name, "BASH_FUNC_") || name == "BASH_ENV" || name == "SHELLOPTS" || name == "BASHOPTS") {
			return "environment variable " + quoted(name) + " changes how " + kind + " works"
		}
	}
	command, why := s.options(&words)
	if why != "" {
		return why
	}
	if s.readsInput && !command {
		if input == nil {
			return kind + " reads a script that is not in the manifest"
		}
		words = slices.Concat([]word{s.name}, words)
		command, words = true, slices.Concat([]word{{value: *input}}, words)
	}
	var script value
	switch {
	case command && len(words) == 0:
		return kind + " has no script after its options"
	case command && words[0].several:
		return "the script is not known: " + words[0].why()
	case command:
		script, words = words[0].value, words[1:]
		if len(words) > 0 {
			s.name, words = words[0], words[1:]
		}
	case len(words) > 0:
		return "script " + quoted(words[0].text()) + " is not in the manifest"
	case input != nil:
		script = *input
	default:
		return kind + " reads a script that is not in the manifest"
	}
	s.arguments = words
	text, m, why := r.scriptText(script)
	if why != "" {
		return why
	}
	s.placeholders = m
	s.nested(func() { s.script(text) })
	return ""
}

// options removes the shell's options from the words. command is true if the next word is a
// script.
func (s *shell) options(words *[]word) (command bool, why string) {
	for len(*words) > 0 {
		first := (*words)[0]
		option, known := first.whole()
		if !known {
			if text := first.text(); first.several || text == "" || text[0] == '-' || text[0] == '+' {
				return false, "the options of " + s.kind + " are not known: " + first.why()
			}
			return command, ""
		}
		if option == "" || option == "-" || option == "--" || (option[0] != '-' && option[0] != '+') {
			if option == "-" || option == "--" {
				*words = (*words)[1:]
			}
			return command, ""
		}
		*words = (*words)[1:]
		switch option {
		case "--norc", "--noprofile", "--posix", "--verbose", "--noediting", "--debugger":
			continue
		}
		if strings.HasPrefix(option, "--") {
			return false, "option " + quoted(option) + " of " + s.kind + " is not supported"
		}
		for _, letter := range option[1:] {
			switch letter {
			case 'c':
				command = command || option[0] == '-'
			case 'o', 'O':
				if len(*words) == 0 {
					return false, s.kind + " has no name of an option after -" + string(letter)
				}
				if named, _ := (*words)[0].whole(); option[0] == '-' && !slices.Contains([]string{
					"errexit", "nounset", "xtrace", "verbose", "pipefail", "posix", "errtrace", "functrace", "noclobber", "monitor",
					"notify", "inherit_errexit", "noglob", "physical", "allexport",
				}, named) {
					return false, "option " + quoted((*words)[0].text()) + " of " + s.kind + " is not supported"
				} else if named == "allexport" {
					s.exportsAll = true
				}
				*words = (*words)[1:]
			case 's':
				s.readsInput = true
			case 'a':
				s.exportsAll = option[0] == '-'
			case 'l', 'i':
				s.lost = s.kind + " reads files that are not in the manifest"
				s.variables = map[string]variable{}
			case 'e', 'u', 'x', 'v', 'f', 'p', 'm', 'b', 'C', 'E', 'T', 'h', 'H', 'B', 'P':
			default:
				return false, "option " + quoted("-"+string(letter)) + " of " + s.kind + " is not supported"
			}
		}
	}
	return command, ""
}

// nested calls a function one level deeper. It returns false if that is too deep.
func (s *shell) nested(run func()) bool {
	if s.nesting++; s.nesting > MaxNesting {
		s.stop("the script is nested deeper than %d", MaxNesting)
	}
	if s.stopped == "" {
		run()
	}
	s.nesting--
	return s.stopped == ""
}

// script runs a script in this shell. ended is true if the shell ends with it.
func (s *shell) script(text string) (ended bool) {
	switch {
	case len(text) > MaxScriptBytes:
		s.stop("the script has %d bytes, more than %d", len(text), MaxScriptBytes)
		return true
	case deeplyNested(text):
		s.stop("the script may be nested deeper than %d", MaxNesting)
		return true
	case strings.Contains(text, "\r"):
		// For a shell it is a character of a word, but the parser drops it.
		s.stop("the script has carriage returns, as files from Windows have")
		return true
	}
	language := syntax.LangBash
	if s.kind == "dash" {
		language = syntax.LangPOSIX
	}
	file, err := parse(text, language)
	if errors.Is(err, errManyComments) {
		s.stop("%v", err)
		return true
	}
	if err != nil {
		// The error's text may quote the script, which may contain anything.
		line, column := uint(0), uint(0)
		if at, ok := errors.AsType[syntax.ParseError](err); ok {
			line, column = at.Pos.Line(), at.Pos.Col()
		} else if at, ok := errors.AsType[syntax.LangError](err); ok {
			line, column = at.Pos.Line(), at.Pos.Col()
		}
		s.stop("the script cannot be parsed as %s (line %d, column %d)", s.kind, line, column)
		return true
	}
	if s.placeholders.prefix != "" && placeholderInName(file, s.placeholders.prefix) {
		s.stop("the script is not known: a name in it depends on %s",
			strings.TrimPrefix(s.placeholders.parts[0].why, "the "))
		return true
	}
	return s.list(file.Stmts)
}

// maxComments bounds the comments in a script that end in a backslash and have words of a
// command before them on their logical line.
const maxComments = 100

var errManyComments = fmt.Errorf("the script has more than %d comments that end in a backslash", maxComments)

// parse parses a script. For a shell, a backslash at the end of a comment is a part of the
// comment. This parser continues the command on the next line. So these backslashes are removed
// first, one after the other, because the parser may misread what follows one.
func parse(text string, language syntax.LangVariant) (*syntax.File, error) {
	for range maxComments {
		file, err := syntax.NewParser(syntax.Variant(language), syntax.KeepComments(true)).Parse(strings.NewReader(text), "")
		if err != nil {
			return nil, err
		}
		at := len(text)
		syntax.Walk(file, func(node syntax.Node) bool {
			if c, ok := node.(*syntax.Comment); ok && strings.HasSuffix(c.Text, "\\\n") {
				at = min(at, int(c.Hash.Offset())+len("#")+len(c.Text)-len("\\\n"))
			}
			return true
		})
		if at == len(text) || text[at] != '\\' {
			return file, nil
		}
		text = text[:at] + text[at+1:]
	}
	return nil, errManyComments
}

// deeplyNested reports whether a script may be nested deeper than the parser should follow: the
// parser needs memory for each level. It counts words that may be closed again, so it may count
// too much.
func deeplyNested(text string) bool {
	depth := 0
	for i := range len(text) {
		switch text[i] {
		case '(', '{', '`', '[':
			depth++
		case ')', '}', ']':
			depth = max(0, depth-1)
		}
		if depth > MaxNesting {
			return true
		}
	}
	words := 0
	for field := range strings.FieldsFuncSeq(text, func(r rune) bool { return strings.ContainsRune(" \t\r\n;&|()", r) }) {
		switch field {
		case "if", "while", "until", "for", "select", "case", "function", "time", "coproc", "!", "elif", "else":
			words++
		}
		if words > MaxNesting {
			return true
		}
	}
	return false
}

// placeholderInName reports whether the name of a variable or function contains a placeholder.
func placeholderInName(file *syntax.File, prefix string) (found bool) {
	in := func(name *syntax.Lit) bool { return name != nil && strings.Contains(name.Value, prefix) }
	syntax.Walk(file, func(node syntax.Node) bool {
		switch n := node.(type) {
		case *syntax.Assign:
			found = found || in(n.Name)
		case *syntax.ParamExp:
			found = found || in(n.Param)
		case *syntax.FuncDecl:
			found = found || in(n.Name)
		}
		return !found
	})
	return found
}

// clone returns a copy of the state.
func (s *shell) clone() *shell {
	c := *s
	c.variables, c.functions = maps.Clone(s.variables), maps.Clone(s.functions)
	s.spend(len(s.variables) + len(s.functions))
	return &c
}

// replaceWith sets the state to another one of the same shell, but keeps loops and calls.
func (s *shell) replaceWith(other *shell) {
	loops, calls := s.loops, s.calls
	*s = *other
	s.loops, s.calls = loops, calls
}

// join sets the state to what is known if the shell is in one of several states.
func (s *shell) join(states ...*shell) {
	if len(states) == 0 {
		return
	}
	all := states[0].clone()
	for _, other := range states[1:] {
		for _, name := range unionOfKeys(all.variables, other.variables) {
			a, b := all.get(name), other.get(name)
			if !a.equal(b) {
				all.variables[name] = variable{
					value:    value{{why: "variable " + quoted(name) + " is set conditionally"}},
					exported: a.exported || b.exported,
				}
			}
		}
		for _, name := range unionOfKeys(all.functions, other.functions) {
			if all.functions[name] != other.functions[name] {
				all.functions[name] = nil
			}
		}
		if all.lost == "" {
			all.lost = other.lost
		}
		if !slices.EqualFunc(all.arguments, other.arguments, equalWords) {
			all.argumentsUnknown = "the arguments are set conditionally"
		}
		if all.argumentsUnknown == "" {
			all.argumentsUnknown = other.argumentsUnknown
		}
		all.defaultIFS = all.defaultIFS && other.defaultIFS
		all.exportsAll = all.exportsAll || other.exportsAll
		all.succeeds, all.fails = all.succeeds && other.succeeds, all.fails && other.fails
	}
	s.replaceWith(all)
}

func unionOfKeys[V any](a, b map[string]V) []string {
	names := slices.Collect(maps.Keys(a))
	for name := range b {
		if _, known := a[name]; !known {
			names = append(names, name)
		}
	}
	return names
}

// get returns a variable.
func (s *shell) get(name string) variable {
	if v, known := s.variables[name]; known {
		return v
	}
	why := "variable " + quoted(name) + " is not set in the manifest"
	switch {
	case s.lost != "":
		why = "variable " + quoted(name) + " is not known: " + s.lost
	case isSetByShell(name):
		why = "variable " + quoted(name) + " is set by the shell itself"
	}
	return variable{value: value{{why: why}}}
}

// set assigns to a variable.
func (s *shell) set(name string, v variable) {
	switch {
	case name == "IFS":
		s.defaultIFS = false
	case isSetByShell(name):
		return
	}
	v.exported = v.exported || s.exportsAll || s.variables[name].exported
	s.variables[name] = v
}

// forget makes a variable unknown.
func (s *shell) forget(name, why string) {
	s.set(name, variable{value: value{{why: "variable " + quoted(name) + " " + why}}})
}

// forgetAll makes all variables and the arguments unknown.
func (s *shell) forgetAll(why string) {
	s.variables, s.lost, s.argumentsUnknown, s.defaultIFS = map[string]variable{}, why, why, false
}

// isSetByShell reports whether the shell itself sets the variable.
func isSetByShell(name string) bool {
	switch name {
	case "_",
		"RANDOM", "SRANDOM", "SECONDS", "LINENO", "UID", "EUID", "PPID", "PWD", "OLDPWD", "SHLVL", "OPTIND", "OPTARG",
		"OPTERR", "IFS", "DIRSTACK", "FUNCNAME", "GROUPS", "HOSTNAME", "HOSTTYPE", "MACHTYPE", "OSTYPE", "PIPESTATUS",
		"SHELLOPTS", "HISTCMD", "COLUMNS", "LINES", "REPLY", "COPROC",
		"PS4":
		return true
	}
	return strings.HasPrefix(name, "BASH") || strings.HasPrefix(name, "EPOCH") || strings.HasPrefix(name, "COMP_")
}

// list runs statements one after the other.
func (s *shell) list(statements []*syntax.Stmt) (ended bool) {
	return slices.ContainsFunc(statements, s.statement)
}

// statement runs one statement. ended is true if the next ones do not run.
func (s *shell) statement(st *syntax.Stmt) (ended bool) {
	if s.statements++; s.statements > MaxStatements {
		s.stop("the script runs more than %d statements", MaxStatements)
	}
	if s.stopped != "" {
		return true
	}
	// The depth of what is in it is that of the syntax tree, which deeplyNested bounds
	// only roughly.
	if !s.nested(func() { ended = s.statementInside(st) }) {
		return true
	}
	return ended
}

func (s *shell) statementInside(st *syntax.Stmt) (ended bool) {
	for _, redirect := range st.Redirs {
		s.sideEffects(redirect)
		if redirect.N != nil && strings.HasPrefix(redirect.N.Value, "{") {
			s.forget(strings.Trim(redirect.N.Value, "{}"), "is the number of an open file")
		}
	}
	if st.Background || st.Coprocess || st.Disown {
		s.subshell([]*syntax.Stmt{{Cmd: st.Cmd, Position: st.Position, Redirs: st.Redirs}})
		s.succeeds, s.fails = true, false
		return false
	}
	s.succeeds, s.fails = false, false
	if st.Cmd == nil {
		return false
	}
	ended = s.command(st)
	if st.Negated {
		s.succeeds, s.fails = s.fails, s.succeeds
	}
	return ended
}

// subshell runs statements in a subshell: what they set has no effect afterwards.
func (s *shell) subshell(statements []*syntax.Stmt) {
	inner := s.clone()
	inner.loops, inner.calls = nil, nil
	inner.list(statements)
	s.succeeds, s.fails = false, false
}

func (s *shell) command(st *syntax.Stmt) (ended bool) {
	switch c := st.Cmd.(type) {
	case *syntax.CallExpr:
		return s.call(c, st.Redirs)
	case *syntax.BinaryCmd:
		return s.binary(c)
	case *syntax.IfClause:
		return s.ifClause(c)
	case *syntax.CaseClause:
		return s.caseClause(c)
	case *syntax.WhileClause:
		return s.loop("", slices.Concat(c.Cond, c.Do))
	case *syntax.ForClause:
		s.sideEffects(c.Loop)
		name := ""
		if words, ok := c.Loop.(*syntax.WordIter); ok {
			name = words.Name.Value
		}
		return s.loop(name, c.Do)
	case *syntax.Block:
		return s.list(c.Stmts)
	case *syntax.Subshell:
		s.subshell(c.Stmts)
	case *syntax.FuncDecl:
		if c.Name != nil {
			s.functions[c.Name.Value] = c
		}
	case *syntax.DeclClause:
		s.declare(c)
	case *syntax.TimeClause:
		if c.Stmt != nil {
			return s.statement(c.Stmt)
		}
	case *syntax.CoprocClause:
		s.subshell([]*syntax.Stmt{c.Stmt})
	default: // [[ ]], (( )), let
		s.sideEffects(st.Cmd)
	}
	return false
}

func (s *shell) binary(c *syntax.BinaryCmd) (ended bool) {
	if c.Op != syntax.AndStmt && c.Op != syntax.OrStmt {
		s.subshell([]*syntax.Stmt{c.X})
		s.subshell([]*syntax.Stmt{c.Y})
		return false
	}
	if s.statement(c.X) {
		return true
	}
	always, never := s.succeeds, s.fails
	if c.Op == syntax.OrStmt {
		always, never = never, always
	}
	switch {
	case never:
		return false
	case always:
		return s.statement(c.Y)
	}
	branch := s.clone()
	if !branch.statement(c.Y) {
		s.join(s, branch)
	}
	s.succeeds, s.fails = false, false
	return false
}

func (s *shell) ifClause(c *syntax.IfClause) (ended bool) {
	if s.list(c.Cond) {
		return true
	}
	then, other := s.clone(), s.clone()
	var after []*shell
	if !then.list(c.Then) {
		after = append(after, then)
	}
	switch {
	case c.Else == nil:
		after = append(after, other)
	case c.Else.ThenPos.IsValid(): // elif
		if !other.nested(func() { ended = other.ifClause(c.Else) }) {
			return true
		}
		if !ended {
			after = append(after, other)
		}
	case !other.list(c.Else.Then):
		after = append(after, other)
	}
	s.join(after...)
	s.succeeds, s.fails = false, false
	return len(after) == 0
}

func (s *shell) caseClause(c *syntax.CaseClause) (ended bool) {
	s.sideEffects(c.Word)
	after := []*shell{s.clone()}
	var through *shell
	for _, item := range c.Items {
		branch := s.clone()
		if through != nil {
			branch.join(branch, through)
			through = nil
		}
		if branch.list(item.Stmts) {
			continue
		}
		if item.Op == syntax.Break {
			after = append(after, branch)
			continue
		}
		through = branch
		after = append(after, branch)
	}
	s.join(after...)
	s.succeeds, s.fails = false, false
	return false
}

// loop runs statements until another run changes nothing.
func (s *shell) loop(name string, body []*syntax.Stmt) (ended bool) {
	for s.stopped == "" {
		known := len(s.starts)
		inner := s.clone()
		inner.loops = append(inner.loops, nil)
		if name != "" {
			inner.forget(name, "is set by a loop")
		}
		after := []*shell{s.clone()}
		if !inner.list(body) {
			after = append(after, inner)
		}
		after = append(after, inner.loops[len(inner.loops)-1]...)
		before := s.clone()
		s.join(after...)
		if s.same(before) {
			break
		}
		// The recorded starts used values that are no longer known. The next run records them again.
		s.starts = s.starts[:known]
	}
	s.succeeds, s.fails = false, false
	return false
}

// same reports whether another state has the same variables, functions and arguments.
func (s *shell) same(other *shell) bool {
	return maps.EqualFunc(s.variables, other.variables, variable.equal) && maps.Equal(s.functions, other.functions) &&
		s.lost == other.lost &&
		s.argumentsUnknown == other.argumentsUnknown && s.defaultIFS == other.defaultIFS &&
		s.exportsAll == other.exportsAll
}

// saveState saves the state in which a loop or function is left.
func (s *shell) saveState(states [][]*shell) {
	if last := len(states) - 1; last >= 0 {
		states[last] = append(states[last], s.clone())
	}
}

// sideEffects forgets the variables that expansions in a node assign to.
func (s *shell) sideEffects(node syntax.Node) {
	syntax.Walk(node, func(n syntax.Node) bool {
		switch n := n.(type) {
		case *syntax.CmdSubst, *syntax.ProcSubst, *syntax.Subshell:
			return false // subshells
		case *syntax.ParamExp:
			if n.Exp != nil && n.Param != nil && (n.Exp.Op == syntax.AssignUnset || n.Exp.Op == syntax.AssignUnsetOrNull) {
				s.forget(n.Param.Value, "is set conditionally")
			}
		case *syntax.BinaryArithm:
			if name := arithmeticName(n.X); name != "" && isAssignment(n.Op) {
				s.forget(name, "is computed")
			}
		case *syntax.UnaryArithm:
			if name := arithmeticName(n.X); name != "" && (n.Op == syntax.Inc || n.Op == syntax.Dec) {
				s.forget(name, "is computed")
			}
		}
		return true
	})
}

func isAssignment(op syntax.BinAritOperator) bool {
	switch op {
	case syntax.Assgn,
		syntax.AddAssgn, syntax.SubAssgn, syntax.MulAssgn, syntax.QuoAssgn, syntax.RemAssgn, syntax.AndAssgn,
		syntax.OrAssgn, syntax.XorAssgn, syntax.ShlAssgn, syntax.ShrAssgn, syntax.PowAssgn, syntax.AndBoolAssgn,
		syntax.OrBoolAssgn,
		syntax.XorBoolAssgn:
		return true
	default:
		return false
	}
}

// arithmeticName returns the variable that an arithmetic expression assigns to.
func arithmeticName(x syntax.ArithmExpr) string {
	w, ok := x.(*syntax.Word)
	if !ok || len(w.Parts) == 0 {
		return ""
	}
	switch p := w.Parts[0].(type) {
	case *syntax.Lit:
		return p.Value
	case *syntax.ParamExp:
		if p.Param != nil {
			return p.Param.Value
		}
	}
	return ""
}
