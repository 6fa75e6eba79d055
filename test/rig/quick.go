// SPDX-License-Identifier: Apache-2.0

package rig

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const (
	// assetsVariable names a directory with etcd, kube-apiserver and kubectl, as for envtest of controller-runtime.
	assetsVariable = "KUBEBUILDER_ASSETS"
	// indexVariable gives another index of envtest binaries, or none.
	indexVariable = "ENVTEST_INDEX"
)

// buildQuick builds the programs with the go command and the settings of the caller, and gets those of the control
// plane from the first of: KUBEBUILDER_ASSETS, the tests, Kubernetes' envtest binaries, a build with the same settings.
// With the workspace of the caller (test/demo/go.work), the modules share what they compile.
func (r *Rig) buildQuick(ctx context.Context) error {
	cache, err := os.UserCacheDir()
	if err != nil {
		return err
	}
	e := envtest{
		store: filepath.Join(cache, "kubelet-https-guard", "envtest"),
		index: os.Getenv(indexVariable),
		setup: r.binary("setup-envtest"),
	}
	if e.index == "" {
		e.index = envtestIndex
	}
	if err := r.buildTarget(ctx, target{"cluster", clusterFolder, r.binary("cluster"), []string{"."}}); err != nil {
		return err
	}
	given := os.Getenv(assetsVariable) != "" || r.clusterCommand(ctx, "paths").Run() == nil

	fetched := make(chan error, 1)
	switch {
	case given:
	case e.present():
		fetched <- nil
	default:
		if err = e.answers(ctx); err == nil {
			err = r.buildTarget(ctx, target{"setup-envtest", envtestFolder, e.setup, []string{setupEnvtest}})
		}
		if err != nil {
			fetched <- err
			go r.downloadModules(ctx)
			break
		}
		go func() { fetched <- e.fetch(ctx) }() // while the guard is built
	}
	if err := r.buildTarget(ctx, target{
		"webhook, nodeagent and render", ".", r.binary(""), []string{"./webhook", "./nodeagent", "./" + renderFolder},
	}); err != nil || given {
		return err
	}
	if err := <-fetched; err != nil {
		_, _ = fmt.Fprintf(r.options.Progress, "no envtest binaries of Kubernetes, so the API server is built: %v\n", err)
		r.assets, err = r.buildAssets(ctx)
		return err
	}
	_, _ = fmt.Fprintf(r.options.Progress, "using the envtest binaries of Kubernetes %s\n", EnvtestVersion)
	r.assets = e.directory()
	return nil
}

// downloadModules downloads the modules of buildAssets, while the guard is built. If it fails, buildAssets says why.
func (r *Rig) downloadModules(ctx context.Context) {
	command := exec.CommandContext(ctx, "go", "list", "-deps", "k8s.io/kubernetes/cmd/kube-apiserver")
	command.Dir = filepath.Join(r.options.Repository, clusterFolder)
	_ = command.Run()
}

// buildAssets builds the programs of the control plane, and returns their directory.
func (r *Rig) buildAssets(ctx context.Context) (string, error) {
	command := r.clusterCommand(ctx, "build", "--quick")
	var directory bytes.Buffer
	command.Stdout, command.Stderr = &directory, r.options.Progress
	if err := command.Run(); err != nil {
		return "", fmt.Errorf("build the control plane: %w", err)
	}
	return strings.TrimSpace(directory.String()), nil
}

// clusterCommand is a command of test/cluster.
func (r *Rig) clusterCommand(ctx context.Context, arguments ...string) *exec.Cmd {
	command := exec.CommandContext(ctx, r.binary("cluster"), arguments...)
	command.Dir = filepath.Join(r.options.Repository, clusterFolder)
	return command
}
