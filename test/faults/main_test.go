// SPDX-License-Identifier: Apache-2.0

// Package faults_test injects faults into both programs, built as for a release, with a real API
// server and etcd. Each fault is a row of a table. The row says what is expected; the test prints and
// asserts it.
//
// Slow clients, invalid files and the like are tested in the packages themselves; these tests are
// about processes that keep running. Run them with `make test-faults`.
package faults_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/kubelet-https-guard/kubelet-https-guard/test/rig"
)

const repository = "../.."

// suite is what all rows share, since starting an API server takes seconds.
type suite struct {
	rig    *rig.Rig
	config *rest.Config // cluster administrator
	api    kubernetes.Interface
	// serviceUID is that of the Service of the registered webhook's Secret.
	serviceUID types.UID
	dir        string
	bin        string // directory of the programs
}

// shared is set by TestMain, before any test.
var shared suite

// limitVariable names one of the kernel's limits, readyVariable a file for a process ID. If they are
// set, this program runs another one under the limit.
const limitVariable, readyVariable = "FAULTS_LIMIT", "FAULTS_PID"

// TestMain is two programs: the tests, and one that runs another program under a limit of the kernel.
func TestMain(m *testing.M) {
	if limit := os.Getenv(limitVariable); limit != "" {
		if err := limited(limit, os.Getenv(readyVariable), os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if os.Getenv("FAULTS") == "" {
		_, _ = fmt.Fprintln(os.Stderr, "test/faults needs FAULTS=1, since it takes minutes. Fix: make test-faults")
		os.Exit(0)
	}
	code, err := run(m)
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "set up:", err)
		code = 1
	}
	os.Exit(code)
}

// limited sets a limit of the kernel to 0 for itself and the program that it starts, in its own user
// namespace. It restores the limit on SIGUSR1.
func limited(limit, pidFile string, args []string) error {
	runtime.LockOSThread() // the program is killed when this thread ends
	giveBack := make(chan os.Signal, 1)
	signal.Notify(giveBack, syscall.SIGUSR1)
	if err := os.WriteFile(limit, []byte("0"), 0o600); err != nil {
		return err
	}
	program := exec.CommandContext(context.Background(), args[0], args[1:]...)
	program.Stderr = os.Stderr
	program.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := program.Start(); err != nil {
		return err
	}
	if err := os.WriteFile(pidFile, fmt.Append(nil, program.Process.Pid), 0o600); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- program.Wait() }()
	for {
		select {
		case <-giveBack:
			if err := os.WriteFile(limit, []byte("1000"), 0o600); err != nil {
				return err
			}
		case err := <-ended:
			return err
		}
	}
}

func run(m *testing.M) (int, error) {
	ctx := context.Background() // no test has started, so there is no context of a test
	bin, err := filepath.Abs(filepath.Join(repository, "bin"))
	if err != nil {
		return 0, err
	}
	dir, err := os.MkdirTemp("", "kubelet-https-guard-faults")
	if err != nil {
		return 0, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	r, err := rig.Start(ctx, rig.Options{Repository: repository, Dir: filepath.Join(dir, "rig"), Progress: os.Stderr})
	defer r.Stop()
	if err != nil {
		return 0, err
	}
	if err := r.InstallGuard(ctx); err != nil {
		return 0, err
	}
	// Rows that need a registered webhook or an audit start their own. The rig's audit must have started
	// before it is stopped: stopping it earlier fails.
	if _, err := r.Audit.Await(ctx, "its start", func(l rig.Line) bool { return l.Text("msg") == "Started" }); err != nil {
		return 0, err
	}
	for _, process := range []*rig.Process{r.Webhook, r.Audit} {
		if err := process.Stop(); err != nil {
			return 0, err
		}
	}
	config, err := clientcmd.BuildConfigFromFlags("", r.Kubeconfig)
	if err != nil {
		return 0, err
	}
	config.QPS, config.WarningHandler = -1, rest.NoWarnings{}
	api, err := kubernetes.NewForConfig(config)
	if err != nil {
		return 0, err
	}
	service, err := api.CoreV1().Services("openshift-apiserver").Get(ctx, "api", metav1.GetOptions{})
	if err != nil {
		return 0, err
	}
	shared = suite{rig: r, config: config, api: api, serviceUID: service.UID, dir: dir, bin: bin}
	return m.Run(), nil
}
