// SPDX-License-Identifier: Apache-2.0

package faults_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"k8s.io/client-go/kubernetes"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/admission"
)

// oneAddress makes all clients use the address that the API server uses, too.
func oneAddress(int) string { return "127.0.0.1" }

func manyAddresses(i int) string { return fmt.Sprintf("127.0.%d.%d", 1+i/200, 1+i%200) }

// idleClients is a row in which more clients than the limit connect to the webhook and to its health
// port and keep their connections. Meanwhile an API server sends requests, and each of them must be
// answered. Of every three clients, one only connects, one completes a TLS handshake and one sends a
// request. A client whose connection the webhook closes reconnects after a while. With certificates,
// the webhook requires a client certificate: the API server has one, and so has every second client.
func idleClients(address func(i int) string, certificates bool) func(*scene) {
	return func(s *scene) {
		api := shared.api
		l := launch{}
		var own *tls.Certificate
		if certificates {
			now := time.Now()
			pair := s.ca.Issue(pkitest.Request{CommonName: "kube-apiserver"}.Valid(now.Add(-time.Hour), now.AddDate(1, 0, 0)))
			certificate, err := tls.X509KeyPair(pair.Certificate, pair.Key)
			if err != nil {
				s.Fatal(err)
			}
			own = &certificate
			ca := filepath.Join(s.TempDir(), "client-ca.crt")
			s.write(ca, s.ca.PEM())
			l.args = []string{"--client-ca", ca}
			api = s.startIdentified(pair)
		}
		w := &webhook{config: shared.rig.Path("webhook", "config.yaml")}
		var listens string
		listens, w.certDir = shared.rig.WebhookAddress()
		s.startWebhookAt(w, listens, l, "--namespace", s.name, "--kubeconfig", s.kubeconfig)
		if own != nil {
			w.client.Transport.(*http.Transport).TLSClientConfig.Certificates = []tls.Certificate{*own}
		}
		s.awaitReady(w)
		s.awaitRest("webhook", w.Process, webhookLimit)
		stream, done := s.startStream(s.questionsThrough(api))
		s.awaitRightAnswers(stream)

		for _, clients := range []int{500, 2000} {
			ctx, stop := context.WithCancel(s.Context())
			crowd := crowd{address: address, certificate: own, url: w.url}
			crowd.keep(ctx, clients, listens, false)
			crowd.keep(ctx, clients/5, w.Metrics, true)
			s.await(fmt.Sprintf("%d clients have connected", clients+clients/5),
				func(context.Context) bool { return crowd.connectedClients() >= clients+clients/5 })
			begin := stream.Counts()
			for range 5 {
				s.answersNewcomer(w)
			}
			s.await("the webhook answered 200 more questions",
				func(context.Context) bool { return stream.Counts().Right() >= begin.Right()+200 })
			stop()
			s.addFigure("%d clients: %d connections were made, %d of them closed by the webhook", clients+clients/5,
				crowd.connections(), crowd.closedByServer())
			if crowd.closedByServer() == 0 {
				s.Errorf("the webhook closed no connection of %d clients: they did not reach its limit", clients)
			}
			crowd.gone.Wait()
		}
		s.awaitRightAnswers(stream)
		s.allAnswered(done())
		w.client.CloseIdleConnections()
	}
}

// answersNewcomer requires that the webhook and its probe answer over new connections. Package
// connlimit closes the connection of a client that sends nothing during its grace period. On a busy
// machine the scheduler can delay a client for that long, so up to three tries are allowed, as for a
// probe.
func (s *scene) answersNewcomer(w *webhook) {
	s.Helper()
	body, err := admission.Review(s.validSecret(), s.validSecret()) // of a Secret that this webhook does not protect
	if err != nil {
		s.Fatal(err)
	}
	s.triedThrice("a new client", func() (string, bool) {
		w.client.CloseIdleConnections()
		allowed, err := admission.Post(s.Context(), w.client, w.url, body)
		return fmt.Sprintf("allowed %t, %v", allowed, err), allowed && err == nil
	})
	s.triedThrice("a probe", func() (string, bool) {
		code, err := w.Status(s.Context(), "/readyz")
		return fmt.Sprintf("%d, %v", code, err), code == http.StatusOK && err == nil
	})
}

// triedThrice tries as often as the chart's probes do before they count as failed. It records how
// often more than one try was necessary.
func (s *scene) triedThrice(what string, try func() (got string, good bool)) {
	s.Helper()
	for i := range 3 {
		got, good := try()
		if good {
			return
		}
		s.addFigure("%s, try %d: %s", what, i+1, got)
	}
	s.Errorf("%s got no answer in three tries", what)
}

// startIdentified starts an API server that presents a client certificate to webhooks.
func (s *scene) startIdentified(pair pkitest.Pair) kubernetes.Interface {
	s.Helper()
	directory := s.TempDir()
	kubeconfig, configuration := filepath.Join(directory, "kubeconfig"), filepath.Join(directory, "admission.yaml")
	s.write(kubeconfig, fmt.Appendf(nil, `apiVersion: v1
kind: Config
users: [{name: '*', user: {client-certificate-data: %q, client-key-data: %q}}]
`, base64.StdEncoding.EncodeToString(pair.Certificate), base64.StdEncoding.EncodeToString(pair.Key)))
	s.write(configuration, fmt.Appendf(nil, `apiVersion: apiserver.config.k8s.io/v1
kind: AdmissionConfiguration
plugins:
- name: ValidatingAdmissionWebhook
  configuration: {apiVersion: apiserver.config.k8s.io/v1, kind: WebhookAdmissionConfiguration, kubeConfigFile: %q}
`, kubeconfig))
	return s.startServer("--admission-control-config-file=" + configuration).api
}

// crowd is a number of clients that keep their connections open.
type crowd struct {
	address func(i int) string
	// certificate is the certificate of every second client; nil: no client has one.
	certificate *tls.Certificate
	url         string
	gone        sync.WaitGroup

	mu                      sync.Mutex
	first, connects, closed int
}

func (c *crowd) count(n *int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	*n++
}

func (c *crowd) read(n *int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return *n
}

// connectedClients is the number of clients that have connected at least once, connections the number
// of their connections, and closedByServer how many of these the server closed.
func (c *crowd) connectedClients() int { return c.read(&c.first) }
func (c *crowd) connections() int      { return c.read(&c.connects) }
func (c *crowd) closedByServer() int   { return c.read(&c.closed) }

// keep connects this many clients and keeps their connections open until the context ends. plain:
// without TLS.
func (c *crowd) keep(ctx context.Context, clients int, server string, plain bool) {
	for i := range clients {
		c.gone.Go(func() {
			for first := true; ctx.Err() == nil; first = false {
				err := c.hold(ctx, i, server, plain, func() {
					if c.count(&c.connects); first {
						c.count(&c.first)
					}
				})
				if err != nil && ctx.Err() == nil {
					c.count(&c.closed)
				}
				select {
				case <-ctx.Done():
				case <-time.After(5*time.Second + rand.N(5*time.Second)):
				}
			}
		})
	}
}

// hold connects and keeps the connection until the context ends or the server closes it. An earlier
// error, such as an interrupted handshake, counts as closed by the server.
func (c *crowd) hold(ctx context.Context, i int, server string, plain bool, connected func()) error {
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(c.address(i))}}
	connection, err := dialer.DialContext(ctx, "tcp", server)
	if err != nil {
		return err
	}
	defer connection.Close()
	defer context.AfterFunc(ctx, func() { _ = connection.Close() })()
	connected()
	request := fmt.Sprintf("GET /healthz HTTP/1.1\r\nHost: %s\r\n\r\n", server)
	if !plain && i%3 > 0 {
		config := &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}
		if c.certificate != nil && i%2 == 0 {
			config.Certificates = []tls.Certificate{*c.certificate}
		}
		secure := tls.Client(connection, config)
		if err := secure.HandshakeContext(ctx); err != nil {
			return err
		}
		connection = secure
		request = fmt.Sprintf(
			"POST /validate HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}", server)
	}
	reader := bufio.NewReader(connection)
	if i%3 == 2 {
		if _, err := io.Copy(connection, strings.NewReader(request)); err != nil {
			return err
		}
		response, err := http.ReadResponse(reader, nil)
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, response.Body)
		_ = response.Body.Close()
		if err != nil {
			return err
		}
	}
	_, err = reader.ReadByte() // blocks: the server sends nothing
	return err
}
