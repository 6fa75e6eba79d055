// SPDX-License-Identifier: Apache-2.0

// Command soak runs both programs for a while beside a real API server: updates
// of the protected Secret, right ones and wrong ones, at a steady rate, and
// rotations and faults on the agent's host. It prints by how much memory,
// goroutines and descriptors grow in an hour, and exits 1 where an answer was
// wrong or something that happened on the host was not told, once.
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

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/admission"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/openshift"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/rig"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/rotation"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/vitals"
)

const (
	namespace, name = "openshift-apiserver", "serving-cert"
	// sampleEvery is how often both are looked at.
	sampleEvery = 5 * time.Second
	// settle is the agent's; within notice of it, it must tell: far more than it
	// takes, since how soon is not the question here.
	settle, notice = time.Second, 10 * time.Second
	// pauseAtMost is that between two things that happen on the host.
	pauseAtMost = 3 * time.Second
	// deliverTime is how long the last Events may take.
	deliverTime = time.Minute
	// shortest run of which a third can be left out.
	shortest = time.Minute
)

// soak is a run.
type soak struct {
	duration, every time.Duration
	seed            uint64
	markdown, csv   string
	stdout          io.Writer

	rig            *rig.Rig
	webhook, agent vitals.Process
	driver         *rotation.Driver
	random         *rand.Rand
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
	flags.DurationVar(&s.duration, "duration", 20*time.Minute, "how long there is load")
	flags.DurationVar(&s.every, "every", 50*time.Millisecond, "time between two updates of the protected Secret")
	flags.Uint64Var(&s.seed, "seed", 0, "of all that is random on the host; 0 for another one each time")
	flags.StringVar(&s.markdown, "markdown", "", "`file` in which the result is put between two markers")
	flags.StringVar(&s.csv, "csv", "", "`file` for all samples")
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
		WebhookFlags: []string{"--health-bind-address", "127.0.0.1:0"},
	})
	defer s.rig.Stop()
	if err != nil {
		return err
	}
	if err := s.startWebhook(ctx); err != nil {
		return err
	}
	if err := s.startAgent(ctx, filepath.Join(dir, "host")); err != nil {
		return err
	}
	return s.load(ctx)
}

func (s *soak) startWebhook(ctx context.Context) error {
	if err := s.rig.InstallGuard(ctx); err != nil {
		return err
	}
	serving, err := s.rig.Webhook.Await(ctx, "health", func(l rig.Line) bool { return l.Text("msg") == "Serving health" })
	if err != nil {
		return err
	}
	s.webhook = vitals.Process{PID: s.rig.Webhook.PID(), Metrics: serving.Text("address")}
	return nil
}

func (s *soak) startAgent(ctx context.Context, root string) error {
	kubeconfig, err := s.rig.AgentKubeconfig(ctx)
	if err != nil {
		return err
	}
	pause := func() { <-time.After(rand.N(settle / 8)) } // of which a writer makes four
	host, err := rotation.NewHost(root, s.random, pause)
	if err != nil {
		return err
	}
	program := exec.CommandContext(ctx, filepath.Join("bin", "nodeagent"), "--root", host.Tree.Root, "--node-name", rig.Node,
		"--kubeconfig", kubeconfig, "--metrics-bind-address", "127.0.0.1:0", "--settle", settle.String())
	began := time.Now()
	agent, err := rotation.Start(program)
	if err != nil {
		return err
	}
	s.driver = &rotation.Driver{Host: host, Agent: agent, Settle: settle, Notice: notice}
	if err := s.driver.Started(ctx, began); err != nil {
		return err
	}
	s.agent = vitals.Process{PID: program.Process.Pid, Metrics: s.driver.Metrics}
	return nil
}

// load is what all of it is for.
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
	result := result{Webhook: samples{name: "webhook"}, Agent: samples{name: "nodeagent"}}
	if err := s.sample(loading, began, &result); err != nil {
		return err
	}
	<-asked
	driverErr := <-driven
	if err := ctx.Err(); err != nil {
		return err
	}
	result.took, result.every = time.Since(began), s.every
	result.Answers, result.Rotations, result.Faults, result.Told = updates.Counts(), s.driver.Rotations, s.driver.Faults, s.driver.Told
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
	config.QPS, config.WarningHandler = -1, rest.NoWarnings{} // as fast as it goes
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

// drive lets things happen on the host until loading ends, each of which the
// agent's log must tell exactly once.
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
			return fmt.Errorf("an edge was lost, or told twice (again with -seed %d), step %d: %w", s.seed, step, err)
		}
		select {
		case <-loading.Done():
		case <-time.After(rand.N(pauseAtMost)):
		}
	}
	return s.driver.Quiet(ctx, settle+time.Second)
}

// sample looks at both until loading ends.
func (s *soak) sample(loading context.Context, began time.Time, r *result) error {
	ticker := time.NewTicker(sampleEvery)
	defer ticker.Stop()
	for {
		for process, to := range map[vitals.Process]*samples{s.webhook: &r.Webhook, s.agent: &r.Agent} {
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

// events waits until all that the agent told is an Event, and counts them; each
// edge must have been stored, and none given up.
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
	if stored != s.driver.Told {
		return stored, fmt.Errorf("%d edges were told in the log, %d are Events", s.driver.Told, stored)
	}
	return stored, nil
}
