// SPDX-License-Identifier: Apache-2.0

package report_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/logging"
	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/control"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pki"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/report"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/messages"
)

func node() report.Object { return report.Object{APIVersion: "v1", Kind: "Node", Name: "master-0"} }

func keyMissing() finding.Result {
	return finding.Result{
		Requirement: "client-files/key", Subject: finding.File("/c/tls.key"), Outcome: finding.Fail,
		Reason:  finding.KeyMissing,
		Message: "there is no private key, or it is empty", Remedy: "put it there",
	}
}

// weakAddedKey is a finding of a Secret that is not part of a benchmark.
func weakAddedKey() finding.Result {
	return finding.Result{
		Requirement: "protected-secret/strength", Subject: finding.Subject{Kind: "Secret", Namespace: "shop", Name: "tls",
			Key: "tls.key"},
		Outcome: finding.Warn, Reason: finding.WeakKey, Message: "it has 1024 bits", Remedy: "issue a new one",
	}
}

// verdict judges a control by results. All other requirements are met.
func verdict(id string, scope control.Scope, results ...finding.Result) control.Verdict {
	c := control.ByID(id)
	for _, required := range c.Requirements {
		if !slices.ContainsFunc(results, func(r finding.Result) bool { return r.Requirement == required.Requirement }) {
			results = append(results, finding.Result{Requirement: required.Requirement, Outcome: finding.Pass})
		}
	}
	return c.Judge(scope, results)
}

func summary(what report.NoticeType, v control.Verdict) report.Notice {
	return report.Notice{Type: what, At: pkitest.Now(), Object: node(), Control: v.Control, Verdict: v}
}

// notCompliant fails two requirements, one of them strict. Three requirements are unknown,
// two of them for the same cause, and one has no result.
func notCompliant() report.Notice {
	c := control.Control{ID: "test", Title: "A test", Requirements: []control.Required{
		{Requirement: "client-files/key", Scopes: []control.Scope{control.Node}},
		{Requirement: "client-files/strength", Scopes: []control.Scope{control.Node}, Strict: true},
		{Requirement: "client-files/issuer", Scopes: []control.Scope{control.Node}},
		{Requirement: "client-files/identity", Scopes: []control.Scope{control.Node}},
		{Requirement: "client-files/pair", Scopes: []control.Scope{control.Node}},
		{Requirement: "client-files/usage", Scopes: []control.Scope{control.Node}},
		{Requirement: "kubelet/tls", Scopes: []control.Scope{control.Node}, Optional: true},
		{Requirement: "config/https", Scopes: []control.Scope{control.Node}},
	}}
	ca := finding.File("/c/ca.crt")
	return summary(report.NotCompliant, c.Judge(control.Node, []finding.Result{
		keyMissing(),
		{Requirement: "client-files/strength", Subject: finding.File("/c/tls.crt"), Outcome: finding.Warn, Reason: finding.WeakKey},
		{Requirement: "client-files/issuer", Subject: ca, Reason: finding.Unreadable},
		{Requirement: "client-files/issuer", Subject: ca, Reason: finding.StaleMount},
		{Requirement: "client-files/identity", Subject: ca, Reason: finding.Unreadable},
		{Requirement: "client-files/pair", Subject: ca, Reason: finding.Unreadable},
		{Requirement: "kubelet/tls", Reason: finding.NotChecked},
		{Requirement: "config/https", Outcome: finding.Pass},
	}))
}

// whyNotCompliant returns what the text of notCompliant mentions, in this order.
func whyNotCompliant() []string {
	return []string{
		"KeyMissing (/c/tls.key)", "WeakKey (/c/tls.crt)",
		"client-files/issuer (Unreadable /c/ca.crt, StaleMount /c/ca.crt)", "2 requirements (Unreadable /c/ca.crt)",
		"client-files/usage (no result)",
	}
}

// mentionsInOrder reports whether a text has all of the values in this order.
func mentionsInOrder(text string, values []string) bool {
	for _, value := range values {
		_, rest, found := strings.Cut(text, value)
		if !found {
			return false
		}
		text = rest
	}
	return true
}

// nothingToRequire is a verdict on a control that has no subject.
func nothingToRequire() control.Verdict {
	c := control.Control{ID: "test", Title: "A test", Requirements: []control.Required{
		{Requirement: "protected-secret/pair", Scopes: []control.Scope{control.Node}},
	}}
	return c.Judge(control.Node, []finding.Result{{Requirement: "protected-secret/pair", Outcome: finding.NotApplicable}})
}

// hostedControlPlane is the result if the control plane is not in the cluster.
func hostedControlPlane() finding.Result {
	return finding.Result{
		Requirement: "platform/control-plane", Outcome: finding.NotApplicable,
		Message: "the control plane is hosted outside of this cluster",
	}
}

// atStart returns a notice about what was present at start.
func atStart(n report.Notice) report.Notice {
	n.AtStart = true
	return n
}

// someNodesUnknown is a compliant verdict although the kubelet of a Node did not answer.
func someNodesUnknown() report.Notice {
	tls, trusted := finding.NodeKubelet.Requires(finding.TLS), finding.NodeKubelet.Requires(finding.ServingTrusted)
	several := finding.Subject{Kind: finding.KindNode}
	return summary(report.Compliant, verdict(control.UseHTTPS, control.Cluster,
		finding.Result{Requirement: tls, Subject: several, Outcome: finding.Pass},
		finding.Result{Requirement: tls, Subject: several, Reason: finding.NotChecked},
		finding.Result{Requirement: trusted, Subject: several, Reason: finding.NotChecked},
	))
}

func TestLog(t *testing.T) {
	page := messages.Record(t, "log of notices")
	leaf := pkitest.NewCA("signer").Issue(pkitest.KubeletClient()).Leaf
	controls := []any{"cis-ocp-1.7:1.2.4", "cis-ocp-1.8:1.2.2", "cis-ocp-1.9:1.2.2", "cis-ocp-2.0:1.2.2"}
	cases := map[string]struct {
		notice report.Notice
		want   map[string]any
	}{
		"active": {
			report.Notice{Type: report.FindingActive, Object: node(), Finding: keyMissing()},
			map[string]any{
				"level": "ERROR", "msg": string(report.FindingActive), "reason": "KeyMissing", "severity": "Violation",
				"controls": controls, "location": "/c/tls.key",
				"message": "there is no private key, or it is empty", "remedy": "put it there", "node": "master-0",
			},
		},
		"active from the start": {
			atStart(report.Notice{Type: report.FindingActive, Object: node(), Finding: keyMissing()}),
			map[string]any{
				"level": "ERROR", "msg": string(report.FindingActive), "reason": "KeyMissing", "severity": "Violation",
				"controls": controls, "location": "/c/tls.key", "atStart": true,
				"message": "there is no private key, or it is empty", "remedy": "put it there", "node": "master-0",
			},
		},
		"compliant from the start": {
			atStart(summary(report.Compliant, verdict(control.UseHTTPS, control.Node))),
			map[string]any{
				"level": "INFO", "msg": string(report.Compliant), "controls": controls, "control": "use-https",
				"verdict": "compliant", "node": "master-0", "atStart": true,
			},
		},
		"compliant, not known for all Nodes": {
			someNodesUnknown(),
			map[string]any{
				"level": "INFO", "msg": string(report.Compliant), "controls": controls, "control": "use-https",
				"verdict": "compliant", "node": "master-0", "notKnownForAll": "node-kubelet/tls (NotChecked Node)",
			},
		},
		"resolved": {
			report.Notice{Type: report.FindingResolved, Object: node(), Finding: keyMissing()},
			map[string]any{
				"level": "INFO", "msg": string(report.FindingResolved), "reason": "KeyMissing", "severity": "Violation",
				"controls": controls, "location": "/c/tls.key",
				"message": "there is no private key, or it is empty", "remedy": "put it there", "node": "master-0",
			},
		},
		"resolved, but not checked": {
			report.Notice{Type: report.FindingResolved, Object: node(), Finding: keyMissing(), Unchecked: true},
			map[string]any{
				"level": "INFO", "msg": string(report.FindingResolved), "reason": "KeyMissing", "severity": "Violation",
				"controls": controls, "location": "/c/tls.key",
				"message": "there is no private key, or it is empty", "remedy": "put it there", "unchecked": true,
				"node": "master-0",
			},
		},
		"rotated": {
			report.Notice{
				Type: report.CertificateRotated, Object: node(), Control: control.ByID(control.UseHTTPS),
				Certificate: leaf, CertificateAt: finding.File("/c/tls.crt"),
			},
			map[string]any{
				"level": "INFO", "msg": string(report.CertificateRotated), "controls": controls, "location": "/c/tls.crt",
				"node":      "master-0",
				"notBefore": "2026-11-22T11:00:00Z", "notAfter": "2026-12-22T11:00:00Z", "serial": leaf.SerialNumber.Text(16),
				"sha256": pki.Fingerprint(leaf),
			},
		},
		"a rotation of no control": {
			report.Notice{Type: report.CertificateRotated, Certificate: leaf, CertificateAt: finding.File("/c/tls.crt")},
			map[string]any{
				"level": "INFO", "msg": string(report.CertificateRotated), "location": "/c/tls.crt",
				"notBefore": "2026-11-22T11:00:00Z", "notAfter": "2026-12-22T11:00:00Z", "serial": leaf.SerialNumber.Text(16),
				"sha256": pki.Fingerprint(leaf),
			},
		},
		"a warning about an added Secret has no number of a benchmark": {
			report.Notice{Type: report.FindingActive, Finding: weakAddedKey()},
			map[string]any{
				"level": "WARN", "msg": string(report.FindingActive), "reason": "WeakKey", "severity": "Warning",
				"controls": []any{"protected-secrets"},
				"location": "Secret shop/tls tls.key", "message": "it has 1024 bits", "remedy": "issue a new one",
			},
		},
		"a finding of no control": {
			report.Notice{
				Type:    report.FindingActive,
				Finding: finding.Result{Requirement: "no/such", Reason: finding.Unreadable},
			},
			map[string]any{
				"level": "WARN", "msg": string(report.FindingActive), "reason": "Unreadable", "severity": "Unverified",
				"location": "", "message": "", "remedy": "",
			},
		},
		"compliant": {
			summary(report.Compliant, verdict(control.UseHTTPS, control.Node)),
			map[string]any{
				"level": "INFO", "msg": string(report.Compliant), "controls": controls, "control": "use-https",
				"verdict": "compliant", "node": "master-0",
			},
		},
		"not compliant": {
			notCompliant(),
			map[string]any{
				"level": "ERROR", "msg": string(report.NotCompliant), "controls": []any{"test"}, "control": "test",
				"verdict": "not compliant",
				"message": whyNotCompliant(), "node": "master-0",
			},
		},
		"could not verify": {
			summary(
				report.CouldNotVerify,
				verdict(control.GuardInForce, control.Cluster,
					finding.Result{Requirement: "guard/installed", Reason: finding.Unreadable}),
			),
			map[string]any{
				"level": "ERROR", "msg": string(report.CouldNotVerify), "controls": []any{"guard-in-force"},
				"control": "guard-in-force", "verdict": "could not verify",
				"message": []string{"guard/installed (Unreadable)"}, "node": "master-0",
			},
		},
		"not applicable": {
			summary(report.NotApplicable, verdict(control.UseHTTPS, control.Cluster, hostedControlPlane())),
			map[string]any{
				"level": "INFO", "msg": string(report.NotApplicable), "controls": controls, "control": "use-https",
				"verdict": "not applicable",
				"message": []string{hostedControlPlane().Message}, "node": "master-0",
			},
		},
		"allowed by break-glass": {
			report.Notice{
				Type: report.RequestByBreakGlass, Finding: keyMissing(),
				Object:  report.Object{Kind: "Secret", Namespace: "n", Name: "s"},
				Request: &report.Request{User: "mallory", Operation: "DELETE", DryRun: true},
			},
			map[string]any{
				"level": "WARN", "msg": string(report.RequestByBreakGlass), "reason": "KeyMissing", "severity": "Violation",
				"controls": controls, "location": "/c/tls.key",
				"message": "there is no private key, or it is empty", "remedy": "put it there", "user": "mallory",
				"operation": "DELETE", "dryRun": true,
			},
		},
		"denied": {
			report.Notice{
				Type: report.RequestDenied, Finding: keyMissing(), Object: report.Object{Kind: "Secret", Namespace: "n", Name: "s"},
				Request: &report.Request{User: "mallory", Operation: "UPDATE"},
			},
			map[string]any{
				"level": "WARN", "msg": string(report.RequestDenied), "reason": "KeyMissing", "severity": "Violation",
				"controls": controls, "location": "/c/tls.key",
				"message": "there is no private key, or it is empty", "remedy": "put it there", "user": "mallory",
				"operation": "UPDATE", "dryRun": false,
			},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var buffer bytes.Buffer
			log := logging.New(&buffer, logging.Options{})
			report.NewLog(log).Report(t.Context(), c.notice)
			var got map[string]any
			if err := json.Unmarshal(buffer.Bytes(), &got); err != nil {
				t.Fatalf("the log line is not one object: %v\n%s", err, buffer.Bytes())
			}
			delete(got, "time")
			page.Text(fmt.Sprintf("%s (%s)", got["msg"], got["level"]),
				name+": "+strings.Join(slices.Sorted(maps.Keys(got)), " "))
			// Compare only the values that explain a verdict.
			if values, ok := c.want["message"].([]string); ok {
				if message, _ := got["message"].(string); !mentionsInOrder(message, values) {
					t.Errorf("the message does not mention %q: %q", values, message)
				}
				delete(got, "message")
				delete(c.want, "message")
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("log line (-want +got):\n%s", d)
			}
		})
	}
}

// api is an API server with given answers.
type api struct {
	mu      sync.Mutex
	answers []error // to the next calls; then nil
	nodes   []error
	stored  []eventsv1.Event
	calls   int
}

func next(errs *[]error) error {
	if len(*errs) == 0 {
		return nil
	}
	err := (*errs)[0]
	*errs = (*errs)[1:]
	return err
}

func (a *api) CreateEvent(_ context.Context, event *eventsv1.Event) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.calls++
	if err := next(&a.answers); err != nil {
		return err
	}
	a.stored = append(a.stored, *event)
	return nil
}

func (a *api) NodeUID(context.Context, string) (types.UID, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return "node-uid", next(&a.nodes)
}

func (a *api) reasons() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var reasons []string
	for _, e := range a.stored {
		reasons = append(reasons, e.Type+" "+e.Reason)
	}
	return strings.Join(reasons, ", ")
}

// TestEventsDelivery: Events are delivered in order and at least once, even if the API server
// is unavailable for a while. An Event that it rejects is given up.
func TestEventsDelivery(t *testing.T) {
	unavailable := errors.New("connection refused")
	busy := apierrors.NewTooManyRequests("busy", 1)
	resource := schema.GroupResource{Group: "events.k8s.io", Resource: "events"}
	exists := apierrors.NewAlreadyExists(resource, "x")
	invalid := apierrors.NewInvalid(schema.GroupKind{Kind: "Event"}, "x", nil)
	forbidden := apierrors.NewForbidden(resource, "x", errors.New("no"))
	missing := apierrors.NewNotFound(resource, "default")
	tooLarge := apierrors.NewRequestEntityTooLargeError("it is")
	const both = "Warning KeyMissing, Normal KeyMissing"
	cases := map[string]struct {
		answers, nodes []error
		want           string
		calls          int
	}{
		"at once":                           {want: both, calls: 2},
		"unavailable for a while":           {answers: []error{unavailable, unavailable, unavailable}, want: both, calls: 5},
		"busy":                              {answers: []error{busy}, want: both, calls: 3},
		"permission comes later":            {answers: []error{forbidden, forbidden}, want: both, calls: 4},
		"the node is not known yet":         {nodes: []error{unavailable, unavailable}, want: both, calls: 2},
		"stored, but the response was lost": {answers: []error{exists}, want: "Normal KeyMissing", calls: 2},
		"rejected, the next one is not":     {answers: []error{invalid}, want: "Normal KeyMissing", calls: 2},
		"permission comes after an hour":    {answers: manyTimes(forbidden, 100), want: both, calls: 102},
		"no namespace, then unavailable":    {answers: append(manyTimes(missing, 9), unavailable, unavailable), want: both, calls: 13},
		"too large":                         {answers: []error{tooLarge}, want: "Normal KeyMissing", calls: 2},
		"the token is old":                  {answers: manyTimes(apierrors.NewUnauthorized("old"), 20), want: both, calls: 22},
		"broken":                            {answers: manyTimes(apierrors.NewInternalError(unavailable), 20), want: both, calls: 22},
		"unavailable for an hour":           {answers: manyTimes(unavailable, 100), want: both, calls: 102},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := &api{answers: c.answers, nodes: c.nodes}
				events := report.NewEvents(server, slog.New(slog.DiscardHandler), "kubelet-https-guard.io/test", "here")
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error)
				go func() { ended <- events.Run(ctx) }()
				events.Report(t.Context(),
					report.Notice{Type: report.FindingActive, At: time.Now(), Object: node(), Finding: keyMissing()})
				events.Report(t.Context(),
					report.Notice{Type: report.FindingResolved, At: time.Now(), Object: node(), Finding: keyMissing()})
				<-time.After(2 * time.Hour)
				cancel()
				if err := <-ended; err != nil {
					t.Errorf("Run: %v", err)
				}
				if got := server.reasons(); got != c.want || server.calls != c.calls {
					t.Errorf("stored %q in %d calls, want %q in %d", got, server.calls, c.want, c.calls)
				}
			})
		})
	}
}

// hanging is an API server whose first call returns only when its context ends.
type hanging struct {
	api
	once sync.Once
	hung chan struct{}
}

func (h *hanging) CreateEvent(ctx context.Context, event *eventsv1.Event) (err error) {
	h.once.Do(func() {
		close(h.hung)
		<-ctx.Done()
		err = ctx.Err()
	})
	if err != nil {
		return err
	}
	return h.api.CreateEvent(ctx, event)
}

// TestEventsAtTheEnd: Events that were reported before the end are delivered, first the one
// that was being delivered. An unavailable API server delays the end only for a moment.
func TestEventsAtTheEnd(t *testing.T) {
	unavailable := errors.New("connection refused")
	forbidden := apierrors.NewForbidden(schema.GroupResource{}, "x", errors.New("no"))
	cases := map[string]struct {
		answers []error
		want    string
		within  time.Duration
		logged  string
	}{
		"there":       {want: "Warning KeyMissing, Normal KeyMissing"},
		"unavailable": {answers: manyTimes(unavailable, 1000), within: 3 * time.Second, logged: `msg="Stopped before all Events were delivered" count=2`},
		"refuses":     {answers: manyTimes(forbidden, 1000), logged: `msg="Stopped before all Events were delivered" count=2`},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log bytes.Buffer
				server := &hanging{api: api{answers: c.answers}, hung: make(chan struct{})}
				events := report.NewEvents(server, slog.New(slog.NewTextHandler(&log, nil)), "r", "i")
				events.Report(t.Context(),
					report.Notice{Type: report.FindingActive, At: time.Now(), Object: node(), Finding: keyMissing()})
				events.Report(t.Context(),
					report.Notice{Type: report.FindingResolved, At: time.Now(), Object: node(), Finding: keyMissing()})
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error)
				go func() { ended <- events.Run(ctx) }()
				<-server.hung
				begin := time.Now()
				cancel()
				if err := <-ended; err != nil {
					t.Errorf("Run: %v", err)
				}
				if got := server.reasons(); got != c.want || time.Since(begin) != c.within {
					t.Errorf("stored %q in %s, want %q in %s", got, time.Since(begin), c.want, c.within)
				}
				if !strings.Contains(log.String(), c.logged) {
					t.Errorf("logged:\n%swant %s", &log, c.logged)
				}
			})
		})
	}
}

// TestEventsLogLittle: an API server that is unavailable for an hour causes one log line, and
// its return another one.
func TestEventsLogLittle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		server := &api{answers: manyTimes(errors.New("connection refused"), 100)}
		events := report.NewEvents(server, slog.New(slog.NewTextHandler(&log, nil)), "r", "i")
		for range 50 {
			events.Report(t.Context(),
				report.Notice{Type: report.FindingActive, At: time.Now(), Object: node(), Finding: keyMissing()})
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Hour)
		defer cancel()
		if err := events.Run(ctx); err != nil {
			t.Error(err)
		}
		if lines := strings.Count(log.String(), "\n"); lines != 2 || len(server.stored) != 50 {
			t.Errorf("%d Events stored, and logged:\n%s", len(server.stored), &log)
		}
	})
}

// TestEventsRefusedInOneNamespace: a namespace that refuses Events does not delay others, and
// is tried again.
func TestEventsRefusedInOneNamespace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &refusing{namespace: "gone"}
		var log bytes.Buffer
		events := report.NewEvents(server, slog.New(slog.NewTextHandler(&log, nil)), "r", "i")
		in := func(namespace string) report.Object {
			return report.Object{Kind: "Secret", Namespace: namespace, Name: "s"}
		}
		for _, namespace := range []string{"gone", "there", "gone", "there"} {
			events.Report(t.Context(),
				report.Notice{Type: report.FindingActive, At: time.Now(), Object: in(namespace), Finding: keyMissing()})
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- events.Run(ctx) }()
		for range 10 {
			<-time.After(time.Minute)
			events.Report(t.Context(),
				report.Notice{Type: report.FindingActive, At: time.Now(), Object: in("there"), Finding: keyMissing()})
		}
		<-time.After(time.Second)
		if n := server.take(""); n != 12 {
			t.Errorf("%d Events in the other namespace", n)
		}
		<-time.After(time.Minute)
		if n := server.take(""); n != 2 {
			t.Errorf("%d Events after it accepts them again", n)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if lines := strings.Count(log.String(), "\n"); lines != 2 { // refused, and accepted again
			t.Errorf("logged:\n%s", &log)
		}
	})
}

// refusing is an API server that refuses Events in a namespace.
type refusing struct {
	api
	namespace string
}

func (r *refusing) CreateEvent(ctx context.Context, event *eventsv1.Event) error {
	r.mu.Lock()
	refused := event.Namespace == r.namespace
	r.mu.Unlock()
	if refused {
		return apierrors.NewNotFound(schema.GroupResource{Resource: "namespaces"}, event.Namespace)
	}
	return r.api.CreateEvent(ctx, event)
}

// take counts what was stored, and refuses another namespace from now on.
func (r *refusing) take(refuse string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := len(r.stored)
	r.stored, r.namespace = nil, refuse
	return n
}

// TestEventsCount: equal refusals that are still waiting are counted in one Event. Findings
// are not, because their order is the state.
func TestEventsCount(t *testing.T) {
	server := &api{}
	events := report.NewEvents(server, slog.New(slog.DiscardHandler), "r", "i")
	at := pkitest.Now()
	deny := func(user string, later time.Duration) {
		events.Report(
			t.Context(),
			report.Notice{
				Type: report.RequestDenied, At: at.Add(later), Object: node(), Finding: keyMissing(),
				Request: &report.Request{User: user},
			},
		)
	}
	for i := range 5000 {
		deny("mallory", time.Duration(i)*time.Second)
		deny("eve", 0)
	}
	for _, what := range []report.NoticeType{report.FindingActive, report.FindingResolved, report.FindingActive} {
		events.Report(t.Context(), report.Notice{Type: what, At: at, Object: node(), Finding: keyMissing()})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := events.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if got, want := server.reasons(), "Warning KeyMissing, Warning KeyMissing, Warning KeyMissing, Normal KeyMissing, "+
		"Warning KeyMissing"; got != want {
		t.Fatalf("stored %q, want %q", got, want)
	}
	want := &eventsv1.EventSeries{Count: 5000, LastObservedTime: metav1.NewMicroTime(at.Add(4999 * time.Second))}
	if d := cmp.Diff(want, server.stored[0].Series); d != "" {
		t.Errorf("series (-want +got):\n%s", d)
	}
	if server.stored[2].Series != nil {
		t.Error("a finding is counted")
	}
}

// TestEventBounds: Events are within the limits of the API server.
func TestEventBounds(t *testing.T) {
	server := &api{}
	long := strings.Repeat("a", 61) + "." + strings.Repeat("b.", 100) + "c"
	events := report.NewEvents(server, slog.New(slog.DiscardHandler), "r", long)
	object := node()
	for cut := range 4 { // cut at different characters
		object.Name = long[cut:]
		events.Report(t.Context(),
			report.Notice{Type: report.FindingStillActive, At: pkitest.Now(), Object: object, Finding: keyMissing()})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := events.Run(ctx); err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, event := range server.stored {
		names[event.Name] = true
		if problems := validation.IsDNS1123Subdomain(event.Name); len(problems) != 0 {
			t.Errorf("name %q: %v", event.Name, problems)
		}
		if len(event.ReportingInstance) > 128 {
			t.Errorf("reportingInstance has %d bytes", len(event.ReportingInstance))
		}
		if event.Type != "Warning" || event.Reason != "KeyMissing" ||
			!strings.HasPrefix(event.Note, "Still active: /c/tls.key: ") {
			t.Errorf("reminder: %s %s %q", event.Type, event.Reason, event.Note)
		}
	}
	if len(names) != 4 {
		t.Errorf("%d names of 4 Events", len(names))
	}
}

// series returns all series except build_info, without the prefix of their names.
func series(t *testing.T, registry prometheus.Gatherer) string {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, family := range families {
		if family.GetName() == "kubelet_https_guard_build_info" {
			continue
		}
		for _, metric := range family.GetMetric() {
			text.WriteString(strings.TrimPrefix(family.GetName(), "kubelet_https_guard_"))
			for _, label := range metric.GetLabel() {
				text.WriteString(" " + label.GetValue())
			}
			fmt.Fprintln(&text, " =", metric.GetGauge().GetValue()+metric.GetCounter().GetValue())
		}
	}
	return text.String()
}

// TestMetrics: the series after each notice.
func TestMetrics(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	metrics := report.NewMetrics(registry)
	server := &api{answers: []error{apierrors.NewBadRequest("no")}}
	events := report.NewEvents(server, slog.New(slog.DiscardHandler), "r", "i")
	registry.MustRegister(events)
	const none = "events_delivered_total = 0\nevents_given_up_total = 0\nevents_pending = 0\n"
	expect := func(when, want string) {
		t.Helper()
		if d := cmp.Diff(want, series(t, registry)); d != "" {
			t.Errorf("%s (-want +got):\n%s", when, d)
		}
	}
	send := func(n report.Notice) { metrics.Report(t.Context(), n) }

	expect("at first", none)
	leaf := pkitest.NewCA("signer").Issue(pkitest.KubeletClient()).Leaf
	metrics.Certificate(finding.File("/a/tls.crt"), "kubelet-client", nil)
	metrics.Certificate(finding.File("/a/tls.crt"), "kubelet-client", leaf)
	certificate := func(at string) string {
		return fmt.Sprintf(
			"certificate_not_after_seconds %s kubelet-client = %v\ncertificate_not_before_seconds %[1]s kubelet-client = "+
				"%[3]v\n",
			at,
			float64(leaf.NotAfter.Unix()),
			float64(leaf.NotBefore.Unix()),
		)
	}
	expect("a certificate", certificate("/a/tls.crt")+none)
	metrics.Certificate(finding.File("/a/tls.crt"), "kubelet-client", nil)
	metrics.Certificate(finding.Subject{}, "kubelet-client", nil)
	expect("a certificate that vanished", certificate("/a/tls.crt")+none)
	metrics.Certificate(finding.File("/b/tls.crt"), "kubelet-client", leaf)
	expect("a certificate elsewhere", certificate("/b/tls.crt")+none)
	metrics.Certificate(finding.Subject{Kind: "Secret", Namespace: "a", Name: "b"}, "a/b", leaf)
	metrics.KeepRoles("kubelet-client", "c/d")
	expect("another certificate that is no longer checked", certificate("/b/tls.crt")+none)
	send(summary(report.Compliant, verdict(control.UseHTTPS, control.Node)))
	send(report.Notice{Type: report.FindingActive, Finding: keyMissing()})
	const raised = "finding /c/tls.key KeyMissing Violation = 1\n"
	expect("compliant and a finding", certificate("/b/tls.crt")+"compliant use-https = 1\n"+none+raised)
	send(summary(report.NotCompliant, verdict(control.UseHTTPS, control.Node, keyMissing())))
	send(report.Notice{Type: report.FindingStillActive, Finding: keyMissing()})
	const no = "compliant use-https = 0\n"
	expect("not compliant", certificate("/b/tls.crt")+no+none+raised)
	send(report.Notice{Type: report.FindingResolved, Finding: keyMissing()})
	expect("resolved", certificate("/b/tls.crt")+no+none)

	for range 3 {
		events.Report(t.Context(),
			report.Notice{Type: report.FindingActive, At: pkitest.Now(), Object: node(), Finding: keyMissing()})
	}
	expect("Events wait",
		certificate("/b/tls.crt")+no+"events_delivered_total = 0\nevents_given_up_total = 0\nevents_pending = 3\n")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := events.Run(ctx); err != nil {
		t.Fatal(err)
	}
	expect("Events delivered",
		certificate("/b/tls.crt")+no+"events_delivered_total = 2\nevents_given_up_total = 1\nevents_pending = 0\n")
	send(summary(report.Compliant, verdict(control.GuardInForce, control.Cluster)))
	metrics.Forget()
	expect("after Forget", "events_delivered_total = 2\nevents_given_up_total = 1\nevents_pending = 0\n")
}

// TestEventTexts: the type, reason and note of each kind of notice.
func TestEventTexts(t *testing.T) {
	page := messages.Record(t, "Events")
	leaf := pkitest.NewCA("signer").Issue(pkitest.KubeletClient()).Leaf
	values := strings.NewReplacer(pki.Fingerprint(leaf), "<SHA-256>", leaf.SerialNumber.Text(16), "<serial>")
	verified := summary(report.Compliant, verdict(control.UseHTTPS, control.Node))
	verified.Certificate, verified.CertificateAt = leaf, finding.File("/c/tls.crt")
	const number = "CIS OpenShift 1.2.4 (1.2.2 from v1.8)"
	dates := []string{"2026-11-22T11:00:00Z", "2026-12-22T11:00:00Z", leaf.SerialNumber.Text(16), pki.Fingerprint(leaf)}
	missing := keyMissing()
	cases := map[string]struct {
		notice       report.Notice
		kind, reason string
		mentions     []string // in this order
	}{
		"active": {
			report.Notice{Type: report.FindingActive, Finding: weakAddedKey()}, "Warning", "WeakKey",
			[]string{
				"Secret shop/tls tls.key: it has 1024 bits",
				"issue a new one",
				"Protected Secrets that were added are valid",
			},
		},
		"active from the start": {
			atStart(report.Notice{Type: report.FindingActive, Finding: missing}), "Warning", "KeyMissing",
			[]string{"may have been reported before", "/c/tls.key: " + missing.Message, missing.Remedy, number},
		},
		"compliant from the start": {
			atStart(verified), "Normal", "Compliant",
			append([]string{"may have been reported before", number, "/c/tls.crt"}, dates...),
		},
		"compliant, not known for all Nodes": {
			someNodesUnknown(), "Normal", "Compliant", []string{number, "node-kubelet/tls (NotChecked Node)"},
		},
		"reminder": {
			report.Notice{Type: report.FindingStillActive, Finding: missing}, "Warning", "KeyMissing",
			[]string{"/c/tls.key: " + missing.Message, missing.Remedy, number},
		},
		"resolved": {
			report.Notice{Type: report.FindingResolved, Finding: missing}, "Normal", "KeyMissing",
			[]string{"KeyMissing", "/c/tls.key", missing.Message, number},
		},
		"resolved, but not checked": {
			report.Notice{Type: report.FindingResolved, Finding: missing, Unchecked: true}, "Normal", "KeyMissing",
			[]string{"KeyMissing", "/c/tls.key", missing.Message, number},
		},
		"of no control": {
			report.Notice{Type: report.FindingActive, Finding: finding.Result{
				Requirement: "no/such", Subject: finding.File("/c"), Reason: finding.Unreadable, Message: "m", Remedy: "r",
			}},
			"Warning", "Unreadable", []string{"/c: m", "r"},
		},
		"rotated": {
			report.Notice{Type: report.CertificateRotated, Certificate: leaf, CertificateAt: finding.File("/c/tls.crt")},
			"Normal", "CertificateRotated", append([]string{"/c/tls.crt"}, dates...),
		},
		"compliant": {verified, "Normal", "Compliant", append([]string{number, "/c/tls.crt"}, dates...)},
		"compliant without a certificate": {
			summary(report.Compliant, verdict(control.GuardInForce, control.Cluster)), "Normal", "Compliant",
			[]string{control.ByID(control.GuardInForce).Title},
		},
		"denied": {
			report.Notice{
				Type:    report.RequestDenied,
				Finding: missing,
				Request: &report.Request{User: "mallory", Operation: "UPDATE", Message: "the refusal"},
			},
			"Warning", "KeyMissing", []string{"UPDATE", "mallory", "the refusal"},
		},
		"break-glass": {
			report.Notice{
				Type:    report.RequestByBreakGlass,
				Finding: missing,
				Request: &report.Request{User: "mallory", Operation: "DELETE", Message: "why"},
			},
			"Warning", "KeyMissing", []string{"DELETE", "mallory", "why"},
		},
		"not compliant": {
			notCompliant(), "Warning", "NotCompliant", append([]string{"A test", control.NotCompliant.String()},
				whyNotCompliant()...),
		},
		"not applicable": {
			summary(report.NotApplicable, verdict(control.UseHTTPS, control.Cluster, hostedControlPlane())),
			"Normal", "NotApplicable",
			[]string{number, control.NotApplicable.String(), hostedControlPlane().Message},
		},
		"nothing to require": {
			summary(report.NotApplicable,
				nothingToRequire()), "Normal", "NotApplicable", []string{"A test", control.NotApplicable.String()},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			server := &api{}
			events := report.NewEvents(server, slog.New(slog.DiscardHandler), "r", "i")
			c.notice.Object = node()
			events.Report(t.Context(), c.notice)
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if err := events.Run(ctx); err != nil {
				t.Fatal(err)
			}
			event := server.stored[0]
			page.Text(event.Reason+" ("+event.Type+")", values.Replace(event.Note))
			if event.Type != c.kind || event.Reason != c.reason || (event.Action == "Check") != (c.notice.Request == nil) {
				t.Errorf("got a %s Event with reason %s and action %s", event.Type, event.Reason, event.Action)
			}
			if !mentionsInOrder(event.Note, c.mentions) {
				t.Errorf("the note does not mention %q: %q", c.mentions, event.Note)
			}
		})
	}
}

func manyTimes(err error, n int) []error {
	var errs []error
	for range n {
		errs = append(errs, err)
	}
	return errs
}

// TestEventsOverflow: reporting never blocks, memory is bounded, and the least important Events
// are given up and counted.
func TestEventsOverflow(t *testing.T) {
	send := func(events *report.Events, what report.NoticeType, from, to int) {
		for i := from; i < to; i++ {
			n := report.Notice{Type: what, Object: node(), Finding: keyMissing()}
			n.Finding.Subject = finding.File(fmt.Sprint(i))
			if what == report.RequestDenied {
				n.Request = &report.Request{User: "mallory", Operation: "UPDATE", Message: fmt.Sprint(i)}
			}
			events.Report(t.Context(), n)
		}
	}
	const most = report.MaxPending
	for name, c := range map[string]struct {
		send func(*report.Events)
		// want is how many of each kind are delivered, first the note of the first one.
		raised, reminders, refusals int
		first                       string
		givenUp                     float64
	}{
		"findings only: the newest stay": {
			send:   func(e *report.Events) { send(e, report.FindingActive, 0, most+10) },
			raised: most, first: "10: ", givenUp: 10,
		},
		"refusals only: the newest stay": {
			send:     func(e *report.Events) { send(e, report.RequestDenied, 0, most+10) },
			refusals: most, first: "Request denied (UPDATE by mallory): 10", givenUp: 10,
		},
		"reminders are given up first": {
			send: func(e *report.Events) {
				send(e, report.RequestDenied, 0, 400)
				send(e, report.FindingActive, 0, 300)
				send(e, report.FindingStillActive, 0, 300)
				send(e, report.RequestDenied, 400, 600)
			},
			raised: 300, reminders: 100, refusals: 600, first: "Request denied (UPDATE by mallory): 0", givenUp: 200,
		},
		"a reminder displaces nothing": {
			send: func(e *report.Events) {
				send(e, report.RequestDenied, 0, 500)
				send(e, report.FindingActive, 0, 500)
				send(e, report.FindingStillActive, 0, 5)
			},
			raised: 500, refusals: 500, first: "Request denied (UPDATE by mallory): 0", givenUp: 5,
		},
		"many refusals displace no finding": {
			send: func(e *report.Events) {
				send(e, report.FindingActive, 0, 3)
				send(e, report.RequestDenied, 0, 2*most)
			},
			raised: 3, refusals: most - 3, first: "0: ", givenUp: 1003,
		},
		"many findings displace no refusal": {
			send: func(e *report.Events) {
				send(e, report.RequestDenied, 0, 3)
				send(e, report.FindingActive, 0, 2*most)
			},
			raised: most - 3, refusals: 3, first: "Request denied (UPDATE by mallory): 0", givenUp: 1003,
		},
	} {
		t.Run(name, func(t *testing.T) {
			server := &api{}
			events := report.NewEvents(server, slog.New(slog.DiscardHandler), "r", "i")
			c.send(events)
			ctx, cancel := context.WithCancel(t.Context())
			cancel() // waiting Events are still delivered
			if err := events.Run(ctx); err != nil {
				t.Fatal(err)
			}
			got := map[string]int{}
			for _, stored := range server.stored {
				switch {
				case stored.Action == "Deny":
					got["refusals"]++
				case strings.HasPrefix(stored.Note, "Still active: "):
					got["reminders"]++
				default:
					got["raised"]++
				}
			}
			want := map[string]int{}
			for kind, n := range map[string]int{"raised": c.raised, "reminders": c.reminders, "refusals": c.refusals} {
				if n > 0 {
					want[kind] = n
				}
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("delivered (-want +got):\n%s", d)
			}
			if first := server.stored[0].Note; !strings.HasPrefix(first, c.first) {
				t.Errorf("the oldest one left is %q, want %q", first, c.first)
			}
			registry := prometheus.NewRegistry()
			registry.MustRegister(events)
			families, err := registry.Gather()
			if err != nil {
				t.Fatal(err)
			}
			for _, family := range families {
				if family.GetName() == "kubelet_https_guard_events_given_up_total" &&
					family.GetMetric()[0].GetCounter().GetValue() != c.givenUp {
					t.Errorf("%s: %v, want %v", family.GetName(), family.GetMetric()[0].GetCounter().GetValue(), c.givenUp)
				}
			}
		})
	}
}

func TestEvent(t *testing.T) {
	at := pkitest.Now()
	server := &api{}
	events := report.NewEvents(server, slog.New(slog.DiscardHandler), "kubelet-https-guard.io/nodeagent", "master-0")
	long := keyMissing()
	long.Message = strings.Repeat("ä", 2000)
	events.Report(t.Context(), report.Notice{Type: report.FindingActive, At: at, Object: node(), Finding: keyMissing()})
	events.Report(t.Context(), report.Notice{Type: report.FindingActive, At: at, Object: node(), Finding: long})
	events.Report(t.Context(), report.Notice{
		Type: report.RequestDenied, At: at, Finding: keyMissing(),
		Object:  report.Object{APIVersion: "v1", Kind: "Secret", Namespace: "openshift-apiserver", Name: "serving-cert", UID: "secret-uid"},
		Request: &report.Request{User: "mallory", Operation: "UPDATE", Message: "why"},
	})
	events.Report(
		t.Context(),
		report.Notice{
			Type: report.RequestDenied, At: at, Finding: keyMissing(), Object: node(),
			Request: &report.Request{DryRun: true},
		},
	)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := events.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if len(server.stored) != 3 {
		t.Fatalf("%d Events, want 3: a dry run leaves none", len(server.stored))
	}
	want := eventsv1.Event{
		TypeMeta:            metav1.TypeMeta{APIVersion: "events.k8s.io/v1", Kind: "Event"},
		ObjectMeta:          metav1.ObjectMeta{Namespace: "default", Name: "master-0." + fmt.Sprintf("%x", at.UnixNano()) + ".1"},
		EventTime:           metav1.NewMicroTime(at),
		ReportingController: "kubelet-https-guard.io/nodeagent", ReportingInstance: "master-0",
		Action: "Check", Reason: "KeyMissing", Type: "Warning",
		Note:      server.stored[0].Note, // see TestEventTexts
		Regarding: corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: "master-0", UID: "node-uid"},
	}
	if d := cmp.Diff(want, server.stored[0]); d != "" {
		t.Errorf("Event (-want +got):\n%s", d)
	}
	if note := server.stored[1].Note; len(note) > 1024 || !strings.HasSuffix(note, "ä…") {
		t.Errorf("a long note has %d bytes and ends with %q", len(note), note[len(note)-8:])
	}
	denied := server.stored[2]
	if denied.Namespace != "openshift-apiserver" || denied.Regarding.UID != "secret-uid" || denied.Action != "Deny" ||
		!mentionsInOrder(denied.Note, []string{"UPDATE", "mallory", "why"}) {
		t.Errorf("Event of a refusal: %+v", denied)
	}
}
