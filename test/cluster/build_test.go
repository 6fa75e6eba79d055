// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// tinyModule contains a command that builds quickly.
func tinyModule(t *testing.T, source string) (place, command) {
	t.Helper()
	module := t.TempDir()
	for name, content := range map[string]string{
		"go.mod":  "module example.test/tiny\n\ngo 1.26.0\n",
		"main.go": source,
	} {
		if err := os.WriteFile(filepath.Join(module, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return place{directory: t.TempDir(), module: module}, command{name: "tiny", importPath: "example.test/tiny"}
}

func TestBuild(t *testing.T) {
	p, c := tinyModule(t, "package main\n\nfunc main() {}\n")
	var progress strings.Builder
	d := newDisplay(&progress, c.name)
	if err := build(t.Context(), p, []command{c}, d); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join(p.directory, "tiny")); err != nil || info.Mode()&0o100 == 0 {
		t.Errorf("no executable: %v, %v", info, err)
	}
	if left, err := filepath.Glob(filepath.Join(p.directory, "partial-*")); err != nil || len(left) > 0 {
		t.Errorf("partial files are still there: %v, %v", left, err)
	}
	if d.state.compiled < 1 || d.state.total < d.state.compiled || !d.state.linking {
		t.Errorf("got %+v, want at least the command itself compiled", d.state)
	}
	if !strings.HasPrefix(progress.String(), "tiny: built in ") {
		t.Errorf("got progress %q", progress.String())
	}
}

func TestBuildFails(t *testing.T) {
	p, c := tinyModule(t, "package main\n\nfunc main() { nonsense() }\n")
	err := build(t.Context(), p, []command{c}, newDisplay(&strings.Builder{}, c.name))
	if err == nil || !strings.HasPrefix(err.Error(), "go build tiny: exit status 1\n") ||
		!strings.Contains(err.Error(), "undefined: nonsense") {
		t.Errorf("got error %v, want the compiler's message", err)
	}
	if _, err := os.Stat(filepath.Join(p.directory, "tiny")); !os.IsNotExist(err) {
		t.Errorf("a failed build left a binary: %v", err)
	}
}

func TestBatches(t *testing.T) {
	for name, tt := range map[string]struct {
		commands []command
		want     []string
	}{
		"ControlPlane": {commands, []string{"etcd, kubectl, kube-apiserver"}},
		"Node":         {nodeCommands, []string{"8 programs", "runc"}},
		"One":          {commands[1:2], []string{"kubectl"}},
		"None":         {nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, batch := range batches(tt.commands) {
				got = append(got, batchName(batch))
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestExecutable(t *testing.T) {
	for importPath, want := range map[string]string{
		"go.etcd.io/etcd/server/v3":        "server",
		"k8s.io/kubernetes/cmd/kubectl":    "kubectl",
		"github.com/opencontainers/runc":   "runc",
		"k8s.io/kubernetes/cmd/kube-proxy": "kube-proxy",
	} {
		if got := (command{importPath: importPath}).executable(); got != want {
			t.Errorf("%s: got %s, want %s", importPath, got, want)
		}
	}
}

func TestProgressLine(t *testing.T) {
	tests := map[string]struct {
		state   state
		elapsed time.Duration
		want    string
	}{
		"Downloading": {
			state:   state{downloaded: 120},
			elapsed: 20 * time.Second,
			want:    "etcd: 120 modules downloaded, 20s",
		},
		"Compiling": {
			state:   state{downloaded: 120, compiled: 812, total: 1650},
			elapsed: 200*time.Second + time.Millisecond,
			want:    "etcd: 812 of at most 1650 packages compiled, 3m20s",
		},
		"AllCached": {
			state:   state{total: 1650},
			elapsed: time.Second,
			want:    "etcd: 0 of at most 1650 packages compiled, 1s",
		},
		"Linking": {
			state:   state{compiled: 812, total: 1650, linking: true},
			elapsed: time.Hour,
			want:    "etcd: linking, 1h0m0s",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := progressLine("etcd", tt.state, tt.elapsed); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestDisplay(t *testing.T) {
	for name, tt := range map[string]struct {
		terminal bool
		want     string
	}{
		"Log": {want: "etcd: 0 modules downloaded, 0s\netcd: 0 modules downloaded, 0s\netcd: built in 0s\n"},
		"Terminal": {
			terminal: true,
			want:     "\r\x1b[Ketcd: 0 modules downloaded, 0s\r\x1b[Ketcd: 0 modules downloaded, 0s\r\x1b[Ketcd: built in 0s\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			d := newDisplay(&out, "etcd")
			d.terminal = tt.terminal
			d.show()
			d.show()
			d.finish()
			if out.String() != tt.want {
				t.Errorf("got %q, want %q", out.String(), tt.want)
			}
		})
	}
}
