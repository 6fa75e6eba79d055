// SPDX-License-Identifier: Apache-2.0

package model

import (
	"maps"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// This file is the rule as the documents say it, for states instead of Secrets. It uses no code of the guard.

const (
	collector           = "system:serviceaccount:kube-system:generic-garbage-collector"
	namespaceController = "system:serviceaccount:kube-system:namespace-controller"
)

// attachedTo returns the UID of the Service for which service-ca renews the Secret; empty if it renews it for none.
func (k *Kind) attachedTo(s State) types.UID {
	if !s.Exists || !k.ServiceCA {
		return ""
	}
	a := k.attachments[s.Attachment]
	noted := a.annotations["service.alpha.openshift.io/originating-service-uid"]
	for _, owner := range a.owners {
		if owner.Kind == "Service" && string(owner.UID) == noted {
			return owner.UID
		}
	}
	return ""
}

// problems returns what is wrong with a Secret at a time. service is the UID of the Service that it must be attached
// to; empty if any is right.
func (k *Kind) problems(s State, service types.UID, now time.Time) []Problem {
	if !s.Exists {
		return []Problem{{Reason: finding.SecretMissing, InPolicy: true}}
	}
	var all []Problem
	if s.Type != typeTLS {
		all = append(all, Problem{"type", finding.WrongSecretType, true})
	}
	c := k.contents[s.Content]
	if c.problem != nil {
		all = append(all, *c.problem)
	}
	switch {
	case !c.readable():
	case now.Before(c.notBefore):
		all = append(all, Problem{Key: "tls.crt", Reason: finding.CertificateNotYetValid})
	case now.After(c.notAfter):
		all = append(all, Problem{Key: "tls.crt", Reason: finding.CertificateExpired})
	}
	if s.Immutable == immutable {
		all = append(all, Problem{"immutable", finding.RotationDetached, true})
	}
	if attached := k.attachedTo(s); k.ServiceCA && (attached == "" || service != "" && attached != service) {
		all = append(all, Problem{"metadata", finding.RotationDetached, true})
	}
	if slices.ContainsFunc(k.attachments[s.Attachment].owners, func(owner metav1.OwnerReference) bool {
		return owner.Kind != "Service" || service != "" && owner.UID != service
	}) {
		all = append(all, Problem{"metadata.ownerReferences", finding.RotationDetached, true})
	}
	if k.attachments[s.Attachment].postponed && c.readable() {
		all = append(all, Problem{Key: "metadata.annotations", Reason: finding.RotationDetached})
	}
	return all
}

// introduced returns the problems that a request adds. A Secret must stay with the Service that it is attached to. A
// time in an annotation means nothing beside a certificate that cannot be parsed.
func (k *Kind) introduced(r Request, now time.Time) []Problem {
	service := k.attachedTo(r.Old)
	before := k.problems(r.Old, service, now)
	return slices.DeleteFunc(k.problems(r.New, service, now), func(p Problem) bool {
		return slices.Contains(before, p) ||
			p.Key == "metadata.annotations" && r.Old.Exists && !k.contents[r.Old.Content].readable()
	})
}

// inPolicy returns the problems that CEL can see.
func inPolicy(problems []Problem) []Problem {
	return slices.DeleteFunc(slices.Clone(problems), func(p Problem) bool { return !p.InPolicy })
}

// onlyDetaches reports whether a request only removes owners and finalizers.
func (k *Kind) onlyDetaches(r Request) bool {
	if !r.Old.Exists || !r.New.Exists || k.lifecycleAdds(r) {
		return false
	}
	before, after := k.attachments[r.Old.Attachment], k.attachments[r.New.Attachment]
	same := r.New
	same.Attachment, same.Lifecycle = r.Old.Attachment, r.Old.Lifecycle
	return same == r.Old && maps.Equal(before.annotations, after.annotations) &&
		!slices.ContainsFunc(after.owners, func(owner metav1.OwnerReference) bool {
			return !slices.ContainsFunc(before.owners, func(o metav1.OwnerReference) bool { return o.UID == owner.UID })
		})
}

// lifecycleAdds reports whether a request adds a finalizer.
func (k *Kind) lifecycleAdds(r Request) bool {
	isHeld := func(s State) bool { return s.Lifecycle == held || s.Lifecycle == deleting }
	return isHeld(r.New) && !isHeld(r.Old)
}

// mayDelete reports whether the annotation of the stored Secret allows its delete.
func (k *Kind) mayDelete(s State, now time.Time) bool {
	until := k.allowances[s.Allowance].until
	return until.After(now) && !until.After(now.Add(time.Hour))
}

// policyRefuses is the rule of the policies. They have no clock: any time does.
func (k *Kind) policyRefuses(r Request) bool {
	switch {
	case r.New.Exists:
		return len(inPolicy(k.introduced(r, k.Now))) > 0 && (r.User != collector || !k.onlyDetaches(r))
	case r.User == collector || r.User == namespaceController:
		return false
	}
	return k.allowances[r.Old.Allowance].text == ""
}

// webhookIsCalled is the rule of the registration, while the webhook is active.
func (k *Kind) webhookIsCalled(r Request) bool {
	switch {
	case !r.New.Exists:
		return r.User != collector && r.User != namespaceController
	case r.User == k.Renewer:
		return false
	case r.Old.Exists && r.User == collector:
		return !k.onlyDetaches(r)
	}
	return r.Old != r.New
}

// webhookRefuses is the rule of the webhook, when it is called.
func (k *Kind) webhookRefuses(r Request, now time.Time) bool {
	if !r.New.Exists {
		return !k.mayDelete(r.Old, now)
	}
	return len(k.introduced(r, now)) > 0
}
