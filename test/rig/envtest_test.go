// SPDX-License-Identifier: Apache-2.0

package rig

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha512"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// archive is a tar.gz with programs, as envtest's are laid out.
func archive(t *testing.T, programs ...string) []byte {
	t.Helper()
	var data bytes.Buffer
	packed := gzip.NewWriter(&data)
	files := tar.NewWriter(packed)
	for _, program := range programs {
		header := &tar.Header{
			Name: "controller-tools/envtest/" + program, Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(program)),
		}
		if err := files.WriteHeader(header); err != nil {
			t.Fatal(err)
		}
		if _, err := files.Write([]byte(program)); err != nil {
			t.Fatal(err)
		}
	}
	if err := files.Close(); err != nil {
		t.Fatal(err)
	}
	if err := packed.Close(); err != nil {
		t.Fatal(err)
	}
	return data.Bytes()
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
	all := archive(t, "etcd", "kube-apiserver", "kubectl")
	for name, tt := range map[string]struct {
		version  string // in the index
		archive  []byte
		checksum string // of the archive, if empty
		status   int    // of the index
		index    string // instead of the server's
		want     string // in the error
	}{
		"Fetched":       {version: envtestVersion, archive: all},
		"WrongChecksum": {version: envtestVersion, archive: all, checksum: strings.Repeat("0", 128), want: "checksum mismatch"},
		"OtherVersions": {version: "1.28.0", archive: all, want: "unable to find archive for " + envtestVersion},
		"ProgramMissing": {
			version: envtestVersion, archive: archive(t, "etcd", "kube-apiserver"), want: "the archive has no kubectl",
		},
		"NoArchive":      {version: envtestVersion, archive: []byte("<html>"), want: "un-gz-ing"},
		"NotFound":       {version: envtestVersion, archive: all, status: http.StatusNotFound, want: "404 Not Found"},
		"NobodyListens":  {index: "http://127.0.0.1:1/", want: "connection refused"},
		"NotWanted":      {index: noEnvtest, want: "not wanted"},
		"NoSuchProtocol": {index: "nonsense", want: "unsupported protocol scheme"},
	} {
		t.Run(name, func(t *testing.T) {
			file := fmt.Sprintf("envtest-v%s-%s-%s.tar.gz", tt.version, runtime.GOOS, runtime.GOARCH)
			if tt.checksum == "" {
				tt.checksum = fmt.Sprintf("%x", sha512.Sum512(tt.archive))
			}
			mux := http.NewServeMux()
			server := httptest.NewServer(mux)
			defer server.Close()
			mux.HandleFunc("/index.yaml", func(w http.ResponseWriter, _ *http.Request) {
				if tt.status != 0 {
					w.WriteHeader(tt.status)
				}
				_, _ = fmt.Fprintf(w, "releases:\n  v%s:\n    %s:\n      hash: %s\n      selfLink: %s/%s\n",
					tt.version, file, tt.checksum, server.URL, file)
			})
			mux.HandleFunc("/"+file, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(tt.archive) })
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
			for _, program := range []string{"etcd", "kube-apiserver", "kubectl"} {
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
	minor := envtestVersion[:strings.LastIndex(envtestVersion, ".")+1]
	if want := "\tk8s.io/kubernetes v" + minor; !strings.Contains(string(data), want) {
		t.Errorf("%s/go.mod has no %q: update envtestVersion with it", clusterFolder, strings.TrimSpace(want))
	}
}
