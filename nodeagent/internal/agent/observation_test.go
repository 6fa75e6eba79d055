// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/nodeagent/internal/hostfs"
	"github.com/kubelet-https-guard/kubelet-https-guard/nodeagent/internal/scan"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/tracker"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/openshift"
)

// TestManifestGone: without the manifest the agent checks the pair at the path of the CIS
// text. That this pair is valid says nothing about the pair that has an active finding.
func TestManifestGone(t *testing.T) {
	const settle = time.Second
	ca, at := pkitest.NewCA("signer"), pkitest.Now()
	good, expired := ca.Issue(pkitest.KubeletClient()), ca.Issue(
		pkitest.KubeletClient().Valid(at.AddDate(-1, 0, 0), at.AddDate(0, 0, -1)),
	)
	tree, err := openshift.Write(t.TempDir(), openshift.Legacy,
		openshift.Files{Certificate: expired.Certificate, Key: expired.Key, ClientCA: ca.PEM()})
	if err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(tree.Root, "etc/kubernetes/static-pod-resources/secrets/kubelet-client")
	if err := os.MkdirAll(other, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"tls.crt": good.Certificate, "tls.key": good.Key} {
		if err := os.WriteFile(filepath.Join(other, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	host, err := hostfs.New(tree.Root, check.MaxFileBytes, hostfs.MountInfo)
	if err != nil {
		t.Fatal(err)
	}
	// Under another name in the same directory it would still be a static pod.
	away := filepath.Join(tree.Root, "etc/kubernetes/away.yaml")
	tracked := tracker.New(settle)
	for _, step := range []struct {
		from, to string
		want     string
	}{
		{tree.Manifest(), tree.Manifest(), "Compliant admission-enabled, Finding active CertificateExpired, Not compliant use-https"},
		{tree.Manifest(), away, "Finding active ManifestMissing, Could not verify admission-enabled"},
		{away, tree.Manifest(), "Finding resolved ManifestMissing, Compliant admission-enabled"},
	} {
		if err := os.Rename(step.from, step.to); err != nil {
			t.Fatal(err)
		}
		var reported []string
		for range 3 {
			at = at.Add(settle)
			snapshot := scan.Scan(scan.Sources{Host: host}, scan.Options{}, at)
			observed := observation(snapshot, Controls(), settle, kubeletPatience, connectionPatience)
			for _, n := range tracked.Observe(observed).Notices {
				reported = append(reported,
					strings.Join(strings.Fields(fmt.Sprint(n.Type, " ", n.Finding.Reason, " ", n.Control.ID)), " "))
			}
		}
		if d := cmp.Diff(step.want, strings.Join(reported, ", ")); d != "" {
			t.Errorf("%s is moved to %s (-want +got):\n%s", step.from, step.to, d)
		}
	}
}
