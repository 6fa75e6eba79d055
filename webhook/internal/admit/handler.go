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
	kuberuntime "k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/report"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/facts"
)

// Protected is a Secret that is guarded.
type Protected struct {
	check.SecretExpectation
	// Action is [Deny] if it is empty.
	Action Action
}

// Meter is told of every request that was answered.
type Meter interface {
	// Decided: the operation in upper case, "other" where it is none of the
	// API's; the decision as in the audit annotations, or "error" or "panic";
	// the worst reason that the request introduces, empty for none.
	Decided(operation, decision, reason string, took time.Duration)
}

// Handler answers AdmissionReviews on Secrets and on KubeAPIServers. It
// implements [admission.Handler].
type Handler struct {
	// Protected are the Secrets that are guarded now; all others pass.
	Protected func() []Protected
	// Judge is asked about each Secret.
	Judge Judge
	// OverridesAction is for what people lay over the kube-apiserver's
	// configuration.
	OverridesAction func() Action
	// Teller is told of refusals and of uses of the break-glass.
	Teller report.Teller
	Meter  Meter
	Log    *slog.Logger
	Now    func() time.Time
}

// verdict is a decision on an object.
type verdict struct {
	object   report.Object
	decision Decision
}

// errPanic is all that the API server hears of a panic: its value may hold
// anything.
var errPanic = errors.New("the webhook failed while it looked at the request; its log says where")

// Handle decides on one request. What is no request that it knows, or makes it
// panic, is not allowed, with 400 or 500 for the reason: whatever the
// failurePolicy, which is for a webhook that gives no answer.
func (h *Handler) Handle(ctx context.Context, request admission.Request) (response admission.Response) {
	now := h.Now()
	decided, reason := "error", finding.Reason("")
	defer func() {
		if value := recover(); value != nil {
			decided, response = "panic", admission.Errored(http.StatusInternalServerError, errPanic)
			h.logPanic(ctx, value)
		}
		h.Meter.Decided(operation(request.Operation), decided, string(reason), h.Now().Sub(now))
	}()
	v, err := h.decide(request, now)
	if err != nil {
		return admission.Errored(http.StatusBadRequest, err)
	}
	if introduced := v.decision.Introduced; len(introduced) > 0 {
		reason = introduced[0].Reason
	}
	h.tell(ctx, request, v, now)
	decided, response = v.decision.word(), respond(v.decision)
	return response
}

// logPanic writes where it was, and of its value only what cannot hold data.
func (h *Handler) logPanic(ctx context.Context, value any) {
	what := fmt.Sprintf("%T", value)
	if err, ok := value.(runtime.Error); ok {
		what = err.Error()
	}
	h.Log.ErrorContext(ctx, "Panic while deciding", "panic", what, "stack", string(debug.Stack()))
}

// operation bounds the values of a metric's label.
func operation(o admissionv1.Operation) string {
	switch o {
	case admissionv1.Create, admissionv1.Update, admissionv1.Delete, admissionv1.Connect:
		return string(o)
	}
	return "other"
}

func (h *Handler) decide(request admission.Request, now time.Time) (verdict, error) {
	if request.SubResource != "" {
		return verdict{}, fmt.Errorf("the request is about the subresource %s, on which nothing is decided here", quote(request.SubResource))
	}
	if request.Operation == admissionv1.Update && len(request.Object.Raw) > 0 && bytes.Equal(request.Object.Raw, request.OldObject.Raw) {
		return verdict{decision: Decision{Allowed: true}}, nil // it introduces nothing
	}
	switch kind := request.Kind; {
	case kind.Group == "" && kind.Version == "v1" && kind.Kind == "Secret":
		return h.secret(request, now)
	case kind.Group == facts.OperatorGroup && kind.Kind == facts.KubeAPIServerKind:
		return h.overrides(request, now)
	default:
		return verdict{}, fmt.Errorf("the request is about %s of %s, only Secrets of v1 and KubeAPIServers are decided on here", quote(kind.Kind), quote(kind.Group+"/"+kind.Version))
	}
}

// secret decides on a change of a Secret. Its name is that of the object or
// the old object, never of the request: in a delete of a collection
// request.name is empty (k8s.io/apiserver pkg/endpoints/handlers/delete.go).
func (h *Handler) secret(request admission.Request, now time.Time) (verdict, error) {
	before, after, err := sides[facts.Secret](request)
	if err != nil {
		return verdict{}, err
	}
	object := after
	if object == nil {
		object = before
	}
	for _, p := range h.Protected() {
		if p.Namespace == request.Namespace && p.Name == object.Metadata.Name {
			change := Change{User: request.UserInfo.Username, Old: before.Facts(), New: after.Facts()}
			return verdict{
				object:   report.Object{APIVersion: "v1", Kind: "Secret", Namespace: request.Namespace, Name: p.Name, UID: object.Metadata.UID},
				decision: Decide(h.Judge, p.SecretExpectation, change, now).spare(p.Action),
			}, nil
		}
	}
	return verdict{decision: Decision{Allowed: true}}, nil
}

// sides are the object before and after the request, nil where there is none;
// never both. The error says what is wrong with the request.
func sides[T any](request admission.Request) (before, after *T, err error) {
	if before, err = decode[T]("oldObject", request.Kind.Kind, request.OldObject); err != nil {
		return nil, nil, err
	}
	if after, err = decode[T]("object", request.Kind.Kind, request.Object); err != nil {
		return nil, nil, err
	}
	needed := after
	switch request.Operation {
	case admissionv1.Create:
		before = nil
	case admissionv1.Update:
		if before == nil {
			return nil, nil, errors.New("the request is an UPDATE without oldObject")
		}
	case admissionv1.Delete:
		needed, after = before, nil
	case admissionv1.Connect:
		return nil, nil, fmt.Errorf("the request is a CONNECT, which a %s does not have", request.Kind.Kind)
	default:
		return nil, nil, fmt.Errorf("the request has the unknown operation %s", quote(string(request.Operation)))
	}
	if needed == nil {
		return nil, nil, fmt.Errorf("the request is a %s without its object", request.Operation)
	}
	return before, after, nil
}

// decode decodes one side of the request, nil where there is none. The error
// does not wrap the decoder's, which may quote what it read.
func decode[T any](side, kind string, raw kuberuntime.RawExtension) (*T, error) {
	if len(raw.Raw) == 0 || string(raw.Raw) == "null" {
		return nil, nil
	}
	object := new(T)
	// Letter for letter, as the API server does: another spelling is another
	// field. This decoder takes a third of the usual one's time, which is most of
	// what a decision about known content takes (test/bench/webhook). What it
	// refuses beyond that, such as a field twice, no API server sends.
	if err := json.Unmarshal(raw.Raw, object); err != nil {
		return nil, fmt.Errorf("the request's %s is no %s that can be decoded", side, kind)
	}
	return object, nil
}

// respond writes a decision as the API server wants it. The audit annotations
// get the webhook's name in front of their keys and stand in the audit log.
func respond(d Decision) admission.Response {
	response := admission.Allowed("")
	if !d.Allowed {
		response = admission.Denied(d.Message)
	}
	response.Warnings = d.Warnings
	if d.Message != "" {
		var reasons []string
		for _, f := range d.Introduced[:min(len(d.Introduced), maxTold)] {
			reasons = append(reasons, string(f.Reason))
		}
		response.AuditAnnotations = map[string]string{
			"decision": d.word(),
			"reasons":  strings.Join(reasons, ","),
			"controls": strings.Join(finding.Controls(), ","),
			"message":  d.Message,
		}
	}
	return response
}

// word is the decision in one word.
func (d Decision) word() string {
	switch {
	case d.BreakGlass:
		return "break-glass"
	case d.Spared != "":
		return strings.ToLower(string(d.Spared))
	case d.Allowed:
		return "allow"
	}
	return "deny"
}

// tell reports what somebody may want to know later.
func (h *Handler) tell(ctx context.Context, request admission.Request, v verdict, now time.Time) {
	notice := report.Notice{
		What: report.RequestDenied, At: now, Object: v.object,
		Request: &report.Request{
			User: request.UserInfo.Username, Operation: string(request.Operation),
			DryRun: request.DryRun != nil && *request.DryRun, Message: v.decision.Message,
		},
	}
	switch {
	case v.decision.BreakGlass:
		notice.What = report.RequestByBreakGlass
	case v.decision.Allowed:
		return
	}
	if introduced := v.decision.Introduced; len(introduced) > 0 {
		notice.Finding = introduced[0]
	}
	h.Teller.Tell(ctx, notice)
}
