// SPDX-License-Identifier: Apache-2.0

// Command demo shows the guard at work on a real API server, step by step. It
// checks each answer, and fails at the first one that is wrong.
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

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/openshift"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/rig"
)

// wholeTime bounds the demo without the first build.
const wholeTime = 20 * time.Minute

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Getenv("DEMO_KEEP") == "1", os.Getenv("DEMO_QUICK") == "1", os.Stdout)
	stop()
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "\nThe demo failed:", err)
		os.Exit(1)
	}
}

// run runs the demo or, with the argument "down", stops one that was left running.
func run(ctx context.Context, args []string, keep, quick bool, out io.Writer) error {
	repository, err := os.Getwd()
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(repository, "charts")); err != nil {
		return errors.New("the working directory is not the root of the repository. Fix: cd to it and run make demo")
	}
	dir := filepath.Join(repository, ".demo")
	if err := rig.EndDetached(ctx, repository, dir); err != nil {
		return err
	}
	if len(args) == 1 && args[0] == "down" {
		return os.RemoveAll(dir)
	}
	started := time.Now()
	r, err := rig.Start(ctx, rig.Options{
		Repository: repository, Dir: dir, Progress: os.Stderr, Detach: keep, Quick: quick,
	})
	defer r.Stop()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, wholeTime)
	defer cancel()
	d := &demo{out: out, rig: r, shown: map[types.UID]bool{}}
	for _, act := range []func(context.Context) error{d.prepare, d.refusals, d.stored, d.nodeAndServed, d.kubelets} {
		if err := act(ctx); err != nil {
			return err
		}
	}
	d.printf("\nChanges refused: %d by the webhook, %d by the policies, %d by the API server itself. "+
		"Changes accepted: %d. "+
		"Findings reported and resolved: %d in the stored Secrets, %d on the node. "+
		"Certificates that an endpoint serves: %d stale, %d as stored. "+
		"Connections to a kubelet: %d refused, %d accepted. Kubelets of Nodes checked: %d. Time: %s.\n",
		d.byWebhook, d.byPolicy, d.byServer, d.passed, d.audited, d.recovered, d.stale, d.asStored,
		d.disconnected, d.connected, d.swept, time.Since(started).Round(time.Second))
	if keep {
		d.printf("\nEverything but the stand-ins for servers is still running. Try it:\n"+
			"  export KUBECONFIG=%s\n  alias kubectl=%s\n"+
			"  kubectl -n openshift-apiserver delete secret serving-cert\n  kubectl describe node %s\n"+
			"  tail -f %s\nStop it: make demo-down\n",
			r.Kubeconfig, r.Kubectl, rig.Node, r.Path("nodeagent.log"))
	}
	return nil
}

// demo is a running demo, and counts what happened.
type demo struct {
	out io.Writer
	rig *rig.Rig

	byWebhook, byPolicy, byServer, passed, audited, recovered int
	stale, asStored, disconnected, connected, swept           int

	// ca is the CA of the cluster, which also signs the client certificates in tree, the files of the node. The
	// kube-apiserver uses these files.
	ca   *pkitest.CA
	tree openshift.Tree

	shown map[types.UID]bool // Events that were printed
}

func (d *demo) printf(format string, args ...any) { _, _ = fmt.Fprintf(d.out, format, args...) }

func (d *demo) chapter(title string) { d.printf("\n== %s\n", title) }

// step runs kubectl and prints the command and the answer, which must contain all
// the words.
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

// refuse is a step that the webhook or a policy must refuse, for this reason.
func (d *demo) refuse(ctx context.Context, title, reason string, args ...string) error {
	return d.step(ctx, title, true, []string{" denied ", reason, "CIS OpenShift 1.2.4 (1.2.2 from v1.8)"}, args...)
}

// pass is a step that must succeed with this answer.
func (d *demo) pass(ctx context.Context, title, answer string, args ...string) error {
	return d.step(ctx, title, false, []string{answer}, args...)
}

// shellWords quotes arguments where a shell needs it.
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
