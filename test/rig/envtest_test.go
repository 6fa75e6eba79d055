// SPDX-License-Identifier: Apache-2.0

package rig

import (
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// archive packs programs that only print something.
func archive(t *testing.T, programs ...string) []byte {
	t.Helper()
	directory := t.TempDir()
	for _, name := range programs {
		if err := os.WriteFile(filepath.Join(directory, name), []byte("#!/bin/sh\necho "+name+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	data, err := EnvtestArchive(directory, programs...)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// buildSetupEnvtest builds the program of which envtest is made.
func buildSetupEnvtest(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "setup-envtest")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, setupEnvtest)
	build.Dir = filepath.Join("..", "..", envtestFolder)
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build setup-envtest: %v\n%s", err, output)
	}
	return program
}

func TestEnvtest(t *testing.T) {
	setup := buildSetupEnvtest(t)
	all := archive(t, EnvtestPrograms()...)
	for name, tt := range map[string]struct {
		version  string // in the index
		archive  []byte
		checksum string // of the archive, if empty
		status   int    // of the index
		index    string // instead of the server's
		want     string // in the error
	}{
		"Fetched":       {version: EnvtestVersion, archive: all},
		"WrongChecksum": {version: EnvtestVersion, archive: all, checksum: strings.Repeat("0", 128), want: "checksum mismatch"},
		"OtherVersions": {version: "1.28.0", archive: all, want: "unable to find archive for " + EnvtestVersion},
		"ProgramMissing": {
			version: EnvtestVersion, archive: archive(t, "etcd", "kube-apiserver"), want: "the archive has no kubectl",
		},
		"NoArchive":      {version: EnvtestVersion, archive: []byte("<html>"), want: "un-gz-ing"},
		"NotFound":       {version: EnvtestVersion, archive: all, status: http.StatusNotFound, want: "404 Not Found"},
		"NobodyListens":  {index: "http://127.0.0.1:1/", want: "connection refused"},
		"NotWanted":      {index: noEnvtest, want: "not wanted"},
		"NoSuchProtocol": {index: "nonsense", want: "unsupported protocol scheme"},
	} {
		t.Run(name, func(t *testing.T) {
			released := EnvtestIndex(tt.version, tt.archive, tt.checksum)
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if tt.status != 0 {
					w.WriteHeader(tt.status)
					return
				}
				released.ServeHTTP(w, r)
			}))
			defer server.Close()
			e := envtest{store: filepath.Join(t.TempDir(), "store"), index: tt.index, setup: setup}
			if e.index == "" {
				e.index = server.URL + "/index.yaml"
			}

			err := e.answers(t.Context())
			if err == nil {
				err = e.fetch(t.Context())
			}
			if tt.want != "" {
				if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
					t.Errorf("got error %v, want one line with %q", err, tt.want)
				}
				if e.present() {
					t.Error("the binaries are there")
				}
			} else if err != nil {
				t.Fatal(err)
			} else if !e.present() {
				t.Errorf("there is no %s", e.directory())
			}
			if left, err := filepath.Glob(filepath.Join(e.store, "partial-*")); err != nil || len(left) > 0 {
				t.Errorf("partial files are left: %v, %v", left, err)
			}
			if tt.want != "" {
				return
			}
			for _, program := range EnvtestPrograms() {
				info, err := os.Stat(filepath.Join(e.directory(), program))
				if err != nil || info.Mode()&0o111 == 0 {
					t.Errorf("%s is not a program: %v, %v", program, info, err)
				}
			}
		})
	}
}

// TestEnvtestVersion: the minor release of the envtest binaries is that of the programs that the tests build.
func TestEnvtestVersion(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("..", "..", clusterFolder, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	minor := EnvtestVersion[:strings.LastIndex(EnvtestVersion, ".")+1]
	if want := "\tk8s.io/kubernetes v" + minor; !strings.Contains(string(data), want) {
		t.Errorf("%s/go.mod has no %q: update EnvtestVersion with it", clusterFolder, strings.TrimSpace(want))
	}
}
