// SPDX-License-Identifier: Apache-2.0

package docs_test

import (
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// TestUpgrade: programs and people may depend on the names of the previous version. Each of them exists, or
// docs/upgrade.md names it in the column of that version.
func TestUpgrade(t *testing.T) {
	messages, monitoring := read(t, "docs/messages.md"), read(t, "docs/monitoring.md")
	_, webhook, _ := strings.Cut(read(t, "docs/configuration.md"), "<!-- flags of webhook serve -->")
	webhook, agent, _ := strings.Cut(webhook, "<!-- flags of nodeagent run -->")
	flag := func(help string) func(string) bool {
		return func(name string) bool { return regexp.MustCompile(`(?m)^ +--?` + name + `( |$)`).MatchString(help) }
	}
	reasons := finding.Reasons()
	exists := map[string]func(name string) bool{
		"log message": func(name string) bool {
			name = regexp.QuoteMeta(name)
			return regexp.MustCompile(`(?m)^    [A-Z]+: ` + name + `( <|$)|^` + name + ` \([A-Z]+\)$`).MatchString(messages)
		},
		"Event reason": func(name string) bool {
			return regexp.MustCompile(`(?m)^` + name + ` \((Normal|Warning)\)$`).MatchString(messages)
		},
		"metric": func(name string) bool {
			// In a row with several metrics, "…" is the beginning of the first.
			for i := range name {
				if tail := "…" + name[i:]; name[i] == '_' &&
					regexp.MustCompile("`"+tail+"[`{]").MatchString(monitoring) {
					return true
				}
			}
			return regexp.MustCompile("`" + name + "[`{]").MatchString(monitoring)
		},
		"alert": func(name string) bool {
			return regexp.MustCompile(`(?m)^\| \[?` + name + `\b`).MatchString(monitoring)
		},
		"flag of webhook":   flag(webhook),
		"flag of nodeagent": flag(agent),
		"reason":            func(name string) bool { return slices.Contains(reasons, finding.Reason(name)) },
		"JSON field":        func(name string) bool { return slices.Contains(documentFields(t), name) },
	}
	var before strings.Builder
	for line := range strings.Lines(read(t, "docs/upgrade.md")) {
		if cells := strings.Split(line, "|"); len(cells) > 2 {
			before.WriteString(cells[1] + "\n")
		}
	}
	existing := map[string]int{}
	for line := range strings.Lines(read(t, "test/docs/testdata/names-0.2.txt")) {
		kind, name, ok := strings.Cut(strings.TrimSpace(line), "\t")
		if !ok {
			continue
		}
		switch {
		case exists[kind] == nil:
			t.Errorf("%q is not a known kind of name", kind)
		case exists[kind](name):
			existing[kind]++
		case !regexp.MustCompile("[`-]" + regexp.QuoteMeta(name) + "[` ]|alert " + name).MatchString(before.String()):
			t.Errorf("%s %s does not exist any longer: add a row to docs/upgrade.md", kind, name)
		}
	}
	for kind := range exists {
		if existing[kind] == 0 {
			t.Errorf("no %s of the previous version was found: the test is broken", kind)
		}
	}
}

// documentFields returns the paths of all fields of the JSON documents.
func documentFields(t *testing.T) []string {
	t.Helper()
	type schema struct {
		Properties map[string]*schema
		Items      *schema
	}
	var root schema
	if err := json.Unmarshal([]byte(read(t, "docs/evidence.schema.json")), &root); err != nil {
		t.Fatal(err)
	}
	var fieldsOf func(s *schema) []string
	fieldsOf = func(s *schema) []string {
		if s.Items != nil {
			return fieldsOf(s.Items)
		}
		var all []string
		for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
			all = append(all, name)
			for _, inner := range fieldsOf(s.Properties[name]) {
				all = append(all, name+"."+inner)
			}
		}
		return all
	}
	return fieldsOf(&root)
}
