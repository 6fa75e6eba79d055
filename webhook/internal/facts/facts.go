// SPDX-License-Identifier: Apache-2.0

// Package facts reduces objects of the API to what the catalogue of checks
// looks at. Admission and audit see the same facts of the same object.
package facts

import (
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/kubeapiserver"
)

// The one KubeAPIServer of a cluster (openshift/api operator/v1,
// types_kubeapiserver.go).
const (
	OperatorGroup     = "operator.openshift.io"
	KubeAPIServerKind = "KubeAPIServer"
	KubeAPIServerName = "cluster"
)

// Secret are the facts of a Secret; nil of none.
func Secret(secret *corev1.Secret) *check.Secret {
	if secret == nil {
		return nil
	}
	reduced := &check.Secret{
		Type:        string(secret.Type),
		Certificate: secret.Data[corev1.TLSCertKey],
		Key:         secret.Data[corev1.TLSPrivateKeyKey],
		Immutable:   secret.Immutable != nil && *secret.Immutable,
		Annotations: secret.Annotations,
	}
	for _, o := range secret.OwnerReferences {
		reduced.Owners = append(reduced.Owners, check.Owner{APIVersion: o.APIVersion, Kind: o.Kind, Name: o.Name, UID: string(o.UID)})
	}
	return reduced
}

// KubeAPIServer is the little of it that is looked at.
type KubeAPIServer struct {
	Metadata struct {
		Name string `json:"name"`
		UID  string `json:"uid"`
	} `json:"metadata"`
	Spec struct {
		Overrides json.RawMessage `json:"unsupportedConfigOverrides"`
	} `json:"spec"`
}

// Override are the facts of what people have laid over the configuration.
func Override(object KubeAPIServer) check.Override {
	const field = "spec.unsupportedConfigOverrides"
	overrides, err := kubeapiserver.ParseOverrides(object.Spec.Overrides)
	if err != nil {
		err = fmt.Errorf("%s: %w", field, err)
	}
	return check.Override{
		At: finding.Location(KubeAPIServerKind + " " + KubeAPIServerName + " " + field), Overrides: overrides, Err: err,
	}
}
