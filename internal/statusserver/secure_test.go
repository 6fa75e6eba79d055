// SPDX-License-Identifier: Apache-2.0

package statusserver

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/command"
	"github.com/kubelet-https-guard/kubelet-https-guard/internal/kubeclient"
	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/messages"
)

// serverName is the name in the serving certificates of these tests.
const serverName = "metrics.guard.svc"

// fakeAPI is an API server.
type fakeAPI struct {
	mu sync.Mutex
	// tokens are the users of tokens, and allowed the users who may get /metrics.
	tokens  map[string]kubeclient.User
	allowed []string
	ca      []byte
	profile map[string]any // custom profile of APIServer cluster, nil: no such object
	down    bool
	// asked are the requests for reviews.
	asked []string
	// wait, if not nil, delays each review of a token that is not valid.
	wait chan struct{}
}

var errDown = errors.New("connection refused")

func (f *fakeAPI) change(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func (f *fakeAPI) ReviewToken(ctx context.Context, token string) (kubeclient.User, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, "token")
	if _, ok := f.tokens[token]; f.wait != nil && !ok {
		f.mu.Unlock()
		select {
		case <-f.wait:
		case <-ctx.Done():
		}
		f.mu.Lock()
	}
	user, ok := f.tokens[token]
	switch {
	case f.down || ctx.Err() != nil:
		return kubeclient.User{}, errDown
	case !ok:
		return kubeclient.User{}, kubeclient.ErrTokenRefused
	}
	return user, nil
}

func (f *fakeAPI) MayGet(_ context.Context, user kubeclient.User, path string) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, fmt.Sprintf("%s of %s gets %s", user.Name, strings.Join(user.Groups, ","), path))
	if f.down {
		return false, errDown
	}
	return slices.Contains(f.allowed, user.Name), nil
}

func (f *fakeAPI) ClientCA(context.Context) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ca == nil {
		return nil, errDown
	}
	return f.ca, nil
}

func (f *fakeAPI) APIServerConfig(context.Context) (*unstructured.Unstructured, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.profile == nil {
		return nil, nil
	}
	return &unstructured.Unstructured{Object: map[string]any{"spec": map[string]any{"tlsSecurityProfile": map[string]any{
		"type": "Custom", "custom": f.profile,
	}}}}, nil
}

// safeBuffer is a log that several goroutines write.
type safeBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *safeBuffer) Write(data []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(data)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// site is a running server of metrics with its CAs.
type site struct {
	address, directory string
	log                *safeBuffer
	serving, clients   *pkitest.CA
	server             *Secure
}

// newSite starts a server with a user "prometheus" who is permitted without a review.
func newSite(t *testing.T, api *fakeAPI) site {
	t.Helper()
	now := time.Now()
	s := site{
		directory: t.TempDir(), log: new(safeBuffer),
		serving: pkitest.NewCAAround("serving", now), clients: pkitest.NewCAAround("clients", now),
	}
	s.write(t, now.AddDate(0, 0, 30))
	if api.ca == nil {
		api.ca = s.clients.PEM()
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(prometheus.NewGauge(prometheus.GaugeOpts{Name: "example", Help: "Of the test."}))
	options := SecureOptions{certDir: s.directory, address: "127.0.0.1:0", users: "prometheus,other"}
	log := slog.New(slog.NewTextHandler(s.log, nil))
	server, err := options.Listen(t.Context(), &rest.Config{Host: "https://127.0.0.1:1"}, registry, 0, log)
	if err != nil {
		t.Fatal(err)
	}
	server.access.api, server.cluster = api, api
	server.pairEvery, server.clusterEvery = time.Millisecond, time.Millisecond
	s.address, s.server = server.listener.Addr().String(), server
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v after its context ended", err)
		}
	})
	return s
}

// write writes a new serving certificate as kubelet does: both files are replaced at once.
func (s site) write(t *testing.T, notAfter time.Time) {
	t.Helper()
	request := pkitest.Request{CommonName: serverName, DNSNames: []string{serverName},
		Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	pair := s.serving.Issue(request.Valid(time.Now().Add(-time.Hour), notAfter))
	data := t.TempDir()
	files := map[string][]byte{"tls.crt": pair.Certificate, "tls.key": pair.Key}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(data, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	link := func(target, name string) {
		t.Helper()
		if err := os.Symlink(target, filepath.Join(s.directory, name)); err != nil && !errors.Is(err, fs.ErrExist) {
			t.Fatal(err)
		}
	}
	link(data, "..data_tmp")
	if err := os.Rename(filepath.Join(s.directory, "..data_tmp"), filepath.Join(s.directory, "..data")); err != nil {
		t.Fatal(err)
	}
	// The certificate is read first, so it is the last link to appear.
	link("..data/tls.key", "tls.key")
	link("..data/tls.crt", "tls.crt")
}

// client is how a test connects.
type client struct {
	certificate  *tls.Certificate
	header       string
	method, path string // default: GET /metrics
	config       func(*tls.Config)
}

// get returns the status of an answer and its body, and the certificate that the server presents.
func (s site) get(t *testing.T, c client) (code int, body string, leaf *x509.Certificate, err error) {
	t.Helper()
	config := &tls.Config{ServerName: serverName, RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}
	config.RootCAs.AddCert(s.serving.Certificate)
	if c.certificate != nil {
		// Presented also if the server does not name its CA.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return c.certificate, nil
		}
	}
	if c.config != nil {
		c.config(config)
	}
	transport := &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}
	method, path := "GET", "/metrics"
	if c.method != "" {
		method = c.method
	}
	if c.path != "" {
		path = c.path
	}
	request, err := http.NewRequestWithContext(t.Context(), method, "https://"+s.address+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	if c.header != "" {
		request.Header.Set("Authorization", c.header)
	}
	response, err := (&http.Client{Transport: transport, Timeout: time.Minute}).Do(request)
	if err != nil {
		return 0, "", nil, err
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	return response.StatusCode, string(content), response.TLS.PeerCertificates[0], err
}

// until waits for metrics.
func (s site) until(t *testing.T, c client) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; <-time.After(time.Millisecond) {
		got, body, _, err := s.get(t, c)
		if got == http.StatusOK {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("got %d, %q, %v\n%s", got, body, err, s.log)
		}
	}
}

// certificate issues a client certificate.
func certificate(t *testing.T, ca *pkitest.CA, change func(*pkitest.Request)) *tls.Certificate {
	t.Helper()
	request := pkitest.Request{CommonName: "prometheus", Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}.
		Valid(time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
	if change != nil {
		change(&request)
	}
	issued := ca.Issue(request)
	pair, err := tls.X509KeyPair(issued.Certificate, issued.Key)
	if err != nil {
		t.Fatal(err)
	}
	return &pair
}

// TestSecureAccess: only a client whose user may get /metrics gets metrics.
func TestSecureAccess(t *testing.T) {
	api := &fakeAPI{
		tokens: map[string]kubeclient.User{
			"good": {Name: "reader", Groups: []string{"readers", "system:authenticated"}}, "poor": {Name: "nobody"},
			"local": {Name: "other"},
		},
		allowed: []string{"reader", "admin"},
	}
	s := newSite(t, api)
	named := func(name string, groups ...string) *tls.Certificate {
		return certificate(t, s.clients, func(r *pkitest.Request) {
			r.CommonName, r.Organization = name, strings.Join(groups, "")
		})
	}
	foreign := certificate(t, pkitest.NewCAAround("clients", time.Now()), nil)
	expired := certificate(t, s.clients, func(r *pkitest.Request) { r.NotAfter = time.Now().Add(-time.Minute) })
	server := certificate(t, s.clients, func(r *pkitest.Request) {
		r.Usages = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	})
	s.until(t, client{certificate: named("prometheus")}) // the client CA is known
	page := messages.Record(t, "answers to clients that may not read metrics")
	invalid := regexp.MustCompile("x509: .*")
	cases := map[string]struct {
		client
		down     bool
		code     int
		contains string
		asked    []string
	}{
		"nothing":                {client{}, false, 401, "only to clients with", nil},
		"the local user":         {client{certificate: named("prometheus")}, false, 200, "example 0", nil},
		"the local user, down":   {client{certificate: named("prometheus")}, true, 200, "example 0", nil},
		"another user":           {client{certificate: named("admin", "admins")}, false, 200, "example 0", []string{"admin of admins,system:authenticated gets /metrics"}},
		"another user, down":     {client{certificate: named("admin", "admins")}, true, 503, "the log has", []string{"admin of admins,system:authenticated gets /metrics"}},
		"a user with no right":   {client{certificate: named("nobody")}, false, 403, `user "nobody" cannot get path "/metrics"`, []string{"nobody of system:authenticated gets /metrics"}},
		"a foreign CA":           {client{certificate: foreign}, false, 401, "not accepted: x509: certificate signed by unknown authority", nil},
		"expired":                {client{certificate: expired}, false, 401, "not accepted: x509: certificate has expired", nil},
		"for servers":            {client{certificate: server}, false, 401, "not accepted: x509: certificate specifies an incompatible key usage", nil},
		"no name":                {client{certificate: named("")}, false, 401, "names no user", nil},
		"a token":                {client{header: "Bearer good"}, false, 200, "example 0", []string{"token", "reader of readers,system:authenticated gets /metrics"}},
		"lower case":             {client{header: "bearer  good "}, false, 200, "example 0", []string{"token", "reader of readers,system:authenticated gets /metrics"}},
		"a token, down":          {client{header: "Bearer good"}, true, 503, "the log has", []string{"token"}},
		"a refused token":        {client{header: "Bearer bad"}, false, 401, "does not accept the token", []string{"token"}},
		"a token with no right":  {client{header: "Bearer poor"}, false, 403, `user "nobody" cannot get`, []string{"token", "nobody of system:authenticated gets /metrics"}},
		"the local user's token": {client{header: "Bearer local"}, false, 200, "example 0", []string{"token"}},
		"a password":             {client{header: "Basic Z29vZDpnb29k"}, false, 401, "only to clients with", nil},
		"an empty token":         {client{header: "Bearer "}, false, 401, "only to clients with", nil},
		"a foreign CA and a token": {client{certificate: foreign, header: "Bearer good"}, false, 200, "example 0", []string{
			"token", "reader of readers,system:authenticated gets /metrics",
		}},
		"a certificate before a token": {client{certificate: named("nobody"), header: "Bearer good"}, false, 403, `"nobody"`, []string{"nobody of system:authenticated gets /metrics"}},
		"health":                       {client{certificate: named("prometheus"), path: "/healthz"}, false, 404, "", nil},
		"health, nothing":              {client{path: "/healthz"}, false, 401, "", nil},
		"a write":                      {client{certificate: named("prometheus"), method: "POST"}, false, 405, "", nil},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			api.change(func() { api.down, api.asked = c.down, nil })
			s.server.access.mu.Lock()
			clear(s.server.access.decisions)
			s.server.access.mu.Unlock()
			code, body, _, err := s.get(t, c.client)
			if err != nil || code != c.code || !strings.Contains(body, c.contains) {
				t.Errorf("got %d, %q, %v; want %d, %q", code, body, err, c.code, c.contains)
			}
			if code == http.StatusUnauthorized || code == http.StatusForbidden || code == http.StatusServiceUnavailable {
				page.Text(strconv.Itoa(code), invalid.ReplaceAllString(body, "x509: <reason>"))
			}
			api.change(func() {
				if diff := cmp.Diff(c.asked, api.asked); diff != "" {
					t.Errorf("reviews (-want +got):\n%s", diff)
				}
			})
		})
	}
	if log := s.log.String(); strings.Count(log, "Request for metrics refused") != 1 {
		t.Errorf("not one refusal is logged within a minute:\n%s", log)
	}
	for _, token := range []string{"good", "bad", "poor"} {
		if strings.Contains(s.log.String(), token) {
			t.Errorf("the log has token %q", token)
		}
	}
}

// TestSecureCertificate: metrics are served as soon as there is a certificate; a renewed one is used without a restart,
// and the last valid one while the files are invalid.
func TestSecureCertificate(t *testing.T) {
	s := newSite(t, &fakeAPI{})
	prometheus := client{certificate: certificate(t, s.clients, nil)}
	s.until(t, prometheus)
	_, _, first, _ := s.get(t, prometheus)
	s.write(t, time.Now().AddDate(0, 0, 60))
	for deadline := time.Now().Add(time.Minute); ; <-time.After(time.Millisecond) {
		code, _, leaf, err := s.get(t, prometheus)
		if code != http.StatusOK {
			t.Fatalf("got %d, %v", code, err)
		}
		if !leaf.Equal(first) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the renewed certificate is not used")
		}
	}
	if err := os.Remove(filepath.Join(s.directory, "tls.key")); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); !strings.Contains(s.log.String(), "keeping the last valid one"); {
		if time.Now().After(deadline) {
			t.Fatal("the missing file is not logged")
		}
		<-time.After(time.Millisecond)
	}
	if code, _, _, err := s.get(t, prometheus); code != http.StatusOK {
		t.Errorf("without files: %d, %v", code, err)
	}
	if strings.Contains(s.log.String(), "PRIVATE") {
		t.Error("the log has a key")
	}
}

// TestSecureWithoutCertificate: without files handshakes fail, and Run does not.
func TestSecureWithoutCertificate(t *testing.T) {
	api := &fakeAPI{}
	s := newSite(t, api)
	for _, name := range []string{"tls.crt", "tls.key"} {
		if err := os.Remove(filepath.Join(s.directory, name)); err != nil {
			t.Fatal(err)
		}
	}
	later := site{directory: s.directory, log: new(safeBuffer), serving: s.serving, clients: s.clients}
	options := SecureOptions{certDir: s.directory, address: "127.0.0.1:0", users: "prometheus"}
	log := slog.New(slog.NewTextHandler(later.log, nil))
	server, err := options.Listen(t.Context(), &rest.Config{Host: "https://127.0.0.1:1"}, prometheus.NewRegistry(), 0, log)
	if err != nil {
		t.Fatal(err)
	}
	server.access.api, server.cluster, server.pairEvery = api, api, time.Millisecond
	later.address = server.listener.Addr().String()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx) }()
	one := client{certificate: certificate(t, s.clients, nil)}
	if code, _, _, err := later.get(t, one); err == nil {
		t.Errorf("got %d, want a failed handshake", code)
	}
	later.write(t, time.Now().AddDate(0, 0, 30))
	later.until(t, one)
	if got := strings.Count(later.log.String(), "Metrics are not served until"); got != 1 {
		t.Errorf("the missing certificate is logged %d times, want 1:\n%s", got, later.log)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestSecureCluster: the cluster's client CA and TLS security profile are followed.
func TestSecureCluster(t *testing.T) {
	api := &fakeAPI{}
	s := newSite(t, api)
	other := pkitest.NewCAAround("renewed", time.Now())
	before, after := client{certificate: certificate(t, s.clients, nil)}, client{certificate: certificate(t, other, nil)}
	s.until(t, before)
	if code, _, _, _ := s.get(t, after); code != http.StatusUnauthorized {
		t.Fatalf("the CA is not known yet: got %d", code)
	}
	api.change(func() { api.ca = append(s.clients.PEM(), other.PEM()...) })
	s.until(t, after)
	s.until(t, before)
	api.change(func() { api.ca = nil }) // cannot be read
	for !strings.Contains(s.log.String(), "Client CA for metrics not read") {
		<-time.After(time.Millisecond)
	}
	s.until(t, after)

	api.change(func() {
		api.profile = map[string]any{"minTLSVersion": "VersionTLS13", "groups": []any{"secp384r1", "brainpool"}}
	})
	with := func(change func(*tls.Config)) client { return client{certificate: before.certificate, config: change} }
	p256 := with(func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{tls.CurveP256} })
	for deadline := time.Now().Add(time.Minute); ; <-time.After(time.Millisecond) {
		if _, _, _, err := s.get(t, p256); err != nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the groups of the profile are not followed")
		}
	}
	if _, _, _, err := s.get(t, with(func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 })); err == nil {
		t.Error("the version of the profile is not followed")
	}
	s.until(t, before)
	if got := strings.Count(s.log.String(), "TLS security profile not applied to metrics"); got != 1 ||
		!strings.Contains(s.log.String(), "brainpool") {
		t.Errorf("the unknown group is logged %d times, want 1:\n%s", got, s.log)
	}
}

// TestSecureClientCAUnknown: until the client CA is known, certificates are refused as what cannot be decided.
func TestSecureClientCAUnknown(t *testing.T) {
	s := newSite(t, &fakeAPI{ca: []byte("garbage"), tokens: map[string]kubeclient.User{"good": {Name: "other"}}})
	s.until(t, client{header: "Bearer good"}) // the server has read its own certificate
	code, body, _, err := s.get(t, client{certificate: certificate(t, s.clients, nil)})
	if code != http.StatusServiceUnavailable || err != nil {
		t.Errorf("got %d, %q, %v", code, body, err)
	}
}

// TestDecisionsAreKept: for a minute, at most maxDecisions, and never the answer "not decided".
func TestDecisionsAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := &fakeAPI{tokens: map[string]kubeclient.User{"good": {Name: "reader"}}, allowed: []string{"reader"}}
		a := newAccess(api, nil, time.Now, slog.New(slog.DiscardHandler))
		ask := func(token string, code, reviews int) {
			t.Helper()
			request := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", http.NoBody)
			request.Header.Set("Authorization", "Bearer "+token)
			api.asked = nil
			if got := a.decide(request); got.code != code || len(api.asked) != reviews {
				t.Errorf("%s: got %d after %v, want %d after %d reviews", token, got.code, api.asked, code, reviews)
			}
		}
		api.down = true
		ask("good", 503, 1)
		api.down = false
		ask("good", 200, 2)
		ask("good", 200, 0)
		ask("bad", 401, 1)
		ask("bad", 401, 0)
		<-time.After(decisionTime)
		ask("good", 200, 2)
		ask("bad", 401, 1)
		for i := range 3 * maxDecisions {
			<-time.After(time.Millisecond) // of refusals from one instant, any makes room
			ask(fmt.Sprint(i), 401, 1)
			if len(a.decisions) > maxDecisions {
				t.Fatalf("%d decisions are kept", len(a.decisions))
			}
		}
		ask("good", 200, 0) // refusals have not displaced it
		ask("0", 401, 1)
		api.tokens["good"] = kubeclient.User{Name: "nobody"}
		<-time.After(decisionTime)
		ask("good", 403, 2)
	})
}

// TestReviewsAreLimited: at most maxReviews run at one time, and other requests wait for a bounded time.
func TestReviewsAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := &fakeAPI{wait: make(chan struct{}), tokens: map[string]kubeclient.User{}}
		a := newAccess(api, nil, time.Now, slog.New(slog.DiscardHandler))
		began := time.Now()
		codes := make(chan int, 3*maxReviews)
		for i := range cap(codes) {
			go func() {
				request := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", http.NoBody)
				request.Header.Set("Authorization", fmt.Sprint("Bearer ", i))
				codes <- a.decide(request).code
			}()
		}
		synctest.Wait()
		api.change(func() {
			if len(api.asked) != maxReviews {
				t.Errorf("%d reviews at one time, want %d", len(api.asked), maxReviews)
			}
		})
		for range cap(codes) {
			if code := <-codes; code != http.StatusServiceUnavailable {
				t.Errorf("got %d", code)
			}
		}
		if took := time.Since(began); took > 2*reviewTime {
			t.Errorf("took %s", took)
		}
	})
}

// TestUnknownClientsDoNotDelayKnown: a client that was permitted gets its next reviews while unknown clients use up
// theirs, for knownTime, and only until it is refused. Being known permits nothing.
func TestUnknownClientsDoNotDelayKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := &fakeAPI{
			tokens:  map[string]kubeclient.User{"good": {Name: "reader"}},
			allowed: []string{"reader"},
		}
		a := newAccess(api, nil, time.Now, slog.New(slog.DiscardHandler))
		ask := func(token string) int {
			request := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", http.NoBody)
			request.Header.Set("Authorization", "Bearer "+token)
			return a.decide(request).code
		}
		if code := ask("good"); code != http.StatusOK {
			t.Fatalf("got %d", code)
		}
		for i := range 2 * maxDecisions {
			ask(fmt.Sprint(i)) // refused, and kept
		}
		api.wait = make(chan struct{})
		<-time.After(2 * decisionTime)
		var unknown sync.WaitGroup
		for i := range 90 {
			unknown.Go(func() { ask(fmt.Sprint("bad ", i)) })
		}
		synctest.Wait()
		began := time.Now()
		if code := ask("good"); code != http.StatusOK || time.Since(began) > 0 {
			t.Errorf("got %d after %s, want 200 at once", code, time.Since(began))
		}
		unknown.Wait()
	})
	t.Run("refused", func(t *testing.T) {
		now := time.Now()
		api := &fakeAPI{tokens: map[string]kubeclient.User{"good": {Name: "reader"}}, allowed: []string{"reader"}}
		a := newAccess(api, nil, func() time.Time { return now }, slog.New(slog.DiscardHandler))
		request := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", http.NoBody)
		request.Header.Set("Authorization", "Bearer good")
		id := identity(sha256.Sum256([]byte("token good")))
		for _, code := range []int{200, 403} {
			if got := a.decide(request).code; got != code {
				t.Errorf("got %d, want %d", got, code)
			}
			if last, _ := a.kept(id); last.isKnown(now.Add(knownTime)) != (code == http.StatusOK) ||
				last.isKnown(now.Add(decisionTime+knownTime)) {
				t.Errorf("after %d: known at the wrong time", code)
			}
			now, api.allowed = now.Add(decisionTime), nil
		}
	})
}

// TestSecureOptions: usage errors name the flag; without --metrics-cert-dir metrics stay on plain HTTP.
func TestSecureOptions(t *testing.T) {
	directory := t.TempDir()
	for name, c := range map[string]struct {
		arguments []string
		enabled   bool
		fault     string
	}{
		"off":          {},
		"on":           {[]string{"--metrics-cert-dir", directory, "--metrics-allowed-users", "a,b"}, true, ""},
		"no directory": {[]string{"--metrics-cert-dir", directory + "/x"}, true, "--metrics-cert-dir " + directory + "/x: no such directory"},
		"no port":      {[]string{"--metrics-tls-bind-address", "8443"}, false, `--metrics-tls-bind-address "8443"`},
		"users alone":  {[]string{"--metrics-allowed-users", "a"}, false, "--metrics-allowed-users requires --metrics-cert-dir"},
	} {
		t.Run(name, func(t *testing.T) {
			var options SecureOptions
			flags := flag.NewFlagSet("test", flag.ContinueOnError)
			options.Flags(flags, "health-bind-address")
			if err := flags.Parse(c.arguments); err != nil {
				t.Fatal(err)
			}
			err := options.Validate()
			if (err == nil) != (c.fault == "") || err != nil && !strings.HasPrefix(err.Error(), c.fault) {
				t.Errorf("error %v, want %q", err, c.fault)
			}
			if err != nil && !command.IsUsage(err) {
				t.Errorf("no usage error: %v", err)
			}
			registry := prometheus.NewRegistry()
			if options.Enabled() != c.enabled || (options.Plain(registry) == nil) != c.enabled {
				t.Errorf("enabled: %v, plain: %v", options.Enabled(), options.Plain(registry))
			}
			if err := options.CheckAPIServer(kubeclient.ErrNoAPIServer); (err != nil) != c.enabled {
				t.Errorf("without an API server: %v", err)
			}
		})
	}
	var off SecureOptions
	if server, err := off.Listen(t.Context(), nil, nil, 0, nil); server != nil || err != nil {
		t.Errorf("off: %v, %v", server, err)
	}
	taken, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	on := SecureOptions{certDir: directory, address: taken.Addr().String()}
	_, err = on.Listen(t.Context(), &rest.Config{Host: "https://127.0.0.1:1"}, nil, 0, slog.New(slog.DiscardHandler))
	if err == nil || !strings.HasPrefix(err.Error(), "--metrics-tls-bind-address "+on.address+": ") {
		t.Errorf("an address in use: %v", err)
	}
}

// TestServeWithoutMetrics: the port of probes has no metrics if they are served over HTTPS.
func TestServeWithoutMetrics(t *testing.T) {
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	fine := func(context.Context) error { return nil }
	go func() { ended <- Serve(ctx, listener, nil, fine, fine) }()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for path, code := range map[string]int{"/metrics": 404, "/healthz": 200, "/readyz": 200} {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+listener.Addr().String()+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		response, err := client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		if response.StatusCode != code {
			t.Errorf("%s: got %d, want %d", path, response.StatusCode, code)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
