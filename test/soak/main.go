// SPDX-License-Identifier: Apache-2.0

// Command soak runs both programs under load with a real API server: valid and invalid updates of the
// protected Secret at a steady rate, and rotations and faults on the agent's host. It prints how much
// memory, goroutines and descriptors grow per hour. It exits with 1 after a wrong answer, or if a
// change on the host was not logged exactly once.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/admission"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/openshift"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/rig"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/rotation"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/vitals"
)

const (
	namespace, name = "openshift-apiserver", "serving-cert"
	// sampleEvery is the interval of samples of all processes.
	sampleEvery = 5 * time.Second
	// settle is the agent's --settle; reportTime is the additional time in which it must report a change: far
	// more than necessary, since this program does not measure it.
	settle, reportTime = time.Second, 10 * time.Second
	// pauseAtMost is the longest pause between two changes on the host.
	pauseAtMost = 3 * time.Second
	// deliverTime is how long the delivery of the last Events may take.
	deliverTime = time.Minute
	// shortest is the shortest run of which a third can be left out.
	shortest = time.Minute
)

// soak is a run.
type soak struct {
	duration, every time.Duration
	seed            uint64
	markdown, csv   string
	stdout          io.Writer

	rig                   *rig.Rig
	webhook, audit, agent vitals.Process
	driver                *rotation.Driver
	random                *rand.Rand
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout io.Writer) error {
	s := soak{stdout: stdout}
	flags := flag.NewFlagSet("soak", flag.ContinueOnError)
	flags.DurationVar(&s.duration, "duration", 20*time.Minute, "duration of the load")
	flags.DurationVar(&s.every, "every", 50*time.Millisecond, "time between two updates of the protected Secret")
	flags.Uint64Var(&s.seed, "seed", 0, "random seed for the host; 0: a new one in each run")
	flags.StringVar(&s.markdown, "markdown", "", "`file` in which to replace the result between the two markers")
	flags.StringVar(&s.csv, "csv", "", "`file` to write all samples to")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if s.duration < shortest {
		return fmt.Errorf("-duration %s is shorter than %s", s.duration, shortest)
	}
	if s.seed == 0 {
		s.seed = uint64(time.Now().UnixNano())
	}
	s.random = rand.New(rand.NewPCG(s.seed, 0))
	dir, err := os.MkdirTemp("", "soak")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	s.rig, err = rig.Start(ctx, rig.Options{
		Repository: ".", Dir: filepath.Join(dir, "rig"), Progress: os.Stderr,
		WebhookFlags: []string{"--health-bind-address", "127.0.0.1:0"}, AuditFlags: []string{"--health-bind-address", "127.0.0.1:0"},
	})
	defer s.rig.Stop()
	if err != nil {
		return err
	}
	if err := s.startGuard(ctx); err != nil {
		return err
	}
	if err := s.startAgent(ctx, filepath.Join(dir, "host")); err != nil {
		return err
	}
	return s.load(ctx)
}

func (s *soak) startGuard(ctx context.Context) error {
	if err := s.rig.InstallGuard(ctx); err != nil {
		return err
	}
	for process, to := range map[*rig.Process]*vitals.Process{s.rig.Webhook: &s.webhook, s.rig.Audit: &s.audit} {
		serving, err := process.Await(ctx, "health", func(l rig.Line) bool {
			return l.Text("msg") == "Serving metrics and health"
		})
		if err != nil {
			return err
		}
		*to = vitals.Process{PID: process.PID(), Metrics: serving.Text("address")}
	}
	return nil
}

func (s *soak) startAgent(ctx context.Context, root string) error {
	kubeconfig, err := s.rig.AgentKubeconfig(ctx)
	if err != nil {
		return err
	}
	pause := func() { <-time.After(rand.N(settle / 8)) } // a writer pauses four times
	host, err := rotation.NewHost(root, s.random, pause)
	if err != nil {
		return err
	}
	program := exec.CommandContext(ctx, filepath.Join("bin", "nodeagent"),
		"run", "--root", host.Tree.Root, "--node-name", rig.Node, "--kubeconfig", kubeconfig, "--metrics-bind-address",
		"127.0.0.1:0", "--settle", settle.String())
	began := time.Now()
	agent, err := rotation.Start(program)
	if err != nil {
		return err
	}
	s.driver = &rotation.Driver{Host: host, Agent: agent, Settle: settle, ReportTime: reportTime}
	if err := s.driver.Started(ctx, began); err != nil {
		return err
	}
	s.agent = vitals.Process{PID: program.Process.Pid, Metrics: s.driver.Metrics}
	return nil
}

// load puts both programs under load and returns the result.
func (s *soak) load(ctx context.Context) error {
	questions, err := s.questions(ctx)
	if err != nil {
		return err
	}
	updates := admission.Stream{Questions: questions, Every: s.every}
	loading, done := context.WithTimeout(ctx, s.duration)
	defer done()
	began := time.Now()
	asked, driven := make(chan struct{}), make(chan error, 1)
	go func() {
		defer close(asked)
		updates.Run(loading)
	}()
	go func() { driven <- s.drive(ctx, loading) }()
	result := result{
		Webhook: samples{name: "webhook"},
		Audit:   samples{name: "webhook audit"},
		Agent:   samples{name: "nodeagent"},
	}
	if err := s.sample(loading, began, &result); err != nil {
		return err
	}
	<-asked
	driverErr := <-driven
	if err := ctx.Err(); err != nil {
		return err
	}
	result.took, result.every = time.Since(began), s.every
	result.Answers, result.Rotations, result.Faults, result.Reported = updates.Counts(), s.driver.Rotations,
		s.driver.Faults, s.driver.Reported
	if driverErr == nil {
		result.Events, driverErr = s.events(ctx)
	}
	text := result.markdown()
	fmt.Fprint(s.stdout, text)
	if s.csv != "" {
		if err := os.WriteFile(s.csv, []byte(result.csv()), 0o600); err != nil {
			return err
		}
	}
	if s.markdown != "" && driverErr == nil {
		if err := replaceBetween(s.markdown, marker, text); err != nil {
			return err
		}
	}
	return errors.Join(driverErr, result.wrong())
}

func (s *soak) questions(ctx context.Context) ([]admission.Question, error) {
	config, err := clientcmd.BuildConfigFromFlags("", s.rig.Kubeconfig)
	if err != nil {
		return nil, err
	}
	config.QPS, config.WarningHandler = -1, rest.NoWarnings{} // no rate limit
	api, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	service, err := api.CoreV1().Services(namespace).Get(ctx, "api", metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	changes := admission.Changes(s.rig.ServiceCA, pkitest.ServingCert(), func(chain, key []byte) *corev1.Secret {
		return openshift.ServingCert(service.UID, chain, key)
	})
	if _, err := api.CoreV1().Secrets(namespace).Create(ctx, changes[0].To, metav1.CreateOptions{}); err != nil {
		return nil, err
	}
	return admission.Through(api, namespace, name, changes), nil
}

// drive changes the host until loading ends. The agent's log must report each change exactly once.
func (s *soak) drive(ctx, loading context.Context) error {
	writers, faults := rotation.Writers(), rotation.Faults()
	writer := func() rotation.Writer { return writers[s.random.IntN(len(writers))] }
	for step := 1; loading.Err() == nil; step++ {
		var err error
		switch {
		case step%40 == 0:
			err = s.driver.Expire(ctx, writer(), writer())
		case step%4 == 0:
			err = s.driver.Fault(ctx, faults[s.random.IntN(len(faults))], writer(), writer())
		default:
			err = s.driver.Rotate(ctx, writer())
		}
		if err != nil {
			return fmt.Errorf("a change was not logged exactly once (to repeat: -seed %d), step %d: %w", s.seed, step,
				err)
		}
		select {
		case <-loading.Done():
		case <-time.After(rand.N(pauseAtMost)):
		}
	}
	return s.driver.LogsNothing(ctx, settle+time.Second)
}

// sample samples all processes until loading ends.
func (s *soak) sample(loading context.Context, began time.Time, r *result) error {
	ticker := time.NewTicker(sampleEvery)
	defer ticker.Stop()
	for {
		for process, to := range map[vitals.Process]*samples{s.webhook: &r.Webhook, s.audit: &r.Audit, s.agent: &r.Agent} {
			v, err := process.Vitals(context.WithoutCancel(loading))
			if err != nil {
				return err
			}
			to.all = append(to.all, sampled{time.Since(began), v})
		}
		select {
		case <-loading.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// events waits until there is an Event for each change that the agent logged, and counts them. No
// Event may have been given up.
func (s *soak) events(ctx context.Context) (stored int, err error) {
	deadline := time.Now().Add(deliverTime)
	for {
		metrics, err := s.agent.Read(ctx)
		if err != nil {
			return 0, err
		}
		stored = int(metrics.Sum("kubelet_https_guard_events_delivered_total"))
		if givenUp := metrics.Sum("kubelet_https_guard_events_given_up_total"); givenUp > 0 {
			return stored, fmt.Errorf("%.0f Events were given up", givenUp)
		}
		if metrics.Sum("kubelet_https_guard_events_pending") == 0 || time.Now().After(deadline) {
			break
		}
		<-time.After(100 * time.Millisecond)
	}
	if stored != s.driver.Reported {
		return stored, fmt.Errorf("the agent logged %d changes, %d are Events", s.driver.Reported, stored)
	}
	return stored, nil
}
