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

// secretType: the Secret has type kubernetes.io/tls, as CIS OpenShift 1.2.4 (1.2.2 from v1.8)
// requires, unless another type is configured. The API server refuses a change of the type
// (Kubernetes pkg/apis/core/validation/validation.go, ValidateSecretUpdate), but a user can
// delete the Secret and create it again with another type.
func secretType(s secretFacts, _ time.Time) []finding.Result {
	want := cmp.Or(s.want.Type, secretTypeTLS)
	if s.want.Family() != finding.AddedSecret {
		want = secretTypeTLS // the control requires it, whatever is configured
	}
	if s.stored.Type == want {
		return nil
	}
	return single(finding.WrongSecretType, s.want.at("type"),
		"the type is "+strconv.Quote(s.stored.Type)+", expected "+want,
		"recreate it with type "+want)
}
