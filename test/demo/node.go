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

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/openshift"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/rig"
)

const (
	// stepTime bounds a step on the node: the agent settles for a second.
	stepTime = 2 * time.Minute
	// lookEvery is how often the API server is asked for an Event.
	lookEvery = 100 * time.Millisecond
)

// node plays what happens to the files of a control-plane node.
func (d *demo) node(ctx context.Context) error {
	d.chapter("A control-plane node: an agent watches the files that its kube-apiserver really uses")
	now := time.Now()
	ca := pkitest.NewCAAround("kube-apiserver-to-kubelet-signer", now)
	issue := func(from, to time.Time) map[string][]byte {
		pair := ca.Issue(pkitest.KubeletClient().Valid(from, to))
		return map[string][]byte{"tls.crt": pair.Certificate, "tls.key": pair.Key}
	}
	fresh := func() map[string][]byte { return issue(time.Now().Add(-time.Minute), time.Now().AddDate(0, 0, 30)) }
	pair := fresh()
	host := d.rig.Path("host")
	tree, err := openshift.Write(host, openshift.Current, openshift.Files{Certificate: pair["tls.crt"], Key: pair["tls.key"], ClientCA: ca.PEM()})
	if err != nil {
		return err
	}
	agent, err := d.rig.StartAgent(ctx, host)
	if err != nil {
		return err
	}
	n := &node{demo: d, agent: agent, at: path.Dir(tree.CertificateOnHost())}
	d.printf("\nthe agent starts: the path in the CIS text is on no host, so it goes by the static pod manifest\n")
	if err := n.tells(ctx, "Looking at", ""); err != nil {
		return err
	}
	if err := n.tells(ctx, "Verified", "Verified"); err != nil {
		return err
	}

	cleared := func(reason finding.Reason) func() error {
		return func() error {
			d.recovered++
			return n.tells(ctx, "Finding cleared", string(reason))
		}
	}
	raised := func(reason finding.Reason) func() error {
		return func() error { return n.tells(ctx, "Finding raised", string(reason)) }
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
		{"OpenShift's cert-syncer rotates: it swaps the whole directory (RENAME_EXCHANGE). No finding, the new certificate is told", []func() error{
			swap(fresh()), func() error { return n.tells(ctx, "Certificate rotated", "CertificateRotated") },
		}},
		{"the certificate vanishes", []func() error{func() error { return os.Remove(tree.Certificate()) }, raised(finding.CertificateMissing)}},
		{"and is back, with a new key, one file after the other", []func() error{
			func() error { return openshift.WriteAtomically(tree.Directory(), fresh()) }, cleared(finding.CertificateMissing),
		}},
		{"the certificate is overwritten with garbage", []func() error{
			func() error { return os.WriteFile(tree.Certificate(), []byte("garbage\n"), 0o600) }, raised(finding.CertificateUnparsable),
		}},
		{"and is repaired", []func() error{
			func() error { return openshift.WriteInPlace(tree.Directory(), fresh()) }, cleared(finding.CertificateUnparsable),
		}},
		{"a certificate expires: nothing is written at that moment, and nothing needs to be", []func() error{
			func() error {
				start := time.Now().Truncate(time.Second)
				return swap(issue(start.Add(-6*time.Second), start.Add(3*time.Second)))()
			},
			raised(finding.CertificateExpired),
		}},
		{"and is renewed", []func() error{swap(fresh()), cleared(finding.CertificateExpired)}},
		{"the directory is swapped for one with the key of another pair", []func() error{swap(mixed), raised(finding.KeyMismatch)}},
		{"and for a sound one", []func() error{swap(fresh()), cleared(finding.KeyMismatch)}},
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

// finally shows what a person sees who asks: the node, and the agent once.
func (d *demo) finally(ctx context.Context, host string) error {
	describe := d.rig.KubectlCommand(ctx, "describe", "node", rig.Node)
	_, events, found := strings.Cut(describe.Output, "\nEvents:")
	if describe.Code != 0 || !found || !strings.Contains(events, string(finding.KeyMismatch)) {
		return fmt.Errorf("kubectl describe node does not show the Events:\n%s", describe.Output)
	}
	d.printf("\nkubectl describe node %s shows them\n", rig.Node)
	for line := range strings.SplitSeq(strings.TrimSpace(events), "\n") {
		d.printf("  %s\n", cut(strings.TrimSpace(line), 160))
	}
	once := d.rig.AgentOnce(ctx, host)
	d.printf("\nfor a script or an auditor: nodeagent --once exits with %d\n", once.Code)
	for line := range strings.SplitSeq(once.Output, "\n") {
		d.printf("  %s\n", line)
	}
	if once.Code != 0 {
		return errors.New("nodeagent --once does not find the node compliant")
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

// node is the agent under way.
type node struct {
	*demo
	agent *rig.Process
	at    string // the pair's directory on the host
}

// tells waits for a line of the agent's log and, with a reason, for its Event.
func (n *node) tells(ctx context.Context, message, reason string) error {
	ctx, cancel := context.WithTimeout(ctx, stepTime)
	defer cancel()
	started := time.Now()
	var alarm string // raised, and not what this scene is about
	line, err := n.agent.Await(ctx, message+" "+reason, func(line rig.Line) bool {
		if line.Text("msg") == "Finding raised" && line.Text("reason") != reason && line.Text("reason") != string(finding.CertificateExpiringSoon) {
			alarm = line.Text("reason")
		}
		return line.Text("msg") == message && (line.Text("reason") == "" || line.Text("reason") == reason)
	})
	if err != nil {
		return err
	}
	if alarm != "" {
		return fmt.Errorf("the agent raised %s, which is a false alarm", alarm)
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
	if message == "Finding cleared" {
		note = "Cleared: "
	}
	event, err := n.awaitEvent(ctx, "default", reason, note)
	if err != nil {
		return err
	}
	n.printf("  Event %s %s on %s: %s\n", event.Type, event.Reason, event.object(), cut(event.Note, 150))
	return nil
}

// event is an Event as it is shown.
type event struct{ eventsv1.Event }

func (e event) object() string {
	return e.Regarding.Kind + " " + strings.TrimPrefix(e.Regarding.Namespace+"/"+e.Regarding.Name, "/")
}

// awaitEvent waits for an Event that was not shown yet.
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
