// SPDX-License-Identifier: Apache-2.0

package scan_test

import (
	"crypto/x509"
	"io/fs"
	"net"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/internal/staticpod"
	"github.com/kubelet-https-guard/kubelet-https-guard/nodeagent/internal/hostfs"
	"github.com/kubelet-https-guard/kubelet-https-guard/nodeagent/internal/scan"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/control"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/messages"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/openshift"
)

// reasons returns the findings among results as text.
func reasons(results []finding.Result) []string {
	var all []string
	for _, f := range finding.Findings(results) {
		all = append(all, f.Outcome.String()+" "+string(f.Reason)+" @ "+f.Subject.String())
	}
	return all
}

func verdict(results []finding.Result) control.Status {
	return control.ByID(control.UseHTTPS).Judge(control.Node, results).Status
}

// TestScanStaticPods: the scan uses the manifest that the kubelet runs.
func TestScanStaticPods(t *testing.T) {
	page := messages.Record(t, "findings of the scan of static Pods")
	ca := pkitest.NewCA("kube-apiserver-to-kubelet-signer")
	strange := pkitest.NewCA("strange").Issue(pkitest.KubeletClient())
	const directory = manifestDirectory
	copied := func(names ...string) func(t *testing.T, n node) {
		return func(t *testing.T, n node) {
			data, err := os.ReadFile(n.Manifest())
			must(t, err)
			for _, name := range names {
				put(t, filepath.Join(filepath.Dir(n.Manifest()), name), data)
			}
		}
	}
	// The kubelet is configured with another directory, and the manifest is moved there.
	moved := func(t *testing.T, n node) {
		must(t, os.MkdirAll(n.Root+"/etc/kubernetes/pods", 0o755))
		must(t, os.Rename(n.Manifest(), n.Root+"/etc/kubernetes/pods/api"))
		replace(t, n.Root+n.KubeletFile(), "staticPodPath: /etc/kubernetes/manifests", "staticPodPath: /etc/kubernetes/pods/")
	}
	duplicate := []string{"fail DuplicateStaticPod @ " + directory}
	type wanted struct {
		Status   control.Status
		Findings []string
	}
	compliant := wanted{Status: control.Compliant}
	notCompliant := wanted{control.NotCompliant, duplicate}
	cases := map[string]struct {
		layout openshift.Layout
		change func(t *testing.T, n node)
		want   wanted
	}{
		"OpenShift":                    {layout: openshift.Current, want: compliant},
		"kubeadm":                      {layout: openshift.Kubeadm, want: wanted{control.Compliant, []string{"warn KubeletCANotConfigured @ " + kubeadmManifest + " kubelet-certificate-authority"}}},
		"a backup":                     {layout: openshift.Current, change: copied("kube-apiserver-pod.yaml.backup"), want: notCompliant},
		"a backup that comes first":    {layout: openshift.Current, change: copied("a"), want: notCompliant},
		"a backup in capitals":         {layout: openshift.Current, change: copied("KUBE-APISERVER.OLD~"), want: notCompliant},
		"a hidden backup":              {layout: openshift.Current, change: copied(".kube-apiserver-pod.yaml.swp"), want: compliant},
		"a backup in a directory":      {layout: openshift.Current, change: copied("old/kube-apiserver-pod.yaml"), want: compliant},
		"a backup that is cut off":     {layout: openshift.Current, change: func(t *testing.T, n node) { put(t, n.Manifest()+".bak", []byte(`{"kind":"Pod"`)) }, want: compliant},
		"a symlink to the manifest":    {layout: openshift.Current, change: func(t *testing.T, n node) { must(t, os.Symlink(filepath.Base(n.Manifest()), n.Manifest()+".link")) }, want: notCompliant},
		"a symlink to nowhere":         {layout: openshift.Current, change: func(t *testing.T, n node) { must(t, os.Symlink("none", n.Manifest()+".link")) }, want: compliant},
		"a FIFO beside it":             {layout: openshift.Current, change: func(t *testing.T, n node) { must(t, syscall.Mkfifo(n.Manifest()+".fifo", 0o600)) }, want: compliant},
		"another static pod beside it": {layout: openshift.Current, change: func(t *testing.T, n node) { put(t, n.Manifest()+".etcd", []byte(pod("etcd", "etcd"))) }, want: compliant},
		"two of another static pod": {layout: openshift.Current, change: func(t *testing.T, n node) {
			put(t, n.Manifest()+".1", []byte(pod("etcd", "etcd")))
			put(t, n.Manifest()+".2", []byte(pod("etcd", "etcd")))
		}, want: compliant},
		"the name of the Pod, another container": {layout: openshift.Current, change: func(t *testing.T, n node) {
			put(
				t,
				n.Manifest()+".z",
				[]byte(
					strings.Replace(pod("kube-apiserver", "x"), `"name":"kube-apiserver"`,
						`"name":"kube-apiserver","namespace":"openshift-kube-apiserver"`, 1),
				),
			)
		}, want: notCompliant},
		"a second kube-apiserver under another name": {
			layout: openshift.Current,
			change: func(t *testing.T, n node) { put(t, n.Manifest()+".2", []byte(pod("other", "kube-apiserver"))) },
			want: wanted{control.NotCompliant, []string{
				duplicate[0], "unknown Unreadable @ " + openShiftManifest + ".2", // its image decides which command runs
			}},
		},
		"a backup of another revision, expired": {layout: openshift.Current, change: func(t *testing.T, n node) {
			copied("kube-apiserver-pod.bak")(t, n)
			at := "/kube-apiserver-certs-old/"
			replace(t, filepath.Dir(n.Manifest())+"/kube-apiserver-pod.bak", `static-pod-resources/kube-apiserver-certs"`,
				`static-pod-resources`+strings.TrimSuffix(at, "/")+`"`)
			put(t, n.Root+resources+at+"secrets/kubelet-client/tls.crt", strange.Certificate)
			put(t, n.Root+resources+at+"secrets/kubelet-client/tls.key", strange.Key)
		}, want: notCompliant},
		"two of its containers may be it": {layout: openshift.Current, change: func(t *testing.T, n node) {
			replace(t, n.Manifest(), `"containers":[`, `"containers":[{"name":"other","command":["/usr/bin/kube-apiserver"]},`)
		}, want: wanted{control.CouldNotVerify, []string{"unknown ManifestUnparsable @ " + openShiftManifest}}},
		"two containers of another Pod may be one": {layout: openshift.Current, change: func(t *testing.T, n node) {
			put(t, n.Manifest()+".2", []byte(twoServers))
		}, want: notCompliant},
		"another name": {layout: openshift.Current, change: func(t *testing.T, n node) {
			must(t, os.Rename(n.Manifest(), filepath.Dir(n.Manifest())+"/99-api.txt"))
		}, want: compliant},
		"another directory": {layout: openshift.Current, change: moved, want: compliant},
		"another directory, a leftover in the old one": {layout: openshift.Current, change: func(t *testing.T, n node) {
			copied("x")(t, n)
			moved(t, n)
		}, want: compliant},
		"a single file": {layout: openshift.Current, change: func(t *testing.T, n node) {
			copied("other")(t, n)
			replace(t, n.Root+n.KubeletFile(), "staticPodPath: /etc/kubernetes/manifests", "staticPodPath: "+openShiftManifest)
		}, want: compliant},
		"no static pods": {layout: openshift.Current, change: func(t *testing.T, n node) {
			replace(t, n.Root+n.KubeletFile(), "staticPodPath: /etc/kubernetes/manifests", "")
		}, want: wanted{control.CouldNotVerify, []string{"unknown ManifestMissing @ /etc/kubernetes/kubelet.conf"}}},
		"more files than are read": {layout: openshift.Current, change: func(t *testing.T, n node) {
			for i := range staticpod.MaxManifests {
				put(t, n.Manifest()+string(rune('A'+i%26))+strings.Repeat("x", i/26), nil)
			}
		}, want: wanted{control.CouldNotVerify, []string{"unknown Unreadable @ " + directory}}},
		"a file that is too large beside it": {layout: openshift.Current, change: func(t *testing.T, n node) {
			put(t, n.Manifest()+".x", slices.Repeat([]byte{'x'}, staticpod.MaxManifestBytes+1))
		}, want: wanted{control.CouldNotVerify, []string{"unknown Unreadable @ " + openShiftManifest + ".x"}}},
		"a drop-in that names another client CA": {layout: openshift.Current, change: func(t *testing.T, n node) {
			replace(t, n.Root+"/etc/systemd/system/kubelet.service", "--config=/etc/kubernetes/kubelet.conf",
				"--config=/etc/kubernetes/kubelet.conf --config-dir=/etc/kubernetes/kubelet.conf.d")
			put(
				t,
				n.Root+"/etc/kubernetes/kubelet.conf.d/10-ca.conf",
				[]byte(
					"apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nauthentication: {x509: {clientCAFile: "+
						"/etc/kubernetes/other-ca.crt}}\n",
				),
			)
			put(t, n.Root+"/etc/kubernetes/other-ca.crt", pkitest.NewCA("other").PEM())
		}, want: wanted{control.NotCompliant, []string{"fail UntrustedIssuer @ " + certificate}}},
		"no client CA": {layout: openshift.Current, change: func(t *testing.T, n node) {
			replace(t, n.Root+n.KubeletFile(), "clientCAFile: /etc/kubernetes/kubelet-ca.crt", "")
		}, want: wanted{control.NotCompliant, []string{
			"fail ClientCertificateNotAccepted @ /etc/kubernetes/kubelet.conf", "unknown ClientCAUnavailable @ " +
				"/etc/kubernetes/kubelet.conf",
		}}},
		"no client CA, but by a flag": {layout: openshift.Kubeadm, change: func(t *testing.T, n node) {
			replace(t, n.Root+n.KubeletFile(), "clientCAFile: /etc/kubernetes/pki/ca.crt", "")
			put(t, n.Root+"/etc/default/kubelet", []byte("KUBELET_EXTRA_ARGS=--client-ca-file=/etc/kubernetes/pki/ca.crt\n"))
		}, want: wanted{control.Compliant, []string{"warn KubeletCANotConfigured @ " + kubeadmManifest +
			" kubelet-certificate-authority"}}},
		"a read-only port": {layout: openshift.Current, change: func(t *testing.T, n node) {
			replace(t, n.Root+n.KubeletFile(), "maxPods: 250", "readOnlyPort: 10300")
		}, want: wanted{control.Compliant, []string{"warn ReadOnlyPortOpen @ /etc/kubernetes/kubelet.conf"}}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, c.layout, ca, ca.Issue(c.layout.ClientRequest()))
			if c.change != nil {
				c.change(t, n)
			}
			snapshot := scanHost(t, n.host, scan.Options{}, pkitest.Now())
			results := snapshot.Results()
			page.Unobserved(snapshot.FileResults)
			if d := cmp.Diff(c.want, wanted{verdict(results), reasons(results)}); d != "" {
				t.Errorf("verdict and findings (-want +got):\n%s", d)
			}
			if snapshot.Valid && (c.want.Status == control.CouldNotVerify || slices.Contains(c.want.Findings, duplicate[0])) {
				t.Error("Valid is true, but the kube-apiserver may use another pair")
			}
		})
	}
}

// twoServers is a Pod with two containers that may be the kube-apiserver.
const twoServers = `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"two"},"spec":{"containers":[` +
	`{"name":"a","command":["kube-apiserver"]},{"name":"b","command":["/usr/local/bin/kube-apiserver"]}]}}`

func pod(name, container string) string {
	return `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"` + name + `"},"spec":{"containers":[{"name":"` +
		container + `"}]}}`
}

// TestScanDefaultInstall: with the platforms' default files and only the chart's mounts,
// every requirement is observed, or the result names the assumption.
func TestScanDefaultInstall(t *testing.T) {
	page := messages.Record(t, "assumptions of the scan")
	ca := pkitest.NewCA("kube-apiserver-to-kubelet-signer")
	const (
		kubelet = "/var/lib/kubelet/"
		etcOnly = "/etc/kubernetes"
	)
	for name, c := range map[string]struct {
		layout  openshift.Layout
		mounted []string
		want    []string // what the assumptions mention; empty: no assumptions
	}{
		"OpenShift":               {openshift.Current, []string{etcOnly}, []string{"kubelet.service"}},
		"kubeadm":                 {openshift.Kubeadm, []string{etcOnly, kubelet + "config.yaml", kubelet + "kubeadm-flags.env"}, []string{"/var/lib/kubelet/kubeadm-flags.env"}},
		"kubeadm, /etc alone":     {openshift.Kubeadm, []string{etcOnly}, []string{"/etc/kubernetes/manifests", "kubelet.service"}},
		"OpenShift, all of it":    {openshift.Current, []string{"/"}, nil},
		"OpenShift 4.5, the same": {openshift.Oldest, []string{etcOnly}, []string{"kubelet.service"}},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, c.layout, ca, ca.Issue(c.layout.ClientRequest()))
			must(t, filepath.WalkDir(n.Root, func(at string, entry fs.DirEntry, err error) error {
				if err != nil || entry.IsDir() {
					return err
				}
				onHost := "/" + strings.TrimPrefix(strings.TrimPrefix(at, n.Root), "/")
				if slices.ContainsFunc(c.mounted, func(m string) bool {
					return onHost == m || strings.HasPrefix(onHost, strings.TrimSuffix(m, "/")+"/")
				}) {
					return nil
				}
				return os.Remove(at)
			}))
			results := scanHost(t, n.host, scan.Options{}, pkitest.Now()).Results()
			if got := verdict(results); got != control.Compliant {
				t.Errorf("got %s, want %s: %q", got, control.Compliant, reasons(results))
			}
			i := slices.IndexFunc(results,
				func(r finding.Result) bool { return r.Requirement == finding.Manifest.Requires(finding.Readable) })
			page.Finding(results[i])
			assumed := results[i].Message
			if (assumed == "") != (c.want == nil) {
				t.Errorf("got %q, want it to mention %q", assumed, c.want)
			}
			for _, mentioned := range c.want {
				if !strings.Contains(assumed, mentioned) {
					t.Errorf("got %q, want it to mention %q", assumed, mentioned)
				}
			}
		})
	}
}

// TestScanKubeletAddress: the kubelet's certificate must be valid for the address that the
// kube-apiserver uses.
func TestScanKubeletAddress(t *testing.T) {
	ca := pkitest.NewCA("kube-apiserver-to-kubelet-signer")
	pair := ca.Issue(pkitest.KubeletClient())
	issue := func(ips []net.IP, names ...string) *x509.Certificate {
		return ca.Issue(
			pkitest.Request{
				CommonName: "system:node:master-0", IPs: ips, DNSNames: names,
				Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
			},
		).Leaf
	}
	byIP, byName := issue([]net.IP{net.IPv4(192, 0, 2, 7)}), issue(nil, "master-0")
	const untrusted = "fail KubeletCertificateUntrusted @ Kubelet 192.0.2.7:10250"
	for name, c := range map[string]struct {
		types   string // JSON; empty for OpenShift's own
		flag    string // in the script of the manifest
		serving *x509.Certificate
		want    []string
		unknown bool
	}{
		"by its address":                              {serving: byIP},
		"by its address, with its name":               {serving: byName, want: []string{untrusted}},
		"by its name":                                 {types: `["Hostname","InternalIP"]`, serving: byName},
		"by its name, with its address":               {types: `["Hostname,InternalIP"]`, serving: byIP, want: []string{untrusted}},
		"by default":                                  {types: `[]`, serving: byName},
		"by default, with its address":                {types: `[]`, serving: byIP, want: []string{untrusted}},
		"by what it may not have, so it is not known": {types: `["ExternalDNS"]`, serving: byIP},
		"by a type from a Secret":                     {types: `[]`, flag: `"$TYPE"`, serving: byIP, unknown: true},
		"by a type from a Secret, before the file's":  {flag: `"$TYPE"`, serving: byName, unknown: true},
		"by a flag, before the file's":                {flag: "Hostname", serving: byName},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, openshift.Current, ca, pair)
			if c.types != "" {
				replace(t, n.Config(), `"kubelet-preferred-address-types":["InternalIP"]`,
					`"kubelet-preferred-address-types":`+c.types)
			}
			if c.flag != "" {
				n.start(t, func(container *corev1.Container) {
					container.Env = append(container.Env,
						corev1.EnvVar{Name: "TYPE", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{Key: "k"}}})
					container.Args[0] = strings.TrimSpace(container.Args[0]) + " --kubelet-preferred-address-types=" + c.flag
				})
			}
			host, err := hostfs.New(n.Root, check.MaxFileBytes, hostfs.MountInfo)
			must(t, err)
			answer := &check.KubeletAnswer{
				At: finding.Subject{Kind: finding.KindKubelet, Name: "192.0.2.7:10250"}, ReadOnlyAt: finding.Subject{Kind: finding.KindKubelet, Name: "192.0.2.7:10255"},
				Host: "192.0.2.7", Certificates: []*x509.Certificate{c.serving}, RequestsClientCertificate: true,
				AcceptedCAs: [][]byte{ca.Certificate.RawSubject},
			}
			results := scan.Scan(scan.Sources{Host: host, Kubelet: answers{answer}},
				scan.Options{NodeName: "master-0", ExpiringFraction: check.DefaultExpiringFraction}, pkitest.Now()).Results()
			if d := cmp.Diff(c.want, reasons(results)); d != "" {
				t.Errorf("findings (-want +got):\n%s", d)
			}
			i := slices.IndexFunc(results,
				func(r finding.Result) bool { return r.Requirement == finding.Kubelet.Requires(finding.ServingTrusted) })
			if known := results[i].Observed(); known == (c.unknown || strings.Contains(path.Base(c.types), "ExternalDNS")) {
				t.Errorf("observed: %t: %+v", known, results[i])
			}
		})
	}
}
