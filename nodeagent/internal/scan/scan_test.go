// SPDX-License-Identifier: Apache-2.0

package scan_test

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/kubelet-https-guard/kubelet-https-guard/nodeagent/internal/hostfs"
	"github.com/kubelet-https-guard/kubelet-https-guard/nodeagent/internal/scan"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/staticpod"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/openshift"
)

// patience is more than a scan takes on a busy machine.
const patience = 20 * time.Second

// node is a host whose kube-apiserver has all that it needs.
type node struct {
	openshift.Tree
	host *hostfs.FS
	ca   *pkitest.CA
	pair pkitest.Pair
}

func newNode(t *testing.T, layout openshift.Layout, ca *pkitest.CA, pair pkitest.Pair) node {
	t.Helper()
	tree, err := openshift.Write(t.TempDir(), layout, openshift.Files{Certificate: pair.Certificate, Key: pair.Key, ClientCA: ca.PEM()})
	if err != nil {
		t.Fatal(err)
	}
	host, err := hostfs.New(tree.Root, check.MaxFileBytes)
	if err != nil {
		t.Fatal(err)
	}
	return node{tree, host, ca, pair}
}

// look scans, and fails the test if that blocks.
func look(t *testing.T, host scan.Host, options scan.Options, now time.Time) scan.Snapshot {
	t.Helper()
	options.ExpiringFraction = check.DefaultExpiringFraction
	result := make(chan scan.Snapshot, 1)
	go func() { result <- scan.Scan(host, nil, options, now) }()
	select {
	case snapshot := <-result:
		return snapshot
	case <-time.After(patience):
		t.Fatal("the scan does not end")
		return scan.Snapshot{}
	}
}

// lines are findings, each as "Reason location: message".
func lines(findings []finding.Finding) []string {
	var lines []string
	for _, f := range findings {
		lines = append(lines, fmt.Sprintf("%s %s: %s", f.Reason, f.Location, f.Message))
	}
	return lines
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func put(t *testing.T, at string, data []byte) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(at), 0o755))
	must(t, os.WriteFile(at, data, 0o600))
}

// replace changes a text in a file.
func replace(t *testing.T, at, from, to string) {
	t.Helper()
	data, err := os.ReadFile(at)
	must(t, err)
	if !bytes.Contains(data, []byte(from)) {
		t.Fatalf("there is no %q in %s", from, at)
	}
	put(t, at, bytes.ReplaceAll(data, []byte(from), []byte(to)))
}

// Places on a host as it is laid out today.
const (
	resources   = "/etc/kubernetes/static-pod-resources"
	directory   = resources + "/kube-apiserver-certs/secrets/kubelet-client"
	certificate = directory + "/tls.crt"
	key         = directory + "/tls.key"
	config      = resources + "/kube-apiserver-pod-7/configmaps/config/config.yaml"
	clientCA    = staticpod.OpenShiftClientCA
	noCA        = "ClientCAUnavailable " + clientCA + ": the kubelet's client CA is not to be had, so who issued the certificate was not checked: "
)

// TestScan looks at hosts in all states.
func TestScan(t *testing.T) {
	ca, foreign := pkitest.NewCA("kube-apiserver-to-kubelet-signer"), pkitest.NewCA("foreign")
	good, other := ca.Issue(pkitest.KubeletClient()), ca.Issue(pkitest.KubeletClient())
	day := 24 * time.Hour
	expired := ca.Issue(pkitest.KubeletClient().Valid(pkitest.Now().Add(-31*day), pkitest.Now().Add(-day)))
	strange := foreign.Issue(pkitest.KubeletClient())

	remove := func(path func(n node) string) func(*testing.T, node) {
		return func(t *testing.T, n node) { must(t, os.RemoveAll(path(n))) }
	}
	write := func(path func(n node) string, data []byte) func(*testing.T, node) {
		return func(t *testing.T, n node) { put(t, path(n), data) }
	}
	// instead puts something else in a file's place.
	instead := func(path func(n node) string, what func(at string) error) func(*testing.T, node) {
		return func(t *testing.T, n node) {
			must(t, os.Remove(path(n)))
			must(t, what(path(n)))
		}
	}
	folder := func(at string) error { return os.Mkdir(at, 0o755) }
	fifo := func(at string) error { return unix.Mkfifo(at, 0o600) }
	socket := func(at string) error { return unix.Mknod(at, unix.S_IFSOCK|0o600, 0) }
	loop := func(at string) error { return os.Symlink(filepath.Base(at), at) }
	certificateAt := func(n node) string { return n.Certificate() }
	keyAt := func(n node) string { return n.Key() }
	configAt := func(n node) string { return n.Config() }
	manifestAt := func(n node) string { return n.Manifest() }
	clientCAAt := func(n node) string { return n.Root + clientCA }
	large := bytes.Repeat([]byte("x"), 2<<20)
	cisPair := func(p pkitest.Pair) func(*testing.T, node) {
		return func(t *testing.T, n node) {
			must(t, os.Remove(n.Manifest()))
			put(t, n.Root+staticpod.CISDirectory+"/tls.crt", p.Certificate)
			put(t, n.Root+staticpod.CISDirectory+"/tls.key", p.Key)
		}
	}
	const (
		noManifest = "ManifestMissing " + staticpod.OpenShiftManifest + ": there is no static pod manifest of a kube-apiserver, so it is not known which files are used"
		noKubelet  = "KubeletCANotConfigured " + staticpod.KubeadmManifest + " kubelet-certificate-authority: kubelet-certificate-authority is not set, so the kubelets' own certificates are not verified"
		missing    = ": there is no certificate, or it is empty"
		keyMissing = ": there is no private key, or it is empty"
		tooLarge   = ": it has 2097152 bytes, more than the 1048576 that a Secret can hold"
		untrusted  = `: the certificate, issued by "foreign", does not lead to a CA that is trusted for it`
	)

	cases := map[string]struct {
		layout  openshift.Layout // Current if empty
		pair    *pkitest.Pair    // the good one if nil
		change  func(t *testing.T, n node)
		options scan.Options
		want    []string
	}{
		"good, " + string(openshift.Current): {},
		"good, " + string(openshift.Legacy):  {layout: openshift.Legacy},
		"good, " + string(openshift.Oldest):  {layout: openshift.Oldest},
		"good, " + string(openshift.Kubeadm): {layout: openshift.Kubeadm, want: []string{noKubelet}},
		"good, behind absolute links": {change: func(t *testing.T, n node) {
			must(t, os.Rename(n.Directory(), n.Root+"/elsewhere"))
			must(t, os.Symlink("/elsewhere", n.Directory()))
		}},
		"good, an old revision has expired": {layout: openshift.Legacy, change: func(t *testing.T, n node) {
			_, err := openshift.Write(n.Root, openshift.Legacy, openshift.Files{Certificate: expired.Certificate, Key: strange.Key, ClientCA: ca.PEM(), Revision: 6})
			must(t, err)
			_, err = openshift.Write(n.Root, openshift.Legacy, openshift.Files{Certificate: good.Certificate, Key: good.Key, ClientCA: ca.PEM()})
			must(t, err)
		}},

		"pair gone":                {change: remove(func(n node) string { return n.Directory() }), want: []string{"CertificateMissing " + certificate + missing, "KeyMissing " + key + keyMissing}},
		"pair gone, kubeadm":       {layout: openshift.Kubeadm, change: func(t *testing.T, n node) { must(t, os.Remove(n.Certificate())); must(t, os.Remove(n.Key())) }, want: []string{"CertificateMissing /etc/kubernetes/pki/apiserver-kubelet-client.crt" + missing, "KeyMissing /etc/kubernetes/pki/apiserver-kubelet-client.key" + keyMissing, noKubelet}},
		"certificate gone":         {change: remove(certificateAt), want: []string{"CertificateMissing " + certificate + missing}},
		"key gone":                 {change: remove(keyAt), want: []string{"KeyMissing " + key + keyMissing}},
		"a file on the way":        {change: func(t *testing.T, n node) { must(t, os.RemoveAll(n.Directory())); put(t, n.Directory(), nil) }, want: []string{"CertificateMissing " + certificate + missing, "KeyMissing " + key + keyMissing}},
		"certificate empty":        {change: write(certificateAt, nil), want: []string{"CertificateMissing " + certificate + missing}},
		"certificate garbage":      {change: write(certificateAt, []byte("garbage")), want: []string{"CertificateUnparsable " + certificate + ": it holds no PEM block of type CERTIFICATE"}},
		"key garbage":              {change: write(keyAt, []byte("garbage")), want: []string{"KeyUnparsable " + key + ": it holds no PEM block of a private key"}},
		"key of another pair":      {change: write(keyAt, other.Key), want: []string{"KeyMismatch " + key + ": the private key (ECDSA P-256) is not that of the certificate (ECDSA P-256)"}},
		"expired":                  {pair: &expired, want: []string{"CertificateExpired " + certificate + ": the certificate expired at 2026-11-21T12:00:00Z"}},
		"issued by a foreign CA":   {pair: &strange, want: []string{"UntrustedIssuer " + certificate + untrusted}},
		"key readable by all":      {change: func(t *testing.T, n node) { must(t, os.Chmod(n.Key(), 0o644)) }, want: []string{"KeyFileExposed " + key + ": the private key's file has mode 0644"}},
		"directory as certificate": {change: instead(certificateAt, folder), want: []string{"NotRegularFile " + certificate + ": it is a directory, not a regular file"}},
		"directory as key":         {change: instead(keyAt, folder), want: []string{"NotRegularFile " + key + ": it is a directory, not a regular file"}},
		"FIFO as certificate":      {change: instead(certificateAt, fifo), want: []string{"NotRegularFile " + certificate + ": it is a FIFO, not a regular file"}},
		"FIFO as key":              {change: instead(keyAt, fifo), want: []string{"NotRegularFile " + key + ": it is a FIFO, not a regular file"}},
		"socket as key":            {change: instead(keyAt, socket), want: []string{"NotRegularFile " + key + ": it is a socket, not a regular file"}},
		"dangling link as key":     {change: instead(keyAt, func(at string) error { return os.Symlink("/none", at) }), want: []string{"KeyMissing " + key + keyMissing}},
		"2 MiB of certificate":     {change: write(certificateAt, large), want: []string{"FileTooLarge " + certificate + tooLarge}},
		"2 MiB of key":             {change: write(keyAt, large), want: []string{"FileTooLarge " + key + tooLarge}},
		"link to itself":           {change: instead(certificateAt, loop), want: []string{"Unreadable " + certificate + ": it cannot be read: open " + certificate + ": too many levels of symbolic links"}},

		"10,000 blocks before the certificate": {change: func(t *testing.T, n node) {
			put(t, n.Certificate(), append(bytes.Repeat([]byte("-----BEGIN X-----\nAAAA\n-----END X-----\n"), 10_000), good.Certificate...))
		}},
		"10,000 certificates": {change: func(t *testing.T, n node) {
			put(t, n.Certificate(), append(bytes.Clone(good.Certificate), bytes.Repeat([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), 10_000)...))
		}, want: []string{"ChainUnparsable " + certificate + ": certificate 32 of the chain is no X.509 certificate: x509: malformed certificate", "ChainDoubtful " + certificate + ": holds more than 32 certificates; the others were not read"}},
		"a chain of 50": {change: write(certificateAt, bytes.Repeat(good.Certificate, 50)), want: []string{
			"ChainDoubtful " + certificate + ": holds more than 32 certificates; the others were not read",
		}},
		"link out of the root": {change: func(t *testing.T, n node) {
			outside := t.TempDir() + "/tls.key"
			put(t, outside, good.Key)
			must(t, os.Remove(n.Key()))
			must(t, os.Symlink(strings.Repeat("../", 30)+outside, n.Key()))
		}, want: []string{"KeyMissing " + key + keyMissing}},

		"client CA gone":     {change: remove(clientCAAt), want: []string{noCA + "it cannot be read: open " + clientCA + ": no such file or directory"}},
		"client CA garbage":  {change: write(clientCAAt, []byte("garbage")), want: []string{noCA + "it holds no PEM block of type CERTIFICATE"}},
		"client CA a FIFO":   {change: instead(clientCAAt, fifo), want: []string{noCA + "it is a FIFO"}},
		"client CA of 2 MiB": {change: write(clientCAAt, large), want: []string{noCA + "it is too large"}},

		"configuration gone": {change: remove(configAt), want: []string{"ConfigMissing " + config + ": the kube-apiserver's configuration is not there"}},
		"its revision gone":  {change: remove(func(n node) string { return filepath.Dir(filepath.Dir(filepath.Dir(n.Config()))) }), want: []string{"ConfigMissing " + config + ": the kube-apiserver's configuration is not there"}},
		"configuration empty": {change: write(configAt, nil), want: []string{
			"ConfigUnparsable " + config + ": the kube-apiserver's configuration cannot be parsed: it is empty",
		}},
		"configuration a FIFO": {change: instead(configAt, fifo), want: []string{
			"ConfigUnparsable " + config + ": the kube-apiserver's configuration cannot be parsed: read " + config + ": not a regular file",
		}},
		"configuration of 2 MiB": {change: write(configAt, large), want: []string{
			"ConfigUnparsable " + config + ": the kube-apiserver's configuration cannot be parsed: read " + config + ": larger than 1048576 bytes",
		}},
		"nothing configured": {change: write(configAt, []byte(`{"kind":"KubeAPIServerConfig"}`)), want: []string{
			"ClientCertificateNotConfigured " + config + " kubelet-client-certificate: kubelet-client-certificate is not set",
			"ClientKeyNotConfigured " + config + " kubelet-client-key: kubelet-client-key is not set",
			"KubeletCANotConfigured " + config + " kubelet-certificate-authority: kubelet-certificate-authority is not set, so the kubelets' own certificates are not verified",
		}},
		"HTTPS turned off": {layout: openshift.Legacy, change: func(t *testing.T, n node) {
			replace(t, n.Config(), `"kubelet-https":["true"]`, `"kubelet-https":["false"]`)
		}, want: []string{`KubeletHTTPSDisabled ` + config + ` kubelet-https: kubelet-https is "false", so kubelets are spoken to without TLS`}},
		"several things, the worst first": {layout: openshift.Kubeadm, change: func(t *testing.T, n node) {
			must(t, os.Chmod(n.Key(), 0o644))
			must(t, os.Remove(n.Root+"/etc/kubernetes/pki/ca.crt"))
			replace(t, n.Manifest(), "--kubelet-client-certificate=/etc/kubernetes/pki/apiserver-kubelet-client.crt", "--kubelet-https=false")
		}, want: []string{
			"ClientCertificateNotConfigured " + staticpod.KubeadmManifest + " kubelet-client-certificate: kubelet-client-certificate is not set",
			`KubeletHTTPSDisabled ` + staticpod.KubeadmManifest + ` kubelet-https: kubelet-https is "false", so kubelets are spoken to without TLS`,
			strings.ReplaceAll(noCA, clientCA, "/etc/kubernetes/pki/ca.crt") + "it cannot be read: open /etc/kubernetes/pki/ca.crt: no such file or directory",
			"KeyFileExposed /etc/kubernetes/pki/apiserver-kubelet-client.key: the private key's file has mode 0644",
			noKubelet,
		}},
		"certificate under no mount": {change: func(t *testing.T, n node) {
			replace(t, n.Config(), "/etc/kubernetes/static-pod-certs/secrets/kubelet-client/tls.crt", "/srv/tls.crt")
		}, want: []string{"Unreadable /srv/tls.crt: it cannot be read: the path is under no mount of the kube-apiserver's container"}},

		"manifest gone":          {change: remove(manifestAt), want: []string{noManifest}},
		"manifest gone, kubeadm": {layout: openshift.Kubeadm, change: remove(manifestAt), want: []string{noManifest}},
		"manifest of another pod": {change: write(manifestAt, []byte(`{"kind":"Pod"}`)), want: []string{
			"ManifestUnparsable " + staticpod.OpenShiftManifest + ": the kube-apiserver's manifest cannot be used: it has no container named kube-apiserver",
		}},
		"manifest of two": {change: func(t *testing.T, n node) {
			replace(t, n.Manifest(), `"name":"kube-apiserver-cert-syncer"`, `"name":"kube-apiserver"`)
		}, want: []string{
			"ManifestUnparsable " + staticpod.OpenShiftManifest + ": the kube-apiserver's manifest cannot be used: it has two containers named kube-apiserver",
		}},
		"manifest that multiplies itself": {change: write(manifestAt, []byte("a: &a [x, x]\nb: &b [*a, *a]\nkind: Pod\n")), want: []string{
			"ManifestUnparsable " + staticpod.OpenShiftManifest + ": the kube-apiserver's manifest cannot be used: parse as a Pod: it uses YAML aliases, which are not followed here",
		}},
		"manifest a FIFO": {change: instead(manifestAt, fifo), want: []string{
			"Unreadable " + staticpod.OpenShiftManifest + ": the kube-apiserver's manifest cannot be read: read " + staticpod.OpenShiftManifest + ": not a regular file",
		}},
		"manifest of 2 MiB": {change: write(manifestAt, large), want: []string{
			"Unreadable " + staticpod.OpenShiftManifest + ": the kube-apiserver's manifest cannot be read: read " + staticpod.OpenShiftManifest + ": larger than 1048576 bytes",
		}},
		"manifest gone, directory of the CIS text":            {change: cisPair(good), want: []string{noManifest}},
		"manifest gone, strange pair at that of the CIS text": {change: cisPair(strange), want: []string{"UntrustedIssuer " + staticpod.CISDirectory + "/tls.crt" + untrusted, noManifest}},

		"directory as told, manifest gone": {options: scan.Options{Directory: directory}, change: remove(manifestAt)},
		"directory as told, kubeadm":       {layout: openshift.Kubeadm, options: scan.Options{Directory: "/etc/kubernetes/pki"}, change: remove(manifestAt)},
		"directory as told, not there":     {options: scan.Options{Directory: "/none"}, want: []string{"CertificateMissing /none/tls.crt" + missing, "KeyMissing /none/tls.key" + keyMissing}},
		"directory as told, no CA": {pair: &strange, options: scan.Options{Directory: directory}, change: func(t *testing.T, n node) {
			must(t, os.Remove(n.Root+clientCA))
		}, want: []string{noCA + "it cannot be read: open " + clientCA + ": no such file or directory"}},
		"CA as told": {pair: &strange, options: scan.Options{ClientCA: "/srv/ca.crt"}, change: func(t *testing.T, n node) {
			put(t, n.Root+"/srv/ca.crt", foreign.PEM())
		}},
		"CA as told, not there": {options: scan.Options{ClientCA: "/srv/ca.crt"}, want: []string{
			"ClientCAUnavailable /srv/ca.crt: the kubelet's client CA is not to be had, so who issued the certificate was not checked: it cannot be read: open /srv/ca.crt: no such file or directory",
		}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if c.layout == "" {
				c.layout = openshift.Current
			}
			if c.pair == nil {
				c.pair = &good
			}
			n := newNode(t, c.layout, ca, *c.pair)
			if c.change != nil {
				c.change(t, n)
			}
			snapshot := look(t, n.host, c.options, pkitest.Now())
			if d := cmp.Diff(c.want, lines(snapshot.Findings)); d != "" {
				t.Errorf("findings (-want +got):\n%s", d)
			}
			if !snapshot.At.Equal(pkitest.Now()) {
				t.Errorf("At: got %s", snapshot.At)
			}
			again := look(t, n.host, c.options, pkitest.Now().Add(time.Second))
			if again.Contents != snapshot.Contents {
				t.Errorf("Contents of the same tree differ: %+v and %+v", snapshot.Layout, again.Layout)
			}
			if d := cmp.Diff(lines(snapshot.Findings), lines(again.Findings)); d != "" {
				t.Errorf("findings in the same tree differ (-first +second):\n%s", d)
			}
		})
	}
}

// TestScanDevice: a device as a file is never read, or this would not end.
func TestScanDevice(t *testing.T) {
	host, err := hostfs.New("/", check.MaxFileBytes)
	must(t, err)
	directory := t.TempDir()
	must(t, os.Symlink("/dev/zero", directory+"/tls.crt"))
	must(t, os.Symlink("/dev/tty", directory+"/tls.key"))
	want := []string{
		"NotRegularFile " + directory + "/tls.crt: it is a device, not a regular file",
		"NotRegularFile " + directory + "/tls.key: it is a device, not a regular file",
	}
	got := lines(look(t, host, scan.Options{Directory: directory, ClientCA: "/dev/zero"}, pkitest.Now()).Findings)
	if d := cmp.Diff(append(want, "ClientCAUnavailable /dev/zero: the kubelet's client CA is not to be had, so who issued the certificate was not checked: it is a device"), got); d != "" {
		t.Errorf("findings (-want +got):\n%s", d)
	}
}

type answers struct{ answer *check.KubeletAnswer }

func (a answers) Answer() *check.KubeletAnswer { return a.answer }

// TestScanKubelet: what the kubelet answered is measured by the files of the
// node, and is part of the contents.
func TestScanKubelet(t *testing.T) {
	ca, foreign := pkitest.NewCA("kube-apiserver-to-kubelet-signer"), pkitest.NewCA("foreign")
	n := newNode(t, openshift.Current, ca, ca.Issue(pkitest.KubeletClient()))
	request := pkitest.ServingCert().Valid(pkitest.Now().Add(-time.Hour), pkitest.Now().Add(time.Hour))
	serving, strange := ca.Issue(request), foreign.Issue(request)
	answer := func(change func(a *check.KubeletAnswer)) *check.KubeletAnswer {
		a := check.KubeletAnswer{
			At: "kubelet", Host: "api.openshift-apiserver.svc", Certificates: []*x509.Certificate{serving.Leaf},
			AsksClients: true, AcceptedCAs: [][]byte{ca.Certificate.RawSubject},
		}
		change(&a)
		return &a
	}
	scanned := func(kubelet scan.Kubelet) scan.Snapshot {
		return scan.Scan(n.host, kubelet, scan.Options{}, pkitest.Now())
	}
	cases := map[string]struct {
		answer *check.KubeletAnswer
		want   []string
	}{
		"good":               {answer: answer(func(*check.KubeletAnswer) {})},
		"of a foreign CA":    {answer(func(a *check.KubeletAnswer) { a.Certificates[0] = strange.Leaf }), []string{`KubeletCertificateUntrusted kubelet: the kube-apiserver does not trust the kubelet's certificate: it was issued by "foreign", which leads to no CA of /etc/kubernetes/static-pod-resources/kube-apiserver-pod-7/configmaps/kubelet-serving-ca/ca-bundle.crt`}},
		"accepts another CA": {answer(func(a *check.KubeletAnswer) { a.AcceptedCAs = [][]byte{foreign.Certificate.RawSubject} }), []string{`ClientCertificateNotAccepted kubelet: the kubelet does not accept certificates of "kube-apiserver-to-kubelet-signer", which issued the kube-apiserver's`}},
		"asks nobody":        {answer(func(a *check.KubeletAnswer) { a.AsksClients = false }), []string{"ClientCertificateNotAccepted kubelet: the kubelet asks its clients for no certificate, so the kube-apiserver's does not count"}},
		"away":               {&check.KubeletAnswer{At: "kubelet", Err: errBoom}, []string{"KubeletUnreachable kubelet: no TLS handshake with the kubelet came about: boom"}},
		"no TLS":             {&check.KubeletAnswer{At: "kubelet", Err: errBoom, NotTLS: true}, []string{"KubeletNotTLS kubelet: what answers there does not speak TLS"}},
		"read-only port":     {answer(func(a *check.KubeletAnswer) { a.ReadOnlyOpen, a.ReadOnlyAt = true, "port" }), []string{"ReadOnlyPortOpen port: the port takes connections: it is that of the kubelet's read-only server, which knows neither TLS nor authentication"}},
	}
	contents := map[[32]byte]string{scanned(nil).Contents: "none asked"}
	for name, c := range cases {
		s := scanned(answers{c.answer})
		if d := cmp.Diff(c.want, lines(s.Kubelet)); d != "" {
			t.Errorf("%s: findings (-want +got):\n%s", name, d)
		}
		if len(s.Findings) != 0 || s.Waiting || len(s.All()) != len(c.want) {
			t.Errorf("%s: findings of files: %v, waiting: %t, all: %v", name, s.Findings, s.Waiting, s.All())
		}
		if other, same := contents[s.Contents]; same {
			t.Errorf("%s: Contents are the same as of %q", name, other)
		}
		contents[s.Contents] = name
	}

	if s := scanned(answers{}); !s.Waiting || s.Kubelet != nil || s.Serving != nil {
		t.Errorf("no answer yet: waiting %t, findings %v", s.Waiting, s.Kubelet)
	}
	if s := scanned(nil); s.Waiting {
		t.Error("none asked: waiting")
	}
	if s := scanned(answers{answer(func(*check.KubeletAnswer) {})}); s.Serving != serving.Leaf || s.ServingAt != "kubelet" || !s.NextChange.Equal(serving.Leaf.NotAfter.Add(1)) {
		t.Errorf("serving certificate: %v at %q, next change %s", s.Serving, s.ServingAt, s.NextChange)
	}
	a, b := scanned(answers{&check.KubeletAnswer{Err: errBoom}}), scanned(answers{&check.KubeletAnswer{Err: io.EOF}})
	if a.Contents != b.Contents {
		t.Error("another text of the error is another content: the agent would ask on and on")
	}
}

// altered is a host one of whose files is not what it seems.
type altered struct {
	*hostfs.FS
	name  string
	alter func(file fs.File) fs.File
}

func (a altered) Open(name string) (fs.File, error) {
	file, err := a.FS.Open(name)
	if err != nil || name != a.name {
		return file, err
	}
	return a.alter(file), nil
}

type growing struct{ fs.File }

func (g growing) Stat() (fs.FileInfo, error) {
	info, err := g.File.Stat()
	return small{info}, err
}

// small is what a file was before it grew.
type small struct{ fs.FileInfo }

func (small) Size() int64 { return 10 }

type broken struct{ fs.File }

var errBoom = errors.New("boom")

func (broken) Read([]byte) (int, error) { return 0, errBoom }

type opaque struct{ fs.File }

func (opaque) Stat() (fs.FileInfo, error) { return nil, errBoom }

// TestScanAlteredFiles: files that change or fail while they are read.
func TestScanAlteredFiles(t *testing.T) {
	ca := pkitest.NewCA("kube-apiserver-to-kubelet-signer")
	good := ca.Issue(pkitest.KubeletClient())
	cases := map[string]struct {
		data  []byte
		alter func(file fs.File) fs.File
		want  []string
	}{
		"it grew":               {good.Certificate, func(f fs.File) fs.File { return growing{f} }, nil},
		"it grew over the edge": {bytes.Repeat([]byte("x"), 2<<20), func(f fs.File) fs.File { return growing{f} }, []string{"FileTooLarge " + certificate + ": it has 1048577 bytes, more than the 1048576 that a Secret can hold"}},
		"it cannot be read":     {good.Certificate, func(f fs.File) fs.File { return broken{f} }, []string{"Unreadable " + certificate + ": it cannot be read: boom"}},
		"large, is not read":    {bytes.Repeat([]byte("x"), 2<<20), func(f fs.File) fs.File { return broken{f} }, []string{"FileTooLarge " + certificate + ": it has 2097152 bytes, more than the 1048576 that a Secret can hold"}},
		"it cannot be seen":     {good.Certificate, func(f fs.File) fs.File { return opaque{f} }, []string{"Unreadable " + certificate + ": it cannot be read: boom"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, openshift.Current, ca, good)
			put(t, n.Certificate(), c.data)
			host := altered{n.host, strings.TrimPrefix(certificate, "/"), c.alter}
			if d := cmp.Diff(c.want, lines(look(t, host, scan.Options{}, pkitest.Now()).Findings)); d != "" {
				t.Errorf("findings (-want +got):\n%s", d)
			}
		})
	}
}

// notOwned is a host whose files belong to somebody else.
type notOwned struct{ *hostfs.FS }

func (notOwned) Owned(fs.FileInfo) bool { return false }

func TestScanForeignOwner(t *testing.T) {
	ca := pkitest.NewCA("kube-apiserver-to-kubelet-signer")
	n := newNode(t, openshift.Current, ca, ca.Issue(pkitest.KubeletClient()))
	own, foreign := look(t, n.host, scan.Options{}, pkitest.Now()), look(t, notOwned{n.host}, scan.Options{}, pkitest.Now())
	want := []string{"KeyFileExposed " + key + ": the private key's file does not belong to root"}
	if d := cmp.Diff(want, lines(foreign.Findings)); d != "" {
		t.Errorf("findings (-want +got):\n%s", d)
	}
	if own.Contents == foreign.Contents {
		t.Error("Contents are the same for another owner")
	}
}

// TestContents: any change of what was read shows, a change back hides it
// again, and neither the time nor the root's place is in it.
func TestContents(t *testing.T) {
	ca := pkitest.NewCA("kube-apiserver-to-kubelet-signer")
	good := ca.Issue(pkitest.KubeletClient())
	other := ca.Issue(pkitest.KubeletClient())
	n := newNode(t, openshift.Legacy, ca, good)
	clientCAAt := n.Root + clientCA
	before := look(t, n.host, scan.Options{}, pkitest.Now())

	rewrite := func(at string, change func(data []byte) []byte) func(t *testing.T) {
		return func(t *testing.T) {
			data, err := os.ReadFile(at)
			must(t, err)
			put(t, at, change(data))
		}
	}
	to := func(data []byte) func([]byte) []byte { return func([]byte) []byte { return data } }
	longer := func(data []byte) []byte { return append(data, '\n') }
	cases := map[string]struct {
		at     string
		change func(t *testing.T)
	}{
		"certificate":          {n.Certificate(), rewrite(n.Certificate(), to(other.Certificate))},
		"certificate, a byte":  {n.Certificate(), rewrite(n.Certificate(), longer)},
		"certificate gone":     {n.Certificate(), func(t *testing.T) { must(t, os.Remove(n.Certificate())) }},
		"key":                  {n.Key(), rewrite(n.Key(), to(other.Key))},
		"mode of key":          {n.Key(), func(t *testing.T) { must(t, os.Chmod(n.Key(), 0o640)) }},
		"mode of certificate":  {n.Certificate(), func(t *testing.T) { must(t, os.Chmod(n.Certificate(), 0o644)) }},
		"key a directory":      {n.Key(), func(t *testing.T) { must(t, os.Remove(n.Key())); must(t, os.Mkdir(n.Key(), 0o755)) }},
		"key a FIFO":           {n.Key(), func(t *testing.T) { must(t, os.Remove(n.Key())); must(t, unix.Mkfifo(n.Key(), 0o600)) }},
		"client CA":            {clientCAAt, rewrite(clientCAAt, to(pkitest.NewCA("another").PEM()))},
		"client CA gone":       {clientCAAt, func(t *testing.T) { must(t, os.Remove(clientCAAt)) }},
		"revision of manifest": {n.Manifest(), func(t *testing.T) { replace(t, n.Manifest(), `"revision":"7"`, `"revision":"8"`) }},
		"mount in manifest":    {n.Manifest(), func(t *testing.T) { replace(t, n.Manifest(), "kube-apiserver-pod-7", "kube-apiserver-pod-8") }},
		"manifest rubbish":     {n.Manifest(), rewrite(n.Manifest(), to([]byte("rubbish")))},
		"manifest gone":        {n.Manifest(), func(t *testing.T) { must(t, os.Remove(n.Manifest())) }},
		"configuration":        {n.Config(), func(t *testing.T) { replace(t, n.Config(), `"kubelet-https":["true"]`, `"kubelet-https":["false"]`) }},
		"configuration gone":   {n.Config(), func(t *testing.T) { must(t, os.Remove(n.Config())) }},
		"configuration empty":  {n.Config(), rewrite(n.Config(), to(nil))},
		"same size and time": {n.Certificate(), func(t *testing.T) {
			info, err := os.Stat(n.Certificate())
			must(t, err)
			rewrite(n.Certificate(), func(data []byte) []byte {
				data[len(data)/2] ^= 1
				return data
			})(t)
			must(t, os.Chtimes(n.Certificate(), info.ModTime(), info.ModTime()))
		}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			data, err := os.ReadFile(c.at)
			must(t, err)
			info, err := os.Stat(c.at)
			must(t, err)
			c.change(t)
			changed := look(t, n.host, scan.Options{}, pkitest.Now())
			if changed.Contents == before.Contents {
				t.Error("the change does not show")
			}
			must(t, os.RemoveAll(c.at))
			put(t, c.at, data)
			must(t, os.Chmod(c.at, info.Mode()))
			if back := look(t, n.host, scan.Options{}, pkitest.Now()); back.Contents != before.Contents {
				t.Error("the change back does not show")
			}
		})
	}

	t.Run("at another time", func(t *testing.T) {
		later := look(t, n.host, scan.Options{}, pkitest.Now().AddDate(0, 2, 0))
		if later.Contents != before.Contents {
			t.Error("Contents differ")
		}
		if len(later.Findings) == 0 {
			t.Error("nothing has expired, so that this proves nothing")
		}
	})
	t.Run("the same elsewhere", func(t *testing.T) {
		if twin := newNode(t, openshift.Legacy, ca, good); look(t, twin.host, scan.Options{}, pkitest.Now()).Contents != before.Contents {
			t.Error("Contents differ")
		}
	})
	t.Run("written anew", func(t *testing.T) {
		// A directory is swapped in with the content of before.
		must(t, openshift.SwapDirectory(n.Directory(), n.Staging(), map[string][]byte{"tls.crt": good.Certificate, "tls.key": good.Key}))
		if look(t, n.host, scan.Options{}, pkitest.Now()).Contents != before.Contents {
			t.Error("Contents differ")
		}
	})
	t.Run("a byte between two files", func(t *testing.T) {
		put(t, n.Certificate(), []byte("ab"))
		put(t, n.Key(), []byte("c"))
		one := look(t, n.host, scan.Options{}, pkitest.Now())
		put(t, n.Certificate(), []byte("a"))
		put(t, n.Key(), []byte("bc"))
		if look(t, n.host, scan.Options{}, pkitest.Now()).Contents == one.Contents {
			t.Error("Contents are the same")
		}
	})
}

// TestSound: which certificate was found, and whether its pair may be used.
func TestSound(t *testing.T) {
	ca := pkitest.NewCA("kube-apiserver-to-kubelet-signer")
	good := ca.Issue(pkitest.KubeletClient())
	expired := ca.Issue(pkitest.KubeletClient().Valid(pkitest.Now().Add(-48*time.Hour), pkitest.Now().Add(-24*time.Hour)))
	cases := map[string]struct {
		pair        pkitest.Pair
		change      func(t *testing.T, n node)
		leaf, sound bool
	}{
		"good":           {pair: good, leaf: true, sound: true},
		"with a Warning": {pair: good, change: func(t *testing.T, n node) { must(t, os.Chmod(n.Key(), 0o644)) }, leaf: true, sound: true},
		"beside a Violation": {pair: good, change: func(t *testing.T, n node) {
			replace(t, n.Config(), `"kubelet-https":["true"]`, `"kubelet-https":["false"]`)
		}, leaf: true, sound: true},
		"the CA is not to be had": {pair: good, change: func(t *testing.T, n node) { must(t, os.Remove(n.Root+clientCA)) }, leaf: true, sound: true},
		"expired":                 {pair: expired, leaf: true},
		"key of another pair":     {pair: good, change: func(t *testing.T, n node) { put(t, n.Key(), expired.Key) }, leaf: true},
		"key gone":                {pair: good, change: func(t *testing.T, n node) { must(t, os.Remove(n.Key())) }, leaf: true},
		"key a directory":         {pair: good, change: func(t *testing.T, n node) { must(t, os.Remove(n.Key())); must(t, os.Mkdir(n.Key(), 0o755)) }, leaf: true},
		"key unreadable":          {pair: good, change: func(t *testing.T, n node) { must(t, os.Remove(n.Key())); must(t, os.Symlink("tls.key", n.Key())) }, leaf: true},
		"key under no mount": {pair: good, change: func(t *testing.T, n node) {
			replace(t, n.Config(), resources+"/secrets/kubelet-client/tls.key", "/srv/tls.key")
		}, leaf: true},
		"key not configured":  {pair: good, change: func(t *testing.T, n node) { replace(t, n.Config(), "kubelet-client-key", "kubelet-client-kex") }, leaf: true},
		"certificate gone":    {pair: good, change: func(t *testing.T, n node) { must(t, os.Remove(n.Certificate())) }},
		"certificate garbage": {pair: good, change: func(t *testing.T, n node) { put(t, n.Certificate(), []byte("garbage")) }},
		"nothing is known":    {pair: good, change: func(t *testing.T, n node) { must(t, os.Remove(n.Manifest())) }},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, openshift.Legacy, ca, c.pair)
			if c.change != nil {
				c.change(t, n)
			}
			snapshot := look(t, n.host, scan.Options{}, pkitest.Now())
			if snapshot.Sound != c.sound {
				t.Errorf("Sound: got %v, want %v, with %q", snapshot.Sound, c.sound, lines(snapshot.Findings))
			}
			if (snapshot.Leaf != nil) != c.leaf || (c.leaf && !snapshot.Leaf.Equal(c.pair.Leaf)) {
				t.Errorf("Leaf: got %v", snapshot.Leaf)
			}
		})
	}
}

// TestNextChange: the moments named are exact, and nothing changes by the clock
// between one and the next.
func TestNextChange(t *testing.T) {
	now, day := pkitest.Now(), 24*time.Hour
	ca := pkitest.NewCA("kube-apiserver-to-kubelet-signer")
	// Its last certificate outlives it, which the kubelet does not accept.
	shortLived := pkitest.NewCAAround("signer of a day", now.AddDate(-5, 0, 1))
	hundredDays := pkitest.KubeletClient().Valid(now, now.Add(100*day))

	cases := map[string]struct {
		ca   *pkitest.CA
		want []string // moments after now and the reasons from then on
	}{
		"certificate": {ca, []string{
			"-24h0m0s [CertificateNotYetValid]", "0s []", "2040h0m0.000000001s [CertificateExpiringSoon]", "2400h0m0.000000001s [CertificateExpired]",
		}},
		"CA expires before it": {shortLived, []string{
			"-24h0m0s [CertificateNotYetValid]", "0s []", "24h0m0.000000001s [UntrustedIssuer]",
			"2040h0m0.000000001s [UntrustedIssuer CertificateExpiringSoon]", "2400h0m0.000000001s [CertificateExpired UntrustedIssuer]",
		}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, openshift.Current, c.ca, c.ca.Issue(hundredDays))
			reasons := func(snapshot scan.Snapshot) string {
				var all []finding.Reason
				for _, f := range snapshot.Findings {
					all = append(all, f.Reason)
				}
				return fmt.Sprint(all)
			}
			var got []string
			for at := now.Add(-day); !at.IsZero(); {
				snapshot := look(t, n.host, scan.Options{}, at)
				got = append(got, fmt.Sprint(at.Sub(now), " ", reasons(snapshot)))
				next := snapshot.NextChange
				if !next.IsZero() {
					if !next.After(at) {
						t.Fatalf("the next change after %s is at %s", at, next)
					}
					if before := look(t, n.host, scan.Options{}, next.Add(-time.Nanosecond)); reasons(before) != reasons(snapshot) {
						t.Errorf("at %s: %s, but just before %s, the next change named: %s", at, reasons(snapshot), next, reasons(before))
					}
				}
				at = next
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("moments and reasons (-want +got):\n%s", d)
			}
		})
	}

	t.Run("no certificate", func(t *testing.T) {
		n := newNode(t, openshift.Current, ca, ca.Issue(hundredDays))
		must(t, os.Remove(n.Certificate()))
		if next := look(t, n.host, scan.Options{}, now).NextChange; !next.IsZero() {
			t.Errorf("NextChange: got %s", next)
		}
	})
}
