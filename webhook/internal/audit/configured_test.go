// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/control"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/report"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/tracker"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/openshift"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/admit"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/follow"
)

// simulation observes once a second.
type simulation struct {
	subject Subject
	states  map[follow.Object]follow.State
	at      time.Time
	tracker *tracker.Tracker
	metrics *report.Metrics
	series  *prometheus.Registry
}

func newSimulation(t *testing.T) *simulation {
	t.Helper()
	registry := prometheus.NewRegistry()
	metrics := report.NewMetrics(registry)
	return &simulation{subject(), healthy(t), pkitest.Now(), tracker.New(storedPatience), metrics, registry}
}

// observe returns the notices of a number of seconds.
func (w *simulation) observe(t *testing.T, seconds int) string {
	t.Helper()
	var notices []string
	for range seconds {
		w.at = w.at.Add(time.Second)
		for _, n := range w.tracker.Observe(observe(w.subject, w.states, effective(), nil, nil, w.at).Observation).Notices {
			w.metrics.Report(t.Context(), n)
			words := string(n.Type) + " " + string(n.Finding.Reason) + n.Control.ID
			if n.Unchecked {
				words += " unchecked"
			}
			notices = append(notices, words)
		}
	}
	return strings.Join(notices, ", ")
}

// verdictSeries returns the metrics of verdicts.
func (w *simulation) verdictSeries(t *testing.T) string {
	t.Helper()
	families, err := w.series.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, family := range families {
		_, name, _ := strings.Cut(family.GetName(), "https_guard_")
		if name != "compliant" && name != "in_force" {
			continue
		}
		for _, m := range family.GetMetric() {
			text := name
			for _, label := range m.GetLabel() {
				text += " " + label.GetValue()
			}
			all = append(all, fmt.Sprint(text, "=", m.GetGauge().GetValue()))
		}
	}
	return strings.Join(all, ", ")
}

// verdictOn returns the verdict on a control.
func verdictOn(id string, subject Subject, states map[follow.Object]follow.State) control.Verdict {
	seen := observe(subject, states, effective(), nil, nil, pkitest.Now())
	return control.ByID(id).Judge(control.Cluster, seen.results())
}

// binding returns an object of the guard, with an action.
func binding(action string) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
		"metadata": map[string]any{"name": "guard"},
		"spec":     map[string]any{"validationActions": []any{action}},
	}}
}

// TestSecretRemovedFromConfiguration: the removal of a broken Secret from the configuration
// does not make the control compliant, and the Secret is not reported as repaired.
func TestSecretRemovedFromConfiguration(t *testing.T) {
	w := newSimulation(t)
	set(t, w.states[kubeletClient], "eA==", "data", "tls.key")
	if d := cmp.Diff("Compliant guard-in-force, Finding active KeyUnparsable, Not compliant use-https",
		w.observe(t, 100)); d != "" {
		t.Errorf("broken (-want +got):\n%s", d)
	}
	w.subject.Secrets = w.subject.Secrets[:1]
	if d := cmp.Diff("Finding resolved KeyUnparsable unchecked, Could not verify use-https", w.observe(t, 100)); d != "" {
		t.Errorf("taken out (-want +got):\n%s", d)
	}
	verdict := verdictOn(control.UseHTTPS, w.subject, w.states)
	if verdict.Status != control.CouldNotVerify {
		t.Errorf("the control is %s, want %s", verdict.Status, control.CouldNotVerify)
	}
	for _, a := range verdict.Unmet() {
		if a.Family() != finding.KubeletClient {
			t.Errorf("%s is not met", a.Requirement)
		}
	}
}

// TestControlNoLongerJudged: a control that is no longer configured has no metric of its
// verdict.
func TestControlNoLongerJudged(t *testing.T) {
	w := newSimulation(t)
	w.subject.Secrets = append(
		w.subject.Secrets,
		admit.ProtectedSecret{SecretExpectation: check.SecretExpectation{
			Namespace: addedSecret.Namespace, Name: addedSecret.Name,
		}},
	)
	w.states[addedSecret] = follow.State{Known: true}
	want := "Compliant use-https, Compliant guard-in-force, Finding active SecretMissing, Not compliant protected-secrets"
	if d := cmp.Diff(want, w.observe(t, 100)); d != "" {
		t.Errorf("configured (-want +got):\n%s", d)
	}
	if d := cmp.Diff("compliant protected-secrets=0, compliant use-https=1, in_force=1", w.verdictSeries(t)); d != "" {
		t.Errorf("series (-want +got):\n%s", d)
	}
	w.subject = subject()
	w.subject.Guard = nil
	want = "Finding resolved SecretMissing unchecked, Not applicable guard-in-force, Not applicable protected-secrets"
	if d := cmp.Diff(want, w.observe(t, 100)); d != "" {
		t.Errorf("taken out (-want +got):\n%s", d)
	}
	if d := cmp.Diff("compliant use-https=1", w.verdictSeries(t)); d != "" {
		t.Errorf("series (-want +got):\n%s", d)
	}
}

// TestUpgrade: an upgrade may load the configuration before it writes the objects. Within
// the guard's patience, the difference is not reported.
func TestUpgrade(t *testing.T) {
	w := newSimulation(t)
	w.subject.GuardPatience = 3 * time.Minute
	w.observe(t, 100)
	newer := w.subject.Guard[0].DeepCopy()
	if err := unstructured.SetNestedField(newer.Object, []any{map[string]any{"expression": "true"}}, "spec",
		"validations"); err != nil {
		t.Fatal(err)
	}
	w.subject.Guard = []*unstructured.Unstructured{newer}
	if notices := w.observe(t, 180); notices != "" {
		t.Errorf("reported within the patience: %s", notices)
	}
	if d := cmp.Diff("Finding active GuardIneffective, Not compliant guard-in-force", w.observe(t, 1)); d != "" {
		t.Errorf("after the patience (-want +got):\n%s", d)
	}
}

// TestAlternatingFaults: an object that is always wrong, but not always in the same way, is
// reported after its patience, and the guard is not in force from then on.
func TestAlternatingFaults(t *testing.T) {
	w := newSimulation(t)
	w.subject.GuardPatience = 3 * time.Minute
	installed := binding("Deny")
	w.subject.Guard = append(w.subject.Guard, installed)
	gone, weakened := follow.State{Known: true}, follow.State{Known: true, Live: binding("Audit")}
	for _, step := range []struct {
		state   follow.State
		seconds int
		want    string
	}{
		{follow.State{Known: true, Live: installed}, 100, "Compliant use-https, Compliant guard-in-force"},
		{gone, 120, ""},
		{weakened, 60, ""},
		{weakened, 60, "Finding active GuardIneffective, Not compliant guard-in-force"},
		{gone, 120, ""}, // GuardIneffective stays active
		{weakened, 60, ""},
		{gone, 190, "Finding active GuardMissing, Finding resolved GuardIneffective"},
		{follow.State{Known: true, Live: installed}, 10, "Finding resolved GuardMissing, Compliant guard-in-force"},
		{gone, 120, ""},
	} {
		w.states[guardObject(installed)] = step.state
		if d := cmp.Diff(step.want, w.observe(t, step.seconds)); d != "" {
			t.Errorf("(-want +got):\n%s", d)
		}
	}
}

// TestActions: a change that the configuration only records is not a fault, but the verdict shows it.
func TestActions(t *testing.T) {
	const (
		serving, client = "Secret openshift-apiserver/serving-cert", "Secret openshift-kube-apiserver/kubelet-client"
		overrides       = "KubeAPIServer cluster"
		pass, recorded  = "pass", "notApplicable Audit"
	)
	cases := map[string]struct {
		change func(s *Subject)
		want   map[string]string
		status control.Status
	}{
		"all are refused": {
			func(s *Subject) { s.Secrets[0].Action, s.OverridesAction = admit.Deny, admit.Deny },
			map[string]string{serving: pass, client: pass, overrides: pass}, control.Compliant,
		},
		"one is recorded": {
			func(s *Subject) { s.Secrets[1].Action = admit.Audit },
			map[string]string{serving: pass, client: recorded, overrides: pass}, control.Compliant,
		},
		"all are recorded": {
			func(s *Subject) {
				s.Secrets[0].Action, s.Secrets[1].Action, s.OverridesAction = admit.Audit, admit.Audit, admit.Audit
			},
			map[string]string{serving: recorded, client: recorded, overrides: recorded}, control.Compliant,
		},
		"overrides cause a warning": {
			func(s *Subject) { s.OverridesAction = admit.Warn },
			map[string]string{serving: pass, client: pass, overrides: "notApplicable Warn"}, control.Compliant,
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			subject := subject()
			c.change(&subject)
			verdict := verdictOn(control.GuardInForce, subject, healthy(t))
			got := map[string]string{}
			for _, a := range verdict.Answers {
				if a.Requirement != finding.Guard.Requires(finding.Action) {
					continue
				}
				for _, r := range a.Results {
					got[r.Subject.String()] = r.Outcome.String()
					for _, action := range []admit.Action{admit.Audit, admit.Warn} {
						if strings.Contains(r.Message, string(action)) {
							got[r.Subject.String()] += " " + string(action)
						}
					}
				}
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("answers (-want +got):\n%s", d)
			}
			if verdict.Status != c.status {
				t.Errorf("the guard in force: %s, want %s", verdict.Status, c.status)
			}
		})
	}
}

// TestWeakExpectation: a configured entry for serving-cert that requires less does not make
// the control compliant.
func TestWeakExpectation(t *testing.T) {
	cases := map[string]struct {
		change func(want *check.SecretExpectation)
		unmet  string
		status control.Status
	}{
		"the chart's default": {func(*check.SecretExpectation) {}, "", control.Compliant},
		"no DNS names": {func(w *check.SecretExpectation) { w.DNSNames = nil }, "serving-cert/dns-names",
			control.CouldNotVerify},
		"no Service": {func(w *check.SecretExpectation) { w.Service = "" }, "serving-cert/service",
			control.CouldNotVerify},
		"no renewer": {func(w *check.SecretExpectation) { w.ManagedBy = "" },
			"serving-cert/renewal serving-cert/service", control.NotCompliant},
		"another type": {func(w *check.SecretExpectation) { w.Type = "Opaque" }, "", control.Compliant},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			subject := subject()
			c.change(&subject.Secrets[0].SecretExpectation)
			verdict := verdictOn(control.UseHTTPS, subject, healthy(t))
			var unmet []string
			for _, a := range verdict.Unmet() {
				unmet = append(unmet, string(a.Requirement))
			}
			if d := cmp.Diff(c.unmet, strings.Join(unmet, " ")); d != "" {
				t.Errorf("not met (-want +got):\n%s", d)
			}
			if verdict.Status != c.status {
				t.Errorf("the control is %s, want %s", verdict.Status, c.status)
			}
		})
	}
	t.Run("a Secret that meets the weak expectation", func(t *testing.T) {
		subject, states := subject(), healthy(t)
		request := pkitest.ServingCert()
		request.DNSNames = []string{"other.svc"}
		pair := pkitest.NewCA("foreign").Issue(request)
		bad := openshift.ServingCert("uid-1", pair.Certificate, pair.Key)
		bad.OwnerReferences, bad.Annotations, bad.Type = nil, nil, "Opaque"
		states[servingCert], states[service] = follow.State{Known: true, Live: live(t, bad)}, follow.State{Known: true}
		subject.Secrets[0].SecretExpectation = check.SecretExpectation{
			Namespace: servingCert.Namespace, Name: servingCert.Name, Type: "Opaque", Usage: subject.Secrets[0].Usage,
		}
		verdict := verdictOn(control.UseHTTPS, subject, states)
		if verdict.Status != control.NotCompliant {
			t.Errorf("the control is %s, want %s", verdict.Status, control.NotCompliant)
		}
	})
}
