// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kubelet-https-guard/kubelet-https-guard/nodeagent/internal/hostfs"
	"github.com/kubelet-https-guard/kubelet-https-guard/nodeagent/internal/scan"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/control"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/report"
)

// host is a host with one file. Its text is the reason of a finding, or empty.
type host struct {
	mu       sync.Mutex
	contents string
	expires  time.Time
	scans    int
}

func (h *host) write(contents string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.contents = contents
}

func (h *host) scan(now time.Time) scan.Snapshot {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.scans++
	s := scan.Snapshot{At: now, Contents: sha256.Sum256([]byte(h.contents))}
	switch {
	case h.contents != "":
		s.FileResults = answered(isFiles, finding.Reason(h.contents))
	case !h.expires.IsZero() && !now.Before(h.expires):
		s.FileResults = answered(isFiles, finding.CertificateExpired)
	default:
		s.FileResults = answered(isFiles, "")
		s.NextChange = h.expires
	}
	s.KubeletResults = answered(isKubelet, "")
	return s
}

func isKubelet(r finding.Requirement) bool { return r.Family() == finding.Kubelet }
func isFiles(r finding.Requirement) bool   { return !isKubelet(r) }

// answered returns results for the requirements of a node that the function selects. All
// pass, except those that can have the reason.
func answered(of func(finding.Requirement) bool, reason finding.Reason) []finding.Result {
	var results []finding.Result
	for _, requirement := range requirements() {
		if !of(requirement) {
			continue
		}
		r := finding.Result{Requirement: requirement, Subject: finding.File("/file"), Outcome: finding.Pass}
		if slices.Contains(check.Reasons(requirement), reason) {
			r.Outcome, r.Reason = reason.Outcome(), reason
		}
		results = append(results, r)
	}
	return results
}

// requirements of a node.
func requirements() []finding.Requirement {
	var all []finding.Requirement
	for _, c := range Controls() {
		for _, required := range c.Requirements {
			if required.In(control.Node) && !slices.Contains(all, required.Requirement) {
				all = append(all, required.Requirement)
			}
		}
	}
	return all
}

// meter records what triggered each scan.
type meter struct{ triggers []Trigger }

func (m *meter) Scanned(trigger Trigger, _ time.Duration, _ scan.Snapshot) {
	m.triggers = append(m.triggers, trigger)
}

// noChains is for hosts without directories.
func noChains() func(string) []hostfs.Directory {
	return func(string) []hostfs.Directory { return nil }
}

type wakes chan struct{}

func (w wakes) Watch([]hostfs.Directory) bool { return false }
func (w wakes) Wake() <-chan struct{}         { return w }

// reported records the notices, with the time since the start.
type reported struct {
	start time.Time
	lines []string
}

func (r *reported) Report(_ context.Context, n report.Notice) {
	r.lines = append(
		r.lines,
		strings.Join(strings.Fields(fmt.Sprint(time.Since(r.start), " ", n.Type, " ", n.Finding.Reason, " ", n.Control.ID)),
			" "),
	)
}

// pass lets time pass. In a synctest bubble it takes no real time.
func pass(d time.Duration) { <-time.After(d) }

// TestRun runs the agent for an hour in a synctest bubble.
func TestRun(t *testing.T) {
	cases := map[string]struct {
		expires time.Duration
		play    func(h *host, wake func())
		want    []string
	}{
		"nothing happens": {
			play: func(*host, func()) { pass(time.Hour) },
			want: []string{"0s Compliant use-https", "0s Compliant admission-enabled"},
		},
		"an event wakes it, settle delays the report": {
			play: func(h *host, wake func()) {
				pass(5 * time.Second)
				h.write("KeyMissing")
				wake()
				pass(10 * time.Second)
				h.write("")
				wake()
				pass(time.Hour)
			},
			want: []string{"0s Compliant use-https", "0s Compliant admission-enabled", "6s Finding active KeyMissing", "6s Not compliant use-https", "15s Finding resolved KeyMissing", "15s Compliant use-https"},
		},
		"without an event the tick finds it": {
			play: func(h *host, _ func()) {
				pass(5 * time.Second)
				h.write("KeyMissing")
				pass(time.Hour)
			},
			want: []string{"0s Compliant use-https", "0s Compliant admission-enabled", "31s Finding active KeyMissing", "31s Not compliant use-https"},
		},
		"an expiry needs neither event nor tick, and is reported at once": {
			expires: 12*time.Second + 345*time.Millisecond,
			play:    func(*host, func()) { pass(time.Hour) },
			want:    []string{"0s Compliant use-https", "0s Compliant admission-enabled", "12.345s Finding active CertificateExpired", "12.345s Not compliant use-https"},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				h := &host{}
				if c.expires != 0 {
					h.expires = start.Add(c.expires)
				}
				wake := make(wakes, 1)
				got := &reported{start: start}
				a := &Agent{
					Scan: h.scan, Chains: noChains, Watcher: wake, Reporter: got, Meter: &meter{},
					Now: time.Now, Log: slog.New(slog.DiscardHandler), Resync: 30 * time.Second, Settle: time.Second,
				}
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error)
				go func() { ended <- a.Run(ctx) }()
				synctest.Wait()
				c.play(h, func() { wake <- struct{}{}; synctest.Wait() })
				cancel()
				if err := <-ended; err != nil {
					t.Errorf("Run: %v", err)
				}
				if d := cmp.Diff(c.want, got.lines); d != "" {
					t.Errorf("reported (-want +got):\n%s", d)
				}
			})
		})
	}
}

// late is a watcher that reports a new directory once. Something changed there before it
// was watched, so there is no wake-up.
type late struct {
	wakes
	happens func()
}

func (l *late) Watch([]hostfs.Directory) bool {
	if l.happens == nil {
		return false
	}
	l.happens()
	l.happens = nil
	return true
}

// TestScansAgainForNewDirectories: a change between the scan and the start of watching is
// seen, without an event or a tick.
func TestScansAgainForNewDirectories(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, got := &host{}, &reported{start: time.Now()}
		a := &Agent{
			Scan: h.scan, Chains: noChains, Reporter: got, Meter: &meter{},
			Watcher: &late{happens: func() { h.write("KeyMissing") }},
			Now:     time.Now, Log: slog.New(slog.DiscardHandler), Resync: time.Hour, Settle: time.Second,
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := a.Run(ctx); err != nil {
			t.Error(err)
		}
		if d := cmp.Diff([]string{"0s Compliant admission-enabled", "1s Finding active KeyMissing", "1s Not compliant " +
			"use-https"}, got.lines); d != "" {
			t.Errorf("reported (-want +got):\n%s", d)
		}
	})
}

// TestLogsWhetherTheCertificateWasFound: the agent logs once where the certificate is, or that it was not found, and
// again when that changes, although it searched in the same way.
func TestLogsWhetherTheCertificateWasFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logged bytes.Buffer
		h, wake, certificate := &host{}, make(wakes), ""
		a := &Agent{
			Scan: func(now time.Time) scan.Snapshot {
				s := h.scan(now)
				s.Found.How, s.Found.Certificate.Host = "directory /d", certificate
				return s
			},
			Chains: noChains, Reporter: &reported{}, Meter: &meter{}, Watcher: wake,
			Now: time.Now, Log: slog.New(slog.NewTextHandler(&logged, nil)), Resync: time.Hour, Settle: time.Second,
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- a.Run(ctx) }()
		synctest.Wait()
		for _, certificate = range []string{"", "", "/d/tls.crt", "/d/tls.crt"} {
			wake <- struct{}{}
			synctest.Wait()
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		var found []bool
		for line := range strings.Lines(logged.String()) {
			found = append(found, strings.Contains(line, "certificate=/d/tls.crt"))
		}
		if d := cmp.Diff([]bool{false, true}, found); d != "" {
			t.Errorf("lines with the certificate (-want +got):\n%s\n%s", d, &logged)
		}
	})
}

// TestConnectionPatience: a finding from the kube-apiserver's connection is reported after 9 minutes, because the
// kube-apiserver uses old files for up to 5 minutes, and is asked every 2 minutes or so. One that ends sooner is not
// reported.
func TestConnectionPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, got := &host{}, &reported{start: time.Now()}
		answers := &kubelet{answered: make(chan struct{})}
		var reason atomic.Value
		reason.Store(finding.Reason(""))
		a := &Agent{
			Scan: func(now time.Time) scan.Snapshot {
				s := h.scan(now)
				s.KubeletResults = answered(isKubelet, "")
				connection := func(r finding.Requirement) bool { return r == finding.Kubelet.Requires(finding.Connection) }
				s.KubeletResults = slices.DeleteFunc(s.KubeletResults,
					func(r finding.Result) bool { return connection(r.Requirement) })
				answer := reason.Load().(finding.Reason)
				s.ConnectionResults, s.Contents = answered(connection, answer), sha256.Sum256([]byte(answer))
				return s
			},
			Chains: noChains, Reporter: got, Meter: &meter{}, Watcher: make(wakes),
			Connection: answers, Now: time.Now, Log: slog.New(slog.DiscardHandler), Resync: time.Minute, Settle: time.Second,
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- a.Run(ctx) }()
		synctest.Wait()
		for _, step := range []struct {
			reason finding.Reason
			lasts  time.Duration
		}{
			{finding.ClientCertificateUnusable, 5*time.Minute + 130*time.Second + time.Minute}, {"", time.Minute},
			{finding.ClientNotAuthorized, 10 * time.Minute}, {"", time.Minute},
		} {
			reason.Store(step.reason)
			answers.answered <- struct{}{}
			pass(step.lasts)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		want := []string{
			"0s Compliant use-https", "0s Compliant admission-enabled", "18m10s Finding active ClientNotAuthorized",
			"18m10s Not compliant use-https", "19m10s Finding resolved ClientNotAuthorized", "19m10s Compliant use-https",
		}
		if d := cmp.Diff(want, got.lines); d != "" {
			t.Errorf("reported (-want +got):\n%s", d)
		}
	})
}

// kubelet counts how often it is probed, or the kube-apiserver asked, and answers when the test says so.
type kubelet struct {
	asked    atomic.Int64
	answers  atomic.Uint64
	answered chan struct{}
}

// answer gives another answer than before.
func (k *kubelet) answer() {
	k.answers.Add(1)
	k.answered <- struct{}{}
}

func (k *kubelet) Answers() uint64           { return k.answers.Load() }
func (k *kubelet) Ask()                      { k.asked.Add(1) }
func (k *kubelet) AskSoon()                  { k.asked.Add(1) }
func (k *kubelet) Answered() <-chan struct{} { return k.answered }

// TestAsksTheKubelet: the agent probes the kubelet at the start, at each tick, after a
// change, and while a finding from its answer is pending, but not after each event. It scans
// after another answer, and after each one while a finding from it is pending.
func TestAsksTheKubelet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, got, counted := &host{}, &reported{start: time.Now()}, &meter{}
		k, wake := &kubelet{answered: make(chan struct{})}, make(wakes)
		says := ""
		a := &Agent{
			Scan: func(now time.Time) scan.Snapshot {
				s := h.scan(now)
				if says != "" {
					s.KubeletResults = answered(isKubelet, finding.Reason(says))
					s.Contents[0]++
				}
				return s
			},
			Chains: noChains, Reporter: got, Meter: counted, Watcher: wake, Kubelet: k,
			Now: time.Now, Log: slog.New(slog.DiscardHandler), Resync: time.Minute, Settle: time.Second,
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- a.Run(ctx) }()
		synctest.Wait()
		asked := func(what string, want int64) {
			t.Helper()
			synctest.Wait()
			if got := k.asked.Load(); got != want {
				t.Errorf("%s: asked %d times so far, want %d", what, got, want)
			}
		}
		asked("start", 1)
		for range 5 {
			wake <- struct{}{}
		}
		asked("events that change nothing", 1)
		h.write("KeyMissing")
		wake <- struct{}{}
		asked("a change", 2)
		pass(30 * time.Second)
		asked("settled", 2)
		pass(31 * time.Second)
		asked("tick", 3)
		k.answer()
		asked("the first answer", 3)
		for range 5 {
			k.answered <- struct{}{}
		}
		asked("the same answer", 3)
		says = "KubeletNotTLS"
		k.answer()
		asked("an answer that is not reported yet", 4)
		k.answered <- struct{}{}
		asked("the same answer, not reported yet", 5)
		pass(20 * time.Second)
		asked("reported", 5)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		want := []string{
			"0s Compliant use-https", "0s Compliant admission-enabled", "1s Finding active KeyMissing",
			"1s Not compliant use-https", "1m11s Finding active KubeletNotTLS",
		}
		if d := cmp.Diff(want, got.lines); d != "" {
			t.Errorf("reported (-want +got):\n%s", d)
		}
		triggers := []Trigger{
			Start, FileEvent, FileEvent, FileEvent, FileEvent, FileEvent, FileEvent, Moment, Tick, KubeletAnswered,
			KubeletAnswered, KubeletAnswered, Moment,
		}
		if d := cmp.Diff(triggers, counted.triggers); d != "" {
			t.Errorf("triggers (-want +got):\n%s", d)
		}
	})
}

// TestAsksTheAPIServer: the agent asks the kube-apiserver after each change of a file of the connection, and after
// nothing else.
func TestAsksTheAPIServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, wake, asker := &host{}, make(wakes), &kubelet{answered: make(chan struct{})}
		files, other := byte(1), byte(0)
		a := &Agent{
			Scan: func(now time.Time) scan.Snapshot {
				s := h.scan(now)
				s.ConnectionFiles[0], s.Contents[0] = files, other
				return s
			},
			Chains: noChains, Reporter: &reported{start: time.Now()}, Meter: &meter{},
			Watcher: wake, Connection: asker, Now: time.Now, Log: slog.New(slog.DiscardHandler), Resync: time.Minute,
			Settle: time.Second,
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- a.Run(ctx) }()
		asked := func(what string, want int64) {
			t.Helper()
			synctest.Wait()
			if got := asker.asked.Load(); got != want {
				t.Errorf("%s: asked %d times so far, want %d", what, got, want)
			}
		}
		asked("start", 0)
		wake <- struct{}{}
		asked("an event that changes nothing", 0)
		files = 2
		wake <- struct{}{}
		asked("a change of a file", 1)
		wake <- struct{}{}
		asked("another event", 1)
		other = 1
		wake <- struct{}{}
		asked("a change of another file", 1)
		asker.answered <- struct{}{}
		asked("an answer", 1)
		pass(10 * time.Minute)
		asked("ticks", 1)
		files = 1
		wake <- struct{}{}
		asked("a change back", 2)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// TestCompliantNeedsTheKubelet: until the kubelet answers, the control that needs its
// answer is not reported as compliant.
func TestCompliantNeedsTheKubelet(t *testing.T) {
	cases := map[string]struct {
		answers time.Duration
		want    []string
	}{
		"after a moment": {3 * time.Second, []string{"0s Compliant admission-enabled", "3s Compliant use-https"}},
		"after minutes": {2 * time.Minute, []string{
			"0s Compliant admission-enabled", "1m0s Finding active NotObserved", "1m0s Could not verify use-https",
			"2m0s Finding resolved NotObserved", "2m0s Compliant use-https",
		}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h, got := &host{}, &reported{start: time.Now()}
				k := &kubelet{answered: make(chan struct{})}
				var answer atomic.Bool
				a := &Agent{
					Scan: func(now time.Time) scan.Snapshot {
						s := h.scan(now)
						if !answer.Load() {
							s.Contents[0]++
							for i := range s.KubeletResults {
								s.KubeletResults[i] = finding.Result{
									Requirement: s.KubeletResults[i].Requirement, Subject: finding.Subject{Kind: finding.KindKubelet},
									Outcome: finding.Unknown, Reason: finding.NotObserved,
								}
							}
						}
						return s
					},
					Chains: noChains, Reporter: got, Meter: &meter{}, Watcher: make(wakes), Kubelet: k,
					Now: time.Now, Log: slog.New(slog.DiscardHandler), Resync: 30 * time.Second, Settle: time.Second,
				}
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error)
				go func() { ended <- a.Run(ctx) }()
				pass(c.answers)
				answer.Store(true)
				k.answer()
				pass(time.Hour / 2)
				cancel()
				if err := <-ended; err != nil {
					t.Error(err)
				}
				if d := cmp.Diff(c.want, got.lines); d != "" {
					t.Errorf("reported (-want +got):\n%s", d)
				}
			})
		})
	}
}

// TestSettled: a single check does not report what is gone a moment later, and does not
// wait if nothing is wrong.
func TestSettled(t *testing.T) {
	cases := map[string]struct {
		change map[int]string // contents from that scan on
		want   string
		after  time.Duration
	}{
		"valid at once":        {want: "[]", after: 0},
		"half-written":         {change: map[int]string{1: "KeyMismatch", 2: ""}, want: "[]", after: time.Second},
		"stays invalid":        {change: map[int]string{1: "KeyMismatch"}, want: "[KeyMismatch]", after: time.Second},
		"never twice the same": {change: map[int]string{1: "KeyMismatch", 2: "KeyMissing", 3: "KeyMismatch", 4: "KeyMissing", 5: "KeyMismatch"}, want: "[KeyMismatch]", after: 2 * time.Second},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				h := &host{}
				a := &Agent{
					Scan: func(now time.Time) scan.Snapshot {
						if contents, changed := c.change[h.scans+1]; changed {
							h.write(contents)
						}
						return h.scan(now)
					},
					Now: time.Now, Settle: time.Second,
				}
				var reasons []finding.Reason
				for _, f := range finding.Findings(a.Settled(t.Context()).Results()) {
					reasons = append(reasons, f.Reason)
				}
				if got := fmt.Sprint(reasons); got != c.want || time.Since(start) != c.after {
					t.Errorf("Settled: got %s after %s, want %s after %s", got, time.Since(start), c.want, c.after)
				}
			})
		})
	}
}
