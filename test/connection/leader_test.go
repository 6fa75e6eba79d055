// SPDX-License-Identifier: Apache-2.0

package connection_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/rig"
)

const (
	// sweptNodes is the number of Nodes with simulated kubelets, and sweptPort their port.
	sweptNodes, sweptPort = 8, 10350
	// sweepTime is longer than the interval of sweeps, with its random part (webhook/internal/sweep, Every).
	// sweptReportTime is longer than it takes until a finding that a sweep has seen is reported: 3.5 minutes. leadTime is
	// longer than a Lease is valid after its last renewal, with the time until another audit takes it
	// (webhook/internal/audit, leaseDuration and retryPeriod).
	sweepTime, leadTime, sweptReportTime = 6 * time.Minute, 4 * time.Minute, 6 * time.Minute
)

// sweptKubelet is a simulated kubelet, as far as a handshake goes.
type sweptKubelet struct {
	node string
	pair atomic.Pointer[tls.Certificate]
	// asked is called at each connection, before the handshake.
	asked func()
}

// present makes it present a certificate of this CA.
func (k *sweptKubelet) present(t *testing.T, ca *pkitest.CA, address string) {
	t.Helper()
	request := servingRequest()
	request.CommonName, request.DNSNames = "system:node:"+k.node, []string{k.node}
	request.IPs = []net.IP{net.ParseIP(address)}
	pair := ca.Issue(request)
	certificate, err := tls.X509KeyPair(pair.Certificate, pair.Key)
	if err != nil {
		t.Fatal(err)
	}
	k.pair.Store(&certificate)
}

// changeLeader kills the leader of the audit in the middle of a sweep. Before that sweep one Node was repaired and
// others failed for the first time. The other audit must report each finding once, and none of the repaired one.
func changeLeader(t *testing.T) {
	foreign := pkitest.NewCAAround("foreign", time.Now())
	var once sync.Once
	var stopsHere atomic.Bool
	inMiddle, ended := make(chan struct{}), make(chan struct{})
	t.Cleanup(func() { close(ended) })
	kubelets := make([]*sweptKubelet, sweptNodes)
	addresses := make([]string, sweptNodes)
	for i := range kubelets {
		k := &sweptKubelet{node: fmt.Sprintf("swept-%d", i), asked: func() {}}
		if i == 0 { // the sweep waits for this one until the leader is killed
			k.asked = func() {
				if stopsHere.Load() {
					once.Do(func() { close(inMiddle) })
					<-ended
				}
			}
		}
		kubelets[i], addresses[i] = k, fmt.Sprintf("172.30.0.%d", 100+i)
		if err := addAddress(t, addresses[i]); err != nil {
			t.Fatal(err)
		}
		k.present(t, shared.ca, addresses[i])
		startSwept(t, k, addresses[i])
	}
	untrusted := func(numbers ...int) {
		for _, i := range numbers {
			kubelets[i].present(t, foreign, addresses[i])
		}
	}
	untrusted(1, 2, 3)

	_, err := shared.client.CoreV1().ConfigMaps("openshift-kube-apiserver").Create(t.Context(), &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "kubelet-serving-ca"},
		Data:       map[string]string{"ca-bundle.crt": string(shared.ca.PEM())},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	first, firstLog := startAudit(t, "first")
	m := &member{T: t}
	m.await(waitTime, "the first audit leads", func() (bool, string) {
		text := m.text(firstLog)
		return strings.Contains(text, `"msg":"Audit started"`), text
	})
	_, secondLog := startAudit(t, "second")
	want := untrustedNodes(1, 2, 3)
	m.awaitNodes(firstLog, sweepTime+sweptReportTime, want)

	kubelets[1].present(t, shared.ca, addresses[1])
	untrusted(4, 5, 6)
	stopsHere.Store(true)
	select {
	case <-inMiddle:
	case <-time.After(sweepTime):
		t.Fatal("the first audit did not begin another sweep")
	}
	if err := syscall.Kill(first.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	stopsHere.Store(false)
	killed := time.Now()
	m.awaitNodes(firstLog, 0, want)
	want = untrustedNodes(2, 3, 4, 5, 6)
	m.awaitNodes(secondLog, leadTime+sweepTime+sweptReportTime, want)
	t.Logf("the second audit reported all after %s", time.Since(killed).Round(time.Second))
	// All are resolved, so the second audit has the edges of the ones that only the first one had seen to fail, too.
	for i := range kubelets {
		kubelets[i].present(t, shared.ca, addresses[i])
	}
	for _, notice := range slices.Clone(want) {
		want = append(want, strings.Replace(notice, "active", "resolved", 1))
	}
	m.awaitNodes(secondLog, sweepTime+waitTime, want)
}

func untrustedNodes(numbers ...int) (all []string) {
	for _, i := range numbers {
		all = append(all, active(finding.KubeletCertificateUntrusted, fmt.Sprintf("Node swept-%d", i)))
	}
	return all
}

// startSwept starts a simulated kubelet and makes its Node.
func startSwept(t *testing.T, k *sweptKubelet, address string) {
	t.Helper()
	listener, err := shared.listen(t.Context(), fmt.Sprintf("%s:%d", address, sweptPort))
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{
		Handler: http.NotFoundHandler(), ErrorLog: log.New(io.Discard, "", 0), ReadHeaderTimeout: time.Minute,
		TLSConfig: &tls.Config{
			MinVersion: tls.VersionTLS12, ClientAuth: tls.RequestClientCert,
			GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { k.asked(); return k.pair.Load(), nil },
		},
	}
	go func() { _ = server.ServeTLS(listener, "", "") }()
	t.Cleanup(func() { _ = server.Close() })
	nodes := shared.client.CoreV1().Nodes()
	_, err = nodes.Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: k.node}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	// A patch: the controllers of the cluster write new Nodes, too.
	status := fmt.Appendf(nil, `{"status":{"addresses":[{"type":%q,"address":%q}],`+
		`"daemonEndpoints":{"kubeletEndpoint":{"Port":%d}}}}`, corev1.NodeInternalIP, address, sweptPort)
	_, err = nodes.Patch(t.Context(), k.node, types.StrategicMergePatchType, status, metav1.PatchOptions{}, "status")
	if err != nil {
		t.Fatal(err)
	}
}

// startAudit starts an audit with the chart's permissions. All share a Lease.
func startAudit(t *testing.T, name string) (process *rig.Process, path string) {
	t.Helper()
	m := &member{T: t, kubeconfig: filepath.Join(t.TempDir(), "kubeconfig")}
	m.useToken(m.newToken("kubelet-https-guard-audit"))
	config := filepath.Join(t.TempDir(), "config.yaml")
	for file, data := range map[string][]byte{
		m.kubeconfig: kubeconfig(fmt.Sprintf("{tokenFile: %q}", m.kubeconfig+".token")),
		config: []byte(`apiVersion: kubelet-https-guard.io/v1alpha1
kind: WebhookConfiguration
protectedSecrets:
- {namespace: openshift-apiserver, name: serving-cert, usage: serverAuth}
`),
	} {
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	command := shared.command(filepath.Join(repositoryPath(t), "bin", "webhook"), "audit", "--kubelets",
		"--health-bind-address", "0", "--config", config, "--namespace", namespace, "--kubeconfig", m.kubeconfig)
	var err error
	if process, err = shared.rig.Launch("hop-audit-"+name, command[0], command[1:]...); err != nil {
		t.Fatal(err)
	}
	path = shared.rig.Path("hop-audit-" + name + ".log")
	t.Cleanup(func() {
		_ = process.Stop()
		if t.Failed() {
			t.Logf("the %s audit logged:\n%s", name, m.text(path))
		}
	})
	return process, path
}

// awaitNodes waits until an audit has reported as many findings about the simulated kubelets as these, and requires
// that these are all.
func (m *member) awaitNodes(path string, within time.Duration, want []string) {
	m.Helper()
	reported := func() (all []string) {
		for _, notice := range noticesIn(m.text(path)) {
			if strings.Contains(notice, " at Node swept-") {
				all = append(all, notice)
			}
		}
		slices.Sort(all)
		return all
	}
	if within > 0 {
		m.await(within, strings.Join(want, ", "), func() (bool, string) {
			got := reported()
			return len(got) >= len(want), fmt.Sprintf("%q", got)
		})
	}
	want = slices.Sorted(slices.Values(want))
	if d := cmp.Diff(want, reported()); d != "" {
		m.Fatalf("the findings that the audit has reported (-want +got):\n%s", d)
	}
}
