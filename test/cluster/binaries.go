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
	"strings"
)

// assetsVariable names a folder with binaries of one's own, as it does for
// controller-runtime's envtest.
const assetsVariable = "KUBEBUILDER_ASSETS"

const modulePath = "github.com/kubelet-https-guard/kubelet-https-guard/test/cluster"

// binaries are absolute paths.
type binaries struct {
	etcd, apiServer, kubectl string
}

func binariesIn(folder string) binaries {
	return binaries{
		etcd:      filepath.Join(folder, "etcd"),
		apiServer: filepath.Join(folder, "kube-apiserver"),
		kubectl:   filepath.Join(folder, "kubectl"),
	}
}

// missing returns the names of those that are not there.
func (b binaries) missing() []string {
	var names []string
	for _, path := range []string{b.etcd, b.apiServer, b.kubectl} {
		info, err := os.Stat(path)
		if err != nil || !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
			names = append(names, filepath.Base(path))
		}
	}
	return names
}

// ensureBinaries returns the binaries to use and builds those that are missing.
// It writes to progress only when there is something to build.
func ensureBinaries(ctx context.Context, progress io.Writer) (binaries, error) {
	place, err := findPlace(ctx)
	if err != nil {
		return binaries{}, err
	}
	found := binariesIn(place.folder)
	missing := found.missing()
	if len(missing) == 0 {
		return found, nil
	}
	if place.given {
		return binaries{}, place.lacks(missing)
	}
	return found, buildMissing(ctx, place, progress)
}

func printPaths(ctx context.Context, out io.Writer) error {
	place, err := findPlace(ctx)
	if err != nil {
		return err
	}
	found := binariesIn(place.folder)
	if missing := found.missing(); len(missing) > 0 {
		return place.lacks(missing)
	}
	_, err = fmt.Fprintf(out, "ETCD=%s\nKUBE_APISERVER=%s\nKUBECTL=%s\n", found.etcd, found.apiServer, found.kubectl)
	return err
}

// place is where the binaries are, or will be once they are built.
type place struct {
	folder string
	given  bool   // by the environment: nothing is built there
	module string // folder of this module, empty if given
}

func (p place) lacks(names []string) error {
	if p.given {
		return fmt.Errorf("%s=%s lacks %s", assetsVariable, p.folder, strings.Join(names, ", "))
	}
	return fmt.Errorf("%s lacks %s: the command build makes what is missing", p.folder, strings.Join(names, ", "))
}

func findPlace(ctx context.Context) (place, error) {
	if assets := os.Getenv(assetsVariable); assets != "" {
		folder, err := filepath.Abs(assets)
		return place{folder: folder, given: true}, err
	}
	module, err := moduleFolder()
	if err != nil {
		return place{}, err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return place{}, fmt.Errorf("find a folder to keep the binaries in: %w", err)
	}
	key, err := moduleKey(ctx, module)
	if err != nil {
		return place{}, err
	}
	return place{
		folder: filepath.Join(cache, "kubelet-https-guard", "cluster", key),
		module: module,
	}, nil
}

// moduleFolder looks for this module in the working folder and above it, both
// from inside (`go run -C test/cluster .`) and from the root of the repository.
func moduleFolder() (string, error) {
	working, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for folder := working; ; folder = filepath.Dir(folder) {
		for _, candidate := range []string{folder, filepath.Join(folder, "test", "cluster")} {
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
		if folder == filepath.Dir(folder) {
			return "", fmt.Errorf("the module %s is neither in %s nor in a folder above", modulePath, working)
		}
	}
}

// moduleKey names the cached binaries after all that decides what they are, so
// that a second clone finds those of the first and a new version gets its own.
func moduleKey(ctx context.Context, module string) (string, error) {
	goMod, err := os.ReadFile(filepath.Join(module, "go.mod"))
	if err != nil {
		return "", err
	}
	goSum, err := os.ReadFile(filepath.Join(module, "go.sum"))
	if err != nil {
		return "", err
	}
	toolchain, err := goOutput(ctx, module, "env", "GOVERSION", "GOOS", "GOARCH")
	if err != nil {
		return "", err
	}
	parts := []string{string(goMod), string(goSum), toolchain}
	for _, c := range commands {
		// The version is in go.mod; asking the go command for it would cost
		// every start a tenth of a second.
		parts = append(parts, buildArguments(c, "", "")...)
	}
	return cacheKey(parts...), nil
}

// cacheKey keeps the borders of its parts: ("ab", "c") and ("a", "bc") differ.
func cacheKey(parts ...string) string {
	h := sha256.New()
	for _, part := range parts {
		fmt.Fprintf(h, "%d:%s", len(part), part)
	}
	return hex.EncodeToString(h.Sum(nil))[:16]
}

// goCommand prepares the go command in the module. A go.work file of the user
// would replace the versions that go.mod names.
func goCommand(ctx context.Context, module string, arguments ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "go", arguments...)
	cmd.Dir = module
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	// Interrupted, the go command removes its temporary folder before it ends.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = goStopTimeout
	return cmd
}

func goOutput(ctx context.Context, module string, arguments ...string) (string, error) {
	out, err := goCommand(ctx, module, arguments...).Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return "", fmt.Errorf("go %s: %w\n%s", strings.Join(arguments, " "), err, exit.Stderr)
	}
	if err != nil {
		return "", fmt.Errorf("go %s: %w", strings.Join(arguments, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}
