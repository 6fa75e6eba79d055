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
	var seen report.Look
	var before []finding.ID
	for n := range maxLooks {
		if n > 0 {
			select {
			case <-ctx.Done():
			case <-time.After(settle):
			}
		}
		states = lookAll()
		seen, _ = look(subject, states, now())
		found := idsOf(seen)
		if len(found) == 0 || slices.Equal(found, before) {
			break
		}
		before = found
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

// idsOf are those of all findings, in the order of findings.
func idsOf(l report.Look) []finding.ID {
	var ids []finding.ID
	for _, f := range finding.Sort(allOf(l)) {
		ids = append(ids, f.ID())
	}
	return ids
}

// checked are the reasons that were looked for everywhere: nobody is to take for
// checked what is not there to be looked at, or what could not be.
func checked(subject Subject, states map[follow.Object]follow.State) []finding.Reason {
	unknown := func(o follow.Object) bool { return !states[o].Known }
	reasons := []finding.Reason{finding.Unreadable}
	var secrets, bundles, services, guard []follow.Object
	for _, want := range subject.Secrets {
		secrets = append(secrets, secretObject(want.SecretExpectation))
		if want.Bundle != nil {
			bundles = append(bundles, bundleObject(*want.Bundle))
		}
		if service, has := serviceObject(want.SecretExpectation); has && (unknown(service) || states[service].Live != nil) {
			services = append(services, service)
		}
	}
	for _, installed := range subject.Guard {
		guard = append(guard, guardObject(installed))
	}
	for _, group := range []struct {
		of    []follow.Object
		gives func() []finding.Reason
	}{
		{secrets, check.SecretReasons}, {bundles, check.BundleReasons}, {services, check.ServiceReasons}, {guard, check.GuardReasons},
	} {
		if len(group.of) > 0 && !slices.ContainsFunc(group.of, unknown) {
			reasons = append(reasons, group.gives()...)
		}
	}
	if slices.ContainsFunc(subject.Secrets, func(want Secret) bool {
		return want.Roots == nil && (want.Bundle == nil || !usable(*want.Bundle, states))
	}) {
		reasons = slices.DeleteFunc(reasons, func(r finding.Reason) bool { return r == finding.UntrustedIssuer })
	}
	if operator := states[operatorObject()]; operator.NoAPI || !operator.Known {
		return reasons
	}
	reasons = append(reasons, check.OverrideReasons()...)
	switch configuration := states[configObject()]; {
	case !configuration.Known:
	case configuration.Live == nil:
		reasons = append(reasons, check.UnreadConfigurationReasons()...)
	default:
		reasons = append(reasons, check.ConfigurationReasons()...)
	}
	return reasons
}

// usable: certificates could be held against it.
func usable(b Bundle, states map[follow.Object]follow.State) bool {
	return (&looking{states: states, about: map[finding.ID]report.Object{}, Look: report.Look{Sources: make([]report.Source, sources)}}).bundle(b) != nil
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
