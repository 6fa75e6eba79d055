// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/nodeagent/internal/scan"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pki"
)

// writeTable writes a look for people: the verdict, what was looked at, what
// is wrong and what to do.
func writeTable(w io.Writer, s scan.Snapshot) error {
	var text bytes.Buffer
	table := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	row := func(key, format string, args ...any) {
		_, _ = fmt.Fprintf(table, "%s:\t%s\n", key, fmt.Sprintf(format, args...))
	}
	row("Verdict", "%s", finding.VerdictOf(s.All()))
	row("Control", "%s, \"Use https for kubelet connections\"", finding.ControlsText)
	row("Found by", "%s", s.Layout.How)
	if s.Layout.Revision != "" {
		row("Revision", "%s", s.Layout.Revision)
	}
	if at := s.Layout.Certificate; at.Host != "" {
		row("Certificate", "%s", at.Host)
	}
	if at := s.Layout.Key; at.Host != "" {
		row("Key", "%s", at.Host)
	}
	if leaf := s.Leaf; leaf != nil {
		row("Subject", "%s", leaf.Subject)
		row("Issuer", "%s", leaf.Issuer)
		row("Valid", "%s to %s", leaf.NotBefore.UTC().Format(time.RFC3339), leaf.NotAfter.UTC().Format(time.RFC3339))
		row("SHA-256", "%s", pki.Fingerprint(leaf))
	}
	// A buffer takes everything.
	_ = table.Flush()
	for _, f := range s.All() {
		_, _ = fmt.Fprintf(&text, "\n%s %s\n  at     %s\n  seen   %s\n  to do  %s\n", f.Severity(), f.Reason, f.Location, f.Message, f.Remedy)
	}
	_, err := text.WriteTo(w)
	return err
}
