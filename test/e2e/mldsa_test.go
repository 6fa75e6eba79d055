// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/rest"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pki"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/admission"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/openshift"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/rig"
)

// TestMLDSA: where everything has an ML-DSA key, the guard reports it if the API server cannot use it, and nothing if
// it can: in the audit, on a node with its kubelet, and in admission.
func TestMLDSA(t *testing.T) {
	if !pki.SupportsMLDSA() {
		t.Logf("left out: %s cannot make ML-DSA keys", runtime.Version())
		return
	}
	now := time.Now()
	ca := pkitest.NewCAOf(pkitest.MLDSA65, "signer", now)
	issueMLDSA := func(r pkitest.Request) pkitest.Pair {
		r.Key = pkitest.MLDSA65
		return ca.Issue(r.Valid(now.Add(-time.Hour), now.AddDate(2, 0, 0)))
	}
	client := issueMLDSA(pkitest.KubeletClient())
	store(t, serving(issue(pkitest.ServingCert())))
	store(t, openshift.KubeletClient(client.Certificate, client.Key))
	defer func() { // not a cleanup, before which the test's context ends
		good := issue(pkitest.KubeletClient())
		store(t, openshift.KubeletClient(good.Certificate, good.Key))
	}()
	config := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(config, []byte(`apiVersion: kubelet-https-guard.io/v1alpha1
kind: WebhookConfiguration
protectedSecrets:
  - {namespace: openshift-kube-apiserver, name: kubelet-client, usage: clientAuth, managedBy: cert-rotation}
`), 0o600); err != nil {
		t.Fatal(err)
	}
	tree, err := openshift.Write(t.TempDir(), openshift.Current, openshift.Files{
		Certificate: client.Certificate, Key: client.Key, ClientCA: ca.PEM(),
	})
	if err != nil {
		t.Fatal(err)
	}
	kubelet := kubeletWith(t, issueMLDSA(pkitest.Request{
		CommonName: "system:node:" + rig.Node, Organization: "system:nodes", IPs: []net.IP{net.IPv4(127, 0, 0, 1)},
		Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}), ca)

	for name, platform := range map[string]struct {
		kubeconfig  string
		audit, node []string
		admitted    bool
	}{
		"Kubernetes 1.37, built with Go 1.26": {
			kubeconfig: shared.rig.Kubeconfig,
			audit:      []string{"Secret openshift-kube-apiserver/kubelet-client/tls.crt: fail AlgorithmUnsupported"},
			node: []string{
				"File " + tree.CertificateOnHost() + ": fail AlgorithmUnsupported", "Kubelet " + kubelet + ": fail AlgorithmUnsupported",
			},
		},
		"a platform that is built with Go 1.27": {
			kubeconfig: laterPlatform(t, `"goVersion": "go1.27.4"`), admitted: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			audit := shared.rig.AuditOnce(t.Context(), "--kubeconfig", platform.kubeconfig, "--config", config, "-o", "json")
			if d := cmp.Diff(platform.audit, failures(t, audit, "Secret")); d != "" {
				t.Errorf("the audit (-want +got):\n%s\n%s", d, audit.Output)
			}
			node := shared.rig.AgentOnce(t.Context(), tree.Root, "--kubeconfig", platform.kubeconfig, "--kubelet-address",
				kubelet, "-o", "json")
			if d := cmp.Diff(platform.node, failures(t, node, "File", "Kubelet")); d != "" {
				t.Errorf("the node (-want +got):\n%s\n%s", d, node.Output)
			}
			if admitted := admits(t, platform.kubeconfig, config, client); admitted != platform.admitted {
				t.Errorf("the pair is admitted: %t, want %t", admitted, platform.admitted)
			}
		})
	}
}

// failures returns the results about subjects of these kinds that do not pass, sorted and without duplicates, but not
// what was not requested. At least one result about each kind must pass.
func failures(t *testing.T, checked rig.Result, kinds ...string) []string {
	t.Helper()
	var document struct {
		Results []struct {
			Subject         struct{ Kind, Namespace, Name, Path, Key string }
			Outcome, Reason string
		}
	}
	if err := json.Unmarshal([]byte(checked.Output), &document); err != nil {
		t.Fatalf("exit code %d: %v\n%s", checked.Code, err, checked.Output)
	}
	var failed []string
	passed := map[string]bool{}
	for _, r := range document.Results {
		switch at := r.Subject; {
		case !slices.Contains(kinds, at.Kind) || r.Outcome == "notApplicable" || r.Reason == "NotChecked":
		case r.Outcome == "pass":
			passed[at.Kind] = true
		default:
			failed = append(failed, fmt.Sprintf("%s %s: %s %s", at.Kind, path.Join(at.Namespace, at.Name, at.Path, at.Key),
				r.Outcome, r.Reason))
		}
	}
	for _, kind := range kinds {
		if !passed[kind] {
			t.Errorf("no result about a %s passes:\n%s", kind, checked.Output)
		}
	}
	slices.Sort(failed)
	return slices.Compact(failed)
}

// kubeletWith answers handshakes like a kubelet with this pair, which accepts client certificates of the CA. It returns
// its address.
func kubeletWith(t *testing.T, pair pkitest.Pair, clients *pkitest.CA) string {
	t.Helper()
	certificate, err := tls.X509KeyPair(pair.Certificate, pair.Key)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(clients.Certificate)
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.TLS = &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{certificate},
		ClientAuth: tls.RequestClientCert, ClientCAs: pool,
	}
	server.StartTLS()
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

// laterPlatform is a proxy of the API server whose /version has another goVersion. It returns a kubeconfig.
func laterPlatform(t *testing.T, goVersion string) (kubeconfig string) {
	t.Helper()
	target, err := url.Parse(shared.config.Host)
	if err != nil {
		t.Fatal(err)
	}
	transport, err := rest.TransportFor(shared.config)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{
		Transport: transport, FlushInterval: -1,
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) },
		ModifyResponse: func(r *http.Response) error {
			if r.Request.URL.Path != "/version" {
				return nil
			}
			body, err := io.ReadAll(r.Body)
			if err != nil {
				return err
			}
			var version struct{ GoVersion string }
			if err := json.Unmarshal(body, &version); err != nil {
				return err
			}
			if !strings.HasPrefix(version.GoVersion, "go1.26.") {
				t.Errorf("the API server is built with %s, want Go 1.26", version.GoVersion)
			}
			body = bytes.Replace(body, fmt.Appendf(nil, `"goVersion": %q`, version.GoVersion), []byte(goVersion), 1)
			r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
			r.Header.Del("Content-Length")
			return nil
		},
	}
	server := httptest.NewServer(proxy)
	t.Cleanup(server.Close)
	kubeconfig = filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(kubeconfig, fmt.Appendf(nil, `apiVersion: v1
kind: Config
clusters: [{name: later, cluster: {server: %q}}]
contexts: [{name: later, context: {cluster: later}}]
current-context: later
`, server.URL), 0o600); err != nil {
		t.Fatal(err)
	}
	return kubeconfig
}

// admits reports whether a webhook of this platform lets the pair replace a good one.
func admits(t *testing.T, kubeconfig, config string, pair pkitest.Pair) bool {
	t.Helper()
	port, err := rig.FreePort(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, certDir := shared.rig.WebhookAddress()
	address := fmt.Sprintf("127.0.0.1:%d", port)
	webhook, err := shared.rig.LaunchWebhook(filepath.Base(t.Name()), "--kubeconfig", kubeconfig, "--config", config,
		"--cert-dir", certDir, "--bind-address", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := webhook.Stop(); err != nil {
			t.Errorf("the webhook exited with an error: %v", err)
		}
	})
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(shared.rig.CABundle())
	https := &http.Client{
		Transport: &http.Transport{TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: pool}},
	}
	defer https.CloseIdleConnections()
	good := issue(pkitest.KubeletClient())
	before := openshift.KubeletClient(good.Certificate, good.Key)
	ask := func(ctx context.Context, pair pkitest.Pair) (allowed bool, err error) {
		body, err := admission.Review(before, openshift.KubeletClient(pair.Certificate, pair.Key))
		if err != nil {
			return false, err
		}
		return admission.Post(ctx, https, "https://"+address+"/validate", body)
	}
	await(t, "a webhook that answers", func() bool {
		allowed, err := ask(t.Context(), good)
		return err == nil && allowed
	})
	allowed, err := ask(t.Context(), pair)
	if err != nil {
		t.Fatal(err)
	}
	return allowed
}
