// SPDX-License-Identifier: Apache-2.0

// Command demo shows the guard at work on a real API server, step by step, and
// checks what it shows: a step that does not answer as it should makes it
// fail.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kubelet-https-guard/kubelet-https-guard/test/rig"
)

// wholeTime bounds everything but a cold build.
const wholeTime = 20 * time.Minute

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Getenv("DEMO_KEEP") == "1", os.Stdout)
	stop()
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "\nThe demo failed:", err)
		os.Exit(1)
	}
}

// run plays the demo, or with the argument "down" ends one that was kept.
func run(ctx context.Context, args []string, keep bool, out io.Writer) error {
	repository, err := os.Getwd()
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(repository, "charts")); err != nil {
		return errors.New("run it at the root of the repository: go run ./test/demo")
	}
	dir := filepath.Join(repository, ".demo")
	if err := rig.EndDetached(ctx, repository, dir); err != nil {
		return err
	}
	if len(args) == 1 && args[0] == "down" {
		return os.RemoveAll(dir)
	}
	started := time.Now()
	r, err := rig.Start(ctx, rig.Options{Repository: repository, Dir: dir, Progress: os.Stderr, Detach: keep})
	defer r.Stop()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, wholeTime)
	defer cancel()
	d := &demo{out: out, rig: r, shown: map[types.UID]bool{}}
	for _, act := range []func(context.Context) error{d.prepare, d.refusals, d.stored, d.node} {
		if err := act(ctx); err != nil {
			return err
		}
	}
	d.printf("\n%d changes refused by the webhook, %d by the policy beneath it, %d by the API server itself; %d let through; %d finding in what is stored and %d on the node told and seen to recover. %s.\n",
		d.byWebhook, d.byPolicy, d.byServer, d.passed, d.audited, d.recovered, time.Since(started).Round(time.Second))
	if keep {
		d.printf("\nAll of it is still there. Try it:\n  export KUBECONFIG=%s\n  alias kubectl=%s\n  kubectl -n openshift-apiserver delete secret serving-cert\n  kubectl describe node %s\n  tail -f %s\nEnd it: make demo-down\n",
			r.Kubeconfig, r.Kubectl, rig.Node, r.Path("nodeagent.log"))
	}
	return nil
}

// demo is a demo under way.
type demo struct {
	out io.Writer
	rig *rig.Rig

	byWebhook, byPolicy, byServer, passed, audited, recovered int

	shown map[types.UID]bool // Events that were shown
}

func (d *demo) printf(format string, args ...any) { _, _ = fmt.Fprintf(d.out, format, args...) }

func (d *demo) chapter(title string) { d.printf("\n== %s\n", title) }

// step runs kubectl and shows what is done and what the cluster answers. The
// answer must have all the words.
func (d *demo) step(ctx context.Context, title string, wantRefused bool, words []string, args ...string) error {
	result := d.rig.KubectlCommand(ctx, args...)
	d.printf("\n%s\n  $ kubectl %s\n", title, shellWords(args))
	for line := range strings.SplitSeq(result.Output, "\n") {
		d.printf("  %s\n", line)
	}
	if refused := result.Code != 0; refused != wantRefused {
		return fmt.Errorf("%s: kubectl exited with %d", title, result.Code)
	}
	for _, word := range words {
		if !strings.Contains(result.Output, word) {
			return fmt.Errorf("%s: the answer has no %q", title, word)
		}
	}
	switch {
	case !wantRefused:
		d.passed++
	case strings.Contains(result.Output, "admission webhook"):
		d.byWebhook++
	case strings.Contains(result.Output, "ValidatingAdmissionPolicy"):
		d.byPolicy++
	default:
		d.byServer++
	}
	return nil
}

// refuse: by the webhook or, without it, by the policy beneath it.
func (d *demo) refuse(ctx context.Context, title, reason string, args ...string) error {
	return d.step(ctx, title, true, []string{" denied ", reason, "CIS OpenShift 1.2.4 (1.2.2 from v1.9)"}, args...)
}

func (d *demo) pass(ctx context.Context, title, answer string, args ...string) error {
	return d.step(ctx, title, false, []string{answer}, args...)
}

// shellWords writes arguments as one would type them.
func shellWords(args []string) string {
	var words []string
	for _, arg := range args {
		if strings.ContainsAny(arg, ` "{}$*`) {
			arg = "'" + arg + "'"
		}
		words = append(words, arg)
	}
	return strings.Join(words, " ")
}
