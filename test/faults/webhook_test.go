// SPDX-License-Identifier: Apache-2.0

package faults_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubelet-https-guard/kubelet-https-guard/test/admission"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/rotation"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/vitals"
)

func killWebhook(s *scene) {
	w := s.startRegistered()
	s.awaitReady(w)
	stream, done := s.startStream(s.questionsThrough(shared.api))
	for range 10 {
		s.awaitRightAnswers(stream)
		<-time.After(rand.N(4 * askInterval)) // at a random moment of a request
		s.kill(w)
		unanswered := stream.Counts().Unanswered
		s.await("changes fail", func(context.Context) bool { return stream.Counts().Unanswered > unanswered })
		s.restartWebhook(w)
		s.awaitReady(w)
	}
	s.awaitRightAnswers(stream)
	s.awaitRest("webhook", w.Process, webhookLimit)
	done()
	s.addFigure("killed ten times")
}

// Messages of a webhook that could not read its files.
const (
	certificateKept = "Serving certificate not reloaded"
	configKept      = "Configuration not reloaded"
)

func servingGarbage(s *scene) {
	w := s.startRegistered()
	s.awaitReady(w)
	s.awaitRest("webhook", w.Process, webhookLimit)
	stream, done := s.startStream(s.questionsThrough(shared.api))
	s.awaitRightAnswers(stream)
	pair := w.certDir + "/tls.crt"
	good, err := os.ReadFile(pair)
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { s.write(pair, good) })
	other := shared.rig.IssueServing(time.Now().Add(-time.Hour), time.Now().AddDate(1, 0, 0))
	for i, garbage := range []func() error{
		func() error { return os.WriteFile(pair, []byte("garbage"), 0o600) },
		func() error { return os.WriteFile(pair, other.Certificate, 0o600) },
		func() error { return os.Remove(pair) },
	} {
		if err := garbage(); err != nil {
			s.Fatal(err)
		}
		s.await("the webhook logs that it keeps the last valid certificate",
			func(context.Context) bool { return len(s.lines(w.log, certificateKept)) > i })
		s.awaitRightAnswers(stream)
	}
	s.awaitReady(w)
	s.write(pair, good)
	s.allAnswered(done())
	if logged := len(s.lines(w.log, certificateKept)); logged != 3 {
		s.Errorf("the webhook logged %d times that the certificate is invalid, want 3", logged)
	}
}

func servingExpired(s *scene) {
	w := s.startRegistered()
	s.awaitReady(w)
	s.awaitRest("webhook", w.Process, webhookLimit)
	stream, done := s.startStream(s.questionsThrough(shared.api))
	s.awaitRightAnswers(stream)
	files := map[string][]byte{}
	for _, name := range []string{"/tls.crt", "/tls.key"} {
		data, err := os.ReadFile(w.certDir + name)
		if err != nil {
			s.Fatal(err)
		}
		files[w.certDir+name] = data
	}
	repair := func() {
		for path, data := range files {
			s.write(path, data)
		}
	}
	s.Cleanup(repair)
	second := s.startServer() // before the certificate expires: starting it makes the first one open new connections
	now := time.Now()
	expired := shared.rig.IssueServing(now.AddDate(-1, 0, 0), now.Add(-time.Hour))
	s.write(w.certDir+"/tls.crt", expired.Certificate)
	s.write(w.certDir+"/tls.key", expired.Key)
	s.await("the webhook is not ready", func(ctx context.Context) bool {
		code, err := w.Status(ctx, "/readyz")
		return err == nil && code == http.StatusServiceUnavailable
	})
	// An API server checks a certificate when it connects.
	fails, failing := s.startStream(s.questionsThrough(second.api)[:2])
	s.await("a new API server refuses the certificate",
		func(context.Context) bool { return s.refused(second, expired.Certificate) })
	repair()
	s.awaitReady(w)
	s.awaitRightAnswers(stream)
	s.awaitRightAnswers(fails)
	if counts := failing(); counts.Unanswered == 0 {
		s.Error("no request failed closed")
	}
	done() // through the first one, a request over a new connection fails closed, too
}

// refused reports whether a change through an API server fails because the webhook's certificate is
// not valid. The policy does not check what changes here, so only the webhook can refuse it.
func (s *scene) refused(through *server, chain []byte) bool {
	patch, err := json.Marshal(map[string]any{"data": map[string][]byte{corev1.TLSCertKey: chain}})
	if err != nil {
		s.Fatal(err)
	}
	_, err = through.api.CoreV1().Secrets("openshift-apiserver").Patch(s.Context(), "serving-cert", types.MergePatchType,
		patch, metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}})
	return err != nil && strings.Contains(err.Error(), "failed calling webhook") &&
		strings.Contains(err.Error(), "expired")
}

func badConfiguration(s *scene) {
	w := s.startWebhook(launch{})
	s.awaitReady(w)
	s.awaitRest("webhook", w.Process, webhookLimit)
	good := s.goodConfig()
	stream, done := s.startStream(s.questionsTo(w))
	kinds := map[string]func() error{
		"garbage": func() error { return os.WriteFile(w.config, []byte("\x00\xff garbage"), 0o600) },
		"empty":   func() error { return os.WriteFile(w.config, nil, 0o600) },
		"cut off": func() error { return os.WriteFile(w.config, good[:len(good)*2/3], 0o600) },
		"protects nothing": func() error {
			return os.WriteFile(w.config, good[:bytes.Index(good, []byte("protectedSecrets"))], 0o600)
		},
		"another kind": func() error {
			return os.WriteFile(w.config, bytes.ReplaceAll(good, []byte("WebhookC"), []byte("C")), 0o600)
		},
		"a field more": func() error { return os.WriteFile(w.config, append(bytes.Clone(good), "mode: off\n"...), 0o600) },
		"two MiB":      func() error { return os.WriteFile(w.config, bytes.Repeat([]byte("# more\n"), 300_000), 0o600) },
		"not there":    func() error { return os.Remove(w.config) },
	}
	logged := 0
	for kind, write := range kinds {
		if err := write(); err != nil {
			s.Fatal(err)
		}
		logged++
		s.await("the webhook logs that its configuration is invalid: "+kind,
			func(context.Context) bool { return len(s.lines(w.log, configKept)) >= logged })
		s.awaitRightAnswers(stream)
	}
	s.write(w.config, good)
	s.await("the webhook has reloaded the configuration", func(ctx context.Context) bool {
		metrics, err := w.Read(ctx)
		return err == nil && metrics.Sum("kubelet_https_guard_config_last_reload_successful") == 1
	})
	s.awaitRightAnswers(stream)
	s.allAnswered(done())
	w.client.CloseIdleConnections()
	if got := len(s.lines(w.log, configKept)); got != len(kinds) {
		s.Errorf("the webhook logged %d times that the configuration is invalid, want %d", got, len(kinds))
	}
}

// descriptorLimit stops a process from opening more files; undo restores the limit. Files that are
// open stay open.
func (s *scene) descriptorLimit(pid int) (undo func()) {
	s.Helper()
	var before unix.Rlimit
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &before); err != nil {
		s.Fatal(err)
	}
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 1, Max: before.Max}, nil); err != nil {
		s.Fatal(err)
	}
	return func() {
		s.Helper()
		if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &before, nil); err != nil {
			s.Fatal(err)
		}
	}
}

func webhookDescriptors(s *scene) {
	w := s.startWebhook(launch{})
	s.awaitReady(w)
	s.awaitRest("webhook", w.Process, webhookLimit)
	// One connection for each concurrent question now, since no new ones are possible later.
	stream, done := s.startStream(s.questionsTo(w))
	s.awaitRightAnswers(stream)
	undo := s.descriptorLimit(w.PID)
	s.writeServingPair(w, time.Now().Add(-time.Hour), time.Now().AddDate(2, 0, 0)) // it cannot read them
	stranger := &http.Client{
		Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}},
	}
	waiting := make(chan error, 1)
	body, err := admission.Review(s.validSecret(), nil)
	if err != nil {
		s.Fatal(err)
	}
	go func() {
		allowed, err := admission.Post(s.Context(), stranger, w.url, body)
		if err == nil && allowed {
			err = fmt.Errorf("a delete was allowed")
		}
		waiting <- err
	}()
	s.await("the webhook cannot read its files",
		func(context.Context) bool { return len(s.lines(w.log, certificateKept)) > 0 })
	s.awaitRightAnswers(stream)
	select {
	case err := <-waiting:
		s.Errorf("a client without a connection got an answer: %v", err)
	default:
	}
	undo()
	if err := <-waiting; err != nil {
		s.Errorf("the client that waited: %v", err)
	}
	s.awaitReady(w)
	s.awaitRightAnswers(stream)
	s.await("the new certificate is served",
		func(context.Context) bool { return len(s.lines(w.log, "Serving certificate reloaded")) == 1 })
	done()
	stranger.CloseIdleConnections()
	w.client.CloseIdleConnections()
}

func diskFull(s *scene) {
	full := launch{shell: `exec "$@" 2>/dev/full`}
	w := s.startWebhook(full)
	s.awaitReady(w)
	s.awaitRest("webhook", w.Process, webhookLimit)
	auditor := s.startAudit("audit", full)
	s.awaitCleanAudit(auditor)
	s.awaitRest("audit", auditor.Process, webhookLimit)
	_, done := s.startStream(s.questionsTo(w))

	// The agent's log is lost, so the test reads metrics and Events.
	a := s.startUnread(full)
	s.awaitVerdict(a, 1)
	s.awaitRest("agent", a.process.Process, agentLimit)
	for _, name := range []string{"certificate removed", "key of another pair"} {
		f := faultNamed(s.T, name)
		exchange := rotation.Writers()[3] // replaces both files at once
		if err := f.Inject(a.Host, exchange); err != nil {
			s.Fatal(err)
		}
		s.await("the metrics have the finding of "+name, func(ctx context.Context) bool {
			metrics, err := a.process.Read(ctx)
			return err == nil && metrics.Sum("kubelet_https_guard_finding", fmt.Sprintf("reason=%q", f.Reasons[0])) == 1
		})
		s.awaitVerdict(a, 0)
		if err := f.Repair(a.Host, exchange, a.Host.Pair()); err != nil {
			s.Fatal(err)
		}
		s.awaitVerdict(a, 1)
	}
	// Two controls compliant; each fault: active, not compliant, rotated, resolved, compliant.
	a.Reported = 2 + 2*(1+1+1+1+1)
	s.awaitEvents(a)
	counts := done()
	s.allAnswered(counts)
	s.awaitRefusalEvents(w, counts.Refused)
	w.client.CloseIdleConnections()
	if data, err := os.ReadFile(w.log); err != nil || len(data) > 0 {
		s.Errorf("the log is not empty: %d bytes, %v", len(data), err)
	}
}

// awaitVerdict waits until the agent's metrics have this verdict.
func (s *scene) awaitVerdict(a *agent, compliant float64) {
	s.Helper()
	s.await(fmt.Sprintf("the agent's verdict is %.0f", compliant), func(ctx context.Context) bool {
		metrics, err := a.process.Read(ctx)
		return err == nil && metrics.Sum("kubelet_https_guard_compliant", `control="use-https"`) == compliant &&
			metrics.Sum("kubelet_https_guard_scans_total") > 0
	})
}

func logStuck(s *scene) {
	// Nothing reads from the FIFO. This process has both ends open, so that there is a reader.
	path := s.TempDir() + "/log"
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		s.Fatal(err)
	}
	reader, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { _ = reader.Close() })
	w := s.startWebhook(launch{shell: `exec "$@" 2>` + path})
	s.awaitReady(w)
	s.awaitRest("webhook", w.Process, webhookLimit)
	stream, done := s.startStream(s.questionsTo(w))
	s.await("the pipe is full and questions are delayed",
		func(context.Context) bool { return stream.Counts().Late+stream.Counts().Unanswered > 0 })
	code, err := w.Status(s.Context(), "/healthz")
	if err != nil || code != http.StatusOK {
		s.Errorf("/healthz: %d, %v", code, err)
	}
	go func() { _, _ = io.Copy(io.Discard, reader) }()
	s.awaitRightAnswers(stream)
	done()
	w.client.CloseIdleConnections()
}

// maxConnections is the webhook's limit of concurrent connections (webhook/internal/tlsserver).
const maxConnections = 500

// manyRequests sends many requests at once, each over its own connection. How many are answered
// depends on the machine: the webhook closes a connection whose handshake takes longer than 5 s.
func manyRequests(s *scene) {
	const requests = 10_000
	w := s.startWebhook(launch{})
	s.awaitReady(w)
	s.askOnce(w)
	w.client.CloseIdleConnections()
	s.awaitRest("webhook", w.Process, webhookLimit)
	crowd := &http.Client{Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12, ClientSessionCache: nil},
		DisableKeepAlives: true,
	}}
	questions, err := admission.Directly(crowd, w.url, s.changes)
	if err != nil {
		s.Fatal(err)
	}
	// Each needs a descriptor; a request waits here until one is free.
	var own unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &own); err != nil {
		s.Fatal(err)
	}
	sockets := make(chan struct{}, min(requests, int(own.Max)-500))
	stream := admission.Stream{Patience: patience}
	var group sync.WaitGroup
	start := make(chan struct{})
	for i := range requests {
		group.Go(func() {
			<-start
			sockets <- struct{}{}
			defer func() { <-sockets }()
			stream.Ask(s.Context(), questions[i%len(questions)])
		})
	}
	began := time.Now()
	close(start)
	done := make(chan struct{})
	go func() {
		group.Wait()
		close(done)
	}()
	var most vitals.Vitals
	for running := true; running; {
		if open, err := w.Descriptors(); err == nil {
			most.Descriptors = max(most.Descriptors, open)
		}
		select {
		case <-done:
			running = false
		case <-time.After(pollInterval):
		}
	}
	counts := stream.Counts()
	s.noneWrong(counts)
	if most.Descriptors > maxConnections+64 {
		s.Errorf("the webhook had %d open descriptors; its limit is %d connections", most.Descriptors, maxConnections)
	}
	s.addFigure("admission: %s, in %s, %d concurrent connections, at most %d descriptors of the webhook", counts,
		time.Since(began).Round(time.Second), cap(sockets), most.Descriptors)
	s.allAnswered(s.askOnce(w))
	w.client.CloseIdleConnections()
}

func slowClients(s *scene) {
	w := s.startWebhook(launch{})
	s.awaitReady(w)
	s.awaitRest("webhook", w.Process, webhookLimit)
	address := strings.TrimSuffix(strings.TrimPrefix(w.url, "https://"), "/validate")
	ctx, stop := context.WithCancel(s.Context())
	defer stop()
	var slow sync.WaitGroup
	const clients = 700
	connected := make(chan struct{}, clients)
	begin := func(i int) {
		defer slow.Done()
		connection, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err != nil {
			s.Error(err)
			return
		}
		defer connection.Close()
		end := context.AfterFunc(ctx, func() { _ = connection.Close() })
		defer end()
		connected <- struct{}{}
		text := "\x16\x03\x01\x02\x00\x01" // start of a handshake
		if i%3 > 0 {
			secure := tls.Client(connection, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12})
			if err := secure.HandshakeContext(ctx); err != nil {
				return // closed while it waited
			}
			connection, text = secure, "POST /validate HTTP/1.1\r\nHost: webhook\r\n"
			if i%3 == 2 { // a complete header, then a slow body
				text += "Content-Length: 5000\r\n\r\n"
				if _, err := io.WriteString(connection, text); err != nil {
					return
				}
			}
		}
		text += strings.Repeat("x", 10_000)
		for _, letter := range []byte(text) {
			if _, err := connection.Write([]byte{letter}); err != nil {
				return // closed by the webhook
			}
			select {
			case <-ctx.Done():
				s.Error("the webhook did not close the connection of a slow client")
				return
			case <-time.After(time.Second):
			}
		}
	}
	slow.Add(clients)
	for i := range clients {
		go begin(i)
	}
	for range clients {
		<-connected
	}
	stream, done := s.startStream(s.questionsTo(w))
	allClosed := make(chan struct{})
	go func() {
		slow.Wait()
		close(allClosed)
	}()
	select {
	case <-allClosed:
	case <-time.After(patience):
		s.Error("the webhook did not close the connections of all slow clients")
		stop()
	}
	slow.Wait()
	s.awaitRightAnswers(stream)
	done()
	w.client.CloseIdleConnections()
}
