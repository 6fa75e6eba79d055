// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"crypto/x509"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/nodeagent/internal/scan"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/report"
)

// ledger knows what was told and turns snapshots into notices.
//
// A finding that comes from files is told once it has lasted for settle:
// writers replace certificate and key one after the other, and what is seen in
// between is no fault. One that comes from the clock, so that nothing read was
// different from the look before, is told at once. The same holds for findings
// that went away while others are settling.
type ledger struct {
	settle time.Duration

	looked   bool
	contents [32]byte
	// since is when each finding that stands was first seen, gone since when
	// each one that was told is not seen any more.
	since, gone map[finding.ID]time.Time
	told        map[finding.ID]finding.Finding
	certificate *x509.Certificate // the last sound one
	verdict     finding.Verdict
	verdictTold bool
}

func newLedger(settle time.Duration) *ledger {
	return &ledger{
		settle: settle,
		since:  map[finding.ID]time.Time{}, gone: map[finding.ID]time.Time{},
		told: map[finding.ID]finding.Finding{},
	}
}

// observe takes a snapshot and returns what is to be told, in order. again is
// when to look again for what has not settled yet, zero if all has.
func (l *ledger) observe(s scan.Snapshot) (notices []report.Notice, again time.Time) {
	byClock := l.looked && s.Contents == l.contents
	l.looked, l.contents = true, s.Contents

	standing := make(map[finding.ID]finding.Finding, len(s.Findings))
	for _, f := range s.Findings {
		standing[f.ID()] = f
		if _, known := l.since[f.ID()]; !known {
			l.since[f.ID()] = s.At
			if byClock {
				l.since[f.ID()] = s.At.Add(-l.settle)
			}
		}
		delete(l.gone, f.ID())
	}
	for id := range l.since {
		if _, stands := standing[id]; !stands {
			delete(l.since, id)
		}
	}
	for id := range l.told {
		if _, stands := standing[id]; stands {
			continue
		}
		if _, known := l.gone[id]; !known {
			l.gone[id] = s.At
		}
	}

	// What the told findings become: those that were told and stand, and those
	// that have lasted.
	var before, after []finding.Finding
	settling := false
	for id, f := range l.told {
		before = append(before, f)
		if _, gone := l.gone[id]; !gone {
			after = append(after, standing[id])
		}
	}
	for id, f := range standing {
		if _, known := l.told[id]; known {
			continue
		}
		if due := l.since[id].Add(l.settle); due.After(s.At) {
			settling = true
			again = earliest(again, due)
			continue
		}
		after = append(after, f)
	}
	if settling {
		for id, since := range l.gone {
			if due := since.Add(l.settle); due.After(s.At) {
				again = earliest(again, due)
				after = append(after, l.told[id])
			}
		}
	}

	raised, cleared := finding.Diff(before, after)
	for _, f := range raised {
		notices = append(notices, report.Notice{What: report.FindingRaised, At: s.At, Finding: f})
	}
	for _, f := range cleared {
		notices = append(notices, report.Notice{What: report.FindingCleared, At: s.At, Finding: f})
		delete(l.gone, f.ID())
	}
	l.told = make(map[finding.ID]finding.Finding, len(after))
	for _, f := range after {
		l.told[f.ID()] = f
	}

	if s.Sound && !s.Leaf.Equal(l.certificate) {
		if l.certificate != nil {
			notices = append(notices, report.Notice{What: report.CertificateRotated, At: s.At, Certificate: s.Leaf, CertificateAt: certificateAt(s)})
		}
		l.certificate = s.Leaf
	}
	// The first verdict waits until everything has settled, so that it is true.
	if verdict := finding.VerdictOf(after); verdict != l.verdict || !l.verdictTold {
		if l.verdictTold || !settling {
			notices = append(notices, summary(s, verdict, after))
			l.verdict, l.verdictTold = verdict, true
		}
	}
	return notices, again
}

func summary(s scan.Snapshot, verdict finding.Verdict, standing []finding.Finding) report.Notice {
	notice := report.Notice{What: report.NotVerified, At: s.At, Verdict: verdict, Standing: finding.Sort(standing)}
	if verdict == finding.Compliant {
		notice.What, notice.Certificate, notice.CertificateAt = report.Verified, s.Leaf, certificateAt(s)
	}
	return notice
}

func certificateAt(s scan.Snapshot) finding.Location {
	return finding.Location(s.Layout.Certificate.Host)
}

// earliest is the earlier of two moments, of which the first may be none.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}
