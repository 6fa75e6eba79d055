// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func readTar(t *testing.T, archive []byte) map[string]string {
	t.Helper()
	files := map[string]string{}
	reader := tar.NewReader(bytes.NewReader(archive))
	for {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(reader)
		if err != nil {
			t.Fatal(err)
		}
		files[header.Name] = string(data)
	}
}

func TestWriteImage(t *testing.T) {
	directory := t.TempDir()
	binary, archive := filepath.Join(directory, "binary"), filepath.Join(directory, "image.tar")
	if err := os.WriteFile(binary, []byte("machine code"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := writeImage(archive, "example.test/image:1", binary); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(archive)
	if err != nil {
		t.Fatal(err)
	}
	files := readTar(t, data)
	var manifest []struct {
		Config           string
		RepoTags, Layers []string
	}
	if err := json.Unmarshal([]byte(files["manifest.json"]), &manifest); err != nil {
		t.Fatal(err)
	}
	if len(manifest) != 1 || !slices.Equal(manifest[0].RepoTags, []string{"example.test/image:1"}) ||
		len(manifest[0].Layers) != 1 {
		t.Fatalf("got manifest %+v", manifest)
	}
	layer := files[manifest[0].Layers[0]]
	if got := readTar(t, []byte(layer))["program"]; got != "machine code" {
		t.Errorf("got program %q", got)
	}
	var config struct {
		Config struct{ Entrypoint []string }
		RootFS struct {
			DiffIDs []string `json:"diff_ids"`
		}
	}
	if err := json.Unmarshal([]byte(files[manifest[0].Config]), &config); err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256([]byte(layer))
	if want := []string{"sha256:" + hex.EncodeToString(digest[:])}; !slices.Equal(config.RootFS.DiffIDs, want) {
		t.Errorf("got layers %q, want %q", config.RootFS.DiffIDs, want)
	}
	if !slices.Equal(config.Config.Entrypoint, []string{"/program"}) {
		t.Errorf("got entrypoint %q", config.Config.Entrypoint)
	}
}

func TestImportedNames(t *testing.T) {
	const out = `unpacking example.test/a:1 (sha256:01)...done
unpacking docker.io/library/b:2 (sha256:02)...done
2 images
`
	if got, want := importedNames(out), []string{"example.test/a:1", "docker.io/library/b:2"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestLoadWithoutNode(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "nothing")
	err := load(t.Context(), dir, "image.tar", io.Discard)
	if want := "no cluster is ready in " + dir; err == nil || err.Error() != want {
		t.Errorf("got error %v, want %q", err, want)
	}
}
