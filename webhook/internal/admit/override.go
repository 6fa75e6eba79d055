// SPDX-License-Identifier: Apache-2.0

package admit

import (
	"slices"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/report"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/facts"
)

// overrides decides on a change of the overrides of the kube-apiserver's configuration. An
// object that does not exist has none.
func (h *Handler) overrides(request admission.Request, now time.Time) (objectDecision, error) {
	before, after, err := oldAndNew[facts.KubeAPIServer](request)
	if err != nil {
		return objectDecision{}, err
	}
	object := after
	if object == nil {
		object = before
	}
	if object.Metadata.Name != facts.KubeAPIServerName {
		return objectDecision{decision: Decision{Allowed: true}}, nil
	}
	introduced := finding.Introduced(overrideResults(before, now), overrideResults(after, now))
	decision := Decision{Introduced: introduced, Allowed: true, Warnings: warnings(introduced)}
	if violations := finding.WithOutcome(introduced, finding.Fail); len(violations) > 0 {
		object := finding.Subject{Kind: facts.KubeAPIServerKind, Name: facts.KubeAPIServerName}
		message := refusal(operationOf(before != nil), object, joinRemedies(violations))
		decision = Decision{Introduced: introduced, Message: message}
	}
	return objectDecision{
		object: report.Object{
			APIVersion: facts.OperatorGroup + "/" + request.Kind.Version, Kind: facts.KubeAPIServerKind,
			Name: facts.KubeAPIServerName, UID: object.Metadata.UID,
		},
		decision: decision.withAction(h.OverridesAction()),
	}, nil
}

// joinRemedies returns the violations with one remedy for all overrides, if several must be removed.
func joinRemedies(violations []finding.Result) []finding.Result {
	joined := slices.Clone(violations)
	var overrides []int
	for i, v := range violations {
		if v.Remedy == check.RemoveOverride {
			overrides = append(overrides, i)
		}
	}
	if len(overrides) > 1 {
		for _, i := range overrides {
			joined[i].Remedy = check.RemoveOverrides
		}
	}
	return joined
}

func overrideResults(object *facts.KubeAPIServer, now time.Time) []finding.Result {
	if object == nil {
		return nil
	}
	results, _ := facts.Override(*object).Check(now)
	return results
}
