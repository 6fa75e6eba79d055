// SPDX-License-Identifier: Apache-2.0

package connlimit

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
)

// patience is more than anything here takes on a busy machine.
const patience = time.Minute

// served is a server with bounded connections, over loopback.
type served struct {
	*testing.T
	bound   *bound
	address string
	secure  bool
	// arrived gets a value when a request for /wait is under way, which then ends with a
	// value from answer.
	arrived, answer chan struct{}
}

// serve starts one. Paths: /refuse is answered with 403, /wait waits.
func serve(t *testing.T, limit Limit, secure bool) *served {
	t.Helper()
	s := &served{T: t, secure: secure, arrived: make(chan struct{}), answer: make(chan struct{})}
	server := &http.Server{
		ReadHeaderTimeout: patience,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/refuse":
				w.WriteHeader(http.StatusForbidden)
			case "/wait":
				s.arrived <- struct{}{}
				<-s.answer
			}
			_, _ = io.WriteString(w, "answer")
		}),
	}
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.address = listener.Addr().String()
	s.bound = limit.Bound(server, listener).(*bound)
	ended := make(chan error, 1)
	if secure {
		now := time.Now()
		pair := pkitest.NewCAAround("ca", now).Issue(
			pkitest.Request{CommonName: "server"}.Valid(now.Add(-time.Hour), now.Add(time.Hour)),
		)
		certificate, err := tls.X509KeyPair(pair.Certificate, pair.Key)
		if err != nil {
			t.Fatal(err)
		}
		server.TLSConfig = &tls.Config{
			Certificates: []tls.Certificate{certificate},
			MinVersion:   tls.VersionTLS12,
			NextProtos:   []string{"http/1.1"},
		}
		go func() { ended <- server.ServeTLS(s.bound, "", "") }()
	} else {
		go func() { ended <- server.Serve(s.bound) }()
	}
	t.Cleanup(func() {
		_ = server.Close()
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	})
	return s
}

// ordered are limits under which the order alone decides: nobody has a grace.
func ordered(most int) Limit {
	return Limit{Most: most, Now: time.Now, After: time.After, grace: 1}
}

// client is one connection.
type client struct {
	net.Conn
	name   string
	reader *bufio.Reader
}

// dial connects from an address, by TCP alone.
func (s *served) dial(from string) *client {
	s.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: patience}
	connection, err := dialer.DialContext(s.Context(), "tcp", s.address)
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { _ = connection.Close() })
	if err := connection.SetDeadline(time.Now().Add(patience)); err != nil {
		s.Fatal(err)
	}
	return &client{Conn: connection, reader: bufio.NewReader(connection)}
}

// connect connects as a client that means to ask.
func (s *served) connect(from string) *client {
	s.Helper()
	c := s.dial(from)
	if !s.secure {
		return c
	}
	secure := tls.Client(
		c.Conn,
		&tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12},
	) // who answers is not the question
	if err := secure.HandshakeContext(s.Context()); err != nil {
		s.Fatal(err)
	}
	return &client{Conn: secure, reader: bufio.NewReader(secure)}
}

func (c *client) send(path string) error {
	_, err := fmt.Fprintf(c.Conn, "GET %s HTTP/1.1\r\nHost: server\r\n\r\n", path)
	return err
}

func (c *client) receive() (status int, err error) {
	response, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, response.Body)
	return response.StatusCode, err
}

// ask sends a request and waits until the server knows that it was answered.
func (s *served) ask(c *client, path string, want int) {
	s.Helper()
	if err := c.send(path); err != nil {
		s.Fatalf("%s: %v", c.name, err)
	}
	if status, err := c.receive(); status != want || err != nil {
		s.Fatalf("%s: status %d, %v", c.name, status, err)
	}
	s.await("the server knows that it has answered "+c.name, func() bool {
		at := s.of(c)
		return at == nil || at.answered && !at.active && at.waiting
	})
}

// of is the server's end of a client's connection, nil if it is closed. The lock must be held.
func (s *served) of(c *client) *conn {
	for open := range s.bound.open {
		if open.RemoteAddr().String() == c.LocalAddr().String() {
			return open
		}
	}
	return nil
}

// quiet waits until the server waits for all of its clients.
func (s *served) quiet() {
	s.Helper()
	s.await("the server waits for its clients", func() bool {
		for c := range s.bound.open {
			if !c.waiting {
				return false
			}
		}
		return true
	})
}

// await waits for something that is so under the listener's lock.
func (s *served) await(what string, is func() bool) {
	s.Helper()
	deadline := time.Now().Add(patience)
	for {
		s.bound.mu.Lock()
		so := is()
		s.bound.mu.Unlock()
		if so {
			return
		}
		if time.Now().After(deadline) {
			s.Fatal("never came: " + what)
		}
		<-time.After(time.Millisecond)
	}
}

// has waits until so many connections are open at the server.
func (s *served) has(n int) {
	s.Helper()
	s.await(fmt.Sprintf("%d connections", n), func() bool { return len(s.bound.open) == n })
}

// isOpen: the server has the client's connection.
func (s *served) isOpen(c *client) bool {
	s.bound.mu.Lock()
	defer s.bound.mu.Unlock()
	return s.of(c) != nil
}

// closed: the client sees that the server closed it.
func (c *client) closed() bool {
	_, err := c.Read(make([]byte, 1))
	return err != nil && !errors.Is(err, os.ErrDeadlineExceeded)
}

// kind is what a client of TestOrder is like.
type kind struct{ name, address, path string }

// TestOrder: at the limit, each new connection that asks costs one connection, in the order
// that the documentation gives; below it none.
func TestOrder(t *testing.T) {
	const silent = "" // never asks
	for name, c := range map[string]struct {
		clients []kind // in the order in which they come
		want    []string
	}{
		"who never asked, the longest waiting first": {
			clients: []kind{{"good", "127.0.0.1", "/"}, {"silent 1", "127.0.0.1", silent}, {"refused", "127.0.0.1", "/refuse"}, {"silent 2", "127.0.0.2", silent}},
			want:    []string{"silent 1", "silent 2", "refused", "good"},
		},
		"whose last answer was not 2xx, the longest idle first": {
			clients: []kind{{"good", "127.0.0.1", "/"}, {"refused 1", "127.0.0.2", "/refuse"}, {"refused 2", "127.0.0.1", "/refuse"}},
			want:    []string{"refused 1", "refused 2", "good"},
		},
		"all through one address, the longest idle first": {
			clients: []kind{{"good 1", "127.0.0.1", "/"}, {"good 2", "127.0.0.1", "/"}, {"good 3", "127.0.0.1", "/"}},
			want:    []string{"good 1", "good 2", "good 3"},
		},
		"of the address that has most": {
			clients: []kind{
				{"API server", "127.0.0.2", "/"}, {"good 1", "127.0.0.3", "/"}, {"good 2", "127.0.0.3", "/"},
				{"good 3", "127.0.0.3", "/"}, {"other", "127.0.0.4", "/"},
			},
			want: []string{"good 1", "good 2", "API server"},
		},
		"one of each address": {
			clients: []kind{{"good 1", "127.0.0.4", "/"}, {"good 2", "127.0.0.3", "/"}, {"good 3", "127.0.0.2", "/"}},
			want:    []string{"good 1", "good 2", "good 3"},
		},
	} {
		for _, secure := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, TLS %t", name, secure), func(t *testing.T) {
				s := serve(t, ordered(len(c.clients)), secure)
				var clients []*client
				for i, k := range c.clients {
					client := s.connect(k.address)
					client.name = k.name
					s.has(i + 1)
					s.quiet()
					switch k.path {
					case "/":
						s.ask(client, k.path, http.StatusOK)
					case "/refuse":
						s.ask(client, k.path, http.StatusForbidden)
					}
					clients = append(clients, client)
				}
				var got []string
				for i := range c.want {
					// From an address of its own, so that it changes no count.
					newcomer := s.connect(fmt.Sprintf("127.0.1.%d", i+1))
					newcomer.name = "newcomer"
					s.ask(newcomer, "/", http.StatusOK)
					for j, client := range clients {
						if client != nil && !s.isOpen(client) {
							got = append(got, client.name)
							if !client.closed() {
								t.Errorf("%s does not see that it was closed", client.name)
							}
							clients[j] = nil
						}
					}
				}
				if d := cmp.Diff(c.want, got); d != "" {
					t.Errorf("closed (-want +got):\n%s", d)
				}
				for _, client := range clients {
					if client != nil && c.clients[0].path != silent {
						s.ask(client, "/", http.StatusOK)
					}
				}
			})
		}
	}
}

// TestLastAnswer: it is the last answer that counts.
func TestLastAnswer(t *testing.T) {
	s := serve(t, ordered(2), false)
	better, worse := s.connect("127.0.0.1"), s.connect("127.0.0.1")
	s.ask(better, "/refuse", http.StatusForbidden)
	s.ask(better, "/", http.StatusOK)
	s.ask(worse, "/", http.StatusOK)
	s.ask(worse, "/refuse", http.StatusForbidden)
	s.ask(s.connect("127.0.0.1"), "/", http.StatusOK)
	if s.isOpen(worse) || !s.isOpen(better) {
		t.Errorf("open: worse %t, better %t", s.isOpen(worse), s.isOpen(better))
	}
	s.ask(better, "/", http.StatusOK)
}

// TestHalfRequest: a request that is never finished is no request.
func TestHalfRequest(t *testing.T) {
	for name, before := range map[string]bool{"the first": false, "the second": true} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, ordered(2), false)
			half, good := s.connect("127.0.0.1"), s.connect("127.0.0.1")
			s.ask(good, "/", http.StatusOK)
			if before {
				s.ask(half, "/", http.StatusOK)
			}
			if _, err := io.WriteString(half, "GET / HTTP/1.1\r\nHost: "); err != nil {
				t.Fatal(err)
			}
			s.await("the server has read the half", func() bool {
				c := s.of(half)
				return c.waiting && (c.waited > 0 || c.begun)
			})
			s.ask(s.connect("127.0.0.1"), "/", http.StatusOK)
			if s.isOpen(half) || !s.isOpen(good) {
				t.Errorf("open: half %t, good %t", s.isOpen(half), s.isOpen(good))
			}
		})
	}
}

// TestUnderWay: where all connections have a request under way, a new one waits, and none is
// cut.
func TestUnderWay(t *testing.T) {
	const most = 5
	s := serve(t, ordered(most), true)
	var busy []*client
	for range most {
		c := s.connect("127.0.0.1")
		if err := c.send("/wait"); err != nil {
			t.Fatal(err)
		}
		<-s.arrived
		busy = append(busy, c)
	}
	newcomer := s.dial("127.0.0.1") // TCP alone: the kernel has it
	answered := make(chan error, 1)
	go func() {
		secure := tls.Client(newcomer.Conn, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12})
		c := &client{Conn: secure, reader: bufio.NewReader(secure)}
		err := c.send("/")
		if err == nil {
			_, err = c.receive()
		}
		answered <- err
	}()
	s.answer <- struct{}{} // one of them, which is idle then
	if err := <-answered; err != nil {
		t.Errorf("the new one: %v", err)
	}
	for range most - 1 {
		s.answer <- struct{}{}
	}
	open := 0
	for _, c := range busy {
		if status, err := c.receive(); status != http.StatusOK || err != nil {
			t.Errorf("a request under way: %d, %v", status, err)
		}
		if s.isOpen(c) {
			open++
		}
	}
	if open != most-1 {
		t.Errorf("%d connections were left of %d, one was to be closed", open, most)
	}
}

// TestArrived: a request that the kernel has and the server has not read yet is under way.
func TestArrived(t *testing.T) {
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	ours, err := new(net.Dialer).DialContext(t.Context(), "tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	theirs, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	b := &bound{limit: ordered(1), open: map[*conn]struct{}{}}
	begin := time.Now()
	idle := &conn{Conn: theirs, bound: b, answered: true, waiting: true, since: begin.Add(-time.Hour)}
	b.open[idle] = struct{}{}
	if arrived(theirs) {
		t.Error("something arrived before it was sent")
	}
	if _, err := io.WriteString(ours, "GET"); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); !arrived(theirs); {
		if time.Now().After(deadline) {
			t.Fatal("what was sent never arrived")
		}
	}
	if c, _ := b.admit(ours); c != nil || len(b.open) != 1 {
		t.Error("a connection was closed on which a request has arrived")
	}
}

// clock is one that is set by hand.
type clock struct {
	mu     sync.Mutex
	now    time.Time
	alarms map[chan time.Time]time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) After(d time.Duration) <-chan time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	alarm := make(chan time.Time, 1)
	c.alarms[alarm] = c.now.Add(d)
	return alarm
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
	for alarm, at := range c.alarms {
		if !at.After(c.now) {
			alarm <- c.now
			delete(c.alarms, alarm)
		}
	}
}

// waits: somebody waits for so long.
func (c *clock) waits(d time.Duration) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, at := range c.alarms {
		if at.Equal(c.now.Add(d)) {
			return true
		}
	}
	return false
}

// TestGrace: who has just come is given time to ask, and so has a new one wait for as long;
// when one connection after the other must be closed, idle ones make room meanwhile.
func TestGrace(t *testing.T) {
	clock := &clock{now: time.Now(), alarms: map[chan time.Time]time.Time{}}
	s := serve(t, Limit{Most: 10, Now: clock.Now, After: clock.After}, false)
	var good []*client
	for range 8 {
		c := s.connect("127.0.0.1")
		s.ask(c, "/", http.StatusOK)
		good = append(good, c)
		clock.pass(time.Second)
	}
	older := s.connect("127.0.0.1")
	s.has(9)
	s.quiet()
	clock.pass(grace / 2)
	newer := s.connect("127.0.0.1")
	s.has(10)
	s.quiet()
	first := s.connect("127.0.0.1")
	for deadline := time.Now().Add(patience); !clock.waits(grace / 2); <-time.After(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the new one does not wait")
		}
	}
	if !s.isOpen(older) || !s.isOpen(newer) || s.isOpen(first) {
		t.Fatal("no time was left to ask")
	}
	clock.pass(grace / 2)
	s.ask(first, "/", http.StatusOK)
	if s.isOpen(older) || !s.isOpen(newer) {
		t.Errorf("older %t, newer %t", s.isOpen(older), s.isOpen(newer))
	}
	// One was closed a moment ago: a second one does not wait for the newer one.
	second := s.connect("127.0.0.1")
	s.ask(second, "/", http.StatusOK)
	if !s.isOpen(newer) || s.isOpen(good[0]) || !s.isOpen(good[1]) {
		t.Errorf("newer %t, good %t, %t", s.isOpen(newer), s.isOpen(good[0]), s.isOpen(good[1]))
	}
}

// TestVictim: which connection is closed, where that is a matter of time.
func TestVictim(t *testing.T) {
	now := time.Now()
	here, there := netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.2")
	idleFor := func(from netip.Addr, d time.Duration) conn {
		return conn{address: from, waiting: true, since: now.Add(-d), answered: true}
	}
	newcomer := func(waits time.Duration) conn { return conn{address: here, waiting: true, since: now.Add(-waits)} }
	times := func(n int, c conn) (all []conn) {
		for range n {
			all = append(all, c)
		}
		return all
	}
	refused := idleFor(there, time.Millisecond)
	refused.refused = true
	for name, c := range map[string]struct {
		conns []conn
		// closed is when one was closed last.
		closed time.Duration
		// want is the index in conns, or -1 and the wait.
		want int
		wait time.Duration
	}{
		"calm: a newcomer is waited for":         {conns: []conn{idleFor(here, time.Hour), newcomer(grace / 5)}, closed: time.Hour, want: -1, wait: grace * 4 / 5},
		"calm: the oldest newcomer has had time": {conns: []conn{newcomer(grace / 2), newcomer(grace), newcomer(2 * grace)}, closed: time.Hour, want: 2},
		"flood: an idle one goes":                {conns: append(times(8, idleFor(here, time.Hour)), newcomer(0)), want: 0},
		"flood: not all of them":                 {conns: append(times(8, newcomer(grace/5)), idleFor(here, time.Hour)), want: -1, wait: grace * 4 / 5},
		"flood: but who was refused":             {conns: append(times(8, newcomer(0)), idleFor(here, time.Hour), refused), want: 9},
		"of the address that has most, but not one that is used": {
			conns: []conn{idleFor(here, grace), idleFor(here, grace), idleFor(here, grace), idleFor(there, 3*grace), idleFor(there, 4*grace)}, want: 4,
		},
		"all are used: of the address that has most": {
			conns: []conn{idleFor(here, 0), idleFor(here, grace/2), idleFor(here, grace/4), idleFor(there, grace)}, want: 1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := &bound{limit: Limit{Most: 10, grace: grace}, open: map[*conn]struct{}{}, evicted: now.Add(-c.closed)}
			var want *conn
			for i := range c.conns {
				if b.open[&c.conns[i]] = struct{}{}; i == c.want {
					want = &c.conns[i]
				}
			}
			got, wait := b.victim(now)
			if c.want < 0 && (got != nil || wait != c.wait) {
				t.Errorf("closed: %+v, or wait for %s; want %s", got, wait, c.wait)
			}
			if c.want >= 0 && (got == nil || *got != *want) {
				t.Errorf("closed: %+v, want %+v", got, want)
			}
		})
	}
}

// TestMany: hundreds of idle connections of each kind keep nobody from being answered.
func TestMany(t *testing.T) {
	const most = 100
	address := map[string]func(i int) string{
		"one address":    func(int) string { return "127.0.0.1" },
		"many addresses": func(i int) string { return fmt.Sprintf("127.0.%d.%d", 1+i/200, 1+i%200) },
	}
	for name, from := range address {
		for kind, path := range map[string]string{"silent": "", "idle": "/", "refused": "/refuse"} {
			t.Run(kind+", "+name, func(t *testing.T) {
				s := serve(t, Limit{Most: most, Now: time.Now, After: time.After}, false)
				asking := s.connect("127.0.0.1")
				asking.name = "who asks all the time"
				s.ask(asking, "/", http.StatusOK)
				for i := range 4 * most {
					c := s.connect(from(i))
					if path != "" {
						if err := c.send(path); err != nil {
							t.Fatal(err)
						}
						if _, err := c.receive(); err != nil {
							t.Fatal(err)
						}
					}
					if i%10 == 0 {
						if err := asking.send("/"); err != nil {
							t.Fatal(err)
						}
						if status, err := asking.receive(); status != http.StatusOK || err != nil {
							t.Fatalf("%s, beside %d: %d, %v", asking.name, i, status, err)
						}
					}
				}
				newcomer := s.connect("127.0.0.1")
				newcomer.name = "who comes last"
				s.ask(newcomer, "/", http.StatusOK)
				s.bound.mu.Lock()
				defer s.bound.mu.Unlock()
				if n := len(s.bound.open); n > most {
					t.Errorf("%d connections are open, more than %d", n, most)
				}
			})
		}
	}
}

// TestBelow: below the limit nothing is ever closed.
func TestBelow(t *testing.T) {
	s := serve(t, ordered(4), false)
	silent, refused, good := s.connect("127.0.0.1"), s.connect("127.0.0.1"), s.connect("127.0.0.1")
	s.has(3)
	s.ask(refused, "/refuse", http.StatusForbidden)
	s.ask(good, "/", http.StatusOK)
	for range 10 { // one after the other
		c := s.connect("127.0.0.1")
		s.ask(c, "/", http.StatusOK)
		_ = c.Close()
		s.has(3)
	}
	for _, c := range []*client{silent, refused, good} {
		s.ask(c, "/", http.StatusOK)
	}
}

// TestEnd: a server that ends does not wait for room.
func TestEnd(t *testing.T) {
	s := serve(t, ordered(1), false)
	busy := s.connect("127.0.0.1")
	if err := busy.send("/wait"); err != nil {
		t.Fatal(err)
	}
	<-s.arrived
	waits := s.connect("127.0.0.1")
	if err := s.bound.Close(); err != nil {
		t.Error(err)
	}
	if !waits.closed() {
		t.Error("who waited is still connected")
	}
	s.answer <- struct{}{}
	if status, err := busy.receive(); status != http.StatusOK || err != nil {
		t.Errorf("the request under way: %d, %v", status, err)
	}
}

// TestAcceptFails: the listener's error is the server's to handle.
func TestAcceptFails(t *testing.T) {
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := ordered(1).Bound(&http.Server{ReadHeaderTimeout: patience}, listener)
	_ = listener.Close()
	if _, err := b.Accept(); err == nil || !strings.Contains(err.Error(), "closed") {
		t.Errorf("Accept: %v", err)
	}
}
