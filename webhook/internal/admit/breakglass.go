// SPDX-License-Identifier: Apache-2.0

package admit

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
)

const (
	// AllowDeleteUntil is the annotation that allows the delete of a protected Secret
	// until the time in it (RFC 3339), at most [MaxAllowance] from now. OpenShift
	// documents a delete as the way to rotate a serving certificate by hand, so there
	// must be a way. It is deliberate and expires. Users with permission to update the
	// Secret can set it.
	AllowDeleteUntil = "kubelet-https-guard.io/allow-delete-until"
	// MaxAllowance bounds how long a forgotten annotation allows a delete.
	MaxAllowance = time.Hour
	// SuggestedAllowance is what refusals propose, by the webhook and by the policies.
	SuggestedAllowance = 30 * time.Minute
)

// errNoAllowance: the Secret has no annotation [AllowDeleteUntil].
var errNoAllowance = errors.New("no annotation allows it")

// allowDeleteUntil returns the time until which the annotation allows the delete of the
// Secret. The error says why it does not.
func allowDeleteUntil(stored *check.Secret, now time.Time) (time.Time, error) {
	if stored == nil || stored.Annotations[AllowDeleteUntil] == "" {
		return time.Time{}, errNoAllowance
	}
	text := stored.Annotations[AllowDeleteUntil]
	until, err := time.Parse(time.RFC3339, text)
	switch {
	case err != nil:
		return time.Time{}, fmt.Errorf("annotation %s is %s, expected a time such as 2026-01-31T12:00:00Z", AllowDeleteUntil,
			quote(text))
	case !until.After(now):
		return time.Time{}, fmt.Errorf("annotation %s expired at %s", AllowDeleteUntil, quote(text))
	case until.After(now.Add(MaxAllowance)):
		return time.Time{}, fmt.Errorf("annotation %s is %s, more than %.0f minutes ahead",
			AllowDeleteUntil, quote(text), MaxAllowance.Minutes())
	}
	return until, nil
}

// allowanceWarnings are for a user who has just written an annotation [AllowDeleteUntil]
// that does not allow a delete.
func allowanceWarnings(change Change, now time.Time) []string {
	if change.New == nil || change.New.Annotations[AllowDeleteUntil] == "" {
		return nil
	}
	if change.Old != nil && change.Old.Annotations[AllowDeleteUntil] == change.New.Annotations[AllowDeleteUntil] {
		return nil
	}
	if _, err := allowDeleteUntil(change.New, now); err != nil {
		return []string{err.Error()}
	}
	return nil
}

// maxQuoted bounds how much of a request's text is in an answer, in bytes.
const maxQuoted = 64

func quote(text string) string {
	if len(text) > maxQuoted {
		text = text[:maxQuoted] + "…"
	}
	return strconv.Quote(text)
}
