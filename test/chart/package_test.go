// SPDX-License-Identifier: Apache-2.0

package chart_test

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kubelet-https-guard/kubelet-https-guard/test/chart"
)

// TestPackage: the packaged chart contains what users need, but no tests, sources of
// documentation or editor files.
func TestPackage(t *testing.T) {
	needs(t, "HELM")
	repository, err := chart.Repository()
	if err != nil {
		t.Fatal(err)
	}
	helm, err := chart.Tool(t.Context(), "helm")
	if err != nil {
		t.Fatal(err)
	}
	// A copy of the chart with additional files.
	source, dir := filepath.Join(t.TempDir(), "kubelet-https-guard"), t.TempDir()
	if err := os.CopyFS(source, os.DirFS(filepath.Join(repository, "charts", "kubelet-https-guard"))); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"values.yaml~", "values.yaml.orig", ".values.yaml.swp", "tests/x_test.yaml",
		"tests/__snapshot__/x_test.yaml.snap", "ci/values.yaml", "README.md.gotmpl", ".DS_Store",
		"templates/webhook/x.yaml.tmp", "templates/tests/x.yaml"} {
		at := filepath.Join(source, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(at), 0o755), os.WriteFile(at, nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if output, err := exec.CommandContext(t.Context(), helm, "package", source, "--destination",
		dir).CombinedOutput(); err != nil {
		t.Fatalf("helm package: %v\n%s", err, output)
	}
	archives, err := filepath.Glob(filepath.Join(dir, "*.tgz"))
	if err != nil || len(archives) != 1 {
		t.Fatalf("archives: %q, %v", archives, err)
	}
	all := members(t, archives[0])
	if !slices.Contains(all, "templates/tests/x.yaml") {
		t.Error("the package lacks a template folder")
	}
	var others []string
	for _, name := range all {
		if !strings.HasPrefix(name, "templates/") || !slices.Contains([]string{".yaml", ".tpl", ".txt"}, filepath.Ext(name)) {
			others = append(others, name)
		}
	}
	slices.Sort(others)
	want := []string{".helmignore", "Chart.yaml", "README.md", "files/dashboard.json", "values.schema.json", "values.yaml"}
	if diff := cmp.Diff(want, others); diff != "" {
		t.Errorf("packaged files other than templates (-want +got):\n%s", diff)
	}
}

// members returns the files in a chart archive.
func members(t *testing.T, archive string) []string {
	t.Helper()
	file, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	unzipped, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for reader := tar.NewReader(unzipped); ; {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return names
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, strings.TrimPrefix(header.Name, "kubelet-https-guard/"))
	}
}
