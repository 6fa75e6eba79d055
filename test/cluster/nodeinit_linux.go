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

// Files that a process of the node inherits.
const (
	// For process 1: the lock of the directory, which is held until the last process of the
	// node has ended, even if serve was killed.
	lockFile = 3

	// For process 1 and the process that runs the node: listeners on the loopback
	// address of the machine.
	apiServerFile = 4
	etcdFile      = 5
)

// nodeInit is process 1 of the node: the kernel kills all others when it ends. It sets up
// the node, starts the process that runs the node, and reaps orphans. It ends with ctx or
// when that process ends.
func nodeInit(ctx context.Context, dir, binaries string) error {
	f := clusterDirectory(dir)
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
		return fmt.Errorf("set the host name of the node: %w", err)
	}
	if err := makeNetwork(ctx); err != nil {
		return err
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close()
	runner, err := os.StartProcess(
		"/proc/self/exe",
		[]string{"cluster", "node-run", "--dir", dir, "--binaries", binaries},
		&os.ProcAttr{
			Files: []*os.File{
				null, os.Stdout, os.Stderr, null,
				os.NewFile(apiServerFile, "apiserver"),
				os.NewFile(etcdFile, "etcd"),
			},
		},
	)
	if err != nil {
		return fmt.Errorf("start the process that runs the node: %w", err)
	}

	// No graceful shutdown is necessary: each cluster starts empty.
	stop := context.AfterFunc(ctx, func() { _ = syscall.Kill(runner.Pid, syscall.SIGKILL) })
	status, err := buryUntil(runner.Pid)
	stop()
	if err != nil {
		return err
	}
	_ = syscall.Kill(-1, syscall.SIGKILL) // an error means that no process is left
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

// buryUntil reaps children and orphans until the process with this PID has ended.
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

// makeNetwork gives the node an address. Its device is a bridge without ports, since
// bridges are available wherever pods can have a network. The default route makes
// Service addresses routable until the rules of kube-proxy translate them.
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
	// For this network namespace only.
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0); err != nil {
		return fmt.Errorf("enable IP forwarding in the node: %w", err)
	}
	return nil
}
