// SPDX-License-Identifier: Apache-2.0

package check

import (
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// Platform says where the control plane of a cluster runs. The facts distinguish a control
// plane that runs elsewhere from a broken one.
type Platform struct {
	// NotKnown says why a fact could not be read. No other field is set then.
	NotKnown *finding.Result
	// Topology is status.controlPlaneTopology of Infrastructure "cluster"
	// (config.openshift.io/v1). It is empty if the object does not exist.
	Topology string
	// NoAPI: the API server does not serve config.openshift.io.
	NoAPI bool
	// NoNamespace: no namespace of the control's Secrets exists.
	NoNamespace bool
}

// topologyExternal is the topology of a hosted control plane (openshift/api config/v1
// types_infrastructure.go, ExternalTopologyMode).
const topologyExternal = "External"

// Check reports whether the control plane runs in this cluster.
func (p Platform) Check(now time.Time) (results []finding.Result, next time.Time) {
	return runChecks(finding.Platform, platformChecks(), p, now), time.Time{}
}

func platformChecks() []check[Platform] {
	return []check[Platform]{{
		finding.ControlPlane, nil, []finding.Reason{finding.Unreadable, finding.NotObserved},
		func(Platform) finding.Subject { return infrastructure() }, platformControlPlane,
	}}
}

// infrastructure is the object that says where the control plane runs.
func infrastructure() finding.Subject {
	return finding.Subject{Kind: "Infrastructure", Name: "cluster"}
}

// platformControlPlane: the objects of the control plane are in this cluster. For a hosted
// cluster (HyperShift) they are in another cluster. MicroShift and other kinds of Kubernetes
// do not have them. A missing Secret is not a violation there.
func platformControlPlane(p Platform, _ time.Time) []finding.Result {
	switch {
	case p.NotKnown != nil:
		return []finding.Result{Unknown(*p.NotKnown)}
	case p.Topology == topologyExternal:
		return notApplicable("the control plane of this cluster runs elsewhere (controlPlaneTopology is External)")
	case p.NoAPI && p.NoNamespace:
		return notApplicable("this cluster has no OpenShift control plane: " +
			"neither the API config.openshift.io nor the namespaces of its Secrets exist")
	}
	return nil
}
