// SPDX-License-Identifier: Apache-2.0

package scan_test

import (
	"testing"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/nodeagent/internal/hostfs"
	"github.com/kubelet-https-guard/kubelet-https-guard/nodeagent/internal/scan"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/openshift"
)

// BenchmarkScan: one scan of a host without findings.
func BenchmarkScan(b *testing.B) {
	ca := pkitest.NewCA("signer")
	request := pkitest.KubeletClient()
	request.Key = pkitest.RSA
	pair := ca.Issue(request)
	for _, layout := range []openshift.Layout{openshift.Current, openshift.Kubeadm} {
		for what, memory := range map[string]*scan.Memory{"everything is parsed": nil, "nothing has changed": {}} {
			b.Run(string(layout)+", "+what, func(b *testing.B) {
				tree, err := openshift.Write(b.TempDir(), layout,
					openshift.Files{Certificate: pair.Certificate, Key: pair.Key, ClientCA: ca.PEM()})
				if err != nil {
					b.Fatal(err)
				}
				host, err := hostfs.New(tree.Root, 1<<20, hostfs.MountInfo)
				if err != nil {
					b.Fatal(err)
				}
				b.ReportAllocs()
				for b.Loop() {
					scan.Scan(scan.Sources{Host: host, Memory: memory}, scan.Options{}, pkitest.Now())
				}
			})
		}
	}
}
