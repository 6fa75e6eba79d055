// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"time"
)

// dialTimeout bounds connecting to a process on the same node.
const dialTimeout = 5 * time.Second

// inheritedListener returns a listener that was passed to this process. A socket belongs
// to the network namespace in which it was created, so a listener from outside the node
// is reachable from outside.
func inheritedListener(fd uintptr, name string) (net.Listener, error) {
	file := os.NewFile(fd, name)
	defer file.Close() // the listener has a copy
	listener, err := net.FileListener(file)
	if err != nil {
		return nil, fmt.Errorf("take over the listener for %s: %w", name, err)
	}
	return listener, nil
}

// forward forwards connections on the listener to the target. It returns when the
// listener fails.
func forward(listener net.Listener, target string) error {
	for {
		outside, err := listener.Accept()
		if err != nil {
			return fmt.Errorf("forward %s to %s: %w", listener.Addr(), target, err)
		}
		go func() {
			defer outside.Close()
			// Close the connection if the target is not up.
			inside, err := net.DialTimeout("tcp", target, dialTimeout) //nolint:noctx // it has its timeout
			if err != nil {
				return
			}
			defer inside.Close()
			connect(outside.(*net.TCPConn), inside.(*net.TCPConn))
		}()
	}
}

// connect copies in both directions until both sides have closed. An error on one side
// closes the other.
func connect(a, b *net.TCPConn) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(a, b)
		_ = a.CloseWrite()
	}()
	_, _ = io.Copy(b, a)
	_ = b.CloseWrite()
	<-done
}
