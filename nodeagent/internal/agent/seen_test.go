// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kubelet-https-guard/kubelet-https-guard/nodeagent/internal/hostfs"
	"github.com/kubelet-https-guard/kubelet-https-guard/nodeagent/internal/scan"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/report"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/openshift"
)

// TestManifestGone: without the manifest the pair at the path of the CIS text is
// looked at. That it is good says nothing of the one that something was told of.
func TestManifestGone(t *testing.T) {
	const settle = time.Second
	ca, at := pkitest.NewCA("signer"), pkitest.Now()
	good, expired := ca.Issue(pkitest.KubeletClient()), ca.Issue(pkitest.KubeletClient().Valid(at.AddDate(-1, 0, 0), at.AddDate(0, 0, -1)))
	tree, err := openshift.Write(t.TempDir(), openshift.Legacy, openshift.Files{Certificate: expired.Certificate, Key: expired.Key, ClientCA: ca.PEM()})
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
	host, err := hostfs.New(tree.Root, check.MaxFileBytes)
	if err != nil {
		t.Fatal(err)
	}
	ledger := report.NewLedger(settle)
	for _, step := range []struct {
		from, to string
		want     string
	}{
		{tree.Manifest(), tree.Manifest(), "Finding raised CertificateExpired, Not verified"},
		{tree.Manifest(), tree.Manifest() + ".away", "Finding raised ManifestMissing"},
		{tree.Manifest() + ".away", tree.Manifest(), "Finding cleared ManifestMissing"},
	} {
		if err := os.Rename(step.from, step.to); err != nil {
			t.Fatal(err)
		}
		var told []string
		for range 3 {
			at = at.Add(settle)
			for _, n := range ledger.Observe(seen(scan.Scan(host, nil, scan.Options{}, at), settle, kubeletPatience)).Notices {
				told = append(told, strings.TrimSpace(string(n.What)+" "+string(n.Finding.Reason)))
			}
		}
		if d := cmp.Diff(step.want, strings.Join(told, ", ")); d != "" {
			t.Errorf("%s is moved to %s (-want +got):\n%s", step.from, step.to, d)
		}
	}
}
