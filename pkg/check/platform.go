// SPDX-License-Identifier: Apache-2.0

package check

import (
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// Platform says where the control plane of a cluster runs. The facts distinguish a control
// plane that runs elsewhere from a broken one.
type Platform struct {
	// WhyUnknown says why a fact could not be read. No other field is set then.
	WhyUnknown *finding.Result
	// Topology is status.controlPlaneTopology of Infrastructure "cluster"
	// (config.openshift.io/v1). It is empty if the object does not exist.
	Topology string
	// NoAPI: the API server does not serve config.openshift.io.
	NoAPI bool
	// NoNamespace: no namespace of the control's Secrets exists.
	NoNamespace bool
}

// Names of OpenShift that more than one package uses. The kube-apiserver and the openshift-apiserver run in these
// namespaces.
const (
	KubeAPIServerNamespace      = "openshift-kube-apiserver"
	openShiftAPIServerNamespace = "openshift-apiserver"
	// ConfigGroup is the group of the API with the cluster's configuration (openshift/api config/v1).
	ConfigGroup = "config.openshift.io"
)

// topologyExternal is the topology of a hosted control plane (openshift/api config/v1
// types_infrastructure.go, ExternalTopologyMode).
const topologyExternal = "External"

// Check reports whether the control plane runs in this cluster.
func (p Platform) Check(now time.Time) (results []finding.Result, nextChange time.Time) {
	return runChecks(finding.Platform, platformChecks(), p, now), time.Time{}
}

func platformChecks() []check[Platform] {
	return []check[Platform]{{
		finding.ControlPlane, nil, []finding.Reason{finding.Unreadable, finding.NotObserved},
		func(Platform) finding.Subject { return InfrastructureSubject() }, platformControlPlane,
	}}
}

// InfrastructureSubject is the object that says where the control plane runs.
func InfrastructureSubject() finding.Subject {
	return finding.Subject{Kind: "Infrastructure", Name: "cluster"}
}

// platformControlPlane: the objects of the control plane are in this cluster. For a hosted
// cluster (HyperShift) they are in another cluster. MicroShift and other kinds of Kubernetes
// do not have them. A missing Secret is not a violation there.
func platformControlPlane(p Platform, _ time.Time) []finding.Result {
	switch {
	case p.WhyUnknown != nil:
		return []finding.Result{Unknown(*p.WhyUnknown)}
	case p.Topology == topologyExternal:
		return notApplicable("the control plane of this cluster runs elsewhere (controlPlaneTopology is External)")
	case p.NoAPI && p.NoNamespace:
		return notApplicable("this cluster has no OpenShift control plane: " +
			"neither the API " + ConfigGroup + " nor the namespaces of its Secrets exist")
	}
	return nil
}
