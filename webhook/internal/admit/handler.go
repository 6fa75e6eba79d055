// SPDX-License-Identifier: Apache-2.0

package admit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kuberuntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/control"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/report"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/facts"
)

// ProtectedSecret is a Secret as it is configured, for admission and audit: one Secret, or the Secrets of a name in all
// namespaces that a selector matches.
type ProtectedSecret struct {
	// SecretExpectation has no Roots until those of Bundle are read. Its Namespace is empty if
	// Selector is set.
	check.SecretExpectation
	// Selector selects the namespaces by their labels; nil for one Secret.
	Selector *metav1.LabelSelector
	// Except are namespaces that a Selector leaves out: another entry protects the Secret of
	// the name there.
	Except []string
	// Bundle has the CAs, one of which must have signed the certificate. It is nil if no
	// bundle is configured. With a Selector, its Namespace may be empty: it is in the
	// namespace of each Secret.
	Bundle *CABundle
	// Action defaults to [Deny].
	Action Action
	// Decoy: the audit sends dry runs on it to see whether updates are refused. Creates and
	// deletes of it are allowed, for install and uninstall. Its refusals are not reported
	// and not counted.
	Decoy bool
}

// In returns the Secret of a namespace that the Selector matches.
func (p ProtectedSecret) In(namespace string) ProtectedSecret {
	p.Namespace, p.Selector, p.Except = namespace, nil, nil
	if p.Bundle != nil && p.Bundle.Namespace == "" {
		bundle := *p.Bundle
		bundle.Namespace = namespace
		p.Bundle = &bundle
	}
	return p
}

// Index finds protected Secrets. [NewIndex] makes one.
type Index struct {
	named    map[types.NamespacedName]ProtectedSecret
	selected map[string]ProtectedSecret // those with a Selector, by name
}

// NewIndex makes an index of all protected Secrets.
func NewIndex(all []ProtectedSecret) Index {
	index := Index{map[types.NamespacedName]ProtectedSecret{}, map[string]ProtectedSecret{}}
	for _, p := range all {
		if p.Selector != nil {
			index.selected[p.Name] = p
		} else {
			index.named[types.NamespacedName{Namespace: p.Namespace, Name: p.Name}] = p
		}
	}
	return index
}

// Find returns the protected Secret of a namespace and name; ok is false if it is not protected. An entry with the
// namespace has precedence over one with a selector. Whether a selector matches the namespace is not checked: API
// servers send only such requests, and an AdmissionReview does not contain the labels.
func (i Index) Find(namespace, name string) (p ProtectedSecret, ok bool) {
	if p, ok = i.named[types.NamespacedName{Namespace: namespace, Name: name}]; ok {
		return p, true
	}
	if p, ok = i.selected[name]; ok {
		return p.In(namespace), true
	}
	return p, false
}

// CABundle is a CA bundle under a key of a ConfigMap. It is comparable.
type CABundle struct {
	Namespace string `yaml:"namespace,omitempty"`
	Name      string `yaml:"name"`
	Key       string `yaml:"key"`
}

// Meter counts the requests.
type Meter interface {
	// CountRequest counts one request that was answered. operation is in upper case, or "other"
	// if the API has no such operation. decision is that of the audit annotations, or
	// "error" or "panic". reason is the worst one that the request introduces; empty if it
	// introduces none.
	CountRequest(operation, decision, reason string, took time.Duration)
}

// Handler answers AdmissionReviews on Secrets and on KubeAPIServers. It
// implements [admission.Handler].
type Handler struct {
	// Protected returns the protected Secret of a namespace and name, with its CAs of now. All others are allowed.
	Protected func(namespace, name string) (ProtectedSecret, bool)
	// OverridesAction is the action for overrides of the kube-apiserver's configuration.
	OverridesAction func() Action
	// Reporter gets refusals and uses of the break-glass.
	Reporter report.Reporter
	Meter    Meter
	Log      *slog.Logger
	Now      func() time.Time
}

// objectDecision is a decision on an object.
type objectDecision struct {
	object   report.Object
	decision Decision
	decoy    bool
}

// errPanic is the answer after a panic. It does not have the panic's value, which can contain
// parts of a Secret.
var errPanic = errors.New("the webhook failed on this request (panic): see its log")

// Handle decides on one request. A request that it does not know is refused with code 400,
// one that makes it panic with 500. The failurePolicy does not change that: it applies when a
// webhook does not answer.
func (h *Handler) Handle(ctx context.Context, request admission.Request) (response admission.Response) {
	now := h.Now()
	label, reason := "error", finding.Reason("")
	var v objectDecision
	defer func() {
		if value := recover(); value != nil {
			label, response = "panic", admission.Errored(http.StatusInternalServerError, errPanic)
			h.logPanic(ctx, value)
		}
		if v.decoy {
			return
		}
		h.Meter.CountRequest(operation(request.Operation), label, string(reason), h.Now().Sub(now))
	}()
	var err error
	v, err = h.decide(request, now)
	if err != nil {
		return admission.Errored(http.StatusBadRequest, err)
	}
	if introduced := v.decision.Introduced; len(introduced) > 0 {
		reason = introduced[0].Reason
	}
	if !v.decoy {
		h.report(ctx, request, v, now)
	}
	label, response = v.decision.label(), respond(v.decision)
	return response
}

// logPanic logs the stack. Of the value it logs the type, or the message of a runtime error: no data.
func (h *Handler) logPanic(ctx context.Context, value any) {
	what := fmt.Sprintf("%T", value)
	if err, ok := value.(runtime.Error); ok {
		what = err.Error()
	}
	h.Log.ErrorContext(ctx, "Panic while deciding on a request", "panic", what, "stack", string(debug.Stack()))
}

// operation bounds the values of a label.
func operation(o admissionv1.Operation) string {
	switch o {
	case admissionv1.Create, admissionv1.Update, admissionv1.Delete, admissionv1.Connect:
		return string(o)
	}
	return "other"
}

func (h *Handler) decide(request admission.Request, now time.Time) (objectDecision, error) {
	if request.SubResource != "" {
		return objectDecision{}, fmt.Errorf("subresource %s is not supported", quote(request.SubResource))
	}
	if request.Operation == admissionv1.Update && len(request.Object.Raw) > 0 &&
		bytes.Equal(request.Object.Raw, request.OldObject.Raw) {
		return objectDecision{decision: Decision{Allowed: true}}, nil // nothing changes
	}
	switch kind := request.Kind; {
	case kind.Group == "" && kind.Version == "v1" && kind.Kind == "Secret":
		return h.secret(request, now)
	case kind.Group == facts.OperatorGroup && kind.Kind == facts.KubeAPIServerKind:
		return h.overrides(request, now)
	default:
		return objectDecision{}, fmt.Errorf(
			"kind %s of %s is not supported: the webhook decides on Secrets and KubeAPIServers",
			quote(kind.Kind), quote(schema.GroupVersion{Group: kind.Group, Version: kind.Version}.String()))
	}
}

// secret decides on a change of a Secret. The name comes from the object or the old object,
// not from the request: in the delete of a collection request.name is empty (k8s.io/apiserver
// pkg/endpoints/handlers/delete.go).
func (h *Handler) secret(request admission.Request, now time.Time) (objectDecision, error) {
	before, after, err := oldAndNew[facts.Secret](request)
	if err != nil {
		return objectDecision{}, err
	}
	object := after
	if object == nil {
		object = before
	}
	p, known := h.Protected(request.Namespace, object.Metadata.Name)
	switch {
	case !known:
		return objectDecision{decision: Decision{Allowed: true}}, nil
	case p.Decoy && (before == nil || after == nil):
		return objectDecision{decision: Decision{Allowed: true}, decoy: true}, nil
	}
	change := Change{User: request.UserInfo.Username, Old: before.Facts(), New: after.Facts()}
	return objectDecision{
		object: report.Object{
			APIVersion: "v1", Kind: "Secret", Namespace: request.Namespace, Name: p.Name, UID: object.Metadata.UID,
		},
		decision: Decide(p.SecretExpectation, change, now).withAction(p.Action),
		decoy:    p.Decoy,
	}, nil
}

// oldAndNew returns the object before the request, nil in a create, and after it, nil in a
// delete. The error says what is wrong with the request.
func oldAndNew[T any](request admission.Request) (before, after *T, err error) {
	if before, err = decode[T]("oldObject", request.Kind.Kind, request.OldObject); err != nil {
		return nil, nil, err
	}
	if after, err = decode[T]("object", request.Kind.Kind, request.Object); err != nil {
		return nil, nil, err
	}
	needed, field := after, "object"
	switch request.Operation {
	case admissionv1.Create:
		before = nil
	case admissionv1.Update:
		if before == nil {
			return nil, nil, errors.New("the UPDATE request has no oldObject")
		}
	case admissionv1.Delete:
		needed, field, after = before, "oldObject", nil
	case admissionv1.Connect:
		return nil, nil, fmt.Errorf("operation CONNECT of a %s is not supported", request.Kind.Kind)
	default:
		return nil, nil, fmt.Errorf("unknown operation %s", quote(string(request.Operation)))
	}
	if needed == nil {
		return nil, nil, fmt.Errorf("the %s request has no %s", request.Operation, field)
	}
	return before, after, nil
}

// decode decodes a field of the request: object or oldObject. It returns nil if the field is
// not set. The error does not wrap the decoder's, which can quote the Secret.
func decode[T any](field, kind string, raw kuberuntime.RawExtension) (*T, error) {
	if len(raw.Raw) == 0 || string(raw.Raw) == "null" {
		return nil, nil
	}
	object := new(T)
	// Names of fields are case-sensitive here, as in the API server, and duplicate fields are refused, which no API
	// server sends. Another decoder that is case-sensitive takes several times as long (ADR 0081).
	if err := json.Unmarshal(raw.Raw, object); err != nil {
		return nil, fmt.Errorf("cannot decode the request's %s as a %s", field, kind)
	}
	return object, nil
}

// respond makes the response of a decision. The API server writes the audit annotations to
// its audit log, with the webhook's name in front of each key.
func respond(d Decision) admission.Response {
	response := admission.Allowed("")
	if !d.Allowed {
		response = admission.Denied(d.Message)
	}
	response.Warnings = d.Warnings
	if d.Message != "" {
		var reasons []string
		for _, f := range d.Introduced[:min(len(d.Introduced), maxListed)] {
			reasons = append(reasons, string(f.Reason))
		}
		response.AuditAnnotations = map[string]string{
			"decision": d.label(),
			"reasons":  strings.Join(reasons, ","),
			"controls": strings.Join(controlIDs(d.Introduced), ","),
			"message":  d.Message,
		}
	}
	return response
}

// controlIDs are those of the control that has the worst finding's requirement.
func controlIDs(introduced []finding.Result) []string {
	if len(introduced) == 0 {
		return nil
	}
	c, _ := control.Of(introduced[0].Requirement)
	return c.RefIDs()
}

// label is the decision in audit annotations and metrics.
func (d Decision) label() string {
	switch {
	case d.BreakGlass:
		return "break-glass"
	case d.AllowedBy != "":
		return strings.ToLower(string(d.AllowedBy))
	case d.Allowed:
		return "allow"
	}
	return "deny"
}

// report reports a refusal or a use of the break-glass.
func (h *Handler) report(ctx context.Context, request admission.Request, v objectDecision, now time.Time) {
	notice := report.Notice{
		Type: report.RequestDenied, At: now, Object: v.object,
		Request: &report.Request{
			User: request.UserInfo.Username, Operation: string(request.Operation),
			DryRun: request.DryRun != nil && *request.DryRun, Message: v.decision.Message,
		},
	}
	switch {
	case v.decision.BreakGlass:
		notice.Type = report.RequestByBreakGlass
	case v.decision.Allowed:
		return
	}
	if introduced := v.decision.Introduced; len(introduced) > 0 {
		notice.Finding = introduced[0]
	}
	h.Reporter.Report(ctx, notice)
}
