// SPDX-License-Identifier: Apache-2.0

// Command agent measures the node agent as it is shipped: memory, what it
// computes while nothing happens and while much does, how soon it tells. It
// prints what it measured beside what is allowed and asserts nothing.
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
	"runtime"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/test/rotation"
)

const (
	// settle is the agent's default.
	settle = time.Second
	// scrapeEvery is how often Prometheus does on OpenShift, at most.
	scrapeEvery = 15 * time.Second
	// notice is what is allowed from a write to the line about it.
	notice = 250 * time.Millisecond
)

type bench struct {
	idle, noise    time.Duration
	starts, rounds int
	binary, dir    string
	table          *tabwriter.Writer
}

func main() {
	var b bench
	flag.DurationVar(&b.idle, "idle", time.Minute, "how long nothing happens")
	flag.DurationVar(&b.noise, "noise", time.Minute, "how long 10,000 unrelated files are made and removed a second")
	flag.IntVar(&b.starts, "starts", 20, "how often the agent is started")
	flag.IntVar(&b.rounds, "rounds", 20, "how often each way of writing, and each fault, is tried")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := b.run(ctx)
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
	fmt.Printf("%s/%s, %d cores, %s. The agent has an API server and a kubelet to talk to, and is scraped each %s.\n\n",
		runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version(), scrapeEvery)
	b.table = tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	b.row("what", "measured", "allowed")
	b.row("binary", megabytes(info.Size()), "")
	for _, part := range []func(context.Context) error{b.measureStart, b.measureIdle, b.measureLatency, b.measureNoise} {
		if err := part(ctx); err != nil {
			return err
		}
		if err := b.table.Flush(); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) row(what, measured, allowed string) {
	fmt.Fprintf(b.table, "%s\t%s\t%s\n", what, measured, allowed)
}

func megabytes(bytes int64) string { return fmt.Sprintf("%.1f MiB", float64(bytes)/(1<<20)) }

// guard starts an agent over a new host, as the chart does.
func (b *bench) guard(ctx context.Context) (d *rotation.Driver, metrics string, end func() error, err error) {
	root, err := os.MkdirTemp(b.dir, "host")
	if err != nil {
		return nil, "", nil, err
	}
	random := rand.New(rand.NewPCG(1, 1))
	host, err := rotation.NewHost(root, random, func() {})
	if err != nil {
		return nil, "", nil, err
	}
	servers, err := newServers(b.dir, host)
	if err != nil {
		return nil, "", nil, err
	}
	command := exec.CommandContext(ctx, b.binary, "--root", root, "--node-name", "master-0",
		"--kubeconfig", servers.kubeconfig, "--kubelet-address", servers.kubelet, "--metrics-bind-address", "127.0.0.1:0")
	d = &rotation.Driver{Host: host, Settle: settle, Notice: notice, Tolerated: map[string]int{}}
	began := time.Now()
	if d.Agent, err = rotation.Start(command); err != nil {
		return nil, "", nil, err
	}
	if err := d.Started(ctx, began); err != nil {
		return nil, "", nil, err
	}
	return d, d.Metrics, func() error {
		defer servers.close()
		return d.Agent.Stop()
	}, nil
}

// measureStart: from the start of the process to the first verdict.
func (b *bench) measureStart(ctx context.Context) error {
	var all []time.Duration
	for range b.starts {
		d, _, end, err := b.guard(ctx)
		if err != nil {
			return err
		}
		all = append(all, d.Latencies["start to verdict"]...)
		if err := end(); err != nil {
			return err
		}
	}
	b.latency("start to verdict", all, "")
	return nil
}

func (b *bench) latency(what string, all []time.Duration, allowed string) {
	b.row(what, fmt.Sprintf("p50 %s, p99 %s (of %d)", milliseconds(rotation.Quantile(all, 0.5)), milliseconds(rotation.Quantile(all, 0.99)), len(all)), allowed)
}

func milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000)
}

// measureIdle: nothing happens but ticks, scrapes and the kubelet's answers.
func (b *bench) measureIdle(ctx context.Context) error {
	d, metrics, end, err := b.guard(ctx)
	if err != nil {
		return err
	}
	share, err := b.while(ctx, d, metrics, func(ctx context.Context) error { return d.Quiet(ctx, b.idle) })
	if err != nil {
		return err
	}
	b.row(fmt.Sprintf("CPU, idle for %s", b.idle), fmt.Sprintf("%.3f %% of a core", 100*share), "0.1 %")
	return errors.Join(b.memory(d, "memory, idle"), end())
}

func (b *bench) memory(d *rotation.Driver, what string) error {
	memory, err := d.Agent.Memory()
	if err != nil {
		return err
	}
	b.row(what, fmt.Sprintf("%s RSS (%s anonymous), at most %s", megabytes(memory.Now), megabytes(memory.Anonymous), megabytes(memory.Most)), "20 MiB")
	return nil
}

// while does something with the agent scraped, and returns what share of a core
// the agent took.
func (b *bench) while(ctx context.Context, d *rotation.Driver, metrics string, do func(context.Context) error) (share float64, err error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	before, err := d.Agent.CPU()
	if err != nil {
		return 0, err
	}
	began := time.Now()
	scraped := make(chan error, 1)
	go func() { scraped <- scrape(ctx, metrics) }()
	if err := do(ctx); err != nil {
		return 0, err
	}
	after, err := d.Agent.CPU()
	took := time.Since(began)
	stop()
	return (after - before).Seconds() / took.Seconds(), errors.Join(err, <-scraped)
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

// measureLatency: each way of writing, each fault, each moment.
func (b *bench) measureLatency(ctx context.Context) error {
	d, metrics, end, err := b.guard(ctx)
	if err != nil {
		return err
	}
	writers := rotation.Writers()
	share, err := b.while(ctx, d, metrics, func(ctx context.Context) error {
		for range b.rounds {
			for i, w := range writers {
				if err := d.Rotate(ctx, w); err != nil {
					return err
				}
				if i == 0 {
					if err := d.Expire(ctx, w, w); err != nil {
						return err
					}
				}
			}
			for i, f := range rotation.Faults() {
				if err := d.Fault(ctx, f, writers[i%len(writers)], writers[(i+1)%len(writers)]); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	var every []time.Duration
	for _, w := range writers {
		label := "rotation, " + w.Name
		b.latency(label, d.Latencies[label], "")
		every = append(every, d.Latencies[label]...)
	}
	b.latency("new certificate → log line, all of them", every, "p99 250 ms")
	b.latency("fault → log line, settle being "+settle.String(), d.Latencies["fault"], "p99 1250 ms")
	b.latency("expiry → log line", d.Latencies["moment"], "p99 250 ms")
	b.row("CPU, while all that was done", fmt.Sprintf("%.2f %% of a core", 100*share), "")
	return errors.Join(b.memory(d, "memory, after that"), end())
}

// measureNoise: files that do not matter, beside those that do.
func (b *bench) measureNoise(ctx context.Context) error {
	d, metrics, end, err := b.guard(ctx)
	if err != nil {
		return err
	}
	d.Tolerated["Watching had trouble"] = 0
	made := make(chan int, 1)
	share, err := b.while(ctx, d, metrics, func(ctx context.Context) error {
		ctx, stop := context.WithTimeout(ctx, b.noise)
		defer stop()
		made <- rotation.Noise(ctx, filepath.Join(d.Host.Tree.Root, "etc/kubernetes/manifests"))
		return nil
	})
	if err != nil {
		return err
	}
	b.row(fmt.Sprintf("CPU, %.0f unrelated events a second for %s", float64(<-made)/b.noise.Seconds(), b.noise), fmt.Sprintf("%.1f %% of a core", 100*share), "25 %")
	if err := d.Rotate(ctx, rotation.Writers()[0]); err != nil {
		return err
	}
	return errors.Join(b.memory(d, "memory, after that"), end())
}
