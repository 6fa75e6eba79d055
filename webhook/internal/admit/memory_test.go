// SPDX-License-Identifier: Apache-2.0

package admit_test

import (
	"crypto/x509"
	"errors"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/layout"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/admit"
)

// TestMemory: the cache returns what the check returns, at any time and after any other
// question.
func TestMemory(t *testing.T) {
	ca, foreign := pkitest.NewCA("service-ca"), pkitest.NewCA("foreign")
	now := pkitest.Now()
	pair := ca.Issue(pkitest.ServingCert().Valid(now, now.Add(100*time.Hour)))
	other, mldsa := ca.Issue(pkitest.ServingCert()), pair.SignedWith("2.16.840.1.101.3.4.3.18")
	base := func(change func(want *check.SecretExpectation, s *check.Secret)) (check.SecretExpectation, *check.Secret) {
		want := servingCert()
		want.Roots = []*x509.Certificate{ca.Certificate}
		s := &check.Secret{
			Type: "kubernetes.io/tls", Certificate: pair.Certificate, Key: pair.Key,
			Annotations: map[string]string{
				"service.alpha.openshift.io/originating-service-name": "api",
				"service.alpha.openshift.io/originating-service-uid":  "uid-1",
				"service.alpha.openshift.io/expiry":                   "2099-01-01T00:00:00Z",
			},
			Owners: []check.Owner{{APIVersion: "v1", Kind: "Service", Name: "api", UID: "uid-1"}},
		}
		change(&want, s)
		return want, s
	}
	changes := map[string]func(want *check.SecretExpectation, s *check.Secret){
		"nothing":       func(*check.SecretExpectation, *check.Secret) {},
		"type":          func(_ *check.SecretExpectation, s *check.Secret) { s.Type = "Opaque" },
		"certificate":   func(_ *check.SecretExpectation, s *check.Secret) { s.Certificate = other.Certificate },
		"key":           func(_ *check.SecretExpectation, s *check.Secret) { s.Key = other.Key },
		"immutable":     func(_ *check.SecretExpectation, s *check.Secret) { s.Immutable = true },
		"no annotation": func(_ *check.SecretExpectation, s *check.Secret) { s.Annotations = nil },
		"annotation": func(_ *check.SecretExpectation, s *check.Secret) {
			s.Annotations["service.beta.openshift.io/originating-service-name"] = "x"
		},
		"owner's UID":  func(_ *check.SecretExpectation, s *check.Secret) { s.Owners[0].UID = "uid-2" },
		"owner's kind": func(_ *check.SecretExpectation, s *check.Secret) { s.Owners[0].Kind = "Pod" },
		"second owner": func(_ *check.SecretExpectation, s *check.Secret) {
			s.Owners = append(s.Owners, check.Owner{Kind: "Pod"})
		},
		"second owner, allowed": func(want *check.SecretExpectation, s *check.Secret) {
			s.Owners = append(s.Owners, check.Owner{Kind: "Pod"})
			want.Owners = []check.AllowedOwner{{Kind: "Pod"}}
		},
		"second owner, allowed with another name": func(want *check.SecretExpectation, s *check.Secret) {
			s.Owners = append(s.Owners, check.Owner{Kind: "Pod"})
			want.Owners = []check.AllowedOwner{{Kind: "Pod", Name: "another"}}
		},
		"second owner, allowed, replaces one with another UID": func(want *check.SecretExpectation, s *check.Secret) {
			s.Owners = append(s.Owners, check.Owner{Kind: "Pod"})
			want.Owners, want.OwnedBefore = []check.AllowedOwner{{Kind: "Pod"}}, []check.Owner{{Kind: "Pod", UID: "before"}}
		},
		"roots": func(want *check.SecretExpectation, _ *check.Secret) {
			want.Roots = []*x509.Certificate{foreign.Certificate}
		},
		"unusable root": func(want *check.SecretExpectation, _ *check.Secret) { want.RootsUnusable = errors.New("ML-DSA-65") },
		"foreign and unusable roots": func(want *check.SecretExpectation, _ *check.Secret) {
			want.Roots, want.RootsUnusable = []*x509.Certificate{foreign.Certificate}, errors.New("ML-DSA-65")
		},
		"foreign and other unusable roots": func(want *check.SecretExpectation, _ *check.Secret) {
			want.Roots, want.RootsUnusable = []*x509.Certificate{foreign.Certificate}, errors.New("ML-DSA-44")
		},
		"signed with ML-DSA": func(_ *check.SecretExpectation, s *check.Secret) { s.Certificate = mldsa },
		"signed with ML-DSA, Go 1.26": func(want *check.SecretExpectation, s *check.Secret) {
			s.Certificate, want.GoVersion = mldsa, "go1.26.8"
		},
		"signed with ML-DSA, Go 1.27": func(want *check.SecretExpectation, s *check.Secret) {
			s.Certificate, want.GoVersion = mldsa, "go1.27.4"
		},
		"key policy, warns": func(want *check.SecretExpectation, _ *check.Secret) {
			want.KeyPolicy.AllowedAlgorithms = []string{"RSA"}
		},
		"key policy, fails": func(want *check.SecretExpectation, _ *check.Secret) {
			want.KeyPolicy = check.KeyPolicy{AllowedAlgorithms: []string{"RSA"}, Fails: true}
		},
		"no roots":      func(want *check.SecretExpectation, _ *check.Secret) { want.Roots = nil },
		"usage":         func(want *check.SecretExpectation, _ *check.Secret) { want.Usage = x509.ExtKeyUsageClientAuth },
		"names":         func(want *check.SecretExpectation, _ *check.Secret) { want.DNSNames = []string{"elsewhere"} },
		"manager":       func(want *check.SecretExpectation, _ *check.Secret) { want.ManagedBy = "" },
		"Service":       func(want *check.SecretExpectation, _ *check.Secret) { want.Service = "other" },
		"Service's UID": func(want *check.SecretExpectation, _ *check.Secret) { want.ServiceUID = "uid-9" },
		"notes":         func(want *check.SecretExpectation, _ *check.Secret) { want.IgnoreValidityAnnotations = true },
		"fraction":      func(want *check.SecretExpectation, _ *check.Secret) { want.ExpiringFraction = 0.9 },
		"identity": func(want *check.SecretExpectation, _ *check.Secret) {
			want.Identity = layout.Identity{CommonName: "elsewhere", Organization: "o"}
		},
		"name": func(want *check.SecretExpectation, _ *check.Secret) { want.Name = "another" },
	}
	memory := admit.NewMemory()
	// Before the certificate's lifetime, within, soon before its end, after, and back.
	for _, after := range []time.Duration{-time.Hour, 0, time.Hour, 86 * time.Hour, 101 * time.Hour, time.Hour,
		-time.Hour, 86 * time.Hour} {
		for range 2 {
			for name, change := range changes {
				want, s := base(change)
				when := now.Add(after)
				if d := cmp.Diff(check.CheckSecret(want, s, when).Results, memory.Judge(want, s, when).Results); d != "" {
					t.Errorf("%s, after %s (-check +memory):\n%s", name, after, d)
				}
			}
		}
	}
	if d := cmp.Diff([]finding.Reason{finding.SecretMissing}, []finding.Reason{memory.Judge(servingCert(), nil,
		now).Results[0].Reason}); d != "" {
		t.Error(d)
	}
}

// TestMemoryWhenTheClockIsSet: the cache uses the wall clock, not the monotonic clock, which
// continues when the wall clock is set back.
func TestMemoryWhenTheClockIsSet(t *testing.T) {
	ca := pkitest.NewCAAround("service-ca", time.Now())
	pair := ca.Issue(pkitest.ServingCert().Valid(time.Now().Add(-time.Hour), time.Now().Add(1000*time.Hour)))
	want := check.SecretExpectation{
		Namespace: "n", Name: "s", Usage: x509.ExtKeyUsageServerAuth, Roots: []*x509.Certificate{ca.Certificate},
	}
	stored := &check.Secret{Type: "kubernetes.io/tls", Certificate: pair.Certificate, Key: pair.Key}
	memory := admit.NewMemory()
	for _, by := range []time.Duration{0, -2000 * time.Hour, 0, 2000 * time.Hour, 0, -2000 * time.Hour} {
		now := set(t, by)
		if d := cmp.Diff(check.CheckSecret(want, stored, now).Results, memory.Judge(want, stored, now).Results); d != "" {
			t.Errorf("the clock is off by %s (-check +memory):\n%s", by, d)
		}
	}
}

// set returns the current time with another wall clock and the same monotonic clock.
func set(t *testing.T, by time.Duration) time.Time {
	t.Helper()
	before := time.Now()
	now := before
	// A flag, 33 bits of seconds, 30 of nanoseconds (time.Time).
	wall := (*uint64)(unsafe.Pointer(&now))
	*wall += uint64(int64(by/time.Second)) << 30
	if now.Sub(before) != 0 || now.Round(0).Sub(before.Round(0)) != by {
		t.Fatalf("the layout of time.Time has changed: off by %s and %s, not by 0 and %s", now.Sub(before),
			now.Round(0).Sub(before.Round(0)), by)
	}
	return now
}
