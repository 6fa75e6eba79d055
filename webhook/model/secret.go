// SPDX-License-Identifier: Apache-2.0

package model

import (
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// State is the state of a protected Secret: a value of each dimension. Its zero value is a Secret that does not exist.
type State struct {
	Exists bool
	// Each is the index of a value of the dimension with this name.
	Type, Content, Attachment, Immutable, Allowance, Lifecycle uint8
}

// The values of a few dimensions. Those of Content and Attachment differ between the Secrets, and their first value is
// the right one.
const (
	typeTLS, typeOpaque = 0, 1
	mutable, immutable  = 0, 1
	// notHeld has no finalizer, held has one. deleting is held, and was deleted. released is deleting without the
	// finalizer: only a request has it, since an API server removes the Secret at once.
	notHeld, held, deleting, released = 0, 1, 2, 3
)

// Problem is something that is wrong with a Secret. It is Reason and Key.
type Problem struct {
	// Key is the part of the Secret, without the names of owners.
	Key    string
	Reason finding.Reason
	// InPolicy: CEL can see it.
	InPolicy bool
}

// content is a certificate and a key.
type content struct {
	name             string
	certificate, key []byte
	// problem does not depend on the time.
	problem *Problem
	// The validity of a certificate that can be parsed.
	notBefore, notAfter time.Time
}

// readable reports whether the certificate can be parsed.
func (c content) readable() bool { return !c.notAfter.IsZero() }

// attachment has what decides who renews and who may delete the Secret.
type attachment struct {
	name        string
	owners      []metav1.OwnerReference
	annotations map[string]string
	// postponed: an annotation has a later time than the certificate.
	postponed bool
}

// allowance is a value of the annotation that allows a delete.
type allowance struct {
	name, text string
	until      time.Time // zero if text is not a time
}

// Kind is a protected Secret of one kind: who renews it, and the values that its dimensions can have.
type Kind struct {
	World
	Namespace, Name string
	// CA signs its certificates.
	CA *pkitest.CA
	// Renewer is the user that renews it.
	Renewer string
	// ServiceCA: service-ca renews it for a Service, by its owners and annotations.
	ServiceCA   bool
	contents    []content
	attachments []attachment
	allowances  []allowance
}

// World is what the Secrets are in.
type World struct {
	// Now is the first time of a clock that can step.
	Now time.Time
	// ServiceCA signs the certificates of service-ca, Signer those of kubelet clients.
	ServiceCA, Signer *pkitest.CA
	// Service is the UID of the Service that exists.
	Service types.UID
}

// NewWorld returns a world with new CAs.
func NewWorld() World {
	return World{
		Now: pkitest.Now(), ServiceCA: pkitest.NewCA("service-ca"),
		Signer: pkitest.NewCA("kube-apiserver-to-kubelet-signer"), Service: "service-1",
	}
}

// clocks returns the times of the clock.
func (w World) clocks() []time.Time {
	return []time.Time{w.Now, w.Now.Add(2 * time.Hour), w.Now.AddDate(0, 0, 400), w.Now.Add(-48 * time.Hour)}
}

// size returns the number of values of each dimension.
func (k *Kind) size() State {
	return State{
		Type: 2, Content: uint8(len(k.contents)), Attachment: uint8(len(k.attachments)), //nolint:gosec // a few
		Immutable: 2, Allowance: uint8(len(k.allowances)), Lifecycle: 3, //nolint:gosec // a few
	}
}

// states returns all states in which the Secret can be stored.
func (k *Kind) states() []State {
	all, size := []State{{}}, k.size()
	for t := range size.Type {
		for c := range size.Content {
			for a := range size.Attachment {
				for i := range size.Immutable {
					for w := range size.Allowance {
						for l := range size.Lifecycle {
							all = append(all, State{true, t, c, a, i, w, l})
						}
					}
				}
			}
		}
	}
	return all
}

// isDeleting reports whether the Secret was deleted. No update changes that: an API server takes it from the stored
// Secret (k8s.io/apiserver pkg/registry/rest/update.go, BeforeUpdate).
func (s State) isDeleting() bool { return s.Lifecycle >= deleting }

// neighbours returns the states that differ from s in one dimension and that an update can store.
func (k *Kind) neighbours(s State) []State {
	size := k.size()
	var all []State
	vary := func(n uint8, set func(*State, uint8)) {
		for v := range n {
			other := s
			if set(&other, v); other != s {
				all = append(all, other)
			}
		}
	}
	vary(size.Type, func(s *State, v uint8) { s.Type = v })
	vary(size.Content, func(s *State, v uint8) { s.Content = v })
	vary(size.Attachment, func(s *State, v uint8) { s.Attachment = v })
	vary(size.Immutable, func(s *State, v uint8) { s.Immutable = v })
	vary(size.Allowance, func(s *State, v uint8) { s.Allowance = v })
	vary(released+1, func(s *State, v uint8) { s.Lifecycle = v })
	return slices.DeleteFunc(all, func(other State) bool { return other.isDeleting() != s.isDeleting() })
}

// object returns a Secret in a state; nil if it does not exist.
func (k *Kind) object(s State) *corev1.Secret {
	if !s.Exists {
		return nil
	}
	content, attachment := k.contents[s.Content], k.attachments[s.Attachment]
	secret := &corev1.Secret{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: k.Namespace, Name: k.Name, UID: "the-secret",
			Annotations: maps.Clone(attachment.annotations), OwnerReferences: slices.Clone(attachment.owners),
		},
		Type: []corev1.SecretType{corev1.SecretTypeTLS, corev1.SecretTypeOpaque}[s.Type],
		Data: map[string][]byte{"tls.crt": content.certificate, "tls.key": content.key},
	}
	if s.Immutable == immutable {
		secret.Immutable = new(true)
	}
	if text := k.allowances[s.Allowance].text; text != "" {
		metav1.SetMetaDataAnnotation(&secret.ObjectMeta, "kubelet-https-guard.io/allow-delete-until", text)
	}
	if s.Lifecycle == held || s.Lifecycle == deleting {
		secret.Finalizers = []string{"example.com/hold"}
	}
	if s.Lifecycle == deleting || s.Lifecycle == released {
		secret.DeletionTimestamp = new(metav1.NewTime(k.Now.Truncate(time.Second)))
		secret.DeletionGracePeriodSeconds = new(int64(0))
	}
	return secret
}

// describe names a state.
func (k *Kind) describe(s State) string {
	if !s.Exists {
		return "absent"
	}
	words := []string{k.contents[s.Content].name, k.attachments[s.Attachment].name}
	add := func(word string, is bool) {
		if is {
			words = append(words, word)
		}
	}
	add("Opaque", s.Type == typeOpaque)
	add("immutable", s.Immutable == immutable)
	add("allowance "+k.allowances[s.Allowance].name, s.Allowance != 0)
	add([]string{"", "held", "deleting", "released"}[s.Lifecycle], s.Lifecycle != notHeld)
	return strings.Join(words, ", ")
}

const (
	serviceName  = "api"
	otherService = types.UID("another-service") // that does not exist
)

func ownedBy(apiVersion, kind, name string, uid types.UID) metav1.OwnerReference {
	return metav1.OwnerReference{APIVersion: apiVersion, Kind: kind, Name: name, UID: uid}
}

// Kinds returns the kinds of Secrets that are protected by default, with new certificates.
func (w World) Kinds() []*Kind {
	now := w.Now
	allowances := []allowance{
		{name: "none"},
		{"of 30 minutes", now.Add(30 * time.Minute).Format(time.RFC3339), now.Add(30 * time.Minute)},
		{"that is over", now.Add(-time.Minute).Format(time.RFC3339), now.Add(-time.Minute)},
		{"of three days", now.AddDate(0, 0, 3).Format(time.RFC3339), now.AddDate(0, 0, 3)},
		{name: "that is malformed", text: "tomorrow"},
	}
	foreign := ownedBy("v1", "ConfigMap", "other", "config-map")
	later := now.AddDate(10, 0, 0).Format(time.RFC3339)
	service := func(uid types.UID) metav1.OwnerReference { return ownedBy("v1", "Service", serviceName, uid) }
	origin := func(uid types.UID) map[string]string {
		return map[string]string{
			"service.alpha.openshift.io/originating-service-name": serviceName,
			"service.alpha.openshift.io/originating-service-uid":  string(uid),
		}
	}
	postponed := origin(w.Service)
	postponed["service.beta.openshift.io/expiry"] = later
	servingCert := &Kind{
		World: w, Namespace: "openshift-apiserver", Name: "serving-cert", CA: w.ServiceCA, ServiceCA: true,
		Renewer:    "system:serviceaccount:openshift-service-ca:service-ca",
		contents:   w.contents(w.ServiceCA, pkitest.ServingCert(), pkitest.KubeletClient()),
		allowances: allowances,
		attachments: []attachment{
			{name: "attached", owners: []metav1.OwnerReference{service(w.Service)}, annotations: origin(w.Service)},
			{
				name: "attached to another Service", annotations: origin(otherService),
				owners: []metav1.OwnerReference{service(otherService)},
			},
			{name: "without owner", annotations: origin(w.Service)},
			{name: "without annotations", owners: []metav1.OwnerReference{service(w.Service)}},
			{name: "detached"},
			{
				name: "with another owner", annotations: origin(w.Service),
				owners: []metav1.OwnerReference{service(w.Service), foreign},
			},
			{name: "postponed", owners: []metav1.OwnerReference{service(w.Service)}, annotations: postponed, postponed: true},
		},
	}
	kubeletClient := &Kind{
		World: w, Namespace: "openshift-kube-apiserver", Name: "kubelet-client", CA: w.Signer,
		Renewer:    "system:serviceaccount:openshift-kube-apiserver-operator:kube-apiserver-operator",
		contents:   w.contents(w.Signer, pkitest.KubeletClient(), pkitest.ServingCert()),
		allowances: allowances,
		attachments: []attachment{
			{name: "without owner"},
			{name: "with another owner", owners: []metav1.OwnerReference{foreign}},
			{
				name: "postponed", postponed: true,
				annotations: map[string]string{"auth.openshift.io/certificate-not-after": later},
			},
		},
	}
	return []*Kind{servingCert, kubeletClient}
}

// contents returns all kinds of certificates and keys. other requests a certificate for another use.
func (w World) contents(ca *pkitest.CA, right, other pkitest.Request) []content {
	now := w.Now
	pair := func(name string, ca *pkitest.CA, r pkitest.Request, from, until time.Time, problem *Problem) content {
		issued := ca.Issue(r.Valid(from, until))
		return content{name, issued.Certificate, issued.Key, problem, from, until}
	}
	wrong := func(key string, reason finding.Reason) *Problem { return &Problem{Key: key, Reason: reason} }
	empty := func(key string, reason finding.Reason) *Problem {
		return &Problem{Key: key, Reason: reason, InPolicy: true}
	}
	day, year := 24*time.Hour, 365*24*time.Hour
	good := pair("good", ca, right, now.Add(-60*day), now.Add(year), nil)
	renewed := pair("renewed", ca, right, now.Add(-time.Hour), now.Add(2*year), nil)
	with := func(name string, certificate, key []byte, problem *Problem) content {
		return content{name, certificate, key, problem, good.notBefore, good.notAfter}
	}
	unreadable := func(name string, certificate, key []byte, problem *Problem) content {
		return content{name: name, certificate: certificate, key: key, problem: problem}
	}
	all := []content{
		good, renewed,
		pair("ending", ca, right, now.Add(-60*day), now.Add(90*time.Minute), nil),
		pair("expired", ca, right, now.Add(-60*day), now.Add(-day), nil),
		pair("from the future", ca, right, now.Add(6*time.Hour), now.Add(year), nil),
		pair("for another use", ca, other, good.notBefore, good.notAfter, wrong("tls.crt", finding.WrongKeyUsage)),
		pair("of another CA", pkitest.NewCAAround("other", now), right, good.notBefore, good.notAfter,
			wrong("tls.crt", finding.UntrustedIssuer)),
		with("with the key of another", good.certificate, renewed.key, wrong("tls.key", finding.KeyMismatch)),
		with("with garbage as key", good.certificate, []byte("garbage"), wrong("tls.key", finding.KeyUnparsable)),
		with("without key", good.certificate, []byte{}, empty("tls.key", finding.KeyMissing)),
		unreadable("with garbage as certificate", []byte("garbage"), good.key,
			wrong("tls.crt", finding.CertificateUnparsable)),
		unreadable("without certificate", []byte{}, good.key, empty("tls.crt", finding.CertificateMissing)),
	}
	if len(right.DNSNames) > 0 {
		names := right
		names.DNSNames = []string{"example.com"}
		all = append(all, pair("for other names", ca, names, good.notBefore, good.notAfter,
			wrong("tls.crt", finding.DNSNameMissing)))
	}
	return all
}
