// SPDX-License-Identifier: Apache-2.0

// Package faults_test lets everything go wrong under both programs, as they are
// shipped, beside a real API server and etcd. Each fault is a row of a table: what
// is expected stands beside it, is printed and is asserted.
//
// What single packages do about slow clients, bad files and the like is in their
// own tests; here it is processes that live on. `make test-faults` runs it.
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

// suite is what all rows share: starting an API server takes seconds.
type suite struct {
	rig    *rig.Rig
	config *rest.Config // of an administrator
	api    kubernetes.Interface
	// serviceUID is that of the Service of the registered webhook's Secret.
	serviceUID types.UID
	dir        string
	bin        string // where the programs are
}

// shared is set by TestMain, before any test.
var shared suite

// limitVariable names one of the kernel's limits, readyVariable a file for a
// process's number: with them this program is limited.
const limitVariable, readyVariable = "FAULTS_LIMIT", "FAULTS_PID"

// TestMain is two programs: the tests, and one that runs another one under a
// limit of the kernel.
func TestMain(m *testing.M) {
	if limit := os.Getenv(limitVariable); limit != "" {
		if err := limited(limit, os.Getenv(readyVariable), os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if os.Getenv("FAULTS") == "" {
		_, _ = fmt.Fprintln(os.Stderr, "test/faults takes minutes and runs with FAULTS=1 only: make test-faults")
		os.Exit(0)
	}
	code, err := run(m)
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "set up:", err)
		code = 1
	}
	os.Exit(code)
}

// limited takes a limit of the kernel from itself and the program that it starts,
// in a user namespace of its own, and gives it back when it gets SIGUSR1.
func limited(limit, pidFile string, args []string) error {
	runtime.LockOSThread() // with which the program dies
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
	ctx := context.Background() // there is no test yet whose context could be taken
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
	// Rows that want a registered webhook start it themselves.
	if err := r.Webhook.Stop(); err != nil {
		return 0, err
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
