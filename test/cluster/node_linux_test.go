// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// nodeVariable enables the tests that run a node: they need root and change the cgroups
// of the machine while they run.
const nodeVariable = "CLUSTER_TEST_NODE"

func nodeWanted(t *testing.T) {
	t.Helper()
	if os.Getenv(nodeVariable) == "" {
		t.Skipf("runs a node as root: only with %s=1", nodeVariable)
	}
	if os.Geteuid() != 0 {
		t.Fatalf("%s is set, but this is not root", nodeVariable)
	}
}

// machine is the state of the machine that a node must not change.
type machine struct {
	mounts, devices, cgroups string
	settings                 map[string]string
	directories              map[string]bool
}

func lookAtMachine(t *testing.T) machine {
	t.Helper()
	read := func(path string) string {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	m := machine{settings: map[string]string{}, directories: map[string]bool{}}
	for line := range strings.Lines(read("/proc/self/mountinfo")) {
		// Without the options: the peer groups of shared mounts vary.
		m.mounts += strings.Fields(line)[4] + "\n"
	}
	for path := range settings {
		m.settings[path] = read(path)
	}
	for _, path := range []string{
		"/etc/cni", "/etc/kubernetes", "/opt/cni", "/opt/containerd", "/run/containerd", "/run/netns", "/run/xtables.lock",
		"/usr/libexec/kubernetes", "/var/lib/cni", "/var/lib/containerd", "/var/lib/kubelet", "/var/log/containers",
		"/var/log/pods",
	} {
		_, err := os.Stat(path)
		m.directories[path] = err == nil
	}
	devices, err := os.ReadDir("/sys/class/net")
	if err != nil {
		t.Fatal(err)
	}
	for _, device := range devices {
		m.devices += device.Name() + "\n"
	}
	h, err := readHierarchies()
	if err != nil {
		t.Fatal(err)
	}
	for _, tree := range h.all() {
		found, err := filepath.Glob(filepath.Join(tree, "kubelet-https-guard-node-*"))
		if err != nil {
			t.Fatal(err)
		}
		m.cgroups += strings.Join(found, "\n")
	}
	return m
}

// check compares everything except the cgroups, which a running node changes.
func (m machine) check(t *testing.T, now machine) {
	t.Helper()
	if now.mounts != m.mounts {
		t.Errorf("mounts: got\n%s\nwant\n%s", now.mounts, m.mounts)
	}
	if now.devices != m.devices {
		t.Errorf("network devices: got\n%s\nwant\n%s", now.devices, m.devices)
	}
	if !maps.Equal(now.settings, m.settings) {
		t.Errorf("settings of the kernel: got %v, want %v", now.settings, m.settings)
	}
	if !maps.Equal(now.directories, m.directories) {
		t.Errorf("directories that exist: got %v, want %v", now.directories, m.directories)
	}
}

// members returns the processes of the node with this process 1, including zombies.
func members(t *testing.T, init int) []int {
	t.Helper()
	namespace := func(pid int) string {
		link, _ := os.Readlink(filepath.Join("/proc", strconv.Itoa(pid), "ns", "pid"))
		return link
	}
	want := namespace(init)
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, entry := range entries {
		if pid, err := strconv.Atoi(entry.Name()); err == nil && want != "" && namespace(pid) == want {
			pids = append(pids, pid)
		}
	}
	return pids
}

const (
	proberImage = "example.test/prober:1"
	proberPods  = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: prober}
spec:
  replicas: 2
  selector: {matchLabels: {app: prober}}
  template:
    metadata: {labels: {app: prober}}
    spec:
      tolerations: [{operator: Exists}]
      containers:
      - name: prober
        image: ` + proberImage + `
        imagePullPolicy: Never
        readinessProbe: {httpGet: {path: /ready, port: 8080}, periodSeconds: 1}
        volumeMounts: [{name: kubernetes, mountPath: /etc/kubernetes, readOnly: true}]
      volumes:
      - name: kubernetes
        hostPath: {path: /etc/kubernetes, type: Directory}
---
apiVersion: v1
kind: Service
metadata: {name: prober}
spec:
  clusterIP: 10.96.7.7
  selector: {app: prober}
  ports: [{port: 80, targetPort: 8080}]
`
)

// TestNode runs a real node.
func TestNode(t *testing.T) {
	nodeWanted(t)
	prober := filepath.Join(t.TempDir(), "prober")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", prober, "./testdata/prober")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	binaries, err := ensureNode(t.Context(), os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	f := clusterDirectory(filepath.Join(t.TempDir(), "a node"))
	before := lookAtMachine(t)

	begin := time.Now()
	s := startServe(t, string(f), "--node")
	line, err := s.stdout.ReadString('\n')
	if err != nil {
		t.Fatalf("no ready line: %v, %v\n%s", err, s.cmd.Wait(), s.stderr)
	}
	t.Logf("ready after %s", time.Since(begin).Round(10*time.Millisecond))
	kubectlPath := nodeBinariesIn(binaries).kubectl
	if want := readyLine(f.kubeconfig(), kubectlPath) + "\n"; line != want {
		t.Fatalf("got %q, want %q", line, want)
	}
	n := &runningNode{t: t, f: f, kubectl: kubectlPath}

	if got := n.run("get", "node", nodeName, "-o",
		"jsonpath={.spec.taints[*].key} {.metadata.labels}"); !strings.HasPrefix(got,
		"node-role.kubernetes.io/control-plane {") ||
		!strings.Contains(got, `"node-role.kubernetes.io/control-plane":""`) ||
		!strings.Contains(got, `"node-role.kubernetes.io/master":""`) {
		t.Errorf("the Node: got %s", got)
	}

	n.load(prober)
	if err := os.WriteFile(filepath.Join(f.etcKubernetes(), "from-outside"), []byte("seen"), 0o644); err != nil {
		t.Fatal(err)
	}
	pods := filepath.Join(t.TempDir(), "pods.yaml")
	if err := os.WriteFile(pods, []byte(proberPods), 0o600); err != nil {
		t.Fatal(err)
	}
	begin = time.Now()
	n.run("apply", "-f", pods)
	n.run("rollout", "status", "deployment/prober", "--timeout=5m")
	t.Logf("pods ready after %s", time.Since(begin).Round(10*time.Millisecond))

	// The Deployment may be ready before the Service has endpoints.
	eventually(t, startTimeout, "the API server's way to the pods", func() bool {
		return exec.CommandContext(t.Context(), kubectlPath, "--kubeconfig", f.kubeconfig(), "get", "--raw",
			"/api/v1/namespaces/default/services/prober/proxy/ready").Run() == nil
	})
	t.Run("HostPath", n.testHostPath)
	t.Run("Network", func(t *testing.T) { n.testNetwork(t, prober) })
	t.Run("Kubelet", n.testKubelet)
	before.check(t, lookAtMachine(t))

	// A killed serve leaves only files.
	init := n.init()
	pids := members(t, init)
	if len(pids) < 10 {
		t.Errorf("got the processes %v, want etcd, kubelet, pods and so on", pids)
	}
	if err := s.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = s.cmd.Wait() // says that it was killed
	eventually(t, time.Minute, "the end of the node's processes", noneRuns(pids))
	eventually(t, time.Minute, "the end of its control groups",
		func() bool { return lookAtMachine(t).cgroups == before.cgroups })
	eventually(t, time.Minute, "the end of the lock", func() bool {
		s, err := f.status()
		return err == nil && !s.running
	})
	before.check(t, lookAtMachine(t))
	if err := down(t.Context(), options{dir: string(f), node: true}, &strings.Builder{}); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(string(f)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory is still there: %v", err)
	}
}

// runningNode is a node that is ready.
type runningNode struct {
	t       *testing.T
	f       clusterDirectory
	kubectl string
}

func (n *runningNode) run(arguments ...string) string {
	n.t.Helper()
	return kubectlOutput(n.t, n.kubectl, n.f.kubeconfig(), arguments...)
}

// ask sends a request to a prober through the API server.
func (n *runningNode) ask(t *testing.T, path, key, value string) string {
	t.Helper()
	return kubectlOutput(t, n.kubectl, n.f.kubeconfig(), "get", "--raw",
		"/api/v1/namespaces/default/services/prober/proxy/"+path+"?"+url.Values{key: {value}}.Encode())
}

func (n *runningNode) load(prober string) {
	n.t.Helper()
	archive := filepath.Join(n.t.TempDir(), "prober.tar")
	if err := writeImage(archive, proberImage, prober); err != nil {
		n.t.Fatal(err)
	}
	// The second import finds the existing image.
	for range 2 {
		out, err := program(n.t, "load", "--dir", string(n.f), archive).Output()
		if err != nil || string(out) != proberImage+"\n" {
			n.t.Fatalf("load: got %q, %v", out, err)
		}
	}
}

func (n *runningNode) init() int {
	n.t.Helper()
	data, err := os.ReadFile(n.f.nodePID())
	if err != nil {
		n.t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		n.t.Fatal(err)
	}
	return pid
}

func (n *runningNode) testHostPath(t *testing.T) {
	if got := n.ask(t, "read", "path", "/etc/kubernetes/from-outside"); got != "seen" {
		t.Errorf("a file from outside: got %q", got)
	}
	path := filepath.Join(n.f.etcKubernetes(), "from-outside")
	if err := os.WriteFile(path+".new", []byte("replaced"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	if got := n.ask(t, "read", "path", "/etc/kubernetes/from-outside"); got != "replaced" {
		t.Errorf("a file that was replaced: got %q", got)
	}
	if got := n.ask(t, "write", "path", "/etc/kubernetes/from-inside"); got != "open /etc/kubernetes/from-inside: "+
		"read-only file system" {
		t.Errorf("a pod writes there: got %q", got)
	}
}

func (n *runningNode) testNetwork(t *testing.T, prober string) {
	if got := n.ask(t, "fetch", "url", "https://"+serviceAddress+"/readyz"); got != "200 ok" {
		t.Errorf("from a pod to the API server: got %q", got)
	}
	// kube-proxy gets the endpoints after the pods are ready.
	eventually(t, time.Minute, "the Service's way to the pods", func() bool {
		return n.ask(t, "fetch", "url", "http://10.96.7.7/ready") == "200 ready"
	})
	// Enough requests that each pod gets some from itself and from the other.
	for range 10 {
		if got := n.ask(t, "fetch", "url", "http://10.96.7.7/ready"); got != "200 ready" {
			t.Fatalf("from a pod to a Service: got %q", got)
		}
	}
	// The same path as from kube-apiserver to a webhook.
	out, err := exec.CommandContext(t.Context(), "nsenter", "--target", strconv.Itoa(n.init()), "--net", prober,
		"http://10.96.7.7/ready").CombinedOutput()
	if err != nil || string(out) != "200 ready\n" {
		t.Errorf("from the node to a Service: got %q, %v", out, err)
	}
}

func (n *runningNode) testKubelet(t *testing.T) {
	run := func(arguments ...string) string {
		t.Helper()
		return kubectlOutput(t, n.kubectl, n.f.kubeconfig(), arguments...)
	}
	if got := run("logs", "deployment/prober"); !strings.HasSuffix(got, "serving") {
		t.Errorf("logs: got %q", got)
	}
	if got := run("exec", "deployment/prober", "--", "/program", "http://10.96.7.7/ready"); got != "200 ready" {
		t.Errorf("exec: got %q", got)
	}

	original, err := os.ReadFile(n.f.kubeletConfig())
	if err != nil {
		t.Fatal(err)
	}
	answers := func() bool {
		cmd := exec.CommandContext(t.Context(), n.kubectl, "--kubeconfig", n.f.kubeconfig(), "get", "--raw",
			"/api/v1/nodes/http:"+nodeName+":10255/proxy/healthz")
		out, err := cmd.Output()
		return err == nil && string(out) == "ok"
	}
	if answers() {
		t.Error("the read-only port answers already")
	}
	open := strings.Replace(string(original), "readOnlyPort: 0", "readOnlyPort: 10255", 1)
	if err := writeFile(n.f.kubeletConfig(), open); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	eventually(t, startTimeout, "an answer of the read-only port", answers)
	t.Logf("a kubelet with the new configuration after %s", time.Since(begin).Round(10*time.Millisecond))

	// A kubelet that cannot start is restarted with the next configuration.
	if err := writeFile(n.f.kubeletConfig(), "nonsense"); err != nil {
		t.Fatal(err)
	}
	eventually(t, startTimeout, "the end of the read-only port", func() bool { return !answers() })
	eventually(t, startTimeout, "a complaint",
		func() bool { return strings.Contains(tail(n.f.nodeLog()), "kubelet ended: exit status 1") })
	if err := writeFile(n.f.kubeletConfig(), string(original)); err != nil {
		t.Fatal(err)
	}
	eventually(t, startTimeout, "a kubelet with the old configuration", func() bool {
		cmd := exec.CommandContext(t.Context(), n.kubectl, "--kubeconfig", n.f.kubeconfig(), "get", "--raw",
			"/api/v1/nodes/"+nodeName+"/proxy/healthz")
		out, err := cmd.Output()
		return err == nil && string(out) == "ok"
	})
	// The pods were not restarted.
	if got := run("get", "pods", "-o", "jsonpath={.items[*].status.containerStatuses[*].restartCount}"); got != "0 0" {
		t.Errorf("restarts of the pods: got %q", got)
	}
}

// TestNodeUpAndDown runs a node in the background and stops it in two ways.
func TestNodeUpAndDown(t *testing.T) {
	nodeWanted(t)
	t.Setenv(runMainVariable, "1")
	before := lookAtMachine(t)
	o := options{dir: filepath.Join(t.TempDir(), "node"), node: true}
	f := clusterDirectory(o.dir)
	for name, end := range map[string]func(n *runningNode){
		"Down":         func(*runningNode) {},
		"Process1Dies": func(n *runningNode) { _ = syscall.Kill(n.init(), syscall.SIGKILL) },
	} {
		t.Run(name, func(t *testing.T) {
			begin := time.Now()
			if err := up(t.Context(), o, &strings.Builder{}, os.Stderr); err != nil {
				t.Fatal(err)
			}
			t.Logf("up after %s", time.Since(begin).Round(10*time.Millisecond))
			n := &runningNode{t: t, f: f}
			pids := members(t, n.init())
			end(n)
			begin = time.Now()
			if err := down(t.Context(), o, os.Stderr); err != nil {
				t.Fatal(err)
			}
			t.Logf("down after %s", time.Since(begin).Round(10*time.Millisecond))
			if !noneRuns(pids)() {
				t.Errorf("of the processes %v one is left", pids)
			}
			if _, err := os.Stat(o.dir); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the directory is still there: %v", err)
			}
			if got := lookAtMachine(t).cgroups; got != before.cgroups {
				t.Errorf("control groups are left: %s", got)
			}
		})
	}
	before.check(t, lookAtMachine(t))
}

// If a process ends, the node ends and serve names the process.
func TestNodeTellsWhatEnded(t *testing.T) {
	nodeWanted(t)
	f := clusterDirectory(filepath.Join(t.TempDir(), "node"))
	s := startServe(t, string(f), "--node")
	if _, err := s.stdout.ReadString('\n'); err != nil {
		t.Fatalf("no ready line: %v, %v\n%s", err, s.cmd.Wait(), s.stderr)
	}
	n := &runningNode{t: t, f: f}
	i := slices.IndexFunc(members(t, n.init()), func(pid int) bool {
		name, _ := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "comm"))
		return string(name) == "kube-scheduler\n"
	})
	if i < 0 {
		t.Fatal("there is no scheduler")
	}
	if err := syscall.Kill(members(t, n.init())[i], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	err := s.cmd.Wait()
	if want := "kube-scheduler ended: signal: killed"; err == nil || !strings.Contains(s.stderr.String(), want) {
		t.Errorf("got %v, %q, want %q", err, s.stderr, want)
	}
}
