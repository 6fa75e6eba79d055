// SPDX-License-Identifier: Apache-2.0

package hostfs

import (
	"errors"
	"os"
	"syscall"
	"testing"

	pathrs "github.com/cyphar/filepath-securejoin/pathrs-lite"
)

// TestOpenInRoot: openat2 opens what pathrs opens, or fails for the same reason. pathrs replaces it on old kernels.
func TestOpenInRoot(t *testing.T) {
	root := t.TempDir()
	for _, err := range []error{
		os.MkdirAll(root+"/a/b", 0o755),
		os.WriteFile(root+"/a/b/file", nil, 0o600),
		os.WriteFile(root+"/file", nil, 0o600),
		os.Symlink("/a/b", root+"/absolute"),
		os.Symlink("../../../../../../../../file", root+"/a/out"),
		os.Symlink("loop", root+"/loop"),
		os.Symlink("none", root+"/dangling"),
		os.Symlink("/proc/self/root/etc", root+"/magic"),
		syscall.Mkfifo(root+"/fifo", 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	type open func(root, name string) (*os.File, error)
	opened := func(t *testing.T, open open, name string) (os.FileInfo, syscall.Errno) {
		t.Helper()
		file, err := open(root, name)
		if err != nil {
			number, ok := errors.AsType[syscall.Errno](err)
			if !ok {
				t.Fatalf("the error %v has no number", err)
			}
			return nil, number
		}
		defer func() { _ = file.Close() }()
		info, err := file.Stat()
		if err != nil {
			t.Fatal(err)
		}
		return info, 0
	}
	for name, what := range map[string]string{
		".": "the root", "file": "a file", "a/b/file": "a file in directories", "a": "a directory", "fifo": "a FIFO",
		"absolute/file": "through an absolute link", "a/out": "a link that leads out of the root", "loop": "a loop",
		"dangling": "a dangling link", "none": "a missing file", "file/none": "through a file",
		"magic": "a link to /proc",
	} {
		t.Run(what, func(t *testing.T) {
			got, gotErr := opened(t, openInRoot, name)
			want, wantErr := opened(t, pathrs.OpenInRoot, name)
			if gotErr != wantErr || (got == nil) != (want == nil) || got != nil && !os.SameFile(got, want) {
				t.Errorf("got %v, error %v; pathrs: %v, error %v", got, gotErr, want, wantErr)
			}
		})
	}
}
