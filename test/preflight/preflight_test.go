// SPDX-License-Identifier: Apache-2.0

// Package preflight_test runs the check of what make needs with other programs in
// its PATH.
package preflight_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// goProgram is a go command whose answers to "go env" are those given: its version,
// its GOPROXY and its C compiler.
func goProgram(version, proxy, compiler string) string {
	return `case $2 in GOVERSION) ` + version + ` ;; GOPROXY) echo ` + proxy + ` ;; CC) echo ` + compiler + ` ;; esac`
}

func TestPreflight(t *testing.T) {
	const (
		proxy   = "https://proxy.example.com,direct"
		nothing = "true"
	)
	linux := "echo Linux"
	current := goProgram("echo go1.26.8", proxy, "gcc")
	for name, c := range map[string]struct {
		programs  map[string]string
		arguments []string
		want      string
	}{
		"all there": {
			programs:  map[string]string{"uname": linux, "go": current, "git": nothing, "gcc": nothing},
			arguments: []string{"test", "cc"},
		},
		"a later Go": {
			programs:  map[string]string{"uname": linux, "go": goProgram("echo go1.101rc1", proxy, "gcc")},
			arguments: []string{"demo"},
		},
		"Go built from its repository": {
			programs:  map[string]string{"uname": linux, "go": goProgram("echo devel go1.28-abcdef", proxy, "gcc")},
			arguments: []string{"demo"},
		},
		"neither git nor a C compiler, and neither is needed": {
			programs:  map[string]string{"uname": linux, "go": current},
			arguments: []string{"demo"},
		},
		"no Go": {
			programs:  map[string]string{"uname": linux},
			arguments: []string{"demo"},
			want:      "make demo needs Go 1.26 or later: https://go.dev/dl/\n",
		},
		"an old Go": {
			programs:  map[string]string{"uname": linux, "go": goProgram("echo go1.22.2", proxy, "gcc")},
			arguments: []string{"demo"},
			want:      "make demo needs Go 1.26 or later, this is go1.22.2: https://go.dev/dl/\n",
		},
		"an old Go that cannot download a newer one": {
			programs: map[string]string{
				"uname": linux,
				"go":    goProgram(`[ "$GOTOOLCHAIN" = local ] || exit 1; echo go1.21.0`, proxy, "gcc"),
			},
			arguments: []string{"demo"},
			want:      "make demo needs Go 1.26 or later, this is go1.21.0: https://go.dev/dl/\n",
		},
		"a Go that does not say its version": {
			programs:  map[string]string{"uname": linux, "go": "exit 2"},
			arguments: []string{"demo"},
			want:      "make demo needs Go 1.26 or later, this is another version: https://go.dev/dl/\n",
		},
		"no git, modules from their repositories": {
			programs:  map[string]string{"uname": linux, "go": goProgram("echo go1.26.8", "direct", "gcc")},
			arguments: []string{"demo"},
			want:      "make demo needs git, because GOPROXY=direct: apt-get install git\n",
		},
		"no C compiler": {
			programs:  map[string]string{"uname": linux, "go": goProgram("echo go1.26.8", proxy, "clang")},
			arguments: []string{"test", "cc"},
			want:      "make test needs a C compiler (clang), for Go's race detector: apt-get install gcc libc6-dev\n",
		},
		"another system, and nothing there": {
			programs:  map[string]string{"uname": "echo Darwin"},
			arguments: []string{"test", "cc"},
			want: "make test needs Linux, this is Darwin: run it in a container or a virtual machine\n" +
				"make test needs Go 1.26 or later: https://go.dev/dl/\n" +
				"make test needs a C compiler (gcc), for Go's race detector: apt-get install gcc libc6-dev\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			folder := t.TempDir()
			for program, script := range c.programs {
				text := []byte("#!/bin/sh\n" + script + "\n")
				if err := os.WriteFile(filepath.Join(folder, program), text, 0o700); err != nil {
					t.Fatal(err)
				}
			}
			command := exec.CommandContext(
				t.Context(),
				"/bin/sh",
				append([]string{"test/preflight/preflight.sh"}, c.arguments...)...)
			command.Dir = filepath.Join("..", "..")
			command.Env = []string{"PATH=" + folder}
			var stderr bytes.Buffer
			command.Stderr = &stderr
			err := command.Run()
			if d := cmp.Diff(c.want, stderr.String()); d != "" {
				t.Errorf("stderr (-want +got):\n%s", d)
			}
			exit := 0
			if failed, ok := errors.AsType[*exec.ExitError](err); ok {
				exit = failed.ExitCode()
			} else if err != nil {
				t.Fatal(err)
			}
			if want := min(len(c.want), 1); exit != want {
				t.Errorf("the exit code is %d, want %d", exit, want)
			}
		})
	}
}

// TestDemoIsQuick: only make demo alone is built for speed, and only without GO_RELEASE, which CI sets.
func TestDemoIsQuick(t *testing.T) {
	for name, c := range map[string]struct {
		arguments []string
		want      bool
	}{
		"demo":               {[]string{"demo"}, true},
		"demo-down":          {[]string{"demo-down"}, true},
		"with GO_RELEASE":    {[]string{"demo", "GO_RELEASE=local"}, false},
		"and another target": {[]string{"demo", "help"}, false},
		"another target":     {[]string{"help", "GO_RELEASE=local"}, false},
		"no target":          {[]string{"GO_RELEASE=local"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			command := exec.CommandContext(t.Context(), "make", append([]string{"-pn"}, c.arguments...)...)
			command.Dir = filepath.Join("..", "..")
			command.Env = slices.DeleteFunc(os.Environ(), func(variable string) bool {
				name, _, _ := strings.Cut(variable, "=")
				return slices.Contains([]string{"GO_RELEASE", "DEMO_QUICK", "GOFLAGS", "GOWORK", "MAKEFLAGS"}, name)
			})
			database, err := command.Output()
			if err != nil {
				t.Fatal(err)
			}
			for _, variable := range []string{"DEMO_QUICK := 1\n", "GOWORK := ", "'-gcflags=all=-l -dwarf=false'\n"} {
				if got := bytes.Contains(database, []byte(variable)); got != c.want {
					t.Errorf("%q is set: %t, want %t", variable, got, c.want)
				}
			}
		})
	}
}
