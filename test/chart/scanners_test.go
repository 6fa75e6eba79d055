// SPDX-License-Identifier: Apache-2.0

package chart_test

import (
	encoding "encoding/base64"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	sigsyaml "sigs.k8s.io/yaml"

	"github.com/kubelet-https-guard/kubelet-https-guard/test/chart"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/docs"
)

// scan returns what scanners find in a rendering.
func scan(t *testing.T, objects []*unstructured.Unstructured) []chart.Finding {
	t.Helper()
	repository, err := chart.Repository()
	if err != nil {
		t.Fatal(err)
	}
	scanned, err := chart.NewScanned(repository, objects)
	if err != nil {
		t.Fatal(err)
	}
	return chart.Scan(scanned)
}

// TestScanners: no rendering fails a rule of a scanner, except where there is an exception with a reason, and each
// exception is needed.
func TestScanners(t *testing.T) {
	allowed, used := map[chart.Finding]bool{}, map[chart.Finding]bool{}
	for _, e := range chart.Exceptions() {
		for _, subject := range e.Subjects {
			finding := chart.Finding{Rule: e.Rule, Subject: subject}
			if allowed[finding] {
				t.Errorf("two exceptions for %s of %s", finding.Rule, finding.Subject)
			}
			allowed[finding] = true
		}
	}
	for name, r := range renderings {
		if slices.Contains(r.set, "networkPolicy.enabled=false") {
			continue // lacks on purpose what scanners ask for
		}
		t.Run(name, func(t *testing.T) {
			for _, finding := range scan(t, r.objects(t)) {
				if used[finding] = true; !allowed[finding] {
					t.Errorf("%s: %s", finding.Subject, finding.Rule)
				}
			}
		})
	}
	if t.Failed() {
		return
	}
	maps.DeleteFunc(allowed, func(finding chart.Finding, _ bool) bool { return used[finding] })
	for finding := range allowed {
		t.Errorf("no rendering needs the exception %s of %s", finding.Rule, finding.Subject)
	}
}

// TestScannersBite: a manifest that fails every rule about Pods and objects has a finding of each, and a bare chart one
// of each rule about charts.
func TestScannersBite(t *testing.T) {
	bad, err := os.ReadFile("testdata/scanners/bad.yaml")
	if err != nil {
		t.Fatal(err)
	}
	objects, err := chart.Objects(bad)
	if err != nil {
		t.Fatal(err)
	}
	// An empty chart, in the place of the real one.
	repository := t.TempDir()
	file := filepath.Join(repository, "charts/kubelet-https-guard/Chart.yaml")
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("apiVersion: v1\nname: bare\nversion: 0.0.1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	scanned, err := chart.NewScanned(repository, objects)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, finding := range chart.Scan(scanned) {
		found[finding.Rule] = true
	}
	for _, rule := range chart.Rules() {
		if !found[rule.Names[0]] {
			t.Errorf("%s finds nothing in a manifest that violates it", rule.Names[0])
		}
	}
}

// TestScannersPage: docs/scanners.md has the exceptions and the rules of the test.
func TestScannersPage(t *testing.T) {
	repository, err := chart.Repository()
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(repository, "docs", "scanners.md"))
	if err != nil {
		t.Fatal(err)
	}
	want := string(page)
	exceptions, rules := chart.ScannersPage()
	for name, text := range map[string]string{"exceptions": exceptions, "rules": rules} {
		if want, err = docs.Between(want, name, text); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(want, string(page)); diff != "" {
		t.Errorf("docs/scanners.md is not up to date (make generate) (-want +got):\n%s", diff)
	}
}

// change is an entry of artifacthub.io/changes.
type change struct {
	Kind        string `json:"kind"`
	Description string `json:"description"`
}

// TestChartMetadata: what Chart.yaml says about the project is true: the icon and the changes are those of the
// repository, and the links lead to pages that exist.
func TestChartMetadata(t *testing.T) {
	repository, err := chart.Repository()
	if err != nil {
		t.Fatal(err)
	}
	file := func(name string) string {
		t.Helper()
		data, err := os.ReadFile(filepath.Join(repository, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	var metadata struct {
		Version, Home, Icon string
		Sources             []string
		Annotations         map[string]string
	}
	if err := sigsyaml.Unmarshal([]byte(file("charts/kubelet-https-guard/Chart.yaml")), &metadata); err != nil {
		t.Fatal(err)
	}
	icon := "data:image/svg+xml;base64," + encoding.StdEncoding.EncodeToString([]byte(file("docs/icon.svg")))
	if metadata.Icon != icon {
		t.Errorf("icon is not docs/icon.svg, which is\n%s", icon)
	}
	if diff := cmp.Diff([]string{metadata.Home}, metadata.Sources); diff != "" {
		t.Errorf("sources (-home +got):\n%s", diff)
	}
	var links []struct{ Name, URL string }
	if err := sigsyaml.Unmarshal([]byte(metadata.Annotations["artifacthub.io/links"]), &links); err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		page, ok := strings.CutPrefix(link.URL, metadata.Home+"/blob/main/")
		if !ok {
			t.Errorf("%s is not a page of this project: %s", link.Name, link.URL)
			continue
		}
		file(page)
	}
	if diff := cmp.Diff("", metadata.Annotations["artifacthub.io/images"]); diff != "" {
		t.Errorf("artifacthub.io/images names an image, but docs/install.md says that none is published:\n%s", diff)
	}
	var changes []change
	if err := sigsyaml.UnmarshalStrict([]byte(metadata.Annotations["artifacthub.io/changes"]), &changes); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(newest(t, file("CHANGELOG.md"), metadata.Version), changes); diff != "" {
		t.Errorf("artifacthub.io/changes (-CHANGELOG.md +Chart.yaml):\n%s", diff)
	}
}

// newest returns the entries of the first section of a changelog, which must be that of a version.
func newest(t *testing.T, changelog, version string) []change {
	t.Helper()
	_, sections, _ := strings.Cut(changelog, "\n## ")
	section, _, _ := strings.Cut(sections, "\n## ")
	if title, _, _ := strings.Cut(section, "\n"); title != version {
		t.Fatalf("the newest section of CHANGELOG.md is %q, but the chart has version %s", title, version)
	}
	kinds := []string{"added", "changed", "deprecated", "removed", "fixed", "security"} // Artifact Hub has no others
	var changes []change
	var kind string
	for _, paragraph := range regexp.MustCompile(`\n+(?:- |### )`).Split(section, -1)[1:] {
		paragraph = strings.Join(strings.Fields(paragraph), " ")
		if slices.Contains(kinds, strings.ToLower(paragraph)) {
			kind = strings.ToLower(paragraph)
			continue
		}
		changes = append(changes, change{kind, paragraph})
	}
	return changes
}
