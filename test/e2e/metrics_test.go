// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/openshift"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/rig"
)

// platformPrometheus is the user of OpenShift's Prometheus.
const platformPrometheus = "system:serviceaccount:openshift-monitoring:prometheus-k8s"

// TestMetricsOverHTTPS: with the chart's permissions, each program asks the API server who may read its metrics.
func TestMetricsOverHTTPS(t *testing.T) {
	const name = "metrics.guard.svc"
	now := time.Now()
	serving, directory := pkitest.NewCAAround("service-ca", now), t.TempDir()
	request := pkitest.Request{DNSNames: []string{name}, Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	pair := serving.Issue(request.Valid(now.Add(-time.Hour), now.AddDate(0, 0, 1)))
	for file, content := range map[string][]byte{"tls.crt": pair.Certificate, "tls.key": pair.Key} {
		if err := os.WriteFile(filepath.Join(directory, file), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	flags := []string{
		"--metrics-cert-dir", directory, "--metrics-tls-bind-address", "127.0.0.1:0", "--metrics-allowed-users",
		platformPrometheus,
	}
	tree, err := openshift.Write(t.TempDir(), openshift.Current, openshift.Files{})
	if err != nil {
		t.Fatal(err)
	}
	agent, err := shared.rig.StartAgent(t.Context(), tree.Root, flags...)
	if err != nil {
		t.Fatal(err)
	}
	_, certDir := shared.rig.WebhookAddress()
	webhook, err := shared.rig.LaunchWebhook("webhook-https", append(flags, "--cert-dir", certDir, "--bind-address",
		"127.0.0.1:0")...)
	if err != nil {
		t.Fatal(err)
	}
	kubeconfig, err := shared.rig.AuditKubeconfig(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	audit, err := shared.rig.Launch("audit-https", filepath.Join("..", "..", "bin", "webhook"), append([]string{
		"audit", "--namespace", "kubelet-https-guard", "--kubeconfig", kubeconfig, "--health-bind-address", "127.0.0.1:0",
		"--lease", "not-permitted",
	}, flags...)...)
	if err != nil {
		t.Fatal(err)
	}
	reader, stranger := tokenOf(t, "metrics-reader", true), tokenOf(t, "metrics-stranger", false)
	cluster, err := shared.rig.ClusterCA()
	if err != nil {
		t.Fatal(err)
	}
	of := func(ca *pkitest.CA, user, group string) *tls.Certificate {
		issued := ca.Issue(pkitest.Request{
			CommonName: user, Organization: group, Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		}.Valid(now.Add(-time.Hour), now.AddDate(0, 0, 1)))
		certificate, err := tls.X509KeyPair(issued.Certificate, issued.Key)
		if err != nil {
			t.Fatal(err)
		}
		return &certificate
	}
	clients := map[string]struct {
		certificate *tls.Certificate
		token       string
		want        int
	}{
		"nothing":                    {want: http.StatusUnauthorized},
		"a permitted ServiceAccount": {token: reader, want: http.StatusOK},
		"another ServiceAccount":     {token: stranger, want: http.StatusForbidden},
		"no token of the cluster":    {token: "x." + stranger, want: http.StatusUnauthorized},
		"the platform's Prometheus":  {certificate: of(cluster, platformPrometheus, ""), want: http.StatusOK},
		"another user":               {certificate: of(cluster, "somebody", ""), want: http.StatusForbidden},
		"an administrator":           {certificate: of(cluster, "somebody", "system:masters"), want: http.StatusOK},
		"another CA":                 {certificate: of(serving, platformPrometheus, ""), want: http.StatusUnauthorized},
	}
	for program, process := range map[string]*rig.Process{"nodeagent": agent, "webhook": webhook, "audit": audit} {
		t.Run(program, func(t *testing.T) {
			addresses := map[string]string{}
			if _, err := process.Await(t.Context(), "its start", func(l rig.Line) bool {
				addresses[l.Text("msg")] = l.Text("address")
				return l.Text("msg") == "Started"
			}); err != nil {
				t.Fatal(err)
			}
			secure, plain := addresses["Serving metrics over HTTPS"], addresses["Serving metrics and health"]
			get := func(certificate *tls.Certificate, token string) (int, string) {
				t.Helper()
				config := &tls.Config{ServerName: name, RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}
				config.RootCAs.AddCert(serving.Certificate)
				if certificate != nil {
					config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
						return certificate, nil
					}
				}
				request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+secure+"/metrics", http.NoBody)
				if err != nil {
					t.Fatal(err)
				}
				if token != "" {
					request.Header.Set("Authorization", "Bearer "+token)
				}
				return answer(t, &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}, request)
			}
			// The program reads the client CA after it has begun to listen.
			prometheus := clients["the platform's Prometheus"].certificate
			for deadline := time.Now().Add(time.Minute); ; <-time.After(10 * time.Millisecond) {
				if code, text := get(prometheus, ""); code == http.StatusOK {
					break
				} else if time.Now().After(deadline) {
					t.Fatalf("got %d, %q", code, text)
				}
			}
			want, got := map[string]int{}, map[string]int{}
			for client, c := range clients {
				code, text := get(c.certificate, c.token)
				want[client], got[client] = c.want, code
				metrics := strings.Contains(text, "\nkubelet_https_guard_build_info{")
				if metrics != (c.want == http.StatusOK) {
					t.Errorf("%s: metrics %t", client, metrics)
				}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("answers (-want +got):\n%s", diff)
			}
			if program == "webhook" { // without a port for probes
				return
			}
			for path, code := range map[string]int{"/metrics": http.StatusNotFound, "/healthz": http.StatusOK} {
				request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+plain+path, http.NoBody)
				if err != nil {
					t.Fatal(err)
				}
				if got, _ := answer(t, &http.Transport{DisableKeepAlives: true}, request); got != code {
					t.Errorf("%s over plain HTTP: got %d, want %d", path, got, code)
				}
			}
		})
	}
}

// answer returns the status and the body of an answer; 0 and the error without an answer.
func answer(t *testing.T, transport *http.Transport, request *http.Request) (int, string) {
	t.Helper()
	response, err := (&http.Client{Transport: transport, Timeout: time.Minute}).Do(request)
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

// tokenOf creates a ServiceAccount and returns a token of it.
func tokenOf(t *testing.T, name string, permitted bool) string {
	t.Helper()
	client, meta := as(t, ""), metav1.ObjectMeta{Name: name}
	accounts := client.CoreV1().ServiceAccounts("default")
	account := &corev1.ServiceAccount{ObjectMeta: meta}
	if _, err := accounts.Create(t.Context(), account, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if permitted {
		role := &rbacv1.ClusterRole{
			ObjectMeta: meta, Rules: []rbacv1.PolicyRule{{NonResourceURLs: []string{"/metrics"}, Verbs: []string{"get"}}},
		}
		binding := &rbacv1.ClusterRoleBinding{
			ObjectMeta: meta, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name},
			Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: name, Namespace: "default"}},
		}
		if _, err := client.RbacV1().ClusterRoles().Create(t.Context(), role, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := client.RbacV1().ClusterRoleBindings().Create(t.Context(), binding, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	issued, err := accounts.CreateToken(t.Context(), name, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return issued.Status.Token
}
