// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"bufio"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/openshift"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/rig"
)

const (
	// waitTime bounds waiting for a condition.
	waitTime     = 2 * time.Minute
	pollInterval = 50 * time.Millisecond
)

// TestRefusalIsOnRecord: a refusal is in the API server's audit log, in an Event on the Secret and in
// the webhook's log.
func TestRefusalIsRecorded(t *testing.T) {
	store(t, serving(issue(pkitest.ServingCert())))
	secret := get(t)
	before := time.Now().Add(-time.Second)
	secret.Data["tls.key"] = []byte("garbage")
	if _, err := as(t, "mallory").CoreV1().Secrets(namespace).Update(t.Context(), secret,
		metav1.UpdateOptions{}); err == nil ||
		strings.Contains(err.Error(), "denied the request") {
		t.Fatalf("mallory has no permissions, but the request reached the webhook: %v", err)
	}
	if _, err := as(t, openshift.StorageMigrator).CoreV1().Secrets(namespace).Update(t.Context(), secret,
		metav1.UpdateOptions{}); err == nil {
		t.Fatal("the request was allowed")
	}

	event := awaitEvent(t, namespace, func(e eventsv1.Event) bool {
		return e.Reason == "KeyUnparsable" && strings.Contains(e.Note, openshift.StorageMigrator) && e.EventTime.After(before)
	})
	if r := event.Regarding; r.Kind != "Secret" || r.Name != name || r.UID != secret.UID || event.Type != "Warning" ||
		event.Action != "Deny" {
		t.Errorf("the Event is about %+v, of type %s with action %s", r, event.Type, event.Action)
	}
	if _, err := shared.rig.Webhook.Await(t.Context(), "the refusal", func(line rig.Line) bool {
		return line.Text("msg") == "Request denied" && line.Text("user") == openshift.StorageMigrator &&
			line.Text("reason") == "KeyUnparsable"
	}); err != nil {
		t.Error(err)
	}
	const key = "secrets.kubelet-https-guard.io/reasons"
	await(t, "the audit annotation", func() bool {
		file, err := os.Open(shared.rig.Path("cluster", "audit.log"))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = file.Close() }()
		lines := bufio.NewScanner(file)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			var entry struct {
				User             struct{ Username string }
				ImpersonatedUser struct{ Username string }
				Annotations      map[string]string
			}
			if json.Unmarshal(lines.Bytes(), &entry) == nil && entry.ImpersonatedUser.Username == openshift.StorageMigrator &&
				entry.Annotations[key] == "KeyUnparsable" {
				return true
			}
		}
		return false
	})
}

// TestAgent: the agent reports changes of the files on the real Node, with its UID.
func TestAgent(t *testing.T) {
	pair := issue(pkitest.KubeletClient())
	tree, err := openshift.Write(t.TempDir(), openshift.Current,
		openshift.Files{Certificate: pair.Certificate, Key: pair.Key, ClientCA: shared.ca.PEM()})
	if err != nil {
		t.Fatal(err)
	}
	node, err := as(t, "").CoreV1().Nodes().Get(t.Context(), rig.Node, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	agent, err := shared.rig.StartAgent(t.Context(), tree.Root, "--settle", "300ms")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := agent.Stop(); err != nil {
			t.Errorf("the agent exited with an error: %v", err)
		}
	})
	swap := func(files map[string][]byte) {
		if err := openshift.SwapDirectory(tree.Directory(), tree.Staging(), files); err != nil {
			t.Fatal(err)
		}
	}
	awaitAgentEvent := func(kind, reason, note string) {
		t.Helper()
		event := awaitEvent(t, "default", func(e eventsv1.Event) bool {
			return e.Reason == reason && strings.Contains(e.Note, note) && e.EventTime.After(start)
		})
		if r := event.Regarding; r.Kind != "Node" || r.UID != node.UID || event.Type != kind ||
			event.ReportingController != "kubelet-https-guard.io/nodeagent" ||
			event.ReportingInstance != rig.Node {
			t.Errorf("Event %s: %+v", reason, event)
		}
	}
	awaitAgentEvent("Normal", "Compliant", tree.CertificateOnHost())
	swap(map[string][]byte{"tls.crt": pair.Certificate, "tls.key": []byte("garbage")})
	awaitAgentEvent("Warning", "KeyUnparsable", "tls.key: it contains no PEM block")
	fresh := issue(pkitest.KubeletClient())
	swap(map[string][]byte{"tls.crt": fresh.Certificate, "tls.key": fresh.Key})
	awaitAgentEvent("Normal", "KeyUnparsable", "Resolved")
	awaitAgentEvent("Normal", "CertificateRotated", "new certificate")
}

func awaitEvent(t *testing.T, namespace string, match func(eventsv1.Event) bool) (found eventsv1.Event) {
	t.Helper()
	client := as(t, "")
	await(t, "the Event", func() bool {
		list, err := client.EventsV1().Events(namespace).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, event := range list.Items {
			if match(event) {
				found = event
				return true
			}
		}
		return false
	})
	return found
}

// await waits until a condition is true.
func await(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.After(waitTime)
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for !condition() {
		select {
		case <-deadline:
			t.Fatalf("waited for %s for %s", what, waitTime)
		case <-tick.C:
		}
	}
}
