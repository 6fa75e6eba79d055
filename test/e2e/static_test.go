// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/openshift"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/rig"
)

const (
	registrationGroup, rbacGroup = "admissionregistration.k8s.io", "rbac.authorization.k8s.io"
	clusterRoles, roleBindings   = "clusterroles", "clusterrolebindings"
	gateName                     = "kubelet-https-guard-answers"
	webhookAccount               = "system:serviceaccount:" + guardNamespace + ":kubelet-https-guard-webhook"

	// bySelfProtection and byStaticFloor are in refusals by static policies.
	bySelfProtection = "ValidatingAdmissionPolicy 'kubelet-https-guard-self-protection.static.k8s.io'"
	byStaticFloor    = "ValidatingAdmissionPolicy 'kubelet-https-guard.openshift-"
)

// staticPolicies writes static policies into a new directory, with additional flags.
func staticPolicies(t *testing.T, flags ...string) (directory string) {
	t.Helper()
	directory = filepath.Join(t.TempDir(), "policies")
	if err := os.Mkdir(directory, 0o700); err != nil {
		t.Fatal(err)
	}
	flags = append([]string{"--static", "--directory", directory}, flags...)
	if r := shared.rig.Policy(t.Context(), flags...); r.Code != 0 {
		t.Fatalf("webhook policy --static: %s", r.Output)
	}
	return directory
}

// withStaticPolicies starts an API server that reads static policies from a directory, and makes all clients of the
// test use it.
func withStaticPolicies(t *testing.T, directory string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "admission.yaml")
	if err := os.WriteFile(file, []byte(admissionConfiguration(directory)), 0o600); err != nil {
		t.Fatal(err)
	}
	address, stop, err := shared.rig.JoinAPIServer(context.WithoutCancel(t.Context()),
		"--admission-control-config-file="+file)
	if err != nil {
		t.Fatal(err)
	}
	ordinary := shared.config
	shared.config = rest.CopyConfig(ordinary)
	shared.config.Host = "https://" + address
	t.Cleanup(func() {
		shared.config = ordinary
		if err := stop(); err != nil {
			t.Errorf("stop the API server at %s: %v", address, err)
		}
	})
}

// admissionConfiguration is the file of --admission-control-config-file, as docs/static-policies.md has it.
func admissionConfiguration(directory string) string {
	return fmt.Sprintf(`apiVersion: apiserver.config.k8s.io/v1
kind: AdmissionConfiguration
plugins:
- name: ValidatingAdmissionPolicy
  configuration:
    apiVersion: apiserver.config.k8s.io/v1
    kind: ValidatingAdmissionPolicyConfiguration
    staticManifestsDir: %s
`, directory)
}

// installGate applies the objects that activate a webhook in the cluster, as while it is active.
func installGate(t *testing.T) {
	t.Helper()
	gate, err := shared.rig.RenderActivation(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if r := shared.rig.KubectlInput(t.Context(), gate, "apply", "-f", "-"); r.Code != 0 {
		t.Fatal(r.Output)
	}
	t.Cleanup(func() { shared.rig.KubectlInput(context.WithoutCancel(t.Context()), gate, "delete", "-f", "-") })
}

// objectWrite is something that an administrator does with objects of the guard.
type objectWrite func(context.Context, dynamic.Interface) error

// removal is a way to remove the guard, or a part of it, by writing its objects.
type removal struct {
	do objectWrite
	// found is reason and location of what the audit reports after it.
	found string
}

func in(client dynamic.Interface, resource string) dynamic.ResourceInterface {
	group := registrationGroup
	if resource == clusterRoles || resource == roleBindings {
		group = rbacGroup
	}
	return client.Resource(schema.GroupVersionResource{Group: group, Version: "v1", Resource: resource})
}

// changing writes the whole object with a change.
func changing(resource, name string, change func(map[string]any)) objectWrite {
	return func(ctx context.Context, c dynamic.Interface) error {
		object, err := in(c, resource).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		change(object.Object)
		_, err = in(c, resource).Update(ctx, object, metav1.UpdateOptions{})
		return err
	}
}

func patching(resource, name string, kind types.PatchType, body string) objectWrite {
	return func(ctx context.Context, c dynamic.Interface) error {
		options := metav1.PatchOptions{}
		if kind == types.ApplyPatchType {
			options = metav1.PatchOptions{FieldManager: "mallory", Force: new(true)}
		}
		_, err := in(c, resource).Patch(ctx, name, kind, []byte(body), options)
		return err
	}
}

func deleting(resource, name string, options metav1.DeleteOptions) objectWrite {
	return func(ctx context.Context, c dynamic.Interface) error {
		return in(c, resource).Delete(ctx, name, options)
	}
}

func deletingAll(resource, labels, fields string) objectWrite {
	return func(ctx context.Context, c dynamic.Interface) error {
		return in(c, resource).DeleteCollection(ctx, metav1.DeleteOptions{},
			metav1.ListOptions{LabelSelector: labels, FieldSelector: fields})
	}
}

// inOrder makes one write after the other, up to the first error.
func inOrder(writes ...objectWrite) objectWrite {
	return func(ctx context.Context, c dynamic.Interface) error {
		for _, do := range writes {
			if err := do(ctx, c); err != nil {
				return err
			}
		}
		return nil
	}
}

// removals is a table of ways to remove the guard. [mutations] has more, one for each field.
func removals() map[string]removal {
	const (
		ours      = "app.kubernetes.io/name=kubelet-https-guard"
		gone      = "GuardMissing "
		weak      = "GuardIneffective "
		hook      = "ValidatingWebhookConfiguration " + guardNamespace
		policy    = "ValidatingAdmissionPolicy " + servingPolicy
		binding   = "ValidatingAdmissionPolicyBinding " + servingPolicy
		role      = "ClusterRole " + gateName
		gate      = "ClusterRoleBinding " + gateName
		relabel   = `{"metadata":{"labels":{"doomed":"yes"}}}`
		noPolicy  = `{"spec":{"validations":[{"expression":"true"}]}}`
		auditOnly = `{"spec":{"validationActions":["Audit"]}}`
	)
	foreground, orphan := metav1.DeletePropagationForeground, metav1.DeletePropagationOrphan
	ofWebhook := func(change func(map[string]any)) objectWrite {
		return changing(webhooks, guardNamespace, inWebhook(0, change))
	}
	none := metav1.DeleteOptions{}
	return map[string]removal{
		"delete the webhook configuration":            {deleting(webhooks, guardNamespace, none), gone + hook},
		"delete it, with grace period 0":              {deleting(webhooks, guardNamespace, metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))}), gone + hook},
		"delete it, leaving orphans":                  {collected(webhooks, guardNamespace, orphan), gone + hook},
		"delete all webhook configurations":           {deletingAll(webhooks, "", ""), gone + hook},
		"delete webhook configurations by label":      {deletingAll(webhooks, ours, ""), gone + hook},
		"delete webhook configurations by name field": {deletingAll(webhooks, "", "metadata.name="+guardNamespace), gone + hook},
		"relabel the webhook configuration, then delete by that label": {inOrder(
			patching(webhooks, guardNamespace, types.MergePatchType, relabel),
			deletingAll(webhooks, "doomed=yes", "")), gone + hook},
		"remove the webhook's labels, then delete the webhook": {inOrder(
			changing(webhooks, guardNamespace, set(map[string]any{}, "metadata", "labels")),
			deleting(webhooks, guardNamespace, none)), gone + hook},
		"webhook: failurePolicy Ignore":     {ofWebhook(set("Ignore", "failurePolicy")), weak + hook},
		"webhook: no operations but CREATE": {ofWebhook(inFirst(set([]any{"CREATE"}, "operations"), "rules")), weak + hook},
		"webhook: another namespace": {ofWebhook(set(map[string]any{"matchLabels": map[string]any{"a": "b"}},
			"namespaceSelector")), weak + hook},
		"webhook: only labelled Secrets": {ofWebhook(set(map[string]any{"matchLabels": map[string]any{"a": "b"}},
			"objectSelector")), weak + hook},
		"webhook: another URL": {ofWebhook(set("https://127.0.0.1:1/allow", "clientConfig", "url")), weak + hook},
		"webhook: a condition that is never true": {ofWebhook(func(w map[string]any) {
			all, _ := w["matchConditions"].([]any)
			w["matchConditions"] = append(all, map[string]any{"name": "never", "expression": "false"})
		}), weak + hook},
		"webhook: CA bundle and failurePolicy at once": {ofWebhook(func(w map[string]any) {
			w["failurePolicy"] = "Ignore"
			set(base64Of(shared.ca.PEM()), "clientConfig", "caBundle")(w)
		}), weak + hook},
		"webhooks: none left": {patching(webhooks, guardNamespace, types.MergePatchType, `{"webhooks":[]}`), weak + hook},
		"webhooks: one replaced by one of another name": {ofWebhook(func(w map[string]any) {
			w["name"], w["failurePolicy"] = "other.example.com", "Ignore"
		}), weak + hook},
		"webhooks, by JSON patch": {patching(webhooks, guardNamespace, types.JSONPatchType,
			`[{"op":"replace","path":"/webhooks/0/failurePolicy","value":"Ignore"}]`), weak + hook},
		"webhooks, by strategic merge patch": {patching(webhooks, guardNamespace, types.StrategicMergePatchType,
			`{"webhooks":[{"name":"secrets.kubelet-https-guard.io","failurePolicy":"Ignore"}]}`), weak + hook},
		"webhooks, by server-side apply": {patching(webhooks, guardNamespace, types.ApplyPatchType,
			`{"apiVersion":"admissionregistration.k8s.io/v1","kind":"ValidatingWebhookConfiguration","metadata":{"name":"kubelet-https-guard"},`+
				`"webhooks":[{"name":"secrets.kubelet-https-guard.io","failurePolicy":"Ignore","clientConfig":{"url":"https://127.0.0.1:1/"},`+
				`"sideEffects":"None","admissionReviewVersions":["v1"]}]}`), weak + hook},

		"delete a policy":                           {deleting(policies, servingPolicy, none), gone + policy},
		"delete a policy, leaving orphans":          {collected(policies, servingPolicy, orphan), gone + policy},
		"delete all policies":                       {deletingAll(policies, "", ""), gone + policy},
		"delete policies by label":                  {deletingAll(policies, ours, ""), gone + policy},
		"relabel a policy, then delete by label":    {inOrder(patching(policies, servingPolicy, types.MergePatchType, relabel), deletingAll(policies, "doomed=yes", "")), gone + policy},
		"a policy that refuses nothing":             {patching(policies, servingPolicy, types.MergePatchType, noPolicy), weak + policy},
		"a policy that fails open":                  {patching(policies, servingPolicy, types.MergePatchType, `{"spec":{"failurePolicy":"Ignore"}}`), weak + policy},
		"a policy that matches no Secret":           {changing(policies, servingPolicy, inFirst(set([]any{"configmaps"}, "resources"), "spec", "matchConstraints", "resourceRules")), weak + policy},
		"delete a binding":                          {deleting(bindings, servingPolicy, none), gone + binding},
		"delete all bindings":                       {deletingAll(bindings, "", ""), gone + binding},
		"delete bindings by label":                  {deletingAll(bindings, ours, ""), gone + binding},
		"relabel a binding, then delete by label":   {inOrder(patching(bindings, servingPolicy, types.MergePatchType, relabel), deletingAll(bindings, "doomed=yes", "")), gone + binding},
		"a binding that only audits":                {patching(bindings, servingPolicy, types.MergePatchType, auditOnly), weak + binding},
		"a binding of another policy":               {patching(bindings, servingPolicy, types.MergePatchType, fmt.Sprintf(`{"spec":{"policyName":%q}}`, decoyPolicy)), weak + binding},
		"a binding for labelled Secrets":            {patching(bindings, servingPolicy, types.MergePatchType, `{"spec":{"matchResources":{"objectSelector":{"matchLabels":{"a":"b"}}}}}`), weak + binding},
		"delete the gate's role":                    {deleting(clusterRoles, gateName, none), gone + role},
		"delete the gate's role in the foreground":  {collected(clusterRoles, gateName, foreground), gone + role},
		"delete cluster roles by label":             {deletingAll(clusterRoles, ours, ""), gone + role},
		"the gate's role without rules":             {patching(clusterRoles, gateName, types.MergePatchType, `{"rules":[]}`), weak + role},
		"the gate's role aggregates other roles":    {patching(clusterRoles, gateName, types.MergePatchType, `{"rules":[],"aggregationRule":{"clusterRoleSelectors":[{"matchLabels":{"a":"b"}}]}}`), weak + role},
		"delete the gate's binding":                 {deleting(roleBindings, gateName, none), gone + gate},
		"delete cluster role bindings by label":     {deletingAll(roleBindings, ours, ""), gone + gate},
		"the gate's binding without subjects":       {patching(roleBindings, gateName, types.MergePatchType, `{"subjects":null}`), weak + gate},
		"the gate's binding with another subject":   {patching(roleBindings, gateName, types.MergePatchType, `{"subjects":[{"kind":"Group","apiGroup":"rbac.authorization.k8s.io","name":"nobody"}]}`), weak + gate},
		"the gate's binding deleted, and recreated": {inOrder(deleting(roleBindings, gateName, none), creatingBinding), weak + gate},
	}
}

// collected does what the garbage collector does after a delete in the foreground, or one that leaves orphans. The
// collector does not run here.
func collected(resource, name string, how metav1.DeletionPropagation) objectWrite {
	return inOrder(deleting(resource, name, metav1.DeleteOptions{PropagationPolicy: &how}),
		patching(resource, name, types.MergePatchType, `{"metadata":{"finalizers":null}}`))
}

// creatingBinding creates the gate's binding without subjects.
func creatingBinding(ctx context.Context, c dynamic.Interface) error {
	binding := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
		"metadata": map[string]any{"name": gateName},
		"roleRef":  map[string]any{"apiGroup": rbacGroup, "kind": "ClusterRole", "name": gateName},
	}}
	_, err := in(c, roleBindings).Create(ctx, binding, metav1.CreateOptions{})
	return err
}

// guardObject is an object of the guard, by its resource.
type guardObject struct {
	resource string
	object   unstructured.Unstructured
}

// objectsOfTheGuard reads all objects that the removals can change. Other objects of these resources that a removal
// deletes are among them.
func objectsOfTheGuard(ctx context.Context, t *testing.T, client dynamic.Interface) []guardObject {
	t.Helper()
	var all []guardObject
	for _, resource := range []string{webhooks, policies, bindings, clusterRoles, roleBindings} {
		options := metav1.ListOptions{}
		if resource == clusterRoles || resource == roleBindings {
			options.LabelSelector = "app.kubernetes.io/name=kubelet-https-guard"
		}
		list, err := in(client, resource).List(ctx, options)
		if err != nil {
			t.Fatal(err)
		}
		for _, item := range list.Items {
			all = append(all, guardObject{resource, item})
		}
	}
	return all
}

// restore makes the objects what they were.
func restore(ctx context.Context, t *testing.T, client dynamic.Interface, before []guardObject) {
	t.Helper()
	for _, o := range before {
		name := o.object.GetName()
		now, err := in(client, o.resource).Get(ctx, name, metav1.GetOptions{})
		back := o.object.DeepCopy()
		switch {
		case err == nil && now.GetResourceVersion() == back.GetResourceVersion():
			continue
		case err == nil:
			back.SetResourceVersion(now.GetResourceVersion())
			back.SetUID(now.GetUID())
			_, err = in(client, o.resource).Update(ctx, back, metav1.UpdateOptions{})
		case apierrors.IsNotFound(err):
			back.SetResourceVersion("")
			back.SetUID("")
			_, err = in(client, o.resource).Create(ctx, back, metav1.CreateOptions{})
		}
		if err != nil {
			t.Fatalf("restore %s %s: %v", o.resource, name, err)
		}
	}
}

func dynamicClient(t *testing.T, user string) dynamic.Interface {
	t.Helper()
	config := rest.CopyConfig(shared.config)
	config.Impersonate.UserName, config.WarningHandler = user, rest.NoWarnings{}
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// TestRemovalIsReported: without static policies, each way to remove the guard works, and the audit reports it.
func TestRemovalIsReported(t *testing.T) {
	soundCluster(t)
	installGate(t)
	client := dynamicClient(t, "")
	before := objectsOfTheGuard(t.Context(), t, client)
	guard := guardManifest(t)
	reported := map[string]bool{}
	for title, r := range removals() {
		t.Run(title, func(t *testing.T) {
			t.Cleanup(func() { restore(context.WithoutCancel(t.Context()), t, client, before) })
			if err := r.do(t.Context(), client); err != nil {
				t.Fatalf("refused: %v", err)
			}
			if reported[r.found] && isGone(t, client, r.found) {
				return // an audit takes seconds, and reported a missing object before
			}
			code, found := auditGuardOnce(t, guard)
			reported[r.found] = true
			if code != 1 || !slices.Contains(found, r.found) {
				t.Errorf("exit code %d, found %q, want %q", code, found, r.found)
			}
		})
	}
	if code, found := auditGuardOnce(t, guard); code != 0 || len(found) > 0 {
		t.Errorf("after all were restored: exit code %d, found %q", code, found)
	}
}

// isGone reports whether a finding is about a missing object, and it is missing.
func isGone(t *testing.T, client dynamic.Interface, found string) bool {
	t.Helper()
	parts := strings.Split(found, " ")
	if parts[0] != "GuardMissing" {
		return false
	}
	resource := map[string]string{"ValidatingAdmissionPolicy": policies}[parts[1]]
	if resource == "" {
		resource = strings.ToLower(parts[1]) + "s"
	}
	_, err := in(client, resource).Get(t.Context(), parts[2], metav1.GetOptions{})
	if !apierrors.IsNotFound(err) {
		t.Errorf("%s %s is not missing: %v", resource, parts[2], err)
	}
	return true
}

// guardManifest is a file with all objects of the guard as they were installed.
func guardManifest(t *testing.T) string {
	t.Helper()
	installed, err := os.ReadFile(shared.rig.Path("webhook", "guard.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	gate, err := shared.rig.RenderActivation(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "guard.yaml")
	if err := os.WriteFile(path, append(installed, []byte("\n---\n"+gate)...), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// auditGuardOnce returns the exit code of an audit, and reason and location of its findings.
func auditGuardOnce(t *testing.T, guard string) (code int, found []string) {
	t.Helper()
	r := shared.rig.AuditOnce(t.Context(), "--kubeconfig", shared.rig.Kubeconfig, "-o", "json", "--config",
		shared.rig.Path("webhook", "config.yaml"), "--guard-manifest", guard)
	var d auditDocument
	if err := json.Unmarshal([]byte(r.Output), &d); err != nil {
		t.Fatalf("%v\n%s", err, r.Output)
	}
	for _, f := range d.Findings {
		found = append(found, f.Reason+" "+f.Location)
	}
	return r.Code, found
}

// TestStaticPolicies: with static policies, a cluster administrator cannot remove the guard by writing its objects, and
// what the guard itself and other controllers need still works.
func TestStaticPolicies(t *testing.T) {
	soundCluster(t)
	installGate(t)
	directory := staticPolicies(t)
	withStaticPolicies(t, directory)
	client := dynamicClient(t, "")
	before := objectsOfTheGuard(t.Context(), t, client)
	refused := func(t *testing.T, err error) {
		t.Helper()
		mustContain(t, err, bySelfProtection, "[kubelet-https-guard/policy]", "control guard-in-force")
	}

	all := map[string]objectWrite{}
	for title, r := range removals() {
		all["removal/"+title] = r.do
	}
	for title, m := range mutations("https://127.0.0.1:1/allow") {
		if m.change == nil {
			all["mutation/"+title] = deleting(m.resource, m.name, metav1.DeleteOptions{})
		} else {
			all["mutation/"+title] = changing(m.resource, m.name, m.change)
		}
	}
	// Alone, these disable nothing, but they prepare it.
	for _, o := range before {
		if !strings.HasPrefix(o.object.GetName(), guardNamespace) || strings.Contains(o.resource, "cluster") &&
			o.object.GetName() != gateName {
			continue
		}
		for field, value := range map[string]string{
			"labels": `{"app.kubernetes.io/name":null}`, "annotations": `{"a":"b"}`, "finalizers": `["example.com/mine"]`,
			"ownerReferences": `[{"apiVersion":"v1","kind":"ConfigMap","name":"absent","uid":"x"}]`,
		} {
			all[fmt.Sprintf("metadata/%s of %s %s", field, o.resource, o.object.GetName())] = patching(o.resource,
				o.object.GetName(), types.MergePatchType, fmt.Sprintf(`{"metadata":{%q:%s}}`, field, value))
		}
	}
	for title, do := range all {
		t.Run(title, func(t *testing.T) { refused(t, do(t.Context(), client)) })
	}
	t.Run("nothing of it was changed", func(t *testing.T) {
		for _, o := range before {
			now, err := in(client, o.resource).Get(t.Context(), o.object.GetName(), metav1.GetOptions{})
			if err != nil || now.GetResourceVersion() != o.object.GetResourceVersion() {
				t.Errorf("%s %s was changed: %v", o.resource, o.object.GetName(), err)
			}
		}
	})

	bundle := func(value []byte) func(map[string]any) {
		return set(base64Of(value), "clientConfig", "caBundle")
	}
	original := shared.rig.CABundle()
	t.Run("the CA bundle is renewed", func(t *testing.T) {
		for _, value := range [][]byte{slices.Concat(original, shared.ca.PEM()), original} {
			if err := changing(webhooks, guardNamespace, inWebhook(0, bundle(value)))(t.Context(), client); err != nil {
				t.Error(err)
			}
			body := fmt.Sprintf(`[{"op":"replace","path":"/webhooks/1/clientConfig/caBundle","value":%q}]`, base64Of(value))
			if err := patching(webhooks, guardNamespace, types.JSONPatchType, body)(t.Context(), client); err != nil {
				t.Error(err)
			}
		}
	})
	t.Run("what is there is applied again", func(t *testing.T) {
		for _, o := range before {
			if strings.Contains(o.resource, "cluster") && o.object.GetName() != gateName {
				continue
			}
			again := o.object.DeepCopy()
			again.SetManagedFields(nil)
			again.SetResourceVersion("")
			if _, err := in(client, o.resource).Apply(t.Context(), again.GetName(), again,
				metav1.ApplyOptions{FieldManager: "gitops", Force: true}); err != nil {
				t.Errorf("server-side apply of %s %s: %v", o.resource, again.GetName(), err)
			}
			if err := changing(o.resource, again.GetName(), func(map[string]any) {})(t.Context(), client); err != nil {
				t.Errorf("update of %s %s: %v", o.resource, again.GetName(), err)
			}
		}
	})
	t.Run("objects of other names are not protected", func(t *testing.T) {
		other := &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
			"metadata": map[string]any{"name": gateName + "-of-others"},
		}}
		if _, err := in(client, clusterRoles).Create(t.Context(), other, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := deleting(clusterRoles, other.GetName(), metav1.DeleteOptions{})(t.Context(), client); err != nil {
			t.Error(err)
		}
	})
	t.Run("the webhook activates itself", func(t *testing.T) { testActivation(t, client) })
	t.Run("names of static policies are refused in the API", func(t *testing.T) {
		static := &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
			"metadata": map[string]any{"name": "kubelet-https-guard-self-protection.static.k8s.io"},
			"spec":     map[string]any{"policyName": servingPolicy, "validationActions": []any{"Audit"}},
		}}
		_, err := in(client, bindings).Create(t.Context(), static, metav1.CreateOptions{})
		mustContain(t, err, "static.k8s.io")
	})
	testDirectory(t, directory, client)
}

// testActivation: the webhook's ServiceAccount can add itself to the gate, and nothing else.
func testActivation(t *testing.T, client dynamic.Interface) {
	t.Helper()
	itself := map[string]any{
		"kind": rbacv1.ServiceAccountKind, "namespace": guardNamespace, "name": "kubelet-https-guard-webhook",
	}
	as := dynamicClient(t, webhookAccount)
	allowGate(t, webhookAccount)
	// The gate as installed, without subjects. Another API server has no static policies.
	if r := shared.rig.KubectlCommand(t.Context(), "patch", "clusterrolebinding", gateName, "--type=merge",
		"--patch", `{"subjects":null}`); r.Code != 0 {
		t.Fatal(r.Output)
	}
	subjects := func(all ...any) func(map[string]any) {
		return func(o map[string]any) { o["subjects"] = all }
	}
	somebody := map[string]any{"kind": "User", "apiGroup": rbacGroup, "name": "somebody"}
	await(t, "the API server to know the gate without subjects", func() bool {
		now, err := in(client, roleBindings).Get(t.Context(), gateName, metav1.GetOptions{})
		return err == nil && now.Object["subjects"] == nil
	})
	for _, c := range []struct {
		title   string
		client  dynamic.Interface
		change  func(map[string]any)
		refused bool
	}{
		{"an administrator adds it", client, subjects(itself), true},
		{"it adds somebody else", as, subjects(somebody), true},
		{"it adds itself and a label", as, func(o map[string]any) {
			subjects(itself)(o)
			set("b", "metadata", "labels", "a")(o)
		}, true},
		{"it adds itself", as, subjects(itself), false},
		{"it removes itself", as, subjects(), true},
		{"it is replaced", as, subjects(somebody), true},
		{"an administrator removes it", client, subjects(), true},
	} {
		err := changing(roleBindings, gateName, c.change)(t.Context(), c.client)
		switch {
		case c.refused:
			mustContain(t, err, bySelfProtection)
		case err != nil:
			t.Errorf("%s: %v", c.title, err)
		}
	}
}

// allowGate lets a user do what the chart lets the webhook do with the gate, and grant the gate's permission.
func allowGate(t *testing.T, user string) {
	t.Helper()
	object := fmt.Sprintf(`apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: e2e-gate}
rules:
- {apiGroups: [rbac.authorization.k8s.io], resources: [clusterrolebindings], verbs: [get, update]}
- {apiGroups: [rbac.authorization.k8s.io], resources: [clusterroles], verbs: [bind]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: e2e-gate}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: e2e-gate}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: %q}]
`, user)
	if r := shared.rig.KubectlInput(t.Context(), object, "apply", "-f", "-"); r.Code != 0 {
		t.Fatal(r.Output)
	}
	t.Cleanup(func() { shared.rig.KubectlInput(context.WithoutCancel(t.Context()), object, "delete", "-f", "-") })
	client := dynamicClient(t, user)
	await(t, "the permission of "+user, func() bool {
		_, err := in(client, roleBindings).Get(t.Context(), gateName, metav1.GetOptions{})
		return err == nil
	})
}

// testDirectory: what changes of the directory do while the API server runs, and how the guard is changed on purpose.
func testDirectory(t *testing.T, directory string, client dynamic.Interface) {
	t.Helper()
	path := filepath.Join(directory, "kubelet-https-guard.yaml")
	// A dry run: the object stays for the other tests.
	protected := func() bool {
		dryRun := metav1.DeleteOptions{DryRun: []string{metav1.DryRunAll}}
		err := deleting(webhooks, guardNamespace, dryRun)(t.Context(), client)
		if err != nil && !strings.Contains(err.Error(), bySelfProtection) {
			t.Fatalf("another error: %v", err)
		}
		return err != nil
	}
	rewrite := func(t *testing.T, flags ...string) {
		t.Helper()
		flags = append([]string{"--static", "--directory", directory}, flags...)
		if r := shared.rig.Policy(t.Context(), flags...); r.Code != 0 {
			t.Fatalf("webhook policy --static: %s", r.Output)
		}
	}
	original, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}

	t.Run("written again, it is the same", func(t *testing.T) {
		rewrite(t)
		again, err := os.ReadFile(path)
		if err != nil || string(again) != string(original) {
			t.Errorf("the file has changed: %v", err)
		}
	})
	t.Run("a file that is not valid keeps the last set", func(t *testing.T) {
		bad := filepath.Join(directory, "bad.yaml")
		failures := func() int { return reloads(t, "failure") }
		count := failures()
		if err := os.WriteFile(bad, []byte("kind: Nonsense\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		await(t, "the API server to read the bad file", func() bool { return failures() > count })
		if !protected() {
			t.Error("the guard's objects are no longer protected")
		}
		if err := os.Remove(bad); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("moved away, the guard can be changed, and put back it cannot", func(t *testing.T) {
		aside := filepath.Join(t.TempDir(), "aside.yaml")
		if err := os.Rename(path, aside); err != nil {
			t.Fatal(err)
		}
		await(t, "no protection without the file", func() bool { return !protected() })
		if err := os.Rename(aside, path); err != nil {
			t.Fatal(err)
		}
		await(t, "protection with the file", protected)
	})
	t.Run("policies of another version are replaced at once", func(t *testing.T) {
		old := strings.Replace(string(original), "refusing", "refused by an older version", 1)
		if err := os.WriteFile(path, []byte(old), 0o600); err != nil {
			t.Fatal(err)
		}
		if r := shared.rig.Policy(t.Context(), "--static", "--directory", directory); r.Code == 0 {
			t.Error("replaced without --replace")
		}
		rewrite(t, "--replace")
		again, err := os.ReadFile(path)
		if err != nil || string(again) != string(original) {
			t.Errorf("the file was not replaced: %v", err)
		}
		await(t, "protection with the file", protected)
	})
}

// reloads is the number of times that the API server has read the directory of static policies, with this status.
func reloads(t *testing.T, status string) int {
	t.Helper()
	client, err := rest.HTTPClientFor(shared.config)
	if err != nil {
		t.Fatal(err)
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, shared.config.Host+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("read the API server's metrics: %s, %v", response.Status, err)
	}
	total := 0
	for line := range strings.Lines(string(body)) {
		if strings.HasPrefix(line, "apiserver_manifest_admission_config_controller_automatic_reloads_total{") &&
			strings.Contains(line, `status="`+status+`"`) {
			_, value, _ := strings.Cut(line, "} ")
			number, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				t.Fatal(err)
			}
			total += int(number)
		}
	}
	return total
}

// TestStaticPoliciesAtStart: with a directory that it cannot use, an API server does not start. So a file that is not
// valid must never be left there.
func TestStaticPoliciesAtStart(t *testing.T) {
	cases := map[string]struct {
		prepare func(directory string) error
		flags   []string
	}{
		"a file that is not valid": {prepare: func(directory string) error {
			return os.WriteFile(filepath.Join(directory, "bad.yaml"), []byte("kind: Nonsense\n"), 0o600)
		}},
		"a missing directory":                 {prepare: os.RemoveAll},
		"an API server that does not know it": {flags: []string{"--feature-gates=ManifestBasedAdmissionControlConfig=false"}},
	}
	for title, c := range cases {
		t.Run(title, func(t *testing.T) {
			directory := staticPolicies(t)
			if c.prepare != nil {
				if err := c.prepare(directory); err != nil {
					t.Fatal(err)
				}
			}
			file := filepath.Join(t.TempDir(), "admission.yaml")
			if err := os.WriteFile(file, []byte(admissionConfiguration(directory)), 0o600); err != nil {
				t.Fatal(err)
			}
			_, stop, err := shared.rig.JoinAPIServer(t.Context(), append(c.flags, "--admission-control-config-file="+file)...)
			if err == nil {
				t.Error("the API server has started")
				if err := stop(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// TestSelfProtectionInAPI: where static policies are not available, a policy in the API protects the webhook
// configuration and the activation, except from users that are allowed to change them, and from users who delete the
// policy's binding.
func TestSelfProtectionInAPI(t *testing.T) {
	soundCluster(t)
	installGate(t)
	client := dynamicClient(t, "")
	const own, gitops = "kubelet-https-guard-self-protection", "gitops"
	objects, err := shared.rig.Render(t.Context(), []string{
		"policy.selfProtection.enabled=true", "policy.selfProtection.allowedUsers={" + gitops + "}",
	}, "selfprotection.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if applied := shared.rig.KubectlInput(t.Context(), objects, "apply", "-f", "-"); applied.Code != 0 {
		t.Fatal(applied.Output)
	}
	t.Cleanup(func() {
		shared.rig.KubectlInput(context.WithoutCancel(t.Context()), objects, "delete", "--ignore-not-found", "-f", "-")
	})
	dryRun := deleting(webhooks, guardNamespace, metav1.DeleteOptions{DryRun: []string{metav1.DryRunAll}})
	await(t, "the policy to take effect", func() bool { return dryRun(t.Context(), client) != nil })
	for title, r := range removals() {
		if strings.Contains(r.found, "ValidatingAdmissionPolicy") {
			continue
		}
		t.Run(title, func(t *testing.T) {
			mustContain(t, r.do(t.Context(), client), "ValidatingAdmissionPolicy '"+own+"' with binding",
				"[kubelet-https-guard/policy]")
		})
	}
	value := base64Of(shared.rig.CABundle())
	if err := changing(webhooks, guardNamespace, inWebhook(0, set(value, "clientConfig", "caBundle")))(t.Context(),
		client); err != nil {
		t.Errorf("the CA bundle is renewed: %v", err)
	}
	config := rest.CopyConfig(shared.config)
	config.Impersonate = rest.ImpersonationConfig{UserName: gitops, Groups: []string{"system:masters"}}
	allowed, err := dynamic.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := dryRun(t.Context(), allowed); err != nil {
		t.Errorf("an allowed user: %v", err)
	}
	// As documented, before an upgrade.
	if err := deleting(bindings, own, metav1.DeleteOptions{})(t.Context(), client); err != nil {
		t.Fatal(err)
	}
	await(t, "the guard to be changeable", func() bool { return dryRun(t.Context(), client) == nil })
}

// TestStaticPoliciesAreProven: a dry run tests whether static policies are in force, if they are expected. It finds
// an API server without them, and an empty directory, which is a success for an API server.
func TestStaticPoliciesAreProven(t *testing.T) {
	soundCluster(t)
	ordinary := shared.rig.Server(t.Context())
	directory := staticPolicies(t)
	withStaticPolicies(t, directory)
	static := strings.TrimPrefix(shared.config.Host, "https://")
	installed, err := os.ReadFile(shared.rig.Path("webhook", "config.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(t.TempDir(), "config.yaml")
	expecting := append(installed, []byte("\nstaticPolicies: {namePrefix: kubelet-https-guard}\n")...)
	if err := os.WriteFile(config, expecting, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := shared.rig.AnnounceAPIServers(context.WithoutCancel(t.Context()), ordinary); err != nil {
			t.Fatal(err)
		}
	})
	if err := shared.rig.AnnounceAPIServers(t.Context(), ordinary, static); err != nil {
		t.Fatal(err)
	}
	const proof = ", policy-refuses (static policies): "
	outcome := func(address string) string {
		r := shared.rig.Prove(t.Context(), "--config", config, "--wait", "0s")
		if r.Code != 1 { // the ordinary API server has none
			t.Fatalf("exit code %d: %s", r.Code, r.Output)
		}
		for _, part := range []string{"policy-refuses: pass", "webhook-asked: pass"} {
			if !strings.Contains(r.Output, "APIServer "+address+", "+part) {
				t.Errorf("no %q of %s: %s", part, address, r.Output)
			}
		}
		for line := range strings.Lines(r.Output) {
			if result, ok := strings.CutPrefix(line, "APIServer "+address+proof); ok {
				result, _, _ = strings.Cut(strings.TrimSpace(result), ":")
				return result
			}
		}
		return r.Output
	}
	if got := outcome(ordinary); got != "fail" {
		t.Errorf("an API server without static policies: %s", got)
	}
	await(t, "a pass with static policies", func() bool { return outcome(static) == "pass" })
	replaced := shared.rig.Policy(t.Context(), "--static", "--replace", "--directory", directory,
		"--config", configWith(t, "another"))
	if replaced.Code != 0 {
		t.Fatal(replaced.Output)
	}
	await(t, "a fail with those of another configuration", func() bool { return outcome(static) == "fail" })
	path := filepath.Join(directory, "kubelet-https-guard.yaml")
	if err := os.Rename(path, filepath.Join(t.TempDir(), "aside")); err != nil {
		t.Fatal(err)
	}
	await(t, "a fail with an empty directory", func() bool { return outcome(static) == "fail" })
}

// configWith is the installed configuration with another protected Secret, tls in this namespace.
func configWith(t *testing.T, namespace string) string {
	t.Helper()
	installed, err := os.ReadFile(shared.rig.Path("webhook", "config.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var config map[string]any
	if err := yaml.Unmarshal(installed, &config); err != nil {
		t.Fatal(err)
	}
	secrets, _ := config["protectedSecrets"].([]any)
	added := map[string]any{"namespace": namespace, "name": "tls", "usage": "serverAuth"}
	config["protectedSecrets"] = append(secrets, added)
	text, err := yaml.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestStaticFloor: without any other part of the guard, static policies refuse what a policy can refuse. A Secret whose
// namespace is created later is protected, too.
func TestStaticFloor(t *testing.T) {
	good, client := issue(pkitest.ServingCert()), issue(pkitest.KubeletClient())
	store(t, serving(good))
	store(t, openshift.KubeletClient(client.Certificate, client.Key))
	t.Cleanup(func() { register(t, rig.Policy, rig.Registration) })
	register(t)
	const later = "created-later"
	withStaticPolicies(t, staticPolicies(t, "--config", configWith(t, later)))
	await(t, "an API server that does not call the webhook", func() bool { return garbagePasses(t.Context(), t) })
	t.Run("a namespace that is created later", func(t *testing.T) {
		space := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: later}}
		if _, err := as(t, "").CoreV1().Namespaces().Create(t.Context(), space, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = as(t, "").CoreV1().Namespaces().Delete(context.WithoutCancel(t.Context()), later, metav1.DeleteOptions{})
		})
		opaque := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "tls"}}
		_, err := as(t, "").CoreV1().Secrets(later).Create(t.Context(), opaque, metav1.CreateOptions{})
		mustContain(t, err, "kubelet-https-guard."+later+".tls.static.k8s.io", "WrongSecretType")
	})
	for title, b := range bypasses(good, client) {
		t.Run(title, func(t *testing.T) {
			store(t, serving(good))
			store(t, openshift.KubeletClient(client.Certificate, client.Key))
			err := b.do(t.Context(), as(t, ""))
			switch b.detected {
			case byWebhookOnly:
				if err != nil {
					t.Errorf("refused, though only the webhook can detect it: %v", err)
				}
				remove(t, name)
			case byAPIServer:
				mustContain(t, err, b.reason)
			case byPolicyToo:
				mustContain(t, err, b.reason, byStaticFloor, ".static.k8s.io' with binding", "[kubelet-https-guard/policy]")
			}
		})
	}
}
