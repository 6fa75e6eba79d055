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
	// AllowDeleteUntil is the annotation that lets a protected Secret be
	// deleted until the moment it holds (RFC 3339), which must lie within the
	// next [MaxAllowance]. OpenShift's documented way to rotate a serving
	// certificate by hand is to delete its Secret, so there must be a way; it
	// is deliberate, it expires, and who may update the Secret may set it.
	AllowDeleteUntil = "kubelet-https-guard.io/allow-delete-until"
	// MaxAllowance keeps a forgotten annotation from opening the door for good.
	MaxAllowance = time.Hour
	// suggestedAllowance is what a refusal proposes.
	suggestedAllowance = 10 * time.Minute
)

// allowDeleteUntil is the moment until which the Secret may be deleted. The
// error says why it may not.
func allowDeleteUntil(stored *check.Secret, now time.Time) (time.Time, error) {
	if stored == nil || stored.Annotations[AllowDeleteUntil] == "" {
		return time.Time{}, errors.New("no annotation " + AllowDeleteUntil + " allows it")
	}
	text := stored.Annotations[AllowDeleteUntil]
	until, err := time.Parse(time.RFC3339, text)
	switch {
	case err != nil:
		return time.Time{}, fmt.Errorf("annotation %s is %s, not a time like %s", AllowDeleteUntil, quote(text), time.RFC3339)
	case !until.After(now):
		return time.Time{}, fmt.Errorf("annotation %s allowed it until %s, which is over", AllowDeleteUntil, quote(text))
	case until.After(now.Add(MaxAllowance)):
		return time.Time{}, fmt.Errorf("annotation %s is %s, more than %.0f minutes ahead", AllowDeleteUntil, quote(text), MaxAllowance.Minutes())
	}
	return until, nil
}

// uselessBreakGlass warns who has just written an annotation that allows
// nothing, before the delete is tried.
func uselessBreakGlass(change Change, now time.Time) []string {
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

// maxQuoted bounds what an annotation can write into an answer.
const maxQuoted = 64

func quote(text string) string {
	if len(text) > maxQuoted {
		text = text[:maxQuoted] + "…"
	}
	return strconv.Quote(text)
}
