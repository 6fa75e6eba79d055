// SPDX-License-Identifier: Apache-2.0

// Command audit measures what the audit, as released, costs against the number of protected Secrets and of API servers:
// the time from its start to its first verdict, the time from a change of one Secret to its log line, CPU time and
// memory. It prints the results with their budgets and does not judge them. It fails if the audit does not report what
// it should.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/test/bench/results"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/rotation"
)

const (
	// linearBudget is how much more a Secret may cost among 1,000 than among 100.
	linearBudget = 1.25
	// patience is how long a verdict or a log line may take until the measurement fails.
	patience = 5 * time.Minute
	// changeCount is how many Secrets are changed, one each changeEvery.
	changeCount, changeEvery = 10, time.Second
)

type bench struct {
	runs    int
	idle    time.Duration
	program string
	only    string
	output  results.Output

	dir      string
	document results.Document
}

func main() {
	var b bench
	flag.IntVar(&b.runs, "runs", 3, "how often everything is measured; medians are printed")
	flag.DurationVar(&b.idle, "idle", 330*time.Second,
		"how long nothing changes while CPU time is measured; in 5 minutes, each watch is renewed and the guard is tested")
	flag.StringVar(&b.program, "program", "", "`file` with the webhook to measure (default: it is built)")
	flag.StringVar(&b.only, "only", "", "measure only what has this `text` in the first column of its table")
	b.output.AddTo(flag.CommandLine)
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := b.run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// contender is an audit of a number of Secrets or API servers, with a value of each run.
type contender struct {
	what, name       string
	secrets, servers int
	how              string
	// guard: the guard is installed, and dry runs are sent.
	guard bool

	// start and change are seconds, startCPU is seconds of CPU time until the verdict, idle is a fraction of a core,
	// changeCPU is milliseconds of CPU time for a change, memory is the highest resident memory in MiB.
	start, startCPU, idle, change, changeCPU, memory, watches []float64
}

func (b *bench) contenders() []*contender {
	var all []*contender
	for _, how := range []string{byName, bySelector} {
		for _, secrets := range []int{1, 100, 1000} {
			all = append(all, &contender{
				what: "protected Secrets, " + how, name: fmt.Sprint(secrets), secrets: secrets, servers: 1, how: how,
			})
		}
	}
	for _, servers := range []int{1, 3, 9} {
		all = append(all, &contender{
			what: "API servers", name: fmt.Sprint(servers), secrets: 1, servers: servers, how: byName, guard: true,
		})
	}
	return slices.DeleteFunc(all, func(c *contender) bool { return !strings.Contains(c.what, b.only) })
}

func (b *bench) run(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "bench-audit")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	b.dir = dir
	if b.program == "" {
		b.program = filepath.Join(dir, "webhook")
		build := exec.CommandContext(ctx, "go", "build", "-o", b.program, "./webhook")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("build the webhook: %w\n%s", err, out)
		}
	}
	b.document = results.New("audit")
	b.document.Notes = []string{fmt.Sprintf(
		"Medians of %d runs (lowest–highest). The API server is a simulation in another process on the same machine.", b.runs,
	)}
	all := b.contenders()
	for run := range b.runs {
		fmt.Fprintf(os.Stderr, "run %d\n", run+1)
		if err := b.measure(ctx, all); err != nil {
			return err
		}
	}
	for _, c := range all {
		b.report(c, all)
	}
	const named = "protected Secrets, " + byName
	d := &b.document
	d.Headline = fmt.Sprintf("The audit of 100 protected Secrets uses %s of memory and logs a change after %s; with "+
		"1,000, %s and %s.", d.Figure(named, "100", "memory, highest"), d.Figure(named, "100", "change → log line"),
		d.Figure(named, "1000", "memory, highest"), d.Figure(named, "1000", "change → log line"))
	return b.output.Write(*d)
}

// measure measures all contenders once. They start and change one after the other, and are idle at the same time.
func (b *bench) measure(ctx context.Context, all []*contender) error {
	ctx, cancel := context.WithCancel(ctx)
	ca, pairs := newPairs()
	var audits []*audit
	defer func() {
		cancel()
		for _, a := range audits {
			a.stop()
		}
	}()
	for i, c := range all {
		fmt.Fprintf(os.Stderr, "  %s: %s\n", c.what, c.name)
		directory := filepath.Join(b.dir, fmt.Sprint(i))
		if err := os.MkdirAll(directory, 0o700); err != nil {
			return err
		}
		api, err := newAPI(ctx, directory, c.servers)
		if err != nil {
			return err
		}
		a := &audit{cluster: cluster{
			dir: directory, api: api, secrets: c.secrets, how: c.how, pairs: pairs, ca: ca, written: map[int]int{},
		}}
		audits = append(audits, a)
		if err := a.measureStart(ctx, b.program, c); err != nil {
			return fmt.Errorf("%s: %s: %w", c.what, c.name, err)
		}
	}
	fmt.Fprintf(os.Stderr, "  idle for %s\n", b.idle)
	if err := measureIdle(ctx, b.idle, all, audits); err != nil {
		return err
	}
	for i, a := range audits {
		c := all[i]
		fmt.Fprintf(os.Stderr, "  changes: %s: %s\n", c.what, c.name)
		if err := a.measureChanges(ctx, c); err != nil {
			return fmt.Errorf("%s: %s: %w", c.what, c.name, err)
		}
		memory, err := rotation.MemoryOf(a.pid())
		if err != nil {
			return err
		}
		c.memory = append(c.memory, float64(memory.Most)/(1<<20))
		c.watches = append(c.watches, float64(a.api.watchCount()))
	}
	return nil
}

// measureIdle measures the CPU time while nothing changes.
func measureIdle(ctx context.Context, idle time.Duration, all []*contender, audits []*audit) error {
	before := make([]time.Duration, len(audits))
	for i, a := range audits {
		var err error
		if before[i], err = rotation.CPUOf(a.pid()); err != nil {
			return err
		}
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(idle):
	}
	for i, a := range audits {
		after, err := rotation.CPUOf(a.pid())
		if err != nil {
			return err
		}
		all[i].idle = append(all[i].idle, 100*(after-before[i]).Seconds()/idle.Seconds())
	}
	return nil
}

// audit is a running audit of a cluster.
type audit struct {
	cluster
	command *exec.Cmd
	lines   chan line
}

// line is a line of the audit's log.
type line struct {
	at       time.Time // when it was read
	Msg      string
	Control  string
	Location string
	text     string
}

func (a *audit) pid() int { return a.command.Process.Pid }

func (a *audit) stop() {
	if a.command != nil && a.command.Process != nil {
		_ = a.command.Wait() // it was interrupted
	}
	a.api.close()
}

// measureStart starts the audit, and waits for its verdict, or with a guard for the dry runs on all API servers.
func (a *audit) measureStart(ctx context.Context, program string, c *contender) error {
	flags, err := a.fill(ctx, program, c.guard)
	if err != nil {
		return err
	}
	a.command = exec.CommandContext(ctx, program, slices.Concat([]string{
		"audit", "--kubeconfig", a.api.kubeconfig, "--namespace", "guard", "--health-bind-address", "0",
		"--log-format", "json",
	}, flags)...)
	a.command.Cancel = func() error { return a.command.Process.Signal(os.Interrupt) }
	stderr, err := a.command.StderrPipe()
	if err != nil {
		return err
	}
	began := time.Now()
	if err := a.command.Start(); err != nil {
		return fmt.Errorf("start the audit: %w", err)
	}
	a.lines = make(chan line, 10_000)
	go read(stderr, a.lines)
	control := "protected-secrets"
	if c.guard {
		control = "guard-in-force"
	}
	verdict, err := a.await(ctx, func(l line) bool { return l.Control == control })
	switch {
	case err != nil:
		return err
	case verdict.Msg != "Compliant":
		return fmt.Errorf("the verdict is not compliant: %s", verdict.text)
	case c.guard && a.api.provenServers() != c.servers:
		return fmt.Errorf("compliant after dry runs on %d of %d API servers", a.api.provenServers(), c.servers)
	}
	cpu, err := rotation.CPUOf(a.pid())
	if err != nil {
		return err
	}
	c.start = append(c.start, verdict.at.Sub(began).Seconds())
	c.startCPU = append(c.startCPU, cpu.Seconds())
	return nil
}

// measureChanges changes some Secrets, one after the other, and waits for the log line of each.
func (a *audit) measureChanges(ctx context.Context, c *contender) error {
	before, err := rotation.CPUOf(a.pid())
	if err != nil {
		return err
	}
	var took []time.Duration
	for n := range changeCount {
		i := n * c.secrets / changeCount
		began := time.Now()
		if err := a.write(i); err != nil {
			return err
		}
		rotated, err := a.await(ctx, func(l line) bool {
			return l.Msg == "Certificate rotated" && strings.Contains(l.Location, " "+namespaceOf(i)+"/")
		})
		if err != nil {
			return err
		}
		took = append(took, rotated.at.Sub(began))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(changeEvery):
		}
	}
	after, err := rotation.CPUOf(a.pid())
	if err != nil {
		return err
	}
	c.change = append(c.change, 1000*rotation.Quantile(took, 0.5).Seconds())
	c.changeCPU = append(c.changeCPU, 1000*(after-before).Seconds()/changeCount)
	return nil
}

// await reads the log until a line matches.
func (a *audit) await(ctx context.Context, match func(line) bool) (line, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var last line
	for {
		select {
		case <-ctx.Done():
			return line{}, fmt.Errorf("wait for a line of the audit's log, the last one is %q: %w", last.text, ctx.Err())
		case l, more := <-a.lines:
			if !more {
				return line{}, fmt.Errorf("the audit ended, its last line is %q", last.text)
			}
			if last = l; match(l) {
				return l, nil
			}
		}
	}
}

func read(log io.Reader, to chan<- line) {
	defer close(to)
	scanner := bufio.NewScanner(log)
	for scanner.Scan() {
		l := line{at: time.Now(), text: scanner.Text()}
		if json.Unmarshal(scanner.Bytes(), &l) != nil {
			fmt.Fprintln(os.Stderr, l.text) // of the Go runtime
			continue
		}
		select {
		case to <- l:
		default: // nobody waits for a line
		}
	}
}

// report adds the rows of a contender. A Secret among 1,000 is compared with one among 100, without what an audit of
// one Secret costs.
func (b *bench) report(c *contender, all []*contender) {
	of := func(secrets int) *contender {
		i := slices.IndexFunc(all, func(o *contender) bool { return o.what == c.what && o.secrets == secrets })
		return all[i]
	}
	row := func(metric, unit string, values func(*contender) []float64, compared bool) {
		r := results.Measured(c.what, c.name, metric, unit, values(c)...)
		if c.secrets == 1000 && compared {
			one, hundred := values(of(1)), values(of(100))
			var ratios []float64
			for i, v := range values(c) {
				ratios = append(ratios, max(v-one[i], 0)/999/(max(hundred[i]-one[i], 0.001)/99))
			}
			r = r.Against(ratios).RatioAtMost(linearBudget)
		}
		b.document.Rows = append(b.document.Rows, r)
	}
	row("start to verdict", "s", func(c *contender) []float64 { return c.start }, false)
	row("CPU until the verdict", "s", func(c *contender) []float64 { return c.startCPU }, true)
	row("CPU, idle", "% of a core", func(c *contender) []float64 { return c.idle }, true)
	row("change → log line", "ms", func(c *contender) []float64 { return c.change }, false)
	row("CPU for a change", "ms", func(c *contender) []float64 { return c.changeCPU }, true)
	row("memory, highest", "MiB", func(c *contender) []float64 { return c.memory }, true)
	row("watches", "", func(c *contender) []float64 { return c.watches }, false)
}
