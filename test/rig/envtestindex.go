// SPDX-License-Identifier: Apache-2.0

package rig

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha512"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
)

// EnvtestPrograms returns the names of the programs in an archive of envtest binaries.
func EnvtestPrograms() []string { return []string{"etcd", "kube-apiserver", "kubectl"} }

// EnvtestArchive packs programs of a directory as Kubernetes publishes its envtest binaries: a gzipped tar archive with
// the programs in controller-tools/envtest.
func EnvtestArchive(directory string, programs ...string) ([]byte, error) {
	var data bytes.Buffer
	packed := gzip.NewWriter(&data)
	files := tar.NewWriter(packed)
	for _, name := range programs {
		program, err := os.ReadFile(filepath.Join(directory, name))
		if err != nil {
			return nil, err
		}
		header := &tar.Header{Name: "controller-tools/envtest/" + name, Mode: 0o755, Size: int64(len(program))}
		if err := files.WriteHeader(header); err != nil {
			return nil, err
		}
		if _, err := files.Write(program); err != nil {
			return nil, err
		}
	}
	if err := files.Close(); err != nil {
		return nil, err
	}
	if err := packed.Close(); err != nil {
		return nil, err
	}
	return data.Bytes(), nil
}

// EnvtestIndex serves an archive of envtest binaries, and under /index.yaml an index that has it as a version for this
// platform, with a checksum in hexadecimal; empty: the right one. The addresses in the index are those of the request.
func EnvtestIndex(version string, archive []byte, checksum string) http.Handler {
	file := fmt.Sprintf("envtest-v%s-%s-%s.tar.gz", version, runtime.GOOS, runtime.GOARCH)
	if checksum == "" {
		checksum = fmt.Sprintf("%x", sha512.Sum512(archive))
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/index.yaml", func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintf(w, "releases:\n  v%s:\n    %s:\n      hash: %s\n      selfLink: http://%s/%s\n",
			version, file, checksum, r.Host, file)
	})
	mux.HandleFunc("/"+file, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(archive) })
	return mux
}
