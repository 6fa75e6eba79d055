// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"

	"github.com/kubelet-https-guard/kubelet-https-guard/nodeagent/internal/agent"
	"github.com/kubelet-https-guard/kubelet-https-guard/nodeagent/internal/scan"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
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
		Findings: s.All(),
	}
	// Nobody is to take for checked what was not looked at, or could not be.
	d.Checked = filesReasons(s)
	switch layout := s.Layout; {
	case layout.Manifest == "":
	case layout.ManifestReadErr != nil || layout.ManifestParseErr != nil:
		d.Checked = append(d.Checked, check.ManifestReasons()...)
	case layout.ConfigErr != nil:
		d.Checked = slices.Concat(d.Checked, check.ManifestReasons(), check.UnreadConfigurationReasons())
	default:
		d.Checked = slices.Concat(d.Checked, check.ManifestReasons(), check.ConfigurationReasons())
	}
	if c.kubelet != nil && len(finding.OfSeverity(s.Kubelet, finding.Unverified)) == 0 {
		d.Checked = append(d.Checked, check.KubeletReasons()...)
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

// filesReasons are those that were looked for in the files.
func filesReasons(s scan.Snapshot) []finding.Reason {
	l := s.Layout
	unread := func(at ...string) bool {
		return slices.ContainsFunc(finding.OfSeverity(s.Findings, finding.Unverified), func(f finding.Finding) bool {
			return slices.Contains(at, string(f.Location))
		})
	}
	switch {
	case l.Certificate.Host == "" && l.Key.Host == "":
		return nil
	case unread(l.Certificate.Host, l.Key.Host):
		return check.UnreadFilesReasons()
	}
	reasons := check.FilesReasons()
	if l.ClientCA == "" || unread(l.ClientCA) {
		reasons = slices.DeleteFunc(reasons, func(r finding.Reason) bool { return r == finding.UntrustedIssuer })
	}
	return reasons
}
