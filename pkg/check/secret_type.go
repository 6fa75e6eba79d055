// SPDX-License-Identifier: Apache-2.0

package check

import (
	"strconv"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// secretTypeTLS is k8s.io/api/core/v1.SecretTypeTLS.
const secretTypeTLS = "kubernetes.io/tls"

// secretType: the Secret is of type kubernetes.io/tls, as CIS OpenShift 1.2.4
// (1.2.2 from v1.9) asks. The API server lets nobody change the type
// (Kubernetes pkg/apis/core/validation/validation.go, ValidateSecretUpdate),
// but who deletes the Secret may create it again as any other.
func secretType(s protectedSecret, _ time.Time) []finding.Finding {
	if s.stored == nil || s.stored.Type == secretTypeTLS {
		return nil
	}
	return one(finding.WrongSecretType, s.want.at("type"),
		"the type is "+strconv.Quote(s.stored.Type)+" instead of "+secretTypeTLS,
		"create it with type "+secretTypeTLS)
}
