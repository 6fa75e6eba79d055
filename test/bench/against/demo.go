// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/test/bench/results"
)

const (
	coldDemo    = "cold demo"
	demoCommand = "make demo"
)

// measureDemo runs make demo in a clone of a tree, with empty caches for modules, builds and the binaries of the test
// cluster, so that everything is downloaded and compiled. The time includes the downloads. Only what is committed is
// measured.
func measureDemo(ctx context.Context, t tree, dir string) (results.Document, error) {
	home, err := os.MkdirTemp(dir, "demo")
	if err != nil {
		return results.Document{}, err
	}
	defer func() { _ = os.RemoveAll(home) }()
	clone := filepath.Join(home, "clone")
	// What bin/ and .tools/ of a working directory have would save builds.
	if out, err := exec.CommandContext(ctx, "git", "clone", "--quiet", t.dir, clone).CombinedOutput(); err != nil {
		return results.Document{}, fmt.Errorf("clone %s: %w\n%s", t.dir, err, out)
	}
	log, err := os.Create(filepath.Join(home, "log"))
	if err != nil {
		return results.Document{}, err
	}
	defer func() { _ = log.Close() }()
	command := exec.CommandContext(ctx, "make", "demo")
	command.Dir, command.Stdout, command.Stderr = clone, log, log
	command.Cancel = func() error { return command.Process.Signal(os.Interrupt) }
	// The variables of an outer make would replace those of the tree's Makefile, such as its Go release.
	command.Env = append(slices.DeleteFunc(os.Environ(), func(variable string) bool {
		name, _, _ := strings.Cut(variable, "=")
		return slices.Contains(
			[]string{"MAKEFLAGS", "MAKEOVERRIDES", "MFLAGS", "MAKELEVEL", "GO_RELEASE", "GOTOOLCHAIN"}, name)
	}),
		"GOCACHE="+filepath.Join(home, "build"), "XDG_CACHE_HOME="+filepath.Join(home, "cache"),
		"GOMODCACHE="+filepath.Join(home, "modules"), "GOFLAGS=-modcacherw", // so that it can be removed
		"KUBEBUILDER_ASSETS=",
	)
	began := time.Now()
	if err := command.Run(); err != nil {
		said, _ := os.ReadFile(log.Name())
		return results.Document{}, fmt.Errorf("make demo: %w\n%s", err, said[max(0, len(said)-maxDemoLog):])
	}
	took := time.Since(began)
	d := results.New("demo")
	state := command.ProcessState
	d.Rows = []results.Row{
		results.Measured(coldDemo, demoCommand, "wall time", "s", took.Seconds()),
		results.Measured(coldDemo, demoCommand, "CPU time", "s", (state.UserTime() + state.SystemTime()).Seconds()),
	}
	return d, nil
}

// maxDemoLog bounds what an error quotes of a failed demo's log, in bytes.
const maxDemoLog = 4096
