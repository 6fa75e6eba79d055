// SPDX-License-Identifier: Apache-2.0

package admit

import (
	"encoding/json"
	"fmt"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/kubeapiserver"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/report"
)

// The one KubeAPIServer of a cluster (openshift/api operator/v1,
// types_kubeapiserver.go).
const (
	operatorGroup, kubeAPIServerKind = "operator.openshift.io", "KubeAPIServer"
	kubeAPIServerName                = "cluster"
)

// kubeAPIServer is the little of it that is looked at.
type kubeAPIServer struct {
	Metadata struct {
		Name string `json:"name"`
		UID  string `json:"uid"`
	} `json:"metadata"`
	Spec struct {
		Overrides json.RawMessage `json:"unsupportedConfigOverrides"`
	} `json:"spec"`
}

// overrides decides on a change of what people lay over the kube-apiserver's
// configuration. One that does not exist has no overrides.
func (h *Handler) overrides(request admission.Request, now time.Time) (verdict, error) {
	before, after, err := sides[kubeAPIServer](request)
	if err != nil {
		return verdict{}, err
	}
	object := after
	if object == nil {
		object = before
	}
	if object.Metadata.Name != kubeAPIServerName {
		return verdict{decision: Decision{Allowed: true}}, nil
	}
	const label = kubeAPIServerKind + " " + kubeAPIServerName
	introduced, _ := finding.Diff(overrideFindings(label, before, now), overrideFindings(label, after, now))
	decision := Decision{Introduced: introduced, Allowed: true, Warnings: warnings(introduced)}
	if violations := finding.OfSeverity(introduced, finding.Violation); len(violations) > 0 {
		decision = Decision{Introduced: introduced, Message: refuse(label, violations)}
	}
	return verdict{
		object:   report.Object{APIVersion: operatorGroup + "/" + request.Kind.Version, Kind: kubeAPIServerKind, Name: kubeAPIServerName, UID: object.Metadata.UID},
		decision: decision.spare(h.OverridesAction()),
	}, nil
}

func overrideFindings(label string, object *kubeAPIServer, now time.Time) []finding.Finding {
	if object == nil {
		return nil
	}
	overrides, err := kubeapiserver.ParseOverrides(object.Spec.Overrides)
	if err != nil {
		err = fmt.Errorf("spec.unsupportedConfigOverrides: %w", err)
	}
	return check.OverrideFindings(check.Override{
		At: finding.Location(label + " spec.unsupportedConfigOverrides"), Overrides: overrides, Err: err,
	}, now)
}
