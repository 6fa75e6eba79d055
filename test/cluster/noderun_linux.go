// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

const (
	// nodeStartTimeout bounds the whole start: 15 s on two idle cores.
	nodeStartTimeout = 5 * time.Minute

	// kubeletInterval is the interval for polling the kubelet configuration.
	kubeletInterval = 200 * time.Millisecond

	// kubeletStopGrace is much longer than a kubelet needs; its containers keep running.
	kubeletStopGrace = 10 * time.Second

	// kubeletPause is the minimum time between two starts of a kubelet that exits, for
	// example because of an invalid configuration.
	kubeletPause = time.Second

	// maxKubeletConfig is far larger than a file with all fields.
	maxKubeletConfig = 1 << 20 // bytes

	// maxAnswer bounds responses of the API server. The largest is a Node with its list
	// of images.
	maxAnswer = 4 << 20 // bytes
)

// runner runs the processes of a node.
type runner struct {
	f        clusterDirectory
	binaries nodeBinaries

	processes []*process // the node ends when one of them ends
	forwards  chan error // of a forwarder that failed

	kubelet        *process // nil until it is started
	kubeletConfig  []byte   // that it was started with
	kubeletStarted time.Time
}

// nodeRun runs the node until one of its processes ends. Otherwise process 1 kills it
// and everything that it has started.
func nodeRun(ctx context.Context, dir, binaries string) error {
	r := &runner{f: clusterDirectory(dir), binaries: nodeBinariesIn(binaries), forwards: make(chan error, 2)}
	starting, cancel := context.WithTimeout(ctx, nodeStartTimeout)
	defer cancel()
	if err := r.bringUp(starting); err != nil {
		return err
	}
	if err := announce(r.f, r.binaries.kubectl, io.Discard); err != nil {
		return err
	}
	tick := time.NewTicker(kubeletInterval)
	defer tick.Stop()
	for {
		if err := r.tend(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// bringUp returns when pods can be created, run and reached.
func (r *runner) bringUp(ctx context.Context) error {
	f, b := r.f, r.binaries
	authority, token, err := r.writeFiles()
	if err != nil {
		return err
	}
	client := newClient(authority)
	defer client.CloseIdleConnections()
	api := api{client: client, server: serverURL(nodeServerPort), token: token}

	outside, err := r.forward(apiServerFile, "kube-apiserver", nodeServerPort)
	if err != nil {
		return err
	}
	etcdOutside, err := r.forward(etcdFile, "etcd", nodeEtcdPort)
	if err != nil {
		return err
	}
	if err := r.start("etcd", b.etcd, etcdArguments(f, nodeEtcdPort)); err != nil {
		return err
	}
	if err := r.start("containerd", "containerd", []string{"--config", f.containerdConfig()}); err != nil {
		return err
	}
	if err := r.until(ctx, "etcd", probe{client: client, url: "http://" + address(nodeEtcdPort) +
		"/health"}.ready); err != nil {
		return err
	}
	if err := writeFile(f.etcdURL(), "http://"+etcdOutside); err != nil {
		return err
	}

	if err := r.start("kube-apiserver", b.apiServer, nodeAPIServerArguments(f)); err != nil {
		return err
	}
	for _, path := range []string{"/readyz", "/api/v1/namespaces/default"} {
		if err := r.until(ctx, "kube-apiserver", api.answers(path)); err != nil {
			return err
		}
	}
	if err := writeFile(f.kubeconfig(), kubeconfig("https://"+outside, authority, token)); err != nil {
		return err
	}
	if err := r.until(ctx, "the kubelet's role binding", func(ctx context.Context) error {
		return api.create(ctx, "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", kubeletAccess)
	}); err != nil {
		return err
	}
	for _, component := range []struct {
		name, binary string
		arguments    []string
	}{
		{"kube-controller-manager", b.controllerManager, controllerManagerArguments(f)},
		{"kube-scheduler", b.scheduler, schedulerArguments(f)},
		{"kube-proxy", b.proxy, proxyArguments(f)},
	} {
		if err := r.start(component.name, component.binary, component.arguments); err != nil {
			return err
		}
	}

	if err := r.until(ctx, "containerd", func(ctx context.Context) error {
		_, err := importImage(ctx, f.pauseArchive(), func(ctx context.Context, arguments ...string) *exec.Cmd {
			return ctr(ctx, insideSocket, arguments...)
		})
		return err
	}); err != nil {
		return err
	}
	if err := r.startKubelet(); err != nil {
		return err
	}
	return r.awaitPods(ctx, api)
}

// awaitPods waits for everything in the cluster that a pod needs.
func (r *runner) awaitPods(ctx context.Context, api api) error {
	const node = "/api/v1/nodes/" + nodeName
	service := api
	service.server = "https://" + serviceAddress
	for _, step := range []struct {
		what  string
		ready func(context.Context) error
	}{
		{"the Node's registration", func(ctx context.Context) error { return api.merge(ctx, node, nodeRoles) }},
		{"the Node's being ready", func(ctx context.Context) error { return api.nodeReady(ctx, node) }},
		{"the ServiceAccount default", api.answers("/api/v1/namespaces/default/serviceaccounts/default")},
		{"the address of Service kubernetes", service.answers("/readyz")},
		{"kube-apiserver's way to the kubelet", api.answers(node + "/proxy/healthz")},
	} {
		if err := r.until(ctx, step.what, step.ready); err != nil {
			return err
		}
	}
	return nil
}

// writeFiles writes the files that the processes read. It returns the certificate of
// the CA and the token of the administrator.
func (r *runner) writeFiles() (authority []byte, token string, err error) {
	f := r.f
	plugins, found := findPlugins(pluginDirectories)
	if !found {
		return nil, "", fmt.Errorf("CNI plugins %s not found in any of %s", strings.Join(usedPlugins, ", "),
			strings.Join(pluginDirectories, ", "))
	}
	authority, token, err = writeControlPlane(f, nodeLeaves())
	if err != nil {
		return nil, "", err
	}
	network := filepath.Join(f.networkConfig(), "node.conflist")
	for _, directory := range []string{f.networkConfig(), f.networkAddresses(), f.kubeletVolumes()} {
		if err := os.MkdirAll(directory, 0o755); err != nil {
			return nil, "", err
		}
	}
	for path, content := range map[string]string{
		f.kubeletConfig():                     kubeletConfiguration(f),
		f.containerdConfig():                  containerdConfiguration(f, r.binaries.runc, plugins),
		f.resolvConf():                        "# No name server can be reached from a pod.\n",
		network:                               networkConfiguration(f),
		f.kubeconfigOf(nodeClientName):        clientKubeconfig(f, nodeClientName),
		f.kubeconfigOf(controllerManagerName): clientKubeconfig(f, controllerManagerName),
		f.kubeconfigOf(schedulerName):         clientKubeconfig(f, schedulerName),
		f.kubeconfigOf(proxyName):             clientKubeconfig(f, proxyName),
	} {
		if err := writeFile(path, content); err != nil {
			return nil, "", err
		}
	}
	return authority, token, writeImage(f.pauseArchive(), pauseImage, r.binaries.pause)
}

// forward makes a port reachable from outside the node, and returns its address.
func (r *runner) forward(fd uintptr, name string, port int) (string, error) {
	listener, err := inheritedListener(fd, name)
	if err != nil {
		return "", err
	}
	go func() { r.forwards <- forward(listener, address(port)) }()
	return listener.Addr().String(), nil
}

// start starts a process. The node ends when it ends.
func (r *runner) start(name, binary string, arguments []string) error {
	p, err := start(name, binary, arguments, r.f.logOf(name), childAttributes())
	if err != nil {
		return err
	}
	r.processes = append(r.processes, p)
	return nil
}

// until polls ready until it succeeds, and supervises the processes meanwhile.
func (r *runner) until(ctx context.Context, what string, ready func(context.Context) error) error {
	tick := time.NewTicker(probeInterval)
	defer tick.Stop()
	begin := time.Now()
	var last error
	for {
		err := ready(ctx)
		if err == nil {
			fmt.Fprintf(os.Stderr, "Waited %s for %s\n", time.Since(begin).Round(time.Millisecond), what)
			return nil
		}
		// An error caused by the timeout is less useful than the one before it.
		if ctx.Err() == nil || last == nil {
			last = err
		}
		if err := r.tend(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("timed out waiting for %s (%w): the node is not ready after %s; see the logs in %s", what, last,
				nodeStartTimeout, r.f)
		case <-tick.C:
		}
	}
}

// tend returns an error if a required process has ended, and restarts the kubelet if
// necessary.
func (r *runner) tend() error {
	for _, p := range r.processes {
		if p.hasEnded() {
			return p.failure()
		}
	}
	select {
	case err := <-r.forwards:
		return err
	default:
	}
	if r.kubelet == nil {
		return nil
	}
	ended := r.kubelet.hasEnded()
	if ended && time.Since(r.kubeletStarted) > kubeletPause {
		fmt.Fprintf(os.Stderr, "Restarting the kubelet: %v\n", r.kubelet.failure())
		return r.startKubelet()
	}
	config, err := readKubeletConfig(r.f.kubeletConfig())
	// A missing file is about to be replaced.
	if errors.Is(err, os.ErrNotExist) || err == nil && bytes.Equal(config, r.kubeletConfig) {
		return nil
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "Restarting the kubelet: %s has changed\n", r.f.kubeletConfig())
	if err := r.kubelet.stop(kubeletStopGrace); err != nil {
		return err
	}
	return r.startKubelet()
}

// startKubelet keeps the log of the previous kubelet.
func (r *runner) startKubelet() error {
	config, err := readKubeletConfig(r.f.kubeletConfig())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	log := r.f.logOf("kubelet")
	if err := os.Rename(log, r.f.logOf("kubelet-before")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	r.kubelet, err = start("kubelet", r.binaries.kubelet, kubeletArguments(r.f), log, childAttributes())
	r.kubeletConfig, r.kubeletStarted = config, time.Now()
	return err
}

func readKubeletConfig(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxKubeletConfig+1))
	if err == nil && len(data) > maxKubeletConfig {
		err = fmt.Errorf("%s is larger than %d bytes", path, maxKubeletConfig)
	}
	return data, err
}

// api is a client of the API server with administrator permissions.
type api struct {
	client        *http.Client
	server, token string
}

func (a api) answers(path string) func(context.Context) error {
	return probe{client: a.client, url: a.server + path, token: a.token}.ready
}

func (a api) create(ctx context.Context, path, object string) error {
	_, err := a.do(ctx, http.MethodPost, path, "application/json", object)
	return err
}

func (a api) merge(ctx context.Context, path, patch string) error {
	_, err := a.do(ctx, http.MethodPatch, path, "application/merge-patch+json", patch)
	return err
}

func (a api) nodeReady(ctx context.Context, path string) error {
	data, err := a.do(ctx, http.MethodGet, path, "", "")
	if err != nil {
		return err
	}
	var node struct {
		Spec   struct{ Taints []struct{ Key string } }
		Status struct {
			Conditions []struct{ Type, Status, Message string }
		}
	}
	if err := json.Unmarshal(data, &node); err != nil {
		return err
	}
	// The node controller takes it away a moment after the node is ready, and
	// until then nothing is scheduled there.
	for _, taint := range node.Spec.Taints {
		if taint.Key == "node.kubernetes.io/not-ready" {
			return errors.New("the node still has the not-ready taint")
		}
	}
	for _, condition := range node.Status.Conditions {
		if condition.Type == "Ready" && condition.Status == "True" {
			return nil
		}
		if condition.Type == "Ready" {
			return errors.New(condition.Message)
		}
	}
	return errors.New("the kubelet has not reported yet")
}

func (a api) do(ctx context.Context, method, path, contentType, body string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, method, a.server+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+a.token)
	if contentType != "" {
		request.Header.Set("Content-Type", contentType)
	}
	response, err := a.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	data, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return nil, err
	}
	if response.StatusCode >= http.StatusMultipleChoices {
		return nil, fmt.Errorf("%s %s: %s: %s", method, path, response.Status, data)
	}
	return data, nil
}
