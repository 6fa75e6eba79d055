// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	sigsjson "sigs.k8s.io/json"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/control"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/kubeapiserver"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pki"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/report"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/tracker"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/admit"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/facts"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/follow"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/served"
)

// How long a finding must last before it is reported.
const (
	// storedPatience is for what one stored object shows: service-ca recreates a deleted
	// Secret within 70 ms (measured), an operator may take a second or two.
	storedPatience = 3 * time.Second
	// unreadablePatience is for objects that cannot be read: API servers restart.
	unreadablePatience = time.Minute
	// comparedPatience is for a mismatch of two objects, such as a certificate and the CA
	// bundle that must have signed it. They are neither read nor written at the same
	// moment: after a manual rotation of the service CA, service-ca writes bundles and
	// certificates one after the other, in any order. The same is true for a selected
	// namespace and its Secret: HyperShift deletes first the owner of the Secret, then the
	// namespace.
	comparedPatience = time.Minute
	// kubeletPatience is for the kubelets of Nodes: they restart, and a new one waits for its certificate. In this time
	// they are asked four times (package sweep).
	kubeletPatience = 3*time.Minute + 30*time.Second
	// ServedPatience is the default for what endpoints serve. After a renewal they serve the old certificate for two to
	// three minutes: the kubelet updates a mounted Secret within about two, and openshift-apiserver polls its files each
	// minute. In this time they are asked some ten times (package served).
	ServedPatience = 10 * time.Minute
)

// The indexes of [tracker.Observation] Sources: each has its own patience.
const (
	fromStored = iota
	fromCompared
	fromGuard
	fromErrors
	fromKubelets
	fromServed
	sources
)

// sourceOf returns the source of a result, which determines how long it must last.
func sourceOf(r finding.Result) int {
	switch {
	case r.Requirement.Family() == finding.NodeKubelet:
		return fromKubelets
	case r.Reason == finding.ServedCertificateStale || r.Reason == finding.ServedCertificateInvalid ||
		r.Reason == finding.ServedCertificateUnknown:
		return fromServed
	case r.Reason == finding.Unreadable || r.Reason == finding.NotObserved || r.Reason == finding.PKIConfigUnknown:
		return fromErrors
	case r.Reason == finding.NamespaceNotSelected:
		return fromCompared
	case r.Requirement.Family() == finding.Guard:
		return fromGuard
	case r.Reason == finding.KeyNotAsConfigured:
		return fromCompared
	}
	return fromStored
}

// The ConfigMap in [check.KubeAPIServerNamespace] with the kube-apiserver's configuration on OpenShift, from which the
// operator writes each node's file (cluster-kube-apiserver-operator
// pkg/operator/targetconfigcontroller).
const configName, configKey = "config", "config.yaml"

func secretObject(want check.SecretExpectation) follow.Object {
	return follow.Named(corev1.SchemeGroupVersion, "Secret", want.Namespace, want.Name)
}

// serviceObject returns the Service that service-ca issues the Secret for, if there is one.
func serviceObject(want check.SecretExpectation) (o follow.Object, ok bool) {
	return follow.Named(corev1.SchemeGroupVersion, "Service", want.Namespace, want.Service),
		want.ManagedBy == check.ManagedByServiceCA && want.Service != ""
}

// bundleObject returns the ConfigMap of a CA bundle.
func bundleObject(b admit.CABundle) follow.Object {
	return follow.Named(corev1.SchemeGroupVersion, "ConfigMap", b.Namespace, b.Name)
}

func configObject() follow.Object {
	return follow.Named(corev1.SchemeGroupVersion, "ConfigMap", check.KubeAPIServerNamespace, configName)
}

func operatorObject() follow.Object {
	group := schema.GroupVersion{Group: facts.OperatorGroup, Version: "v1"}
	return follow.Named(group, facts.KubeAPIServerKind, "", facts.KubeAPIServerName)
}

func guardObject(installed *unstructured.Unstructured) follow.Object {
	return follow.Named(installed.GroupVersionKind().GroupVersion(), installed.GetKind(), "", installed.GetName())
}

// infrastructureObject returns the object that says where the control plane runs
// (openshift/api config/v1).
func infrastructureObject() follow.Object {
	at := check.InfrastructureSubject()
	return follow.Named(schema.GroupVersion{Group: check.ConfigGroup, Version: "v1"}, at.Kind, "", at.Name)
}

// namespaceObject returns the namespace of a Secret of the control; ok is false for a
// Secret that the configuration adds.
func namespaceObject(want check.SecretExpectation) (o follow.Object, ok bool) {
	return follow.Named(corev1.SchemeGroupVersion, "Namespace", "", want.Namespace), want.Family() != finding.AddedSecret
}

// objectsOf lists the objects to watch, each once.
func objectsOf(subject Subject) []follow.Object {
	all := []follow.Object{
		infrastructureObject(), operatorObject(), configObject(), pkiDefinitionObject(), pkiObject(),
	}
	has := map[follow.Object]bool{}
	add := func(o follow.Object) {
		if !has[o] {
			has[o] = true
			all = append(all, o)
		}
	}
	for _, want := range subject.Secrets {
		add(secretsObject(want))
		if want.Selector != nil {
			add(selectedNamespaces(want))
		}
		if namespace, ok := namespaceObject(want.SecretExpectation); ok {
			add(namespace)
		}
		if service, ok := serviceObject(want.SecretExpectation); ok {
			add(service)
		}
		if want.Bundle != nil {
			add(bundlesObject(want))
		}
	}
	for _, installed := range subject.Guard {
		add(guardObject(installed))
	}
	return all
}

// controlsOf returns the controls to judge: the guard's only if its manifests are
// known, that of added Secrets only if there are any.
func controlsOf(subject Subject) []control.Control {
	return slices.DeleteFunc(control.Table(), func(c control.Control) bool {
		switch c.ID {
		case control.GuardInForce:
			return len(subject.Guard) == 0
		case control.ProtectedSecrets:
			return !slices.ContainsFunc(subject.Secrets, func(s admit.ProtectedSecret) bool {
				return s.Family() == finding.AddedSecret
			})
		}
		return !slices.ContainsFunc(c.Requirements, func(r control.Required) bool { return r.In(control.Cluster) })
	})
}

// observation collects what one check of all objects finds.
type observation struct {
	tracker.Observation
	states map[follow.Object]follow.State
	// partOf has the objects whose states are parts of a state of several objects, and which.
	partOf map[follow.Object]follow.Object
	// absent has the Secrets that need not exist.
	absent map[follow.Object]absence
	// subject has the Secrets of selected namespaces instead of the entries with a selector.
	subject Subject
	// platform is the result of [check.Platform]: where the control plane runs.
	platform finding.Result
	// targets are the Services whose endpoints must be asked what they serve.
	targets []served.Target
	// before is what the last observation remembers, remembered what this one does.
	before, remembered memory
	// subjects has the observed objects by their subjects; nil until [observation.objectOf] needs them.
	subjects map[finding.Subject]follow.Object
}

// servedAnswers has what the endpoints of Services serve.
type servedAnswers struct {
	of map[served.Target]check.ServedAnswers
	// patience is how long a result must last; grace is as in [check.Served].
	patience, grace time.Duration
}

// observe checks the known states of the objects, the effects of the guard and what endpoints serve (nil if they are
// not asked), and adds the results about the kubelets. It depends on nothing but its arguments.
func observe(
	subject Subject, states map[follow.Object]follow.State, effects []check.Effect, kubelets []finding.Result,
	answers *servedAnswers, now time.Time,
) observation {
	return memory{}.observe(subject, states, effects, kubelets, answers, now)
}

// observe is [observe] with what an observation remembers.
func (m memory) observe(
	subject Subject, states map[follow.Object]follow.State, effects []check.Effect, kubelets []finding.Result,
	answers *servedAnswers, now time.Time,
) observation {
	seen := observation{
		Observation: tracker.Observation{
			At: now, Sources: make([]tracker.Source, sources), Scope: control.Cluster,
			Controls: controlsOf(subject),
		},
		states: maps.Clone(states), partOf: map[follow.Object]follow.Object{}, absent: map[follow.Object]absence{},
		before: m, remembered: newMemory(),
	}
	seen.subject = seen.selected(subject)
	seen.Sources[fromStored].Patience = storedPatience
	seen.Sources[fromCompared].Patience = comparedPatience
	seen.Sources[fromGuard].Patience = subject.GuardPatience
	seen.Sources[fromErrors].Patience = unreadablePatience
	seen.Sources[fromKubelets].Patience = kubeletPatience
	if answers != nil {
		seen.Sources[fromServed].Patience = answers.patience
	}

	seen.checkPlatform(subject)
	for _, entry := range subject.Secrets {
		seen.checkSelection(entry)
	}
	for _, want := range seen.subject.Secrets {
		seen.checkSecret(want, answers)
		seen.checkService(want.SecretExpectation)
	}
	seen.checkOverrides()
	seen.checkConfiguration()
	for _, installed := range subject.Guard {
		seen.checkGuard(installed.Object, guardObject(installed))
	}
	seen.checkActions(subject)
	if len(subject.Guard) > 0 { // otherwise the guard's control is not judged
		for _, effect := range effects {
			seen.add(effect.Check(now))
		}
	}
	seen.add(kubelets, time.Time{})
	seen.addNotChecked()
	seen.Contents = contents(subject, states, effects, kubelets, seen.targets, answers)
	return seen
}

// contents is a digest of all inputs of an observation.
func contents(
	subject Subject, states map[follow.Object]follow.State, effects []check.Effect, kubelets []finding.Result,
	targets []served.Target, answers *servedAnswers,
) (sum [sha256.Size]byte) {
	digest := sha256.New()
	// The expectations belong to it: an upgrade changes them before or after the objects.
	for _, s := range subject.Secrets {
		_, _ = fmt.Fprintf(digest, "%+v %+v %s %q\n", s.SecretExpectation, s.Bundle, selectorText(s), s.Except)
	}
	for _, installed := range subject.Guard {
		_, _ = fmt.Fprintf(digest, "%v\n", installed.Object) // maps are printed in the order of their keys
	}
	for _, o := range objectsOf(subject) {
		s := states[o]
		version := ""
		if s.Live != nil {
			version = string(s.Live.GetUID()) + s.Live.GetResourceVersion()
		}
		// Writing to a hash never fails.
		_, _ = fmt.Fprintln(digest, o, s.Known, s.NoAPI, s.Live != nil, version, s.Err != nil)
		for _, key := range slices.Sorted(maps.Keys(s.All)) {
			_, _ = fmt.Fprintln(digest, key, s.All[key].GetUID(), s.All[key].GetResourceVersion(), s.TooLarge[key])
		}
		for _, key := range slices.Sorted(maps.Keys(s.Others)) {
			_, _ = fmt.Fprintln(digest, key, s.Others[key].GetUID())
		}
	}
	for _, e := range effects {
		_, _ = fmt.Fprintln(digest, e.Server, e.Policy.Refused, e.Policy.WhyUnknown != nil,
			e.Webhook.Refused, e.Webhook.WhyUnknown != nil)
	}
	for _, r := range kubelets {
		_, _ = fmt.Fprintln(digest, r.Requirement, r.Subject, r.Outcome, r.Reason)
	}
	for _, t := range targets {
		answered, known := answers.of[t]
		_, _ = fmt.Fprintln(digest, t, known, answered.WhyUnknown != nil, answered.Omitted)
		for _, e := range answered.Endpoints {
			_, _ = fmt.Fprintf(digest, "%q %q %t\n", e.Name, e.Why, e.Leaf != nil)
			if e.Leaf != nil {
				_, _ = digest.Write(e.Leaf.Raw)
			}
		}
	}
	digest.Sum(sum[:0])
	return sum
}

// add adds the results of a check. nextChange is when they may change without a write; zero if never.
func (seen *observation) add(results []finding.Result, nextChange time.Time) {
	for _, r := range results {
		source := sourceOf(r)
		if r.Reason == finding.SecretMissing && seen.isSelected(r.Subject) {
			source = fromCompared
		}
		seen.Sources[source].Results = append(seen.Sources[source].Results, r)
	}
	if !nextChange.IsZero() && (seen.NextChange.IsZero() || nextChange.Before(seen.NextChange)) {
		seen.NextChange = nextChange
	}
}

// results returns the results of all sources.
func (seen *observation) results() []finding.Result {
	var all []finding.Result
	for _, source := range seen.Sources {
		all = append(all, source.Results...)
	}
	return all
}

// addNotChecked adds a result for each requirement of the judged controls that has none:
// no Secret is configured for it, or no dry runs were made.
func (seen *observation) addNotChecked() {
	answered := map[finding.Requirement]bool{}
	for _, r := range seen.results() {
		answered[r.Requirement] = true
	}
	for _, c := range seen.Controls {
		for _, required := range c.Requirements {
			if required.In(control.Cluster) && !answered[required.Requirement] {
				answered[required.Requirement] = true
				result := finding.Result{
					Requirement: required.Requirement, Subject: finding.Subject{Kind: "Cluster"}, Reason: finding.NotChecked,
					Message: "the configuration does not include it", Remedy: "add the chart's default entry to protectedSecrets",
				}
				switch required.Family() {
				case finding.Guard:
					result.Message, result.Remedy = "no dry runs were made", "run helm test, or webhook prove"
				case finding.NodeKubelet:
					result.Message = "the kubelets of the Nodes were not checked, because --kubelets is not set"
					result.Remedy = "set webhook.kubelets.enabled=true (--kubelets)"
				default:
				}
				seen.add([]finding.Result{result}, time.Time{})
			}
		}
	}
}

// whyUnknown returns why the current state of an object is unknown; nil if it is known.
// The state keeps what was read before an error; see [observation.uncertainIfUnreadable].
func (seen *observation) whyUnknown(o follow.Object) *finding.Result {
	if several, isPart := seen.partOf[o]; isPart && (!seen.states[several].Known || seen.states[several].Err != nil) {
		o = several // one finding for all of them
	}
	switch s := seen.states[o]; {
	case errors.Is(s.Err, follow.ErrTooMany):
		return &finding.Result{
			Subject: o.Subject(), Reason: finding.Unreadable, Message: "cannot read it: " + s.Err.Error(),
			Remedy: "select fewer namespaces (namespaceSelector)",
		}
	case errors.Is(s.Err, follow.ErrTooManyOthers):
		return &finding.Result{
			Subject: o.Subject(), Reason: finding.Unreadable, Message: "cannot read it: " + s.Err.Error(),
			Remedy: "find out who creates them, and delete those in namespaces that are not selected",
		}
	case errors.Is(s.Err, follow.ErrTooLarge):
		return &finding.Result{
			Subject: o.Subject(), Reason: finding.Unreadable, Message: "cannot read it: " + s.Err.Error(),
			Remedy: "find out who wrote it, and remove what does not belong in it",
		}
	case s.Err != nil:
		return &finding.Result{
			Subject: o.Subject(), Reason: finding.Unreadable, Message: "cannot read it: " + readError(s.Err),
			Remedy: "grant the audit's ServiceAccount (or the user of the kubeconfig) permission to list and watch it, " +
				"or check that the API server is available",
		}
	case !s.Known:
		return &finding.Result{
			Subject: o.Subject(), Reason: finding.NotObserved, Message: "not read yet",
			Remedy: "wait a minute; if this persists, check that the API server is available",
		}
	}
	return nil
}

// readError describes an error with a text that is the same at each attempt.
func readError(err error) string {
	if reason := apierrors.ReasonForError(err); reason != "" {
		return "the API server answered " + string(reason)
	}
	return "the API server did not answer"
}

// decode converts the object of a state to its type; nil if the object does not exist.
func decode[T any](s follow.State) (*T, error) {
	if s.Live == nil {
		return nil, nil
	}
	typed := new(T)
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(s.Live.Object, typed); err != nil {
		return nil, err
	}
	return typed, nil
}

// checkPlatform checks whether the objects of the control are in this cluster.
func (seen *observation) checkPlatform(subject Subject) {
	infrastructure := infrastructureObject()
	platform := check.Platform{WhyUnknown: seen.whyUnknown(infrastructure)}
	if s := seen.states[infrastructure]; platform.WhyUnknown == nil {
		platform.NoAPI = s.NoAPI
		if s.Live != nil {
			// A value of another type counts as absent.
			platform.Topology, _, _ = unstructured.NestedString(s.Live.Object, "status", "controlPlaneTopology")
		}
	}
	platform.NoNamespace = true
	for _, want := range subject.Secrets {
		namespace, ok := namespaceObject(want.SecretExpectation)
		if !ok || !platform.NoAPI || platform.WhyUnknown != nil {
			continue // if the API exists, the cluster is OpenShift, whatever its namespaces
		}
		platform.WhyUnknown = seen.whyUnknown(namespace)
		platform.NoNamespace = platform.NoNamespace && seen.states[namespace].Live == nil
	}
	results, next := platform.Check(seen.At)
	seen.platform = results[0]
	seen.add(results, next)
}

// judgeAbsence returns the results about an object that does not exist. If the control
// plane runs elsewhere, or it is unknown where, the object need not exist: then the
// platform's outcome replaces each result.
func (seen *observation) judgeAbsence(results []finding.Result) []finding.Result {
	if seen.platform.Outcome != finding.NotApplicable && seen.platform.Outcome != finding.Unknown {
		return results
	}
	replaced := make([]finding.Result, 0, len(results))
	for _, r := range results {
		requirement, subject := r.Requirement, r.Subject
		r = seen.platform
		r.Requirement = requirement
		if r.Outcome == finding.NotApplicable {
			r.Subject = subject
		}
		replaced = append(replaced, r)
	}
	return replaced
}

// uncertainIfUnreadable returns the results about an object. If it cannot be read at present,
// they rest on an old state, and a pass becomes unknown.
func (seen *observation) uncertainIfUnreadable(o follow.Object, results []finding.Result) []finding.Result {
	if unknown := seen.whyUnknown(o); unknown != nil {
		return check.Uncertain(results, *unknown)
	}
	return results
}

// checkSecret checks a Secret, alone and against the last known Service and CA bundle.
func (seen *observation) checkSecret(subject admit.ProtectedSecret, answers *servedAnswers) {
	ownExpectation := subject.SecretExpectation
	want := ownExpectation
	if subject.Bundle != nil {
		bundle, problem := seen.caBundle(*subject.Bundle)
		want.Roots, want.RootsUnusable, want.RootsProblem = bundle.CAs, bundle.Unusable, problem
	}
	o := secretObject(want)
	s := seen.states[o]
	if service, has := serviceObject(want); has {
		if known := seen.states[service]; known.Live != nil {
			want.ServiceUID = string(known.Live.GetUID())
		}
	}
	absent, mayBeAbsent := seen.absent[o]
	mayBeAbsent = mayBeAbsent && s.Live == nil
	verdict := seen.checkStored(secretKey{Object: o}, want)
	results := verdict.Results
	if unknown := seen.whyUnknown(o); unknown != nil && !s.Known {
		results = check.AllUnknown(results, *unknown) // the Secret was never read
	} else if mayBeAbsent {
		results, verdict.NextChange = check.AllNotApplicable(results, absent.why), absent.until
	}
	if s.Live == nil && s.Known && want.Family() != finding.AddedSecret {
		results = seen.judgeAbsence(results)
	}
	results = seen.uncertainIfUnreadable(o, results)
	byComparison := map[finding.ID]bool{} // failures that only the comparison shows
	if len(finding.Findings(results)) > 0 {
		for _, f := range finding.Introduced(seen.checkStored(secretKey{o, true}, ownExpectation).Results, results) {
			byComparison[f.ID()] = f.Outcome == finding.Fail
		}
	}
	for _, r := range results {
		if byComparison[r.ID()] {
			seen.Sources[fromCompared].Results = append(seen.Sources[fromCompared].Results, r)
			continue
		}
		seen.add([]finding.Result{r}, verdict.NextChange)
	}
	seen.Certificates = append(seen.Certificates, tracker.Certificate{
		Role: want.Namespace + "/" + want.Name, At: o.Subject().Part("tls.crt"), Leaf: verdict.Leaf,
		Valid: verdict.Leaf != nil && len(finding.WithOutcome(verdict.Results, finding.Fail)) == 0,
	})
	seen.checkServed(ownExpectation, verdict.Leaf, results, answers)
	seen.add(check.ConfiguredKey{Secret: ownExpectation, Leaf: verdict.Leaf, PKI: seen.pki()}.Check(results, seen.At))
}

// checkServed checks what the endpoints of a Secret's Service serve. leaf is the stored certificate, results are those
// about the Secret.
func (seen *observation) checkServed(
	want check.SecretExpectation, leaf *x509.Certificate, results []finding.Result, answers *servedAnswers,
) {
	facts := check.Served{Secret: want, Stored: leaf, NotConfigured: answers == nil}
	o, has := serviceObject(want)
	if has && answers != nil {
		facts.Grace = answers.grace
		var port string
		if port, facts.WhyUnknown = seen.servedPort(want, o); facts.WhyUnknown == nil && leaf != nil &&
			want.Family() != finding.KubeletClient {
			target := served.Target{
				Namespace: want.Namespace, Service: want.Service, Port: port, ServerName: want.ServerName(),
				Stored: sha256.Sum256(leaf.Raw),
			}
			seen.targets = append(seen.targets, target)
			if answered, known := answers.of[target]; known {
				facts.Answers = &answered
			}
		}
	}
	checked, next := facts.Check(results, seen.At)
	if has {
		checked = seen.uncertainIfUnreadable(o, checked)
	}
	seen.add(checked, next)
}

// servedPort returns the name of the Service's port that serves the certificate, or why it is not known.
func (seen *observation) servedPort(want check.SecretExpectation, o follow.Object) (string, *finding.Result) {
	if s := seen.states[o]; !s.Known {
		return "", seen.whyUnknown(o)
	}
	unknown := finding.Result{
		Subject: secretObject(want).Subject(), Reason: finding.ServedCertificateUnknown,
		Message: "Service " + want.Service + " does not exist, so nothing serves the stored certificate",
		Remedy:  "check that the operator that owns the Service recreates it",
	}
	// The API server stores no Service that cannot be converted.
	service, _ := decode[corev1.Service](seen.states[o])
	if service == nil {
		return "", &unknown
	}
	port, problem := served.PortName(service.Spec.Ports)
	if problem == "" {
		return port, nil
	}
	unknown.Message = "it is not known which port of Service " + want.Service + " serves the stored certificate: " +
		problem
	unknown.Remedy = "name a Service with the port 443, or with one port (service)"
	return "", &unknown
}

// caBundle returns the certificates of a CA bundle, or why it cannot be used. If it
// cannot, certificates are not verified against it.
func (seen *observation) caBundle(b admit.CABundle) (pki.Bundle, *finding.Result) {
	o := bundleObject(b)
	if unknown := seen.whyUnknown(o); unknown != nil {
		return pki.Bundle{}, unknown
	}
	why := "does not exist"
	if seen.states[o].Live != nil {
		roots, err := seen.parsedBundle(o, b.Key)
		if err == nil {
			return roots, nil
		}
		why = err.Error()
	}
	return pki.Bundle{}, &finding.Result{
		Subject: o.Subject().Part(b.Key), Reason: finding.ClientCAUnavailable,
		Message: "the issuer of the certificates is not verified, because the CA bundle " + why,
		Remedy: "restore it; the operator that rotates the signers writes it " +
			"(on OpenShift the kube-apiserver operator, or service-ca)",
	}
}

// checkService checks whether service-ca can still renew the Secret.
func (seen *observation) checkService(want check.SecretExpectation) {
	service := check.Service{Secret: want}
	o, has := serviceObject(want)
	if !has {
		seen.add(service.Check(seen.At))
		return
	}
	s := seen.states[o]
	if !s.Known {
		service.WhyUnknown = seen.whyUnknown(o)
	}
	if service.Missing = s.Live == nil; !service.Missing {
		service.Annotations = s.Live.GetAnnotations()
	}
	results, next := service.Check(seen.At)
	if service.Missing && s.Known && want.Family() != finding.AddedSecret {
		results = seen.judgeAbsence(results)
	}
	seen.add(seen.uncertainIfUnreadable(o, results), next)
}

// noOperator is why overrides and the cluster's configuration do not apply to a cluster without
// OpenShift's kube-apiserver operator.
const noOperator = "this cluster has no kube-apiserver operator; the node agent reads each node's configuration"

// withoutOperator says what it means that the API server does not serve the KubeAPIServer
// kind of OpenShift's operator. If an OpenShift control plane runs in this cluster, the kind
// was removed, and the object's content is unknown. Otherwise it is not applicable.
func (seen *observation) withoutOperator() (notApplicable string, notKnown *finding.Result) {
	o := operatorObject()
	switch infrastructure := seen.states[infrastructureObject()]; {
	case seen.platform.Outcome == finding.Unknown:
		platform := seen.platform
		return "", &platform
	case seen.platform.Outcome == finding.Pass && infrastructure.Known && !infrastructure.NoAPI:
		return "", &finding.Result{
			Subject: o.Subject(), Reason: finding.Unreadable,
			Message: "cannot read it: the API server does not serve " + facts.OperatorGroup +
				", although the OpenShift control plane runs in this cluster",
			Remedy: "find out why CustomResourceDefinition " + o.Resource.Resource + "." + facts.OperatorGroup + " is missing",
		}
	}
	return noOperator, nil
}

// checkOverrides checks the overrides of the configuration that OpenShift's operator writes.
func (seen *observation) checkOverrides() {
	o := operatorObject()
	s := seen.states[o]
	var object facts.KubeAPIServer
	if s.Live != nil {
		text, err := json.Marshal(s.Live.Object)
		if err != nil || sigsjson.UnmarshalCaseSensitivePreserveInts(text, &object) != nil {
			object = facts.KubeAPIServer{} // cannot happen: the API server validates the fields
		}
	}
	override := facts.Override(object)
	if s.NoAPI {
		override.WhyNotApplicable, override.WhyUnknown = seen.withoutOperator()
	}
	if !s.Known {
		override.WhyUnknown = seen.whyUnknown(o)
	}
	results, next := override.Check(seen.At)
	seen.add(seen.uncertainIfUnreadable(o, results), next)
}

// checkConfiguration checks the configuration that OpenShift's operator writes for all nodes.
func (seen *observation) checkConfiguration() {
	operator, o := operatorObject(), configObject()
	s := seen.states[o]
	configuration := check.Configuration{At: o.Subject().Part(configKey)}
	switch {
	case seen.states[operator].NoAPI:
		configuration.WhyNotApplicable, configuration.WhyUnknown = seen.withoutOperator()
		seen.add(configuration.Check(seen.At))
		return
	case !seen.states[operator].Known:
		configuration.WhyUnknown = seen.whyUnknown(operator)
	case !s.Known:
		configuration.WhyUnknown = seen.whyUnknown(o)
	}
	// The API server stores no ConfigMap that cannot be converted.
	configMap, _ := decode[corev1.ConfigMap](s)
	if configuration.Missing = configMap == nil || configMap.Data[configKey] == ""; !configuration.Missing {
		configuration.Config, configuration.Err = kubeapiserver.ParseConfig([]byte(configMap.Data[configKey]))
	}
	results, next := configuration.Check(seen.At)
	if configMap == nil && s.Known {
		results = seen.judgeAbsence(results)
	}
	seen.add(seen.uncertainIfUnreadable(o, results), next)
}

// checkActions checks whether the guard is configured to refuse, or only to warn or record.
func (seen *observation) checkActions(subject Subject) {
	action := func(at finding.Subject, a admit.Action) {
		seen.add(check.Action{At: at, Refuses: a == "" || a == admit.Deny, Name: string(a)}.Check(seen.At))
	}
	for _, s := range subject.Secrets {
		action(secretObject(s.SecretExpectation).Subject(), s.Action)
	}
	action(operatorObject().Subject(), subject.OverridesAction)
}

func (seen *observation) checkGuard(installed map[string]any, o follow.Object) {
	s := seen.states[o]
	g := check.Guard{At: o.Subject(), Installed: installed}
	if !s.Known {
		g.WhyUnknown = seen.whyUnknown(o)
	}
	if s.Live != nil {
		g.Live = s.Live.Object
	}
	results, next := g.Check(seen.At)
	seen.add(seen.uncertainIfUnreadable(o, results), next)
}

// objectOf returns the API object that a subject is about, with its UID if it is known; ok
// is false if the subject is not an observed object of the API.
func (seen *observation) objectOf(subject finding.Subject) (o report.Object, ok bool) {
	if seen.subjects == nil {
		seen.subjects = make(map[finding.Subject]follow.Object, len(seen.states))
		for followed := range seen.states {
			if !followed.Several() {
				seen.subjects[followed.Subject()] = followed
			}
		}
	}
	followed, ok := seen.subjects[subject.Whole()]
	if !ok {
		return report.Object{}, false
	}
	return seen.states[followed].Reference(followed), true
}
