// SPDX-License-Identifier: Apache-2.0

package check

import (
	"slices"
	"strings"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/kubeapiserver"
)

// Override has the settings that people set over OpenShift's configuration of the
// kube-apiserver.
type Override struct {
	// At is its location.
	At finding.Subject
	// WhyUnknown says why it is not known whether there are any, WhyNotApplicable why there cannot
	// be any. No other field is set then.
	WhyUnknown       *finding.Result
	WhyNotApplicable string
	// Err says why it could not be parsed. Overrides is set if Err is nil.
	Err       error
	Overrides []kubeapiserver.Override
	// Admission has the settings that disable admission plugins. AdmissionErr says why they
	// could not be parsed.
	Admission    []kubeapiserver.AdmissionSetting
	AdmissionErr error
}

// Check answers the requirements of overrides.
func (o Override) Check(now time.Time) (results []finding.Result, nextChange time.Time) {
	return runChecks(finding.Overrides, overrideChecks(), o, now), time.Time{}
}

func overrideChecks() []check[Override] {
	at := func(o Override) finding.Subject { return o.At }
	return []check[Override]{
		{
			finding.KubeletArguments, nil, []finding.Reason{finding.OverrideWeakensKubeletTLS, finding.NotChecked},
			at, overrideArguments,
		},
		{finding.Admission, nil, []finding.Reason{finding.AdmissionDisabled, finding.NotChecked}, at, overrideAdmission},
	}
}

// platformValues returns the values that OpenShift's releases have set for the
// arguments (cluster-kube-apiserver-operator bindata/assets/config/
// defaultconfig.yaml and, until 4.5, kubeletClientInfo in config-overrides).
func platformValues() map[string][]string {
	const (
		resources = "/etc/kubernetes/static-pod-resources"
		certs     = "/etc/kubernetes/static-pod-certs"
	)
	return map[string][]string{
		kubeapiserver.KubeletClientCertificate: {
			resources + "/secrets/kubelet-client/tls.crt", certs + "/secrets/kubelet-client/tls.crt",
		},
		kubeapiserver.KubeletClientKey: {
			resources + "/secrets/kubelet-client/tls.key", certs + "/secrets/kubelet-client/tls.key",
		},
		kubeapiserver.KubeletCertificateAuthority: {resources + "/configmaps/kubelet-serving-ca/ca-bundle.crt"},
		kubeapiserver.KubeletHTTPS:                {"true"},
		kubeapiserver.KubeletReadOnlyPort:         {"0"},
	}
}

// RemoveOverride is the remedy for one override, RemoveOverrides for several at once.
const (
	RemoveOverride  = "remove this override from spec.unsupportedConfigOverrides"
	RemoveOverrides = "remove these overrides from spec.unsupportedConfigOverrides"
)

// correctOverrides is the remedy for overrides that cannot be parsed.
const correctOverrides = "correct or remove spec.unsupportedConfigOverrides"

// overrideArguments: no override changes an argument of this control. Overrides are the only
// way to disable the control that the platform's operators do not undo
// (cluster-kube-apiserver-operator pkg/operator/targetconfigcontroller merges
// spec.unsupportedConfigOverrides last). An empty list removes the platform's value.
func overrideArguments(o Override, _ time.Time) []finding.Result {
	if blocked := o.blocked(); blocked != nil {
		return blocked
	}
	if o.Err != nil {
		return single(finding.OverrideWeakensKubeletTLS, o.At,
			"cannot parse the overrides of kubelet arguments: "+oneLine(o.Err), correctOverrides)
	}
	var results []finding.Result
	for _, override := range o.Overrides {
		own := platformValues()[override.Argument]
		foreign := slices.IndexFunc(override.Values, func(v string) bool { return !slices.Contains(own, v) })
		var message string
		switch {
		case len(override.Values) == 0:
			message = "the override removes OpenShift's value"
		case foreign >= 0:
			message = "the override sets it to " + quoteName(override.Values[foreign]) +
				"; OpenShift sets it to " + own[len(own)-1]
		default:
			continue
		}
		at := o.field(override.Field + " " + override.Argument)
		results = append(results, single(finding.OverrideWeakensKubeletTLS, at, message, RemoveOverride)...)
	}
	return results
}

// blocked returns the result if there is nothing to check, otherwise nil.
func (o Override) blocked() []finding.Result {
	switch {
	case o.WhyNotApplicable != "":
		return notApplicable(o.WhyNotApplicable)
	case o.WhyUnknown != nil:
		return []finding.Result{Unknown(*o.WhyUnknown)}
	}
	return nil
}

// field locates a field below the overrides.
func (o Override) field(path string) finding.Subject {
	at := o.At
	at.Key += "." + path
	return at
}

// overrideAdmission: no override disables the guard's admission plugins. The platform does not
// configure these plugins by a file, so an override that does so replaces their defaults.
func overrideAdmission(o Override, _ time.Time) []finding.Result {
	if blocked := o.blocked(); blocked != nil {
		return blocked
	}
	if o.AdmissionErr != nil {
		return single(finding.AdmissionDisabled, o.At,
			"cannot parse the overrides of admission plugins: "+oneLine(o.AdmissionErr), correctOverrides)
	}
	return admissionDisabled(o.Admission, o.argument, RemoveOverride)
}

// argument locates an argument, or a field that kubeapiserver names by its path.
func (o Override) argument(name string) finding.Subject {
	if strings.Contains(name, ".") {
		return o.field(name)
	}
	return o.field("apiServerArguments " + name)
}
