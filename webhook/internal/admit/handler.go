// SPDX-License-Identifier: Apache-2.0

package admit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/report"
)

// Handler answers AdmissionReviews on Secrets. It implements
// [admission.Handler].
type Handler struct {
	// Protected Secrets; all others pass.
	Protected []check.SecretExpectation
	// Teller is told of refusals and of uses of the break-glass.
	Teller report.Teller
	Now    func() time.Time
}

// Handle decides on one request. It answers 400 to what is no request on a
// Secret: the API server then does as the failurePolicy says.
func (h *Handler) Handle(ctx context.Context, request admission.Request) admission.Response {
	change, object, err := changeOf(request)
	if err != nil {
		return admission.Errored(http.StatusBadRequest, err)
	}
	want := h.protected(request.Namespace, object.Name)
	if want == nil {
		return admission.Allowed("")
	}
	now := h.Now()
	decision := Decide(*want, change, now)
	h.tell(ctx, request, object, decision, now)
	return respond(decision)
}

func (h *Handler) protected(namespace, name string) *check.SecretExpectation {
	for i, p := range h.Protected {
		if p.Namespace == namespace && p.Name == name {
			return &h.Protected[i]
		}
	}
	return nil
}

// changeOf reads a request. The name is that of the object or the old object,
// never of the request: in a delete of a collection request.name is empty
// (k8s.io/apiserver pkg/endpoints/handlers/delete.go).
func changeOf(request admission.Request) (Change, *corev1.Secret, error) {
	change := Change{User: request.UserInfo.Username}
	if kind := request.Kind; kind.Group != "" || kind.Version != "v1" || kind.Kind != "Secret" {
		return Change{}, nil, fmt.Errorf("the request is about %q of %q, only Secrets of v1 are decided on here", kind.Kind, kind.Group+"/"+kind.Version)
	}
	if request.SubResource != "" {
		return Change{}, nil, fmt.Errorf("the request is about the subresource %q, which Secrets do not have", request.SubResource)
	}
	before, err := secretOf("oldObject", request.OldObject)
	if err != nil {
		return Change{}, nil, err
	}
	after, err := secretOf("object", request.Object)
	if err != nil {
		return Change{}, nil, err
	}
	object := after
	switch request.Operation {
	case admissionv1.Create:
		before = nil
	case admissionv1.Update:
		if before == nil {
			return Change{}, nil, errors.New("the request is an UPDATE without oldObject")
		}
	case admissionv1.Delete:
		object, after = before, nil
	case admissionv1.Connect:
		return Change{}, nil, errors.New("the request is a CONNECT, which Secrets do not have")
	default:
		return Change{}, nil, fmt.Errorf("the request has the unknown operation %q", request.Operation)
	}
	if object == nil {
		return Change{}, nil, fmt.Errorf("the request is a %s without its object", request.Operation)
	}
	change.Old, change.New = facts(before), facts(after)
	return change, object, nil
}

// secretOf decodes one side of the request, nil where there is none. The error
// does not wrap the decoder's, which may quote what it read.
func secretOf(side string, raw runtime.RawExtension) (*corev1.Secret, error) {
	if len(raw.Raw) == 0 || string(raw.Raw) == "null" {
		return nil, nil
	}
	var secret corev1.Secret
	if err := json.Unmarshal(raw.Raw, &secret); err != nil {
		return nil, fmt.Errorf("the request's %s is no Secret that can be decoded", side)
	}
	return &secret, nil
}

// facts reduces a Secret to what the checks look at.
func facts(secret *corev1.Secret) *check.Secret {
	if secret == nil {
		return nil
	}
	reduced := &check.Secret{
		Type:        string(secret.Type),
		Certificate: secret.Data[corev1.TLSCertKey],
		Key:         secret.Data[corev1.TLSPrivateKeyKey],
		Immutable:   secret.Immutable != nil && *secret.Immutable,
		Annotations: secret.Annotations,
	}
	for _, o := range secret.OwnerReferences {
		reduced.Owners = append(reduced.Owners, check.Owner{APIVersion: o.APIVersion, Kind: o.Kind, Name: o.Name, UID: string(o.UID)})
	}
	return reduced
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
		for _, f := range d.Introduced {
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
	case d.Allowed:
		return "allow"
	}
	return "deny"
}

// tell reports what somebody may want to know later.
func (h *Handler) tell(ctx context.Context, request admission.Request, object *corev1.Secret, d Decision, now time.Time) {
	notice := report.Notice{
		What: report.RequestDenied, At: now,
		Object: report.Object{APIVersion: "v1", Kind: "Secret", Namespace: request.Namespace, Name: object.Name, UID: string(object.UID)},
		Request: &report.Request{
			User: request.UserInfo.Username, Operation: string(request.Operation),
			DryRun: request.DryRun != nil && *request.DryRun, Message: d.Message,
		},
	}
	switch {
	case d.BreakGlass:
		notice.What = report.RequestByBreakGlass
	case d.Allowed:
		return
	}
	if len(d.Introduced) > 0 {
		notice.Finding = d.Introduced[0]
	}
	h.Teller.Tell(ctx, notice)
}
