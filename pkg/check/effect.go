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
	return runChecks(finding.Guard, effectChecks(), e, now), time.Time{}
}

func effectChecks() []check[Effect] {
	// The plugin is part of the subject, so that each part resolves its own finding only.
	subject := func(plugin string) func(Effect) finding.Subject {
		return func(e Effect) finding.Subject { return e.Server.Part(plugin) }
	}
	reasons := []finding.Reason{finding.GuardIneffective, finding.Unreadable, finding.NotChecked, finding.NotObserved}
	const policy, webhook = "ValidatingAdmissionPolicy", "ValidatingAdmissionWebhook"
	return []check[Effect]{
		{finding.PolicyRefuses, nil, reasons, subject(policy), func(e Effect, _ time.Time) []finding.Result {
			return e.attempt(e.Policy, "the policy", policy)
		}},
		{finding.WebhookAsked, nil, reasons, subject(webhook), func(e Effect, _ time.Time) []finding.Result {
			return e.attempt(e.Webhook, "the webhook", webhook)
		}},
	}
}

// attempt: that the guard's objects exist does not prove that they have an effect. An API server
// allows the change if its admission plugin is disabled, in whatever way.
func (e Effect) attempt(a Attempt, part, plugin string) []finding.Result {
	switch {
	case a.WhyNotApplicable != "":
		return notApplicable(a.WhyNotApplicable)
	case a.WhyUnknown != nil:
		return []finding.Result{Unknown(*a.WhyUnknown)}
	case a.Refused:
		return nil
	}
	return single(finding.GuardIneffective, e.Server.Part(plugin),
		part+" did not refuse a change that it should have refused: "+a.Answer,
		"check that this API server runs with the admission plugin "+plugin+", and that nobody changed the guard's objects")
}
