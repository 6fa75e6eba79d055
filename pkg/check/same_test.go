// SPDX-License-Identifier: Apache-2.0

package check_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"reflect"
	"testing"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// TestSameAnswer: an answer is the same only if no field differs.
func TestSameAnswer(t *testing.T) {
	ca := pkitest.NewCA("csr-signer")
	certificates := []*x509.Certificate{ca.Certificate, ca.Issue(pkitest.ServingCert()).Leaf}
	alerts := []tls.AlertError{42, 43}
	parsed := func(c *x509.Certificate) *x509.Certificate {
		again, err := x509.ParseCertificate(c.Raw)
		if err != nil {
			t.Fatal(err)
		}
		return again
	}
	values := map[string]func(i int) any{ // two values of each field
		"At":                        func(i int) any { return finding.Subject{Name: []string{"a", "b"}[i]} },
		"Host":                      func(i int) any { return []string{"a", "b"}[i] },
		"Err":                       func(i int) any { return errors.New([]string{"a", "b"}[i]) },
		"NotTLS":                    func(i int) any { return i == 1 },
		"Alert":                     func(i int) any { alert := alerts[i]; return &alert },
		"Certificates":              func(i int) any { return []*x509.Certificate{parsed(certificates[i])} },
		"RequestsClientCertificate": func(i int) any { return i == 1 },
		"AcceptedCAs":               func(i int) any { return [][]byte{{byte(i)}} },
		"SignatureSchemes":          func(i int) any { return []tls.SignatureScheme{tls.SignatureScheme(i)} },
		"ReadOnlyAt":                func(i int) any { return finding.Subject{Name: []string{"a", "b"}[i]} },
		"ReadOnlyOpen":              func(i int) any { return i == 1 },
		"ReadOnlyErr":               func(i int) any { return errors.New([]string{"a", "b"}[i]) },
		"AssumedPort":               func(i int) any { return i },
	}
	with := func(field string, i int) (answer check.KubeletAnswer) {
		reflect.ValueOf(&answer).Elem().FieldByName(field).Set(reflect.ValueOf(values[field](i)))
		return answer
	}
	if !(check.KubeletAnswer{}).Same(check.KubeletAnswer{}) {
		t.Error("two answers without anything are not the same")
	}
	for _, field := range reflect.VisibleFields(reflect.TypeFor[check.KubeletAnswer]()) {
		t.Run(field.Name, func(t *testing.T) {
			if values[field.Name] == nil {
				t.Fatal("add two values of this field")
			}
			if !with(field.Name, 0).Same(with(field.Name, 0)) {
				t.Error("two answers with the same value are not the same")
			}
			if with(field.Name, 0).Same(with(field.Name, 1)) {
				t.Error("two answers with different values are the same")
			}
			if reflect.ValueOf(values[field.Name](1)).Kind() != reflect.Bool && with(field.Name, 1).Same(check.KubeletAnswer{}) {
				t.Error("an answer with a value is the same as one without")
			}
		})
	}
}
