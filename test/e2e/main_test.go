// SPDX-License-Identifier: Apache-2.0

// Package e2e_test tests the guard from outside: with a real kube-apiserver, the webhook registered as
// by the chart and with the chart's permissions, and an agent on a host tree.
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

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pki"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/rig"
)

// suite is what all tests share, since starting an API server takes seconds.
type suite struct {
	rig        *rig.Rig
	config     *rest.Config
	serviceUID types.UID
	ca         *pkitest.CA
	// webhookMetrics and auditMetrics are the addresses at which both programs serve metrics.
	webhookMetrics, auditMetrics string
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
	ctx := context.Background() // no test has started, so there is no context of a test
	dir, err := os.MkdirTemp("", "kubelet-https-guard-e2e")
	if err != nil {
		return 0, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	var health [2]string
	for i := range health {
		port, err := rig.FreePort(ctx)
		if err != nil {
			return 0, err
		}
		health[i] = fmt.Sprintf("127.0.0.1:%d", port)
	}
	r, err := rig.Start(ctx, rig.Options{
		Repository: "../..", Dir: dir, Progress: os.Stderr,
		WebhookFlags: []string{"--health-bind-address", health[0]}, AuditFlags: []string{"--health-bind-address", health[1]},
	})
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
	shared = suite{rig: r, config: config, ca: r.ServiceCA, webhookMetrics: health[0], auditMetrics: health[1]}
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

// as is a client that impersonates a user, or an administrator's if user is empty.
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

// issue issues a certificate that is valid now.
func issue(r pkitest.Request) pkitest.Pair {
	now := time.Now()
	return shared.ca.Issue(r.Valid(now.Add(-time.Hour), now.AddDate(2, 0, 0)))
}

// mldsaPair is a pair with an ML-DSA key, and the reason why it is refused by an API server that is built with Go 1.26.
// Built with Go 1.26, the programs cannot read the pair either.
func mldsaPair() (certificate, key []byte, reason string) {
	if !pki.SupportsMLDSA() {
		algorithm := pkitest.Algorithms()["ML-DSA-65"]
		certificate = algorithm.Certificate("2.16.840.1.101.3.4.3.18")
		return certificate, algorithm.PrivateKey(make([]byte, 34)), "CertificateUnparsable"
	}
	request := pkitest.ServingCert()
	request.Key = pkitest.MLDSA65
	pair := issue(request)
	return pair.Certificate, pair.Key, "AlgorithmUnsupported"
}
