// SPDX-License-Identifier: Apache-2.0

package check

import (
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// The annotations by which service-ca recognises its Secrets. It reads alpha and beta: the
// beta name has precedence, and either UID is sufficient (service-ca-operator pkg/controller/api/api.go and
// pkg/controller/servingcert/controller/secret_updating_controller.go).
const (
	originNameAlpha = "service.alpha.openshift.io/originating-service-name"
	originNameBeta  = "service.beta.openshift.io/originating-service-name"
	originUIDAlpha  = "service.alpha.openshift.io/originating-service-uid"
	originUIDBeta   = "service.beta.openshift.io/originating-service-uid"
)

// validityAnnotations returns the annotations in which a renewing controller stores the validity of the certificate.
// The controller renews by them, so none may be later than the certificate's own time, which the function has for each
// (service-ca-operator pkg/controller/servingcert/controller/secret_updating_controller.go; library-go
// pkg/operator/certrotation/target.go, needNewTargetCertKeyPair). If an annotation is missing or is not a time, they
// renew at once.
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

// maxForeignOwners is the largest number of findings about single owners.
const maxForeignOwners = 10

// secretRotation: the renewing controller keeps renewing the Secret, and the garbage collector will not delete it.
//
// service-ca finds a Secret's Service by the annotations above and silently ignores a Secret that does not
// match (secret_updating_controller.go, isSecretValidForService). Nobody can update an immutable Secret. If the
// only owner does not exist, the garbage collector deletes the Secret almost at once, on behalf of the user who
// wrote the reference; so only owners that the platform sets are allowed. All of this was tested with the real
// controllers. library-go's rotation sets no owner. Immutability and foreign owners are violations even if the
// renewing controller is not known.
func secretRotation(s secretFacts, _ time.Time) []finding.Result {
	var results []finding.Result
	detached := func(part, message, remedy string) {
		results = append(results, single(finding.RotationDetached, s.want.at(part), message, remedy)...)
	}
	if family := s.want.Family(); s.want.ManagedBy == "" && family != finding.AddedSecret {
		results = s.want.notConfigured(family, s.want.at("metadata"),
			"managedBy is not configured, so it is not known which controller renews the Secret")
	}
	if s.stored.Immutable {
		detached("immutable", "an immutable Secret cannot be renewed", "leave the field immutable unset")
	}
	if s.want.ManagedBy == ManagedByServiceCA && !slices.ContainsFunc(s.stored.Owners, s.renewedFor) {
		detached("metadata",
			"the owner reference and the originating-service annotations do not name the same Service"+
				expectedService(s.want.Service)+", so service-ca would stop renewing the Secret",
			"keep ownerReferences and the annotations service.alpha.openshift.io/originating-service-name and -uid "+
				"as service-ca wrote them")
	}
	foreign := slices.DeleteFunc(slices.Clone(s.stored.Owners), s.mayOwn)
	for _, owner := range foreign[:min(len(foreign), maxForeignOwners)] {
		name := quoteKind(owner.Kind) + " " + quoteName(owner.Name)
		detached("metadata.ownerReferences "+name+" "+quoteName(owner.UID),
			"owner "+name+" allows the garbage collector to delete the Secret",
			"keep the owners as they were; if the platform sets this owner, add it to owners of the protected Secret")
	}
	if more := foreign[min(len(foreign), maxForeignOwners):]; len(more) > 0 {
		// One finding for the rest. It is a new finding if any of these owners changes.
		detached(fmt.Sprintf("metadata.ownerReferences %x", sha256.Sum256(fmt.Appendf(nil, "%q", more))),
			fmt.Sprintf("further owners (%d) allow the garbage collector to delete the Secret", len(more)),
			"keep the owners as they were")
	}
	leaf := s.pair.Leaf()
	moments := validityAnnotations(s.want.ManagedBy)
	for _, annotation := range slices.Sorted(maps.Keys(moments)) {
		moment := moments[annotation]
		noted, err := time.Parse(time.RFC3339, s.stored.Annotations[annotation])
		if s.want.IgnoreValidityAnnotations || leaf == nil || err != nil || !noted.After(moment(leaf)) {
			continue
		}
		detached("metadata.annotations "+annotation,
			fmt.Sprintf("the time in the annotation is %s, later than the certificate's own, %s, "+
				"so the certificate would be renewed too late", timestamp(noted), timestamp(moment(leaf))),
			"remove the annotation in the same update, or set it to the certificate's own time")
	}
	return results
}

// quoteKind quotes a kind unless it is a possible one: the API server does not validate it.
func quoteKind(kind string) string {
	if len(kind) <= 63 && !strings.ContainsFunc(kind, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9')
	}) {
		return kind
	}
	return quoteName(kind)
}

// renewedFor reports whether service-ca, by the annotations, would renew the Secret for this
// owner, and the owner is the expected Service.
func (s secretFacts) renewedFor(owner Owner) bool {
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

// mayOwn reports whether the owner is allowed: it is configured, or it is the expected Service
// as far as that is known. A second Service could replace the first one in a later update.
func (s secretFacts) mayOwn(owner Owner) bool {
	if s.want.allowed(owner) {
		return true
	}
	return s.want.ManagedBy == ManagedByServiceCA && isService(owner) &&
		(s.want.Service == "" || s.want.Service == owner.Name) &&
		(s.want.ServiceUID == "" || s.want.ServiceUID == owner.UID)
}

// AttachedTo returns the UID of the Service for which service-ca renews the stored Secret. It
// is empty if service-ca does not renew it.
func AttachedTo(want SecretExpectation, stored *Secret) string {
	if stored == nil || want.ManagedBy != ManagedByServiceCA {
		return ""
	}
	s := secretFacts{want: want, stored: stored}
	if i := slices.IndexFunc(stored.Owners, s.renewedFor); i >= 0 {
		return stored.Owners[i].UID
	}
	return ""
}

func isService(owner Owner) bool { return owner.APIVersion == "v1" && owner.Kind == "Service" }

// expectedService names the Service in a message, if it is configured.
func expectedService(name string) string {
	if name == "" {
		return ""
	}
	return " (expected: " + strconv.Quote(name) + ")"
}
