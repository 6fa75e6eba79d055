// SPDX-License-Identifier: Apache-2.0

package rotation_test

import (
	"cmp"
	"context"
	"flag"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/openshift"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/rotation"
)

var (
	rotations = flag.Int("rotations", 200, "number of rotations of TestRotation; the other tests do a part of them")
	seed      = flag.Uint64("seed", 0, "random seed; 0: a new one in each run")
)

const (
	// quietTime is how long after the settle time nothing more may be logged.
	quietTime = 250 * time.Millisecond
	// longest bounds the pauses of a writer.
	longest = 60 * time.Millisecond
	// noTick is longer than a test, so that no tick makes up for a missed event.
	noTick = 10 * time.Hour
)

// short: with other tests, perhaps on a busy machine, where a writer may be delayed between two files
// for longer than the settle time.
func short() bool { return *rotations <= 200 }

// reportTime is how soon the agent must report a change that need not settle. The short form asserts that
// the agent reports it without a tick, but not how soon.
func reportTime() time.Duration {
	if short() {
		return 20 * time.Second
	}
	return 250 * time.Millisecond
}

// options of an agent.
type options struct {
	layout                     openshift.Layout // default: [openshift.Current]
	settle, reportTime, resync time.Duration
	// tolerated is a prefix of a warning that may be logged; none if empty.
	tolerated string
	// command changes how the agent is started; nil: not at all.
	command func(*exec.Cmd)
}

// start starts an agent on a new host.
func start(t *testing.T, o options) (*rotation.Driver, *rand.Rand) {
	t.Helper()
	binary, err := buildOnce()
	if err != nil {
		t.Fatal(err)
	}
	number := *seed
	if number == 0 {
		number = uint64(time.Now().UnixNano())
	}
	t.Logf("to repeat: -seed %d", number)
	random := rand.New(rand.NewPCG(number, 0))
	// All pauses of a writer together must be shorter than half the settle time. The slowest writer pauses
	// four times.
	pause := func() {
		most := time.Millisecond
		if random.IntN(3) == 0 {
			most = min(o.settle/8, longest)
		}
		<-time.After(rand.N(most))
	}
	host, err := rotation.NewHostOf(cmp.Or(o.layout, openshift.Current), t.TempDir(), random, pause)
	if err != nil {
		t.Fatal(err)
	}
	program := exec.CommandContext(t.Context(), binary, "run", "--root", host.Tree.Root, "--metrics-bind-address", "0",
		"--settle", o.settle.String(), "--resync", o.resync.String())
	if o.command != nil {
		o.command(program)
	}
	driver := &rotation.Driver{Host: host, Settle: o.settle, ReportTime: o.reportTime, Tolerated: map[string]int{}}
	if o.tolerated != "" {
		driver.Tolerated[o.tolerated] = 0
	}
	go driver.Run(t.Context())
	began := time.Now()
	if driver.Agent, err = rotation.Start(program); err != nil {
		t.Fatal(err)
	}
	if err := driver.Started(t.Context(), began); err != nil {
		t.Fatal(err)
	}
	return driver, random
}

// drive rotates until there were enough rotations, and stops the agent. Each fifth step is a fault, a
// change of the host, an expiry or a start of validity.
func drive(t *testing.T, d *rotation.Driver, random *rand.Rand, enough int) {
	t.Helper()
	writers, faults := shuffled(random, rotation.Writers()), shuffled(random, rotation.Faults())
	changes, changed := shuffled(random, rotation.Changes()), 0
	writer := func() rotation.Writer { return writers[random.IntN(len(writers))] }
	began := time.Now()
	for step := 0; d.Rotations < enough; step++ {
		var err error
		switch {
		case step < len(writers): // each at least once
			err = d.Rotate(t.Context(), writers[step])
		case step%5 != 0:
			err = d.Rotate(t.Context(), writer())
		case step%50 == 0:
			err = d.Expire(t.Context(), writer(), writer())
		case step%50 == 25:
			err = d.BecomeValid(t.Context(), writer(), writer())
		case step%25 == 15:
			err = d.Change(t.Context(), changes[changed%len(changes)])
			changed++
		default:
			err = d.Fault(t.Context(), faults[d.Faults%len(faults)], writer(), writer())
		}
		if err != nil {
			t.Fatalf("step %d: %v", step, err)
		}
		<-time.After(rand.N(20 * time.Millisecond))
	}
	if err := d.LogsNothing(t.Context(), d.Settle+quietTime); err != nil {
		t.Error(err)
	}
	logResults(t, d, time.Since(began))
	if err := d.Agent.Stop(); err != nil {
		t.Error(err)
	}
}

func shuffled[T any](random *rand.Rand, all []T) []T {
	random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all
}

// logResults logs what was measured.
func logResults(t *testing.T, d *rotation.Driver, took time.Duration) {
	t.Helper()
	cpu, err := d.Agent.CPU()
	if err != nil {
		t.Error(err)
	}
	memory, err := d.Agent.Memory()
	if err != nil {
		t.Error(err)
	}
	t.Logf("%d rotations and %d faults in %s; the agent took %.1f %% of a core and %.1f MiB, at most %.1f", d.Rotations,
		d.Faults, took.Round(time.Second), 100*cpu.Seconds()/took.Seconds(), float64(memory.Now)/(1<<20),
		float64(memory.Most)/(1<<20))
	t.Logf("%-64s %6s %8s %8s %8s", "logged after, ms (faults: settle is "+d.Settle.String()+")", "n", "p50", "p99",
		"max")
	for _, label := range slices.Sorted(maps.Keys(d.Latencies)) {
		all := d.Latencies[label]
		ms := func(share float64) float64 { return float64(rotation.Quantile(all, share).Microseconds()) / 1000 }
		t.Logf("%-64s %6d %8.1f %8.1f %8.1f", label, len(all), ms(0.5), ms(0.99), ms(1))
	}
}

// TestRotation uses every way of writing, in random order and timing. There is no tick: the agent must
// react to events and to points in time.
func TestRotation(t *testing.T) {
	settle := time.Second
	if short() {
		settle = 1500 * time.Millisecond
	}
	d, random := start(t, options{settle: settle, reportTime: reportTime(), resync: noTick})
	drive(t, d, random, *rotations)
}

// TestRotationOfLayouts rotates the pair of each other layout as the program does that writes it: it detects the
// layout, reports each new certificate, and nothing else.
func TestRotationOfLayouts(t *testing.T) {
	for _, layout := range []openshift.Layout{openshift.Kubeadm, openshift.MicroShift, openshift.K3s, openshift.RKE2} {
		t.Run(string(layout), func(t *testing.T) {
			t.Parallel()
			d, random := start(t, options{
				layout: layout, settle: 1500 * time.Millisecond, reportTime: reportTime(), resync: noTick,
			})
			began, writers := time.Now(), rotation.Restarts()
			for d.Rotations < *rotations {
				if err := d.Rotate(t.Context(), writers[random.IntN(len(writers))]); err != nil {
					t.Fatal(err)
				}
			}
			if err := d.LogsNothing(t.Context(), d.Settle+quietTime); err != nil {
				t.Error(err)
			}
			logResults(t, d, time.Since(began))
			if err := d.Agent.Stop(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestRotationBesideUnrelatedEvents does the same while another process writes to the same
// directories.
func TestRotationBesideUnrelatedEvents(t *testing.T) {
	// Events may be lost. The agent logs this and makes up for it by a scan.
	const overflow = "Watching files failed"
	d, random := start(t, options{settle: 1500 * time.Millisecond, reportTime: reportTime(), resync: noTick,
		tolerated: overflow})
	ctx, stop := context.WithCancel(t.Context())
	made := make(chan int)
	began := time.Now()
	// Not in the directory of the manifests, in which each name matters, nor in that of a
	// revision, which the next one replaces.
	directory := filepath.Join(d.Host.Tree.Root, "etc/kubernetes")
	go func() { made <- rotation.Noise(ctx, directory, 10_000) }()
	drive(t, d, random, *rotations/4)
	took := time.Since(began)
	stop()
	t.Logf("%.0f unrelated events a second; %d times the queue was full", float64(<-made)/took.Seconds(),
		d.Tolerated[overflow])
}

// TestRotationWithoutWatches: without watches of the kernel, the agent polls and logs this once.
func TestRotationWithoutWatches(t *testing.T) {
	for name, c := range map[string]struct{ limit, message string }{
		"no watches":   {"/proc/sys/user/max_inotify_watches", "Cannot watch more directories"},
		"no instances": {"/proc/sys/user/max_inotify_instances", "Cannot create an inotify instance"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // mostly waits for ticks
			namespace := func(command *exec.Cmd) {
				self, err := os.Executable()
				if err != nil {
					t.Fatal(err)
				}
				command.Args = append([]string{self, command.Path}, command.Args[1:]...)
				command.Path = self
				command.Env = append(os.Environ(), limitVariable+"="+c.limit)
				command.SysProcAttr = &syscall.SysProcAttr{
					Cloneflags:  syscall.CLONE_NEWUSER,
					UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
					GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
				}
			}
			if err := userNamespace(t, namespace); err != nil {
				if os.Getenv("CI") != "" {
					t.Fatalf("no user namespaces: %v", err)
				}
				t.Skipf("no user namespaces: %v", err)
			}
			const resync = time.Second
			d, random := start(t, options{
				settle: 1500 * time.Millisecond, reportTime: resync + reportTime(), resync: resync,
				tolerated: c.message,
				command:   namespace,
			})
			drive(t, d, random, *rotations/10)
			if logged := d.Tolerated[c.message]; logged != 1 {
				t.Errorf("logged %d times, want once: %s", logged, c.message)
			}
		})
	}
}

// TestMountAppearsLate: the pair is in a directory that is mounted later, in a Pod or on the host
// itself. The kernel has no inotify event for a mount: the tick finds it.
func TestMountAppearsLate(t *testing.T) {
	const resync = time.Second
	cases := map[string]struct {
		// stored and named are those of [rotation.Driver.MountLate]; stored is mounted at at.
		stored, named, at string
		reasons           []finding.Reason
	}{
		"outside of the Pod's mounts": {
			stored: "var/lib/pair", named: "var/lib/pair", at: "var/lib/pair",
			reasons: []finding.Reason{finding.NotMounted, finding.NotMounted}, // certificate and key
		},
		"on the host": {
			stored: "var/lib/pair", named: "etc/kubernetes/late", at: "etc/kubernetes/late",
			reasons: []finding.Reason{finding.CertificateMissing, finding.KeyMissing},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			view, when := t.TempDir(), filepath.Join(t.TempDir(), "when")
			if err := syscall.Mkfifo(when, 0o600); err != nil {
				t.Fatal(err)
			}
			inPod := func(command *exec.Cmd) {
				root := slices.Index(command.Args, "--root") + 1
				host := command.Args[root]
				command.Args[root] = view
				plan := mountPlan{Host: host, View: view, First: "etc/kubernetes", Late: c.stored, At: c.at, When: when}
				if err := plan.applyTo(command); err != nil {
					t.Fatal(err)
				}
			}
			if err := userNamespace(t, func(command *exec.Cmd) { inNamespaces(command) }); err != nil {
				if os.Getenv("CI") != "" {
					t.Fatalf("no user namespaces: %v", err)
				}
				t.Skipf("no user namespaces: %v", err)
			}
			d, _ := start(t, options{settle: 1500 * time.Millisecond, reportTime: resync + reportTime(),
				resync: resync, command: inPod})
			err := d.MountLate(t.Context(), c.stored, c.named, c.reasons, func() error { return os.WriteFile(when, nil, 0o600) })
			if err != nil {
				t.Fatal(err)
			}
			if err := d.LogsNothing(t.Context(), d.Settle+quietTime); err != nil {
				t.Error(err)
			}
			if err := d.Agent.Stop(); err != nil {
				t.Error(err)
			}
		})
	}
}

// userNamespace returns an error if this machine has no user namespaces.
func userNamespace(t *testing.T, namespace func(*exec.Cmd)) error {
	t.Helper()
	command := exec.CommandContext(t.Context(), "/bin/true")
	namespace(command)
	return command.Run()
}
