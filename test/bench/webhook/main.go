// SPDX-License-Identifier: Apache-2.0

// Command webhook compares the admission webhook as released with alternatives: no webhook, only the
// policy, webhooks that allow everything, Gatekeeper with the same checks. All of them get the same
// requests in turn, directly and through a real API server. It prints ratios with their budgets and
// does not judge them. It fails if one of them gives a wrong answer.
package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/bench/results"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/rig"
)

type bench struct {
	requests, rounds int
	pairs            int
	load             time.Duration
	gatekeeper       bool
	output           results.Output

	dir        string
	rig        *rig.Rig
	contenders []contender
	rsa, ecdsa []pkitest.Pair
	document   results.Document
	random     *rand.Rand
	turn       int // requests sent to each contender so far
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
	if len(args) > 0 && args[0] == noopCommand {
		return serveNoop(ctx, args[1:])
	}
	b := bench{random: rand.New(rand.NewPCG(1, 1))}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.IntVar(&b.requests, "requests", 200, "how many requests of each kind each contender gets in a round")
	flags.IntVar(&b.rounds, "rounds", 5, "how many rounds there are; medians are printed")
	flags.IntVar(&b.pairs, "pairs", 150, "how many pairs there are of each kind; so that none is seen twice soon")
	flags.DurationVar(&b.load, "load", 1500*time.Millisecond, "how long each contender is under load in a round")
	flags.BoolVar(&b.gatekeeper, "gatekeeper", true, "measure Gatekeeper, too; building it takes minutes")
	b.output.AddTo(flags)
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
	b.document = results.New("webhook")
	b.document.Notes = []string{
		fmt.Sprintf("Medians of %d rounds of %d requests to each, by turns (lowest–highest); ratios to the %s.", b.rounds,
			b.requests, reference),
	}
	if err := b.startContenders(ctx); err != nil {
		return err
	}
	b.makePairs()
	for _, part := range []struct {
		what string
		do   func(context.Context) error
	}{
		{"answers", b.proveAnswers},
		{"directly", b.measureDirectly},
		{"through the API server", b.measureThroughServer},
	} {
		fmt.Fprintf(os.Stderr, "measuring: %s\n", part.what)
		if err := part.do(ctx); err != nil {
			return err
		}
	}
	const update = "through the API server: new RSA 2048 content"
	d := &b.document
	d.Headline = fmt.Sprintf("A new pair in a protected Secret takes %s (p50) through the API server: %s of what it "+
		"takes with a webhook that allows everything, with %s of that webhook's CPU time.", d.Figure(update, "ours", "p50"),
		d.Ratio(update, "ours", "p50"), d.Ratio(update, "ours", "CPU a request"))
	return b.output.Write(*d)
}

func (b *bench) add(rows ...results.Row) { b.document.Rows = append(b.document.Rows, rows...) }

// makePairs issues the pairs in advance: RSA keys take long.
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
