// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"time"
)

// dialTimeout bounds a connection to a process of the same node.
const dialTimeout = 5 * time.Second

// inheritedListener takes over a listener that was passed to this process. A
// socket belongs to the network namespace it was made in, so that one made
// outside of the node lets the outside in.
func inheritedListener(fd uintptr, name string) (net.Listener, error) {
	file := os.NewFile(fd, name)
	defer file.Close() // the listener has a copy
	listener, err := net.FileListener(file)
	if err != nil {
		return nil, fmt.Errorf("take over the listener for %s: %w", name, err)
	}
	return listener, nil
}

// forward connects those who connect to the listener to the target. It returns
// when the listener fails.
func forward(listener net.Listener, target string) error {
	for {
		outside, err := listener.Accept()
		if err != nil {
			return fmt.Errorf("forward %s to %s: %w", listener.Addr(), target, err)
		}
		go func() {
			defer outside.Close()
			// Whoever connects while the target is not up is hung up on.
			inside, err := net.DialTimeout("tcp", target, dialTimeout) //nolint:noctx // it has its timeout
			if err != nil {
				return
			}
			defer inside.Close()
			connect(outside.(*net.TCPConn), inside.(*net.TCPConn))
		}()
	}
}

// connect copies both ways until both sides have ended what they send. An error
// of one side is an end for the other.
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
