// SPDX-License-Identifier: Apache-2.0

// Package served asks the endpoints of Services which certificate they serve, by a TLS handshake. It uses no private
// key, and sends and reads nothing else. Package check compares the answers with the stored certificate.
//
// Anyone who can write EndpointSlices in the Service's namespace chooses the addresses that are dialed. So each address
// is checked at dial time, and no message quotes a text that the peer sent.
package served

import (
	"context"
	"crypto/sha256"
	"errors"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/handshake"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
)

const (
	// Every is the interval at which endpoints are asked. A random part of everyJitter is added to each.
	Every, everyJitter = 5 * time.Minute, 30 * time.Second
	// soonest and soon are the intervals while an endpoint does not serve the stored certificate: it starts with soonest
	// and doubles up to soon, soonTries times in all. Then it is Every, until something changes.
	soonest, soon, soonTries = 15 * time.Second, time.Minute, 20
	// staleAfter is the age after which answers do not count.
	staleAfter = 3 * Every
	// maxEndpoints bounds the endpoints of a Service that are asked, maxInFlight how many at the same time, perSecond how
	// many in a second. An endpoint that does not answer takes [handshake.Timeout].
	maxEndpoints, maxInFlight, perSecond = 100, 32, 50
	// askTime bounds asking the endpoints of one Service, with the list of them.
	askTime = 20 * time.Second
)

// Target is a Service and what its endpoints must serve.
type Target struct {
	// Namespace and Service, and the name of the port that is asked, which may be empty.
	Namespace, Service, Port string
	// ServerName is the TLS server name.
	ServerName string
	// Stored is the SHA-256 digest of the stored certificate.
	Stored [sha256.Size]byte
}

// Endpoint is an endpoint of a Service.
type Endpoint struct {
	Address netip.AddrPort
	// Pod is its name, empty if not known.
	Pod string
	// Problem says why it is not asked. It is empty if it is asked.
	Problem string
}

// name returns the name of the endpoint for people.
func (e Endpoint) name() string {
	switch {
	case e.Pod == "" && !e.Address.IsValid():
		return "an endpoint"
	case e.Pod == "":
		return e.Address.String()
	case !e.Address.IsValid():
		return "Pod " + e.Pod
	}
	return "Pod " + e.Pod + " (" + e.Address.String() + ")"
}

// Endpoints lists the endpoints of the target's Service, at most a number of them, in a stable order. omitted is how
// many more there are.
type Endpoints func(ctx context.Context, t Target, most int) (all []Endpoint, omitted int, err error)

// Count has the number of endpoints by what they serve, for metrics.
type Count struct{ Stored, Other, Unknown int }

// Asker asks the endpoints of all targets in turn. Its exported fields must be set before use.
type Asker struct {
	Endpoints Endpoints
	// Refuse says in which range an address is that must not be dialed; see [handshake.Refuse].
	Refuse func(netip.Addr) string
	// Random spreads the work. Only one goroutine uses it at a time.
	Random *rand.Rand
	Now    func() time.Time
	// Asked is called after each round with the numbers of all endpoints. It may be nil.
	Asked func(Count)

	once sync.Once
	wake chan struct{}

	mu      sync.Mutex
	targets []Target
	asked   map[Target]asked
}

// asked is what is known of a target.
type asked struct {
	answers check.ServedAnswers
	count   Count
	at, due time.Time
	// tries is how often in a row an endpoint did not serve the stored certificate.
	tries int
}

// Ask sets the targets. New ones are asked at once: a Secret that was renewed is a new target.
func (a *Asker) Ask(targets []Target) {
	a.mu.Lock()
	changed := !slices.Equal(targets, a.targets)
	a.targets = slices.Clone(targets)
	a.mu.Unlock()
	if !changed {
		return
	}
	select {
	case a.woken() <- struct{}{}:
	default: // it is woken already
	}
}

func (a *Asker) woken() chan struct{} {
	a.once.Do(func() { a.wake = make(chan struct{}, 1) })
	return a.wake
}

// Answers returns the last answers. Targets that were not asked, or not recently, are missing.
func (a *Asker) Answers() map[Target]check.ServedAnswers {
	a.mu.Lock()
	defer a.mu.Unlock()
	now, all := a.Now(), map[Target]check.ServedAnswers{}
	for t, known := range a.asked {
		if now.Sub(known.at) <= staleAfter {
			all[t] = known.answers
		}
	}
	return all
}

// Run asks until the context ends. It begins without answers: those of an earlier run may be old.
func (a *Asker) Run(ctx context.Context) {
	a.mu.Lock()
	a.asked = nil
	a.mu.Unlock()
	for {
		next := a.round(ctx, askTime)
		var due <-chan time.Time
		if !next.IsZero() {
			due = time.After(next.Sub(a.Now()))
		}
		select {
		case <-ctx.Done():
			return
		case <-a.woken():
		case <-due:
		}
	}
}

// Once asks the endpoints of the targets once, and returns the answers. After a time for each target, no more of its
// endpoints are asked; those that are being asked then take at most some seconds.
func (a *Asker) Once(ctx context.Context, targets []Target, within time.Duration) map[Target]check.ServedAnswers {
	a.Ask(targets)
	a.round(ctx, within)
	return a.Answers()
}

// round asks the targets that are due, and forgets what is no target any more. It returns when the next one is due.
func (a *Asker) round(ctx context.Context, within time.Duration) (next time.Time) {
	a.mu.Lock()
	targets, known := slices.Clone(a.targets), maps.Clone(a.asked)
	a.mu.Unlock()
	after := map[Target]asked{}
	for _, t := range targets {
		last, wasAsked := known[t]
		if wasAsked && last.due.After(a.Now()) {
			after[t] = last
			continue
		}
		answered := a.ask(ctx, t, within)
		if ctx.Err() != nil {
			return time.Time{} // not all were asked
		}
		after[t] = a.follow(last, answered)
		a.store(after, known) // so that one slow Service does not delay the answers of others
	}
	a.store(after, nil)
	var sum Count
	for _, one := range after {
		sum.Stored, sum.Other, sum.Unknown = sum.Stored+one.count.Stored, sum.Other+one.count.Other,
			sum.Unknown+one.count.Unknown
		if next.IsZero() || one.due.Before(next) {
			next = one.due
		}
	}
	if a.Asked != nil {
		a.Asked(sum)
	}
	return next
}

// store stores the answers of some targets, and of others as they were.
func (a *Asker) store(some, others map[Target]asked) {
	all := maps.Clone(some)
	for t, known := range others {
		if _, isNew := all[t]; !isNew {
			all[t] = known
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked = all
}

// follow sets when the target is asked again.
func (a *Asker) follow(last, now asked) asked {
	wait := Every + time.Duration(a.Random.Int64N(int64(everyJitter)))
	if now.count.Other+now.count.Unknown > 0 || now.count.Stored == 0 {
		now.tries = last.tries + 1
		if now.tries <= soonTries {
			wait = min(soonest<<min(now.tries-1, 8), soon)
			wait += time.Duration(a.Random.Int64N(int64(wait / 10)))
		}
	}
	now.due = now.at.Add(wait)
	return now
}

// ask asks the endpoints of a target. It begins with none after a time.
func (a *Asker) ask(ctx context.Context, t Target, within time.Duration) asked {
	inTime, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	endpoints, omitted, err := a.Endpoints(inTime, t, maxEndpoints)
	if err != nil {
		return asked{
			answers: check.ServedAnswers{WhyUnknown: new(unreadable(t, err))}, count: Count{Unknown: 1}, at: a.Now(),
		}
	}
	answers := make([]check.EndpointAnswer, len(endpoints))
	dialer := handshake.Dialer{Control: handshake.ControlOf(a.refuse)}
	var group errgroup.Group
	group.SetLimit(maxInFlight)
	for i, e := range endpoints {
		answers[i] = check.EndpointAnswer{Name: e.name(), Why: e.Problem}
		if e.Problem != "" {
			continue
		}
		if inTime.Err() != nil {
			answers[i].Why = "it was not asked, because asking others took too long"
			continue
		}
		group.Go(func() error {
			answers[i] = answerOf(e, dialer.Handshake(ctx, e.Address.String(), t.ServerName))
			return nil
		})
		pause(inTime)
	}
	_ = group.Wait() // always nil
	return asked{
		answers: check.ServedAnswers{Endpoints: answers, Omitted: omitted}, count: countOf(answers, omitted, t), at: a.Now(),
	}
}

// pause keeps the rate.
func pause(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(time.Second / perSecond):
	}
}

func (a *Asker) refuse(address netip.Addr) string {
	if what := a.Refuse(address); what != "" {
		return "its address is in a range in which no Pod is: " + what
	}
	return ""
}

// answerOf returns what an endpoint serves, or why that is not known.
func answerOf(e Endpoint, seen handshake.Answer) check.EndpointAnswer {
	answer := check.EndpointAnswer{Name: e.name()}
	refused, isRefused := errors.AsType[*handshake.RefusedError](seen.Err)
	switch {
	case isRefused:
		answer.Why = refused.Why
	case seen.NotTLS:
		answer.Why = "it does not speak TLS"
	case seen.Err != nil:
		answer.Why = seen.Err.Error()
	case len(seen.Certificates) == 0:
		answer.Why = "it sent no certificate"
	default:
		answer.Leaf = seen.Certificates[0]
	}
	return answer
}

// countOf counts endpoints.
func countOf(answers []check.EndpointAnswer, omitted int, t Target) Count {
	count := Count{Unknown: omitted}
	for _, answer := range answers {
		switch {
		case answer.Leaf == nil:
			count.Unknown++
		case sha256.Sum256(answer.Leaf.Raw) == t.Stored:
			count.Stored++
		default:
			count.Other++
		}
	}
	return count
}
