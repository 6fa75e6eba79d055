// SPDX-License-Identifier: Apache-2.0

package kubeclient_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/kubeclient"
)

// TestClientAnswers: only an answer of an API server says that an Event is stored,
// or what a Node's UID is.
func TestClientAnswers(t *testing.T) {
	cases := map[string]struct {
		code         int
		answer       string
		stored, node bool
	}{
		"the Event":        {code: http.StatusCreated, answer: `{"kind":"Event","apiVersion":"events.k8s.io/v1","metadata":{"name":"master-0.1","uid":"u"}}`, stored: true, node: true},
		"nothing":          {code: http.StatusOK},
		"no content":       {code: http.StatusNoContent},
		"a login page":     {code: http.StatusOK, answer: "<html>Please log in</html>"},
		"an empty object":  {code: http.StatusOK, answer: "{}"},
		"null":             {code: http.StatusOK, answer: "null"},
		"another Event":    {code: http.StatusCreated, answer: `{"kind":"Event","metadata":{"name":"master-0.2","uid":"u"}}`, node: true},
		"cut off":          {code: http.StatusCreated, answer: `{"kind":"Event","metadata":{"name":"master-0.1","uid":"u"}`},
		"a refusal in 200": {code: http.StatusOK, answer: `{"kind":"Status","apiVersion":"v1","status":"Failure","code":403}`},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(c.code)
				_, _ = io.WriteString(w, c.answer)
			}))
			defer server.Close()
			client, err := kubeclient.NewClient(&rest.Config{Host: server.URL})
			if err != nil {
				t.Fatal(err)
			}
			event := &eventsv1.Event{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "master-0.1"}}
			if err := client.CreateEvent(t.Context(), event); (err == nil) != c.stored {
				t.Errorf("stored: %v", err)
			}
			uid, err := client.NodeUID(t.Context(), "master-0")
			if (err == nil) != c.node || (err == nil) != (uid == "u") {
				t.Errorf("UID %q, %v", uid, err)
			}
			http.DefaultClient.CloseIdleConnections()
		})
	}
}
