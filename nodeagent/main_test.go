// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
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
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/evidence"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/openshift"
)

func noEnvironment(string) string { return "" }

// TestOnce: the verdict and the exit code, which is a contract.
func TestOnce(t *testing.T) {
	now := time.Now()
	ca := pkitest.NewCAAround("kube-apiserver-to-kubelet-signer", now)
	other := pkitest.NewCAAround("other", now)
	month := func(r pkitest.Request) pkitest.Request { return r.Valid(now.Add(-time.Hour), now.AddDate(0, 0, 30)) }
	good := ca.Issue(month(pkitest.KubeletClient()))
	kubeadm := pkitest.KubeletClient()
	kubeadm.CommonName, kubeadm.Organization = "kube-apiserver-kubelet-client", "kubeadm:cluster-admins"

	type look struct {
		code    int
		reasons string // in the order they are told
	}
	cases := map[string]struct {
		layout openshift.Layout
		pair   pkitest.Pair
		change func(tree openshift.Tree) error
		flags  []string
		want   look
	}{
		"good, 4.9 and later": {want: look{0, ""}},
		"good, 4.6 to 4.8":    {layout: openshift.Legacy, want: look{0, ""}},
		"good, 4.5":           {layout: openshift.Oldest, want: look{0, ""}},
		"good, kubeadm":       {layout: openshift.Kubeadm, pair: ca.Issue(month(kubeadm)), want: look{0, "KubeletCANotConfigured"}},
		"good, given directory": {
			flags:  []string{"--kubelet-client-dir", "/etc/kubernetes/static-pod-resources/kube-apiserver-certs/secrets/kubelet-client"},
			change: func(tree openshift.Tree) error { return os.Remove(tree.Manifest()) },
			want:   look{0, ""},
		},
		"certificate gone":    {change: func(tree openshift.Tree) error { return os.Remove(tree.Certificate()) }, want: look{1, "CertificateMissing"}},
		"key gone":            {change: func(tree openshift.Tree) error { return os.Remove(tree.Key()) }, want: look{1, "KeyMissing"}},
		"directory gone":      {change: func(tree openshift.Tree) error { return os.RemoveAll(tree.Directory()) }, want: look{1, "CertificateMissing KeyMissing"}},
		"certificate garbage": {change: func(tree openshift.Tree) error { return os.WriteFile(tree.Certificate(), []byte("garbage"), 0o600) }, want: look{1, "CertificateUnparsable"}},
		"key garbage":         {change: func(tree openshift.Tree) error { return os.WriteFile(tree.Key(), []byte("garbage"), 0o600) }, want: look{1, "KeyUnparsable"}},
		"key of another pair": {change: func(tree openshift.Tree) error {
			return os.WriteFile(tree.Key(), ca.Issue(month(pkitest.KubeletClient())).Key, 0o600)
		}, want: look{1, "KeyMismatch"}},
		"expired":             {pair: ca.Issue(pkitest.KubeletClient().Valid(now.AddDate(0, 0, -30), now.Add(-time.Hour))), want: look{1, "CertificateExpired"}},
		"not yet valid":       {pair: ca.Issue(pkitest.KubeletClient().Valid(now.Add(time.Hour), now.AddDate(0, 0, 30))), want: look{1, "CertificateNotYetValid"}},
		"expires soon":        {pair: ca.Issue(pkitest.KubeletClient().Valid(now.AddDate(0, 0, -30), now.Add(time.Hour))), want: look{0, "CertificateExpiringSoon"}},
		"of a foreign CA":     {pair: other.Issue(month(pkitest.KubeletClient())), want: look{1, "UntrustedIssuer"}},
		"of a server":         {pair: ca.Issue(month(pkitest.ServingCert())), want: look{1, "WrongKeyUsage UnexpectedIdentity"}},
		"key readable by all": {change: func(tree openshift.Tree) error { return os.Chmod(tree.Key(), 0o644) }, want: look{0, "KeyFileExposed"}},
		"a directory for a file": {
			change: func(tree openshift.Tree) error {
				if err := os.Remove(tree.Certificate()); err != nil {
					return err
				}
				return os.Mkdir(tree.Certificate(), 0o755)
			},
			want: look{1, "NotRegularFile"},
		},
		"a FIFO for a file": {
			change: func(tree openshift.Tree) error {
				if err := os.Remove(tree.Key()); err != nil {
					return err
				}
				return syscall.Mkfifo(tree.Key(), 0o600)
			},
			want: look{1, "NotRegularFile"},
		},
		"2 MiB":                   {change: func(tree openshift.Tree) error { return os.WriteFile(tree.Certificate(), make([]byte, 2<<20), 0o600) }, want: look{1, "FileTooLarge"}},
		"configuration gone":      {change: func(tree openshift.Tree) error { return os.Remove(tree.Config()) }, want: look{1, "ConfigMissing"}},
		"configuration rubbish":   {change: func(tree openshift.Tree) error { return os.WriteFile(tree.Config(), []byte("{"), 0o600) }, want: look{1, "ConfigUnparsable"}},
		"configuration of nobody": {change: func(tree openshift.Tree) error { return os.WriteFile(tree.Config(), []byte("{}"), 0o600) }, want: look{1, "ClientCertificateNotConfigured ClientKeyNotConfigured KubeletCANotConfigured"}},
		"kubelet-https off": {
			layout: openshift.Legacy,
			change: func(tree openshift.Tree) error {
				data, err := os.ReadFile(tree.Config())
				if err != nil {
					return err
				}
				return os.WriteFile(tree.Config(), bytes.Replace(data, []byte(`"kubelet-https":["true"]`), []byte(`"kubelet-https":["false"]`), 1), 0o600)
			},
			want: look{1, "KubeletHTTPSDisabled"},
		},
		"manifest gone":    {change: func(tree openshift.Tree) error { return os.Remove(tree.Manifest()) }, want: look{2, "ManifestMissing"}},
		"manifest rubbish": {change: func(tree openshift.Tree) error { return os.WriteFile(tree.Manifest(), []byte("kind: Pod"), 0o600) }, want: look{2, "ManifestUnparsable"}},
		"a symlink loop": {
			change: func(tree openshift.Tree) error {
				if err := os.Remove(tree.Certificate()); err != nil {
					return err
				}
				return os.Symlink("tls.crt", tree.Certificate())
			},
			want: look{2, "Unreadable"},
		},
		"client CA gone": {
			change: func(tree openshift.Tree) error {
				return os.Remove(filepath.Join(tree.Root, "etc/kubernetes/kubelet-ca.crt"))
			},
			want: look{2, "ClientCAUnavailable"},
		},
		"unreadable and violated": {
			change: func(tree openshift.Tree) error {
				if err := os.Remove(filepath.Join(tree.Root, "etc/kubernetes/kubelet-ca.crt")); err != nil {
					return err
				}
				return os.Remove(tree.Key())
			},
			want: look{1, "KeyMissing ClientCAUnavailable"},
		},
	}
	reason := regexp.MustCompile(`(?m)^(?:Violation|Warning|Unverified|Info) (\w+)$`)
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if c.layout == "" {
				c.layout = openshift.Current
			}
			if c.pair.Leaf == nil {
				c.pair = good
			}
			tree, err := openshift.Write(t.TempDir(), c.layout, openshift.Files{Certificate: c.pair.Certificate, Key: c.pair.Key, ClientCA: ca.PEM()})
			if err != nil {
				t.Fatal(err)
			}
			if c.change != nil {
				if err := c.change(tree); err != nil {
					t.Fatal(err)
				}
			}
			var stdout, stderr bytes.Buffer
			args := append([]string{"--once", "--root", tree.Root, "--settle", "10ms"}, c.flags...)
			got := look{code: run(t.Context(), args, noEnvironment, &stdout, &stderr)}
			var reasons []string
			for _, match := range reason.FindAllStringSubmatch(stdout.String(), -1) {
				reasons = append(reasons, match[1])
			}
			got.reasons = strings.Join(reasons, " ")
			if got != c.want {
				t.Errorf("got %+v, want %+v\n%s%s", got, c.want, &stdout, &stderr)
			}
			for line := range strings.SplitSeq(string(c.pair.Key), "\n") {
				if len(line) > 10 && strings.Contains(stdout.String()+stderr.String(), line) {
					t.Error("the report holds a line of the private key")
				}
			}
		})
	}
}

// TestOnceKubelet: plain HTTP, another certificate and nothing at all in the
// kubelet's place are three different findings.
func TestOnceKubelet(t *testing.T) {
	now := time.Now()
	ca, other := pkitest.NewCAAround("kube-apiserver-to-kubelet-signer", now), pkitest.NewCAAround("other", now)
	request := pkitest.Request{CommonName: "system:node:master-0", IPs: []net.IP{net.IPv4(127, 0, 0, 1)}, Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	pair := ca.Issue(pkitest.KubeletClient().Valid(now.Add(-time.Hour), now.AddDate(0, 0, 30)))
	tree, err := openshift.Write(t.TempDir(), openshift.Current, openshift.Files{Certificate: pair.Certificate, Key: pair.Key, ClientCA: ca.PEM()})
	if err != nil {
		t.Fatal(err)
	}
	kubelet := func(ca, clients *pkitest.CA) string {
		serving := ca.Issue(request.Valid(now.Add(-time.Hour), now.Add(time.Hour)))
		certificate, err := tls.X509KeyPair(serving.Certificate, serving.Key)
		if err != nil {
			t.Fatal(err)
		}
		server := httptest.NewUnstartedServer(http.NotFoundHandler())
		server.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}, ClientAuth: tls.RequestClientCert, ClientCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}
		server.TLS.ClientCAs.AddCert(clients.Certificate)
		server.StartTLS()
		t.Cleanup(server.Close)
		return server.Listener.Addr().String()
	}
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()

	cases := map[string]struct {
		address string
		code    int
		want    string
	}{
		"good":                {kubelet(ca, ca), 0, "compliant"},
		"plain HTTP":          {plain.Listener.Addr().String(), 1, "KubeletNotTLS"},
		"another certificate": {kubelet(other, ca), 1, "KubeletCertificateUntrusted"},
		"another client CA":   {kubelet(ca, other), 1, "ClientCertificateNotAccepted"},
		"nothing":             {"127.0.0.1:1", 2, "KubeletUnreachable"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			code := run(t.Context(), []string{"--once", "--root", tree.Root, "--settle", "10ms", "--kubelet-address", c.address}, noEnvironment, &stdout, &stderr)
			if code != c.code || !strings.Contains(stdout.String(), c.want) {
				t.Errorf("got exit code %d, want %d and %q in\n%s%s", code, c.code, c.want, &stdout, &stderr)
			}
		})
	}
}

// TestUsage: what is wrong with a command line is said in one line that names
// it, and the exit code is 64.
func TestUsage(t *testing.T) {
	cases := map[string]struct {
		args []string
		want string
	}{
		"unknown flag":       {[]string{"--frobnicate"}, "flag provided but not defined: -frobnicate"},
		"an argument":        {[]string{"once"}, `argument "once": only flags are taken`},
		"no duration":        {[]string{"--resync", "soon"}, `invalid value "soon" for flag -resync: parse error`},
		"resync too short":   {[]string{"--resync", "1ms"}, "--resync 1ms is not between a second and 24h0m0s"},
		"resync too long":    {[]string{"--resync", "1000000h"}, "--resync 1000000h0m0s is not between a second and 24h0m0s"},
		"settle negative":    {[]string{"--settle", "-1s"}, "--settle -1s is not between 0 and a minute"},
		"fraction too large": {[]string{"--expiring-fraction", "1"}, "--expiring-fraction 1 is not at least 0 and below 1"},
		"fraction no number": {[]string{"--expiring-fraction", "NaN"}, "--expiring-fraction NaN is not at least 0 and below 1"},
		"relative directory": {[]string{"--kubelet-client-dir", "pki"}, `--kubelet-client-dir "pki" is not an absolute path of the host`},
		"Events, no node":    {[]string{"--kubeconfig", "admin.conf"}, "there is an API server to send Events to, but no node to send them about: set --node-name or NODE_NAME"},
		"kubelet address":    {[]string{"--kubelet-address", "192.0.2.7:https"}, `--kubelet-address: "192.0.2.7:https" has no host or no port from 1 to 65535`},
		"relative CA":        {[]string{"--kubelet-ca", "ca.crt"}, `--kubelet-ca "ca.crt" is not an absolute path of the host`},
		"log format":         {[]string{"--log-format", "xml"}, `--log-format: log format "xml" is neither json nor text`},
		"log level":          {[]string{"--log-level", "loud"}, `invalid value "loud" for flag -log-level: slog: level string "loud": unknown name`},
		"format":             {[]string{"-o", "yaml"}, `invalid value "yaml" for flag -o: "yaml" is not table, json, junit, sarif or openreports`},
		"no root":            {[]string{"--root", ""}, "--root is empty"},
		"root not there":     {[]string{"--root", "/does/not/exist"}, "--root: look at the host's root: stat /does/not/exist: no such file or directory"},
		"root a file":        {[]string{"--root", "main.go"}, "--root: the host's root main.go is not a directory"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			code := run(t.Context(), append([]string{"--once"}, c.args...), noEnvironment, &stdout, &stderr)
			line, _, _ := strings.Cut(stderr.String(), "\n")
			if code != evidence.ExitUsage || line != "nodeagent: "+c.want {
				t.Errorf("got exit code %d and %q, want %d and %q", code, line, evidence.ExitUsage, "nodeagent: "+c.want)
			}
		})
	}
}

func TestHelpAndVersion(t *testing.T) {
	for _, args := range [][]string{{"--help"}, {"-h"}, {"--version"}} {
		var stdout, stderr bytes.Buffer
		if code := run(t.Context(), args, noEnvironment, &stdout, &stderr); code != 0 || stdout.Len()+stderr.Len() == 0 {
			t.Errorf("%v: exit code %d, said %q", args, code, stdout.String()+stderr.String())
		}
		if strings.Contains(stderr.String(), "\nOthers:\n") {
			t.Errorf("%v: a flag is in no group:\n%s", args, &stderr)
		}
	}
}

// TestOnceFormats: what --once writes of a real look is valid by its schema.
// Package evidence's tests hold the other formats against theirs.
func TestOnceFormats(t *testing.T) {
	schema, err := jsonschema.NewCompiler().Compile("../docs/evidence.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	ca := pkitest.NewCAAround("kube-apiserver-to-kubelet-signer", now)
	pair := ca.Issue(pkitest.KubeletClient().Valid(now.Add(-time.Hour), now.AddDate(0, 0, 30)))
	tree, err := openshift.Write(t.TempDir(), openshift.Current, openshift.Files{Certificate: pair.Certificate, Key: pair.Key, ClientCA: ca.PEM()})
	if err != nil {
		t.Fatal(err)
	}
	once := func(format string) string {
		var stdout, stderr bytes.Buffer
		args := []string{"--once", "-o", format, "--root", tree.Root, "--settle", "0s", "--node-name", "master-0", "--kubelet-address", "127.0.0.1:1"}
		if code := run(t.Context(), args, noEnvironment, &stdout, &stderr); code != evidence.ExitUnverified {
			t.Errorf("exit code %d, want %d\n%s%s", code, evidence.ExitUnverified, &stdout, &stderr)
		}
		return stdout.String()
	}
	text := once("json")
	value, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if err := schema.Validate(value); err != nil {
		t.Errorf("%v\n%s", err, text)
	}
	type evidence struct {
		Verdict                string
		Subject                struct{ Kind, Name string }
		Revision               string
		Examined, Certificates []struct{ Role, Location string }
		Findings               []struct{ Reason, Location string }
	}
	var want, got evidence
	if err := json.Unmarshal([]byte(text), &got); err != nil {
		t.Fatal(err)
	}
	const resources = "/etc/kubernetes/static-pod-resources/"
	expected := fmt.Sprintf(`{"verdict": "CouldNotVerify", "subject": {"kind": "Node", "name": "master-0"}, "revision": "7", "examined": [
		{"role": "manifest", "location": "/etc/kubernetes/manifests/kube-apiserver-pod.yaml"},
		{"role": "configuration", "location": "%[1]skube-apiserver-pod-7/configmaps/config/config.yaml"},
		{"role": "certificate", "location": "%[1]skube-apiserver-certs/secrets/kubelet-client/tls.crt"},
		{"role": "key", "location": "%[1]skube-apiserver-certs/secrets/kubelet-client/tls.key"},
		{"role": "kubelet-client-ca", "location": "/etc/kubernetes/kubelet-ca.crt"},
		{"role": "kubelet-serving-ca", "location": "%[1]skube-apiserver-pod-7/configmaps/kubelet-serving-ca/ca-bundle.crt"},
		{"role": "kubelet", "location": "kubelet 127.0.0.1:1"}],
		"certificates": [{"role": "kubelet-client", "location": "%[1]skube-apiserver-certs/secrets/kubelet-client/tls.crt"}],
		"findings": [{"reason": "KubeletUnreachable", "location": "kubelet 127.0.0.1:1"}]}`, resources)
	if err := json.Unmarshal([]byte(expected), &want); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("evidence (-want +got):\n%s", d)
	}
	for format, mark := range map[string]string{
		"table": "Node/master-0: could not verify\n",
		"junit": `<testcase name="KubeletUnreachable" classname="Node/master-0" time="0">` + "\n      <error ",
		"sarif": `"version": "2.1.0"`,
	} {
		if text := once(format); !strings.Contains(text, mark) {
			t.Errorf("%s: no %q in\n%s", format, mark, text)
		}
	}
}

// TestOnceChecked: what could not be looked at is not said to have been checked.
func TestOnceChecked(t *testing.T) {
	now := time.Now()
	ca := pkitest.NewCAAround("kube-apiserver-to-kubelet-signer", now)
	pair := ca.Issue(pkitest.KubeletClient().Valid(now.Add(-time.Hour), now.AddDate(0, 0, 30)))
	const at = "/etc/kubernetes/static-pod-resources/kube-apiserver-certs/secrets/kubelet-client/"
	cases := map[string]struct {
		change func(root string) error
		want   string
	}{
		"all there":                       {func(string) error { return nil }, "CertificateMissing KeyMissing KeyMismatch CertificateExpired UntrustedIssuer ClientKeyNotConfigured"},
		"no CA":                           {func(root string) error { return os.Remove(filepath.Join(root, "/etc/kubernetes/kubelet-ca.crt")) }, "CertificateMissing KeyMissing KeyMismatch CertificateExpired ClientKeyNotConfigured"},
		"no manifest":                     {func(root string) error { return os.RemoveAll(filepath.Join(root, "/etc/kubernetes/manifests")) }, ""},
		"a certificate that links itself": {func(root string) error { return loop(filepath.Join(root, at, "tls.crt")) }, "KeyMissing ClientKeyNotConfigured"},
		"no certificate":                  {func(root string) error { return os.Remove(filepath.Join(root, at, "tls.crt")) }, "CertificateMissing KeyMissing ClientKeyNotConfigured"},
		"no key":                          {func(root string) error { return os.Remove(filepath.Join(root, at, "tls.key")) }, "CertificateMissing KeyMissing CertificateExpired UntrustedIssuer ClientKeyNotConfigured"},
		"a certificate under no mount":    {unmount, "KeyMissing ClientKeyNotConfigured"},
		"no configuration": {func(root string) error {
			return os.RemoveAll(filepath.Join(root, "/etc/kubernetes/static-pod-resources/kube-apiserver-pod-7/configmaps/config"))
		}, ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			tree, err := openshift.Write(t.TempDir(), openshift.Current, openshift.Files{Certificate: pair.Certificate, Key: pair.Key, ClientCA: ca.PEM()})
			if err != nil {
				t.Fatal(err)
			}
			if err := c.change(tree.Root); err != nil {
				t.Fatal(err)
			}
			var stdout, stderr bytes.Buffer
			run(t.Context(), []string{"--once", "-o", "json", "--root", tree.Root, "--settle", "0s", "--kubelet-address", "127.0.0.1:1"}, noEnvironment, &stdout, &stderr)
			var d struct{ Checked []struct{ Reason string } }
			if err := json.Unmarshal(stdout.Bytes(), &d); err != nil {
				t.Fatalf("%v\n%s", err, &stderr)
			}
			var got []string
			for _, reason := range []string{"CertificateMissing", "KeyMissing", "KeyMismatch", "CertificateExpired", "UntrustedIssuer", "ClientKeyNotConfigured", "KubeletNotTLS"} {
				if slices.ContainsFunc(d.Checked, func(c struct{ Reason string }) bool { return c.Reason == reason }) {
					got = append(got, reason)
				}
			}
			if diff := cmp.Diff(c.want, strings.Join(got, " ")); diff != "" {
				t.Errorf("(-want +got):\n%s\n%s", diff, &stdout)
			}
		})
	}
}

// unmount configures a certificate that is under no mount of the kube-apiserver.
func unmount(root string) error {
	path := openshift.Tree{Root: root, Layout: openshift.Current, Revision: 7}.Config()
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return os.WriteFile(path, regexp.MustCompile(`"[^"]*/tls\.crt"`).ReplaceAll(text, []byte(`"/nowhere/tls.crt"`)), 0o600)
}

// loop puts a link to itself where a file is: that cannot be read, by root either.
func loop(path string) error {
	if err := os.Remove(path); err != nil {
		return err
	}
	return os.Symlink(filepath.Base(path), path)
}

// TestServe: readiness, health and metrics of a running agent.
func TestServe(t *testing.T) {
	now := time.Now()
	ca := pkitest.NewCAAround("kube-apiserver-to-kubelet-signer", now)
	pair := ca.Issue(pkitest.KubeletClient().Valid(now.Add(-time.Hour), now.AddDate(0, 0, 30)))
	tree, err := openshift.Write(t.TempDir(), openshift.Current, openshift.Files{Certificate: pair.Certificate, Key: pair.Key, ClientCA: ca.PEM()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	stderr, log := io.Pipe()
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, []string{"--root", tree.Root, "--settle", "10ms", "--metrics-bind-address", "127.0.0.1:0"}, noEnvironment, io.Discard, log)
		_ = log.Close()
	}()
	lines := bufio.NewScanner(stderr)
	await := func(message string) map[string]any {
		t.Helper()
		for lines.Scan() {
			var line map[string]any
			if json.Unmarshal(lines.Bytes(), &line) == nil && line["msg"] == message {
				return line
			}
		}
		t.Fatalf("the log ended without %q", message)
		return nil
	}
	address, _ := await("Serving metrics and health")["address"].(string)
	get := func(path string) (int, string) {
		t.Helper()
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return response.StatusCode, string(body)
	}
	has := func(metrics ...string) {
		t.Helper()
		_, text := get("/metrics")
		for _, metric := range metrics {
			if !strings.Contains(text, "\n"+metric) {
				t.Errorf("no %q in\n%s", metric, text)
			}
		}
	}
	at := `location="` + tree.CertificateOnHost() + `",role="kubelet-client"`

	await("Verified")
	for _, path := range []string{"/readyz", "/healthz"} {
		if code, text := get(path); code != http.StatusOK {
			t.Errorf("%s: %d %s", path, code, text)
		}
	}
	has(`kubelet_https_guard_compliant{control="cis-ocp-1.7:1.2.4"} 1`, `kubelet_https_guard_compliant{control="cis-ocp-1.9:1.2.2"} 1`,
		`kubelet_https_guard_certificate_not_after_seconds{`+at+`} `, `kubelet_https_guard_scans_total{trigger="start"} 1`,
		`kubelet_https_guard_scan_duration_seconds_count `, `kubelet_https_guard_watch_errors_total 0`,
		`kubelet_https_guard_build_info{`, `process_resident_memory_bytes `, `go_goroutines `)

	if err := os.Remove(tree.Certificate()); err != nil {
		t.Fatal(err)
	}
	await("Not verified")
	has(`kubelet_https_guard_compliant{control="cis-ocp-1.9:1.2.2"} 0`,
		`kubelet_https_guard_finding{location="`+tree.CertificateOnHost()+`",reason="CertificateMissing",severity="Violation"} 1`,
		`kubelet_https_guard_certificate_not_after_seconds{`+at+`} `)

	stop()
	for lines.Scan() { // to the end, or the agent would wait to write
	}
	if code := <-ended; code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestServeNot: an address that cannot be had ends the agent, and says which.
func TestServeNot(t *testing.T) {
	var stderr bytes.Buffer
	code := run(t.Context(), []string{"--root", t.TempDir(), "--metrics-bind-address", "192.0.2.1:1"}, noEnvironment, io.Discard, &stderr)
	if code != evidence.ExitFailed || !strings.Contains(stderr.String(), "192.0.2.1:1") {
		t.Errorf("exit code %d\n%s", code, &stderr)
	}
}
