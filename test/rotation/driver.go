// SPDX-License-Identifier: Apache-2.0

package rotation

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pki"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/report"
)

// silence is how long a line is waited for beyond its limit before it counts
// as never told.
const silence = 15 * time.Second

// Driver does things to a host and expects the agent's log to say exactly that.
type Driver struct {
	Host  *Host
	Agent *Agent
	// Settle is the agent's; Notice how soon after the end of a write it must
	// tell what needs no settling.
	Settle, Notice time.Duration
	// Tolerated are beginnings of warnings that may be logged at any time, and
	// how often they were.
	Tolerated map[string]int
	// Metrics is the address at which the agent serves them; empty where it
	// does not.
	Metrics string
	// Latencies of what was told, by what was done.
	Latencies map[string][]time.Duration
	// Rotations and Faults done so far.
	Rotations, Faults int
	// Told counts the lines that raised, cleared or told of anything, each of
	// which is an Event, too, where there is an API server.
	Told int

	stall atomic.Int64 // the worst one since the step began, in nanoseconds
	keys  map[string]bool
}

// want is a line that must come.
type want struct {
	msg    report.What
	detail string // the reason or the SHA-256
	since  time.Time
	within time.Duration
	// punctual: it must not come before since.
	punctual bool
	// label under which its latency is kept; none if empty.
	label string
}

func (w want) String() string { return strings.TrimSpace(string(w.msg) + " " + w.detail) }

// Run notes how late this very process is woken, until the context ends: by
// as much the agent may be late, too.
func (d *Driver) Run(ctx context.Context) {
	const beat = 5 * time.Millisecond
	ticker := time.NewTicker(beat)
	defer ticker.Stop()
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			now := time.Now()
			if late := now.Sub(last) - beat; int64(late) > d.stall.Load() {
				d.stall.Store(int64(late))
			}
			last = now
		}
	}
}

// Started waits for the first verdict, which must be good.
func (d *Driver) Started(ctx context.Context, since time.Time) error {
	d.begin(d.Host.pair)
	return d.expect(ctx, "start", want{msg: report.Verified, since: since, within: d.Settle + d.Notice, label: "start to verdict"})
}

// Rotate writes a new pair and waits until the agent has told of it.
func (d *Driver) Rotate(ctx context.Context, w Writer) error {
	pair := d.Host.Pair()
	d.begin(pair)
	if err := w.Write(d.Host, pair); err != nil {
		return err
	}
	d.Rotations++
	return d.expect(ctx, "rotation: "+w.Name, d.rotated(pair, w))
}

func (d *Driver) rotated(pair pkitest.Pair, w Writer) want {
	return want{msg: report.CertificateRotated, detail: pki.Fingerprint(pair.Leaf), since: time.Now(), within: d.Notice, label: "rotation, " + w.Name}
}

// Fault lets something go wrong, waits until the agent has told of it, mends it
// and waits for that, too.
func (d *Driver) Fault(ctx context.Context, f Fault, by, repair Writer) error {
	d.begin(pkitest.Pair{})
	if err := f.Inject(d.Host, by); err != nil {
		return fmt.Errorf("%s: %w", f.Name, err)
	}
	d.Faults++
	what := fmt.Sprintf("fault: %s, by: %s", f.Name, by.Name)
	var wants []want
	now, verdict := time.Now(), finding.Compliant
	for _, reason := range f.Reasons {
		wants = append(wants, want{msg: report.FindingRaised, detail: string(reason), since: now, within: d.Settle + d.Notice, label: "fault"})
		if s := reason.Severity(); s == finding.Violation || s == finding.Unverified {
			verdict = finding.NotCompliant
		}
	}
	if verdict != finding.Compliant {
		wants = append(wants, want{msg: report.NotVerified, since: now, within: d.Settle + d.Notice})
	}
	if err := d.expect(ctx, what, wants...); err != nil {
		return err
	}

	pair := d.Host.Pair()
	d.begin(pair)
	if err := f.Repair(d.Host, repair, pair); err != nil {
		return fmt.Errorf("%s: %w", f.Name, err)
	}
	d.Rotations++
	wants = []want{d.rotated(pair, repair)}
	now = time.Now()
	for _, reason := range f.Reasons {
		// What a slow writer leaves half done settles first.
		wants = append(wants, want{msg: report.FindingCleared, detail: string(reason), since: now, within: d.Settle + d.Notice, label: "repair"})
	}
	if verdict != finding.Compliant {
		wants = append(wants, want{msg: report.Verified, since: now, within: d.Settle + d.Notice})
	}
	return d.expect(ctx, "repair of "+what+", by: "+repair.Name, wants...)
}

// Expire writes a pair that begins to expire soon, and does, while nothing is
// written; then a new one.
func (d *Driver) Expire(ctx context.Context, by, repair Writer) error {
	// Certificates know no fractions of a second. Of 20 seconds of life 15 %
	// are three.
	end := time.Now().Add(d.Settle + 5*time.Second).Truncate(time.Second)
	soon := end.Add(-3 * time.Second)
	pair := d.Host.Issue(pkitest.KubeletClient().Valid(end.Add(-20*time.Second), end))
	d.begin(pair)
	if err := by.Write(d.Host, pair); err != nil {
		return err
	}
	d.Rotations++
	clock := func(msg report.What, reason finding.Reason, at time.Time, label string) want {
		return want{msg: msg, detail: string(reason), since: at, within: d.Notice, punctual: true, label: label}
	}
	expired := clock(report.NotVerified, "", end, "")
	if err := d.expect(ctx, "expiry, by: "+by.Name,
		d.rotated(pair, by),
		clock(report.FindingRaised, finding.CertificateExpiringSoon, soon, "moment"),
		clock(report.FindingRaised, finding.CertificateExpired, end, "moment"),
		clock(report.FindingCleared, finding.CertificateExpiringSoon, end, ""),
		expired,
	); err != nil {
		return err
	}
	return d.mend(ctx, "after expiry", repair, finding.CertificateExpired)
}

// BecomeValid writes a pair of tomorrow, and waits for that.
func (d *Driver) BecomeValid(ctx context.Context, by, repair Writer) error {
	begin := time.Now().Add(2*d.Settle + 2*time.Second).Truncate(time.Second)
	pair := d.Host.Issue(pkitest.KubeletClient().Valid(begin, begin.AddDate(0, 0, 30)))
	d.begin(pair)
	if err := by.Write(d.Host, pair); err != nil {
		return err
	}
	d.Rotations++
	now := time.Now()
	early := want{msg: report.FindingRaised, detail: string(finding.CertificateNotYetValid), since: now, within: d.Settle + d.Notice, label: "fault"}
	if err := d.expect(ctx, "a pair of the future, by: "+by.Name, early, want{msg: report.NotVerified, since: now, within: d.Settle + d.Notice}); err != nil {
		return err
	}
	rotated := want{msg: report.CertificateRotated, detail: pki.Fingerprint(pair.Leaf)}
	cleared := want{msg: report.FindingCleared, detail: string(finding.CertificateNotYetValid), label: "moment"}
	wants := []want{rotated, cleared, {msg: report.Verified}}
	for i := range wants {
		wants[i].since, wants[i].within, wants[i].punctual = begin, d.Notice, true
	}
	if err := d.expect(ctx, "the future begins", wants...); err != nil {
		return err
	}
	return d.Rotate(ctx, repair)
}

func (d *Driver) mend(ctx context.Context, what string, w Writer, reason finding.Reason) error {
	pair := d.Host.Pair()
	d.begin(pair)
	if err := w.Write(d.Host, pair); err != nil {
		return err
	}
	d.Rotations++
	now := time.Now()
	return d.expect(ctx, what+", by: "+w.Name, d.rotated(pair, w),
		want{msg: report.FindingCleared, detail: string(reason), since: now, within: d.Settle + d.Notice},
		want{msg: report.Verified, since: now, within: d.Settle + d.Notice})
}

// Quiet expects nothing at all for a while.
func (d *Driver) Quiet(ctx context.Context, long time.Duration) error {
	deadline := time.After(long)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-deadline:
			return nil
		case line, ok := <-d.Agent.Lines:
			if err := d.unexpected(line, ok); err != nil {
				return fmt.Errorf("while nothing happened: %w", err)
			}
		}
	}
}

func (d *Driver) begin(p pkitest.Pair) {
	d.stall.Store(0)
	if d.keys == nil {
		d.keys, d.Latencies = map[string]bool{}, map[string][]time.Duration{}
	}
	for line := range strings.Lines(string(p.Key)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "-----") {
			d.keys[line] = true
		}
	}
}

// expect reads the log until all wanted lines have come, and accepts no other
// that raises, clears or tells of anything.
func (d *Driver) expect(ctx context.Context, step string, wants ...want) error {
	var longest time.Time
	for _, w := range wants {
		if limit := w.since.Add(w.within); limit.After(longest) {
			longest = limit
		}
	}
	given := time.After(time.Until(longest) + silence)
	var faults []error
	for len(wants) > 0 {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", step, ctx.Err())
		case <-given:
			return errors.Join(append(faults, fmt.Errorf("%s: never told: %v", step, wants))...)
		case line, ok := <-d.Agent.Lines:
			index := slices.IndexFunc(wants, func(w want) bool {
				return string(w.msg) == line.Msg && (w.detail == "" || w.detail == line.Reason || w.detail == line.SHA256)
			})
			if index < 0 {
				if err := d.unexpected(line, ok); err != nil {
					return errors.Join(append(faults, fmt.Errorf("%s: %w, while these were expected: %v", step, err, wants))...)
				}
				continue
			}
			w := wants[index]
			wants = slices.Delete(wants, index, index+1)
			d.Told++
			if err := d.secret(line); err != nil {
				return err
			}
			late := line.Time.Sub(w.since)
			if limit := w.within + time.Duration(d.stall.Load()); late > limit {
				faults = append(faults, fmt.Errorf("%s: %s told %s after its moment, allowed are %s", step, w, late, limit))
			}
			if w.punctual && late < 0 {
				faults = append(faults, fmt.Errorf("%s: %s told %s before its moment", step, w, -late))
			}
			if w.label != "" {
				d.Latencies[w.label] = append(d.Latencies[w.label], max(0, late))
			}
		}
	}
	return errors.Join(faults...)
}

// unexpected says what is wrong with a line that nobody waited for, if
// anything.
func (d *Driver) unexpected(line Line, ok bool) error {
	if !ok {
		return errors.New("the agent ended")
	}
	if err := d.secret(line); err != nil {
		return err
	}
	told := []report.What{report.FindingRaised, report.FindingCleared, report.Verified, report.NotVerified, report.CertificateRotated}
	if slices.Contains(told, report.What(line.Msg)) {
		if !d.Host.fleeting[line.SHA256] {
			return fmt.Errorf("the agent said %s", line.Text)
		}
		d.Told++
	}
	if line.Level == "INFO" {
		if line.Address != "" {
			d.Metrics = line.Address
		}
		return nil
	}
	for tolerated := range d.Tolerated {
		if strings.HasPrefix(line.Msg, tolerated) {
			d.Tolerated[tolerated]++
			return nil
		}
	}
	return fmt.Errorf("the agent said %s", line.Text)
}

// secret reports whether a line holds a line of any key that was written.
func (d *Driver) secret(line Line) error {
	for word := range strings.FieldsFuncSeq(line.Text, func(r rune) bool { return strings.ContainsRune("\" \\:,", r) }) {
		if d.keys[word] {
			return errors.New("the log holds a line of a private key")
		}
	}
	return nil
}

// Quantile is the latency that a share of them, from 0 to 1, does not exceed.
func Quantile(latencies []time.Duration, share float64) time.Duration {
	if len(latencies) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(latencies))
	return sorted[max(0, int(math.Ceil(share*float64(len(sorted))))-1)]
}
