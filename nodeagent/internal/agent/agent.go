// SPDX-License-Identifier: Apache-2.0

// Package agent is the main loop: wait for an event or a timer, scan the node, report what
// changed. It does nothing else.
package agent

import (
	"context"
	"crypto/sha256"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/nodeagent/internal/hostfs"
	"github.com/kubelet-https-guard/kubelet-https-guard/nodeagent/internal/scan"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/control"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/report"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/tracker"
)

// maxRescans limits how often a scan is repeated because it found new directories to
// watch. The next event or tick continues.
const maxRescans = 3

// kubeletPatience is how long a finding from the kubelet's answer must last before it is
// reported: a kubelet restarts within seconds, and takes a moment to load new CAs.
const kubeletPatience = 10 * time.Second

// connectionPatience is how long a finding from the kube-apiserver's connection must last before it
// is reported. A kube-apiserver uses its old client certificate, and its old CAs, for up to 5 minutes
// after the files changed (Kubernetes client-go transport/cert_rotation.go, ca_rotation.go). That it
// uses the new ones is known by the next answer: it may be asked 2 minutes and 10 seconds later, and
// take a minute (package connection).
const connectionPatience = 9 * time.Minute

// Watcher wakes the agent when files change; see package watch.
type Watcher interface {
	Watch(directories []hostfs.Directory) (changed bool)
	Wake() <-chan struct{}
}

// Kubelet is probed in the background; see package probe.
type Kubelet interface {
	Ask()
	Answered() <-chan struct{}
	// Answers counts the answers that were not the same as the one before.
	Answers() uint64
}

// Connection is checked in the background; see package connection.
type Connection interface {
	AskSoon()
	Answered() <-chan struct{}
}

// Meter measures scans.
type Meter interface {
	// Scanned is called after each scan, with what triggered it, how long it took and
	// what it found.
	Scanned(trigger Trigger, took time.Duration, seen scan.Snapshot)
}

// Trigger is what made the agent scan the node.
type Trigger string

// All triggers.
const (
	Start           Trigger = "start"   // the agent has started
	FileEvent       Trigger = "event"   // an inotify event
	Tick            Trigger = "tick"    // Resync has passed
	Moment          Trigger = "moment"  // a finding has settled, or a result may change by time alone
	KubeletAnswered Trigger = "kubelet" // the kubelet has given another answer, or one while a finding from it is pending
	// ConnectionAnswered: the kube-apiserver has answered whether it can connect to the kubelet.
	ConnectionAnswered Trigger = "connection"
)

// Triggers returns all of them.
func Triggers() []Trigger {
	return []Trigger{Start, FileEvent, Tick, Moment, KubeletAnswered, ConnectionAnswered}
}

// Agent checks a host for as long as it runs.
type Agent struct {
	// Scan checks the host once.
	Scan func(now time.Time) scan.Snapshot
	// Chains returns a function that lists the directories on the path to a file of the host; see [hostfs.FS.Chains].
	Chains  func() func(hostPath string) []hostfs.Directory
	Watcher Watcher
	// Kubelet is nil if the kubelet is not probed.
	Kubelet Kubelet
	// Connection is nil if the kube-apiserver's connection is not checked.
	Connection Connection
	// Reporter gets a notice of each change.
	Reporter report.Reporter
	Meter    Meter
	// Object is what the notices are about.
	Object report.Object
	Now    func() time.Time
	Log    *slog.Logger
	// Resync is the longest time between two scans. Settle is how long a finding from
	// files must last before it is reported.
	Resync, Settle time.Duration
}

// CertificateRole is the role of the kubelet client certificate in metrics and reports.
const CertificateRole = "kubelet-client"

// Controls returns the controls that have requirements on a node.
func Controls() []control.Control {
	return slices.DeleteFunc(control.Table(), func(c control.Control) bool {
		return !slices.ContainsFunc(c.Requirements, func(r control.Required) bool { return r.In(control.Node) })
	})
}

// The indexes of the sources in an observation.
const (
	fromFiles = iota
	fromKubelet
	fromConnection
)

// observation converts a snapshot for the tracker.
func observation(
	s scan.Snapshot, controls []control.Control, settle, kubeletPatience, connectionPatience time.Duration,
) tracker.Observation {
	return tracker.Observation{
		At: s.At, Contents: s.Contents, NextChange: s.NextChange,
		Scope: control.Node, Controls: controls,
		Sources: []tracker.Source{
			fromFiles:      {Results: s.FileResults, Patience: settle},
			fromKubelet:    {Results: s.KubeletResults, Patience: kubeletPatience},
			fromConnection: {Results: s.ConnectionResults, Patience: connectionPatience},
		},
		Certificates: []tracker.Certificate{{
			Role: CertificateRole, At: finding.File(s.Found.Certificate.Host), Leaf: s.Leaf, Valid: s.Valid,
		}},
	}
}

// Run checks the host until the context ends.
func (a *Agent) Run(ctx context.Context) error {
	tracked, controls := tracker.New(a.Settle), Controls()
	tick := time.NewTicker(a.Resync)
	defer tick.Stop()
	var answered <-chan struct{}
	if a.Kubelet != nil {
		answered = a.Kubelet.Answered()
	}
	var connection <-chan struct{}
	if a.Connection != nil {
		connection = a.Connection.Answered()
	}
	logged, trigger := foundFiles{}, Start
	var contents, connectionFiles [sha256.Size]byte
	for {
		begin := a.Now()
		answers := a.answers()
		snapshot := a.scanAndWatch()
		a.Meter.Scanned(trigger, a.Now().Sub(begin), snapshot)
		changes := tracked.Observe(observation(snapshot, controls, a.Settle, kubeletPatience, connectionPatience))
		// While a file is being replaced, this may be wrong for a moment.
		if found := foundFilesOf(snapshot); found != logged && !changes.Pending[fromFiles] {
			logged = found
			a.logFiles(snapshot)
		}
		for _, notice := range changes.Notices {
			notice.Object = a.Object
			a.Reporter.Report(ctx, notice)
		}
		if a.Kubelet != nil &&
			(trigger == Start || trigger == Tick || snapshot.Contents != contents || changes.Pending[fromKubelet]) {
			a.Kubelet.Ask()
		}
		contents = snapshot.Contents
		// At the start it asks without this.
		if a.Connection != nil && trigger != Start && snapshot.ConnectionFiles != connectionFiles {
			a.Connection.AskSoon()
		}
		connectionFiles = snapshot.ConnectionFiles
		due, stop := a.timer(changes.NextChange)
		for trigger = ""; trigger == ""; {
			select {
			case <-ctx.Done():
				stop()
				return nil
			case <-a.Watcher.Wake():
				trigger = FileEvent
			case <-answered:
				// With the same answer, a scan would find the same, until files or time cause another one.
				if changes.Pending[fromKubelet] || a.answers() != answers {
					trigger = KubeletAnswered
				}
			case <-connection:
				trigger = ConnectionAnswered
			case <-tick.C:
				trigger = Tick
			case <-due:
				trigger = Moment
			}
		}
		stop()
	}
}

// answers counts the kubelet's answers that were not the same as the one before.
func (a *Agent) answers() uint64 {
	if a.Kubelet == nil {
		return 0
	}
	return a.Kubelet.Answers()
}

// timer fires at a moment, or never if it is zero.
func (a *Agent) timer(at time.Time) (due <-chan time.Time, stop func()) {
	if at.IsZero() {
		return nil, func() {}
	}
	timer := time.NewTimer(at.Sub(a.Now()))
	return timer.C, func() { timer.Stop() }
}

// scanAndWatch scans the host and watches each directory that the result depends on. So
// each change after a file was read causes an event.
func (a *Agent) scanAndWatch() scan.Snapshot {
	snapshot := a.Scan(a.Now())
	for range maxRescans {
		// Most paths have most directories in common.
		directories, chainOf := map[hostfs.Directory]bool{}, a.Chains()
		add := func(chain []hostfs.Directory) {
			for _, d := range chain {
				directories[d] = true
			}
		}
		for _, path := range snapshot.Found.Paths() {
			add(chainOf(path))
		}
		for _, path := range snapshot.Found.Listed() {
			chain := chainOf(path)
			// The last link is the directory itself if it exists.
			if last := len(chain) - 1; last >= 0 && chain[last].Name == "" {
				chain[last].AnyName = true
			}
			add(chain)
		}
		if !a.Watcher.Watch(slices.Collect(maps.Keys(directories))) {
			break
		}
		snapshot = a.Scan(a.Now())
	}
	return snapshot
}

// foundFiles is what logFiles logs again if it changes: how the files were searched, and whether the certificate was
// found.
type foundFiles struct {
	how   string
	found bool
}

func foundFilesOf(s scan.Snapshot) foundFiles {
	return foundFiles{how: s.Found.How, found: s.Found.Certificate.Host != ""}
}

func (a *Agent) logFiles(s scan.Snapshot) {
	if !foundFilesOf(s).found {
		a.Log.Info("Did not find the kube-apiserver's client certificate for kubelets", "how", s.Found.How)
		return
	}
	a.Log.Info("Found the kube-apiserver's client certificate for kubelets",
		"how", s.Found.How, "revision", s.Found.Revision,
		"certificate", s.Found.Certificate.Host, "key", s.Found.Key.Host,
		"clientCA", s.Found.ClientCA, "kubeletCA", s.Found.KubeletCA.Host)
}

// Settled scans until no finding is pending, for at most twice the settle time, and
// returns the last scan. It is for a single check.
func (a *Agent) Settled(ctx context.Context) scan.Snapshot {
	tracked, controls := tracker.New(a.Settle), Controls()
	deadline := a.Now().Add(2 * a.Settle)
	for {
		snapshot := a.Scan(a.Now())
		changes := tracked.Observe(observation(snapshot, controls, a.Settle, a.Settle, a.Settle))
		if !slices.Contains(changes.Pending, true) || !snapshot.At.Before(deadline) {
			return snapshot
		}
		due, stop := a.timer(changes.NextChange)
		select {
		case <-ctx.Done():
			stop()
			return snapshot
		case <-due:
		}
		stop()
	}
}
