// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestUpAndDown runs a real control plane in the background.
func TestUpAndDown(t *testing.T) {
	b := realBinaries(t)
	t.Setenv(runMainVariable, "1") // up starts the test binary as the program
	f := clusterDirectory(filepath.Join(t.TempDir(), "a cluster"))
	t.Cleanup(func() {
		// Stop the cluster after a failed test, too. The context of the test has ended.
		if err := down(context.WithoutCancel(t.Context()), options{dir: string(f)}, &strings.Builder{}); err != nil {
			t.Error(err)
		}
	})
	use := "export KUBECONFIG='" + f.kubeconfig() + "'\nexport KUBECTL=" + shellQuote(b.kubectl) + "\n"

	for _, state := range []string{"The cluster is up: process ", "The cluster was already up: process "} {
		var stdout, stderr strings.Builder
		if err := up(t.Context(), options{dir: string(f)}, &stdout, &stderr); err != nil {
			t.Fatal(err)
		}
		if stdout.String() != use {
			t.Errorf("got stdout %q, want %q", stdout.String(), use)
		}
		if !strings.HasPrefix(stderr.String(), state) {
			t.Errorf("got stderr %q, want it to start with %q", stderr.String(), state)
		}
	}
	if got := kubectlOutput(t, b.kubectl, f.kubeconfig(), "get", "--raw", "/readyz"); got != "ok" {
		t.Errorf("readyz: got %q", got)
	}

	for _, state := range []string{"The cluster in " + string(f) + " is down\n", "No cluster is running in " +
		string(f) + "\n"} {
		var said strings.Builder
		if err := down(t.Context(), options{dir: string(f)}, &said); err != nil {
			t.Fatal(err)
		}
		if said.String() != state {
			t.Errorf("got %q, want %q", said.String(), state)
		}
	}
	if _, err := os.Stat(string(f)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory is still there: %v", err)
	}
}

func TestUpTellsWhyServeEnded(t *testing.T) {
	t.Setenv(runMainVariable, "1")
	t.Setenv(assetsVariable,
		assets(t, map[string]string{"etcd": "echo bad flag; exit 2", "kube-apiserver": "exit 1", "kubectl": "exit 1"}))
	f := clusterDirectory(filepath.Join(t.TempDir(), "cluster"))
	err := up(t.Context(), options{dir: string(f)}, &strings.Builder{}, &strings.Builder{})
	want := "serve ended: exit status 1; last lines of " + f.serveLog() + ":\n" +
		"cluster: etcd ended: exit status 2; last lines of " + f.etcdLog() + ":\nbad flag"
	if err == nil || err.Error() != want {
		t.Errorf("got error %v, want %q", err, want)
	}
}

func TestShellQuote(t *testing.T) {
	for word, want := range map[string]string{
		"/home/me/.cluster/kubeconfig": "/home/me/.cluster/kubeconfig",
		"/home/me too/kubectl":         "'/home/me too/kubectl'",
		"it's":                         `'it'\''s'`,
		"$HOME":                        "'$HOME'",
		"":                             "''",
	} {
		if got := shellQuote(word); got != want {
			t.Errorf("%q: got %s, want %s", word, got, want)
		}
	}
}
