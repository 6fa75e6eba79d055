// SPDX-License-Identifier: Apache-2.0

package chart_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kubelet-https-guard/kubelet-https-guard/test/chart"
)

// TestValidValues: each of testdata/schema/valid renders.
func TestValidValues(t *testing.T) {
	for name, file := range fixtures(t, "valid") {
		t.Run(name, func(t *testing.T) {
			needs(t, "HELM")
			if _, err := chart.Render(t.Context(), "--values", file); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestInvalidValues: each of testdata/schema/invalid is refused, and the message
// contains every line of NAME.expect.txt.
func TestInvalidValues(t *testing.T) {
	for name, file := range fixtures(t, "invalid") {
		t.Run(name, func(t *testing.T) {
			expected, err := os.ReadFile(strings.TrimSuffix(file, ".yaml") + ".expect.txt")
			if err != nil {
				t.Fatal(err)
			}
			refused(t, strings.Split(strings.TrimSpace(string(expected)), "\n"), "--values", file)
		})
	}
	// An expectation without a fixture is never checked.
	expectations, err := filepath.Glob("testdata/schema/*/*.expect.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, expectation := range expectations {
		_, err := os.Stat(strings.TrimSuffix(expectation, ".expect.txt") + ".yaml")
		if err != nil || strings.Contains(expectation, "/valid/") {
			t.Errorf("%s has no invalid fixture", expectation)
		}
	}
}

// fixtures returns the files in a folder of testdata/schema, by name.
func fixtures(t *testing.T, folder string) map[string]string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", "schema", folder, "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no fixtures in %s: %v", folder, err)
	}
	all := map[string]string{}
	for _, file := range files {
		all[strings.TrimSuffix(filepath.Base(file), ".yaml")] = file
	}
	return all
}

// refused fails the test unless Helm refuses to render and its message contains
// each of the given texts.
func refused(t *testing.T, want []string, args ...string) {
	t.Helper()
	needs(t, "HELM")
	var refusal *chart.RenderError
	switch _, err := chart.Render(t.Context(), args...); {
	case err == nil:
		t.Error("Helm rendered the chart")
	case !errors.As(err, &refusal):
		t.Error(err)
	default:
		for _, text := range want {
			if !strings.Contains(refusal.Message, text) {
				t.Errorf("the message does not contain\n\t%s\nit is\n\t%s", text, refusal.Message)
			}
		}
	}
}

// TestContradictions: values that contradict each other or do not fit the cluster
// are refused. The message names the values.
func TestContradictions(t *testing.T) {
	mode := func(name string, more ...string) []string {
		args := []string{"--set", "webhook.certificate.mode=" + name}
		for _, set := range more {
			args = append(args, "--set", set)
		}
		return args
	}
	hostPath := func(path string) []string { return []string{"--set", "nodeagent.hostPaths={" + path + "}"} }
	cases := map[string]struct {
		args []string
		want string
	}{
		"static policies without the audit": {
			[]string{"--set", "policy.static=true,audit.enabled=false"},
			"policy.static requires audit.enabled=true",
		},
		"service-ca without OpenShift": {
			mode("service-ca"),
			"webhook.certificate.mode is service-ca, but this cluster is not known to be OpenShift",
		},
		"cert-manager that is not installed": {
			mode("cert-manager"),
			"webhook.certificate.mode is cert-manager, but this cluster does not serve cert-manager.io/v1",
		},
		"provided without a CA": {
			mode("provided", "webhook.certificate.secretName=s"),
			"webhook.certificate.mode is provided, but webhook.certificate.caBundle is empty",
		},
		"provided without a Secret": {
			mode("provided", "webhook.certificate.caBundle=Q0E="),
			"webhook.certificate.mode is provided, but webhook.certificate.secretName is empty",
		},
		"a CA in the mode self-managed": {
			mode("self-managed", "webhook.certificate.caBundle=Q0E="),
			"webhook.certificate.caBundle is set, but in mode self-managed",
		},
		"a CA in the mode auto": {
			mode("auto", "webhook.certificate.caBundle=Q0E="),
			"webhook.certificate.caBundle is set, but in mode self-managed",
		},
		"an Issuer in the mode self-managed": {
			mode("self-managed", "webhook.certificate.issuerRef.name=i"),
			"webhook.certificate.issuerRef is set, but in mode self-managed it is not used",
		},
		"client names without a client CA": {
			[]string{"--set", "webhook.tls.clientNames={a}"},
			"webhook.tls.clientNames is set, but webhook.tls.clientCA is empty",
		},
		"TLS 1.1": {
			[]string{"--set", "webhook.tls.minVersion=VersionTLS11"},
			"at '/webhook/tls/minVersion': value must be one of 'VersionTLS12', 'VersionTLS13'",
		},
		"a client CA that is not PEM": {
			[]string{"--set", "webhook.tls.clientCA=Q0E="},
			"at '/webhook/tls/clientCA'",
		},
		"an external webhook without its CA": {
			[]string{"--set", "webhook.url=https://127.0.0.1:1"},
			"webhook.url is https://127.0.0.1:1, but webhook.certificate.mode is auto",
		},
		"alerts without the Prometheus operator": {
			[]string{"--set", "monitoring.prometheusRule=true"},
			"monitoring.prometheusRule is true, but this cluster does not serve monitoring.coreos.com/v1",
		},
		"a PodMonitor without the Prometheus operator": {
			[]string{"--set", "monitoring.podMonitor=true"},
			"monitoring.podMonitor is true, but this cluster does not serve monitoring.coreos.com/v1",
		},
		"metrics over HTTPS without a Secret": {
			[]string{"--set", "metrics.tls=true"},
			"metrics.tls is true, but metrics.secretName is empty",
		},
		"metrics over HTTPS on the port of probes": {
			[]string{"--set", "metrics.tls=true", "--set", "metrics.secretName=mine", "--set", "nodeagent.metricsPort=8443"},
			"nodeagent.metricsPort is 8443, the port of metrics over HTTPS",
		},
		"metrics over something else": {
			[]string{"--set", "metrics.tls=mutual"},
			"at '/metrics/tls'",
		},
		"a resync interval that is too long": {
			[]string{"--set", "nodeagent.resync=15m"},
			"at '/nodeagent/resync'",
		},
		"the whole host": {
			hostPath("/"),
			"nodeagent.hostPaths lists /, which contains /var/lib/kubelet",
		},
		"all of /var": {
			hostPath("/var"),
			"nodeagent.hostPaths lists /var, which contains /var/lib/kubelet",
		},
		"all of /var/lib": {
			hostPath("/var/lib"),
			"nodeagent.hostPaths lists /var/lib, which contains /var/lib/kubelet",
		},
		"the kubelet directory": {
			hostPath("/var/lib/kubelet"),
			"nodeagent.hostPaths lists /var/lib/kubelet, but /var/lib/kubelet contains the tokens",
		},
		"the directory of the Pods": {
			hostPath("/var/lib/kubelet/pods"),
			"nodeagent.hostPaths lists /var/lib/kubelet/pods, but /var/lib/kubelet contains the tokens",
		},
		"the etcd directory": {
			hostPath("/var/lib/etcd"),
			"nodeagent.hostPaths lists /var/lib/etcd, but /var/lib/etcd contains all Secrets",
		},
		"sockets": {
			hostPath("/run/containerd"),
			"nodeagent.hostPaths lists /run/containerd, but /run contains sockets and credentials",
		},
		"processes": {
			hostPath("/proc"),
			"nodeagent.hostPaths lists /proc, but /proc does not contain regular files",
		},
		"the host below another path": {
			hostPath("/sysroot/ostree/deploy"),
			"nodeagent.hostPaths lists /sysroot/ostree/deploy, but /sysroot contains the whole host",
		},
		"a path with ..": {
			hostPath("/srv/../var/lib/kubelet"),
			"at '/nodeagent/hostPaths/0': '/srv/../var/lib/kubelet' does not match pattern",
		},
		"a path with an empty element": {
			hostPath("/var//lib/kubelet"),
			"at '/nodeagent/hostPaths/0': '/var//lib/kubelet' does not match pattern",
		},
		"a path with a trailing slash": {
			hostPath("/var/lib/kubelet/"),
			"at '/nodeagent/hostPaths/0': '/var/lib/kubelet/' does not match pattern",
		},
		"a relative path": {
			hostPath("srv"),
			"at '/nodeagent/hostPaths/0': 'srv' does not match pattern",
		},
		"a duplicate path": {
			[]string{"--set", "nodeagent.hostPaths={/srv,/srv}"},
			"at '/nodeagent/hostPaths'",
		},
		"a path that is already mounted": {
			hostPath("/etc/kubernetes/pki"),
			"lists /etc/kubernetes/pki, but the agent can already read all of /etc/kubernetes",
		},
		"a path as a directory and a file": {
			[]string{"--set", "nodeagent.hostPaths={/opt/certs}", "--set", "nodeagent.kubeletFiles={/opt/certs}"},
			"nodeagent.hostPaths and nodeagent.kubeletFiles both list /opt/certs",
		},
		"a token as a kubelet file": {
			[]string{"--set", "nodeagent.kubeletFiles={/var/lib/kubelet/pods/x/token}"},
			"nodeagent.kubeletFiles lists /var/lib/kubelet/pods/x/token, but /var/lib/kubelet/pods contains no",
		},
		"the key of the kubelet": {
			[]string{"--set", "nodeagent.kubeletFiles={/var/lib/kubelet/pki/kubelet-client-current.pem}"},
			"but /var/lib/kubelet/pki contains no kubelet configuration",
		},
		"a certificate without its key": {
			[]string{"--set", "nodeagent.clientCertificate=/a.crt"},
			"Only one of nodeagent.clientCertificate and nodeagent.clientKey is set",
		},
		"a pair that is configured twice": {
			[]string{"--set", "nodeagent.clientCertificate=/a.crt,nodeagent.clientKey=/a.key",
				"--set", "nodeagent.clientDirectory=/d"},
			"nodeagent.clientDirectory and nodeagent.clientCertificate are both set",
		},
		"an argument that is not a flag": {
			[]string{"--set", "nodeagent.extraArgs={resync=1s}"},
			"at '/nodeagent/extraArgs/0'",
		},
		"nothing to install": {
			[]string{"--set", "webhook.enabled=false,audit.enabled=false,nodeagent.enabled=false,policy.enabled=false"},
			"webhook.enabled, audit.enabled, nodeagent.enabled and policy.enabled are all false",
		},
		"an old Kubernetes": {
			[]string{"--kube-version", "1.29.9"},
			"chart requires kubeVersion: >=1.30.0-0 which is incompatible with Kubernetes v1.29.9",
		},
		"a duplicate protected Secret": {
			[]string{"--set", "webhook.enabled=false",
				"--set-json", `protectedSecrets=[{"namespace":"a","name":"b","usage":"serverAuth"},` +
					`{"namespace":"a","name":"b","usage":"clientAuth"}]`},
			"protectedSecrets lists a/b twice",
		},
		"a value of chart 0.1": {
			[]string{"--set", "webhook.serviceCA=true"},
			"webhook.serviceCA was removed after chart 0.1: set webhook.certificate.mode (true: auto) instead.",
		},
		"a value of chart 0.2": {
			[]string{"--set-json", `webhook.protectedSecrets=[{"namespace":"a","name":"b","usage":"serverAuth"}]`},
			"webhook.protectedSecrets was moved after chart 0.2: set protectedSecrets instead.",
		},
		"the decoy as a protected Secret": {
			[]string{"--set-json", `protectedSecrets=[{"namespace":"kubelet-https-guard",` +
				`"name":"kubelet-https-guard-decoy","usage":"serverAuth"}]`},
			"protectedSecrets lists kubelet-https-guard/kubelet-https-guard-decoy, which is the decoy",
		},
		"an old value of a disabled component": {
			[]string{"--set-json", `webhook={"enabled":false,"protectedSecrets":[]}`},
			"webhook.protectedSecrets was moved after chart 0.2: set protectedSecrets instead.",
		},
		"a group of values that is removed": {
			[]string{"--set", "webhook=null"},
			"at '': missing property 'webhook'",
		},
		"a value that is removed": {
			[]string{"--set", "webhook.failurePolicy=null"},
			"at '/webhook': missing property 'failurePolicy'",
		},
		"an unknown mode": {
			mode("letsencrypt"),
			"at '/webhook/certificate/mode': value must be one of 'auto', 'service-ca', 'cert-manager'",
		},
		"a CA that is not base64": {
			mode("provided", "webhook.certificate.caBundle=PEM!"),
			"at '/webhook/certificate/caBundle'",
		},
		"an Issuer kind without a name": {
			mode("auto", "webhook.certificate.issuerRef.kind=Issuer"),
			"at '/webhook/certificate/issuerRef'",
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) { refused(t, []string{tc.want}, tc.args...) })
	}
}
