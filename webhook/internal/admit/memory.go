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

// remembered is how many verdicts a [Memory] has, of some kilobytes each.
const remembered = 64

// Memory remembers verdicts: they are a function of the Secret and what it
// should be, but for the moments at which a certificate's dates count. Most
// updates leave certificate and key as they are, and all have an old object
// that was a new one before. It keeps digests and certificates, no keys.
// [NewMemory] makes one.
type Memory struct{ verdicts *lru.Cache }

// NewMemory makes an empty one.
func NewMemory() *Memory { return &Memory{lru.New(remembered)} }

// dated is a verdict and since when it holds.
type dated struct {
	check.SecretVerdict
	since time.Time
}

// Judge is a [Judge].
func (m *Memory) Judge(want check.SecretExpectation, stored *check.Secret, now time.Time) check.SecretVerdict {
	if stored == nil {
		return check.JudgeSecret(want, nil, now)
	}
	// By the wall clock alone: certificates know no other, and the monotonic one
	// goes on when that is set back.
	now = now.Round(0)
	key := digest(want, stored)
	if found, known := m.verdicts.Get(key); known {
		if d, _ := found.(dated); !now.Before(d.since) && (d.Until.IsZero() || now.Before(d.Until)) {
			return d.SecretVerdict
		}
	}
	verdict := check.JudgeSecret(want, stored, now)
	m.verdicts.Add(key, dated{verdict, now})
	return verdict
}

// digest is the same for two Secrets if and only if all that is looked at is.
func digest(want check.SecretExpectation, stored *check.Secret) (key [sha256.Size]byte) {
	d := digester{sha256.New()}
	d.text(want.Namespace, want.Name, want.Type, want.ManagedBy, want.Service, want.ServiceUID)
	d.text(fmt.Sprint(want.Usage, want.ExpiringFraction, want.IgnoreNotes, want.Roots == nil, len(want.Roots), len(want.DNSNames)))
	d.text(want.DNSNames...)
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

// digester takes pieces so that what is one of them is not another's part.
type digester struct{ hash.Hash }

func (d digester) bytes(piece []byte) {
	var length [8]byte
	binary.LittleEndian.PutUint64(length[:], uint64(len(piece)))
	_, _ = d.Write(length[:]) // a hash takes everything
	_, _ = d.Write(piece)
}

func (d digester) text(pieces ...string) {
	for _, piece := range pieces {
		d.bytes([]byte(piece))
	}
}
