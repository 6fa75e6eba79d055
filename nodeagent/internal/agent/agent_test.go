// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kubelet-https-guard/kubelet-https-guard/nodeagent/internal/hostfs"
	"github.com/kubelet-https-guard/kubelet-https-guard/nodeagent/internal/scan"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/report"
)

// host is a host whose only file is a text: of findings.
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
		s.Findings = []finding.Finding{{Reason: finding.Reason(h.contents), Location: "file"}}
	case !h.expires.IsZero() && !now.Before(h.expires):
		s.Findings = []finding.Finding{{Reason: finding.CertificateExpired, Location: "file"}}
	case !h.expires.IsZero():
		s.NextChange = h.expires
	}
	return s
}

// meter gathers what made the agent look.
type meter struct{ triggers []Trigger }

func (m *meter) Looked(trigger Trigger, _ time.Duration, _ scan.Snapshot) {
	m.triggers = append(m.triggers, trigger)
}

type wakes chan struct{}

func (w wakes) Arm([]hostfs.Directory) bool { return false }
func (w wakes) Wake() <-chan struct{}       { return w }

// told gathers what is told, with the time since the start.
type told struct {
	start time.Time
	lines []string
}

func (r *told) Tell(_ context.Context, n report.Notice) {
	r.lines = append(r.lines, strings.TrimSpace(fmt.Sprint(time.Since(r.start), " ", n.What, " ", n.Finding.Reason)))
}

// pass lets time pass; in a bubble none is lost.
func pass(d time.Duration) { <-time.After(d) }

// TestRun plays an hour of an agent's life in a bubble of time.
func TestRun(t *testing.T) {
	cases := map[string]struct {
		expires time.Duration
		play    func(h *host, wake func())
		want    []string
	}{
		"nothing happens": {
			play: func(*host, func()) { pass(time.Hour) },
			want: []string{"0s Verified"},
		},
		"an event wakes it, settle delays what it tells": {
			play: func(h *host, wake func()) {
				pass(5 * time.Second)
				h.write("KeyMissing")
				wake()
				pass(10 * time.Second)
				h.write("")
				wake()
				pass(time.Hour)
			},
			want: []string{"0s Verified", "6s Finding raised KeyMissing", "6s Not verified", "15s Finding cleared KeyMissing", "15s Verified"},
		},
		"without an event the tick finds it": {
			play: func(h *host, _ func()) {
				pass(5 * time.Second)
				h.write("KeyMissing")
				pass(time.Hour)
			},
			want: []string{"0s Verified", "31s Finding raised KeyMissing", "31s Not verified"},
		},
		"an expiry needs neither event nor tick, nor does it settle": {
			expires: 12*time.Second + 345*time.Millisecond,
			play:    func(*host, func()) { pass(time.Hour) },
			want:    []string{"0s Verified", "12.345s Finding raised CertificateExpired", "12.345s Not verified"},
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
				got := &told{start: start}
				a := &Agent{
					Scan: h.scan, Chain: func(string) []hostfs.Directory { return nil }, Watcher: wake, Teller: got, Meter: &meter{},
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
					t.Errorf("told (-want +got):\n%s", d)
				}
			})
		})
	}
}

// late is a watcher that finds a directory to be new once, in which meanwhile
// something has happened that nobody was woken by.
type late struct {
	wakes
	happens func()
}

func (l *late) Arm([]hostfs.Directory) bool {
	if l.happens == nil {
		return false
	}
	l.happens()
	l.happens = nil
	return true
}

// TestLooksAgainAfterArming: what happened between the look and the moment
// from which a directory was watched is seen, without an event or a tick.
func TestLooksAgainAfterArming(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, got := &host{}, &told{start: time.Now()}
		a := &Agent{
			Scan: h.scan, Chain: func(string) []hostfs.Directory { return nil }, Teller: got, Meter: &meter{},
			Watcher: &late{happens: func() { h.write("KeyMissing") }},
			Now:     time.Now, Log: slog.New(slog.DiscardHandler), Resync: time.Hour, Settle: time.Second,
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := a.Run(ctx); err != nil {
			t.Error(err)
		}
		if d := cmp.Diff([]string{"1s Finding raised KeyMissing", "1s Not verified"}, got.lines); d != "" {
			t.Errorf("told (-want +got):\n%s", d)
		}
	})
}

// kubelet counts how often it is asked, and answers when it is told to.
type kubelet struct {
	asked    atomic.Int64
	answered chan struct{}
}

func (k *kubelet) Ask()                      { k.asked.Add(1) }
func (k *kubelet) Answered() <-chan struct{} { return k.answered }

// TestAsksTheKubelet: at the start, at each tick, when something has changed and
// while what it said has not lasted long enough, but not on each event.
func TestAsksTheKubelet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, got, counted := &host{}, &told{start: time.Now()}, &meter{}
		k, wake := &kubelet{answered: make(chan struct{})}, make(wakes)
		says := ""
		a := &Agent{
			Scan: func(now time.Time) scan.Snapshot {
				s := h.scan(now)
				if says != "" {
					s.Kubelet = []finding.Finding{{Reason: finding.Reason(says), Location: "kubelet"}}
					s.Contents[0]++
				}
				return s
			},
			Chain: func(string) []hostfs.Directory { return nil }, Teller: got, Meter: counted, Watcher: wake, Kubelet: k,
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
		says = "KubeletNotTLS"
		k.answered <- struct{}{}
		asked("an answer that is not told yet", 4)
		k.answered <- struct{}{}
		asked("the same answer, not told yet", 5)
		pass(20 * time.Second)
		asked("told", 5)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		want := []string{"0s Verified", "1s Finding raised KeyMissing", "1s Not verified", "1m11s Finding raised KubeletNotTLS"}
		if d := cmp.Diff(want, got.lines); d != "" {
			t.Errorf("told (-want +got):\n%s", d)
		}
		triggers := []Trigger{Start, FileEvent, FileEvent, FileEvent, FileEvent, FileEvent, FileEvent, Moment, Tick, KubeletSaid, KubeletSaid, Moment}
		if d := cmp.Diff(triggers, counted.triggers); d != "" {
			t.Errorf("looks (-want +got):\n%s", d)
		}
	})
}

// TestSettled: --once does not report what is gone a moment later, and does
// not wait where nothing is wrong.
func TestSettled(t *testing.T) {
	cases := map[string]struct {
		change map[int]string // contents from that scan on
		want   string
		after  time.Duration
	}{
		"good at once":         {want: "[]", after: 0},
		"half-written":         {change: map[int]string{1: "KeyMismatch", 2: ""}, want: "[]", after: time.Second},
		"bad for good":         {change: map[int]string{1: "KeyMismatch"}, want: "[KeyMismatch]", after: time.Second},
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
				for _, f := range a.Settled(t.Context()).Findings {
					reasons = append(reasons, f.Reason)
				}
				if got := fmt.Sprint(reasons); got != c.want || time.Since(start) != c.after {
					t.Errorf("Settled: got %s after %s, want %s after %s", got, time.Since(start), c.want, c.after)
				}
			})
		})
	}
}
