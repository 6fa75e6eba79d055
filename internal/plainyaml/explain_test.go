// SPDX-License-Identifier: Apache-2.0

package plainyaml_test

import (
	"errors"
	"io"
	"strings"
	"testing"

	yamlv3 "go.yaml.in/yaml/v3"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/plainyaml"
)

// TestExplain: errors of decoders name the field, what it is and what it must be, and
// nothing of Go or of a text that was given by mistake.
func TestExplain(t *testing.T) {
	type inner struct {
		Port  int32             `json:"port"`
		Small uint8             `json:"small"`
		Names []string          `json:"names"`
		Data  []byte            `json:"data"`
		More  map[string]string `json:"more"`
	}
	type object struct {
		Name  string  `json:"name"`
		On    *bool   `json:"good"`
		Ratio float64 `json:"ratio"`
		Inner inner   `json:"inner"`
		Any   any     `json:"any"`
	}
	const root = "root:x:0:0:root:/root:/bin/bash\ndaemon:x:1:1::/usr/sbin/nologin\n"
	for name, c := range map[string]struct {
		data, want string
		shape      bool
	}{
		"another file":      {data: root, want: "it is a string, expected an object", shape: true},
		"a list":            {data: "[]", want: "it is a list, expected an object", shape: true},
		"a number":          {data: "7", want: "it is a number, expected an object", shape: true},
		"a boolean":         {data: "true", want: "it is a boolean, expected an object", shape: true},
		"a name":            {data: "name: [a]", want: "name is a list, expected a string"},
		"a boolean field":   {data: "good: 7", want: "good is a number, expected true or false"},
		"a ratio":           {data: "ratio: much", want: "ratio is a string, expected a number"},
		"a field below":     {data: "inner: {port: x}", want: "inner.port is a string, expected a whole number of 32 bits"},
		"a large number":    {data: "inner: {port: 9999999999}", want: "inner.port is the number 9999999999, expected a whole number of 32 bits"},
		"a negative number": {data: "inner: {small: -1}", want: "inner.small is the number -1, expected a whole number of 8 bits, not negative"},
		"a list of names":   {data: "inner: {names: x}", want: "inner.names is a string, expected a list"},
		"bytes":             {data: "inner: {data: {}}", want: "inner.data is an object, expected a string"},
		"an object below":   {data: "inner: x", want: "inner is a string, expected an object"},
		"a map below":       {data: `{"inner":{"more":[]}}`, want: "inner.more is a list, expected an object"},
		"infinite":          {data: "any: .inf", want: "it has the value +Inf, which JSON does not have"},
		"a list as a key":   {data: "any: {? [a] : b}", want: "the key of a field is neither a string, a number nor a boolean"},
	} {
		t.Run(name, func(t *testing.T) {
			for how, unmarshal := range map[string]func([]byte, any) error{
				"Unmarshal": plainyaml.Unmarshal, "UnmarshalStrict": plainyaml.UnmarshalStrict,
			} {
				err := unmarshal([]byte(c.data), &object{})
				if err == nil || err.Error() != c.want || errors.Is(err, plainyaml.ErrShape) != c.shape {
					t.Errorf("%s: got error %v, want %q, ErrShape %v", how, err, c.want, c.shape)
				}
			}
		})
	}
	for name, err := range map[string]error{"nil": nil, "another error": io.EOF} {
		if got := plainyaml.Explain(err); !errors.Is(got, err) {
			t.Errorf("%s: got %v", name, got)
		}
	}
}

// TestExplainYAML: errors of go.yaml.in/yaml/v3 keep their line.
func TestExplainYAML(t *testing.T) {
	type named string
	type object struct {
		Name  string         `yaml:"name"`
		Count int            `yaml:"count"`
		On    bool           `yaml:"on"`
		Ratio *float64       `yaml:"ratio"`
		Names []string       `yaml:"names"`
		More  map[string]int `yaml:"more"`
		Named named          `yaml:"named"`
	}
	for name, c := range map[string]struct{ data, want string }{
		"another file":  {"root:x:0:0\ndaemon:x:1\n", "line 1: it is a string"},
		"a string":      {"\nname: []", "line 2: it is a list, expected a string"},
		"a number":      {"count: x", "line 1: it is a string, expected a whole number"},
		"a boolean":     {"on: x", "line 1: it is a string, expected true or false"},
		"a ratio":       {"ratio: {}", "line 1: it is an object, expected a number"},
		"a list":        {"names: 7", "line 1: it is a number, expected a list"},
		"a map":         {"more: true", "line 1: it is a boolean, expected an object"},
		"a named type":  {"named: [a]", "line 1: it is a list"},
		"unknown field": {"nam: a", "line 1: unknown field nam"},
		"two":           {"name: {}\ncount: 2026-11-22", "line 1: it is an object, expected a string; line 2: it is a date, expected a whole number"},
	} {
		t.Run(name, func(t *testing.T) {
			decoder := yamlv3.NewDecoder(strings.NewReader(c.data))
			decoder.KnownFields(true)
			if err := plainyaml.Explain(decoder.Decode(&object{})); err == nil || err.Error() != c.want {
				t.Errorf("got error %v, want %q", err, c.want)
			}
		})
	}
}
