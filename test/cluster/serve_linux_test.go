// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// startTimeout is longer than a start takes on a busy machine.
const startTimeout = 5 * time.Minute

// served is a running serve.
type served struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stdout *bufio.Reader
	stderr *strings.Builder // read only after it has ended
}

func startServe(t *testing.T, dir string, more ...string) *served {
	t.Helper()
	return startProgram(t, append([]string{"serve", "--dir", dir, "--until-stdin-closes"}, more...)...)
}

func startProgram(t *testing.T, arguments ...string) *served {
	t.Helper()
	cmd := program(t, arguments...)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr := &strings.Builder{}
	cmd.Stderr = stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return &served{cmd: cmd, stdin: stdin, stdout: bufio.NewReader(stdout), stderr: stderr}
}

// processStat returns the parent of a process and whether it is running. A zombie is
// not running.
func processStat(pid int) (parent int, running bool) {
	data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return 0, false
	}
	// "PID (NAME) STATE PARENT ...", and NAME can contain any characters.
	fields := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
	parent, _ = strconv.Atoi(fields[1])
	return parent, fields[0] != "Z" && fields[0] != "X"
}

func children(t *testing.T, of int) []int {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		if parent, running := processStat(pid); running && parent == of {
			pids = append(pids, pid)
		}
	}
	return pids
}

func noneRuns(pids []int) func() bool {
	return func() bool {
		for _, pid := range pids {
			if _, running := processStat(pid); running {
				return false
			}
		}
		return true
	}
}

// TestServe serves a real control plane.
func TestServe(t *testing.T) {
	b := realBinaries(t)
	f := clusterDirectory(filepath.Join(t.TempDir(), "cluster"))
	begin := time.Now()
	s := startServe(t, string(f))
	line, err := s.stdout.ReadString('\n')
	if err != nil {
		t.Fatalf("no ready line: %v, %v\n%s", err, s.cmd.Wait(), s.stderr)
	}
	t.Logf("ready after %s", time.Since(begin).Round(10*time.Millisecond))
	if want := readyLine(f.kubeconfig(), b.kubectl) + "\n"; line != want {
		t.Fatalf("got %q, want %q", line, want)
	}
	pids := children(t, s.cmd.Process.Pid)
	if len(pids) != 2 {
		t.Errorf("got children %v, want etcd and kube-apiserver", pids)
	}

	kubectl := func(arguments ...string) string {
		t.Helper()
		return kubectlOutput(t, b.kubectl, f.kubeconfig(), arguments...)
	}
	if got := kubectl("get", "--raw", "/readyz"); got != "ok" {
		t.Errorf("readyz: got %q", got)
	}
	if got := kubectl("get", "namespace", "default", "-o", "name"); got != "namespace/default" {
		t.Errorf("got %q", got)
	}
	if got := kubectl("auth", "whoami", "--as=alice", "--as-group=auditors", "-o",
		"jsonpath={.status.userInfo.username} {.status.userInfo.groups}"); got != `alice ["auditors","system:authenticated"]` {
		t.Errorf("impersonation: got %q", got)
	}
	kubectl("create", "serviceaccount", "agent")
	if got := kubectl("auth", "whoami", "--token="+kubectl("create", "token", "agent"), "-o",
		"jsonpath={.status.userInfo.username}"); got != "system:serviceaccount:default:agent" {
		t.Errorf("token of a service account: got %q", got)
	}
	if got := kubectl("create", "secret", "generic", "audited", "--from-literal=key=value", "-o",
		"name"); got != "secret/audited" {
		t.Errorf("got %q", got)
	}
	checkAudited(t, f, "audited")

	joined := startProgram(t, "join", "--dir", string(f), "--until-stdin-closes", "--",
		"--disable-admission-plugins=ValidatingAdmissionPolicy")
	line, err = joined.stdout.ReadString('\n')
	if err != nil {
		t.Fatalf("no ready line: %v, %v\n%s", err, joined.cmd.Wait(), joined.stderr)
	}
	address := strings.TrimPrefix(strings.TrimSpace(line), "ready ADDRESS=")
	if got := kubectl("--server", "https://"+address, "get", "secret", "audited", "-o", "name"); got != "secret/audited" {
		t.Errorf("the API server that joined: got %q", got)
	}
	joined.stdin.Close()
	if err := joined.cmd.Wait(); err != nil {
		t.Errorf("join: %v\n%s", err, joined.stderr)
	}

	// An open watch must not delay the shutdown.
	watch := exec.CommandContext(t.Context(), b.kubectl, "--kubeconfig", f.kubeconfig(),
		"get", "secrets", "--watch", "--output-watch-events", "-o", "name")
	events, err := watch.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := watch.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(events).ReadString('\n'); err != nil {
		t.Fatal(err)
	}

	begin = time.Now()
	s.stdin.Close()
	if err := s.cmd.Wait(); err != nil {
		t.Errorf("serve: %v\n%s", err, s.stderr)
	}
	t.Logf("stopped after %s", time.Since(begin).Round(10*time.Millisecond))
	if took := time.Since(begin); took >= apiServerStopGrace+etcdStopGrace {
		t.Errorf("kube-apiserver was killed: the shutdown took %s", took)
	}
	if !noneRuns(pids)() {
		t.Errorf("of the children %v one is left", pids)
	}
	if s, err := f.status(); err != nil || s != (status{}) {
		t.Errorf("got %+v, %v, want nothing running", s, err)
	}
	_ = watch.Process.Kill() // it ends with its server anyway
	_ = watch.Wait()
}

// checkAudited finds the creation of a secret in the audit log, as the tests of the
// webhook do for its annotations.
func checkAudited(t *testing.T, f clusterDirectory, secret string) {
	t.Helper()
	file, err := os.Open(f.auditLog())
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	decoder := json.NewDecoder(file)
	for {
		var event struct {
			Level, Verb string
			ObjectRef   struct{ Resource, Name string }
			Annotations map[string]string
		}
		if err := decoder.Decode(&event); err != nil {
			t.Errorf("the creation of %s is not in the audit log: %v", secret, err)
			return
		}
		if event.Verb != "create" || event.ObjectRef.Resource != "secrets" || event.ObjectRef.Name != secret {
			continue
		}
		if event.Level != "Metadata" || event.Annotations["authorization.k8s.io/decision"] != "allow" {
			t.Errorf("got %+v", event)
		}
		return
	}
}

// sleeper is an etcd that never becomes ready.
var sleeper = map[string]string{"etcd": "exec sleep 600", "kube-apiserver": "exit 1", "kubectl": "exit 1"}

func TestKilledServeLeavesNoChild(t *testing.T) {
	t.Setenv(assetsVariable, assets(t, sleeper))
	s := startServe(t, filepath.Join(t.TempDir(), "cluster"))
	var pids []int
	eventually(t, startTimeout, "a child of serve", func() bool {
		pids = children(t, s.cmd.Process.Pid)
		return len(pids) > 0
	})
	if err := s.cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = s.cmd.Wait() // says that it was killed
	eventually(t, time.Minute, "the end of its children", noneRuns(pids))
}

func TestServeStoppedWhileStarting(t *testing.T) {
	for name, tt := range map[string]struct {
		stop func(*served) error
		want string
	}{
		"StdinCloses": {
			stop: func(s *served) error { return s.stdin.Close() },
			want: "cluster: stopped while etcd was starting: stdin was closed\n",
		},
		"Signal": {
			stop: func(s *served) error { return s.cmd.Process.Signal(syscall.SIGTERM) },
			want: "cluster: stopped while etcd was starting: terminated signal received\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(assetsVariable, assets(t, sleeper))
			s := startServe(t, filepath.Join(t.TempDir(), "cluster"))
			var pids []int
			eventually(t, startTimeout, "a child of serve", func() bool {
				pids = children(t, s.cmd.Process.Pid)
				return len(pids) > 0
			})
			if err := tt.stop(s); err != nil {
				t.Fatal(err)
			}
			if err := s.cmd.Wait(); err == nil || s.stderr.String() != tt.want {
				t.Errorf("got %v, %q, want %q", err, s.stderr, tt.want)
			}
			if !noneRuns(pids)() {
				t.Errorf("of the children %v one is left", pids)
			}
		})
	}
}

func TestServeTellsWhyAChildDied(t *testing.T) {
	t.Setenv(assetsVariable, assets(t, map[string]string{
		"etcd": "echo first; echo bad flag; exit 2", "kube-apiserver": "exit 1", "kubectl": "exit 1",
	}))
	f := clusterDirectory(filepath.Join(t.TempDir(), "cluster"))
	s := startServe(t, string(f))
	err := s.cmd.Wait()
	want := "cluster: etcd ended: exit status 2; last lines of " + f.etcdLog() + ":\nfirst\nbad flag\n"
	if err == nil || s.stderr.String() != want {
		t.Errorf("got %v, %q, want %q", err, s.stderr, want)
	}
}
