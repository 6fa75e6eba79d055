// SPDX-License-Identifier: Apache-2.0

package faults_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/control"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/report"
)

const (
	// agentPod is the Pod that stands for the agent's own.
	agentPod = "agent"
	// connectionTime is longer than the agent takes from one question about the connection to the next answer: 2 minutes,
	// a random part, and a minute for the answer. connectionReportTime is longer than it takes until a connection that
	// fails is reported: 9 minutes more (nodeagent/internal/connection, nodeagent/internal/agent).
	connectionTime       = 4 * time.Minute
	connectionReportTime = connectionTime + 10*time.Minute
)

// kubelet is a server that the API server takes for the kubelet of the row's Node: it serves the logs of containers,
// and requests a client certificate. The API server's own connection to it is real.
type kubelet struct {
	// refuses: it does not authenticate the API server.
	refuses atomic.Bool
	// asked counts requests.
	asked atomic.Int64
}

// ServeHTTP implements [http.Handler].
func (k *kubelet) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	k.asked.Add(1)
	switch {
	case !strings.HasPrefix(r.URL.Path, "/containerLogs/"):
		http.NotFound(w, r)
	case k.refuses.Load():
		http.Error(w, "Unauthorized", http.StatusUnauthorized)
	default:
		_, _ = io.WriteString(w, "x")
	}
}

// startKubelet starts the kubelet of the row's Node, with a Pod.
func (s *scene) startKubelet() *kubelet {
	s.Helper()
	k := &kubelet{}
	files := map[string][]byte{}
	for _, name := range []string{"ca.crt", "ca.key"} {
		data, err := os.ReadFile(shared.rig.Path("cluster", "pki", name))
		if err != nil {
			s.Fatal(err)
		}
		files[name] = data
	}
	ca, err := pkitest.LoadCA(files["ca.crt"], files["ca.key"])
	if err != nil {
		s.Fatal(err)
	}
	now := time.Now()
	pair := ca.Issue(pkitest.Request{
		CommonName: "system:node:" + s.name, Organization: "system:nodes", IPs: []net.IP{net.IPv4(127, 0, 0, 1)},
	}.Valid(now.Add(-time.Hour), now.AddDate(1, 0, 0)))
	certificate, err := tls.X509KeyPair(pair.Certificate, pair.Key)
	if err != nil {
		s.Fatal(err)
	}
	clients := x509.NewCertPool()
	clients.AddCert(ca.Certificate)
	listener, err := new(net.ListenConfig).Listen(s.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		s.Fatal(err)
	}
	server := &http.Server{
		Handler: k, ErrorLog: log.New(io.Discard, "", 0), ReadHeaderTimeout: time.Minute,
		TLSConfig: &tls.Config{
			Certificates: []tls.Certificate{certificate}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients,
			MinVersion: tls.VersionTLS12,
		},
	}
	go func() { _ = server.ServeTLS(listener, "", "") }()
	s.Cleanup(func() { _ = server.Close() })

	nodes := shared.api.CoreV1().Nodes()
	node, err := nodes.Get(s.Context(), s.name, metav1.GetOptions{})
	if err != nil {
		s.Fatal(err)
	}
	node.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "127.0.0.1"}}
	address, _ := listener.Addr().(*net.TCPAddr) // a TCP listener has no other
	node.Status.DaemonEndpoints.KubeletEndpoint.Port = int32(address.Port)
	if _, err := nodes.UpdateStatus(s.Context(), node, metav1.UpdateOptions{}); err != nil {
		s.Fatal(err)
	}
	_, err = shared.api.CoreV1().ServiceAccounts(s.name).Create(s.Context(),
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}, metav1.CreateOptions{})
	if err != nil {
		s.Fatal(err)
	}
	s.createPod()
	return k
}

// createPod creates the agent's Pod.
func (s *scene) createPod() {
	s.Helper()
	_, err := shared.api.CoreV1().Pods(s.name).Create(s.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: agentPod},
		Spec: corev1.PodSpec{
			NodeName: s.name, Containers: []corev1.Container{{Name: "nodeagent", Image: "none"}},
			AutomountServiceAccountToken: new(false),
		},
	}, metav1.CreateOptions{})
	if err != nil {
		s.Fatal(err)
	}
}

// deletePod deletes the agent's Pod at once.
func (s *scene) deletePod() {
	s.Helper()
	err := shared.api.CoreV1().Pods(s.name).Delete(s.Context(), agentPod, metav1.DeleteOptions{
		GracePeriodSeconds: new(int64(0)),
	})
	if err != nil {
		s.Fatal(err)
	}
}

// useTokenFile makes the processes that are started from now on read their token from a file.
func (s *scene) useTokenFile() (path string) {
	s.Helper()
	path = s.kubeconfig + ".token"
	s.write(path, []byte(shared.config.BearerToken))
	config, err := os.ReadFile(s.kubeconfig)
	if err != nil {
		s.Fatal(err)
	}
	inline := fmt.Sprintf("{token: %q}", shared.config.BearerToken)
	s.write(s.kubeconfig, []byte(strings.Replace(string(config), inline, fmt.Sprintf("{tokenFile: %q}", path), 1)))
	return path
}

// outage is what makes the API server useless for the agent's questions about the connection, and its end.
type outage struct {
	begin, end func()
	// visible: the agent gets answers all the same.
	visible bool
}

// badConnection is a row in which the agent cannot ask about the connection for a while. It fails in an outage, and is
// repaired in another one.
func badConnection(outageOf func(*scene, *proxy) outage) func(*scene) {
	return func(s *scene) {
		p := newProxy(s.T, shared)
		s.useAPIServer("https://"+p.address, p.ca.PEM())
		k, o := s.startKubelet(), outageOf(s, p)
		a := s.startAgent(launch{args: []string{"--pod", s.name + "/" + agentPod}})
		a.Tolerated[notDelivered] = 0
		s.awaitConnectionAnswer(a)
		if k.asked.Load() == 0 {
			s.Fatal("the API server did not ask the kubelet")
		}
		s.awaitRest("agent", a.process.Process, agentLimit)
		const failed = string(report.FindingActive) + " " + string(finding.ClientCertificateNotAccepted)
		const repaired = string(report.FindingResolved) + " " + string(finding.ClientCertificateNotAccepted)

		// The agent sees the failure after the outage. Another outage does not hide it.
		o.begin()
		k.refuses.Store(true)
		s.awaitConnectionAnswer(a)
		o.end()
		s.awaitConnectionAnswer(a)
		o.begin()
		s.agentLogsWithin(a, connectionReportTime, failed, notCompliant(control.UseHTTPS))
		s.awaitConnectionAnswer(a)
		// It sees the repair after the outage, too.
		k.refuses.Store(false)
		if !o.visible {
			s.logsNothing(a)
		}
		o.end()
		s.agentLogsWithin(a, connectionTime, repaired, compliant(control.UseHTTPS))
		s.awaitEvents(a)
	}
}

// awaitConnectionAnswer waits until the agent has asked about the connection once more, with any answer.
func (s *scene) awaitConnectionAnswer(a *agent) {
	s.Helper()
	answered := func(ctx context.Context) float64 {
		metrics, err := a.process.Read(ctx)
		if err != nil {
			s.Fatal(err)
		}
		return metrics.Sum("kubelet_https_guard_scans_total", `trigger="connection"`)
	}
	before := float64(0)
	if a.askedOnce {
		before = answered(s.Context())
	}
	a.askedOnce = true
	s.awaitWithin(connectionTime, "the agent has asked about the connection",
		func(ctx context.Context) bool { return answered(ctx) > before })
}

// The outages.

func throughProxy(begin func(*proxy), visible bool) func(*scene, *proxy) outage {
	return func(s *scene, p *proxy) outage {
		return outage{begin: func() { begin(p) }, end: func() { p.repair(s.T) }, visible: visible}
	}
}

func unavailable(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusServiceUnavailable)
	_, _ = io.WriteString(w, `{"kind":"Status","apiVersion":"v1","status":"Failure",`+
		`"message":"apiserver is shutting down","reason":"ServiceUnavailable","code":503}`)
}

func invalidToken(s *scene, _ *proxy) outage {
	path := s.useTokenFile()
	return outage{
		begin: func() { s.write(path, []byte("invalid")) },
		end:   func() { s.write(path, []byte(shared.config.BearerToken)) },
	}
}

func podDeleted(s *scene, _ *proxy) outage { return outage{begin: s.deletePod, end: s.createPod} }
