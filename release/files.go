// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const (
	// layoutDir is the OCI layout in the directory of a release.
	layoutDir = "oci"
	// checksums is the file with the SHA-256 of all others, in the format of sha256sum; signature is that of this file.
	checksums, signature = "SHA256SUMS", "SHA256SUMS.sig"
	// certificate is of the key of a keyless signature.
	certificate    = "SHA256SUMS.pem"
	provenanceFile = "provenance.intoto.json"
	vexFile        = "openvex.json"
	// chartPattern matches the packaged chart.
	chartPattern = imageName + "-*.tgz"

	// maxFiles and maxFile bound what a release has: 4 platforms are 16 files of at most some 60 MB.
	maxFiles, maxFile = 1000, 1 << 30
)

// programs are what the image has, and its order.
var programs = []string{"nodeagent", "webhook"}

// sums computes the checksums of all files of a release but those of the checksums themselves, in the format of
// sha256sum, sorted by name.
func sums(dir string) ([]byte, error) {
	var lines []string
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil || slices.Contains([]string{checksums, signature, certificate}, name) {
			return err
		}
		if len(lines) == maxFiles {
			return fmt.Errorf("more than %d files", maxFiles)
		}
		data, err := readFile(path)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(data)
		lines = append(lines, hex.EncodeToString(sum[:])+"  "+filepath.ToSlash(name)+"\n")
		return nil
	})
	slices.SortFunc(lines, func(a, b string) int { return strings.Compare(a[64:], b[64:]) })
	return []byte(strings.Join(lines, "")), err
}

// readFile reads a regular file of at most 1 GiB.
func readFile(path string) ([]byte, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxFile {
		return nil, fmt.Errorf("%s: not a regular file of at most %d bytes", path, maxFile)
	}
	return os.ReadFile(path)
}

// checkSums compares the files with SHA256SUMS. The error names the first file that differs, is missing or is not
// listed.
func checkSums(dir string) error {
	listed, err := readFile(filepath.Join(dir, checksums))
	if err != nil {
		return err
	}
	found, err := sums(dir)
	if err != nil {
		return fmt.Errorf("compute checksums: %w", err)
	}
	if bytes.Equal(listed, found) {
		return nil
	}
	want, got := byName(listed), byName(found)
	for _, name := range sortedKeys(want, got) {
		switch {
		case got[name] == "":
			return fmt.Errorf("%s: the file is missing, but %s lists it", name, checksums)
		case want[name] == "":
			return fmt.Errorf("%s: the file is not listed in %s", name, checksums)
		case want[name] != got[name]:
			return fmt.Errorf("%s: the file has another checksum than in %s", name, checksums)
		}
	}
	return fmt.Errorf("%s: not in the order and format of this program", checksums)
}

func byName(list []byte) map[string]string {
	names := map[string]string{}
	for line := range strings.Lines(string(list)) {
		sum, name, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "  ")
		names[name] = sum
	}
	return names
}

func sortedKeys(maps ...map[string]string) []string {
	var all []string
	for _, m := range maps {
		for name := range m {
			all = append(all, name)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// platforms returns the architectures of the programs in a release, sorted.
func platforms(dir string) ([]string, error) {
	found, err := filepath.Glob(filepath.Join(dir, "linux-*"))
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("%s: no folder linux-ARCHITECTURE with programs. Fix: run make dist", dir)
	}
	architectures := make([]string, len(found))
	for i, folder := range found {
		architectures[i] = strings.TrimPrefix(filepath.Base(folder), "linux-")
	}
	slices.Sort(architectures)
	return architectures, nil
}

// chartPackage returns the file of the packaged chart.
func chartPackage(dir string) (string, error) {
	found, err := filepath.Glob(filepath.Join(dir, chartPattern))
	if err == nil && len(found) != 1 {
		err = fmt.Errorf("%s: %d files %s, want one", dir, len(found), chartPattern)
	}
	if err != nil {
		return "", err
	}
	return found[0], nil
}
