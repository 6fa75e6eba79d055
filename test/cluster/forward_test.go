// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"net"
	"strings"
	"testing"
)

func listen(t *testing.T) net.Listener {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", address(0))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	return listener
}

func TestForward(t *testing.T) {
	target := listen(t)
	go func() {
		for {
			connection, err := target.Accept()
			if err != nil {
				return
			}
			// It responds when the request has ended: closing one direction must
			// be forwarded while the other is open.
			question, _ := io.ReadAll(connection)
			_, _ = io.WriteString(connection, "you said "+string(question))
			connection.Close()
		}
	}()
	outside := listen(t)
	ended := make(chan error, 1)
	go func() { ended <- forward(outside, target.Addr().String()) }()

	ask := func() string {
		connection, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", outside.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer connection.Close()
		if _, err := io.WriteString(connection, "hello"); err != nil {
			t.Fatal(err)
		}
		_ = connection.(*net.TCPConn).CloseWrite() // it may be closed already
		answer, _ := io.ReadAll(connection)        // then it is empty
		return string(answer)
	}
	if got := ask(); got != "you said hello" {
		t.Errorf("got %q", got)
	}
	target.Close()
	if got := ask(); got != "" {
		t.Errorf("with nobody there: got %q", got)
	}
	outside.Close()
	if err := <-ended; err == nil || !strings.HasPrefix(err.Error(), "forward 127.0.0.1:") {
		t.Errorf("got error %v", err)
	}
}
