// SPDX-License-Identifier: Apache-2.0

package rotation

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/control"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/report"
)

// Change is something that happens on a host to files other than those of the pair, and is undone.
type Change struct {
	Name string
	// Reasons are those that the agent must report, and NotCompliant the IDs of the controls that are not
	// compliant then, or could not be verified. Without a reason the agent must report nothing.
	Reasons      []finding.Reason
	NotCompliant []string

	do, undo func(h *Host) error
}

// Changes are all changes.
func Changes() []Change {
	all := []string{control.UseHTTPS, control.AdmissionEnabled}
	manifest := func(h *Host) string { return h.Tree.Manifest() }
	backup := func(h *Host) string { return h.Tree.Manifest() + ".backup" }
	renamed := func(h *Host) string { return filepath.Join(filepath.Dir(h.Tree.Manifest()), "renamed.yaml") }
	kubelet := func(h *Host) string { return filepath.Join(h.Tree.Root, "etc/kubernetes/kubelet.conf") }
	var before []byte
	return []Change{
		{
			Name: "a backup of the manifest appears and goes", Reasons: []finding.Reason{finding.DuplicateStaticPod},
			NotCompliant: all,
			do: func(h *Host) error {
				data, err := os.ReadFile(manifest(h))
				if err != nil {
					return err
				}
				return os.WriteFile(backup(h), data, 0o600)
			},
			undo: func(h *Host) error { return os.Remove(backup(h)) },
		},
		{
			Name: "the manifest is renamed", // the kubelet accepts any file name
			do:   func(h *Host) error { return os.Rename(manifest(h), renamed(h)) },
			undo: func(h *Host) error { return os.Rename(renamed(h), manifest(h)) },
		},
		{
			Name: "the kubelet's configuration is edited",
			do: func(h *Host) (err error) {
				if before, err = os.ReadFile(kubelet(h)); ignore(err, fs.ErrNotExist) != nil {
					return err
				}
				return os.WriteFile(kubelet(h), []byte(kubeletConfiguration), 0o600)
			},
			undo: func(h *Host) error {
				if before == nil {
					return os.Remove(kubelet(h))
				}
				return os.WriteFile(kubelet(h), before, 0o600)
			},
		},
	}
}

// kubeletConfiguration means the same as OpenShift's configuration of the host
// (machine-config-operator templates/master/01-master-kubelet/_base/files/kubelet.yaml), but has
// another text.
const kubeletConfiguration = `# edited
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication:
  x509:
    clientCAFile: /etc/kubernetes/kubelet-ca.crt
  anonymous: {enabled: false}
staticPodPath: /etc/kubernetes/manifests
serverTLSBootstrap: true
logging: {verbosity: 3}
`

// Change makes a change and undoes it. Each time it waits until the agent has reported it, or, without
// a reason, for as long as a report would take.
func (d *Driver) Change(ctx context.Context, c Change) error {
	steps := []struct {
		what    string
		do      func(h *Host) error
		finding report.NoticeType
		verdict func(reasons []finding.Reason) report.NoticeType
		label   string
	}{
		{"change: " + c.Name, c.do, report.FindingActive, verdict, "fault"},
		{"end of change: " + c.Name, c.undo, report.FindingResolved, compliant, "repair"},
	}
	for _, step := range steps {
		d.startStep(pkitest.Pair{})
		if err := step.do(d.Host); err != nil {
			return fmt.Errorf("%s: %w", step.what, err)
		}
		if len(c.Reasons) == 0 {
			if err := d.LogsNothing(ctx, d.Settle+quietTime); err != nil {
				return fmt.Errorf("%s: %w", step.what, err)
			}
			continue
		}
		var wants []want
		now := time.Now()
		for _, reason := range c.Reasons {
			wants = append(wants, want{msg: step.finding, detail: string(reason), since: now,
				within: d.Settle + d.ReportTime, label: step.label})
		}
		for _, id := range c.NotCompliant {
			wants = append(wants, want{msg: step.verdict(c.Reasons), detail: id, since: now,
				within: d.Settle + d.ReportTime})
		}
		if err := d.expect(ctx, step.what, wants...); err != nil {
			return err
		}
	}
	return nil
}

// verdict is the verdict on the controls that findings with these reasons concern.
func verdict(reasons []finding.Reason) report.NoticeType {
	if slices.ContainsFunc(reasons, func(r finding.Reason) bool { return r.Outcome() == finding.Fail }) {
		return report.NotCompliant
	}
	return report.CouldNotVerify
}

func compliant([]finding.Reason) report.NoticeType { return report.Compliant }

// quietTime is how long the agent must log nothing after the settle time.
const quietTime = 100 * time.Millisecond

// MountLate writes a new pair to the directory stored, which the agent does not see, and waits until
// the agent has reported the reasons. Then it mounts the directory and waits until they are resolved.
// The names of the pair become links to the directory named. Both are relative to the root.
func (d *Driver) MountLate(
	ctx context.Context,
	stored, named string,
	reasons []finding.Reason,
	mount func() error,
) error {
	pair := d.Host.Pair()
	d.startStep(pair)
	if err := d.Host.elsewhere(pair, stored, named); err != nil {
		return err
	}
	now := time.Now()
	wants := []want{{msg: verdict(reasons), detail: control.UseHTTPS, since: now, within: d.Settle + d.ReportTime}}
	for _, reason := range reasons {
		wants = append(wants, want{msg: report.FindingActive, detail: string(reason), since: now,
			within: d.Settle + d.ReportTime})
	}
	if err := d.expect(ctx, "a pair that is not mounted", wants...); err != nil {
		return err
	}

	d.startStep(pair)
	if err := mount(); err != nil {
		return err
	}
	d.Rotations++
	wants = []want{
		d.rotated(pair, Writer{Name: "mounted late"}),
		{msg: report.Compliant, detail: control.UseHTTPS, since: time.Now(), within: d.Settle + d.ReportTime},
	}
	for _, reason := range reasons {
		wants = append(wants, want{msg: report.FindingResolved, detail: string(reason), since: time.Now(),
			within: d.Settle + d.ReportTime})
	}
	return d.expect(ctx, "its mount appears", wants...)
}
