// SPDX-License-Identifier: Apache-2.0

package scan_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/nodeagent/internal/hostfs"
	"github.com/kubelet-https-guard/kubelet-https-guard/nodeagent/internal/scan"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/messages"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/openshift"
)

// TestScanMounts: a file outside of all mounts is not reported as missing, for whatever
// reason the agent reads it.
func TestScanMounts(t *testing.T) {
	page := messages.Record(t, "findings of the scan of what is not mounted")
	const (
		kubernetes = "/etc/kubernetes"
		manifests  = "/etc/kubernetes/manifests"
		pairAt     = "/etc/kubernetes/static-pod-resources/kube-apiserver-certs/secrets/kubelet-client"
		clientCA   = "/etc/kubernetes/kubelet-ca.crt"
	)
	move := func(names ...string) func(t *testing.T, n node) {
		return func(t *testing.T, n node) {
			t.Helper()
			for i := 0; i < len(names); i += 2 {
				must(t, os.MkdirAll(filepath.Dir(n.Root+names[i+1]), 0o755))
				must(t, os.Rename(n.Root+names[i], n.Root+names[i+1]))
			}
		}
	}
	link := func(at, to string) func(t *testing.T, n node) {
		return func(t *testing.T, n node) {
			t.Helper()
			must(t, os.RemoveAll(n.Root+at))
			must(t, os.Symlink(to, n.Root+at))
		}
	}
	microShift := move(pairAt+"/tls.crt", "/var/lib/microshift/c/client.crt", pairAt+"/tls.key",
		"/var/lib/microshift/c/client.key")
	cases := map[string]struct {
		mounted []string // empty: no mounts, a copy of a host's files
		stale   string   // a mount whose source the host has replaced
		options scan.Options
		change  func(t *testing.T, n node)
		want    []string
	}{
		"what the chart mounts": {mounted: []string{kubernetes}},
		"the manifests alone": {mounted: []string{manifests}, want: []string{
			"NotMounted " + clientCA,
			"NotMounted /etc/kubernetes/static-pod-resources/kube-apiserver-pod-7/configmaps/config/config.yaml",
		}},
		"the pair's directory alone": {mounted: []string{pairAt}, want: []string{
			"NotMounted /etc/kubernetes/manifests",
		}},
		"something else": {mounted: []string{"/var/log"}, want: []string{
			"NotMounted /etc/kubernetes/manifests",
		}},
		"the pair's directory leads out": {
			mounted: []string{kubernetes},
			change:  link(pairAt, "/var/lib/pair"),
			want: []string{
				"NotMounted " + pairAt + "/tls.crt",
				"NotMounted " + pairAt + "/tls.key",
			},
		},
		"the key leads out": {
			mounted: []string{kubernetes},
			change:  link(pairAt+"/tls.key", "../../../../../../var/lib/pair/tls.key"),
			want: []string{
				"NotMounted " + pairAt + "/tls.key",
			},
		},
		"the client CA leads out": {
			mounted: []string{kubernetes},
			change:  link(clientCA, "/var/lib/kubelet/ca.crt"),
			want: []string{
				"NotMounted " + clientCA,
			},
		},
		"the pair's directory leads to another mount": {
			mounted: []string{kubernetes, "/var/lib/pair"},
			change: func(t *testing.T, n node) {
				t.Helper()
				move(pairAt, "/var/lib/pair")(t, n)
				link(pairAt, "/var/lib/pair")(t, n)
			},
		},
		"a mount of what the host has replaced": {mounted: []string{kubernetes}, stale: kubernetes, want: []string{
			"StaleMount /etc/kubernetes/kubelet.conf",
		}},
		"a given directory, not mounted": {
			mounted: []string{kubernetes},
			options: scan.Options{Directory: "/var/lib/microshift/c"},
			change:  microShift,
			want: []string{
				"NotMounted /var/lib/microshift/c",
			},
		},
		"a given directory, mounted": {mounted: []string{kubernetes, "/var/lib/microshift"}, options: scan.Options{Directory: "/var/lib/microshift/c"}, change: microShift},
		"a given directory, without a key": {
			options: scan.Options{Directory: "/var/lib/microshift/c"},
			change: func(t *testing.T, n node) {
				t.Helper()
				microShift(t, n)
				must(t, os.Remove(n.Root+"/var/lib/microshift/c/client.key"))
			},
			want: []string{"KeyMissing /var/lib/microshift/c/client.key"},
		},
		"a given directory, with other names": {
			options: scan.Options{Directory: "/srv/pki"},
			change:  move(pairAt+"/tls.crt", "/srv/pki/a.pem", pairAt+"/tls.key", "/srv/pki/b.pem"),
			want: []string{
				"Unreadable /srv/pki",
			},
		},
		"a given directory, empty": {options: scan.Options{Directory: "/srv/pki"}, change: func(t *testing.T, n node) {
			t.Helper()
			must(t, os.MkdirAll(n.Root+"/srv/pki", 0o755))
		}, want: []string{"CertificateMissing /srv/pki", "KeyMissing /srv/pki"}},
		"a given directory that is a file": {options: scan.Options{Directory: clientCA}, want: []string{
			"Unreadable " + clientCA,
		}},
		"given files": {options: scan.Options{Certificate: "/srv/pki/a.pem", Key: "/srv/keys/b.pem"}, change: move(pairAt+"/tls.crt", "/srv/pki/a.pem", pairAt+"/tls.key", "/srv/keys/b.pem")},
		"a given directory, CAs not mounted": {
			mounted: []string{"/var/lib/microshift"},
			options: scan.Options{Directory: "/var/lib/microshift/c"},
			change:  microShift,
			want: []string{
				"NotMounted " + clientCA,
			},
		},
		"given files, one not mounted": {
			mounted: []string{kubernetes, "/srv/pki"},
			options: scan.Options{Certificate: "/srv/pki/a.pem", Key: "/srv/keys/b.pem"},
			change:  move(pairAt+"/tls.crt", "/srv/pki/a.pem", pairAt+"/tls.key", "/srv/keys/b.pem"),
			want: []string{
				"NotMounted /srv/keys/b.pem",
			},
		},
		"given files, not there": {
			options: scan.Options{Certificate: "/srv/pki/a.pem", Key: "/srv/keys/b.pem"},
			want: []string{
				"CertificateMissing /srv/pki/a.pem", "KeyMissing /srv/keys/b.pem",
			},
		},
		"a given CA, not mounted": {
			mounted: []string{kubernetes},
			options: scan.Options{ClientCA: "/srv/ca.crt"},
			want: []string{
				"NotMounted /srv/ca.crt",
			},
		},
	}
	ca := pkitest.NewCA("kube-apiserver-to-kubelet-signer")
	pair := ca.Issue(pkitest.KubeletClient())
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, openshift.Current, ca, pair)
			if c.change != nil {
				c.change(t, n)
			}
			var table strings.Builder
			for _, mounted := range c.mounted {
				source := mounted
				if mounted == c.stale {
					source += "//deleted"
				}
				_, _ = fmt.Fprintf(&table, "36 35 98:0 %s %s ro - ext4 /dev/root rw\n", source, n.Root+mounted)
			}
			mountinfo := filepath.Join(t.TempDir(), "mountinfo")
			must(t, os.WriteFile(mountinfo, []byte(table.String()), 0o600))
			host, err := hostfs.New(n.Root, check.MaxFileBytes, mountinfo)
			must(t, err)
			snapshot := scanHost(t, host, c.options, pkitest.Now())
			page.Unobserved(snapshot.FileResults)
			if d := cmp.Diff(c.want, lines(snapshot.FileResults)); d != "" {
				t.Errorf("findings (-want +got):\n%s", d)
			}
			if again := scanHost(t, host.WithCurrentMounts(), c.options, pkitest.Now()); again.Contents != snapshot.Contents {
				t.Error("Contents differ in two scans of the same host")
			}
		})
	}
}
