// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	// cgroupRemoveTimeout is the time in which the kernel notices that the processes of
	// a cgroup have ended.
	cgroupRemoveTimeout  = 10 * time.Second
	cgroupRemoveInterval = 20 * time.Millisecond
)

// neededControllers are the controllers that the kubelet requires with cgroup v2.
var neededControllers = []string{"cpu", "cpuset", "hugetlb", "memory", "pids"}

func readHierarchies() (hierarchies, error) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	return parseHierarchies(string(data)), err
}

// makeCgroups creates the root cgroup of the kubelet, which must exist.
func makeCgroups(name string) error {
	h, err := readHierarchies()
	if err != nil {
		return err
	}
	trees := h.v1
	if len(trees) == 0 && h.unified != "" {
		if err := enableControllers(h.unified); err != nil {
			return err
		}
		trees = []string{h.unified}
	}
	if len(trees) == 0 {
		return fmt.Errorf("no cgroups are mounted below %s, but a kubelet needs them", cgroupRoot)
	}
	for _, tree := range trees {
		if err := os.Mkdir(filepath.Join(tree, name), 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return fmt.Errorf("create the cgroup of the node: %w", err)
		}
	}
	return nil
}

// enableControllers enables the controllers for top-level cgroups. Most machines have
// enabled most of them already.
func enableControllers(unified string) error {
	available, err := os.ReadFile(filepath.Join(unified, "cgroup.controllers"))
	if err != nil {
		return err
	}
	control := filepath.Join(unified, "cgroup.subtree_control")
	enabled, err := os.ReadFile(control)
	if err != nil {
		return err
	}
	for name := range strings.FieldsSeq(string(available)) {
		if !slices.Contains(neededControllers, name) || slices.Contains(strings.Fields(string(enabled)), name) {
			continue
		}
		if err := os.WriteFile(control, []byte("+"+name), 0); err != nil {
			return fmt.Errorf("enable the cgroup controller %s for the node: %w", name, err)
		}
	}
	return nil
}

// removeCgroups removes the cgroup and its children. Their processes must have ended.
func removeCgroups(ctx context.Context, name string) error {
	h, err := readHierarchies()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, cgroupRemoveTimeout)
	defer cancel()
	tick := time.NewTicker(cgroupRemoveInterval)
	defer tick.Stop()
	for _, tree := range h.all() {
		for {
			err := removeCgroupTree(filepath.Join(tree, name))
			if err == nil {
				break
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("remove the cgroup of the node: %w", err)
			case <-tick.C:
			}
		}
	}
	return nil
}

// removeCgroupTree removes the leaves first: a cgroup with children or processes is
// busy. The kernel removes its files.
func removeCgroupTree(top string) error {
	var groups []string
	err := filepath.WalkDir(top, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err == nil && entry.IsDir() {
			groups = append(groups, path)
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, group := range slices.Backward(groups) {
		if err := syscall.Rmdir(group); err != nil && !errors.Is(err, syscall.ENOENT) {
			return &os.PathError{Op: "rmdir", Path: group, Err: err}
		}
	}
	return nil
}
