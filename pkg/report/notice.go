// SPDX-License-Identifier: Apache-2.0

// Package report reports changes to people: in the log, in Kubernetes Events and in metrics.
// It decides nothing. Its callers report only changes (a finding became active, was
// resolved, …), never states.
package report

import (
	"context"
	"crypto/x509"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/control"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// NoticeType is the kind of a notice. Its text is the message in the log.
type NoticeType string

// All types of notices.
const (
	FindingActive   NoticeType = "Finding active"
	FindingResolved NoticeType = "Finding resolved"
	// FindingStillActive is reported each hour while a finding is active, since Events
	// expire.
	FindingStillActive NoticeType = "Finding still active"
	CertificateRotated NoticeType = "Certificate rotated"
	// Compliant, NotCompliant, CouldNotVerify and NotApplicable report the verdict on a
	// control when its status changes.
	Compliant           NoticeType = "Compliant"
	NotCompliant        NoticeType = "Not compliant"
	CouldNotVerify      NoticeType = "Could not verify"
	NotApplicable       NoticeType = "Not applicable"
	RequestDenied       NoticeType = "Request denied"
	RequestByBreakGlass NoticeType = "Request allowed by break-glass"
)

// NoticeTypeOf is the type of the notice that reports a status.
func NoticeTypeOf(status control.Status) NoticeType {
	switch status {
	case control.Compliant:
		return Compliant
	case control.NotCompliant:
		return NotCompliant
	case control.NotApplicable:
		return NotApplicable
	case control.CouldNotVerify:
	}
	return CouldNotVerify
}

// Notice is one change to report. Which fields are set depends on Type.
type Notice struct {
	Type NoticeType
	At   time.Time
	// Finding that became active, was resolved, or refused a request.
	Finding finding.Result
	// AtStart: the finding that became active was there when its requirement was observed first, or it is the first
	// verdict on the control. An earlier process, or an earlier leader, may have reported it.
	AtStart bool
	// Unchecked is true if a resolved finding is no longer checked, so it may still exist.
	Unchecked bool
	// Control of a verdict or of a rotated certificate. The zero value means no control.
	Control control.Control
	// Verdict of Compliant, NotCompliant, CouldNotVerify and NotApplicable.
	Verdict control.Verdict
	// Certificate that is present now, and its location.
	Certificate   *x509.Certificate
	CertificateAt finding.Subject
	// Object is what the notice is about. The caller of the tracker adds it.
	Object Object
	// Request that was refused, or allowed by break-glass.
	Request *Request
}

// Request is an admission request.
type Request struct {
	User, Operation string
	// DryRun requests are logged, but leave no Event.
	DryRun bool
	// Message is the answer to the API server.
	Message string
}

// Object is what a notice is about.
type Object struct{ APIVersion, Kind, Namespace, Name, UID string }

// Reporter delivers notices. Report must not block for long: an admission request or a
// scan waits for it.
type Reporter interface {
	Report(ctx context.Context, notice Notice)
}

// Reporters passes each notice to several reporters, in order.
type Reporters []Reporter

// Report implements [Reporter].
func (t Reporters) Report(ctx context.Context, notice Notice) {
	for _, reporter := range t {
		reporter.Report(ctx, notice)
	}
}
