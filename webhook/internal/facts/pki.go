// SPDX-License-Identifier: Apache-2.0

package facts

import (
	"encoding/json"
	"fmt"

	"k8s.io/apimachinery/pkg/runtime"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/plainyaml"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
)

// PKIVersion is the version of the API whose PKI objects [PKI] can interpret, and PKIDefinition is the
// CustomResourceDefinition of these objects (openshift/api config/v1alpha1).
const (
	PKIVersion    = "v1alpha1"
	PKIDefinition = "pkis." + check.ConfigGroup
)

// The fields of a PKI object's spec that this program knows (openshift/api config/v1alpha1 types_pki.go). The API has
// no compatibility guarantee, so any other field can change what these mean.
type (
	pkiSpec struct {
		CertificateManagement struct {
			Mode   string     `json:"mode"`
			Custom pkiProfile `json:"custom"`
		} `json:"certificateManagement"`
	}
	pkiProfile struct {
		Defaults            pkiCertificate `json:"defaults"`
		SignerCertificates  pkiCertificate `json:"signerCertificates"`
		ServingCertificates pkiCertificate `json:"servingCertificates"`
		ClientCertificates  pkiCertificate `json:"clientCertificates"`
	}
	pkiCertificate struct {
		Key pkiKey `json:"key"`
	}
	pkiKey struct {
		Algorithm string `json:"algorithm"`
		RSA       struct {
			KeySize int32 `json:"keySize"`
		} `json:"rsa"`
		ECDSA struct {
			Curve string `json:"curve"`
		} `json:"ecdsa"`
	}
)

// PKI returns what a PKI object of version [PKIVersion] configures. Unknown fields, modes, algorithms and curves are an
// error. It resolves keys as OpenShift's operators do (library-go pkg/pki/resolve.go): those of a category override
// the defaults if they have an algorithm.
func PKI(object map[string]any) check.PKI {
	var spec pkiSpec
	text, err := json.Marshal(object["spec"])
	if err == nil {
		err = plainyaml.UnmarshalStrict(text, &spec)
	}
	if err != nil {
		return check.PKI{Err: fmt.Errorf("spec: %w", err)}
	}
	management := spec.CertificateManagement
	switch management.Mode {
	case check.PKIUnmanaged, check.PKIDefault:
		return check.PKI{Mode: management.Mode}
	case check.PKICustom:
	default:
		return check.PKI{Err: fmt.Errorf("spec.certificateManagement.mode: unknown mode %.40q", management.Mode)}
	}
	custom := management.Custom
	serving, err := custom.keyOf(custom.ServingCertificates)
	if err != nil {
		return check.PKI{Err: err}
	}
	client, err := custom.keyOf(custom.ClientCertificates)
	if err != nil {
		return check.PKI{Err: err}
	}
	return check.PKI{Mode: management.Mode, ServingKey: serving, ClientKey: client}
}

// keyOf returns the algorithm and size of the keys of a category, as [pki.KeyOf] does.
func (p pkiProfile) keyOf(category pkiCertificate) (string, error) {
	key := category.Key
	if key.Algorithm == "" {
		key = p.Defaults.Key
	}
	name, err := "", error(nil)
	switch key.Algorithm {
	case "RSA":
		name = fmt.Sprintf("RSA %d", key.RSA.KeySize)
		if key.RSA.KeySize <= 0 {
			err = fmt.Errorf("an RSA key has the size %d", key.RSA.KeySize)
		}
	case "ECDSA":
		name = map[string]string{"P256": "ECDSA P-256", "P384": "ECDSA P-384", "P521": "ECDSA P-521"}[key.ECDSA.Curve]
		if name == "" {
			err = fmt.Errorf("unknown curve %.40q", key.ECDSA.Curve)
		}
	default:
		err = fmt.Errorf("unknown key algorithm %.40q", key.Algorithm)
	}
	if err != nil {
		return "", fmt.Errorf("spec.certificateManagement.custom: %w", err)
	}
	return name, nil
}

// OtherPKIVersions returns the versions other than [PKIVersion] in which the API server serves PKI objects. If there
// are any, version v1alpha1 of an object may lack fields: the API server drops those that its schema does not have.
// definition is the CustomResourceDefinition [PKIDefinition].
func OtherPKIVersions(definition map[string]any) []string {
	var fields struct {
		Spec struct {
			Versions []struct {
				Name   string `json:"name"`
				Served bool   `json:"served"`
			} `json:"versions"`
		} `json:"spec"`
	}
	// The API server stores no definition that cannot be converted.
	_ = runtime.DefaultUnstructuredConverter.FromUnstructured(definition, &fields)
	var others []string
	for _, v := range fields.Spec.Versions {
		if v.Served && v.Name != PKIVersion {
			others = append(others, v.Name)
		}
	}
	return others
}
