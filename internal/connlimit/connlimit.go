// SPDX-License-Identifier: Apache-2.0

// Package connlimit limits the connections of an HTTP server so that idle clients cannot block
// others: at the limit, and only there, it closes one connection for each new one.
package connlimit

import (
	"cmp"
	"context"
	"crypto/tls"
	"math"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"syscall"
	"time"
)

// grace is how long the server waits for a request before the connection counts as silent. A
// normal client sends its handshake at once and its request one round trip later, so this is
// generous even for a busy machine. It is short because in a flood of silent connections a
// new client waits behind them.
const grace = 500 * time.Millisecond

// Limit limits the connections of a server. Below the limit, no connection is closed. At the
// limit, a new connection is accepted after another one was closed:
//
//   - first a connection without any request, the one for which the server waited longest;
//   - then one whose last response was not 2xx, the longest idle one;
//   - then the longest idle one of the remote address with most connections. Connections that
//     were used a moment ago come last: they are likely to be used again, and a request that
//     is sent while its connection is closed is lost.
//
// This is an order, not a limit for each address: all API servers may use one address. A
// connection with a running request is never closed. If there are no others, a new one waits.
//
// New clients get time for their first request (see grace), unless connections are already
// being closed one after the other. Then idle connections are closed, too, until an eighth of
// all connections are new. So a flood of silent clients neither delays new clients for long
// nor displaces clients that sent requests before.
type Limit struct {
	// Most is the maximum number of connections.
	Most int
	// Now and After are the clock: [time.Now] and [time.After].
	Now   func() time.Time
	After func(time.Duration) <-chan time.Time

	grace time.Duration // the constant if zero; tests set it
}

// Bound returns the listener that the server must use, with or without TLS. It sets the
// server's ConnState and ConnContext, and wraps its Handler. HTTP/2 must be disabled, because
// its connections have concurrent requests.
func (l Limit) Bound(server *http.Server, listener net.Listener) net.Listener {
	l.grace = cmp.Or(l.grace, grace)
	bounded := &bound{
		Listener: listener, limit: l, open: map[*conn]struct{}{},
		changed: make(chan struct{}, 1), closed: make(chan struct{}),
	}
	server.ConnState = func(c net.Conn, state http.ConnState) { under(c).is(state) }
	server.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		return context.WithValue(ctx, connKey{}, under(c))
	}
	server.Handler = statusKept(server.Handler)
	return bounded
}

type connKey struct{}

// under returns the listener's connection, which may be below TLS.
func under(c net.Conn) *conn {
	if secure, ok := c.(*tls.Conn); ok {
		c = secure.NetConn()
	}
	own, _ := c.(*conn) // nil: a connection of another listener, without a limit
	return own
}

// bound is a listener with a limit.
type bound struct {
	net.Listener
	limit Limit
	// changed receives a value after a connection was closed, or may be closed now.
	changed chan struct{}
	closed  chan struct{}
	closing sync.Once

	mu   sync.Mutex
	open map[*conn]struct{}
	// evicted is when a connection was last closed for a new one.
	evicted time.Time
}

// Accept implements [net.Listener]. It returns a connection when the limit allows it.
func (b *bound) Accept() (net.Conn, error) {
	accepted, err := b.Listener.Accept()
	if err != nil {
		return nil, err
	}
	for {
		c, wait := b.admit(accepted)
		if c != nil {
			return c, nil
		}
		var due <-chan time.Time
		if wait < math.MaxInt64 {
			due = b.limit.After(wait)
		}
		select {
		case <-b.changed:
		case <-due:
		case <-b.closed:
			_ = accepted.Close()
			return nil, net.ErrClosed
		}
	}
}

// Close implements [net.Listener].
func (b *bound) Close() error {
	b.closing.Do(func() { close(b.closed) })
	return b.Listener.Close()
}

// admit accepts a connection, and closes another one if it must. If no connection can be closed, c
// is nil, and wait is how long until there may be one if nothing changes.
func (b *bound) admit(accepted net.Conn) (c *conn, wait time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.open) >= b.limit.Most {
		now := b.limit.Now()
		victim, wait := b.victim(now)
		// Data in the kernel's buffer is a request or its beginning: on a busy machine it takes
		// some time before the server reads it.
		for ; victim != nil && arrived(victim.Conn); victim, wait = b.victim(now) {
			victim.read(now)
		}
		if victim == nil {
			return nil, wait
		}
		b.evicted = now
		delete(b.open, victim)
		_ = victim.Conn.Close() // the server's read fails, so the server drops it
	}
	c = &conn{Conn: accepted, bound: b, address: addressOf(accepted)}
	b.open[c] = struct{}{}
	return c, 0
}

// victim returns the connection to close now, or nil.
func (b *bound) victim(now time.Time) (victim *conn, wait time.Duration) {
	wait = math.MaxInt64
	ofAddress := make(map[netip.Addr]int)
	for c := range b.open {
		ofAddress[c.address]++
	}
	used := now.Add(-2 * b.limit.grace) // a connection that was idle before this is not in use
	var silent, refused, idle *conn
	arriving := 0
	for c := range b.open {
		waited := c.waited
		if c.waiting {
			waited += now.Sub(c.since)
		}
		switch {
		case c.active:
		case c.arriving() && c.waiting && waited >= b.limit.grace:
			if silent == nil || waited > silent.waitedAt(now) {
				silent = c
			}
		case c.arriving():
			if arriving++; c.waiting {
				wait = min(wait, b.limit.grace-waited)
			}
		case !c.waiting: // its next request has arrived
		case c.refused:
			if refused == nil || c.since.Before(refused.since) {
				refused = c
			}
		default:
			if idle == nil || cmp.Or(
				cmp.Compare(used.Compare(c.since), used.Compare(idle.since)),
				cmp.Compare(ofAddress[c.address], ofAddress[idle.address]),
				idle.since.Compare(c.since),
			) > 0 {
				idle = c
			}
		}
	}
	flooded := now.Sub(b.evicted) < b.limit.grace
	switch {
	case silent != nil:
		return silent, 0
	case arriving > 0 && !flooded:
		return nil, wait
	case refused != nil:
		return refused, 0
	case idle != nil && 8*arriving <= b.limit.Most:
		return idle, 0
	}
	return nil, wait
}

// conn is a connection of a bound listener. The listener's lock protects its fields.
type conn struct {
	net.Conn
	bound   *bound
	address netip.Addr

	// active: a request is running, from the end of its header to the end of its response.
	active bool
	// answered: there was a request before. refused: its response was not 2xx.
	answered, refused bool
	// begun: the next request has begun to arrive.
	begun bool
	// waiting: the server waits in Read, since the time in since. waited is how long it waited
	// before for the same request.
	waiting bool
	since   time.Time
	waited  time.Duration
}

// arriving reports whether a request is expected and has not arrived completely.
func (c *conn) arriving() bool { return !c.answered || c.begun }

func (c *conn) waitedAt(now time.Time) time.Duration { return c.waited + now.Sub(c.since) }

// read records that the server no longer waits.
func (c *conn) read(now time.Time) {
	if c.waiting {
		c.waiting, c.waited = false, c.waitedAt(now)
	}
}

// Read implements [net.Conn].
func (c *conn) Read(p []byte) (int, error) {
	c.change(func(now time.Time) { c.waiting, c.since = true, now })
	n, err := c.Conn.Read(p)
	c.change(func(now time.Time) {
		if c.read(now); n > 0 && c.answered && !c.active && !c.begun {
			c.begun, c.waited = true, 0 // it was idle before
		}
	})
	return n, err
}

// Close implements [net.Conn].
func (c *conn) Close() error {
	err := c.Conn.Close()
	c.change(func(time.Time) { delete(c.bound.open, c) })
	return err
}

// is records the server's state of the connection.
func (c *conn) is(state http.ConnState) {
	if c == nil {
		return
	}
	c.change(func(time.Time) {
		switch state {
		case http.StateActive:
			c.active = true
		case http.StateIdle:
			c.active, c.begun, c.answered, c.waited = false, false, true, 0
		case http.StateNew, http.StateHijacked, http.StateClosed:
		}
	})
}

// change changes the connection, and wakes an Accept that waits.
func (c *conn) change(change func(now time.Time)) {
	c.bound.mu.Lock()
	change(c.bound.limit.Now())
	full := len(c.bound.open)+1 >= c.bound.limit.Most
	c.bound.mu.Unlock()
	if !full {
		return // no Accept waits
	}
	select {
	case c.bound.changed <- struct{}{}:
	default: // a value is waiting already
	}
}

// addressOf returns the remote address without its port.
func addressOf(c net.Conn) netip.Addr {
	if tcp, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

// arrived reports whether the kernel has data that was not read yet.
func arrived(c net.Conn) bool {
	socket, ok := c.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return false
	}
	n := 0
	if err := raw.Control(func(fd uintptr) {
		n, _, err = syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	}); err != nil {
		return false // it is closed
	}
	return err == nil && n > 0
}

// statusKept records for each connection whether its last response was 2xx.
func statusKept(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, _ := r.Context().Value(connKey{}).(*conn)
		if c == nil {
			handler.ServeHTTP(w, r)
			return
		}
		kept := &statusWriter{ResponseWriter: w, status: http.StatusOK}
		handler.ServeHTTP(kept, r)
		c.change(func(time.Time) { c.refused = kept.status/100 != 2 })
	})
}

// statusWriter keeps the status of a response. [http.ResponseController] can unwrap it.
type statusWriter struct {
	http.ResponseWriter
	status int
}

// WriteHeader implements [http.ResponseWriter].
func (w *statusWriter) WriteHeader(status int) {
	if status >= http.StatusOK { // an informational status comes before the final one
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap is for [http.ResponseController].
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
