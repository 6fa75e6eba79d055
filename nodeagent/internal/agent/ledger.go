// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"crypto/x509"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/nodeagent/internal/scan"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/report"
)

// remindAfter is how long a finding stands before it is told of once more: an
// API server keeps an Event for an hour unless it is told otherwise
// (kube-apiserver --event-ttl).
const remindAfter = time.Hour

// ledger knows what was told and turns snapshots into notices.
//
// A finding that comes from files is told once it has lasted for settle:
// writers replace certificate and key one after the other, and what is seen in
// between is no fault. One that comes from the kubelet's answer has longer,
// patience, since kubelets restart. One that comes from the clock, so that
// nothing read or answered was different from the look before, is told at once.
// The same holds for findings that went away while others are settling.
//
// A finding that went away in the same look in which something Unverified came
// up is veiled by that: nobody knows whether it is gone. It stands until the
// veil is lifted.
type ledger struct {
	settle, patience time.Duration

	looked   bool
	contents [32]byte
	// due is when each finding that stands has lasted long enough, gone since
	// when each one that was told is not seen any more, veils what hides one.
	due, gone map[finding.ID]time.Time
	veils     map[finding.ID]finding.ID
	told      map[finding.ID]finding.Finding
	toldAt    map[finding.ID]time.Time

	certificate *x509.Certificate // the last sound one
	verdict     finding.Verdict
	verdictTold bool

	// filesSettling: at the last look something from files had not lasted long
	// enough; kubeletSettling: something that the kubelet answered.
	filesSettling, kubeletSettling bool
}

func newLedger(settle, patience time.Duration) *ledger {
	return &ledger{
		settle: settle, patience: patience,
		due: map[finding.ID]time.Time{}, gone: map[finding.ID]time.Time{}, veils: map[finding.ID]finding.ID{},
		told: map[finding.ID]finding.Finding{}, toldAt: map[finding.ID]time.Time{},
	}
}

// observe takes a snapshot and returns what is to be told, in order. again is
// when to look again for what has not settled yet, zero if all has.
func (l *ledger) observe(s scan.Snapshot) (notices []report.Notice, again time.Time) {
	byClock := l.looked && s.Contents == l.contents
	l.looked, l.contents = true, s.Contents

	standing := make(map[finding.ID]finding.Finding)
	var veils []finding.ID // Unverified since this look
	stand := func(findings []finding.Finding, patience time.Duration) (settling bool) {
		for _, f := range findings {
			id := f.ID()
			standing[id] = f
			delete(l.gone, id)
			delete(l.veils, id)
			if _, known := l.due[id]; !known {
				if f.Severity() == finding.Unverified {
					veils = append(veils, id)
				}
				l.due[id] = s.At
				if !byClock {
					l.due[id] = s.At.Add(patience)
				}
			}
			if _, told := l.told[id]; !told && l.due[id].After(s.At) {
				settling = true
				again = earliest(again, l.due[id])
			}
		}
		return settling
	}
	l.filesSettling = stand(s.Findings, l.settle)
	l.kubeletSettling = stand(s.Kubelet, l.patience)
	settling := l.filesSettling || l.kubeletSettling
	for id := range l.due {
		if _, stands := standing[id]; !stands {
			delete(l.due, id)
		}
	}
	for id, f := range l.told {
		if _, stands := standing[id]; stands {
			continue
		}
		if _, veiled := standing[l.veils[id]]; veiled {
			continue
		}
		delete(l.veils, id)
		if _, known := l.gone[id]; known {
			continue
		}
		if len(veils) > 0 && f.Severity() != finding.Unverified {
			l.veils[id] = veils[0]
			continue
		}
		l.gone[id] = s.At
	}

	// What the told findings become: those that were told and stand or are
	// veiled, and those that have lasted.
	var before, after []finding.Finding
	for id, f := range l.told {
		before = append(before, f)
		if _, gone := l.gone[id]; gone {
			continue
		}
		if now, stands := standing[id]; stands {
			f = now
		}
		after = append(after, f)
	}
	for id, f := range standing {
		if _, known := l.told[id]; !known && !l.due[id].After(s.At) {
			after = append(after, f)
		}
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
		l.toldAt[f.ID()] = s.At
	}
	for _, f := range cleared {
		notices = append(notices, report.Notice{What: report.FindingCleared, At: s.At, Finding: f})
		delete(l.gone, f.ID())
		delete(l.toldAt, f.ID())
	}
	l.told = make(map[finding.ID]finding.Finding, len(after))
	for _, f := range finding.Sort(after) {
		l.told[f.ID()] = f
		if s.At.Sub(l.toldAt[f.ID()]) >= remindAfter {
			notices = append(notices, report.Notice{What: report.FindingStands, At: s.At, Finding: f})
			l.toldAt[f.ID()] = s.At
		}
	}

	if s.Sound && !s.Leaf.Equal(l.certificate) {
		if l.certificate != nil {
			notices = append(notices, report.Notice{What: report.CertificateRotated, At: s.At, Certificate: s.Leaf, CertificateAt: certificateAt(s)})
		}
		l.certificate = s.Leaf
	}
	// The first verdict waits until it is true: a Violation that stands is
	// enough for that, otherwise everything must have settled.
	if verdict := finding.VerdictOf(after); verdict != l.verdict || !l.verdictTold {
		if l.verdictTold || verdict == finding.NotCompliant || (!settling && !s.Waiting) {
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
