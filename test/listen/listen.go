// SPDX-License-Identifier: Apache-2.0

// Package listen has TCP servers for tests.
package listen

import (
	"net"
	"net/netip"
	"sync"
	"testing"
)

// Serve calls a function for each connection to a port of 127.0.0.1, then closes the connection, and returns the
// address. The end of the test waits until all calls have returned.
func Serve(t *testing.T, answer func(net.Conn)) netip.AddrPort {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var connections sync.WaitGroup
	connections.Go(func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			connections.Go(func() {
				defer func() { _ = connection.Close() }()
				answer(connection)
			})
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		connections.Wait()
	})
	return netip.MustParseAddrPort(listener.Addr().String())
}
