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

// clusterDirectory is the directory of one control plane, an absolute path.
type clusterDirectory string

func (f clusterDirectory) path(name string) string { return filepath.Join(string(f), name) }

// lock is held by the serve that runs in the directory. The file also marks the directory as
// created by this program, which may empty and remove it.
func (f clusterDirectory) lock() string { return f.path("kubelet-https-guard-cluster.lock") }

// pid and ready are written by serve. They are valid only while it holds the lock.
func (f clusterDirectory) pid() string        { return f.path("pid") }
func (f clusterDirectory) ready() string      { return f.path("ready") }
func (f clusterDirectory) kubeconfig() string { return f.path("kubeconfig") }

func (f clusterDirectory) etcdData() string { return f.path("etcd") }
func (f clusterDirectory) etcdLog() string  { return f.path("etcd.log") }

// etcdURL is a file with the URL of etcd, for tests that bypass the API server.
func (f clusterDirectory) etcdURL() string { return f.path("etcd-url") }

func (f clusterDirectory) apiServerLog() string { return f.path("kube-apiserver.log") }
func (f clusterDirectory) auditLog() string     { return f.path("audit.log") }
func (f clusterDirectory) auditPolicy() string  { return f.path("audit-policy.yaml") }
func (f clusterDirectory) tokens() string       { return f.path("tokens.csv") }

// serveLog is the log of a serve in the background.
func (f clusterDirectory) serveLog() string { return f.path("serve.log") }

// pki has NAME.crt and NAME.key for each name in certificates.go.
func (f clusterDirectory) pki() string                    { return f.path("pki") }
func (f clusterDirectory) certificate(name string) string { return filepath.Join(f.pki(), name+".crt") }
func (f clusterDirectory) privateKey(name string) string  { return filepath.Join(f.pki(), name+".key") }
func (f clusterDirectory) serviceAccountPublicKey() string {
	return filepath.Join(f.pki(), "service-account.pub")
}
func (f clusterDirectory) serviceAccountKey() string {
	return filepath.Join(f.pki(), "service-account.key")
}

// prepare creates the directory and marks it. It refuses a directory with files but without
// the mark, since serve empties the directory and down removes it.
func (f clusterDirectory) prepare() error {
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
		return fmt.Errorf("%s contains files that this program did not create: use an empty or new directory", f)
	}
	mark, err := os.OpenFile(f.lock(), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return mark.Close()
}

func (f clusterDirectory) marked() (bool, error) {
	_, err := os.Stat(f.lock())
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// claimTimeout allows for processes that check the lock (see status): they hold it for
// a moment.
const claimTimeout = time.Second

// claim locks the directory until the returned lock is closed, and removes the files of an
// earlier control plane: each one starts empty.
func (f clusterDirectory) claim(ctx context.Context) (*os.File, error) {
	if err := f.prepare(); err != nil {
		return nil, err
	}
	lock, err := waitForLock(ctx, f.lock(), claimTimeout, func() {})
	if s, _ := f.status(); errors.Is(err, errLocked) && s.running && s.pid == 0 {
		lock, err = waitForLock(ctx, f.lock(), orphanTimeout, func() {})
	}
	if errors.Is(err, errLocked) {
		return nil, fmt.Errorf("a cluster is already running in %s", f)
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

// takeOver first handles the files that other processes read, then the rest.
func (f clusterDirectory) takeOver() error {
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
		// This process may already write to serve.log.
		if path == f.lock() || path == f.pid() || path == f.serveLog() {
			continue
		}
		if err := os.RemoveAll(path); err != nil {
			return err
		}
	}
	return nil
}

// status is the state of a directory, as other processes see it.
type status struct {
	running bool
	pid     int    // 0 until serve has written it
	kubectl string // empty until the cluster is ready
}

func (f clusterDirectory) status() (status, error) {
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
	// Just after serve has taken the lock, the files are still those of an earlier
	// process.
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

// readyLine is what serve prints and writes to the directory when the cluster is ready.
func readyLine(kubeconfig, kubectl string) string {
	return fmt.Sprintf("ready KUBECONFIG=%s KUBECTL=%s", kubeconfig, kubectl)
}

func alive(pid int) bool {
	err := syscall.Kill(pid, 0)
	return err == nil || errors.Is(err, syscall.EPERM)
}

// writeFile writes the file atomically, since other processes poll it.
func writeFile(path, content string) error {
	partial := path + ".partial"
	if err := os.WriteFile(partial, []byte(content), 0o600); err != nil {
		return err
	}
	return os.Rename(partial, path)
}
