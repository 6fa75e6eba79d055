// SPDX-License-Identifier: Apache-2.0

// Package audit checks the stored objects. So it finds what admission cannot see:
// objects that were wrong before the guard was installed, writes of the renewers
// (API servers do not ask the webhook about them), changes made while the guard
// was unavailable, and changes of the guard itself.
//
// It watches only the few objects that it needs, each by name, and changes none.
package audit

import (
	"context"
	"log/slog"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/report"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/tracker"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/admit"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/follow"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/served"
)

const (
	// resync is the longest time between two checks, even if nothing changes.
	resync = 30 * time.Second
	// minInterval is the shortest time between two checks, however often objects change. It is longer if a check takes
	// long: at most one part in busyParts of the time is spent on checks.
	minInterval, busyParts = 100 * time.Millisecond, 3
)

// Subject is what the audit checks.
type Subject struct {
	Secrets []admit.ProtectedSecret
	// OverridesAction is what admission does with overrides of the kube-apiserver's
	// configuration that break the control.
	OverridesAction admit.Action
	// Guard are the objects that register the guard with the API server, as they
	// were installed.
	Guard []*unstructured.Unstructured
	// GuardPatience is how long they must differ from that before it is reported. An
	// upgrade changes the objects and the manifests one after the other.
	GuardPatience time.Duration
}

// Meter counts the checks and receives the certificates that each of them read.
type Meter interface {
	Audited(certificates []tracker.Certificate)
}

// Kubelets has results about the kubelets of all Nodes.
type Kubelets interface {
	// Results returns the last results, at least one for each requirement.
	Results() []finding.Result
	// UID returns the UID of a Node, empty if it is not known.
	UID(node string) string
}

// Served asks the endpoints of Services which certificate they serve.
type Served interface {
	// Ask sets the Services to ask.
	Ask(targets []served.Target)
	// Answers returns the last answers. Targets that were not asked recently are missing.
	Answers() map[served.Target]check.ServedAnswers
}

// Auditor checks the objects of its subject whenever one changes, and reports.
type Auditor struct {
	Client dynamic.Interface
	// Subject returns the current subject; it may change at any time.
	Subject func() Subject
	// Reporter receives a notice of each change of a finding or verdict.
	Reporter report.Reporter
	Meter    Meter
	// Effects returns what each API server refused in the last dry runs; nil if no dry runs are made.
	Effects func() []check.Effect
	// Kubelets has the last results about the kubelets of all Nodes; nil if they are not checked.
	Kubelets Kubelets
	// Served has what the endpoints of the Secrets' Services serve; nil if they are not asked. ServedPatience is how long
	// they must serve another certificate before it is reported.
	Served         Served
	ServedPatience time.Duration
	// Self is the object of notices about verdicts, which concern more than one object.
	Self report.Object
	Now  func() time.Time
	Log  *slog.Logger
}

// Run audits until the context ends. It also reports the findings that are active
// when it starts.
func (a *Auditor) Run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	tracked := tracker.New(storedPatience)
	changed := make(chan struct{}, 1)
	followers := map[follow.Object]*follow.Follower{}
	var remembered memory
	stops := map[follow.Object]context.CancelFunc{}
	tick := time.NewTicker(resync)
	defer tick.Stop()
	for {
		began := time.Now()
		subject := a.Subject()
		wanted := map[follow.Object]bool{}
		for _, o := range objectsOf(subject) {
			wanted[o] = true
			if followers[o] == nil {
				var following context.Context
				following, stops[o] = context.WithCancel(ctx)
				followers[o] = follow.Start(following, a.Client, o, changed, a.Log)
			}
		}
		for o := range followers {
			if !wanted[o] {
				stops[o]()
				delete(stops, o)
				delete(followers, o)
			}
		}
		states := make(map[follow.Object]follow.State, len(followers))
		for o, f := range followers {
			states[o] = f.State()
		}

		seen := remembered.observe(subject, states, a.effects(), a.kubelets(), a.served(), a.Now())
		remembered = seen.remembered
		if a.Served != nil {
			a.Served.Ask(seen.targets)
		}
		changes := tracked.Observe(seen.Observation)
		for _, notice := range changes.Notices {
			notice.Object = a.objectOf(notice, &seen)
			a.Reporter.Report(ctx, notice)
		}
		a.Meter.Audited(seen.Certificates)
		pause := max(minInterval, (busyParts-1)*time.Since(began))

		var due <-chan time.Time
		if !changes.NextChange.IsZero() {
			due = time.After(max(changes.NextChange.Sub(a.Now()), minInterval))
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
		case <-time.After(pause):
		}
	}
}

func (a *Auditor) effects() []check.Effect {
	if a.Effects == nil {
		return nil
	}
	return a.Effects()
}

func (a *Auditor) kubelets() []finding.Result {
	if a.Kubelets == nil {
		return nil
	}
	return a.Kubelets.Results()
}

func (a *Auditor) served() *servedAnswers {
	if a.Served == nil {
		return nil
	}
	return &servedAnswers{of: a.Served.Answers(), patience: a.ServedPatience}
}

// objectOf returns the object that a notice is about.
func (a *Auditor) objectOf(n report.Notice, seen *observation) report.Object {
	subject := n.Finding.Subject
	if n.Type == report.CertificateRotated {
		subject = n.CertificateAt
	}
	if o, ok := seen.objectOf(subject); ok {
		return o
	}
	if subject.Kind == finding.KindNode && subject.Name != "" && a.Kubelets != nil {
		// Without its UID, an Event would not belong to the Node, and may belong to another Node of that name.
		if uid := a.Kubelets.UID(subject.Name); uid != "" {
			return report.Object{APIVersion: "v1", Kind: finding.KindNode, Name: subject.Name, UID: uid}
		}
	}
	return a.Self
}
