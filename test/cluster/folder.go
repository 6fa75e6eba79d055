// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// folder is the directory of one control plane, an absolute path.
type folder string

func (f folder) path(name string) string { return filepath.Join(string(f), name) }

// lock is held by the serve that runs in the folder. It also marks the folder
// as one that this program may empty and remove.
func (f folder) lock() string { return f.path("kubelet-https-guard-cluster.lock") }

// pid and ready are written by serve, and mean something only while it holds
// the lock.
func (f folder) pid() string        { return f.path("pid") }
func (f folder) ready() string      { return f.path("ready") }
func (f folder) kubeconfig() string { return f.path("kubeconfig") }

func (f folder) etcdData() string { return f.path("etcd") }
func (f folder) etcdLog() string  { return f.path("etcd.log") }

// etcdURL is a file for those who want to change what is stored behind the API
// server's back.
func (f folder) etcdURL() string { return f.path("etcd-url") }

func (f folder) apiServerLog() string { return f.path("kube-apiserver.log") }
func (f folder) auditLog() string     { return f.path("audit.log") }
func (f folder) auditPolicy() string  { return f.path("audit-policy.yaml") }
func (f folder) tokens() string       { return f.path("tokens.csv") }

// serveLog is what a serve in the background says.
func (f folder) serveLog() string { return f.path("serve.log") }

// pki has NAME.crt and NAME.key for each name in certificates.go.
func (f folder) pki() string                    { return f.path("pki") }
func (f folder) certificate(name string) string { return filepath.Join(f.pki(), name+".crt") }
func (f folder) privateKey(name string) string  { return filepath.Join(f.pki(), name+".key") }
func (f folder) serviceAccountPublicKey() string {
	return filepath.Join(f.pki(), "service-account.pub")
}
func (f folder) serviceAccountKey() string { return filepath.Join(f.pki(), "service-account.key") }

// prepare creates the folder and puts our mark on it. It refuses a folder that
// has files but not the mark, since serve empties it and down removes it.
func (f folder) prepare() error {
	if err := os.MkdirAll(string(f), 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(string(f))
	if err != nil {
		return err
	}
	if marked, err := f.marked(); err != nil {
		return err
	} else if len(entries) > 0 && !marked {
		return fmt.Errorf("%s has files that are not of this program: give an empty folder or a new one", f)
	}
	mark, err := os.OpenFile(f.lock(), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return mark.Close()
}

func (f folder) marked() (bool, error) {
	_, err := os.Stat(f.lock())
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// claimTimeout is for those who look whether the folder is locked (see status):
// they hold the lock for a moment themselves.
const claimTimeout = time.Second

// claim takes the folder for this process, until the returned lock is closed,
// and removes what an earlier control plane left in it: each one starts empty.
func (f folder) claim(ctx context.Context) (*os.File, error) {
	if err := f.prepare(); err != nil {
		return nil, err
	}
	lock, err := waitForLock(ctx, f.lock(), claimTimeout, func() {})
	if s, _ := f.status(); errors.Is(err, errLocked) && s.running && s.pid == 0 {
		lock, err = waitForLock(ctx, f.lock(), orphanTimeout, func() {})
	}
	if errors.Is(err, errLocked) {
		return nil, fmt.Errorf("a cluster runs in %s already", f)
	}
	if err != nil {
		return nil, err
	}
	if err := f.takeOver(); err != nil {
		lock.Close()
		return nil, err
	}
	return lock, nil
}

// takeOver first sees to the files that others read, then to the rest.
func (f folder) takeOver() error {
	if err := os.RemoveAll(f.ready()); err != nil {
		return err
	}
	if err := writeFile(f.pid(), strconv.Itoa(os.Getpid())+"\n"); err != nil {
		return err
	}
	entries, err := os.ReadDir(string(f))
	if err != nil {
		return err
	}
	for _, entry := range entries {
		path := f.path(entry.Name())
		// To serve.log this process may be writing already.
		if path == f.lock() || path == f.pid() || path == f.serveLog() {
			continue
		}
		if err := os.RemoveAll(path); err != nil {
			return err
		}
	}
	return nil
}

// status is what can be told about a folder from outside.
type status struct {
	running bool
	pid     int    // 0 until serve has written it
	kubectl string // empty until the cluster is ready
}

func (f folder) status() (status, error) {
	if marked, err := f.marked(); err != nil || !marked {
		return status{}, err
	}
	lock, err := tryLock(f.lock())
	if err == nil {
		return status{}, lock.Close()
	}
	if !errors.Is(err, errLocked) {
		return status{}, err
	}
	s := status{running: true}
	data, err := os.ReadFile(f.pid())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return status{}, err
	}
	// For a moment after serve has taken the lock, the files are those of an
	// earlier one, whose process is dead.
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil || pid <= 1 || !alive(pid) {
		return s, nil //nolint:nilerr // see above
	}
	s.pid = pid
	data, err = os.ReadFile(f.ready())
	if errors.Is(err, os.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return status{}, err
	}
	_, s.kubectl, _ = strings.Cut(strings.TrimSuffix(string(data), "\n"), " KUBECTL=")
	return s, nil
}

// readyLine is what serve prints, and leaves in the folder, once the cluster
// answers.
func readyLine(kubeconfig, kubectl string) string {
	return fmt.Sprintf("ready KUBECONFIG=%s KUBECTL=%s", kubeconfig, kubectl)
}

func alive(pid int) bool {
	err := syscall.Kill(pid, 0)
	return err == nil || errors.Is(err, syscall.EPERM)
}

// writeFile makes the file appear whole or not at all: others poll for it.
func writeFile(path, content string) error {
	partial := path + ".partial"
	if err := os.WriteFile(partial, []byte(content), 0o600); err != nil {
		return err
	}
	return os.Rename(partial, path)
}
