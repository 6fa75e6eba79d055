// SPDX-License-Identifier: Apache-2.0

package admit_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admission/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/report"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/messages"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/openshift"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/admit"
)

// notices collects what is reported.
type notices []report.Notice

func (n *notices) Report(_ context.Context, notice report.Notice) { *n = append(*n, notice) }

// decisions counts decisions.
type decisions map[string]int

func (d decisions) CountRequest(operation, decision, reason string, _ time.Duration) {
	d[operation+" "+decision+" "+reason]++
}

// protecting finds the Secrets of a list.
func protecting(all ...admit.ProtectedSecret) func(namespace, name string) (admit.ProtectedSecret, bool) {
	return admit.NewIndex(all).Find
}

func handler(reported *notices) *admit.Handler {
	return &admit.Handler{
		Protected:       protecting(admit.ProtectedSecret{SecretExpectation: servingCert()}),
		OverridesAction: func() admit.Action { return admit.Deny },
		Reporter:        reported, Meter: decisions{}, Log: slog.New(slog.DiscardHandler),
		Now: func() time.Time { return pkitest.Now() },
	}
}

func raw(t *testing.T, object any) runtime.RawExtension {
	t.Helper()
	data, err := json.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	return runtime.RawExtension{Raw: data}
}

func request(operation admissionv1.Operation) admission.Request {
	return admission.Request{AdmissionRequest: admissionv1.AdmissionRequest{
		UID: "1", Operation: operation, Namespace: "openshift-apiserver",
		Kind:     metav1.GroupVersionKind{Version: "v1", Kind: "Secret"},
		Resource: metav1.GroupVersionResource{Version: "v1", Resource: "secrets"},
		UserInfo: authenticationv1.UserInfo{Username: "mallory"},
	}}
}

func TestHandle(t *testing.T) {
	page := messages.Record(t, "requests that the webhook does not know")
	pair := pkitest.NewCA("service-ca").Issue(pkitest.ServingCert())
	good := openshift.ServingCert("uid-1", pair.Certificate, pair.Key)
	invalid := openshift.ServingCert("uid-1", pair.Certificate, []byte("garbage"))
	otherName, otherNamespace := invalid.DeepCopy(), invalid.DeepCopy()
	otherName.Name, otherNamespace.Namespace = "other", "other"
	generated := invalid.DeepCopy()
	generated.Name, generated.GenerateName = "", "serving-cert"
	garbage := openshift.ServingCert("uid-1", bytes.Repeat([]byte("x"), 1<<20), bytes.Repeat([]byte{0xff}, 1<<10))

	type answer struct {
		Allowed  bool
		Code     int32
		Reported int
		Text     string // of the message, a part
	}
	cases := map[string]struct {
		build func(r *admission.Request)
		op    admissionv1.Operation
		want  answer
	}{
		"invalid":                      {op: admissionv1.Update, build: func(r *admission.Request) { r.OldObject, r.Object = raw(t, good), raw(t, invalid) }, want: answer{Code: 403, Reported: 1, Text: "KeyUnparsable"}},
		"invalid, dry run":             {op: admissionv1.Update, build: func(r *admission.Request) { r.OldObject, r.Object, r.DryRun = raw(t, good), raw(t, invalid), new(true) }, want: answer{Code: 403, Reported: 1, Text: "KeyUnparsable"}},
		"1 MiB of garbage":             {op: admissionv1.Update, build: func(r *admission.Request) { r.OldObject, r.Object = raw(t, good), raw(t, garbage) }, want: answer{Code: 403, Reported: 1, Text: "CertificateUnparsable"}},
		"no change":                    {op: admissionv1.Update, build: func(r *admission.Request) { r.OldObject, r.Object = raw(t, good), raw(t, good) }, want: answer{Allowed: true, Code: 200}},
		"delete by name":               {op: admissionv1.Delete, build: func(r *admission.Request) { r.OldObject, r.Name = raw(t, good), "serving-cert" }, want: answer{Code: 403, Reported: 1, Text: "SecretMissing"}},
		"delete of a collection":       {op: admissionv1.Delete, build: func(r *admission.Request) { r.OldObject = raw(t, good) }, want: answer{Code: 403, Reported: 1, Text: "SecretMissing"}},
		"the request has another name": {op: admissionv1.Delete, build: func(r *admission.Request) { r.OldObject, r.Name = raw(t, good), "other" }, want: answer{Code: 403, Reported: 1, Text: "SecretMissing"}},
		"create":                       {op: admissionv1.Create, build: func(r *admission.Request) { r.Object = raw(t, good) }, want: answer{Allowed: true, Code: 200}},
		"create, with an old object":   {op: admissionv1.Create, build: func(r *admission.Request) { r.Object, r.OldObject = raw(t, invalid), raw(t, invalid) }, want: answer{Code: 403, Reported: 1, Text: "KeyUnparsable"}},
		"another name":                 {op: admissionv1.Create, build: func(r *admission.Request) { r.Object = raw(t, otherName) }, want: answer{Allowed: true, Code: 200}},
		"a generated name":             {op: admissionv1.Create, build: func(r *admission.Request) { r.Object = raw(t, generated) }, want: answer{Allowed: true, Code: 200}},
		"another namespace":            {op: admissionv1.Create, build: func(r *admission.Request) { r.Namespace, r.Object = "other", raw(t, otherNamespace) }, want: answer{Allowed: true, Code: 200}},
		"another kind":                 {op: admissionv1.Create, build: func(r *admission.Request) { r.Kind.Kind, r.Object = "ConfigMap", raw(t, good) }, want: answer{Code: 400, Text: `"ConfigMap"`}},
		"a subresource": {op: admissionv1.Update, build: func(r *admission.Request) {
			r.SubResource, r.OldObject, r.Object = "status", raw(t, good), raw(t, good)
		}, want: answer{Code: 400, Text: `"status"`}},
		"no object":                      {op: admissionv1.Create, want: answer{Code: 400, Text: "CREATE"}},
		"a null object":                  {op: admissionv1.Create, build: func(r *admission.Request) { r.Object = runtime.RawExtension{Raw: []byte("null")} }, want: answer{Code: 400, Text: "CREATE"}},
		"an update without old object":   {op: admissionv1.Update, build: func(r *admission.Request) { r.Object = raw(t, good) }, want: answer{Code: 400, Text: "oldObject"}},
		"a delete without old object":    {op: admissionv1.Delete, want: answer{Code: 400, Text: "DELETE"}},
		"a connect":                      {op: admissionv1.Connect, build: func(r *admission.Request) { r.Object = raw(t, good) }, want: answer{Code: 400, Text: "CONNECT"}},
		"an unknown operation":           {op: "PATCH", build: func(r *admission.Request) { r.Object = raw(t, good) }, want: answer{Code: 400, Text: `"PATCH"`}},
		"no operation":                   {op: "", build: func(r *admission.Request) { r.Object = raw(t, good) }, want: answer{Code: 400, Text: `""`}},
		"an object that is not a Secret": {op: admissionv1.Create, build: func(r *admission.Request) { r.Object = runtime.RawExtension{Raw: []byte(`{"data":"MARKER"}`)} }, want: answer{Code: 400, Text: "object"}},
		"a truncated old object": {op: admissionv1.Delete, build: func(r *admission.Request) {
			r.OldObject = runtime.RawExtension{Raw: []byte(`{"data":{"tls.key":"MARK`)}
		}, want: answer{Code: 400, Text: "oldObject"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var reported notices
			r := request(c.op)
			if c.build != nil {
				c.build(&r)
			}
			response := handler(&reported).Handle(t.Context(), r)
			if response.Result.Code == http.StatusBadRequest {
				page.Text(name, response.Result.Message)
			}
			got := answer{Allowed: response.Allowed, Code: response.Result.Code, Reported: len(reported)}
			if strings.Contains(response.Result.Message, c.want.Text) {
				got.Text = c.want.Text
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("Handle (-want +got):\n%s\nmessage: %s", d, response.Result.Message)
			}
			if strings.Contains(response.Result.Message, "MARK") {
				t.Errorf("the answer quotes the Secret: %s", response.Result.Message)
			}
		})
	}
}

// TestAuditAnnotations: what a refusal writes to the API server's audit log.
func TestAuditAnnotations(t *testing.T) {
	var reported notices
	pair := pkitest.NewCA("service-ca").Issue(pkitest.ServingCert())
	r := request(admissionv1.Update)
	r.OldObject = raw(t, openshift.ServingCert("uid-1", pair.Certificate, pair.Key))
	r.Object = raw(t, openshift.ServingCert("uid-1", nil, []byte("garbage")))
	response := handler(&reported).Handle(t.Context(), r)
	want := map[string]string{
		"decision": "deny", "reasons": "CertificateMissing,KeyUnparsable",
		"controls": "cis-ocp-1.7:1.2.4,cis-ocp-1.8:1.2.2,cis-ocp-1.9:1.2.2,cis-ocp-2.0:1.2.2",
		"message":  response.Result.Message,
	}
	if d := cmp.Diff(want, response.AuditAnnotations); d != "" {
		t.Errorf("audit annotations (-want +got):\n%s", d)
	}
	notice := reported[0]
	if notice.Type != report.RequestDenied || notice.Request.User != "mallory" || notice.Object.Name != "serving-cert" {
		t.Errorf("reported: %+v", notice)
	}
}

// TestServeHTTP sends bodies that no API server sends. Each is answered, and none is allowed.
func TestServeHTTP(t *testing.T) {
	pair := pkitest.NewCA("service-ca").Issue(pkitest.ServingCert())
	review := func(r admission.Request) []byte {
		data, err := json.Marshal(admissionv1.AdmissionReview{
			TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"}, Request: &r.AdmissionRequest,
		})
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	whole := request(admissionv1.Create)
	whole.Object = raw(
		t,
		&corev1.Secret{
			TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
			ObjectMeta: metav1.ObjectMeta{Name: "serving-cert"},
			Data:       map[string][]byte{"tls.key": pair.Key},
		},
	)

	cases := map[string]struct {
		body        io.Reader
		contentType string
	}{
		"no body":                  {contentType: "application/json"},
		"an empty body":            {body: strings.NewReader(""), contentType: "application/json"},
		"not JSON":                 {body: strings.NewReader("MARKER"), contentType: "application/json"},
		"truncated":                {body: bytes.NewReader(review(whole)[:200]), contentType: "application/json"},
		"a review without request": {body: strings.NewReader(`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}`), contentType: "application/json"},
		"a null request":           {body: strings.NewReader(`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":null}`), contentType: "application/json"},
		"an unknown version":       {body: strings.NewReader(`{"apiVersion":"admission.k8s.io/v7","kind":"AdmissionReview","request":{}}`), contentType: "application/json"},
		"another kind":             {body: strings.NewReader(`{"apiVersion":"v1","kind":"Pod"}`), contentType: "application/json"},
		"an array":                 {body: strings.NewReader(`[]`), contentType: "application/json"},
		"deeply nested":            {body: strings.NewReader(strings.Repeat(`{"request":`, 100_000)), contentType: "application/json"},
		"another content type":     {body: bytes.NewReader(review(whole)), contentType: "text/plain"},
		"8 MiB":                    {body: strings.NewReader(`{"apiVersion":"` + strings.Repeat("x", 8<<20) + `"}`), contentType: "application/json"},
		"a bad request":            {body: bytes.NewReader(review(whole)), contentType: "application/json"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var reported notices
			hook := &admission.Webhook{Handler: handler(&reported)}
			r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/validate", c.body)
			r.Header.Set("Content-Type", c.contentType)
			w := httptest.NewRecorder()
			hook.ServeHTTP(w, r)
			var review admissionv1.AdmissionReview
			if err := json.Unmarshal(w.Body.Bytes(), &review); err != nil {
				t.Fatalf("the answer is not an AdmissionReview: %v\n%s", err, w.Body)
			}
			if review.Response == nil || review.Response.Allowed || review.Response.Result.Message == "" {
				t.Errorf("not refused with a message: %s", w.Body)
			}
			if strings.Contains(w.Body.String(), "MARKER") {
				t.Errorf("the answer quotes what was sent: %s", w.Body)
			}
		})
	}
}

// TestOverrides: the same rule applies to overrides of the kube-apiserver's configuration.
func TestOverrides(t *testing.T) {
	page := messages.Record(t, "refusals of overrides")
	object := func(name, overrides string) runtime.RawExtension {
		return runtime.RawExtension{
			Raw: fmt.Appendf(
				nil,
				`{"apiVersion":"operator.openshift.io/v1","kind":"KubeAPIServer","metadata":{"name":%q,"uid":"u"},"spec":{"logLevel":"Normal","unsupportedConfigOverrides":%s}}`,
				name,
				overrides,
			),
		}
	}
	const (
		none  = `null`
		other = `{"apiServerArguments":{"event-ttl":["3h"]}}`
		off   = `{"apiServerArguments":{"kubelet-https":["false"]}}`
		worse = `{"apiServerArguments":{"kubelet-https":["false"],"kubelet-client-key":[]}}`
	)
	cases := map[string]struct {
		op       admissionv1.Operation
		name     string // "cluster" if empty
		old, new string
		want     string
	}{
		"create without overrides":         {op: admissionv1.Create, new: none, want: "allow []"},
		"create with overrides":            {op: admissionv1.Create, new: off, want: "deny [OverrideWeakensKubeletTLS]"},
		"other arguments":                  {op: admissionv1.Update, old: none, new: other, want: "allow []"},
		"https off":                        {op: admissionv1.Update, old: other, new: off, want: "deny [OverrideWeakensKubeletTLS]"},
		"the same invalid one again":       {op: admissionv1.Update, old: off, new: off, want: "allow []"},
		"a new problem in an invalid one":  {op: admissionv1.Update, old: off, new: worse, want: "deny [OverrideWeakensKubeletTLS]"},
		"a partial repair":                 {op: admissionv1.Update, old: worse, new: off, want: "allow []"},
		"a repair":                         {op: admissionv1.Update, old: worse, new: none, want: "allow []"},
		"a delete":                         {op: admissionv1.Delete, old: off, want: "allow []"},
		"an object of another name":        {op: admissionv1.Update, name: "other", old: none, new: off, want: "allow []"},
		"arguments that are not an object": {op: admissionv1.Update, old: none, new: `{"apiServerArguments":7}`, want: "deny [OverrideWeakensKubeletTLS,OverrideWeakensKubeletTLS,OverrideWeakensKubeletTLS]"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			r := request(c.op)
			r.Namespace, r.Kind = "", metav1.GroupVersionKind{
				Group:   "operator.openshift.io",
				Version: "v1",
				Kind:    "KubeAPIServer",
			}
			if c.name == "" {
				c.name = "cluster"
			}
			if c.old != "" {
				r.OldObject = object(c.name, c.old)
			}
			if c.new != "" {
				r.Object = object(c.name, c.new)
			}
			var reported notices
			response := handler(&reported).Handle(t.Context(), r)
			page.Text(name, response.Result.Message)
			got := "allow []"
			if !response.Allowed {
				got = response.AuditAnnotations["decision"] + " [" + response.AuditAnnotations["reasons"] + "]"
				for _, mentioned := range []string{"KubeAPIServer cluster", "OverrideWeakensKubeletTLS",
					"spec.unsupportedConfigOverrides", admit.Marker} {
					if !strings.Contains(response.Result.Message, mentioned) {
						t.Errorf("the message does not mention %s: %s", mentioned, response.Result.Message)
					}
				}
				if len(reported) != 1 {
					t.Errorf("%d reports: %s", len(reported), response.Result.Message)
				}
			}
			if got != c.want {
				t.Errorf("got %s, want %s: %s", got, c.want, response.Result.Message)
			}
		})
	}
}

// TestActions: what happens to a violation, by action. Only refusals are reported.
func TestActions(t *testing.T) {
	pair := pkitest.NewCA("service-ca").Issue(pkitest.ServingCert())
	type outcome struct {
		Allowed            bool
		Warnings, Reported int
		Decision           string // of the audit annotations
		MeteredDecision    string
	}
	cases := map[admit.Action]outcome{
		"":          {Reported: 1, Decision: "deny", MeteredDecision: "UPDATE deny KeyUnparsable"},
		admit.Deny:  {Reported: 1, Decision: "deny", MeteredDecision: "UPDATE deny KeyUnparsable"},
		admit.Warn:  {Allowed: true, Warnings: 1, Decision: "warn", MeteredDecision: "UPDATE warn KeyUnparsable"},
		admit.Audit: {Allowed: true, Decision: "audit", MeteredDecision: "UPDATE audit KeyUnparsable"},
		"Nonsense":  {Reported: 1, Decision: "deny", MeteredDecision: "UPDATE deny KeyUnparsable"},
	}
	for action, want := range cases {
		t.Run("action "+string(action), func(t *testing.T) {
			var reported notices
			h, metered := handler(&reported), decisions{}
			h.Meter = metered
			h.Protected = protecting(admit.ProtectedSecret{SecretExpectation: servingCert(), Action: action})
			r := request(admissionv1.Update)
			r.OldObject = raw(t, openshift.ServingCert("uid-1", pair.Certificate, pair.Key))
			r.Object = raw(t, openshift.ServingCert("uid-1", pair.Certificate, []byte("garbage")))
			response := h.Handle(t.Context(), r)
			if verb := strings.Fields(response.AuditAnnotations["message"])[0]; (verb == admit.Refusing) == response.Allowed {
				t.Errorf("allowed: %t, message: %s", response.Allowed, response.AuditAnnotations["message"])
			}
			got := outcome{
				response.Allowed,
				len(response.Warnings),
				len(reported),
				response.AuditAnnotations["decision"],
				strings.Join(slices.Collect(maps.Keys(metered)), " "),
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

// TestPanic: a panic is answered with the request's UID and counted. Its value, which can
// hold parts of a Secret, is neither logged nor returned.
func TestPanic(t *testing.T) {
	var reported notices
	var log bytes.Buffer
	h, metered := handler(&reported), decisions{}
	h.Meter, h.Log = metered, slog.New(slog.NewTextHandler(&log, nil))
	h.Protected = func(string, string) (admit.ProtectedSecret, bool) { panic("MARKER") }
	r := request(admissionv1.Create)
	r.Object = raw(t, openshift.ServingCert("uid-1", nil, nil))
	response := (&admission.Webhook{Handler: h}).Handle(t.Context(), r)
	if response.Allowed || response.Result.Code != http.StatusInternalServerError || response.UID != "1" {
		t.Errorf("the answer: %+v", response)
	}
	if d := cmp.Diff(decisions{"CREATE panic ": 1}, metered); d != "" {
		t.Errorf("counted (-want +got):\n%s", d)
	}
	if !strings.Contains(log.String(), "handler_test.go") {
		t.Errorf("the log has no stack:\n%s", &log)
	}
	if strings.Contains(log.String()+response.Result.Message, "MARKER") {
		t.Errorf("the panic's value is in the answer or the log: %s\n%s", response.Result.Message, &log)
	}
}
