// SPDX-License-Identifier: Apache-2.0

package report

import (
	"crypto/sha256"
	"crypto/x509"
	"maps"
	"slices"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// remindAfter is how long a finding stands before it is told of once more: an
// API server keeps an Event for an hour unless it is told otherwise
// (kube-apiserver --event-ttl).
const remindAfter = time.Hour

// Look is what was seen at one moment.
type Look struct {
	At time.Time
	// Contents is the same in two looks if and only if all that was read was:
	// what differs between their findings then comes from the clock.
	Contents [sha256.Size]byte
	// Sources of findings.
	Sources []Source
	// LookedFor says whether a finding was looked for: if it is in no source, it
	// is not there. Nil for none.
	LookedFor func(finding.ID) bool
	// Certificates that were seen, each of another role.
	Certificates []Certificate
	// Waiting: something has not been looked at yet.
	Waiting bool
	// Next is the next moment at which the findings may change by the clock
	// alone; zero where there is none.
	Next time.Time
}

// Source is something findings come from.
type Source struct {
	Findings []finding.Finding
	// Patience is how long one of them must last to be told.
	Patience time.Duration
}

// Certificate is one that was seen.
type Certificate struct {
	// Role tells it from others; a certificate that takes its place is a
	// rotation.
	Role string
	At   finding.Location
	Leaf *x509.Certificate // nil where none could be read
	// Sound: the pair is there and no Violation stands against it.
	Sound bool
}

// Ledger knows what was told and turns looks into notices. [NewLedger] makes
// one; it is for one goroutine.
//
// A finding is told once it has lasted for its source's patience: writers
// replace certificate and key one after the other, and what is seen in between
// is no fault. One that comes from the clock, so that nothing that was read was
// different from the look before, is told at once. The same holds for findings
// that went away while others are settling.
//
// A finding that was looked for and is not found has gone. One that was not looked
// for has gone as well (the file is another one by now, what had it is not there any
// more), unless nobody knows: while something has not been looked at yet; or where
// something Unverified came up in the look in which it vanished, or in a later one.
// By that it is veiled, and stands until it is looked for or all of the veil is lifted.
type Ledger struct {
	settle time.Duration

	looked   bool
	contents [32]byte
	// due is when each finding that stands has lasted long enough, gone since
	// when each one that was told is not seen any more, veils what hides one.
	due, gone map[finding.ID]time.Time
	veils     map[finding.ID][]finding.ID
	told      map[finding.ID]finding.Finding
	toldAt    map[finding.ID]time.Time

	certificates map[string]*x509.Certificate // the last sound one in each role
	verdict      finding.Verdict
	verdictTold  bool
}

// NewLedger makes an empty one. settle is how long what went away must have
// gone while something else is settling.
func NewLedger(settle time.Duration) *Ledger {
	return &Ledger{
		settle: settle,
		due:    map[finding.ID]time.Time{}, gone: map[finding.ID]time.Time{}, veils: map[finding.ID][]finding.ID{},
		told: map[finding.ID]finding.Finding{}, toldAt: map[finding.ID]time.Time{},
		certificates: map[string]*x509.Certificate{},
	}
}

// Observed is what follows from a look.
type Observed struct {
	// Notices to tell, in order. They have no Object.
	Notices []Notice
	// Again is when to look again: for what has not settled yet, or at
	// [Look.Next]; zero where there is no need.
	Again time.Time
	// Settling says of each source whether something of it has not lasted long
	// enough.
	Settling []bool
}

// Observe takes a look.
func (l *Ledger) Observe(look Look) (o Observed) {
	o.Again = look.Next
	byClock := l.looked && look.Contents == l.contents
	l.looked, l.contents = true, look.Contents

	standing := make(map[finding.ID]finding.Finding)
	var veil []finding.ID // Unverified since this look
	stand := func(findings []finding.Finding, patience time.Duration) (settling bool) {
		for _, f := range findings {
			id := f.ID()
			standing[id] = f
			delete(l.gone, id)
			delete(l.veils, id)
			if _, known := l.due[id]; !known {
				if f.Severity() == finding.Unverified {
					veil = append(veil, id)
				}
				l.due[id] = look.At
				if !byClock {
					l.due[id] = look.At.Add(patience)
				}
			}
			if _, told := l.told[id]; !told && l.due[id].After(look.At) {
				settling = true
				o.Again = earliest(o.Again, l.due[id])
			}
		}
		return settling
	}
	for _, source := range look.Sources {
		o.Settling = append(o.Settling, stand(source.Findings, source.Patience))
	}
	settling := slices.Contains(o.Settling, true)
	for id := range l.due {
		if _, stands := standing[id]; !stands {
			delete(l.due, id)
		}
	}
	for id, f := range l.told {
		if _, stands := standing[id]; stands {
			continue
		}
		if _, known := l.gone[id]; known {
			continue
		}
		// What is Unverified itself is hidden by nothing: it says that it is hidden.
		if f.Severity() != finding.Unverified && (look.LookedFor == nil || !look.LookedFor(id)) {
			l.veils[id] = slices.DeleteFunc(append(l.veils[id], veil...), func(v finding.ID) bool { _, stands := standing[v]; return !stands })
			if look.Waiting || len(l.veils[id]) > 0 {
				continue
			}
		}
		delete(l.veils, id)
		l.gone[id] = look.At
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
		if _, known := l.told[id]; !known && !l.due[id].After(look.At) {
			after = append(after, f)
		}
	}
	if settling {
		for id, since := range l.gone {
			if due := since.Add(l.settle); due.After(look.At) {
				o.Again = earliest(o.Again, due)
				after = append(after, l.told[id])
			}
		}
	}

	raised, cleared := finding.Diff(before, after)
	for _, f := range raised {
		o.Notices = append(o.Notices, Notice{What: FindingRaised, At: look.At, Finding: f})
		l.toldAt[f.ID()] = look.At
	}
	for _, f := range cleared {
		o.Notices = append(o.Notices, Notice{What: FindingCleared, At: look.At, Finding: f})
		delete(l.gone, f.ID())
		delete(l.toldAt, f.ID())
	}
	l.told = make(map[finding.ID]finding.Finding, len(after))
	for _, f := range finding.Sort(after) {
		l.told[f.ID()] = f
		if look.At.Sub(l.toldAt[f.ID()]) >= remindAfter {
			o.Notices = append(o.Notices, Notice{What: FindingStands, At: look.At, Finding: f})
			l.toldAt[f.ID()] = look.At
		}
	}

	for _, c := range look.Certificates {
		last := l.certificates[c.Role]
		if !c.Sound || c.Leaf.Equal(last) {
			continue
		}
		if last != nil {
			o.Notices = append(o.Notices, Notice{What: CertificateRotated, At: look.At, Certificate: c.Leaf, CertificateAt: c.At})
		}
		l.certificates[c.Role] = c.Leaf
	}
	// A verdict waits until it is true: a Violation that stands is enough for
	// that, otherwise everything must have been looked at, and for the first one
	// have settled. Nothing is well while something is seen that is not.
	if verdict := finding.VerdictOf(after); verdict != l.verdict || !l.verdictTold {
		certain := verdict != finding.Compliant || finding.VerdictOf(slices.Collect(maps.Values(standing))) == finding.Compliant
		if verdict == finding.NotCompliant || (certain && !look.Waiting && (l.verdictTold || !settling)) {
			o.Notices = append(o.Notices, summary(look, verdict, after))
			l.verdict, l.verdictTold = verdict, true
		}
	}
	return o
}

func summary(look Look, verdict finding.Verdict, standing []finding.Finding) Notice {
	notice := Notice{What: NotVerified, At: look.At, Verdict: verdict, Standing: finding.Sort(standing)}
	if verdict == finding.Compliant {
		notice.What = Verified
		if len(look.Certificates) > 0 {
			notice.Certificate, notice.CertificateAt = look.Certificates[0].Leaf, look.Certificates[0].At
		}
	}
	return notice
}

// earliest is the earlier of two moments, of which the first may be none.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}
