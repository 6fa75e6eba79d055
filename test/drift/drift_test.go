// SPDX-License-Identifier: Apache-2.0

// Package drift_test tests that tools which apply the chart again, such as kubectl, Argo CD and Flux, find no
// difference between the chart and a running installation: with the libraries of these tools, against a real API
// server. There are no Pods: the webhook is a process, and the test writes the status of its Deployment.
//
// It is a module of its own, so that these libraries are no dependencies of the product.
package drift_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/kubelet-https-guard/kubelet-https-guard/test/chart"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/rig"
)

const (
	repository = "../.."
	// folder is the chart, relative to the repository, where the rig runs Helm.
	folder  = "charts/kubelet-https-guard"
	webhook = chart.Release + "-webhook"
	binding = chart.Release + "-answers"

	// activeTime bounds waiting until the webhook is active again: 90 s, see TestReplaced, and what the machine needs.
	activeTime = 3 * time.Minute
)

// values are the chart's values. API servers cannot reach the webhook here, since its Service has no network.
var values = []string{"--set", "webhook.failurePolicy=Ignore"}

// warning is a warning of an API server in the output of kubectl or Helm.
var warning = regexp.MustCompile(`(?m)^Warning: |^W[0-9]{4} |level=WARN`)

// cluster is a real API server without nodes, with the namespaces of the Secrets that the chart protects by default.
type cluster struct {
	*rig.Rig
	client client.Client
	tools  []tool
	// manifest is the chart as a tool renders it without a cluster, and desired are its objects. Without the test, as
	// tools do not apply it.
	manifest string
	desired  []*unstructured.Unstructured
}

func start(t *testing.T) cluster {
	t.Helper()
	r, err := rig.Start(t.Context(), rig.Options{
		Repository: repository, Dir: t.TempDir(), Progress: os.Stderr, Helm: true,
	})
	t.Cleanup(r.Stop)
	if err != nil {
		t.Fatal(err)
	}
	config, err := clientcmd.BuildConfigFromFlags("", r.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	config.QPS, config.Burst = 1000, 1000
	log.SetLogger(logr.Discard())
	c := cluster{Rig: r}
	if c.client, err = client.New(config, client.Options{}); err != nil {
		t.Fatal(err)
	}
	if c.tools, err = newTools(config, c.client); err != nil {
		t.Fatal(err)
	}
	rendered, err := chart.Render(t.Context(), append([]string{"--skip-tests"}, values...)...)
	if err != nil {
		t.Fatal(err)
	}
	c.manifest = string(rendered)
	if c.desired, err = chart.Objects(rendered); err != nil {
		t.Fatal(err)
	}
	return c
}

// must returns the output of a command, or ends the test.
func must(t *testing.T, result rig.Result) string {
	t.Helper()
	if result.Code != 0 {
		t.Fatal(result.Output)
	}
	return result.Output
}

// apply applies the chart with kubectl, on the client side, and returns what kubectl prints.
func (c cluster) apply(t *testing.T) string {
	t.Helper()
	return must(t, c.KubectlInput(t.Context(), c.manifest, "apply", "-f", "-"))
}

// live returns the object in the cluster.
func (c cluster) live(t *testing.T, desired *unstructured.Unstructured) *unstructured.Unstructured {
	t.Helper()
	object := &unstructured.Unstructured{}
	object.SetGroupVersionKind(desired.GroupVersionKind())
	if err := c.client.Get(t.Context(), client.ObjectKeyFromObject(desired), object); err != nil {
		t.Fatal(err)
	}
	return object
}

// find is the desired object of a kind and name.
func (c cluster) find(t *testing.T, kind, name string) *unstructured.Unstructured {
	t.Helper()
	i := slices.IndexFunc(c.desired, func(o *unstructured.Unstructured) bool {
		return o.GetKind() == kind && o.GetName() == name
	})
	if i < 0 {
		t.Fatalf("the chart has no %s %s", kind, name)
	}
	return c.desired[i]
}

// atRunTime is what the webhook writes: its subject in the binding, and its CA in each webhook of the registration.
type atRunTime struct {
	Subjects []any
	CAs      []string
}

func (c cluster) atRunTime(t *testing.T) atRunTime {
	t.Helper()
	var written atRunTime
	gate := c.live(t, c.find(t, "ClusterRoleBinding", binding))
	written.Subjects, _, _ = unstructured.NestedSlice(gate.Object, "subjects")
	registration := c.live(t, c.find(t, "ValidatingWebhookConfiguration", chart.Release))
	hooks, _, _ := unstructured.NestedSlice(registration.Object, "webhooks")
	for _, hook := range hooks {
		fields, _ := hook.(map[string]any)
		ca, _, _ := unstructured.NestedString(fields, "clientConfig", "caBundle")
		written.CAs = append(written.CAs, ca)
	}
	return written
}

// activate runs the webhook, as its Deployment would, until it is active and has written its CA.
func (c cluster) activate(t *testing.T) atRunTime {
	t.Helper()
	var config corev1.ConfigMap
	object := c.find(t, "ConfigMap", chart.Release+"-config")
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, &config); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(file, []byte(config.Data["config.yaml"]), 0o600); err != nil {
		t.Fatal(err)
	}
	kubeconfig, err := c.WebhookKubeconfig(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	port, err := rig.FreePort(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	containers, _, _ := unstructured.NestedSlice(c.find(t, "Deployment", webhook).Object,
		"spec", "template", "spec", "containers")
	container, _ := containers[0].(map[string]any)
	args, _, _ := unstructured.NestedStringSlice(container, "args")
	t.Setenv("POD_SERVICE_ACCOUNT", webhook)
	t.Setenv("POD_NAME", webhook+"-0")
	process, err := c.LaunchWebhook(strings.ReplaceAll(t.Name(), "/", "-"), append(args, // the last one of a flag counts
		"--config="+file, "--cert-dir="+t.TempDir(), fmt.Sprintf("--bind-address=127.0.0.1:%d", port),
		"--health-bind-address=0", "--namespace="+chart.Namespace, "--kubeconfig="+kubeconfig)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := process.Stop(); err != nil {
			t.Errorf("stop the webhook: %v", err)
		}
	})
	must(t, c.KubectlCommand(t.Context(), "patch", "deployment", webhook, "--namespace", chart.Namespace,
		"--subresource=status", "--type=merge",
		"--patch", `{"status":{"replicas":2,"updatedReplicas":2,"readyReplicas":2,"availableReplicas":2}}`))
	if _, err := process.Await(t.Context(), "an active webhook", func(line rig.Line) bool {
		return line.Text("msg") == "Webhook is active"
	}); err != nil {
		t.Fatal(err)
	}
	written := c.atRunTime(t)
	if len(written.Subjects) != 1 || slices.Contains(written.CAs, "") {
		t.Fatalf("the webhook is active, but has written %+v", written)
	}
	return written
}

// drift returns what each tool would change, as "kind name".
func (c cluster) drift(t *testing.T) map[string][]string {
	t.Helper()
	all := map[string][]string{}
	for _, tool := range c.tools {
		for _, desired := range c.desired {
			changed, err := tool.changes(t.Context(), desired.DeepCopy(), c.live(t, desired))
			if err != nil {
				t.Fatalf("%s, %s %s: %v", tool.name, desired.GetKind(), desired.GetName(), err)
			}
			if changed {
				all[tool.name] = append(all[tool.name], desired.GetKind()+" "+desired.GetName())
			}
		}
	}
	return all
}

// TestNothingDrifts: after each way to install the chart, with the webhook active and its CA written, no tool finds a
// difference; each finds one that somebody made; and applying the chart again keeps what the webhook has written.
func TestNothingDrifts(t *testing.T) {
	c := start(t)
	installers := []struct {
		name               string
		install, uninstall func(*testing.T) string
	}{
		{"kubectl", c.apply, func(t *testing.T) string {
			return must(t, c.KubectlInput(t.Context(), c.manifest, "delete", "-f", "-"))
		}},
		{"Helm", func(t *testing.T) string {
			return must(t, c.Helm(t.Context(), append([]string{"install", chart.Release, folder, "--namespace", chart.Namespace},
				values...)...))
		}, func(t *testing.T) string {
			return must(t, c.Helm(t.Context(), "uninstall", chart.Release, "--namespace", chart.Namespace))
		}},
	}
	for _, installer := range installers {
		t.Run(installer.name, func(t *testing.T) {
			if output := installer.install(t); warning.MatchString(output) {
				t.Errorf("the API server warns about the chart:\n%s", output)
			}
			written := c.activate(t)
			if diff := cmp.Diff(map[string][]string{}, c.drift(t)); diff != "" {
				t.Errorf("drift (-want +got):\n%s", diff)
			}
			c.apply(t)
			for _, tool := range c.tools {
				for _, desired := range c.desired {
					if err := tool.sync(t.Context(), desired.DeepCopy()); err != nil {
						t.Fatalf("%s: apply %s %s: %v", tool.name, desired.GetKind(), desired.GetName(), err)
					}
				}
			}
			if diff := cmp.Diff(written, c.atRunTime(t)); diff != "" {
				t.Errorf("what the webhook has written, after applying the chart again (-want +got):\n%s", diff)
			}

			must(t, c.KubectlCommand(t.Context(), "scale", "deployment", webhook,
				"--namespace", chart.Namespace, "--replicas=5"))
			want := map[string][]string{}
			for _, tool := range c.tools {
				want[tool.name] = []string{"Deployment " + webhook}
			}
			if diff := cmp.Diff(want, c.drift(t)); diff != "" {
				t.Errorf("drift after somebody has changed the replicas (-want +got):\n%s", diff)
			}
			installer.uninstall(t)
		})
	}
}

// TestAppliedTwice: kubectl apply finds nothing to change, except in the PodDisruptionBudget, whose selector
// Kubernetes replaces as a whole (patchStrategy in its API). That request changes nothing.
func TestAppliedTwice(t *testing.T) {
	c := start(t)
	c.apply(t)
	budget := c.find(t, "PodDisruptionBudget", webhook)
	before := c.live(t, budget).GetResourceVersion()
	var changed []string
	for line := range strings.Lines(c.apply(t)) {
		if !strings.HasSuffix(line, " unchanged\n") {
			changed = append(changed, strings.TrimSpace(line))
		}
	}
	changed = slices.DeleteFunc(changed, func(line string) bool { return strings.HasSuffix(line, " unchanged") })
	if diff := cmp.Diff([]string{"poddisruptionbudget.policy/" + webhook + " configured"}, changed); diff != "" {
		t.Errorf("applied twice, kubectl reports (-want +got):\n%s", diff)
	}
	if after := c.live(t, budget).GetResourceVersion(); after != before {
		t.Errorf("the PodDisruptionBudget has changed: resource version %s, then %s", before, after)
	}
}

// TestReplaced: replacing each object, as kubectl replace, helm --force and Argo CD's Replace=true do, removes what the
// webhook has written. The webhook writes it again: it checks its certificate once a minute, and serves a new one 30
// seconds after it has issued it.
func TestReplaced(t *testing.T) {
	c := start(t)
	c.apply(t)
	before := c.activate(t)
	must(t, c.KubectlInput(t.Context(), c.manifest, "replace", "-f", "-"))
	replaced := time.Now()
	var written atRunTime
	err := wait.PollUntilContextTimeout(t.Context(), 100*time.Millisecond, activeTime, true,
		func(context.Context) (bool, error) {
			written = c.atRunTime(t)
			return len(written.Subjects) == 1 && !slices.Contains(written.CAs, ""), nil
		})
	if err != nil {
		t.Fatalf("the webhook has not written its CA and its subject again: %+v", written)
	}
	if slices.Equal(before.CAs, written.CAs) {
		t.Error("the CA is the one of before: the objects were not replaced")
	}
	t.Logf("active again after %s", time.Since(replaced).Round(time.Millisecond))
}
