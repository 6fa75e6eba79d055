// SPDX-License-Identifier: Apache-2.0

// Package results holds the results of a benchmark: rows of medians with their spread. It writes them
// as JSON, as tables, and into the documentation. It measures nothing itself.
package results

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Document is the result of one run of a benchmark.
type Document struct {
	// Bench is the name of the benchmark, also in the documentation's markers.
	Bench    string    `json:"bench"`
	Measured time.Time `json:"measured"`
	Machine  Machine   `json:"machine"`
	// Headline is the sentence that most readers want, with the most important figures.
	Headline string `json:"headline"`
	// Notes say what the rows are medians of, and of which versions.
	Notes []string `json:"notes,omitempty"`
	Rows  []Row    `json:"rows"`
}

// Machine is the machine of the benchmark.
type Machine struct {
	GOOS   string `json:"goos"`
	GOARCH string `json:"goarch"`
	Cores  int    `json:"cores"`
	Go     string `json:"go"`
	CPU    string `json:"cpu"`
	// Load is the machine's load average of the last minute before the benchmark.
	Load float64 `json:"load"`
}

// Row is one figure of one contender: the median of all rounds with the lowest and highest one, and
// the same for the ratios to the contender that it is compared with, if any.
type Row struct {
	What      string  `json:"what"`
	Contender string  `json:"contender"`
	Metric    string  `json:"metric"`
	Unit      string  `json:"unit"`
	Value     float64 `json:"value"`
	Low       float64 `json:"low"`
	High      float64 `json:"high"`
	Ratio     float64 `json:"ratio,omitempty"`
	RatioLow  float64 `json:"ratioLow,omitempty"`
	RatioHigh float64 `json:"ratioHigh,omitempty"`
	// Budget is the limit, and Within whether the row is within it. Without a budget both are left out.
	Budget string `json:"budget,omitempty"`
	Within *bool  `json:"within,omitempty"`
}

// Output says where to write a document, in addition to standard output.
type Output struct{ json, markdown string }

// AddTo adds the flags.
func (o *Output) AddTo(flags *flag.FlagSet) {
	flags.StringVar(&o.json, "json", "", "`file` to write the results to")
	flags.StringVar(&o.markdown, "markdown", "",
		"`file` in which to replace the tables between the markers of this benchmark")
}

// New makes an empty document about this machine.
func New(bench string) Document {
	return Document{Bench: bench, Measured: time.Now().UTC().Truncate(time.Second), Machine: Machine{
		GOOS: runtime.GOOS, GOARCH: runtime.GOARCH, Cores: runtime.NumCPU(), Go: runtime.Version(), CPU: cpuModel(),
		Load: loadAverage(),
	}}
}

// Read reads a document that [Output.Write] wrote as JSON.
func Read(path string) (d Document, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return d, err
	}
	if err := json.Unmarshal(data, &d); err != nil {
		return d, fmt.Errorf("read the results in %s: %w", path, err)
	}
	return d, nil
}

// loadAverage reads proc_loadavg(5); 0 if that fails.
func loadAverage() (load float64) {
	data, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0
	}
	_, _ = fmt.Sscan(string(data), &load)
	return load
}

// cpuModel reads proc_cpuinfo(5); some architectures have no name in it.
func cpuModel() string {
	data, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(data)) {
		key, value, _ := strings.Cut(line, ":")
		if key = strings.TrimSpace(key); key == "model name" || key == "cpu" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

// Measured makes a row from the values of the rounds.
func Measured(what, contender, metric, unit string, rounds ...float64) Row {
	r := Row{What: what, Contender: contender, Metric: metric, Unit: unit}
	r.Value, r.Low, r.High = spread(rounds)
	return r
}

// Against adds the ratios of the rounds.
func (r Row) Against(ratios []float64) Row {
	r.Ratio, r.RatioLow, r.RatioHigh = spread(ratios)
	return r
}

// spread is the median of values, the lowest and the highest.
func spread(values []float64) (median, low, high float64) {
	if len(values) == 0 {
		return 0, 0, 0
	}
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	median = sorted[middle]
	if len(sorted)%2 == 0 {
		median = (sorted[middle-1] + sorted[middle]) / 2
	}
	return median, sorted[0], sorted[len(sorted)-1]
}

// AtMost sets the highest allowed median.
func (r Row) AtMost(limit float64) Row {
	return r.within(fmt.Sprintf("≤ %s %s", number(limit), r.Unit), r.Value <= limit)
}

// RatioAtMost sets the highest allowed median ratio.
func (r Row) RatioAtMost(limit float64) Row {
	return r.within(fmt.Sprintf("ratio ≤ %.2f", limit), r.Ratio <= limit)
}

// RatioAtLeast sets the lowest allowed median ratio.
func (r Row) RatioAtLeast(limit float64) Row {
	return r.within(fmt.Sprintf("ratio ≥ %.2f", limit), r.Ratio >= limit)
}

func (r Row) within(budget string, within bool) Row {
	r.Budget, r.Within = budget, &within
	return r
}

// number formats a value with about three digits.
func number(v float64) string {
	switch {
	case v == 0:
		return "0"
	case v < 0.1:
		return fmt.Sprintf("%.3f", v)
	case v < 10:
		return fmt.Sprintf("%.2f", v)
	case v < 100:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.0f", v)
	}
}

// Figure formats the median of a row with its spread and unit, for a headline. A row that does not exist is "not
// measured".
func (d Document) Figure(what, contender, metric string) string {
	for _, r := range d.Rows {
		if r.What == what && r.Contender == contender && r.Metric == metric {
			return r.value() + " " + r.Unit
		}
	}
	return "not measured"
}

// Ratio is the same for the ratio of a row.
func (d Document) Ratio(what, contender, metric string) string {
	for _, r := range d.Rows {
		if r.What == what && r.Contender == contender && r.Metric == metric && r.Ratio != 0 {
			return r.ratio()
		}
	}
	return "not measured"
}

func (r Row) value() string {
	return between(number(r.Value), number(r.Low), number(r.High))
}

func (r Row) ratio() string {
	if r.Ratio == 0 {
		return ""
	}
	return between(fmt.Sprintf("%.2f×", r.Ratio), fmt.Sprintf("%.2f", r.RatioLow), fmt.Sprintf("%.2f", r.RatioHigh))
}

// between formats a median with its spread, if there is one.
func between(median, low, high string) string {
	if low == high {
		return median
	}
	return fmt.Sprintf("%s (%s–%s)", median, low, high)
}

// Write prints the headline and the tables, and writes the requested files.
func (o *Output) Write(d Document) error {
	fmt.Print("\n" + d.Headline + "\n\n" + d.Budgets() + "\n" + d.Tables())
	var faults []error
	if o.json != "" {
		faults = append(faults, d.writeJSON(o.json))
	}
	if o.markdown != "" {
		faults = append(faults, d.writeMarkdown(o.markdown))
	}
	return errors.Join(faults...)
}

// writeMarkdown replaces the three parts of this benchmark in a page.
func (d Document) writeMarkdown(path string) error {
	page, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	for _, part := range []struct{ name, text string }{
		{"headline", bullet(d.Headline)}, {"budgets", d.Budgets()}, {"tables", d.Tables()},
	} {
		if page, err = replace(page, part.name+" of bench "+d.Bench, part.text); err != nil {
			return fmt.Errorf("write results into %s: %w", path, err)
		}
	}
	return os.WriteFile(path, page, 0o644)
}

func (d Document) writeJSON(path string) error {
	data, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, append(data, '\n'), 0o644)
}

// lineWidth is the longest line of a page, in characters, without tables.
const lineWidth = 120

// bullet formats a sentence as an item of a Markdown list, in lines of at most lineWidth characters.
func bullet(sentence string) string {
	var out strings.Builder
	line := "-"
	for word := range strings.FieldsSeq(sentence) {
		if utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > lineWidth {
			out.WriteString(line + "\n")
			line = " "
		}
		line += " " + word
	}
	return out.String() + line + "\n"
}

// replace puts text between the markers with this name.
func replace(page []byte, name, text string) ([]byte, error) {
	begin, end := fmt.Appendf(nil, "<!-- %s -->\n", name), fmt.Appendf(nil, "<!-- end of %s -->\n", name)
	before, rest, found := bytes.Cut(page, begin)
	_, after, ended := bytes.Cut(rest, end)
	if !found || !ended {
		return nil, fmt.Errorf("there are no lines %q and %q", bytes.TrimSpace(begin), bytes.TrimSpace(end))
	}
	return slices.Concat(before, begin, []byte(text), end, after), nil
}

// Budgets formats a table of the rows with a budget.
func (d Document) Budgets() string {
	lines := [][]string{{"budget", "allowed", "measured", "ratio", ""}}
	for _, r := range d.Rows {
		if r.Within != nil {
			verdict := "kept"
			if !*r.Within {
				verdict = "**missed**"
			}
			lines = append(lines,
				[]string{r.What + ": " + r.Contender + ", " + r.Metric, r.Budget, r.value() + " " + r.Unit, r.ratio(), verdict})
		}
	}
	if len(lines) == 1 {
		return "No budgets.\n"
	}
	return table(lines)
}

// Tables formats the conditions, and a table for each kind of measurement, with a row per contender and a column per
// metric.
func (d Document) Tables() string {
	var out strings.Builder
	fmt.Fprintf(&out,
		"%s, %d cores, %s/%s, %s; load average before it began %.1f; measured on %s.\n", d.Machine.CPU, d.Machine.Cores,
		d.Machine.GOOS, d.Machine.GOARCH, d.Machine.Go, d.Machine.Load, d.Measured.Format(time.DateOnly))
	for _, note := range d.Notes {
		fmt.Fprintln(&out, note)
	}
	var whats []string
	of := map[string][]Row{}
	for _, r := range d.Rows {
		if of[r.What] == nil {
			whats = append(whats, r.What)
		}
		of[r.What] = append(of[r.What], r)
	}
	for _, what := range whats {
		fmt.Fprintf(&out, "\n%s", table(pivot(what, of[what])))
	}
	return out.String()
}

// pivot has a row per contender, a column per metric and one for its ratios.
func pivot(what string, rows []Row) [][]string {
	header, lines := []string{what}, [][]string{}
	column, line := map[string]int{}, map[string]int{}
	place := func(name string, wanted bool) int {
		if column[name] == 0 && wanted {
			column[name] = len(header)
			header = append(header, name)
		}
		return column[name]
	}
	for _, r := range rows {
		if _, known := line[r.Contender]; !known {
			line[r.Contender] = len(lines)
			lines = append(lines, []string{r.Contender})
		}
		at := line[r.Contender]
		set := func(column int, text string) {
			for len(lines[at]) <= column {
				lines[at] = append(lines[at], "")
			}
			lines[at][column] = text
		}
		metric := r.Metric + ", " + r.Unit
		set(place(metric, true), r.value())
		// The JSON has the spread; the table above, too, if there is a budget.
		if c := place("ratio of "+r.Metric, r.Ratio != 0); c != 0 && r.Ratio != 0 {
			set(c, fmt.Sprintf("%.2f×", r.Ratio))
		}
	}
	return append([][]string{header}, lines...)
}

// table formats a Markdown table that is readable as text. The first line is the header.
func table(lines [][]string) string {
	var widths []int
	for i := range lines[0] {
		width := 3
		for _, line := range lines {
			if i < len(line) {
				width = max(width, len([]rune(line[i])))
			}
		}
		widths = append(widths, width)
	}
	var out strings.Builder
	for n, line := range lines {
		for i, width := range widths {
			cell := ""
			if i < len(line) {
				cell = line[i]
			}
			fmt.Fprintf(&out, "| %-*s ", width, cell)
		}
		out.WriteString("|\n")
		if n == 0 {
			for _, width := range widths {
				out.WriteString("| " + strings.Repeat("-", width) + " ")
			}
			out.WriteString("|\n")
		}
	}
	return out.String()
}
