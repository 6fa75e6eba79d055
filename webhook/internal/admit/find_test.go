// SPDX-License-Identifier: Apache-2.0

package admit_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/admit"
)

// TestFind: a Secret is found by namespace and name, or else by its name alone if API servers select its namespace.
func TestFind(t *testing.T) {
	entry := func(namespace, name, kind string, bundle admit.CABundle) admit.ProtectedSecret {
		p := admit.ProtectedSecret{
			SecretExpectation: check.SecretExpectation{Namespace: namespace, Name: name, Type: kind}, Bundle: &bundle,
		}
		if namespace == "" {
			p.Selector, p.Except = &metav1.LabelSelector{MatchLabels: map[string]string{"hosted": "true"}}, []string{"named"}
		}
		return p
	}
	own, central := admit.CABundle{Name: "ca", Key: "k"}, admit.CABundle{Namespace: "central", Name: "ca", Key: "k"}
	all := []admit.ProtectedSecret{
		entry("", "a", "selected", own), entry("named", "a", "named", own), entry("", "b", "selected", central),
		entry("named", "c", "named", central),
	}
	in := func(namespace string) admit.CABundle {
		return admit.CABundle{Namespace: namespace, Name: "ca", Key: "k"}
	}
	cases := map[string]struct {
		namespace, name, kind string // kind: empty if it is not protected
		bundle                admit.CABundle
	}{
		"by its selector":                    {"x", "a", "selected", in("x")},
		"of another namespace":               {"y", "a", "selected", in("y")},
		"by its namespace":                   {"named", "a", "named", own},
		"a bundle of a configured namespace": {"x", "b", "selected", central},
		"a name without a selector":          {"x", "c", "", own},
		"another name":                       {"named", "d", "", own},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			got, ok := admit.NewIndex(all).Find(c.namespace, c.name)
			if ok != (c.kind != "") {
				t.Fatalf("found: %t", ok)
			}
			if !ok {
				return
			}
			want := entry(c.namespace, c.name, c.kind, c.bundle)
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
	if all[0].Bundle.Namespace != "" {
		t.Error("finding a Secret changed the entry")
	}
}
