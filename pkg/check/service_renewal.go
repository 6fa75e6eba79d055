// SPDX-License-Identifier: Apache-2.0

package check

import (
	"fmt"
	"strconv"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// The annotations in which service-ca counts its failures in a row, and the
// number at which it gives up until somebody removes them
// (service-ca-operator pkg/controller/servingcert/controller/
// secret_creating_controller.go, updateServiceFailure and maxRetries).
const (
	errorCounterAlpha = "service.alpha.openshift.io/serving-cert-generation-error-num"
	errorCounterBeta  = "service.beta.openshift.io/serving-cert-generation-error-num"
	maxRetries        = 10
)

// serviceRenewal: service-ca can still write the Secret. The certificate that
// is stored may hold for long; that it will never be renewed is told now.
func serviceRenewal(s Service, _ time.Time) []finding.Finding {
	failures := max(count(s.Annotations[errorCounterAlpha]), count(s.Annotations[errorCounterBeta]))
	at := finding.Location("Service " + s.Namespace + "/" + s.Name)
	switch {
	case failures >= maxRetries:
		return one(finding.RotationStuck, at,
			fmt.Sprintf("service-ca has failed %d times and gave up: the Secret that it issues for the Service will not be renewed", failures),
			"mend what its annotation serving-cert-generation-error says, then remove the annotations serving-cert-generation-error and -error-num, alpha and beta")
	case failures > 0:
		return one(finding.RotationFailing, at,
			fmt.Sprintf("service-ca has failed %d times in a row to write the Secret that it issues for the Service", failures),
			fmt.Sprintf("mend what its annotation serving-cert-generation-error says, before it gives up at %d", maxRetries))
	}
	return nil
}

// count reads a counter; what is no number counts nothing, as for service-ca.
func count(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0
	}
	return n
}
