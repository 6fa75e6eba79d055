// SPDX-License-Identifier: Apache-2.0

package prove_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/messages"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/admit"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/policy"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/prove"
)

const (
	namespace, decoy = "guard", "decoy"
	policyName       = "guard.guard.decoy"
	webhookName      = "secrets.kubelet-https-guard.io"
)

// The texts of an API server (Kubernetes 1.37).
var (
	resource    = schema.GroupResource{Resource: "secrets"}
	errByPolicy = apierrors.NewForbidden(
		resource,
		decoy,
		errors.New(
			"ValidatingAdmissionPolicy '"+policyName+"' with binding '"+policyName+"' denied request: RotationDetached "+policy.Marker,
		),
	)
	errByOther = apierrors.NewForbidden(resource, decoy,
		errors.New("ValidatingAdmissionPolicy 'other' with binding 'other' denied request: no"))
	errByWebhook = apierrors.NewForbidden(resource, decoy,
		errors.New(`admission webhook "`+webhookName+`" denied the request: CertificateUnparsable `+admit.Marker))
	errOtherText = apierrors.NewForbidden(resource, decoy,
		errors.New("denied request by something: RotationDetached "+policy.Marker+" "+admit.Marker))
	errFailClosed = apierrors.NewInternalError(
		errors.New(`failed calling webhook "` + webhookName + `": connection refused`),
	)
	errOtherFails   = apierrors.NewInternalError(errors.New(`failed calling webhook "other": connection refused`))
	errNoPermission = apierrors.NewForbidden(resource, decoy,
		errors.New(`the user "audit" cannot patch resource "secrets"`))
	errNotFound = apierrors.NewNotFound(resource, decoy)
)

// server answers the change for the policy and the one for the webhook.
func server(t *testing.T, address string, forPolicy, forWebhook error) prove.Server {
	t.Helper()
	return serverWith(t, address, forPolicy, forWebhook, nil)
}

// serverWith also answers the change that changes nothing in the installed decoy.
func serverWith(t *testing.T, address string, forPolicy, forWebhook, forNothing error) prove.Server {
	t.Helper()
	client := fake.NewClientset()
	client.PrependReactor("patch", "secrets", func(action clienttesting.Action) (bool, runtime.Object, error) {
		patch, ok := action.(clienttesting.PatchActionImpl)
		if !ok || patch.Namespace != namespace || patch.Name != decoy ||
			!cmp.Equal(patch.PatchOptions.DryRun, []string{metav1.DryRunAll}) {
			t.Errorf("not a dry run on the decoy: %v", action)
		}
		switch {
		case string(patch.Patch) == `{"immutable":true}`:
			return true, &corev1.Secret{}, forPolicy
		case strings.Contains(string(patch.Patch), `"tls.key"`): // what the chart installs
			return true, &corev1.Secret{}, forNothing
		case strings.Contains(string(patch.Patch), policy.ProofAnnotation):
			t.Error("a dry run for static policies, which are not expected")
		}
		return true, &corev1.Secret{}, forWebhook
	})
	return prove.Server{Address: address, Secrets: client.CoreV1()}
}

func prover(servers ...prove.Server) *prove.Prover {
	return &prove.Prover{
		Guard: func() prove.Guard {
			return prove.Guard{Namespace: namespace, Name: decoy, Policy: policyName, Webhook: webhookName}
		},
		Servers: func(context.Context) ([]prove.Server, error) { return servers, nil },
		Now:     time.Now,
	}
}

// run runs a prover on a fake clock until a time.
func run(t *testing.T, p *prove.Prover, until time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), until)
	defer cancel()
	p.Run(ctx)
}

// TestStale: a proof becomes unknown after some time, for another guard, and when the process
// becomes the leader again.
func TestStale(t *testing.T) {
	unknown := func(t *testing.T, p *prove.Prover, what string) {
		t.Helper()
		if effects := p.Effects(); prove.Proven(effects) || effects[0].Policy.WhyUnknown == nil ||
			effects[0].Policy.WhyUnknown.Reason != finding.NotObserved {
			t.Errorf("%s: %+v", what, effects)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		p := prover(server(t, "192.0.2.1:6443", errByPolicy, errByWebhook))
		run(t, p, time.Minute)
		if effects := p.Effects(); !prove.Proven(effects) {
			t.Errorf("a minute later: %+v", effects)
		}
		guard := p.Guard
		p.Guard = func() prove.Guard { g := guard(); g.Webhook = ""; return g }
		unknown(t, p, "another guard")
		p.Guard = func() prove.Guard { return prove.Guard{} }
		unknown(t, p, "no guard")
		p.Guard = guard
		<-time.After(3 * prove.Interval)
		unknown(t, p, "a quarter of an hour later")
		p.Servers = func(ctx context.Context) ([]prove.Server, error) { <-ctx.Done(); return nil, ctx.Err() }
		run(t, p, time.Second)
		unknown(t, p, "leading again")
	})
}

// TestRemembered: an API server that allowed a change is remembered, also if it, or another
// one at the same address, refuses once, or if it is not listed for a while. It is not
// remembered if it has never refused before, right after an install.
func TestRemembered(t *testing.T) {
	const address = "192.0.2.1:6443"
	synctest.Test(t, func(t *testing.T) {
		good, bad := server(t, address, errByPolicy, errByWebhook), server(t, address, nil, nil)
		start := time.Now()
		p := prover()
		p.Servers = func(context.Context) ([]prove.Server, error) {
			switch asked := time.Since(start); {
			case asked < time.Second:
				return []prove.Server{bad}, nil
			case asked < 5*time.Minute:
				return []prove.Server{good}, nil
			case asked < 6*time.Minute:
				return []prove.Server{bad}, nil
			case asked < 10*time.Minute:
				return []prove.Server{good}, nil
			case asked < 16*time.Minute:
				return []prove.Server{bad}, nil
			}
			return []prove.Server{server(t, "192.0.2.2:6443", errByPolicy, errByWebhook)}, nil
		}
		var states []string
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); p.Run(ctx) }()
		for _, after := range []time.Duration{time.Minute, 6 * time.Minute, 150 * time.Second, 450 * time.Second,
			11 * time.Minute} {
			<-time.After(after)
			state := "proven"
			for _, e := range p.Effects() {
				results, _ := e.Check(time.Time{})
				for _, f := range finding.Findings(results) {
					state = f.Outcome.String() + " " + f.Subject.Whole().Name
				}
			}
			states = append(states, fmt.Sprintf("%s %s", time.Since(start), state))
		}
		cancel()
		<-ended
		want := []string{"1m0s proven", "7m0s fail " + address, "9m30s proven", "17m0s unknown " + address, "28m0s proven"}
		if d := cmp.Diff(want, states); d != "" {
			t.Errorf("(-want +got):\n%s", d)
		}
	})
}

// TestManyServers: too many API servers are not proven.
func TestManyServers(t *testing.T) {
	var servers []prove.Server
	for i := range 17 {
		servers = append(servers, server(t, fmt.Sprintf("192.0.2.%d:6443", i), errByPolicy, errByWebhook))
	}
	if effects := prover(servers...).Prove(t.Context()); prove.Proven(effects) || len(effects) != 17 {
		t.Errorf("%d effects", len(effects))
	}
}

// TestDecoyChanged: a decoy that has changed since the install proves nothing.
func TestDecoyChanged(t *testing.T) {
	effects := prover(serverWith(t, "192.0.2.1:6443", errByPolicy, nil, errByPolicy)).Prove(t.Context())
	results, _ := effects[0].Check(time.Time{})
	if f := results[1]; f.Outcome != finding.Unknown || f.Subject.Name != decoy {
		t.Errorf("%+v", f)
	}
}

// TestProve: the results by the answers of an API server.
func TestProve(t *testing.T) {
	page := messages.Record(t, "findings of the proof")
	cases := map[string]struct {
		forPolicy, forWebhook error
		want                  []string // requirement, outcome, reason and subject
		proven                bool
	}{
		"both refuse":                       {errByPolicy, errByWebhook, []string{"policy-refuses pass", "webhook-asked pass"}, true},
		"the webhook fails closed":          {errByPolicy, errFailClosed, []string{"policy-refuses pass", "webhook-asked pass"}, true},
		"the policy allows its change":      {nil, errByWebhook, []string{"policy-refuses fail GuardIneffective", "webhook-asked pass"}, false},
		"the webhook allows its change":     {errByPolicy, nil, []string{"policy-refuses pass", "webhook-asked fail GuardIneffective"}, false},
		"another policy refuses first":      {errByOther, errByWebhook, []string{"policy-refuses unknown Unreadable", "webhook-asked pass"}, false},
		"the policy refuses both":           {errByPolicy, errByPolicy, []string{"policy-refuses pass", "webhook-asked unknown Unreadable"}, false},
		"the webhook refuses both":          {errByWebhook, errByWebhook, []string{"policy-refuses fail GuardIneffective", "webhook-asked pass"}, false},
		"the webhook fails closed for both": {errFailClosed, errFailClosed, []string{"policy-refuses fail GuardIneffective", "webhook-asked pass"}, false},
		"another webhook fails closed":      {errByPolicy, errOtherFails, []string{"policy-refuses pass", "webhook-asked unknown Unreadable"}, false},
		"no permission":                     {errNoPermission, errNoPermission, []string{"policy-refuses unknown Unreadable", "webhook-asked unknown Unreadable"}, false},
		"the decoy was deleted":             {errNotFound, errNotFound, []string{"policy-refuses unknown Unreadable", "webhook-asked unknown Unreadable"}, false},
		"it answers only the first":         {errByPolicy, errors.New("refused"), []string{"policy-refuses pass", "webhook-asked unknown Unreadable"}, false},
		"it answers only the second":        {errors.New("refused"), errByWebhook, []string{"policy-refuses unknown Unreadable", "webhook-asked pass"}, false},
		"of a version with other texts":     {errOtherText, errOtherText, []string{"policy-refuses unknown Unreadable", "webhook-asked unknown Unreadable"}, false},
		"the API server is unavailable":     {errors.New("refused"), errors.New("refused"), []string{"policy-refuses unknown Unreadable", "webhook-asked unknown Unreadable"}, false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			effects := prover(server(t, "192.0.2.1:6443", c.forPolicy, c.forWebhook)).Prove(t.Context())
			if len(effects) != 1 || effects[0].Server.Name != "192.0.2.1:6443" {
				t.Fatalf("effects: %+v", effects)
			}
			results, _ := effects[0].Check(time.Time{})
			var got []string
			for _, r := range results {
				page.Finding(r)
				got = append(got, strings.TrimSpace(string(r.Requirement.Aspect())+" "+r.Outcome.String()+" "+string(r.Reason)))
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
			if proven := prove.Proven(effects); proven != c.proven {
				t.Errorf("proven: %t, want %t", proven, c.proven)
			}
		})
	}
}

// TestEachServer: the results name the API server that allowed a change.
func TestEachServer(t *testing.T) {
	p := prover(server(t, "192.0.2.1:6443", errByPolicy, errByWebhook), server(t, "192.0.2.2:6443", nil, nil))
	var failed []string
	for _, effect := range p.Prove(t.Context()) {
		results, _ := effect.Check(time.Time{})
		for _, r := range finding.Findings(results) {
			failed = append(failed, r.Subject.String())
		}
	}
	if d := cmp.Diff([]string{"APIServer 192.0.2.2:6443 ValidatingAdmissionPolicy", "APIServer 192.0.2.2:6443 " +
		"ValidatingAdmissionWebhook"}, failed); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// TestDisabledPart: a part that is disabled on purpose gets no dry run.
func TestDisabledPart(t *testing.T) {
	p := prover(server(t, "192.0.2.1:6443", errByPolicy, nil))
	p.Guard = func() prove.Guard { return prove.Guard{Namespace: namespace, Name: decoy, Policy: policyName} }
	effects := p.Prove(t.Context())
	results, _ := effects[0].Check(time.Time{})
	if results[1].Outcome != finding.NotApplicable || !prove.Proven(effects) {
		t.Errorf("the webhook: %+v", results[1])
	}
}

// TestStaticPolicies: they are tested only if they are expected. Their result has a subject of its own, so that it does
// not resolve the finding about the policies in the API.
func TestStaticPolicies(t *testing.T) {
	page := messages.Record(t, "findings of the proof of static policies")
	const static = "guard-proof" + policy.StaticSuffix
	const words = "digest 1"
	refusal := func(name, text string) error {
		return apierrors.NewForbidden(resource, decoy, fmt.Errorf(
			"ValidatingAdmissionPolicy '%s' with binding '%s' denied request: no %s", name, name, text))
	}
	const subject = " of APIServer 192.0.2.1:6443 static policies"
	cases := map[string]struct {
		answer, forNothing error
		want               string
	}{
		"refused by them": {refusal(static, policy.Marker+words), nil, "pass" + subject},
		"another digest":  {refusal(static, policy.Marker+"digest 2"), nil, "fail GuardIneffective" + subject},
		"another prefix": {refusal("other-proof"+policy.StaticSuffix, policy.Marker+words), nil,
			"unknown Unreadable of Secret guard/decoy"},
		"an empty directory":        {nil, nil, "fail GuardIneffective" + subject},
		"a policy in the API":       {refusal(policyName, policy.Marker), nil, "unknown Unreadable of Secret guard/decoy"},
		"others' static policies":   {refusal("other"+policy.StaticSuffix, "no"), nil, "unknown Unreadable of Secret guard/decoy"},
		"the decoy was changed":     {nil, errByPolicy, "unknown Unreadable of Secret guard/decoy"},
		"the decoy was deleted":     {errNotFound, nil, "unknown Unreadable of Secret guard/decoy"},
		"the API server is stopped": {errors.New("refused"), nil, "unknown Unreadable of APIServer 192.0.2.1:6443"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			client := fake.NewClientset()
			client.PrependReactor("patch", "secrets", func(action clienttesting.Action) (bool, runtime.Object, error) {
				patch, _ := action.(clienttesting.PatchActionImpl)
				switch {
				case string(patch.Patch) == `{"immutable":true}`:
					return true, &corev1.Secret{}, errByPolicy
				case strings.Contains(string(patch.Patch), policy.ProofAnnotation):
					return true, &corev1.Secret{}, c.answer
				case strings.Contains(string(patch.Patch), `"tls.key"`):
					return true, &corev1.Secret{}, c.forNothing
				}
				return true, &corev1.Secret{}, errByWebhook
			})
			p := prover(prove.Server{Address: "192.0.2.1:6443", Secrets: client.CoreV1()})
			p.Guard = func() prove.Guard {
				return prove.Guard{Namespace: namespace, Name: decoy, Policy: policyName, Webhook: webhookName,
					Static: static, StaticWords: words}
			}
			effects := p.Prove(t.Context())
			results, _ := effects[0].Check(time.Time{})
			if len(results) != 3 || results[0].Outcome != finding.Pass || results[1].Outcome != finding.Pass {
				t.Fatalf("results: %+v", results)
			}
			r := results[2]
			page.Finding(r)
			got := strings.TrimSpace(r.Outcome.String()+" "+string(r.Reason)) + " of " + r.Subject.String()
			if got != c.want || r.Requirement != finding.Guard.Requires(finding.PolicyRefuses) {
				t.Errorf("got %s of %s, want %s", r.Requirement, got, c.want)
			}
			if prove.Proven(effects) != (r.Outcome == finding.Pass) {
				t.Errorf("proven: %t", prove.Proven(effects))
			}
		})
	}
	t.Run("no list of API servers", func(t *testing.T) {
		p := prover()
		p.Servers = func(context.Context) ([]prove.Server, error) { return nil, errors.New("no") }
		p.Guard = func() prove.Guard { return prove.Guard{Namespace: namespace, Name: decoy, Static: static} }
		if effects := p.Prove(t.Context()); effects[0].Static == nil || effects[0].Static.WhyUnknown == nil {
			t.Errorf("effects: %+v", effects)
		}
	})
}

// TestNoServers: nothing is proven without an API server.
func TestNoServers(t *testing.T) {
	p := prover()
	p.Servers = func(context.Context) ([]prove.Server, error) { return nil, errors.New("no") }
	if effects := p.Prove(t.Context()); prove.Proven(effects) {
		t.Errorf("effects: %+v", effects)
	}
	if prove.Proven(nil) {
		t.Error("proven without effects")
	}
	if effects := p.Effects(); prove.Proven(effects) {
		t.Errorf("before the first proof: %+v", effects)
	}
}

// TestRun: proofs are frequent while the guard does not refuse, and rare while it does.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var times []time.Duration
		start := time.Now()
		p := prover()
		p.Servers = func(context.Context) ([]prove.Server, error) {
			times = append(times, time.Since(start))
			if len(times) == 1 {
				return nil, errors.New("unavailable")
			}
			return []prove.Server{server(t, "192.0.2.1:6443", errByPolicy, errByWebhook)}, nil
		}
		ctx, cancel := context.WithTimeout(t.Context(), 6*time.Minute)
		defer cancel()
		p.Run(ctx)
		if d := cmp.Diff([]time.Duration{0, 20 * time.Second, 20*time.Second + prove.Interval}, times); d != "" {
			t.Errorf("proofs at (-want +got):\n%s", d)
		}
	})
}
