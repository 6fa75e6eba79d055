// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"context"
	"slices"
	"sync"
	"time"

	"k8s.io/client-go/dynamic"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
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
	// Checked are the reasons that were looked for.
	Checked []finding.Reason
}

// Examined is an object that was looked at.
type Examined struct {
	Role     string // such as "secret", "guard"
	Location finding.Location
}

// Once looks at everything once. What is found is looked at a second time, after
// as long as what is stored must be wrong to be told of, and only what lasts is
// in the result; the guard's registration and what cannot be looked at wait no
// longer than that here. The error is the context's.
func Once(ctx context.Context, client dynamic.Interface, subject Subject, now func() time.Time) (Result, error) {
	states := lookAll(ctx, client, subject)
	seen, _ := look(subject, states, now())
	if standing := allOf(seen); len(standing) > 0 {
		select {
		case <-ctx.Done():
		case <-time.After(settle):
		}
		states = lookAll(ctx, client, subject)
		seen, _ = look(subject, states, now())
		for i := range seen.Sources {
			seen.Sources[i].Findings = slices.DeleteFunc(seen.Sources[i].Findings, func(f finding.Finding) bool {
				return !slices.ContainsFunc(standing, func(before finding.Finding) bool { return before.ID() == f.ID() })
			})
		}
	}
	if err := ctx.Err(); err != nil {
		return Result{}, err
	}
	result := Result{At: seen.At, Findings: finding.Sort(allOf(seen)), Checked: checked(subject, states)}
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

// checked are the reasons that were looked for: nobody is to take for checked
// what is not there to be looked at.
func checked(subject Subject, states map[follow.Object]follow.State) []finding.Reason {
	reasons := append(check.SecretReasons(), finding.Unreadable)
	for _, want := range subject.Secrets {
		if want.Bundle != nil {
			reasons = append(reasons, check.BundleReasons()...)
		}
		if service, has := serviceObject(want.SecretExpectation); has && states[service].Live != nil {
			reasons = append(reasons, check.ServiceReasons()...)
		}
	}
	switch operator := states[operatorObject()]; {
	case operator.NoAPI || !operator.Known:
	case states[configObject()].Live == nil:
		reasons = slices.Concat(reasons, check.OverrideReasons(), check.UnreadConfigurationReasons())
	default:
		reasons = slices.Concat(reasons, check.OverrideReasons(), check.ConfigurationReasons())
	}
	if len(subject.Guard) > 0 {
		reasons = append(reasons, check.GuardReasons()...)
	}
	return reasons
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
