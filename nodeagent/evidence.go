// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/kubelet-https-guard/kubelet-https-guard/internal/staticpod"
	"github.com/kubelet-https-guard/kubelet-https-guard/internal/version"
	"github.com/kubelet-https-guard/kubelet-https-guard/nodeagent/internal/agent"
	"github.com/kubelet-https-guard/kubelet-https-guard/nodeagent/internal/scan"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/control"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/evidence"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// document is the report that nodeagent check writes of a scan.
func document(s scan.Snapshot, c config) evidence.Document {
	d := evidence.Document{
		At: s.At, Generator: "kubelet-https-guard/nodeagent", Version: version.String(),
		Kind: "Node", Name: c.nodeName,
		FoundBy: s.Found.How, Revision: s.Found.Revision,
		Results: s.Results(), Checked: check.CheckedReasons(s.Results()),
	}
	for _, c := range agent.Controls() {
		d.Verdicts = append(d.Verdicts, c.Judge(control.Node, d.Results))
	}
	examined := func(role, path string) {
		if path != "" {
			d.Examined = append(d.Examined, evidence.Examined{Role: role, Subject: finding.File(path)})
		}
	}
	l := s.Found
	examined(roleOfManifest(l), l.Manifest)
	if l.ConfigAt != l.Manifest {
		examined("configuration", l.ConfigAt)
	}
	examined("admission-configuration", l.Admission.Host)
	examined("certificate", l.Certificate.Host)
	examined("key", l.Key.Host)
	examined("kubelet-client-ca", l.ClientCA)
	if c.kubelet != nil {
		examined("kubelet-serving-ca", l.KubeletCA.Host)
	}
	if s.ServingAt != (finding.Subject{}) {
		d.Examined = append(d.Examined, evidence.Examined{Role: "kubelet", Subject: s.ServingAt})
	}
	if s.Leaf != nil {
		d.Certificates = append(d.Certificates, evidence.Certificate{
			Role: agent.CertificateRole, Subject: finding.File(l.Certificate.Host), X509: s.Leaf,
		})
	}
	if s.Serving != nil {
		d.Certificates = append(d.Certificates, evidence.Certificate{
			Role: roleKubeletServing, Subject: s.ServingAt, X509: s.Serving,
		})
	}
	return d
}

// roleOfManifest is the role of the layout's manifest path. If there is no manifest, the
// path is that of the file or directory that shows this.
func roleOfManifest(l staticpod.Found) string {
	noManifest := l.ManifestReadErr != nil || l.ManifestParseErr != nil
	switch {
	case l.Kubelet.Problem.Err != nil, noManifest && l.Directory == "":
		return "kubelet-configuration"
	case noManifest && l.Manifest == l.Directory:
		return "static-pod-path"
	}
	return "manifest"
}
