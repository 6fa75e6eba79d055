// SPDX-License-Identifier: Apache-2.0

package kubeclient

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"k8s.io/client-go/rest"
)

const (
	// goVersionEvery is the time between two reads of the API server's Go release, which changes in upgrades.
	goVersionEvery = time.Minute
	// maxVersion bounds what is read from /version, which has less than 1 KiB, and maxGoVersion the text for the Go
	// release, both in bytes.
	maxVersion, maxGoVersion = 16 << 10, 100
)

// GoVersion returns the Go release that the API server was built with, as its /version has it: "go1.27.4". It takes at
// most 10 s. During an upgrade of a cluster with several API servers, it is that of the one that answers.
func GoVersion(ctx context.Context, client rest.Interface) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	body, err := client.Get().AbsPath("/version").Stream(ctx)
	if err != nil {
		return "", fmt.Errorf("read the version of the API server: %w", err)
	}
	defer func() { _ = body.Close() }()
	var version struct {
		GoVersion string `json:"goVersion"`
	}
	if err := json.NewDecoder(io.LimitReader(body, maxVersion)).Decode(&version); err != nil {
		return "", fmt.Errorf("decode the version of the API server: %w", err)
	}
	if len(version.GoVersion) > maxGoVersion {
		return "", fmt.Errorf("decode the version of the API server: goVersion has more than %d bytes", maxGoVersion)
	}
	return version.GoVersion, nil
}

// GoRelease knows the Go release of the API server while it runs. The value nil does not know it.
type GoRelease struct {
	client rest.Interface
	known  atomic.Value // string
}

// NewGoRelease returns one that does not know the release until [GoRelease.Read] or [GoRelease.Run] is called.
func NewGoRelease(config *rest.Config) (*GoRelease, error) {
	client, err := NewClient(config)
	if err != nil {
		return nil, err
	}
	return &GoRelease{client: client.rest}, nil
}

// Version returns the release, empty if it is not known.
func (r *GoRelease) Version() string {
	if r == nil {
		return ""
	}
	version, _ := r.known.Load().(string)
	return version
}

// Read reads the release. If that fails, the release is not known.
func (r *GoRelease) Read(ctx context.Context) {
	version, _ := GoVersion(ctx, r.client) // empty with an error
	r.known.Store(version)
}

// Run reads the release every minute until the context ends.
func (r *GoRelease) Run(ctx context.Context) {
	ticker := time.NewTicker(goVersionEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			r.Read(ctx)
		}
	}
}
