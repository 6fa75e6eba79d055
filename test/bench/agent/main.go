// SPDX-License-Identifier: Apache-2.0

// Command agent measures the node agent as released: its memory, its CPU time while nothing and while
// much happens, how soon it logs a change, and the cost of many files. It prints the results with
// their budgets and does not judge them. It fails if the agent does not log what it should.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kubelet-https-guard/kubelet-https-guard/test/bench/results"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/rotation"
)

const (
	// settle is the agent's default.
	settle = time.Second
	// scrapeEvery is the shortest scrape interval of Prometheus on OpenShift.
	scrapeEvery = 15 * time.Second
	// rotationBudget is the budget from a write to the log line about it.
	rotationBudget = 250 * time.Millisecond
	// quiet is the time before each rotation. Certificates are renewed after days, so nothing happens before; an agent
	// that has just scanned several times waits before it does so again.
	quiet = 300 * time.Millisecond
	// patience is how late the line may be before the measurement fails.
	patience = 5 * time.Second

	// Other budgets: MiB, and percentages of a core.
	memoryBudget, idleBudget, noiseBudget = 20, 0.1, 25
	// muchNoise is the rate of unrelated events to which noiseBudget applies.
	muchNoise = 10_000
)

type bench struct {
	idle, noise                  time.Duration
	starts, runs, rounds, writes int
	output                       results.Output

	binary, dir string
	document    results.Document
}

func main() {
	var b bench
	flag.DurationVar(&b.idle, "idle", time.Minute, "how long nothing happens; the agent scans every 30 s on its own")
	flag.DurationVar(&b.noise, "noise", time.Minute,
		"how long 10,000 unrelated files a second are created and removed; a third of it for each lower rate")
	flag.IntVar(&b.starts, "starts", 5, "how often the agent is started for each number of files")
	flag.IntVar(&b.runs, "runs", 3,
		"how many agents are measured one after the other, each with all that follows; medians are printed")
	flag.IntVar(&b.rounds, "rounds", 1, "how often each fault and expiry is measured in a run")
	flag.IntVar(&b.writes, "writes", 10, "how often each way of writing is measured in a run")
	b.output.AddTo(flag.CommandLine)
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	do := b.run
	if flag.Arg(0) == asFloor {
		do = serveFloor
	}
	err := do(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func (b *bench) run(ctx context.Context) (err error) {
	if b.dir, err = os.MkdirTemp("", "bench-agent"); err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(b.dir) }()
	if b.binary, err = rotation.Build(ctx, ".", b.dir); err != nil {
		return err
	}
	info, err := os.Stat(b.binary)
	if err != nil {
		return err
	}
	b.document = results.New("agent")
	b.document.Notes = []string{
		fmt.Sprintf(
			"Medians of %d runs (lowest–highest). The agent has an API server and a kubelet to talk to, and is scraped each %s.",
			b.runs, scrapeEvery),
	}
	b.add(results.Measured("program", "agent", "size", "MiB", mebibytes(info.Size())))
	for _, part := range []struct {
		what string
		do   func(context.Context) error
	}{
		{"files beside those that matter", b.measureFiles},
		{"latency of log lines", b.measureLatency},
		{"unrelated events", b.measureNoise},
	} {
		fmt.Fprintf(os.Stderr, "measuring: %s\n", part.what)
		if err := part.do(ctx); err != nil {
			return err
		}
	}
	const files = "files beside those that matter"
	d := &b.document
	d.Headline = fmt.Sprintf("The agent logs a new certificate %s (p50) after it was written. Idle, it uses %s of "+
		"memory, and %s.", d.Figure(rotated, "all of them", "p50"), d.Figure(files, "1", "memory, idle"),
		d.Figure(files, "1", "CPU, idle"))
	return b.output.Write(*d)
}

// rotated is the name of the rows about the latency of rotations.
const rotated = "new certificate → log line"

func (b *bench) add(rows ...results.Row) { b.document.Rows = append(b.document.Rows, rows...) }

func mebibytes(bytes int64) float64 { return float64(bytes) / (1 << 20) }

func milliseconds(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e6 }

// guarded is an agent on its own host.
type guarded struct {
	*rotation.Driver
	close func()
}

// guard starts an agent as the chart does, on a new host with this many additional files in the
// directory of the pair and in /etc/kubernetes.
func (b *bench) guard(ctx context.Context, files int) (*guarded, error) {
	folder, err := os.MkdirTemp(b.dir, "agent")
	if err != nil {
		return nil, err
	}
	random := rand.New(rand.NewPCG(1, 1))
	host, err := rotation.NewHost(filepath.Join(folder, "host"), random, func() {})
	if err != nil {
		return nil, err
	}
	for _, directory := range []string{host.Tree.Directory(), aboveManifests(host)} {
		for i := range files {
			if err := os.WriteFile(filepath.Join(directory, fmt.Sprintf("other-%d", i)), nil, 0o600); err != nil {
				return nil, err
			}
		}
	}
	servers, err := newServers(folder, host)
	if err != nil {
		return nil, err
	}
	command := exec.CommandContext(ctx, b.binary, "run", "--root", host.Tree.Root, "--node-name", "master-0",
		"--kubeconfig", servers.kubeconfig, "--kubelet-address", servers.kubelet, "--metrics-bind-address", "127.0.0.1:0")
	g := &guarded{
		Driver: &rotation.Driver{Host: host, Settle: settle, ReportTime: patience, Tolerated: map[string]int{}},
		close:  servers.close,
	}
	began := time.Now()
	if g.Agent, err = rotation.Start(command); err != nil {
		servers.close()
		return nil, err
	}
	if err := g.Started(ctx, began); err != nil {
		return nil, errors.Join(err, g.end())
	}
	return g, nil
}

func (g *guarded) end() error {
	defer g.close()
	return g.Agent.Stop()
}

// while does something while the agent is scraped, and returns the percentage of a core that the agent
// used.
func (g *guarded) while(ctx context.Context, do func(context.Context) error) (percent float64, err error) {
	return scraped(ctx, g.Metrics, g.Agent.CPU, do)
}

// scraped does something while a program is scraped, and returns the percentage of a core that the
// program used.
func scraped(
	ctx context.Context,
	metrics string,
	cpu func() (time.Duration, error),
	do func(context.Context) error,
) (percent float64, err error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	before, err := cpu()
	if err != nil {
		return 0, err
	}
	began := time.Now()
	ended := make(chan error, 1)
	go func() { ended <- scrape(ctx, metrics) }()
	if err := do(ctx); err != nil {
		return 0, err
	}
	after, err := cpu()
	took := time.Since(began)
	stop()
	return 100 * (after - before).Seconds() / took.Seconds(), errors.Join(err, <-ended)
}

// scrape scrapes the metrics until the context ends.
func scrape(ctx context.Context, address string) error {
	ticker := time.NewTicker(scrapeEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/metrics", nil)
		if err != nil {
			return err
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("scrape: %w", err)
		}
		_, err = io.Copy(io.Discard, response.Body)
		_ = response.Body.Close()
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("scrape: %w", err)
		}
	}
}

// memory records the resident memory.
func (b *bench) memory(g *guarded, what, contender, metric string) error {
	memory, err := g.Agent.Memory()
	if err != nil {
		return err
	}
	b.add(results.Measured(what, contender, metric, "MiB", mebibytes(memory.Now)).AtMost(memoryBudget))
	return nil
}

// latencies are the latencies of several runs.
type latencies [][]time.Duration

// addLatencies adds medians of the runs' quantiles. budget is in milliseconds; 0: no budget.
func (b *bench) addLatencies(what, contender string, runs latencies, budget float64) {
	var half, most []float64
	for _, run := range runs {
		half = append(half, milliseconds(rotation.Quantile(run, 0.5)))
		most = append(most, milliseconds(rotation.Quantile(run, 0.99)))
	}
	p99 := results.Measured(what, contender, "p99", "ms", most...)
	if budget > 0 {
		p99 = p99.AtMost(budget)
	}
	b.add(results.Measured(what, contender, "p50", "ms", half...), p99)
}

// measureFiles measures the cost of unrelated files, from one to very many. All agents are idle at the
// same time, so that it takes no longer than one of them, and so is the program that is only scraped.
func (b *bench) measureFiles(ctx context.Context) error {
	group, idle := errgroup.WithContext(ctx)
	counts := []int{1, 100, 1_000, 10_000}
	var agents []*guarded
	starts, percents := map[int][]float64{}, make([]float64, len(counts))
	for place, files := range counts {
		for started := range b.starts {
			g, err := b.guard(ctx, files)
			if err != nil {
				return err
			}
			starts[files] = append(starts[files], milliseconds(g.Latencies["start to verdict"][0]))
			if started < b.starts-1 {
				if err := g.end(); err != nil {
					return err
				}
				continue
			}
			agents = append(agents, g)
			group.Go(func() (err error) {
				percents[place], err = g.while(idle, func(ctx context.Context) error {
					return g.LogsNothing(ctx,
						b.idle)
				})
				return err
			})
		}
	}
	var floor float64
	group.Go(func() (err error) {
		floor, err = measureFloor(idle, b.idle)
		return err
	})
	if err := group.Wait(); err != nil {
		return err
	}
	b.add(
		results.Measured(
			"files beside those that matter", "no agent: a program that is only scraped", "CPU, idle", "% of a core", floor),
	)
	for place, files := range counts {
		const what = "files beside those that matter"
		g, contender := agents[place], fmt.Sprint(files)
		if files > 1 { // the name says where, since earlier commits had them in another directory
			contender += ", in /etc/kubernetes"
		}
		b.add(results.Measured(what, contender, "start to verdict", "ms", starts[files]...),
			results.Measured(what, contender, "CPU, idle", "% of a core", percents[place]).AtMost(idleBudget))
		if err := b.memory(g, what, contender, "memory, idle"); err != nil {
			return err
		}
		g.Latencies = map[string][]time.Duration{}
		writer := rotation.Writers()[0]
		for range b.writes {
			if err := g.rotate(ctx, writer); err != nil {
				return err
			}
		}
		var values []float64
		for _, took := range g.Latencies["rotation, "+writer.Name] {
			values = append(values, milliseconds(took))
		}
		b.add(results.Measured(what, contender, "new certificate → log line", "ms", values...))
		if err := g.end(); err != nil {
			return err
		}
	}
	return nil
}

// measureLatency measures each way of writing, each fault, and expiry.
func (b *bench) measureLatency(ctx context.Context) error {
	byLabel := map[string]latencies{}
	var every latencies
	var percents []float64
	writers := rotation.Writers()
	for range b.runs {
		g, err := b.guard(ctx, 0)
		if err != nil {
			return err
		}
		percent, err := g.while(ctx, func(ctx context.Context) error { return b.tryAll(ctx, g, writers) })
		if err != nil {
			return errors.Join(err, g.end())
		}
		percents = append(percents, percent)
		var all []time.Duration
		for _, w := range writers {
			all = append(all, g.Latencies["rotation, "+w.Name]...)
		}
		every = append(every, all)
		for label, took := range g.Latencies {
			byLabel[label] = append(byLabel[label], took)
		}
		if len(percents) == b.runs {
			if err := b.memory(g, "memory after all ways of writing and faults", "agent", "resident"); err != nil {
				return err
			}
		}
		if err := g.end(); err != nil {
			return err
		}
	}
	b.addLatencies(rotated, "all of them", every, milliseconds(rotationBudget))
	for _, w := range writers {
		b.addLatencies(rotated, w.Name, byLabel["rotation, "+w.Name], 0)
	}
	b.addLatencies("other → log line", "fault, settle being "+settle.String(), byLabel["fault"],
		milliseconds(settle+rotationBudget))
	b.addLatencies("other → log line", "expiry, after its moment", byLabel["moment"], milliseconds(rotationBudget))
	b.add(results.Measured("CPU while all that was done", "agent", "CPU", "% of a core", percents...))
	return nil
}

// rotate renews the certificate after a quiet time.
func (g *guarded) rotate(ctx context.Context, w rotation.Writer) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(quiet):
	}
	return g.Rotate(ctx, w)
}

func (b *bench) tryAll(ctx context.Context, g *guarded, writers []rotation.Writer) error {
	for range b.writes {
		for _, w := range writers {
			if err := g.rotate(ctx, w); err != nil {
				return err
			}
		}
	}
	for range b.rounds {
		if err := g.Expire(ctx, writers[0], writers[0]); err != nil {
			return err
		}
		for i, f := range rotation.Faults() {
			if err := g.Fault(ctx, f, writers[i%len(writers)], writers[(i+1)%len(writers)]); err != nil {
				return err
			}
		}
	}
	return nil
}

// measureNoise creates and removes unrelated files in the same directories. The agent must still log
// all relevant changes.
func (b *bench) measureNoise(ctx context.Context) error {
	for _, rate := range []int{100, 1_000, muchNoise} {
		g, err := b.guard(ctx, 0)
		if err != nil {
			return err
		}
		g.Tolerated["Watching files failed"] = 0
		long := b.noise / 3
		if rate == muchNoise {
			long = b.noise
		}
		long /= time.Duration(b.runs)
		var percents, rates []float64
		for range b.runs {
			made := 0
			percent, err := g.while(ctx, func(ctx context.Context) error {
				ctx, stop := context.WithTimeout(ctx, long)
				defer stop()
				made = rotation.Noise(ctx, aboveManifests(g.Host), rate)
				return nil
			})
			if err != nil {
				return err
			}
			percents, rates = append(percents, percent), append(rates, float64(made)/long.Seconds())
		}
		const what = "unrelated events a second, in /etc/kubernetes"
		contender := fmt.Sprint(rate)
		cpu := results.Measured(what, contender, "CPU", "% of a core", percents...)
		if rate == muchNoise {
			cpu = cpu.AtMost(noiseBudget)
		}
		b.add(results.Measured(what, contender, "made", "events/s", rates...), cpu)
		if err := g.Rotate(ctx, rotation.Writers()[0]); err != nil {
			return err
		}
		if err := errors.Join(b.memory(g, what, contender, "memory after that"), g.end()); err != nil {
			return err
		}
	}
	return nil
}

// aboveManifests is the parent of the manifests' directory, in which each file name matters.
func aboveManifests(host *rotation.Host) string {
	return filepath.Dir(filepath.Dir(host.Tree.Manifest()))
}
