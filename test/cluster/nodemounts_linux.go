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

// nodeMount is a folder of the node's that the programs have no setting for, or
// that pods know by its name. On the machine the path is not touched, and it
// need not be there.
type nodeMount struct {
	path   string
	source func(folder) string
}

var nodeMounts = []nodeMount{
	{path: "/etc/kubernetes", source: folder.etcKubernetes},
	{path: "/run/containerd", source: folder.containerdRun},
	{path: "/var/lib/cni", source: folder.networkState},
	{path: "/var/lib/kubelet", source: folder.kubeletRoot},
	{path: "/var/log/containers", source: folder.containerLogs},
	{path: "/var/log/pods", source: folder.podLogs},
}

// settings of the kernel that the kubelet changes unless they are so already.
// They are the machine's, so that the node sees files of its own there.
var settings = map[string]string{
	"/proc/sys/kernel/keys/root_maxbytes": "25000000",
	"/proc/sys/kernel/keys/root_maxkeys":  "1000000",
	"/proc/sys/kernel/panic":              "10",
	"/proc/sys/kernel/panic_on_oops":      "1",
	"/proc/sys/vm/overcommit_memory":      "1",
	"/proc/sys/vm/panic_on_oom":           "0",
}

// mountNode makes the file system of the node, in the mount namespace of this
// process, out of that of the machine.
func mountNode(f folder) error {
	// Before all else: nothing of this may spread to the machine.
	if err := mount("", "/", "", syscall.MS_PRIVATE|syscall.MS_REC, ""); err != nil {
		return err
	}
	// The processes of this namespace, for /proc/self in the first place.
	if err := mount("proc", "/proc", "proc", syscall.MS_NOSUID|syscall.MS_NODEV|syscall.MS_NOEXEC, ""); err != nil {
		return err
	}
	// What is mounted below may cover the folder; by this name it stays within
	// reach.
	dir, err := os.Open(string(f))
	if err != nil {
		return err
	}
	defer dir.Close()
	held := folder(fmt.Sprintf("/proc/self/fd/%d", dir.Fd()))

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
	// Containers may ask to see mounts that are made later.
	return mount("", "/", "", syscall.MS_SHARED|syscall.MS_REC, "")
}

// makeMountPoint makes the folder, for the node only.
func makeMountPoint(path string) error {
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	parent := filepath.Dir(path)
	if parent == "/run" {
		return os.Mkdir(path, 0o755)
	}
	// With a layer over its parent nothing that is made there reaches the
	// machine. It is there already if the node made another folder beside it.
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
