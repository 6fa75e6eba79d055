// SPDX-License-Identifier: Apache-2.0

package faults_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/report"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/rig"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/rotation"
)

// writer is any of them.
func writer() rotation.Writer {
	all := rotation.Writers()
	return all[rand.IntN(len(all))]
}

// startSilent starts an agent whose log nobody can read.
func (s *scene) startSilent(l launch) *agent {
	s.Helper()
	host, err := rotation.NewHost(s.TempDir(), rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0)), func() { <-time.After(rand.N(settleTime / 8)) })
	if err != nil {
		s.Fatal(err)
	}
	a := &agent{options: l, Driver: &rotation.Driver{Host: host, Settle: settleTime, Notice: patience, Tolerated: map[string]int{}}}
	a.name, a.limit = "agent", agentLimit
	s.restart(a)
	s.Cleanup(func() { _ = a.Agent.Stop() })
	return a
}

// says holds that the next edges of an agent's log are these, in any order, and
// that none is told twice. An edge is its message and, if it has one, the reason.
func (s *scene) says(a *agent, edges ...string) {
	s.Helper()
	want := map[string]int{}
	for _, e := range edges {
		want[e]++
	}
	deadline := time.After(patience)
	for left := len(edges); left > 0; {
		select {
		case <-deadline:
			s.Fatalf("the agent did not tell all of %q: %v", edges, want)
		case l, ok := <-a.Agent.Lines:
			if !ok {
				s.Fatal("the agent ended")
			}
			edge := strings.TrimSpace(l.Msg + " " + l.Reason)
			if !isEdge(l.Msg) {
				continue
			}
			if want[edge] == 0 {
				s.Fatalf("the agent told %s, not %q", l.Text, edges)
			}
			want[edge]--
			left--
			a.Told++
		}
	}
}

func isEdge(message string) bool {
	switch report.What(message) {
	case report.FindingRaised, report.FindingCleared, report.Verified, report.NotVerified, report.CertificateRotated:
		return true
	case report.FindingStands, report.RequestDenied, report.RequestByBreakGlass:
	}
	return false
}

// quiet holds that an agent has nothing more to tell.
func (s *scene) quiet(a *agent) {
	s.Helper()
	if err := a.Quiet(s.Context(), 2*tick+settleTime); err != nil {
		s.Error(err)
	}
}

// killAgent kills at any moment of a change, and starts anew.
func killAgent(s *scene) {
	a := s.startAgent(launch{})
	ends, pair := 0, a.Host.Pair()
	during := func(change func() error) {
		s.Helper()
		killed := make(chan error, 1)
		go func() {
			<-time.After(rand.N(settleTime + settleTime/2))
			killed <- syscall.Kill(a.PID, syscall.SIGKILL)
		}()
		if err := change(); err != nil {
			s.Fatal(err)
		}
		if err := <-killed; err != nil {
			s.Fatal(err)
		}
		for range a.Agent.Lines { // to the end
		}
		ends++
		s.restart(a)
	}
	for range 2 {
		for _, name := range []string{"certificate removed", "expired", "key of another pair", "key garbage"} {
			f := faultNamed(s.T, name)
			during(func() error { return f.Inject(a.Host, writer()) })
			s.says(a, string(report.FindingRaised)+" "+string(f.Reasons[0]), string(report.NotVerified))
			pair = a.Host.Pair()
			during(func() error { return f.Repair(a.Host, writer(), pair) })
			s.says(a, string(report.Verified))
		}
	}
	s.quiet(a)
	s.await("the last verdict is an Event", func(context.Context) bool {
		for _, e := range s.events("default", s.name) {
			if e.Reason == "Verified" && strings.Contains(e.Note, fmt.Sprintf("serial %x", pair.Leaf.SerialNumber)) {
				return true
			}
		}
		return false
	})
	s.rested("agent", a.process.Process, agentLimit)
	s.figure("%d ends", ends)
}

// agentDescriptors: what cannot be opened is neither there nor missing.
func agentDescriptors(s *scene) {
	a := s.startAgent(launch{})
	s.rested("agent", a.process.Process, agentLimit)
	undo := s.descriptorLimit(a.PID)
	var raised []string
	deadline := time.After(patience)
	for verdict := ""; verdict == ""; {
		select {
		case <-deadline:
			s.Fatal("the agent never said that it cannot verify")
		case l, ok := <-a.Agent.Lines:
			switch {
			case !ok:
				s.Fatal("the agent ended")
			case l.Msg == string(report.FindingRaised):
				if severity := finding.Reason(l.Reason).Severity(); severity != finding.Unverified {
					s.Errorf("for want of descriptors it said %s", l.Text)
				}
				raised = append(raised, l.Reason)
				a.Told++
			case l.Msg == string(report.NotVerified):
				verdict = l.Text
				a.Told++
				if !strings.Contains(l.Text, finding.CouldNotVerify.String()) {
					s.Errorf("the verdict is %s", l.Text)
				}
			}
		}
	}
	// Somebody scrapes, and cannot be taken.
	if _, err := a.process.Read(s.Context()); err == nil {
		s.Error("metrics were served without a descriptor")
	}
	s.quiet(a)
	undo()
	var want []string
	for _, reason := range raised {
		want = append(want, string(report.FindingCleared)+" "+reason)
	}
	s.says(a, append(want, string(report.Verified))...)
	s.breakAndMend(a)
	s.quiet(a)
	s.delivered(a)
	s.figure("could not verify because of %s", strings.Join(raised, ", "))
}

// withoutInotify takes a limit of the kernel from an agent, in a user namespace
// of its own, and gives it back.
func withoutInotify(limit, says string) func(*scene) {
	return func(s *scene) {
		self, err := os.Executable()
		if err != nil {
			s.Fatal(err)
		}
		host, err := rotation.NewHost(s.TempDir(), rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0)), func() { <-time.After(rand.N(settleTime / 8)) })
		if err != nil {
			s.Fatal(err)
		}
		port, err := rig.FreePort(s.Context())
		if err != nil {
			s.Fatal(err)
		}
		pidFile := filepath.Join(s.TempDir(), "pid")
		a := &agent{Driver: &rotation.Driver{Host: host, Settle: settleTime, Notice: patience, Tolerated: map[string]int{says: 0}}}
		a.process.Metrics = fmt.Sprintf("127.0.0.1:%d", port)
		a.run = exec.CommandContext(s.Context(), self, filepath.Join(shared.bin, "nodeagent"), "--root", host.Tree.Root, "--node-name", s.name,
			"--kubeconfig", s.kubeconfig, "--metrics-bind-address", a.process.Metrics, "--settle", settleTime.String(), "--resync", tick.String())
		a.run.Env = append(os.Environ(), limitVariable+"="+limit, readyVariable+"="+pidFile)
		a.run.SysProcAttr = &syscall.SysProcAttr{
			Pdeathsig: syscall.SIGKILL, Cloneflags: syscall.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		}
		began := time.Now()
		if a.Agent, err = rotation.Start(a.run); err != nil {
			if os.Getenv("CI") != "" {
				s.Fatalf("no user namespaces: %v", err)
			}
			s.Skipf("no user namespaces: %v", err)
		}
		s.Cleanup(func() { _ = a.Agent.Stop() }) // and so the agent itself
		if err := a.Started(s.Context(), began); err != nil {
			s.Fatal(err)
		}
		s.await("the agent's number", func(context.Context) bool { // written after its start
			pid, _ := os.ReadFile(pidFile)
			a.PID, err = strconv.Atoi(string(pid))
			return err == nil
		})
		s.rested("agent", a.process.Process, agentLimit)
		s.breakAndMend(a)
		if events := s.byEvent(a); events != 0 {
			s.Errorf("%.0f looks by events: there was no limit", events)
		}
		if err := a.run.Process.Signal(syscall.SIGUSR1); err != nil {
			s.Fatal(err)
		}
		s.await("looks by events", func(ctx context.Context) bool {
			if err := a.Rotate(ctx, writer()); err != nil {
				s.Fatal(err)
			}
			return s.byEvent(a) > 0
		})
		s.breakAndMend(a)
		s.quiet(a)
		s.delivered(a)
		if said := a.Tolerated[says]; said != 1 {
			s.Errorf("said %d times: %s", said, says)
		}
	}
}

// byEvent are the looks that an event of inotify made the agent take.
func (s *scene) byEvent(a *agent) float64 {
	s.Helper()
	metrics, err := a.process.Read(s.Context())
	if err != nil {
		s.Fatal(err)
	}
	return metrics.Sum("kubelet_https_guard_scans_total", `trigger="event"`)
}
