// SPDX-License-Identifier: Apache-2.0

package plainyaml_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/plainyaml"
)

func TestUnmarshal(t *testing.T) {
	type object struct {
		Name  string `json:"name"`
		Value any    `json:"value"`
	}
	cases := map[string]struct {
		data    string
		want    object
		wantErr string
	}{
		"JSON":                   {data: `{"name":"a","value":1}`, want: object{"a", int64(1)}},
		"YAML":                   {data: "name: a\nvalue: [1, x]\n", want: object{"a", []any{int64(1), "x"}}},
		"YAML in braces":         {data: "{name: a, value: 1.5}", want: object{"a", 1.5}},
		"another spelling":       {data: `{"Name":"a"}`},
		"another spelling, YAML": {data: "Name: a"},
		"unknown fields":         {data: `{"name":"a","more":[]}`, want: object{Name: "a"}},
		"an anchor alone":        {data: "name: &a a", want: object{Name: "a"}},
		"an asterisk in a text":  {data: "name: '*a'", want: object{Name: "*a"}},
		"an alias":               {data: "value: &a b\nname: *a", wantErr: "it uses YAML aliases, which are not supported"},
		"a merge":                {data: "value: &a {name: b}\n<<: *a", wantErr: "it uses YAML aliases, which are not supported"},
		"a list":                 {data: "- a", wantErr: "it is a list, expected an object"},
		"cut off":                {data: "{name: ", wantErr: "yaml: line 1: did not find expected node content"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var got object
			err := plainyaml.Unmarshal([]byte(c.data), &got)
			if err != nil && c.wantErr == "" || err == nil && c.wantErr != "" || err != nil && err.Error() != c.wantErr {
				t.Fatalf("Unmarshal: error %v, want %q", err, c.wantErr)
			}
			if d := cmp.Diff(c.want, got); err == nil && d != "" {
				t.Errorf("Unmarshal (-want +got):\n%s", d)
			}
		})
	}
}

func TestUnmarshalStrict(t *testing.T) {
	type object struct {
		Name  string            `json:"name"`
		Inner map[string]string `json:"inner"`
	}
	const twice = `yaml: unmarshal errors: line 2: key "name" already set in map`
	cases := map[string]struct {
		data    string
		want    object
		wantErr string
	}{
		"JSON":                   {data: `{"name":"a","inner":{"b":"c"}}`, want: object{"a", map[string]string{"b": "c"}}},
		"YAML":                   {data: "name: a\ninner: {b: c}\n", want: object{"a", map[string]string{"b": "c"}}},
		"nothing":                {},
		"unknown field":          {data: `{"name":"a","more":[]}`, wantErr: `unknown field "more"`},
		"unknown field, YAML":    {data: "name: a\nmore: []\n", wantErr: `unknown field "more"`},
		"another spelling":       {data: `{"Name":"a"}`, wantErr: `unknown field "Name"`},
		"twice":                  {data: `{"name":"a","name":"a"}`, wantErr: `duplicate field "name"`},
		"twice, YAML":            {data: "name: a\nname: a\n", wantErr: twice},
		"twice in a map":         {data: `{"inner":{"b":"c","b":"c"}}`, wantErr: `duplicate field "inner.b"`},
		"of several faults one":  {data: "name: a\nname: a\nmore: []\n", wantErr: twice},
		"an alias":               {data: "inner: {a: &a b}\nname: *a", wantErr: "it uses YAML aliases, which are not supported"},
		"another type":           {data: "name: [a]\n", wantErr: "name is a list, expected a string"},
		"cut off":                {data: "{name: ", wantErr: "yaml: line 1: did not find expected node content"},
		"two documents of which": {data: "name: a\n---\nmore: []\n", want: object{Name: "a"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var got object
			err := plainyaml.UnmarshalStrict([]byte(c.data), &got)
			if err != nil && c.wantErr == "" || err == nil && c.wantErr != "" || err != nil && err.Error() != c.wantErr {
				t.Fatalf("UnmarshalStrict: error %v, want %q", err, c.wantErr)
			}
			if d := cmp.Diff(c.want, got); err == nil && d != "" {
				t.Errorf("UnmarshalStrict (-want +got):\n%s", d)
			}
		})
	}
}

// TestErrLimit: it tells what is not read here from what is wrong.
func TestErrLimit(t *testing.T) {
	for name, c := range map[string]struct {
		data string
		want bool
	}{
		"an alias":  {"value: &a b\nname: *a", true},
		"too large": {strings.Repeat("#", plainyaml.MaxYAML+1), true},
		"cut off":   {"{name: ", false},
		"a list":    {"- a", false},
	} {
		for how, unmarshal := range map[string]func([]byte, any) error{"Unmarshal": plainyaml.Unmarshal,
			"UnmarshalStrict": plainyaml.UnmarshalStrict} {
			if err := unmarshal([]byte(c.data), &struct{}{}); err == nil || errors.Is(err, plainyaml.ErrLimit) != c.want {
				t.Errorf("%s, %s: got error %v, want one of ErrLimit: %t", how, name, err, c.want)
			}
		}
	}
}
