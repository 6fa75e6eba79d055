// SPDX-License-Identifier: Apache-2.0

// Package tracker tracks findings over time and decides what to report.
package tracker

import (
	"crypto/sha256"
	"crypto/x509"
	"slices"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/control"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/report"
)

const (
	// remindAfter is how long a finding is active before it is reported again: an API
	// server keeps an Event for an hour by default (kube-apiserver --event-ttl).
	remindAfter = time.Hour
	// notObservedPatience is the shortest patience of NotObserved: at the start, nothing
	// has been observed yet.
	notObservedPatience = time.Minute
)

// Observation is what was seen at one moment.
type Observation struct {
	At time.Time
	// Contents is the same in two observations if and only if everything that was read was
	// the same. Then only time can make their results differ.
	Contents [sha256.Size]byte
	// Sources of results. Together they have a result for every requirement of the controls.
	Sources []Source
	// Scope and Controls define the verdicts. A control that is not applicable stays in the
	// list.
	Scope    control.Scope
	Controls []control.Control
	// Certificates that were seen, one for each role.
	Certificates []Certificate
	// NextChange is the next moment at which the results may change by time alone, or zero.
	NextChange time.Time
}

// Source is something that results come from.
type Source struct {
	Results []finding.Result
	// Patience is how long a finding must last before it is reported.
	Patience time.Duration
}

// Certificate is a certificate that was seen.
type Certificate struct {
	// Role of the certificate. Another certificate in the same role is a rotation.
	Role string
	At   finding.Subject
	Leaf *x509.Certificate // nil if none could be read
	// Valid is true if the pair exists and none of its requirements fails.
	Valid bool
}

// state of a finding that a [Tracker] knows.
type state int

const (
	pending   state = iota // seen, but not for long enough
	active                 // reported
	hidden                 // reported, and cannot be observed at the moment
	resolving              // reported, and no longer seen while others are pending
)

// Tracker tracks each finding over time and decides what to report. [New] makes one. It is
// not safe for concurrent use.
//
// Each finding, by its [finding.ID], is in one of these states:
//
//	state      finding is observed        finding is not observed
//	(none)     pending
//	pending    active once due            forgotten
//	active     active                     hidden if it cannot be observed, else resolving
//	hidden     active                     hidden or resolving, as for active
//	resolving  active                     resolved and forgotten once settled, unless
//	                                      another reason for the same requirement
//	                                      and subject is pending
//
// A pending finding is due when its requirement has not been met for the patience of its
// source, for whatever reasons: writers replace a certificate and its key one after the
// other, and the state in between is normal. If another reason is already reported for the
// requirement, the new reason itself must last for the patience. A finding is due at once if
// everything that was read is the same as in the last observation, because then only time
// caused it.
//
// A finding cannot be observed if its requirement is unknown and was not observed for its
// subject (see [index.hides]). A resolving finding has settled when no finding is pending, or when
// it has not been seen for the settle time.
//
// Active, hidden and resolving findings were reported as active and not yet as resolved. If
// the outcome of one changes, the tracker reports the old one as resolved and the new one as
// active, because the severity differs.
//
// A finding that becomes active was present at start if its requirement was not met for its subject since the
// requirement was observed first, or was not observed yet: another process, or an earlier leader, may have reported it.
// The same is true for the first verdict on a control. Their notices say so.
//
// A verdict ignores pending findings and counts hidden ones. It changes to "not compliant"
// at once. Other changes wait while a finding of the control is pending or resolving, unless
// the finding cannot change the verdict (see decides).
type Tracker struct {
	settle   time.Duration
	observed bool
	contents [sha256.Size]byte

	findings     map[finding.ID]*tracked
	unmet        map[unmet]time.Time          // since when each is in every observation
	certificates map[string]*x509.Certificate // the last valid one in each role
	verdicts     map[string]control.Verdict   // the current one, by the ID of the control

	// known has the requirements that were observed, for any subject. fromStart has the subjects for which they were not
	// met, or unknown, when that happened first, until they are met or a failure is reported.
	known     map[finding.Requirement]bool
	fromStart map[about]bool
}

// about is a requirement for a subject.
type about struct {
	finding.Requirement
	finding.Subject
}

// unmet is a requirement that is not met or unknown for a subject, whatever the reason. If
// one reason follows another, the requirement was unmet all the time.
type unmet struct {
	finding.Requirement
	finding.Subject
	unknown bool
}

func unmetBy(f finding.Result) unmet {
	return unmet{f.Requirement, f.Subject.Whole(), f.Outcome == finding.Unknown}
}

// tracked is a finding and its state.
type tracked struct {
	finding.Result // from the last observation that has it
	state          state
	// requirements that had this finding when it was last seen. There may be several.
	requirements []finding.Requirement
	due          time.Time // when a pending one becomes active
	goneSince    time.Time // when a resolving one was missing first
	reported     time.Time // when it was reported last, as active or as a reminder
}

// New returns an empty tracker. settle is how long a finding must be missing before it is
// resolved, while others are pending.
func New(settle time.Duration) *Tracker {
	return &Tracker{
		settle: settle, findings: map[finding.ID]*tracked{}, unmet: map[unmet]time.Time{},
		certificates: map[string]*x509.Certificate{}, verdicts: map[string]control.Verdict{},
		known: map[finding.Requirement]bool{}, fromStart: map[about]bool{},
	}
}

// Changes are the consequences of an observation.
type Changes struct {
	// Notices to report, in order. They have no Object.
	Notices []report.Notice
	// NextChange is when the changes may differ by time alone: a finding is due or has settled, or
	// [Observation.NextChange]. It is zero if time alone changes nothing.
	NextChange time.Time
	// Pending has a value for each source: whether one of its findings is pending.
	Pending []bool
	// Verdicts are the current verdicts on the observation's controls, in their order. A
	// control without a verdict yet is missing.
	Verdicts []control.Verdict
}

// Observe updates the tracker with an observation.
func (t *Tracker) Observe(o Observation) Changes {
	results := o.results()
	seen := newIndex(o, results)
	t.updateFromStart(results)
	notices := t.updateSeen(o, seen)
	t.updateMissing(o.At, seen)
	notices = append(notices, t.resolve(o.At, seen)...)

	changes := Changes{NextChange: t.nextChange(o), Pending: t.pendingSources(o, seen)}
	notices = append(notices, t.remind(o.At)...)
	notices = append(notices, t.rotations(o, results)...)
	notices = append(notices, t.retire(o)...)
	for _, c := range o.Controls {
		notices = append(notices, t.verdict(c, o, results)...)
		if v, known := t.verdicts[c.ID]; known {
			changes.Verdicts = append(changes.Verdicts, v)
		}
	}
	changes.Notices = notices
	return changes
}

// results returns the results of all sources.
func (o Observation) results() []finding.Result {
	var all []finding.Result
	for _, source := range o.Sources {
		all = append(all, source.Results...)
	}
	return all
}

// index has the results of an observation by what the tracker asks for: there can be thousands of results and of
// findings.
type index struct {
	// findings are those of the results, worst first, found where they are.
	findings []finding.Result
	found    map[finding.ID]*found
	// observed has the requirements that were observed for a subject.
	observed map[about]bool
	// unknown has the requirements that are unknown for a subject, except those that are not checked, checked those that
	// are checked for any.
	unknown, checked map[finding.Requirement]bool
}

// found says where a finding is.
type found struct {
	sources      []int // the indexes of [Observation] Sources
	requirements []finding.Requirement
}

func newIndex(o Observation, results []finding.Result) index {
	seen := index{
		findings: finding.Findings(results), found: map[finding.ID]*found{}, observed: map[about]bool{},
		unknown: map[finding.Requirement]bool{}, checked: map[finding.Requirement]bool{},
	}
	for i, source := range o.Sources {
		for _, r := range source.Results {
			seen.add(i, r)
		}
	}
	return seen
}

// add adds a result of a source.
func (x *index) add(source int, r finding.Result) {
	switch {
	case r.Observed():
		x.observed[about{r.Requirement, r.Subject.Whole()}] = true
	case r.Reason != finding.NotChecked:
		x.unknown[r.Requirement] = true
	}
	if r.Reason != finding.NotChecked {
		x.checked[r.Requirement] = true
	}
	if !r.IsFinding() {
		return
	}
	at := x.found[r.ID()]
	if at == nil {
		at = &found{}
		x.found[r.ID()] = at
	}
	at.requirements = append(at.requirements, r.Requirement)
	if !slices.Contains(at.sources, source) {
		at.sources = append(at.sources, source)
	}
}

// patience returns the shortest patience of the sources that have a finding.
func (x *index) patience(o Observation, id finding.ID) time.Duration {
	var shortest time.Duration
	for i, source := range x.found[id].sources {
		if patience := o.Sources[source].Patience; i == 0 || patience < shortest {
			shortest = patience
		}
	}
	if id.Reason == finding.NotObserved {
		return max(shortest, notObservedPatience)
	}
	return shortest
}

// updateSeen updates the findings that an observation has, and reports those that are due.
func (t *Tracker) updateSeen(o Observation, seen index) (notices []report.Notice) {
	byTime := t.observed && o.Contents == t.contents
	t.observed, t.contents = true, o.Contents
	since, isReported := map[unmet]time.Time{}, t.reported()
	for _, f := range seen.findings {
		since[unmetBy(f)] = o.At
		if before, known := t.unmet[unmetBy(f)]; known {
			since[unmetBy(f)] = before
		}
	}
	t.unmet = since
	var reported []finding.Result
	for _, f := range seen.findings {
		known, isKnown := t.findings[f.ID()]
		if isKnown && known.state != pending {
			isReported[unmetBy(known.Result)]--
		}
		switch {
		case !isKnown:
			known = &tracked{due: o.At}
			switch {
			case byTime:
			case isReported[unmetBy(f)] > 0: // the new reason may be a normal state in between
				known.due = o.At.Add(seen.patience(o, f.ID()))
			default:
				known.due = since[unmetBy(f)].Add(seen.patience(o, f.ID()))
			}
			t.findings[f.ID()] = known
		case known.state == pending:
		case known.Outcome != f.Outcome:
			notices = append(notices, report.Notice{Type: report.FindingResolved, At: o.At, Finding: known.Result})
			known.state = pending // and due, because it was reported before
		default:
			known.state = active
		}
		known.Result, known.requirements = f, seen.found[f.ID()].requirements
		if known.state == pending && !known.due.After(o.At) {
			known.state, known.reported = active, o.At
			notices = append(notices, report.Notice{
				Type: report.FindingActive, At: o.At, Finding: f, AtStart: t.wasAtStart(f),
			})
			reported = append(reported, f)
		}
		if known.state != pending {
			isReported[unmetBy(f)]++
		}
	}
	t.forgetStart(reported)
	return notices
}

// updateFromStart updates which requirements were not met from the start on. A subject that is seen later was not there
// at the start.
func (t *Tracker) updateFromStart(results []finding.Result) {
	first, met := map[finding.Requirement]bool{}, map[about]bool{}
	for _, r := range results {
		of := about{r.Requirement, r.Subject.Whole()}
		if r.Observed() && !t.known[r.Requirement] {
			t.known[r.Requirement], first[r.Requirement] = true, true
		}
		if _, seen := met[of]; !seen {
			met[of] = true
		}
		met[of] = met[of] && r.Observed() && !r.IsFinding()
	}
	for of, isMet := range met {
		switch {
		case isMet:
			delete(t.fromStart, of)
		case first[of.Requirement]:
			t.fromStart[of] = true
		}
	}
}

// wasAtStart reports whether a finding that becomes active was present at start.
func (t *Tracker) wasAtStart(f finding.Result) bool {
	return !t.known[f.Requirement] || t.fromStart[about{f.Requirement, f.Subject.Whole()}]
}

// forgetStart is called with all findings that became active at the same time. The next one of the same requirement and
// subject was not present at start, if one of these was observed.
func (t *Tracker) forgetStart(reported []finding.Result) {
	for _, f := range reported {
		if f.Observed() {
			delete(t.fromStart, about{f.Requirement, f.Subject.Whole()})
		}
	}
}

// reported returns for how many findings an unmet requirement was reported.
func (t *Tracker) reported() map[unmet]int {
	count := map[unmet]int{}
	for _, f := range t.findings {
		if f.state != pending {
			count[unmetBy(f.Result)]++
		}
	}
	return count
}

// updateMissing updates the findings that an observation does not have.
func (t *Tracker) updateMissing(at time.Time, seen index) {
	for id, f := range t.findings {
		switch {
		case seen.found[id] != nil || f.state == resolving:
		case f.state == pending:
			delete(t.findings, id)
		case seen.hides(f.Result):
			f.state = hidden
		default:
			f.state, f.goneSince = resolving, at
		}
	}
}

// hides reports whether it is unknown if a finding that the results do not have still exists.
// It is known if the requirement was observed for the finding's subject. If it was observed
// for other subjects only, and is unknown for none, then the finding's subject is no longer
// checked. NotChecked hides nothing, because the requirement will not be observed. A finding
// with the outcome Unknown is never hidden.
func (x *index) hides(f finding.Result) bool {
	return f.Outcome != finding.Unknown && !x.observed[about{f.Requirement, f.Subject.Whole()}] &&
		x.unknown[f.Requirement]
}

// resolve removes the resolving findings that have settled.
func (t *Tracker) resolve(at time.Time, seen index) (notices []report.Notice) {
	waiting := map[unmet]bool{}
	for _, f := range t.findings {
		if f.state == pending {
			waiting[unmetBy(f.Result)] = true
		}
	}
	for _, f := range t.sorted(func(f *tracked) bool { return f.state == resolving }) {
		// If another reason may replace it, keep it until that is certain.
		replaced := waiting[unmetBy(f.Result)]
		if replaced || len(waiting) > 0 && t.settledAt(f).After(at) {
			continue
		}
		delete(t.findings, f.ID())
		notices = append(
			notices,
			report.Notice{
				Type: report.FindingResolved, At: at, Finding: f.Result, Unchecked: seen.unchecked(f.requirements),
			},
		)
	}
	return notices
}

// unchecked reports whether none of the requirements is checked any more.
func (x *index) unchecked(requirements []finding.Requirement) bool {
	return !slices.ContainsFunc(requirements, func(r finding.Requirement) bool { return x.checked[r] })
}

// settledAt is the latest time at which a resolving finding has settled.
func (t *Tracker) settledAt(f *tracked) time.Time { return f.goneSince.Add(t.settle) }

// sorted returns some findings, worst first.
func (t *Tracker) sorted(wanted func(*tracked) bool) []*tracked {
	findings := make(map[finding.ID]*tracked, len(t.findings))
	var results []finding.Result
	for id, f := range t.findings {
		if wanted(f) {
			findings[id] = f
			results = append(results, f.Result)
		}
	}
	finding.Sort(results)
	sorted := make([]*tracked, 0, len(results))
	for _, r := range results {
		sorted = append(sorted, findings[r.ID()])
	}
	return sorted
}

// hasPending reports whether a finding is pending.
func (t *Tracker) hasPending() bool {
	for _, f := range t.findings {
		if f.state == pending {
			return true
		}
	}
	return false
}

// nextChange returns the next time at which time alone may change something.
func (t *Tracker) nextChange(o Observation) time.Time {
	next := o.NextChange
	for _, f := range t.findings {
		switch f.state {
		case pending:
			next = earliest(next, f.due)
		case resolving:
			next = earliest(next, t.settledAt(f))
		case active, hidden:
		}
	}
	return next
}

// pendingSources returns for each source whether one of its findings is pending.
func (t *Tracker) pendingSources(o Observation, seen index) []bool {
	waiting := make([]bool, len(o.Sources))
	for id, f := range t.findings {
		if f.state != pending {
			continue
		}
		for _, source := range seen.found[id].sources {
			waiting[source] = true
		}
	}
	return waiting
}

// remind reports again what has been active for remindAfter.
func (t *Tracker) remind(at time.Time) (notices []report.Notice) {
	for _, f := range t.sorted(func(f *tracked) bool { return f.state != pending && at.Sub(f.reported) >= remindAfter }) {
		f.reported = at
		notices = append(notices, report.Notice{Type: report.FindingStillActive, At: at, Finding: f.Result})
	}
	return notices
}

// rotations reports certificates that replaced another one and are valid.
func (t *Tracker) rotations(o Observation, results []finding.Result) (notices []report.Notice) {
	var required map[finding.Subject]finding.Requirement // for each subject the first; made if needed
	for _, c := range o.Certificates {
		last := t.certificates[c.Role]
		if !c.Valid || c.Leaf.Equal(last) {
			continue
		}
		t.certificates[c.Role] = c.Leaf
		if last == nil {
			continue
		}
		notice := report.Notice{Type: report.CertificateRotated, At: o.At, Certificate: c.Leaf, CertificateAt: c.At}
		if required == nil {
			required = firstRequirements(results)
		}
		if requirement, known := required[c.At.Whole()]; known {
			notice.Control, _ = control.Of(requirement)
		}
		notices = append(notices, notice)
	}
	return notices
}

// firstRequirements returns the requirement of the first result about each subject.
func firstRequirements(results []finding.Result) map[finding.Subject]finding.Requirement {
	first := map[finding.Subject]finding.Requirement{}
	for _, r := range results {
		if _, known := first[r.Subject.Whole()]; !known {
			first[r.Subject.Whole()] = r.Requirement
		}
	}
	return first
}

// verdict updates the verdict on a control, and reports it if its status changed. The verdict
// on a neighbour is not reported.
func (t *Tracker) verdict(c control.Control, o Observation, results []finding.Result) []report.Notice {
	now, ready := t.judge(c, o.Scope, results)
	if !ready {
		return nil
	}
	last, known := t.verdicts[c.ID]
	t.verdicts[c.ID] = now
	if c.Neighbour || known && last.Status == now.Status {
		return nil
	}
	notice := summary(now, o)
	notice.AtStart = !known
	return []report.Notice{notice}
}

// retire removes the verdicts on controls that are no longer judged, for example after the
// guard was uninstalled on purpose, and reports that they do not apply.
func (t *Tracker) retire(o Observation) (notices []report.Notice) {
	judged := 0 // usually all
	for _, c := range o.Controls {
		if _, known := t.verdicts[c.ID]; known {
			judged++
		}
	}
	if judged == len(t.verdicts) {
		return nil
	}
	for _, c := range control.Table() {
		last, known := t.verdicts[c.ID]
		if !known || slices.ContainsFunc(o.Controls, func(judged control.Control) bool { return judged.ID == c.ID }) {
			continue
		}
		delete(t.verdicts, c.ID)
		if !c.Neighbour && last.Status != control.NotApplicable {
			notices = append(notices, summary(control.Verdict{Control: c, Scope: o.Scope, Status: control.NotApplicable}, o))
		}
	}
	return notices
}

// judge returns the verdict on a control. ready is false while the verdict has to wait.
func (t *Tracker) judge(
	c control.Control,
	scope control.Scope,
	results []finding.Result,
) (v control.Verdict, ready bool) {
	var hiddenResults []finding.Result
	for _, f := range t.sorted(func(f *tracked) bool { return f.state == hidden }) {
		hiddenResults = append(hiddenResults, f.Result)
	}
	settled := results
	if t.hasPending() {
		settled = slices.DeleteFunc(slices.Clone(results), func(r finding.Result) bool {
			f := t.findings[r.ID()]
			return f != nil && f.state == pending
		})
	}
	if v = c.Judge(scope, slices.Concat(settled, hiddenResults)); v.Status == control.NotCompliant {
		return v, true
	}
	for _, f := range t.findings {
		if f.state != pending && f.state != resolving {
			continue
		}
		if slices.ContainsFunc(f.requirements, func(r finding.Requirement) bool { return decides(c, scope, r, f.Outcome) }) {
			return control.Verdict{}, false
		}
	}
	if len(settled) == len(results) {
		return v, true
	}
	return c.Judge(scope, slices.Concat(results, hiddenResults)), true
}

// decides reports whether the verdict on a control in the scope may depend on a finding of the requirement with an
// outcome. Of a supplementary requirement only a failure counts, unless it must be observed once.
func decides(c control.Control, scope control.Scope, r finding.Requirement, o finding.Outcome) bool {
	return slices.ContainsFunc(c.Requirements, func(required control.Required) bool {
		counts := !required.Supplementary || required.ObservedOnce || required.Strict || o == finding.Fail
		return required.Requirement == r && required.In(scope) && counts
	})
}

// summary reports a verdict. A compliant one has the certificate that it is about.
func summary(v control.Verdict, o Observation) report.Notice {
	notice := report.Notice{Type: report.NoticeTypeOf(v.Status), At: o.At, Control: v.Control, Verdict: v}
	if v.Status != control.Compliant {
		return notice
	}
	required := firstRequirements(v.Results())
	for _, c := range o.Certificates {
		if _, concerned := required[c.At.Whole()]; concerned && c.Leaf != nil {
			notice.Certificate, notice.CertificateAt = c.Leaf, c.At
			break
		}
	}
	return notice
}

// earliest returns the earlier of two moments. A zero first one does not count.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}
