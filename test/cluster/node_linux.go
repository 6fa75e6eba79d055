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

// nodeStopGrace is what process 1 of a node needs to kill the others and to
// remove their control groups.
const nodeStopGrace = cgroupRemoveTimeout + 5*time.Second

// nodeNamespaces is all that the node has for itself. Its control groups are in
// the machine's tree, below a group of their own.
const nodeNamespaces = syscall.CLONE_NEWIPC | syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS

// ensureNode sees to all that a node needs, and returns the folder of its
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

// serveNode runs a cluster with a node in dir until ctx ends, which is no error,
// or until the node does, which is one.
func serveNode(ctx context.Context, dir string, stdout, stderr io.Writer) error {
	f := folder(dir)
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
	// Process 1 has done it, unless it was killed.
	return errors.Join(err, removeCgroups(context.WithoutCancel(ctx), f.cgroup()))
}

// startNode starts process 1 of the node. It ends when lifeline is closed, which
// the kernel does if this process is killed.
func startNode(f folder, binaries string, lock *os.File) (node *process, lifeline *os.File, err error) {
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
	cmd := exec.Command("/proc/self/exe", "node-init", "--dir", string(f), "--binaries", binaries) //nolint:noctx // it is stopped by stop
	cmd.Stdin = read
	cmd.ExtraFiles = files
	// A group of its own keeps the terminal's ^C from it. The signal of a
	// parent's death would come too soon or not at all while process 1 of a
	// namespace has no handler; the lifeline has no such moment.
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

// listenerFile listens on a port of this machine's loopback.
func listenerFile() (*os.File, error) {
	listener, err := net.Listen("tcp", address(0)) //nolint:noctx // it does not wait
	if err != nil {
		return nil, err
	}
	defer listener.Close() // the file has a copy
	return listener.(*net.TCPListener).File()
}

// awaitNode returns the line that the node leaves when it is ready. How long
// that may take, the node decides.
func awaitNode(ctx context.Context, f folder, node *process) (string, error) {
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
