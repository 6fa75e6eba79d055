// SPDX-License-Identifier: Apache-2.0

package report

import (
	"context"
	"log/slog"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/control"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pki"
)

// Log writes a line for each notice except [FindingStillActive]. The keys are a contract: reason
// severity control controls location message remedy node notBefore notAfter serial sha256
// user operation dryRun verdict unchecked atStart
// notKnownForAll.
type Log struct{ log *slog.Logger }

// NewLog returns a reporter that writes to a logger.
func NewLog(log *slog.Logger) *Log { return &Log{log} }

// Report implements [Reporter].
func (l *Log) Report(ctx context.Context, n Notice) {
	level := slog.LevelInfo
	attributes := make([]slog.Attr, 0, 16)
	switch n.Type {
	case FindingStillActive:
		return // the log reports changes only
	case FindingActive:
		level = levelOf(n.Finding)
		attributes = append(attributes, findingAttributes(n.Finding)...)
	case FindingResolved:
		attributes = append(attributes, findingAttributes(n.Finding)...)
		if n.Unchecked {
			attributes = append(attributes, slog.Bool("unchecked", true))
		}
	case RequestDenied, RequestByBreakGlass:
		level = slog.LevelWarn
		attributes = append(attributes, findingAttributes(n.Finding)...)
	case NotCompliant, CouldNotVerify:
		level = slog.LevelError
		attributes = append(attributes, verdictAttributes(n.Verdict)...)
		attributes = append(attributes, slog.String("message", whyNotVerified(n.Verdict)))
	case NotApplicable:
		attributes = append(attributes, verdictAttributes(n.Verdict)...)
		attributes = append(attributes, slog.String("message", whyNotApplicable(n.Verdict)))
	case Compliant:
		attributes = append(attributes, verdictAttributes(n.Verdict)...)
		if unknown := notKnownForAll(n.Verdict); unknown != "" {
			attributes = append(attributes, slog.String("notKnownForAll", unknown))
		}
	case CertificateRotated:
		attributes = append(attributes, controlAttributes(n.Control)...)
	}
	if n.AtStart {
		attributes = append(attributes, slog.Bool("atStart", true))
	}
	if n.Object.Kind == "Node" {
		attributes = append(attributes, slog.String("node", n.Object.Name))
	}
	if c := n.Certificate; c != nil {
		attributes = append(attributes,
			slog.String("location", n.CertificateAt.String()),
			slog.String("notBefore", c.NotBefore.UTC().Format(time.RFC3339)),
			slog.String("notAfter", c.NotAfter.UTC().Format(time.RFC3339)),
			slog.String("serial", c.SerialNumber.Text(16)),
			slog.String("sha256", pki.Fingerprint(c)))
	}
	if r := n.Request; r != nil {
		attributes = append(attributes,
			slog.String("user", r.User), slog.String("operation", r.Operation), slog.Bool("dryRun", r.DryRun))
	}
	l.log.LogAttrs(ctx, level, string(n.Type), attributes...) //nolint:sloglint // a constant of NoticeType
}

// verdictAttributes also has the ID of the control, because several controls may have the
// same numbers in "controls".
func verdictAttributes(v control.Verdict) []slog.Attr {
	return append(controlAttributes(v.Control),
		slog.String("control", v.Control.ID), slog.String("verdict", v.Status.String()))
}

// controlAttributes has the numbers of a control; nothing for the zero value.
func controlAttributes(c control.Control) []slog.Attr {
	if c.ID == "" {
		return nil
	}
	return []slog.Attr{slog.Any("controls", c.RefIDs())}
}

func findingAttributes(f finding.Result) []slog.Attr {
	attributes := []slog.Attr{
		slog.String("reason", string(f.Reason)),
		slog.String("severity", f.Outcome.Severity()),
	}
	c, _ := control.Of(f.Requirement)
	return append(append(attributes, controlAttributes(c)...),
		slog.String("location", f.Subject.String()),
		slog.String("message", f.Message),
		slog.String("remedy", f.Remedy))
}

func levelOf(f finding.Result) slog.Level {
	if f.Outcome == finding.Fail {
		return slog.LevelError
	}
	return slog.LevelWarn
}
