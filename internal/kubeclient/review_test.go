// SPDX-License-Identifier: Apache-2.0

package kubeclient_test

import (
	stdcmp "cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/rest"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/kubeclient"
)

// answering returns a client of a server that gives one answer, and the last request as "METHOD path body".
func answering(t *testing.T, code int, answer string) (client *kubeclient.Client, last *string) {
	t.Helper()
	return answeringWith(t, code, "", "", answer)
}

// answeringWith is as answering, with a Content-Type (default: JSON) and a Location.
func answeringWith(t *testing.T, code int, kind, location, answer string) (client *kubeclient.Client, last *string) {
	t.Helper()
	last = new(string)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		*last = strings.TrimSpace(r.Method + " " + r.URL.Path + " " + string(body))
		w.Header().Set("Content-Type", stdcmp.Or(kind, "application/json"))
		if location != "" {
			w.Header().Set("Location", location)
		}
		w.WriteHeader(code)
		_, _ = io.WriteString(w, answer)
	}))
	t.Cleanup(func() { server.Close(); http.DefaultClient.CloseIdleConnections() })
	client, err := kubeclient.NewClient(&rest.Config{Host: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	return client, last
}

// TestReviewToken: only an answer of an API server says who a token belongs to. Errors do not have the token.
func TestReviewToken(t *testing.T) {
	const token = "s3cret"
	full := kubeclient.User{
		Name: "system:serviceaccount:a:b", UID: "u", Groups: []string{"system:authenticated"},
		Extra: map[string][]string{"authentication.kubernetes.io/pod-name": {"p"}},
	}
	cases := map[string]struct {
		code int
		// kind is the Content-Type, location the Location of the answer.
		kind, location string
		answer         string
		want           kubeclient.User
		refused        bool
		// message is the whole error, if not empty.
		message string
	}{
		"authenticated": {code: 201, want: full, answer: `{"kind":"TokenReview","spec":{"token":"s3cret"},"status":{"authenticated":true,"user":` +
			`{"username":"system:serviceaccount:a:b","uid":"u","groups":["system:authenticated"],` +
			`"extra":{"authentication.kubernetes.io/pod-name":["p"]}}}}`},
		"refused":           {code: 201, answer: `{"kind":"TokenReview","status":{"error":"invalid bearer token, s3cret"}}`, refused: true},
		"no name":           {code: 201, answer: `{"kind":"TokenReview","status":{"authenticated":true}}`, refused: true},
		"another kind":      {code: 200, answer: `{"kind":"Status","status":"Failure"}`},
		"no kind":           {code: 200, answer: `{"status":{"authenticated":true,"user":{"username":"x"}}}`},
		"cut off":           {code: 201, answer: `{"kind":"TokenReview","spec":{"token":"s3cret`},
		"nothing":           {code: 200},
		"a page":            {code: 200, answer: `<html>s3cret</html>`},
		"a refusal":         {code: 403, answer: `{"kind":"Status","apiVersion":"v1","status":"Failure","code":403,"reason":"Forbidden","message":"no"}`},
		"an internal error": {code: 500, answer: `{}`},
		"a proxy that quotes the request": {code: 502, answer: `502: {"kind":"TokenReview","spec":{"token":"s3cret"}}`,
			message: "create TokenReview: the answer is HTTP 502 Bad Gateway"},
		"a proxy that quotes the request, as text": {code: 502, kind: "text/plain", answer: "could not forward s3cret",
			message: "create TokenReview: the answer is HTTP 502 Bad Gateway"},
		"a Status that quotes the request": {code: 400, answer: `{"kind":"Status","apiVersion":"v1","status":"Failure",` +
			`"code":400,"reason":"s3cret","message":"s3cret","details":{"name":"s3cret","causes":[{"message":"s3cret"}]}}`,
			message: "create TokenReview: the answer is HTTP 400 Bad Request"},
		"a redirection that quotes the request": {code: 308, location: "ftp://s3cret/",
			message: "create TokenReview: the request was not sent, or the answer is not valid HTTP"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			client, last := answeringWith(t, c.code, c.kind, c.location, c.answer)
			got, err := client.ReviewToken(t.Context(), token)
			if diff := cmp.Diff(c.want, got); diff != "" || (err == nil) != (c.want.Name != "") {
				t.Errorf("error %v (-want +got):\n%s", err, diff)
			}
			if errors.Is(err, kubeclient.ErrTokenRefused) != c.refused {
				t.Errorf("refused: %v", err)
			}
			if err != nil && strings.Contains(err.Error(), token) {
				t.Errorf("the error has the token: %v", err)
			}
			if c.message != "" && err.Error() != c.message {
				t.Errorf("error %q, want %q", err, c.message)
			}
			if !strings.HasPrefix(*last, "POST /apis/authentication.k8s.io/v1/tokenreviews {") || !strings.Contains(*last, `"spec":{"token":"s3cret"}`) {
				t.Errorf("requested %s", *last)
			}
		})
	}
}

// TestMayGet: only an answer of an API server permits.
func TestMayGet(t *testing.T) {
	user := kubeclient.User{Name: "a", UID: "u", Groups: []string{"g"}, Extra: map[string][]string{"k": {"v"}}}
	for name, c := range map[string]struct {
		code        int
		answer      string
		want, fails bool
	}{
		"allowed":      {201, `{"kind":"SubjectAccessReview","status":{"allowed":true}}`, true, false},
		"not allowed":  {201, `{"kind":"SubjectAccessReview","status":{"allowed":false,"reason":"x"}}`, false, false},
		"no status":    {201, `{"kind":"SubjectAccessReview"}`, false, false},
		"another kind": {200, `{"kind":"Other","status":{"allowed":true}}`, false, true},
		"no kind":      {200, `{"status":{"allowed":true}}`, false, true},
		"a refusal":    {403, `{"kind":"Status","apiVersion":"v1","status":"Failure","code":403}`, false, true},
		"a quote":      {403, `{"kind":"Status","apiVersion":"v1","status":"Failure","code":403,"message":"s3cret"}`, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			client, last := answering(t, c.code, c.answer)
			got, err := client.MayGet(t.Context(), user, "/metrics")
			if got != c.want || (err != nil) != c.fails {
				t.Errorf("got %v, %v", got, err)
			}
			if err != nil && strings.Contains(err.Error(), "s3cret") {
				t.Errorf("the error quotes the answer: %v", err)
			}
			request, body, _ := strings.Cut(*last, " {")
			if request != "POST /apis/authorization.k8s.io/v1/subjectaccessreviews" {
				t.Errorf("requested %s", request)
			}
			var asked struct{ Spec map[string]any }
			if err := json.Unmarshal([]byte("{"+body), &asked); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(map[string]any{
				"nonResourceAttributes": map[string]any{"path": "/metrics", "verb": "get"}, "user": "a", "uid": "u",
				"groups": []any{"g"}, "extra": map[string]any{"k": []any{"v"}},
			}, asked.Spec); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestReviewNotSent: the error says why there was no answer, and has no text of a server that is not HTTP.
func TestReviewNotSent(t *testing.T) {
	server := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(server.Close)
	noHTTP := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		connection, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			_, _ = fmt.Fprintf(connection, "HTTP/1.1 %s\r\n\r\n", body)
			_ = connection.Close()
		}
	}))
	t.Cleanup(noHTTP.Close)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for name, c := range map[string]struct {
		ctx        context.Context
		host, want string
	}{
		"no server":      {t.Context(), "https://127.0.0.1:1", "connection refused"},
		"another CA":     {t.Context(), server.URL, "certificate signed by unknown authority"},
		"not valid HTTP": {t.Context(), noHTTP.URL, "not valid HTTP"},
		"canceled":       {ended, server.URL, "context canceled"},
	} {
		t.Run(name, func(t *testing.T) {
			client, err := kubeclient.NewClient(&rest.Config{Host: c.host})
			if err != nil {
				t.Fatal(err)
			}
			_, err = client.ReviewToken(c.ctx, "s3cret")
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "s3cret") {
				t.Errorf("error %v, want one with %q and without the token", err, c.want)
			}
		})
	}
}

// TestClusterConfig: the client CA and the APIServer object, which only OpenShift has.
func TestClusterConfig(t *testing.T) {
	const missing = `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404}`
	for name, c := range map[string]struct {
		code       int
		answer     string
		ca         string
		apiServer  bool
		caFails    bool
		objectFail bool
	}{
		"there":     {code: 200, answer: `{"data":{"client-ca-file":"PEM"},"spec":{}}`, ca: "PEM", apiServer: true},
		"no key":    {code: 200, answer: `{"data":{"requestheader-client-ca-file":"PEM"}}`, caFails: true, apiServer: true},
		"not there": {code: 404, answer: missing, caFails: true},
		"no group":  {code: 404, answer: "404 page not found", caFails: true},
		"refused":   {code: 403, answer: `{"kind":"Status","apiVersion":"v1","status":"Failure","code":403}`, caFails: true, objectFail: true},
	} {
		t.Run(name, func(t *testing.T) {
			client, last := answering(t, c.code, c.answer)
			ca, err := client.ClientCA(t.Context())
			if string(ca) != c.ca || (err != nil) != c.caFails {
				t.Errorf("client CA: %q, %v", ca, err)
			}
			if *last != "GET /api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication" {
				t.Errorf("requested %s", *last)
			}
			object, err := client.APIServerConfig(t.Context())
			if (object != nil) != c.apiServer || (err != nil) != c.objectFail {
				t.Errorf("APIServer: %v, %v", object, err)
			}
			if *last != "GET /apis/config.openshift.io/v1/apiservers/cluster" {
				t.Errorf("requested %s", *last)
			}
		})
	}
}
