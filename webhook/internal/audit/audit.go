// SPDX-License-Identifier: Apache-2.0

// Package audit looks at what is stored: at what was bad before the guard came,
// at what who renews writes without being asked, at what changed while nobody
// was there, and at the guard itself.
//
// It follows the few objects that this takes, by their names, and nothing else;
// it changes nothing.
package audit

import (
	"context"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/report"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/follow"
)

const (
	// resync is the time after which it looks in any case.
	resync = 30 * time.Second
	// shortest bounds how often it looks, whatever is written.
	shortest = 100 * time.Millisecond
)

// Secret is one that is audited.
type Secret struct {
	// SecretExpectation has no Roots if Bundle has them.
	check.SecretExpectation
	// Bundle has the CAs that its certificate must lead to, if it is not nil.
	Bundle *Bundle
}

// Bundle is a CA bundle under a key of a ConfigMap.
type Bundle struct{ Namespace, Name, Key string }

// Subject is what is audited.
type Subject struct {
	Secrets []Secret
	// Guard are the objects by which the API server knows of the guard, as they
	// were installed.
	Guard []*unstructured.Unstructured
	// GuardPatience is how long they must differ from that to be told of. An
	// upgrade changes them and what they are compared with one after the other.
	GuardPatience time.Duration
}

// Meter is told of every look.
type Meter interface {
	Audited(certificates []report.Certificate)
}

// Auditor audits.
type Auditor struct {
	Client dynamic.Interface
	// Subject of now; it may change.
	Subject func() Subject
	// Teller is told of every edge.
	Teller report.Teller
	Meter  Meter
	// Self is what summaries are about: the verdict is on more than one object.
	Self report.Object
	Now  func() time.Time
}

// Run audits until the context ends. What stands when it begins is told, as
// after every start.
func (a *Auditor) Run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ledger := report.NewLedger(settle)
	changed := make(chan struct{}, 1)
	followers := map[follow.Object]*follow.Follower{}
	stops := map[follow.Object]context.CancelFunc{}
	told := map[finding.ID]report.Object{} // what each finding that was told is about
	tick := time.NewTicker(resync)
	defer tick.Stop()
	for {
		subject := a.Subject()
		wanted := objectsOf(subject)
		for _, o := range wanted {
			if followers[o] == nil {
				var following context.Context
				following, stops[o] = context.WithCancel(ctx)
				followers[o] = follow.Start(following, a.Client, o, changed)
			}
		}
		for o := range followers {
			if !slices.Contains(wanted, o) {
				stops[o]()
				delete(stops, o)
				delete(followers, o)
			}
		}
		states := make(map[follow.Object]follow.State, len(followers))
		for o, f := range followers {
			states[o] = f.State()
		}

		seen := look(subject, states, a.Now())
		observed := ledger.Observe(seen.Look)
		for _, notice := range observed.Notices {
			notice.Object = a.regarding(notice, seen.about, told)
			a.Teller.Tell(ctx, notice)
		}
		a.Meter.Audited(seen.Certificates)

		var due <-chan time.Time
		if !observed.Again.IsZero() {
			due = time.After(max(observed.Again.Sub(a.Now()), shortest))
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-tick.C:
		case <-due:
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(shortest):
		}
	}
}

// regarding is the object that a notice is about, and keeps for how long that
// must be known: what is cleared is not in the look any more.
func (a *Auditor) regarding(n report.Notice, about, told map[finding.ID]report.Object) report.Object {
	id := n.Finding.ID()
	switch n.What {
	case report.FindingRaised:
		told[id] = about[id]
		return about[id]
	case report.FindingStands:
		return told[id]
	case report.FindingCleared:
		defer delete(told, id)
		return told[id]
	case report.CertificateRotated:
		return about[finding.ID{Location: n.CertificateAt}]
	case report.Verified, report.NotVerified, report.RequestDenied, report.RequestByBreakGlass:
	}
	return a.Self
}
