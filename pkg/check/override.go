// SPDX-License-Identifier: Apache-2.0

package check

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/kubeapiserver"
)

// Override is what people have laid over the configuration that OpenShift
// gives its kube-apiserver.
type Override struct {
	// At is where it stands.
	At finding.Location
	// Err says why it could not be parsed; Overrides holds where it is nil.
	Err       error
	Overrides []kubeapiserver.Override
}

// OverrideFindings checks overrides.
func OverrideFindings(o Override, now time.Time) []finding.Finding {
	return runAll(overrideChecks(), o, now)
}

// LookedFor are the reasons for which [OverrideFindings] could look.
func (o Override) LookedFor() []finding.Reason { return lookedFor(overrideChecks(), o) }

func overrideChecks() []check[Override] {
	return []check[Override]{
		{[]finding.Reason{finding.OverrideWeakensKubeletTLS}, nil, overrideArguments},
	}
}

// platformValues are those that OpenShift has given the arguments, release by
// release (cluster-kube-apiserver-operator bindata/assets/config/
// defaultconfig.yaml and, until 4.5, kubeletClientInfo in config-overrides).
func platformValues() map[string][]string {
	const (
		resources = "/etc/kubernetes/static-pod-resources"
		certs     = "/etc/kubernetes/static-pod-certs"
	)
	return map[string][]string{
		kubeapiserver.KubeletClientCertificate:    {resources + "/secrets/kubelet-client/tls.crt", certs + "/secrets/kubelet-client/tls.crt"},
		kubeapiserver.KubeletClientKey:            {resources + "/secrets/kubelet-client/tls.key", certs + "/secrets/kubelet-client/tls.key"},
		kubeapiserver.KubeletCertificateAuthority: {resources + "/configmaps/kubelet-serving-ca/ca-bundle.crt"},
		kubeapiserver.KubeletHTTPS:                {"true"},
		kubeapiserver.KubeletReadOnlyPort:         {"0"},
	}
}

// overrideArguments: nobody has laid another value over an argument that this
// control is about. It is the one way to turn the control off that the
// platform's operators do not undo (cluster-kube-apiserver-operator
// pkg/operator/targetconfigcontroller merges spec.unsupportedConfigOverrides
// last). An empty list takes the platform's value away.
func overrideArguments(o Override, _ time.Time) []finding.Finding {
	const remedy = "remove it from spec.unsupportedConfigOverrides"
	if o.Err != nil {
		return one(finding.OverrideWeakensKubeletTLS, o.At, "what it does to the kubelet's arguments cannot be told: "+o.Err.Error(), remedy)
	}
	var findings []finding.Finding
	for _, override := range o.Overrides {
		own := platformValues()[override.Argument]
		foreign := slices.IndexFunc(override.Values, func(v string) bool { return !slices.Contains(own, v) })
		var message string
		switch {
		case len(override.Values) == 0:
			message = fmt.Sprintf("the override leaves %s without a value", override.Argument)
		case foreign >= 0:
			message = fmt.Sprintf("the override sets %s to %s, which is not the platform's (%s)", override.Argument, quoteName(override.Values[foreign]), strings.Join(own, " or "))
		default:
			continue
		}
		findings = append(findings, finding.Finding{
			Reason: finding.OverrideWeakensKubeletTLS, Location: o.At + finding.Location("."+override.Field+" "+override.Argument), Message: message, Remedy: remedy,
		})
	}
	return findings
}
