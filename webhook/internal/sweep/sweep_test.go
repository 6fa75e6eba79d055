// SPDX-License-Identifier: Apache-2.0

package sweep

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/kubelettls"
	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/listen"
)

// fake is a cluster with these Nodes.
type fake struct {
	mu       sync.Mutex
	settings Settings
	nodes    []Node
	err      error
	requests map[string]string
	// unread is why some requests are missing.
	unread error
	// lists counts lists of all Nodes, single has the names of Nodes that were read alone.
	lists  int
	single []string
}

func (f *fake) Settings(context.Context) Settings { return f.settings }

func (f *fake) Requests(context.Context) (map[string]string, error) { return f.requests, f.unread }

func (f *fake) Nodes(context.Context, []string) ([]Node, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lists++
	return slices.Clone(f.nodes), f.err
}

func (f *fake) Node(_ context.Context, name string, _ []string) (Node, bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.single = append(f.single, name)
	for _, n := range f.nodes {
		if n.Name == name {
			return n, true, f.err
		}
	}
	return Node{}, false, f.err
}

func (f *fake) set(nodes ...Node) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.nodes = nodes
}

// allowLoopback refuses what [Refuse] refuses, except loopback.
func allowLoopback(address netip.Addr, services []netip.Prefix) string {
	if address.Unmap().IsLoopback() {
		return ""
	}
	return Refuse(address, services)
}

func sweeper(f *fake, now func() time.Time) *Sweeper {
	return &Sweeper{
		Cluster: f, Refuse: allowLoopback, Random: rand.New(rand.NewPCG(1, 2)),
		Now: now, Log: slog.New(slog.DiscardHandler),
	}
}

// serve answers each connection at the loopback address with a function, and returns the port.
func serve(t *testing.T, answer func(net.Conn)) int {
	t.Helper()
	return int(listen.Serve(t, answer).Port())
}

// kubelet is a kubelet with a certificate.
func kubelet(t *testing.T, pair pkitest.Pair) int {
	return kubeletThat(t, tls.RequestClientCert, pair)
}

// kubeletThat is a kubelet with a certificate that requests client certificates or not.
func kubeletThat(t *testing.T, requests tls.ClientAuthType, pair pkitest.Pair) int {
	t.Helper()
	certificate, err := tls.X509KeyPair(pair.Certificate, pair.Key)
	if err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{
		Certificates: []tls.Certificate{certificate}, ClientAuth: requests, MinVersion: tls.VersionTLS12,
	}
	return serve(t, func(c net.Conn) {
		server := tls.Server(c, config)
		if server.HandshakeContext(t.Context()) == nil {
			_, _ = server.Read(make([]byte, 1)) // until the client closes
		}
	})
}

// serving returns a certificate of the kubelet of a Node, valid now.
func serving(ca *pkitest.CA, node string) pkitest.Pair {
	return ca.Issue(pkitest.Request{
		CommonName: "system:node:" + node, Organization: "system:nodes", IPs: []net.IP{net.IPv4(127, 0, 0, 1)},
		Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}.Valid(time.Now().Add(-time.Hour), time.Now().Add(time.Hour)))
}

// hang never answers, until the client closes.
func hang(c net.Conn) { _, _ = io.Copy(io.Discard, c) }

// TestSweep asks kubelets of every kind.
func TestSweep(t *testing.T) {
	ca, foreign := pkitest.NewCAAround("signer", time.Now()), pkitest.NewCAAround("foreign", time.Now())
	roots := x509.NewCertPool()
	roots.AddCert(ca.Certificate)
	at := func(name string, port int) Node { return Node{Name: name, UID: "uid", Host: "127.0.0.1", Port: port} }
	without := at("without", 1)
	without.Problem = "the Node has no address"
	draining := at("draining", 1)
	draining.Excuse = "the Node is not ready"
	metadata := at("metadata", 80)
	metadata.Host = "169.254.169.254"
	mapped := at("mapped", 80)
	mapped.Host = "::ffff:100.100.100.200"
	service := at("service", 443)
	service.Host = "172.30.0.1"
	f := &fake{
		settings: Settings{
			CA:       check.KubeletCA{At: "the bundle", Roots: roots},
			Services: []netip.Prefix{netip.MustParsePrefix("172.30.0.0/16")},
		},
		requests: map[string]string{"foreign": `its CertificateSigningRequest "csr-1" is pending`},
		nodes: []Node{
			at("good", kubelet(t, serving(ca, "good"))), at("foreign", kubelet(t, serving(foreign, "foreign"))),
			at("stranger", kubelet(t, serving(ca, "another"))), at("down", 1), draining, without, metadata, mapped, service,
			at("hangs", serve(t, hang)), at("asks-nobody", kubeletThat(t, tls.NoClientCert, serving(ca, "asks-nobody"))),
			at("plain", serve(t, notTLS)),
		},
	}
	s := sweeper(f, time.Now)
	var swept []Sweep
	s.Swept = func(sweep Sweep) { swept = append(swept, sweep) }
	outcomes, err := s.Once(t.Context(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string][]finding.Reason{}
	for _, o := range outcomes {
		got[o.Node] = o.reasons()
		if o.Node == "foreign" && !strings.Contains(o.Results[0].Message, "csr-1") {
			t.Errorf("the message does not name the request: %q", o.Results[0].Message)
		}
		if o.Node == "draining" && !strings.Contains(o.Results[0].Message, draining.Excuse) {
			t.Errorf("the message does not name the excuse: %q", o.Results[0].Message)
		}
	}
	unreachable, unusable := []finding.Reason{finding.KubeletUnreachable}, []finding.Reason{finding.NodeAddressUnusable}
	want := map[string][]finding.Reason{
		"good": nil, "foreign": {finding.KubeletCertificateUntrusted}, "stranger": {finding.KubeletIdentityUnexpected},
		"down": unreachable, "draining": unreachable, "hangs": unreachable, "plain": {finding.KubeletNotTLS},
		"asks-nobody": {finding.ClientCertificateNotAccepted},
		"without":     unusable, "metadata": unusable, "mapped": unusable, "service": unusable,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("reasons (-want +got):\n%s", d)
	}
	if len(swept) != 1 || swept[0].Outcomes[finding.Pass] != 1 || swept[0].Reasons[finding.NodeAddressUnusable] != 4 {
		t.Errorf("swept: %+v", swept)
	}
	if s.UID("good") != "uid" || s.UID("nobody") != "" {
		t.Error("wrong UIDs")
	}
}

// TestSettingsAreKept: settings that cannot be read do not make addresses of Services usable.
func TestSettingsAreKept(t *testing.T) {
	types, services := []string{"InternalIP"}, []netip.Prefix{netip.MustParsePrefix("172.30.0.0/16")}
	read := Settings{AddressTypes: types, Services: services, CA: check.KubeletCA{At: "the bundle"}}
	unread := Settings{Unread: true, AddressTypes: commonAddressTypes()}
	notOpenShift := Settings{AddressTypes: commonAddressTypes()}
	api := netip.MustParseAddr("10.96.0.1")
	apiOnly := Settings{AddressTypes: commonAddressTypes(), Services: []netip.Prefix{netip.PrefixFrom(api, 32)}}
	apiUnread := apiOnly
	apiUnread.Unread = true
	forbidden := Settings{Unread: true, AddressTypes: commonAddressTypes()}
	ranges := forbidden
	ranges.Services = services
	cases := map[string]struct {
		reads []Settings
		api   netip.Addr
		want  Settings // after the last one
	}{
		"read":                    {[]Settings{read}, api, read},
		"unread after a good one": {[]Settings{read, unread}, api, Settings{Unread: true, AddressTypes: types, Services: services}},
		"read again":              {[]Settings{read, unread, read}, api, read},
		"never read":              {[]Settings{unread}, api, apiUnread},
		"never read, no address":  {[]Settings{unread}, netip.Addr{}, unread},
		"ranges not known":        {[]Settings{notOpenShift}, api, apiOnly},
		"ranges known once":       {[]Settings{ranges, forbidden, forbidden}, api, ranges},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			f := &fake{}
			s := sweeper(f, time.Now)
			s.APIService = c.api
			var got Settings
			for _, f.settings = range c.reads {
				got = s.settings(t.Context())
			}
			if d := cmp.Diff(c.want, got, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

// TestHangingDelaysNoOther: Nodes that hang cost no more than their own time.
func TestHangingDelaysNoOther(t *testing.T) {
	ca := pkitest.NewCA("signer")
	good, bad := kubelet(t, serving(ca, "good")), serve(t, hang)
	var nodes []Node
	for i := range 100 {
		port := good
		if i%2 == 0 {
			port = bad
		}
		nodes = append(nodes, Node{Name: fmt.Sprintf("n-%d", i), Host: "127.0.0.1", Port: port})
	}
	s := sweeper(&fake{nodes: nodes}, time.Now)
	began := time.Now()
	outcomes := s.ask(t.Context(), nodes, Settings{})
	if took, most := time.Since(began), 2*kubelettls.Timeout+10*time.Second; took > most || len(outcomes) != len(nodes) {
		t.Errorf("%d Nodes were asked in %s, want %d in less than %s", len(outcomes), took, len(nodes), most)
	}
	hanging := 0
	for _, o := range outcomes {
		if slices.Contains(o.reasons(), finding.KubeletUnreachable) {
			hanging++
		}
	}
	if hanging != 50 {
		t.Errorf("%d Nodes are unreachable, want 50", hanging)
	}
}

// problems returns Nodes that need no connection.
func problems(n int) (nodes []Node) {
	for i := range n {
		nodes = append(nodes, Node{Name: fmt.Sprintf("n-%d", i), UID: "uid", Problem: "it has no address"})
	}
	return nodes
}

// TestRate: kubelets are asked at a bounded rate, in an order that differs.
func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := problems(5 * perSecond)
		s := sweeper(&fake{nodes: nodes}, time.Now)
		began := time.Now()
		if outcomes, err := s.Once(t.Context(), time.Hour); err != nil || len(outcomes) != len(nodes) {
			t.Fatalf("%d outcomes, %v", len(outcomes), err)
		}
		// All of them are asked once, and the first ones again.
		want := 5*time.Second - time.Second/perSecond + retryOnce + (maxConfirmed-1)*time.Second/perSecond
		if took := time.Since(began); took != want {
			t.Errorf("it took %s, want %s", took, want)
		}
	})
}

// TestRun: Nodes with a new finding are asked again soon, one that was deleted is forgotten, and all are asked at each
// interval.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{nodes: problems(2)}
		s := sweeper(f, time.Now)
		var stale atomic.Int64
		s.Stale = func() { stale.Add(1) }
		first := s.Results()
		if len(first) != len(check.NodeKubeletRequirements()) || first[0].Reason != finding.NotObserved {
			t.Errorf("before Run: %+v", first)
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			s.Run(ctx)
		}()
		<-time.After(confirmEvery / 2)
		synctest.Wait()
		if got := ofTLS(s.Results()); !slices.Equal(got, []string{"Node: unknown NodeAddressUnusable"}) {
			t.Errorf("after the first sweep: %q", got)
		}
		f.set(problems(1)...)
		<-time.After(confirmEvery)
		synctest.Wait()
		f.mu.Lock()
		slices.Sort(f.single)
		if d := cmp.Diff([]string{"n-0", "n-1"}, f.single); d != "" || f.lists != 1 {
			t.Errorf("%d lists, and asked again (-want +got):\n%s", f.lists, d)
		}
		f.mu.Unlock()
		if s.UID("n-1") != "" || s.UID("n-0") == "" {
			t.Error("the Node that was deleted is not forgotten")
		}
		// A finding that lasts waits for the next sweep.
		<-time.After(Every + everyJitter)
		synctest.Wait()
		f.mu.Lock()
		if n := len(f.single) - 1; n != confirmations-1 || f.lists != 2 { // without the one that was deleted
			t.Errorf("%d reads of a Node, want %d; %d lists, want 2", n, confirmations-1, f.lists)
		}
		// The last outcomes count for a while if Nodes cannot be listed.
		f.err = errors.New("no answer")
		f.mu.Unlock()
		<-time.After(Every + everyJitter)
		synctest.Wait()
		if got := ofTLS(s.Results()); !slices.Equal(got, []string{"Node: unknown NodeAddressUnusable"}) {
			t.Errorf("after one list failed: %q", got)
		}
		if stale.Load() > 0 {
			t.Error("the last sweep is called stale after one list failed")
		}
		<-time.After(staleAfter)
		synctest.Wait()
		if got := ofTLS(s.Results()); !slices.Equal(got, []string{"Node: unknown Unreadable"}) {
			t.Errorf("after all lists failed: %q", got)
		}
		if stale.Load() == 0 {
			t.Error("the last sweep is not called stale")
		}
		stop()
		<-ended
	})
}

// TestConfirmIsBounded: only some of the Nodes with a new finding are asked again each time.
func TestConfirmIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{nodes: problems(3 * maxConfirmed)}
		s := sweeper(f, time.Now)
		s.reset()
		s.sweep(t.Context())
		s.confirm(t.Context())
		if len(f.single) != maxConfirmed {
			t.Errorf("%d Nodes were asked again, want %d", len(f.single), maxConfirmed)
		}
	})
}

// TestOnceInTime: kubelets that cannot be asked in time are unknown, and the others are not.
func TestOnceInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sweeper(&fake{nodes: problems(10 * perSecond)}, time.Now)
		began := time.Now()
		outcomes, err := s.Once(t.Context(), 4*time.Second)
		if took := time.Since(began); err != nil || took > 5*time.Second {
			t.Errorf("it took %s, %v", took, err)
		}
		got := map[finding.Reason]int{}
		for _, o := range outcomes {
			got[o.reasons()[0]]++
			if len(o.All()) != len(check.NodeKubeletRequirements()) || o.Worst() != finding.Unknown {
				t.Fatalf("%s: %+v", o.Node, o.All())
			}
		}
		want := map[finding.Reason]int{finding.NodeAddressUnusable: 4*perSecond + 1, finding.NotObserved: 6*perSecond - 1}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("(-want +got):\n%s", d)
		}
	})
}

// TestOnceListsInTime: an API server that hangs does not take all the time.
func TestOnceListsInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &slow{fake: &fake{}, list: time.Hour}
		s := sweeper(f.fake, time.Now)
		s.Cluster = f
		began := time.Now()
		outcomes, err := s.Once(t.Context(), 4*time.Second)
		if took := time.Since(began); err != nil || len(outcomes) > 0 || took > 5*time.Second {
			t.Errorf("%d outcomes in %s, %v", len(outcomes), took, err)
		}
		if got := ofTLS(s.Results()); !slices.Equal(got, []string{"Node: unknown Unreadable"}) {
			t.Errorf("results: %q", got)
		}
	})
}

// TestEnds: a sweep whose context ends leaves no outcomes of some Nodes only.
func TestEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sweeper(&fake{nodes: problems(2 * perSecond)}, time.Now)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if outcomes, err := s.Once(ctx, time.Hour); !errors.Is(err, context.DeadlineExceeded) || outcomes != nil {
			t.Errorf("%d outcomes, %v", len(outcomes), err)
		}
	})
}

// TestLogsMissingRequests: that not all certificate signing requests could be read is logged once for each reason.
func TestLogsMissingRequests(t *testing.T) {
	var logged bytes.Buffer
	f := &fake{requests: map[string]string{"a": "its request is pending"}}
	s := sweeper(f, time.Now)
	s.Log = slog.New(slog.NewTextHandler(&logged, nil))
	forbidden, many := errors.New("forbidden"), errors.New("too many")
	var got []int
	for _, f.unread = range []error{forbidden, forbidden, many, nil, nil, many} {
		if requests := s.requests(t.Context()); len(requests) != 1 {
			t.Errorf("%d requests, want those that are known", len(requests))
		}
		got = append(got, strings.Count(logged.String(), "level=WARN"))
	}
	if d := cmp.Diff([]int{1, 1, 2, 2, 2, 3}, got); d != "" {
		t.Errorf("lines (-want +got):\n%s", d)
	}
}

// TestReadOnlyPortAlone: a read-only port that is open is found where nothing answers at the other port.
func TestReadOnlyPortAlone(t *testing.T) {
	const host = "127.10.2.55"
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", kubelettls.At(host, 1).ReadOnly)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	hangs, err := new(net.ListenConfig).Listen(t.Context(), "tcp", host+":0") // a handshake gets no answer
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = hangs.Close() }()
	const open, lost = "read-only-port warn ReadOnlyPortOpen", "tls unknown KubeletUnreachable"
	for name, c := range map[string]struct {
		host string
		port int
		want []string
	}{
		"refused":               {host, 1, []string{lost, open}},
		"no answer":             {host, hangs.Addr().(*net.TCPAddr).Port, []string{lost, open}},
		"refused at both ports": {"127.10.2.56", 1, []string{lost, "read-only-port unknown KubeletUnreachable"}},
		"an address that is refused": {"169.254.169.254", 1, []string{
			"tls unknown NodeAddressUnusable", "read-only-port unknown NodeAddressUnusable",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s := sweeper(&fake{}, time.Now)
			outcomes := s.ask(t.Context(), []Node{{Name: "a", Host: c.host, Port: c.port}}, Settings{})
			var got []string
			for _, r := range outcomes[0].All() {
				if aspect := r.Requirement.Aspect(); aspect == finding.TLS || aspect == finding.ReadOnlyPort {
					got = append(got, fmt.Sprintf("%s %s %s", aspect, r.Outcome, r.Reason))
				}
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}
