// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/kubelet-https-guard/kubelet-https-guard/nodeagent/internal/agent"
	"github.com/kubelet-https-guard/kubelet-https-guard/nodeagent/internal/scan"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/evidence"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/version"
)

// document is what --once writes of a look.
func document(s scan.Snapshot, c config) evidence.Document {
	d := evidence.Document{
		At: s.At, Generator: "kubelet-https-guard/nodeagent", Version: version.String(),
		Kind: "Node", Name: c.nodeName,
		FoundBy: s.Layout.How, Revision: s.Layout.Revision,
		Checked: s.LookedFor, Findings: s.All(),
	}
	examined := func(role string, location finding.Location) {
		if location != "" {
			d.Examined = append(d.Examined, evidence.Examined{Role: role, Location: location})
		}
	}
	l := s.Layout
	examined("manifest", finding.Location(l.Manifest))
	if l.ConfigAt != l.Manifest {
		examined("configuration", finding.Location(l.ConfigAt))
	}
	examined("certificate", finding.Location(l.Certificate.Host))
	examined("key", finding.Location(l.Key.Host))
	examined("kubelet-client-ca", finding.Location(l.ClientCA))
	if c.kubelet != nil {
		examined("kubelet-serving-ca", finding.Location(l.KubeletCA.Host))
	}
	examined("kubelet", s.ServingAt)
	if s.Leaf != nil {
		d.Certificates = append(d.Certificates, evidence.Certificate{
			Role: agent.CertificateRole, Location: finding.Location(l.Certificate.Host), X509: s.Leaf,
		})
	}
	if s.Serving != nil {
		d.Certificates = append(d.Certificates, evidence.Certificate{
			Role: roleKubeletServing, Location: s.ServingAt, X509: s.Serving,
		})
	}
	return d
}
