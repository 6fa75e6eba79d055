// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"context"
	"slices"
	"sync"
	"time"

	"k8s.io/client-go/dynamic"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/control"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/tracker"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/follow"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/served"
)

// Result is what one check of all objects found.
type Result struct {
	At time.Time
	// Results has all results, Verdicts the verdict on each control.
	Results  []finding.Result
	Verdicts []control.Verdict
	// Certificates has those that were read.
	Certificates []tracker.Certificate
	// Examined lists the objects that were checked, whether they exist or not.
	Examined []Examined
}

// Examined is an object that was checked.
type Examined struct {
	Role    string // what it is checked for, such as "secret" or "guard"
	Subject finding.Subject
}

// maxObservations bounds how often Once checks if no two observations agree.
const maxObservations = 4

// Once checks all objects. If it finds anything, it checks again after
// [storedPatience], until it finds nothing, or the same as before; after
// [maxObservations] the last observation counts. So a rotation in progress is not
// reported, and all that the last observation found, or could not read, is reported. The
// longer patience for the guard and for unreadable objects does not apply here. kubelets are
// the results about the kubelets of all Nodes, nil if they were not checked. ask asks the endpoints of
// Services which certificate they serve; it is nil if they are not asked. They may serve the old one for
// [ServedPatience] after the stored one was issued. The error is the context's.
func Once(
	ctx context.Context, client dynamic.Interface, subject Subject, kubelets []finding.Result, ask AskServed,
	now func() time.Time,
) (Result, error) {
	read := func() map[follow.Object]follow.State { return readAll(ctx, client, subject) }
	return once(ctx, read, subject, kubelets, ask, now)
}

// AskServed asks the endpoints of Services which certificate they serve.
type AskServed func(ctx context.Context, targets []served.Target) map[served.Target]check.ServedAnswers

func once(
	ctx context.Context, readAll func() map[follow.Object]follow.State, subject Subject,
	kubelets []finding.Result, ask AskServed, now func() time.Time,
) (Result, error) {
	var answers *servedAnswers
	if ask != nil {
		answers = &servedAnswers{grace: ServedPatience}
	}
	var asked []served.Target
	var states map[follow.Object]follow.State
	var seen observation
	var before []finding.ID
	for n := range maxObservations {
		if n > 0 {
			select {
			case <-ctx.Done():
			case <-time.After(storedPatience):
			}
		}
		states = readAll()
		seen = observe(subject, states, nil, kubelets, answers, now())
		if ask != nil && !slices.Equal(seen.targets, asked) { // not yet, or a Secret was renewed meanwhile
			asked, answers.of = seen.targets, ask(ctx, seen.targets)
			seen = observe(subject, states, nil, kubelets, answers, now())
		}
		found := findingIDs(seen.results())
		if len(found) == 0 || slices.Equal(found, before) {
			break
		}
		before = found
	}
	if err := ctx.Err(); err != nil {
		return Result{}, err
	}
	result := Result{At: seen.At, Results: seen.results()}
	for _, c := range seen.Controls {
		result.Verdicts = append(result.Verdicts, c.Judge(control.Cluster, result.Results))
	}
	for _, certificate := range seen.Certificates {
		if certificate.Leaf != nil {
			result.Certificates = append(result.Certificates, certificate)
		}
	}
	for _, o := range objectsOf(seen.subject) {
		if s := seen.states[o]; !s.NoAPI && (o != configObject() || !seen.states[operatorObject()].NoAPI) {
			result.Examined = append(result.Examined, Examined{Role: roleOf(o), Subject: o.Subject()})
		}
	}
	return result, nil
}

// readAll reads all objects at the same time.
func readAll(ctx context.Context, client dynamic.Interface, subject Subject) map[follow.Object]follow.State {
	var mu sync.Mutex
	states := map[follow.Object]follow.State{}
	var reads sync.WaitGroup
	for _, o := range objectsOf(subject) {
		reads.Go(func() {
			state := follow.ReadOnce(ctx, client, o)
			mu.Lock()
			defer mu.Unlock()
			states[o] = state
		})
	}
	reads.Wait()
	return states
}

// findingIDs returns the IDs of all findings, in their order.
func findingIDs(results []finding.Result) []finding.ID {
	var ids []finding.ID
	for _, f := range finding.Findings(results) {
		ids = append(ids, f.ID())
	}
	return ids
}

// roleOf returns what an object is checked for.
func roleOf(o follow.Object) string {
	switch {
	case o == operatorObject():
		return "overrides"
	case o == configObject():
		return "configuration"
	case o == infrastructureObject() || o.Kind == "Namespace":
		return "platform"
	case o == pkiObject() || o == pkiDefinitionObject():
		return "pki"
	case o.Kind == "Secret":
		return "secret"
	case o.Kind == "Service":
		return "service"
	case o.Kind == "ConfigMap":
		return "ca-bundle"
	}
	return "guard"
}
