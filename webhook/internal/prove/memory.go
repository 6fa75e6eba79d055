// SPDX-License-Identifier: Apache-2.0

package prove

import (
	"maps"
	"slices"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

const (
	// confirmations is how often in a row an API server must refuse after it did not refuse.
	// There can be several API servers behind one address.
	confirmations = 9
	// forgetAfter is how long an API server that did not refuse is remembered while it is not
	// listed: it may be restarting.
	forgetAfter = 10 * time.Minute
)

// memory remembers which API servers did not refuse. One allowed change is a fact, and a
// single refusal later does not disprove it. A change that was allowed before the API server
// refused for the first time is not remembered: right after an install the webhook is not
// active yet, and an API server needs some time to learn a policy.
type memory struct {
	failures map[string]*failure
	refuses  map[string]bool // listed API servers that were seen to refuse
}

// failure of an API server to refuse a change.
type failure struct {
	effect  check.Effect
	refused int       // how often in a row since then
	listed  time.Time // when the API server was last listed
}

// add takes the effects of a proof and returns the effects to report.
func (m *memory) add(effects []check.Effect, now time.Time) []check.Effect {
	if m.failures == nil {
		m.failures = map[string]*failure{}
	}
	reported := slices.Clone(effects)
	refused := m.refuses
	m.refuses = map[string]bool{}
	for i, effect := range reported {
		name := effect.Server.Name
		known := m.failures[name]
		m.refuses[name] = refused[name] || known != nil || Proven([]check.Effect{effect})
		switch {
		case ineffective(effect) && !m.refuses[name]:
		case ineffective(effect):
			m.failures[effect.Server.Name] = &failure{effect: effect, listed: now}
		case known == nil:
		case !Proven([]check.Effect{effect}): // unknown
			known.listed = now
		default:
			known.listed = now
			if known.refused++; known.refused >= confirmations {
				delete(m.failures, effect.Server.Name)
				continue
			}
			reported[i] = known.effect
		}
	}
	for _, name := range slices.Sorted(maps.Keys(m.failures)) {
		known := m.failures[name]
		switch {
		case known.listed.Equal(now):
		case now.Sub(known.listed) > forgetAfter:
			delete(m.failures, name)
		default:
			reported = append(reported, unknown(known.effect.Static != nil, known.effect.Server, finding.Result{
				Subject: known.effect.Server, Reason: finding.NotObserved,
				Message: "this API server did not refuse the last dry run, and is not listed now",
				Remedy:  "wait; it gets another dry run as soon as it is listed again",
			}))
		}
	}
	return reported
}

// ineffective reports whether a change was allowed.
func ineffective(e check.Effect) bool {
	results, _ := e.Check(time.Time{})
	return len(finding.WithOutcome(results, finding.Fail)) > 0
}
