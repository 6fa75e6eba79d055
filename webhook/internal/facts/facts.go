// SPDX-License-Identifier: Apache-2.0

// Package facts reduces objects of the API to what the catalogue of checks
// looks at. Admission and audit see the same facts of the same object.
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

// Secret is the little of a Secret that is looked at, as JSON has it. Decoding
// no more than that spares the time and the memory of what else is in it.
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

// Facts are what the checks take; nil of none.
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
