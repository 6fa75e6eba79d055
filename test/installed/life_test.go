// SPDX-License-Identifier: Apache-2.0

package installed_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/control"
)

// decoy is the Secret on which the audit tests whether the guard refuses.
const decoy = release + "-decoy"

// TestLife: the guard is installed and removed in many ways, whole or in parts, and leaves nothing
// behind. At the end of each part nothing is installed.
func TestLife(t *testing.T) {
	prepare(t)
	layOut(t)
	parts := []struct {
		name string
		run  func(*testing.T)
	}{
		{"policies that another release left", policiesLeft},
		{"objects pruned and applied, one by one", pruned},
		{"the webhook disabled and enabled", withoutWebhook},
		{"the policy disabled", withoutPolicy},
		{"the audit disabled and enabled", withoutAudit},
		{"the agent only", agentAlone},
		{"with the webhook down", webhookDown},
	}
	for _, part := range parts {
		if !t.Run(part.name, part.run) {
			return // the next one would find a release
		}
	}
}

// installAll installs everything and waits until the guard is in force.
func installAll(t *testing.T, args ...string) {
	t.Helper()
	must(t, install(t, append([]string{"--wait", "--timeout", helmWait}, args...)...))
	awaitInForce(t)
}

// awaitInForce waits until the audit has seen that each installed part of the guard refuses.
func awaitInForce(t *testing.T) {
	t.Helper()
	awaitAudit(t)
	await(t, "the guard is in force", func() (bool, string) {
		verdict := verdictOn(t, control.GuardInForce)
		return verdict == "compliant", verdict
	})
}

// verdictOn is the last verdict on a control by the audit that has the Lease.
func verdictOn(t *testing.T, id string) string {
	t.Helper()
	holder := shared.kubectl(t.Context(), "get", "lease", release+"-audit",
		"-n", release, "-o", "jsonpath={.spec.holderIdentity}")
	pod, _, _ := strings.Cut(holder.Output, "_")
	verdict := "no verdict in the log of " + holder.Output
	scanner := bufio.NewScanner(strings.NewReader(shared.kubectl(t.Context(), "logs", "-n", release, pod).Output))
	for scanner.Scan() {
		var line struct{ Control, Verdict, Message string }
		if json.Unmarshal(scanner.Bytes(), &line) == nil && line.Control == id {
			verdict = strings.TrimSpace(line.Verdict + " " + line.Message)
		}
	}
	return verdict
}

// floor: the API server refuses without the webhook.
func policyRefuses(t *testing.T) {
	t.Helper()
	await(t, "the policy refuses", func() (bool, string) {
		v, err := shared.secret.write(t.Context(), patch(nil, nil))
		return v == refused && strings.Contains(err.Error(), "[kubelet-https-guard/policy]"), fmt.Sprint(err)
	})
}

// helmTestPrints checks what helm test prints.
func helmTestPrints(t *testing.T, want ...string) {
	t.Helper()
	printed := must(t, shared.helm(t.Context(), "test", release, "--namespace", release, "--timeout", helmWait,
		"--logs"))
	for _, words := range want {
		if !strings.Contains(printed, words) {
			t.Errorf("helm test does not print %q:\n%s", words, printed)
		}
	}
}

// exist fails for each object that does not exist, or, if absent, for each that does.
func exist(t *testing.T, absent bool, objects ...string) {
	t.Helper()
	for _, object := range objects {
		got := must(t, shared.kubectl(t.Context(), "get", object, "-n", release, "--ignore-not-found", "-o", "name"))
		if (got == "") != absent {
			t.Errorf("%s: %q", object, got)
		}
	}
}

// policiesLeft: policies and bindings exist before the release, also those of its decoy: left by an
// uninstall of the same release, or belonging to a release with another name.
func policiesLeft(t *testing.T) {
	render := func(name string) string {
		return must(
			t,
			shared.helm(
				t.Context(),
				append(
					[]string{"template", name, chart, "--namespace", release, "--show-only", "templates/policy.yaml"},
					shared.values()...)...),
		)
	}
	left, other := render(release), render("other")
	must(t, shared.kubectlInput(t.Context(), left, "apply", "--server-side", "--field-manager=helm", "-f", "-"))
	must(
		t,
		shared.kubectlInput(t.Context(), left, "annotate", "-f", "-", "meta.helm.sh/release-name="+release,
			"meta.helm.sh/release-namespace="+release),
	)
	must(t, shared.kubectlInput(t.Context(), other, "apply", "-f", "-"))
	policyRefuses(t)
	installAll(t)
	awaitRefusal(t)
	helmTestPrints(t, "policy-refuses: pass", "webhook-asked: pass")
	must(t, shared.kubectlInput(t.Context(), other, "delete", "-f", "-"))
	uninstall(t)
}

// pruned: what GitOps does when it deletes an object and applies it again, while all others exist and
// refuse.
func pruned(t *testing.T) {
	installAll(t)
	awaitRefusal(t)
	s := startStream(t, shared.secret)
	manifest := must(t, shared.helm(t.Context(), "get", "manifest", release, "--namespace", release))
	var pruned []string
	for document := range strings.SplitSeq(manifest, "\n---\n") {
		var object metav1.PartialObjectMetadata
		if err := yaml.Unmarshal([]byte(document), &object); err != nil {
			t.Fatalf("%v:\n%s", err, document)
		}
		if object.Kind == "" {
			continue // comments
		}
		name := object.Kind + "/" + object.Name
		pruned = append(pruned, name)
		must(t, shared.kubectlInput(t.Context(), document, "delete", "--wait", "--timeout=60s", "-f", "-"))
		must(t, shared.kubectlInput(t.Context(), document, "apply", "--server-side", "--field-manager=helm", "-f", "-"))
	}
	if !slices.Contains(pruned, "Secret/"+decoy) {
		t.Errorf("%v contains no decoy", pruned)
	}
	s.stop()
	s.all.Wait()
	if good, bad := s.now(); good.refused > 0 || bad.refused == 0 {
		t.Errorf("good: %+v; bad: %+v", good, bad)
	}
	for _, workload := range []string{"deployment/" + release + "-webhook", "deployment/" + release + "-audit",
		"daemonset/" + release + "-nodeagent"} {
		must(t, shared.kubectl(t.Context(), "rollout", "status", workload, "-n", release, "--timeout", helmWait))
	}
	awaitRefusal(t)
	awaitInForce(t)
	helmTestPrints(t, "policy-refuses: pass", "webhook-asked: pass")
	must(t, upgrade(t)) // Helm uninstalls only objects with its annotations, which the manifest does not have
	uninstall(t)
}

// withoutWebhook: policy, audit and agent continue.
func withoutWebhook(t *testing.T) {
	installAll(t, "--set", "webhook.enabled=false")
	policyRefuses(t)
	exist(t, true, "deployment/"+release+"-webhook", "validatingwebhookconfiguration/"+release)
	exist(t, false, "deployment/"+release+"-audit", "daemonset/"+release+"-nodeagent", "secret/"+decoy)
	helmTestPrints(t, "policy-refuses: pass", "webhook-asked: not applicable")
	awaitAgentVerdict(t)

	must(t, upgrade(t, "--set", "webhook.enabled=true"))
	awaitRefusal(t)
	helmTestPrints(t, "policy-refuses: pass", "webhook-asked: pass")
	must(t, shared.helm(t.Context(), "rollback", release, "--namespace", release, "--wait", "--timeout", helmWait))
	exist(t, true, "deployment/"+release+"-webhook", "validatingwebhookconfiguration/"+release)
	body := mismatched(t)
	await(t, "the API server does not call the webhook any more", func() (bool, string) {
		v, err := shared.secret.write(t.Context(), body)
		return v == allowed, fmt.Sprint(err)
	})
	policyRefuses(t)
	helmTestPrints(t, "policy-refuses: pass", "webhook-asked: not applicable")
	uninstall(t)
}

// withoutPolicy: the webhook refuses what the policy would refuse.
func withoutPolicy(t *testing.T) {
	installAll(t, "--set", "policy.enabled=false")
	awaitRefusal(t)
	if v, err := shared.secret.write(t.Context(), patch(nil, nil)); v != refused ||
		!strings.Contains(err.Error(), "[kubelet-https-guard/webhook]") {
		t.Errorf("empty values: %v", err)
	}
	helmTestPrints(t, "policy-refuses: not applicable", "webhook-asked: pass")
	uninstall(t)
}

// withoutAudit: webhook and policy refuse, and there is no decoy.
func withoutAudit(t *testing.T) {
	must(t, install(t, "--set", "audit.enabled=false", "--wait", "--timeout", helmWait))
	awaitRefusal(t)
	policyRefuses(t)
	exist(t, true, "deployment/"+release+"-audit", "secret/"+decoy, "serviceaccount/"+release+"-audit")
	helmTestPrints(t) // no test to run is not a failure
	must(t, upgrade(t, "--set", "audit.enabled=true"))
	awaitInForce(t)
	exist(t, false, "secret/"+decoy)
	must(t, shared.helm(t.Context(), "rollback", release, "--namespace", release, "--wait", "--timeout", helmWait))
	exist(t, true, "deployment/"+release+"-audit", "secret/"+decoy)
	awaitRefusal(t)
	uninstall(t)
}

// agentAlone installs the agent as in install.md.
func agentAlone(t *testing.T) {
	must(
		t,
		install(
			t, "--set", "webhook.enabled=false,policy.enabled=false,audit.enabled=false", "--wait", "--timeout", helmWait,
		),
	)
	awaitAgentVerdict(t)
	left := must(
		t,
		shared.kubectl(t.Context(), "get", "deployments,secrets,configmaps", "-n", release, "-l",
			"app.kubernetes.io/instance="+release, "-o", "name"),
	)
	if left != "" {
		t.Errorf("unexpected objects: %s", left)
	}
	uninstall(t)
}

// awaitAgentVerdict waits for the agent's verdict. On the tests' own node it must be compliant.
func awaitAgentVerdict(t *testing.T) {
	t.Helper()
	await(t, "the agent has a verdict", func() (bool, string) {
		printed := shared.kubectl(t.Context(), "logs", "-n", release, "daemonset/"+release+"-nodeagent").Output
		return strings.Contains(printed, `"msg":"Compliant"`) || shared.rig == nil && (strings.Contains(printed,
			`"msg":"Not compliant"`) || strings.Contains(printed, `"msg":"Could not verify"`)), printed
	})
}

// webhookDown: no replica answers and writes fail closed. Upgrade, rollback and uninstall succeed,
// though they change the decoy.
func webhookDown(t *testing.T) {
	if shared.rig == nil {
		t.Skip("evicts Pods from the node, so it runs only on the tests' own cluster")
	}
	next := t.TempDir()
	must(t,
		shared.helm(t.Context(), "package", chart, "--version", "0.99.0", "--app-version", "0.99.0", "--destination", next))
	installAll(t)
	awaitRefusal(t)
	evictGuard(t)
	defer readmitGuard(t)
	awaitFailClosed(t)
	// Every object has a new label now, also the decoy.
	must(
		t,
		shared.helm(
			t.Context(),
			append(
				[]string{"upgrade", release, filepath.Join(next, release+"-0.99.0.tgz"), "--namespace", release},
				shared.values()...)...),
	)
	version := must(
		t,
		shared.kubectl(t.Context(), "get", "secret", decoy, "-n", release, "-o",
			`jsonpath={.metadata.labels.app\.kubernetes\.io/version}`),
	)
	if version != "0.99.0" {
		t.Errorf("the decoy has version %q", version)
	}
	must(t, shared.helm(t.Context(), "rollback", release, "--namespace", release))
	awaitFailClosed(t)
	must(t, shared.kubectl(t.Context(), "delete", "secret", decoy, "-n", release))
	must(t,
		shared.helm(t.Context(), append([]string{"upgrade", release, chart, "--namespace", release}, shared.values()...)...))
	exist(t, false, "secret/"+decoy)
	awaitFailClosed(t)
	uninstall(t)
}

// evictGuard evicts the release's Pods of webhook and audit and prevents new ones.
func evictGuard(t *testing.T) {
	t.Helper()
	must(t, shared.kubectl(t.Context(), "taint", "node", shared.node, "--overwrite", "e2e=taken:NoExecute"))
	await(t, "no replica is left", func() (bool, string) {
		pods := shared.kubectl(t.Context(),
			"get", "pods", "-n", release, "-l", "app.kubernetes.io/component in (webhook,audit)", "-o",
			`jsonpath={.items[?(@.spec.nodeName)].metadata.name}`)
		return pods.Code == 0 && pods.Output == "", pods.Output
	})
}

// readmitGuard undoes takeNode.
func readmitGuard(t *testing.T) {
	t.Helper()
	shared.kubectl(t.Context(), "taint", "node", shared.node, "e2e-") // it may have been removed already
}

// awaitFailClosed waits until requests that the webhook would have to judge fail, since it does not answer.
func awaitFailClosed(t *testing.T) {
	t.Helper()
	body := mismatched(t)
	await(t, "writes fail", func() (bool, string) {
		v, err := shared.secret.write(t.Context(), body)
		return v == failed && strings.Contains(err.Error(), "failed calling webhook"), fmt.Sprint(err)
	})
}
