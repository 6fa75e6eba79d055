// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"math"
	"os"
	"regexp"
	"runtime"
	"strings"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/test/admission"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/vitals"
)

// marker stands above and below what the program writes into a page.
const marker = "<!-- soak -->"

// result is what a run gave.
type result struct {
	took, every    time.Duration
	Webhook, Agent samples
	Answers        admission.Counts
	// Rotations and Faults on the host, edges Told of them in the log, Events that
	// were stored.
	Rotations, Faults, Told, Events int
}

// wrong says what must not be.
func (r result) wrong() error {
	if r.Answers.WronglyAllowed+r.Answers.WronglyRefused > 0 || r.Answers.Right() == 0 {
		return fmt.Errorf("admission: %s", r.Answers)
	}
	return nil
}

// csv are all samples, for who wants to see when something grew.
func (r result) csv() string {
	var b strings.Builder
	b.WriteString("process,seconds,rss,goroutines,descriptors\n")
	for _, s := range []samples{r.Webhook, r.Agent} {
		for _, one := range s.all {
			fmt.Fprintf(&b, "%s,%.0f,%d,%d,%d\n", s.name, one.at.Seconds(), one.RSS, one.Goroutines, one.Descriptors)
		}
	}
	return b.String()
}

// local is what differs from run to run in an error.
var local = regexp.MustCompile(`(https://127\.0\.0\.1):\d+`)

// samples are those of one process.
type samples struct {
	name string
	all  []sampled
}

type sampled struct {
	at time.Duration
	vitals.Vitals
}

// warm are the samples after the first third, in which caches fill and the heap
// finds its size.
func (s samples) warm() []sampled { return s.all[len(s.all)/3:] }

// line is the straight line that fits samples best, by least squares.
type line struct {
	mean, perHour float64
	// off is the standard error of perHour, as if samples were independent.
	off float64
}

func fit(all []sampled, value func(vitals.Vitals) float64) (l line) {
	n := float64(len(all))
	var x, y float64
	for _, s := range all {
		x += s.at.Hours() / n
		y += value(s.Vitals) / n
	}
	var xx, xy, rest float64
	for _, s := range all {
		xx += (s.at.Hours() - x) * (s.at.Hours() - x)
		xy += (s.at.Hours() - x) * (value(s.Vitals) - y)
	}
	l.mean, l.perHour = y, xy/xx
	for _, s := range all {
		away := value(s.Vitals) - y - l.perHour*(s.at.Hours()-x)
		rest += away * away
	}
	l.off = math.Sqrt(rest / (n - 2) / xx)
	return l
}

// quantities are those that must not grow.
func quantities() []quantity {
	return []quantity{
		{"RSS, MiB", func(v vitals.Vitals) float64 { return float64(v.RSS) / (1 << 20) }},
		{"goroutines", func(v vitals.Vitals) float64 { return float64(v.Goroutines) }},
		{"descriptors", func(v vitals.Vitals) float64 { return float64(v.Descriptors) }},
	}
}

type quantity struct {
	name  string
	value func(vitals.Vitals) float64
}

// markdown is the result for people and for the page.
func (r result) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s of load on %s/%s, %d cores (%s), %s; an update of the protected Secret each %s; %d samples of each process.\n\n",
		r.took.Round(time.Second), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), processor(), runtime.Version(), r.every, len(r.Agent.all))
	b.WriteString("| process | what | at first | mean, 2nd third | mean, last third | most | growth per hour |\n| --- | --- | --: | --: | --: | --: | --: |\n")
	for _, s := range []samples{r.Webhook, r.Agent} {
		for _, q := range quantities() {
			warm := s.warm()
			l, most := fit(warm, q.value), 0.0
			for _, one := range s.all {
				most = max(most, q.value(one.Vitals))
			}
			fmt.Fprintf(&b, "| %s | %s | %.1f | %.1f | %.1f | %.1f | %+.2f ± %.2f |\n", s.name, q.name, q.value(s.all[0].Vitals),
				fit(warm[:len(warm)/2], q.value).mean, fit(warm[len(warm)/2:], q.value).mean, most, l.perHour, l.off)
		}
	}
	fmt.Fprintf(&b, "\nAdmission, through the API server: %s.\n", r.Answers)
	if r.Answers.Why != "" {
		fmt.Fprintf(&b, "Why the last one of them had none: %s.\n", local.ReplaceAllString(r.Answers.Why, "$1"))
	}
	fmt.Fprintf(&b, "Host: %d rotations and %d faults, %d edges told, each once; %d of them are Events; none lost.\n", r.Rotations, r.Faults, r.Told, r.Events)
	return b.String()
}

// processor is what the kernel says it is.
func processor() string {
	data, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown"
	}
	for text := range strings.Lines(string(data)) {
		if key, value, ok := strings.Cut(text, ":"); ok && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

// replaceBetween puts a text between the first two markers in a file.
func replaceBetween(path, marker, text string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	parts := strings.SplitN(string(data), marker, 3)
	if len(parts) != 3 {
		return fmt.Errorf("%s has no two %s", path, marker)
	}
	parts[1] = "\n" + text
	return os.WriteFile(path, []byte(strings.Join(parts, marker)), 0o600)
}
