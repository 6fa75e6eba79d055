// SPDX-License-Identifier: Apache-2.0

// Package check is the catalogue: what may be wrong with a certificate and its
// key, a protected Secret, the files on a node, the configuration of a
// kube-apiserver, and the guard itself.
//
// A check is a pure function: facts and a time in, findings out. It reads no
// file, asks no server and knows no clock. Bad input is a finding, never an
// error. Whether a finding refuses a request or becomes an Event is decided by
// who asked.
//
// Each check stands in a file of its own with the source of its rule above it;
// the lists in this file and in keypair.go, secret.go, service.go, override.go,
// files.go, manifest.go, configuration.go, kubelet.go, bundle.go and guard.go are
// all there is, nothing registers itself.
package check

import (
	"slices"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// check looks at facts of type F. reasons are all that it can give. can says
// whether there is what it looks at; nil for always.
type check[F any] struct {
	reasons []finding.Reason
	can     func(facts F) bool
	run     func(facts F, now time.Time) []finding.Finding
}

// possible are the checks that can be run on the facts.
func possible[F any](checks []check[F], facts F) []check[F] {
	return slices.DeleteFunc(checks, func(c check[F]) bool { return c.can != nil && !c.can(facts) })
}

// runAll runs all the checks that can be run, so that people see everything that
// is wrong at once.
func runAll[F any](checks []check[F], facts F, now time.Time) []finding.Finding {
	var findings []finding.Finding
	for _, c := range possible(checks, facts) {
		findings = append(findings, c.run(facts, now)...)
	}
	return finding.Sort(findings)
}

// reasonsOf are those that the checks can give.
func reasonsOf[F any](checks []check[F]) []finding.Reason {
	var reasons []finding.Reason
	for _, c := range checks {
		reasons = append(reasons, c.reasons...)
	}
	return reasons
}

// lookedFor are the reasons that [runAll] looks for in the facts: where there is
// nothing to look at, that nothing is found says nothing.
func lookedFor[F any](checks []check[F], facts F) []finding.Reason {
	return reasonsOf(possible(checks, facts))
}

// Reasons are all reasons that the catalogue can give, in its order.
func Reasons() []finding.Reason {
	return slices.Concat(
		reasonsOf(keyPairChecks()), reasonsOf(fileChecks()), reasonsOf(filesChecks()),
		reasonsOf(manifestChecks()), reasonsOf(configurationChecks()), reasonsOf(kubeletChecks()),
		reasonsOf(secretChecks()), reasonsOf(bundleChecks()), reasonsOf(serviceChecks()), reasonsOf(overrideChecks()), reasonsOf(guardChecks()),
	)
}

// one is a list of one finding, the answer of most checks.
func one(reason finding.Reason, at finding.Location, message, remedy string) []finding.Finding {
	return []finding.Finding{{Reason: reason, Location: at, Message: message, Remedy: remedy}}
}

// at writes a moment in messages.
func at(t time.Time) string { return t.UTC().Format(time.RFC3339) }
