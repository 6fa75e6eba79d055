// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/kubeapiserver"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/report"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/facts"
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

func secretObject(want check.SecretExpectation) object {
	return object{schema.GroupVersionResource{Version: "v1", Resource: "secrets"}, "Secret", want.Namespace, want.Name}
}

// serviceObject is the Service that service-ca issues the Secret for.
func serviceObject(want check.SecretExpectation) (o object, ok bool) {
	return object{schema.GroupVersionResource{Version: "v1", Resource: "services"}, "Service", want.Namespace, want.Service},
		want.ManagedBy == check.ManagedByServiceCA && want.Service != ""
}

func configObject() object {
	return object{schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}, "ConfigMap", configNamespace, configName}
}

func operatorObject() object {
	return object{schema.GroupVersionResource{Group: facts.OperatorGroup, Version: "v1", Resource: "kubeapiservers"}, facts.KubeAPIServerKind, "", facts.KubeAPIServerName}
}

// guardObject: the resource of an admission configuration is its kind's plural,
// without exception.
func guardObject(apiVersion, kind, name string) object {
	version, _ := schema.ParseGroupVersion(apiVersion) // was decoded as an object
	plural := strings.ToLower(kind) + "s"
	if strings.HasSuffix(kind, "Policy") {
		plural = strings.ToLower(strings.TrimSuffix(kind, "y")) + "ies"
	}
	return object{version.WithResource(plural), kind, "", name}
}

// objectsOf lists what must be followed, each once.
func objectsOf(subject Subject) []object {
	all := []object{operatorObject(), configObject()}
	for _, want := range subject.Secrets {
		all = append(all, secretObject(want))
		if service, ok := serviceObject(want); ok && !slices.Contains(all, service) {
			all = append(all, service)
		}
	}
	for _, installed := range subject.Guard {
		all = append(all, guardObject(installed.GetAPIVersion(), installed.GetKind(), installed.GetName()))
	}
	return all
}

// looking is a look under way.
type looking struct {
	report.Look
	states map[object]state
	// about says which object each finding is about, and with no reason which
	// one holds the certificate there.
	about map[finding.ID]report.Object
}

// look judges what is known of the objects. It is a function of its arguments.
func look(subject Subject, states map[object]state, now time.Time) (report.Look, map[finding.ID]report.Object) {
	l := looking{
		Look:   report.Look{At: now, Sources: make([]report.Source, sources)},
		states: states, about: map[finding.ID]report.Object{},
	}
	l.Sources[fromStored].Patience = settle
	l.Sources[fromGuard].Patience = subject.GuardPatience
	l.Sources[fromErrors].Patience = awayPatience
	digest := sha256.New()
	for _, o := range objectsOf(subject) {
		s := states[o]
		version := ""
		if s.live != nil {
			version = string(s.live.GetUID()) + s.live.GetResourceVersion()
		}
		_, _ = fmt.Fprintln(digest, o.at(), s.known, s.noAPI, s.live != nil, version, s.err != nil) // a hash takes everything
	}
	digest.Sum(l.Contents[:0])

	for _, want := range subject.Secrets {
		l.secret(want)
	}
	l.services(subject.Secrets)
	l.operator()
	for _, installed := range subject.Guard {
		l.guard(installed.Object, guardObject(installed.GetAPIVersion(), installed.GetKind(), installed.GetName()))
	}
	return l.Look, l.about
}

// of is what is known of an object. Where it cannot be looked at, or not yet,
// that is noted, and ok is false.
func (l *looking) of(o object) (s state, ok bool) {
	s = l.states[o]
	if s.err != nil {
		l.found(fromErrors, o, finding.Finding{
			Reason: finding.Unreadable, Location: o.at(),
			Message: "it cannot be looked at: " + whyNot(s.err), Remedy: "give the webhook's ServiceAccount the rights of its chart, or see to the API server",
		})
	}
	if !s.known && s.err == nil {
		l.Waiting = true
	}
	return s, s.known && s.err == nil
}

// whyNot is an error in words that do not change from one attempt to the next.
func whyNot(err error) string {
	if reason := apierrors.ReasonForError(err); reason != "" {
		return "the API server says " + string(reason)
	}
	return "the API server does not answer"
}

func (l *looking) found(source int, o object, findings ...finding.Finding) {
	l.Sources[source].Findings = append(l.Sources[source].Findings, findings...)
	for _, f := range findings {
		l.about[f.ID()] = l.states[o].reference(o)
	}
}

// decode converts what was decoded from JSON.
func decode[T any](s state) (*T, error) {
	if s.live == nil {
		return nil, nil
	}
	typed := new(T)
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(s.live.Object, typed); err != nil {
		return nil, err
	}
	return typed, nil
}

func (l *looking) secret(want check.SecretExpectation) {
	o := secretObject(want)
	s, ok := l.of(o)
	if !ok {
		return
	}
	if service, has := serviceObject(want); has {
		if known := l.states[service]; known.live != nil {
			want.ServiceUID = string(known.live.GetUID())
		}
	}
	secret, err := decode[corev1.Secret](s)
	if err != nil {
		return // the API server stores no such Secret
	}
	stored := facts.Secret(secret)
	findings := check.SecretFindings(want, stored, l.At)
	l.found(fromStored, o, findings...)
	certificate := report.Certificate{Role: want.Namespace + "/" + want.Name, At: o.at() + " tls.crt"}
	if stored != nil {
		pair := check.SecretPair(want, stored)
		certificate.Leaf = pair.Leaf()
		certificate.Sound = pair.Leaf() != nil && len(finding.OfSeverity(findings, finding.Violation)) == 0
		if next, ok := pair.NextChange(l.At); ok && (l.Next.IsZero() || next.Before(l.Next)) {
			l.Next = next
		}
	}
	l.Certificates = append(l.Certificates, certificate)
	l.about[finding.ID{Location: certificate.At}] = s.reference(o)
}

// services: whether service-ca can still renew.
func (l *looking) services(wants []check.SecretExpectation) {
	seen := map[object]bool{}
	for _, want := range wants {
		o, has := serviceObject(want)
		if !has || seen[o] {
			continue
		}
		seen[o] = true
		s, ok := l.of(o)
		if !ok || s.live == nil {
			continue // without it the garbage collector takes the Secret, which is told
		}
		l.found(fromStored, o, check.ServiceFindings(check.Service{
			Namespace: o.namespace, Name: o.name, Annotations: s.live.GetAnnotations(),
		}, l.At)...)
	}
}

// operator: the configuration that OpenShift's operator writes, and what people
// lay over it. Where there is no such operator, both are somebody else's
// business: the node agent's.
func (l *looking) operator() {
	o := operatorObject()
	s, ok := l.of(o)
	if !ok || s.noAPI {
		return
	}
	if s.live != nil {
		text, err := json.Marshal(s.live.Object)
		var operator facts.KubeAPIServer
		if err == nil && json.Unmarshal(text, &operator) == nil {
			l.found(fromStored, o, check.OverrideFindings(facts.Override(operator), l.At)...)
		}
	}
	o = configObject()
	if s, ok = l.of(o); !ok {
		return
	}
	configuration := check.Configuration{At: o.at() + " " + configKey}
	configMap, err := decode[corev1.ConfigMap](s)
	if configuration.Missing = err != nil || configMap == nil || configMap.Data[configKey] == ""; !configuration.Missing {
		configuration.Config, configuration.Err = kubeapiserver.ParseConfig([]byte(configMap.Data[configKey]))
	}
	l.found(fromStored, o, check.ConfigurationFindings(configuration, l.At)...)
}

func (l *looking) guard(installed map[string]any, o object) {
	s, ok := l.of(o)
	if !ok {
		return
	}
	g := check.Guard{At: o.at(), Installed: installed}
	if s.live != nil {
		g.Live = s.live.Object
	}
	l.found(fromGuard, o, check.GuardFindings(g, l.At)...)
}
