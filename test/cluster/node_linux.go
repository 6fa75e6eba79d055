// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"
)

// nodeStopGrace is the time in which process 1 of a node kills the others and removes
// their cgroups.
const nodeStopGrace = cgroupRemoveTimeout + 5*time.Second

// nodeNamespaces are the namespaces of the node. Its cgroups are in the hierarchy of the
// machine, below a cgroup of the node.
const nodeNamespaces = syscall.CLONE_NEWIPC | syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID |
	syscall.CLONE_NEWUTS

// ensureNode provides everything that a node needs, and returns the directory of its
// binaries.
func ensureNode(ctx context.Context, progress io.Writer) (string, error) {
	if os.Geteuid() != 0 {
		return "", errors.New("a node needs root: for its namespaces, mounts and control groups")
	}
	if err := ensureInstalled(ctx, nodeNeeds, progress); err != nil {
		return "", err
	}
	return ensureNodeBinaries(ctx, progress)
}

// serveNode runs a cluster with a node in dir until ctx ends. It is an error if the node
// ends by itself.
func serveNode(ctx context.Context, dir string, stdout, stderr io.Writer) error {
	f := clusterDirectory(dir)
	binaries, err := ensureNode(ctx, stderr)
	if err != nil {
		return err
	}
	lock, err := f.claim(ctx)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := makeCgroups(f.cgroup()); err != nil {
		return errors.Join(err, removeCgroups(context.WithoutCancel(ctx), f.cgroup()))
	}

	node, lifeline, err := startNode(f, binaries, lock)
	if err != nil {
		return errors.Join(err, removeCgroups(context.WithoutCancel(ctx), f.cgroup()))
	}
	defer lifeline.Close()
	line, err := awaitNode(ctx, f, node)
	if err == nil {
		_, err = io.WriteString(stdout, line)
	}
	if err == nil {
		select {
		case <-ctx.Done():
		case <-node.ended:
			err = node.failure()
		}
	}

	if removed := os.Remove(f.ready()); !errors.Is(removed, os.ErrNotExist) {
		err = errors.Join(err, removed)
	}
	err = errors.Join(err, node.stop(nodeStopGrace))
	// Process 1 has already done this, unless it was killed.
	return errors.Join(err, removeCgroups(context.WithoutCancel(ctx), f.cgroup()))
}

// startNode starts process 1 of the node. It ends when lifeline is closed. The kernel
// closes it if this process is killed.
func startNode(f clusterDirectory, binaries string, lock *os.File) (node *process, lifeline *os.File, err error) {
	read, lifeline, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	defer read.Close()
	files := []*os.File{lock}
	for range 2 { // apiServerFile, etcdFile
		file, err := listenerFile()
		if err != nil {
			lifeline.Close()
			return nil, nil, err
		}
		defer file.Close()
		files = append(files, file)
	}
	cmd := exec.Command( //nolint:noctx // stop stops it
		"/proc/self/exe", "node-init", "--dir", string(f), "--binaries", binaries)
	cmd.Stdin = read
	cmd.ExtraFiles = files
	// A separate process group protects it from ^C in the terminal. The parent-death
	// signal is not reliable while process 1 of a namespace has no handler; the
	// lifeline is.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Cloneflags: nodeNamespaces}
	node, err = startCommand("the node", cmd, f.nodeLog())
	if err != nil {
		lifeline.Close()
		return nil, nil, err
	}
	if err := writeFile(f.nodePID(), strconv.Itoa(cmd.Process.Pid)+"\n"); err != nil {
		lifeline.Close()
		return nil, nil, errors.Join(err, node.stop(nodeStopGrace))
	}
	return node, lifeline, nil
}

// listenerFile listens on a port on the loopback address.
func listenerFile() (*os.File, error) {
	listener, err := net.Listen("tcp", address(0)) //nolint:noctx // it does not block
	if err != nil {
		return nil, err
	}
	defer listener.Close() // the file has a copy
	return listener.(*net.TCPListener).File()
}

// awaitNode returns the line that the node writes when it is ready. The node has its own
// timeout.
func awaitNode(ctx context.Context, f clusterDirectory, node *process) (string, error) {
	tick := time.NewTicker(statusInterval)
	defer tick.Stop()
	for {
		line, err := os.ReadFile(f.ready())
		if err == nil || !errors.Is(err, os.ErrNotExist) {
			return string(line), err
		}
		select {
		case <-node.ended:
			return "", node.failure()
		case <-ctx.Done():
			return "", fmt.Errorf("stopped while the node was starting: %w", context.Cause(ctx))
		case <-tick.C:
		}
	}
}
