// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/admit"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/follow"
)

// newNamespaceGrace is how long a selected namespace may exist without its Secret: HyperShift makes the namespace
// first, then starts the operator that writes the Secret, and its image has to be pulled.
const newNamespaceGrace = 15 * time.Minute

// clockSkew is how far the clocks of the API server and the audit may differ. A namespace created later than that, seen
// from the audit, has no [newNamespaceGrace].
const clockSkew = time.Minute

// selectedNamespaces returns the namespaces that an entry selects.
func selectedNamespaces(p admit.ProtectedSecret) follow.Object {
	o := follow.Named(corev1.SchemeGroupVersion, "Namespace", "", "")
	o.Selector = selectorText(p)
	return o
}

// selectorText returns the label selector of an entry, empty if it names its namespace.
func selectorText(p admit.ProtectedSecret) string {
	if p.Selector == nil {
		return ""
	}
	return metav1.FormatLabelSelector(p.Selector)
}

// secretsObject returns the Secret of an entry, or the Secrets of its name in all namespaces.
func secretsObject(p admit.ProtectedSecret) follow.Object {
	if p.Selector == nil {
		return secretObject(p.SecretExpectation)
	}
	return secretObject(p.SecretExpectation).InAllNamespaces(selectorText(p))
}

// bundlesObject returns the ConfigMap of an entry's CA bundle, or those of its name in all namespaces.
func bundlesObject(p admit.ProtectedSecret) follow.Object {
	if p.Bundle.Namespace == "" {
		return bundleObject(*p.Bundle).InAllNamespaces(selectorText(p))
	}
	return bundleObject(*p.Bundle)
}

// selected replaces each entry with a selector by the Secrets of the namespaces that it selects, and adds their states.
func (seen *observation) selected(subject Subject) Subject {
	var secrets []admit.ProtectedSecret
	for _, p := range subject.Secrets {
		if p.Selector == nil {
			secrets = append(secrets, p)
			continue
		}
		for _, namespace := range slices.Sorted(maps.Keys(seen.states[selectedNamespaces(p)].All)) {
			if !slices.Contains(p.Except, namespace) {
				secrets = append(secrets, seen.selectedIn(p, namespace))
			}
		}
	}
	subject.Secrets = secrets
	return subject
}

// selectedIn returns the Secret of an entry in a namespace that it selects, and adds the states of the Secret and of
// its CA bundle.
func (seen *observation) selectedIn(p admit.ProtectedSecret, namespace string) admit.ProtectedSecret {
	own := p.In(namespace)
	o := secretObject(own.SecretExpectation)
	seen.addPart(o, secretsObject(p), namespace)
	if p.Bundle != nil && p.Bundle.Namespace == "" {
		seen.addPart(bundleObject(*own.Bundle), bundlesObject(p), namespace)
	}
	live := seen.states[selectedNamespaces(p)].All[namespace]
	created := live.GetCreationTimestamp()
	until := created.Add(newNamespaceGrace)
	switch {
	case live.GetDeletionTimestamp() != nil:
		// What still exists is judged: a finalizer can keep the namespace and a Secret forever. The namespace
		// controller deletes Secret and CA bundle in any order.
		seen.absent[o] = absence{why: "its namespace is being deleted"}
		if own.Bundle != nil && p.Bundle.Namespace == "" && seen.states[bundleObject(*own.Bundle)].Live == nil {
			own.Bundle = nil
		}
	case created.After(seen.At.Add(clockSkew)): // it would lengthen the grace
	case seen.At.Before(until):
		seen.absent[o] = absence{why: "its namespace was created less than 15 minutes ago", until: until}
	}
	return own
}

// addPart adds the state of one of several objects.
func (seen *observation) addPart(o, of follow.Object, namespace string) {
	s := seen.states[of]
	part := follow.State{Known: s.Known, Live: s.All[namespace], Err: s.Err}
	switch {
	case s.TooLarge[namespace]:
		part.Known, part.Err = false, follow.ErrTooLarge
	case s.Others[namespace] != nil: // its namespace was selected just now, or is not
		part.Known, part.Live = false, s.Others[namespace]
	}
	seen.states[o], seen.partOf[o] = part, of
}

// isSelected reports whether a subject is a Secret in a selected namespace.
func (seen *observation) isSelected(at finding.Subject) bool {
	_, is := seen.partOf[follow.Named(corev1.SchemeGroupVersion, at.Kind, at.Namespace, at.Name)]
	return is
}

// absence says why a Secret need not exist, and until when; a zero time means forever.
type absence struct {
	why   string
	until time.Time
}

// checkSelection checks which namespaces an entry selects. If none is known, it answers all requirements of the Secret.
func (seen *observation) checkSelection(p admit.ProtectedSecret) {
	selection := check.Selection{Name: p.Name, Selector: selectorText(p)}
	if p.Selector == nil {
		if p.Family() == finding.AddedSecret {
			seen.add(selection.Check(seen.At))
		}
		return
	}
	namespaces, secrets := selectedNamespaces(p), secretsObject(p)
	isOther := func(namespace string) bool { return slices.Contains(p.Except, namespace) }
	selected := slices.DeleteFunc(slices.Collect(maps.Keys(seen.states[namespaces].All)), isOther)
	switch {
	case !seen.states[namespaces].Known:
		selection.WhyUnknown = seen.whyUnknown(namespaces)
		seen.add(check.AllUnknown(unanswered(p, seen.At), *selection.WhyUnknown), time.Time{})
	case len(selected) == 0:
		seen.add(seen.uncertainIfUnreadable(namespaces, check.AllNotApplicable(unanswered(p, seen.At),
			"no namespace matches "+selection.Selector)), time.Time{})
	}
	if selection.WhyUnknown == nil && !seen.states[secrets].Known {
		selection.WhyUnknown = seen.whyUnknown(secrets)
	}
	if selection.WhyUnknown == nil {
		// One that was selected until now has its content for a moment.
		for _, namespace := range slices.Concat(slices.Collect(maps.Keys(seen.states[secrets].All)),
			slices.Collect(maps.Keys(seen.states[secrets].Others))) {
			if seen.states[namespaces].All[namespace] == nil && !isOther(namespace) {
				selection.NotSelected = append(selection.NotSelected, namespace)
				seen.addPart(secretObject(p.In(namespace).SecretExpectation), secrets, namespace) // for the Event
			}
		}
		slices.SortFunc(selection.NotSelected, strings.Compare)
	}
	results, next := selection.Check(seen.At)
	seen.add(seen.uncertainIfUnreadable(secrets, seen.uncertainIfUnreadable(namespaces, results)), next)
}

// unanswered returns a result for each requirement of a Secret.
func unanswered(p admit.ProtectedSecret, now time.Time) []finding.Result {
	results := check.CheckSecret(p.SecretExpectation, nil, now).Results
	service, _ := check.Service{Secret: p.SecretExpectation}.Check(now)
	served, _ := check.Served{Secret: p.SecretExpectation, NotConfigured: true}.Check(results, now)
	key, _ := check.ConfiguredKey{Secret: p.SecretExpectation, PKI: check.PKI{Missing: true}}.Check(results, now)
	return slices.Concat(results, service, served, key)
}
