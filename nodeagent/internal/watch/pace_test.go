// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/google/go-cmp/cmp"
)

const (
	matters   = "/d/matters"
	unrelated = "/d/unrelated"
	us, ms    = time.Microsecond, time.Millisecond
)

// rig is a watcher without the kernel, in a synctest bubble.
type rig struct {
	*Watcher
	begin  time.Time
	events chan fsnotify.Event
	errors chan error
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{
		Watcher: New(slog.New(slog.DiscardHandler)), begin: time.Now(),
		events: make(chan fsnotify.Event), errors: make(chan error),
	}
	r.names = map[string]bool{matters: true}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- r.listen(ctx, r.events, r.errors) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return r
}

// event causes an event at a time after the start.
func (r *rig) event(at time.Duration, name string) {
	<-time.After(time.Until(r.begin.Add(at)))
	r.events <- fsnotify.Event{Name: name}
}

// wakeUps receives wake-ups until a time after the start, as an agent does whose scan takes this long. It returns when
// they came.
func (r *rig) wakeUps(until, scan time.Duration) []time.Duration {
	var came []time.Duration
	end := time.After(time.Until(r.begin.Add(until)))
	for {
		select {
		case <-end:
			return came
		case <-r.Wake():
			came = append(came, time.Since(r.begin))
			<-time.After(scan)
		}
	}
}

// every returns times from the first to the last.
func every(step, first, last time.Duration) (times []time.Duration) {
	for at := first; at <= last; at += step {
		times = append(times, at)
	}
	return times
}

// TestPace: the first event wakes the agent at once, and events after it cause another wake-up soon.
func TestPace(t *testing.T) {
	at := func(times ...time.Duration) []time.Duration { return times }
	cases := map[string]struct {
		events []time.Duration
		scan   time.Duration
		want   []time.Duration
	}{
		"nothing":                       {nil, 0, nil},
		"one event":                     {at(5 * ms), ms, at(5 * ms)},
		"one event more during a scan":  {at(5*ms, 5500*us), ms, at(5*ms, 7*ms)},
		"many events during a scan":     {every(50*us, 5*ms, 5900*us), ms, at(5*ms, 7*ms)},
		"an event after the pause":      {at(5*ms, 7500*us), ms, at(5*ms, 7500*us)},
		"a scan longer than the pause":  {at(5*ms, 6*ms, 7*ms, 8*ms), 10 * ms, at(5*ms, 15*ms)},
		"an event in the second scan":   {at(5*ms, 6*ms, 16*ms), 10 * ms, at(5*ms, 15*ms, 25*ms)},
		"a write of several steps":      {every(900*us, 5*ms, 11*ms), ms, every(2*ms, 5*ms, 11*ms)},
		"an event in each two windows":  {every(2*Window, 0, 20*Window), ms, every(2*Window, 0, 20*Window)},
		"an event in each window":       {every(Window, 0, 20*Window), ms, every(Window, 0, 20*Window)},
		"as many as a burst, then more": {every(1900*us, 0, 60*ms), ms, at(0, 2*ms, 4*ms, 6*ms, 8*ms, 30*ms, 60*ms)},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				go func() {
					for _, at := range c.events {
						r.event(at, matters)
						r.event(at, unrelated)
					}
				}()
				if d := cmp.Diff(c.want, r.wakeUps(time.Minute, c.scan)); d != "" {
					t.Errorf("wake-ups (-want +got):\n%s", d)
				}
			})
		})
	}
}

// TestPaceIsBounded: however events come, no period has more than Burst wake-ups and one more for each Window, and
// after the last event there is one that comes within a Window.
func TestPaceIsBounded(t *testing.T) {
	const long = 3 * time.Second
	patterns := map[string]func(i int) time.Duration{ // the time from one event to the next
		"10,000 a second":         func(int) time.Duration { return 100 * us },
		"one in each pause":       func(int) time.Duration { return pause },
		"faster than the window":  func(int) time.Duration { return Window - ms },
		"as slow as the window":   func(int) time.Duration { return Window },
		"bursts and quiet times":  func(i int) time.Duration { return []time.Duration{ms, ms, ms, ms, 3 * Window}[i%5] },
		"longer and longer times": func(i int) time.Duration { return time.Duration(i%100) * ms },
	}
	for name, step := range patterns {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t)
				var last time.Duration
				go func() {
					for i := 0; last < long; i++ {
						r.event(last, matters)
						last += step(i)
					}
				}()
				came := r.wakeUps(long+time.Minute, ms/2)
				for i := range came {
					for j := i; j < len(came); j++ {
						if n, period := j-i+1, came[j]-came[i]; n > Burst+int(period/Window) {
							t.Fatalf("%d wake-ups from %s to %s", n, came[i], came[j])
						}
					}
				}
				if end := came[len(came)-1]; end > long+Window || end < long-4*Window {
					t.Errorf("the last wake-up came after %s", end)
				}
			})
		})
	}
}

// TestWakeIsKept: a wake-up that nobody waits for is kept, and events after it add none.
func TestWakeIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		for i := range 100 {
			r.event(time.Duration(i)*Window, matters)
		}
		want := []time.Duration{time.Minute}
		<-time.After(time.Until(r.begin.Add(time.Minute)))
		if d := cmp.Diff(want, r.wakeUps(2*time.Minute, 0)); d != "" {
			t.Errorf("wake-ups (-want +got):\n%s", d)
		}
	})
}

// TestErrorsWake: an error of inotify wakes the agent as an event does, because events may be lost.
func TestErrorsWake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		go func() {
			for range 3 {
				r.errors <- fsnotify.ErrEventOverflow
			}
		}()
		if d := cmp.Diff(fmt.Sprint([]time.Duration{0, pause}), fmt.Sprint(r.wakeUps(time.Minute, ms))); d != "" {
			t.Errorf("wake-ups (-want +got):\n%s", d)
		}
		if n := r.Errors(); n != 3 {
			t.Errorf("%d errors counted, want 3", n)
		}
	})
}
