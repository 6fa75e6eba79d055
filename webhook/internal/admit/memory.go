// SPDX-License-Identifier: Apache-2.0

package admit

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"maps"
	"slices"
	"time"

	"k8s.io/utils/lru"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
)

// maxVerdicts bounds the verdicts in a [Memory], of some kilobytes each.
const maxVerdicts = 64

// Memory is a cache of verdicts. They depend on the Secret, on what it should be, and on
// the time, if one of the certificate's dates has passed. Most updates do not change
// certificate and key, and the old object of each update was the new one of an earlier
// request. It keeps digests and certificates, no keys. [NewMemory] makes one.
type Memory struct{ verdicts *lru.Cache }

// NewMemory makes an empty cache.
func NewMemory() *Memory { return &Memory{lru.New(maxVerdicts)} }

// datedVerdict is a verdict that is valid since a time.
type datedVerdict struct {
	check.SecretResults
	since time.Time
}

// Judge implements [Judge].
func (m *Memory) Judge(want check.SecretExpectation, stored *check.Secret, now time.Time) check.SecretResults {
	if stored == nil {
		return check.CheckSecret(want, nil, now)
	}
	// The dates of certificates are compared with the wall clock. The monotonic clock
	// continues when the wall clock is set back.
	now = now.Round(0)
	key := digest(want, stored)
	if found, known := m.verdicts.Get(key); known {
		if d, _ := found.(datedVerdict); !now.Before(d.since) && (d.NextChange.IsZero() || now.Before(d.NextChange)) {
			return d.SecretResults
		}
	}
	verdict := check.CheckSecret(want, stored, now)
	m.verdicts.Add(key, datedVerdict{verdict, now})
	return verdict
}

// digest is the same for two Secrets only if they are the same in all that is checked.
func digest(want check.SecretExpectation, stored *check.Secret) (key [sha256.Size]byte) {
	d := digester{sha256.New()}
	d.text(want.Namespace, want.Name, want.Type, want.ManagedBy, want.Service, want.ServiceUID, want.GoVersion)
	d.text(
		fmt.Sprint(want.Usage, want.ExpiringFraction, want.IgnoreValidityAnnotations, want.Roots == nil, len(want.Roots),
			want.RootsUnusable == nil,
			len(want.DNSNames), len(want.Owners)),
	)
	d.text(want.DNSNames...)
	d.text(want.Identity.CommonName, want.Identity.Organization)
	d.text(fmt.Sprintf("%d %q %t", want.KeyPolicy.MinimumRSABits, want.KeyPolicy.AllowedAlgorithms, want.KeyPolicy.Fails))
	for _, o := range want.Owners {
		d.text(o.APIVersion, o.Kind, o.Name)
	}
	d.text(fmt.Sprintf("%q", want.OwnedBefore))
	if want.RootsUnusable != nil {
		d.text(want.RootsUnusable.Error())
	}
	for _, root := range want.Roots {
		d.bytes(root.Raw)
	}
	d.text(stored.Type, fmt.Sprint(stored.Immutable, len(stored.Annotations), len(stored.Owners)))
	d.bytes(stored.Certificate)
	d.bytes(stored.Key)
	for _, name := range slices.Sorted(maps.Keys(stored.Annotations)) {
		d.text(name, stored.Annotations[name])
	}
	for _, o := range stored.Owners {
		d.text(o.APIVersion, o.Kind, o.Name, o.UID)
	}
	d.Sum(key[:0])
	return key
}

// digester adds the length to each piece, so that different pieces give different digests.
type digester struct{ hash.Hash }

func (d digester) bytes(piece []byte) {
	var length [8]byte
	binary.LittleEndian.PutUint64(length[:], uint64(len(piece)))
	_, _ = d.Write(length[:]) // a hash never fails
	_, _ = d.Write(piece)
}

func (d digester) text(pieces ...string) {
	for _, piece := range pieces {
		d.bytes([]byte(piece))
	}
}
