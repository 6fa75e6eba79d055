// SPDX-License-Identifier: Apache-2.0

package plainyaml_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/plainyaml"
)

// FuzzUnmarshal: no text makes it panic; JSON is read as JSON; what is read of
// YAML is the same when it is written as JSON and read again.
func FuzzUnmarshal(f *testing.F) {
	for _, seed := range []string{
		"", "null", "{}", "[]", "1", `"a"`, "a", "a: b", "- a", "{a: 1e400}", "1: a\n\"1\": b", "~: x", "? [a]\n: b",
		"a: .nan", "a: 2026-11-22", "a: !!binary aGk=",
		"a: &a b\nc: *a", "<<: {a: b}", "a: |\n  b\n", "--- a\n--- b\n", "\xff", "{", strings.Repeat("[", 10_000),
		strings.Repeat("a", plainyaml.MaxYAML+1),
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var got, plain any
		err := plainyaml.Unmarshal(data, &got)
		if plainyaml.UnmarshalJSON(data, &plain) == nil {
			if err != nil {
				t.Errorf("JSON is not read: %v", err)
			}
			if d := cmp.Diff(plain, got); d != "" {
				t.Errorf("as JSON, and read (-want +got):\n%s", d)
			}
		}
		if plainyaml.UnmarshalStrict(data, new(any)) == nil && err != nil {
			t.Errorf("strictly read, but not read: %v", err)
		}
		if err != nil {
			return
		}
		written, err := json.Marshal(got)
		if err != nil {
			t.Fatal(err)
		}
		var again any
		if err := plainyaml.UnmarshalJSON(written, &again); err != nil {
			t.Fatalf("written and read again: %v", err)
		}
		if d := cmp.Diff(numbers(got), numbers(again)); d != "" {
			t.Errorf("written and read again (-first +second):\n%s", d)
		}
	})
}

// numbers is a value with all numbers of one type: JSON is written without the
// fraction of 1.0, and read as an integer then.
func numbers(value any) any {
	switch v := value.(type) {
	case int64:
		return float64(v)
	case []any:
		for i := range v {
			v[i] = numbers(v[i])
		}
	case map[string]any:
		for key := range v {
			v[key] = numbers(v[key])
		}
	}
	return value
}
