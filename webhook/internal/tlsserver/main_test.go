// SPDX-License-Identifier: Apache-2.0

package tlsserver

import (
	"testing"

	"go.uber.org/goleak"
)

// TestMain: no test leaves a goroutine behind. net/http keeps the connection of a client that it
// has seen off for half a second (server.go, rstAvoidanceDelay), which is longer than
// goleak waits.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait"))
}
