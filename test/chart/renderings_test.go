// SPDX-License-Identifier: Apache-2.0

package chart_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	registrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	sigsyaml "sigs.k8s.io/yaml"

	"github.com/kubelet-https-guard/kubelet-https-guard/test/chart"
)

// APIs that tell the chart what a cluster has installed.
var (
	openShift   = []string{"security.openshift.io/v1"}
	certManager = []string{"cert-manager.io/v1"}
	prometheus  = []string{"monitoring.coreos.com/v1"}
)

// rendering is one way to install the chart.
type rendering struct {
	apis []string // of the cluster, in addition to those of Kubernetes
	set  []string // arguments of --set
	in   string   // the namespace; empty: chart.Namespace
}

var renderings = map[string]rendering{
	"OpenShift":                 {apis: openShift},
	"other Kubernetes":          {},
	"cert-manager":              {apis: certManager},
	"an Issuer of the user":     {apis: certManager, set: []string{"webhook.certificate.issuerRef.name=corporate", "webhook.certificate.issuerRef.kind=ClusterIssuer"}},
	"self-managed on OpenShift": {apis: openShift, set: []string{"webhook.certificate.mode=self-managed"}},
	"cert-manager on OpenShift": {
		apis: slices.Concat(openShift, certManager),
		set:  []string{"webhook.certificate.mode=cert-manager"},
	},
	"a certificate of the user": {set: []string{"webhook.certificate.mode=provided", "webhook.certificate.secretName=mine", "webhook.certificate.caBundle=Q0E="}},
	"an external webhook":       {set: []string{"webhook.url=https://127.0.0.1:1", "webhook.certificate.mode=provided", "webhook.certificate.caBundle=Q0E="}},
	"a certificate of the user on OpenShift": {
		apis: openShift,
		set: []string{"webhook.certificate.mode=provided", "webhook.certificate.secretName=mine",
			"webhook.certificate.caBundle=Q0E="},
	},
	"an external webhook on OpenShift": {
		apis: openShift,
		set: []string{"webhook.url=https://127.0.0.1:1", "webhook.certificate.mode=provided",
			"webhook.certificate.caBundle=Q0E="},
	},
	"monitoring": {
		apis: slices.Concat(openShift, prometheus),
		set:  []string{"monitoring.podMonitor=true", "monitoring.prometheusRule=true", "monitoring.dashboard=true"},
	},
	"monitoring with a scrape class": {
		apis: slices.Concat(openShift, prometheus),
		set:  []string{"monitoring.podMonitor=true", "monitoring.scrapeClass=tls-client-certificate-auth"},
	},
	"metrics over HTTPS": {
		apis: prometheus,
		set:  []string{"metrics.tls=true", "metrics.secretName=mine", "monitoring.podMonitor=true"},
	},
	"metrics over HTTP on OpenShift": {apis: openShift, set: []string{"metrics.tls=false"}},
	"only the agent": {
		apis: openShift,
		set:  []string{"webhook.enabled=false", "audit.enabled=false", "policy.enabled=false"},
	},
	"without the agent":    {set: []string{"nodeagent.enabled=false"}},
	"without the webhook":  {apis: openShift, set: []string{"webhook.enabled=false"}},
	"without the audit":    {apis: openShift, set: []string{"audit.enabled=false"}},
	"with who can disable": {apis: openShift, set: []string{"audit.whoCanDisable.enabled=true"}},
	"without the kubelets": {apis: openShift, set: []string{"webhook.kubelets.enabled=false"}},
	"with a CA of kubelets": {apis: openShift, set: []string{
		"webhook.kubelets.caBundleConfigMap.namespace=kube-system", "webhook.kubelets.caBundleConfigMap.name=kubelet-ca",
		"webhook.kubelets.caBundleConfigMap.key=ca.crt",
	}},
	"without the served certificates": {
		apis: openShift, set: []string{"webhook.servedCertificates.enabled=false"},
	},
	"without the policies": {set: []string{"policy.enabled=false", "networkPolicy.enabled=false"}},
	"only the audit": {
		apis: openShift,
		set:  []string{"webhook.enabled=false", "policy.enabled=false", "nodeagent.enabled=false"},
	},
	"additional host paths": {apis: openShift, set: []string{
		"nodeagent.hostPaths={/var/lib/microshift/certs,/etc/systemd/system}",
		"nodeagent.kubeletFiles={/var/lib/kubelet/config.yaml}",
		"nodeagent.clientDirectory=/var/lib/microshift/certs/client", "nodeagent.kubeletCA=/var/lib/microshift/certs/ca.crt",
	}},
	"with hosted control planes": {apis: openShift, set: []string{
		"protectedSecrets[0].name=kas-kubelet-client-crt", "protectedSecrets[0].usage=clientAuth",
		"protectedSecrets[0].namespaceSelector.matchLabels.hosted=yes",
		"protectedSecrets[0].caBundleConfigMap.name=kubelet-client-ca", "protectedSecrets[0].caBundleConfigMap.key=ca.crt",
		"protectedSecrets[0].renewedByServiceAccounts={control-plane-operator}",
	}},
	"in namespace default":     {apis: openShift, in: "default"},
	"in a protected namespace": {apis: openShift, in: "openshift-apiserver"},
}

func (r rendering) namespace() string {
	if r.in == "" {
		return chart.Namespace
	}
	return r.in
}

func (r rendering) args() []string {
	args := []string{"--namespace", r.namespace()}
	for _, api := range r.apis {
		args = append(args, "--api-versions", api)
	}
	for _, value := range r.set {
		args = append(args, "--set", value)
	}
	return args
}

func (r rendering) render(t *testing.T) []byte {
	t.Helper()
	needs(t, "HELM")
	rendered, err := chart.Render(t.Context(), r.args()...)
	if err != nil {
		t.Fatal(err)
	}
	return rendered
}

// objects renders the chart and returns its objects.
func (r rendering) objects(t *testing.T) []*unstructured.Unstructured {
	t.Helper()
	objects, err := chart.Objects(r.render(t))
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

// needs skips a test with -short if it would have to build a tool.
func needs(t *testing.T, variable string) {
	t.Helper()
	if testing.Short() && os.Getenv(variable) == "" {
		t.Skip("-short, and " + variable + " is not set")
	}
}

// TestRenderingIsStable: the same values give the same text, so that Helm and diffs
// show no changes.
func TestRenderingIsStable(t *testing.T) {
	for name, r := range renderings {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(string(r.render(t)), string(r.render(t))); diff != "" {
				t.Errorf("rendered twice (-first +second):\n%s", diff)
			}
		})
	}
}

// TestNoObjectTwice: the chart renders each object once. The last one would win.
func TestNoObjectTwice(t *testing.T) {
	for name, r := range renderings {
		t.Run(name, func(t *testing.T) {
			seen := map[string]bool{}
			for _, o := range r.objects(t) {
				id := o.GetKind() + " " + o.GetNamespace() + "/" + o.GetName()
				if seen[id] {
					t.Errorf("%s is rendered twice", id)
				}
				seen[id] = true
			}
		})
	}
}

// TestDecoy: with the audit, the chart installs a decoy in the release namespace. The
// configuration names it, its policy evaluates only updates, and API servers call the
// webhook for it. Without the audit nothing names a decoy.
func TestDecoy(t *testing.T) {
	const decoy = chart.Release + "-decoy"
	for name, r := range renderings {
		t.Run(name, func(t *testing.T) {
			off := func(value string) bool { return slices.Contains(r.set, value+".enabled=false") }
			want := map[string]string{}
			if !off("audit") {
				want["Secret"] = r.namespace() + "/" + decoy
				want["config.yaml"] = r.namespace() + "/" + decoy
				if !off("policy") {
					want["ValidatingAdmissionPolicy"] = "[UPDATE] Fail"
					want["ValidatingAdmissionPolicyBinding"] = "[Deny Audit]"
				}
				if !off("webhook") {
					want["ValidatingWebhookConfiguration"] = "selected"
				}
			}
			got := map[string]string{}
			for _, o := range r.objects(t) {
				own := strings.HasSuffix(o.GetName(), "."+r.namespace()+"."+decoy)
				switch kind := o.GetKind(); {
				case kind == "Secret" && o.GetName() == decoy:
					got[kind] = o.GetNamespace() + "/" + o.GetName()
				case kind == "ConfigMap" && o.GetName() == chart.Release+"-config":
					var file struct {
						Decoy *struct{ Namespace, Name string }
					}
					if err := sigsyaml.Unmarshal([]byte(typed[corev1.ConfigMap](t, o).Data["config.yaml"]), &file); err != nil {
						t.Fatal(err)
					}
					if file.Decoy != nil {
						got["config.yaml"] = file.Decoy.Namespace + "/" + file.Decoy.Name
					}
				case kind == "ValidatingAdmissionPolicy" && own:
					spec := typed[registrationv1.ValidatingAdmissionPolicy](t, o).Spec
					got[kind] = fmt.Sprint(spec.MatchConstraints.ResourceRules[0].Operations, " ", *spec.FailurePolicy)
				case kind == "ValidatingAdmissionPolicyBinding" && own:
					got[kind] = fmt.Sprint(typed[registrationv1.ValidatingAdmissionPolicyBinding](t, o).Spec.ValidationActions)
				case kind == "ValidatingWebhookConfiguration":
					hook := typed[registrationv1.ValidatingWebhookConfiguration](t, o).Webhooks[0]
					if strings.Contains(hook.MatchConditions[0].Expression, decoy) {
						got[kind] = "named"
						if slices.Contains(hook.NamespaceSelector.MatchExpressions[0].Values, r.namespace()) {
							got[kind] = "selected"
						}
					}
				}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("objects that name the decoy (-want +got):\n%s", diff)
			}
		})
	}
}

// TestNothingDrifts: the chart does not render the fields that are set at run time,
// so that applying it again does not reset them.
func TestNothingDrifts(t *testing.T) {
	for name, r := range renderings {
		t.Run(name, func(t *testing.T) {
			objects := r.objects(t)
			provided := slices.Contains(r.set, "webhook.certificate.mode=provided")
			for _, o := range objects {
				if subjects, has := o.Object["subjects"]; o.GetName() == chart.Release+"-answers" && has {
					t.Errorf("%s %s has subjects: %v", o.GetKind(), o.GetName(), subjects)
				}
				data, has := o.Object["data"]
				if o.GetKind() == "Secret" && o.GetName() == chart.Release+"-decoy" {
					// Nothing writes its data.
					if diff := cmp.Diff(map[string]any{"tls.crt": "", "tls.key": ""}, data); diff != "" {
						t.Errorf("the decoy's data (-want +got):\n%s", diff)
					}
				} else if o.GetKind() == "Secret" && has {
					t.Errorf("Secret %s has data", o.GetName())
				}
				if o.GetKind() != "ValidatingWebhookConfiguration" {
					continue
				}
				for _, hook := range typed[registrationv1.ValidatingWebhookConfiguration](t, o).Webhooks {
					if has := len(hook.ClientConfig.CABundle) > 0; has != provided {
						t.Errorf("%s: rendered with a CA bundle: %t", hook.Name, has)
					}
				}
			}
		})
	}
}

// TestServiceCA: on OpenShift, in every certificate mode, Secrets managed by service-ca
// are verified with the service CA in the release namespace, and each program that
// verifies them can read it. On other clusters the chart configures no service CA.
func TestServiceCA(t *testing.T) {
	for name, r := range renderings {
		t.Run(name, func(t *testing.T) {
			objects := r.objects(t)
			var accounts, readers []string
			type protectedSecret struct {
				Name, ManagedBy   string
				CABundleConfigMap struct{ Namespace, Name, Key string }
			}
			var file struct{ ProtectedSecrets []protectedSecret }
			for _, o := range objects {
				switch kind := o.GetKind(); {
				case kind == "ServiceAccount" && (strings.HasSuffix(o.GetName(), "-webhook") ||
					strings.HasSuffix(o.GetName(), "-audit")):
					accounts = append(accounts, o.GetName())
				case kind == "ConfigMap" && o.GetName() == chart.Release+"-config":
					if err := sigsyaml.Unmarshal([]byte(typed[corev1.ConfigMap](t, o).Data["config.yaml"]), &file); err != nil {
						t.Fatal(err)
					}
				case kind == "Role" && o.GetNamespace() == r.namespace():
					for _, rule := range typed[rbacv1.Role](t, o).Rules {
						if slices.Equal(rule.Resources, []string{"configmaps"}) &&
							slices.Equal(rule.ResourceNames, []string{"openshift-service-ca.crt"}) {
							readers = append(readers, o.GetName())
						}
					}
				}
			}
			managed := slices.ContainsFunc(file.ProtectedSecrets, func(s protectedSecret) bool { return s.ManagedBy != "" })
			if !slices.Contains(r.apis, openShift[0]) || !managed {
				accounts = nil
			}
			slices.Sort(accounts)
			slices.Sort(readers)
			if diff := cmp.Diff(accounts, readers); diff != "" {
				t.Errorf("accounts that can read the service CA (-want +got):\n%s", diff)
			}
			for _, s := range file.ProtectedSecrets {
				want, got := "", s.CABundleConfigMap
				if len(accounts) > 0 {
					want = r.namespace() + "/openshift-service-ca.crt service-ca.crt"
				}
				if have := strings.Trim(got.Namespace+"/"+got.Name+" "+got.Key, "/ "); s.Name == "serving-cert" && have != want {
					t.Errorf("Secret %s is verified with ConfigMap %q, want %q", s.Name, have, want)
				}
			}
		})
	}
}
