// SPDX-License-Identifier: Apache-2.0

// Package cmdline determines the command-line words with which a container starts its
// kube-apiserver, as the kubelet, exec and a shell do: it expands "$(VAR)" by Kubernetes'
// rules, an element of command or args is one word even with spaces, and it parses a shell
// script by the shell's grammar.
//
// It runs no program and reads no file. What depends on anything outside the manifest is
// undecided: the value of a Secret, the output of a command, a variable that the image may
// set, the branch that a script takes. The package returns which part of which word is
// undecided, and why. It never guesses.
package cmdline

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// The bounds. What exceeds one of them is undecided, and the word has the reason.
const (
	// MaxScriptBytes bounds each script. OpenShift's has about 1.5 KiB.
	MaxScriptBytes = 32 << 10
	// MaxNesting bounds how deep a script may be nested: the characters in it that
	// may open something, and scripts, functions and blocks in each other.
	MaxNesting = 256
	// MaxStatements bounds the statements that are evaluated. Loops and functions are
	// evaluated several times.
	MaxStatements = 10_000
	// MaxExpandedBytes bounds what all expansions of one container produce together:
	// variables that refer to each other can double with each reference.
	MaxExpandedBytes = 4 << 20
	// MaxWords bounds the words of one command line.
	MaxWords = 4096

	// maxQuoted bounds a name in a text for people, in bytes.
	maxQuoted = 64
)

// Word is a word of a command line.
type Word struct {
	// Text is the word, or its beginning up to the first part that is undecided.
	Text string
	// Undecided is why the rest of the word is not known, in a few words for people. It
	// names variables, files and positions, and never quotes a value. If it is empty, Text
	// is the whole word.
	Undecided string
	// Several is true if the undecided part may become several words or none. Then this
	// word may not exist at all.
	Several bool
	// Plain is true if the undecided part is an address, a name or a number: it has no spaces and
	// does not begin with a dash. A pattern may expand to several words, and Text is the beginning
	// of each.
	Plain bool
}

// Read returns the words after "kube-apiserver" (or "hyperkube kube-apiserver") in the command
// line of a container. If nothing is known about them, it returns a single word that is
// undecided and Several.
//
// The rules are those of k8s.io/kubernetes pkg/kubelet/container/helpers.go
// (ExpandContainerCommandAndArgs), pkg/kubelet/kubelet_pods.go
// (makeEnvironmentVariables) and, for scripts, of the POSIX shell and bash.
func Read(container *corev1.Container) []Word {
	r := &reader{}
	environment := r.environment(container)
	var words []word
	for _, element := range slices.Concat(container.Command, container.Args) {
		words = append(words, word{value: r.expand(element, environment.lookup)})
	}
	if len(container.Command) == 0 {
		// The image's entry point comes first. Only a shell or a kube-apiserver that is
		// named behind it says more.
		if len(words) == 0 || !words[0].namesProgram(isKnownProgram) {
			return undecided("the manifest gives no command, so the image decides what is started")
		}
	}
	if r.stopped != "" {
		return undecided(r.stopped)
	}
	if len(words) > MaxWords {
		return undecided(fmt.Sprintf("the command line has %d words, more than %d", len(words), MaxWords))
	}
	other := r.run(words, environment.variables, nil)
	return r.result(other)
}

// undecided returns a command line about which nothing is known.
func undecided(why string) []Word { return []Word{{Undecided: why, Several: true}} }

// result returns the command line that was found. other is why none was found, if a program that
// is not known was started.
func (r *reader) result(other string) []Word {
	if r.stopped != "" {
		return undecided(r.stopped)
	}
	var found [][]Word
	for _, started := range r.starts {
		if !printsHelpOrVersion(started) &&
			!slices.ContainsFunc(found, func(known []Word) bool { return slices.Equal(known, started) }) {
			found = append(found, started)
		}
	}
	switch {
	case len(found) == 1:
		return found[0]
	case len(found) > 1:
		return undecided("the script can start the kube-apiserver in more than one way")
	case other != "":
		return undecided(other)
	case r.other != "":
		return undecided(r.other)
	}
	return undecided("no kube-apiserver is started in the command line")
}

// printsHelpOrVersion reports whether the kube-apiserver only prints its version or help.
func printsHelpOrVersion(words []Word) bool {
	return len(words) == 1 && words[0].Undecided == "" &&
		slices.Contains([]string{"--version", "--version=raw", "--help", "-h"}, words[0].Text)
}

// reader is the state of one [Read].
type reader struct {
	statements, expanded, nesting int
	// starts are the command lines by which a kube-apiserver is started.
	starts [][]Word
	// other is about the first program that was started and may start a kube-apiserver itself.
	other string
	// stopped is why the reader gave up.
	stopped string
}

// stop gives up: the whole command line is undecided.
func (r *reader) stop(format string, values ...any) {
	if r.stopped == "" {
		r.stopped = fmt.Sprintf(format, values...)
	}
}

// spend counts bytes that an expansion produced.
func (r *reader) spend(bytes int) {
	if r.expanded += bytes; r.expanded > MaxExpandedBytes {
		r.stop("the variables of the command line expand to more than %d bytes", MaxExpandedBytes)
	}
}

// started records a command line.
func (r *reader) started(words []word) {
	if len(words) > MaxWords {
		r.stop("the command line has more than %d words", MaxWords)
		return
	}
	line := make([]Word, 0, len(words))
	for _, w := range words {
		line = append(line, w.exported())
	}
	r.starts = append(r.starts, line)
}

// The programs that matter.

func isKubeAPIServer(name string) bool { return name == "kube-apiserver" }

// hyperkube contains all programs of Kubernetes. The next word selects one.
const hyperkube = "hyperkube"

func isShell(name string) bool {
	return slices.Contains([]string{"sh", "bash", "dash", "ash"}, name)
}

func isKnownProgram(name string) bool {
	return isKubeAPIServer(name) || name == hyperkube || isShell(name) || isWrapper(name)
}

// isServerOrShell reports whether a wrapper's own arguments end before a program of this name.
// env is one of them, because it sets variables.
func isServerOrShell(name string) bool {
	return isKubeAPIServer(name) || name == hyperkube || isShell(name) || name == "env"
}

// isWrapper reports whether the program starts the given command with exactly its words and the
// same files.
func isWrapper(name string) bool {
	return slices.Contains([]string{
		"catatonit", "chrt", "dumb-init", "env", "flock", "go-runner", "ionice", "nice", "nohup", "numactl", "prlimit",
		"setpriv",
		"setsid", "stdbuf", "strace", "taskset", "time", "timeout", "tini", "tini-static", "watch-termination",
	}, name)
}

// isHarmless reports whether the program never starts another one.
func isHarmless(name string) bool {
	return slices.Contains([]string{
		":", "[", "[[", "awk", "basename", "cat", "cd", "chgrp", "chmod", "chown", "cp", "curl", "cut", "date",
		"dirname", "disown", "echo", "false", "getent", "grep", "head", "hostname", "hash", "id", "install", "ip",
		"iptables", "jobs", "kill", "killall", "ln", "ls", "mkdir", "mkfifo", "mktemp", "mount", "mountpoint", "mv",
		"pgrep", "pidof", "pkill", "printf", "ps", "pwd", "readlink", "realpath", "rm", "rmdir", "sed", "seq", "shopt",
		"sleep", "sort", "stat", "sync", "sysctl", "tail", "tee", "test", "times", "touch", "tr", "true", "type",
		"ulimit", "umask", "uname", "wait", "wc", "which",
	}, name)
}

// run records the kube-apiserver that a command starts. variables are its environment. input is
// the here-document that it reads, or nil. If it is not known what the command starts, run
// returns why.
func (r *reader) run(words []word, variables map[string]variable, input *value) (other string) {
	for len(words) > 0 && r.stopped == "" {
		name, known := words[0].name()
		switch {
		case !known && words[0].several:
			return "the program is not known: " + words[0].why()
		case !known:
			return "the program's name is not known: " + words[0].why()
		case isKubeAPIServer(name):
			r.started(words[1:])
			return ""
		case name == hyperkube:
			return r.hyperkube(words[1:])
		case isShell(name):
			return r.shell(name, words[1:], variables, input)
		case isHarmless(name):
			return ""
		case !isWrapper(name):
			return "it is not known what " + quoted(name) + " starts"
		}
		inner, why := commandIndex(words)
		if why != "" {
			return why
		}
		if inner == 0 {
			return "it is not known what " + quoted(name) + " starts"
		}
		if name == "env" {
			variables = r.env(words[1:inner], variables)
		}
		if name == "flock" &&
			slices.ContainsFunc(
				words[1:inner],
				func(w word) bool { return strings.HasPrefix(w.text(), "-") && strings.HasSuffix(w.text(), "c") },
			) {
			return "it is not known what " + quoted(name) + " starts"
		}
		words = words[inner:]
	}
	return ""
}

// hyperkube starts the program that its first word names.
func (r *reader) hyperkube(words []word) (other string) {
	if len(words) == 0 {
		return ""
	}
	switch name, known := words[0].whole(); {
	case !known:
		return "the program that hyperkube starts is not known: " + words[0].why()
	case isKubeAPIServer(name) || name == "apiserver":
		r.started(words[1:])
	}
	return ""
}

// commandIndex returns the index of the command after a wrapper and its options: what follows "--", or
// else the first word that names a relevant program. It returns 0 if it finds no command.
func commandIndex(words []word) (index int, why string) {
	first, several := 0, false
	for i := 1; i < len(words); i++ {
		if words[i].several {
			if first == 0 {
				return 0, "the arguments are not known: " + words[i].why()
			}
			break
		}
		if text, known := words[i].whole(); known && text == "--" && i+1 < len(words) &&
			words[i+1].namesProgram(isKnownProgram) {
			return i + 1, ""
		}
		if first > 1 && isOption(words[first-1]) && words[i].namesProgram(isServerOrShell) {
			// The first may be the option's value. What follows "--" would decide.
			several = true
		}
		if first == 0 && words[i].namesProgram(isServerOrShell) {
			if first = i; !words[i].namesProgram(isKubeAPIServer) {
				break // the rest are its own arguments
			}
		}
	}
	if name, _ := words[0].name(); several {
		return 0, "it is not known which of its arguments " + quoted(name) + " starts"
	}
	return first, ""
}

// isOption reports whether the word is an option whose value may be the next word.
func isOption(w word) bool {
	return strings.HasPrefix(w.text(), "-") && !strings.Contains(w.text(), "=")
}

// env returns the environment that the arguments of env set.
func (r *reader) env(words []word, variables map[string]variable) map[string]variable {
	changed := map[string]variable{}
	maps.Copy(changed, variables)
	for _, w := range words {
		text := w.text()
		name, _, assigns := strings.Cut(text, "=")
		switch {
		case strings.HasPrefix(text, "-") || (!assigns && !w.decided()):
			// It may clear the environment, or a part of it.
			for name := range changed {
				changed[name] = variable{value: value{{why: "env may change variable " + quoted(name)}}, exported: true}
			}
		case assigns:
			changed[name] = variable{value: w.after(len(name) + 1), exported: true}
		}
	}
	return changed
}

// part of a value is a text, or why the text is not known.
type part struct {
	text, why string
	// plain as in [Word].
	plain bool
}

type value []part

func literal(text string) value {
	if text == "" {
		return nil
	}
	return value{{text: text}}
}

// decided returns the text if all of it is known.
func (v value) decided() (text string, known bool) {
	if len(v) == 1 && v[0].why == "" {
		return v[0].text, true
	}
	var all strings.Builder
	for _, p := range v {
		if p.why != "" {
			return "", false
		}
		all.WriteString(p.text)
	}
	return all.String(), true
}

// why returns the reason of the first part that is not known.
func (v value) why() string {
	for _, p := range v {
		if p.why != "" {
			return p.why
		}
	}
	return ""
}

// plain reports whether each unknown part is an address, a name or a number.
func (v value) plain() bool {
	return !slices.ContainsFunc(v, func(p part) bool { return p.why != "" && !p.plain })
}

func (v value) equal(other value) bool { return slices.Equal(v.merged(), other.merged()) }

// merged joins adjacent texts.
func (v value) merged() value {
	var merged value
	var text strings.Builder
	flush := func() {
		if text.Len() > 0 {
			merged = append(merged, part{text: text.String()})
			text.Reset()
		}
	}
	for _, p := range v {
		if p.why == "" {
			text.WriteString(p.text)
			continue
		}
		flush()
		merged = append(merged, p)
	}
	flush()
	return merged
}

// word is a word of a command line while it is read.
type word struct {
	value
	// several as in [Word].
	several bool
}

func (w word) decided() bool { _, known := w.whole(); return known }

// whole returns the text of the word if all of it is known.
func (w word) whole() (string, bool) {
	if w.several {
		return "", false
	}
	return w.value.decided()
}

// text returns the word up to its first unknown part.
func (w word) text() string {
	var all strings.Builder
	for _, p := range w.value {
		if p.why != "" {
			break
		}
		all.WriteString(p.text)
	}
	return all.String()
}

// after returns the value without its first bytes, which are text.
func (w word) after(bytes int) value {
	rest := slices.Clone(w.value.merged())
	if len(rest) > 0 && rest[0].why == "" {
		rest[0].text = rest[0].text[min(bytes, len(rest[0].text)):]
	}
	return rest.merged()
}

// name returns the base name of the program that the word names. The directory of the program
// need not be known.
func (w word) name() (name string, known bool) {
	if w.several {
		return "", false
	}
	parts := w.value.merged()
	if len(parts) == 0 {
		return "", true
	}
	last := parts[len(parts)-1]
	if last.why != "" || (len(parts) > 1 && !strings.Contains(last.text, "/")) {
		return "", false
	}
	return path.Base(last.text), true
}

// namesProgram reports whether the word names such a program, and is neither an option nor an
// assignment.
func (w word) namesProgram(such func(name string) bool) bool {
	name, known := w.name()
	return known && such(name) && !strings.HasPrefix(w.text(), "-") && !strings.Contains(w.text(), "=")
}

func (w word) exported() Word {
	out := Word{Text: w.text(), Undecided: w.why(), Several: w.several}
	if out.Undecided != "" {
		i := slices.IndexFunc(w.value, func(p part) bool { return p.why != "" })
		out.Plain = w.value[i].plain && !w.several
	}
	return out
}

// quoted quotes a name for a message. It cuts a long name.
func quoted(name string) string {
	if len(name) > maxQuoted {
		name = name[:maxQuoted]
	}
	return strconv.QuoteToASCII(name)
}
