// SPDX-License-Identifier: Apache-2.0

package rig

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

const (
	// EnvtestVersion is the version of Kubernetes' envtest binaries: etcd, kube-apiserver and kubectl. They are published
	// for each minor release, but not for each patch release. Tests need exactly the version, the flags and the Go release
	// of test/cluster, so only the demo uses them.
	EnvtestVersion = "1.37.0"
	// envtestIndex lists them with their addresses and checksums.
	envtestIndex = "https://raw.githubusercontent.com/kubernetes-sigs/controller-tools/HEAD/envtest-releases.yaml"
	// envtestFolder is the module that pins setup-envtest, the program that fetches them.
	envtestFolder = "test/envtest"
	setupEnvtest  = "sigs.k8s.io/controller-runtime/tools/setup-envtest"
	// noEnvtest is the index of a caller who wants none.
	noEnvtest = "none"

	// indexTime bounds the wait for the index: a machine without this network must not wait.
	indexTime = 5 * time.Second
	// fetchTime bounds the download of some 100 MB.
	fetchTime = 10 * time.Minute
)

// envtest gets Kubernetes' envtest binaries.
type envtest struct {
	store string // directory
	index string // URL
	setup string // the program setup-envtest
}

// directory is where the binaries are, if they are there. Its name is the one that setup-envtest gives it.
func (e envtest) directory() string { return filepath.Join(e.store, platform()) }

// platform is the version with the platform: several machines may share a home directory.
func platform() string { return EnvtestVersion + "-" + runtime.GOOS + "-" + runtime.GOARCH }

// present says whether they were fetched before. They are there completely or not at all.
func (e envtest) present() bool {
	_, err := os.Stat(e.directory())
	return err == nil
}

// answers returns an error if the index does not answer at once.
func (e envtest) answers(ctx context.Context) error {
	if e.index == noEnvtest {
		return errors.New("not wanted")
	}
	ctx, cancel := context.WithTimeoutCause(ctx, indexTime, fmt.Errorf("no answer within %s", indexTime))
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, e.index, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	_ = response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("get %s: %s", e.index, response.Status)
	}
	return nil
}

// fetch downloads them. setup-envtest compares the archive with the checksum in the index.
func (e envtest) fetch(ctx context.Context) error {
	if err := os.MkdirAll(e.store, 0o755); err != nil {
		return err
	}
	partial, err := os.MkdirTemp(e.store, "partial-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(partial) }()
	ctx, cancel := context.WithTimeoutCause(ctx, fetchTime, fmt.Errorf("not done after %s", fetchTime))
	defer cancel()
	command := exec.CommandContext(ctx, e.setup, "use", EnvtestVersion, "--index", e.index, "--bin-dir", partial)
	if output, err := command.CombinedOutput(); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		lines := strings.Split(strings.TrimSpace(string(output)), "\n")
		return errors.New(lines[len(lines)-1]) // the error, after messages
	}
	fetched := filepath.Join(partial, "k8s", platform()) // of setup-envtest
	programs := EnvtestPrograms()
	if i := slices.IndexFunc(programs, func(program string) bool {
		_, err := os.Stat(filepath.Join(fetched, program))
		return err != nil
	}); i >= 0 {
		return fmt.Errorf("the archive has no %s", programs[i])
	}
	return os.Rename(fetched, e.directory())
}
