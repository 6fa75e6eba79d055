// SPDX-License-Identifier: Apache-2.0

package report

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pki"
)

const (
	// MaxPending bounds the Events that wait for the API server. When it is
	// reached the oldest one is given up, and that is logged.
	MaxPending = 1000
	// maxNote is the API server's bound on a note (Kubernetes
	// pkg/apis/core/validation/events.go, NoteLengthLimit).
	maxNote = 1024
	// drainTime is how long delivery goes on after the end was asked for.
	drainTime = 3 * time.Second
)

// EventAPI is what Events need of the API server.
type EventAPI interface {
	// CreateEvent stores an Event.
	CreateEvent(ctx context.Context, event *eventsv1.Event) error
	// NodeUID looks a Node's UID up: an agent knows its node by name only.
	NodeUID(ctx context.Context, node string) (types.UID, error)
}

// Events delivers notices as Events of events.k8s.io/v1: in order, at least
// once while the process lives, through an API server that is away. [NewEvents]
// makes one; [Events.Run] must run.
type Events struct {
	api      EventAPI
	log      *slog.Logger
	reporter string // reportingController
	instance string // reportingInstance
	pending  chan eventsv1.Event
	sequence atomic.Int64
}

// NewEvents returns a teller of Events. reporter is a qualified name such as
// "kubelet-https-guard.io/nodeagent", instance the Pod or node it runs on.
func NewEvents(api EventAPI, log *slog.Logger, reporter, instance string) *Events {
	return &Events{
		api: api, log: log, reporter: reporter, instance: instance,
		pending: make(chan eventsv1.Event, MaxPending),
	}
}

// Tell implements [Teller]. It never blocks.
func (e *Events) Tell(_ context.Context, n Notice) {
	if n.Request != nil && n.Request.DryRun {
		return
	}
	event := e.event(n)
	for {
		select {
		case e.pending <- event:
			return
		default:
		}
		select {
		case oldest := <-e.pending:
			e.log.Error("Event given up, too many wait for the API server", "reason", oldest.Reason, "message", oldest.Note)
		default: // it was delivered in the meantime
		}
	}
}

// Run delivers until the context ends, and then for [drainTime] more what
// still waits.
func (e *Events) Run(ctx context.Context) error {
	for {
		select {
		case event := <-e.pending:
			e.deliver(ctx, event)
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
			defer cancel()
			for len(e.pending) > 0 && last.Err() == nil {
				e.deliver(last, <-e.pending)
			}
			return nil
		}
	}
}

// deliver tries until the Event is stored, the API server will never take it,
// or the context ends. The first failure is logged, and the success after it.
func (e *Events) deliver(ctx context.Context, event eventsv1.Event) {
	backoff := wait.Backoff{Duration: 250 * time.Millisecond, Factor: 2, Jitter: 0.2, Steps: 1 << 30, Cap: 30 * time.Second}
	failed := false
	for {
		err := e.attempt(ctx, &event)
		if err == nil {
			if failed {
				e.log.Info("Event delivered after all", "reason", event.Reason)
			}
			return
		}
		if apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) {
			e.log.Error("Event given up, the API server will never take it", "reason", event.Reason, "message", event.Note, "err", err)
			return
		}
		if !failed {
			e.log.Warn("Event not delivered, trying again", "reason", event.Reason, "err", err)
		}
		failed = true
		select {
		case <-ctx.Done():
			return
		case <-time.After(backoff.Step()):
		}
	}
}

func (e *Events) attempt(ctx context.Context, event *eventsv1.Event) error {
	if node := &event.Regarding; node.UID == "" && node.Kind == "Node" {
		uid, err := e.api.NodeUID(ctx, node.Name)
		if err != nil {
			return fmt.Errorf("look up the UID of Node %s: %w", node.Name, err)
		}
		node.UID = uid
	}
	err := e.api.CreateEvent(ctx, event)
	if apierrors.IsAlreadyExists(err) {
		return nil // an earlier attempt got through, its answer did not
	}
	return err
}

// event translates a notice.
func (e *Events) event(n Notice) eventsv1.Event {
	kind, reason, note := n.words()
	namespace := n.Object.Namespace
	if namespace == "" {
		namespace = metav1.NamespaceDefault // as for all Events on Nodes
	}
	return eventsv1.Event{
		TypeMeta: metav1.TypeMeta{APIVersion: "events.k8s.io/v1", Kind: "Event"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace,
			// Unique among all that this process tells, and the same in every
			// attempt to deliver it.
			Name: fmt.Sprintf("%s.%x.%x", n.Object.Name, n.At.UnixNano(), e.sequence.Add(1)),
		},
		EventTime:           metav1.NewMicroTime(n.At),
		ReportingController: e.reporter,
		ReportingInstance:   e.instance,
		Action:              n.action(),
		Reason:              reason,
		Type:                kind,
		Note:                cut(note, maxNote),
		Regarding: corev1.ObjectReference{
			APIVersion: n.Object.APIVersion, Kind: n.Object.Kind,
			Namespace: n.Object.Namespace, Name: n.Object.Name, UID: types.UID(n.Object.UID),
		},
	}
}

// action is what the guard did: the Events API wants one word.
func (n Notice) action() string {
	switch n.What {
	case RequestDenied:
		return "Deny"
	case RequestByBreakGlass:
		return "Allow"
	case FindingRaised, FindingCleared, FindingStands, CertificateRotated, Verified, NotVerified:
		return "Check"
	}
	return "Check"
}

// words are an Event's type, reason and note.
func (n Notice) words() (kind, reason, note string) {
	f := n.Finding
	switch n.What {
	case FindingRaised, FindingStands:
		kind = corev1.EventTypeWarning
		if f.Severity() == finding.Info {
			kind = corev1.EventTypeNormal
		}
		still := ""
		if n.What == FindingStands {
			still = "Still: "
		}
		return kind, string(f.Reason), fmt.Sprintf("%s%s: %s. To do: %s. Control: %s", still, f.Location, f.Message, f.Remedy, finding.ControlsText)
	case FindingCleared:
		return corev1.EventTypeNormal, string(f.Reason), fmt.Sprintf("Cleared: %s no longer stands at %s. It was: %s. Control: %s", f.Reason, f.Location, f.Message, finding.ControlsText)
	case CertificateRotated:
		return corev1.EventTypeNormal, "CertificateRotated", fmt.Sprintf("%s: new certificate, %s", n.CertificateAt, describe(n.Certificate))
	case Verified:
		note = "Control holds: " + finding.ControlsText
		if n.Certificate != nil {
			note += "; " + string(n.CertificateAt) + ", " + describe(n.Certificate)
		}
		return corev1.EventTypeNormal, "Verified", note
	case NotVerified:
		return corev1.EventTypeWarning, "NotVerified", fmt.Sprintf("Control %s: %s, because of %s", finding.ControlsText, n.Verdict, reasonsOf(n.Standing))
	case RequestDenied, RequestByBreakGlass:
		return corev1.EventTypeWarning, string(f.Reason), fmt.Sprintf("%s (%s by %s): %s", n.What, n.Request.Operation, n.Request.User, n.Request.Message)
	}
	return corev1.EventTypeWarning, "Unknown", string(n.What)
}

// describe tells of a certificate what is no secret.
func describe(c *x509.Certificate) string {
	return fmt.Sprintf("valid from %s to %s, serial %x, SHA-256 %s",
		c.NotBefore.UTC().Format(time.RFC3339), c.NotAfter.UTC().Format(time.RFC3339), c.SerialNumber, pki.Fingerprint(c))
}

// reasonsOf lists what keeps a verdict from being compliant.
func reasonsOf(findings []finding.Finding) string {
	var list string
	for _, f := range findings {
		if s := f.Severity(); s != finding.Violation && s != finding.Unverified {
			continue
		}
		if list != "" {
			list += ", "
		}
		list += string(f.Reason) + " (" + string(f.Location) + ")"
	}
	return list
}

// cut shortens a text to a number of bytes, between two characters.
func cut(text string, most int) string {
	if len(text) <= most {
		return text
	}
	const mark = "…"
	text = text[:most-len(mark)]
	for !utf8.ValidString(text) {
		text = text[:len(text)-1]
	}
	return text + mark
}
