// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// nodeMount is a directory of the node whose path the programs cannot configure, or that
// pods refer to by its path. The path on the machine is not changed and does not need to
// exist.
type nodeMount struct {
	path   string
	source func(clusterDirectory) string
}

var nodeMounts = []nodeMount{
	{path: "/etc/kubernetes", source: clusterDirectory.etcKubernetes},
	{path: "/run/containerd", source: clusterDirectory.containerdRun},
	{path: "/var/lib/cni", source: clusterDirectory.networkState},
	{path: "/var/lib/kubelet", source: clusterDirectory.kubeletRoot},
	{path: "/var/log/containers", source: clusterDirectory.containerLogs},
	{path: "/var/log/pods", source: clusterDirectory.podLogs},
}

// settings are kernel settings that the kubelet changes if necessary. They apply to the
// machine, so the node gets its own files there.
var settings = map[string]string{
	"/proc/sys/kernel/keys/root_maxbytes": "25000000",
	"/proc/sys/kernel/keys/root_maxkeys":  "1000000",
	"/proc/sys/kernel/panic":              "10",
	"/proc/sys/kernel/panic_on_oops":      "1",
	"/proc/sys/vm/overcommit_memory":      "1",
	"/proc/sys/vm/panic_on_oom":           "0",
}

// mountNode sets up the file system of the node in the mount namespace of this process,
// based on that of the machine.
func mountNode(f clusterDirectory) error {
	// First of all: no mount must propagate to the machine.
	if err := mount("", "/", "", syscall.MS_PRIVATE|syscall.MS_REC, ""); err != nil {
		return err
	}
	// The processes of this PID namespace, mainly for /proc/self.
	if err := mount("proc", "/proc", "proc", syscall.MS_NOSUID|syscall.MS_NODEV|syscall.MS_NOEXEC, ""); err != nil {
		return err
	}
	// A later mount may hide the directory; this path keeps it accessible.
	dir, err := os.Open(string(f))
	if err != nil {
		return err
	}
	defer dir.Close()
	held := clusterDirectory(fmt.Sprintf("/proc/self/fd/%d", dir.Fd()))

	if err := mount("tmpfs", "/run", "tmpfs", syscall.MS_NOSUID|syscall.MS_NODEV, "mode=755"); err != nil {
		return err
	}
	for _, m := range nodeMounts {
		if err := makeMountPoint(m.path); err != nil {
			return err
		}
		source := m.source(held)
		if err := os.MkdirAll(source, 0o755); err != nil {
			return err
		}
		if err := mount(source, m.path, "", syscall.MS_BIND, ""); err != nil {
			return err
		}
	}
	if err := mount(string(held), string(f), "", syscall.MS_BIND, ""); err != nil {
		return err
	}
	if err := mountSettings(); err != nil {
		return err
	}
	// Containers can request propagation of later mounts.
	return mount("", "/", "", syscall.MS_SHARED|syscall.MS_REC, "")
}

// makeMountPoint creates the directory, for the node only.
func makeMountPoint(path string) error {
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	parent := filepath.Dir(path)
	if parent == "/run" {
		return os.Mkdir(path, 0o755)
	}
	// An overlay on the parent keeps the directory off the machine. It already exists if the
	// node has created another directory there.
	layer := filepath.Join("/run/layers", strings.ReplaceAll(parent, "/", "-"))
	if _, err := os.Stat(layer); errors.Is(err, os.ErrNotExist) {
		upper, work := filepath.Join(layer, "upper"), filepath.Join(layer, "work")
		for _, made := range []string{upper, work} {
			if err := os.MkdirAll(made, 0o755); err != nil {
				return err
			}
		}
		options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", parent, upper, work)
		if err := mount("overlay", parent, "overlay", 0, options); err != nil {
			return err
		}
	}
	return os.Mkdir(path, 0o755)
}

func mountSettings() error {
	for path, value := range settings {
		own := filepath.Join("/run/settings", strings.ReplaceAll(path, "/", "-"))
		if err := os.MkdirAll(filepath.Dir(own), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(own, []byte(value+"\n"), 0o644); err != nil {
			return err
		}
		if err := mount(own, path, "", syscall.MS_BIND, ""); err != nil {
			return err
		}
	}
	return nil
}

func mount(source, target, kind string, flags uintptr, options string) error {
	if err := syscall.Mount(source, target, kind, flags, options); err != nil {
		return fmt.Errorf("mount %s on %s: %w", strings.TrimSpace(kind+" "+source), target, err)
	}
	return nil
}
