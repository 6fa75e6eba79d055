// SPDX-License-Identifier: Apache-2.0

package faults_test

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/uuid"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/report"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/admission"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/rig"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/rotation"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/vitals"
)

const (
	// patience bounds each wait. It is far longer than necessary, since these tests do not measure time.
	patience     = 3 * time.Minute
	pollInterval = 50 * time.Millisecond
	// settleTime is the agents' --settle, tick their --resync.
	settleTime, tick = 1500 * time.Millisecond, time.Second
	// askInterval is the interval at which a stream asks questions.
	askInterval = 50 * time.Millisecond
	// unreportedOutage is how long an API server can be unavailable without a report by the audit: one minute,
	// less the time until the audit's next request.
	unreportedOutage = 30 * time.Second
	// restReadings is the number of unchanged readings in a row after which a process is at rest.
	restReadings = 10
	// tolerance is by how many goroutines and descriptors a process may grow: for one or two more connections
	// to the API server.
	tolerance = 8
	// The memory limits of the chart.
	webhookLimit, agentLimit = 128 << 20, 64 << 20
	// secretName is the name of a row's protected Secret in the row's namespace, and bundleName the name
	// of the ConfigMap with its CA.
	secretName, bundleName = "guarded", "signers"
)

// scene is what a row has for itself: a namespace with a protected Secret and a Lease, a Node, and the
// processes that it starts.
type scene struct {
	*testing.T
	// name is the name of the namespace and of the Node.
	name string
	// kubeconfig points the processes to the API server, or to a proxy in front of it.
	kubeconfig string
	ca         *pkitest.CA
	changes    []admission.Change
	processes  []process
	figures    []string
	// outage is how long the API server was unavailable.
	outage time.Duration
}

// process is a process that is measured again at the end of the row.
type process struct {
	name string
	vitals.Process
	before vitals.Vitals
	limit  int64
}

func newScene(t *testing.T, number int) *scene {
	t.Helper()
	s := &scene{T: t, name: fmt.Sprintf("fault-%d", number), ca: pkitest.NewCAAround("rows", time.Now())}
	s.changes = admission.Changes(s.ca, pkitest.ServingCert(), s.secret)
	for _, create := range []func() error{
		func() error {
			_, err := shared.api.CoreV1().Namespaces().Create(t.Context(),
				&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: s.name}}, metav1.CreateOptions{})
			return err
		},
		func() error {
			_, err := shared.api.CoreV1().Nodes().Create(t.Context(),
				&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: s.name}}, metav1.CreateOptions{})
			return err
		},
		func() error {
			bundle := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: bundleName},
				Data: map[string]string{"ca.crt": string(s.ca.PEM())}}
			_, err := shared.api.CoreV1().ConfigMaps(s.name).Create(t.Context(), bundle, metav1.CreateOptions{})
			return err
		},
		func() error {
			_, err := shared.api.CoreV1().Secrets(s.name).Create(t.Context(), s.validSecret(), metav1.CreateOptions{})
			return err
		},
	} {
		if err := create(); err != nil {
			t.Fatal(err)
		}
	}
	s.useAPIServer(shared.config.Host, shared.config.CAData)
	return s
}

// useAPIServer writes the kubeconfig for the processes that are started from now on.
func (s *scene) useAPIServer(server string, ca []byte) {
	s.Helper()
	s.kubeconfig = filepath.Join(s.TempDir(), "kubeconfig")
	s.write(s.kubeconfig, fmt.Appendf(nil, `apiVersion: v1
kind: Config
clusters: [{name: rig, cluster: {server: %q, certificate-authority-data: %q}}]
users: [{name: admin, user: {token: %q}}]
contexts: [{name: rig, context: {cluster: rig, user: admin}}]
current-context: rig
`, server, base64.StdEncoding.EncodeToString(ca), shared.config.BearerToken))
}

func (s *scene) write(path string, data []byte) {
	s.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		s.Fatal(err)
	}
}

// secret is the row's protected Secret.
func (s *scene) secret(chain, key []byte) *corev1.Secret {
	return &corev1.Secret{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
		ObjectMeta: metav1.ObjectMeta{Namespace: s.name, Name: secretName},
		Type:       corev1.SecretTypeTLS, Data: map[string][]byte{corev1.TLSCertKey: chain, corev1.TLSPrivateKeyKey: key},
	}
}

// validSecret is a valid Secret.
func (s *scene) validSecret() *corev1.Secret { return s.changes[0].To }

// restore writes the protected Secret directly into etcd, without the API server.
func (s *scene) restore(secret *corev1.Secret) {
	s.Helper()
	secret = secret.DeepCopy()
	secret.UID, secret.CreationTimestamp = uuid.NewUUID(), metav1.Now()
	if err := shared.rig.Restore(s.Context(), "secrets", secret.Namespace, secret.Name, secret); err != nil {
		s.Fatal(err)
	}
}

// launch says how to start a program in an unusual way.
type launch struct {
	// shell is a command line that starts the program, which is "$@".
	shell string
	// args are additional flags, environment additional variables.
	args, environment []string
	// binaries is the directory of the programs.
	binaries string
}

func (l launch) command(binary string, args ...string) (shell string, arguments []string) {
	script := "exec \"$@\""
	if l.shell != "" {
		script = l.shell
	}
	path := filepath.Join(shared.bin, binary)
	if l.binaries != "" {
		path = filepath.Join(l.binaries, binary)
	}
	return "/bin/sh", append(
		append(append([]string{"-c", script, "sh", "/usr/bin/env"}, l.environment...), path),
		append(args, l.args...)...)
}

// webhook is a running webhook.
type webhook struct {
	process
	run    *rig.Process
	client *http.Client
	url    string
	// log is a file. certDir and config belong to this webhook only.
	log, certDir, config string
}

// startWebhook starts a webhook that protects the row's Secret.
func (s *scene) startWebhook(l launch) *webhook {
	s.Helper()
	directory := s.TempDir()
	w := &webhook{certDir: directory, config: filepath.Join(directory, "config.yaml")}
	now := time.Now()
	s.writeServingPair(w, now.Add(-time.Hour), now.AddDate(1, 0, 0))
	s.write(w.config, s.goodConfig())
	port, err := rig.FreePort(s.Context())
	if err != nil {
		s.Fatal(err)
	}
	s.startWebhookAt(w, fmt.Sprintf("127.0.0.1:%d", port), l, "--namespace", s.name, "--kubeconfig", s.kubeconfig)
	return w
}

func (s *scene) goodConfig() []byte {
	return fmt.Appendf(nil, `apiVersion: kubelet-https-guard.io/v1alpha1
kind: WebhookConfiguration
protectedSecrets:
- {namespace: %[1]s, name: %[2]s, usage: serverAuth, caBundleConfigMap: {namespace: %[1]s, name: %[3]s, key: ca.crt}}
`, s.name, secretName, bundleName)
}

// writeServingPair writes a serving certificate and key.
func (s *scene) writeServingPair(w *webhook, notBefore, notAfter time.Time) {
	s.Helper()
	pair := s.ca.Issue(pkitest.Request{CommonName: "webhook"}.Valid(notBefore, notAfter))
	s.write(filepath.Join(w.certDir, "tls.crt"), pair.Certificate)
	s.write(filepath.Join(w.certDir, "tls.key"), pair.Key)
}

// startWebhookAt starts a webhook at an address. Its files must exist.
func (s *scene) startWebhookAt(w *webhook, address string, l launch, args ...string) {
	s.Helper()
	const name = "webhook"
	health, err := rig.FreePort(s.Context())
	if err != nil {
		s.Fatal(err)
	}
	w.name, w.limit = name, webhookLimit
	w.Metrics, w.url = fmt.Sprintf("127.0.0.1:%d", health), "https://"+address+"/validate"
	w.log = shared.rig.Path(s.name + "-" + name + ".log")
	l.environment = append(l.environment, "POD_NAME="+s.name+"-"+name)
	program, arguments := l.command("webhook", append([]string{
		"serve", "--bind-address", address, "--health-bind-address", w.Metrics, "--shutdown-delay", "0s", "--cert-dir",
		w.certDir, "--config", w.config,
	}, args...)...)
	if w.run, err = shared.rig.Launch(s.name+"-"+name, program, arguments...); err != nil {
		s.Fatal(err)
	}
	w.PID = w.run.PID()
	if w.client != nil {
		return // not the first start
	}
	// As API servers do: HTTP/1.1 with persistent connections.
	transport := &http.Transport{
		// The server's identity is not tested here.
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12,
			NextProtos: []string{"http/1.1"}},
		MaxIdleConnsPerHost: 16,
	}
	w.client = &http.Client{Transport: transport}
	s.Cleanup(func() {
		if s.Failed() {
			s.Logf("the log of %s ends with:\n%s", name, tail(w.log))
		}
		_ = w.run.Stop()
	})
}

// kill kills a webhook with SIGKILL.
func (s *scene) kill(w *webhook) {
	s.Helper()
	if err := syscall.Kill(w.PID, syscall.SIGKILL); err != nil {
		s.Fatal(err)
	}
	if err := w.run.Stop(); err == nil || !strings.Contains(err.Error(), "killed") {
		s.Errorf("%s was killed but exited with: %v", w.name, err)
	}
}

// awaitReady waits until the webhook is ready.
func (s *scene) awaitReady(w *webhook) {
	s.Helper()
	s.await(w.name+" is ready", func(ctx context.Context) bool {
		code, err := w.Status(ctx, "/readyz")
		return err == nil && code == http.StatusOK
	})
}

// auditor is a running audit.
type auditor struct {
	process
	run *rig.Process
	log string
}

// startAudit starts an audit of the row's Secret, or of what a configuration says. All audits of a row
// share a Lease.
func (s *scene) startAudit(name string, l launch, config ...string) *auditor {
	s.Helper()
	if config == nil {
		config = []string{filepath.Join(s.TempDir(), "config.yaml")}
		s.write(config[0], s.goodConfig())
	}
	health, err := rig.FreePort(s.Context())
	if err != nil {
		s.Fatal(err)
	}
	a := &auditor{log: shared.rig.Path(s.name + "-" + name + ".log")}
	a.name, a.limit, a.Metrics = name, webhookLimit, fmt.Sprintf("127.0.0.1:%d", health)
	l.environment = append(l.environment, "POD_NAME="+s.name+"-"+name)
	program, arguments := l.command("webhook", "audit", "--health-bind-address", a.Metrics, "--config", config[0],
		"--namespace", s.name, "--kubeconfig", s.kubeconfig)
	if a.run, err = shared.rig.Launch(s.name+"-"+name, program, arguments...); err != nil {
		s.Fatal(err)
	}
	a.PID = a.run.PID()
	s.Cleanup(func() {
		if s.Failed() {
			s.Logf("the log of %s ends with:\n%s", name, tail(a.log))
		}
		_ = a.run.Stop()
	})
	return a
}

// awaitCleanAudit waits until the audit has started and has no findings.
func (s *scene) awaitCleanAudit(a *auditor) {
	s.Helper()
	s.await(a.name+" audits and has no findings", func(ctx context.Context) bool {
		metrics, err := a.Read(ctx)
		return err == nil && metrics.Sum("kubelet_https_guard_audit_leader") == 1 &&
			metrics.Sum("kubelet_https_guard_compliant") > 0
	})
}

// awaitAudit waits until the audit, the first one in its namespace, has started. Its watches need
// goroutines and a connection, which must exist before its resting state is recorded.
func (s *scene) awaitAudit(a *auditor) {
	s.Helper()
	s.await(a.name+" audits", func(ctx context.Context) bool {
		metrics, err := a.Read(ctx)
		return err == nil && metrics.Sum("kubelet_https_guard_audit_leader") == 1 &&
			metrics.Sum("kubelet_https_guard_audits_total") > 0
	})
}

// agent is a running agent.
type agent struct {
	process
	*rotation.Driver
	options launch
	run     *exec.Cmd
	// askedOnce: it is known that it asked about the connection at its start.
	askedOnce bool
}

// startAgent starts an agent on a new host and waits until it reports that all controls are compliant.
func (s *scene) startAgent(l launch) *agent {
	s.Helper()
	random := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0))
	host, err := rotation.NewHost(s.TempDir(), random, func() { <-time.After(rand.N(settleTime / 8)) })
	if err != nil {
		s.Fatal(err)
	}
	a := &agent{options: l, Driver: &rotation.Driver{Host: host, Settle: settleTime, ReportTime: patience,
		Tolerated: map[string]int{}}}
	a.name, a.limit = "agent", agentLimit
	began := time.Now()
	s.restart(a)
	if err := a.Started(s.Context(), began); err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { _ = a.Agent.Stop() })
	return a
}

// restart starts the agent's process on the existing host.
func (s *scene) restart(a *agent) {
	s.Helper()
	port, err := rig.FreePort(s.Context())
	if err != nil {
		s.Fatal(err)
	}
	a.process.Metrics = fmt.Sprintf("127.0.0.1:%d", port)
	program, arguments := a.options.command(
		"nodeagent", "run", "--root", a.Host.Tree.Root, "--node-name", s.name, "--kubeconfig", s.kubeconfig,
		"--metrics-bind-address", a.process.Metrics, "--settle", settleTime.String(), "--resync", tick.String())
	a.run = exec.CommandContext(s.Context(), program, arguments...)
	a.run.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if a.Agent, err = rotation.Start(a.run); err != nil {
		s.Fatal(err)
	}
	a.PID = a.run.Process.Pid
}

// breakAndRepair causes two faults on the host and repairs them. The agent must log each of them, once,
// and nothing else.
func (s *scene) breakAndRepair(a *agent) {
	s.Helper()
	writers := rotation.Writers()
	for _, name := range []string{"certificate removed", "key of another pair"} {
		if err := a.Fault(s.Context(), faultNamed(s.T, name), writers[0], writers[3]); err != nil {
			s.Fatal(err)
		}
	}
}

func faultNamed(t *testing.T, name string) rotation.Fault {
	t.Helper()
	for _, f := range rotation.Faults() {
		if f.Name == name {
			return f
		}
	}
	t.Fatalf("no fault has the name %q", name)
	return rotation.Fault{}
}

// awaitRest waits until a process is at rest. The process must be close to this state at the end.
func (s *scene) awaitRest(name string, p vitals.Process, limit int64) {
	s.Helper()
	last, same := vitals.Vitals{Goroutines: -1}, 0
	s.await(name+" is at rest", func(ctx context.Context) bool {
		now, err := p.Vitals(ctx)
		if err != nil {
			return false
		}
		if same++; now.Goroutines != last.Goroutines || now.Descriptors != last.Descriptors {
			same = 0
		}
		last = now
		return same >= restReadings
	})
	s.processes = append(s.processes, process{name, p, last, limit})
}

// checkRest is the end of each row. No process may have more goroutines and descriptors than at rest, and
// its memory must be within the chart's limits.
func (s *scene) checkRest() {
	s.Helper()
	for _, p := range s.processes {
		var now vitals.Vitals
		s.await(fmt.Sprintf("%s is back at %s", p.name, p.before), func(ctx context.Context) bool {
			var err error
			if now, err = p.Vitals(ctx); err != nil {
				return false
			}
			return now.Goroutines <= p.before.Goroutines+tolerance && now.Descriptors <= p.before.Descriptors+tolerance
		}, func() string { return now.String() })
		if now.MostRSS > p.limit {
			s.Errorf("%s used %d MiB of memory; the chart's limit is %d MiB", p.name, now.MostRSS>>20, p.limit>>20)
		}
		s.addFigure("%s: %s; before: %s", p.name, now, p.before)
	}
}

func (s *scene) addFigure(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	s.Log(text)
	s.figures = append(s.figures, text)
}

// await waits until a condition is true.
func (s *scene) await(what string, is func(context.Context) bool, instead ...func() string) {
	s.Helper()
	s.awaitWithin(patience, what, is, instead...)
}

// awaitWithin does the same within a time.
func (s *scene) awaitWithin(
	within time.Duration, what string, is func(context.Context) bool, instead ...func() string,
) {
	s.Helper()
	deadline := time.After(within)
	for !is(s.Context()) {
		select {
		case <-deadline:
			for _, say := range instead {
				what += ", got " + say()
			}
			s.Fatalf("timed out waiting until %s", what)
		case <-time.After(pollInterval):
		}
	}
}

// startStream starts a stream of questions; done ends it and returns its counts. It fails the test if an
// answer was wrong.
func (s *scene) startStream(questions []admission.Question) (stream *admission.Stream, done func() admission.Counts) {
	s.Helper()
	stream = &admission.Stream{Questions: questions, Every: askInterval}
	ctx, stop := context.WithCancel(s.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		stream.Run(ctx)
	}()
	return stream, func() admission.Counts {
		s.Helper()
		stop()
		<-ended
		counts := stream.Counts()
		s.noneWrong(counts)
		s.addFigure("admission: %s", counts)
		return counts
	}
}

func (s *scene) noneWrong(counts admission.Counts) {
	s.Helper()
	if counts.WronglyAllowed+counts.WronglyRefused > 0 || counts.Right() == 0 {
		s.Errorf("admission: %s; %s", counts, counts.Why)
	}
}

// allAnswered requires that all questions were answered.
func (s *scene) allAnswered(counts admission.Counts) {
	s.Helper()
	if counts.Unanswered > 0 {
		s.Errorf("admission: %s: %s", counts, counts.Why)
	}
}

// awaitRightAnswers waits until a stream gets as many right answers in a row as it has different questions.
func (s *scene) awaitRightAnswers(stream *admission.Stream) {
	s.Helper()
	begin := stream.Counts()
	s.await("the stream gets right answers again", func(context.Context) bool {
		now := stream.Counts()
		if now.Unanswered > begin.Unanswered {
			begin = now
		}
		return now.Right() >= begin.Right()+len(stream.Questions)/2
	}, func() string { return stream.Counts().String() + ": " + stream.Counts().Why })
}

// questionsTo are questions that are sent to the webhook itself.
func (s *scene) questionsTo(w *webhook) []admission.Question {
	s.Helper()
	questions, err := admission.Directly(w.client, w.url, s.changes)
	if err != nil {
		s.Fatal(err)
	}
	return questions
}

// askOnce asks each question once.
func (s *scene) askOnce(w *webhook) admission.Counts {
	s.Helper()
	stream := admission.Stream{}
	for _, q := range s.questionsTo(w) {
		stream.Ask(s.Context(), q)
	}
	counts := stream.Counts()
	s.noneWrong(counts)
	return counts
}

// awaitEvents waits until no Event is pending. It requires that none was given up, and that there is one
// Event for each change that the agent logged.
func (s *scene) awaitEvents(a *agent) {
	s.Helper()
	var metrics vitals.Metrics
	s.await("the agent's Events are delivered", func(ctx context.Context) bool {
		var err error
		metrics, err = a.process.Read(ctx)
		return err == nil && metrics.Sum("kubelet_https_guard_events_pending") == 0 && len(s.events("default",
			s.name)) >= a.Reported
	}, func() string { return fmt.Sprint(len(s.events("default", s.name)), " of ", a.Reported) })
	if stored, givenUp := len(s.events("default", s.name)),
		metrics.Sum("kubelet_https_guard_events_given_up_total"); stored != a.Reported || givenUp != 0 {
		s.Errorf("the agent logged %d changes; %d are Events, %.0f were given up", a.Reported, stored, givenUp)
	}
	s.addFigure("agent: %d changes logged, each once, all of them Events", a.Reported)
}

// events are the Events of a reporting instance.
func (s *scene) events(namespace, instance string) (events []eventsv1.Event) {
	s.Helper()
	list, err := shared.api.EventsV1().Events(namespace).List(s.Context(), metav1.ListOptions{})
	if err != nil {
		return nil
	}
	for _, e := range list.Items {
		if e.ReportingInstance == instance {
			events = append(events, e)
		}
	}
	return events
}

// awaitRefusalEvents waits until the webhook's Events count all refusals.
func (s *scene) awaitRefusalEvents(w *webhook, want int) {
	s.Helper()
	count := func() (sum int) {
		for _, e := range s.events(s.name, s.name+"-"+w.name) {
			if e.Action != "Deny" {
				continue
			}
			if sum++; e.Series != nil {
				sum += int(e.Series.Count) - 1
			}
		}
		return sum
	}
	s.await("the webhook's Events are delivered", func(ctx context.Context) bool {
		metrics, err := w.Read(ctx)
		return err == nil && metrics.Sum("kubelet_https_guard_events_pending") == 0 && count() >= want
	}, func() string { return fmt.Sprint(count(), " of ", want) })
	if got := count(); got != want {
		s.Errorf("%d requests were refused, Events count %d", want, got)
	}
	s.addFigure("webhook: %d refusals, all of them in Events", want)
}

// line is a line of a log.
type line struct {
	Time, Level, Msg, Reason, Location, Err string
	// AtStart: it may have been reported before.
	AtStart bool
}

// lines are the lines of a log whose message begins with this text.
func (s *scene) lines(log, message string) (found []line) {
	s.Helper()
	data, err := os.ReadFile(log)
	if err != nil {
		s.Fatal(err)
	}
	for text := range strings.Lines(string(data)) {
		var l line
		if json.Unmarshal([]byte(text), &l) == nil && strings.HasPrefix(l.Msg, message) {
			found = append(found, l)
		}
	}
	return found
}

// auditLogs waits until the audit's log has these changes, and requires that it has no others and none
// twice.
func (s *scene) auditLogs(a *auditor, want ...string) {
	s.Helper()
	logged := func() (all []string) {
		for _, l := range append(s.lines(a.log, string(report.FindingActive)),
			s.lines(a.log, string(report.FindingResolved))...) {
			if l.Reason == string(finding.Unreadable) && s.outage > unreportedOutage {
				continue // on a slow machine the outage lasted long enough to be reported
			}
			all = append(all, l.Msg+" "+l.Reason)
		}
		return all
	}
	s.await("the audit logs "+strings.Join(want, ", "),
		func(context.Context) bool { return len(logged()) >= len(want) })
	if got := logged(); strings.Join(got, ", ") != strings.Join(want, ", ") {
		s.Errorf("the audit logged %q, want %q", got, want)
	}
}

func tail(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return string(data[max(0, len(data)-4<<10):])
}
