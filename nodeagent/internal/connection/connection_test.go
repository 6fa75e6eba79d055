// SPDX-License-Identifier: Apache-2.0

package connection_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"k8s.io/client-go/rest"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/nodeagent/internal/connection"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/messages"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	endpoints = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes"
	podLog    = "/api/v1/namespaces/guard/pods/agent-x/log?container=nodeagent&limitBytes=1&tailLines=1"
)

// apiServer is an API server that records the requests for the agent's log. Its certificate is valid only for
// kubernetes.default.svc.
type apiServer struct {
	*httptest.Server
	name string
	// slice is its answer to a request for the EndpointSlice, log that to one for the agent's log. The zero value is 404.
	slice string
	log   []http.HandlerFunc // one for each request; the last one for all that follow
	// lookup answers a request for the EndpointSlice instead, if it is not nil.
	lookup http.HandlerFunc

	mu   sync.Mutex
	seen []string
}

func startAPIServer(t *testing.T, ca *pkitest.CA, name string) *apiServer {
	t.Helper()
	s := &apiServer{name: name}
	now := time.Now()
	dnsName := "kubernetes.default.svc"
	if strings.Contains(name, ".") { // a server of another name
		dnsName = name
	}
	pair := ca.Issue(pkitest.Request{CommonName: "kube-apiserver", DNSNames: []string{dnsName}}.
		Valid(now.Add(-time.Hour), now.Add(time.Hour)))
	certificate, err := tls.X509KeyPair(pair.Certificate, pair.Key)
	if err != nil {
		t.Fatal(err)
	}
	s.Server = httptest.NewUnstartedServer(s)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

func (s *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == endpoints && s.lookup != nil {
		s.lookup(w, r)
		return
	}
	if r.URL.Path == endpoints && s.slice != "" {
		_, _ = w.Write([]byte(s.slice))
		return
	}
	if r.URL.Path == endpoints || r.URL.RequestURI() != podLog || r.Method != http.MethodGet ||
		r.Header.Get("Authorization") != "Bearer token" {
		http.NotFound(w, r)
		return
	}
	s.mu.Lock()
	s.seen = append(s.seen, s.name)
	answer := s.log[min(len(s.seen), len(s.log))-1]
	s.mu.Unlock()
	answer(w, r)
}

func (s *apiServer) requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen
}

// at returns an EndpointSlice with the server's address, after one of another node.
func (s *apiServer) at(t *testing.T) string {
	t.Helper()
	host, port, err := net.SplitHostPort(s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf(`{"kind":"EndpointSlice","endpoints":[{"addresses":["192.0.2.1"]},{"addresses":[%q]}],`+
		`"ports":[{"name":"other","port":1},{"name":"https","port":%s}]}`, host, port)
}

func line(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("x")) }

func failure(code int, kind, message string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(map[string]any{
			"kind": "Status", "apiVersion": "v1", "message": message, "details": map[string]any{"kind": kind},
		})
	}
}

func body(code int, text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(code)
		_, _ = w.Write([]byte(text))
	}
}

func newAsker(t *testing.T, ca *pkitest.CA, service *apiServer, node string) *connection.Asker {
	t.Helper()
	asker, err := connection.New(connection.Options{
		API: &rest.Config{Host: service.URL, BearerToken: "token", TLSClientConfig: rest.TLSClientConfig{
			CAData: ca.PEM(), ServerName: "kubernetes.default.svc",
		}},
		Namespace: "guard", Pod: "agent-x", Node: node,
	})
	if err != nil {
		t.Fatal(err)
	}
	return asker
}

// TestAsk: the agent asks this node's kube-apiserver if it finds it, else the Service.
func TestAsk(t *testing.T) {
	ca := pkitest.NewCAAround("ca", time.Now())
	const changed = `Get "https://192.0.2.7:10250/containerLogs/a/b/c": write tcp: use of closed network connection`
	type asked struct {
		State          check.ConnectionState
		ThroughService bool
		By             []string // the servers that were asked for the log
	}
	cases := map[string]struct {
		node  string
		slice func(own *apiServer) string
		log   []http.HandlerFunc
		want  asked
	}{
		"own": {
			node: "127.0.0.1", log: []http.HandlerFunc{line},
			want: asked{State: check.ConnectionWorks, By: []string{"own"}},
		},
		"own, mapped to IPv6": {
			node: "::ffff:127.0.0.1", log: []http.HandlerFunc{line},
			want: asked{State: check.ConnectionWorks, By: []string{"own"}},
		},
		"own, refused": {
			node: "127.0.0.1", log: []http.HandlerFunc{failure(401, "pods/log", "the server has asked for the client to provide credentials")},
			want: asked{State: check.ConnectionUnauthenticated, By: []string{"own"}},
		},
		"own, just changed": {
			node: "127.0.0.1", log: []http.HandlerFunc{failure(500, "", changed), line},
			want: asked{State: check.ConnectionWorks, By: []string{"own", "own"}},
		},
		"own, changed twice": {
			node: "127.0.0.1", log: []http.HandlerFunc{failure(500, "", changed)},
			want: asked{State: check.ConnectionUnknown, By: []string{"own", "own"}},
		},
		"own, a redirect": {
			node: "127.0.0.1", log: []http.HandlerFunc{func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, "http://127.0.0.1:1/login", http.StatusFound)
			}},
			want: asked{State: check.ConnectionUnknown, By: []string{"own"}},
		},
		"own, garbage": {
			node: "127.0.0.1", log: []http.HandlerFunc{body(500, "x509: certificate signed by unknown authority")},
			want: asked{State: check.ConnectionUnknown, By: []string{"own"}},
		},
		"own, an answer without end": {
			node: "127.0.0.1", log: []http.HandlerFunc{body(500, `{"kind":"Status","message":"`+strings.Repeat("x", 1<<20))},
			want: asked{State: check.ConnectionUnknown, By: []string{"own"}},
		},
		"own, cut off": {
			node: "127.0.0.1", log: []http.HandlerFunc{func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }},
			want: asked{State: check.ConnectionUnknown, By: []string{"own"}},
		},
		"another node": {
			node: "192.0.2.7", log: []http.HandlerFunc{line},
			want: asked{State: check.ConnectionWorks, ThroughService: true, By: []string{"service"}},
		},
		"node not known": {
			node: "", log: []http.HandlerFunc{line},
			want: asked{State: check.ConnectionWorks, ThroughService: true, By: []string{"service"}},
		},
		"node known by name only": {
			node: "master-0", log: []http.HandlerFunc{line},
			want: asked{State: check.ConnectionWorks, ThroughService: true, By: []string{"service"}},
		},
		"no EndpointSlice": {
			node: "127.0.0.1", slice: func(*apiServer) string { return "" }, log: []http.HandlerFunc{line},
			want: asked{State: check.ConnectionWorks, ThroughService: true, By: []string{"service"}},
		},
		"an EndpointSlice that is garbage": {
			node: "127.0.0.1", slice: func(*apiServer) string { return "[" }, log: []http.HandlerFunc{line},
			want: asked{State: check.ConnectionWorks, ThroughService: true, By: []string{"service"}},
		},
		"an EndpointSlice without a port": {
			node: "127.0.0.1", slice: func(*apiServer) string { return `{"endpoints":[{"addresses":["127.0.0.1"]}]}` },
			log:  []http.HandlerFunc{line},
			want: asked{State: check.ConnectionWorks, ThroughService: true, By: []string{"service"}},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			service, own := startAPIServer(t, ca, "service"), startAPIServer(t, ca, "own")
			own.Config.ErrorLog, service.Config.ErrorLog = discard(), discard()
			service.log, own.log, service.slice = c.log, c.log, own.at(t)
			if c.slice != nil {
				service.slice = c.slice(own)
			}
			answer := newAsker(t, ca, service, c.node).Ask(t.Context())
			got := asked{answer.State, answer.ThroughService, append(service.requests(), own.requests()...)}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("(-want +got):\n%s\n%+v", d, answer)
			}
		})
	}
	t.Run("no API server", func(t *testing.T) {
		service := startAPIServer(t, ca, "service")
		asker := newAsker(t, ca, service, "127.0.0.1")
		service.Close()
		answer := asker.Ask(t.Context())
		if answer.State != check.ConnectionUnknown || strings.Contains(answer.Why, "127.0.0.1") {
			t.Errorf("%+v", answer)
		}
	})
	t.Run("an API server of another CA", func(t *testing.T) {
		service := startAPIServer(t, pkitest.NewCAAround("foreign", time.Now()), "service")
		service.log, service.Config.ErrorLog = []http.HandlerFunc{line}, discard()
		if answer := newAsker(t, ca, service, "").Ask(t.Context()); answer.State != check.ConnectionUnknown ||
			len(service.requests()) != 0 {
			t.Errorf("%+v, requests %v", answer, service.requests())
		}
	})
}

func discard() *log.Logger { return log.New(io.Discard, "", 0) }

// transport answers every request, without a network.
type transport struct {
	mu    sync.Mutex
	times []time.Duration
	begin time.Time
}

func (tr *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if strings.Contains(r.URL.Path, "/log") {
		tr.times = append(tr.times, time.Since(tr.begin))
	}
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader("x")), Request: r}, nil
}

// TestRun: it asks at once, and never sooner than 2 minutes after the last time: until then the kube-apiserver may
// use a connection that it had before.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := &transport{begin: time.Now()}
		asker, err := connection.New(connection.Options{
			API: &rest.Config{Host: "https://192.0.2.1", Transport: tr}, Namespace: "guard", Pod: "agent-x",
		})
		if err != nil {
			t.Fatal(err)
		}
		if asker.Answer() != nil {
			t.Error("an answer before the first request")
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- asker.Run(ctx) }()
		for range 3 {
			<-asker.Answered()
			if got := asker.Answer(); got == nil || got.State != check.ConnectionWorks {
				t.Errorf("answer %+v", got)
			}
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		tr.mu.Lock()
		defer tr.mu.Unlock()
		if len(tr.times) != 3 || tr.times[0] != 0 {
			t.Fatalf("requests at %v", tr.times)
		}
		for i, at := range tr.times[1:] {
			if pause := at - tr.times[i]; pause < 2*time.Minute || pause > 2*time.Minute+10*time.Second {
				t.Errorf("a pause of %s", pause)
			}
		}
	})
}

// TestAskSoon: after a change of files the next request does not wait for the interval, but there is a least time
// between two requests, and the last one is after the last change.
func TestAskSoon(t *testing.T) {
	cases := map[string]struct{ changes, want []time.Duration }{
		"at once":                   {[]time.Duration{30 * time.Second}, []time.Duration{0, 30 * time.Second}},
		"soon after a request":      {[]time.Duration{5 * time.Second}, []time.Duration{0, 20 * time.Second}},
		"twice":                     {[]time.Duration{30 * time.Second, 31 * time.Second}, []time.Duration{0, 30 * time.Second, 50 * time.Second}},
		"often, within the minimum": {[]time.Duration{1 * time.Second, 2 * time.Second, 19 * time.Second}, []time.Duration{0, 20 * time.Second}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tr := &transport{begin: time.Now()}
				asker, err := connection.New(connection.Options{
					API: &rest.Config{Host: "https://192.0.2.1", Transport: tr}, Namespace: "guard", Pod: "agent-x",
				})
				if err != nil {
					t.Fatal(err)
				}
				ctx, stop := context.WithCancel(t.Context())
				ended := make(chan error, 1)
				go func() { ended <- asker.Run(ctx) }()
				for _, at := range c.changes {
					<-time.After(at - time.Since(tr.begin))
					asker.AskSoon()
				}
				<-time.After(110*time.Second - time.Since(tr.begin))
				stop()
				if err := <-ended; err != nil {
					t.Error(err)
				}
				tr.mu.Lock()
				defer tr.mu.Unlock()
				if d := cmp.Diff(c.want, tr.times); d != "" {
					t.Errorf("requests (-want +got):\n%s", d)
				}
			})
		})
	}
}

// TestOwnServerGone: after this node's kube-apiserver was found, the answer of another one does not count.
func TestOwnServerGone(t *testing.T) {
	ca := pkitest.NewCAAround("ca", time.Now())
	service, own := startAPIServer(t, ca, "service"), startAPIServer(t, ca, "own")
	service.log, own.log = []http.HandlerFunc{line}, []http.HandlerFunc{failure(http.StatusUnauthorized, "pods/log", "no")}
	service.slice = own.at(t)
	asker := newAsker(t, ca, service, "127.0.0.1")
	if answer := asker.Ask(t.Context()); answer.State != check.ConnectionUnauthenticated {
		t.Errorf("by this node's: %+v", answer)
	}
	service.slice = `{"endpoints":[]}`
	if answer := asker.Ask(t.Context()); answer.State != check.ConnectionUnknown || len(service.requests()) != 0 {
		t.Errorf("without this node's: %+v, requests %v", answer, service.requests())
	}
}

// TestLookupFails: after this node's kube-apiserver was found, a lookup that fails has a cause of its own, which is not
// that the server is gone.
func TestLookupFails(t *testing.T) {
	ca := pkitest.NewCAAround("ca", time.Now())
	page := messages.Record(t, "what a failed lookup of this node's kube-apiserver shows")
	causes := map[string]string{}
	for name, lookup := range map[string]http.HandlerFunc{
		"not listed":   body(http.StatusOK, `{"endpoints":[]}`),
		"token":        failure(http.StatusUnauthorized, "", "Unauthorized"),
		"right":        failure(http.StatusForbidden, "endpointslices", "no"),
		"overloaded":   failure(http.StatusTooManyRequests, "", "no"),
		"not ready":    failure(http.StatusServiceUnavailable, "", "no"),
		"garbage":      body(http.StatusOK, "["),
		"server error": failure(http.StatusInternalServerError, "", "no"),
		"cut off":      func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		t.Run(name, func(t *testing.T) {
			service, own := startAPIServer(t, ca, "service"), startAPIServer(t, ca, "own")
			service.Config.ErrorLog = discard()
			service.slice, own.log = own.at(t), []http.HandlerFunc{line}
			asker := newAsker(t, ca, service, "127.0.0.1")
			if answer := asker.Ask(t.Context()); answer.State != check.ConnectionWorks {
				t.Fatalf("by this node's: %+v", answer)
			}
			service.lookup = lookup
			answer := asker.Ask(t.Context())
			if answer.State != check.ConnectionUnknown || len(own.requests()) != 1 || len(service.requests()) != 0 {
				t.Errorf("%+v, requests %v %v", answer, own.requests(), service.requests())
			}
			if other, known := causes[answer.Why]; known {
				t.Errorf("the same cause as %q: %s", other, answer.Why)
			}
			causes[answer.Why] = name
			page.Text(name, answer.Why+"; fix: "+answer.Remedy)
		})
	}
}

// TestErrorsQuoteNothing: a peer that is not the API server cannot write into messages.
func TestErrorsQuoteNothing(t *testing.T) {
	const name = "attention.run-this.example"
	ca, foreign := pkitest.NewCAAround("ca", time.Now()), pkitest.NewCAAround("foreign", time.Now())
	service, own := startAPIServer(t, ca, "service"), startAPIServer(t, foreign, name)
	own.Config.ErrorLog, service.slice = discard(), own.at(t)
	answer := newAsker(t, ca, service, "127.0.0.1").Ask(t.Context())
	if answer.State != check.ConnectionUnknown || strings.Contains(answer.Why, name) {
		t.Errorf("%+v", answer)
	}
}

// TestPlainHTTP: the token is never sent without TLS.
func TestPlainHTTP(t *testing.T) {
	_, err := connection.New(connection.Options{API: &rest.Config{Host: "http://192.0.2.1"}, Namespace: "a", Pod: "b"})
	if err == nil {
		t.Error("no error")
	}
}

// TestFailureStays: answers that show nothing do not end a failure that was observed a short time before.
func TestFailureStays(t *testing.T) {
	const refused, broken, works = "refused", "broken", "works"
	cases := map[string]struct {
		answers []string
		want    []check.ConnectionState
	}{
		"a failure with gaps": {
			[]string{refused, broken, refused, broken, broken},
			slices.Repeat([]check.ConnectionState{check.ConnectionUnauthenticated}, 5),
		},
		"it ends": {
			[]string{refused, broken, works}, []check.ConnectionState{
				check.ConnectionUnauthenticated, check.ConnectionUnauthenticated, check.ConnectionWorks,
			},
		},
		"works, then unknown": {
			[]string{works, broken, works},
			[]check.ConnectionState{check.ConnectionWorks, check.ConnectionUnknown, check.ConnectionWorks},
		},
		"seen once: not as long as the agent waits until it reports it": {
			append([]string{refused}, slices.Repeat([]string{broken}, 3)...),
			append(slices.Repeat([]check.ConnectionState{check.ConnectionUnauthenticated}, 3), check.ConnectionUnknown),
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				answers := make(chan string, len(c.answers))
				for _, answer := range c.answers {
					answers <- answer
				}
				asker, err := connection.New(connection.Options{
					API: &rest.Config{Host: "https://192.0.2.1", Transport: scripted(answers)}, Namespace: "guard", Pod: "agent-x",
				})
				if err != nil {
					t.Fatal(err)
				}
				ctx, stop := context.WithCancel(t.Context())
				ended := make(chan error, 1)
				go func() { ended <- asker.Run(ctx) }()
				var got []check.ConnectionState
				for range c.answers {
					<-asker.Answered()
					got = append(got, asker.Answer().State)
				}
				stop()
				if err := <-ended; err != nil {
					t.Error(err)
				}
				if d := cmp.Diff(c.want, got); d != "" {
					t.Errorf("(-want +got):\n%s", d)
				}
			})
		})
	}
}

// scripted answers each request with the next of its answers, without a network.
type scripted chan string

func (s scripted) RoundTrip(r *http.Request) (*http.Response, error) {
	code, text := http.StatusOK, "x"
	switch <-s {
	case "refused":
		code, text = http.StatusUnauthorized, `{"kind":"Status","details":{"kind":"pods/log"}}`
	case "broken":
		code = http.StatusServiceUnavailable
	}
	return &http.Response{StatusCode: code, Body: io.NopCloser(strings.NewReader(text)), Request: r}, nil
}
