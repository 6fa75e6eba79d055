// SPDX-License-Identifier: Apache-2.0

package model

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/control"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/report"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/tracker"
)

// The times of the tracker.
const (
	patience = 3 * time.Second
	settle   = 2 * time.Second
	reminder = time.Hour
)

// seen is the answer to one requirement in an observation.
type seen string

// All answers. The first passes, the last is no answer: its subject is not there.
const (
	passes   seen = ""
	expired  seen = seen(finding.CertificateExpired)
	mismatch seen = seen(finding.KeyMismatch)
	ending   seen = seen(finding.CertificateExpiringSoon)
	unknown  seen = seen(finding.Unreadable)
	absent   seen = "absent"
)

// observed reports whether the answer was an observation.
func (s seen) observed() bool { return s != unknown && s != absent }

func (s seen) isFinding() bool { return s != passes && s != absent }

// place is a requirement and its subject.
type place struct {
	requirement finding.Requirement
	subject     finding.Subject
}

// step is an observation, some time after the last one.
type step struct {
	after time.Duration
	// sees has the answer at each place.
	sees []seen
	// unchanged: everything that was read is the same as the last time, so only time changed the answers.
	unchanged bool
}

// history is what a tracker observed and reported.
type history struct {
	places  []place
	steps   []step
	at      []time.Time
	notices [][]report.Notice
	changes tracker.Changes // the last ones
}

// controlOf returns a control that requires what is required at all places.
func controlOf(places []place) control.Control {
	c := control.Control{ID: "model"}
	for _, p := range places {
		required := control.Required{Requirement: p.requirement, Scopes: []control.Scope{control.Node}}
		if !slices.ContainsFunc(c.Requirements, func(r control.Required) bool { return r.Requirement == p.requirement }) {
			c.Requirements = append(c.Requirements, required)
		}
	}
	return c
}

// observe lets a tracker observe a step.
func (h *history) observe(t *tracker.Tracker, s step) {
	at := pkitest.Now()
	if len(h.at) > 0 {
		at = h.at[len(h.at)-1].Add(s.after)
	}
	source := tracker.Source{Patience: patience}
	for i, p := range h.places {
		r := finding.Result{Requirement: p.requirement, Subject: p.subject, Outcome: finding.Pass}
		if s.sees[i] == absent {
			continue
		}
		if s.sees[i] != passes {
			r.Reason = finding.Reason(s.sees[i])
			r.Outcome = r.Reason.Outcome()
		}
		source.Results = append(source.Results, r)
	}
	contents := fmt.Sprint(len(h.steps))
	if s.unchanged {
		contents = "unchanged" // as in the last step, which is unchanged, too, or the first that is
	}
	h.changes = t.Observe(tracker.Observation{
		At: at, Contents: sha256.Sum256([]byte(contents)), Sources: []tracker.Source{source},
		Scope: control.Node, Controls: []control.Control{controlOf(h.places)},
	})
	h.steps, h.at, h.notices = append(h.steps, s), append(h.at, at), append(h.notices, h.changes.Notices)
}

// byTime reports whether only time can have changed the answers of the last step.
func (h *history) byTime() bool {
	last := len(h.steps) - 1
	return last > 0 && h.steps[last].unchanged && h.steps[last-1].unchanged
}

// since returns for how long a condition has been true at each of the last steps; false if it is not true now.
func (h *history) since(is func(step) bool) (time.Duration, bool) {
	last := len(h.steps) - 1
	first := last + 1
	for first > 0 && is(h.steps[first-1]) {
		first--
	}
	if first > last {
		return 0, false
	}
	return h.at[last].Sub(h.at[first]), true
}

// reportedState replays the notices about a finding: whether it is reported as active, and when that was reported last.
// It returns an error if the notices are not in an order that makes sense.
func (h *history) reportedState(id finding.ID) (isActive bool, reported time.Time, err error) {
	for i, notices := range h.notices {
		for _, n := range notices {
			if !n.At.Equal(h.at[i]) {
				return false, reported, fmt.Errorf("step %d: a notice has the time %s", i, n.At)
			}
			if n.Finding.ID() != id {
				continue
			}
			switch n.Type {
			case report.FindingActive:
				if isActive {
					return false, reported, fmt.Errorf("step %d: %s is reported as active again", i, id.Reason)
				}
				isActive, reported = true, n.At
			case report.FindingStillActive:
				if !isActive {
					return false, reported, fmt.Errorf("step %d: a reminder of %s, which is not active", i, id.Reason)
				}
				if n.At.Sub(reported) < reminder {
					return false, reported, fmt.Errorf("step %d: a reminder of %s after %s", i, id.Reason, n.At.Sub(reported))
				}
				reported = n.At
			case report.FindingResolved:
				if !isActive {
					return false, reported, fmt.Errorf("step %d: %s is resolved, but is not active", i, id.Reason)
				}
				isActive = false
			default: // verdicts have no finding
			}
		}
	}
	return isActive, reported, nil
}

// has reports whether the last step has a notice about a finding.
func (h *history) has(kind report.NoticeType, id finding.ID) bool {
	return slices.ContainsFunc(h.notices[len(h.notices)-1], func(n report.Notice) bool {
		return n.Type == kind && n.Finding.ID() == id
	})
}

// check checks the properties of docs/design/model.md after the last step.
func (h *history) check() error {
	now := h.at[len(h.at)-1]
	anyFail, anyActive, anyFinding := false, false, false
	for i, p := range h.places {
		for _, reason := range []seen{expired, mismatch, ending, unknown} {
			id := finding.ID{Reason: finding.Reason(reason), Subject: p.subject}
			isActive, reported, err := h.reportedState(id)
			if err != nil {
				return err
			}
			if err := h.checkActive(i, reason, id, isActive); err != nil {
				return err
			}
			if err := h.checkResolved(i, reason, id, isActive); err != nil {
				return err
			}
			if isActive && now.Sub(reported) >= reminder {
				return fmt.Errorf("%s was reported %s ago, and there is no reminder", reason, now.Sub(reported))
			}
			anyActive = anyActive || isActive
			anyFail = anyFail || isActive && finding.Reason(reason).Outcome() == finding.Fail
		}
		anyFinding = anyFinding || h.steps[len(h.steps)-1].sees[i] != passes
	}
	return h.checkVerdict(anyFail, !anyActive && !anyFinding)
}

// checkActive: a finding is active only if it was seen for long enough, and then it is.
func (h *history) checkActive(i int, reason seen, id finding.ID, isActive bool) error {
	lasted, isSeen := h.since(func(s step) bool { return s.sees[i] == reason })
	// The requirement was not met for whatever reason; not observed is no reason of the same kind.
	unmet, _ := h.since(func(s step) bool {
		return s.sees[i].isFinding() && (s.sees[i] == unknown) == (reason == unknown)
	})
	switch {
	case h.has(report.FindingActive, id) && !isSeen:
		return fmt.Errorf("%s is reported, and is not seen", reason)
	case h.has(report.FindingActive, id) && unmet < patience && !h.byTime():
		return fmt.Errorf("%s is reported after %s, before the patience of its source", reason, unmet)
	case isSeen && !isActive && lasted >= patience:
		return fmt.Errorf("%s is seen for %s, and is not active", reason, lasted)
	case isSeen && !isActive && (h.changes.NextChange.IsZero() ||
		h.changes.NextChange.After(h.at[len(h.at)-1].Add(patience-lasted))):
		return fmt.Errorf("%s is not active, and the next change is at %s", reason, h.changes.NextChange)
	}
	return nil
}

// checkResolved: only an observation resolves a finding, and it does.
func (h *history) checkResolved(i int, reason seen, id finding.ID, isActive bool) error {
	seenBefore := func(s step) bool { return s.sees[i] != reason }
	gone, isGone := h.since(seenBefore)
	_, onlyUnknown := h.since(func(s step) bool { return s.sees[i] == unknown })
	observed := slices.ContainsFunc(h.sinceGone(i, reason), func(s step) bool { return s.sees[i].observed() })
	// Without an answer for the subject, the finding is about something that is no longer there, unless it is unknown
	// elsewhere whether the requirement is met.
	dropped := slices.ContainsFunc(h.sinceGone(i, reason), func(s step) bool { return s.sees[i] == absent })
	passed, isPassed := h.since(func(s step) bool { return s.sees[i] == passes })
	switch {
	case h.has(report.FindingResolved, id) && !isGone:
		return fmt.Errorf("%s is resolved, and is seen", reason)
	case h.has(report.FindingResolved, id) && onlyUnknown && !observed && !dropped && reason != unknown:
		return fmt.Errorf("%s is resolved without an observation", reason)
	case isActive && isPassed && gone >= settle && passed >= settle:
		return fmt.Errorf("%s is not seen for %s, its requirement is met, and it is not resolved", reason, gone)
	case isActive && isPassed && len(h.places) == 1:
		return fmt.Errorf("%s is active, and everything passes", reason)
	}
	return nil
}

// sinceGone returns the steps after the last one that saw a reason.
func (h *history) sinceGone(i int, reason seen) []step {
	first := len(h.steps)
	for first > 0 && h.steps[first-1].sees[i] != reason {
		first--
	}
	return h.steps[first:]
}

// checkVerdict: the verdict is "not compliant" if a failure is active, and "compliant" only if nothing is found.
func (h *history) checkVerdict(isFailing, isClean bool) error {
	if len(h.changes.Verdicts) == 0 {
		if isFailing || isClean {
			return fmt.Errorf("no verdict, a failure is active: %t, everything passes: %t", isFailing, isClean)
		}
		return nil
	}
	status := h.changes.Verdicts[0].Status
	switch {
	case isFailing != (status == control.NotCompliant):
		// A failure that is no longer seen counts until it is resolved, and its verdict waits as long.
		if isFailing || !h.isWaiting() {
			return fmt.Errorf("the verdict is %v, a failure is active: %t", status, isFailing)
		}
	case isClean && status != control.Compliant:
		return fmt.Errorf("the verdict is %v, and everything passes", status)
	case status == control.Compliant && !h.isWaiting():
		for _, s := range h.steps[len(h.steps)-1].sees {
			if s == unknown || s == expired || s == mismatch {
				return fmt.Errorf("the verdict is %v, and %s is seen", status, s)
			}
		}
	}
	return nil
}

// isWaiting reports whether a change is due by time alone.
func (h *history) isWaiting() bool { return !h.changes.NextChange.IsZero() }

// onePlace is the smallest world: one requirement of one subject.
func onePlace() []place {
	return []place{{finding.ServingCert.Requires(finding.Certificate), finding.Subject{Kind: "Secret", Name: "one"}}}
}

// TestTrackerExhaustively observes all sequences of a few steps.
func TestTrackerExhaustively(t *testing.T) {
	depth := 4
	if *whole {
		depth = 6
	}
	var alphabet []step
	for _, after := range []time.Duration{time.Second, patience, reminder} {
		for _, s := range []seen{passes, expired, mismatch, unknown} {
			alphabet = append(alphabet, step{after: after, sees: []seen{s}})
		}
	}
	sequences := 0
	steps := make([]step, depth)
	var explore func(i int)
	explore = func(i int) {
		if t.Failed() {
			return
		}
		if i < depth {
			for _, s := range alphabet {
				steps[i] = s
				explore(i + 1)
			}
			return
		}
		sequences++
		h, tracked := &history{places: onePlace()}, tracker.New(settle)
		for _, s := range steps {
			h.observe(tracked, s)
			if err := h.check(); err != nil {
				t.Errorf("after %v: %v", h.steps, err)
				return
			}
		}
	}
	explore(0)
	t.Logf("%d sequences of %d observations", sequences, depth)
}

// TestTrackerProperties observes random sequences of several requirements and subjects; rapid shrinks those that fail.
func TestTrackerProperties(t *testing.T) {
	var places []place
	for _, name := range []string{"one", "two"} {
		secret := finding.Subject{Kind: "Secret", Name: name}
		places = append(places,
			place{finding.ServingCert.Requires(finding.Certificate), secret.Part("tls.crt")},
			place{finding.ServingCert.Requires(finding.Key), secret.Part("tls.key")})
	}
	sees := rapid.SampledFrom([]seen{passes, passes, passes, expired, mismatch, ending, unknown, absent})
	durations := rapid.SampledFrom([]time.Duration{time.Second, settle, patience, time.Minute, reminder})
	rapid.Check(t, func(t *rapid.T) {
		h, tracked := &history{places: places}, tracker.New(settle)
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			s := step{after: durations.Draw(t, "after")}
			s.unchanged = rapid.Bool().Draw(t, "unchanged")
			for i := range places {
				s.sees = append(s.sees, sees.Draw(t, fmt.Sprint("place ", i)))
			}
			h.observe(tracked, s)
			if err := h.check(); err != nil {
				t.Fatal(err)
			}
		}
		// A new process, or a new leader, reports again what is active, and says that it was there before.
		last := h.steps[len(h.steps)-1]
		again, restarted := &history{places: places}, tracker.New(settle)
		again.observe(restarted, last)
		again.observe(restarted, step{after: patience, sees: last.sees})
		for i, p := range places {
			if !last.sees[i].isFinding() {
				continue
			}
			id := finding.ID{Reason: finding.Reason(last.sees[i]), Subject: p.subject}
			for _, notices := range again.notices {
				for _, n := range notices {
					if n.Finding.ID() == id && n.Type == report.FindingActive && !n.AtStart {
						t.Fatalf("%s was there at the start, and its notice does not say so", id.Reason)
					}
				}
			}
			if isActive, _, err := again.reportedState(id); !isActive || err != nil {
				t.Fatalf("%s is not reported after a restart: %v", id.Reason, err)
			}
		}
	})
}
