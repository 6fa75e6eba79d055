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
	// upTimeout is longer than the start timeouts of serve, with a node
	// (nodeStartTimeout) and without.
	upTimeout = etcdStartTimeout + apiServerStartTimeout + 2*time.Minute

	// orphanTimeout is the time in which process 1 of a node, which holds the lock,
	// ends after its serve was killed.
	orphanTimeout = 20 * time.Second

	// downTimeout is longer than a graceful shutdown of serve.
	downTimeout = apiServerStopGrace + etcdStopGrace + 2*killTimeout + 10*time.Second

	// statusInterval is the interval for polling the directory.
	statusInterval = 50 * time.Millisecond
)

// up starts serve in the background and waits until it is ready.
func up(ctx context.Context, o options, stdout, stderr io.Writer) error {
	f := clusterDirectory(o.dir)
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

	// Build here, where the user sees the progress.
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
func printUse(f clusterDirectory, s status, state string, stdout, stderr io.Writer) error {
	fmt.Fprintf(stderr, "The cluster %s: process %d, files and logs in %s\n", state, s.pid, f)
	fmt.Fprintf(stderr, "To stop it, run the command down. To use it:\n")
	_, err := fmt.Fprintf(stdout, "export KUBECONFIG=%s\nexport KUBECTL=%s\n", shellQuote(f.kubeconfig()),
		shellQuote(s.kubectl))
	return err
}

// shellQuote quotes a word for a shell, if necessary.
func shellQuote(word string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+./:@%"
	if word != "" && strings.Trim(word, plain) == "" {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// serveDetached starts serve in a process that is detached from this terminal.
func serveDetached(f clusterDirectory, node bool) (*process, error) {
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

// awaitReady waits for the given serve, or for another one in the directory if it is nil.
func awaitReady(ctx context.Context, f clusterDirectory, serve *process) (status, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, upTimeout,
		fmt.Errorf("the cluster in %s is not ready after %s", f, upTimeout))
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
			return status{}, fmt.Errorf("the cluster in %s ended while it was starting; see the logs there", f)
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

// down stops the cluster in dir and removes dir.
func down(ctx context.Context, o options, stderr io.Writer) error {
	f := clusterDirectory(o.dir)
	marked, err := f.marked()
	if err != nil {
		return err
	}
	if !marked {
		fmt.Fprintf(stderr, "No cluster is running in %s\n", f)
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
	// Release the lock after the removal, so that no other serve starts in the directory
	// before it is removed.
	defer lock.Close()
	// Normally the node does this itself, unless all its processes were killed.
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

// stopServe ends the process that holds the lock of the directory and returns the lock.
// It signals the PID in the directory only while the lock is held, since the PID of an
// old serve may belong to another process.
func stopServe(ctx context.Context, f clusterDirectory) (*os.File, error) {
	s, err := f.status()
	if err != nil {
		return nil, err
	}
	if s.running && s.pid == 0 {
		lock, err := waitForLock(ctx, f.lock(), orphanTimeout, func() {})
		if !errors.Is(err, errLocked) {
			return lock, err
		}
		return nil, fmt.Errorf("the process that holds %s has not written its PID to %s yet: try again", f.lock(), f.pid())
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
