// SPDX-License-Identifier: Apache-2.0

// Command agent measures the node agent as it is shipped: memory, what it
// computes while nothing happens and while much does, how soon it tells, and what
// many files cost. It prints what it measured beside what is allowed and does not
// judge it; it fails where the agent does not say what it should.
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
	// scrapeEvery is how often Prometheus does on OpenShift, at most.
	scrapeEvery = 15 * time.Second
	// notice is what is allowed from a write to the line about it.
	notice = 250 * time.Millisecond
	// patience is how late it may come before there is nothing to measure.
	patience = 5 * time.Second

	// What is allowed otherwise: MiB, and percents of a core.
	memoryBudget, idleBudget, noiseBudget = 20, 0.1, 25
	// muchNoise is the rate of unrelated events that noiseBudget is for.
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
	flag.DurationVar(&b.idle, "idle", time.Minute, "how long nothing happens; the agent looks by itself each 30 s")
	flag.DurationVar(&b.noise, "noise", time.Minute, "how long 10,000 unrelated files are made and removed a second; a third of it for each lower rate")
	flag.IntVar(&b.starts, "starts", 5, "how often the agent is started beside each number of files")
	flag.IntVar(&b.runs, "runs", 3, "how many agents are tried one after the other, each with all that follows; medians are printed")
	flag.IntVar(&b.rounds, "rounds", 1, "how often each fault and expiry is tried in a run")
	flag.IntVar(&b.writes, "writes", 10, "how often each way of writing is tried in a run")
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
	b.document.Notes = []string{fmt.Sprintf("Medians of %d runs (lowest–highest). The agent has an API server and a kubelet to talk to, and is scraped each %s.", b.runs, scrapeEvery)}
	b.add(results.Measured("program", "agent", "size", "MiB", mebibytes(info.Size())))
	for _, part := range []struct {
		what string
		do   func(context.Context) error
	}{
		{"files beside those that matter", b.measureFiles},
		{"how soon it tells", b.measureLatency},
		{"unrelated events", b.measureNoise},
	} {
		fmt.Fprintf(os.Stderr, "measuring: %s\n", part.what)
		if err := part.do(ctx); err != nil {
			return err
		}
	}
	return b.output.Write(b.document)
}

func (b *bench) add(rows ...results.Row) { b.document.Rows = append(b.document.Rows, rows...) }

func mebibytes(bytes int64) float64 { return float64(bytes) / (1 << 20) }

func milliseconds(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e6 }

// guarded is an agent over a host of its own.
type guarded struct {
	*rotation.Driver
	close func()
}

// guard starts an agent as the chart does, over a new host with so many more
// files in the folders of the pair and of the manifest.
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
	for _, directory := range []string{host.Tree.Directory(), filepath.Dir(host.Tree.Manifest())} {
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
	command := exec.CommandContext(ctx, b.binary, "--root", host.Tree.Root, "--node-name", "master-0",
		"--kubeconfig", servers.kubeconfig, "--kubelet-address", servers.kubelet, "--metrics-bind-address", "127.0.0.1:0")
	g := &guarded{
		Driver: &rotation.Driver{Host: host, Settle: settle, Notice: patience, Tolerated: map[string]int{}},
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

// while does something with the agent scraped, and returns what percentage of a
// core the agent took.
func (g *guarded) while(ctx context.Context, do func(context.Context) error) (percent float64, err error) {
	return scraped(ctx, g.Metrics, g.Agent.CPU, do)
}

// scraped does something while a program is scraped, and returns what percentage
// of a core the program took.
func scraped(ctx context.Context, metrics string, cpu func() (time.Duration, error), do func(context.Context) error) (percent float64, err error) {
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

// scrape reads the metrics until the context ends.
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

// memory is what is resident now.
func (b *bench) memory(g *guarded, what, contender, metric string) error {
	memory, err := g.Agent.Memory()
	if err != nil {
		return err
	}
	b.add(results.Measured(what, contender, metric, "MiB", mebibytes(memory.Now)).AtMost(memoryBudget))
	return nil
}

// latencies are those of some runs.
type latencies [][]time.Duration

// addLatencies adds medians of the runs' quantiles. budget is in milliseconds; 0: none.
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

// measureFiles: what files cost that nobody asks for, from one to very many. The
// agents are idle at the same time, so that it takes no longer than one, and beside them
// what is only scraped.
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
				percents[place], err = g.while(idle, func(ctx context.Context) error { return g.Quiet(ctx, b.idle) })
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
	b.add(results.Measured("files beside those that matter", "no agent: a program that is only scraped", "CPU, idle", "% of a core", floor))
	for place, files := range counts {
		const what = "files beside those that matter"
		g, contender := agents[place], fmt.Sprint(files)
		b.add(results.Measured(what, contender, "start to verdict", "ms", starts[files]...),
			results.Measured(what, contender, "CPU, idle", "% of a core", percents[place]).AtMost(idleBudget))
		if err := b.memory(g, what, contender, "memory, idle"); err != nil {
			return err
		}
		g.Latencies = map[string][]time.Duration{}
		writer := rotation.Writers()[0]
		for range b.writes {
			if err := g.Rotate(ctx, writer); err != nil {
				return err
			}
		}
		var told []float64
		for _, took := range g.Latencies["rotation, "+writer.Name] {
			told = append(told, milliseconds(took))
		}
		b.add(results.Measured(what, contender, "new certificate → log line", "ms", told...))
		if err := g.end(); err != nil {
			return err
		}
	}
	return nil
}

// measureLatency: each way of writing, each fault, each moment.
func (b *bench) measureLatency(ctx context.Context) error {
	told := map[string]latencies{}
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
			told[label] = append(told[label], took)
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
	const rotated = "new certificate → log line"
	b.addLatencies(rotated, "all of them", every, milliseconds(notice))
	for _, w := range writers {
		b.addLatencies(rotated, w.Name, told["rotation, "+w.Name], 0)
	}
	b.addLatencies("other → log line", "fault, settle being "+settle.String(), told["fault"], milliseconds(settle+notice))
	b.addLatencies("other → log line", "expiry, after its moment", told["moment"], milliseconds(notice))
	b.add(results.Measured("CPU while all that was done", "agent", "CPU", "% of a core", percents...))
	return nil
}

func (b *bench) tryAll(ctx context.Context, g *guarded, writers []rotation.Writer) error {
	for range b.writes {
		for _, w := range writers {
			if err := g.Rotate(ctx, w); err != nil {
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

// measureNoise: files that do not matter come and go beside those that do, and
// what matters is still told.
func (b *bench) measureNoise(ctx context.Context) error {
	for _, rate := range []int{100, 1_000, muchNoise} {
		g, err := b.guard(ctx, 0)
		if err != nil {
			return err
		}
		g.Tolerated["Watching had trouble"] = 0
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
				made = rotation.Noise(ctx, filepath.Dir(g.Host.Tree.Manifest()), rate)
				return nil
			})
			if err != nil {
				return err
			}
			percents, rates = append(percents, percent), append(rates, float64(made)/long.Seconds())
		}
		const what = "unrelated events a second"
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
