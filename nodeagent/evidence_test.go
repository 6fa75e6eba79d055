// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"io/fs"
	"testing"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/kubeletconfig"
	"github.com/kubelet-https-guard/kubelet-https-guard/internal/staticpod"
)

// TestRoleOfManifest: the report calls only a manifest a manifest.
func TestRoleOfManifest(t *testing.T) {
	const directory, file = "/etc/kubernetes/manifests", "/etc/kubernetes/manifests/a"
	unclear := kubeletconfig.Config{Problem: kubeletconfig.ProblemError{At: "/c", Err: errors.New("two values disagree")}}
	for name, c := range map[string]struct {
		layout staticpod.Found
		want   string
	}{
		"a manifest":            {staticpod.Found{Manifest: file, Directory: directory}, "manifest"},
		"not a Pod":             {staticpod.Found{Manifest: file, Directory: directory, ManifestParseErr: fs.ErrInvalid}, "manifest"},
		"permission denied":     {staticpod.Found{Manifest: file, Directory: directory, ManifestReadErr: fs.ErrPermission}, "manifest"},
		"a single file":         {staticpod.Found{Manifest: file, Directory: file}, "manifest"},
		"no manifest in it":     {staticpod.Found{Manifest: directory, Directory: directory, ManifestReadErr: fs.ErrNotExist}, "static-pod-path"},
		"not a directory":       {staticpod.Found{Manifest: directory, Directory: directory, ManifestParseErr: fs.ErrInvalid}, "static-pod-path"},
		"no static pods":        {staticpod.Found{Manifest: "/c", ManifestReadErr: fs.ErrNotExist}, "kubelet-configuration"},
		"unclear configuration": {staticpod.Found{Manifest: "/c", Kubelet: unclear}, "kubelet-configuration"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := roleOfManifest(c.layout); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}
