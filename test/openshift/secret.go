// SPDX-License-Identifier: Apache-2.0

package openshift

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pki"
)

// Users that write to the protected Secrets.
const (
	ServiceCA             = "system:serviceaccount:openshift-service-ca:service-ca"
	KubeAPIServerOperator = "system:serviceaccount:openshift-kube-apiserver-operator:kube-apiserver-operator"
	StorageMigrator       = "system:serviceaccount:" + migrator + ":kube-storage-version-migrator-sa"
	migrator              = "openshift-kube-storage-version-migrator"
	// InTreeMigrator is Kubernetes' own (storagemigration.k8s.io, on by default from 1.37).
	InTreeMigrator = "system:serviceaccount:kube-system:storage-version-migrator-controller"
)

// ServingCert is Secret openshift-apiserver/serving-cert as service-ca writes it for the Service with
// this UID (service-ca-operator pkg/controller/servingcert/controller/secret_creating_controller.go):
// a new object without a resourceVersion and without anything of the stored one.
func ServingCert(serviceUID types.UID, certificate, key []byte) *corev1.Secret {
	_, notAfter := validity(certificate)
	return &corev1.Secret{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "openshift-apiserver", Name: "serving-cert",
			Annotations: map[string]string{
				"service.alpha.openshift.io/originating-service-name": "api",
				"service.alpha.openshift.io/originating-service-uid":  string(serviceUID),
				"service.alpha.openshift.io/expiry":                   notAfter,
				"service.beta.openshift.io/expiry":                    notAfter,
				"openshift.io/owning-component":                       "service-ca",
			},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Service", Name: "api", UID: serviceUID}},
		},
		Type: corev1.SecretTypeTLS,
		Data: map[string][]byte{corev1.TLSCertKey: certificate, corev1.TLSPrivateKeyKey: key},
	}
}

// KubeletClient is Secret openshift-kube-apiserver/kubelet-client as the
// kube-apiserver operator writes it (library-go pkg/operator/certrotation/
// target.go).
func KubeletClient(certificate, key []byte) *corev1.Secret {
	notBefore, notAfter := validity(certificate)
	return &corev1.Secret{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "openshift-kube-apiserver", Name: "kubelet-client",
			Labels: map[string]string{"auth.openshift.io/managed-certificate-type": "target"},
			Annotations: map[string]string{
				"auth.openshift.io/certificate-not-before": notBefore,
				"auth.openshift.io/certificate-not-after":  notAfter,
				"openshift.io/owning-component":            "kube-apiserver",
			},
		},
		Type: corev1.SecretTypeTLS,
		Data: map[string][]byte{corev1.TLSCertKey: certificate, corev1.TLSPrivateKeyKey: key},
	}
}

// validity returns a certificate's validity as the annotations have it. For a certificate that cannot
// be parsed it returns an arbitrary one.
func validity(certificate []byte) (notBefore, notAfter string) {
	chain, err := pki.ParseChain(certificate)
	if err != nil {
		return "2026-11-22T12:00:00Z", "2028-11-21T12:00:00Z"
	}
	return chain.Leaf.NotBefore.UTC().Format(time.RFC3339), chain.Leaf.NotAfter.UTC().Format(time.RFC3339)
}
