// SPDX-License-Identifier: Apache-2.0

// Package agent is the loop: something woke it, or it is time; look; tell what
// changed. It owns nothing else.
package agent

import (
	"context"
	"crypto/sha256"
	"log/slog"
	"slices"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/nodeagent/internal/hostfs"
	"github.com/kubelet-https-guard/kubelet-https-guard/nodeagent/internal/scan"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/report"
)

// maxArms bounds how often a scan is repeated because directories turned up
// while it was under way; the next wake-up or tick goes on.
const maxArms = 3

// kubeletPatience is how long a finding from the kubelet's answer must last to
// be told: a kubelet that restarts is back within seconds, one that is given
// new CAs takes a moment to load them.
const kubeletPatience = 10 * time.Second

// Watcher is what wakes the agent; see package watch.
type Watcher interface {
	Arm(directories []hostfs.Directory) (changed bool)
	Wake() <-chan struct{}
}

// Kubelet is asked in the background; see package probe.
type Kubelet interface {
	Ask()
	Answered() <-chan struct{}
}

// Meter is told of every look.
type Meter interface {
	// Looked: what made the agent look (one of the constants of Trigger), how
	// long it took, what it saw.
	Looked(trigger Trigger, took time.Duration, seen scan.Snapshot)
}

// Trigger is what made the agent look.
type Trigger string

// All triggers.
const (
	Start       Trigger = "start"   // of the agent
	FileEvent   Trigger = "event"   // of inotify
	Tick        Trigger = "tick"    // of the clock, each Resync
	Moment      Trigger = "moment"  // at which something has settled, or a verdict may change
	KubeletSaid Trigger = "kubelet" // an answer
)

// Triggers returns all of them.
func Triggers() []Trigger { return []Trigger{Start, FileEvent, Tick, Moment, KubeletSaid} }

// Agent looks at a host for as long as it runs.
type Agent struct {
	// Scan takes one look.
	Scan func(now time.Time) scan.Snapshot
	// Chain lists the directories on the way to a path of the host.
	Chain   func(hostPath string) []hostfs.Directory
	Watcher Watcher
	// Kubelet is nil where none is asked.
	Kubelet Kubelet
	// Teller is told of every edge.
	Teller report.Teller
	Meter  Meter
	// Object that the notices are about.
	Object report.Object
	Now    func() time.Time
	Log    *slog.Logger
	// Resync is the time after which it looks in any case, Settle how long a
	// finding from files must last to be told.
	Resync, Settle time.Duration
}

// CertificateRole is that of the certificate that is looked at.
const CertificateRole = "kubelet-client"

// The sources of findings, as seen has them.
const (
	fromFiles = iota
	fromKubelet
)

// seen is a snapshot as the ledger takes it.
func seen(s scan.Snapshot, settle, kubeletPatience time.Duration) report.Look {
	guessed := s.Layout.ManifestReadErr != nil || s.Layout.ManifestParseErr != nil
	return report.Look{
		At: s.At, Contents: s.Contents, Waiting: s.Waiting, Next: s.NextChange,
		Sources: []report.Source{
			fromFiles:   {Findings: s.Findings, Patience: settle},
			fromKubelet: {Findings: s.Kubelet, Patience: kubeletPatience},
		},
		// Of each kind there is one object on a node; of files of a pair, what was
		// looked for in both counts. But without a manifest that is of use, others may
		// have been looked at than those that something was told of.
		LookedFor:    func(id finding.ID) bool { return !guessed && slices.Contains(s.LookedFor, id.Reason) },
		Certificates: []report.Certificate{{Role: CertificateRole, At: finding.Location(s.Layout.Certificate.Host), Leaf: s.Leaf, Sound: s.Sound}},
	}
}

// Run looks until the context ends.
func (a *Agent) Run(ctx context.Context) error {
	ledger := report.NewLedger(a.Settle)
	tick := time.NewTicker(a.Resync)
	defer tick.Stop()
	var answered <-chan struct{}
	if a.Kubelet != nil {
		answered = a.Kubelet.Answered()
	}
	how, contents, trigger := "", [sha256.Size]byte{}, Start
	for {
		begin := a.Now()
		snapshot := a.look()
		a.Meter.Looked(trigger, a.Now().Sub(begin), snapshot)
		observed := ledger.Observe(seen(snapshot, a.Settle, kubeletPatience))
		// What is found while a file is being replaced is not worth a word.
		if snapshot.Layout.How != how && !observed.Settling[fromFiles] {
			how = snapshot.Layout.How
			a.tellFound(snapshot)
		}
		for _, notice := range observed.Notices {
			notice.Object = a.Object
			a.Teller.Tell(ctx, notice)
		}
		if a.Kubelet != nil && (trigger == Start || trigger == Tick || snapshot.Contents != contents || observed.Settling[fromKubelet]) {
			a.Kubelet.Ask()
		}
		contents = snapshot.Contents
		due, stop := a.timer(observed.Again)
		select {
		case <-ctx.Done():
			stop()
			return nil
		case <-a.Watcher.Wake():
			trigger = FileEvent
		case <-answered:
			trigger = KubeletSaid
		case <-tick.C:
			trigger = Tick
		case <-due:
			trigger = Moment
		}
		stop()
	}
}

// timer gives a value at a moment, or never at the zero one.
func (a *Agent) timer(at time.Time) (due <-chan time.Time, stop func()) {
	if at.IsZero() {
		return nil, func() {}
	}
	timer := time.NewTimer(at.Sub(a.Now()))
	return timer.C, func() { timer.Stop() }
}

// look scans with every directory watched on which the result rests: what
// happens after the scan read a file is then an event.
func (a *Agent) look() scan.Snapshot {
	snapshot := a.Scan(a.Now())
	for range maxArms {
		var directories []hostfs.Directory
		for _, path := range snapshot.Layout.Paths() {
			directories = append(directories, a.Chain(path)...)
		}
		if !a.Watcher.Arm(directories) {
			break
		}
		snapshot = a.Scan(a.Now())
	}
	return snapshot
}

func (a *Agent) tellFound(s scan.Snapshot) {
	a.Log.Info("Looking at", "how", s.Layout.How, "revision", s.Layout.Revision,
		"certificate", s.Layout.Certificate.Host, "key", s.Layout.Key.Host,
		"clientCA", s.Layout.ClientCA, "kubeletCA", s.Layout.KubeletCA.Host)
}

// Settled looks until nothing is settling any more, at most twice the settle
// time, and returns the last look: for who wants to know once.
func (a *Agent) Settled(ctx context.Context) scan.Snapshot {
	ledger := report.NewLedger(a.Settle)
	deadline := a.Now().Add(2 * a.Settle)
	for {
		snapshot := a.Scan(a.Now())
		observed := ledger.Observe(seen(snapshot, a.Settle, a.Settle))
		if !slices.Contains(observed.Settling, true) || !snapshot.At.Before(deadline) {
			return snapshot
		}
		due, stop := a.timer(observed.Again)
		select {
		case <-ctx.Done():
			stop()
			return snapshot
		case <-due:
		}
		stop()
	}
}
