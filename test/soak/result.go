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

// marker is before and after the result in a page.
const marker = "<!-- soak -->"

// result is the result of a run.
type result struct {
	took, every           time.Duration
	Webhook, Audit, Agent samples
	Answers               admission.Counts
	// Rotations and Faults on the host, changes Reported in the agent's log, and Events stored.
	Rotations, Faults, Reported, Events int
}

// wrong returns an error if there was a wrong answer.
func (r result) wrong() error {
	if r.Answers.WronglyAllowed+r.Answers.WronglyRefused > 0 || r.Answers.Right() == 0 {
		return fmt.Errorf("admission: %s", r.Answers)
	}
	return nil
}

// csv has all samples, to see when something grew.
func (r result) csv() string {
	var b strings.Builder
	b.WriteString("process,seconds,rss,goroutines,descriptors\n")
	for _, s := range []samples{r.Webhook, r.Audit, r.Agent} {
		for _, one := range s.all {
			fmt.Fprintf(&b, "%s,%.0f,%d,%d,%d\n", s.name, one.at.Seconds(), one.RSS, one.Goroutines, one.Descriptors)
		}
	}
	return b.String()
}

// local matches what differs in an error from run to run.
var local = regexp.MustCompile(`(https://127\.0\.0\.1):\d+`)

// samples are the samples of one process.
type samples struct {
	name string
	all  []sampled
}

type sampled struct {
	at time.Duration
	vitals.Vitals
}

// warm are the samples after the first third, in which caches fill and the heap reaches its size.
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

// quantities are what must not grow.
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

// markdown formats the result, also for the page.
func (r result) markdown() string {
	var b strings.Builder
	fmt.Fprintf(
		&b,
		"%s of load on %s/%s, %d cores (%s), %s;\n"+
			"an update of the protected Secret each %s; %d samples of each process.\n\n",
		r.took.Round(time.Second),
		runtime.GOOS,
		runtime.GOARCH,
		runtime.NumCPU(),
		processor(),
		runtime.Version(),
		r.every,
		len(r.Agent.all),
	)
	b.WriteString(
		"| process | what | at first | mean, 2nd third | mean, last third | most | growth per hour |\n| --- | --- | --: | --: | --: | --: | --: |\n",
	)
	for _, s := range []samples{r.Webhook, r.Audit, r.Agent} {
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
	fmt.Fprintf(&b, "\nAdmission through the API server:\n%s.\n", r.Answers)
	if r.Answers.Why != "" {
		fmt.Fprintf(&b, "\nThe last request without an answer:\n\n    %s\n\n",
			local.ReplaceAllString(r.Answers.Why, "$1"))
	}
	fmt.Fprintf(&b,
		"Host: %d rotations and %d faults, %d changes logged, each once; %d of them are Events; none lost.\n",
		r.Rotations, r.Faults, r.Reported, r.Events)
	return b.String()
}

// processor is the processor's name in /proc/cpuinfo.
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

// replaceBetween replaces the text between the first two markers in a file.
func replaceBetween(path, marker, text string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	parts := strings.SplitN(string(data), marker, 3)
	if len(parts) != 3 {
		return fmt.Errorf("%s does not contain %s twice", path, marker)
	}
	parts[1] = "\n" + text
	return os.WriteFile(path, []byte(strings.Join(parts, marker)), 0o600)
}
