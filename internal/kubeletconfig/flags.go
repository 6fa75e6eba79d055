// SPDX-License-Identifier: Apache-2.0

package kubeletconfig

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// The kubelet's flags that are needed (Kubernetes cmd/kubelet/app/options/options.go).
// All of them take a value.
const (
	flagConfig       = "config"
	flagConfigDir    = "config-dir"
	flagStaticPods   = "pod-manifest-path"
	flagClientCA     = "client-ca-file"
	flagPodURL       = "manifest-url"
	flagPort         = "port"
	flagReadOnlyPort = "read-only-port"
)

func knownFlags() []string {
	return []string{flagConfig, flagConfigDir, flagStaticPods, flagPodURL, flagClientCA, flagPort, flagReadOnlyPort}
}

// flags are the known flags of a command line.
type flags struct {
	// values by name. The last one of several counts.
	values map[string]string
	// hidden is true if there are unknown words, which may be flags.
	hidden bool
	// fromVariables is true if some flags come, or may come, from variables.
	fromVariables bool
}

// parseFlags reads the words after the program's name as pflag does: "--name=value" and
// "--name value", "_" for "-" (k8s.io/component-base/cli/flag, WordSepNormalizeFunc). A flag
// that is not known here takes the next word as its value unless that looks like a flag: a
// kubelet refuses to start with other arguments.
func parseFlags(words []word) (flags, error) {
	f := flags{values: map[string]string{}}
	for i := 0; i < len(words); i++ {
		w := words[i]
		f.fromVariables = f.fromVariables || w.split
		text, isFlag := strings.CutPrefix(w.text, "-")
		switch {
		case strings.HasPrefix(w.text, unknownMark):
			f.hidden = true
			continue
		case w.text == "--":
			return f, nil
		case !isFlag || text == "":
			continue
		}
		long, isLong := strings.CutPrefix(text, "-")
		name, value, hasValue := strings.Cut(long, "=")
		name = strings.ReplaceAll(name, "_", "-")
		switch {
		case strings.Contains(name, unknownMark):
			f.hidden = true
			continue
		case !isLong || !slices.Contains(knownFlags(), name):
			if !hasValue && i+1 < len(words) && !strings.HasPrefix(words[i+1].text, "-") &&
				!strings.HasPrefix(words[i+1].text, unknownMark) {
				i++
			}
			continue
		case !hasValue:
			if i+1 == len(words) {
				return f, fmt.Errorf("--%s has no value, so the kubelet does not start", name)
			}
			i++
			value = words[i].text
		}
		f.fromVariables = f.fromVariables || words[i].variables
		f.values[name] = value
	}
	return f, nil
}

// problem returns an error if the value of a known flag is not known.
func (f flags) problem(at string) error {
	for _, name := range knownFlags() {
		value := f.values[name]
		if _, rest, unknown := strings.Cut(value, unknownMark); unknown {
			of, _, _ := strings.Cut(rest, unknownMark)
			return ProblemError{At: at, Err: fmt.Errorf(
				"the value of the kubelet's flag --%s is not known: it contains %s, whose value is not visible", name, of)}
		}
		if !isPath(value) {
			return ProblemError{At: at, Err: fmt.Errorf("--%s: %w", name, errNoPath)}
		}
	}
	return nil
}

// number parses the value of a flag as pflag's Int32 does.
func (f flags) number(name string, into *int32) error {
	value, given := f.values[name]
	if !given {
		return nil
	}
	n, err := strconv.ParseInt(value, 0, 32)
	if err != nil {
		return fmt.Errorf("--%s is not a number, so the kubelet does not start", name)
	}
	*into = int32(n)
	return nil
}
