// SPDX-License-Identifier: Apache-2.0

package check

import (
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// Service is the Service that service-ca issues a Secret for, reduced to what
// the checks look at.
type Service struct {
	Namespace, Name string
	Annotations     map[string]string
}

// ServiceFindings checks the Service of a Secret that service-ca manages.
func ServiceFindings(service Service, now time.Time) []finding.Finding {
	return runAll(serviceChecks(), service, now)
}

// LookedFor are the reasons for which [ServiceFindings] could look.
func (s Service) LookedFor() []finding.Reason { return lookedFor(serviceChecks(), s) }

func serviceChecks() []check[Service] {
	return []check[Service]{
		{[]finding.Reason{finding.RotationFailing, finding.RotationStuck}, nil, serviceRenewal},
	}
}
