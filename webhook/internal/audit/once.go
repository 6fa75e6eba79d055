// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"context"
	"slices"
	"sync"
	"time"

	"k8s.io/client-go/dynamic"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/report"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/follow"
)

// Result is what one look found.
type Result struct {
	At       time.Time
	Findings []finding.Finding
	// Certificates that were read.
	Certificates []report.Certificate
	// Examined are the objects that were looked at, by what they are for, whether
	// they exist or not.
	Examined []Examined
	// Checked are the reasons that were looked for, in all objects that may have them.
	Checked []finding.Reason
}

// Examined is an object that was looked at.
type Examined struct {
	Role     string // such as "secret", "guard"
	Location finding.Location
}

// maxLooks bounds how often Once looks at what is never the same twice.
const maxLooks = 4

// Once looks at everything once. If it finds anything it looks again, after as
// long as what is stored must be wrong to be told of, until nothing is found or
// the same as the time before; after [maxLooks] the last look counts, whatever it
// found. So a rotation under way is no finding, and nothing that the last look
// found or could not look at is left out. The guard's registration and what
// cannot be looked at wait no longer than that here. The error is the context's.
func Once(ctx context.Context, client dynamic.Interface, subject Subject, now func() time.Time) (Result, error) {
	return once(ctx, func() map[follow.Object]follow.State { return lookAll(ctx, client, subject) }, subject, now)
}

func once(ctx context.Context, lookAll func() map[follow.Object]follow.State, subject Subject, now func() time.Time) (Result, error) {
	var states map[follow.Object]follow.State
	var seen looking
	var before []finding.ID
	for n := range maxLooks {
		if n > 0 {
			select {
			case <-ctx.Done():
			case <-time.After(settle):
			}
		}
		states = lookAll()
		seen = look(subject, states, now())
		found := idsOf(seen.Look)
		if len(found) == 0 || slices.Equal(found, before) {
			break
		}
		before = found
	}
	if err := ctx.Err(); err != nil {
		return Result{}, err
	}
	result := Result{At: seen.At, Findings: finding.Sort(allOf(seen.Look)), Checked: seen.everywhere()}
	for _, certificate := range seen.Certificates {
		if certificate.Leaf != nil {
			result.Certificates = append(result.Certificates, certificate)
		}
	}
	for _, o := range objectsOf(subject) {
		if s := states[o]; !s.NoAPI && (o != configObject() || !states[operatorObject()].NoAPI) {
			result.Examined = append(result.Examined, Examined{Role: role(o), Location: o.At()})
		}
	}
	return result, nil
}

// lookAll looks at all objects at the same time.
func lookAll(ctx context.Context, client dynamic.Interface, subject Subject) map[follow.Object]follow.State {
	var mu sync.Mutex
	states := map[follow.Object]follow.State{}
	var looks sync.WaitGroup
	for _, o := range objectsOf(subject) {
		looks.Go(func() {
			state := follow.Look(ctx, client, o)
			mu.Lock()
			defer mu.Unlock()
			states[o] = state
		})
	}
	looks.Wait()
	return states
}

func allOf(l report.Look) []finding.Finding {
	var all []finding.Finding
	for _, source := range l.Sources {
		all = append(all, source.Findings...)
	}
	return all
}

// idsOf are those of all findings, in the order of findings.
func idsOf(l report.Look) []finding.ID {
	var ids []finding.ID
	for _, f := range finding.Sort(allOf(l)) {
		ids = append(ids, f.ID())
	}
	return ids
}

// role says what an object is looked at for.
func role(o follow.Object) string {
	switch {
	case o == operatorObject():
		return "overrides"
	case o == configObject():
		return "configuration"
	case o.Kind == "Secret":
		return "secret"
	case o.Kind == "Service":
		return "service"
	case o.Kind == "ConfigMap":
		return "ca-bundle"
	}
	return "guard"
}
