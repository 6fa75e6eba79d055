// SPDX-License-Identifier: Apache-2.0

// Command nodeagent watches the kubelet client certificate of a control-plane
// node and tells in its log and in Events whether it is there and holds.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kubelet-https-guard/kubelet-https-guard/nodeagent/internal/agent"
	"github.com/kubelet-https-guard/kubelet-https-guard/nodeagent/internal/hostfs"
	"github.com/kubelet-https-guard/kubelet-https-guard/nodeagent/internal/scan"
	"github.com/kubelet-https-guard/kubelet-https-guard/nodeagent/internal/watch"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/report"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/version"
)

// Exit codes. Those of --once are a contract.
const (
	exitCompliant  = 0
	exitViolation  = 1
	exitUnverified = 2
	exitFailed     = 3 // the agent itself failed
	exitUsage      = 64
	reporterName   = "kubelet-https-guard.io/nodeagent"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is the whole command but for the process around it.
func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	config, err := parseConfig(args, getenv, stderr)
	switch {
	case errors.Is(err, errHelp):
		return exitCompliant
	case err != nil:
		_, _ = fmt.Fprintf(stderr, "nodeagent: %v\nRun nodeagent --help for the flags.\n", err)
		return exitUsage
	case config.version:
		_, _ = fmt.Fprintln(stdout, "nodeagent", version.String())
		return exitCompliant
	}

	host, err := hostfs.New(config.root, check.MaxFileBytes)
	if err != nil {
		_, _ = fmt.Fprintf(stderr, "nodeagent: --root: %v\n", err)
		return exitUsage
	}
	log, err := report.NewLogger(stderr, config.logFormat, config.logLevel)
	if err != nil {
		_, _ = fmt.Fprintf(stderr, "nodeagent: --log-format: %v\n", err)
		return exitUsage
	}
	options := scan.Options{
		Directory: config.directory, ClientCA: config.clientCA, ExpiringFraction: config.expiringFraction,
	}
	guard := &agent.Agent{
		Scan:   func(now time.Time) scan.Snapshot { return scan.Scan(host, options, now) },
		Chain:  host.Chain,
		Object: report.Object{APIVersion: "v1", Kind: "Node", Name: config.nodeName},
		Now:    time.Now, Log: log, Resync: config.resync, Settle: config.settle,
	}
	if config.once {
		snapshot := guard.Settled(ctx)
		if err := writeTable(stdout, snapshot); err != nil {
			log.Error("Report not written", "err", err)
			return exitFailed
		}
		return exitCode(finding.VerdictOf(snapshot.Findings))
	}
	if err := serve(ctx, guard, config, log); err != nil {
		log.Error("Stopped", "err", err)
		return exitFailed
	}
	return exitCompliant
}

// serve runs the agent until the context ends or a part of it fails, which
// ends all of it: an agent that is half alive would look like one that has
// nothing to say.
func serve(ctx context.Context, guard *agent.Agent, config config, log *slog.Logger) error {
	tellers := report.Tellers{report.NewLog(log)}
	group, ctx := errgroup.WithContext(ctx)

	client, err := report.Connect(config.kubeconfig, "kubelet-https-guard-nodeagent/"+version.String())
	switch {
	case errors.Is(err, report.ErrNoAPIServer):
		log.Info("No API server known, telling in the log only")
	case err != nil:
		return err
	case config.nodeName == "":
		return errors.New("there is an API server to send Events to, but no node to send them about: set --node-name or NODE_NAME")
	default:
		events := report.NewEvents(client, log, reporterName, config.nodeName)
		tellers = append(tellers, events)
		group.Go(func() error { return events.Run(ctx) })
	}

	watcher, err := watch.New(log)
	if err != nil {
		return err
	}
	guard.Watcher, guard.Teller = watcher, tellers
	group.Go(func() error { return watcher.Run(ctx) })
	group.Go(func() error { return guard.Run(ctx) })
	log.Info("Started", "version", version.String(), "node", config.nodeName, "root", config.root)
	return group.Wait()
}

func exitCode(verdict finding.Verdict) int {
	switch verdict {
	case finding.Compliant:
		return exitCompliant
	case finding.NotCompliant:
		return exitViolation
	case finding.CouldNotVerify:
		return exitUnverified
	}
	return exitUnverified
}
