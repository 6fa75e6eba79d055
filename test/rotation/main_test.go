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

// limitVariable names one of the kernel's limits. It is set for a process in its own user namespace.
const limitVariable = "ROTATION_LIMIT"

// directory is where the agent is built.
var directory string

// TestMain is three programs: the tests; one that sets a limit of the kernel to 0 for itself and
// becomes the agent; and one that mounts a host as in a Pod and runs the agent.
func TestMain(m *testing.M) {
	if plan := os.Getenv(mountsVariable); plan != "" {
		if err := runMounted(plan, os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
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
