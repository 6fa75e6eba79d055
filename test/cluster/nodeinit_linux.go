// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

// Files that a process of the node gets from the one that started it.
const (
	// To process 1: the folder's lock, so that the folder is taken until the
	// last process of the node is gone, even if serve was killed.
	lockFile = 3

	// To process 1 and on to the one that runs the node: listeners of the
	// machine's loopback.
	apiServerFile = 4
	etcdFile      = 5
)

// nodeInit is process 1 of the node: the kernel kills all others when it ends.
// It makes the node's world, starts the process that runs the node, and buries
// the orphans. It ends with ctx, or when that process does.
func nodeInit(ctx context.Context, dir, binaries string) error {
	f := folder(dir)
	for _, fd := range []int{lockFile, apiServerFile, etcdFile} {
		syscall.CloseOnExec(fd)
	}
	if err := addAdministratorsPath(); err != nil {
		return err
	}
	if err := mountNode(f); err != nil {
		return err
	}
	if err := syscall.Sethostname([]byte(nodeName)); err != nil {
		return fmt.Errorf("name the node: %w", err)
	}
	if err := makeNetwork(ctx); err != nil {
		return err
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close()
	runner, err := os.StartProcess("/proc/self/exe", []string{"cluster", "node-run", "--dir", dir, "--binaries", binaries}, &os.ProcAttr{
		Files: []*os.File{null, os.Stdout, os.Stderr, null, os.NewFile(apiServerFile, "apiserver"), os.NewFile(etcdFile, "etcd")},
	})
	if err != nil {
		return fmt.Errorf("start the process that runs the node: %w", err)
	}

	// An orderly end of what runs here is not needed: each cluster starts empty.
	stop := context.AfterFunc(ctx, func() { _ = syscall.Kill(runner.Pid, syscall.SIGKILL) })
	status, err := buryUntil(runner.Pid)
	stop()
	if err != nil {
		return err
	}
	_ = syscall.Kill(-1, syscall.SIGKILL) // an error: nobody is left
	if _, err := buryUntil(0); !errors.Is(err, syscall.ECHILD) {
		return err
	}
	if err := removeCgroups(context.WithoutCancel(ctx), f.cgroup()); err != nil {
		return err
	}
	if ctx.Err() == nil {
		return fmt.Errorf("the process that runs the node ended with status %d", status.ExitStatus())
	}
	return nil
}

// buryUntil waits for children, and for orphans of theirs, up to the one with
// this number.
func buryUntil(pid int) (syscall.WaitStatus, error) {
	for {
		var status syscall.WaitStatus
		dead, err := syscall.Wait4(-1, &status, 0, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			return 0, os.NewSyscallError("wait4", err)
		}
		if dead == pid {
			return status, nil
		}
	}
}

// makeNetwork gives the node an address. Its device is a bridge, which is there
// wherever pods can have a network; nothing is ever connected to it. The default
// route makes addresses of Services acceptable long enough for kube-proxy's
// rules to translate them.
func makeNetwork(ctx context.Context) error {
	for _, arguments := range [][]string{
		{"link", "set", "lo", "up"},
		{"link", "add", nodeDevice, "type", "bridge"},
		{"address", "add", nodeNetwork, "dev", nodeDevice},
		{"link", "set", nodeDevice, "up"},
		{"route", "add", "default", "dev", nodeDevice},
	} {
		if out, err := exec.CommandContext(ctx, "ip", arguments...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %q: %w: %s", arguments, err, out)
		}
	}
	// Of this network namespace alone.
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0); err != nil {
		return fmt.Errorf("let the node forward: %w", err)
	}
	return nil
}
