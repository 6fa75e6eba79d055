// SPDX-License-Identifier: Apache-2.0

// Package facts reduces objects of the API to the facts that the checks need. Admission and
// audit get the same facts of the same object.
package facts

import (
	"encoding/json"
	"fmt"

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

// Secret has the fields of a Secret that are checked, as in JSON. Decoding only these saves
// time and memory.
type Secret struct {
	Metadata struct {
		Name            string            `json:"name"`
		UID             string            `json:"uid"`
		Annotations     map[string]string `json:"annotations"`
		OwnerReferences []struct {
			APIVersion string `json:"apiVersion"`
			Kind       string `json:"kind"`
			Name       string `json:"name"`
			UID        string `json:"uid"`
		} `json:"ownerReferences"`
	} `json:"metadata"`
	Type      string `json:"type"`
	Immutable *bool  `json:"immutable"`
	Data      struct {
		Certificate []byte `json:"tls.crt"`
		Key         []byte `json:"tls.key"`
	} `json:"data"`
}

// Facts returns the facts for the checks; nil if s is nil.
func (s *Secret) Facts() *check.Secret {
	if s == nil {
		return nil
	}
	reduced := &check.Secret{
		Type: s.Type, Certificate: s.Data.Certificate, Key: s.Data.Key,
		Immutable: s.Immutable != nil && *s.Immutable, Annotations: s.Metadata.Annotations,
	}
	for _, o := range s.Metadata.OwnerReferences {
		reduced.Owners = append(reduced.Owners, check.Owner{APIVersion: o.APIVersion, Kind: o.Kind, Name: o.Name, UID: o.UID})
	}
	return reduced
}

// KubeAPIServer has the fields of a KubeAPIServer that are checked.
type KubeAPIServer struct {
	Metadata struct {
		Name string `json:"name"`
		UID  string `json:"uid"`
	} `json:"metadata"`
	Spec struct {
		Overrides json.RawMessage `json:"unsupportedConfigOverrides"`
	} `json:"spec"`
}

// Override returns the facts of the overrides of the configuration.
func Override(object KubeAPIServer) check.Override {
	const field = "spec.unsupportedConfigOverrides"
	overrides, err := kubeapiserver.ParseOverrides(object.Spec.Overrides)
	if err != nil {
		err = fmt.Errorf("%s: %w", field, err)
	}
	admission, admissionErr := kubeapiserver.ParseAdmissionOverrides(object.Spec.Overrides)
	if admissionErr != nil {
		admissionErr = fmt.Errorf("%s: %w", field, admissionErr)
	}
	return check.Override{
		Admission: admission, AdmissionErr: admissionErr,
		At: finding.Subject{Kind: KubeAPIServerKind, Name: KubeAPIServerName, Key: field}, Overrides: overrides, Err: err,
	}
}
