// SPDX-License-Identifier: Apache-2.0

package chart_test

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	sigsyaml "sigs.k8s.io/yaml"

	"github.com/kubelet-https-guard/kubelet-https-guard/test/chart"
)

// TestGitOpsExamples: the chart accepts the values in docs/gitops.md, and renders for OpenShift with them, as each tool
// renders: Argo CD without knowing the APIs of the cluster, Flux with them.
func TestGitOpsExamples(t *testing.T) {
	needs(t, "HELM")
	repository, err := chart.Repository()
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(repository, "docs", "gitops.md"))
	if err != nil {
		t.Fatal(err)
	}
	examples := map[string]struct {
		values []string // the path of the chart's values
		args   []string
	}{
		"Application": {values: []string{"spec", "source", "helm", "valuesObject"}},
		"HelmRelease": {values: []string{"spec", "values"}, args: []string{"--api-versions", openShift[0]}},
	}
	var rendered []string
	for _, block := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllSubmatch(page, -1) {
		objects, err := chart.Objects(block[1])
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range objects {
			example, ok := examples[o.GetKind()]
			if !ok {
				continue
			}
			values, found, err := unstructured.NestedMap(o.Object, example.values...)
			if err != nil || !found {
				t.Fatalf("%s has no values: %v", o.GetKind(), err)
			}
			text, err := sigsyaml.Marshal(values)
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(t.TempDir(), "values.yaml")
			if err := os.WriteFile(file, text, 0o600); err != nil {
				t.Fatal(err)
			}
			manifests, err := chart.Render(t.Context(), append(example.args, "--values", file)...)
			if err != nil {
				t.Fatalf("%s: %v", o.GetKind(), err)
			}
			all, err := chart.Objects(manifests)
			if err != nil {
				t.Fatal(err)
			}
			for _, object := range all {
				if object.GetKind() == "SecurityContextConstraints" {
					rendered = append(rendered, o.GetKind())
				}
			}
		}
	}
	if diff := cmp.Diff([]string{"Application", "HelmRelease"}, rendered); diff != "" {
		t.Errorf("examples that render for OpenShift (-want +got):\n%s", diff)
	}
}
