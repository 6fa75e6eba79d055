// SPDX-License-Identifier: Apache-2.0

package report

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
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
	// drainTime is how long delivery goes on after the end was asked for.
	drainTime = 3 * time.Second
	// firstRetry and lastRetry bound the time between two attempts.
	firstRetry, lastRetry = 250 * time.Millisecond, 30 * time.Second

	// The API server's bounds on a note, on reportingInstance (Kubernetes
	// pkg/apis/core/validation/events.go, NoteLengthLimit and
	// ReportingInstanceLengthLimit) and on a name (apimachinery
	// pkg/util/validation, DNS1123SubdomainMaxLength), in bytes.
	maxNote, maxInstance, maxName = 1024, 128, 253
)

// EventAPI is what Events need of the API server.
type EventAPI interface {
	// CreateEvent stores an Event.
	CreateEvent(ctx context.Context, event *eventsv1.Event) error
	// NodeUID looks a Node's UID up: an agent knows its node by name only.
	NodeUID(ctx context.Context, node string) (types.UID, error)
}

// Events delivers notices as Events of events.k8s.io/v1: in each namespace in
// order, at least once while the process lives, through an API server that is
// away or refuses: rights may come after the Pod, and be lost for a while. A
// namespace that refuses holds up no other. [NewEvents] makes one; [Events.Run]
// must run.
//
// Refusals of requests that are alike and still wait become one Event with a
// count. Findings never do: their order is the state.
type Events struct {
	api      EventAPI
	log      *slog.Logger
	reporter string // reportingController
	instance string // reportingInstance
	sequence atomic.Int64

	mu      sync.Mutex
	pending []*pendingEvent
	more    chan struct{} // a value after something was added

	delivered, givenUp atomic.Uint64
	// Of Run alone: failing, the API server is away, which was told; holds, by
	// namespace, until when it is left alone after it has refused an Event.
	failing bool
	holds   map[string]*hold
}

// hold is a namespace that refuses Events.
type hold struct {
	until   time.Time
	backoff wait.Backoff
}

// pendingEvent is an Event that waits.
type pendingEvent struct {
	eventsv1.Event
	// alike is the same for notices that may be counted together; empty for
	// those that never are. It is emptied when delivery begins.
	alike string
	// underWay: delivery has begun.
	underWay bool
}

// NewEvents returns a teller of Events. reporter is a qualified name such as
// "kubelet-https-guard.io/nodeagent", instance the Pod or node it runs on.
func NewEvents(api EventAPI, log *slog.Logger, reporter, instance string) *Events {
	return &Events{
		api: api, log: log, reporter: reporter, instance: cut(instance, maxInstance),
		more: make(chan struct{}, 1), holds: map[string]*hold{},
	}
}

// Tell implements [Teller]. It never blocks.
func (e *Events) Tell(_ context.Context, n Notice) {
	if n.Request != nil && n.Request.DryRun {
		return
	}
	added := &pendingEvent{Event: e.event(n)}
	if n.Request != nil {
		added.alike = fmt.Sprintf("%s\n%+v\n%s\n%s", n.What, n.Object, added.Reason, added.Note)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if added.alike != "" {
		for _, waiting := range e.pending {
			if waiting.alike == added.alike {
				waiting.count(n.At)
				return
			}
		}
	}
	if len(e.pending) >= MaxPending {
		i := slices.IndexFunc(e.pending, func(p *pendingEvent) bool { return !p.underWay })
		oldest := e.pending[i]
		e.pending = slices.Delete(e.pending, i, i+1)
		e.giveUp(oldest, errors.New("too many wait for the API server"))
	}
	e.pending = append(e.pending, added)
	select {
	case e.more <- struct{}{}:
	default: // one is waiting already
	}
}

// count adds one more occurrence.
func (p *pendingEvent) count(at time.Time) {
	if p.Series == nil {
		p.Series = &eventsv1.EventSeries{Count: 1}
	}
	p.Series.Count++
	p.Series.LastObservedTime = metav1.NewMicroTime(at)
}

// next is the oldest Event of a namespace that is not left alone now; nil where
// there is none, and then again is when a namespace may be tried again.
func (e *Events) next(now time.Time) (event *pendingEvent, again time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, p := range e.pending {
		if h := e.holds[p.Namespace]; h != nil && h.until.After(now) {
			if again.IsZero() || h.until.Before(again) {
				again = h.until
			}
			continue
		}
		p.alike, p.underWay = "", true
		return p, time.Time{}
	}
	return nil, again
}

// settle removes an Event that was delivered or given up.
func (e *Events) settle(event *pendingEvent) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.pending = slices.DeleteFunc(e.pending, func(p *pendingEvent) bool { return p == event })
}

// Run delivers until the context ends, and then for [drainTime] more what
// still waits.
func (e *Events) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		event, again := e.next(time.Now())
		if event != nil {
			e.deliver(ctx, event)
			continue
		}
		var due <-chan time.Time
		if !again.IsZero() {
			due = time.After(time.Until(again))
		}
		select {
		case <-e.more:
		case <-due:
		case <-ctx.Done():
		}
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
	defer cancel()
	// What was told before the end may come before its time.
	e.holds = map[string]*hold{}
	begin := time.Now()
	for event, _ := e.next(begin); event != nil && last.Err() == nil; event, _ = e.next(begin) {
		e.deliver(last, event)
	}
	if left := e.waiting(); left > 0 {
		e.log.Error("Ended with Events not delivered", "count", left)
	}
	return nil
}

func (e *Events) waiting() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.pending)
}

func (e *Events) giveUp(event *pendingEvent, why error) {
	e.givenUp.Add(1)
	e.log.Error("Event given up", "reason", event.Reason, "message", event.Note, "err", why)
}

// deliver tries until the Event is stored, given up or refused, or the context
// ends. The first failure is logged, and the success after it.
func (e *Events) deliver(ctx context.Context, event *pendingEvent) {
	backoff := retries()
	for {
		err := e.attempt(ctx, &event.Event)
		if err == nil {
			if e.failing || e.holds[event.Namespace] != nil {
				e.log.Info("Events are delivered again", "namespace", event.Namespace)
			}
			e.failing = false
			delete(e.holds, event.Namespace)
			e.delivered.Add(1)
			e.settle(event)
			return
		}
		verdict := verdictOf(err)
		if verdict == never {
			e.giveUp(event, err)
			e.settle(event)
			return
		}
		if verdict == away && ctx.Err() != nil {
			return // which may be why it failed
		}
		h := e.holds[event.Namespace]
		if !e.failing && h == nil {
			e.log.Warn("Event not delivered, trying again", "namespace", event.Namespace, "reason", event.Reason, "err", err)
		}
		if verdict == refusal {
			if h == nil {
				h = &hold{backoff: retries()}
				e.holds[event.Namespace] = h
			}
			h.until = time.Now().Add(h.backoff.Step())
			return
		}
		e.failing = true
		pause := backoff.Step()
		if seconds, ok := apierrors.SuggestsClientDelay(err); ok {
			pause = min(max(pause, time.Duration(seconds)*time.Second), lastRetry)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// retries are the pauses between attempts.
func retries() wait.Backoff {
	return wait.Backoff{Duration: firstRetry, Factor: 2, Jitter: 0.2, Steps: 1 << 30, Cap: lastRetry}
}

// failure is what an API server's error means for an Event.
type failure int

const (
	// away: the server is not there, overloaded or broken; it will be back.
	away failure = iota
	// refusal: it will not have it now, nor others in its namespace; somebody may
	// mend that.
	refusal
	// never: it will not have this Event, ever.
	never
)

func verdictOf(err error) failure {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return away
	}
	switch code := status.Status().Code; code {
	case http.StatusBadRequest, http.StatusUnprocessableEntity, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType:
		return never
	case http.StatusUnauthorized, http.StatusRequestTimeout, http.StatusTooManyRequests:
		return away
	default:
		if code >= 400 && code < 500 {
			return refusal
		}
		return away
	}
}

// Describe implements [prometheus.Collector].
func (e *Events) Describe(descriptions chan<- *prometheus.Desc) {
	prometheus.DescribeByCollect(e, descriptions)
}

// Collect implements [prometheus.Collector].
func (e *Events) Collect(metrics chan<- prometheus.Metric) {
	show := func(name, help string, kind prometheus.ValueType, value float64) {
		metrics <- prometheus.MustNewConstMetric(prometheus.NewDesc("kubelet_https_guard_events_"+name, help, nil, nil), kind, value)
	}
	show("delivered_total", "Events that the API server has stored.", prometheus.CounterValue, float64(e.delivered.Load()))
	show("given_up_total", "Events that were given up: refused, or too many.", prometheus.CounterValue, float64(e.givenUp.Load()))
	show("pending", "Events that wait for the API server.", prometheus.GaugeValue, float64(e.waiting()))
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
			Name: eventName(n.Object.Name, fmt.Sprintf(".%x.%x", n.At.UnixNano(), e.sequence.Add(1))),
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

// eventName is the object's name with a suffix, within the API server's bound.
// A name that is cut must not end in what is no letter or digit there.
func eventName(object, suffix string) string {
	if most := maxName - len(suffix); len(object) > most {
		object = strings.TrimRight(object[:most], ".-")
	}
	return object + suffix
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
	text = strings.ToValidUTF8(text, "\uFFFD") // a path may be anything
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
