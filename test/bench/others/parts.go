// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	registrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// part is a contender with a namespace of its own, in which a part of the guard is in force.
type part struct {
	name, namespace string
	webhook         *registrationv1.ValidatingWebhook
	policy          *registrationv1.ValidatingAdmissionPolicy
	binding         *registrationv1.ValidatingAdmissionPolicyBinding
	// refuses: it refuses the protected Secret. Otherwise a match condition only takes time.
	refuses bool
}

// measureParts measures writes to Secrets in namespaces with parts of the guard. All of them are installed at the same
// time, so that each contender gets a write in turn.
func (b *bench) measureParts(ctx context.Context, g *guard) error {
	fmt.Fprintln(os.Stderr, "measuring: parts of the guard")
	parts := partsOf(g, "")
	parts = append([]*part{{name: reference}, {name: noise}}, parts...)
	if b.against != "" {
		other, err := b.render(ctx, b.against)
		if err != nil {
			return err
		}
		parts = append(parts, partsOf(other, "other version: ")...)
	}
	for i, p := range parts {
		p.namespace = "bench-part-" + strconv.Itoa(i)
		if err := b.installPart(ctx, p); err != nil {
			return fmt.Errorf("install %s: %w", p.name, err)
		}
	}
	var updating, creating []*cell
	for _, p := range parts {
		if err := b.awaitPart(ctx, p); err != nil {
			return err
		}
		secrets := b.client.CoreV1().Secrets(p.namespace)
		update, err := updates(ctx, secrets, newSecret)
		if err != nil {
			return err
		}
		updating = append(updating, &cell{what: "parts: update of another Secret", contender: p.name, send: update})
		creating = append(creating, &cell{
			what: "parts: create and delete of another Secret", contender: p.name, send: createsAndDeletes(secrets, newSecret),
		})
	}
	for round := range b.partRounds {
		fmt.Fprintf(os.Stderr, "  round %d of %d\n", round+1, b.partRounds)
		for _, cells := range [][]*cell{updating, creating} {
			if err := b.measure(ctx, cells); err != nil {
				return err
			}
		}
	}
	b.report(updating, false)
	b.report(creating, false)
	return nil
}

// partsOf splits the guard: its first webhook, the policy of its first protected Secret, and each match condition. The
// conditions end with false, so that API servers evaluate them and then call no webhook.
func partsOf(g *guard, prefix string) []*part {
	webhook, policy, binding := &g.webhooks.Webhooks[0], g.policies[0], g.bindings[0]
	parts := []*part{
		{name: prefix + guarded, webhook: webhook, policy: policy, binding: binding, refuses: true},
		{name: prefix + "its webhook alone", webhook: webhook, refuses: true},
		{name: prefix + "its policy alone", policy: policy, binding: binding, refuses: true},
	}
	for _, condition := range webhook.MatchConditions {
		parts = append(parts, withCondition(webhook, prefix+"a webhook with the condition "+condition.Name+" && false",
			"("+condition.Expression+"\n) && false"))
	}
	if prefix == "" {
		parts = append(parts,
			withCondition(webhook, "a webhook with the condition false", "false"),
			withCondition(webhook, "a webhook with the condition that asks the authorizer", fmt.Sprintf(
				`!authorizer.serviceAccount(%q, %q).group("kubelet-https-guard.io").resource("admissions").check("answer").allowed()`,
				release, release+"-webhook")))
	}
	return parts
}

func withCondition(webhook *registrationv1.ValidatingWebhook, name, expression string) *part {
	changed := webhook.DeepCopy()
	changed.MatchConditions = []registrationv1.MatchCondition{{Name: "condition", Expression: expression}}
	return &part{name: name, webhook: changed}
}

// installPart creates the namespace of a part and registers the part for it.
func (b *bench) installPart(ctx context.Context, p *part) error {
	if err := b.createNamespace(ctx, p.namespace); err != nil {
		return err
	}
	selector := &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: p.namespace}}
	var webhooks *registrationv1.ValidatingWebhookConfiguration
	var policies []*registrationv1.ValidatingAdmissionPolicy
	var bindings []*registrationv1.ValidatingAdmissionPolicyBinding
	if p.webhook != nil {
		webhook := p.webhook.DeepCopy()
		webhook.Name, webhook.NamespaceSelector = p.namespace+".kubelet-https-guard.io", selector
		for i := range webhook.MatchConditions {
			condition := &webhook.MatchConditions[i]
			condition.Expression = strings.ReplaceAll(condition.Expression, `"`+guardedNamespace+`/`, `"`+p.namespace+`/`)
		}
		p.webhook = webhook
		webhooks = &registrationv1.ValidatingWebhookConfiguration{
			ObjectMeta: metav1.ObjectMeta{Name: p.namespace}, Webhooks: []registrationv1.ValidatingWebhook{*webhook},
		}
	}
	if p.policy != nil {
		policy, binding := p.policy.DeepCopy(), p.binding.DeepCopy()
		policy.ObjectMeta, binding.ObjectMeta = metav1.ObjectMeta{Name: p.namespace}, metav1.ObjectMeta{Name: p.namespace}
		policy.Spec.MatchConstraints.NamespaceSelector, binding.Spec.PolicyName = selector, policy.Name
		p.policy = policy
		policies, bindings = append(policies, policy), append(bindings, binding)
	}
	return b.register(ctx, webhooks, policies, bindings)
}

// awaitPart waits until the API server evaluates the match conditions of a part for its protected Secret, and refuses
// that if it should.
func (b *bench) awaitPart(ctx context.Context, p *part) error {
	invalid := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: protected}}
	return until(ctx, p.name+" is in force", func(ctx context.Context) error {
		names := []string{}
		if p.webhook != nil {
			names = append(names, p.webhook.Name)
		}
		if p.policy != nil {
			names = append(names, p.policy.Name)
		}
		before, err := b.evaluated(ctx, names)
		if err != nil {
			return err
		}
		secrets, dryRun := b.client.CoreV1().Secrets(p.namespace), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}
		// What a policy refuses reaches no webhook, but the other Secret does.
		_, refused := secrets.Create(ctx, invalid, dryRun)
		if _, err := secrets.Create(ctx, newSecret("other"), dryRun); err != nil {
			return err
		}
		after, err := b.evaluated(ctx, names)
		if err != nil {
			return err
		}
		if (refused != nil) != p.refuses {
			return fmt.Errorf("refused: %w; expected: %t", refused, p.refuses)
		}
		for i, name := range names {
			if after[i] == before[i] {
				return errors.New("no match condition of " + name + " was evaluated")
			}
		}
		return nil
	})
}

// evaluated is how often the API server evaluated the match conditions of webhooks and policies with these names.
func (b *bench) evaluated(ctx context.Context, names []string) ([]float64, error) {
	var labels []string
	for _, name := range names {
		labels = append(labels, fmt.Sprintf("name=%q", name))
	}
	return b.metrics(ctx, "apiserver_admission_match_condition_evaluation_seconds_count", labels...)
}
