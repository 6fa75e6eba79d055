// SPDX-License-Identifier: Apache-2.0

package results

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func document() Document {
	return Document{
		Bench: "x", Measured: time.Date(2026, 11, 25, 0, 0, 0, 0, time.UTC),
		Machine: Machine{GOOS: "linux", GOARCH: "arm64", Cores: 4, Go: "go1.26.8", CPU: "Some", Load: 0.25},
		Notes:   []string{"Medians of 3 rounds."},
		Rows: []Row{
			Measured("refused", "no-op", "p50", "ms", 1, 1, 1).Against([]float64{1, 1, 1}),
			Measured("refused", "no-op", "CPU", "µs", 50),
			Measured("refused", "ours", "p50", "ms", 3, 1.5, 2).Against([]float64{3, 1.5, 2}).RatioAtMost(1.5),
			Measured("memory", "ours", "idle", "MiB", 12.34).AtMost(45),
		},
	}
}

func TestTables(t *testing.T) {
	want := `Some, 4 cores, linux/arm64, go1.26.8; load average before it began 0.2; measured on 2026-11-25.
Medians of 3 rounds.

| refused | p50, ms          | ratio of p50 | CPU, µs |
| ------- | ---------------- | ------------ | ------- |
| no-op   | 1.00             | 1.00×        | 50.0    |
| ours    | 2.00 (1.50–3.00) | 2.00×        |         |

| memory | idle, MiB |
| ------ | --------- |
| ours   | 12.3      |
`
	if diff := cmp.Diff(want, document().Tables()); diff != "" {
		t.Error(diff)
	}
}

func TestBudgets(t *testing.T) {
	want := `| budget             | allowed      | measured            | ratio             |            |
| ------------------ | ------------ | ------------------- | ----------------- | ---------- |
| refused: ours, p50 | ratio ≤ 1.50 | 2.00 (1.50–3.00) ms | 2.00× (1.50–3.00) | **missed** |
| memory: ours, idle | ≤ 45.0 MiB   | 12.3 MiB            |                   | kept       |
`
	if diff := cmp.Diff(want, document().Budgets()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff("No budgets.\n", Document{}.Budgets()); diff != "" {
		t.Error(diff)
	}
}

func TestFigures(t *testing.T) {
	d := document()
	want := []string{"2.00 (1.50–3.00) ms", "2.00× (1.50–3.00)", "not measured", "not measured"}
	got := []string{
		d.Figure("refused", "ours", "p50"), d.Ratio("refused", "ours", "p50"),
		d.Figure("refused", "ours", "p99"), d.Ratio("memory", "ours", "idle"),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestWriteMarkdown(t *testing.T) {
	path := filepath.Join(t.TempDir(), "page.md")
	page := "# Page\n"
	for _, part := range []string{"headline", "budgets", "tables"} {
		page += "<!-- " + part + " of bench x -->\nold\n<!-- end of " + part + " of bench x -->\n"
	}
	if err := os.WriteFile(path, []byte(page), 0o600); err != nil {
		t.Fatal(err)
	}
	d := document()
	d.Headline = strings.Repeat("It is fast. ", 10) + "And it is small."
	if err := d.writeMarkdown(path); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	want := "# Page\n<!-- headline of bench x -->\n- " + strings.Repeat("It is fast. ", 9) +
		"It is\n  fast. And it is small.\n<!-- end of headline of bench x -->\n" +
		"<!-- budgets of bench x -->\n" + d.Budgets() + "<!-- end of budgets of bench x -->\n" +
		"<!-- tables of bench x -->\n" + d.Tables() + "<!-- end of tables of bench x -->\n"
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Error(diff)
	}
}

func TestSpread(t *testing.T) {
	tests := map[string]struct {
		values []float64
		want   [3]float64
	}{
		"none": {},
		"one":  {[]float64{4}, [3]float64{4, 4, 4}},
		"odd":  {[]float64{9, 1, 5}, [3]float64{5, 1, 9}},
		"even": {[]float64{9, 1, 5, 2}, [3]float64{3.5, 1, 9}},
	}
	for name, c := range tests {
		t.Run(name, func(t *testing.T) {
			median, low, high := spread(c.values)
			if diff := cmp.Diff(c.want, [3]float64{median, low, high}); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestReplace(t *testing.T) {
	tests := map[string]struct {
		page, want string
		fails      bool
	}{
		"between the markers": {page: "a\n<!-- x -->\nold\n<!-- end of x -->\nb\n", want: "a\n<!-- x -->\nnew\n<!-- end of x -->\nb\n"},
		"markers of another":  {page: "<!-- y -->\nold\n<!-- end of y -->\n", fails: true},
		"no end":              {page: "<!-- x -->\nold\n", fails: true},
	}
	for name, c := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := replace([]byte(c.page), "x", "new\n")
			if (err != nil) != c.fails {
				t.Errorf("error: %v", err)
			}
			if diff := cmp.Diff(c.want, string(got)); diff != "" {
				t.Error(diff)
			}
		})
	}
}
