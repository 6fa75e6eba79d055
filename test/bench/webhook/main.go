// SPDX-License-Identifier: Apache-2.0

// Command webhook measures the admission webhook as it is shipped, side by side
// with a webhook of controller-runtime that lets everything pass: the same
// requests to both, by turns, directly and through a real API server. It prints
// ratios beside what is allowed and asserts nothing.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/rig"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/rotation"
)

type bench struct {
	requests, rounds int
	pairs            int
	load             time.Duration

	dir        string
	rig        *rig.Rig
	ours, noop contender
	rsa, ecdsa []pkitest.Pair
	table      *tabwriter.Writer
}

// contender is a webhook.
type contender struct {
	name    string
	url     string
	process *rig.Process
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) > 0 && args[0] == "noop" {
		return noop(ctx, args[1:])
	}
	var b bench
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.IntVar(&b.requests, "requests", 600, "how many of each kind are sent to each in a round")
	flags.IntVar(&b.rounds, "rounds", 3, "how often all of that is done; medians are printed")
	flags.IntVar(&b.pairs, "pairs", 150, "how many RSA pairs there are; more than the webhook can remember")
	flags.DurationVar(&b.load, "load", 5*time.Second, "how long there is load, each time")
	if err := flags.Parse(args); err != nil {
		return err
	}
	return b.run(ctx)
}

func (b *bench) run(ctx context.Context) (err error) {
	if b.dir, err = os.MkdirTemp("", "bench-webhook"); err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(b.dir) }()
	b.rig, err = rig.Start(ctx, rig.Options{Repository: ".", Dir: b.dir + "/rig", Progress: os.Stderr})
	defer b.rig.Stop()
	if err != nil {
		return err
	}
	if err := b.rig.InstallGuard(ctx); err != nil {
		return err
	}
	if err := b.startNoop(ctx); err != nil {
		return err
	}
	b.makePairs()
	fmt.Printf("%s/%s, %d cores, %s. Medians of %d rounds of %d requests each, by turns; the other one is a webhook of controller-runtime that lets everything pass.\n\n",
		runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version(), b.rounds, b.requests)
	b.table = tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	b.row("what", "ours", "the other one", "ratio", "allowed")
	for _, part := range []func(context.Context) error{b.measureIdle, b.measureDirectly, b.measureThroughServer, b.measureLoad} {
		if err := part(ctx); err != nil {
			return err
		}
		if err := b.table.Flush(); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) row(what, ours, other, ratio, allowed string) {
	fmt.Fprintf(b.table, "%s\t%s\t%s\t%s\t%s\n", what, ours, other, ratio, allowed)
}

func (b *bench) startNoop(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	port, err := rig.FreePort(ctx)
	if err != nil {
		return err
	}
	address, certDir := b.rig.WebhookAddress()
	process, err := b.rig.Launch("noop", self, "noop", "--port", fmt.Sprint(port), "--cert-dir", certDir)
	if err != nil {
		return err
	}
	b.ours = contender{"ours", "https://" + address + "/validate", b.rig.Webhook}
	b.noop = contender{"no-op", fmt.Sprintf("https://127.0.0.1:%d/validate", port), process}
	return nil
}

// makePairs issues them: RSA keys take their time.
func (b *bench) makePairs() {
	now := time.Now()
	request := pkitest.ServingCert().Valid(now.Add(-time.Hour), now.AddDate(2, 0, 0))
	for range b.pairs {
		b.ecdsa = append(b.ecdsa, b.rig.ServiceCA.Issue(request))
	}
	request.Key = pkitest.RSA
	for range b.pairs {
		b.rsa = append(b.rsa, b.rig.ServiceCA.Issue(request))
	}
}

// measureIdle: memory when nothing has been asked yet.
func (b *bench) measureIdle(context.Context) error { return b.memory("memory, idle", "45 MiB") }

func (b *bench) memory(what, allowed string) error {
	ours, err := rotation.MemoryOf(b.ours.process.PID())
	other, otherErr := rotation.MemoryOf(b.noop.process.PID())
	if err := errors.Join(err, otherErr); err != nil {
		return err
	}
	show := func(m rotation.Memory) string {
		return fmt.Sprintf("%.1f MiB, at most %.1f", float64(m.Now)/(1<<20), float64(m.Most)/(1<<20))
	}
	b.row(what, show(ours), show(other), "", allowed)
	return nil
}
