// SPDX-License-Identifier: Apache-2.0

package plainyaml_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/plainyaml"
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
		"an alias":               {data: "value: &a b\nname: *a", wantErr: "it uses YAML aliases, which are not followed here"},
		"a merge":                {data: "value: &a {name: b}\n<<: *a", wantErr: "it uses YAML aliases, which are not followed here"},
		"a list":                 {data: "- a", wantErr: "json: cannot unmarshal array into Go value of type plainyaml_test.object"},
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
