// SPDX-License-Identifier: Apache-2.0

// Package report tells people what happened to findings: in the log and in
// Events of Kubernetes. It decides nothing; who calls it tells it of edges
// only (a finding was raised, cleared, …), never of states.
package report

import (
	"context"
	"crypto/x509"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// What is the kind of thing that is told, in the words of the log.
type What string

// All that is told.
const (
	FindingRaised  What = "Finding raised"
	FindingCleared What = "Finding cleared"
	// FindingStands is told each hour of a finding that was raised and not
	// cleared, since Events expire.
	FindingStands       What = "Finding stands"
	CertificateRotated  What = "Certificate rotated"
	Verified            What = "Verified"
	NotVerified         What = "Not verified"
	RequestDenied       What = "Request denied"
	RequestByBreakGlass What = "Request allowed by break-glass"
)

// Notice is one thing that is told. Which fields are set depends on What.
type Notice struct {
	What What
	At   time.Time
	// Finding that was raised, was cleared, or refused a request.
	Finding finding.Finding
	// Verdict of Verified and NotVerified, and the findings it rests on.
	Verdict  finding.Verdict
	Standing []finding.Finding
	// Certificate that is there now, and where.
	Certificate   *x509.Certificate
	CertificateAt finding.Location
	// Object is what the notice is about; it is given by who tells.
	Object Object
	// Request that was refused or let through.
	Request *Request
}

// Request is what is told of an admission request.
type Request struct {
	User, Operation string
	// DryRun requests are logged, but leave no Event.
	DryRun bool
	// Message is what the API server was answered.
	Message string
}

// Object is what a notice is about.
type Object struct{ APIVersion, Kind, Namespace, Name, UID string }

// Teller is told notices. It must not block for long: an admission request
// or a scan waits for it.
type Teller interface {
	Tell(ctx context.Context, notice Notice)
}

// Tellers tells them all, in their order.
type Tellers []Teller

// Tell implements [Teller].
func (t Tellers) Tell(ctx context.Context, notice Notice) {
	for _, teller := range t {
		teller.Tell(ctx, notice)
	}
}
