// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestClaim(t *testing.T) {
	f := clusterDirectory(filepath.Join(t.TempDir(), "new"))
	if s, err := f.status(); err != nil || s != (status{}) {
		t.Errorf("of a directory that is not there: got %+v, %v", s, err)
	}

	lock, err := f.claim(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(string(f)); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the directory is open to others: %v, %v", info, err)
	}
	if s, err := f.status(); err != nil || s != (status{running: true, pid: os.Getpid()}) {
		t.Errorf("before it is ready: got %+v, %v", s, err)
	}
	if err := writeFile(f.ready(), readyLine("/d/kube config", "/bin dir/kubectl")+"\n"); err != nil {
		t.Fatal(err)
	}
	if s, err := f.status(); err != nil || s != (status{running: true, pid: os.Getpid(), kubectl: "/bin dir/kubectl"}) {
		t.Errorf("when it is ready: got %+v, %v", s, err)
	}
	if _, err := f.claim(t.Context()); err == nil || err.Error() != "a cluster is already running in "+string(f) {
		t.Errorf("a second claim: got error %v", err)
	}

	lock.Close()
	if s, err := f.status(); err != nil || s != (status{}) {
		t.Errorf("after its end, with its files still there: got %+v, %v", s, err)
	}
	if err := writeFile(f.serveLog(), "kept"); err != nil {
		t.Fatal(err)
	}
	lock, err = f.claim(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	entries, err := os.ReadDir(string(f))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	if want := []string{"kubelet-https-guard-cluster.lock", "pid", "serve.log"}; !slices.Equal(names, want) {
		t.Errorf("a new claim leaves %q, want %q", names, want)
	}
}

// Neither serve nor down may empty a directory that was given by mistake.
func TestForeignDirectory(t *testing.T) {
	f := clusterDirectory(t.TempDir())
	if err := writeFile(f.path("thesis.txt"), "ten years of work"); err != nil {
		t.Fatal(err)
	}
	if _, err := f.claim(t.Context()); err == nil ||
		!strings.Contains(err.Error(), "contains files that this program did not create") {
		t.Errorf("claim: got error %v", err)
	}
	var said strings.Builder
	if err := down(t.Context(), options{dir: string(f)}, &said); err != nil ||
		!strings.HasPrefix(said.String(), "No cluster is running in ") {
		t.Errorf("down: got %v, %q", err, said.String())
	}
	if entries, err := os.ReadDir(string(f)); err != nil || len(entries) != 1 {
		t.Errorf("the directory has changed: %v, %v", entries, err)
	}
}

// The directory of a killed serve contains the PID of a process that has ended.
func TestDownWithDeadProcess(t *testing.T) {
	f := clusterDirectory(filepath.Join(t.TempDir(), "left"))
	if err := f.prepare(); err != nil {
		t.Fatal(err)
	}
	// The PID of this process: if down signaled it, the test would end here.
	if err := writeFile(f.pid(), strconv.Itoa(os.Getpid())); err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	if err := down(t.Context(), options{dir: string(f)}, &said); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(said.String(), "No cluster was up in ") {
		t.Errorf("got %q", said.String())
	}
	if _, err := os.Stat(string(f)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory is still there: %v", err)
	}
}

func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	first, err := tryLock(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tryLock(path); !errors.Is(err, errLocked) {
		t.Errorf("got error %v, want %v", err, errLocked)
	}

	waits := 0
	_, err = waitForLock(t.Context(), path, 3*lockInterval, func() { waits++ })
	if !errors.Is(err, errLocked) || waits != 1 {
		t.Errorf("got error %v after %d notes, want %v after one", err, waits, errLocked)
	}

	second, err := waitForLock(t.Context(), path, time.Minute, func() { first.Close() })
	if err != nil {
		t.Fatal(err)
	}
	second.Close()
}
