// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// script is the argument list for /bin/sh.
func script(text string) []string { return []string{"-c", text} }

func TestTail(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	var log strings.Builder
	for i := range 20000 {
		fmt.Fprintf(&log, "line %d\n", i)
	}
	if err := os.WriteFile(path, []byte(log.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(tail(path), "\n")
	if len(lines) != 20 || lines[0] != "line 19980" || lines[19] != "line 19999" {
		t.Errorf("got %q", lines)
	}
	if got := tail(path + ".not"); !strings.Contains(got, "no such file") {
		t.Errorf("of a log that is not there: got %q", got)
	}
}

func TestLastLines(t *testing.T) {
	for text, want := range map[string]string{
		"":            "",
		"a\n":         "a",
		"a\nb\n":      "a\nb",
		"a\nb\nc\n\n": "b\nc",
	} {
		if got := lastLines(text, 2); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

func TestStop(t *testing.T) {
	for name, tt := range map[string]struct {
		script string
		grace  time.Duration
		signal syscall.Signal
	}{
		"Orderly":  {script: "echo up; exec sleep 600", grace: time.Minute, signal: syscall.SIGTERM},
		"Stubborn": {script: "trap '' TERM; echo up; exec sleep 600", grace: 50 * time.Millisecond, signal: syscall.SIGKILL},
	} {
		t.Run(name, func(t *testing.T) {
			log := filepath.Join(t.TempDir(), "log")
			p, err := start("sh", "/bin/sh", script(tt.script), log, childAttributes())
			if err != nil {
				t.Fatal(err)
			}
			eventually(t, time.Minute, "its first words", func() bool { return tail(log) == "up" })
			if err := p.stop(tt.grace); err != nil {
				t.Fatal(err)
			}
			if got := p.cmd.ProcessState.Sys().(syscall.WaitStatus).Signal(); got != tt.signal {
				t.Errorf("ended by %s, want %s", got, tt.signal)
			}
			if err := p.stop(tt.grace); err != nil {
				t.Errorf("to stop it again: %v", err)
			}
		})
	}
}

func TestStartOnFreePort(t *testing.T) {
	ready := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer ready.Close()
	unavailable := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	defer unavailable.Close()
	const (
		runs    = "echo starting; exec sleep 600"
		collide = "echo listen tcp 127.0.0.1:1: bind: address already in use; exit 1"
		broken  = "echo bad flag; exit 3"
	)

	tests := map[string]struct {
		scripts []string // of each attempt; all but the last are not ready
		ready   bool     // the last is
		timeout time.Duration
		want    string // in the error, if one is expected
	}{
		"AtOnce":         {scripts: []string{runs}, ready: true, timeout: time.Minute},
		"AfterCollision": {scripts: []string{collide, collide, runs}, ready: true, timeout: time.Minute},
		"AlwaysCollides": {
			scripts: []string{collide, collide, collide, collide, collide},
			timeout: time.Minute,
			want:    "address already in use",
		},
		"Broken": {
			scripts: []string{broken},
			timeout: time.Minute,
			want:    "thing ended: exit status 3; last lines of ",
		},
		"NotInTime": {
			scripts: []string{runs},
			timeout: 3 * time.Second,
			want:    "thing is not ready after 3s (" + unavailable.URL + " returned 503 Service Unavailable); last lines of ",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			attempts := 0
			p, port, err := startOnFreePort(t.Context(), "thing", "/bin/sh", filepath.Join(t.TempDir(), "log"), tt.timeout,
				func(int) []string {
					attempts++
					return script(tt.scripts[attempts-1])
				},
				func(int) []probe {
					url := unavailable.URL
					if tt.ready && attempts == len(tt.scripts) {
						url = ready.URL
					}
					return []probe{{client: http.DefaultClient, url: url}}
				})
			if attempts != len(tt.scripts) {
				t.Errorf("got %d attempts, want %d", attempts, len(tt.scripts))
			}
			if tt.want != "" {
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("got error %v, want %q in it", err, tt.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if port == 0 {
				t.Error("got no port")
			}
			if err := p.stop(time.Minute); err != nil {
				t.Error(err)
			}
		})
	}
}
