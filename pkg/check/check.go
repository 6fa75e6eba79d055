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

// check looks at facts of type F. reasons are all that it can give, for the
// test that every reason has a fixture.
type check[F any] struct {
	reasons []finding.Reason
	run     func(facts F, now time.Time) []finding.Finding
}

// runAll runs all the checks, so that people see everything that is wrong at
// once.
func runAll[F any](checks []check[F], facts F, now time.Time) []finding.Finding {
	var findings []finding.Finding
	for _, c := range checks {
		findings = append(findings, c.run(facts, now)...)
	}
	return finding.Sort(findings)
}

// Reasons are all reasons that the catalogue can give, in its order.
func Reasons() []finding.Reason {
	return slices.Concat(
		NodeReasons(), KubeletReasons(),
		SecretReasons(), BundleReasons(), ServiceReasons(), OverrideReasons(), GuardReasons(),
	)
}

// SecretReasons are those that a protected Secret can give.
func SecretReasons() []finding.Reason {
	return appendReasons(appendReasons(nil, secretChecks()), keyPairChecks())
}

// BundleReasons are those that a CA bundle can give.
func BundleReasons() []finding.Reason { return appendReasons(nil, bundleChecks()) }

// ServiceReasons are those that a Service can give which service-ca issues for.
func ServiceReasons() []finding.Reason { return appendReasons(nil, serviceChecks()) }

// OverrideReasons are those that overrides of a configuration can give.
func OverrideReasons() []finding.Reason { return appendReasons(nil, overrideChecks()) }

// GuardReasons are those that the guard's registration can give.
func GuardReasons() []finding.Reason { return appendReasons(nil, guardChecks()) }

// NodeReasons are those that a look at a node can give without its kubelet.
func NodeReasons() []finding.Reason {
	return slices.Concat(FilesReasons(), ManifestReasons(), ConfigurationReasons())
}

// FilesReasons are those that the files of the pair and of its CA can give.
func FilesReasons() []finding.Reason {
	var reasons []finding.Reason
	reasons = appendReasons(reasons, keyPairChecks())
	reasons = appendReasons(reasons, fileChecks())
	return appendReasons(reasons, filesChecks())
}

// UnreadFilesReasons are those that files of the pair can give which cannot be
// read.
func UnreadFilesReasons() []finding.Reason { return appendReasons(nil, fileChecks()) }

// ManifestReasons are those that the manifest of the static pod can give.
func ManifestReasons() []finding.Reason { return appendReasons(nil, manifestChecks()) }

// ConfigurationReasons are those that a configuration can give.
func ConfigurationReasons() []finding.Reason { return appendReasons(nil, configurationChecks()) }

// UnreadConfigurationReasons are those that one can give that cannot be read or
// parsed.
func UnreadConfigurationReasons() []finding.Reason {
	return appendReasons(nil, configurationChecks()[:1])
}

// KubeletReasons are those that a handshake with the kubelet adds.
func KubeletReasons() []finding.Reason { return appendReasons(nil, kubeletChecks()) }

func appendReasons[F any](reasons []finding.Reason, checks []check[F]) []finding.Reason {
	for _, c := range checks {
		reasons = append(reasons, c.reasons...)
	}
	return reasons
}

// one is a list of one finding, the answer of most checks.
func one(reason finding.Reason, at finding.Location, message, remedy string) []finding.Finding {
	return []finding.Finding{{Reason: reason, Location: at, Message: message, Remedy: remedy}}
}

// at writes a moment in messages.
func at(t time.Time) string { return t.UTC().Format(time.RFC3339) }
