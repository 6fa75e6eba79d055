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

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/report"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/admission"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/rig"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/rotation"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/vitals"
)

const (
	// patience bounds each wait for something that must come: far more than it
	// takes, since how soon is not the question here.
	patience = 3 * time.Minute
	lookEach = 50 * time.Millisecond
	// settleTime is the agents' --settle, tick their --resync.
	settleTime, tick = 1500 * time.Millisecond, time.Second
	// askEach is how often a stream asks.
	askEach = 50 * time.Millisecond
	// unnoticed is how long an API server may be away without the audit telling of it:
	// a minute, less the time until it asks once more.
	unnoticed = 30 * time.Second
	// restFor is how many times in a row nothing must have changed for rest.
	restFor = 10
	// spare is by how many more goroutines and descriptors a process may end up
	// with: a connection or two more to the API server.
	spare = 8
	// The limits of the chart.
	webhookLimit, agentLimit = 128 << 20, 64 << 20
	// secretName is that of a row's protected Secret, in its own namespace.
	secretName = "guarded"
)

// scene is what a row has to itself: a namespace with a protected Secret and a
// Lease, a Node, and the processes that it starts.
type scene struct {
	*testing.T
	// name is that of the namespace and of the Node.
	name string
	// kubeconfig leads the processes to the API server, or to a proxy of it.
	kubeconfig string
	ca         *pkitest.CA
	changes    []admission.Change
	processes  []process
	figures    []string
	// away is for how long the API server was.
	away time.Duration
}

// process is one that is looked at again in the end.
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
			_, err := shared.api.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: s.name}}, metav1.CreateOptions{})
			return err
		},
		func() error {
			_, err := shared.api.CoreV1().Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: s.name}}, metav1.CreateOptions{})
			return err
		},
		func() error {
			_, err := shared.api.CoreV1().Secrets(s.name).Create(t.Context(), s.good(), metav1.CreateOptions{})
			return err
		},
	} {
		if err := create(); err != nil {
			t.Fatal(err)
		}
	}
	s.reach(shared.config.Host, shared.config.CAData)
	return s
}

// reach writes the kubeconfig of the processes that are started from now on.
func (s *scene) reach(server string, ca []byte) {
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

// good is one that may be stored.
func (s *scene) good() *corev1.Secret { return s.changes[0].To }

// restore writes the protected Secret behind the API server's back.
func (s *scene) restore(secret *corev1.Secret) {
	s.Helper()
	secret = secret.DeepCopy()
	secret.UID, secret.CreationTimestamp = uuid.NewUUID(), metav1.Now()
	if err := shared.rig.Restore(s.Context(), "secrets", secret.Namespace, secret.Name, secret); err != nil {
		s.Fatal(err)
	}
}

// launch is how a program is started, where that is not as usual.
type launch struct {
	// shell runs before the program, which is "$@".
	shell string
	// args are more flags, environment more variables.
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
	return "/bin/sh", append(append(append([]string{"-c", script, "sh", "/usr/bin/env"}, l.environment...), path), append(args, l.args...)...)
}

// webhook is one that runs.
type webhook struct {
	process
	run    *rig.Process
	client *http.Client
	url    string
	// log is a file, certDir and config are those of this webhook alone.
	log, certDir, config string
}

// startWebhook starts one that protects the row's Secret and audits it.
func (s *scene) startWebhook(name string, l launch) *webhook {
	s.Helper()
	directory := s.TempDir()
	w := &webhook{certDir: directory, config: filepath.Join(directory, "config.yaml")}
	now := time.Now()
	s.serve(w, now.Add(-time.Hour), now.AddDate(1, 0, 0))
	s.write(filepath.Join(directory, "ca.crt"), s.ca.PEM())
	s.write(w.config, s.goodConfig(directory))
	port, err := rig.FreePort(s.Context())
	if err != nil {
		s.Fatal(err)
	}
	s.startWebhookAt(w, name, fmt.Sprintf("127.0.0.1:%d", port), l, "--namespace", s.name, "--kubeconfig", s.kubeconfig)
	return w
}

func (s *scene) goodConfig(directory string) []byte {
	return fmt.Appendf(nil, `apiVersion: kubelet-https-guard.io/v1alpha1
kind: WebhookConfiguration
protectedSecrets:
- {namespace: %s, name: %s, usage: serverAuth, caBundleFile: %q}
`, s.name, secretName, filepath.Join(directory, "ca.crt"))
}

// serve writes a serving pair.
func (s *scene) serve(w *webhook, notBefore, notAfter time.Time) {
	s.Helper()
	pair := s.ca.Issue(pkitest.Request{CommonName: "webhook"}.Valid(notBefore, notAfter))
	s.write(filepath.Join(w.certDir, "tls.crt"), pair.Certificate)
	s.write(filepath.Join(w.certDir, "tls.key"), pair.Key)
}

// startWebhookAt starts one at an address; its files are there.
func (s *scene) startWebhookAt(w *webhook, name, address string, l launch, args ...string) {
	s.Helper()
	health, err := rig.FreePort(s.Context())
	if err != nil {
		s.Fatal(err)
	}
	w.name, w.limit = name, webhookLimit
	w.Metrics, w.url = fmt.Sprintf("127.0.0.1:%d", health), "https://"+address+"/validate"
	w.log = shared.rig.Path(s.name + "-" + name + ".log")
	l.environment = append(l.environment, "POD_NAME="+s.name+"-"+name)
	program, arguments := l.command("webhook", append([]string{
		"--bind-address", address, "--health-bind-address", w.Metrics, "--shutdown-delay", "0s", "--cert-dir", w.certDir, "--config", w.config,
	}, args...)...)
	if w.run, err = shared.rig.Launch(s.name+"-"+name, program, arguments...); err != nil {
		s.Fatal(err)
	}
	w.PID = w.run.PID()
	if w.client != nil {
		return // it is not the first one
	}
	// As API servers do: HTTP/1.1, connections kept.
	transport := &http.Transport{
		TLSClientConfig:     &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}, // who answers is not the question
		MaxIdleConnsPerHost: 16,
	}
	w.client = &http.Client{Transport: transport}
	s.Cleanup(func() {
		if s.Failed() {
			s.Logf("%s said at last:\n%s", name, tail(w.log))
		}
		_ = w.run.Stop()
	})
}

// kill ends a webhook as kill -9 does.
func (s *scene) kill(w *webhook) {
	s.Helper()
	if err := syscall.Kill(w.PID, syscall.SIGKILL); err != nil {
		s.Fatal(err)
	}
	if err := w.run.Stop(); err == nil || !strings.Contains(err.Error(), "killed") {
		s.Errorf("%s, killed, ended with: %v", w.name, err)
	}
}

// ready waits until the webhook says so.
func (s *scene) ready(w *webhook) {
	s.Helper()
	s.await(w.name+" is ready", func(ctx context.Context) bool {
		code, err := w.Status(ctx, "/readyz")
		return err == nil && code == http.StatusOK
	})
}

// audited waits until the webhook has begun to audit and all it sees is well.
func (s *scene) audited(w *webhook) {
	s.Helper()
	s.await(w.name+" audits and all is well", func(ctx context.Context) bool {
		metrics, err := w.Read(ctx)
		return err == nil && metrics.Sum("kubelet_https_guard_audit_leader") == 1 && metrics.Sum("kubelet_https_guard_compliant") > 0
	})
}

// auditing waits until the webhook, the first one in its namespace, has begun to
// audit: what it follows takes goroutines and a connection, which it has to be at
// rest with.
func (s *scene) auditing(w *webhook) {
	s.Helper()
	s.await(w.name+" audits", func(ctx context.Context) bool {
		metrics, err := w.Read(ctx)
		return err == nil && metrics.Sum("kubelet_https_guard_audit_leader") == 1 && metrics.Sum("kubelet_https_guard_audits_total") > 0
	})
}

// agent is one that runs.
type agent struct {
	process
	*rotation.Driver
	options launch
	run     *exec.Cmd
}

// startAgent starts one over a new host and waits until it has verified that all
// is well.
func (s *scene) startAgent(l launch) *agent {
	s.Helper()
	random := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0))
	host, err := rotation.NewHost(s.TempDir(), random, func() { <-time.After(rand.N(settleTime / 8)) })
	if err != nil {
		s.Fatal(err)
	}
	a := &agent{options: l, Driver: &rotation.Driver{Host: host, Settle: settleTime, Notice: patience, Tolerated: map[string]int{}}}
	a.name, a.limit = "agent", agentLimit
	began := time.Now()
	s.restart(a)
	if err := a.Started(s.Context(), began); err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { _ = a.Agent.Stop() })
	return a
}

// restart starts the agent's process, over what is there.
func (s *scene) restart(a *agent) {
	s.Helper()
	port, err := rig.FreePort(s.Context())
	if err != nil {
		s.Fatal(err)
	}
	a.process.Metrics = fmt.Sprintf("127.0.0.1:%d", port)
	program, arguments := a.options.command("nodeagent", "--root", a.Host.Tree.Root, "--node-name", s.name, "--kubeconfig", s.kubeconfig,
		"--metrics-bind-address", a.process.Metrics, "--settle", settleTime.String(), "--resync", tick.String())
	a.run = exec.CommandContext(s.Context(), program, arguments...)
	a.run.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if a.Agent, err = rotation.Start(a.run); err != nil {
		s.Fatal(err)
	}
	a.PID = a.run.Process.Pid
}

// breakAndMend lets two things go wrong on the host and mends them: each must be
// told, once, and nothing else.
func (s *scene) breakAndMend(a *agent) {
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
	t.Fatalf("there is no fault %q", name)
	return rotation.Fault{}
}

// rested waits until a process is at rest, from which it must not be far in the
// end.
func (s *scene) rested(name string, p vitals.Process, limit int64) {
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
		return same >= restFor
	})
	s.processes = append(s.processes, process{name, p, last, limit})
}

// settle is what each row ends with: no goroutine and no descriptor more than
// before, and memory within the chart's limits.
func (s *scene) settle() {
	s.Helper()
	for _, p := range s.processes {
		var now vitals.Vitals
		s.await(fmt.Sprintf("%s is as it was: %s", p.name, p.before), func(ctx context.Context) bool {
			var err error
			if now, err = p.Vitals(ctx); err != nil {
				return false
			}
			return now.Goroutines <= p.before.Goroutines+spare && now.Descriptors <= p.before.Descriptors+spare
		}, func() string { return now.String() })
		if now.MostRSS > p.limit {
			s.Errorf("%s took %d MiB of the %d that the chart gives it", p.name, now.MostRSS>>20, p.limit>>20)
		}
		s.figure("%s: %s; before: %s", p.name, now, p.before)
	}
}

func (s *scene) figure(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	s.Log(text)
	s.figures = append(s.figures, text)
}

// await waits until something is so.
func (s *scene) await(what string, is func(context.Context) bool, instead ...func() string) {
	s.Helper()
	deadline := time.After(patience)
	for !is(s.Context()) {
		select {
		case <-deadline:
			for _, say := range instead {
				what += ", instead of " + say()
			}
			s.Fatalf("never came: %s", what)
		case <-time.After(lookEach):
		}
	}
}

// ask starts a stream of questions; done ends it and gives its counts, which
// must hold no wrong answer.
func (s *scene) ask(questions []admission.Question) (stream *admission.Stream, done func() admission.Counts) {
	s.Helper()
	stream = &admission.Stream{Questions: questions, Every: askEach}
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
		s.figure("admission: %s", counts)
		return counts
	}
}

func (s *scene) noneWrong(counts admission.Counts) {
	s.Helper()
	if counts.WronglyAllowed+counts.WronglyRefused > 0 || counts.Right() == 0 {
		s.Errorf("admission: %s; %s", counts, counts.Why)
	}
}

// allAnswered: there was no outage.
func (s *scene) allAnswered(counts admission.Counts) {
	s.Helper()
	if counts.Unanswered > 0 {
		s.Errorf("admission: %s: %s", counts, counts.Why)
	}
}

// rightAgain waits until a stream gets right answers, as many as it has
// different questions, without one that fails in between.
func (s *scene) rightAgain(stream *admission.Stream) {
	s.Helper()
	begin := stream.Counts()
	s.await("answers again", func(context.Context) bool {
		now := stream.Counts()
		if now.Unanswered > begin.Unanswered {
			begin = now
		}
		return now.Right() >= begin.Right()+len(stream.Questions)/2
	}, func() string { return stream.Counts().String() + ": " + stream.Counts().Why })
}

// directly are the questions to a webhook itself.
func (s *scene) directly(w *webhook) []admission.Question {
	s.Helper()
	questions, err := admission.Directly(w.client, w.url, s.changes)
	if err != nil {
		s.Fatal(err)
	}
	return questions
}

// askOnce asks all questions once.
func (s *scene) askOnce(w *webhook) admission.Counts {
	s.Helper()
	stream := admission.Stream{}
	for _, q := range s.directly(w) {
		stream.Ask(s.Context(), q)
	}
	counts := stream.Counts()
	s.noneWrong(counts)
	return counts
}

// delivered waits until no Event waits, none was given up, and as many are stored
// as were told.
func (s *scene) delivered(a *agent) {
	s.Helper()
	var metrics vitals.Metrics
	s.await("the agent's Events are delivered", func(ctx context.Context) bool {
		var err error
		metrics, err = a.process.Read(ctx)
		return err == nil && metrics.Sum("kubelet_https_guard_events_pending") == 0 && len(s.events("default", s.name)) >= a.Told
	}, func() string { return fmt.Sprint(len(s.events("default", s.name)), " of ", a.Told) })
	if stored, givenUp := len(s.events("default", s.name)), metrics.Sum("kubelet_https_guard_events_given_up_total"); stored != a.Told || givenUp != 0 {
		s.Errorf("%d edges were told, %d are Events, %.0f were given up", a.Told, stored, givenUp)
	}
	s.figure("agent: %d edges told, each once, all of them Events", a.Told)
}

// events are those of an instance.
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

// refusals waits until the webhook's Events count as many refusals as it has
// answered.
func (s *scene) refusals(w *webhook, want int) {
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
		s.Errorf("%d requests were refused, Events tell of %d", want, got)
	}
	s.figure("webhook: %d refusals, all of them in Events", want)
}

// line is one of a log.
type line struct{ Time, Level, Msg, Reason, Location, Err string }

// lines are those of a webhook's log with a message that begins like this.
func (s *scene) lines(w *webhook, message string) (found []line) {
	s.Helper()
	data, err := os.ReadFile(w.log)
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

// edges waits until the webhook's log has told of these edges of the audit, and
// holds that it has told of no other and of none twice.
func (s *scene) edges(w *webhook, want ...string) {
	s.Helper()
	told := func() (all []string) {
		for _, l := range append(s.lines(w, string(report.FindingRaised)), s.lines(w, string(report.FindingCleared))...) {
			if l.Reason == string(finding.Unreadable) && s.away > unnoticed {
				continue // so slow is this machine
			}
			all = append(all, l.Msg+" "+l.Reason)
		}
		return all
	}
	s.await("the audit tells "+strings.Join(want, ", "), func(context.Context) bool { return len(told()) >= len(want) })
	if got := told(); strings.Join(got, ", ") != strings.Join(want, ", ") {
		s.Errorf("the audit told %q, not %q", got, want)
	}
}

func tail(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return string(data[max(0, len(data)-4<<10):])
}
