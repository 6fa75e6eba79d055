// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/test/bench/results"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/rig"
)

// What is measured, and the contenders: how the demo gets an API server.
const (
	coldDemo         = "cold make demo"
	builtAPIServer   = "API server built"
	fetchedAPIServer = "API server fetched"
	wallTime         = "wall time"
)

// measureDemo runs the cold demo twice: once as on a machine that cannot fetch an API server, and once with an index of
// envtest binaries on loopback, which has those of the test cluster. An earlier commit may ignore the index.
func measureDemo(ctx context.Context, t tree, dir string) (results.Document, error) {
	d := results.New("demo")
	built, err := runDemo(ctx, t, dir, builtAPIServer, "none")
	if err != nil {
		return d, err
	}
	index, err := serveIndex(ctx)
	if err != nil {
		return d, err
	}
	defer index.Close()
	fetched, err := runDemo(ctx, t, dir, fetchedAPIServer, index.URL+"/index.yaml")
	d.Rows = append(built, fetched...)
	return d, err
}

// serveIndex serves an index with the programs of the test cluster of this tree.
func serveIndex(ctx context.Context) (*httptest.Server, error) {
	command := exec.CommandContext(ctx, "go", "run", ".", "build")
	command.Dir, command.Stderr = filepath.Join("test", "cluster"), os.Stderr
	if err := command.Run(); err != nil {
		return nil, fmt.Errorf("build the programs to serve as envtest binaries: %w", err)
	}
	command = exec.CommandContext(ctx, "go", "run", ".", "paths")
	command.Dir = filepath.Join("test", "cluster")
	paths, err := command.Output()
	if err != nil {
		return nil, fmt.Errorf("find the programs to serve as envtest binaries: %w", err)
	}
	first, _, _ := strings.Cut(string(paths), "\n")
	_, etcd, _ := strings.Cut(first, "=")
	archive, err := rig.EnvtestArchive(filepath.Dir(etcd), rig.EnvtestPrograms()...)
	if err != nil {
		return nil, fmt.Errorf("pack the envtest binaries: %w", err)
	}
	return httptest.NewServer(rig.EnvtestIndex(rig.EnvtestVersion, archive, "")), nil
}

// runDemo runs make demo in a clone of a tree, with empty caches for modules, builds and the binaries of the test
// cluster, so that everything is downloaded and compiled. The time includes the downloads. Only what is committed is
// measured.
func runDemo(ctx context.Context, t tree, dir, contender, index string) ([]results.Row, error) {
	home, err := os.MkdirTemp(dir, "demo")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(home) }()
	clone := filepath.Join(home, "clone")
	// What bin/ and .tools/ of a working directory have would save builds.
	if out, err := exec.CommandContext(ctx, "git", "clone", "--quiet", t.dir, clone).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("clone %s: %w\n%s", t.dir, err, out)
	}
	log, err := os.Create(filepath.Join(home, "log"))
	if err != nil {
		return nil, err
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
		"KUBEBUILDER_ASSETS=", "ENVTEST_INDEX="+index,
	)
	began := time.Now()
	if err := command.Run(); err != nil {
		said, _ := os.ReadFile(log.Name())
		return nil, fmt.Errorf("make demo: %w\n%s", err, said[max(0, len(said)-maxDemoLog):])
	}
	took := time.Since(began)
	state := command.ProcessState
	return []results.Row{
		results.Measured(coldDemo, contender, wallTime, "s", took.Seconds()),
		results.Measured(coldDemo, contender, "CPU time", "s", (state.UserTime() + state.SystemTime()).Seconds()),
	}, nil
}

// maxDemoLog bounds what an error quotes of a failed demo's log, in bytes.
const maxDemoLog = 4096
