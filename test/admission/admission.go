// SPDX-License-Identifier: Apache-2.0

// Package admission sends questions with known answers to the webhook, directly or through an API
// server, and counts the answers.
package admission

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"time"
)

// Question is a request whose right answer is known.
type Question struct {
	Name string
	// Allowed is the right answer.
	Allowed bool
	// Ask returns the answer. An error means that there was no answer.
	Ask func(context.Context) (allowed bool, err error)
}

// Counts are numbers of answers.
type Counts struct {
	// Right answers.
	Allowed, Refused int
	// Wrong answers, and the first of them.
	WronglyAllowed, WronglyRefused int
	Wrong                          string
	// Unanswered questions, and why the last one was.
	Unanswered int
	Why        string
	// Late counts requests that were not sent since too many were waiting.
	Late int
}

func (c Counts) String() string {
	text := fmt.Sprintf("%d allowed, %d refused, %d wrongly allowed, %d wrongly refused, %d without an answer",
		c.Allowed, c.Refused, c.WronglyAllowed, c.WronglyRefused, c.Unanswered)
	if c.Late > 0 {
		text += fmt.Sprintf(", %d not sent since too many waited", c.Late)
	}
	if c.Wrong != "" {
		text += "; wrong: " + c.Wrong
	}
	return text
}

// Right is the number of right answers.
func (c Counts) Right() int { return c.Allowed + c.Refused }

const (
	// maxWaiting bounds concurrent requests, answerTime the time of one. The webhook's own timeout is 3 s.
	maxWaiting = 16
	answerTime = 10 * time.Second
)

// Stream asks questions in turn. Its counts can be read at any time.
type Stream struct {
	Questions []Question
	// Every is the time between two requests.
	Every time.Duration
	// Patience is how long to wait for an answer; zero: [answerTime].
	Patience time.Duration

	mu     sync.Mutex
	counts Counts
}

// Counts are the counts so far.
func (s *Stream) Counts() Counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts
}

// Run asks until the context ends and all answers have arrived.
func (s *Stream) Run(ctx context.Context) {
	ticker := time.NewTicker(s.Every)
	defer ticker.Stop()
	var asking sync.WaitGroup
	defer asking.Wait()
	waiting := make(chan struct{}, maxWaiting)
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		select {
		case waiting <- struct{}{}:
		default:
			s.count(func(c *Counts) { c.Late++ })
			continue
		}
		asking.Go(func() {
			// Requests that are in progress at the end are still answered.
			s.Ask(context.WithoutCancel(ctx), s.Questions[i%len(s.Questions)])
			<-waiting
		})
	}
}

// Ask asks one question and counts the answer.
func (s *Stream) Ask(ctx context.Context, q Question) {
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(s.Patience, answerTime))
	defer cancel()
	allowed, err := q.Ask(ctx)
	s.count(func(c *Counts) {
		switch {
		case err != nil:
			c.Unanswered++
			c.Why = q.Name + ": " + err.Error()
		case allowed && q.Allowed:
			c.Allowed++
		case !allowed && !q.Allowed:
			c.Refused++
		case allowed:
			c.WronglyAllowed++
			c.wrong(q.Name + " was allowed")
		default:
			c.WronglyRefused++
			c.wrong(q.Name + " was refused")
		}
	})
}

func (c *Counts) wrong(what string) {
	if c.Wrong == "" {
		c.Wrong = what
	}
}

func (s *Stream) count(change func(*Counts)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.counts)
}
