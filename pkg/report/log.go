// SPDX-License-Identifier: Apache-2.0

package report

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pki"
)

// NewLogger returns the logger of a program; format is "json" or "text".
func NewLogger(w io.Writer, format string, level slog.Level) (*slog.Logger, error) {
	options := &slog.HandlerOptions{Level: level}
	switch format {
	case "json":
		return slog.New(slog.NewJSONHandler(w, options)), nil
	case "text":
		return slog.New(slog.NewTextHandler(w, options)), nil
	}
	return nil, fmt.Errorf("log format %q is neither json nor text", format)
}

// Log writes a line for each notice but [FindingStands]. The keys are a contract: reason severity
// controls location message remedy node notBefore notAfter serial sha256 user
// operation verdict.
type Log struct{ log *slog.Logger }

// NewLog returns a teller that writes to a logger.
func NewLog(log *slog.Logger) *Log { return &Log{log} }

// Tell implements [Teller].
func (l *Log) Tell(ctx context.Context, n Notice) {
	level := slog.LevelInfo
	attributes := make([]slog.Attr, 0, 16)
	switch n.What {
	case FindingStands:
		return // the log tells edges only
	case FindingRaised:
		level = levelOf(n.Finding)
		attributes = append(attributes, findingAttributes(n.Finding)...)
	case FindingCleared:
		attributes = append(attributes, findingAttributes(n.Finding)...)
	case RequestDenied, RequestByBreakGlass:
		level = slog.LevelWarn
		attributes = append(attributes, findingAttributes(n.Finding)...)
	case NotVerified:
		level = slog.LevelError
		attributes = append(attributes, slog.Any("controls", finding.Controls()), slog.String("verdict", n.Verdict.String()),
			slog.String("message", "because of "+reasonsOf(n.Standing)))
	case Verified:
		attributes = append(attributes, slog.Any("controls", finding.Controls()), slog.String("verdict", n.Verdict.String()))
	case CertificateRotated:
		attributes = append(attributes, slog.Any("controls", finding.Controls()))
	}
	if n.Object.Kind == "Node" {
		attributes = append(attributes, slog.String("node", n.Object.Name))
	}
	if c := n.Certificate; c != nil {
		attributes = append(attributes,
			slog.String("location", string(n.CertificateAt)),
			slog.String("notBefore", c.NotBefore.UTC().Format(time.RFC3339)),
			slog.String("notAfter", c.NotAfter.UTC().Format(time.RFC3339)),
			slog.String("serial", c.SerialNumber.Text(16)),
			slog.String("sha256", pki.Fingerprint(c)))
	}
	if r := n.Request; r != nil {
		attributes = append(attributes, slog.String("user", r.User), slog.String("operation", r.Operation), slog.Bool("dryRun", r.DryRun))
	}
	l.log.LogAttrs(ctx, level, string(n.What), attributes...) //nolint:sloglint // it is one of the constants of What
}

func findingAttributes(f finding.Finding) []slog.Attr {
	return []slog.Attr{
		slog.String("reason", string(f.Reason)),
		slog.String("severity", f.Severity().String()),
		slog.Any("controls", finding.Controls()),
		slog.String("location", string(f.Location)),
		slog.String("message", f.Message),
		slog.String("remedy", f.Remedy),
	}
}

func levelOf(f finding.Finding) slog.Level {
	switch f.Severity() {
	case finding.Violation:
		return slog.LevelError
	case finding.Warning, finding.Unverified:
		return slog.LevelWarn
	case finding.Info:
		return slog.LevelInfo
	}
	return slog.LevelWarn
}
