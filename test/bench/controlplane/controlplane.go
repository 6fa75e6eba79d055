// SPDX-License-Identifier: Apache-2.0

// Package controlplane is the control plane of a benchmark, apart from its API: the API server as a process, and etcd.
package controlplane

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/kubelet-https-guard/kubelet-https-guard/test/rig"
)

// APIServerPID is the number of the process of a rig's API server.
func APIServerPID(r *rig.Rig) (int, error) {
	return childOf(r.Path("cluster", "pid"), "kube-apiserver")
}

// childOf is the process with this name whose parent's ID is in a file.
func childOf(pidFile, name string) (int, error) {
	parent, err := os.ReadFile(pidFile)
	if err != nil {
		return 0, err
	}
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0, err
	}
	for _, path := range stats {
		stat, err := os.ReadFile(path)
		if err != nil {
			continue // the process has ended
		}
		// proc_pid_stat(5): pid (name) state parent …
		pid, rest, _ := strings.Cut(string(stat), " ("+name+") ")
		if fields := strings.Fields(rest); len(fields) > 1 && fields[1] == strings.TrimSpace(string(parent)) {
			return strconv.Atoi(pid)
		}
	}
	return 0, fmt.Errorf("process %s has no child %s", bytes.TrimSpace(parent), name)
}

// Etcd is the etcd of a rig.
type Etcd struct {
	url      string
	revision string // of the last compaction; empty before the first one
}

// EtcdOf finds the etcd of a rig.
func EtcdOf(r *rig.Rig) (*Etcd, error) {
	url, err := os.ReadFile(r.Path("cluster", "etcd-url"))
	if err != nil {
		return nil, err
	}
	return &Etcd{url: string(url)}, nil
}

// Compact removes from etcd what was overwritten before its last call: otherwise etcd would exceed its
// small quota. API servers may still ask for newer revisions.
func (e *Etcd) Compact(ctx context.Context) error {
	var status struct {
		Header struct {
			Revision string `json:"revision"`
		} `json:"header"`
	}
	if err := e.call(ctx, "/v3/maintenance/status", struct{}{}, &status); err != nil {
		return err
	}
	before := e.revision
	e.revision = status.Header.Revision
	if before == "" || before == e.revision {
		return nil
	}
	err := e.call(ctx, "/v3/kv/compaction", map[string]any{"revision": before, "physical": true}, &struct{}{})
	if err != nil && strings.Contains(err.Error(), "has been compacted") {
		return nil // the API server does it, too, every few minutes
	}
	return err
}

func (e *Etcd) call(ctx context.Context, path string, request, response any) error {
	body, err := json.Marshal(request)
	if err != nil {
		return err
	}
	post, err := http.NewRequestWithContext(ctx, http.MethodPost, e.url+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(post)
	if err != nil {
		return err
	}
	defer func() { _ = answer.Body.Close() }()
	data, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("etcd answers %s to %s: %s", answer.Status, path, data)
	}
	return json.Unmarshal(data, response)
}
