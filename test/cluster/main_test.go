// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// runMainVariable makes the test binary run as the program, so that tests can start
// it, kill it and let it start itself in the background.
const runMainVariable = "KUBELET_HTTPS_GUARD_CLUSTER_TEST_RUN_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(runMainVariable) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// program returns the program, not started yet.
func program(t *testing.T, arguments ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, arguments...)
	cmd.Env = append(os.Environ(), runMainVariable+"=1")
	return cmd
}

// eventually waits for a condition, which must come true within the timeout.
func eventually(t *testing.T, timeout time.Duration, what string, condition func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-ctx.Done():
			t.Fatalf("%s: not within %s", what, timeout)
		case <-tick.C:
		}
	}
}

// realBinaries returns the real binaries and builds them if necessary.
func realBinaries(t *testing.T) binaries {
	t.Helper()
	ctx := t.Context()
	if deadline, ok := t.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline.Add(-time.Minute))
		defer cancel()
	}
	b, err := ensureBinaries(ctx, os.Stderr)
	if err != nil {
		t.Fatalf("%v\n(A cold build may take longer than go test waits: run the command build first.)", err)
	}
	return b
}

// kubectlOutput runs kubectl and returns what it prints.
func kubectlOutput(t *testing.T, kubectl, kubeconfig string, arguments ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), kubectl, arguments...)
	// HOME contains the discovery cache.
	cmd.Env = append(os.Environ(), "KUBECONFIG="+kubeconfig, "HOME="+t.TempDir())
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("kubectl %s: %v\n%s", strings.Join(arguments, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

func TestParse(t *testing.T) {
	working, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	repository := filepath.Dir(filepath.Dir(working))

	tests := map[string]struct {
		arguments []string
		command   string
		options   options
		usage     string // text of the usageError, if one is expected
	}{
		"Build": {arguments: []string{"build"}, command: "build"},
		"Paths": {arguments: []string{"paths"}, command: "paths"},
		"Serve": {
			arguments: []string{"serve", "--dir", "/d"},
			command:   "serve",
			options:   options{dir: "/d"},
		},
		"ServeRelative": {
			arguments: []string{"serve", "--dir=d"},
			command:   "serve",
			options:   options{dir: filepath.Join(working, "d")},
		},
		"ServeUntil": {
			arguments: []string{"serve", "--until-stdin-closes", "--dir", "/d"},
			command:   "serve",
			options:   options{dir: "/d", untilStdinCloses: true},
		},
		"UpDefault": {
			arguments: []string{"up"},
			command:   "up",
			options:   options{dir: filepath.Join(repository, ".cluster")},
		},
		"DownDefault": {
			arguments: []string{"down"},
			command:   "down",
			options:   options{dir: filepath.Join(repository, ".cluster")},
		},
		"BuildQuick": {
			arguments: []string{"build", "--quick"}, command: "build", options: options{quick: true},
		},
		"BuildNode": {arguments: []string{"build", "--node"}, command: "build", options: options{node: true}},
		"ServeNode": {
			arguments: []string{"serve", "--node", "--dir", "/d"},
			command:   "serve",
			options:   options{dir: "/d", node: true},
		},
		"UpNode": {
			arguments: []string{"up", "--node"},
			command:   "up",
			options:   options{dir: filepath.Join(repository, ".node"), node: true},
		},
		"DownNode": {
			arguments: []string{"down", "--node"},
			command:   "down",
			options:   options{dir: filepath.Join(repository, ".node"), node: true},
		},
		"Load": {
			arguments: []string{"load", "--dir", "/d", "i.tar"},
			command:   "load",
			options:   options{dir: "/d", archive: filepath.Join(working, "i.tar")},
		},
		"Join": {arguments: []string{"join", "--dir", "/d"}, command: "join", options: options{dir: "/d"}},
		"JoinWithArguments": {
			arguments: []string{"join", "--dir", "/d", "--", "--etcd-prefix=/other", "--v=2"},
			command:   "join",
			options:   options{dir: "/d", arguments: []string{"--etcd-prefix=/other", "--v=2"}},
		},
		"LoadWithoutDir":     {arguments: []string{"load", "i.tar"}, usage: "load: missing --dir"},
		"LoadWithoutArchive": {arguments: []string{"load", "--dir", "/d"}, usage: "load: missing archive"},
		"LoadTwo": {
			arguments: []string{"load", "--dir", "/d", "i.tar", "j.tar"},
			usage:     `load: unexpected argument "j.tar"`,
		},
		"NodeInRun": {
			arguments: []string{"up", "--node", "--dir", "/run/node"},
			usage:     `up: --dir "/run/node" is in /run, which a node mounts separately`,
		},
		"PathsNode": {
			arguments: []string{"paths", "--node"},
			usage:     "paths: flag provided but not defined: -node",
		},
		"DownDir":         {arguments: []string{"down", "--dir", "/d"}, command: "down", options: options{dir: "/d"}},
		"Nothing":         {usage: "missing command"},
		"Unknown":         {arguments: []string{"start"}, usage: `unknown command "start"`},
		"ServeWithoutDir": {arguments: []string{"serve"}, usage: "serve: missing --dir"},
		"UnknownFlag":     {arguments: []string{"up", "--fast"}, usage: "up: flag provided but not defined: -fast"},
		"FlagOfAnother": {
			arguments: []string{"up", "--until-stdin-closes"},
			usage:     "up: flag provided but not defined: -until-stdin-closes",
		},
		"UnexpectedArgument": {arguments: []string{"down", "now"}, usage: `down: unexpected argument "now"`},
		"Comma": {
			arguments: []string{"up", "--dir", "/a,b"},
			usage:     `up: --dir "/a,b" contains a comma or a line break`,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			command, options, err := parse(tt.arguments)
			if tt.usage != "" {
				usage, ok := errors.AsType[usageError](err)
				if !ok || usage.text != tt.usage {
					t.Fatalf("got error %v, want usage error %q", err, tt.usage)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if command != tt.command || !reflect.DeepEqual(options, tt.options) {
				t.Errorf("got %s %+v, want %s %+v", command, options, tt.command, tt.options)
			}
		})
	}
}

func TestParseHelp(t *testing.T) {
	for _, arguments := range [][]string{{"help"}, {"--help"}, {"up", "-h"}} {
		if _, _, err := parse(arguments); !errors.Is(err, flag.ErrHelp) {
			t.Errorf("%q: got error %v, want %v", arguments, err, flag.ErrHelp)
		}
	}
}

func TestExitStatus(t *testing.T) {
	tests := map[string]struct {
		arguments []string
		status    int
		stderr    string
	}{
		"Usage": {
			arguments: []string{"nonsense"}, status: exitUsage,
			stderr: "cluster: unknown command \"nonsense\"\n\nUsage: ",
		},
		"Failure": {arguments: []string{"paths"}, status: 1, stderr: "cluster: KUBEBUILDER_ASSETS"},
		"Help":    {arguments: []string{"help"}, status: 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var stderr strings.Builder
			cmd := program(t, tt.arguments...)
			cmd.Env = append(cmd.Env, assetsVariable+"="+t.TempDir())
			cmd.Stderr = &stderr
			// A non-zero exit status is an error here; it is checked below.
			_ = cmd.Run()
			if got := cmd.ProcessState.ExitCode(); got != tt.status {
				t.Errorf("got exit status %d, want %d", got, tt.status)
			}
			if !strings.HasPrefix(stderr.String(), tt.stderr) {
				t.Errorf("got stderr %q, want it to start with %q", stderr.String(), tt.stderr)
			}
		})
	}
}

func TestUntilClosed(t *testing.T) {
	r, w := io.Pipe()
	ctx := untilClosed(t.Context(), r)
	if _, err := io.WriteString(w, "still here"); err != nil {
		t.Fatal(err)
	}
	if err := ctx.Err(); err != nil {
		t.Fatalf("ended while the stream is open: %v", err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	<-ctx.Done()
	if got, want := context.Cause(ctx).Error(), "stdin was closed"; got != want {
		t.Errorf("got cause %q, want %q", got, want)
	}
}
