// SPDX-License-Identifier: Apache-2.0

package scan_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/nodeagent/internal/scan"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/control"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/layout"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/messages"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/openshift"
)

// TestScanLayouts: in the tree of each layout the right files are found and are valid, whether the layout is detected
// or named; a pair with the subject of another platform is not.
func TestScanLayouts(t *testing.T) {
	page := messages.Record(t, "findings of the scan of each layout")
	for _, kind := range layout.Table() {
		tree, known := openshift.ByName()[kind.Name]
		if !known {
			t.Errorf("there is no tree for layout %s", kind.Name)
			continue
		}
		for _, flag := range []string{layout.Auto, kind.Name} {
			t.Run(kind.Name+" by "+flag, func(t *testing.T) {
				ca := pkitest.NewCA("kube-apiserver-to-kubelet-signer")
				n := newNode(t, tree, ca, ca.Issue(tree.ClientRequest()))
				works := scan.Sources{Host: n.host, Connection: connections{&check.ConnectionAnswer{State: check.ConnectionWorks}}}
				snapshot := scan.Scan(works, scan.Options{Layout: flag}, pkitest.Now())
				page.Unobserved(snapshot.Results())
				if got := snapshot.Found.Layout.Name; got != kind.Name {
					t.Errorf("layout: got %q", got)
				}
				if !snapshot.Valid {
					t.Error("the pair is not valid")
				}
				if d := cmp.Diff(n.CertificateOnHost(), snapshot.Found.Certificate.Host); d != "" {
					t.Errorf("certificate (-want +got):\n%s", d)
				}
				if d := cmp.Diff(unverified(kind), unmet(control.UseHTTPS, snapshot.Results())); d != "" {
					t.Errorf("requirements that are not met (-want +got):\n%s", d)
				}

				foreign := ca.Issue(pkitest.Request{CommonName: "somebody", Usages: pkitest.KubeletClient().Usages})
				put(t, n.Certificate(), foreign.Certificate)
				put(t, n.Key(), foreign.Key)
				results := scan.Scan(works, scan.Options{Layout: flag}, pkitest.Now()).FileResults
				if !slices.ContainsFunc(results, func(r finding.Result) bool { return r.Reason == finding.UnexpectedIdentity }) {
					t.Errorf("a foreign subject: got %v", reasons(results))
				}
			})
		}
	}
}

// unverified are the requirements that no file and no connection shows: of a kube-apiserver in the process of another
// program only the CA is left.
func unverified(kind layout.Layout) []string {
	if kind.Process == "" {
		return nil
	}
	return []string{"config/certificate-authority Unreadable"}
}

// unmet returns the requirements of a control that are not met, with their reasons.
func unmet(id string, results []finding.Result) (all []string) {
	for _, answer := range control.ByID(id).Judge(control.Node, results).Unmet() {
		var why []string
		for _, r := range answer.Results {
			why = append(why, string(r.Reason))
		}
		all = append(all, string(answer.Requirement)+" "+strings.Join(why, " "))
	}
	return all
}

// TestScanInProcess: what a kube-apiserver without a manifest is configured with is unknown, unless a connection of
// this node's own kube-apiserver shows it.
func TestScanInProcess(t *testing.T) {
	page := messages.Record(t, "findings of the scan of a kube-apiserver in another process")
	connection := []string{
		"config/certificate-authority Unreadable", "config/client-certificate Unreadable", "config/client-key Unreadable",
		"config/https Unreadable", "config/read-only-port Unreadable",
	}
	because := func(reason string) []string {
		return []string{
			connection[0], "config/client-certificate " + reason, "config/client-key " + reason, "config/https " + reason,
			"config/read-only-port " + reason, "kubelet/connection " + reason,
		}
	}
	answer := func(state check.ConnectionState, service bool) scan.Connection {
		return connections{&check.ConnectionAnswer{
			State: state, ThroughService: service, Why: "it answered 503", Remedy: "wait",
		}}
	}
	for name, c := range map[string]struct {
		connection scan.Connection
		want       []string
	}{
		"works":                    {answer(check.ConnectionWorks, false), connection[:1]},
		"works, of any API server": {answer(check.ConnectionWorks, true), connection},
		"not checked":              {nil, connection},
		"no answer yet":            {connections{}, because("NotObserved")},
		"not known":                {answer(check.ConnectionUnknown, false), because("ConnectionUnknown")},
		"refused":                  {answer(check.ConnectionUnauthenticated, false), because("ClientCertificateNotAccepted")},
	} {
		t.Run(name, func(t *testing.T) {
			ca := pkitest.NewCA("kube-apiserver-to-kubelet-client-signer")
			n := newNode(t, openshift.MicroShift, ca, ca.Issue(openshift.MicroShift.ClientRequest()))
			snapshot := scan.Scan(scan.Sources{Host: n.host, Connection: c.connection}, scan.Options{}, pkitest.Now())
			results := snapshot.Results()
			page.Unobserved(results)
			// A connection that fails for a moment must not change the verdict at once.
			ofConnection := strings.Contains(strings.Join(c.want, " "), "kubelet/connection")
			for _, r := range snapshot.FileResults {
				if ofConnection && r.Requirement == finding.Config.Requires(finding.ClientCertificate) {
					t.Error("it has the patience of files:", r.Reason)
				}
			}
			got := slices.DeleteFunc(unmet(control.UseHTTPS, results), func(line string) bool {
				return strings.HasPrefix(line, "kubelet/client-accepted")
			})
			slices.Sort(got)
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("requirements that are not met (-want +got):\n%s", d)
			}
		})
	}
}

// TestScanLayoutNotClear: with several layouts, none, or the files of one that are half there, nothing passes unseen.
func TestScanLayoutNotClear(t *testing.T) {
	page := messages.Record(t, "findings of the scan of a layout that is not clear")
	mark := func(path string) func(t *testing.T, n node) {
		return func(t *testing.T, n node) { must(t, os.MkdirAll(filepath.Join(n.Root, path), 0o700)) }
	}
	for name, c := range map[string]struct {
		layout openshift.Layout
		flag   string
		change func(t *testing.T, n node)
		// wantStatus and wantReasons of the files; wantValid is that of the pair.
		wantStatus  control.Status
		wantReasons []string
		wantValid   bool
	}{
		"two match": {
			layout: openshift.Current, change: mark("var/lib/microshift/certs"),
			wantStatus: control.CouldNotVerify, wantReasons: []string{"LayoutUnknown"},
		},
		"two match, one is named": {
			layout: openshift.Current, flag: "openshift", change: mark("var/lib/microshift/certs"),
			wantStatus: control.Compliant, wantValid: true,
		},
		"none matches": {
			layout:     openshift.MicroShift,
			change:     func(t *testing.T, n node) { must(t, os.RemoveAll(filepath.Join(n.Root, "var/lib/microshift"))) },
			wantStatus: control.CouldNotVerify, wantReasons: []string{"ManifestMissing"},
		},
		"another is named": {
			layout: openshift.Current, flag: "microshift",
			wantStatus:  control.NotCompliant,
			wantReasons: []string{"CertificateMissing", "KeyMissing", "Unreadable"},
		},
		"half there: no key": {
			layout: openshift.MicroShift, change: func(t *testing.T, n node) { must(t, os.Remove(n.Key())) },
			wantStatus: control.NotCompliant, wantReasons: []string{"KeyMissing", "Unreadable"},
		},
		"half there: no manifest": {
			layout: openshift.RKE2, change: func(t *testing.T, n node) { must(t, os.Remove(n.Manifest())) },
			wantStatus: control.CouldNotVerify, wantReasons: []string{"ManifestMissing"},
		},
		"a directory of OpenShift beside a manifest of kubeadm": {
			layout: openshift.Kubeadm, change: mark("etc/kubernetes/static-pod-resources"),
			wantStatus: control.Compliant, wantReasons: []string{"KubeletCANotConfigured"}, wantValid: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			ca := pkitest.NewCA("kube-apiserver-to-kubelet-signer")
			n := newNode(t, c.layout, ca, ca.Issue(c.layout.ClientRequest()))
			if c.change != nil {
				c.change(t, n)
			}
			snapshot := scan.Scan(scan.Sources{Host: n.host}, scan.Options{Layout: c.flag}, pkitest.Now())
			page.Unobserved(snapshot.FileResults)
			if got := verdict(snapshot.Results()); got != c.wantStatus {
				t.Errorf("verdict: got %s, want %s", got, c.wantStatus)
			}
			var got []string
			for _, f := range finding.Findings(snapshot.FileResults) {
				got = append(got, string(f.Reason))
			}
			slices.Sort(got)
			if d := cmp.Diff(c.wantReasons, got); d != "" {
				t.Errorf("reasons (-want +got):\n%s", d)
			}
			if snapshot.Valid != c.wantValid {
				t.Errorf("valid: got %t", snapshot.Valid)
			}
		})
	}
}
