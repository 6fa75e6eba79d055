// SPDX-License-Identifier: Apache-2.0

// Command others measures what the guard costs those whose writes it does not check: writes to other Secrets in a
// guarded namespace, to Secrets in other namespaces, and to objects of other kinds. It measures them with the guard
// installed and without it, in turns, and then with parts of the guard. It prints ratios with their budgets and does
// not judge them. It fails if a part of the guard is not in force, or a write is refused.
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

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/kubelet-https-guard/kubelet-https-guard/test/bench/controlplane"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/bench/results"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/rig"
)

// chart is the chart of this repository.
const chart = "charts/kubelet-https-guard"

type bench struct {
	requests, rounds int
	partRounds       int
	load             time.Duration
	against          string
	output           results.Output

	rig       *rig.Rig
	client    kubernetes.Interface
	etcd      *controlplane.Etcd
	apiServer int // the number of its process
	document  results.Document
	random    *rand.Rand
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

func run(ctx context.Context, args []string) (err error) {
	b := bench{random: rand.New(rand.NewPCG(1, 1))}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.IntVar(&b.requests, "requests", 250, "how many writes of each kind there are in a round, one at a time")
	flags.IntVar(&b.rounds, "rounds", 10, "how many rounds there are with the guard and without it; medians are printed")
	flags.IntVar(&b.partRounds, "part-rounds", 8, "how many rounds there are with parts of the guard")
	flags.DurationVar(&b.load, "load", 400*time.Millisecond, "how long the load with each kind of write lasts in a round")
	flags.StringVar(&b.against, "against", "", "`directory` of another version of the chart, to measure as well")
	b.output.AddTo(flags)
	if err := flags.Parse(args); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "bench-others")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	b.rig, err = rig.Start(ctx, rig.Options{Repository: ".", Dir: dir + "/rig", Progress: os.Stderr, Helm: true})
	defer b.rig.Stop()
	if err != nil {
		return err
	}
	b.document = results.New("others")
	if err := b.connect(); err != nil {
		return err
	}
	guard, err := b.render(ctx, chart, "--set", "policy.selfProtection.enabled=true")
	if err != nil {
		return err
	}
	if err := b.prepare(ctx, guard); err != nil {
		return err
	}
	if err := b.measureInTurns(ctx, guard); err != nil {
		return err
	}
	if err := b.measureParts(ctx, guard); err != nil {
		return err
	}
	d := &b.document
	d.Headline = fmt.Sprintf("With the guard installed, an update of a Secret that it does not protect, in a guarded "+
		"namespace, takes %s of its time without the guard (p50), and one of a Secret in another namespace %s.",
		d.Ratio(updateInGuarded, guarded, "p50"), d.Ratio(updateInAnother, guarded, "p50"))
	return b.output.Write(*d)
}

func (b *bench) connect() error {
	config, err := clientcmd.BuildConfigFromFlags("", b.rig.Kubeconfig)
	if err != nil {
		return err
	}
	config.QPS = -1 // no rate limit
	config.WarningHandler = rest.NoWarnings{}
	// As controllers and kubelets do. It also takes less of the machine from the API server than JSON.
	config.ContentType = "application/vnd.kubernetes.protobuf"
	if b.client, err = kubernetes.NewForConfig(config); err != nil {
		return err
	}
	version, err := b.client.Discovery().ServerVersion()
	if err != nil {
		return err
	}
	b.document.Notes = []string{
		fmt.Sprintf("Medians of %d rounds (parts: %d) of %d writes, one at a time, and of %s of load with %d clients",
			b.rounds, b.partRounds, b.requests, b.load, atATime),
		fmt.Sprintf("(lowest–highest). Ratios to %q in the same round. Kubernetes %s, etcd without fsync.", reference,
			version.GitVersion),
	}
	if b.etcd, err = controlplane.EtcdOf(b.rig); err != nil {
		return err
	}
	b.apiServer, err = controlplane.APIServerPID(b.rig)
	return err
}
