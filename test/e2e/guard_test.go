// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/openshift"
)

const (
	guardNamespace = "kubelet-https-guard"
	decoyName      = "kubelet-https-guard-decoy"
	servingPolicy  = "kubelet-https-guard.openshift-apiserver.serving-cert"
	decoyPolicy    = "kubelet-https-guard.kubelet-https-guard.kubelet-https-guard-decoy"
)

// metrics are the metrics that a program serves at an address, without comments.
func metrics(t *testing.T, address string) []string {
	t.Helper()
	request, err := http.NewRequestWithContext(context.WithoutCancel(t.Context()), http.MethodGet,
		"http://"+address+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil // it may not serve yet
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(strings.Split(string(body), "\n"),
		func(line string) bool { return strings.HasPrefix(line, "#") })
}

// verdicts are the audit's metrics for the verdicts on the guard and on the control, 1 or 0; empty
// without a verdict.
func verdicts(t *testing.T) (guard, control string) {
	t.Helper()
	for _, line := range metrics(t, shared.auditMetrics) {
		if value, ok := strings.CutPrefix(line, "kubelet_https_guard_in_force "); ok {
			guard = value
		}
		if value, ok := strings.CutPrefix(line, `kubelet_https_guard_compliant{control="use-https"} `); ok {
			control = value
		}
	}
	return guard, control
}

// awaitVerdict waits for the audit's verdict on the guard. The control must always be compliant.
func awaitVerdict(t *testing.T, want string) {
	t.Helper()
	await(t, "the verdict "+want+" on the guard", func() bool {
		guard, control := verdicts(t)
		if control == "0" {
			t.Fatalf("the control is not compliant: %q", active(t))
		}
		return guard == want && control == "1"
	})
}

// active are reason and location of the audit's active findings.
func active(t *testing.T) []string {
	t.Helper()
	var all []string
	for _, line := range metrics(t, shared.auditMetrics) {
		if labels, ok := strings.CutPrefix(line, "kubelet_https_guard_finding{location="); ok {
			location, rest, _ := strings.Cut(strings.TrimPrefix(labels, `"`), `",reason="`)
			reason, _, _ := strings.Cut(rest, `"`)
			all = append(all, reason+" "+location)
		}
	}
	slices.Sort(all)
	return all
}

// soundCluster removes all faults and waits until the audit has no findings.
func soundCluster(t *testing.T) {
	t.Helper()
	client := issue(pkitest.KubeletClient())
	store(t, serving(issue(pkitest.ServingCert())))
	store(t, openshift.KubeletClient(client.Certificate, client.Key))
	restartAudit(t)
	awaitVerdict(t, "1")
}

// prove runs webhook prove with the permissions of the audit.
func prove(t *testing.T) (code int, lines []string) {
	t.Helper()
	r := shared.rig.Prove(t.Context(), "--wait", "0s")
	for line := range strings.Lines(r.Output) {
		if strings.HasPrefix(line, "APIServer ") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	slices.Sort(lines)
	return r.Code, lines
}

// at is an administrator's client of another API server.
func at(t *testing.T, address string) kubernetes.Interface {
	t.Helper()
	config := rest.CopyConfig(shared.config)
	config.Host, config.WarningHandler = "https://"+address, rest.NoWarnings{}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// TestEffect: the guard is in force if each API server was seen to refuse. It is not if one of them
// does not, whatever its objects in the API are. The verdict on the control does not depend on that.
func TestEffect(t *testing.T) {
	soundCluster(t)
	first := shared.rig.Server(t.Context())
	proven := func(address string) []string {
		return []string{"APIServer " + address + ", policy-refuses: pass", "APIServer " + address + ", webhook-asked: pass"}
	}
	code, lines := prove(t)
	if d := cmp.Diff(proven(first), lines); d != "" || code != 0 {
		t.Errorf("webhook prove: exit code %d (-want +got):\n%s", code, d)
	}

	join := func(arguments ...string) string {
		t.Helper()
		address, stop, err := shared.rig.JoinAPIServer(context.WithoutCancel(t.Context()), arguments...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := stop(); err != nil {
				t.Errorf("stop the API server at %s: %v", address, err)
			}
		})
		return address
	}
	announce := func(addresses ...string) {
		t.Helper()
		if err := shared.rig.AnnounceAPIServers(context.WithoutCancel(t.Context()), addresses...); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { announce(first) })
	noPolicy := join("--disable-admission-plugins=ValidatingAdmissionPolicy")
	noWebhook := join("--disable-admission-plugins=ValidatingAdmissionWebhook")
	sound := join()

	// What these API servers allow.
	garbage := []byte(`{"data":{"tls.key":"` + base64Of([]byte("garbage")) + `"}}`)
	dry := metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}}
	if _, err := at(t, noWebhook).CoreV1().Secrets(namespace).Patch(t.Context(), name, types.MergePatchType, garbage,
		dry); err != nil {
		t.Errorf("an invalid key is refused without the plugin ValidatingAdmissionWebhook: %v", err)
	}
	_, err := at(t, noPolicy).CoreV1().Secrets(
		namespace,
	).Patch(t.Context(), name, types.MergePatchType, []byte(`{"immutable":true}`), dry)
	mustContain(t, err, `admission webhook "secrets.kubelet-https-guard.io" denied the request`)

	since := time.Now()
	announce(first, noPolicy, sound, noWebhook)
	restartAudit(t)
	awaitVerdict(t, "0")
	want := []string{
		"GuardIneffective APIServer " + noPolicy + " ValidatingAdmissionPolicy",
		"GuardIneffective APIServer " + noWebhook + " ValidatingAdmissionWebhook",
	}
	slices.Sort(want)
	await(t, fmt.Sprintf("%q, and no other finding", want), func() bool { return cmp.Equal(want, active(t)) })
	awaitAuditEvent(t, since, "Lease", "kubelet-https-guard-audit", "Warning", "NotCompliant", "GuardIneffective")
	code, lines = prove(t)
	if passes := func(line string) bool { return strings.HasSuffix(line, ": pass") }; code != 1 || len(lines) != 8 ||
		len(slices.DeleteFunc(slices.Clone(lines), passes)) != 2 {
		t.Errorf("webhook prove: exit code %d, output:\n%s", code, strings.Join(lines, "\n"))
	}

	announce(first, sound)
	awaitVerdict(t, "1")
	code, lines = prove(t)
	all := append(proven(first), proven(sound)...)
	slices.Sort(all)
	if d := cmp.Diff(all, lines); d != "" || code != 0 {
		t.Errorf("webhook prove: exit code %d (-want +got):\n%s", code, d)
	}
}

// mutation is a way to disable the guard.
type mutation struct {
	resource, name string
	// change changes the object; nil deletes it.
	change func(object map[string]any)
	// passes reports whether a request is allowed that only the intact guard refuses.
	passes func(ctx context.Context, t *testing.T) bool
	// stop: also stop the webhook.
	stop bool
}

// The resources of the guard.
const (
	webhooks = "validatingwebhookconfigurations"
	policies = "validatingadmissionpolicies"
	bindings = "validatingadmissionpolicybindings"
)

// garbagePasses writes an invalid key. Only the webhook can refuse it.
func garbagePasses(ctx context.Context, t *testing.T) bool {
	t.Helper()
	body := []byte(`{"data":{"tls.key":"` + base64Of([]byte("garbage")) + `"}}`)
	_, err := as(t, "").CoreV1().Secrets(
		namespace,
	).Patch(ctx, name, types.MergePatchType, body, metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}})
	return err == nil
}

// keylessPasses writes an empty key. The policy refuses it; if the policy does not, the webhook does.
func keylessPasses(ctx context.Context, t *testing.T) bool {
	t.Helper()
	_, err := as(t, "").CoreV1().Secrets(
		namespace,
	).Patch(ctx, name, types.MergePatchType, []byte(`{"data":{"tls.key":""}}`),
		metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}})
	return err == nil || strings.Contains(err.Error(), "admission webhook ")
}

// deletePasses is the same for a delete.
func deletePasses(ctx context.Context, t *testing.T) bool {
	t.Helper()
	err := as(t, "").CoreV1().Secrets(
		namespace,
	).Delete(ctx, name, metav1.DeleteOptions{DryRun: []string{metav1.DryRunAll}})
	return err == nil || strings.Contains(err.Error(), "admission webhook ")
}

// decoyPasses changes the decoy. The policy must refuse it.
func decoyPasses(ctx context.Context, t *testing.T) bool {
	t.Helper()
	_, err := as(t, "").CoreV1().Secrets(
		guardNamespace,
	).Patch(ctx, decoyName, types.MergePatchType, []byte(`{"immutable":true}`),
		metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}})
	return err == nil || strings.Contains(err.Error(), "admission webhook ")
}

// overridePasses writes an override that disables kubelet-https.
func overridePasses(ctx context.Context, t *testing.T) bool {
	t.Helper()
	body := []byte(`{"spec":{"unsupportedConfigOverrides":{"apiServerArguments":{"kubelet-https":["false"]}}}}`)
	_, err := kubeAPIServers(t, "").Patch(ctx, "cluster", types.MergePatchType, body,
		metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}})
	return err == nil
}

// set sets a field of an object or of a webhook.
func set(value any, path ...string) func(map[string]any) {
	return func(object map[string]any) {
		if err := unstructured.SetNestedField(object, value, path...); err != nil {
			panic(err) // an error in the test
		}
	}
}

// inWebhook changes the first webhook, for Secrets, or the second one, for overrides.
func inWebhook(i int, change func(map[string]any)) func(map[string]any) {
	return func(object map[string]any) {
		all, _ := object["webhooks"].([]any)
		webhook, _ := all[i].(map[string]any)
		change(webhook)
	}
}

// inFirst changes the first object of a list.
func inFirst(change func(map[string]any), path ...string) func(map[string]any) {
	return func(object map[string]any) {
		list, _, _ := unstructured.NestedSlice(object, path...)
		first, _ := list[0].(map[string]any)
		change(first)
		set(list, path...)(object)
	}
}

// variable replaces the expression of a variable.
func variable(name, expression string) func(map[string]any) {
	return func(object map[string]any) {
		all, _, _ := unstructured.NestedSlice(object, "spec", "variables")
		for _, item := range all {
			if v, _ := item.(map[string]any); v["name"] == name {
				v["expression"] = expression
			}
		}
		set(all, "spec", "variables")(object)
	}
}

// webhookRemoved removes one of the webhooks.
func webhookRemoved(i int) func(map[string]any) {
	return func(object map[string]any) {
		all, _ := object["webhooks"].([]any)
		object["webhooks"] = slices.Delete(slices.Clone(all), i, i+1)
	}
}

// neverMet adds a condition that is never met.
func neverMet(object map[string]any) {
	all, _ := object["matchConditions"].([]any)
	object["matchConditions"] = append(slices.Clone(all), map[string]any{"name": "never", "expression": "false"})
}

func inSpec(change func(map[string]any)) func(map[string]any) {
	return func(object map[string]any) {
		spec, _ := object["spec"].(map[string]any)
		change(spec)
	}
}

// all makes several changes.
func all(changes ...func(map[string]any)) func(map[string]any) {
	return func(object map[string]any) {
		for _, change := range changes {
			change(object)
		}
	}
}

// mutations is the table of all ways to disable the guard through its own objects. elsewhere is the
// URL of a webhook that allows everything.
func mutations(elsewhere string) map[string]mutation {
	selector := map[string]any{"matchLabels": map[string]any{"no-object": "has-it"}}
	secrets := map[string]any{
		"operations": []any{"*"}, "apiGroups": []any{""}, "apiVersions": []any{"v1"}, "resources": []any{"secrets"},
	}
	another := maps.Clone(secrets)
	another["resourceNames"] = []any{"another"}
	ofWebhook := func(change func(map[string]any)) mutation {
		return mutation{resource: webhooks, name: guardNamespace, change: inWebhook(0, change), passes: garbagePasses}
	}
	ofOverrides := func(change func(map[string]any)) mutation {
		return mutation{resource: webhooks, name: guardNamespace, change: inWebhook(1, change), passes: overridePasses}
	}
	ofPolicy := func(change func(map[string]any)) mutation {
		return mutation{resource: policies, name: servingPolicy, change: change, passes: keylessPasses}
	}
	ofBinding := func(change func(map[string]any)) mutation {
		return mutation{resource: bindings, name: servingPolicy, change: change, passes: keylessPasses}
	}
	rule := func(field string, values ...any) func(map[string]any) { return inFirst(set(values, field), "rules") }
	resourceRule := func(field string, values ...any) func(map[string]any) {
		return inFirst(set(values, field), "spec", "matchConstraints", "resourceRules")
	}
	ignored := ofWebhook(set("Ignore", "failurePolicy"))
	ignored.stop = true
	removed, overridesRemoved := ofWebhook(nil), ofOverrides(nil)
	removed.change, overridesRemoved.change = webhookRemoved(0), webhookRemoved(1)
	deletesPass := ofPolicy(func(object map[string]any) {
		validations, _, _ := unstructured.NestedSlice(object, "spec", "validations")
		set(validations[:1], "spec", "validations")(object)
	})
	deletesPass.passes = deletePasses
	decoy := ofBinding(set([]any{"Audit"}, "spec", "validationActions"))
	decoy.name, decoy.passes = decoyPolicy, decoyPasses
	return map[string]mutation{
		"the webhook gets CONNECT only":           ofWebhook(rule("operations", "CONNECT")),
		"the webhook gets new Secrets only":       ofWebhook(rule("operations", "CREATE")),
		"the webhook gets other resources":        ofWebhook(rule("resources", "configmaps")),
		"the webhook gets another group":          ofWebhook(rule("apiGroups", "example.com")),
		"the webhook gets another version":        ofWebhook(rule("apiVersions", "v2")),
		"the webhook gets cluster objects only":   ofWebhook(inFirst(set("Cluster", "scope"), "rules")),
		"the webhook gets other namespaces":       ofWebhook(set(selector, "namespaceSelector")),
		"the webhook gets labelled Secrets only":  ofWebhook(set(selector, "objectSelector")),
		"the webhook has an additional condition": ofWebhook(neverMet),
		"a condition of the webhook is changed": ofWebhook(inFirst(set("false", "expression"),
			"matchConditions")),
		"the webhook is down, and fails open":                   ignored,
		"the registration points to another webhook":            ofWebhook(set(elsewhere, "clientConfig", "url")),
		"the webhook is removed":                                removed,
		"the configuration is deleted":                          {resource: webhooks, name: guardNamespace, passes: garbagePasses},
		"the webhook for overrides is removed":                  overridesRemoved,
		"the webhook for overrides has an additional condition": ofOverrides(neverMet),
		"the webhook for overrides gets CREATE only":            ofOverrides(rule("operations", "CREATE")),

		"the policy applies to deletes only":    ofPolicy(resourceRule("operations", "DELETE")),
		"the policy applies to other resources": ofPolicy(resourceRule("resources", "configmaps")),
		"the policy applies to another group":   ofPolicy(resourceRule("apiGroups", "example.com")),
		"the policy applies to another version": ofPolicy(resourceRule("apiVersions", "v2")),
		"the policy applies to another name":    ofPolicy(resourceRule("resourceNames", "another")),
		"the policy applies to cluster objects only": ofPolicy(inFirst(set("Cluster", "scope"), "spec", "matchConstraints",
			"resourceRules")),
		"the policy applies to other namespaces": ofPolicy(set(selector, "spec", "matchConstraints",
			"namespaceSelector")),
		"the policy applies to labelled Secrets only": ofPolicy(set(selector, "spec", "matchConstraints",
			"objectSelector")),
		"the policy excludes Secrets":                    ofPolicy(set([]any{secrets}, "spec", "matchConstraints", "excludeResourceRules")),
		"the policy has an additional condition":         ofPolicy(inSpec(neverMet)),
		"the policy refuses nothing":                     ofPolicy(set([]any{map[string]any{"expression": "true"}}, "spec", "validations")),
		"the policy does not refuse deletes":             deletesPass,
		"a validation is weaker":                         ofPolicy(inFirst(set("variables.introduced.size() < 9", "expression"), "spec", "validations")),
		"a variable of the policy is empty":              ofPolicy(variable("introduced", "[]")),
		"the policy cannot be evaluated, and fails open": ofPolicy(all(set("Ignore", "spec", "failurePolicy"), variable("introduced", "object.nothing.like.this"))),
		"the policy is deleted":                          ofPolicy(nil),
		"the binding only audits":                        ofBinding(set([]any{"Audit"}, "spec", "validationActions")),
		"the binding only warns":                         ofBinding(set([]any{"Warn"}, "spec", "validationActions")),
		"the binding applies to labelled Secrets only": ofBinding(set(map[string]any{"objectSelector": selector},
			"spec", "matchResources")),
		"the binding applies to other namespaces": ofBinding(set(map[string]any{"namespaceSelector": selector},
			"spec", "matchResources")),
		"the binding applies to another name": ofBinding(set(map[string]any{"resourceRules": []any{another}},
			"spec", "matchResources")),
		"the binding excludes Secrets": ofBinding(set(map[string]any{"excludeResourceRules": []any{secrets}},
			"spec", "matchResources")),
		"the binding names another policy": ofBinding(set(decoyPolicy, "spec", "policyName")),
		"the binding is deleted":           ofBinding(nil),
		"the decoy's binding only audits":  decoy,
	}
}

// guardObjects is an administrator's client for objects of the guard.
func guardObjects(t *testing.T, group, resource string) dynamic.ResourceInterface {
	t.Helper()
	client, err := dynamic.NewForConfig(shared.config)
	if err != nil {
		t.Fatal(err)
	}
	return client.Resource(schema.GroupVersionResource{Group: group, Version: "v1", Resource: resource})
}

// change stores an object with a change, and returns a function that restores it.
func change(t *testing.T, objects dynamic.ResourceInterface, name string, change func(map[string]any)) (undo func()) {
	t.Helper()
	before, err := objects.Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if change == nil {
		err = objects.Delete(t.Context(), name, metav1.DeleteOptions{})
	} else {
		changed := before.DeepCopy()
		change(changed.Object)
		_, err = objects.Update(t.Context(), changed, metav1.UpdateOptions{})
	}
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		ctx, back := context.WithoutCancel(t.Context()), before.DeepCopy()
		now, err := objects.Get(ctx, name, metav1.GetOptions{})
		switch {
		case err == nil:
			back.SetResourceVersion(now.GetResourceVersion())
			_, err = objects.Update(ctx, back, metav1.UpdateOptions{})
		case apierrors.IsNotFound(err):
			back.SetResourceVersion("")
			back.SetUID("")
			_, err = objects.Create(ctx, back, metav1.CreateOptions{})
		}
		if err != nil {
			t.Errorf("restore it: %v", err)
		}
	}
}

// TestMutationOfTheGuard: a guard that was disabled by any field of its objects is not in force,
// within seconds. It is again when the object is restored.
func TestMutationOfTheGuard(t *testing.T) {
	soundCluster(t)
	for title, m := range mutations(allowAll(t)) {
		t.Run(title, func(t *testing.T) {
			objects := guardObjects(t, "admissionregistration.k8s.io", m.resource)
			if m.passes(t.Context(), t) {
				t.Fatal("the intact guard allows it")
			}
			undo := change(t, objects, m.name, m.change)
			if m.stop {
				if err := shared.rig.Webhook.Stop(); err != nil {
					t.Fatal(err)
				}
			}
			// Also after a failure: the other rows need the guard.
			t.Cleanup(func() {
				undo()
				if m.stop {
					if err := shared.rig.StartWebhook(context.WithoutCancel(t.Context())); err != nil {
						t.Fatal(err)
					}
				}
				// The context of the test has ended.
				ctx := context.WithoutCancel(t.Context())
				await(t, "the guard to refuse it", func() bool { return !m.passes(ctx, t) })
				awaitVerdict(t, "1")
			})
			await(t, "the mutation to take effect", func() bool { return m.passes(t.Context(), t) })
			changed := time.Now()
			awaitVerdict(t, "0")
			if took := time.Since(changed); took > 30*time.Second {
				t.Errorf("the finding came after %s", took)
			}
			kind := map[string]string{webhooks: "ValidatingWebhookConfiguration", policies: "ValidatingAdmissionPolicy",
				bindings: "ValidatingAdmissionPolicyBinding"}[m.resource]
			reason := "GuardIneffective"
			if m.change == nil {
				reason = "GuardMissing"
			}
			if found := active(t); !slices.Contains(found, reason+" "+kind+" "+m.name) {
				t.Errorf("found: %q", found)
			}
		})
	}
}

// allowAll serves a webhook that allows everything, with a certificate that the API server trusts, and
// returns its URL.
func allowAll(t *testing.T) string {
	t.Helper()
	pair := shared.rig.IssueServing(time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
	certificate, err := tls.X509KeyPair(pair.Certificate, pair.Key)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var review struct {
			Request struct {
				UID string `json:"uid"`
			} `json:"request"`
		}
		if json.NewDecoder(r.Body).Decode(&review) == nil {
			w.Header().Set("Content-Type", "application/json")
			_, _ = fmt.Fprintf(w,
				`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":{"uid":%q,"allowed":true}}`,
				review.Request.UID)
		}
	}))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12}
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return "https://127.0.0.1:" + port + "/validate"
}

// TestMutationOfTheActivation: API servers call the webhook if its ServiceAccount has a permission. The
// audit reports it if this permission is removed.
func TestMutationOfTheActivation(t *testing.T) {
	soundCluster(t)
	const activation, group = "kubelet-https-guard-answers", "rbac.authorization.k8s.io"
	installed, err := shared.rig.RenderActivation(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	guard := filepath.Join(t.TempDir(), "guard.yaml")
	if err := os.WriteFile(guard, []byte(installed), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := shared.rig.KubectlInput(t.Context(), installed, "apply", "-f", "-"); r.Code != 0 {
		t.Fatal(r.Output)
	}
	t.Cleanup(func() { shared.rig.KubectlInput(context.WithoutCancel(t.Context()), installed, "delete", "-f", "-") })
	auditOnce := func(t *testing.T) (code int, found string) {
		t.Helper()
		r := shared.rig.AuditOnce(t.Context(), "--kubeconfig", shared.rig.Kubeconfig, "-o", "json", "--config",
			shared.rig.Path("webhook", "config.yaml"), "--guard-manifest", guard)
		var d auditDocument
		if err := json.Unmarshal([]byte(r.Output), &d); err != nil {
			t.Fatalf("%v\n%s", err, r.Output)
		}
		var all []string
		for _, f := range d.Findings {
			all = append(all, f.Reason+" "+f.Location)
		}
		return r.Code, strings.Join(all, ", ")
	}
	if code, found := auditOnce(t); code != 0 || found != "" {
		t.Fatalf("as installed: exit code %d, %s", code, found)
	}
	const role, binding = "clusterroles", "clusterrolebindings"
	cases := map[string]struct {
		resource string
		change   func(map[string]any)
		want     string
	}{
		"no subject": {binding, func(o map[string]any) { delete(o, "subjects") }, "GuardIneffective ClusterRoleBinding " + activation},
		"another subject": {
			binding, inFirst(set("somebody", "name"), "subjects"), "GuardIneffective ClusterRoleBinding " + activation,
		},
		"no binding":       {binding, nil, "GuardMissing ClusterRoleBinding " + activation},
		"no rules":         {role, func(o map[string]any) { o["rules"] = []any{} }, "GuardIneffective ClusterRole " + activation},
		"another verb":     {role, inFirst(set([]any{"ask"}, "verbs"), "rules"), "GuardIneffective ClusterRole " + activation},
		"another resource": {role, inFirst(set([]any{"admission"}, "resources"), "rules"), "GuardIneffective ClusterRole " + activation},
		"no role":          {role, nil, "GuardMissing ClusterRole " + activation},
	}
	for title, c := range cases {
		t.Run(title, func(t *testing.T) {
			undo := change(t, guardObjects(t, group, c.resource), activation, c.change)
			code, found := auditOnce(t)
			undo()
			if d := cmp.Diff([]any{1, c.want}, []any{code, found}); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
	if code, found := auditOnce(t); code != 0 || found != "" {
		t.Errorf("after it is restored: exit code %d, %s", code, found)
	}
}

// TestDecoy: what people and tools do with the decoy Secret.
func TestDecoy(t *testing.T) {
	soundCluster(t)
	kubectl := func(input string, args ...string) {
		t.Helper()
		if r := shared.rig.KubectlInput(t.Context(), input, append([]string{"--namespace", guardNamespace},
			args...)...); r.Code != 0 {
			t.Fatalf("kubectl %s: %s", strings.Join(args, " "), r.Output)
		}
	}
	decoy := shared.rig.KubectlCommand(t.Context(),
		"get", "secret", "--namespace", guardNamespace, decoyName, "-o", "yaml", "--show-managed-fields=false").Output
	var fresh []string
	for line := range strings.Lines(decoy) {
		if field := strings.TrimSpace(line); !strings.HasPrefix(field, "uid:") &&
			!strings.HasPrefix(field, "resourceVersion:") &&
			!strings.HasPrefix(field, "creationTimestamp:") {
			fresh = append(fresh, line)
		}
	}
	manifest := strings.Join(fresh, "")
	mustBeProven := func(t *testing.T) {
		t.Helper()
		if code, lines := prove(t); code != 0 || len(lines) != 2 {
			t.Errorf("webhook prove: exit code %d, output:\n%s", code, strings.Join(lines, "\n"))
		}
	}

	t.Run("its refusals are not reported", func(t *testing.T) {
		decided := func() []string {
			return slices.DeleteFunc(metrics(t, shared.webhookMetrics),
				func(line string) bool { return !strings.HasPrefix(line, "kubelet_https_guard_admission_total") })
		}
		before := decided()
		mustBeProven(t)
		if d := cmp.Diff(before, decided()); d != "" {
			t.Errorf("the webhook counted the refusal (-before +after):\n%s", d)
		}
		events, err := as(t, "").EventsV1().Events(guardNamespace).List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if i := slices.IndexFunc(events.Items, func(e eventsv1.Event) bool {
			// Findings of the audit about it or its policy are not meant here.
			return e.Action == "Deny" && (e.Regarding.Name == decoyName || strings.Contains(e.Note, decoyName))
		}); i >= 0 {
			t.Errorf("there is an Event about the decoy: %+v", events.Items[i])
		}
		log, err := os.ReadFile(shared.rig.Path("webhook.log"))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(log), decoyName) {
			t.Error("the webhook's log names the decoy")
		}
		awaitVerdict(t, "1")
	})
	t.Run("it is labelled and annotated", func(t *testing.T) {
		kubectl("", "label", "secret", decoyName, "--overwrite", "app.kubernetes.io/managed-by=somebody", "mine=yes",
			"app.kubernetes.io/component-")
		kubectl("", "annotate", "secret", decoyName, "mine=yes")
		mustBeProven(t)
		restartAudit(t)
		awaitVerdict(t, "1")
	})
	t.Run("it is applied again", func(t *testing.T) {
		kubectl(manifest, "apply", "-f", "-")
		kubectl(manifest, "apply", "--server-side", "--force-conflicts", "-f", "-")
		mustBeProven(t)
	})
	t.Run("it is deleted and created", func(t *testing.T) {
		kubectl("", "delete", "secret", decoyName)
		code, lines := prove(t)
		if code != 2 || len(lines) != 2 || !strings.Contains(lines[0], "unknown") || !strings.Contains(lines[0], "decoy") {
			t.Errorf("webhook prove: exit code %d, output:\n%s", code, strings.Join(lines, "\n"))
		}
		restartAudit(t)
		awaitVerdict(t, "0")
		await(t, "the finding that names the decoy", func() bool {
			return cmp.Equal([]string{"Unreadable Secret " + guardNamespace + "/" + decoyName}, active(t))
		})
		kubectl(manifest, "create", "-f", "-")
		mustBeProven(t)
		awaitVerdict(t, "1")
	})
	t.Run("all Secrets are deleted", func(t *testing.T) {
		if err := as(t, "").CoreV1().Secrets(guardNamespace).DeleteCollection(t.Context(), metav1.DeleteOptions{},
			metav1.ListOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := as(t, "").CoreV1().Secrets(guardNamespace).Get(t.Context(), decoyName,
			metav1.GetOptions{}); !apierrors.IsNotFound(
			err,
		) {
			t.Errorf("the decoy still exists: %v", err)
		}
		// With other contents, as from an unrelated backup.
		other := &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: guardNamespace, Name: decoyName},
			Type:       corev1.SecretTypeOpaque,
			Immutable:  new(true),
		}
		if _, err := as(t, "").CoreV1().Secrets(guardNamespace).Create(t.Context(), other,
			metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		if code, lines := prove(t); code != 1 && code != 2 {
			t.Errorf("webhook prove with other contents: exit code %d, output:\n%s", code, strings.Join(lines, "\n"))
		}
		kubectl("", "delete", "secret", decoyName)
		kubectl(manifest, "apply", "-f", "-")
		mustBeProven(t)
	})
}
