// SPDX-License-Identifier: Apache-2.0

package served

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/handshake"
	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/listen"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/messages"
)

// serve is a TLS server with a certificate. names receives the server names of its clients.
func serve(t *testing.T, pair pkitest.Pair, more int, names func(string)) netip.AddrPort {
	t.Helper()
	own, err := tls.X509KeyPair(pair.Certificate, pair.Key)
	if err != nil {
		t.Fatal(err)
	}
	for range more {
		own.Certificate = append(own.Certificate, pkitest.NewCA("more").Certificate.Raw)
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	config.GetCertificate = func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
		names(h.ServerName)
		return &own, nil
	}
	return listen.Serve(t, func(c net.Conn) {
		server := tls.Server(c, config)
		if server.HandshakeContext(t.Context()) == nil {
			if n, _ := server.Read(make([]byte, 1)); n > 0 { // until the client closes
				t.Error("the client sent data")
			}
		}
	})
}

// allowLoopback refuses what [handshake.Refuse] refuses, except loopback.
func allowLoopback(address netip.Addr) string {
	if address.Unmap().IsLoopback() {
		return ""
	}
	return handshake.Refuse(address, nil)
}

func newAsker(now func() time.Time, endpoints ...Endpoint) *Asker {
	return &Asker{
		Endpoints: func(context.Context, Target, int) ([]Endpoint, int, error) { return endpoints, 0, nil },
		Refuse:    allowLoopback, Random: rand.New(rand.NewPCG(1, 2)), Now: now,
	}
}

func targetOf(pair pkitest.Pair) Target {
	return Target{
		Namespace: "openshift-apiserver", Service: "api", Port: "https", ServerName: "api.openshift-apiserver.svc",
		Stored: sha256.Sum256(pair.Leaf.Raw),
	}
}

// TestAsk: what each kind of endpoint serves, or why that is not known. No message quotes what a peer sends.
func TestAsk(t *testing.T) {
	page := messages.Record(t, "errors of endpoints")
	const secret = "MARKER-OF-THE-PEER"
	pair := pkitest.NewCA("service-ca").Issue(pkitest.ServingCert())
	var name atomic.Value
	remember := func(n string) { name.Store(n) }
	at := func(address string) Endpoint { return Endpoint{Address: netip.MustParseAddrPort(address)} }
	good := serve(t, pair, 1, remember)
	type seen struct {
		Serves bool
		Why    string
	}
	cases := map[string]struct {
		endpoint Endpoint
		want     seen
	}{
		"serves it": {Endpoint{Address: good}, seen{Serves: true}},
		"not asked": {Endpoint{Address: good, Problem: "it is not ready"}, seen{Why: "it is not ready"}},
		"garbage": {Endpoint{Address: listen.Serve(t, func(c net.Conn) {
			_, _ = c.Write([]byte(strings.Repeat(secret, 1000)))
		})}, seen{Why: "it does not speak TLS"}},
		"plain HTTP": {Endpoint{Address: listen.Serve(t, func(c net.Conn) {
			_, _ = c.Read(make([]byte, 1<<10))
			_, _ = c.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n" + secret))
		})}, seen{Why: "it does not speak TLS"}},
		"never finishes the handshake": {Endpoint{Address: listen.Serve(t, func(c net.Conn) {
			_, _ = io.Copy(io.Discard, c)
		})}, seen{Why: "no answer within 3s"}},
		"endless certificates": {Endpoint{Address: listen.Serve(t, func(c net.Conn) {
			_, _ = c.Read(make([]byte, 16<<10))
			record := append([]byte{22, 3, 3, 0x3f, 0xff}, make([]byte, 0x3fff)...)
			record[5], record[6], record[7], record[8] = 11, 0, 0xff, 0xff
			for {
				if _, err := c.Write(record); err != nil {
					return
				}
			}
		})}, seen{Why: "the server sent more than 48 KiB before the handshake was complete"}},
		"too many certificates": {
			Endpoint{Address: serve(t, pair, 10, remember)}, seen{Why: "the server sent 11 certificates, more than 10"},
		},
		"nothing listens": {at("127.0.0.1:1"), seen{Why: "connect: connection refused"}},
		"link-local": {
			at("169.254.169.254:443"), seen{Why: "its address is in a range in which no Pod is: link-local"},
		},
		"mapped link-local": {
			at("[::ffff:169.254.169.254]:443"), seen{Why: "its address is in a range in which no Pod is: link-local"},
		},
		"metadata": {
			at("100.100.100.200:443"),
			seen{Why: "its address is in a range in which no Pod is: the metadata service of a cloud"},
		},
		"multicast": {at("[ff02::1]:443"), seen{Why: "its address is in a range in which no Pod is: multicast"}},
	}
	for caseName, c := range cases {
		t.Run(caseName, func(t *testing.T) {
			a := newAsker(time.Now, c.endpoint)
			answers := a.Once(t.Context(), []Target{targetOf(pair)}, askTime)[targetOf(pair)]
			if len(answers.Endpoints) != 1 {
				t.Fatalf("got %+v", answers)
			}
			one := answers.Endpoints[0]
			page.Error(caseName, errors.New(one.Why))
			if d := cmp.Diff(c.want, seen{one.Serves(pair.Leaf), one.Why}); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
			if strings.Contains(one.Why, secret) {
				t.Errorf("%q quotes the peer", one.Why)
			}
		})
	}
	if got := name.Load(); got != "api.openshift-apiserver.svc" {
		t.Errorf("the server name was %v", got)
	}
	t.Run("loopback", func(t *testing.T) { // the product's own function
		a := newAsker(time.Now, Endpoint{Address: good})
		a.Refuse = func(address netip.Addr) string { return handshake.Refuse(address, nil) }
		one := a.Once(t.Context(), []Target{targetOf(pair)}, askTime)[targetOf(pair)].Endpoints[0]
		if one.Leaf != nil || one.Why != "its address is in a range in which no Pod is: loopback" {
			t.Errorf("got %+v", one)
		}
	})
}

// TestHangingEndpoints: endpoints that hang are asked at the same time, and the time is bounded.
func TestHangingEndpoints(t *testing.T) {
	pair := pkitest.NewCA("service-ca").Issue(pkitest.ServingCert())
	hanging := listen.Serve(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	endpoints := []Endpoint{{Address: serve(t, pair, 0, func(string) {})}}
	for range maxInFlight {
		endpoints = append(endpoints, Endpoint{Address: hanging})
	}
	a := newAsker(time.Now, endpoints...)
	var count Count
	a.Asked = func(c Count) { count = c }
	const within = time.Second
	began := time.Now()
	answers := a.Once(t.Context(), []Target{targetOf(pair)}, within)[targetOf(pair)]
	if took, most := time.Since(began), 2*handshake.Timeout+within+10*time.Second; took > most {
		t.Errorf("it took %s, more than %s", took, most)
	}
	if len(answers.Endpoints) != len(endpoints) || !answers.Endpoints[0].Serves(pair.Leaf) {
		t.Errorf("got %+v", answers)
	}
	if want := (Count{Stored: 1, Unknown: maxInFlight}); count != want {
		t.Errorf("counted %+v, want %+v", count, want)
	}
}

// TestUnreadable: without EndpointSlices nothing is known, and the reason is the same at each attempt.
func TestUnreadable(t *testing.T) {
	page := messages.Record(t, "findings of endpoints")
	at := targetOf(pkitest.NewCA("service-ca").Issue(pkitest.ServingCert()))
	forbidden := apierrors.NewForbidden(schema.GroupResource{Resource: "endpointslices"}, "", errors.New("no"))
	for name, err := range map[string]error{
		"forbidden": forbidden, "no answer": errors.New("dial tcp 192.0.2.1:6443: i/o timeout"), "too many": errTooManySlices,
	} {
		t.Run(name, func(t *testing.T) {
			a := newAsker(time.Now)
			a.Endpoints = func(context.Context, Target, int) ([]Endpoint, int, error) { return nil, 0, err }
			why := a.Once(t.Context(), []Target{at}, askTime)[at].WhyUnknown
			if why == nil || why.Reason != finding.Unreadable || why.Subject.Name != "api" ||
				strings.Contains(why.Message, "192.0.2.1") {
				t.Fatalf("got %+v", why)
			}
			page.Finding(*why)
		})
	}
}

// simulated is an Asker in a bubble with a fake clock. Its endpoints cannot be reached, so each round takes no time.
type simulated struct {
	*Asker
	// rounds are the times since the one before, rounded.
	rounds []time.Duration
	last   time.Time
}

func simulate(t *testing.T) *simulated {
	t.Helper()
	s := &simulated{Asker: newAsker(time.Now, Endpoint{Problem: "it is not ready"}), last: time.Now()}
	list := s.Endpoints
	s.Endpoints = func(ctx context.Context, at Target, most int) ([]Endpoint, int, error) {
		s.rounds = append(s.rounds, time.Since(s.last).Round(soonest))
		s.last = time.Now()
		return list(ctx, at, most)
	}
	return s
}

// TestRun: a new target is asked at once, one whose endpoints do not serve the stored certificate soon again, for some
// time, and then at the usual interval. Answers that are old, or of an earlier run, do not count.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := simulate(t)
		ctx, cancel := context.WithCancel(t.Context())
		var run sync.WaitGroup
		run.Go(func() { s.Run(ctx) })
		<-time.After(time.Hour)
		synctest.Wait()
		if len(s.rounds) > 0 {
			t.Errorf("asked without a target: %v", s.rounds)
		}
		at := Target{Service: "api"}
		s.last = time.Now()
		s.Ask([]Target{at})
		synctest.Wait()
		if _, has := s.Answers()[at]; !has {
			t.Error("it was not asked at once")
		}
		<-time.After(4 * time.Minute)
		synctest.Wait()
		want := []time.Duration{0, soonest, 2 * soonest, soon, soon}
		if d := cmp.Diff(want, s.rounds[:min(len(s.rounds), len(want))]); d != "" {
			t.Errorf("asked after (-want +got):\n%s", d)
		}
		<-time.After(time.Hour)
		synctest.Wait()
		if last := s.rounds[len(s.rounds)-1]; last < Every || last > Every+everyJitter {
			t.Errorf("still asked every %s", last)
		}
		if n, most := len(s.rounds), soonTries+1+12; n > most {
			t.Errorf("asked %d times in an hour, more than %d", n, most)
		}
		renewed := Target{Service: "api", Stored: [32]byte{1}}
		before := len(s.rounds)
		s.Ask([]Target{renewed})
		s.Ask([]Target{renewed})
		synctest.Wait()
		if d := cmp.Diff(map[Target]bool{renewed: true}, keys(s.Answers())); d != "" || len(s.rounds) != before+1 {
			t.Errorf("after a renewal (-want +got):\n%s\nasked %d times", d, len(s.rounds)-before)
		}
		cancel()
		run.Wait()
		<-time.After(staleAfter + time.Second)
		if got := s.Answers(); len(got) > 0 {
			t.Errorf("old answers: %v", got)
		}
	})
}

func keys(answers map[Target]check.ServedAnswers) map[Target]bool {
	all := map[Target]bool{}
	for t := range answers {
		all[t] = true
	}
	return all
}

// TestEnd: an answer that the end of the context cut short does not count.
func TestEnd(t *testing.T) {
	pair := pkitest.NewCA("service-ca").Issue(pkitest.ServingCert())
	ctx, cancel := context.WithCancel(t.Context())
	a := newAsker(time.Now, Endpoint{Address: listen.Serve(t, func(c net.Conn) {
		cancel()
		_, _ = io.Copy(io.Discard, c)
	})})
	if got := a.Once(ctx, []Target{targetOf(pair)}, askTime); len(got) > 0 {
		t.Errorf("got %+v", got)
	}
}
