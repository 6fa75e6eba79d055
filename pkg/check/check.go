// SPDX-License-Identifier: Apache-2.0

// Package check is the catalogue of checks: of a certificate and its key, a protected Secret, the files on a node, the
// configuration of a kube-apiserver, a kubelet, and the guard itself.
//
// A check answers one requirement: the result is pass, warn, fail, not applicable or unknown, with the reason.
// A check is a pure function of facts and a time. It reads no file, sends no request and reads no clock. Bad
// input is a result, never an error. The caller decides what to do with a result.
//
// Each subject has a Check method. It returns the results and the next time at which they may change although the facts
// are the same (zero: never). Each check has its own file, with the source of its rule above it. Nothing registers
// itself: the lists in keypair.go, files.go, secret.go, service.go, served.go, configuredkey.go, platform.go,
// override.go, manifest.go, configuration.go, kubelet.go, node_kubelet.go, guard.go, action.go and effect.go contain
// all checks.
package check

import (
	"maps"
	"slices"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// check answers one aspect of a subject, whose facts have type F.
type check[F any] struct {
	aspect finding.Aspect
	// needs are aspects of the same family, earlier in the list, that this check depends on:
	// if one of them fails or is unknown, this aspect is unknown for the same reason.
	needs []finding.Aspect
	// reasons are all reasons that run can return.
	reasons []finding.Reason
	// at returns the subject of a pass.
	at func(facts F) finding.Subject
	// run returns what is wrong, or why that is unknown. It returns nothing for a pass. The
	// caller sets the requirement.
	run func(facts F, now time.Time) []finding.Result
}

// runChecks runs all checks, so that people see everything that is wrong at once. known are
// results of the same family that the checks may need.
func runChecks[F any](
	family finding.Family, checks []check[F], facts F, now time.Time, known ...finding.Result,
) []finding.Result {
	results := slices.Clone(known)
	for _, c := range checks {
		found := missingNeed(family, c.needs, results)
		if found == nil {
			found = c.run(facts, now)
		}
		if len(found) == 0 {
			found = []finding.Result{{Subject: c.at(facts), Outcome: finding.Pass}}
		}
		for i := range found {
			found[i].Requirement = family.Requires(c.aspect)
			if found[i].Outcome == finding.NotApplicable && found[i].Subject == (finding.Subject{}) {
				found[i].Subject = c.at(facts)
			}
		}
		results = append(results, found...)
	}
	return results[len(known):]
}

// missingNeed says why a check cannot run: the first result of a needed aspect that fails, is unknown or is not
// applicable. It returns nil if all pass.
func missingNeed(family finding.Family, aspects []finding.Aspect, results []finding.Result) []finding.Result {
	for _, aspect := range aspects {
		for _, r := range results {
			if r.Requirement != family.Requires(aspect) {
				continue
			}
			switch r.Outcome {
			case finding.Fail, finding.Unknown:
				return []finding.Result{Unknown(r)}
			case finding.NotApplicable:
				return notApplicable(r.Message)
			case finding.Pass, finding.Warn:
			}
		}
	}
	return nil
}

// Unknown returns an unknown result for a check that another problem prevents. It has the
// reason, subject, message and remedy of that problem.
func Unknown(because finding.Result) finding.Result {
	because.Outcome = finding.Unknown
	return because
}

// Reasons returns all reasons that the check of a requirement can give.
func Reasons(requirement finding.Requirement) []finding.Reason {
	return tables()[requirement]
}

// CheckedReasons returns the reasons that were checked for and are known not to exist beyond the
// results, each once, sorted: the reasons of the requirements that pass, without those of a
// requirement that was not observed. The reasons of a requirement that fails are not
// included: a check may stop at the first failure.
func CheckedReasons(results []finding.Result) []finding.Reason {
	outcomes := map[finding.Requirement]map[finding.Outcome]bool{}
	for _, r := range results {
		if r.Reason == finding.NotChecked {
			continue // not configured to be checked
		}
		if outcomes[r.Requirement] == nil {
			outcomes[r.Requirement] = map[finding.Outcome]bool{}
		}
		outcomes[r.Requirement][r.Outcome] = true
	}
	all := tables()
	looked := map[finding.Reason]bool{}
	for requirement, seen := range outcomes {
		for _, reason := range all[requirement] {
			before, known := looked[reason]
			switch {
			case reason.Outcome() == finding.Unknown: // no check looks for that
			case seen[finding.Unknown]:
				looked[reason] = false
			case (seen[finding.Pass] || seen[finding.Warn]) && !seen[finding.Fail]:
				looked[reason] = before || !known
			}
		}
	}
	maps.DeleteFunc(looked, func(_ finding.Reason, yes bool) bool { return !yes })
	return slices.Sorted(maps.Keys(looked))
}

// tables returns the reasons of all requirements.
func tables() map[finding.Requirement][]finding.Reason {
	all := map[finding.Requirement][]finding.Reason{}
	for _, known := range catalogue() {
		all[known.requirement] = known.reasons
	}
	return all
}

// entry is a check in the catalogue.
type entry struct {
	requirement finding.Requirement
	needs       []finding.Requirement
	reasons     []finding.Reason
}

// catalogue returns all checks, those of each family in the order in which they run.
func catalogue() []entry {
	all := slices.Concat(
		entries(finding.Platform, platformChecks()),
		entries(finding.Manifest, manifestChecks()),
		entries(finding.Config, configurationChecks()),
		entries(finding.ClientFiles, keyPairChecks()),
		entries(finding.ClientFiles, filesChecks()),
		entries(finding.Kubelet, kubeletChecks()),
		entries(finding.NodeKubelet, nodeKubeletChecks()),
		entries(finding.Overrides, overrideChecks()),
		entries(finding.Guard, guardChecks()),
		entries(finding.Guard, actionChecks()),
		entries(finding.Guard, effectChecks()),
	)
	for _, family := range []finding.Family{finding.ServingCert, finding.KubeletClient, finding.AddedSecret} {
		all = slices.Concat(all,
			entries(family, secretChecks()),
			entries(family, keyPairChecks()),
			entries(family, secretPairChecks(family)),
			entries(family, serviceChecks(family)),
			entries(family, servedChecks(family)),
			entries(family, configuredKeyChecks()),
		)
	}
	all = append(all, entries(finding.AddedSecret, selectionChecks())...)
	return all
}

func entries[F any](family finding.Family, checks []check[F]) []entry {
	var all []entry
	for _, c := range checks {
		known := entry{requirement: family.Requires(c.aspect), reasons: c.reasons}
		for _, needed := range c.needs {
			known.needs = append(known.needs, family.Requires(needed))
		}
		all = append(all, known)
	}
	return all
}

// single returns a list of one result, with the outcome of its reason.
func single(reason finding.Reason, at finding.Subject, message, remedy string) []finding.Result {
	return []finding.Result{{Subject: at, Outcome: reason.Outcome(), Reason: reason, Message: message, Remedy: remedy}}
}

// notApplicable returns the result for a requirement that does not apply.
func notApplicable(why string) []finding.Result {
	return []finding.Result{{Outcome: finding.NotApplicable, Message: why}}
}

// timestamp formats a time for messages.
func timestamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// earliest returns the earlier of two times. A zero time means none.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || (!b.IsZero() && b.Before(a)) {
		return b
	}
	return a
}

// Uncertain changes results for facts that may not be the facts in use, or may be outdated. No
// requirement passes. A warning or failure stays and gets an unknown result beside it. because
// says why.
func Uncertain(results []finding.Result, because finding.Result) []finding.Result {
	uncertain := make([]finding.Result, 0, len(results))
	for _, r := range results {
		unknown := unknownFor(r.Requirement, because)
		switch r.Outcome {
		case finding.Warn, finding.Fail:
			uncertain = append(uncertain, r, unknown)
		case finding.Unknown:
			uncertain = append(uncertain, r)
		case finding.Pass, finding.NotApplicable:
			uncertain = append(uncertain, unknown)
		}
	}
	return uncertain
}

// unknownFor returns an unknown result for a requirement.
func unknownFor(requirement finding.Requirement, because finding.Result) finding.Result {
	result := Unknown(because)
	result.Requirement = requirement
	return result
}

// AllNotApplicable returns a result that is not applicable for each requirement of the results. why says why.
func AllNotApplicable(results []finding.Result, why string) []finding.Result {
	all := make([]finding.Result, 0, len(results))
	for _, r := range results {
		all = append(all, finding.Result{
			Requirement: r.Requirement, Subject: r.Subject, Outcome: finding.NotApplicable, Message: why,
		})
	}
	return all
}

// AllUnknown returns an unknown result for each requirement of the results. It is for results
// whose subject was not observed. because says why.
func AllUnknown(results []finding.Result, because finding.Result) []finding.Result {
	all := make([]finding.Result, 0, len(results))
	for _, r := range results {
		all = append(all, unknownFor(r.Requirement, because))
	}
	return all
}
