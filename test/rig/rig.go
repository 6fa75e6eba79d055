// SPDX-License-Identifier: Apache-2.0

// Package rig sets up the guard on this machine: a real API server from test/cluster, the webhook
// registered as by the chart, and an agent on a host tree. The demo and many tests use it.
package rig

import (
	"bufio"
	"bytes"
	"context"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	discovery "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

const (
	// Node is the name of the only node, if it is an object without a kubelet, and RealNode its name if it
	// has a kubelet (test/cluster).
	Node     = "master-0"
	RealNode = "node-0"
	// guardNamespace is where the chart is installed.
	guardNamespace = "kubelet-https-guard"
	// webhookName is the name of the webhook in its ValidatingWebhookConfiguration.
	webhookName = "secrets.kubelet-https-guard.io"

	// readyTime bounds waiting until the webhook is registered and answers.
	readyTime = 5 * time.Minute
)

// Part is a part of the guard that is registered with the API server: a template of the chart.
type Part string

// Both parts.
const (
	Registration Part = "webhook/validatingwebhookconfiguration.yaml"
	Policy       Part = "policy.yaml"
)

//go:embed cluster.yaml
var clusterYAML string

//go:embed node.yaml
var nodeYAML string

// platformYAML has the objects that say that the cluster is an OpenShift cluster with its own control
// plane. Their kinds are in clusterYAML.
//
//go:embed platform.yaml
var platformYAML string

// Options say how to set up.
type Options struct {
	// Repository is the root of the source tree.
	Repository string
	// Dir is the directory for all files of this rig. Start removes what is in it.
	Dir string
	// Progress receives messages about slow steps.
	Progress io.Writer
	// Detach: the processes keep running when this one ends.
	Detach bool
	// RealNode: the node has a kubelet, a container runtime and all else that runs Pods. This requires
	// root. Its name is [RealNode].
	RealNode bool
	// Helm: also builds helm, for [Rig.Helm].
	Helm bool
	// Quick: the programs of the control plane are those that take the least time to get (quick.go). Their versions and
	// flags are not exactly those of the tests.
	Quick bool
	// WebhookFlags are additional flags of the webhook. They override the rig's own.
	WebhookFlags []string
	// AuditFlags are the same for the audit.
	AuditFlags []string
}

// Rig is a running control plane with the guard's registration.
type Rig struct {
	options   Options
	processes *processes
	cluster   io.Closer // ends the control plane; nil if it is detached

	// Kubeconfig is a cluster administrator's kubeconfig, Kubectl the program.
	Kubeconfig, Kubectl string
	// Webhook is the running webhook, Audit the running audit.
	Webhook, Audit *Process
	// ServiceCA is OpenShift's service CA here.
	ServiceCA *pkitest.CA

	assets string // directory with etcd, kube-apiserver and kubectl, or empty for those of the tests
	ca     *pkitest.CA
	port   int
	values string // a file with chart values, or empty
}

// Start builds what is needed and starts the control plane. Call Stop also after an error.
func Start(ctx context.Context, options Options) (*Rig, error) {
	// Absolute, since programs are built in several directories.
	repository, absErr := filepath.Abs(options.Repository)
	options.Repository = repository
	now := time.Now()
	r := &Rig{
		options: options, processes: newProcesses(options.Detach),
		ca:        pkitest.NewCAAround("kubelet-https-guard rig", now),
		ServiceCA: pkitest.NewRSACAAround(fmt.Sprintf("openshift-service-serving-signer@%d", now.Unix()), now),
	}
	if absErr != nil {
		return r, absErr
	}
	if err := os.RemoveAll(options.Dir); err != nil {
		return r, fmt.Errorf("clear %s: %w", options.Dir, err)
	}
	if err := os.MkdirAll(options.Dir, 0o700); err != nil {
		return r, fmt.Errorf("make %s: %w", options.Dir, err)
	}
	build := r.build
	if options.Quick {
		build = r.buildQuick
	}
	if err := build(ctx); err != nil {
		return r, err
	}
	if err := r.startCluster(ctx); err != nil {
		return r, err
	}
	objects := clusterYAML
	if !options.RealNode {
		objects += "---\n" + nodeYAML
	}
	if result := r.KubectlInput(ctx, objects, "apply", "-f", "-"); result.Code != 0 {
		return r, fmt.Errorf("make the cluster look like OpenShift: %s", result.Output)
	}
	if err := r.makePlatform(ctx); err != nil {
		return r, err
	}
	// A loopback address is not a valid endpoint, so API servers do not add their own (test/cluster).
	if !options.RealNode {
		if err := r.AnnounceAPIServers(ctx, r.Server(ctx)); err != nil {
			return r, err
		}
	}
	// One CA is both of OpenShift's signers.
	for _, bundle := range []struct{ namespace, name, key string }{
		{"openshift-kube-apiserver-operator", "kube-apiserver-to-kubelet-client-ca", "ca-bundle.crt"},
		// OpenShift writes it into every namespace. InstallGuard makes the guard's.
		{"openshift-apiserver", "openshift-service-ca.crt", "service-ca.crt"},
	} {
		if err := r.makeBundle(ctx, bundle.namespace, bundle.name, bundle.key); err != nil {
			return r, err
		}
	}
	return r, nil
}

// makePlatform makes the objects whose kinds were registered just now.
func (r *Rig) makePlatform(ctx context.Context) error {
	for _, args := range [][]string{
		{"wait", "--for=condition=Established", "--timeout=60s", "customresourcedefinitions", "--all"},
		{"apply", "-f", "-"},
	} {
		if result := r.KubectlInput(ctx, platformYAML, args...); result.Code != 0 {
			return fmt.Errorf("make the cluster look like OpenShift: %s", result.Output)
		}
	}
	return r.SetTopology(ctx, "HighlyAvailable")
}

// SetTopology sets where the control plane runs, as OpenShift's API has it (openshift/api config/v1,
// controlPlaneTopology).
func (r *Rig) SetTopology(ctx context.Context, topology string) error {
	patch := fmt.Sprintf(`{"status":{"controlPlaneTopology":%q}}`, topology)
	result := r.KubectlCommand(
		ctx, "patch", "infrastructures.config.openshift.io", "cluster", "--subresource=status", "--type=merge",
		"--patch", patch,
	)
	if result.Code != 0 {
		return fmt.Errorf("set the topology of the control plane: %s", result.Output)
	}
	return nil
}

// Server is the address of the API server, host and port.
func (r *Rig) Server(ctx context.Context) string {
	server := r.KubectlCommand(ctx, "config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}")
	return strings.TrimPrefix(server.Output, "https://")
}

// AnnounceAPIServers makes these the API servers behind Service default/kubernetes. Their addresses
// must differ in the port only.
func (r *Rig) AnnounceAPIServers(ctx context.Context, addresses ...string) error {
	slice := discovery.EndpointSlice{
		TypeMeta: metav1.TypeMeta{APIVersion: discovery.SchemeGroupVersion.String(), Kind: "EndpointSlice"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: metav1.NamespaceDefault, Name: "kubernetes", UID: "rig", CreationTimestamp: metav1.Now(),
			Labels: map[string]string{discovery.LabelServiceName: "kubernetes"},
		},
		AddressType: discovery.AddressTypeIPv4,
	}
	for i, address := range addresses {
		host, number, err := net.SplitHostPort(address)
		if err != nil {
			return fmt.Errorf("announce the API server %s: %w", address, err)
		}
		port, err := strconv.ParseInt(number, 10, 32)
		if err != nil {
			return fmt.Errorf("announce the API server %s: %w", address, err)
		}
		slice.Endpoints = []discovery.Endpoint{
			{Addresses: []string{host}, Conditions: discovery.EndpointConditions{Ready: new(true)}},
		}
		name := "https" // as API servers have it; names of ports differ
		if i > 0 {
			name = fmt.Sprintf("https-%d", i)
		}
		slice.Ports = append(slice.Ports, discovery.EndpointPort{Name: &name, Port: new(int32(port))})
	}
	return r.Restore(ctx, "endpointslices", slice.Namespace, slice.Name, slice)
}

// makeBundle makes a ConfigMap with the service CA.
func (r *Rig) makeBundle(ctx context.Context, namespace, name, key string) error {
	made := r.KubectlCommand(ctx, "create", "configmap", "--namespace", namespace, name,
		"--from-literal="+key+"="+string(r.ServiceCA.PEM()))
	if made.Code != 0 {
		return fmt.Errorf("make CA bundle %s/%s: %s", namespace, name, made.Output)
	}
	return nil
}

// Stop ends all processes that were started, unless they are detached.
func (r *Rig) Stop() {
	if r.options.Detach {
		return
	}
	r.processes.stopAll()
	if r.cluster != nil {
		_ = r.cluster.Close()
	}
}

// EndDetached ends what an earlier, detached rig left running in a directory, if anything.
func EndDetached(ctx context.Context, repository, dir string) error {
	pids, err := filepath.Glob(filepath.Join(dir, "*.pid"))
	if err != nil {
		return err
	}
	for _, path := range pids {
		if err := endDetached(path); err != nil {
			return err
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "cluster")); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	command := exec.CommandContext(ctx, "go", "run", ".", "down", "--dir", filepath.Join(dir, "cluster"))
	command.Dir = filepath.Join(repository, clusterFolder)
	if result := run(command); result.Code != 0 {
		return fmt.Errorf("end the control plane in %s: %s", dir, result.Output)
	}
	return nil
}

// Path is the path of a file of this rig.
func (r *Rig) Path(elements ...string) string {
	return filepath.Join(append([]string{r.options.Dir}, elements...)...)
}

// binary is the path of a built program. That of "" ends with a separator, so that go build makes the folder.
func (r *Rig) binary(name string) string {
	return filepath.Join(r.options.Repository, "bin") + string(filepath.Separator) + name
}

// target is what one go build builds, in a folder of the repository.
type target struct {
	what, folder, output string
	packages             []string
}

// Folders and packages of programs that are not the guard's.
const (
	clusterFolder = "test/cluster"
	renderFolder  = "test/render"
)

// build builds the programs as for a release: static.
func (r *Rig) build(ctx context.Context) error {
	targets := []target{
		{"webhook and nodeagent", ".", r.binary(""), []string{"./webhook", "./nodeagent"}},
		{"cluster", clusterFolder, r.binary("cluster"), []string{"."}},
		{"render", renderFolder, r.binary("render"), []string{"."}},
	}
	if r.options.Helm {
		targets = append(targets, target{"helm", "tools", r.helm(), []string{"helm.sh/helm/v4/cmd/helm"}})
	}
	for _, t := range targets {
		if err := r.buildTarget(ctx, t); err != nil {
			return err
		}
	}
	return nil
}

// helm is the path of the built helm.
func (r *Rig) helm() string { return filepath.Join(r.options.Repository, ".tools", "helm") }

// buildMemory bounds the heap of a compiler that collects no garbage before: with GOGC=off a build takes about a fifth
// less CPU time. Neither changes what is built.
const buildMemory = "1GiB"

func (r *Rig) buildTarget(ctx context.Context, t target) error {
	started := time.Now()
	done := r.slow(fmt.Sprintf("building %s (minutes, once)", t.what))
	command := exec.CommandContext(ctx, "go", append([]string{"build", "-o", t.output}, t.packages...)...)
	command.Dir = filepath.Join(r.options.Repository, t.folder)
	command.Env = append(os.Environ(), "CGO_ENABLED=0", "GOGC=off", "GOMEMLIMIT="+buildMemory)
	output, err := command.CombinedOutput()
	done()
	if err != nil {
		return fmt.Errorf("build %s: %w\n%s", t.what, err, output)
	}
	if took := time.Since(started); took > 2*time.Second {
		_, _ = fmt.Fprintf(r.options.Progress, "built %s in %s\n", t.what, took.Round(time.Second))
	}
	return nil
}

// slow reports a step that takes longer than a moment.
func (r *Rig) slow(what string) (done func()) {
	timer := time.AfterFunc(2*time.Second, func() { _, _ = fmt.Fprintln(r.options.Progress, what+" …") })
	return func() { timer.Stop() }
}

// startCluster starts etcd and kube-apiserver. It builds them if necessary.
func (r *Rig) startCluster(ctx context.Context) error {
	dir := r.Path("cluster")
	verb := []string{"serve", "--until-stdin-closes", "--dir", dir}
	if r.options.Detach {
		verb = []string{"up", "--dir", dir}
	}
	if r.options.RealNode {
		verb = append(verb, "--node")
	}
	command := exec.CommandContext(ctx, r.binary("cluster"), verb...)
	command.Dir = filepath.Join(r.options.Repository, clusterFolder)
	if r.assets != "" {
		command.Env = append(os.Environ(), assetsVariable+"="+r.assets)
	}
	command.Stderr = r.options.Progress
	// Closing its input ends it, also when this process is killed.
	command.Cancel = func() error { return nil }
	stdin, err := command.StdinPipe()
	if err != nil {
		return err
	}
	stdout, err := command.StdoutPipe()
	if err != nil {
		return err
	}
	if err := r.processes.start(command); err != nil {
		return fmt.Errorf("start the control plane: %w", err)
	}
	// serve prints one line and keeps running; up prints several and exits.
	lines := bufio.NewScanner(stdout)
	var output strings.Builder
	for lines.Scan() {
		line := lines.Text()
		output.WriteString(line + "\n")
		for field := range strings.FieldsSeq(line) {
			if value, ok := strings.CutPrefix(field, "KUBECONFIG="); ok {
				r.Kubeconfig = value
			}
			if value, ok := strings.CutPrefix(field, "KUBECTL="); ok {
				r.Kubectl = value
			}
		}
		if !r.options.Detach && r.Kubectl != "" {
			break
		}
	}
	if r.Kubeconfig == "" || r.Kubectl == "" {
		return fmt.Errorf("start the control plane: %w\n%s",
			errors.Join(errors.New("it did not report that it is ready"), command.Wait()), output.String())
	}
	if r.options.Detach {
		return command.Wait()
	}
	r.cluster = closer(func() error {
		_ = stdin.Close()
		return command.Wait()
	})
	return nil
}

// JoinAPIServer starts another API server of the same cluster with additional arguments, and returns
// its address. It runs until stop or Stop is called.
func (r *Rig) JoinAPIServer(ctx context.Context, arguments ...string) (address string, stop func() error, err error) {
	verb := append([]string{"join", "--dir", r.Path("cluster"), "--until-stdin-closes", "--"}, arguments...)
	command := exec.CommandContext(ctx, r.binary("cluster"), verb...)
	command.Dir = filepath.Join(r.options.Repository, clusterFolder)
	command.Stderr = r.options.Progress
	command.Cancel = func() error { return nil } // closing its input ends it
	stdin, err := command.StdinPipe()
	if err != nil {
		return "", nil, err
	}
	stdout, err := command.StdoutPipe()
	if err != nil {
		return "", nil, err
	}
	if err := r.processes.start(command); err != nil {
		return "", nil, fmt.Errorf("start another API server: %w", err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	address, ok := strings.CutPrefix(strings.TrimSpace(line), "ready ADDRESS=")
	if !ok {
		return "", nil, fmt.Errorf("start another API server: %w",
			errors.Join(errors.New("it did not report that it is ready"), err, command.Wait()))
	}
	return address, func() error {
		_ = stdin.Close()
		return command.Wait()
	}, nil
}

// APIServerCommand is the command line of the kube-apiserver that Start started: its program and its arguments.
func (r *Rig) APIServerCommand() ([]string, error) {
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return nil, err
	}
	own := "--audit-log-path=" + r.Path("cluster", "audit.log")
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			continue // the process has ended
		}
		if args := strings.Split(strings.TrimSuffix(string(data), "\x00"), "\x00"); slices.Contains(args, own) {
			return args, nil
		}
	}
	return nil, fmt.Errorf("find the kube-apiserver of %s: no process has the argument %s", r.options.Dir, own)
}

// NodeProcess is process 1 of the node, by its number outside of the node.
func (r *Rig) NodeProcess() (int, error) {
	text, err := os.ReadFile(r.Path("cluster", "node-pid"))
	if err != nil {
		return 0, fmt.Errorf("find process 1 of the node: %w", err)
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}

// Restore writes an object into etcd, as restoring a backup does: without the API server and without
// admission. The object must have its kind and its UID.
func (r *Rig) Restore(ctx context.Context, resource, namespace, name string, object any) error {
	what := fmt.Sprintf("write %s %s/%s into etcd", resource, namespace, name)
	value, err := json.Marshal(object)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	etcd, err := os.ReadFile(r.Path("cluster", "etcd-url"))
	if err != nil {
		return err
	}
	// etcd's JSON gateway requires key and value in base64, which is how JSON encodes []byte.
	body, err := json.Marshal(
		map[string][]byte{"key": []byte("/registry/" + resource + "/" + namespace + "/" + name), "value": value},
	)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, string(etcd)+"/v3/kv/put", bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", what, response.Status)
	}
	return nil
}

type closer func() error

func (c closer) Close() error { return c() }

// Result is the result of a command.
type Result struct {
	Code   int
	Output string // standard output and error
}

// KubectlCommand runs kubectl as the administrator.
func (r *Rig) KubectlCommand(ctx context.Context, args ...string) Result {
	return r.KubectlInput(ctx, "", args...)
}

// KubectlInput runs kubectl with an input.
func (r *Rig) KubectlInput(ctx context.Context, input string, args ...string) Result {
	command := exec.CommandContext(ctx, r.Kubectl, args...)
	command.Dir = r.options.Dir
	command.Env = append(os.Environ(), "KUBECONFIG="+r.Kubeconfig)
	command.Stdin = strings.NewReader(input)
	return run(command)
}

// Helm runs helm as the administrator, in the repository. It needs Options.Helm.
func (r *Rig) Helm(ctx context.Context, args ...string) Result {
	command := exec.CommandContext(ctx, r.helm(), args...)
	command.Dir = r.options.Repository
	command.Env = append(os.Environ(), "KUBECONFIG="+r.Kubeconfig)
	return run(command)
}

// Cluster runs a command of test/cluster on this rig's cluster.
func (r *Rig) Cluster(ctx context.Context, verb string, args ...string) Result {
	command := exec.CommandContext(
		ctx,
		r.binary("cluster"),
		append([]string{verb, "--dir", r.Path("cluster")}, args...)...)
	command.Dir = filepath.Join(r.options.Repository, clusterFolder)
	return run(command)
}

func run(command *exec.Cmd) Result {
	var output bytes.Buffer
	command.Stdout, command.Stderr = &output, &output
	if err := command.Run(); err != nil && command.ProcessState == nil {
		return Result{Code: -1, Output: err.Error()}
	}
	return Result{Code: command.ProcessState.ExitCode(), Output: strings.TrimSpace(output.String())}
}

// Render renders templates of the chart with additional settings (NAME=VALUE), as helm template does on OpenShift.
func (r *Rig) Render(ctx context.Context, settings []string, templates ...string) (string, error) {
	args := []string{"--namespace", guardNamespace, "--api-versions", "security.openshift.io/v1"}
	if r.values != "" {
		args = append(args, "--values", r.values)
	}
	for _, setting := range settings {
		args = append(args, "--set", setting)
	}
	for _, template := range templates {
		args = append(args, "--show-only", "templates/"+template)
	}
	args = append(args, "kubelet-https-guard", filepath.Join(r.options.Repository, "charts", "kubelet-https-guard"))
	result := run(exec.CommandContext(ctx, r.binary("render"), args...))
	if result.Code != 0 {
		return "", fmt.Errorf("render the chart: %s", result.Output)
	}
	return result.Output, nil
}

// here are the chart's settings for a webhook on this machine.
func (r *Rig) here() []string {
	return []string{
		fmt.Sprintf("webhook.url=https://127.0.0.1:%d", r.port),
		"webhook.certificate.mode=provided",
		"webhook.certificate.caBundle=" + base64.StdEncoding.EncodeToString(r.ca.PEM()),
	}
}

// The range of [FreePort]. Linux takes the local ports of connections from 32768 on (ip_local_port_range), so no
// connection takes such a port before the program listens on it.
const (
	lowestFreePort  = 20000
	highestFreePort = 32767
	freePortTries   = 100
)

// FreePort is a port of this machine on which no process listens.
func FreePort(ctx context.Context) (int, error) {
	var err error
	for range freePortTries {
		port := lowestFreePort + rand.IntN(highestFreePort-lowestFreePort+1)
		var listener net.Listener
		if listener, err = new(net.ListenConfig).Listen(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			return port, listener.Close()
		}
	}
	return 0, fmt.Errorf("find a free port: %w", err)
}

// WebhookAddress is the address at which the webhook serves, and the directory of its serving
// certificate.
func (r *Rig) WebhookAddress() (address, certDir string) {
	return fmt.Sprintf("127.0.0.1:%d", r.port), r.Path("webhook", "tls")
}

// IssueServing issues a serving pair for the webhook, signed by the CA that is registered with the API
// server.
func (r *Rig) IssueServing(notBefore, notAfter time.Time) pkitest.Pair {
	return r.ca.Issue(
		pkitest.Request{CommonName: "webhook", IPs: []net.IP{net.IPv4(127, 0, 0, 1)}}.Valid(notBefore, notAfter),
	)
}

// CABundle is the CA bundle of the webhook's registration, PEM.
func (r *Rig) CABundle() []byte { return r.ca.PEM() }

// Launch starts another program, with its log in NAME.log.
func (r *Rig) Launch(name, program string, args ...string) (*Process, error) {
	return r.processes.launch(r.Path(name+".log"), program, args...)
}

// LaunchWebhook starts another webhook, as the cluster's administrator.
func (r *Rig) LaunchWebhook(name string, args ...string) (*Process, error) {
	return r.processes.launch(
		r.Path(name+".log"),
		r.binary("webhook"),
		append(
			[]string{"serve", "--kubeconfig", r.Kubeconfig, "--health-bind-address", "0", "--shutdown-delay", "0s"},
			args...)...)
}

// InstallGuard applies the chart's registration, RBAC, ConfigMap and decoy, and starts webhook and
// audit with them. It returns when the API server calls the webhook.
func (r *Rig) InstallGuard(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTime)
	defer cancel()
	var err error
	if r.port, err = FreePort(ctx); err != nil {
		return err
	}
	if err := r.makeBundle(ctx, guardNamespace, "openshift-service-ca.crt", "service-ca.crt"); err != nil {
		return err
	}
	if err := r.apply(ctx, "audit/decoy.yaml", "configmap.yaml"); err != nil {
		return err
	}
	if err := r.InstallAccounts(ctx); err != nil {
		return err
	}
	if err := r.StartWebhook(ctx); err != nil {
		return err
	}
	if err := r.Register(ctx, Registration, Policy); err != nil {
		return err
	}
	return r.StartAudit(ctx)
}

// InstallAccounts applies the chart's ServiceAccounts and RBAC, and nothing else.
func (r *Rig) InstallAccounts(ctx context.Context) error {
	return r.apply(ctx, "webhook/serviceaccount.yaml", "webhook/rbac.yaml", "audit/serviceaccount.yaml", "audit/rbac.yaml",
		"nodeagent/serviceaccount.yaml", "nodeagent/rbac.yaml", "metrics/rbac.yaml")
}

// apply applies templates of the chart.
func (r *Rig) apply(ctx context.Context, templates ...string) error {
	objects, err := r.Render(ctx, r.here(), templates...)
	if err != nil {
		return err
	}
	if result := r.KubectlInput(ctx, objects, "apply", "-f", "-"); result.Code != 0 {
		return fmt.Errorf("apply the chart's objects: %s", result.Output)
	}
	return nil
}

// Register registers these parts of the guard with the API server and removes the others. It returns
// when the API server acts accordingly.
func (r *Rig) Register(ctx context.Context, parts ...Part) error {
	ctx, cancel := context.WithTimeout(ctx, readyTime)
	defer cancel()
	for _, part := range []Part{Registration, Policy} {
		manifest, err := r.Render(ctx, r.here(), string(part))
		if err != nil {
			return err
		}
		verb := []string{"delete", "--ignore-not-found", "-f", "-"}
		if slices.Contains(parts, part) {
			verb = []string{"apply", "-f", "-"}
		}
		if result := r.KubectlInput(ctx, manifest, verb...); result.Code != 0 {
			return fmt.Errorf("kubectl %s the chart's %s: %s", verb[0], part, result.Output)
		}
	}
	return r.await(ctx, parts...)
}

// StartWebhook starts the webhook's process with the chart's configuration and the permissions of its
// ServiceAccount.
func (r *Rig) StartWebhook(ctx context.Context) error {
	now := time.Now()
	serving := r.IssueServing(now.Add(-time.Hour), now.AddDate(1, 0, 0))
	if err := r.writeConfig(ctx); err != nil {
		return err
	}
	kubeconfig, err := r.WebhookKubeconfig(ctx)
	if err != nil {
		return err
	}
	for path, data := range map[string][]byte{"tls.crt": serving.Certificate, "tls.key": serving.Key} {
		if err := r.write(filepath.Join("webhook", "tls", path), data); err != nil {
			return err
		}
	}
	flags := append([]string{
		"serve", "--bind-address", fmt.Sprintf("127.0.0.1:%d", r.port), "--health-bind-address", "0", "--shutdown-delay",
		"0s",
		"--cert-dir", r.Path("webhook", "tls"), "--config", r.Path("webhook", "config.yaml"), "--namespace",
		guardNamespace, "--kubeconfig", kubeconfig,
	}, r.options.WebhookFlags...)
	r.Webhook, err = r.processes.launch(r.Path("webhook.log"), r.binary("webhook"), flags...)
	return err
}

// Reinstall makes the API server and the webhook use another file with chart values, or none if it is
// empty, with the permissions of these values. It returns when they do.
func (r *Rig) Reinstall(ctx context.Context, values string) error {
	// First without policies: await cannot distinguish new policies from old ones.
	if err := r.Register(ctx); err != nil {
		return err
	}
	if err := r.Webhook.Stop(); err != nil {
		return fmt.Errorf("stop the webhook: %w", err)
	}
	r.values = values
	if err := r.InstallAccounts(ctx); err != nil {
		return err
	}
	if err := r.StartWebhook(ctx); err != nil {
		return err
	}
	return r.Register(ctx, Registration, Policy)
}

// StartAudit starts the audit's process in the same way, with additional flags.
func (r *Rig) StartAudit(ctx context.Context, more ...string) error {
	if err := r.writeConfig(ctx); err != nil {
		return err
	}
	kubeconfig, err := r.AuditKubeconfig(ctx)
	if err != nil {
		return err
	}
	flags := append([]string{
		"audit", "--health-bind-address", "0", "--config", r.Path("webhook", "config.yaml"), "--guard-manifest",
		r.Path("webhook", "guard.yaml"),
		"--guard-patience", "2s", "--namespace", guardNamespace, "--kubeconfig", kubeconfig,
	}, slices.Concat(r.options.AuditFlags, more)...)
	r.Audit, err = r.processes.launch(r.Path("webhook-audit.log"), r.binary("webhook"), flags...)
	return err
}

// writeConfig writes the files of the chart's ConfigMap.
func (r *Rig) writeConfig(ctx context.Context) error {
	for _, file := range []string{"config.yaml", "guard.yaml"} {
		text, err := r.configFile(ctx, r.here(), file)
		if err != nil {
			return err
		}
		if err := r.write(filepath.Join("webhook", file), []byte(text)); err != nil {
			return err
		}
	}
	return nil
}

// RestartWebhook restarts the webhook and waits until the API server calls it.
func (r *Rig) RestartWebhook(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTime)
	defer cancel()
	if err := r.StartWebhook(ctx); err != nil {
		return err
	}
	return r.awaitRefusal(ctx, garbageSecret, webhookRefuses, true)
}

// configFile is a file of the ConfigMap that the chart renders with these settings.
func (r *Rig) configFile(ctx context.Context, settings []string, file string) (string, error) {
	configMap, err := r.Render(ctx, settings, "configmap.yaml")
	if err != nil {
		return "", err
	}
	path := fmt.Sprintf("jsonpath={.data.%s}", strings.ReplaceAll(file, ".", `\.`))
	result := r.KubectlInput(ctx, configMap, "create", "--dry-run=client", "-f", "-", "-o", path)
	if result.Code != 0 {
		return "", fmt.Errorf("read %s of the rendered ConfigMap: %s", file, result.Output)
	}
	return result.Output, nil
}

// StartAgent starts an agent on a host tree, with the permissions of its ServiceAccount.
func (r *Rig) StartAgent(ctx context.Context, hostRoot string, flags ...string) (*Process, error) {
	kubeconfig, err := r.AgentKubeconfig(ctx)
	if err != nil {
		return nil, err
	}
	args := append(
		[]string{
			"run", "--root", hostRoot, "--node-name", Node, "--kubeconfig", kubeconfig, "--metrics-bind-address",
			"127.0.0.1:0",
		},
		flags...)
	return r.processes.launch(r.Path("nodeagent.log"), r.binary("nodeagent"), args...)
}

// AgentKubeconfig is a kubeconfig with the permissions of the agent's ServiceAccount, for callers that
// start an agent themselves.
func (r *Rig) AgentKubeconfig(ctx context.Context) (string, error) {
	return r.kubeconfigOf(ctx, agentAccount)
}

// AuditKubeconfig is a kubeconfig with the permissions of the audit's ServiceAccount.
func (r *Rig) AuditKubeconfig(ctx context.Context) (string, error) {
	return r.kubeconfigOf(ctx, auditAccount)
}

// WebhookKubeconfig is a kubeconfig with the permissions of the webhook's ServiceAccount.
func (r *Rig) WebhookKubeconfig(ctx context.Context) (string, error) {
	return r.kubeconfigOf(ctx, webhookAccount)
}

// AgentOnce runs nodeagent check.
func (r *Rig) AgentOnce(ctx context.Context, hostRoot string, flags ...string) Result {
	return run(
		exec.CommandContext(
			ctx,
			r.binary("nodeagent"),
			append([]string{"check", "--root", hostRoot, "--node-name", Node}, flags...)...),
	)
}

// ConnectionOf runs a command that is 'nodeagent check -o json', and returns outcome and reason of the kube-apiserver's
// connection to the kubelet. The agent itself reports a finding only after 9 minutes.
func ConnectionOf(command *exec.Cmd) string {
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	_ = command.Run() // its exit code is that of the verdict
	var document struct {
		Results []struct{ Requirement, Outcome, Reason string }
	}
	if err := json.Unmarshal(stdout.Bytes(), &document); err != nil {
		return err.Error() + ": " + stderr.String()
	}
	for _, r := range document.Results {
		if r.Requirement == string(finding.Kubelet.Requires(finding.Connection)) {
			return strings.TrimSpace(r.Outcome + " " + r.Reason)
		}
	}
	return "no result"
}

// AuditOnce runs webhook audit --once.
func (r *Rig) AuditOnce(ctx context.Context, flags ...string) Result {
	return run(exec.CommandContext(ctx, r.binary("webhook"), append([]string{"audit", "--once"}, flags...)...))
}

// Policy runs webhook policy for the configuration that was installed last.
func (r *Rig) Policy(ctx context.Context, flags ...string) Result {
	args := append([]string{"policy", "--config", r.Path("webhook", "config.yaml")}, flags...)
	return run(exec.CommandContext(ctx, r.binary("webhook"), args...))
}

// Prove runs webhook prove for what was installed last, with the audit's permissions.
func (r *Rig) Prove(ctx context.Context, flags ...string) Result {
	kubeconfig, err := r.AuditKubeconfig(ctx)
	if err != nil {
		return Result{Code: -1, Output: err.Error()}
	}
	args := []string{
		"prove", "--kubeconfig", kubeconfig, "--config",
		r.Path("webhook", "config.yaml"),
		"--guard-manifest",
		r.Path("webhook", "guard.yaml"),
	}
	return run(exec.CommandContext(ctx, r.binary("webhook"), append(args, flags...)...))
}

// RenderActivation renders the ClusterRole that lets API servers call a webhook in the cluster, and its
// binding, as they are while the webhook is active. The rig's own webhook is outside of the cluster
// and has none.
func (r *Rig) RenderActivation(ctx context.Context) (string, error) {
	guard, err := r.configFile(ctx, nil, "guard.yaml")
	if err != nil {
		return "", err
	}
	objects := slices.DeleteFunc(strings.Split(guard, "\n---\n"),
		func(object string) bool { return !strings.Contains(object, "kind: ClusterRole") })
	return strings.Join(objects, "\n---\n"), nil
}

// kubeconfigOf writes a kubeconfig with a token of a ServiceAccount.
func (r *Rig) kubeconfigOf(ctx context.Context, account string) (string, error) {
	token := r.KubectlCommand(ctx, "create", "token", "--namespace", guardNamespace, "--duration", "24h", account)
	if token.Code != 0 {
		return "", fmt.Errorf("get a token of %s: %s", account, token.Output)
	}
	admin := r.KubectlCommand(ctx, "config", "view", "--raw", "--minify", "--flatten", "-o",
		"jsonpath={.clusters[0].cluster.server} {.clusters[0].cluster.certificate-authority-data}")
	server, ca, ok := strings.Cut(admin.Output, " ")
	if !ok {
		return "", fmt.Errorf("read the kubeconfig: %s", admin.Output)
	}
	path := filepath.Join("kubeconfigs", account)
	return r.Path(path), r.write(path, fmt.Appendf(nil, `apiVersion: v1
kind: Config
clusters: [{name: rig, cluster: {server: %q, certificate-authority-data: %q}}]
users: [{name: %[3]s, user: {token: %[4]q}}]
contexts: [{name: rig, context: {cluster: rig, user: %[3]s}}]
current-context: rig
`, server, ca, account, token.Output))
}

func (r *Rig) write(path string, data []byte) error {
	path = r.Path(path)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o600)
}

// How the API server reports a refusal by each part.
const (
	webhookRefuses = `admission webhook "` + webhookName + `" denied the request`
	policyRefuses  = "ValidatingAdmissionPolicy 'kubelet-https-guard.%s'"
	// garbageSecret is invalid, but not in a way that CEL can detect.
	garbageSecret = `{"apiVersion":"v1","kind":"Secret","metadata":{"namespace":"openshift-kube-apiserver","name":"kubelet-client"},"type":"kubernetes.io/tls","data":{"tls.crt":"eA==","tls.key":"eA=="}}`
	opaqueSecret  = `{"apiVersion":"v1","kind":"Secret","metadata":{"namespace":%q,"name":%q}}`
)

// await waits until these parts refuse requests, and no others.
func (r *Rig) await(ctx context.Context, parts ...Part) error {
	if err := r.awaitRefusal(ctx, garbageSecret, webhookRefuses, slices.Contains(parts, Registration)); err != nil {
		return err
	}
	for _, secret := range [][2]string{{"openshift-apiserver", "serving-cert"},
		{"openshift-kube-apiserver", "kubelet-client"}} {
		input, words := fmt.Sprintf(opaqueSecret, secret[0], secret[1]), fmt.Sprintf(policyRefuses, secret[0]+"."+secret[1])
		if err := r.awaitRefusal(ctx, input, words, slices.Contains(parts, Policy)); err != nil {
			return err
		}
	}
	return nil
}

// awaitRefusal waits until creating a Secret is refused with this text, or, without want, no longer
// is.
func (r *Rig) awaitRefusal(ctx context.Context, secret, words string, want bool) error {
	for {
		result := r.KubectlInput(ctx, secret, "create", "--dry-run=server", "-f", "-")
		if strings.Contains(result.Output, words) == want && !strings.Contains(result.Output, "failed calling webhook") {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait until the API server's answer contains %q: %t: %w; the last answer was: %s",
				words, want, ctx.Err(), result.Output)
		case err := <-r.Webhook.ended:
			return fmt.Errorf("the webhook exited: %w\n%s", err, r.Webhook.tail())
		case <-time.After(100 * time.Millisecond):
		}
	}
}
