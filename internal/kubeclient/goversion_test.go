// SPDX-License-Identifier: Apache-2.0

package kubeclient_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"k8s.io/client-go/rest"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/kubeclient"
)

// TestGoRelease: the Go release from the answers of API servers and of other servers.
func TestGoRelease(t *testing.T) {
	for name, c := range map[string]struct {
		status       int
		answer, want string
	}{
		"Kubernetes 1.37": {200, `{"major":"1","minor":"37","gitVersion":"v1.37.2","goVersion":"go1.26.8"}`, "go1.26.8"},
		"no field":        {200, `{}`, ""},
		"another type":    {200, `{"goVersion":1}`, ""},
		"no JSON":         {200, `<html>`, ""},
		"forbidden":       {403, `{"goVersion":"go1.26.8"}`, ""},
		"too long a text": {200, `{"goVersion":"go1.26.8` + strings.Repeat("x", 200) + `"}`, ""},
		"too many bytes":  {200, `{"a":"` + strings.Repeat("x", 1<<20) + `","goVersion":"go1.26.8"}`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/version" {
					t.Errorf("request for %s", r.URL.Path)
				}
				w.WriteHeader(c.status)
				_, _ = w.Write([]byte(c.answer))
			}))
			t.Cleanup(server.Close)
			release, err := kubeclient.NewGoRelease(&rest.Config{Host: server.URL})
			if err != nil {
				t.Fatal(err)
			}
			if got := release.Version(); got != "" {
				t.Errorf("before it was read: %q", got)
			}
			release.Read(t.Context())
			if got := release.Version(); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
			server.Close()
			release.Read(t.Context())
			if got := release.Version(); got != "" {
				t.Errorf("after the server ended: %q", got)
			}
		})
	}
	if got := (*kubeclient.GoRelease)(nil).Version(); got != "" {
		t.Errorf("without an API server: %q", got)
	}
}
