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

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/control"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pki"
)

const (
	// MaxPending bounds the Events that wait for the API server. If it is exceeded, one
	// Event is given up, which is logged and counted: see [Events].
	MaxPending = 1000
	// drainTime is how long delivery continues after the context has ended.
	drainTime = 3 * time.Second
	// firstRetry and lastRetry are the shortest and longest time between two attempts.
	firstRetry, lastRetry = 250 * time.Millisecond, 30 * time.Second

	// The API server's limits in bytes: on note and reportingInstance (Kubernetes
	// pkg/apis/core/validation/events.go, NoteLengthLimit and
	// ReportingInstanceLengthLimit), and on a name (apimachinery
	// pkg/util/validation, DNS1123SubdomainMaxLength).
	maxNote, maxInstance, maxName = 1024, 128, 253
)

// EventAPI is what Events need of the API server.
type EventAPI interface {
	// CreateEvent stores an Event.
	CreateEvent(ctx context.Context, event *eventsv1.Event) error
	// NodeUID returns a Node's UID: an agent knows only the name of its node.
	NodeUID(ctx context.Context, node string) (types.UID, error)
}

// Events delivers notices as Events of events.k8s.io/v1: in order for each namespace, and
// at least once while the process runs. It retries while the API server is unavailable or
// refuses: permissions may come after the Pod, and be missing for a while. A namespace that
// refuses Events does not delay others. [NewEvents] makes one; [Events.Run] must run.
//
// Equal refusals of requests that are still waiting become one Event with a count. Findings
// do not, because their order is the state.
//
// If more than [MaxPending] wait, a reminder of a finding is given up first, because another
// one follows within the hour. Then it is the oldest Event of the larger group: requests, or
// all others. So a client that causes many different refusals cannot displace findings, and
// findings cannot displace refusals.
type Events struct {
	api      EventAPI
	log      *slog.Logger
	reporter string // reportingController
	instance string // reportingInstance
	sequence atomic.Int64

	mu      sync.Mutex
	pending []*pendingEvent
	more    chan struct{} // receives a value after an Event was added

	delivered, givenUp atomic.Uint64
	// Only Run uses these. failing: the API server is unavailable, which was logged.
	// paused: the namespaces that refuse Events.
	failing bool
	paused  map[string]*pause
}

// pause is the state of a namespace that refuses Events.
type pause struct {
	until   time.Time // no attempt before this
	backoff wait.Backoff
}

// pendingEvent is an Event that waits.
type pendingEvent struct {
	eventsv1.Event
	// mergeKey is the same for notices that may be counted together. It is empty for the
	// others, and after delivery has begun.
	mergeKey string
	// delivering is true after delivery has begun.
	delivering bool
	// reminder: another one follows within the hour. request: it is about a request.
	reminder, request bool
}

// NewEvents returns a reporter of Events. reporter is a qualified name such as
// "kubelet-https-guard.io/nodeagent", instance the Pod or node it runs on.
func NewEvents(api EventAPI, log *slog.Logger, reporter, instance string) *Events {
	return &Events{
		api: api, log: log, reporter: reporter, instance: cut(instance, maxInstance),
		more: make(chan struct{}, 1), paused: map[string]*pause{},
	}
}

// Report implements [Reporter]. It never blocks.
func (e *Events) Report(_ context.Context, n Notice) {
	if n.Request != nil && n.Request.DryRun {
		return
	}
	added := &pendingEvent{Event: e.event(n), reminder: n.Type == FindingStillActive, request: n.Request != nil}
	if n.Request != nil {
		added.mergeKey = fmt.Sprintf("%s\n%+v\n%s\n%s", n.Type, n.Object, added.Reason, added.Note)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if added.mergeKey != "" {
		for _, waiting := range e.pending {
			if waiting.mergeKey == added.mergeKey {
				waiting.count(n.At)
				return
			}
		}
	}
	e.pending = append(e.pending, added)
	if len(e.pending) > MaxPending {
		i := e.leastImportant()
		p := e.pending[i]
		e.pending = slices.Delete(e.pending, i, i+1)
		e.giveUp(p, fmt.Errorf("more than %d Events wait for the API server", MaxPending))
	}
	select {
	case e.more <- struct{}{}:
	default: // a value is waiting already
	}
}

// leastImportant returns the index of the Event to give up if too many wait. The lock must be
// held. At most one Event is being delivered, and it is kept.
func (e *Events) leastImportant() int {
	requests, others := 0, 0
	for _, p := range e.pending {
		if p.request {
			requests++
		} else {
			others++
		}
	}
	first := func(is func(*pendingEvent) bool) int {
		return slices.IndexFunc(e.pending, func(p *pendingEvent) bool { return !p.delivering && is(p) })
	}
	if i := first(func(p *pendingEvent) bool { return p.reminder }); i >= 0 {
		return i
	}
	return first(func(p *pendingEvent) bool { return p.request == (requests > others) })
}

// count adds one more occurrence.
func (p *pendingEvent) count(at time.Time) {
	if p.Series == nil {
		p.Series = &eventsv1.EventSeries{Count: 1}
	}
	p.Series.Count++
	p.Series.LastObservedTime = metav1.NewMicroTime(at)
}

// next returns the oldest Event of a namespace that is not paused. If all are paused, event is
// nil, and again is when a namespace may be tried again.
func (e *Events) next(now time.Time) (event *pendingEvent, again time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, p := range e.pending {
		if h := e.paused[p.Namespace]; h != nil && h.until.After(now) {
			if again.IsZero() || h.until.Before(again) {
				again = h.until
			}
			continue
		}
		p.mergeKey, p.delivering = "", true
		return p, time.Time{}
	}
	return nil, again
}

// remove removes an Event that was delivered or given up.
func (e *Events) remove(event *pendingEvent) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.pending = slices.DeleteFunc(e.pending, func(p *pendingEvent) bool { return p == event })
}

// Run delivers Events until the context ends. Then it delivers what still waits, for at most
// [drainTime].
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
	// Try each waiting Event once more, also in paused namespaces.
	e.paused = map[string]*pause{}
	begin := time.Now()
	for event, _ := e.next(begin); event != nil && last.Err() == nil; event, _ = e.next(begin) {
		e.deliver(last, event)
	}
	if left := e.waiting(); left > 0 {
		e.log.Error("Stopped before all Events were delivered", "count", left)
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
	e.log.Error("Giving up on Event", "reason", event.Reason, "message", event.Note, "err", why)
}

// deliver tries until the Event is stored, given up or refused, or the context ends. It logs
// the first failure, and the first success after it.
func (e *Events) deliver(ctx context.Context, event *pendingEvent) {
	backoff := retries()
	for {
		err := e.attempt(ctx, &event.Event)
		if err == nil {
			if e.failing || e.paused[event.Namespace] != nil {
				e.log.Info("Events are delivered again", "namespace", event.Namespace)
			}
			e.failing = false
			delete(e.paused, event.Namespace)
			e.delivered.Add(1)
			e.remove(event)
			return
		}
		kind := classify(err)
		if kind == rejected {
			e.giveUp(event, err)
			e.remove(event)
			return
		}
		if kind == unavailable && ctx.Err() != nil {
			return // it may have failed because of this
		}
		h := e.paused[event.Namespace]
		if !e.failing && h == nil {
			e.log.Warn("Event not delivered, trying again", "namespace", event.Namespace, "reason", event.Reason, "err", err)
		}
		if kind == refused {
			if h == nil {
				h = &pause{backoff: retries()}
				e.paused[event.Namespace] = h
			}
			h.until = time.Now().Add(h.backoff.Step())
			return
		}
		e.failing = true
		delay := backoff.Step()
		if seconds, ok := apierrors.SuggestsClientDelay(err); ok {
			delay = min(max(delay, time.Duration(seconds)*time.Second), lastRetry)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(delay):
		}
	}
}

// retries returns the delays between attempts.
func retries() wait.Backoff {
	return wait.Backoff{Duration: firstRetry, Factor: 2, Jitter: 0.2, Steps: 1 << 30, Cap: lastRetry}
}

// failure is what an API server's error means for an Event.
type failure int

const (
	// unavailable: the server does not answer, is overloaded or fails. Try again.
	unavailable failure = iota
	// refused: the server refuses all Events in the namespace, until somebody fixes this.
	// Try again, with other namespaces first.
	refused
	// rejected: the server will never accept this Event. Give it up.
	rejected
)

func classify(err error) failure {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return unavailable
	}
	switch code := status.Status().Code; code {
	case http.StatusBadRequest,
		http.StatusUnprocessableEntity,
		http.StatusRequestEntityTooLarge,
		http.StatusUnsupportedMediaType:
		return rejected
	case http.StatusUnauthorized, http.StatusRequestTimeout, http.StatusTooManyRequests:
		return unavailable
	default:
		if code >= 400 && code < 500 {
			return refused
		}
		return unavailable
	}
}

// Describe implements [prometheus.Collector].
func (e *Events) Describe(descriptions chan<- *prometheus.Desc) {
	prometheus.DescribeByCollect(e, descriptions)
}

// Collect implements [prometheus.Collector].
func (e *Events) Collect(metrics chan<- prometheus.Metric) {
	export := func(name, help string, kind prometheus.ValueType, value float64) {
		description := prometheus.NewDesc("kubelet_https_guard_events_"+name, help, nil, nil)
		metrics <- prometheus.MustNewConstMetric(description, kind, value)
	}
	export("delivered_total", "Events that the API server has stored.",
		prometheus.CounterValue, float64(e.delivered.Load()))
	export("given_up_total", "Events that were given up: rejected, or too many were waiting.",
		prometheus.CounterValue, float64(e.givenUp.Load()))
	export("pending", "Events that wait for the API server.", prometheus.GaugeValue, float64(e.waiting()))
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
		return nil // an earlier attempt succeeded, but its response was lost
	}
	return err
}

// event converts a notice.
func (e *Events) event(n Notice) eventsv1.Event {
	kind, reason, note := n.eventText()
	namespace := n.Object.Namespace
	if namespace == "" {
		namespace = metav1.NamespaceDefault // as for all Events on Nodes
	}
	return eventsv1.Event{
		TypeMeta: metav1.TypeMeta{APIVersion: "events.k8s.io/v1", Kind: "Event"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace,
			// Unique for this process, and the same in every attempt to deliver it.
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

// eventName is the object's name with a suffix, within the API server's limit. A cut name
// must end with a letter or a digit.
func eventName(object, suffix string) string {
	if limit := maxName - len(suffix); len(object) > limit {
		object = strings.TrimRight(object[:limit], ".-")
	}
	return object + suffix
}

// action is what the guard did, in one word as the Events API requires.
func (n Notice) action() string {
	switch n.Type {
	case RequestDenied:
		return "Deny"
	case RequestByBreakGlass:
		return "Allow"
	case FindingActive,
		FindingResolved, FindingStillActive, CertificateRotated, Compliant, NotCompliant, CouldNotVerify,
		NotApplicable:
		return "Check"
	}
	return "Check"
}

// presentAtStart begins the note of an Event about what was there at the start.
const presentAtStart = "Present at start, may have been reported before: "

// eventText returns an Event's type, reason and note.
func (n Notice) eventText() (kind, reason, note string) {
	kind, reason, note = n.eventTextOfChange()
	if n.AtStart {
		note = presentAtStart + note
	}
	return kind, reason, note
}

// eventTextOfChange returns the same for what was not there at the start.
func (n Notice) eventTextOfChange() (kind, reason, note string) {
	f := n.Finding
	switch n.Type {
	case FindingActive, FindingStillActive:
		still := ""
		if n.Type == FindingStillActive {
			still = "Still active: "
		}
		note := fmt.Sprintf("%s%s: %s. Fix: %s%s", still, f.Subject, f.Message, f.Remedy, controlOf(f))
		return corev1.EventTypeWarning, string(f.Reason), note
	case FindingResolved:
		how := "is no longer found in " + f.Subject.String()
		if n.Unchecked {
			how = "is no longer checked at " + f.Subject.String() + ", so it may still exist"
		}
		note := fmt.Sprintf("Resolved: %s %s. Last message: %s%s", f.Reason, how, f.Message, controlOf(f))
		return corev1.EventTypeNormal, string(f.Reason), note
	case CertificateRotated:
		note := fmt.Sprintf("%s: new certificate, %s", n.CertificateAt, describe(n.Certificate))
		return corev1.EventTypeNormal, "CertificateRotated", note
	case Compliant:
		note = "Control compliant: " + n.Control.String()
		if n.Certificate != nil {
			note += "; " + n.CertificateAt.String() + ", " + describe(n.Certificate)
		}
		if unknown := notKnownForAll(n.Verdict); unknown != "" {
			note += "; not known for all: " + unknown
		}
		return corev1.EventTypeNormal, n.Verdict.Status.Word(), note
	case NotCompliant, CouldNotVerify:
		note := fmt.Sprintf("Control %s: %s; %s", n.Control, n.Verdict.Status, whyNotVerified(n.Verdict))
		return corev1.EventTypeWarning, n.Verdict.Status.Word(), note
	case NotApplicable:
		note := fmt.Sprintf("Control %s: %s, because %s", n.Control, n.Verdict.Status, whyNotApplicable(n.Verdict))
		return corev1.EventTypeNormal, n.Verdict.Status.Word(), note
	case RequestDenied, RequestByBreakGlass:
		note := fmt.Sprintf("%s (%s by %s): %s", n.Type, n.Request.Operation, n.Request.User, n.Request.Message)
		return corev1.EventTypeWarning, string(f.Reason), note
	}
	return corev1.EventTypeWarning, "Unknown", string(n.Type)
}

// controlOf names the control of a finding, if there is one.
func controlOf(f finding.Result) string {
	c, ok := control.Of(f.Requirement)
	if !ok {
		return ""
	}
	return ". Control: " + c.String()
}

// describe returns the public data of a certificate that identify it.
func describe(c *x509.Certificate) string {
	return fmt.Sprintf("valid from %s to %s, serial %x, SHA-256 %s",
		c.NotBefore.UTC().Format(time.RFC3339), c.NotAfter.UTC().Format(time.RFC3339), c.SerialNumber, pki.Fingerprint(c))
}

// cut shortens a text to a number of bytes, between two characters.
func cut(text string, limit int) string {
	text = strings.ToValidUTF8(text, "\uFFFD") // a path may have any bytes
	if len(text) <= limit {
		return text
	}
	const mark = "…"
	text = text[:limit-len(mark)]
	for !utf8.ValidString(text) {
		text = text[:len(text)-1]
	}
	return text + mark
}
