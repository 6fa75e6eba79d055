// SPDX-License-Identifier: Apache-2.0

package check

import (
	"cmp"
	"strconv"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// secretTypeTLS is k8s.io/api/core/v1.SecretTypeTLS.
const secretTypeTLS = "kubernetes.io/tls"

// secretType: the Secret is of type kubernetes.io/tls, as CIS OpenShift 1.2.4
// (1.2.2 from v1.9) asks, unless another one is expected. The API server lets
// nobody change the type (Kubernetes pkg/apis/core/validation/validation.go,
// ValidateSecretUpdate), but who deletes the Secret may create it again as any
// other.
func secretType(s protectedSecret, _ time.Time) []finding.Finding {
	want := cmp.Or(s.want.Type, secretTypeTLS)
	if s.stored.Type == want {
		return nil
	}
	return one(finding.WrongSecretType, s.want.at("type"),
		"the type is "+strconv.Quote(s.stored.Type)+" instead of "+want,
		"create it with type "+want)
}
