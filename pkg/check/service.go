// SPDX-License-Identifier: Apache-2.0

package check

import (
	"fmt"
	"strconv"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// Service has the parts that are checked of the Service that service-ca issues a Secret for.
type Service struct {
	// Secret that is issued for it. If service-ca does not manage the Secret, or no Service is
	// configured, there is nothing to check.
	Secret SecretExpectation
	// WhyUnknown says why the Service is not known. Missing and Annotations are not set then.
	WhyUnknown *finding.Result
	// Missing: the Service does not exist.
	Missing     bool
	Annotations map[string]string
}

// Check answers the requirements of the Service, as part of its Secret's family.
func (s Service) Check(now time.Time) (results []finding.Result, nextChange time.Time) {
	family := s.Secret.Family()
	return runChecks(family, serviceChecks(family), s, now), time.Time{}
}

// at returns the subject: the Service, or the Secret if no Service is configured.
func (s Service) at() finding.Subject {
	if s.Secret.Service == "" {
		return s.Secret.at("")
	}
	return finding.Subject{Kind: "Service", Namespace: s.Secret.Namespace, Name: s.Secret.Service}
}

func serviceChecks(family finding.Family) []check[Service] {
	reasons := []finding.Reason{finding.RotationFailing, finding.RotationStuck, finding.RotationDetached}
	if family == finding.ServingCert {
		reasons = append(reasons, finding.NotChecked)
	}
	return []check[Service]{{finding.Service, nil, reasons, Service.at, serviceRenewal}}
}

// The annotations in which service-ca counts its consecutive failures, and the
// number at which it stops until somebody removes them (service-ca-operator pkg/controller/servingcert/controller/
// secret_creating_controller.go, updateServiceFailure and maxRetries).
const (
	errorCounterAlpha = "service.alpha.openshift.io/serving-cert-generation-error-num"
	errorCounterBeta  = "service.beta.openshift.io/serving-cert-generation-error-num"
	maxRetries        = 10
)

// The annotations by which a Service requests its Secret from service-ca. Beta has
// precedence (service-ca-operator pkg/controller/api/api.go; secret_updating_controller.go,
// isSecretValidForService).
const (
	servingSecretAlpha = "service.alpha.openshift.io/serving-cert-secret-name"
	servingSecretBeta  = "service.beta.openshift.io/serving-cert-secret-name"
)

// serviceRenewal: service-ca can and will write the Secret. The stored certificate may be valid
// for a long time, but this check reports now that it will not be renewed.
func serviceRenewal(s Service, _ time.Time) []finding.Result {
	if s.Secret.ManagedBy != ManagedByServiceCA || s.Secret.Service == "" {
		return s.Secret.notConfigured(finding.ServingCert, s.Secret.at(""),
			"the Service for which service-ca issues the Secret is not configured (managedBy, service)")
	}
	switch {
	case s.WhyUnknown != nil:
		return []finding.Result{Unknown(*s.WhyUnknown)}
	case s.Missing:
		return single(finding.RotationDetached, s.at(),
			"the Service does not exist, so service-ca does not renew Secret "+s.Secret.Name,
			"check that the operator that owns the Service recreates it")
	}
	requested, key := s.Annotations[servingSecretBeta], servingSecretBeta
	if requested == "" {
		if alpha := s.Annotations[servingSecretAlpha]; alpha != "" {
			requested, key = alpha, servingSecretAlpha
		}
	}
	var results []finding.Result
	if requested != s.Secret.Name {
		message := "no annotation requests Secret " + s.Secret.Name + " from service-ca"
		if requested != "" {
			message = "the annotation requests Secret " + quoteName(requested) + " from service-ca, not " + s.Secret.Name
		}
		results = single(finding.RotationDetached, s.at().Part(key),
			message+", so service-ca stops renewing it",
			"set the annotation "+key+" to "+s.Secret.Name)
	}
	failures := max(count(s.Annotations[errorCounterAlpha]), count(s.Annotations[errorCounterBeta]))
	switch {
	case failures >= maxRetries:
		return append(results, single(finding.RotationStuck, s.at(),
			fmt.Sprintf("service-ca stopped after %d failures: it will not renew the Secret that it issues for the Service",
				failures),
			"resolve the error in the Service's annotation serving-cert-generation-error, then remove the annotations "+
				"serving-cert-generation-error and -error-num, alpha and beta")...)
	case failures > 0:
		return append(results, single(finding.RotationFailing, s.at(),
			fmt.Sprintf("service-ca cannot write the Secret that it issues for the Service (consecutive failures: %d)",
				failures),
			fmt.Sprintf("resolve the error in the Service's annotation serving-cert-generation-error; "+
				"service-ca stops after %d failures", maxRetries))...)
	}
	return results
}

// count reads a counter. Text that is not a number counts as 0, as in service-ca.
func count(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0
	}
	return n
}
