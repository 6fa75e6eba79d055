// SPDX-License-Identifier: Apache-2.0

// Package admit decides on requests that create, update or delete a protected object: a
// Secret, or the overrides of the kube-apiserver's configuration.
//
// There is one rule. A request introduces the findings that the checks report for the new
// object and not for the old one; an object that does not exist is checked, too. A request
// that introduces a Violation is refused. So an update that changes nothing in an invalid
// Secret is allowed, and so is a repair.
package admit

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	admissionv1 "k8s.io/api/admission/v1"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/control"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// Users whose DELETE is always allowed. After a refusal, the garbage collector would try
// again forever, and the namespace would stay in Terminating (Kubernetes
// cmd/kube-controller-manager/app/core.go names their ServiceAccounts). The platform's
// controllers create what they delete again. For the same reason the garbage collector may
// remove owners, see [onlyDetaches]. A kube-controller-manager whose controllers share one
// account (--use-service-account-credentials=false) is not recognized: its user name does
// not say which controller sent the request.
const (
	GarbageCollector    = "system:serviceaccount:kube-system:generic-garbage-collector"
	NamespaceController = "system:serviceaccount:kube-system:namespace-controller"
)

// Marker is in every refusal by the webhook and in no other refusal, for programs that must
// know what refused.
const Marker = "[kubelet-https-guard/webhook]"

// Action says what happens to a request that introduces a Violation. The names are those of
// the validationActions of a ValidatingAdmissionPolicyBinding.
type Action string

// All actions. Each is written to the API server's audit log.
const (
	// Deny refuses. It is the default.
	Deny Action = "Deny"
	// Warn allows the request and returns a warning to the user.
	Warn Action = "Warn"
	// Audit allows the request.
	Audit Action = "Audit"
)

// Change is the part of a request that the decision depends on.
type Change struct {
	User string
	// Old is nil in a create, New in a delete.
	Old, New *check.Secret
}

// Decision on a change. The zero value refuses.
type Decision struct {
	Allowed bool
	// Introduced are the findings that the change introduces, worst first.
	Introduced []finding.Result
	// Message is the reason in one line. It is empty if no reason is needed.
	Message string
	// Warnings for the user who sent the request.
	Warnings []string
	// BreakGlass: the request is allowed only because of [AllowDeleteUntil].
	BreakGlass bool
	// AllowedBy is the action, [Warn] or [Audit], without which the request would be
	// refused. Otherwise it is empty.
	AllowedBy Action
}

// withAction allows a refused request if the action is [Warn] or [Audit].
func (d Decision) withAction(action Action) Decision {
	if d.Allowed || (action != Warn && action != Audit) {
		return d
	}
	d.Allowed, d.AllowedBy = true, action
	d.Message = strings.Replace(d.Message, Refusing, WouldRefuse, 1)
	if action == Warn {
		d.Warnings = append(d.Warnings, d.Message)
	}
	return d
}

// warnings are about introduced findings that are not refused.
func warnings(introduced []finding.Result) []string {
	var all []string
	for _, f := range introduced[:min(len(introduced), maxListed)] {
		all = append(all, fmt.Sprintf("%s: %s (%s). Fix: %s", f.Subject, f.Message, f.Reason, f.Remedy))
	}
	return all
}

// Decide decides on a change of a protected Secret.
func Decide(want check.SecretExpectation, change Change, now time.Time) Decision {
	// The Secret must stay with the Service that it is renewed for.
	want.ServiceUID = check.AttachedTo(want, change.Old)
	if change.Old != nil {
		want.OwnedBefore = change.Old.Owners
	}
	introduced := introducedBy(want, change, now)
	violations := finding.WithOutcome(introduced, finding.Fail)
	decision := Decision{Introduced: introduced}

	switch {
	case len(violations) == 0:
		decision.Allowed = true
		decision.Warnings = append(warnings(introduced), allowanceWarnings(change, now)...)
	case change.New == nil && (change.User == GarbageCollector || change.User == NamespaceController):
		decision.Allowed = true
		decision.Message = "DELETE by " + change.User + " is always allowed"
	case change.User == GarbageCollector && onlyDetaches(change.Old, change.New):
		decision.Allowed = true
		decision.Message = "removal of owners by " + change.User + " is always allowed"
	case change.New == nil:
		until, err := allowDeleteUntil(change.Old, now)
		if err == nil {
			decision.Allowed, decision.BreakGlass = true, true
			decision.Message = fmt.Sprintf("DELETE of Secret %s/%s is allowed until %s by its annotation %s",
				want.Namespace, want.Name, until.Format(time.RFC3339), AllowDeleteUntil)
			return decision
		}
		decision.Message = refuseDelete(want, err, now)
	default:
		object := finding.Subject{Kind: "Secret", Namespace: want.Namespace, Name: want.Name}
		decision.Message = refusal(operationOf(change.Old != nil), object, violations)
	}
	return decision
}

// introducedBy returns the findings that a change introduces, worst first.
func introducedBy(want check.SecretExpectation, change Change, now time.Time) []finding.Result {
	// A Secret without findings introduces none, whatever is stored. So for most changes one Secret is checked, not two:
	// most of the time of a decision is spent on parsing the private key.
	after := check.CheckSecret(want, change.New, now).Results
	if len(finding.Findings(after)) == 0 {
		return nil
	}
	before := check.CheckSecret(want, change.Old, now)
	if change.Old != nil && before.Leaf == nil {
		// If the old certificate cannot be parsed, the annotations about its validity mean
		// nothing, and must not block a repair of the data.
		want.IgnoreValidityAnnotations = true
		after = check.CheckSecret(want, change.New, now).Results
	}
	return finding.Introduced(before.Results, after)
}

// operationOf a request that stores an object.
func operationOf(existed bool) admissionv1.Operation {
	if existed {
		return admissionv1.Update
	}
	return admissionv1.Create
}

// ControlOf names the control that has a requirement. No benchmark has a control for a
// Secret that a user added to the configuration.
func ControlOf(r finding.Requirement) string {
	c, _ := control.Of(r)
	if len(c.Refs) == 0 {
		return "control " + c.ID + " of kubelet-https-guard"
	}
	return c.String()
}

// onlyDetaches reports whether an update changes nothing that is checked, except that it
// removes owners. The garbage collector does so when it orphans a Secret, or when one of
// several owners does not exist. After a refusal it would try again forever, and the owner
// would stay in Terminating (Kubernetes pkg/controller/garbagecollector). It also removes
// finalizers and blockOwnerDeletion, which are not checked.
func onlyDetaches(before, after *check.Secret) bool {
	if before == nil || after == nil {
		return false
	}
	for _, owner := range after.Owners {
		if !slices.Contains(before.Owners, owner) {
			return false
		}
	}
	return before.Type == after.Type && before.Immutable == after.Immutable &&
		bytes.Equal(before.Certificate, after.Certificate) && bytes.Equal(before.Key, after.Key) &&
		maps.Equal(before.Annotations, after.Annotations)
}

// maxListed bounds the findings in the answer to one request: a Secret with many owners can
// have as many findings.
const maxListed = 10

// refusal is the answer to a request that would store an object with violations.
func refusal(operation admissionv1.Operation, object finding.Subject, violations []finding.Result) string {
	var problems, remedies []string
	for i, f := range violations {
		if i == maxListed {
			problems = append(problems, fmt.Sprintf("and %d more", len(violations)-maxListed))
			break
		}
		problems = append(problems, fmt.Sprintf("%s: %s (%s)", f.Subject.Key, f.Message, f.Reason))
		if remedy := f.Remedy; !strings.Contains(strings.Join(remedies, "; "), remedy) {
			remedies = append(remedies, remedy)
		}
	}
	return Refusal(Refusing, string(operation), object.String(), strings.Join(problems, "; "),
		ControlOf(violations[0].Requirement), Marker) + strings.Join(remedies, "; ")
}

// The first words of a refusal, with action [Deny] and with another action.
const (
	Refusing    = "refusing"
	WouldRefuse = "would refuse"
)

// Refusal is what every refusal says, by the webhook and by the policies. The remedy
// follows.
//
// The marker is not at the end: people copy the annotation there.
func Refusal(verb, operation, object, problems, control, marker string) string {
	return fmt.Sprintf("%s %s of %s: %s. This violates %s %s. Fix: ", verb, operation, object, problems, control, marker)
}

// DeleteProblem is what a refusal says about the delete of a protected Secret.
const DeleteProblem = "it causes " + string(finding.SecretMissing)

// Renewal says how to renew a Secret without a delete, by its manager ([check.SecretExpectation] ManagedBy). OpenShift
// renews a Secret at once if the annotations with the end of its validity are gone (service-ca-operator
// pkg/controller/servingcert/controller/secret_creating_controller.go; library-go pkg/operator/certrotation/target.go).
func Renewal(managedBy string) string {
	switch managedBy {
	case check.ManagedByServiceCA:
		return "remove annotations service.{alpha,beta}.openshift.io/expiry"
	case check.ManagedByCertRotation:
		return "remove annotation auth.openshift.io/certificate-not-after"
	}
	return "see docs/runbook.md"
}

// DeleteRemedy is the remedy for a refused delete: first how to renew the Secret without one, then the annotation that
// allows the delete. until is its value, or what a shell replaces by it.
func DeleteRemedy(renewal, until string) string {
	return "to renew it, " + renewal + "; to delete it, set annotation " + AllowDeleteUntil + "=" + until
}

// refuseDelete is the answer to a delete. notAllowed says why the annotation does not allow
// it.
func refuseDelete(want check.SecretExpectation, notAllowed error, now time.Time) string {
	problem := DeleteProblem
	if !errors.Is(notAllowed, errNoAllowance) {
		problem += ", and " + notAllowed.Error()
	}
	until := now.Add(SuggestedAllowance).UTC().Truncate(time.Second).Format(time.RFC3339)
	return Refusal(Refusing, string(admissionv1.Delete), "Secret "+want.Namespace+"/"+want.Name, problem,
		ControlOf(want.Family().Requires(finding.Exists)), Marker) + DeleteRemedy(Renewal(want.ManagedBy), until)
}
