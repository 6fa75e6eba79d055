// SPDX-License-Identifier: Apache-2.0

package sweep

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/control"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/tracker"
)

// TestFollow: a failure is reported if it was seen at least twice, with no success in between.
func TestFollow(t *testing.T) {
	const (
		pass, fails, none = finding.Reason(""), finding.KubeletNotTLS, finding.KubeletHasNoCertificate
		lost, once        = finding.KubeletUnreachable, finding.NotObserved
		warns             = finding.ReadOnlyPortOpen
	)
	cases := map[string]struct{ seen, want []finding.Reason }{
		"new Node fails":            {[]finding.Reason{fails, fails, fails}, []finding.Reason{once, fails, fails}},
		"new Node fails once":       {[]finding.Reason{fails, pass, fails, fails}, []finding.Reason{once, pass, pass, fails}},
		"fails once":                {[]finding.Reason{pass, fails, pass, fails}, []finding.Reason{pass, pass, pass, pass}},
		"for two reasons":           {[]finding.Reason{pass, fails, none}, []finding.Reason{pass, pass, none}},
		"a warning in between":      {[]finding.Reason{pass, fails, warns, fails}, []finding.Reason{pass, pass, warns, warns}},
		"unreachable in between":    {[]finding.Reason{pass, fails, lost, fails}, []finding.Reason{pass, pass, lost, fails}},
		"unreachable before":        {[]finding.Reason{lost, fails, fails}, []finding.Reason{lost, lost, fails}},
		"warnings are seen at once": {[]finding.Reason{warns, pass}, []finding.Reason{warns, pass}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var last *Outcome
			for i, reason := range c.seen {
				next := outcome("a", reason).follow(last)
				last = &next
				var want []finding.Reason
				if c.want[i] != pass {
					want = []finding.Reason{c.want[i]}
				}
				if d := cmp.Diff(want, next.reported().reasons()); d != "" {
					t.Errorf("step %d: reported (-want +got):\n%s", i, d)
				}
				isHeld := reason.Outcome() == finding.Fail && c.want[i] != reason
				if reason != pass && next.unconfirmed() != isHeld {
					t.Errorf("step %d: unconfirmed is %t", i, next.unconfirmed())
				}
			}
		})
	}
}

// notTLS answers without TLS.
func notTLS(c net.Conn) {
	_, _ = io.WriteString(c, "HTTP/1.0 400 Bad Request\r\n\r\n")
	hang(c)
}

// TestFailureIsConfirmed: a kubelet that fails once is asked again before that is reported.
func TestFailureIsConfirmed(t *testing.T) {
	f := &fake{nodes: []Node{{Name: "bad", Host: "127.0.0.1", Port: serve(t, notTLS)}}}
	s := sweeper(f, time.Now)
	s.reset()
	s.sweep(t.Context())
	if got := ofTLS(s.Results()); !slices.Equal(got, []string{"Node: unknown NotObserved"}) {
		t.Errorf("seen once: %q", got)
	}
	s.confirm(t.Context())
	if got := ofTLS(s.Results()); !slices.Equal(got, []string{"Node bad: fail KubeletNotTLS"}) {
		t.Errorf("seen twice: %q", got)
	}
}

// TestConfirmsFailuresFirst: Nodes that fail are asked again before thousands that are unreachable or only warn.
func TestConfirmsFailuresFirst(t *testing.T) {
	s := sweeper(&fake{}, time.Now)
	s.reset()
	s.outcomes = map[string]Outcome{}
	for _, o := range slices.Concat(
		many(2000, "warns", finding.ReadOnlyPortOpen), many(10, "lost", finding.KubeletUnreachable),
		many(2, "fails", finding.KubeletNotTLS), many(2, "reported", finding.KubeletNotTLS), many(10, "good", ""),
	) {
		next := o.follow(nil)
		if strings.HasPrefix(o.Node, "reported") {
			next = o.follow(&next)
		}
		s.outcomes[o.Node] = next
	}
	var got []string
	for _, name := range s.toConfirm() {
		kind, _, _ := strings.Cut(name, "-")
		got = append(got, kind)
	}
	want := slices.Concat(
		slices.Repeat([]string{"fails"}, 2), slices.Repeat([]string{"reported"}, 2), slices.Repeat([]string{"lost"}, 10),
		slices.Repeat([]string{"warns"}, maxConfirmed-14),
	)
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// slow is a cluster whose API server answers slowly. It keeps the times at which all Nodes were listed.
type slow struct {
	*fake

	node, list time.Duration
	err        error
	lists      []time.Time
}

func wait(ctx context.Context, long time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(long):
		return nil
	}
}

func (f *slow) Nodes(ctx context.Context, types []string) ([]Node, error) {
	f.lists = append(f.lists, time.Now())
	if err := wait(ctx, f.list); err != nil {
		return nil, err
	}
	return f.fake.Nodes(ctx, types)
}

func (f *slow) Node(ctx context.Context, name string, types []string) (Node, bool, error) {
	node, exists, _ := f.fake.Node(ctx, name, types)
	if err := wait(ctx, f.node); err != nil {
		return Node{}, false, err
	}
	return node, exists, f.err
}

// TestConfirmEnds: an API server that is slow, or fails, does not delay the next sweep, and what was read is used.
func TestConfirmEnds(t *testing.T) {
	failure := errors.New("no answer")
	cases := map[string]struct {
		node        time.Duration
		err         error
		reads, seen int // Nodes that are read, and that are asked again
	}{
		"fails slowly": {10 * time.Second, failure, 1, 0},
		"slow":         {1100 * time.Millisecond, nil, 14, 13},
		"hangs":        {time.Hour, nil, 1, 0},
		"fast":         {0, nil, maxConfirmed, maxConfirmed},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &slow{fake: &fake{nodes: problems(2 * maxConfirmed)}, node: c.node, err: c.err}
				s := sweeper(f.fake, time.Now)
				s.Cluster = f
				s.reset()
				s.sweep(t.Context())
				began := time.Now()
				s.confirm(t.Context())
				if took := time.Since(began); took > confirmTime {
					t.Errorf("it took %s", took)
				}
				again := 0
				for _, o := range s.outcomes {
					if o.seen == 2 {
						again++
					}
				}
				if len(f.single) != c.reads || again != c.seen {
					t.Errorf("%d Nodes were read, and %d asked again, want %d and %d", len(f.single), again, c.reads, c.seen)
				}
			})
		})
	}
}

// TestSweepsGoOn: the interval of sweeps is kept whatever the API server does, and the results say what is wrong.
func TestSweepsGoOn(t *testing.T) {
	for name, f := range map[string]*slow{
		"reading a Node fails slowly": {node: 10 * time.Second, err: errors.New("no answer")},
		"listing Nodes never ends":    {list: 24 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f.fake = &fake{nodes: problems(2 * maxConfirmed)}
				s := sweeper(f.fake, time.Now)
				s.Cluster = f
				ctx, stop := context.WithTimeout(t.Context(), time.Hour)
				defer stop()
				s.Run(ctx)
				if n := len(f.lists); n < 10 {
					t.Fatalf("%d sweeps in an hour", n)
				}
				for i, at := range f.lists[1:] {
					if since := at.Sub(f.lists[i]); since > Every+everyJitter+confirmTime {
						t.Errorf("%s between two sweeps", since)
					}
				}
				want := finding.NodeAddressUnusable
				if f.list > 0 {
					want = finding.Unreadable
				}
				if got := ofTLS(s.Results()); !slices.Equal(got, []string{fmt.Sprint("Node: unknown ", want)}) {
					t.Errorf("results: %q", got)
				}
			})
		})
	}
}

// TestUIDOfDeletedNode: the end of a finding is reported after the Node was deleted, so its UID stays known. A new Node
// of the same name has its own.
func TestUIDOfDeletedNode(t *testing.T) {
	f, now := &fake{}, time.Now()
	s := sweeper(f, func() time.Time { return now })
	bad := Node{Name: "bad", UID: "uid-1", Host: "127.0.0.1", Port: serve(t, notTLS)}
	successor := bad
	successor.UID = "uid-2"
	s.reset()
	steps := []struct {
		nodes []Node
		want  string
	}{
		{[]Node{bad}, "uid-1"}, {[]Node{bad}, "uid-1"}, {nil, "uid-1"}, {[]Node{successor}, "uid-2"}, {nil, "uid-2"},
	}
	for i, step := range steps {
		f.set(step.nodes...)
		s.sweep(t.Context())
		if got := s.UID("bad"); got != step.want {
			t.Errorf("step %d: got %q, want %q", i, got, step.want)
		}
	}
	if got := ofTLS(s.Results()); !slices.Equal(got, []string{"Node bad: notApplicable"}) {
		t.Errorf("after it was deleted: %q", got)
	}
	now = now.Add(2 * forgetAfter)
	s.sweep(t.Context())
	s.sweep(t.Context())
	if got := s.UID("bad"); got != "" {
		t.Errorf("long after it was deleted: %q", got)
	}
}

// TestPresentAtStart: of the kubelets that fail when the audit starts, all findings say so, and none of a kubelet that
// fails later.
func TestPresentAtStart(t *testing.T) {
	ca := pkitest.NewCAAround("signer", time.Now())
	bad := serve(t, notTLS)
	node := func(name string, port int) Node { return Node{Name: name, UID: "uid", Host: "127.0.0.1", Port: port} }
	good := node("good", kubelet(t, serving(ca, "good")))
	later := node("later", kubelet(t, serving(ca, "later")))
	f := &fake{settings: Settings{CA: check.KubeletCA{NotConfigured: true}}}
	s, tracked, now := sweeper(f, time.Now), tracker.New(3*time.Second), time.Now()
	s.reset()
	var got []string
	observe := func() {
		for range 2 {
			changes := tracked.Observe(tracker.Observation{
				At: now, Sources: []tracker.Source{{Results: s.Results(), Patience: time.Minute}}, Scope: control.Cluster,
			})
			for _, n := range changes.Notices {
				got = append(got, fmt.Sprint(n.Finding.Subject, " ", n.Finding.Reason, " at start: ", n.AtStart))
			}
			now = now.Add(time.Minute)
		}
	}
	f.set(good, later, node("bad", bad))
	s.sweep(t.Context())
	if got := ofTLS(s.Results()); !slices.Equal(got, []string{"Node: unknown NotObserved"}) {
		t.Errorf("before failures are confirmed: %q", got)
	}
	s.confirm(t.Context())
	observe()
	later.Port = bad
	f.set(good, later, node("bad", bad))
	s.sweep(t.Context())
	s.confirm(t.Context())
	observe()
	want := []string{"Node bad KubeletNotTLS at start: true", "Node later KubeletNotTLS at start: false"}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}
