// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	sigsjson "sigs.k8s.io/json"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/kubeapiserver"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pki"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/report"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/facts"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/follow"
)

// How long a finding must last to be told.
const (
	// settle is for what is stored: service-ca has a deleted Secret back within
	// 70 ms (measured), an operator may take a second or two.
	settle = 3 * time.Second
	// awayPatience is for what cannot be looked at: API servers restart.
	awayPatience = time.Minute
)

// The sources of findings, as look has them.
const (
	fromStored = iota
	fromGuard
	fromErrors
	sources
)

// The kube-apiserver's configuration on OpenShift, from which its operator
// writes that of every node (cluster-kube-apiserver-operator
// pkg/operator/targetconfigcontroller).
const configNamespace, configName, configKey = "openshift-kube-apiserver", "config", "config.yaml"

func secretObject(want check.SecretExpectation) follow.Object {
	return follow.Named(corev1.SchemeGroupVersion, "Secret", want.Namespace, want.Name)
}

// serviceObject is the Service that service-ca issues the Secret for.
func serviceObject(want check.SecretExpectation) (o follow.Object, ok bool) {
	return follow.Named(corev1.SchemeGroupVersion, "Service", want.Namespace, want.Service),
		want.ManagedBy == check.ManagedByServiceCA && want.Service != ""
}

func bundleObject(b Bundle) follow.Object {
	return follow.Named(corev1.SchemeGroupVersion, "ConfigMap", b.Namespace, b.Name)
}

func configObject() follow.Object {
	return follow.Named(corev1.SchemeGroupVersion, "ConfigMap", configNamespace, configName)
}

func operatorObject() follow.Object {
	return follow.Named(schema.GroupVersion{Group: facts.OperatorGroup, Version: "v1"}, facts.KubeAPIServerKind, "", facts.KubeAPIServerName)
}

func guardObject(installed *unstructured.Unstructured) follow.Object {
	return follow.Named(installed.GroupVersionKind().GroupVersion(), installed.GetKind(), "", installed.GetName())
}

// objectsOf lists what must be followed, each once.
func objectsOf(subject Subject) []follow.Object {
	all := []follow.Object{operatorObject(), configObject()}
	for _, want := range subject.Secrets {
		all = append(all, secretObject(want.SecretExpectation))
		if service, ok := serviceObject(want.SecretExpectation); ok && !slices.Contains(all, service) {
			all = append(all, service)
		}
		if want.Bundle != nil && !slices.Contains(all, bundleObject(*want.Bundle)) {
			all = append(all, bundleObject(*want.Bundle))
		}
	}
	for _, installed := range subject.Guard {
		all = append(all, guardObject(installed))
	}
	return all
}

// looking is a look under way.
type looking struct {
	report.Look
	states map[follow.Object]follow.State
	// about says which object each finding is about, and with no reason which
	// one holds the certificate there.
	about map[finding.ID]report.Object
	// asked are the objects that are looked at.
	asked []follow.Object
	// lookedFor are the reasons for which each object could be looked at; none where
	// it could not be.
	lookedFor map[follow.Object][]finding.Reason
}

// look judges what is known of the objects. It is a function of its arguments.
func look(subject Subject, states map[follow.Object]follow.State, now time.Time) looking {
	l := looking{
		Look:   report.Look{At: now, Sources: make([]report.Source, sources)},
		states: states, asked: objectsOf(subject), about: map[finding.ID]report.Object{}, lookedFor: map[follow.Object][]finding.Reason{},
	}
	l.Sources[fromStored].Patience = settle
	l.Sources[fromGuard].Patience = subject.GuardPatience
	l.Sources[fromErrors].Patience = awayPatience
	digest := sha256.New()
	for _, o := range l.asked {
		s := states[o]
		version := ""
		if s.Live != nil {
			version = string(s.Live.GetUID()) + s.Live.GetResourceVersion()
		}
		_, _ = fmt.Fprintln(digest, o.At(), s.Known, s.NoAPI, s.Live != nil, version, s.Err != nil) // a hash takes everything
	}
	digest.Sum(l.Contents[:0])

	for _, want := range subject.Secrets {
		if want.Bundle != nil {
			want.Roots = l.bundle(*want.Bundle)
		}
		l.secret(want.SecretExpectation)
		l.service(want.SecretExpectation)
	}
	l.operator()
	for _, installed := range subject.Guard {
		l.guard(installed.Object, guardObject(installed))
	}
	l.LookedFor = l.looks
	return l
}

// everywhere are the reasons that were looked for in all objects of a role:
// nobody is to take for checked what is not there to be looked at, or what could
// not be.
func (l *looking) everywhere() []finding.Reason {
	ofRoles := map[string][]finding.Reason{}
	for o, reasons := range l.lookedFor {
		if others, known := ofRoles[role(o)]; known {
			reasons = slices.DeleteFunc(slices.Clone(reasons), func(r finding.Reason) bool { return !slices.Contains(others, r) })
		}
		ofRoles[role(o)] = reasons
	}
	// A stale mount is of files, and a ConfigMap's configuration is checked as one's is.
	all := slices.Concat(slices.Collect(maps.Values(ofRoles))...)
	return append(slices.DeleteFunc(all, func(r finding.Reason) bool { return r == finding.StaleMount }), finding.Unreadable)
}

// looks says whether a finding was looked for in the object that it is of. In one
// that is not there, or that nobody asks for any more, there is none.
func (l *looking) looks(id finding.ID) bool {
	for _, o := range l.asked {
		if id.Location == o.At() || strings.HasPrefix(string(id.Location), string(o.At())+" ") {
			s := l.states[o]
			return s.Known && s.Live == nil || slices.Contains(l.lookedFor[o], id.Reason)
		}
	}
	return true
}

// of is what is known of an object; ok is false where nothing is yet. Where it
// cannot be looked at any more, that is noted, and what was known still stands:
// nobody knows better.
func (l *looking) of(o follow.Object) (s follow.State, ok bool) {
	s = l.states[o]
	if s.Err != nil {
		l.found(fromErrors, o, finding.Finding{
			Reason: finding.Unreadable, Location: o.At(),
			Message: "it cannot be looked at: " + whyNot(s.Err), Remedy: "give who looks (the webhook's ServiceAccount, or the user of the kubeconfig) the right to list it, or see to the API server",
		})
	}
	if !s.Known && s.Err == nil {
		l.Waiting = true
	}
	return s, s.Known
}

// whyNot is an error in words that do not change from one attempt to the next.
func whyNot(err error) string {
	if reason := apierrors.ReasonForError(err); reason != "" {
		return "the API server says " + string(reason)
	}
	return "the API server does not answer"
}

func (l *looking) found(source int, o follow.Object, findings ...finding.Finding) {
	l.Sources[source].Findings = append(l.Sources[source].Findings, findings...)
	for _, f := range findings {
		l.about[f.ID()] = l.states[o].Reference(o)
	}
}

// decode converts what was decoded from JSON.
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

func (l *looking) secret(want check.SecretExpectation) {
	o := secretObject(want)
	s, ok := l.of(o)
	if !ok {
		l.lookedFor[o] = nil
		return
	}
	if service, has := serviceObject(want); has {
		if known := l.states[service]; known.Live != nil {
			want.ServiceUID = string(known.Live.GetUID())
		}
	}
	secret, err := decode[facts.Secret](s)
	if err != nil {
		l.lookedFor[o] = nil
		return // the API server stores no such Secret
	}
	verdict := check.JudgeSecret(want, secret.Facts(), l.At)
	l.found(fromStored, o, verdict.Findings...)
	l.lookedFor[o] = verdict.LookedFor()
	if until := verdict.Until; !until.IsZero() && (l.Next.IsZero() || until.Before(l.Next)) {
		l.Next = until
	}
	certificate := report.Certificate{
		Role: want.Namespace + "/" + want.Name, At: o.At() + " tls.crt", Leaf: verdict.Leaf,
		Sound: verdict.Leaf != nil && len(finding.OfSeverity(verdict.Findings, finding.Violation)) == 0,
	}
	l.Certificates = append(l.Certificates, certificate)
	l.about[finding.ID{Location: certificate.At}] = s.Reference(o)
}

// bundle is what is in a CA bundle; nil where that is not known, and then no
// certificate is held against it. Two Secrets may share one, and what is found
// twice is one finding.
func (l *looking) bundle(b Bundle) []*x509.Certificate {
	o := bundleObject(b)
	s, ok := l.of(o)
	if !ok {
		l.lookedFor[o] = nil
		return nil
	}
	judged := check.Bundle{At: finding.Location(string(o.At()) + " " + b.Key)}
	var roots []*x509.Certificate
	configMap, err := decode[corev1.ConfigMap](s)
	if judged.Missing = err != nil || configMap == nil; !judged.Missing {
		roots, judged.Err = pki.ParseBundle([]byte(configMap.Data[b.Key]))
	}
	l.found(fromStored, o, check.BundleFindings(judged, l.At)...)
	l.lookedFor[o] = judged.LookedFor()
	return roots
}

// service: whether service-ca can still renew.
func (l *looking) service(want check.SecretExpectation) {
	o, has := serviceObject(want)
	if !has {
		return
	}
	s, ok := l.of(o)
	switch {
	case !ok:
		l.lookedFor[o] = nil
		return
	case s.Live == nil:
		return // without it the garbage collector takes the Secret, which is told
	}
	service := check.Service{Namespace: o.Namespace, Name: o.Name, Annotations: s.Live.GetAnnotations()}
	l.found(fromStored, o, check.ServiceFindings(service, l.At)...)
	l.lookedFor[o] = service.LookedFor()
}

// operator: the configuration that OpenShift's operator writes, and what people
// lay over it. Where there is no such operator, both are somebody else's
// business: the node agent's.
func (l *looking) operator() {
	o := operatorObject()
	s, ok := l.of(o)
	if !ok || s.NoAPI {
		return
	}
	var operator facts.KubeAPIServer
	if s.Live != nil {
		text, err := json.Marshal(s.Live.Object)
		if err != nil || sigsjson.UnmarshalCaseSensitivePreserveInts(text, &operator) != nil {
			operator = facts.KubeAPIServer{} // the API server stores no such object
		}
	}
	override := facts.Override(operator)
	l.found(fromStored, o, check.OverrideFindings(override, l.At)...)
	l.lookedFor[o] = override.LookedFor()
	o = configObject()
	if s, ok = l.of(o); !ok {
		return
	}
	configuration := check.Configuration{At: o.At() + " " + configKey}
	configMap, err := decode[corev1.ConfigMap](s)
	if configuration.Missing = err != nil || configMap == nil || configMap.Data[configKey] == ""; !configuration.Missing {
		configuration.Config, configuration.Err = kubeapiserver.ParseConfig([]byte(configMap.Data[configKey]))
	}
	l.found(fromStored, o, check.ConfigurationFindings(configuration, l.At)...)
	l.lookedFor[o] = configuration.LookedFor()
}

func (l *looking) guard(installed map[string]any, o follow.Object) {
	s, ok := l.of(o)
	if !ok {
		l.lookedFor[o] = nil
		return
	}
	g := check.Guard{At: o.At(), Installed: installed}
	if s.Live != nil {
		g.Live = s.Live.Object
	}
	l.found(fromGuard, o, check.GuardFindings(g, l.At)...)
	l.lookedFor[o] = g.LookedFor()
}
