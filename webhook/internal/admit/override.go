// SPDX-License-Identifier: Apache-2.0

package admit

import (
	"time"

	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/report"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/facts"
)

// overrides decides on a change of what people lay over the kube-apiserver's
// configuration. One that does not exist has no overrides.
func (h *Handler) overrides(request admission.Request, now time.Time) (verdict, error) {
	before, after, err := sides[facts.KubeAPIServer](request)
	if err != nil {
		return verdict{}, err
	}
	object := after
	if object == nil {
		object = before
	}
	if object.Metadata.Name != facts.KubeAPIServerName {
		return verdict{decision: Decision{Allowed: true}}, nil
	}
	const label = facts.KubeAPIServerKind + " " + facts.KubeAPIServerName
	introduced, _ := finding.Diff(overrideFindings(before, now), overrideFindings(after, now))
	decision := Decision{Introduced: introduced, Allowed: true, Warnings: warnings(introduced)}
	if violations := finding.OfSeverity(introduced, finding.Violation); len(violations) > 0 {
		decision = Decision{Introduced: introduced, Message: refuse(label, violations)}
	}
	return verdict{
		object:   report.Object{APIVersion: facts.OperatorGroup + "/" + request.Kind.Version, Kind: facts.KubeAPIServerKind, Name: facts.KubeAPIServerName, UID: object.Metadata.UID},
		decision: decision.spare(h.OverridesAction()),
	}, nil
}

func overrideFindings(object *facts.KubeAPIServer, now time.Time) []finding.Finding {
	if object == nil {
		return nil
	}
	return check.OverrideFindings(facts.Override(*object), now)
}
