// SPDX-License-Identifier: Apache-2.0

// Package monitoring_test tests the chart's alerts with promtool, and its dashboard
// with a Prometheus that scrapes the real programs and a real API server.
package monitoring_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/openshift"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/rig"
)

const (
	repository = "../.."
	// patience is the longest time to wait for one condition.
	patience = 3 * time.Minute
)

// program returns the path of a Prometheus program; make test-monitoring downloads them.
func program(t *testing.T, name string) string {
	t.Helper()
	directory := os.Getenv("PROMETHEUS")
	if directory == "" {
		t.Skip("PROMETHEUS is not set: run make test-monitoring")
	}
	path := filepath.Join(directory, name)
	if _, err := os.Stat(path); err != nil {
		t.Fatal(err)
	}
	return path
}

// rules returns the rules of the chart as a Prometheus rules file.
func rules(t *testing.T) []byte {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), filepath.Join(repository, ".tools", "helm"), "template",
		"kubelet-https-guard", filepath.Join(repository, "charts/kubelet-https-guard"),
		"--namespace", "guard", "--api-versions", "monitoring.coreos.com/v1", "--set", "monitoring.prometheusRule=true",
		"--show-only", "templates/monitoring/prometheusrule.yaml").Output()
	if err != nil {
		t.Fatal(err)
	}
	var object struct {
		Spec yaml.Node `yaml:"spec"`
	}
	if err := yaml.Unmarshal(out, &object); err != nil {
		t.Fatal(err)
	}
	text, err := yaml.Marshal(&object.Spec)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestAlerts: promtool accepts the rules, and a test fires each alert.
func TestAlerts(t *testing.T) {
	promtool := program(t, "promtool")
	directory := t.TempDir()
	tests, err := os.ReadFile("alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	text := rules(t)
	for name, data := range map[string][]byte{"rules.yaml": text, "alerts.yaml": tests} {
		if err := os.WriteFile(filepath.Join(directory, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{{"check", "rules", "--lint-fatal", "rules.yaml"}, {"test", "rules", "alerts.yaml"}} {
		command := exec.CommandContext(t.Context(), promtool, args...)
		command.Dir = directory
		if out, err := command.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	for _, alert := range regexp.MustCompile(`alert: (\w+)`).FindAllSubmatch(text, -1) {
		if !bytes.Contains(tests, fmt.Appendf(nil, "alertname: %s\n        exp_alerts:\n          -", alert[1])) {
			t.Errorf("no test fires %s", alert[1])
		}
	}
}

// TestDashboard: each query returns series from what the programs serve.
func TestDashboard(t *testing.T) {
	prometheus := program(t, "prometheus")
	r, err := rig.Start(
		t.Context(),
		rig.Options{
			Repository:   repository,
			Dir:          t.TempDir(),
			Progress:     os.Stderr,
			WebhookFlags: []string{"--health-bind-address", "127.0.0.1:0"},
			AuditFlags:   []string{"--health-bind-address", "127.0.0.1:0", "--kubelets", "--served-certificates"},
		},
	)
	t.Cleanup(r.Stop)
	if err != nil {
		t.Fatal(err)
	}
	announceKubelets(t, r)
	if err := r.InstallGuard(t.Context()); err != nil { // refuses the dry runs, by policy and webhook
		t.Fatal(err)
	}
	if err := r.MakeAgentPod(t.Context(), rig.Node); err != nil {
		t.Fatal(err)
	}
	config, err := clientcmd.BuildConfigFromFlags("", r.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}

	// A host with a fault.
	now := time.Now()
	ca := pkitest.NewCAAround("kube-apiserver-to-kubelet-signer", now)
	pair := ca.Issue(pkitest.KubeletClient().Valid(now.Add(-time.Hour), now.AddDate(0, 0, 30)))
	tree, err := openshift.Write(t.TempDir(), openshift.Current,
		openshift.Files{Certificate: pair.Certificate, Key: pair.Key, ClientCA: ca.PEM()})
	if err != nil {
		t.Fatal(err)
	}
	agent, err := r.StartAgent(t.Context(), tree.Root, "--pod", rig.AgentPod, "--node-address", "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	targets := map[string]string{
		"webhook":   address(t, r.Webhook, "Serving metrics and health"),
		"audit":     address(t, r.Audit, "Serving metrics and health"),
		"nodeagent": address(t, agent, "Serving metrics and health"),
	}
	// The agent serves metrics before its first check. It cannot report the removal
	// of a file that it has never seen.
	if _, err := agent.Await(t.Context(), "the first verdict", func(l rig.Line) bool {
		return l.Text("msg") == "Compliant" || l.Text("msg") == "Not compliant" || l.Text("msg") == "Could not verify"
	}); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(tree.Certificate()); err != nil {
		t.Fatal(err)
	}
	if _, err := agent.Await(t.Context(), string(finding.CertificateMissing), func(l rig.Line) bool {
		return l.Text("msg") == "Finding active" && l.Text("reason") == string(finding.CertificateMissing)
	}); err != nil {
		t.Fatal(err)
	}

	at := startPrometheus(t, prometheus, config, targets)
	data, err := os.ReadFile(filepath.Join(repository, "charts/kubelet-https-guard/files/dashboard.json"))
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(data, &dashboard); err != nil {
		t.Fatal(err)
	}
	queries := 0
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			queries++
			t.Run(panel.Title, func(t *testing.T) { answered(t, at, target.Expr) })
		}
	}
	if queries < len(dashboard.Panels) || queries == 0 {
		t.Errorf("%d queries in %d panels", queries, len(dashboard.Panels))
	}
	// Prometheus can evaluate the query of each alert, too.
	var groups struct {
		Groups []struct {
			Rules []rule
		}
	}
	if err := yaml.Unmarshal(rules(t), &groups); err != nil {
		t.Fatal(err)
	}
	for _, rule := range groups.Groups[0].Rules {
		if _, err := query(t.Context(), at, rule.Expr); err != nil {
			t.Errorf("%s: %v", rule.Alert, err)
		}
	}
	if n, err := query(t.Context(), at, groups.Groups[0].Rules[0].Expr); err != nil || n == 0 {
		t.Errorf("%s does not fire, although the host has a fault: %v", groups.Groups[0].Rules[0].Alert, err)
	}
	quiet(t, at, groups.Groups[0].Rules)
}

// announceKubelets makes a stand-in the kubelet of two Nodes. The audit refuses its loopback address; the API server
// connects to it.
func announceKubelets(t *testing.T, r *rig.Rig) {
	t.Helper()
	ca, err := r.ClusterCA()
	if err != nil {
		t.Fatal(err)
	}
	kubelet, err := rig.StartKubelet(t.Context(), rig.Node, netip.MustParseAddr("127.0.0.1"), ca, ca)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(kubelet.Stop)
	for _, node := range []string{rig.Node, "worker-0"} {
		if err := r.AnnounceKubelet(t.Context(), node, kubelet.Address); err != nil {
			t.Fatal(err)
		}
	}
}

// quiet: no alert on the guard fires because of the refused dry runs of the audit, and no alert that connections to
// kubelets are not checked.
func quiet(t *testing.T, at string, rules []rule) {
	t.Helper()
	for _, proof := range []string{
		"kubelet_https_guard_in_force == 1",
		`kubelet_https_guard_connection{outcome="pass"} == 1`,
		"kubelet_https_guard_kubelet_sweep_timestamp_seconds > 0",
		`apiserver_validating_admission_policy_check_total{policy=~".*-decoy",enforcement_action="deny"} > 0`,
		`apiserver_admission_webhook_rejection_count{name="secrets.kubelet-https-guard.io",error_type="no_error"} > 0`,
	} {
		answered(t, at, proof)
	}
	tried := 0
	for _, rule := range rules {
		switch rule.Alert {
		case "KubeletHTTPSGuardNotInForce",
			"KubeletHTTPSGuardWeakened",
			"KubeletHTTPSGuardFailsOpen",
			"KubeletHTTPSGuardFailsClosed",
			"KubeletHTTPSGuardRefusesALot",
			"KubeletHTTPSConnectionNotChecked",
			"KubeletHTTPSKubeletsNotChecked":
			tried++
			if n, err := query(t.Context(), at, rule.Expr); err != nil || n > 0 {
				t.Errorf("%s fires for %d series, although the guard is in force: %v", rule.Alert, n, err)
			}
		}
	}
	if tried != 7 {
		t.Errorf("checked %d alerts on the guard, want 7", tried)
	}
}

// rule is an alerting rule of Prometheus.
type rule struct{ Alert, Expr string }

// address returns the address that a program logs with the message.
func address(t *testing.T, p *rig.Process, message string) string {
	t.Helper()
	line, err := p.Await(t.Context(), message, func(l rig.Line) bool { return l.Text("msg") == message })
	if err != nil {
		t.Fatal(err)
	}
	return line.Text("address")
}

// startPrometheus starts a Prometheus that scrapes the targets and the API server,
// and returns its URL.
func startPrometheus(t *testing.T, program string, api *rest.Config, targets map[string]string) string {
	t.Helper()
	directory := t.TempDir()
	ca := filepath.Join(directory, "ca.crt")
	if err := os.WriteFile(ca, api.CAData, 0o600); err != nil {
		t.Fatal(err)
	}
	server, err := url.Parse(api.Host)
	if err != nil {
		t.Fatal(err)
	}
	var scrapes strings.Builder
	for job, target := range targets {
		fmt.Fprintf(&scrapes,
			"- {job_name: %s, static_configs: [{targets: [%q], labels: {node: master-0, pod: %s, namespace: guard}}]}\n",
			job, target, job)
	}
	config := fmt.Sprintf(`global: {scrape_interval: 1s, evaluation_interval: 1s}
scrape_configs:
- job_name: apiserver
  scheme: https
  authorization: {credentials: %q}
  tls_config: {ca_file: %q}
  static_configs: [{targets: [%q]}]
  scrape_interval: 5s # also the timeout of a scrape, of 20,000 samples
%s`, api.BearerToken, ca, server.Host, &scrapes)
	if err := os.WriteFile(filepath.Join(directory, "prometheus.yml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	port, err := rig.FreePort(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	at := fmt.Sprintf("127.0.0.1:%d", port)
	var log bytes.Buffer
	command := exec.CommandContext(context.WithoutCancel(t.Context()), program,
		"--config.file="+filepath.Join(directory, "prometheus.yml"), "--storage.tsdb.path="+filepath.Join(directory, "data"),
		"--web.listen-address="+at)
	command.Stdout, command.Stderr = &log, &log
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait() // it was killed
		if t.Failed() {
			t.Logf("log of Prometheus:\n%s", &log)
		}
	})
	for job := range targets {
		await(t, job+" is scraped", func() bool {
			n, err := query(t.Context(), "http://"+at, `count_over_time(up{job="`+job+`"}[1m]) > 3 and up{job="`+job+`"} == 1`)
			return err == nil && n > 0
		})
	}
	await(t, "the API server is scraped", func() bool {
		n, err := query(t.Context(), "http://"+at,
			`count_over_time(up{job="apiserver"}[1m]) > 3 and up{job="apiserver"} == 1`)
		return err == nil && n > 0
	})
	return "http://" + at
}

// answered waits until a query returns at least one series.
func answered(t *testing.T, at, expression string) {
	t.Helper()
	await(t, expression, func() bool {
		n, err := query(t.Context(), at, expression)
		if err != nil {
			t.Fatal(err)
		}
		return n > 0
	})
}

// query sends a query to Prometheus and returns the number of series in the result.
func query(ctx context.Context, at, expression string) (int, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, at+"/api/v1/query?query="+url.QueryEscape(expression),
		nil)
	if err != nil {
		return 0, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err
	}
	defer func() { _ = response.Body.Close() }()
	var answer struct {
		Status, Error string
		Data          struct{ Result []json.RawMessage }
	}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return 0, err
	}
	if answer.Status != "success" {
		return 0, fmt.Errorf("%s: %s", expression, answer.Error)
	}
	return len(answer.Data.Result), nil
}

func await(t *testing.T, what string, met func() bool) {
	t.Helper()
	deadline := time.After(patience)
	for !met() {
		select {
		case <-deadline:
			t.Fatalf("timed out after %s: %s", patience, what)
		case <-time.After(time.Second / 4):
		}
	}
}
