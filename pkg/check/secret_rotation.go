// SPDX-License-Identifier: Apache-2.0

package check

import (
	"crypto/x509"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// The annotations by which service-ca knows its Secrets. It reads both
// flavours: of the name, beta wins; of the UID, either will do
// (service-ca-operator pkg/controller/api/api.go and
// pkg/controller/servingcert/controller/secret_updating_controller.go).
const (
	originNameAlpha = "service.alpha.openshift.io/originating-service-name"
	originNameBeta  = "service.beta.openshift.io/originating-service-name"
	originUIDAlpha  = "service.alpha.openshift.io/originating-service-uid"
	originUIDBeta   = "service.beta.openshift.io/originating-service-uid"
)

// The annotations in which the renewing writers note the validity of what they
// issued, and by which they renew, each with the moment that it must not put
// off (service-ca-operator pkg/controller/servingcert/controller/
// secret_updating_controller.go; library-go pkg/operator/certrotation/
// target.go, needNewTargetCertKeyPair). One that is missing or no time makes
// them renew at once.
func validityAnnotations(managedBy string) map[string]func(*x509.Certificate) time.Time {
	notBefore := func(c *x509.Certificate) time.Time { return c.NotBefore }
	notAfter := func(c *x509.Certificate) time.Time { return c.NotAfter }
	switch managedBy {
	case ManagedByServiceCA:
		return map[string]func(*x509.Certificate) time.Time{
			"service.alpha.openshift.io/expiry": notAfter, "service.beta.openshift.io/expiry": notAfter,
		}
	case ManagedByCertRotation:
		return map[string]func(*x509.Certificate) time.Time{
			"auth.openshift.io/certificate-not-before": notBefore, "auth.openshift.io/certificate-not-after": notAfter,
		}
	}
	return nil
}

// maxForeignOwners bounds the findings about them.
const maxForeignOwners = 10

// secretRotation: whoever renews the Secret will go on doing so, and nothing
// makes the garbage collector take it.
//
// service-ca finds a Secret's Service by the annotations above and gives up on
// one that does not fit, without a word (secret_updating_controller.go,
// isSecretValidForService). An immutable Secret nobody can write. Where the
// only owner is an absent object, the garbage collector deletes the Secret
// within a moment, on behalf of whoever wrote the reference; an owner of
// another kind has no business here. All of that was tried against the real
// controllers. library-go's rotation gives the Secret no owner.
func secretRotation(s protectedSecret, _ time.Time) []finding.Finding {
	var findings []finding.Finding
	detached := func(part, message, remedy string) {
		findings = append(findings, finding.Finding{Reason: finding.RotationDetached, Location: s.want.at(part), Message: message, Remedy: remedy})
	}
	if s.stored.Immutable {
		detached("immutable", "an immutable Secret cannot be renewed", "leave immutable unset")
	}
	if s.want.ManagedBy == ManagedByServiceCA && !slices.ContainsFunc(s.stored.Owners, s.renews) {
		detached("metadata",
			"owner reference and originating-service annotations do not name the Service"+quotedAfterSpace(s.want.Service)+" together, so service-ca would stop renewing it",
			"leave ownerReferences and the annotations service.alpha.openshift.io/originating-service-name and -uid as service-ca wrote them")
	}
	foreign := 0
	for _, owner := range s.stored.Owners {
		if s.mayOwn(owner) {
			continue
		}
		if foreign++; foreign > maxForeignOwners {
			break
		}
		name := quoteKind(owner.Kind) + " " + quoteName(owner.Name)
		detached("metadata.ownerReferences "+name+" "+quoteName(owner.UID), name+" as an owner lets the garbage collector take the Secret", "leave the owners as whoever renews it wrote them")
	}
	leaf := s.pair.Leaf()
	for annotation, moment := range validityAnnotations(s.want.ManagedBy) {
		noted, err := time.Parse(time.RFC3339, s.stored.Annotations[annotation])
		if s.want.IgnoreNotes || leaf == nil || err != nil || !noted.After(moment(leaf)) {
			continue
		}
		detached("metadata.annotations "+annotation,
			fmt.Sprintf("the annotation says %s, the certificate %s, so it would be renewed too late", at(noted), at(moment(leaf))),
			"remove the annotation in the same write, or write the certificate's own moment there")
	}
	return findings
}

// quoteKind leaves a kind as it is if it could be one: nobody validates it.
func quoteKind(kind string) string {
	if len(kind) <= 63 && !strings.ContainsFunc(kind, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9')
	}) {
		return kind
	}
	return quoteName(kind)
}

// renews reports whether service-ca, given the annotations, would renew the
// Secret for this owner, and the owner is the Service that it should be.
func (s protectedSecret) renews(owner Owner) bool {
	annotations := s.stored.Annotations
	name := annotations[originNameBeta]
	if name == "" {
		name = annotations[originNameAlpha]
	}
	return isService(owner) && owner.Name == name && owner.UID != "" &&
		(owner.UID == annotations[originUIDBeta] || owner.UID == annotations[originUIDAlpha]) &&
		(s.want.Service == "" || s.want.Service == owner.Name) &&
		(s.want.ServiceUID == "" || s.want.ServiceUID == owner.UID)
}

// mayOwn reports whether the owner is no foreign one: the Service, as far as it
// is known which. Another Service beside it could take its place in a second
// step.
func (s protectedSecret) mayOwn(owner Owner) bool {
	return s.want.ManagedBy == ManagedByServiceCA && isService(owner) &&
		(s.want.Service == "" || s.want.Service == owner.Name) &&
		(s.want.ServiceUID == "" || s.want.ServiceUID == owner.UID)
}

// AttachedTo is the UID of the Service for which service-ca renews the stored
// Secret, empty where it renews it for none (or the Secret is none of its).
func AttachedTo(want SecretExpectation, stored *Secret) string {
	if stored == nil || want.ManagedBy != ManagedByServiceCA {
		return ""
	}
	s := protectedSecret{want: want, stored: stored}
	if i := slices.IndexFunc(stored.Owners, s.renews); i >= 0 {
		return stored.Owners[i].UID
	}
	return ""
}

func isService(owner Owner) bool { return owner.APIVersion == "v1" && owner.Kind == "Service" }

func quotedAfterSpace(name string) string {
	if name == "" {
		return ""
	}
	return " " + strconv.Quote(name)
}
