// SPDX-License-Identifier: Apache-2.0

package chart_test

import (
	"os"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	registrationv1 "k8s.io/api/admissionregistration/v1"

	"github.com/kubelet-https-guard/kubelet-https-guard/test/chart"
)

// APIs by which the chart knows what a cluster has.
var (
	openShift   = []string{"security.openshift.io/v1"}
	certManager = []string{"cert-manager.io/v1"}
	prometheus  = []string{"monitoring.coreos.com/v1"}
)

// rendering is one way to install the chart.
type rendering struct {
	apis []string // that the cluster has, besides those of Kubernetes
	set  []string // as --set takes it
}

var renderings = map[string]rendering{
	"OpenShift":                  {apis: openShift},
	"other Kubernetes":           {},
	"cert-manager":               {apis: certManager},
	"an Issuer of one's own":     {apis: certManager, set: []string{"webhook.certificate.issuerRef.name=corporate", "webhook.certificate.issuerRef.kind=ClusterIssuer"}},
	"self-managed on OpenShift":  {apis: openShift, set: []string{"webhook.certificate.mode=self-managed"}},
	"cert-manager on OpenShift":  {apis: slices.Concat(openShift, certManager), set: []string{"webhook.certificate.mode=cert-manager"}},
	"a certificate of one's own": {set: []string{"webhook.certificate.mode=provided", "webhook.certificate.secretName=mine", "webhook.certificate.caBundle=Q0E="}},
	"a webhook elsewhere":        {set: []string{"webhook.url=https://127.0.0.1:1", "webhook.certificate.mode=provided", "webhook.certificate.caBundle=Q0E="}},
	"monitored":                  {apis: slices.Concat(openShift, prometheus), set: []string{"monitoring.podMonitor=true", "monitoring.prometheusRule=true", "monitoring.dashboard=true"}},
	"the agent alone":            {apis: openShift, set: []string{"webhook.enabled=false", "policy.enabled=false"}},
	"the webhook alone":          {set: []string{"nodeagent.enabled=false"}},
	"without the policies":       {set: []string{"policy.enabled=false", "networkPolicy.enabled=false"}},
}

func (r rendering) args() []string {
	var args []string
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

// needs leaves a test out if nobody has the time to build a program.
func needs(t *testing.T, variable string) {
	t.Helper()
	if testing.Short() && os.Getenv(variable) == "" {
		t.Skip("-short, and " + variable + " is not set")
	}
}

// TestRenderingIsStable: the same values give the same text, so that Helm, or
// who compares, sees no change where there is none.
func TestRenderingIsStable(t *testing.T) {
	for name, r := range renderings {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(string(r.render(t)), string(r.render(t))); diff != "" {
				t.Errorf("rendered twice (-first +second):\n%s", diff)
			}
		})
	}
}

// TestNothingDrifts: what is written by others into what the chart has rendered
// is not rendered, so that nobody restores it who renders the chart again.
func TestNothingDrifts(t *testing.T) {
	for name, r := range renderings {
		t.Run(name, func(t *testing.T) {
			objects, err := chart.Objects(r.render(t))
			if err != nil {
				t.Fatal(err)
			}
			provided := slices.Contains(r.set, "webhook.certificate.mode=provided")
			for _, o := range objects {
				if subjects, has := o.Object["subjects"]; o.GetName() == chart.Release+"-answers" && has {
					t.Errorf("%s %s has subjects: %v", o.GetKind(), o.GetName(), subjects)
				}
				if _, has := o.Object["data"]; o.GetKind() == "Secret" && has {
					t.Errorf("Secret %s has data", o.GetName())
				}
				if o.GetKind() != "ValidatingWebhookConfiguration" {
					continue
				}
				for _, hook := range typed[registrationv1.ValidatingWebhookConfiguration](t, o).Webhooks {
					if has := len(hook.ClientConfig.CABundle) > 0; has != provided {
						t.Errorf("%s: a CA bundle is there: %t", hook.Name, has)
					}
				}
			}
		})
	}
}
