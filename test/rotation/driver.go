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

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/control"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pki"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/report"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/openshift"
)

// lateLimit is how long after its deadline a line is waited for before it counts as missing.
const lateLimit = 15 * time.Second

// Driver changes a host and requires that the agent's log reports exactly that.
type Driver struct {
	Host  *Host
	Agent *Agent
	// Settle is the agent's --settle; ReportTime is how soon after the end of a write the agent must report
	// what need not settle.
	Settle, ReportTime time.Duration
	// Tolerated are prefixes of warnings that the agent may log at any time, and how often it has.
	Tolerated map[string]int
	// Metrics is the address at which the agent serves metrics; empty if it does not.
	Metrics string
	// Latencies of log lines, by label.
	Latencies map[string][]time.Duration
	// Rotations and Faults count those done so far.
	Rotations, Faults int
	// Reported counts the lines about findings, verdicts and rotations. With an API server, each of them is an
	// Event, too.
	Reported int

	stall atomic.Int64 // the longest delay of this process since the step began, in nanoseconds
	keys  map[string]bool
}

// want is a line that must be logged.
type want struct {
	msg    report.NoticeType
	detail string // the reason, the SHA-256 or the control
	since  time.Time
	within time.Duration
	// punctual: the line must not be logged before since.
	punctual bool
	// label for its latency in Latencies; not recorded if empty.
	label string
}

func (w want) String() string { return strings.TrimSpace(string(w.msg) + " " + w.detail) }

// Run measures how late this process is scheduled, until the context ends. The agent may be late by as
// much.
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

// Started waits for the first verdicts. They are compliant, or "could not verify" where the kube-apiserver runs in
// another program's process: its arguments are not on disk.
func (d *Driver) Started(ctx context.Context, since time.Time) error {
	d.startStep(d.Host.pair)
	within := d.Settle + d.ReportTime
	wants := []want{
		{msg: report.Compliant, detail: control.UseHTTPS, since: since, within: within, label: "start to verdict"},
		{msg: report.Compliant, detail: control.AdmissionEnabled, since: since, within: within},
	}
	if d.Host.Tree.InProcess() {
		wants[0].msg, wants[1].msg = report.CouldNotVerify, report.CouldNotVerify
		wants = append(wants,
			want{msg: report.FindingActive, detail: string(finding.Unreadable), since: since, within: within})
	}
	if d.Host.Tree.Layout == openshift.Kubeadm {
		wants = append(wants,
			want{msg: report.FindingActive, detail: string(finding.KubeletCANotConfigured), since: since, within: within})
	}
	return d.expect(ctx, "start", wants...)
}

// Rotate writes a new pair and waits until the agent has reported it.
func (d *Driver) Rotate(ctx context.Context, w Writer) error {
	pair := d.Host.Pair()
	d.startStep(pair)
	if err := w.Write(d.Host, pair); err != nil {
		return err
	}
	d.Rotations++
	return d.expect(ctx, "rotation: "+w.Name, d.rotated(pair, w))
}

func (d *Driver) rotated(pair pkitest.Pair, w Writer) want {
	return want{msg: report.CertificateRotated, detail: pki.Fingerprint(pair.Leaf), since: time.Now(),
		within: d.ReportTime, label: "rotation, " + w.Name}
}

// Fault causes a fault, waits until the agent has reported it, repairs it and waits until it is
// resolved.
func (d *Driver) Fault(ctx context.Context, f Fault, by, repair Writer) error {
	d.startStep(pkitest.Pair{})
	if err := f.Inject(d.Host, by); err != nil {
		return fmt.Errorf("%s: %w", f.Name, err)
	}
	d.Faults++
	what := fmt.Sprintf("fault: %s, by: %s", f.Name, by.Name)
	var wants []want
	now := time.Now()
	for _, reason := range f.Reasons {
		wants = append(wants, want{msg: report.FindingActive, detail: string(reason), since: now,
			within: d.Settle + d.ReportTime, label: "fault"})
	}
	for _, id := range f.NotCompliant {
		wants = append(wants, want{msg: verdict(f.Reasons), detail: id, since: now, within: d.Settle + d.ReportTime})
	}
	if err := d.expect(ctx, what, wants...); err != nil {
		return err
	}

	pair := d.Host.Pair()
	d.startStep(pair)
	if err := f.Repair(d.Host, repair, pair); err != nil {
		return fmt.Errorf("%s: %w", f.Name, err)
	}
	d.Rotations++
	wants = []want{d.rotated(pair, repair)}
	now = time.Now()
	for _, reason := range f.Reasons {
		// What a slow writer has half written settles first.
		wants = append(wants, want{msg: report.FindingResolved, detail: string(reason), since: now,
			within: d.Settle + d.ReportTime, label: "repair"})
	}
	for _, id := range f.NotCompliant {
		wants = append(wants, want{msg: report.Compliant, detail: id, since: now, within: d.Settle + d.ReportTime})
	}
	return d.expect(ctx, "repair of "+what+", by: "+repair.Name, wants...)
}

// Expire writes a pair that soon is about to expire, and then expires, without another write. Then it
// writes a new pair.
func (d *Driver) Expire(ctx context.Context, by, repair Writer) error {
	// Certificates have no fractions of a second. 15 % of a lifetime of 20 seconds are three.
	end := time.Now().Add(d.Settle + 5*time.Second).Truncate(time.Second)
	soon := end.Add(-3 * time.Second)
	pair := d.Host.Issue(pkitest.KubeletClient().Valid(end.Add(-20*time.Second), end))
	d.startStep(pair)
	if err := by.Write(d.Host, pair); err != nil {
		return err
	}
	d.Rotations++
	clock := func(msg report.NoticeType, detail string, at time.Time, label string) want {
		return want{msg: msg, detail: detail, since: at, within: d.ReportTime, punctual: true, label: label}
	}
	if err := d.expect(ctx, "expiry, by: "+by.Name,
		d.rotated(pair, by),
		clock(report.FindingActive, string(finding.CertificateExpiringSoon), soon, "moment"),
		clock(report.FindingActive, string(finding.CertificateExpired), end, "moment"),
		clock(report.FindingResolved, string(finding.CertificateExpiringSoon), end, ""),
		clock(report.NotCompliant, control.UseHTTPS, end, ""),
	); err != nil {
		return err
	}
	return d.repair(ctx, "after expiry", repair, finding.CertificateExpired)
}

// BecomeValid writes a pair that is not valid yet, and waits until it is.
func (d *Driver) BecomeValid(ctx context.Context, by, repair Writer) error {
	begin := time.Now().Add(2*d.Settle + 2*time.Second).Truncate(time.Second)
	pair := d.Host.Issue(pkitest.KubeletClient().Valid(begin, begin.AddDate(0, 0, 30)))
	d.startStep(pair)
	if err := by.Write(d.Host, pair); err != nil {
		return err
	}
	d.Rotations++
	now := time.Now()
	early := want{msg: report.FindingActive, detail: string(finding.CertificateNotYetValid), since: now,
		within: d.Settle + d.ReportTime, label: "fault"}
	if err := d.expect(ctx, "a pair that is not valid yet, by: "+by.Name, early, want{msg: report.NotCompliant,
		detail: control.UseHTTPS, since: now, within: d.Settle + d.ReportTime}); err != nil {
		return err
	}
	rotated := want{msg: report.CertificateRotated, detail: pki.Fingerprint(pair.Leaf)}
	cleared := want{msg: report.FindingResolved, detail: string(finding.CertificateNotYetValid), label: "moment"}
	wants := []want{rotated, cleared, {msg: report.Compliant, detail: control.UseHTTPS}}
	for i := range wants {
		wants[i].since, wants[i].within, wants[i].punctual = begin, d.ReportTime, true
	}
	if err := d.expect(ctx, "the pair becomes valid", wants...); err != nil {
		return err
	}
	return d.Rotate(ctx, repair)
}

func (d *Driver) repair(ctx context.Context, what string, w Writer, reason finding.Reason) error {
	pair := d.Host.Pair()
	d.startStep(pair)
	if err := w.Write(d.Host, pair); err != nil {
		return err
	}
	d.Rotations++
	now := time.Now()
	return d.expect(ctx, what+", by: "+w.Name, d.rotated(pair, w),
		want{msg: report.FindingResolved, detail: string(reason), since: now, within: d.Settle + d.ReportTime},
		want{msg: report.Compliant, detail: control.UseHTTPS, since: now, within: d.Settle + d.ReportTime})
}

// LogsNothing requires that the agent reports nothing for a while.
func (d *Driver) LogsNothing(ctx context.Context, long time.Duration) error {
	deadline := time.After(long)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-deadline:
			return nil
		case line, ok := <-d.Agent.Lines:
			if err := d.checkUnexpected(line, ok); err != nil {
				return fmt.Errorf("while nothing changed: %w", err)
			}
		}
	}
}

func (d *Driver) startStep(p pkitest.Pair) {
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

// expect reads the log until it has all wanted lines. Any other line about findings, verdicts and
// rotations is an error.
func (d *Driver) expect(ctx context.Context, step string, wants ...want) error {
	var longest time.Time
	for _, w := range wants {
		if limit := w.since.Add(w.within); limit.After(longest) {
			longest = limit
		}
	}
	given := time.After(time.Until(longest) + lateLimit)
	var faults []error
	for len(wants) > 0 {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", step, ctx.Err())
		case <-given:
			return errors.Join(append(faults, fmt.Errorf("%s: not logged: %v", step, wants))...)
		case line, ok := <-d.Agent.Lines:
			index := slices.IndexFunc(wants, func(w want) bool {
				return string(w.msg) == line.Msg &&
					(w.detail == "" || slices.Contains([]string{line.Reason, line.SHA256, line.Control}, w.detail))
			})
			if index < 0 {
				if err := d.checkUnexpected(line, ok); err != nil {
					return errors.Join(append(faults, fmt.Errorf("%s: %w, while waiting for %v", step, err, wants))...)
				}
				continue
			}
			w := wants[index]
			wants = slices.Delete(wants, index, index+1)
			d.Reported++
			if err := d.checkSecret(line); err != nil {
				return err
			}
			late := line.Time.Sub(w.since)
			if limit := w.within + time.Duration(d.stall.Load()); late > limit {
				faults = append(faults, fmt.Errorf("%s: %s logged %s late, limit is %s", step, w, late, limit))
			}
			if w.punctual && late < 0 {
				faults = append(faults, fmt.Errorf("%s: %s logged %s too early", step, w, -late))
			}
			if w.label != "" {
				d.Latencies[w.label] = append(d.Latencies[w.label], max(0, late))
			}
		}
	}
	return errors.Join(faults...)
}

// checkUnexpected returns what is wrong with a line that was not waited for, or nil.
func (d *Driver) checkUnexpected(line Line, ok bool) error {
	if !ok {
		return errors.New("the agent exited")
	}
	if err := d.checkSecret(line); err != nil {
		return err
	}
	reports := []report.NoticeType{report.FindingActive, report.FindingResolved, report.Compliant,
		report.NotCompliant, report.CouldNotVerify, report.CertificateRotated}
	if slices.Contains(reports, report.NoticeType(line.Msg)) {
		if !d.Host.shortLived[line.SHA256] {
			return fmt.Errorf("unexpected line in the agent's log: %s", line.Text)
		}
		d.Reported++
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
	return fmt.Errorf("unexpected line in the agent's log: %s", line.Text)
}

// checkSecret returns an error if a line contains a line of a private key that was written.
func (d *Driver) checkSecret(line Line) error {
	for word := range strings.FieldsFuncSeq(line.Text, func(r rune) bool { return strings.ContainsRune("\" \\:,", r) }) {
		if d.keys[word] {
			return errors.New("the agent's log contains a line of a private key")
		}
	}
	return nil
}

// Quantile is the latency that this share of the latencies, from 0 to 1, does not exceed.
func Quantile(latencies []time.Duration, share float64) time.Duration {
	if len(latencies) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(latencies))
	return sorted[max(0, int(math.Ceil(share*float64(len(sorted))))-1)]
}
