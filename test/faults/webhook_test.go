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
	s.ready(w)
	stream, done := s.ask(s.registered(shared.api))
	for range 10 {
		s.rightAgain(stream)
		<-time.After(rand.N(4 * askEach)) // at any moment of a request
		s.kill(w)
		unanswered := stream.Counts().Unanswered
		s.await("changes fail", func(context.Context) bool { return stream.Counts().Unanswered > unanswered })
		s.again(w)
		s.ready(w)
	}
	s.rightAgain(stream)
	s.rested("webhook", w.Process, webhookLimit)
	done()
	s.figure("ten ends")
}

// complaints of a webhook that could not read its files.
const (
	certificateKept = "Serving certificate not reloaded"
	configKept      = "Configuration not reloaded"
)

func servingGarbage(s *scene) {
	w := s.startRegistered()
	s.ready(w)
	s.auditing(w)
	s.rested("webhook", w.Process, webhookLimit)
	stream, done := s.ask(s.registered(shared.api))
	s.rightAgain(stream)
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
		s.await("the webhook says that it keeps the last good pair", func(context.Context) bool { return len(s.lines(w, certificateKept)) > i })
		s.rightAgain(stream)
	}
	s.ready(w)
	s.write(pair, good)
	s.allAnswered(done())
	if said := len(s.lines(w, certificateKept)); said != 3 {
		s.Errorf("said %d times that the pair is of no use, not 3", said)
	}
}

func servingExpired(s *scene) {
	w := s.startRegistered()
	s.ready(w)
	s.auditing(w)
	s.rested("webhook", w.Process, webhookLimit)
	stream, done := s.ask(s.registered(shared.api))
	s.rightAgain(stream)
	files := map[string][]byte{}
	for _, name := range []string{"/tls.crt", "/tls.key"} {
		data, err := os.ReadFile(w.certDir + name)
		if err != nil {
			s.Fatal(err)
		}
		files[w.certDir+name] = data
	}
	mend := func() {
		for path, data := range files {
			s.write(path, data)
		}
	}
	s.Cleanup(mend)
	second := s.startServer() // before, or its start would have the first one make new connections
	now := time.Now()
	expired := shared.rig.IssueServing(now.AddDate(-1, 0, 0), now.Add(-time.Hour))
	s.write(w.certDir+"/tls.crt", expired.Certificate)
	s.write(w.certDir+"/tls.key", expired.Key)
	s.await("the webhook is not ready", func(ctx context.Context) bool {
		code, err := w.Status(ctx, "/readyz")
		return err == nil && code == http.StatusServiceUnavailable
	})
	// An API server looks at a certificate when it connects.
	fails, failing := s.ask(s.registered(second.api)[:2])
	s.await("a new API server refuses the certificate", func(context.Context) bool { return s.refused(second, expired.Certificate) })
	mend()
	s.ready(w)
	s.rightAgain(stream)
	s.rightAgain(fails)
	if counts := failing(); counts.Unanswered == 0 {
		s.Error("nothing failed closed")
	}
	done() // through the first one, too, what takes a new connection fails closed
}

// refused: a change through an API server fails since the webhook's certificate is
// none. The change is one of content, which the policy leaves to the webhook.
func (s *scene) refused(through *server, chain []byte) bool {
	patch, err := json.Marshal(map[string]any{"data": map[string][]byte{corev1.TLSCertKey: chain}})
	if err != nil {
		s.Fatal(err)
	}
	_, err = through.api.CoreV1().Secrets("openshift-apiserver").Patch(s.Context(), "serving-cert", types.MergePatchType, patch, metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}})
	return err != nil && strings.Contains(err.Error(), "failed calling webhook") && strings.Contains(err.Error(), "expired")
}

func badConfiguration(s *scene) {
	w := s.startWebhook("webhook", launch{})
	s.ready(w)
	s.auditing(w)
	s.rested("webhook", w.Process, webhookLimit)
	good := s.goodConfig(w.certDir)
	stream, done := s.ask(s.directly(w))
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
	said := 0
	for kind, write := range kinds {
		if err := write(); err != nil {
			s.Fatal(err)
		}
		said++
		s.await("the webhook says that its configuration is of no use: "+kind, func(context.Context) bool { return len(s.lines(w, configKept)) >= said })
		s.rightAgain(stream)
	}
	s.write(w.config, good)
	s.await("the configuration counts again", func(ctx context.Context) bool {
		metrics, err := w.Read(ctx)
		return err == nil && metrics.Sum("kubelet_https_guard_config_last_reload_successful") == 1
	})
	s.rightAgain(stream)
	s.allAnswered(done())
	w.client.CloseIdleConnections()
	if got := len(s.lines(w, configKept)); got != len(kinds) {
		s.Errorf("said %d times that the configuration is of no use, not %d", got, len(kinds))
	}
}

// descriptorLimit lets a process open no file more, and gives back what undoes it.
// What it has stays.
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
	w := s.startWebhook("webhook", launch{})
	s.ready(w)
	s.auditing(w)
	s.rested("webhook", w.Process, webhookLimit)
	// A connection for each question under way, or more are wanted later.
	stream, done := s.ask(s.directly(w))
	s.rightAgain(stream)
	undo := s.descriptorLimit(w.PID)
	s.serve(w, time.Now().Add(-time.Hour), time.Now().AddDate(2, 0, 0)) // which it cannot read
	stranger := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}}}
	waiting := make(chan error, 1)
	body, err := admission.Review(s.good(), nil)
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
	s.await("the webhook cannot read its files", func(context.Context) bool { return len(s.lines(w, certificateKept)) > 0 })
	s.rightAgain(stream)
	select {
	case err := <-waiting:
		s.Errorf("who was not connected was answered: %v", err)
	default:
	}
	undo()
	if err := <-waiting; err != nil {
		s.Errorf("who waited: %v", err)
	}
	s.ready(w)
	s.rightAgain(stream)
	s.await("the new certificate is served", func(context.Context) bool { return len(s.lines(w, "Serving certificate reloaded")) == 1 })
	done()
	stranger.CloseIdleConnections()
	w.client.CloseIdleConnections()
}

func diskFull(s *scene) {
	full := launch{shell: `exec "$@" 2>/dev/full`}
	w := s.startWebhook("webhook", full)
	s.ready(w)
	s.audited(w)
	s.rested("webhook", w.Process, webhookLimit)
	_, done := s.ask(s.directly(w))

	// The agent's log says nothing, so what it tells is read elsewhere.
	a := s.startSilent(full)
	s.verdict(a, 1)
	s.rested("agent", a.process.Process, agentLimit)
	for _, name := range []string{"certificate removed", "key of another pair"} {
		f := faultNamed(s.T, name)
		exchange := rotation.Writers()[3] // at once
		if err := f.Inject(a.Host, exchange); err != nil {
			s.Fatal(err)
		}
		s.await("the metrics tell "+name, func(ctx context.Context) bool {
			metrics, err := a.process.Read(ctx)
			return err == nil && metrics.Sum("kubelet_https_guard_finding", fmt.Sprintf("reason=%q", f.Reasons[0])) == 1
		})
		s.verdict(a, 0)
		if err := f.Repair(a.Host, exchange, a.Host.Pair()); err != nil {
			s.Fatal(err)
		}
		s.verdict(a, 1)
	}
	a.Told = 1 + 2*(1+1+1+1+1) // verified; each: raised, not verified, rotated, cleared, verified
	s.delivered(a)
	counts := done()
	s.allAnswered(counts)
	s.refusals(w, counts.Refused)
	w.client.CloseIdleConnections()
	if data, err := os.ReadFile(w.log); err != nil || len(data) > 0 {
		s.Errorf("the log was not lost: %d bytes, %v", len(data), err)
	}
}

// verdict waits for one in the agent's metrics.
func (s *scene) verdict(a *agent, compliant float64) {
	s.Helper()
	s.await(fmt.Sprintf("the agent's verdict is %.0f", compliant), func(ctx context.Context) bool {
		metrics, err := a.process.Read(ctx)
		return err == nil && metrics[`kubelet_https_guard_compliant{control="cis-ocp-1.9:1.2.2"}`] == compliant && metrics.Sum("kubelet_https_guard_compliant") == 2*compliant && metrics.Sum("kubelet_https_guard_scans_total") > 0
	})
}

func logStuck(s *scene) {
	// Of a FIFO nobody reads what is in it; this process holds both ends, so that
	// there is a reader.
	path := s.TempDir() + "/log"
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		s.Fatal(err)
	}
	reader, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { _ = reader.Close() })
	w := s.startWebhook("webhook", launch{shell: `exec "$@" 2>` + path})
	s.ready(w)
	s.auditing(w)
	s.rested("webhook", w.Process, webhookLimit)
	stream, done := s.ask(s.directly(w))
	s.await("the pipe is full and questions wait", func(context.Context) bool { return stream.Counts().Late+stream.Counts().Unanswered > 0 })
	code, err := w.Status(s.Context(), "/healthz")
	if err != nil || code != http.StatusOK {
		s.Errorf("/healthz: %d, %v", code, err)
	}
	go func() { _, _ = io.Copy(io.Discard, reader) }()
	s.rightAgain(stream)
	done()
	w.client.CloseIdleConnections()
}

// maxConnections are those that the webhook takes at one time
// (webhook/internal/tlsserver).
const maxConnections = 500

// manyRequests: each with a connection of its own, all at once. How many are
// answered is a matter of the machine: whose handshake takes 5 s is seen off.
func manyRequests(s *scene) {
	const requests = 10_000
	w := s.startWebhook("webhook", launch{})
	s.ready(w)
	s.auditing(w)
	s.askOnce(w)
	w.client.CloseIdleConnections()
	s.rested("webhook", w.Process, webhookLimit)
	crowd := &http.Client{Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12, ClientSessionCache: nil},
		DisableKeepAlives: true,
	}}
	questions, err := admission.Directly(crowd, w.url, s.changes)
	if err != nil {
		s.Fatal(err)
	}
	// One descriptor each; those that are not to be had wait here.
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
		case <-time.After(lookEach):
		}
	}
	counts := stream.Counts()
	s.noneWrong(counts)
	if most.Descriptors > maxConnections+64 {
		s.Errorf("the webhook had %d descriptors, and takes %d connections", most.Descriptors, maxConnections)
	}
	s.figure("admission: %s, in %s, %d connections at once from here, at most %d descriptors there", counts, time.Since(began).Round(time.Second), cap(sockets), most.Descriptors)
	s.allAnswered(s.askOnce(w))
	w.client.CloseIdleConnections()
}

func slowClients(s *scene) {
	w := s.startWebhook("webhook", launch{})
	s.ready(w)
	s.auditing(w)
	s.rested("webhook", w.Process, webhookLimit)
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
		text := "\x16\x03\x01\x02\x00\x01" // of a handshake
		if i%3 > 0 {
			secure := tls.Client(connection, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12})
			if err := secure.HandshakeContext(ctx); err != nil {
				return // seen off while it waited
			}
			connection, text = secure, "POST /validate HTTP/1.1\r\nHost: webhook\r\n"
			if i%3 == 2 { // a header at once, then a slow body
				text += "Content-Length: 5000\r\n\r\n"
				if _, err := io.WriteString(connection, text); err != nil {
					return
				}
			}
		}
		text += strings.Repeat("x", 10_000)
		for _, letter := range []byte(text) {
			if _, err := connection.Write([]byte{letter}); err != nil {
				return // seen off
			}
			select {
			case <-ctx.Done():
				s.Error("a slow client was never seen off")
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
	stream, done := s.ask(s.directly(w))
	seenOff := make(chan struct{})
	go func() {
		slow.Wait()
		close(seenOff)
	}()
	select {
	case <-seenOff:
	case <-time.After(patience):
		s.Error("not all slow clients were seen off")
		stop()
	}
	slow.Wait()
	s.rightAgain(stream)
	done()
	w.client.CloseIdleConnections()
}
