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

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/control"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/report"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/rig"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/rotation"
)

// writer picks one of the writers at random.
func writer() rotation.Writer {
	all := rotation.Writers()
	return all[rand.IntN(len(all))]
}

// startUnread starts an agent whose log the test does not read.
func (s *scene) startUnread(l launch) *agent {
	s.Helper()
	host, err := rotation.NewHost(s.TempDir(), rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0)),
		func() { <-time.After(rand.N(settleTime / 8)) })
	if err != nil {
		s.Fatal(err)
	}
	a := &agent{options: l, Driver: &rotation.Driver{Host: host, Settle: settleTime, ReportTime: patience,
		Tolerated: map[string]int{}}}
	a.name, a.limit = "agent", agentLimit
	s.restart(a)
	s.Cleanup(func() { _ = a.Agent.Stop() })
	return a
}

// agentLogs requires that the next changes in the agent's log are these, in any order, and that the agent
// logs each of them once. A change is the message and the reason or control, if the line has one.
func (s *scene) agentLogs(a *agent, changes ...string) {
	s.Helper()
	s.agentLogsWithin(a, patience, changes...)
}

// agentLogsWithin does the same within a time.
func (s *scene) agentLogsWithin(a *agent, within time.Duration, changes ...string) {
	s.Helper()
	want := map[string]int{}
	for _, c := range changes {
		want[c]++
	}
	deadline := time.After(within)
	for left := len(changes); left > 0; {
		select {
		case <-deadline:
			s.Fatalf("the agent did not log all of %q; missing: %v", changes, want)
		case l, ok := <-a.Agent.Lines:
			if !ok {
				s.Fatal("the agent exited")
			}
			change := strings.TrimSpace(l.Msg + " " + l.Reason + l.Control)
			if !isChange(l.Msg) {
				continue
			}
			if want[change] == 0 {
				s.Fatalf("the agent logged %s, want one of %q", l.Text, changes)
			}
			want[change]--
			left--
			a.Reported++
		}
	}
}

func isChange(message string) bool {
	switch report.NoticeType(message) {
	case report.FindingActive,
		report.FindingResolved, report.Compliant, report.NotCompliant, report.CouldNotVerify,
		report.CertificateRotated:
		return true
	case report.FindingStillActive, report.NotApplicable, report.RequestDenied, report.RequestByBreakGlass:
	}
	return false
}

// compliant and notCompliant are the changes of a control's verdict in the log.
func compliant(id string) string { return string(report.Compliant) + " " + id }

func notCompliant(id string) string { return string(report.NotCompliant) + " " + id }

// logsNothing requires that the agent logs no further change.
func (s *scene) logsNothing(a *agent) {
	s.Helper()
	if err := a.LogsNothing(s.Context(), 2*tick+settleTime); err != nil {
		s.Error(err)
	}
}

// killAgent kills the agent at a random moment of a change and restarts it.
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
		for range a.Agent.Lines { // until the log is closed
		}
		ends++
		s.restart(a)
	}
	for range 2 {
		for _, name := range []string{"certificate removed", "expired", "key of another pair", "key garbage"} {
			f := faultNamed(s.T, name)
			during(func() error { return f.Inject(a.Host, writer()) })
			s.agentLogs(a, string(report.FindingActive)+" "+string(f.Reasons[0]), notCompliant(control.UseHTTPS),
				compliant(control.AdmissionEnabled))
			pair = a.Host.Pair()
			during(func() error { return f.Repair(a.Host, writer(), pair) })
			s.agentLogs(a, compliant(control.UseHTTPS), compliant(control.AdmissionEnabled))
		}
	}
	s.logsNothing(a)
	s.await("there is an Event with the last verdict", func(context.Context) bool {
		for _, e := range s.events("default", s.name) {
			if e.Reason == control.Compliant.Word() &&
				strings.Contains(e.Note, fmt.Sprintf("serial %x", pair.Leaf.SerialNumber)) {
				return true
			}
		}
		return false
	})
	s.awaitRest("agent", a.process.Process, agentLimit)
	s.addFigure("killed %d times", ends)
}

// agentDescriptors takes all file descriptors from the agent. A file that it cannot open is unknown:
// neither present nor missing.
func agentDescriptors(s *scene) {
	a := s.startAgent(launch{})
	s.awaitRest("agent", a.process.Process, agentLimit)
	undo := s.descriptorLimit(a.PID)
	var reasons []string
	deadline := time.After(patience)
	for verdicts := 0; verdicts < 2; { // both controls depend on files
		select {
		case <-deadline:
			s.Fatal("the agent did not log that it could not verify the controls")
		case l, ok := <-a.Agent.Lines:
			switch {
			case !ok:
				s.Fatal("the agent exited")
			case l.Msg == string(report.FindingActive):
				if severity := finding.Reason(l.Reason).Severity(); severity != finding.Unknown.Severity() {
					s.Errorf("without file descriptors the severity is %s, want %s: %s", severity,
						finding.Unknown.Severity(), l.Text)
				}
				reasons = append(reasons, l.Reason)
				a.Reported++
			case l.Msg == string(report.NotCompliant):
				s.Fatalf("the verdict is %s", l.Text)
			case l.Msg == string(report.CouldNotVerify):
				verdicts++
				a.Reported++
			}
		}
	}
	// A scrape cannot connect either.
	if _, err := a.process.Read(s.Context()); err == nil {
		s.Error("the agent served metrics without a file descriptor")
	}
	s.logsNothing(a)
	undo()
	var want []string
	for _, reason := range reasons {
		want = append(want, string(report.FindingResolved)+" "+reason)
	}
	s.agentLogs(a, append(want, compliant(control.UseHTTPS), compliant(control.AdmissionEnabled))...)
	s.breakAndRepair(a)
	s.logsNothing(a)
	s.awaitEvents(a)
	s.addFigure("could not verify because of %s", strings.Join(reasons, ", "))
}

// withoutInotify starts an agent in its own user namespace, takes one of the kernel's inotify limits
// from it and restores the limit later.
func withoutInotify(limit, message string) func(*scene) {
	return func(s *scene) {
		self, err := os.Executable()
		if err != nil {
			s.Fatal(err)
		}
		host, err := rotation.NewHost(s.TempDir(), rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0)),
			func() { <-time.After(rand.N(settleTime / 8)) })
		if err != nil {
			s.Fatal(err)
		}
		port, err := rig.FreePort(s.Context())
		if err != nil {
			s.Fatal(err)
		}
		pidFile := filepath.Join(s.TempDir(), "pid")
		a := &agent{Driver: &rotation.Driver{Host: host, Settle: settleTime, ReportTime: patience,
			Tolerated: map[string]int{message: 0}}}
		a.process.Metrics = fmt.Sprintf("127.0.0.1:%d", port)
		a.run = exec.CommandContext(s.Context(), self, filepath.Join(shared.bin, "nodeagent"),
			"run", "--root", host.Tree.Root, "--node-name", s.name, "--kubeconfig", s.kubeconfig, "--metrics-bind-address",
			a.process.Metrics, "--settle", settleTime.String(), "--resync", tick.String())
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
		s.Cleanup(func() { _ = a.Agent.Stop() }) // stops the parent, and with it the agent
		if err := a.Started(s.Context(), began); err != nil {
			s.Fatal(err)
		}
		s.await("the agent's process ID is known", func(context.Context) bool { // written after the agent has started
			pid, _ := os.ReadFile(pidFile)
			a.PID, err = strconv.Atoi(string(pid))
			return err == nil
		})
		s.awaitRest("agent", a.process.Process, agentLimit)
		s.breakAndRepair(a)
		if events := s.scansByEvent(a); events != 0 {
			s.Errorf("inotify events caused %.0f scans: the limit had no effect", events)
		}
		if err := a.run.Process.Signal(syscall.SIGUSR1); err != nil {
			s.Fatal(err)
		}
		s.await("inotify events cause scans", func(ctx context.Context) bool {
			if err := a.Rotate(ctx, writer()); err != nil {
				s.Fatal(err)
			}
			return s.scansByEvent(a) > 0
		})
		s.breakAndRepair(a)
		s.logsNothing(a)
		s.awaitEvents(a)
		if logged := a.Tolerated[message]; logged != 1 {
			s.Errorf("logged %d times, want once: %s", logged, message)
		}
	}
}

// scansByEvent is the number of scans that inotify events caused.
func (s *scene) scansByEvent(a *agent) float64 {
	s.Helper()
	metrics, err := a.process.Read(s.Context())
	if err != nil {
		s.Fatal(err)
	}
	return metrics.Sum("kubelet_https_guard_scans_total", `trigger="event"`)
}
