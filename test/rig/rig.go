// SPDX-License-Identifier: Apache-2.0

// Package rig sets the guard up on this machine: a real API server from
// test/cluster, the webhook as the chart registers it, an agent over a host
// tree. The demo and the end-to-end tests stand on it.
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
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pkitest"
)

const (
	// Node is the name of the only node, an object alone, and RealNode that of one
	// with a kubelet (test/cluster).
	Node     = "master-0"
	RealNode = "node-0"
	// guardNamespace is where the chart is installed.
	guardNamespace = "kubelet-https-guard"
	// webhookName is that of the webhook in its registration.
	webhookName = "secrets.kubelet-https-guard.io"
	// serviceCAFile is where the chart has OpenShift's service CA in the
	// webhook's Pod.
	serviceCAFile = "/etc/service-ca/service-ca.crt"

	// readyTime bounds waiting for the webhook to be registered and to answer.
	readyTime = 5 * time.Minute
)

// Part of the guard as the API server knows it: a template of the chart.
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

// Options say how to set up.
type Options struct {
	// Repository is the root of the source tree.
	Repository string
	// Dir is where all files of this rig go; it is made anew.
	Dir string
	// Progress is told what takes long.
	Progress io.Writer
	// Detach: what is started stays when this process ends.
	Detach bool
	// RealNode: with a kubelet, a container runtime and all else that runs Pods,
	// which takes root. Its name is [RealNode].
	RealNode bool
	// WebhookFlags are more flags of the webhook, which win over the rig's own.
	WebhookFlags []string
}

// Rig is a running control plane with the guard's registration.
type Rig struct {
	options   Options
	processes *processes
	cluster   io.Closer // ends the control plane; nil where it is detached

	// Kubeconfig is that of a cluster administrator, Kubectl the program.
	Kubeconfig, Kubectl string
	// Webhook is the running webhook.
	Webhook *Process
	// ServiceCA is the CA that the webhook takes for OpenShift's service CA.
	ServiceCA *pkitest.CA

	helm string
	ca   *pkitest.CA
	port int
}

// Start builds what is needed and starts the control plane. Stop must be
// called, also after an error.
func Start(ctx context.Context, options Options) (*Rig, error) {
	// Absolute, since programs are built in several folders: a relative path
	// would be another one in each.
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
	if err := r.build(ctx); err != nil {
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
	// One CA stands for both of OpenShift's signers.
	bundle := r.KubectlCommand(ctx, "create", "configmap", "--namespace", "openshift-kube-apiserver-operator", "kube-apiserver-to-kubelet-client-ca", "--from-literal=ca-bundle.crt="+string(r.ServiceCA.PEM()))
	if bundle.Code != 0 {
		return r, fmt.Errorf("make the kubelet client CA: %s", bundle.Output)
	}
	return r, nil
}

// Stop ends all that was started, unless it is detached.
func (r *Rig) Stop() {
	if r.options.Detach {
		return
	}
	r.processes.stopAll()
	if r.cluster != nil {
		_ = r.cluster.Close()
	}
}

// EndDetached ends what an earlier rig left running in a directory, if
// anything.
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
	command.Dir = filepath.Join(repository, "test", "cluster")
	if result := run(command); result.Code != 0 {
		return fmt.Errorf("end the control plane in %s: %s", dir, result.Output)
	}
	return nil
}

// Path is a file of this rig.
func (r *Rig) Path(elements ...string) string {
	return filepath.Join(append([]string{r.options.Dir}, elements...)...)
}

// binary is a program that was built.
func (r *Rig) binary(name string) string { return filepath.Join(r.options.Repository, "bin", name) }

// build makes the programs, as they are shipped: static.
func (r *Rig) build(ctx context.Context) error {
	bin := filepath.Join(r.options.Repository, "bin") + string(filepath.Separator)
	r.helm = filepath.Join(r.options.Repository, ".tools", "helm")
	for _, b := range []struct{ what, folder, output, pkg string }{
		{"webhook", ".", bin, "./webhook"},
		{"nodeagent", ".", bin, "./nodeagent"},
		{"cluster", "test/cluster", filepath.Join(bin, "cluster"), "."},
		{"helm", "tools", r.helm, "helm.sh/helm/v4/cmd/helm"},
	} {
		started := time.Now()
		done := r.slow(fmt.Sprintf("building %s (minutes, once)", b.what))
		command := exec.CommandContext(ctx, "go", "build", "-o", b.output, b.pkg)
		command.Dir = filepath.Join(r.options.Repository, b.folder)
		command.Env = append(os.Environ(), "CGO_ENABLED=0")
		output, err := command.CombinedOutput()
		done()
		if err != nil {
			return fmt.Errorf("build %s: %w\n%s", b.what, err, output)
		}
		if took := time.Since(started); took > 2*time.Second {
			_, _ = fmt.Fprintf(r.options.Progress, "built %s in %s\n", b.what, took.Round(time.Second))
		}
	}
	return nil
}

// slow says what is being done, if it has not ended after a moment.
func (r *Rig) slow(what string) (done func()) {
	timer := time.AfterFunc(2*time.Second, func() { _, _ = fmt.Fprintln(r.options.Progress, what+" …") })
	return func() { timer.Stop() }
}

// startCluster starts etcd and kube-apiserver, building them if need be.
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
	command.Dir = filepath.Join(r.options.Repository, "test", "cluster")
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
	// serve says one line and runs on; up says several and ends.
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
		return fmt.Errorf("start the control plane: %w\n%s", errors.Join(errors.New("it did not say that it is ready"), command.Wait()), output.String())
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

// Restore writes an object into etcd, as a restored backup would: no API server
// and no admission looks at it. The object must have its kind and its UID.
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
	// etcd's JSON gateway wants key and value in base64, which []byte is in JSON.
	body, err := json.Marshal(map[string][]byte{"key": []byte("/registry/" + resource + "/" + namespace + "/" + name), "value": value})
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

// Result is what a command answered.
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

// Helm runs helm as the administrator, in the repository.
func (r *Rig) Helm(ctx context.Context, args ...string) Result {
	command := exec.CommandContext(ctx, r.helm, args...)
	command.Dir = r.options.Repository
	command.Env = append(os.Environ(), "KUBECONFIG="+r.Kubeconfig)
	return run(command)
}

// Cluster runs a command of test/cluster on this rig's cluster.
func (r *Rig) Cluster(ctx context.Context, verb string, args ...string) Result {
	command := exec.CommandContext(ctx, r.binary("cluster"), append([]string{verb, "--dir", r.Path("cluster")}, args...)...)
	command.Dir = filepath.Join(r.options.Repository, "test", "cluster")
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

// render renders templates of the chart, as on OpenShift.
func (r *Rig) render(ctx context.Context, settings []string, templates ...string) (string, error) {
	args := []string{
		"template", "kubelet-https-guard", filepath.Join(r.options.Repository, "charts", "kubelet-https-guard"),
		"--namespace", guardNamespace, "--api-versions", "security.openshift.io/v1",
	}
	for _, setting := range settings {
		args = append(args, "--set", setting)
	}
	for _, template := range templates {
		args = append(args, "--show-only", "templates/"+template)
	}
	result := run(exec.CommandContext(ctx, r.helm, args...))
	if result.Code != 0 {
		return "", fmt.Errorf("render the chart: %s", result.Output)
	}
	return result.Output, nil
}

// here are the settings of the chart for a webhook at this machine.
func (r *Rig) here() []string {
	return []string{
		fmt.Sprintf("webhook.url=https://127.0.0.1:%d", r.port),
		"webhook.certificate.mode=provided",
		"webhook.certificate.caBundle=" + base64.StdEncoding.EncodeToString(r.ca.PEM()),
	}
}

// FreePort is a port of this machine that nobody listens on.
func FreePort(ctx context.Context) (int, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	address, _ := listener.Addr().(*net.TCPAddr) // a TCP listener has no other
	return address.Port, listener.Close()
}

// WebhookAddress is where the webhook serves; its certificate's files are in the
// directory.
func (r *Rig) WebhookAddress() (address, certDir string) {
	return fmt.Sprintf("127.0.0.1:%d", r.port), r.Path("webhook", "tls")
}

// IssueServing makes a pair for the webhook, of the CA that the API server knows
// it by.
func (r *Rig) IssueServing(notBefore, notAfter time.Time) pkitest.Pair {
	return r.ca.Issue(pkitest.Request{CommonName: "webhook", IPs: []net.IP{net.IPv4(127, 0, 0, 1)}}.Valid(notBefore, notAfter))
}

// CABundle is what the API server knows the webhook by, PEM.
func (r *Rig) CABundle() []byte { return r.ca.PEM() }

// Launch starts another program, with its log in NAME.log.
func (r *Rig) Launch(name, program string, args ...string) (*Process, error) {
	return r.processes.launch(r.Path(name+".log"), program, args...)
}

// LaunchWebhook starts another webhook, as the cluster's administrator.
func (r *Rig) LaunchWebhook(name string, args ...string) (*Process, error) {
	return r.processes.launch(r.Path(name+".log"), r.binary("webhook"), append([]string{"--kubeconfig", r.Kubeconfig, "--health-bind-address", "0", "--shutdown-delay", "0s"}, args...)...)
}

// InstallGuard applies the chart's registration and rights, and starts the
// webhook with them. It returns when the API server asks the webhook.
func (r *Rig) InstallGuard(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTime)
	defer cancel()
	var err error
	if r.port, err = FreePort(ctx); err != nil {
		return err
	}
	rights, err := r.render(ctx, r.here(), "webhook/serviceaccount.yaml", "webhook/rbac.yaml", "nodeagent/serviceaccount.yaml", "nodeagent/rbac.yaml")
	if err != nil {
		return err
	}
	if result := r.KubectlInput(ctx, rights, "apply", "-f", "-"); result.Code != 0 {
		return fmt.Errorf("apply the chart's rights: %s", result.Output)
	}
	if err := r.StartWebhook(ctx); err != nil {
		return err
	}
	return r.Register(ctx, Registration, Policy)
}

// Register makes the API server know these parts of the guard and no other.
// It returns when it acts like that.
func (r *Rig) Register(ctx context.Context, parts ...Part) error {
	ctx, cancel := context.WithTimeout(ctx, readyTime)
	defer cancel()
	for _, part := range []Part{Registration, Policy} {
		manifest, err := r.render(ctx, r.here(), string(part))
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

// StartWebhook starts the webhook's process with the chart's configuration
// and the rights of its ServiceAccount.
func (r *Rig) StartWebhook(ctx context.Context) error {
	now := time.Now()
	serving := r.IssueServing(now.Add(-time.Hour), now.AddDate(1, 0, 0))
	// As on OpenShift, but for the guard's own registration, which points here.
	config, err := r.webhookConfig(ctx, nil, "config.yaml")
	if err != nil {
		return err
	}
	if !strings.Contains(config, serviceCAFile) {
		return fmt.Errorf("the rendered configuration does not name %s:\n%s", serviceCAFile, config)
	}
	config = strings.ReplaceAll(config, serviceCAFile, r.Path("webhook", "service-ca.crt"))
	guard, err := r.webhookConfig(ctx, r.here(), "guard.yaml")
	if err != nil {
		return err
	}
	kubeconfig, err := r.kubeconfigOf(ctx, "kubelet-https-guard-webhook")
	if err != nil {
		return err
	}
	for path, data := range map[string][]byte{"tls/tls.crt": serving.Certificate, "tls/tls.key": serving.Key, "config.yaml": []byte(config), "guard.yaml": []byte(guard), "service-ca.crt": r.ServiceCA.PEM()} {
		if err := r.write(filepath.Join("webhook", path), data); err != nil {
			return err
		}
	}
	flags := append([]string{
		"--bind-address", fmt.Sprintf("127.0.0.1:%d", r.port), "--health-bind-address", "0", "--shutdown-delay", "0s",
		"--cert-dir", r.Path("webhook", "tls"), "--config", r.Path("webhook", "config.yaml"), "--guard", r.Path("webhook", "guard.yaml"),
		"--guard-patience", "2s", "--namespace", guardNamespace, "--kubeconfig", kubeconfig,
	}, r.options.WebhookFlags...)
	r.Webhook, err = r.processes.launch(r.Path("webhook.log"), r.binary("webhook"), flags...)
	return err
}

// RestartWebhook starts the webhook anew and waits until it is asked.
func (r *Rig) RestartWebhook(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTime)
	defer cancel()
	if err := r.StartWebhook(ctx); err != nil {
		return err
	}
	return r.awaitRefusal(ctx, garbageSecret, webhookRefuses, true)
}

// webhookConfig is a file of the ConfigMap that the chart renders.
func (r *Rig) webhookConfig(ctx context.Context, settings []string, file string) (string, error) {
	configMap, err := r.render(ctx, settings, "webhook/configmap.yaml")
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

// StartAgent starts an agent over a host tree, with the rights of its
// ServiceAccount.
func (r *Rig) StartAgent(ctx context.Context, hostRoot string, flags ...string) (*Process, error) {
	kubeconfig, err := r.AgentKubeconfig(ctx)
	if err != nil {
		return nil, err
	}
	args := append([]string{"--root", hostRoot, "--node-name", Node, "--kubeconfig", kubeconfig, "--metrics-bind-address", "127.0.0.1:0"}, flags...)
	return r.processes.launch(r.Path("nodeagent.log"), r.binary("nodeagent"), args...)
}

// AgentKubeconfig is a file with the rights of the agent's ServiceAccount, for
// who starts one otherwise.
func (r *Rig) AgentKubeconfig(ctx context.Context) (string, error) {
	return r.kubeconfigOf(ctx, "kubelet-https-guard-nodeagent")
}

// AgentOnce runs the agent once.
func (r *Rig) AgentOnce(ctx context.Context, hostRoot string, flags ...string) Result {
	return run(exec.CommandContext(ctx, r.binary("nodeagent"), append([]string{"--once", "--root", hostRoot, "--node-name", Node}, flags...)...))
}

// AuditOnce runs webhook audit --once.
func (r *Rig) AuditOnce(ctx context.Context, flags ...string) Result {
	return run(exec.CommandContext(ctx, r.binary("webhook"), append([]string{"audit", "--once"}, flags...)...))
}

// kubeconfigOf writes a kubeconfig with a token of a ServiceAccount.
func (r *Rig) kubeconfigOf(ctx context.Context, account string) (string, error) {
	token := r.KubectlCommand(ctx, "create", "token", "--namespace", guardNamespace, "--duration", "24h", account)
	if token.Code != 0 {
		return "", fmt.Errorf("get a token of %s: %s", account, token.Output)
	}
	admin := r.KubectlCommand(ctx, "config", "view", "--raw", "--minify", "--flatten", "-o", "jsonpath={.clusters[0].cluster.server} {.clusters[0].cluster.certificate-authority-data}")
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

// What a part of the guard alone refuses, and what the API server then says.
const (
	webhookRefuses = `admission webhook "` + webhookName + `" denied the request`
	policyRefuses  = "ValidatingAdmissionPolicy 'kubelet-https-guard.%s'"
	// garbageSecret is right as far as CEL can see.
	garbageSecret = `{"apiVersion":"v1","kind":"Secret","metadata":{"namespace":"openshift-kube-apiserver","name":"kubelet-client"},"type":"kubernetes.io/tls","data":{"tls.crt":"eA==","tls.key":"eA=="}}`
	opaqueSecret  = `{"apiVersion":"v1","kind":"Secret","metadata":{"namespace":%q,"name":%q}}`
)

// await waits until these parts act, and no other.
func (r *Rig) await(ctx context.Context, parts ...Part) error {
	if err := r.awaitRefusal(ctx, garbageSecret, webhookRefuses, slices.Contains(parts, Registration)); err != nil {
		return err
	}
	for _, secret := range [][2]string{{"openshift-apiserver", "serving-cert"}, {"openshift-kube-apiserver", "kubelet-client"}} {
		input, words := fmt.Sprintf(opaqueSecret, secret[0], secret[1]), fmt.Sprintf(policyRefuses, secret[0]+"."+secret[1])
		if err := r.awaitRefusal(ctx, input, words, slices.Contains(parts, Policy)); err != nil {
			return err
		}
	}
	return nil
}

// awaitRefusal waits until creating a Secret is refused, or no more, in these
// words.
func (r *Rig) awaitRefusal(ctx context.Context, secret, words string, want bool) error {
	for {
		result := r.KubectlInput(ctx, secret, "create", "--dry-run=server", "-f", "-")
		if strings.Contains(result.Output, words) == want && !strings.Contains(result.Output, "failed calling webhook") {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait until the API server says %q (or does not): %w; the last answer was: %s", words, ctx.Err(), result.Output)
		case err := <-r.Webhook.ended:
			return fmt.Errorf("the webhook ended: %w\n%s", err, r.Webhook.tail())
		case <-time.After(100 * time.Millisecond):
		}
	}
}
