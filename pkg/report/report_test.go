// SPDX-License-Identifier: Apache-2.0

package report_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

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
