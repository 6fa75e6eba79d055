// SPDX-License-Identifier: Apache-2.0

package rotation_test

import (
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

	"github.com/kubelet-https-guard/kubelet-https-guard/test/rotation"
)

var (
	rotations = flag.Int("rotations", 200, "rotations of TestRotation; the other tests do a part of them")
	seed      = flag.Uint64("seed", 0, "of all that is random; 0 for another one each time")
)

const (
	// quiet is how long nothing happens when nothing more is to come.
	quiet = 250 * time.Millisecond
	// longest bounds the pauses of a writer.
	longest = 60 * time.Millisecond
	// noTick is longer than a test, so that no tick makes good for an event.
	noTick = 10 * time.Hour
)

// short: beside other tests, maybe on a busy machine, where a writer may be held up
// between two files for as long as it would take to settle.
func short() bool { return *rotations <= 200 }

// notice is how soon the agent must tell of a change that needs no settling. In the
// short form that it does is asserted, without a tick, and not how soon.
func notice() time.Duration {
	if short() {
		return 20 * time.Second
	}
	return 250 * time.Millisecond
}

// options of an agent.
type options struct {
	settle, notice, resync time.Duration
	// tolerated warning; none if empty.
	tolerated string
	// command changes how it is started, where that is not as usual.
	command func(*exec.Cmd)
}

// start starts an agent over a new host.
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
	t.Logf("again with -seed %d", number)
	random := rand.New(rand.NewPCG(number, 0))
	// Half a settle time must do for all pauses of a writer, of which the
	// slowest makes four.
	pause := func() {
		most := time.Millisecond
		if random.IntN(3) == 0 {
			most = min(o.settle/8, longest)
		}
		<-time.After(rand.N(most))
	}
	host, err := rotation.NewHost(t.TempDir(), random, pause)
	if err != nil {
		t.Fatal(err)
	}
	program := exec.CommandContext(t.Context(), binary, "--root", host.Tree.Root, "--metrics-bind-address", "0",
		"--settle", o.settle.String(), "--resync", o.resync.String())
	if o.command != nil {
		o.command(program)
	}
	driver := &rotation.Driver{Host: host, Settle: o.settle, Notice: o.notice, Tolerated: map[string]int{}}
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

// drive rotates, with a fault or a matter of time each fifth step, until there
// were enough rotations, and ends the agent.
func drive(t *testing.T, d *rotation.Driver, random *rand.Rand, enough int) {
	t.Helper()
	writers, faults := shuffled(random, rotation.Writers()), shuffled(random, rotation.Faults())
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
		default:
			err = d.Fault(t.Context(), faults[d.Faults%len(faults)], writer(), writer())
		}
		if err != nil {
			t.Fatalf("step %d: %v", step, err)
		}
		<-time.After(rand.N(20 * time.Millisecond))
	}
	if err := d.Quiet(t.Context(), d.Settle+quiet); err != nil {
		t.Error(err)
	}
	tell(t, d, time.Since(began))
	if err := d.Agent.Stop(); err != nil {
		t.Error(err)
	}
}

func shuffled[T any](random *rand.Rand, all []T) []T {
	random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all
}

// tell prints what was measured.
func tell(t *testing.T, d *rotation.Driver, took time.Duration) {
	t.Helper()
	cpu, err := d.Agent.CPU()
	if err != nil {
		t.Error(err)
	}
	memory, err := d.Agent.Memory()
	if err != nil {
		t.Error(err)
	}
	t.Logf("%d rotations and %d faults in %s; the agent took %.1f %% of a core and %.1f MiB, at most %.1f",
		d.Rotations, d.Faults, took.Round(time.Second), 100*cpu.Seconds()/took.Seconds(), float64(memory.Now)/(1<<20), float64(memory.Most)/(1<<20))
	t.Logf("%-64s %6s %8s %8s %8s", "told after, ms (faults: settle is "+d.Settle.String()+")", "n", "p50", "p99", "max")
	for _, label := range slices.Sorted(maps.Keys(d.Latencies)) {
		all := d.Latencies[label]
		ms := func(share float64) float64 { return float64(rotation.Quantile(all, share).Microseconds()) / 1000 }
		t.Logf("%-64s %6d %8.1f %8.1f %8.1f", label, len(all), ms(0.5), ms(0.99), ms(1))
	}
}

// TestRotation: every way of writing, random order and timing. No tick helps:
// what is told comes from events and from the clock.
func TestRotation(t *testing.T) {
	settle := time.Second
	if short() {
		settle = 1500 * time.Millisecond
	}
	d, random := start(t, options{settle: settle, notice: notice(), resync: noTick})
	drive(t, d, random, *rotations)
}

// TestRotationBesideUnrelatedEvents: the same while somebody else writes
// without end into the same folders.
func TestRotationBesideUnrelatedEvents(t *testing.T) {
	// Events may be lost, which is told and made good for by a scan.
	const overflow = "Watching had trouble"
	d, random := start(t, options{settle: 1500 * time.Millisecond, notice: notice(), resync: noTick, tolerated: overflow})
	ctx, stop := context.WithCancel(t.Context())
	made := make(chan int)
	began := time.Now()
	directory := filepath.Join(d.Host.Tree.Root, "etc/kubernetes/manifests") // a new revision is another tree
	go func() { made <- rotation.Noise(ctx, directory, 10_000) }()
	drive(t, d, random, *rotations/4)
	took := time.Since(began)
	stop()
	t.Logf("%.0f unrelated events a second; %d times the queue was full", float64(<-made)/took.Seconds(), d.Tolerated[overflow])
}

// TestRotationWithoutWatches: where the kernel gives none the clock does, and
// that is said once.
func TestRotationWithoutWatches(t *testing.T) {
	for name, c := range map[string]struct{ limit, says string }{
		"no watches":   {"/proc/sys/user/max_inotify_watches", "The kernel gives no more watches"},
		"no instances": {"/proc/sys/user/max_inotify_instances", "The kernel gives no inotify instance"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // it waits for ticks most of the time
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
				settle: 1500 * time.Millisecond, notice: resync + notice(), resync: resync, tolerated: c.says, command: namespace,
			})
			drive(t, d, random, *rotations/10)
			if said := d.Tolerated[c.says]; said != 1 {
				t.Errorf("said %d times: %s", said, c.says)
			}
		})
	}
}

// userNamespace says why there can be none.
func userNamespace(t *testing.T, namespace func(*exec.Cmd)) error {
	t.Helper()
	command := exec.CommandContext(t.Context(), "/bin/true")
	namespace(command)
	return command.Run()
}
