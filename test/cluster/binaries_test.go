// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestCacheKey(t *testing.T) {
	base := cacheKey("go.mod", "go.sum", "go1.26 linux amd64")
	if again := cacheKey("go.mod", "go.sum", "go1.26 linux amd64"); again != base {
		t.Errorf("the same parts give %s and %s", base, again)
	}
	if len(base) != 16 || strings.Trim(base, "0123456789abcdef") != "" {
		t.Errorf("got %q, want 16 hex digits", base)
	}
	for name, parts := range map[string][]string{
		"OtherModule":    {"go.mod 2", "go.sum", "go1.26 linux amd64"},
		"OtherSums":      {"go.mod", "go.sum 2", "go1.26 linux amd64"},
		"OtherToolchain": {"go.mod", "go.sum", "go1.27 linux amd64"},
		"BorderMoved":    {"go.modgo", ".sum", "go1.26 linux amd64"},
		"PartMore":       {"go.mod", "go.sum", "go1.26 linux amd64", ""},
	} {
		if cacheKey(parts...) == base {
			t.Errorf("%s: the key does not change", name)
		}
	}
}

// The cache is per user, not per clone: another clone of the module has the same key.
func TestModuleKey(t *testing.T) {
	here, err := moduleDirectory()
	if err != nil {
		t.Fatal(err)
	}
	clone := t.TempDir()
	for _, name := range keyFiles {
		data, err := os.ReadFile(filepath.Join(here, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Dir(filepath.Join(clone, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(clone, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	key := func(directory string) string {
		key, err := moduleKey(t.Context(), directory)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	if a, b := key(here), key(clone); a != b {
		t.Errorf("the key is %s here and %s in a clone", a, b)
	}
	if err := os.WriteFile(filepath.Join(clone, "go.sum"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if key(here) == key(clone) {
		t.Error("the key does not change with go.sum")
	}
}

// The programs are built with the Go release of Kubernetes, whichever Go runs this program.
func TestFindGo(t *testing.T) {
	later := assets(t, map[string]string{"go": "echo go1.27.4"})
	// An installed Go that GOTOOLCHAIN would replace.
	right := assets(t, map[string]string{"go": `[ "$GOTOOLCHAIN" = local ] && echo go1.26.8 || echo go1.27.4`})
	broken := assets(t, map[string]string{"go": "exit 1"})
	for name, test := range map[string]struct {
		path               []string
		program, toolchain string
	}{
		"the installed Go": {[]string{right}, filepath.Join(right, "go"), "local"},
		"a later Go first": {
			[]string{t.TempDir(), later, broken, right}, filepath.Join(right, "go"), "local",
		},
		"only another Go": {[]string{later}, "go", goDownload},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("PATH", strings.Join(test.path, string(filepath.ListSeparator)))
			t.Setenv("GOTOOLCHAIN", "go1.27.4")
			if program, toolchain := findGo(t.Context()); program != test.program || toolchain != test.toolchain {
				t.Errorf("got %s with GOTOOLCHAIN=%s, want %s with %s", program, toolchain, test.program, test.toolchain)
			}
		})
	}
}

func TestModuleDirectory(t *testing.T) {
	want, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir("../..")
	got, err := moduleDirectory()
	if err != nil || got != want {
		t.Errorf("from the root of the repository: got %q, %v, want %q", got, err, want)
	}
	t.Chdir(t.TempDir())
	if got, err := moduleDirectory(); err == nil {
		t.Errorf("outside of the repository: got %q, want an error", got)
	}
}

// assets creates a directory of binaries, which are shell scripts.
func assets(t *testing.T, scripts map[string]string) string {
	t.Helper()
	directory := t.TempDir()
	for name, script := range scripts {
		if err := os.WriteFile(filepath.Join(directory, name), []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return directory
}

func TestGivenBinaries(t *testing.T) {
	directory := assets(t, map[string]string{"etcd": "", "kube-apiserver": "", "kubectl": ""})
	t.Setenv(assetsVariable, directory)
	var progress strings.Builder
	got, err := ensureBinaries(t.Context(), &progress)
	if err != nil {
		t.Fatal(err)
	}
	if got != binariesIn(directory) {
		t.Errorf("got %+v, want those in %s", got, directory)
	}
	if progress.Len() > 0 {
		t.Errorf("nothing to build, but it printed %q", progress.String())
	}

	if err := os.Remove(filepath.Join(directory, "kubectl")); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(directory, "etcd"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = ensureBinaries(t.Context(), &progress)
	if want := "KUBEBUILDER_ASSETS=" + directory + " does not contain etcd, kubectl"; err == nil || err.Error() != want {
		t.Errorf("got error %v, want %q", err, want)
	}
}

func TestBuildArguments(t *testing.T) {
	kubectl := command{name: "kubectl", importPath: "k8s.io/kubernetes/cmd/kubectl", versionModule: "k8s.io/kubernetes"}
	etcd := command{name: "etcd", importPath: "go.etcd.io/etcd/server/v3"}
	const version = " -X k8s.io/component-base/version.gitVersion=v1.37.2" +
		" -X k8s.io/component-base/version.gitMajor=1" +
		" -X k8s.io/component-base/version.gitMinor=37"
	tests := map[string]struct {
		batch []command
		want  []string
	}{
		"Kubernetes": {
			batch: []command{kubectl},
			want:  []string{"build", "-v", "-ldflags", "-s -w" + version, "-o", "/out", "k8s.io/kubernetes/cmd/kubectl"},
		},
		"Runc": {
			batch: []command{
				{name: "runc", importPath: "github.com/opencontainers/runc", module: "runc", cgo: true, tags: "seccomp"},
			},
			want: []string{"build", "-v", "-ldflags", "-s -w", "-tags", "seccomp", "-o", "/out", "github.com/opencontainers/runc"},
		},
		"Etcd": {
			batch: []command{etcd},
			want:  []string{"build", "-v", "-ldflags", "-s -w", "-o", "/out", "go.etcd.io/etcd/server/v3"},
		},
		"Both": {
			batch: []command{etcd, kubectl},
			want: []string{
				"build", "-v", "-ldflags", "go.etcd.io/etcd/server/v3=-s -w",
				"-ldflags", "k8s.io/kubernetes/cmd/kubectl=-s -w" + version,
				"-o", "/out", "go.etcd.io/etcd/server/v3", "k8s.io/kubernetes/cmd/kubectl",
			},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := buildArguments(tt.batch, "v1.37.2", "/out"); !slices.Equal(got, tt.want) {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
		})
	}
}
