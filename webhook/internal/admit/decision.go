// SPDX-License-Identifier: Apache-2.0

// Package admit decides on requests that create, change or delete a protected
// object: a Secret, or what people lay over the kube-apiserver's configuration.
//
// There is one rule: what a request introduces is what the catalogue finds in
// the new object and does not find in the old one, where an object that does
// not exist is one too. A request that introduces a Violation is refused. So a
// no-op update of a Secret that is bad already passes, a repair passes, and
// nothing else is listed.
package admit

import (
	"fmt"
	"strings"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// Users who are never refused a DELETE: it would only keep the garbage
// collector trying and the namespace Terminating (Kubernetes
// cmd/kube-controller-manager/app/core.go names their ServiceAccounts). What
// they delete is recreated by the platform's own controllers.
const (
	garbageCollector    = "system:serviceaccount:kube-system:generic-garbage-collector"
	namespaceController = "system:serviceaccount:kube-system:namespace-controller"
)

// Action is what is done about a request that introduces a Violation, after
// the validationActions of a ValidatingAdmissionPolicy.
type Action string

// All actions. Each is written to the API server's audit log.
const (
	// Deny refuses. It is the default.
	Deny Action = "Deny"
	// Warn lets pass with a warning to who made the request.
	Warn Action = "Warn"
	// Audit lets pass.
	Audit Action = "Audit"
)

// Change is a request reduced to what the decision rests on.
type Change struct {
	User string
	// Old and New are nil where the object does not exist before or after.
	Old, New *check.Secret
}

// Decision on a change. The zero value refuses.
type Decision struct {
	Allowed bool
	// Introduced are the findings that the change brings about, worst first.
	Introduced []finding.Finding
	// Message says why, in one line; empty where there is nothing to say.
	Message string
	// Warnings for who made the request.
	Warnings []string
	// BreakGlass: allowed only because of [AllowDeleteUntil].
	BreakGlass bool
	// Spared: allowed only because the action is no [Deny]; empty if not.
	Spared Action
}

// spare lets a refused request pass if that is what the action says.
func (d Decision) spare(action Action) Decision {
	if d.Allowed || (action != Warn && action != Audit) {
		return d
	}
	d.Allowed, d.Spared = true, action
	if action == Warn {
		d.Warnings = append(d.Warnings, d.Message)
	}
	return d
}

// warnings of what a request introduces that is not worth a refusal.
func warnings(introduced []finding.Finding) []string {
	var all []string
	for _, f := range introduced[:min(len(introduced), maxTold)] {
		all = append(all, fmt.Sprintf("%s: %s: %s. To do: %s", f.Reason, f.Location, f.Message, f.Remedy))
	}
	return all
}

// Judge says what is wrong with a Secret: [check.JudgeSecret], or who remembers
// what it said.
type Judge func(want check.SecretExpectation, stored *check.Secret, now time.Time) check.SecretVerdict

// Decide decides on a change of a protected Secret.
func Decide(judge Judge, want check.SecretExpectation, change Change, now time.Time) Decision {
	// The Service that the stored Secret is renewed for is the one that it has
	// to stay with.
	want.ServiceUID = check.AttachedTo(want, change.Old)
	before := judge(want, change.Old, now)
	// Where nothing could be read, the notes of its validity were of no account;
	// who repairs the data is not held up by them.
	want.IgnoreNotes = change.Old != nil && before.Leaf == nil
	introduced, _ := finding.Diff(before.Findings, judge(want, change.New, now).Findings)
	violations := finding.OfSeverity(introduced, finding.Violation)
	decision := Decision{Introduced: introduced}

	switch {
	case len(violations) == 0:
		decision.Allowed = true
		decision.Warnings = append(warnings(introduced), uselessBreakGlass(change, now)...)
	case change.New == nil && (change.User == garbageCollector || change.User == namespaceController):
		decision.Allowed = true
		decision.Message = "deleted by " + change.User + ", which is never refused a delete"
	case change.New == nil:
		until, err := allowDeleteUntil(change.Old, now)
		if err == nil {
			decision.Allowed, decision.BreakGlass = true, true
			decision.Message = fmt.Sprintf("deleting Secret %s/%s is allowed by its annotation %s until %s", want.Namespace, want.Name, AllowDeleteUntil, until.Format(time.RFC3339))
			return decision
		}
		decision.Message = refuseDelete(want, err, now)
	default:
		decision.Message = refuse(fmt.Sprintf("Secret %s/%s", want.Namespace, want.Name), violations)
	}
	return decision
}

// maxTold bounds the findings that are told of one request: there may be as many
// as it has owners.
const maxTold = 10

// refuse is the answer to who writes something bad to an object.
func refuse(object string, violations []finding.Finding) string {
	var reasons, remedies []string
	for i, f := range violations {
		if i == maxTold {
			reasons = append(reasons, fmt.Sprintf("and %d more", len(violations)-maxTold))
			break
		}
		part := strings.TrimPrefix(string(f.Location), object+" ")
		reasons = append(reasons, fmt.Sprintf("%s (%s): %s", f.Reason, part, f.Message))
		if remedy := f.Remedy; !strings.Contains(strings.Join(remedies, "; "), remedy) {
			remedies = append(remedies, remedy)
		}
	}
	return fmt.Sprintf("%s may not be stored like this: %s. It would break control %s. To do: %s",
		object, strings.Join(reasons, "; "), finding.ControlsText, strings.Join(remedies, "; "))
}

// refuseDelete is the answer to who deletes, with the way to do it on purpose.
func refuseDelete(want check.SecretExpectation, notAllowed error, now time.Time) string {
	return fmt.Sprintf("%s: deleting Secret %s/%s would break control %s (%v). "+
		"To have it issued anew on purpose, run within %.0f minutes: "+
		"kubectl -n %[2]s annotate secret %[3]s --overwrite %[7]s=%[8]s && kubectl -n %[2]s delete secret %[3]s",
		finding.SecretMissing, want.Namespace, want.Name, finding.ControlsText, notAllowed,
		suggestedAllowance.Minutes(), AllowDeleteUntil, now.Add(suggestedAllowance).UTC().Truncate(time.Second).Format(time.RFC3339))
}
