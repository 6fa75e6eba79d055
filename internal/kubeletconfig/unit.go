// SPDX-License-Identifier: Apache-2.0

package kubeletconfig

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
)

const (
	unitName = "kubelet.service"
	// MaxUnitDropIns bounds the drop-ins of the unit that are read in one directory.
	MaxUnitDropIns = 100
	// maxWords bounds a command line.
	maxWords = 10000
	// kubeadmVariable is what [KubeadmFlags] sets.
	kubeadmVariable = "KUBELET_KUBEADM_ARGS"
	// wrapper is a program of OpenShift that starts the kubelet with its own arguments
	// (machine-config-operator templates/master/01-master-kubelet/_base/units).
	wrapper = "kubenswrapper"
	// byteOrderMark at the beginning of a unit file is skipped by systemd
	// (src/shared/conf-parser.c, config_parse).
	byteOrderMark = "\ufeff"
)

// unitDirectories are systemd's directories of units, by priority (systemd.unit(5), "Unit
// File Load Path", without the directories of generators).
func unitDirectories() []string {
	return []string{
		"/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system",
		"/usr/lib/systemd/system", "/lib/systemd/system",
	}
}

// standardDirectories exist on each host with systemd. If one does not exist here, it is not
// visible.
func standardDirectories() []string {
	return []string{"/etc/systemd/system", "/usr/lib/systemd/system"}
}

// command is the kubelet's command line.
type command struct {
	// at is the file with the command line or a part of it; empty if none is visible.
	at string
	// found is true if it is the whole command line.
	found bool
	// words after the kubelet's name.
	words []word
	// hiddenFiles are the files with variables that are not visible.
	hiddenFiles []string
	// unseen are the directories of units that are not visible.
	unseen []string
}

// command reads the unit with its drop-ins. If there is no unit, it reads the flags file of
// kubeadm, which kubeadm's unit uses.
func (r *reader) command() (command, error) {
	var c command
	for _, directory := range standardDirectories() {
		if _, err := fs.Stat(r.host, name(directory)); notVisible(err) {
			c.unseen = append(c.unseen, directory)
		}
	}
	u := unit{environment: map[string]string{}}
	for _, directory := range unitDirectories() {
		at := path.Join(directory, unitName)
		data, err := r.file(at)
		if notVisible(err) {
			continue
		}
		if err != nil {
			return c, ProblemError{At: at, Err: err, Unread: true}
		}
		u.add(at, data)
		break
	}
	if err := r.dropIns(&u); err != nil {
		return c, err
	}
	if u.err != nil {
		return c, u.err
	}
	c.at = u.execAt
	hidden, err := r.variables(&u)
	if err != nil {
		return c, err
	}
	c.hiddenFiles = hidden
	u.passAndUnset()
	words, err := u.words(len(hidden) > 0)
	if err != nil {
		return c, ProblemError{At: u.execAt, Err: err}
	}
	// If another program starts the kubelet, such as a shell or podman, the kubelet's
	// arguments are not visible.
	i := slices.IndexFunc(words, func(w word) bool { return path.Base(w.text) != wrapper })
	if i >= 0 && path.Base(words[i].text) == "kubelet" {
		c.found, c.words = true, words[i+1:]
		return c, nil
	}
	return r.kubeadmFlags(c)
}

// kubeadmFlags reads the flags of a kubelet whose unit is not visible.
func (r *reader) kubeadmFlags(c command) (command, error) {
	data, err := r.file(KubeadmFlags)
	if notVisible(err) {
		return c, nil
	}
	if err != nil {
		return c, ProblemError{At: KubeadmFlags, Err: err, Unread: true}
	}
	if value, set := parseEnvironment(data)[kubeadmVariable]; set {
		words, err := splitWords(value, false)
		if err != nil {
			return c, ProblemError{At: KubeadmFlags, Err: err}
		}
		c.at = KubeadmFlags
		for _, text := range words {
			c.words = append(c.words, word{text: text, variables: true, split: true})
		}
	}
	return c, nil
}

// dropIns adds the drop-ins of all directories in the order of their names. Of several with
// one name, that of the first directory counts (systemd.unit(5)).
func (r *reader) dropIns(u *unit) error {
	at := map[string]string{}
	for _, directory := range unitDirectories() {
		directory = path.Join(directory, unitName+".d")
		entries, err := fs.ReadDir(r.host, name(directory))
		if notVisible(err) {
			continue
		}
		if err != nil {
			return ProblemError{At: directory, Err: err, Unread: true}
		}
		if len(entries) > MaxUnitDropIns {
			return ProblemError{At: directory, Unread: true, Err: fmt.Errorf(
				"it has %d entries, more than the limit of %d", len(entries), MaxUnitDropIns)}
		}
		for _, entry := range entries {
			if _, hides := at[entry.Name()]; !hides && path.Ext(entry.Name()) == ".conf" &&
				!strings.HasPrefix(entry.Name(), ".") {
				at[entry.Name()] = path.Join(directory, entry.Name())
			}
		}
	}
	for _, file := range sortedKeys(at) {
		if info, err := fs.Stat(r.host, name(at[file])); err == nil && info.Mode()&fs.ModeCharDevice != 0 {
			continue // masked: a symlink to /dev/null
		}
		data, err := r.file(at[file])
		if notVisible(err) {
			continue // a dangling symlink, such as a masked drop-in if /dev is not mounted
		}
		if err != nil {
			return ProblemError{At: at[file], Err: err, Unread: true}
		}
		u.add(at[file], data)
	}
	return nil
}

// variables reads the files with variables, and returns those that are not visible.
func (r *reader) variables(u *unit) (hidden []string, err error) {
	for _, file := range u.files {
		file = strings.TrimPrefix(file, "-")
		if strings.ContainsAny(file, "*?[%") || !path.IsAbs(file) {
			hidden = append(hidden, file)
			continue
		}
		data, err := r.file(file)
		if notVisible(err) {
			hidden = append(hidden, file)
			continue
		}
		if err != nil {
			return nil, ProblemError{At: file, Err: err, Unread: true}
		}
		maps.Copy(u.environment, parseEnvironment(data))
	}
	return hidden, nil
}

// unit has the settings of a unit that were read so far.
type unit struct {
	exec, execAt string
	several      bool
	environment  map[string]string
	files        []string
	// passed are variables that systemd passes from its own environment, which is not
	// visible. unset are those that it removes at the end, as NAME or NAME=value
	// (systemd.exec(5)).
	passed, unset []string
	err           error
}

// add reads one file of the unit (systemd.syntax(7)).
func (u *unit) add(at string, data []byte) {
	section := ""
	text := strings.TrimPrefix(string(data), byteOrderMark)
	for _, line := range logicalLines(text) {
		if strings.HasPrefix(line, "[") {
			section = line
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok || section != "[Service]" {
			continue
		}
		value = strings.TrimSpace(value)
		switch strings.TrimSpace(key) {
		case "ExecStart":
			u.several = u.exec != "" && value != ""
			u.exec, u.execAt = value, at
		case "EnvironmentFile":
			u.files = append(u.files, value)
			if value == "" {
				u.files = nil
			}
		case "Environment":
			u.setEnvironment(at, value)
		case "PassEnvironment":
			u.addNames(at, "PassEnvironment", &u.passed, value)
		case "UnsetEnvironment":
			u.addNames(at, "UnsetEnvironment", &u.unset, value)
		}
	}
}

// addNames adds to a list of variables. An empty value clears it.
func (u *unit) addNames(at, key string, to *[]string, value string) {
	words, err := splitWords(value, true)
	switch {
	case err != nil:
		u.err = ProblemError{At: at, Err: fmt.Errorf("%s=: %w", key, err)}
	case len(words) == 0:
		*to = nil
	default:
		*to = append(*to, words...)
	}
}

// passAndUnset adds the passed variables that are not set, and removes the unset ones.
func (u *unit) passAndUnset() {
	for _, name := range u.passed {
		if _, set := u.environment[name]; !set {
			u.environment[name] = unknown("$" + name)
		}
	}
	for _, name := range u.unset {
		name, value, withValue := strings.Cut(name, "=")
		if !withValue || u.environment[name] == value {
			delete(u.environment, name)
		}
	}
}

func (u *unit) setEnvironment(at, value string) {
	if value == "" {
		clear(u.environment)
		return
	}
	words, err := splitWords(value, true)
	if err != nil {
		u.err = ProblemError{At: at, Err: fmt.Errorf("%s=: %w", "Environment", err)}
		return
	}
	for _, w := range words {
		if name, value, ok := strings.Cut(specifiers(w), "="); ok {
			u.environment[name] = value
		}
	}
}

// word of a command line. Its text has marks for unknown pieces.
type word struct {
	text string
	// variables: it contains variables. split: it comes from a variable that was split.
	variables, split bool
}

// unknownMark is before and after the name of something that is not known.
const unknownMark = "\x00"

func unknown(what string) string { return unknownMark + what + unknownMark }

// words returns the words of ExecStart with expanded variables (systemd.service(5), "Command
// lines"): "${NAME}" anywhere becomes one piece, and a separate word "$NAME" becomes the
// words in it. hidden is true if files that are not visible may set variables.
func (u *unit) words(hidden bool) ([]word, error) {
	if u.several {
		return nil, errors.New("it has several ExecStart= lines, which systemd refuses")
	}
	line := strings.TrimLeft(u.exec, "@-:+!|")
	literal := strings.Contains(u.exec[:len(u.exec)-len(line)], ":")
	pieces, err := splitWords(line, true)
	if err != nil {
		return nil, fmt.Errorf("ExecStart=: %w", err)
	}
	var words []word
	for _, piece := range pieces {
		piece = specifiers(piece)
		name, alone := strings.CutPrefix(piece, "$")
		switch {
		case literal:
			words = append(words, word{text: piece})
			continue
		case !alone || name == "" || name[0] == '{' || name[0] == '$':
			text, variables := u.expand(piece, hidden)
			words = append(words, word{text: text, variables: variables})
			continue
		}
		value, set := u.environment[name]
		if !set && hidden {
			words = append(words, word{text: unknown("$" + name), variables: true, split: true})
			continue
		}
		inside, err := splitWords(value, false)
		if err != nil {
			return nil, fmt.Errorf("variable %s: %w", name, err)
		}
		for _, text := range inside {
			words = append(words, word{text: text, variables: true, split: true})
		}
		if len(words) > maxWords {
			return nil, fmt.Errorf("it has more than %d words", maxWords)
		}
	}
	return words, nil
}

// expand replaces "${NAME}" and "$$".
func (u *unit) expand(text string, hidden bool) (expanded string, variables bool) {
	var b strings.Builder
	for {
		before, after, found := strings.Cut(text, "$")
		b.WriteString(before)
		if !found {
			return b.String(), variables
		}
		name, rest, closed := strings.Cut(strings.TrimPrefix(after, "{"), "}")
		switch {
		case strings.HasPrefix(after, "$"):
			b.WriteString("$")
			text = after[1:]
		case strings.HasPrefix(after, "{") && closed:
			variables = true
			value, set := u.environment[name]
			if !set && hidden {
				value = unknown("${" + name + "}")
			}
			b.WriteString(value)
			text = rest
		default:
			b.WriteString("$")
			text = after
		}
	}
}

// specifiers marks systemd's specifiers as unknown, except "%%".
func specifiers(text string) string {
	var b strings.Builder
	for {
		before, after, found := strings.Cut(text, "%")
		b.WriteString(before)
		switch {
		case !found:
			return b.String()
		case after == "":
			b.WriteString("%")
		case after[0] == '%':
			b.WriteString("%")
			after = after[1:]
		default:
			b.WriteString(unknown("%" + after[:1]))
			after = after[1:]
		}
		text = after
	}
}
