// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

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
		"resync too short":   {[]string{"--resync", "1ms"}, "--resync 1ms is less than a second"},
		"settle negative":    {[]string{"--settle", "-1s"}, "--settle -1s is not between 0 and a minute"},
		"fraction too large": {[]string{"--expiring-fraction", "1"}, "--expiring-fraction 1 is not at least 0 and below 1"},
		"fraction no number": {[]string{"--expiring-fraction", "NaN"}, "--expiring-fraction NaN is not at least 0 and below 1"},
		"relative directory": {[]string{"--kubelet-client-dir", "pki"}, `--kubelet-client-dir "pki" is not an absolute path of the host`},
		"relative CA":        {[]string{"--kubelet-ca", "ca.crt"}, `--kubelet-ca "ca.crt" is not an absolute path of the host`},
		"log format":         {[]string{"--log-format", "xml"}, `--log-format: log format "xml" is neither json nor text`},
		"log level":          {[]string{"--log-level", "loud"}, `invalid value "loud" for flag -log-level: slog: level string "loud": unknown name`},
		"no root":            {[]string{"--root", ""}, "--root is empty"},
		"root not there":     {[]string{"--root", "/does/not/exist"}, "--root: look at the host's root: stat /does/not/exist: no such file or directory"},
		"root a file":        {[]string{"--root", "main.go"}, "--root: the host's root main.go is not a directory"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			code := run(t.Context(), append([]string{"--once"}, c.args...), noEnvironment, &stdout, &stderr)
			line, _, _ := strings.Cut(stderr.String(), "\n")
			if code != exitUsage || line != "nodeagent: "+c.want {
				t.Errorf("got exit code %d and %q, want %d and %q", code, line, exitUsage, "nodeagent: "+c.want)
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
	}
}
