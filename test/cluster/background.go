// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"
)

const (
	// upTimeout is more than serve takes before it gives up itself, with a node
	// (nodeStartTimeout) or without.
	upTimeout = etcdStartTimeout + apiServerStartTimeout + 2*time.Minute

	// orphanTimeout is what process 1 of a node, who then holds the lock, needs
	// to end after its serve was killed.
	orphanTimeout = 20 * time.Second

	// downTimeout is more than serve needs for an orderly end.
	downTimeout = apiServerStopGrace + etcdStopGrace + 2*killTimeout + 10*time.Second

	// statusInterval is how often a wait looks at the folder.
	statusInterval = 50 * time.Millisecond
)

// up starts a serve that outlives this process, and waits until it is ready.
func up(ctx context.Context, o options, stdout, stderr io.Writer) error {
	f := folder(o.dir)
	before, err := f.status()
	if err != nil {
		return err
	}
	if before.running {
		now, err := awaitReady(ctx, f, nil)
		if err != nil {
			return err
		}
		return printUse(f, now, "was already up", stdout, stderr)
	}

	// Here, where its progress can be seen.
	if o.node {
		_, err = ensureNode(ctx, stderr)
	} else {
		_, err = ensureBinaries(ctx, stderr)
	}
	if err != nil {
		return err
	}
	serve, err := serveDetached(f, o.node)
	if err != nil {
		return err
	}
	now, err := awaitReady(ctx, f, serve)
	if err != nil {
		return errors.Join(err, serve.stop(downTimeout))
	}
	return printUse(f, now, "is up", stdout, stderr)
}

// printUse writes to stdout what a shell can eval.
func printUse(f folder, s status, state string, stdout, stderr io.Writer) error {
	fmt.Fprintf(stderr, "The cluster %s: process %d, files and logs in %s\n", state, s.pid, f)
	fmt.Fprintf(stderr, "The command down stops it. To use it:\n")
	_, err := fmt.Fprintf(stdout, "export KUBECONFIG=%s\nexport KUBECTL=%s\n", shellQuote(f.kubeconfig()), shellQuote(s.kubectl))
	return err
}

// shellQuote leaves plain words as they are, for people to read.
func shellQuote(word string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+./:@%"
	if word != "" && strings.Trim(word, plain) == "" {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// serveDetached starts this program again, out of reach of this terminal.
func serveDetached(f folder, node bool) (*process, error) {
	if err := f.prepare(); err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	arguments := []string{"serve", "--dir", string(f)}
	if node {
		arguments = append(arguments, "--node")
	}
	return start("serve", self, arguments, f.serveLog(), &syscall.SysProcAttr{Setsid: true})
}

// awaitReady waits for the serve that runs in the folder: ours, or that of
// somebody else if it is nil.
func awaitReady(ctx context.Context, f folder, serve *process) (status, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, upTimeout, fmt.Errorf("the cluster in %s is not ready after %s", f, upTimeout))
	defer cancel()
	tick := time.NewTicker(statusInterval)
	defer tick.Stop()
	var ended <-chan struct{}
	if serve != nil {
		ended = serve.ended
	}
	for {
		s, err := f.status()
		if err != nil || s.kubectl != "" {
			return s, err
		}
		if !s.running && serve == nil {
			return status{}, fmt.Errorf("the cluster that was starting in %s is gone; see the logs there", f)
		}
		select {
		case <-ended:
			return status{}, serve.failure()
		case <-ctx.Done():
			return status{}, context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// down stops what runs in dir and removes dir.
func down(ctx context.Context, o options, stderr io.Writer) error {
	f := folder(o.dir)
	marked, err := f.marked()
	if err != nil {
		return err
	}
	if !marked {
		fmt.Fprintf(stderr, "No cluster is up in %s\n", f)
		return nil
	}
	lock, err := tryLock(f.lock())
	said := "No cluster was up in %s; removed what one had left there\n"
	if errors.Is(err, errLocked) {
		said = "The cluster in %s is down\n"
		lock, err = stopServe(ctx, f)
	}
	if err != nil {
		return err
	}
	// The lock is let go after the removal: nobody starts in a folder that is
	// about to vanish.
	defer lock.Close()
	// The node does it itself, unless everything of it was killed.
	if o.node {
		if err := removeCgroups(ctx, f.cgroup()); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(string(f)); err != nil {
		return err
	}
	fmt.Fprintf(stderr, said, f)
	return nil
}

// stopServe ends the holder of the folder's lock and returns the lock. The pid
// in the folder is only believed, and signalled, while the lock is held: it
// cannot be that of a stranger who got the number of a serve long dead.
func stopServe(ctx context.Context, f folder) (*os.File, error) {
	s, err := f.status()
	if err != nil {
		return nil, err
	}
	if s.running && s.pid == 0 {
		lock, err := waitForLock(ctx, f.lock(), orphanTimeout, func() {})
		if !errors.Is(err, errLocked) {
			return lock, err
		}
		return nil, fmt.Errorf("the process that holds %s has not said in %s which it is: try again", f.lock(), f.pid())
	}
	if s.running {
		err = syscall.Kill(s.pid, syscall.SIGTERM)
	}
	if err != nil && !errors.Is(err, syscall.ESRCH) {
		return nil, fmt.Errorf("stop process %d: %w", s.pid, err)
	}
	lock, err := waitForLock(ctx, f.lock(), downTimeout, func() {})
	if !s.running || !errors.Is(err, errLocked) {
		return lock, err
	}
	if err := syscall.Kill(s.pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return nil, fmt.Errorf("kill process %d: %w", s.pid, err)
	}
	return waitForLock(ctx, f.lock(), killTimeout, func() {})
}
