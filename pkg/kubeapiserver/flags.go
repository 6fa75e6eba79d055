// SPDX-License-Identifier: Apache-2.0

package kubeapiserver

import (
	"slices"
	"strings"
)

// Word is a word of a kube-apiserver's command line. It may be known in part only.
type Word struct {
	// Text is the word, or its beginning up to the first part that is not known.
	Text string
	// Undecided says why the rest is not known. It is empty if Text is the whole word.
	Undecided string
	// Several: the unknown part may be several words, or no word.
	Several bool
	// Plain: the unknown part is an address, a name or a number, and does not begin with a
	// dash.
	Plain bool
}

// ParseFlags reads a command line whose words are all known. See [ParseWords].
func ParseFlags(words []string) Config {
	known := make([]Word, 0, len(words))
	for _, word := range words {
		known = append(known, Word{Text: word})
	}
	return ParseWords(known)
}

// ParseWords reads the words of a command line as kube-apiserver does (github.com/spf13/pflag flag.go,
// parseArgs): "--name=value" and "--name value", where the value may begin with a dash; a boolean flag does not
// use the next word; "--" ends the flags; a single dash begins a short flag. It skips words that are not flags,
// and flags that are not read here, although kube-apiserver may not start with them.
//
// A flag whose value is not known is undecided ([Config.Undecided]). All flags are undecided if a word is not
// known that may be any flag or several words: the last occurrence of a flag counts, and the word before a flag
// may use it as its value. Only [OpenShiftConfigFlag] counts if it is after such words.
func ParseWords(words []Word) Config {
	config := Config{arguments: map[string][]string{}}
	for i := 0; i < len(words); i++ {
		word := words[i]
		switch {
		case word.mayBeAnyFlag():
			config.undecideAll(word.Undecided)
			continue
		case word.Text == "--" && word.Undecided == "":
			return config
		case !strings.HasPrefix(word.Text, "-") || word.Text == "-":
			continue
		case !strings.HasPrefix(word.Text, "--"):
			if word.Text == "-v" && word.Undecided == "" {
				i++ // its value
			}
			continue
		}
		name, value, hasValue := strings.Cut(word.Text[len("--"):], "=")
		if name == "" || name[0] == '-' {
			continue // kube-apiserver does not start with it
		}
		name = flagName(name)
		switch next := i + 1; {
		case hasValue:
			config.addFlag(name, value, word.Undecided)
		case isBoolean(name):
			config.addFlag(name, "true", "")
		case next == len(words): // kube-apiserver does not start with it
			config.addFlag(name, "", "")
		case words[next].Several:
			config.undecideAll(words[next].Undecided)
			i++
		case !takesValue(name) && strings.HasPrefix(words[next].Text, "-"):
			config.undecideAll("it is not known whether the next word is the value of " + quoteKey(name))
		default:
			config.addFlag(name, words[next].Text, words[next].Undecided)
			i++
		}
	}
	return config
}

// mayBeAnyFlag reports whether the word may be any flag.
func (w Word) mayBeAnyFlag() bool {
	switch {
	case w.Undecided == "":
		return false
	case w.Several:
		return true
	case w.Text == "":
		return !w.Plain
	case w.Text[0] != '-':
		return false
	case w.Text == "-" || strings.HasPrefix(w.Text, "--"):
		return !strings.Contains(w.Text, "=")
	}
	return false
}

// addFlag adds a value, or the reason why it is not known.
func (c *Config) addFlag(name, value, undecided string) {
	switch {
	case undecided != "":
		if c.undecided == nil {
			c.undecided = map[string]string{}
		}
		c.undecided[name] = undecided
		return
	case !accumulates(name):
		delete(c.undecided, name) // the last value counts
	}
	c.arguments[name] = append(c.arguments[name], value)
	if name == OpenShiftConfigFlag {
		c.configFlagLast = true
	}
}

func (c *Config) undecideAll(why string) {
	c.configFlagLast = false
	if c.allUndecided == "" {
		c.allUndecided = why
	}
}

// Undecided says why the value of an argument is not known; [Config.Value] returns no value then. It is empty if the
// value is known, or if it is known that the argument is not set.
func (c Config) Undecided(name string) string {
	switch why, undecided := c.undecided[name]; {
	case undecided:
		return why
	case name == OpenShiftConfigFlag && c.configFlagLast:
		return ""
	case slices.Contains(c.decided, name):
		return ""
	}
	return c.allUndecided
}

// AllUndecided says why no argument is known except those of the configuration file. It is empty if the command line is
// known.
func (c Config) AllUndecided() string { return c.allUndecided }

// WithAllUndecided returns a configuration without any known argument. why says why.
func WithAllUndecided(why string) Config { return Config{allUndecided: why} }

// accumulates reports whether all values of an argument count, and not only the last one.
func accumulates(name string) bool {
	switch name {
	case DisableAdmissionPlugins, AdmissionControl, RuntimeConfig, FeatureGates, KubeletPreferredAddressTypes,
		"enable-admission-plugins":
		return true
	}
	return false
}

// takesValue reports whether the argument is read here and is not a boolean.
func takesValue(name string) bool {
	switch name {
	case KubeletClientCertificate, KubeletClientKey, KubeletCertificateAuthority, KubeletReadOnlyPort, OpenShiftConfigFlag,
		DisableAdmissionPlugins, AdmissionControl, AdmissionControlConfigFile, RuntimeConfig, FeatureGates,
		"enable-admission-plugins":
		return true
	}
	return false
}

// isBoolean reports whether the flag without a value means "true" (pflag, NoOptDefVal). The first group is from
// kube-apiserver --help of 1.37.2, the second from earlier releases.
func isBoolean(name string) bool {
	return slices.Contains([]string{
		"aggregator-reject-forwarding-redirect", "allow-privileged", "anonymous-auth", "audit-log-batch-throttle-enable",
		"audit-log-compress",
		"audit-log-truncate-enabled", "audit-webhook-batch-throttle-enable", "audit-webhook-truncate-enabled",
		"contention-profiling",
		"disable-http2-serving", "emulation-forward-compatible", "enable-aggregator-routing", "enable-bootstrap-token-auth",
		"enable-garbage-collector", "enable-logs-handler", "enable-priority-and-fairness",
		"encryption-provider-config-automatic-reload", "help",
		"log-json-split-stream", "log-text-split-stream", "permit-address-sharing", "permit-port-sharing", "profiling",
		"runtime-config-emulation-forward-compatible", "service-account-extend-token-expiration", "service-account-lookup",
		"shutdown-send-retry-after", "version", "watch-cache",

		KubeletHTTPS, "add-dir-header", "alsologtostderr", "audit-dynamic-configuration", "enable-inflight-quota-handler",
		"enable-swagger-ui", "logtostderr",
		"one-output", "repair-malformed-updates", "skip-headers", "skip-log-headers",
	}, name)
}
