// SPDX-License-Identifier: Apache-2.0

package chart_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kubelet-https-guard/kubelet-https-guard/test/chart"
)

// TestValidValues: each of testdata/schema/valid renders.
func TestValidValues(t *testing.T) {
	for name, file := range fixtures(t, "valid") {
		t.Run(name, func(t *testing.T) {
			needs(t, "HELM")
			if _, err := chart.Render(t.Context(), "--values", file); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestInvalidValues: each of testdata/schema/invalid is refused, and what is said
// of it contains every line of NAME.expect.txt.
func TestInvalidValues(t *testing.T) {
	for name, file := range fixtures(t, "invalid") {
		t.Run(name, func(t *testing.T) {
			expected, err := os.ReadFile(strings.TrimSuffix(file, ".yaml") + ".expect.txt")
			if err != nil {
				t.Fatal(err)
			}
			refused(t, strings.Split(strings.TrimSpace(string(expected)), "\n"), "--values", file)
		})
	}
	// One that belongs to nothing is a test that nobody runs.
	expectations, err := filepath.Glob("testdata/schema/*/*.expect.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, expectation := range expectations {
		if _, err := os.Stat(strings.TrimSuffix(expectation, ".expect.txt") + ".yaml"); err != nil || strings.Contains(expectation, "/valid/") {
			t.Errorf("%s belongs to no invalid fixture", expectation)
		}
	}
}

// fixtures are the files of a folder of testdata/schema, by their names.
func fixtures(t *testing.T, folder string) map[string]string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", "schema", folder, "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("there are no fixtures in %s: %v", folder, err)
	}
	all := map[string]string{}
	for _, file := range files {
		all[strings.TrimSuffix(filepath.Base(file), ".yaml")] = file
	}
	return all
}

// refused fails the test unless Helm refuses to render, and says so in words of
// which all that is wanted are part.
func refused(t *testing.T, want []string, args ...string) {
	t.Helper()
	needs(t, "HELM")
	var refusal *chart.RenderError
	switch _, err := chart.Render(t.Context(), args...); {
	case err == nil:
		t.Error("it was rendered")
	case !errors.As(err, &refusal):
		t.Error(err)
	default:
		for _, text := range want {
			if !strings.Contains(refusal.Said, text) {
				t.Errorf("nothing like\n\t%s\nwas said, but\n\t%s", text, refusal.Said)
			}
		}
	}
}
