// SPDX-License-Identifier: Apache-2.0

package faults_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/admission"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/openshift"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/rig"
)

// notDelivered is the agent's warning while the API server does not store its Events.
const notDelivered = "Event not delivered, trying again"

// bodyCut is what client-go logs if the body of a response ends early (rest/request.go). Whether it does depends on
// what had been sent of the response.
const bodyCut = "Unexpected error when reading response body"

// badAPI is a row in which both programs reach the API server through a proxy that misbehaves for a
// while. warns: the agent must log that its Events are not delivered.
func badAPI(bad func(*proxy), warns bool) func(*scene) {
	return func(s *scene) {
		p := newProxy(s.T, shared)
		s.useAPIServer("https://"+p.address, p.ca.PEM())
		w, a := s.startWebhook(launch{}), s.startAgent(launch{})
		auditor := s.startAudit("audit", launch{})
		s.awaitReady(w)
		s.awaitCleanAudit(auditor)
		s.awaitEvents(a)
		s.awaitRest("webhook", w.Process, webhookLimit)
		s.awaitRest("audit", auditor.Process, webhookLimit)
		s.awaitRest("agent", a.process.Process, agentLimit)
		stream, done := s.startStream(s.questionsTo(w))
		s.awaitRightAnswers(stream)

		began := time.Now()
		bad(p)
		a.Tolerated[notDelivered], a.Tolerated[bodyCut] = 0, 0
		s.breakAndRepair(a)
		garbage := s.validSecret().DeepCopy()
		garbage.Data[corev1.TLSPrivateKeyKey] = []byte("garbage")
		s.restore(garbage)
		s.awaitRightAnswers(stream)
		if warns {
			s.await("the agent logs that its Events are not delivered", func(ctx context.Context) bool {
				if err := a.LogsNothing(ctx, pollInterval); err != nil {
					s.Fatal(err)
				}
				return a.Tolerated[notDelivered] > 0
			})
		}
		p.repair(s.T)
		s.outage = time.Since(began)

		// The audit reports what happened during the outage, and that it is resolved.
		s.auditLogs(auditor, "Finding active KeyUnparsable")
		s.restore(s.validSecret())
		s.auditLogs(auditor, "Finding active KeyUnparsable", "Finding resolved KeyUnparsable")
		counts := done()
		s.allAnswered(counts)
		s.awaitRefusalEvents(w, counts.Refused)
		s.breakAndRepair(a)
		s.awaitEvents(a)
		if logged := a.Tolerated[notDelivered]; logged > 2 || (warns && logged == 0) {
			s.Errorf("the agent logged %d times: %s", logged, notDelivered)
		}
		w.client.CloseIdleConnections()
	}
}

// server is a second API server of the same cluster. It reaches etcd through a proxy.
type server struct {
	etcd    *tcpProxy
	process *rig.Process
	url     string
	program string
	args    []string
	api     kubernetes.Interface
	ready   func(context.Context) bool
}

// startServer starts one with the arguments of the rig's API server and the given ones.
func (s *scene) startServer(more ...string) *server {
	s.Helper()
	args, err := shared.rig.APIServerCommand()
	if err != nil {
		s.Fatal(err)
	}
	etcd, err := os.ReadFile(shared.rig.Path("cluster", "etcd-url"))
	if err != nil {
		s.Fatal(err)
	}
	port, err := rig.FreePort(s.Context())
	if err != nil {
		s.Fatal(err)
	}
	second := &server{
		etcd:    newTCPProxy(s.T, strings.TrimPrefix(string(etcd), "http://")),
		url:     fmt.Sprintf("https://127.0.0.1:%d", port),
		program: args[0],
	}
	for _, arg := range args[1:] {
		switch name, _, _ := strings.Cut(arg, "="); name {
		case "--etcd-servers":
			arg = "--etcd-servers=http://" + second.etcd.address
		case "--secure-port":
			arg = "--secure-port=" + strconv.Itoa(port)
		case "--audit-log-path":
			arg = "--audit-log-path=" + filepath.Join(s.TempDir(), "audit.log")
		}
		second.args = append(second.args, arg)
	}
	second.args = append(second.args, more...)
	config := rest.CopyConfig(shared.config)
	config.Host, config.Timeout = second.url, 10*time.Second
	if second.api, err = kubernetes.NewForConfig(config); err != nil {
		s.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(shared.config.CAData)
	client := &http.Client{
		Timeout: 5 * time.Second,
		Transport: &http.Transport{
			TLSClientConfig:   &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
			DisableKeepAlives: true,
		},
	}
	second.ready = func(ctx context.Context) bool {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, second.url+"/readyz", nil)
		if err != nil {
			s.Fatal(err)
		}
		request.Header.Set("Authorization", "Bearer "+shared.config.BearerToken)
		response, err := client.Do(request)
		if err != nil {
			return false
		}
		defer response.Body.Close()
		return response.StatusCode == http.StatusOK
	}
	s.run(second)
	return second
}

// run starts the second API server's process.
func (s *scene) run(second *server) {
	s.Helper()
	var err error
	if second.process, err = shared.rig.Launch(s.name+"-kube-apiserver", second.program, second.args...); err != nil {
		s.Fatal(err)
	}
	process := second.process
	s.Cleanup(func() { _ = process.Stop() })
	s.await("the second API server is ready", second.ready)
}

// startBehindServer starts all that a row about the API server itself needs: a second API server, the registered
// webhook and an agent that use it, and a stream that changes the registered webhook's Secret through
// it.
func (s *scene) startBehindServer() (second *server, a *agent, stream *admission.Stream, done func() admission.Counts) {
	s.Helper()
	second = s.startServer()
	s.useAPIServer(second.url, shared.config.CAData)
	w := s.startRegistered()
	a = s.startAgent(launch{})
	auditor := s.startAudit("audit", launch{}, w.config)
	s.awaitReady(w)
	s.awaitAudit(auditor)
	s.awaitEvents(a)
	s.awaitRest("webhook", w.Process, webhookLimit)
	s.awaitRest("audit", auditor.Process, webhookLimit)
	s.awaitRest("agent", a.process.Process, agentLimit)
	stream, done = s.startStream(s.questionsThrough(second.api))
	s.awaitRightAnswers(stream)
	return second, a, stream, done
}

func killAPIServer(s *scene) {
	second, a, stream, done := s.startBehindServer()
	for range 2 {
		if err := syscall.Kill(second.process.PID(), syscall.SIGKILL); err != nil {
			s.Fatal(err)
		}
		_ = second.process.Stop()
		a.Tolerated[notDelivered] = 0
		s.breakAndRepair(a)
		s.run(second)
		s.awaitRightAnswers(stream)
		s.awaitEvents(a)
	}
	if counts := done(); counts.Unanswered == 0 {
		s.Error("the API server was never unavailable")
	}
}

// loseEtcd is a row in which the API server loses its connection to etcd for a while.
func loseEtcd(lose func(*tcpProxy)) func(*scene) {
	return func(s *scene) {
		second, a, stream, done := s.startBehindServer()
		lose(second.etcd)
		a.Tolerated[notDelivered] = 0
		s.breakAndRepair(a)
		unanswered := stream.Counts().Unanswered
		s.await("changes fail", func(context.Context) bool { return stream.Counts().Unanswered > unanswered })
		second.etcd.repair(s.T)
		s.awaitRightAnswers(stream)
		s.breakAndRepair(a)
		s.awaitEvents(a)
		done()
	}
}

// startRegistered starts the webhook that the API servers call. There is only one address for it, so
// its rows run alone.
func (s *scene) startRegistered() *webhook {
	s.Helper()
	w := &webhook{config: shared.rig.Path("webhook", "config.yaml")}
	_, w.certDir = shared.rig.WebhookAddress()
	s.restartWebhook(w)
	return w
}

// restartWebhook restarts a registered webhook.
func (s *scene) restartWebhook(w *webhook) {
	s.Helper()
	address, _ := shared.rig.WebhookAddress()
	s.startWebhookAt(w, address, launch{}, "--namespace", s.name, "--kubeconfig", s.kubeconfig)
}

// questionsThrough are questions about the registered webhook's Secret, sent through an API server. The
// stream starts from the Secret that the rig's own API server has stored.
func (s *scene) questionsThrough(api kubernetes.Interface) []admission.Question {
	s.Helper()
	const namespace, name = "openshift-apiserver", "serving-cert"
	changes := admission.Changes(shared.rig.ServiceCA, pkitest.ServingCert(), func(chain, key []byte) *corev1.Secret {
		return openshift.ServingCert(shared.serviceUID, chain, key)
	})
	s.await("the Secret exists", func(ctx context.Context) bool {
		_, err := shared.api.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
		if err == nil {
			return true
		}
		_, err = shared.api.CoreV1().Secrets(namespace).Create(ctx, changes[0].To, metav1.CreateOptions{})
		return err == nil
	})
	return admission.Through(api, namespace, name, changes)
}
