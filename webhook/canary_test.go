// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/openshift"
)

// everything collects all output of the webhook: its log, its requests to the API server, its
// answers and its metrics.
type everything struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (e *everything) Write(data []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.text.Write(data)
}

func (e *everything) String() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.text.String()
}

// canaryServer is an API server that serves a Secret to the audit, and collects all that is
// written to it.
func canaryServer(t *testing.T, stored *corev1.Secret, out *everything) (kubeconfig string) {
	t.Helper()
	secret, err := json.Marshal(stored)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch {
		case r.URL.Query().Get("watch") != "":
			<-r.Context().Done()
		case r.Method != http.MethodGet:
			fmt.Fprintf(out, "%s %s ", r.Method, r.URL.Path)
			w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
			_, _ = io.Copy(io.MultiWriter(out, w), r.Body)
		case strings.HasSuffix(r.URL.Path, "/namespaces/"+stored.Namespace+"/secrets"):
			fmt.Fprintf(w, `{"apiVersion":"v1","kind":"SecretList","metadata":{"resourceVersion":"1"},"items":[%s]}`, secret)
		case strings.Contains(r.URL.Path, "/leases/"):
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, `{"apiVersion":"v1","kind":"Status","status":"Failure","reason":"NotFound","code":404}`)
		default:
			fmt.Fprint(w, `{"apiVersion":"v1","kind":"List","metadata":{"resourceVersion":"1"},"items":[]}`)
		}
	}))
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	path := filepath.Join(t.TempDir(), "kubeconfig")
	config := fmt.Sprintf(
		"{apiVersion: v1, kind: Config, clusters: [{name: c, cluster: {server: %q, insecure-skip-tls-verify: true}}], "+
			"contexts: [{name: c, context: {cluster: c}}], current-context: c}",
		server.URL,
	)
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestCanary: no output of the webhook contains a part of a private key or a Secret's value, on
// any path, with --log-level debug.
func TestCanary(t *testing.T) {
	const marker = "canary-7f3a"
	now := time.Now()
	ca := pkitest.NewCAAround("service-ca", now)
	valid := func(r pkitest.Request) pkitest.Request { return r.Valid(now.Add(-time.Hour), now.AddDate(1, 0, 0)) }
	good := ca.Issue(valid(pkitest.ServingCert()))
	serving := ca.Issue(valid(pkitest.Request{CommonName: "webhook", IPs: []net.IP{net.IPv4(127, 0, 0, 1)}}))
	// No part of the PEM texts may be in the output, in any encoding.
	bodyOf := func(pem []byte) string { return strings.Split(string(pem), "\n")[1] }
	marked := []byte(
		"-----BEGIN PRIVATE KEY-----\n" + base64.StdEncoding.EncodeToString(
			[]byte(marker+marker),
		) + "\n-----END PRIVATE KEY-----\n",
	)
	secret := func(key []byte) *corev1.Secret {
		s := openshift.ServingCert(types.UID("uid"), good.Certificate, key)
		s.Data["password"] = []byte(marker)
		s.UID, s.ResourceVersion = "secret-uid", "7"
		return s
	}
	out := &everything{}
	kubeconfig := canaryServer(t, secret(marked), out)
	certDir := t.TempDir()
	for name, data := range map[string][]byte{"tls.crt": serving.Certificate, "tls.key": serving.Key} {
		if err := os.WriteFile(filepath.Join(certDir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, []string{
			"--cert-dir", certDir, "--kubeconfig", kubeconfig, "--bind-address", "127.0.0.1:0", "--health-bind-address",
			"127.0.0.1:0",
			"--namespace", "guard", "--shutdown-delay", "0s", "--log-level", "debug",
		}, noEnvironment, out, out)
	}()
	address := awaitMatch(t, out, `Serving admission requests","address":"([^"]+)"`)
	health := awaitMatch(t, out, `Serving metrics and health","address":"([^"]+)"`)
	client := &http.Client{
		Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}},
	}
	ask := func(method, url, body string) {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Content-Type", "application/json")
		response, err := client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = response.Body.Close() }()
		if _, err := io.Copy(out, response.Body); err != nil {
			t.Fatal(err)
		}
	}
	review := func(operation admissionv1.Operation, before, after any) string {
		raw := func(object any) runtime.RawExtension {
			if text, ok := object.(string); ok {
				return runtime.RawExtension{Raw: []byte(text)}
			}
			data, err := json.Marshal(object)
			if err != nil {
				t.Fatal(err)
			}
			return runtime.RawExtension{Raw: data}
		}
		data, err := json.Marshal(admissionv1.AdmissionReview{
			TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"},
			Request: &admissionv1.AdmissionRequest{
				UID: "u", Kind: metav1.GroupVersionKind{Version: "v1", Kind: "Secret"}, Namespace: "openshift-apiserver",
				Operation: operation,
				Object:    raw(after), OldObject: raw(before),
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	overrides := fmt.Sprintf(
		`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u","kind":{"group":"operator.openshift.io","version":"v1","kind":"KubeAPIServer"},"operation":"CREATE",
		"object":{"metadata":{"name":"cluster"},"spec":{"unsupportedConfigOverrides":{"apiServerArguments":{"kubelet-client-key":[%q]}}}}}}`,
		string(marked),
	)
	for name, body := range map[string]string{
		"admitted":                review("UPDATE", secret(good.Key), secret(good.Key)),
		"refused, a marked key":   review("UPDATE", secret(good.Key), secret(marked)),
		"refused, a foreign key":  review("UPDATE", secret(good.Key), secret(serving.Key)),
		"refused, the key in crt": review("UPDATE", secret(good.Key), openshift.ServingCert("uid", marked, good.Key)),
		"refused, a delete":       review("DELETE", secret(good.Key), "null"),
		"no object":               review("UPDATE", secret(good.Key), `"`+marker+`"`),
		"bad base64": review("CREATE", "null",
			`{"metadata":{"name":"serving-cert"},"data":{"tls.key":"!`+marker+`"}}`),
		"a field of another type": review("CREATE", "null", `{"metadata":{"name":"serving-cert"},"data":"`+marker+`"}`),
		"no review":               `{"request":{"object":{"data":{"tls.key":"` + marker + `"}}`,
		"cut off":                 strings.TrimSuffix(review("CREATE", "null", secret(marked)), "}}"),
		"no JSON":                 marker,
		"a key for a path":        overrides,
		"of an unknown kind": strings.Replace(review("CREATE", "null", secret(marked)), `"kind":"Secret"`,
			`"kind":"Password"`, 1),
		"of a subresource": strings.Replace(review("CREATE", "null", secret(marked)), `"operation"`,
			`"subResource":"status","operation"`, 1),
	} {
		t.Log(name)
		ask(http.MethodPost, "https://"+address+"/validate", body)
	}
	ask(http.MethodGet, "http://"+health+"/metrics", "")
	cancel()
	if code := <-ended; code != 0 {
		t.Errorf("the webhook ended with exit code %d", code)
	}
	// The audit reads the stored Secret.
	ctx, cancel = context.WithCancel(t.Context())
	go func() {
		ended <- run(ctx, []string{
			"audit", "--kubeconfig", kubeconfig, "--health-bind-address", "127.0.0.1:0", "--namespace", "guard",
			"--log-level", "debug",
		}, noEnvironment, out, out)
	}()
	awaitMatch(t, out,
		`(POST /apis/events.k8s.io/v1/namespaces/openshift-apiserver/events [^\n]*"action":"Check","reason":"Key)`)
	health = awaitMatch(t, out, `(?s)Serving metrics and health.*Serving metrics and health","address":"([^"]+)"`)
	ask(http.MethodGet, "http://"+health+"/metrics", "")
	cancel()
	if code := <-ended; code != 0 {
		t.Errorf("the audit ended with exit code %d", code)
	}
	said := out.String()
	forbidden := map[string]string{
		"the marker": marker, "the marker in base64": base64.StdEncoding.EncodeToString([]byte(marker))[:12],
		"the good key": bodyOf(good.Key), "the foreign key": bodyOf(serving.Key), "the marked key": bodyOf(marked),
		"the good key in base64": base64.StdEncoding.EncodeToString(good.Key)[40:80],
	}
	for _, what := range slices.Sorted(maps.Keys(forbidden)) {
		if i := strings.Index(said, forbidden[what]); i >= 0 {
			t.Errorf("the output contains %s: …%s…", what, said[max(0, i-200):min(len(said), i+100)])
		}
	}
	for _, word := range []string{"Request denied", "KeyUnparsable", "KeyMismatch", "OverrideWeakensKubeletTLS",
		"kubelet_https_guard_admission_total", "kubelet_https_guard_audits_total", `"allowed":false`} {
		if !strings.Contains(said, word) {
			t.Errorf("the output does not contain %q: not all paths were taken", word)
		}
	}
}

// awaitMatch waits until the output matches, and returns the first group.
func awaitMatch(t *testing.T, out *everything, pattern string) string {
	t.Helper()
	expression := regexp.MustCompile(pattern)
	deadline := time.After(20 * time.Second)
	for {
		if found := expression.FindStringSubmatch(out.String()); found != nil {
			return found[1]
		}
		select {
		case <-deadline:
			t.Fatalf("no output matches %s:\n%s", pattern, out.String())
		case <-time.After(20 * time.Millisecond):
		}
	}
}
