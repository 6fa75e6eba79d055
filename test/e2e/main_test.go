// SPDX-License-Identifier: Apache-2.0

// Package e2e_test looks at the guard from outside: a real kube-apiserver, the
// webhook as the chart registers it and with the chart's rights, an agent over
// a host tree.
package e2e_test

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/rig"
)

// suite is what all tests share: starting an API server takes seconds.
type suite struct {
	rig        *rig.Rig
	config     *rest.Config
	serviceUID types.UID
	ca         *pkitest.CA
}

// shared is set by TestMain, before any test.
var shared suite

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "set up:", err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (int, error) {
	ctx := context.Background() // there is no test yet whose context could be taken
	dir, err := os.MkdirTemp("", "kubelet-https-guard-e2e")
	if err != nil {
		return 0, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	r, err := rig.Start(ctx, rig.Options{Repository: "../..", Dir: dir, Progress: os.Stderr})
	defer r.Stop()
	if err != nil {
		return 0, err
	}
	if err := r.InstallGuard(ctx); err != nil {
		return 0, err
	}
	config, err := clientcmd.BuildConfigFromFlags("", r.Kubeconfig)
	if err != nil {
		return 0, err
	}
	config.QPS, config.Burst = 1000, 1000
	shared = suite{rig: r, config: config, ca: r.ServiceCA}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return 0, err
	}
	service, err := client.CoreV1().Services("openshift-apiserver").Get(ctx, "api", metav1.GetOptions{})
	if err != nil {
		return 0, err
	}
	shared.serviceUID = service.UID
	return m.Run(), nil
}

// as is a client that acts as somebody, or as the administrator.
func as(t *testing.T, user string) kubernetes.Interface {
	t.Helper()
	client, err := shared.client(user)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func (s suite) client(user string) (kubernetes.Interface, error) {
	config := rest.CopyConfig(s.config)
	config.Impersonate.UserName = user
	config.WarningHandler = rest.NoWarnings{}
	return kubernetes.NewForConfig(config)
}

// issue makes a certificate that holds now.
func issue(r pkitest.Request) pkitest.Pair {
	now := time.Now()
	return shared.ca.Issue(r.Valid(now.Add(-time.Hour), now.AddDate(2, 0, 0)))
}
