// SPDX-License-Identifier: Apache-2.0

// Command sweep measures how the audit, as released, checks the kubelets of many Nodes: how long a sweep takes, its CPU
// time and memory, and what Nodes that hang cost the others. It prints the results with their budgets and does not
// judge them. It fails if the audit does not report what it should.
//
// It runs itself again in a network namespace of its own, in which thousands of addresses are local: the audit refuses
// loopback addresses. That needs root, or a kernel that lets users make namespaces.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/test/bench/results"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/rotation"
)

const (
	// The budgets: seconds for a sweep, cores on average between two sweeps, MiB more than without Nodes, how much longer
	// Nodes that hang may make the sweep of the others, and how much more a Node may cost among 5,000 than among 1,000.
	sweepBudget, cpuBudget, memoryBudget, hangingBudget, linearBudget = 30, 0.25, 24, 1.1, 1.25
	// most is the number of Nodes of the budgets.
	most = 5000
	// every is the interval of sweeps (webhook/internal/sweep, Every).
	every = 5 * time.Minute
	// patience is how long a sweep may take until the measurement fails, rest how long the audit is left alone after it.
	patience, rest = 3 * time.Minute, 5 * time.Second
)

// insideArgument makes this program measure, in its namespace.
const insideArgument = "inside"

type bench struct {
	runs   int
	output results.Output

	dir      string
	document results.Document
}

func main() {
	var b bench
	flag.IntVar(&b.runs, "runs", 3, "how often each number of Nodes is measured; medians are printed")
	b.output.AddTo(flag.CommandLine)
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	do := b.outside
	if flag.NArg() == 2 && flag.Arg(0) == insideArgument {
		b.dir = flag.Arg(1)
		do = b.inside
	}
	err := do(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// outside builds the webhook, and runs this program in a network namespace.
func (b *bench) outside(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "bench-sweep")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	build := exec.CommandContext(ctx, "go", "build", "-o", webhookIn(dir), "./webhook")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build the webhook: %w\n%s", err, out)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	inside := exec.CommandContext(ctx, self, slices.Concat(os.Args[1:], []string{insideArgument, dir})...)
	inside.Stdout, inside.Stderr = os.Stdout, os.Stderr
	inside.Cancel = func() error { return inside.Process.Signal(os.Interrupt) }
	inside.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if uid, gid := os.Getuid(), os.Getgid(); uid != 0 {
		inside.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		inside.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
		inside.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: gid, Size: 1}}
	}
	if err := inside.Run(); err != nil {
		return fmt.Errorf("measure in a network namespace: %w", err)
	}
	return nil
}

func webhookIn(dir string) string { return filepath.Join(dir, "webhook") }

// inside measures.
func (b *bench) inside(ctx context.Context) error {
	if err := addLocalAddresses(); err != nil {
		return fmt.Errorf("set up the network namespace: %w", err)
	}
	b.document = results.New("sweep")
	b.document.Notes = []string{fmt.Sprintf(
		"Medians of %d runs (lowest–highest). A Node's object has 12 KiB. The kubelets run on the same machine.", b.runs,
	)}
	none, err := b.measureEach(ctx, 0, 0, "no Nodes")
	if err != nil {
		return err
	}
	var whole, thousand measured
	for _, nodes := range []int{100, 1000, most} {
		m, err := b.measureEach(ctx, nodes, 0, fmt.Sprint(nodes))
		if err != nil {
			return err
		}
		b.report("Nodes", fmt.Sprint(nodes), nodes, m, none, &thousand)
		if nodes == 1000 {
			thousand = m
		}
		whole = m
	}
	const hanging = 1000
	what := fmt.Sprintf("%d, of which %d hang", most, hanging)
	m, err := b.measureEach(ctx, most, hanging, what)
	if err != nil {
		return err
	}
	b.report("Nodes", what, most, m, none, nil)
	var ratios []float64
	for i := range m.others {
		ratios = append(ratios, m.others[i]/whole.others[i])
	}
	b.document.Rows = append(b.document.Rows,
		results.Measured("the others", fmt.Sprint(most), "first to last", "s", whole.others...),
		results.Measured("the others", what, "first to last", "s", m.others...).Against(ratios).RatioAtMost(hangingBudget))
	all := fmt.Sprint(most)
	b.document.Headline = fmt.Sprintf(
		"The audit checks the kubelets of %s Nodes in %s, with %s on average and %s of memory.", all,
		b.document.Figure("Nodes", all, "sweep"), b.document.Figure("Nodes", all, "CPU, average over 5 minutes"),
		b.document.Figure("Nodes", all, "memory, more than with none"))
	return b.output.Write(b.document)
}

// measured are the values of all runs with one number of Nodes.
type measured struct {
	// took and others are seconds: of a sweep, and from the first handshake to the last one of Nodes that do not hang. cpu
	// is the CPU time of the process in seconds, memory its highest resident memory in MiB.
	took, others, cpu, memory []float64
}

// report adds the rows of a number of Nodes. thousand is what a thousand Nodes cost; nil or empty: do not compare.
func (b *bench) report(what, contender string, nodes int, m, none measured, thousand *measured) {
	var cores, perNode, memory, ratios []float64
	for i := range m.cpu {
		cpu := max(m.cpu[i]-none.cpu[i], 0)
		cores = append(cores, cpu/every.Seconds())
		perNode = append(perNode, 1000*cpu/float64(nodes))
		memory = append(memory, m.memory[i]-none.memory[i])
		if thousand != nil && thousand.cpu != nil {
			ratios = append(ratios, perNode[i]/max(thousand.cpu[i]-none.cpu[i], 0.001))
		}
	}
	took := results.Measured(what, contender, "sweep", "s", m.took...)
	core := results.Measured(what, contender, "CPU, average over 5 minutes", "cores", cores...)
	each := results.Measured(what, contender, "CPU for a Node", "ms", perNode...)
	more := results.Measured(what, contender, "memory, more than with none", "MiB", memory...)
	if nodes == most {
		took, core, more = took.AtMost(sweepBudget), core.AtMost(cpuBudget), more.AtMost(memoryBudget)
	}
	if ratios != nil {
		each = each.Against(ratios).RatioAtMost(linearBudget)
	}
	b.document.Rows = append(b.document.Rows, took, core, each, more)
}

func (b *bench) measureEach(ctx context.Context, nodes, hanging int, what string) (measured, error) {
	var all measured
	for run := range b.runs {
		fmt.Fprintf(os.Stderr, "measuring: %s, run %d\n", what, run+1)
		if err := b.measure(ctx, nodes, hanging, &all); err != nil {
			return all, fmt.Errorf("%s: %w", what, err)
		}
	}
	return all, nil
}

// measure runs an audit for one sweep.
func (b *bench) measure(ctx context.Context, nodes, hanging int, all *measured) (err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	kubelets, err := newKubelets(nodes, hanging)
	if err != nil {
		return err
	}
	defer kubelets.close()
	api, err := newAPI(b.dir, kubelets)
	if err != nil {
		return err
	}
	defer api.close()
	audit := exec.CommandContext(ctx, webhookIn(b.dir), "audit", "--kubelets", "--kubeconfig", api.kubeconfig,
		"--namespace", "guard", "--health-bind-address", "0", "--log-format", "json")
	audit.Cancel = func() error { return audit.Process.Signal(os.Interrupt) }
	stderr, err := audit.StderrPipe()
	if err != nil {
		return err
	}
	if err := audit.Start(); err != nil {
		return fmt.Errorf("start the audit: %w", err)
	}
	defer func() {
		cancel()
		_ = audit.Wait() // it was interrupted
	}()
	swept, err := awaitSweep(stderr)
	if err != nil {
		return errors.Join(err, ctx.Err())
	}
	if swept.Nodes != nodes || swept.Passing != nodes-hanging {
		return fmt.Errorf("of %d Nodes %d pass, want %d of %d: %v", swept.Nodes, swept.Passing, nodes-hanging, nodes,
			swept.Reasons)
	}
	go func() { _, _ = io.Copy(io.Discard, stderr) }() // ends with the audit
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(rest):
	}
	took, err := time.ParseDuration(swept.Took)
	if err != nil {
		return err
	}
	cpu, err := rotation.CPUOf(audit.Process.Pid)
	if err != nil {
		return err
	}
	memory, err := rotation.MemoryOf(audit.Process.Pid)
	if err != nil {
		return err
	}
	all.took = append(all.took, took.Seconds())
	all.others = append(all.others, kubelets.others().Seconds())
	all.cpu = append(all.cpu, cpu.Seconds())
	all.memory = append(all.memory, float64(memory.Most)/(1<<20))
	return nil
}

// sweepLine is the audit's log line about a sweep.
type sweepLine struct {
	Msg     string
	Nodes   int
	Passing int
	Reasons map[string]int
	Took    string
}

// awaitSweep reads the log until the line about a sweep.
func awaitSweep(log io.Reader) (sweepLine, error) {
	scanner := bufio.NewScanner(log)
	last := ""
	for scanner.Scan() {
		var line sweepLine
		last = scanner.Text()
		if json.Unmarshal(scanner.Bytes(), &line) == nil && line.Msg == "Checked the kubelets of the Nodes" {
			return line, nil
		}
	}
	return sweepLine{}, errors.Join(fmt.Errorf("the audit logged no sweep; its last line is %q", last), scanner.Err())
}
