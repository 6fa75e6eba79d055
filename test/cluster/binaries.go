// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// assetsVariable names a directory with existing binaries, as for envtest of
// controller-runtime.
const assetsVariable = "KUBEBUILDER_ASSETS"

const modulePath = "github.com/kubelet-https-guard/kubelet-https-guard/test/cluster"

// binaries are absolute paths.
type binaries struct {
	etcd, apiServer, kubectl string
}

// nodeBinaries are the binaries of a node and its control plane.
type nodeBinaries struct {
	binaries

	controllerManager, scheduler, kubelet, proxy, runc, pause string
}

func nodeBinariesIn(directory string) nodeBinaries {
	return nodeBinaries{
		binaries:          binariesIn(directory),
		controllerManager: filepath.Join(directory, "kube-controller-manager"),
		scheduler:         filepath.Join(directory, "kube-scheduler"),
		kubelet:           filepath.Join(directory, "kubelet"),
		proxy:             filepath.Join(directory, "kube-proxy"),
		runc:              filepath.Join(directory, "runc"),
		pause:             filepath.Join(directory, "pause"),
	}
}

func binariesIn(directory string) binaries {
	return binaries{
		etcd:      filepath.Join(directory, "etcd"),
		apiServer: filepath.Join(directory, "kube-apiserver"),
		kubectl:   filepath.Join(directory, "kubectl"),
	}
}

// missingIn returns the names of commands without a binary in the directory.
func missingIn(directory string, commands []command) []string {
	var names []string
	for _, c := range commands {
		info, err := os.Stat(filepath.Join(directory, c.name))
		if err != nil || !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
			names = append(names, c.name)
		}
	}
	return names
}

// ensureBinaries returns the binaries and builds those that are missing. It writes to
// progress only if it builds something.
func ensureBinaries(ctx context.Context, progress io.Writer) (binaries, error) {
	place, err := findPlace(ctx)
	if err != nil {
		return binaries{}, err
	}
	missing := missingIn(place.directory, commands)
	if len(missing) > 0 && place.given {
		return binaries{}, place.lacks(missing)
	}
	if len(missing) > 0 {
		err = buildMissing(ctx, place, commands, progress)
	}
	return binariesIn(place.directory), err
}

// ensureQuickBinaries builds the missing binaries with the go command, the settings and the workspace of the caller,
// who has compiled many of their packages already. It returns their directory. They differ from those of
// ensureBinaries: in Go release, flags and versions of dependencies.
func ensureQuickBinaries(ctx context.Context, progress io.Writer) (string, error) {
	module, err := moduleDirectory()
	if err != nil {
		return "", err
	}
	cache, err := cacheDirectory()
	if err != nil {
		return "", err
	}
	p := place{module: module, quick: true}
	settings, err := p.goOutput(ctx, "env", "GOVERSION", "GOOS", "GOARCH", "GOFLAGS")
	if err != nil {
		return "", err
	}
	modules, err := p.goOutput(ctx, "list", "-m", "-f", "{{.GoMod}}")
	if err != nil {
		return "", err
	}
	parts := []string{settings}
	for file := range strings.SplitSeq(modules, "\n") {
		data, err := os.ReadFile(file)
		if err != nil {
			return "", err
		}
		parts = append(parts, string(data))
	}
	p.directory = filepath.Join(cache, "quick-"+cacheKey(parts...))
	if len(missingIn(p.directory, commands)) == 0 {
		return p.directory, nil
	}
	return p.directory, buildMissing(ctx, p, commands, progress)
}

// ensureNodeBinaries is ensureBinaries for a node. All programs have the versions in
// go.mod; assetsVariable is ignored. It returns the directory.
func ensureNodeBinaries(ctx context.Context, progress io.Writer) (string, error) {
	place, err := findCache(ctx)
	if err != nil {
		return "", err
	}
	missing := missingIn(place.directory, nodeCommands)
	if len(missing) == 0 {
		return place.directory, nil
	}
	if slices.Contains(missing, "runc") {
		if err := ensureInstalled(ctx, runcBuildNeeds, progress); err != nil {
			return "", err
		}
	}
	return place.directory, buildMissing(ctx, place, nodeCommands, progress)
}

func printPaths(ctx context.Context, out io.Writer) error {
	place, err := findPlace(ctx)
	if err != nil {
		return err
	}
	if missing := missingIn(place.directory, commands); len(missing) > 0 {
		return place.lacks(missing)
	}
	found := binariesIn(place.directory)
	_, err = fmt.Fprintf(out, "ETCD=%s\nKUBE_APISERVER=%s\nKUBECTL=%s\n", found.etcd, found.apiServer, found.kubectl)
	return err
}

// place is the directory for the binaries.
type place struct {
	directory string
	given     bool   // by assetsVariable; nothing is built
	module    string // directory of this module, empty if given
	quick     bool   // built with the caller's go command, settings and workspace
}

func (p place) lacks(names []string) error {
	if p.given {
		return fmt.Errorf("%s=%s does not contain %s", assetsVariable, p.directory, strings.Join(names, ", "))
	}
	return fmt.Errorf("%s does not contain %s: run the command build", p.directory, strings.Join(names, ", "))
}

func findPlace(ctx context.Context) (place, error) {
	if assets := os.Getenv(assetsVariable); assets != "" {
		directory, err := filepath.Abs(assets)
		return place{directory: directory, given: true}, err
	}
	return findCache(ctx)
}

// findCache returns the cache directory of this program.
func findCache(ctx context.Context) (place, error) {
	module, err := moduleDirectory()
	if err != nil {
		return place{}, err
	}
	cache, err := cacheDirectory()
	if err != nil {
		return place{}, err
	}
	key, err := moduleKey(ctx, module)
	if err != nil {
		return place{}, err
	}
	return place{
		directory: filepath.Join(cache, key),
		module:    module,
	}, nil
}

// cacheDirectory contains the directories of all binaries.
func cacheDirectory() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the cache directory for binaries: %w", err)
	}
	return filepath.Join(cache, "kubelet-https-guard", "cluster"), nil
}

// moduleDirectory finds this module from the working directory, which can be in the module
// (`go run -C test/cluster .`) or in the root of the repository.
func moduleDirectory() (string, error) {
	working, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for directory := working; ; directory = filepath.Dir(directory) {
		for _, candidate := range []string{directory, filepath.Join(directory, "test", "cluster")} {
			data, err := os.ReadFile(filepath.Join(candidate, "go.mod"))
			if errors.Is(err, os.ErrNotExist) {
				continue
			}
			if err != nil {
				return "", err
			}
			if strings.HasPrefix(string(data), "module "+modulePath+"\n") {
				return candidate, nil
			}
		}
		if directory == filepath.Dir(directory) {
			return "", fmt.Errorf("module %s not found in %s or its parent directories", modulePath, working)
		}
	}
}

// keyFiles decide, of all files of the module, what the binaries are.
var keyFiles = []string{"go.mod", "go.sum", "pause/main.go", "runc/go.mod", "runc/go.sum"}

// moduleKey is a hash of everything that determines the binaries, so that clones share
// a cache and each version has its own.
func moduleKey(ctx context.Context, module string) (string, error) {
	var parts []string
	for _, name := range keyFiles {
		data, err := os.ReadFile(filepath.Join(module, filepath.FromSlash(name)))
		if err != nil {
			return "", err
		}
		parts = append(parts, string(data))
	}
	// A toolchain is not downloaded for its own version.
	_, version := findGo(ctx)
	if version != goDownload {
		var err error
		if version, err = (place{module: module}).goOutput(ctx, "env", "GOVERSION"); err != nil {
			return "", err
		}
	}
	parts = append(parts, strings.Join([]string{version, runtime.GOOS, runtime.GOARCH}, "\n"))
	for _, c := range nodeCommands {
		// The version is in go.mod. Running the go command would add 0.1 s to every
		// start.
		parts = append(parts, buildArguments([]command{c}, "", "")...)
	}
	return cacheKey(parts...), nil
}

// cacheKey hashes the parts with their lengths: ("ab", "c") and ("a", "bc") differ.
func cacheKey(parts ...string) string {
	h := sha256.New()
	for _, part := range parts {
		fmt.Fprintf(h, "%d:%s", len(part), part)
	}
	return hex.EncodeToString(h.Sum(nil))[:16]
}

// The Go release of the programs of the cluster: the one with which Kubernetes 1.37 is
// released (build/dependencies.yaml of Kubernetes). With a later one, its API server could
// use keys that those of users cannot, and would say so in goVersion.
const (
	goRelease = "go1.26"
	// goDownload is downloaded if no installed Go is of that release.
	goDownload = "go1.26.8"
)

// findGo returns the go command of that release, and its GOTOOLCHAIN: an installed one, or
// any with which to download it. The first in PATH can be another, because the caller may
// run with GOTOOLCHAIN set.
func findGo(ctx context.Context) (program, toolchain string) {
	for _, directory := range filepath.SplitList(os.Getenv("PATH")) {
		program := filepath.Join(directory, "go")
		version := exec.CommandContext(ctx, program, "env", "GOVERSION")
		version.Env = goEnvironment("local")
		out, err := version.Output()
		if err == nil && strings.HasPrefix(string(out), goRelease+".") {
			return program, "local"
		}
	}
	return "go", goDownload
}

// goEnvironment is the environment of a go command. The go command sets GOROOT for the
// programs that it runs. GOWORK=off ignores a go.work file of the user, which could change
// the versions.
func goEnvironment(toolchain string) []string {
	return append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOROOT=", "GOTOOLCHAIN="+toolchain)
}

// buildMemory bounds the heap of a compiler that collects no garbage before: with GOGC=off a build takes about a fifth
// less CPU time. Neither changes what is built.
const buildMemory = "1GiB"

// goCommand prepares the go command in a subdirectory of the module.
func (p place) goCommand(ctx context.Context, subdirectory string, arguments ...string) *exec.Cmd {
	program, environment := "go", append(os.Environ(), "CGO_ENABLED=0")
	if !p.quick {
		var toolchain string
		program, toolchain = findGo(ctx)
		environment = goEnvironment(toolchain)
	}
	cmd := exec.CommandContext(ctx, program, arguments...)
	cmd.Dir, cmd.Env = filepath.Join(p.module, subdirectory), append(environment, "GOGC=off", "GOMEMLIMIT="+buildMemory)
	// Interrupted, the go command removes its temporary directory before it ends.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = goStopTimeout
	return cmd
}

// batchCommand prepares the go command for a batch.
func (p place) batchCommand(ctx context.Context, batch []command, arguments ...string) *exec.Cmd {
	cmd := p.goCommand(ctx, batch[0].module, arguments...)
	if batch[0].cgo {
		cmd.Env = append(cmd.Env, "CGO_ENABLED=1")
	}
	return cmd
}

func (p place) goOutput(ctx context.Context, arguments ...string) (string, error) {
	out, err := p.goCommand(ctx, "", arguments...).Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return "", fmt.Errorf("go %s: %w\n%s", strings.Join(arguments, " "), err, exit.Stderr)
	}
	if err != nil {
		return "", fmt.Errorf("go %s: %w", strings.Join(arguments, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}
