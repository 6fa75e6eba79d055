// SPDX-License-Identifier: Apache-2.0

package tlsserver

import (
	"testing"

	"go.uber.org/goleak"
)

// TestMain fails if a test leaves a goroutine running. After net/http has disconnected a
// client, it keeps the connection for half a second (server.go, rstAvoidanceDelay), which
// is longer than goleak waits.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait"))
}
