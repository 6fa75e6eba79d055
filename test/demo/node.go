// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"
	"time"

	eventsv1 "k8s.io/api/events/v1"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/openshift"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/rig"
)

const (
	// stepTime bounds a step on the node. The agent waits a second before it reports.
	stepTime = 2 * time.Minute
	// lookEvery is the interval between two requests for an Event.
	lookEvery = 100 * time.Millisecond
)

// node changes the files of a control-plane node and shows what the agent reports.
func (d *demo) node(ctx context.Context) error {
	d.chapter("On a control-plane node, the agent watches the files that the kube-apiserver really uses")
	ca, err := d.rig.ClusterCA()
	if err != nil {
		return err
	}
	issue := func(from, to time.Time) map[string][]byte {
		pair := ca.Issue(pkitest.KubeletClient().Valid(from, to))
		return map[string][]byte{"tls.crt": pair.Certificate, "tls.key": pair.Key}
	}
	fresh := func() map[string][]byte {
		return issue(time.Now().Add(-time.Minute), time.Now().AddDate(0, 0, 30))
	}
	pair := fresh()
	host := d.rig.Path("host")
	tree, err := openshift.Write(host, openshift.Current, openshift.Files{
		Certificate: pair["tls.crt"], Key: pair["tls.key"], ClientCA: ca.PEM(),
	})
	if err != nil {
		return err
	}
	d.ca, d.tree = ca, tree
	if err := d.rig.UseClientPair(tree.Certificate(), tree.Key()); err != nil {
		return err
	}
	agent, err := d.rig.StartAgent(ctx, host)
	if err != nil {
		return err
	}
	n := &node{demo: d, agent: agent, at: path.Dir(tree.CertificateOnHost())}
	d.printf("\nthe agent starts, and finds the files by the static Pod manifest: " +
		"the path in the CIS text does not exist\n")
	if err := n.reports(ctx, "Found the kube-apiserver's client certificate for kubelets", ""); err != nil {
		return err
	}
	if err := n.reports(ctx, "Compliant", "Compliant"); err != nil {
		return err
	}

	cleared := func(reason finding.Reason) func() error {
		return func() error {
			d.recovered++
			return n.reports(ctx, "Finding resolved", string(reason))
		}
	}
	raised := func(reason finding.Reason) func() error {
		return func() error { return n.reports(ctx, "Finding active", string(reason)) }
	}
	swap := func(files map[string][]byte) func() error {
		return func() error { return openshift.SwapDirectory(tree.Directory(), tree.Staging(), files) }
	}
	mixed := fresh()
	mixed["tls.key"] = pair["tls.key"]

	for _, scene := range []struct {
		title string
		steps []func() error
	}{
		{"OpenShift's cert-syncer rotates the pair by swapping directories: a rotation, no finding", []func() error{
			swap(fresh()), func() error { return n.reports(ctx, "Certificate rotated", "CertificateRotated") },
		}},
		{"the certificate is deleted", []func() error{
			func() error { return os.Remove(tree.Certificate()) }, raised(finding.CertificateMissing),
		}},
		{"a new pair is written, one file after the other", []func() error{
			func() error { return openshift.WriteAtomically(tree.Directory(), fresh()) }, cleared(finding.CertificateMissing),
		}},
		{"the certificate is overwritten with garbage", []func() error{
			func() error { return os.WriteFile(tree.Certificate(), []byte("garbage\n"), 0o600) },
			raised(finding.CertificateUnparsable),
		}},
		{"it is repaired", []func() error{
			func() error { return openshift.WriteInPlace(tree.Directory(), fresh()) }, cleared(finding.CertificateUnparsable),
		}},
		{"the certificate expires, while no file changes", []func() error{
			func() error {
				start := time.Now().Truncate(time.Second)
				return swap(issue(start.Add(-6*time.Second), start.Add(3*time.Second)))()
			},
			raised(finding.CertificateExpired),
		}},
		{"it is renewed", []func() error{swap(fresh()), cleared(finding.CertificateExpired)}},
		{"the directory is replaced by one with the key of another pair", []func() error{
			swap(mixed), raised(finding.KeyMismatch),
		}},
		{"the directory is replaced by one with a valid pair", []func() error{
			swap(fresh()), cleared(finding.KeyMismatch),
		}},
	} {
		d.printf("\n%s\n", scene.title)
		for _, step := range scene.steps {
			if err := step(); err != nil {
				return err
			}
		}
	}
	return d.finally(ctx, host)
}

// finally shows what people see: the Events of the node, and the report of "nodeagent check".
func (d *demo) finally(ctx context.Context, host string) error {
	describe := d.rig.KubectlCommand(ctx, "describe", "node", rig.Node)
	_, events, found := strings.Cut(describe.Output, "\nEvents:")
	if describe.Code != 0 || !found || !strings.Contains(events, string(finding.KeyMismatch)) {
		return fmt.Errorf("kubectl describe node does not show the Events:\n%s", describe.Output)
	}
	d.printf("\nkubectl describe node %s shows the Events\n", rig.Node)
	for line := range strings.SplitSeq(strings.TrimSpace(events), "\n") {
		d.printf("  %s\n", cut(strings.TrimSpace(line), 160))
	}
	once := d.rig.AgentOnce(ctx, host)
	d.printf("\nnodeagent check, for scripts and auditors, exits with code %d\n", once.Code)
	for line := range strings.SplitSeq(once.Output, "\n") {
		d.printf("  %s\n", line)
	}
	if once.Code != 0 {
		return errors.New("nodeagent check did not report the node as compliant")
	}
	return nil
}

func cut(text string, most int) string {
	runes := []rune(text)
	if len(runes) > most {
		return string(runes[:most]) + "…"
	}
	return text
}

// node is a running agent.
type node struct {
	*demo
	agent *rig.Process
	at    string // the pair's directory on the host
}

// reports waits for a line of the agent's log and, if there is a reason, for its Event.
func (n *node) reports(ctx context.Context, message, reason string) error {
	ctx, cancel := context.WithTimeout(ctx, stepTime)
	defer cancel()
	started := time.Now()
	var alarm string // the reason of a finding that this scene does not cause
	line, err := n.agent.Await(ctx, message+" "+reason, func(line rig.Line) bool {
		if line.Text("msg") == "Finding active" && line.Text("reason") != reason &&
			line.Text("reason") != string(finding.CertificateExpiringSoon) {
			alarm = line.Text("reason")
		}
		return line.Text("msg") == message && (line.Text("reason") == "" || line.Text("reason") == reason)
	})
	if err != nil {
		return err
	}
	if alarm != "" {
		return fmt.Errorf("the agent reported %s, which is a false alarm", alarm)
	}
	words := []string{message}
	for _, key := range []string{"reason", "severity", "location", "certificate", "message", "notAfter"} {
		if value := line.Text(key); value != "" {
			words = append(words, key+"="+value)
		}
	}
	n.printf("  log   %s (after %.1f s)\n", strings.Join(words, " "), time.Since(started).Seconds())
	if reason == "" {
		return nil
	}
	note := n.at
	if message == "Finding resolved" {
		note = "Resolved: "
	}
	event, err := n.awaitEvent(ctx, "default", reason, note)
	if err != nil {
		return err
	}
	n.printf("  Event %s %s on %s: %s\n", event.Type, event.Reason, event.object(), cut(event.Note, 150))
	return nil
}

// event is an Event that can be printed.
type event struct{ eventsv1.Event }

func (e event) object() string {
	return e.Regarding.Kind + " " + strings.TrimPrefix(e.Regarding.Namespace+"/"+e.Regarding.Name, "/")
}

// awaitEvent waits for an Event that was not printed yet.
func (d *demo) awaitEvent(ctx context.Context, namespace, reason, note string) (event, error) {
	ctx, cancel := context.WithTimeout(ctx, stepTime)
	defer cancel()
	for {
		result := d.rig.KubectlCommand(ctx, "get", "events.v1.events.k8s.io", "-n", namespace, "-o", "json")
		var list eventsv1.EventList
		if err := json.Unmarshal([]byte(result.Output), &list); err == nil {
			for _, item := range list.Items {
				if item.Reason == reason && strings.Contains(item.Note, note) && !d.shown[item.UID] {
					d.shown[item.UID] = true
					return event{item}, nil
				}
			}
		}
		select {
		case <-ctx.Done():
			return event{}, fmt.Errorf("no Event %s with %q: %w", reason, note, ctx.Err())
		case <-time.After(lookEvery):
		}
	}
}
