// SPDX-License-Identifier: Apache-2.0

// Command against compares this tree with an earlier commit. It checks the commit out, and runs the benchmarks of both
// trees in turn, each tree with its own benchmark program, which knows its own flags and log lines. It compares the
// rows that both programs report under the same names, and prints the ratios with their budgets. It does not judge
// them.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/kubelet-https-guard/kubelet-https-guard/test/bench/results"
)

// tree is a checkout of the repository. name is the contender in the results.
type tree struct{ name, dir string }

const thisTree = "this tree"

type bench struct {
	commit string
	rounds int
	parts  string
	output results.Output

	dir      string
	old, new tree
	document results.Document
}

// part is a benchmark. measure runs it once in a tree.
type part struct {
	name string
	// about is what a round of it costs, for people who choose.
	about   string
	measure func(ctx context.Context, t tree, dir string) (results.Document, error)
}

func allParts() []part {
	return []part{
		{"agent", "5 minutes a round", program("agent", "-runs", "1", "-starts", "3", "-noise", "15s")},
		{"webhook", "5 minutes a round, and a build of Gatekeeper", program("webhook", "-rounds", "1")},
		{"others", "20 minutes, this tree only", program("others")},
		{"audit", "15 minutes, this tree only", program("audit")},
		{"demo", "20 minutes a round, with empty caches", measureDemo},
	}
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
	var b bench
	var names, costs []string
	for _, p := range allParts() {
		names, costs = append(names, p.name), append(costs, p.name+": "+p.about)
	}
	flags := flag.NewFlagSet("against", flag.ContinueOnError)
	flags.StringVar(&b.commit, "commit", "", "`commit` to compare this tree with; required")
	flags.IntVar(&b.rounds, "rounds", 3, "how often each benchmark runs in each tree")
	flags.StringVar(&b.parts, "parts", strings.Join(names, ","),
		"comma-separated `benchmarks` to run ("+strings.Join(costs, "; ")+")")
	b.output.AddTo(flags)
	if err := flags.Parse(args); err != nil {
		return err
	}
	if b.commit == "" || b.rounds < 1 {
		return errors.New("-commit is required, and -rounds must be at least 1. Fix: make bench-against COMMIT=46b028d")
	}
	var chosen []part
	for name := range strings.SplitSeq(b.parts, ",") {
		i := slices.Index(names, name)
		if i < 0 {
			return fmt.Errorf("-parts: there is no benchmark %q, only %s", name, strings.Join(names, ", "))
		}
		chosen = append(chosen, allParts()[i])
	}
	return b.run(ctx, chosen)
}

func (b *bench) run(ctx context.Context, parts []part) (err error) {
	if b.dir, err = os.MkdirTemp("", "bench-against"); err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(b.dir) }()
	if err := b.checkOut(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, worktree(context.WithoutCancel(ctx), "remove", "--force", b.old.dir)) }()
	b.document = results.New("against")
	b.document.Notes = []string{
		fmt.Sprintf("Medians of %d rounds in each tree, in turn (lowest–highest); ratios to %s.", b.rounds, b.old.name),
		"Each tree is measured by its own benchmark programs, built with the same Go.",
	}
	for _, p := range parts {
		if p.name != "demo" {
			if _, err := os.Stat(filepath.Join(b.old.dir, "test", "bench", p.name)); errors.Is(err, os.ErrNotExist) {
				// Its budgets are ratios to something else.
				fmt.Fprintf(os.Stderr, "%s, only of %s: %s has no such benchmark\n", p.name, thisTree, b.old.name)
				document, err := p.measure(ctx, b.new, b.dir)
				if err != nil {
					return fmt.Errorf("benchmark %s: %w", p.name, err)
				}
				b.document.Rows = append(b.document.Rows, ownBudgets([]results.Document{document})...)
				continue
			}
		}
		measured := map[tree][]results.Document{}
		for round := range b.rounds {
			order := []tree{b.old, b.new}
			// Alternate, so that a machine that becomes slower or faster favors neither.
			if round%2 == 1 {
				slices.Reverse(order)
			}
			for _, t := range order {
				fmt.Fprintf(os.Stderr, "%s of %s, round %d of %d\n", p.name, t.name, round+1, b.rounds)
				document, err := p.measure(ctx, t, b.dir)
				if err != nil {
					return fmt.Errorf("benchmark %s of %s: %w", p.name, t.name, err)
				}
				measured[t] = append(measured[t], document)
			}
		}
		rows, err := compare(p.name, b.old.name, measured[b.old], measured[b.new])
		if err != nil {
			return err
		}
		b.document.Rows = append(b.document.Rows, append(rows, ownBudgets(measured[b.new])...)...)
	}
	d := &b.document
	d.Headline = fmt.Sprintf("Compared with %s: a new certificate is logged in %s of the time (p50), the agent's memory "+
		"is %s, its CPU time when idle %s, and the time of a cold make demo %s.", b.old.name,
		d.Ratio("new certificate → log line: all of them", thisTree, "p50"),
		d.Ratio("files beside those that matter: 1", thisTree, "memory, idle"),
		d.Ratio("files beside those that matter: 1", thisTree, "CPU, idle"),
		d.Ratio(coldDemo+": "+builtAPIServer, thisTree, wallTime))
	return b.output.Write(*d)
}

// checkOut makes the trees: a worktree of the commit, and the working directory.
func (b *bench) checkOut(ctx context.Context) error {
	here, err := os.Getwd()
	if err != nil {
		return err
	}
	b.new = tree{thisTree, here}
	short, err := exec.CommandContext(ctx, "git", "rev-parse", "--short", b.commit+"^{commit}").Output()
	if err != nil {
		return fmt.Errorf("find commit %s: %w. Fix: name a commit of this repository", b.commit, err)
	}
	b.old = tree{strings.TrimSpace(string(short)), filepath.Join(b.dir, "tree")}
	return worktree(ctx, "add", "--detach", b.old.dir, b.commit)
}

func worktree(ctx context.Context, verb string, args ...string) error {
	command := exec.CommandContext(ctx, "git", append([]string{"worktree", verb}, args...)...)
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("git worktree %s: %w\n%s", verb, err, out)
	}
	return nil
}

// program runs a benchmark program of a tree, with flags that it has in all commits.
func program(name string, args ...string) func(context.Context, tree, string) (results.Document, error) {
	return func(ctx context.Context, t tree, dir string) (results.Document, error) {
		file := filepath.Join(dir, name+".json")
		command := exec.CommandContext(ctx, "go", append([]string{"run", "./test/bench/" + name, "-json", file}, args...)...)
		command.Dir, command.Stderr = t.dir, os.Stderr
		// So that the program cleans up.
		command.Cancel = func() error { return command.Process.Signal(os.Interrupt) }
		if err := command.Run(); err != nil {
			return results.Document{}, err
		}
		return results.Read(file)
	}
}
