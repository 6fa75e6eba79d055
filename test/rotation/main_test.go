// SPDX-License-Identifier: Apache-2.0

package rotation_test

import (
	"context"
	"fmt"
	"os"
	"sync"
	"syscall"
	"testing"

	"github.com/kubelet-https-guard/kubelet-https-guard/test/rotation"
)

// limitVariable names one of the kernel's limits to whoever is started in a
// user namespace of its own.
const limitVariable = "ROTATION_LIMIT"

// directory is where the agent is built.
var directory string

// TestMain is two programs: the tests, and one that takes the kernel's watches
// from itself and becomes the agent.
func TestMain(m *testing.M) {
	if limit := os.Getenv(limitVariable); limit != "" {
		err := os.WriteFile(limit, []byte("0"), 0o600)
		if err == nil {
			err = syscall.Exec(os.Args[1], os.Args[1:], os.Environ())
		}
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	var err error
	if directory, err = os.MkdirTemp("", "rotation"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(directory)
	os.Exit(code)
}

var buildOnce = sync.OnceValues(func() (string, error) {
	return rotation.Build(context.Background(), "../..", directory)
})
