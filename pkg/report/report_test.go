// SPDX-License-Identifier: Apache-2.0

package report_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
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

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pki"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/report"
)

func node() report.Object { return report.Object{APIVersion: "v1", Kind: "Node", Name: "master-0"} }

func keyMissing() finding.Finding {
	return finding.Finding{Reason: finding.KeyMissing, Location: "/c/tls.key", Message: "there is no private key, or it is empty", Remedy: "put it there"}
}

func TestLog(t *testing.T) {
	leaf := pkitest.NewCA("signer").Issue(pkitest.KubeletClient()).Leaf
	controls := []any{"cis-ocp-1.7:1.2.4", "cis-ocp-1.9:1.2.2"}
	cases := map[string]struct {
		notice report.Notice
		want   map[string]any
	}{
		"raised": {
			report.Notice{What: report.FindingRaised, Object: node(), Finding: keyMissing()},
			map[string]any{
				"level": "ERROR", "msg": "Finding raised", "reason": "KeyMissing", "severity": "Violation", "controls": controls, "location": "/c/tls.key",
				"message": "there is no private key, or it is empty", "remedy": "put it there", "node": "master-0",
			},
		},
		"cleared": {
			report.Notice{What: report.FindingCleared, Object: node(), Finding: keyMissing()},
			map[string]any{
				"level": "INFO", "msg": "Finding cleared", "reason": "KeyMissing", "severity": "Violation", "controls": controls, "location": "/c/tls.key",
				"message": "there is no private key, or it is empty", "remedy": "put it there", "node": "master-0",
			},
		},
		"rotated": {
			report.Notice{What: report.CertificateRotated, Object: node(), Certificate: leaf, CertificateAt: "/c/tls.crt"},
			map[string]any{
				"level": "INFO", "msg": "Certificate rotated", "controls": controls, "location": "/c/tls.crt", "node": "master-0",
				"notBefore": "2026-11-22T11:00:00Z", "notAfter": "2026-12-22T11:00:00Z", "serial": leaf.SerialNumber.Text(16), "sha256": pki.Fingerprint(leaf),
			},
		},
		"not verified": {
			report.Notice{What: report.NotVerified, Object: node(), Verdict: finding.NotCompliant, Standing: []finding.Finding{keyMissing()}},
			map[string]any{"level": "ERROR", "msg": "Not verified", "controls": controls, "verdict": "not compliant", "message": "because of KeyMissing (/c/tls.key)", "node": "master-0"},
		},
		"denied": {
			report.Notice{
				What: report.RequestDenied, Finding: keyMissing(), Object: report.Object{Kind: "Secret", Namespace: "n", Name: "s"},
				Request: &report.Request{User: "mallory", Operation: "UPDATE"},
			},
			map[string]any{
				"level": "WARN", "msg": "Request denied", "reason": "KeyMissing", "severity": "Violation", "controls": controls, "location": "/c/tls.key",
				"message": "there is no private key, or it is empty", "remedy": "put it there", "user": "mallory", "operation": "UPDATE", "dryRun": false,
			},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var buffer bytes.Buffer
			log, err := report.NewLogger(&buffer, "json", slog.LevelInfo)
			if err != nil {
				t.Fatal(err)
			}
			report.NewLog(log).Tell(t.Context(), c.notice)
			var got map[string]any
			if err := json.Unmarshal(buffer.Bytes(), &got); err != nil {
				t.Fatalf("the log line is not one object: %v\n%s", err, buffer.Bytes())
			}
			delete(got, "time")
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("log line (-want +got):\n%s", d)
			}
		})
	}
}

func TestNewLoggerRefusesFormats(t *testing.T) {
	if _, err := report.NewLogger(&bytes.Buffer{}, "xml", slog.LevelInfo); err == nil || err.Error() != `log format "xml" is neither json nor text` {
		t.Errorf("NewLogger: %v", err)
	}
}

// api is an API server that answers what it is told to.
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

// TestEventsDelivery: in order, at least once, through an API server that is
// away; never for ever for what it will not take.
func TestEventsDelivery(t *testing.T) {
	away := errors.New("connection refused")
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
		"at once":                         {want: both, calls: 2},
		"away for a while":                {answers: []error{away, away, away}, want: both, calls: 5},
		"busy":                            {answers: []error{busy}, want: both, calls: 3},
		"rights come later":               {answers: []error{forbidden, forbidden}, want: both, calls: 4},
		"the node is not known yet":       {nodes: []error{away, away}, want: both, calls: 2},
		"it got through, the answer not":  {answers: []error{exists}, want: "Normal KeyMissing", calls: 2},
		"never taken, the next one is":    {answers: []error{invalid}, want: "Normal KeyMissing", calls: 2},
		"rights come after an hour":       {answers: manyTimes(forbidden, 100), want: both, calls: 102},
		"no namespace yet, and away":      {answers: append(manyTimes(missing, 9), away, away), want: both, calls: 13},
		"too large":                       {answers: []error{tooLarge}, want: "Normal KeyMissing", calls: 2},
		"the token is old":                {answers: manyTimes(apierrors.NewUnauthorized("old"), 20), want: both, calls: 22},
		"broken":                          {answers: manyTimes(apierrors.NewInternalError(away), 20), want: both, calls: 22},
		"an hour away, then all in a row": {answers: manyTimes(away, 100), want: both, calls: 102},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := &api{answers: c.answers, nodes: c.nodes}
				events := report.NewEvents(server, slog.New(slog.DiscardHandler), "kubelet-https-guard.io/test", "here")
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error)
				go func() { ended <- events.Run(ctx) }()
				events.Tell(t.Context(), report.Notice{What: report.FindingRaised, At: time.Now(), Object: node(), Finding: keyMissing()})
				events.Tell(t.Context(), report.Notice{What: report.FindingCleared, At: time.Now(), Object: node(), Finding: keyMissing()})
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

// hanging is an API server of which the first call does not come back before
// its context ends.
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

// TestEventsAtTheEnd: what was told before the end is delivered, that which was
// on its way first; an API server that is away holds the end up for a moment
// only.
func TestEventsAtTheEnd(t *testing.T) {
	away := errors.New("connection refused")
	forbidden := apierrors.NewForbidden(schema.GroupResource{}, "x", errors.New("no"))
	cases := map[string]struct {
		answers []error
		want    string
		within  time.Duration
		logged  string
	}{
		"there":   {want: "Warning KeyMissing, Normal KeyMissing"},
		"away":    {answers: manyTimes(away, 1000), within: 3 * time.Second, logged: `msg="Ended with Events not delivered" count=2`},
		"refuses": {answers: manyTimes(forbidden, 1000), logged: `msg="Ended with Events not delivered" count=2`},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log bytes.Buffer
				server := &hanging{api: api{answers: c.answers}, hung: make(chan struct{})}
				events := report.NewEvents(server, slog.New(slog.NewTextHandler(&log, nil)), "r", "i")
				events.Tell(t.Context(), report.Notice{What: report.FindingRaised, At: time.Now(), Object: node(), Finding: keyMissing()})
				events.Tell(t.Context(), report.Notice{What: report.FindingCleared, At: time.Now(), Object: node(), Finding: keyMissing()})
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

// TestEventsLogLittle: an API server that is away for an hour is one line, its
// return another.
func TestEventsLogLittle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		server := &api{answers: manyTimes(errors.New("connection refused"), 100)}
		events := report.NewEvents(server, slog.New(slog.NewTextHandler(&log, nil)), "r", "i")
		for range 50 {
			events.Tell(t.Context(), report.Notice{What: report.FindingRaised, At: time.Now(), Object: node(), Finding: keyMissing()})
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

// TestEventsRefusedInOneNamespace: it holds up no other, and is tried again.
func TestEventsRefusedInOneNamespace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &refusing{namespace: "gone"}
		var log bytes.Buffer
		events := report.NewEvents(server, slog.New(slog.NewTextHandler(&log, nil)), "r", "i")
		in := func(namespace string) report.Object {
			return report.Object{Kind: "Secret", Namespace: namespace, Name: "s"}
		}
		for _, namespace := range []string{"gone", "there", "gone", "there"} {
			events.Tell(t.Context(), report.Notice{What: report.FindingRaised, At: time.Now(), Object: in(namespace), Finding: keyMissing()})
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- events.Run(ctx) }()
		for range 10 {
			<-time.After(time.Minute)
			events.Tell(t.Context(), report.Notice{What: report.FindingRaised, At: time.Now(), Object: in("there"), Finding: keyMissing()})
		}
		<-time.After(time.Second)
		if n := server.take(""); n != 12 {
			t.Errorf("%d Events in the other namespace", n)
		}
		<-time.After(time.Minute)
		if n := server.take(""); n != 2 {
			t.Errorf("%d Events when it takes them again", n)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if lines := strings.Count(log.String(), "\n"); lines != 2 { // refused, and taken again
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

// TestEventsCount: refusals that are alike and still wait are counted;
// findings never are, since their order is the state.
func TestEventsCount(t *testing.T) {
	server := &api{}
	events := report.NewEvents(server, slog.New(slog.DiscardHandler), "r", "i")
	at := pkitest.Now()
	deny := func(user string, later time.Duration) {
		events.Tell(t.Context(), report.Notice{What: report.RequestDenied, At: at.Add(later), Object: node(), Finding: keyMissing(), Request: &report.Request{User: user}})
	}
	for i := range 5000 {
		deny("mallory", time.Duration(i)*time.Second)
		deny("eve", 0)
	}
	for _, what := range []report.What{report.FindingRaised, report.FindingCleared, report.FindingRaised} {
		events.Tell(t.Context(), report.Notice{What: what, At: at, Object: node(), Finding: keyMissing()})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := events.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if got, want := server.reasons(), "Warning KeyMissing, Warning KeyMissing, Warning KeyMissing, Normal KeyMissing, Warning KeyMissing"; got != want {
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

// TestEventBounds: what the API server takes at most.
func TestEventBounds(t *testing.T) {
	server := &api{}
	long := strings.Repeat("a", 61) + "." + strings.Repeat("b.", 100) + "c"
	events := report.NewEvents(server, slog.New(slog.DiscardHandler), "r", long)
	object := node()
	for cut := range 4 { // wherever the cut falls
		object.Name = long[cut:]
		events.Tell(t.Context(), report.Notice{What: report.FindingStands, At: pkitest.Now(), Object: object, Finding: keyMissing()})
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
		if event.Type != "Warning" || event.Reason != "KeyMissing" || !strings.HasPrefix(event.Note, "Still: /c/tls.key: ") {
			t.Errorf("reminder: %s %s %q", event.Type, event.Reason, event.Note)
		}
	}
	if len(names) != 4 {
		t.Errorf("%d names of 4 Events", len(names))
	}
}

// TestMetrics: what is shown after what was told.
func TestMetrics(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	metrics := report.NewMetrics(registry)
	server := &api{answers: []error{apierrors.NewBadRequest("no")}}
	events := report.NewEvents(server, slog.New(slog.DiscardHandler), "r", "i")
	registry.MustRegister(events)
	shown := func() string {
		t.Helper()
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		var lines []string
		for _, family := range families {
			if family.GetName() == "kubelet_https_guard_build_info" {
				continue
			}
			for _, metric := range family.GetMetric() {
				line := strings.TrimPrefix(family.GetName(), "kubelet_https_guard_")
				for _, label := range metric.GetLabel() {
					line += " " + label.GetValue()
				}
				lines = append(lines, fmt.Sprint(line, " = ", metric.GetGauge().GetValue()+metric.GetCounter().GetValue()))
			}
		}
		return strings.Join(lines, "\n") + "\n"
	}
	const none = "events_delivered_total = 0\nevents_given_up_total = 0\nevents_pending = 0\n"
	expect := func(when, want string) {
		t.Helper()
		if d := cmp.Diff(want, shown()); d != "" {
			t.Errorf("%s (-want +got):\n%s", when, d)
		}
	}
	tell := func(n report.Notice) { metrics.Tell(t.Context(), n) }

	expect("at first", none)
	leaf := pkitest.NewCA("signer").Issue(pkitest.KubeletClient()).Leaf
	metrics.Certificate("/a/tls.crt", "kubelet-client", nil)
	metrics.Certificate("/a/tls.crt", "kubelet-client", leaf)
	certificate := func(at string) string {
		return fmt.Sprintf("certificate_not_after_seconds %s kubelet-client = %v\ncertificate_not_before_seconds %[1]s kubelet-client = %[3]v\n", at, float64(leaf.NotAfter.Unix()), float64(leaf.NotBefore.Unix()))
	}
	expect("a certificate", certificate("/a/tls.crt")+none)
	metrics.Certificate("/a/tls.crt", "kubelet-client", nil)
	metrics.Certificate("", "kubelet-client", nil)
	expect("a certificate that vanished", certificate("/a/tls.crt")+none)
	metrics.Certificate("/b/tls.crt", "kubelet-client", leaf)
	expect("a certificate elsewhere", certificate("/b/tls.crt")+none)
	metrics.Certificate("Secret a/b", "a/b", leaf)
	metrics.KeepRoles("kubelet-client", "c/d")
	expect("another one that is looked at no more", certificate("/b/tls.crt")+none)
	tell(report.Notice{What: report.Verified})
	tell(report.Notice{What: report.FindingRaised, Finding: keyMissing()})
	const raised = "finding /c/tls.key KeyMissing Violation = 1\n"
	expect("verified and a finding", certificate("/b/tls.crt")+"compliant cis-ocp-1.7:1.2.4 = 1\ncompliant cis-ocp-1.9:1.2.2 = 1\n"+none+raised)
	tell(report.Notice{What: report.NotVerified})
	tell(report.Notice{What: report.FindingStands, Finding: keyMissing()})
	const no = "compliant cis-ocp-1.7:1.2.4 = 0\ncompliant cis-ocp-1.9:1.2.2 = 0\n"
	expect("not verified", certificate("/b/tls.crt")+no+none+raised)
	tell(report.Notice{What: report.FindingCleared, Finding: keyMissing()})
	expect("cleared", certificate("/b/tls.crt")+no+none)

	for range 3 {
		events.Tell(t.Context(), report.Notice{What: report.FindingRaised, At: pkitest.Now(), Object: node(), Finding: keyMissing()})
	}
	expect("Events wait", certificate("/b/tls.crt")+no+"events_delivered_total = 0\nevents_given_up_total = 0\nevents_pending = 3\n")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := events.Run(ctx); err != nil {
		t.Fatal(err)
	}
	expect("Events delivered", certificate("/b/tls.crt")+no+"events_delivered_total = 2\nevents_given_up_total = 1\nevents_pending = 0\n")
}

// TestServe: metrics and health over HTTP, until the context ends.
func TestServe(t *testing.T) {
	registry := prometheus.NewRegistry()
	report.NewMetrics(registry)
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- report.Serve(ctx, listener, registry, func(context.Context) error { return errors.New("not yet") }, func(context.Context) error { return nil })
	}()
	cases := map[string]struct {
		method, path string
		code         int
		holds        string
	}{
		"metrics":        {"GET", "/metrics", 200, "kubelet_https_guard_build_info{"},
		"healthy":        {"GET", "/healthz", 200, "ok\n"},
		"not ready":      {"GET", "/readyz", 503, "not yet\n"},
		"something else": {"GET", "/debug/pprof/", 404, ""},
		"a write":        {"POST", "/metrics", 405, ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			request, err := http.NewRequestWithContext(t.Context(), c.method, "http://"+listener.Addr().String()+c.path, nil)
			if err != nil {
				t.Fatal(err)
			}
			response, err := http.DefaultClient.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = response.Body.Close() }()
			body, err := io.ReadAll(response.Body)
			if err != nil || response.StatusCode != c.code || !strings.Contains(string(body), c.holds) {
				t.Errorf("got %d and %q with error %v, want %d and %q", response.StatusCode, body, err, c.code, c.holds)
			}
		})
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Serve: %v after its context ended", err)
	}
	if err := report.Serve(t.Context(), listener, registry, nil, nil); err == nil {
		t.Error("Serve: no error of a closed listener")
	}
}

func manyTimes(err error, n int) []error {
	var errs []error
	for range n {
		errs = append(errs, err)
	}
	return errs
}

// TestEventsOverflow: telling never blocks, memory is bounded, the newest stay.
func TestEventsOverflow(t *testing.T) {
	server := &api{}
	events := report.NewEvents(server, slog.New(slog.DiscardHandler), "r", "i")
	for i := range report.MaxPending + 10 {
		f := keyMissing()
		f.Location = finding.Location(fmt.Sprint(i))
		events.Tell(t.Context(), report.Notice{What: report.FindingRaised, Object: node(), Finding: f})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // what waits is delivered all the same
	if err := events.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if n := len(server.stored); n != report.MaxPending {
		t.Fatalf("%d Events were stored, want %d", n, report.MaxPending)
	}
	if first := server.stored[0].Note; !strings.HasPrefix(first, "10:") {
		t.Errorf("the oldest that is left is %q, want that of location 10", first)
	}
}

func TestEvent(t *testing.T) {
	at := pkitest.Now()
	server := &api{}
	events := report.NewEvents(server, slog.New(slog.DiscardHandler), "kubelet-https-guard.io/nodeagent", "master-0")
	long := keyMissing()
	long.Message = strings.Repeat("ä", 2000)
	events.Tell(t.Context(), report.Notice{What: report.FindingRaised, At: at, Object: node(), Finding: keyMissing()})
	events.Tell(t.Context(), report.Notice{What: report.FindingRaised, At: at, Object: node(), Finding: long})
	events.Tell(t.Context(), report.Notice{
		What: report.RequestDenied, At: at, Finding: keyMissing(),
		Object:  report.Object{APIVersion: "v1", Kind: "Secret", Namespace: "openshift-apiserver", Name: "serving-cert", UID: "secret-uid"},
		Request: &report.Request{User: "mallory", Operation: "UPDATE", Message: "why"},
	})
	events.Tell(t.Context(), report.Notice{What: report.RequestDenied, At: at, Finding: keyMissing(), Object: node(), Request: &report.Request{DryRun: true}})
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
		Note:      "/c/tls.key: there is no private key, or it is empty. To do: put it there. Control: CIS OpenShift 1.2.4 (1.2.2 from v1.9)",
		Regarding: corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: "master-0", UID: "node-uid"},
	}
	if d := cmp.Diff(want, server.stored[0]); d != "" {
		t.Errorf("Event (-want +got):\n%s", d)
	}
	if note := server.stored[1].Note; len(note) > 1024 || !strings.HasSuffix(note, "ä…") {
		t.Errorf("a long note has %d bytes and ends with %q", len(note), note[len(note)-8:])
	}
	denied := server.stored[2]
	if denied.Namespace != "openshift-apiserver" || denied.Regarding.UID != "secret-uid" || denied.Action != "Deny" || denied.Note != "Request denied (UPDATE by mallory): why" {
		t.Errorf("Event of a refusal: %+v", denied)
	}
}
