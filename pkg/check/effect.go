// SPDX-License-Identifier: Apache-2.0

package check

import (
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// Effect is the response of one API server to changes that the guard must refuse. The
// changes were dry runs on a decoy Secret, so nothing was changed.
type Effect struct {
	// Server is the API server that received the requests.
	Server finding.Subject
	// Policy is a change that the policy must refuse, Webhook one that the policy allows
	// and the webhook must refuse.
	Policy, Webhook Attempt
	// Static is a change that only the static policies refuse; nil if none are expected.
	Static *Attempt
}

// Attempt is a change that must be refused, and its result.
type Attempt struct {
	// WhyNotApplicable says why nothing must be refused: the configuration disables this part
	// of the guard. No other field is set then.
	WhyNotApplicable string
	// WhyUnknown says why the result is not known.
	WhyUnknown *finding.Result
	// Refused: this part of the guard refused the change.
	Refused bool
	// Answer describes the API server's response if the change was not refused. It is the
	// same text for the same response, so that a finding does not change each time.
	Answer string
}

// Check reports whether each part of the guard refused its change.
func (e Effect) Check(now time.Time) (results []finding.Result, nextChange time.Time) {
	checks := effectChecks()
	if e.Static != nil {
		checks = append(checks, staticCheck())
	}
	return runChecks(finding.Guard, checks, e, now), time.Time{}
}

// partOf returns the subject of a part of the guard, so that each part resolves its own finding only.
func partOf(part string) func(Effect) finding.Subject {
	return func(e Effect) finding.Subject { return e.Server.Part(part) }
}

func effectReasons() []finding.Reason {
	return []finding.Reason{finding.GuardIneffective, finding.Unreadable, finding.NotChecked, finding.NotObserved}
}

// staticCheck has the requirement of the policies in the API, for another subject: an API server reads static policies
// from a directory of its own, and an empty directory is a success for it.
func staticCheck() check[Effect] {
	const part = "static policies"
	return check[Effect]{finding.PolicyRefuses, nil, effectReasons(), partOf(part),
		func(e Effect, _ time.Time) []finding.Result {
			return e.attempt(*e.Static, "the static policies", part,
				"check that this API server is of Kubernetes 1.37 or later, and that its directory of static policies has the "+
					"file that webhook policy --static writes (docs/static-policies.md)")
		}}
}

func effectChecks() []check[Effect] {
	subject, reasons := partOf, effectReasons()
	const policy, webhook = "ValidatingAdmissionPolicy", "ValidatingAdmissionWebhook"
	return []check[Effect]{
		{finding.PolicyRefuses, nil, reasons, subject(policy), func(e Effect, _ time.Time) []finding.Result {
			return e.attempt(e.Policy, "the policy", policy, runsWith(policy))
		}},
		{finding.WebhookAsked, nil, reasons, subject(webhook), func(e Effect, _ time.Time) []finding.Result {
			return e.attempt(e.Webhook, "the webhook", webhook, runsWith(webhook))
		}},
	}
}

func runsWith(plugin string) string {
	return "check that this API server runs with the admission plugin " + plugin +
		", and that nobody changed the guard's objects"
}

// attempt: that the guard's objects exist does not prove that they have an effect. An API server
// allows the change if its admission plugin is disabled, in whatever way.
func (e Effect) attempt(a Attempt, what, part, remedy string) []finding.Result {
	switch {
	case a.WhyNotApplicable != "":
		return notApplicable(a.WhyNotApplicable)
	case a.WhyUnknown != nil:
		return []finding.Result{Unknown(*a.WhyUnknown)}
	case a.Refused:
		return nil
	}
	return single(finding.GuardIneffective, e.Server.Part(part),
		what+" did not refuse a change that must be refused: "+a.Answer, remedy)
}
