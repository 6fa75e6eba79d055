// SPDX-License-Identifier: Apache-2.0

package layout_test

import (
	"path"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/layout"
)

// TestTable: each layout is complete, and its agent's Pod can read every path that the layout names.
func TestTable(t *testing.T) {
	seen := map[string]bool{}
	for _, l := range layout.Table() {
		t.Run(l.Name, func(t *testing.T) {
			if seen[l.Name] || seen[l.Mark] || l.Name == layout.Auto {
				t.Errorf("name or mark is not unique: %s, %s", l.Name, l.Mark)
			}
			seen[l.Name], seen[l.Mark] = true, true
			for what, text := range map[string]string{
				"title": l.Title, "source": l.Source, "mark": l.Mark, "client CA": l.ClientCA, "writer": l.Writer,
			} {
				if text == "" {
					t.Errorf("it has no %s", what)
				}
			}
			if len(l.Identities) == 0 || len(l.PairNames) == 0 {
				t.Errorf("identities %v, names of the pair %v", l.Identities, l.PairNames)
			}
			if inProcess := l.StaticPods == ""; inProcess != (l.Process != "") ||
				inProcess != (l.Certificate != "" && l.Key != "" && l.KubeletCA != "") {
				t.Errorf("static Pods in %q, process %q, pair %q and %q, CA %q", l.StaticPods, l.Process, l.Certificate, l.Key,
					l.KubeletCA)
			}
			for _, at := range []string{l.StaticPods, l.Certificate, l.Key, l.KubeletCA, l.ClientCA} {
				if at != "" && (path.Clean(at) != at || !path.IsAbs(at) || !mounted(l, at)) {
					t.Errorf("%s is not a clean path that is mounted", at)
				}
			}
		})
	}
}

func mounted(l layout.Layout, at string) bool {
	return slices.Contains(l.Files, at) || slices.ContainsFunc(l.Directories, func(directory string) bool {
		return at == directory || strings.HasPrefix(at, directory+"/")
	})
}

// TestDetect: a layout is found by its mark alone.
func TestDetect(t *testing.T) {
	for _, l := range layout.Table() {
		host := fstest.MapFS{l.Mark[1:] + "/file": {}, "var/lib/kubelet/config.yaml": {}}
		if d := cmp.Diff([]layout.Layout{l}, layout.Detect(host)); d != "" {
			t.Errorf("%s (-want +got):\n%s", l.Name, d)
		}
		if got, ok := layout.ByName(l.Name); !ok || got.Mark != l.Mark {
			t.Errorf("by the name %s: got %q, %t", l.Name, got.Name, ok)
		}
		if !slices.Contains(layout.Names(), l.Name) {
			t.Errorf("%s is not among the names %v", l.Name, layout.Names())
		}
	}
	if got := layout.Detect(fstest.MapFS{"etc/kubernetes/manifests/x.yaml": {}}); len(got) > 0 {
		t.Errorf("without a mark: got %v", got)
	}
	if got, ok := layout.ByName(layout.Auto); ok {
		t.Errorf("auto: got %q", got.Name)
	}
}

// TestIdentities: each subject is listed once.
func TestIdentities(t *testing.T) {
	want := []layout.Identity{
		{CommonName: "system:kube-apiserver", Organization: "kube-master"},
		{CommonName: "kube-apiserver-kubelet-client", Organization: "kubeadm:cluster-admins"},
		{CommonName: "kube-apiserver-kubelet-client", Organization: "system:masters"},
		{CommonName: "system:apiserver", Organization: "system:masters"},
	}
	if d := cmp.Diff(want, layout.Identities("")); d != "" {
		t.Errorf("identities (-want +got):\n%s", d)
	}
	if d := cmp.Diff(want[:3], layout.Identities("/etc/kubernetes/manifests")); d != "" {
		t.Errorf("identities of OpenShift and kubeadm (-want +got):\n%s", d)
	}
}
