// SPDX-License-Identifier: Apache-2.0

package scan_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/internal/staticpod"
	"github.com/kubelet-https-guard/kubelet-https-guard/nodeagent/internal/hostfs"
	"github.com/kubelet-https-guard/kubelet-https-guard/nodeagent/internal/scan"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/layout"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/messages"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/openshift"
)

// Paths of the platforms.
const (
	manifestDirectory      = layout.ManifestDirectory
	openShiftCA, kubeadmCA = layout.OpenShiftClientCA, layout.KubeadmClientCA

	openShiftManifest = manifestDirectory + "/kube-apiserver-pod.yaml"
	kubeadmManifest   = manifestDirectory + "/kube-apiserver.yaml"
)

// patience is longer than a scan takes on a busy machine.
const patience = 20 * time.Second

// node is a host without findings.
type node struct {
	openshift.Tree
	host *hostfs.FS
	ca   *pkitest.CA
	pair pkitest.Pair
}

func newNode(t *testing.T, layout openshift.Layout, ca *pkitest.CA, pair pkitest.Pair) node {
	t.Helper()
	tree, err := openshift.Write(t.TempDir(), layout,
		openshift.Files{Certificate: pair.Certificate, Key: pair.Key, ClientCA: ca.PEM()})
	if err != nil {
		t.Fatal(err)
	}
	host, err := hostfs.New(tree.Root, check.MaxFileBytes, hostfs.MountInfo)
	if err != nil {
		t.Fatal(err)
	}
	return node{tree, host, ca, pair}
}

// scanHost scans, and fails the test if the scan blocks.
func scanHost(t *testing.T, host scan.Host, options scan.Options, now time.Time) scan.Snapshot {
	t.Helper()
	options.ExpiringFraction = check.DefaultExpiringFraction
	result := make(chan scan.Snapshot, 1)
	go func() { result <- scan.Scan(scan.Sources{Host: host}, options, now) }()
	select {
	case snapshot := <-result:
		return snapshot
	case <-time.After(patience):
		t.Fatal("the scan does not end")
		return scan.Snapshot{}
	}
}

// lines returns the findings among results, each as "Reason subject".
func lines(results []finding.Result) []string {
	var lines []string
	for _, f := range finding.Findings(results) {
		lines = append(lines, fmt.Sprintf("%s %s", f.Reason, f.Subject))
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

// configure adds arguments, in JSON, to the configuration.
func (n node) configure(t *testing.T, arguments string) {
	t.Helper()
	const before = `"kubelet-read-only-port":["0"]`
	replace(t, n.Config(), before, arguments+","+before)
}

// admissionNames is an admission configuration that names a file for one of the plugins
// that the guard needs.
func admissionNames(path string) string {
	return fmt.Sprintf(
		`{"apiVersion":"apiserver.config.k8s.io/v1","kind":"AdmissionConfiguration","plugins":[{"name":"ValidatingAdmissionWebhook","path":%q}]}`,
		path,
	)
}

func argument(name, value string) string { return fmt.Sprintf("%q:[%q]", name, value) }

// Paths on a host of the current layout.
const (
	admission            = resources + "/kube-apiserver-certs/admission.yaml"
	admissionInContainer = "/etc/kubernetes/static-pod-certs/admission.yaml"
	plugin               = resources + "/kube-apiserver-certs/plugin.yaml" // in the same directory

	resources   = "/etc/kubernetes/static-pod-resources"
	directory   = resources + "/kube-apiserver-certs/secrets/kubelet-client"
	certificate = directory + "/tls.crt"
	key         = directory + "/tls.key"
	config      = resources + "/kube-apiserver-pod-7/configmaps/config/config.yaml"
	clientCA    = openShiftCA
	noCA        = "ClientCAUnavailable " + clientCA
)

// TestScan scans hosts in all states.
func TestScan(t *testing.T) {
	page := messages.Record(t, "findings of the scan")
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
	// instead replaces a file.
	instead := func(path func(n node) string, what func(at string) error) func(*testing.T, node) {
		return func(t *testing.T, n node) {
			must(t, os.Remove(path(n)))
			must(t, what(path(n)))
		}
	}
	asDirectory := func(at string) error { return os.Mkdir(at, 0o755) }
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
		noManifest = "ManifestMissing " + manifestDirectory
		noKubelet  = "KubeletCANotConfigured " + kubeadmManifest + " kubelet-certificate-authority"
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
			_, err := openshift.Write(n.Root, openshift.Legacy,
				openshift.Files{Certificate: expired.Certificate, Key: strange.Key, ClientCA: ca.PEM(), Revision: 6})
			must(t, err)
			_, err = openshift.Write(n.Root, openshift.Legacy,
				openshift.Files{Certificate: good.Certificate, Key: good.Key, ClientCA: ca.PEM()})
			must(t, err)
		}},

		"pair gone":                 {change: remove(func(n node) string { return n.Directory() }), want: []string{"CertificateMissing " + certificate, "KeyMissing " + key}},
		"pair gone, kubeadm":        {layout: openshift.Kubeadm, change: func(t *testing.T, n node) { must(t, os.Remove(n.Certificate())); must(t, os.Remove(n.Key())) }, want: []string{"CertificateMissing /etc/kubernetes/pki/apiserver-kubelet-client.crt", "KeyMissing /etc/kubernetes/pki/apiserver-kubelet-client.key", noKubelet}},
		"certificate gone":          {change: remove(certificateAt), want: []string{"CertificateMissing " + certificate}},
		"key gone":                  {change: remove(keyAt), want: []string{"KeyMissing " + key}},
		"a file in the path":        {change: func(t *testing.T, n node) { must(t, os.RemoveAll(n.Directory())); put(t, n.Directory(), nil) }, want: []string{"CertificateMissing " + certificate, "KeyMissing " + key}},
		"certificate empty":         {change: write(certificateAt, nil), want: []string{"CertificateMissing " + certificate}},
		"key after the certificate": {change: write(certificateAt, good.ChainWith(good.Key)), want: []string{"KeyInCertificateFile " + certificate}},
		"CA before the certificate": {
			change: write(certificateAt, slices.Concat(ca.PEM(), good.Certificate)),
			want: []string{
				"KeyMismatch " + key,
				"UnexpectedIdentity " + certificate,
			},
		},
		"certificate garbage":      {change: write(certificateAt, []byte("garbage")), want: []string{"CertificateUnparsable " + certificate}},
		"key garbage":              {change: write(keyAt, []byte("garbage")), want: []string{"KeyUnparsable " + key}},
		"key of another pair":      {change: write(keyAt, other.Key), want: []string{"KeyMismatch " + key}},
		"expired":                  {pair: &expired, want: []string{"CertificateExpired " + certificate}},
		"issued by a foreign CA":   {pair: &strange, want: []string{"UntrustedIssuer " + certificate}},
		"key readable by all":      {change: func(t *testing.T, n node) { must(t, os.Chmod(n.Key(), 0o644)) }, want: []string{"KeyFileExposed " + key}},
		"directory as certificate": {change: instead(certificateAt, asDirectory), want: []string{"NotRegularFile " + certificate}},
		"directory as key":         {change: instead(keyAt, asDirectory), want: []string{"NotRegularFile " + key}},
		"FIFO as certificate":      {change: instead(certificateAt, fifo), want: []string{"NotRegularFile " + certificate}},
		"FIFO as key":              {change: instead(keyAt, fifo), want: []string{"NotRegularFile " + key}},
		"socket as key":            {change: instead(keyAt, socket), want: []string{"NotRegularFile " + key}},
		"dangling link as key":     {change: instead(keyAt, func(at string) error { return os.Symlink("/none", at) }), want: []string{"KeyMissing " + key}},
		"2 MiB of certificate":     {change: write(certificateAt, large), want: []string{"FileTooLarge " + certificate}},
		"2 MiB of key":             {change: write(keyAt, large), want: []string{"FileTooLarge " + key}},
		"link to itself":           {change: instead(certificateAt, loop), want: []string{"Unreadable " + certificate}},

		"10,000 blocks before the certificate": {change: func(t *testing.T, n node) {
			put(t, n.Certificate(),
				append(bytes.Repeat([]byte("-----BEGIN X-----\nAAAA\n-----END X-----\n"), 10_000), good.Certificate...))
		}},
		"10,000 certificates": {change: func(t *testing.T, n node) {
			put(
				t,
				n.Certificate(),
				append(
					bytes.Clone(good.Certificate),
					bytes.Repeat([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), 10_000)...),
			)
		}, want: []string{"ChainUnparsable " + certificate, "ChainDoubtful " + certificate}},
		"a chain of 50": {change: write(certificateAt, bytes.Repeat(good.Certificate, 50)), want: []string{
			"ChainDoubtful " + certificate,
		}},
		"link out of the root": {change: func(t *testing.T, n node) {
			outside := t.TempDir() + "/tls.key"
			put(t, outside, good.Key)
			must(t, os.Remove(n.Key()))
			must(t, os.Symlink(strings.Repeat("../", 30)+outside, n.Key()))
		}, want: []string{"KeyMissing " + key}},

		"client CA gone, kubeadm": {layout: openshift.Kubeadm, change: func(t *testing.T, n node) {
			must(t, os.Chmod(n.Key(), 0o644))
			must(t, os.Remove(n.Root+"/etc/kubernetes/pki/ca.crt"))
		}, want: []string{
			"ClientCAUnavailable /etc/kubernetes/pki/ca.crt",
			"KeyFileExposed /etc/kubernetes/pki/apiserver-kubelet-client.key",
			noKubelet,
		}},
		"client CA gone":     {change: remove(clientCAAt), want: []string{noCA}},
		"client CA garbage":  {change: write(clientCAAt, []byte("garbage")), want: []string{noCA}},
		"client CA a FIFO":   {change: instead(clientCAAt, fifo), want: []string{noCA}},
		"client CA of 2 MiB": {change: write(clientCAAt, large), want: []string{noCA}},

		"configuration gone": {change: remove(configAt), want: []string{"ConfigMissing " + config}},
		"its revision gone":  {change: remove(func(n node) string { return filepath.Dir(filepath.Dir(filepath.Dir(n.Config()))) }), want: []string{"ConfigMissing " + config}},
		"configuration empty": {change: write(configAt, nil), want: []string{
			"ConfigUnparsable " + config,
		}},
		"configuration a FIFO": {change: instead(configAt, fifo), want: []string{
			"ConfigUnparsable " + config,
		}},
		"configuration of 2 MiB": {change: write(configAt, large), want: []string{
			"ConfigUnparsable " + config,
		}},
		"nothing configured": {change: write(configAt, []byte(`{"kind":"KubeAPIServerConfig"}`)), want: []string{
			"ClientCertificateNotConfigured " + config + " kubelet-client-certificate",
			"ClientKeyNotConfigured " + config + " kubelet-client-key",
			"KubeletCANotConfigured " + config + " kubelet-certificate-authority",
		}},
		"HTTPS disabled": {layout: openshift.Legacy, change: func(t *testing.T, n node) {
			replace(t, n.Config(), `"kubelet-https":["true"]`, `"kubelet-https":["false"]`)
		}, want: []string{`KubeletHTTPSDisabled ` + config + " kubelet-https"}},
		"several findings, the worst first": {layout: openshift.Kubeadm, change: func(t *testing.T, n node) {
			must(t, os.Chmod(n.Key(), 0o644))
			must(t, os.Remove(n.Root+"/etc/kubernetes/pki/ca.crt"))
			replace(t, n.Manifest(), "--kubelet-client-certificate=/etc/kubernetes/pki/apiserver-kubelet-client.crt",
				"--kubelet-https=false")
		}, want: []string{
			"ClientCertificateNotConfigured " + kubeadmManifest + " kubelet-client-certificate",
			`KubeletHTTPSDisabled ` + kubeadmManifest + " kubelet-https",
			"ClientCAUnavailable /etc/kubernetes/pki/ca.crt",
			"KeyFileExposed /etc/kubernetes/pki/apiserver-kubelet-client.key",
			noKubelet,
		}},
		"admission plugin disabled": {change: func(t *testing.T, n node) {
			n.configure(t, argument("disable-admission-plugins", "ValidatingAdmissionWebhook"))
		}, want: []string{
			"AdmissionDisabled " + config + " disable-admission-plugins ValidatingAdmissionWebhook",
		}},
		"configuration of admission": {change: func(t *testing.T, n node) {
			n.configure(t, argument("admission-control-config-file", admissionInContainer))
			put(t, n.Root+admission, []byte(`{"apiVersion":"apiserver.config.k8s.io/v1","kind":"AdmissionConfiguration"}`))
		}},
		"a plugin's own file": {change: func(t *testing.T, n node) {
			n.configure(t, argument("admission-control-config-file", admissionInContainer))
			put(t, n.Root+admission, []byte(admissionNames("plugin.yaml")))
			put(t, n.Root+plugin, []byte(`{"apiVersion":"apiserver.config.k8s.io/v1","kind":"WebhookAdmissionConfiguration"}`))
		}},
		"a plugin's own file garbage": {change: func(t *testing.T, n node) {
			n.configure(t, argument("admission-control-config-file", admissionInContainer))
			put(t, n.Root+admission, []byte(admissionNames("plugin.yaml")))
			put(t, n.Root+plugin, []byte(`{"kind":"Other"}`))
		}, want: []string{"AdmissionDisabled " + plugin}},
		"a plugin's own file gone": {change: func(t *testing.T, n node) {
			n.configure(t, argument("admission-control-config-file", admissionInContainer))
			put(t, n.Root+admission, []byte(admissionNames("/etc/kubernetes/static-pod-certs/plugin.yaml")))
		}, want: []string{"Unreadable " + plugin}},
		"configuration of admission garbage": {change: func(t *testing.T, n node) {
			n.configure(t, argument("admission-control-config-file", admissionInContainer))
			put(t, n.Root+admission, []byte("garbage"))
		}, want: []string{"AdmissionDisabled " + admission}},
		"certificate that is not mounted": {change: func(t *testing.T, n node) {
			replace(t, n.Config(), "/etc/kubernetes/static-pod-certs/secrets/kubelet-client/tls.crt", "/srv/tls.crt")
		}, want: []string{"Unreadable /srv/tls.crt"}},

		"manifest gone":          {change: remove(manifestAt), want: []string{noManifest}},
		"manifest gone, kubeadm": {layout: openshift.Kubeadm, change: remove(manifestAt), want: []string{noManifest}},
		"manifest of another pod": {change: write(manifestAt, []byte(`{"kind":"Pod"}`)), want: []string{
			"ManifestUnparsable " + openShiftManifest,
		}},
		"manifest of two": {change: func(t *testing.T, n node) {
			replace(t, n.Manifest(), `"name":"kube-apiserver-cert-syncer"`, `"name":"kube-apiserver"`)
		}, want: []string{
			"ManifestUnparsable " + openShiftManifest,
		}},
		"manifest with nested aliases": {
			change: write(manifestAt, []byte("a: &a [x, x]\nb: &b [*a, *a]\nkind: Pod\n")),
			want: []string{
				"Unreadable " + openShiftManifest,
			},
		},
		"manifest a FIFO": {change: instead(manifestAt, fifo), want: []string{
			"ManifestMissing " + manifestDirectory,
		}},
		"manifest of 2 MiB": {change: write(manifestAt, large), want: []string{
			"Unreadable " + openShiftManifest,
		}},
		"manifest gone, directory of the CIS text":            {change: cisPair(good), want: []string{noManifest}},
		"manifest gone, strange pair at that of the CIS text": {change: cisPair(strange), want: []string{"UntrustedIssuer " + staticpod.CISDirectory + "/tls.crt", noManifest}},

		"directory from a flag, manifest gone":  {options: scan.Options{Directory: directory}, change: remove(manifestAt)},
		"directory from a flag, kubeadm":        {layout: openshift.Kubeadm, options: scan.Options{Directory: "/etc/kubernetes/pki"}, change: remove(manifestAt)},
		"directory from a flag, does not exist": {options: scan.Options{Directory: "/none"}, want: []string{"CertificateMissing /none", "KeyMissing /none"}},
		"directory from a flag, no CA": {
			pair:    &strange,
			options: scan.Options{Directory: "/srv/kubelet-client"},
			change: func(t *testing.T, n node) { // no mark of a layout is left
				must(t, os.MkdirAll(filepath.Join(n.Root, "srv"), 0o700))
				must(t, os.Rename(n.Directory(), filepath.Join(n.Root, "srv/kubelet-client")))
				must(t, os.RemoveAll(filepath.Join(n.Root, "etc/kubernetes/static-pod-resources")))
				must(t, os.Remove(n.Root+clientCA))
				hideKubelet(t, n)
			},
			want: []string{
				"ClientCAUnavailable File kubelet client CA bundle",
			},
		},
		"CA from a flag": {
			pair:    &strange,
			options: scan.Options{ClientCA: "/srv/ca.crt"},
			change: func(t *testing.T, n node) {
				put(t, n.Root+"/srv/ca.crt", foreign.PEM())
			},
		},
		"CA from a flag, does not exist": {options: scan.Options{ClientCA: "/srv/ca.crt"}, want: []string{
			"ClientCAUnavailable /srv/ca.crt",
		}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if c.layout == "" {
				c.layout = openshift.Current
			}
			if c.pair == nil {
				c.pair = &good
				if c.layout == openshift.Kubeadm {
					c.pair = new(ca.Issue(c.layout.ClientRequest()))
				}
			}
			n := newNode(t, c.layout, ca, *c.pair)
			if c.change != nil {
				c.change(t, n)
			}
			snapshot := scanHost(t, n.host, c.options, pkitest.Now())
			page.Unobserved(snapshot.FileResults)
			if d := cmp.Diff(c.want, lines(snapshot.FileResults)); d != "" {
				t.Errorf("findings (-want +got):\n%s", d)
			}
			if !snapshot.At.Equal(pkitest.Now()) {
				t.Errorf("At: got %s", snapshot.At)
			}
			again := scanHost(t, n.host, c.options, pkitest.Now().Add(time.Second))
			if again.Contents != snapshot.Contents {
				t.Errorf("Contents of the same tree differ: %+v and %+v", snapshot.Found, again.Found)
			}
			if d := cmp.Diff(lines(snapshot.FileResults), lines(again.FileResults)); d != "" {
				t.Errorf("findings in the same tree differ (-first +second):\n%s", d)
			}
		})
	}
}

// TestScanDevice: a device in place of a file is never read. Otherwise this test would not
// end.
func TestScanDevice(t *testing.T) {
	host, err := hostfs.New("/", check.MaxFileBytes, hostfs.MountInfo)
	must(t, err)
	directory := t.TempDir()
	must(t, os.Symlink("/dev/zero", directory+"/tls.crt"))
	must(t, os.Symlink("/dev/tty", directory+"/tls.key"))
	want := []string{
		"NotRegularFile " + directory + "/tls.crt",
		"NotRegularFile " + directory + "/tls.key",
		"ClientCAUnavailable /dev/zero",
	}
	got := lines(scanHost(t, host, scan.Options{Directory: directory, ClientCA: "/dev/zero"}, pkitest.Now()).FileResults)
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("findings (-want +got):\n%s", d)
	}
}

// connections has a kube-apiserver's answer about its connection.
type connections struct{ answer *check.ConnectionAnswer }

func (c connections) Answer() *check.ConnectionAnswer { return c.answer }

type answers struct{ answer *check.KubeletAnswer }

func (a answers) Answer() *check.KubeletAnswer { return a.answer }

// TestScanKubelet: the kubelet's answer is checked against the files of the node, and is
// part of the contents.
func TestScanKubelet(t *testing.T) {
	ca, foreign := pkitest.NewCA("kube-apiserver-to-kubelet-signer"), pkitest.NewCA("foreign")
	n := newNode(t, openshift.Current, ca, ca.Issue(pkitest.KubeletClient()))
	request := pkitest.ServingCert().Valid(pkitest.Now().Add(-time.Hour), pkitest.Now().Add(time.Hour))
	serving, strange := ca.Issue(request), foreign.Issue(request)
	at := finding.Subject{Kind: finding.KindKubelet, Name: "192.0.2.7:10250"}
	port := finding.Subject{Kind: finding.KindKubelet, Name: "192.0.2.7:10255"}
	answer := func(change func(a *check.KubeletAnswer)) *check.KubeletAnswer {
		a := check.KubeletAnswer{
			At: at, Host: "api.openshift-apiserver.svc", Certificates: []*x509.Certificate{serving.Leaf},
			RequestsClientCertificate: true, AcceptedCAs: [][]byte{ca.Certificate.RawSubject},
		}
		change(&a)
		return &a
	}
	scanned := func(kubelet scan.Kubelet) scan.Snapshot {
		return scan.Scan(scan.Sources{Host: n.host, Kubelet: kubelet}, scan.Options{}, pkitest.Now())
	}
	cases := map[string]struct {
		answer *check.KubeletAnswer
		want   []string
	}{
		"good":               {answer: answer(func(*check.KubeletAnswer) {})},
		"of a foreign CA":    {answer(func(a *check.KubeletAnswer) { a.Certificates[0] = strange.Leaf }), []string{"KubeletCertificateUntrusted Kubelet 192.0.2.7:10250"}},
		"accepts another CA": {answer(func(a *check.KubeletAnswer) { a.AcceptedCAs = [][]byte{foreign.Certificate.RawSubject} }), []string{"ClientAcceptanceUnknown Kubelet 192.0.2.7:10250"}},
		"asks nobody":        {answer(func(a *check.KubeletAnswer) { a.RequestsClientCertificate = false }), []string{"ClientCertificateNotAccepted Kubelet 192.0.2.7:10250"}},
		"away":               {&check.KubeletAnswer{At: at, Err: errBoom}, []string{"KubeletUnreachable Kubelet 192.0.2.7:10250"}},
		"no TLS":             {&check.KubeletAnswer{At: at, Err: errBoom, NotTLS: true}, []string{"KubeletNotTLS Kubelet 192.0.2.7:10250"}},
		"no certificate yet": {&check.KubeletAnswer{At: at, Err: errBoom, Alert: new(tls.AlertError(80))}, []string{"KubeletHasNoCertificate Kubelet 192.0.2.7:10250"}},
		"refuses":            {&check.KubeletAnswer{At: at, Err: errBoom, Alert: new(tls.AlertError(40))}, []string{"KubeletRefusesHandshake Kubelet 192.0.2.7:10250"}},
		"read-only port":     {answer(func(a *check.KubeletAnswer) { a.ReadOnlyOpen, a.ReadOnlyAt = true, port }), []string{"ReadOnlyPortOpen Kubelet 192.0.2.7:10255"}},
	}
	contents := map[[32]byte]string{scanned(nil).Contents: "none asked"}
	for name, c := range cases {
		s := scanned(answers{c.answer})
		if d := cmp.Diff(c.want, lines(s.KubeletResults)); d != "" {
			t.Errorf("%s: findings (-want +got):\n%s", name, d)
		}
		if got := lines(s.FileResults); got != nil {
			t.Errorf("%s: findings of files: %q", name, got)
		}
		if d := cmp.Diff(c.want, lines(s.Results())); d != "" {
			t.Errorf("%s: all findings (-want +got):\n%s", name, d)
		}
		if other, same := contents[s.Contents]; same {
			t.Errorf("%s: Contents are the same as of %q", name, other)
		}
		contents[s.Contents] = name
	}

	for name, c := range map[string]struct {
		kubelet scan.Kubelet
		want    finding.Reason
	}{"no answer yet": {answers{}, finding.NotObserved}, "none asked": {nil, finding.NotChecked}} {
		s := scanned(c.kubelet)
		for _, r := range s.KubeletResults {
			if r.Outcome != finding.Unknown || r.Reason != c.want {
				t.Errorf("%s: got %+v, want unknown because of %s", name, r, c.want)
			}
		}
		if len(s.KubeletResults) != 4 || s.Serving != nil {
			t.Errorf("%s: got %d results and the certificate %v", name, len(s.KubeletResults), s.Serving)
		}
	}
	if s := scanned(answers{answer(func(*check.KubeletAnswer) {})}); s.Serving != serving.Leaf || s.ServingAt != at ||
		!s.NextChange.Equal(serving.Leaf.NotAfter.Add(1)) {
		t.Errorf("serving certificate: %v at %q, next change %s", s.Serving, s.ServingAt, s.NextChange)
	}
	a, b := scanned(answers{&check.KubeletAnswer{Err: errBoom}}), scanned(answers{&check.KubeletAnswer{Err: io.EOF}})
	if a.Contents != b.Contents {
		t.Error("another error text changes the contents: the agent would probe again and again")
	}
}

// altered is a host where one file differs from its info.
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

// small is the info of a file before it grew.
type small struct{ fs.FileInfo }

func (small) Size() int64 { return 10 }

type broken struct{ fs.File }

var errBoom = errors.New("boom")

func (broken) Read([]byte) (int, error) { return 0, errBoom }

type opaque struct{ fs.File }

func (opaque) Stat() (fs.FileInfo, error) { return nil, errBoom }

// TestScanAlteredFiles scans files that change, or cannot be read completely.
func TestScanAlteredFiles(t *testing.T) {
	page := messages.Record(t, "findings of the scan of files that change")
	ca := pkitest.NewCA("kube-apiserver-to-kubelet-signer")
	good := ca.Issue(pkitest.KubeletClient())
	cases := map[string]struct {
		data  []byte
		alter func(file fs.File) fs.File
		want  []string
	}{
		"it grew":               {good.Certificate, func(f fs.File) fs.File { return growing{f} }, nil},
		"it grew over the edge": {bytes.Repeat([]byte("x"), 2<<20), func(f fs.File) fs.File { return growing{f} }, []string{"FileTooLarge " + certificate}},
		"it cannot be read":     {good.Certificate, func(f fs.File) fs.File { return broken{f} }, []string{"Unreadable " + certificate}},
		"large, is not read":    {bytes.Repeat([]byte("x"), 2<<20), func(f fs.File) fs.File { return broken{f} }, []string{"FileTooLarge " + certificate}},
		"it cannot be seen":     {good.Certificate, func(f fs.File) fs.File { return opaque{f} }, []string{"Unreadable " + certificate}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, openshift.Current, ca, good)
			put(t, n.Certificate(), c.data)
			host := altered{n.host, strings.TrimPrefix(certificate, "/"), c.alter}
			results := scanHost(t, host, scan.Options{}, pkitest.Now()).FileResults
			for _, f := range finding.Findings(results) {
				page.Finding(f)
			}
			if d := cmp.Diff(c.want, lines(results)); d != "" {
				t.Errorf("findings (-want +got):\n%s", d)
			}
		})
	}
}

// notOwned is a host whose files do not belong to root.
type notOwned struct{ *hostfs.FS }

func (notOwned) Owned(fs.FileInfo) bool { return false }

func TestScanForeignOwner(t *testing.T) {
	ca := pkitest.NewCA("kube-apiserver-to-kubelet-signer")
	n := newNode(t, openshift.Current, ca, ca.Issue(pkitest.KubeletClient()))
	own, foreign := scanHost(t, n.host, scan.Options{}, pkitest.Now()), scanHost(t, notOwned{n.host}, scan.Options{},
		pkitest.Now())
	want := []string{"KeyFileExposed " + key}
	if d := cmp.Diff(want, lines(foreign.FileResults)); d != "" {
		t.Errorf("findings (-want +got):\n%s", d)
	}
	if own.Contents == foreign.Contents {
		t.Error("Contents are the same for another owner")
	}
}

// TestContents: any change of a file changes Contents, and the change back restores it.
// Neither the time nor the path of the root is part of it.
func TestContents(t *testing.T) {
	ca := pkitest.NewCA("kube-apiserver-to-kubelet-signer")
	good := ca.Issue(pkitest.KubeletClient())
	other := ca.Issue(pkitest.KubeletClient())
	lay := func(t *testing.T) node {
		n := newNode(t, openshift.Legacy, ca, good)
		n.configure(t, argument("admission-control-config-file", admissionInContainer))
		put(t, n.Root+admission, []byte(admissionNames("plugin.yaml")))
		put(t, n.Root+plugin, []byte("{}"))
		return n
	}
	n := lay(t)
	clientCAAt, admissionAt, pluginAt := n.Root+clientCA, n.Root+admission, n.Root+plugin
	before := scanHost(t, n.host, scan.Options{}, pkitest.Now())

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
		"certificate":                {n.Certificate(), rewrite(n.Certificate(), to(other.Certificate))},
		"certificate, a byte":        {n.Certificate(), rewrite(n.Certificate(), longer)},
		"certificate gone":           {n.Certificate(), func(t *testing.T) { must(t, os.Remove(n.Certificate())) }},
		"key":                        {n.Key(), rewrite(n.Key(), to(other.Key))},
		"mode of key":                {n.Key(), func(t *testing.T) { must(t, os.Chmod(n.Key(), 0o640)) }},
		"mode of certificate":        {n.Certificate(), func(t *testing.T) { must(t, os.Chmod(n.Certificate(), 0o644)) }},
		"key a directory":            {n.Key(), func(t *testing.T) { must(t, os.Remove(n.Key())); must(t, os.Mkdir(n.Key(), 0o755)) }},
		"key a FIFO":                 {n.Key(), func(t *testing.T) { must(t, os.Remove(n.Key())); must(t, unix.Mkfifo(n.Key(), 0o600)) }},
		"client CA":                  {clientCAAt, rewrite(clientCAAt, to(pkitest.NewCA("another").PEM()))},
		"client CA gone":             {clientCAAt, func(t *testing.T) { must(t, os.Remove(clientCAAt)) }},
		"revision of manifest":       {n.Manifest(), func(t *testing.T) { replace(t, n.Manifest(), `"revision":"7"`, `"revision":"8"`) }},
		"mount in manifest":          {n.Manifest(), func(t *testing.T) { replace(t, n.Manifest(), "kube-apiserver-pod-7", "kube-apiserver-pod-8") }},
		"manifest rubbish":           {n.Manifest(), rewrite(n.Manifest(), to([]byte("rubbish")))},
		"manifest gone":              {n.Manifest(), func(t *testing.T) { must(t, os.Remove(n.Manifest())) }},
		"configuration of admission": {admissionAt, rewrite(admissionAt, longer)},
		"configuration of a plugin":  {pluginAt, rewrite(pluginAt, longer)},
		"configuration":              {n.Config(), func(t *testing.T) { replace(t, n.Config(), `"kubelet-https":["true"]`, `"kubelet-https":["false"]`) }},
		"configuration gone":         {n.Config(), func(t *testing.T) { must(t, os.Remove(n.Config())) }},
		"configuration empty":        {n.Config(), rewrite(n.Config(), to(nil))},
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
			changed := scanHost(t, n.host, scan.Options{}, pkitest.Now())
			if changed.Contents == before.Contents {
				t.Error("Contents did not change")
			}
			wants := slices.Contains([]string{n.Certificate(), n.Key(), clientCAAt}, c.at)
			if wants && changed.ConnectionFiles == before.ConnectionFiles {
				t.Error("ConnectionFiles did not change")
			}
			if slices.Contains([]string{admissionAt, pluginAt}, c.at) && changed.ConnectionFiles != before.ConnectionFiles {
				t.Error("ConnectionFiles changed")
			}
			must(t, os.RemoveAll(c.at))
			put(t, c.at, data)
			must(t, os.Chmod(c.at, info.Mode()))
			if back := scanHost(t, n.host, scan.Options{}, pkitest.Now()); back.Contents != before.Contents {
				t.Error("Contents are not the same after the change back")
			}
		})
	}

	t.Run("at another time", func(t *testing.T) {
		later := scanHost(t, n.host, scan.Options{}, pkitest.Now().AddDate(0, 2, 0))
		if later.Contents != before.Contents {
			t.Error("Contents differ")
		}
		if len(lines(later.FileResults)) == 0 {
			t.Error("nothing has expired, so this test proves nothing")
		}
	})
	t.Run("the same files below another root", func(t *testing.T) {
		if twin := lay(t); scanHost(t, twin.host, scan.Options{}, pkitest.Now()).Contents != before.Contents {
			t.Error("Contents differ")
		}
	})
	t.Run("same content written again", func(t *testing.T) {
		// The new directory has the same content.
		must(
			t,
			openshift.SwapDirectory(n.Directory(), n.Staging(),
				map[string][]byte{"tls.crt": good.Certificate, "tls.key": good.Key}),
		)
		if scanHost(t, n.host, scan.Options{}, pkitest.Now()).Contents != before.Contents {
			t.Error("Contents differ")
		}
	})
	t.Run("a byte moved from one file to the next", func(t *testing.T) {
		put(t, n.Certificate(), []byte("ab"))
		put(t, n.Key(), []byte("c"))
		one := scanHost(t, n.host, scan.Options{}, pkitest.Now())
		put(t, n.Certificate(), []byte("a"))
		put(t, n.Key(), []byte("bc"))
		if scanHost(t, n.host, scan.Options{}, pkitest.Now()).Contents == one.Contents {
			t.Error("Contents are the same")
		}
	})
}

// TestSound: which certificate was found, and whether its pair is valid.
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
		"the CA is not available": {pair: good, change: func(t *testing.T, n node) { must(t, os.Remove(n.Root+clientCA)) }, leaf: true, sound: true},
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
			snapshot := scanHost(t, n.host, scan.Options{}, pkitest.Now())
			if snapshot.Valid != c.sound {
				t.Errorf("Valid: got %v, want %v, with %q", snapshot.Valid, c.sound, lines(snapshot.FileResults))
			}
			if (snapshot.Leaf != nil) != c.leaf || (c.leaf && !snapshot.Leaf.Equal(c.pair.Leaf)) {
				t.Errorf("Leaf: got %v", snapshot.Leaf)
			}
		})
	}
}

// TestNextChange: NextChange is exact, and no result changes by time alone before it.
func TestNextChange(t *testing.T) {
	now, day := pkitest.Now(), 24*time.Hour
	ca := pkitest.NewCA("kube-apiserver-to-kubelet-signer")
	// The certificate is valid for longer than its CA, after which the kubelet rejects it.
	shortLived := pkitest.NewCAAround("signer of a day", now.AddDate(-5, 0, 1))
	hundredDays := pkitest.KubeletClient().Valid(now, now.Add(100*day))

	cases := map[string]struct {
		ca   *pkitest.CA
		want []string // moments after now and the reasons from then on
	}{
		"certificate": {ca, []string{
			"-24h0m0s [CertificateNotYetValid]", "0s []", "2040h0m0.000000001s [CertificateExpiringSoon]",
			"2400h0m0.000000001s [CertificateExpired]",
		}},
		"CA expires before it": {shortLived, []string{
			"-24h0m0s [CertificateNotYetValid]", "0s []", "24h0m0.000000001s [UntrustedIssuer]",
			"2040h0m0.000000001s [UntrustedIssuer CertificateExpiringSoon]", "2400h0m0.000000001s [CertificateExpired " +
				"UntrustedIssuer]",
		}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, openshift.Current, c.ca, c.ca.Issue(hundredDays))
			reasons := func(snapshot scan.Snapshot) string {
				var all []finding.Reason
				for _, f := range finding.Findings(snapshot.FileResults) {
					all = append(all, f.Reason)
				}
				return fmt.Sprint(all)
			}
			var got []string
			for at := now.Add(-day); !at.IsZero(); {
				snapshot := scanHost(t, n.host, scan.Options{}, at)
				got = append(got, fmt.Sprint(at.Sub(now), " ", reasons(snapshot)))
				next := snapshot.NextChange
				if !next.IsZero() {
					if !next.After(at) {
						t.Fatalf("the next change after %s is at %s", at, next)
					}
					if before := scanHost(t, n.host, scan.Options{}, next.Add(-time.Nanosecond)); reasons(before) != reasons(
						snapshot,
					) {
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
		if next := scanHost(t, n.host, scan.Options{}, now).NextChange; !next.IsZero() {
			t.Errorf("NextChange: got %s", next)
		}
	})
}

// hideKubelet removes the kubelet's configuration, so that it is not known.
func hideKubelet(t *testing.T, n node) {
	t.Helper()
	for _, at := range []string{n.KubeletFile(), "/etc/systemd", "/usr/lib/systemd"} {
		must(t, os.RemoveAll(n.Root+at))
	}
}
