// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
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

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/command"
	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/nodeagent/internal/agent"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/control"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/report"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/messages"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/openshift"
)

func noEnvironment(string) string { return "" }

// TestOnce: a single check writes the verdict and exits with its code, which is a contract.
func TestOnce(t *testing.T) {
	now := time.Now()
	ca := pkitest.NewCAAround("kube-apiserver-to-kubelet-signer", now)
	other := pkitest.NewCAAround("other", now)
	month := func(r pkitest.Request) pkitest.Request { return r.Valid(now.Add(-time.Hour), now.AddDate(0, 0, 30)) }
	good := ca.Issue(month(pkitest.KubeletClient()))
	kubeadm := pkitest.KubeletClient()
	kubeadm.CommonName, kubeadm.Organization = "kube-apiserver-kubelet-client", "kubeadm:cluster-admins"

	type outcome struct {
		code    int
		reasons string // in the order of the report
	}
	cases := map[string]struct {
		layout openshift.Layout
		pair   pkitest.Pair
		change func(tree openshift.Tree) error
		flags  []string
		want   outcome
	}{
		"good, 4.9 and later": {want: outcome{0, ""}},
		"good, 4.6 to 4.8":    {layout: openshift.Legacy, want: outcome{0, ""}},
		"good, 4.5":           {layout: openshift.Oldest, want: outcome{0, ""}},
		"good, kubeadm":       {layout: openshift.Kubeadm, pair: ca.Issue(month(kubeadm)), want: outcome{0, "KubeletCANotConfigured"}},
		"good, directory from a flag": {
			flags:  []string{"--kubelet-client-dir", "/etc/kubernetes/static-pod-resources/kube-apiserver-certs/secrets/kubelet-client"},
			change: func(tree openshift.Tree) error { return os.Remove(tree.Manifest()) },
			want:   outcome{2, ""}, // the configuration was not read
		},
		"certificate gone":    {change: func(tree openshift.Tree) error { return os.Remove(tree.Certificate()) }, want: outcome{1, "CertificateMissing"}},
		"key gone":            {change: func(tree openshift.Tree) error { return os.Remove(tree.Key()) }, want: outcome{1, "KeyMissing"}},
		"directory gone":      {change: func(tree openshift.Tree) error { return os.RemoveAll(tree.Directory()) }, want: outcome{1, "CertificateMissing KeyMissing"}},
		"certificate garbage": {change: func(tree openshift.Tree) error { return os.WriteFile(tree.Certificate(), []byte("garbage"), 0o600) }, want: outcome{1, "CertificateUnparsable"}},
		"key garbage":         {change: func(tree openshift.Tree) error { return os.WriteFile(tree.Key(), []byte("garbage"), 0o600) }, want: outcome{1, "KeyUnparsable"}},
		"key of another pair": {change: func(tree openshift.Tree) error {
			return os.WriteFile(tree.Key(), ca.Issue(month(pkitest.KubeletClient())).Key, 0o600)
		}, want: outcome{1, "KeyMismatch"}},
		"expired":             {pair: ca.Issue(pkitest.KubeletClient().Valid(now.AddDate(0, 0, -30), now.Add(-time.Hour))), want: outcome{1, "CertificateExpired"}},
		"not yet valid":       {pair: ca.Issue(pkitest.KubeletClient().Valid(now.Add(time.Hour), now.AddDate(0, 0, 30))), want: outcome{1, "CertificateNotYetValid"}},
		"expires soon":        {pair: ca.Issue(pkitest.KubeletClient().Valid(now.AddDate(0, 0, -30), now.Add(time.Hour))), want: outcome{0, "CertificateExpiringSoon"}},
		"of a foreign CA":     {pair: other.Issue(month(pkitest.KubeletClient())), want: outcome{1, "UntrustedIssuer"}},
		"of a server":         {pair: ca.Issue(month(pkitest.ServingCert())), want: outcome{1, "WrongKeyUsage UnexpectedIdentity"}},
		"key readable by all": {change: func(tree openshift.Tree) error { return os.Chmod(tree.Key(), 0o644) }, want: outcome{0, "KeyFileExposed"}},
		"a directory for a file": {
			change: func(tree openshift.Tree) error {
				if err := os.Remove(tree.Certificate()); err != nil {
					return err
				}
				return os.Mkdir(tree.Certificate(), 0o755)
			},
			want: outcome{1, "NotRegularFile"},
		},
		"a FIFO for a file": {
			change: func(tree openshift.Tree) error {
				if err := os.Remove(tree.Key()); err != nil {
					return err
				}
				return syscall.Mkfifo(tree.Key(), 0o600)
			},
			want: outcome{1, "NotRegularFile"},
		},
		"2 MiB":                 {change: func(tree openshift.Tree) error { return os.WriteFile(tree.Certificate(), make([]byte, 2<<20), 0o600) }, want: outcome{1, "FileTooLarge"}},
		"configuration gone":    {change: func(tree openshift.Tree) error { return os.Remove(tree.Config()) }, want: outcome{1, "ConfigMissing"}},
		"configuration garbage": {change: func(tree openshift.Tree) error { return os.WriteFile(tree.Config(), []byte("{"), 0o600) }, want: outcome{1, "ConfigUnparsable"}},
		"empty configuration":   {change: func(tree openshift.Tree) error { return os.WriteFile(tree.Config(), []byte("{}"), 0o600) }, want: outcome{1, "ClientCertificateNotConfigured ClientKeyNotConfigured KubeletCANotConfigured"}},
		"kubelet-https disabled": {
			layout: openshift.Legacy,
			change: func(tree openshift.Tree) error {
				data, err := os.ReadFile(tree.Config())
				if err != nil {
					return err
				}
				return os.WriteFile(tree.Config(),
					bytes.Replace(data, []byte(`"kubelet-https":["true"]`), []byte(`"kubelet-https":["false"]`), 1), 0o600)
			},
			want: outcome{1, "KubeletHTTPSDisabled"},
		},
		"manifest gone":    {change: func(tree openshift.Tree) error { return os.Remove(tree.Manifest()) }, want: outcome{2, "ManifestMissing"}},
		"manifest garbage": {change: func(tree openshift.Tree) error { return os.WriteFile(tree.Manifest(), []byte("kind: Pod"), 0o600) }, want: outcome{2, "ManifestUnparsable"}},
		"a symlink loop": {
			change: func(tree openshift.Tree) error {
				if err := os.Remove(tree.Certificate()); err != nil {
					return err
				}
				return os.Symlink("tls.crt", tree.Certificate())
			},
			want: outcome{2, "Unreadable"},
		},
		"client CA gone": {
			change: func(tree openshift.Tree) error {
				return os.Remove(filepath.Join(tree.Root, "etc/kubernetes/kubelet-ca.crt"))
			},
			want: outcome{2, "ClientCAUnavailable"},
		},
		"unreadable and violated": {
			change: func(tree openshift.Tree) error {
				if err := os.Remove(filepath.Join(tree.Root, "etc/kubernetes/kubelet-ca.crt")); err != nil {
					return err
				}
				return os.Remove(tree.Key())
			},
			want: outcome{1, "KeyMissing ClientCAUnavailable"},
		},
	}
	reason := regexp.MustCompile(`(?m)^(?:Violation|Warning|Unverified) (\w+)$`)
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if c.layout == "" {
				c.layout = openshift.Current
			}
			if c.pair.Leaf == nil {
				c.pair = good
			}
			tree, err := openshift.Write(t.TempDir(), c.layout,
				openshift.Files{Certificate: c.pair.Certificate, Key: c.pair.Key, ClientCA: ca.PEM()})
			if err != nil {
				t.Fatal(err)
			}
			if c.change != nil {
				if err := c.change(tree); err != nil {
					t.Fatal(err)
				}
			}
			var stdout, stderr bytes.Buffer
			args := append([]string{"check", "--root", tree.Root, "--settle", "10ms"}, c.flags...)
			got := outcome{code: run(t.Context(), args, noEnvironment, &stdout, &stderr)}
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
					t.Error("the report contains a line of the private key")
				}
			}
		})
	}
}

// startKubelet starts a TLS server like a kubelet and returns its address. One CA signs its
// certificate, and it accepts client certificates of another.
func startKubelet(t *testing.T, ca, clients *pkitest.CA) string {
	t.Helper()
	request := pkitest.Request{
		CommonName: "system:node:master-0",
		IPs:        []net.IP{net.IPv4(127, 0, 0, 1)},
		Usages:     []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	serving := ca.Issue(request.Valid(time.Now().Add(-time.Hour), time.Now().Add(time.Hour)))
	certificate, err := tls.X509KeyPair(serving.Certificate, serving.Key)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(http.NotFoundHandler())
	server.TLS = &tls.Config{
		Certificates: []tls.Certificate{certificate},
		ClientAuth:   tls.RequestClientCert,
		ClientCAs:    x509.NewCertPool(),
		MinVersion:   tls.VersionTLS12,
	}
	server.TLS.ClientCAs.AddCert(clients.Certificate)
	server.StartTLS()
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

// TestOnceKubelet: plain HTTP, another certificate, no certificate yet and no server at all
// are different findings.
func TestOnceKubelet(t *testing.T) {
	now := time.Now()
	ca, other := pkitest.NewCAAround("kube-apiserver-to-kubelet-signer", now), pkitest.NewCAAround("other", now)
	pair := ca.Issue(pkitest.KubeletClient().Valid(now.Add(-time.Hour), now.AddDate(0, 0, 30)))
	tree, err := openshift.Write(t.TempDir(), openshift.Current,
		openshift.Files{Certificate: pair.Certificate, Key: pair.Key, ClientCA: ca.PEM()})
	if err != nil {
		t.Fatal(err)
	}
	kubelet := func(ca, clients *pkitest.CA) string { return startKubelet(t, ca, clients) }
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	bare := httptest.NewUnstartedServer(http.NotFoundHandler())
	bare.Config.ErrorLog = log.New(io.Discard, "", 0)
	bare.TLS = &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		return nil, errors.New("no serving certificate available for the kubelet")
	}}
	bare.StartTLS()
	defer bare.Close()

	cases := map[string]struct {
		address string
		code    int
		want    string
	}{
		"good":                {kubelet(ca, ca), 0, "compliant"},
		"plain HTTP":          {plain.Listener.Addr().String(), 1, "KubeletNotTLS"},
		"another certificate": {kubelet(other, ca), 1, "KubeletCertificateUntrusted"},
		"another client CA":   {kubelet(ca, other), 2, "ClientAcceptanceUnknown"},
		"no certificate yet":  {bare.Listener.Addr().String(), 1, "KubeletHasNoCertificate"},
		"nothing":             {"127.0.0.1:1", 2, "KubeletUnreachable"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			code := run(t.Context(), []string{"check", "--root", tree.Root, "--settle", "10ms", "--kubelet-address", c.address},
				noEnvironment, &stdout, &stderr)
			if code != c.code || !strings.Contains(stdout.String(), c.want) {
				t.Errorf("got exit code %d, want %d and %q in\n%s%s", code, c.code, c.want, &stdout, &stderr)
			}
		})
	}
}

// TestUsage: a wrong command line is reported in one line with the command, the flag and its
// value, and the exit code is 64.
func TestUsage(t *testing.T) {
	page := messages.Record(t, "errors of the flags of nodeagent")
	// Cases for both commands, and cases for one of them.
	const both = "check run"
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	const server = "apiVersion: v1\nkind: Config\nclusters: [{name: c, cluster: {server: 'https://127.0.0.1:1'}}]\n" +
		"contexts: [{name: x, context: {cluster: c}}]\ncurrent-context: x\n"
	if err := os.WriteFile(kubeconfig, []byte(server), 0o600); err != nil {
		t.Fatal(err)
	}
	cases := map[string]struct {
		commands string
		args     []string
		want     string
	}{
		"unknown flag":            {both, []string{"--frobnicate"}, "unknown flag --frobnicate. Run 'nodeagent COMMAND --help' for usage."},
		"an argument":             {both, []string{"once"}, "unexpected argument \"once\". Run 'nodeagent COMMAND --help' for usage."},
		"no duration":             {both, []string{"--settle", "soon"}, `--settle "soon": must be a duration, such as 30s or 5m`},
		"resync too short":        {"run", []string{"--resync", "1ms"}, "--resync 1ms: must be between 1s and 24h"},
		"resync too long":         {"run", []string{"--resync", "1000000h"}, "--resync 1000000h: must be between 1s and 24h"},
		"resync once":             {"check", []string{"--resync", "5s"}, "unknown flag --resync. Run 'nodeagent COMMAND --help' for usage."},
		"settle negative":         {both, []string{"--settle", "-1s"}, "--settle -1s: must be between 0s and 1m"},
		"fraction too large":      {both, []string{"--expiring-fraction", "1"}, "--expiring-fraction 1: must be at least 0 and below 1"},
		"fraction NaN":            {both, []string{"--expiring-fraction", "NaN"}, "--expiring-fraction NaN: must be at least 0 and below 1"},
		"fraction no number":      {both, []string{"--expiring-fraction", "some"}, `--expiring-fraction "some": must be a number`},
		"RSA bits too few":        {both, []string{"--minimum-rsa-bits", "1024"}, "--minimum-rsa-bits 1024: must be 0, or from 2048 to 8192"},
		"RSA bits negative":       {both, []string{"--minimum-rsa-bits", "-1"}, "--minimum-rsa-bits -1: must be 0, or from 2048 to 8192"},
		"no such algorithm":       {both, []string{"--allowed-key-algorithms", "RSA,P-256"}, `--allowed-key-algorithms: "P-256": must be one of RSA, ECDSA P-256, ECDSA P-384, ECDSA P-521, Ed25519, ML-DSA-44, ML-DSA-65, ML-DSA-87`},
		"relative directory":      {both, []string{"--kubelet-client-dir", "pki"}, `--kubelet-client-dir "pki": must be an absolute path on the host`},
		"Events, no node":         {"run", []string{"--root", ".", "--kubeconfig", kubeconfig}, "--node-name is required with an API server, since Events are about the Node: set it or NODE_NAME"},
		"no namespace of the Pod": {"run", []string{"--root", ".", "--pod", "agent"}, `--pod "agent": must be NAMESPACE/NAME of a Pod`},
		"a name for an address":   {"run", []string{"--root", ".", "--node-address", "master-0"}, `--node-address "master-0": must be an IP address`},
		"no name of a Pod":        {"run", []string{"--root", ".", "--pod", "guard/Agent"}, `--pod "guard/Agent": must be NAMESPACE/NAME of a Pod`},
		"a Pod, no API server":    {"check", []string{"--root", ".", "--pod", "guard/agent"}, "--pod requires an API server: run in a Pod, or set --kubeconfig"},
		"no such kubeconfig":      {"run", []string{"--root", ".", "--node-name", "n", "--kubeconfig", "/does/not/exist"}, "--kubeconfig /does/not/exist: no such file"},
		"no node, no such file":   {"run", []string{"--root", ".", "--kubeconfig", "/does/not/exist"}, "--kubeconfig /does/not/exist: no such file"},
		"not a kubeconfig":        {"run", []string{"--root", ".", "--node-name", "n", "--kubeconfig", "main.go"}, "--kubeconfig main.go: not a kubeconfig, which is YAML or JSON of kind Config (apiVersion v1) (yaml: line 4)"},
		"kubeconfig a directory":  {"run", []string{"--root", ".", "--node-name", "n", "--kubeconfig", "/"}, "--kubeconfig /: is a directory, not a file"},
		"kubelet address":         {both, []string{"--kubelet-address", "192.0.2.7:https"}, `--kubelet-address "192.0.2.7:https": must be HOST or HOST:PORT, with a port from 1 to 65535`},
		"certificate, no key":     {both, []string{"--kubelet-client-certificate", "/a.crt"}, "--kubelet-client-certificate is set without --kubelet-client-key: set both or neither"},
		"key, no certificate":     {both, []string{"--kubelet-client-key", "/a.key"}, "--kubelet-client-key is set without --kubelet-client-certificate: set both or neither"},
		"directory and files":     {both, []string{"--kubelet-client-dir", "/d", "--kubelet-client-certificate", "/a.crt", "--kubelet-client-key", "/a.key"}, "--kubelet-client-dir and --kubelet-client-certificate both name the certificate and key: set one of them"},
		"relative certificate":    {both, []string{"--kubelet-client-certificate", "a.crt", "--kubelet-client-key", "/a.key"}, `--kubelet-client-certificate "a.crt": must be an absolute path on the host`},
		"relative key":            {both, []string{"--kubelet-client-certificate", "/a.crt", "--kubelet-client-key", "a.key"}, `--kubelet-client-key "a.key": must be an absolute path on the host`},
		"a format, not once":      {"run", []string{"-o", "json"}, "-o requires --once, or 'nodeagent check'"},
		"relative CA":             {both, []string{"--kubelet-ca", "ca.crt"}, `--kubelet-ca "ca.crt": must be an absolute path on the host`},
		"log format":              {both, []string{"--log-format", "xml"}, `--log-format "xml": must be json or text`},
		"log level":               {both, []string{"--log-level", "loud"}, `--log-level "loud": must be debug, info, warn or error`},
		"format":                  {both, []string{"-o", "yaml"}, `-o "yaml": must be table, json, junit, sarif or openreports`},
		"no root":                 {both, []string{"--root", ""}, "--root is empty: it must name a directory"},
		"no such root":            {both, []string{"--root", "/does/not/exist"}, "--root /does/not/exist: no such directory"},
		"root a file":             {both, []string{"--root", "main.go"}, "--root main.go: not a directory"},
		"metrics, no port":        {"run", []string{"--metrics-bind-address", "localhost"}, `--metrics-bind-address "localhost": must be HOST:PORT or :PORT, with a port from 0 to 65535`},
		"metrics, no directory":   {"run", []string{"--metrics-cert-dir", "/does/not/exist"}, "--metrics-cert-dir /does/not/exist: no such directory"},
		"metrics, no API server":  {"run", []string{"--root", ".", "--metrics-cert-dir", "."}, "--metrics-cert-dir needs an API server, which checks the clients: set --kubeconfig"},
		"metrics, users alone":    {"run", []string{"--metrics-allowed-users", "a"}, "--metrics-allowed-users requires --metrics-cert-dir"},
		"metrics, large port":     {"run", []string{"--metrics-bind-address", ":65536"}, `--metrics-bind-address ":65536": must be HOST:PORT or :PORT, with a port from 0 to 65535`},
	}
	for name, c := range cases {
		for command := range strings.FieldsSeq(c.commands) {
			t.Run(name+", "+command, func(t *testing.T) {
				var stdout, stderr bytes.Buffer
				code := run(t.Context(), append([]string{command}, c.args...), noEnvironment, &stdout, &stderr)
				want := "nodeagent " + command + ": " + strings.ReplaceAll(c.want, "COMMAND", command) + "\n"
				page.Text(command, stderr.String())
				if code != 64 || stderr.String() != want || stdout.Len() > 0 {
					t.Errorf("got exit code %d, %q and on stdout %q; want 64 and %q", code, &stderr, &stdout, want)
				}
			})
		}
	}
}

// full is an output on a full disk.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

// TestNotWritten: if the report cannot be written, the exit code is 3 and not that of a
// verdict.
func TestNotWritten(t *testing.T) {
	for _, args := range [][]string{{"check"}, {"run", "--once"}, {"check", "-o", "json"}} {
		var stderr bytes.Buffer
		code := run(t.Context(), append(args, "--root", t.TempDir(), "--settle", "0s"), noEnvironment, full{}, &stderr)
		if want := "nodeagent " + args[0] + ": write the report: no space left on device\n"; code != 3 ||
			stderr.String() != want {
			t.Errorf("%v: exit code %d, %q, want %q", args, code, &stderr, want)
		}
	}
}

// TestHelp: the help of each command shows all of its flags, and each flag belongs to a
// command.
func TestHelp(t *testing.T) {
	var all config
	defined := flag.NewFlagSet("", flag.ContinueOnError)
	all.defineFlags(defined, noEnvironment)
	shown := map[string]bool{}
	for _, c := range program(noEnvironment).Commands {
		var stdout, stderr bytes.Buffer
		if code := run(t.Context(), []string{c.Name, "--help"}, noEnvironment, &stdout, &stderr); code != 0 ||
			stderr.Len() > 0 {
			t.Errorf("%s --help: exit code %d, on stderr %q", c.Name, code, &stderr)
		}
		for _, group := range c.Groups {
			for _, name := range group.Flags {
				if shown[name] = true; !strings.Contains(stdout.String(), "\n  -"+name+" ") &&
					!strings.Contains(stdout.String(), "\n  --"+name) {
					t.Errorf("%s --help does not show flag %s", c.Name, name)
				}
			}
		}
	}
	defined.VisitAll(func(f *flag.Flag) {
		if !shown[f.Name] {
			t.Errorf("no command takes flag %s", f.Name)
		}
	})
}

// TestSpellings: the command lines of old manifests and scripts still work.
func TestSpellings(t *testing.T) {
	root := t.TempDir()
	cases := map[string]struct {
		args []string
		code int
	}{
		"check":               {[]string{"check", "--root", root, "--settle", "0s"}, 2},
		"run --once":          {[]string{"run", "--once", "--root", root, "--settle", "0s"}, 2},
		"--once":              {[]string{"--once", "--root", root, "--settle", "0s"}, 2},
		"--once, in the Pod":  {[]string{"--root", root, "--settle", "0s", "--resync", "30s", "--metrics-bind-address", ":8080", "--once"}, 2},
		"flags alone":         {[]string{"--root", root, "--metrics-bind-address", "192.0.2.1:1"}, 3},
		"an unknown command":  {[]string{"once"}, 64},
		"version":             {[]string{"version"}, 0},
		"--version":           {[]string{"--version"}, 0},
		"version --help":      {[]string{"version", "--help"}, 0},
		"help":                {[]string{"help"}, 0},
		"-h":                  {[]string{"-h"}, 0},
		"help of a command":   {[]string{"help", "check"}, 0},
		"flags and then help": {[]string{"--root", root, "--help"}, 0},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			code := run(t.Context(), c.args, noEnvironment, &stdout, &stderr)
			if code != c.code || (code < 3) != (stdout.Len() > 0) || (code < 3) != (stderr.Len() == 0) {
				t.Errorf("exit code %d, want %d; stdout %q, stderr %q", code, c.code, &stdout, &stderr)
			}
		})
	}
}

// TestOnceFormats: the JSON report of a real scan is valid by its schema. The tests of package
// evidence check the other formats.
func TestOnceFormats(t *testing.T) {
	schema, err := jsonschema.NewCompiler().Compile("../docs/evidence.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	ca := pkitest.NewCAAround("kube-apiserver-to-kubelet-signer", now)
	pair := ca.Issue(pkitest.KubeletClient().Valid(now.Add(-time.Hour), now.AddDate(0, 0, 30)))
	tree, err := openshift.Write(t.TempDir(), openshift.Current,
		openshift.Files{Certificate: pair.Certificate, Key: pair.Key, ClientCA: ca.PEM()})
	if err != nil {
		t.Fatal(err)
	}
	once := func(format string) string {
		var stdout, stderr bytes.Buffer
		args := []string{
			"check", "-o", format, "--root", tree.Root, "--settle", "0s", "--node-name", "master-0", "--kubelet-address",
			"127.0.0.1:1",
		}
		if code := run(t.Context(), args, noEnvironment, &stdout, &stderr); code != int(command.ExitCouldNotVerify) {
			t.Errorf("exit code %d, want %d\n%s%s", code, command.ExitCouldNotVerify, &stdout, &stderr)
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
	expected := fmt.Sprintf(
		`{"verdict": "CouldNotVerify", "subject": {"kind": "Node", "name": "master-0"}, "revision": "7", "examined": [
		{"role": "manifest", "location": "/etc/kubernetes/manifests/kube-apiserver-pod.yaml"},
		{"role": "configuration", "location": "%[1]skube-apiserver-pod-7/configmaps/config/config.yaml"},
		{"role": "certificate", "location": "%[1]skube-apiserver-certs/secrets/kubelet-client/tls.crt"},
		{"role": "key", "location": "%[1]skube-apiserver-certs/secrets/kubelet-client/tls.key"},
		{"role": "kubelet-client-ca", "location": "/etc/kubernetes/kubelet-ca.crt"},
		{"role": "kubelet-serving-ca", "location": "%[1]skube-apiserver-pod-7/configmaps/kubelet-serving-ca/ca-bundle.crt"},
		{"role": "kubelet", "location": "Kubelet 127.0.0.1:1"}],
		"certificates": [{"role": "kubelet-client", "location": "%[1]skube-apiserver-certs/secrets/kubelet-client/tls.crt"}],
		"findings": [{"reason": "KubeletUnreachable", "location": "Kubelet 127.0.0.1:1"}]}`,
		resources,
	)
	if err := json.Unmarshal([]byte(expected), &want); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("evidence (-want +got):\n%s", d)
	}
	for format, mark := range map[string]string{
		"table": "Node/master-0: could not verify\n",
		"junit": `<testcase name="kubelet/tls" classname="Node/master-0" time="0">` + "\n      <error ",
		"sarif": `"version": "2.1.0"`,
	} {
		if text := once(format); !strings.Contains(text, mark) {
			t.Errorf("%s: no %q in\n%s", format, mark, text)
		}
	}
}

// TestOnceChecked: the report does not list a reason as checked if it could not be checked.
func TestOnceChecked(t *testing.T) {
	now := time.Now()
	ca := pkitest.NewCAAround("kube-apiserver-to-kubelet-signer", now)
	pair := ca.Issue(pkitest.KubeletClient().Valid(now.Add(-time.Hour), now.AddDate(0, 0, 30)))
	const at = "/etc/kubernetes/static-pod-resources/kube-apiserver-certs/secrets/kubelet-client/"
	cases := map[string]struct {
		change func(root string) error
		want   string
	}{
		"all there":                           {func(string) error { return nil }, "CertificateMissing KeyMissing KeyMismatch CertificateExpired UntrustedIssuer ClientKeyNotConfigured"},
		"no CA":                               {func(root string) error { return os.Remove(filepath.Join(root, "/etc/kubernetes/kubelet-ca.crt")) }, "CertificateMissing KeyMissing KeyMismatch CertificateExpired ClientKeyNotConfigured"},
		"no manifest":                         {func(root string) error { return os.RemoveAll(filepath.Join(root, "/etc/kubernetes/manifests")) }, ""},
		"a certificate that links itself":     {func(root string) error { return loop(filepath.Join(root, at, "tls.crt")) }, "KeyMissing ClientKeyNotConfigured"},
		"no certificate":                      {func(root string) error { return os.Remove(filepath.Join(root, at, "tls.crt")) }, "CertificateMissing KeyMissing ClientKeyNotConfigured"},
		"no key":                              {func(root string) error { return os.Remove(filepath.Join(root, at, "tls.key")) }, "CertificateMissing KeyMissing CertificateExpired UntrustedIssuer ClientKeyNotConfigured"},
		"a certificate outside of all mounts": {unmount, "KeyMissing ClientKeyNotConfigured"},
		"no configuration": {func(root string) error {
			return os.RemoveAll(
				filepath.Join(root, "/etc/kubernetes/static-pod-resources/kube-apiserver-pod-7/configmaps/config"),
			)
		}, ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			tree, err := openshift.Write(t.TempDir(), openshift.Current,
				openshift.Files{Certificate: pair.Certificate, Key: pair.Key, ClientCA: ca.PEM()})
			if err != nil {
				t.Fatal(err)
			}
			if err := c.change(tree.Root); err != nil {
				t.Fatal(err)
			}
			var stdout, stderr bytes.Buffer
			run(t.Context(),
				[]string{"check", "-o", "json", "--root", tree.Root, "--settle", "0s", "--kubelet-address", "127.0.0.1:1"},
				noEnvironment, &stdout, &stderr)
			var d struct{ Checked []struct{ Reason string } }
			if err := json.Unmarshal(stdout.Bytes(), &d); err != nil {
				t.Fatalf("%v\n%s", err, &stderr)
			}
			var got []string
			for _, reason := range []string{"CertificateMissing", "KeyMissing", "KeyMismatch", "CertificateExpired",
				"UntrustedIssuer", "ClientKeyNotConfigured", "KubeletNotTLS"} {
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

// TestOnceListsEveryRequirement: the report has the outcome of each requirement of a node,
// and the reason for each one that was not observed.
func TestOnceListsEveryRequirement(t *testing.T) {
	now := time.Now()
	ca := pkitest.NewCAAround("kube-apiserver-to-kubelet-signer", now)
	pair := ca.Issue(pkitest.KubeletClient().Valid(now.Add(-time.Hour), now.AddDate(0, 0, 30)))
	kubelet := startKubelet(t, ca, ca)
	isConfig := func(r finding.Requirement) bool {
		return r.Family() == finding.Manifest || r.Family() == finding.Config
	}
	isKubelet := func(r finding.Requirement) bool { return r.Family() == finding.Kubelet }
	// The CA of kubelets is in the configuration.
	trusted := finding.Kubelet.Requires(finding.ServingTrusted)
	cases := map[string]struct {
		flags []string
		code  int
		// unknown are the requirements that are not checked; the others pass.
		unknown func(finding.Requirement) bool
		table   string
	}{
		"all there": {
			flags: []string{"--kubelet-address", kubelet}, code: int(command.ExitOK),
			unknown: func(finding.Requirement) bool { return false }, table: ": compliant\n",
		},
		"the kubelet was not checked": {
			code: int(command.ExitOK), unknown: isKubelet,
			table: "\nnot checked: kubelet/tls, kubelet/serving-trusted, kubelet/client-accepted, kubelet/read-only-port (",
		},
		"the configuration was not read": {
			flags: []string{"--kubelet-address", kubelet, "--kubelet-client-dir", currentDirectory}, code: int(command.ExitCouldNotVerify),
			unknown: func(r finding.Requirement) bool { return isConfig(r) || r == trusted },
			table: "\nrequired and not observed\n  manifest/readable, manifest/single\n    NotChecked at File static Pod " +
				"manifest: ",
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			tree, err := openshift.Write(t.TempDir(), openshift.Current,
				openshift.Files{Certificate: pair.Certificate, Key: pair.Key, ClientCA: ca.PEM()})
			if err != nil {
				t.Fatal(err)
			}
			once := func(format string) string {
				var stdout, stderr bytes.Buffer
				args := append([]string{"check", "-o", format, "--root", tree.Root, "--settle", "0s"}, c.flags...)
				if code := run(t.Context(), args, noEnvironment, &stdout, &stderr); code != c.code {
					t.Errorf("exit code %d, want %d\n%s%s", code, c.code, &stdout, &stderr)
				}
				return stdout.String()
			}
			type outcomes map[finding.Requirement]string
			var document struct {
				Controls []struct {
					ID           string
					Requirements []struct {
						ID      finding.Requirement
						Outcome string
						Reasons []finding.Reason
					}
				}
				Results []struct {
					Requirement finding.Requirement
					Outcome     string
					Reason      finding.Reason
				}
			}
			if err := json.Unmarshal([]byte(once("json")), &document); err != nil {
				t.Fatal(err)
			}
			want, got := map[string]outcomes{}, map[string]outcomes{"results": {}}
			want["results"] = outcomes{}
			for _, asked := range agent.Controls() {
				want[asked.ID] = outcomes{}
				for _, required := range asked.Requirements {
					if !required.In(control.Node) {
						continue
					}
					outcome := "pass"
					if c.unknown(required.Requirement) || required.Requirement == finding.Kubelet.Requires(finding.Connection) {
						outcome = "unknown NotChecked"
					}
					want[asked.ID][required.Requirement], want["results"][required.Requirement] = outcome, outcome
				}
			}
			text := func(outcome string, reasons ...finding.Reason) string {
				return strings.Trim(fmt.Sprint(outcome, " ", strings.Trim(fmt.Sprint(reasons), "[]")), " ")
			}
			for _, judged := range document.Controls {
				got[judged.ID] = outcomes{}
				for _, r := range judged.Requirements {
					got[judged.ID][r.ID] = text(r.Outcome, r.Reasons...)
				}
			}
			for _, r := range document.Results {
				got["results"][r.Requirement] = text(r.Outcome, r.Reason)
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("outcomes by control (-want +got):\n%s", d)
			}
			if table := once("table"); !strings.Contains(table, c.table) {
				t.Errorf("no %q in\n%s", c.table, table)
			}
		})
	}
}

// unmount configures a certificate outside of all mounts of the kube-apiserver.
func unmount(root string) error {
	path := openshift.Tree{Root: root, Layout: openshift.Current, Revision: 7}.Config()
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return os.WriteFile(path, regexp.MustCompile(`"[^"]*/tls\.crt"`).ReplaceAll(text, []byte(`"/nowhere/tls.crt"`)), 0o600)
}

// loop replaces a file with a link to itself, which even root cannot read.
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
	tree, err := openshift.Write(t.TempDir(), openshift.Current,
		openshift.Files{Certificate: pair.Certificate, Key: pair.Key, ClientCA: ca.PEM()})
	if err != nil {
		t.Fatal(err)
	}
	const patience = time.Minute
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	stderr, log := io.Pipe()
	// If the agent neither logs nor ends in this time, reading its log ends anyway.
	closing := time.AfterFunc(2*patience, func() { _ = stderr.Close() })
	defer closing.Stop()
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, []string{"--root", tree.Root, "--settle", "10ms", "--metrics-bind-address", "127.0.0.1:0"},
			noEnvironment, io.Discard, log)
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
		t.Fatalf("no log line %q within %s, or before the agent ended", message, patience)
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

	await(string(report.Compliant))
	for _, path := range []string{"/readyz", "/healthz"} {
		if code, text := get(path); code != http.StatusOK {
			t.Errorf("%s: %d %s", path, code, text)
		}
	}
	has(`kubelet_https_guard_compliant{control="use-https"} 1`,
		`kubelet_https_guard_certificate_not_after_seconds{`+at+`} `, `kubelet_https_guard_scans_total{trigger="start"} 1`,
		`kubelet_https_guard_scan_duration_seconds_count `, `kubelet_https_guard_watch_errors_total 0`,
		`kubelet_https_guard_build_info{`, `process_resident_memory_bytes `, `go_goroutines `)

	if err := os.Remove(tree.Certificate()); err != nil {
		t.Fatal(err)
	}
	await(string(report.NotCompliant))
	has(
		`kubelet_https_guard_compliant{control="use-https"} 0`,
		`kubelet_https_guard_finding{location="`+tree.CertificateOnHost()+`",reason="CertificateMissing",severity="Violation"} 1`,
		`kubelet_https_guard_certificate_not_after_seconds{`+at+`} `,
	)

	stop()
	for lines.Scan() { // read to the end, or the agent blocks on its log
	}
	select {
	case code := <-ended:
		if code != 0 {
			t.Errorf("exit code %d", code)
		}
	case <-time.After(patience):
		t.Error("the agent does not end after its context ended")
	}
}

// TestServeFails: if the agent cannot listen on an address, it stops with an error that
// names the flag, the address and the cause.
func TestServeFails(t *testing.T) {
	var stderr bytes.Buffer
	code := run(t.Context(), []string{"run", "--root", t.TempDir(), "--metrics-bind-address", "192.0.2.1:1"},
		noEnvironment, io.Discard, &stderr)
	if code != int(command.ExitFailed) ||
		!strings.Contains(stderr.String(), "--metrics-bind-address 192.0.2.1:1: cannot assign requested address") {
		t.Errorf("exit code %d\n%s", code, &stderr)
	}
}
