// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	registrationv1 "k8s.io/api/admissionregistration/v1"
	"sigs.k8s.io/yaml"
)

// TestPrintsPolicies: the output has a policy and a binding for each protected Secret, and the
// API's types can decode each document.
func TestPrintsPolicies(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), []string{"policy", "--name-prefix", "p", "--labels", "a=b,c=d"}, noEnvironment, &stdout,
		&stderr); code != 0 {
		t.Fatalf("exit code %d: %s", code, stderr.String())
	}
	var got []string
	for document := range strings.SplitSeq(strings.TrimPrefix(stdout.String(), "---\n"), "\n---\n") {
		var made registrationv1.ValidatingAdmissionPolicy
		var binding registrationv1.ValidatingAdmissionPolicyBinding
		if err := yaml.UnmarshalStrict([]byte(document), &made); err == nil {
			got = append(got, made.Kind+" "+made.Name+" "+made.Labels["a"]+made.Labels["c"])
		} else if err := yaml.UnmarshalStrict([]byte(document), &binding); err == nil {
			got = append(got, binding.Kind+" "+binding.Name+" "+binding.Labels["a"]+binding.Labels["c"])
		} else {
			t.Errorf("%v:\n%s", err, document)
		}
		if strings.Contains(document, "\nstatus:") {
			t.Errorf("the document has a status:\n%s", document)
		}
	}
	want := []string{
		"ValidatingAdmissionPolicy p.openshift-apiserver.serving-cert bd", "ValidatingAdmissionPolicyBinding " +
			"p.openshift-apiserver.serving-cert bd",
		"ValidatingAdmissionPolicy p.openshift-kube-apiserver.kubelet-client bd", "ValidatingAdmissionPolicyBinding " +
			"p.openshift-kube-apiserver.kubelet-client bd",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("documents (-want +got):\n%s", d)
	}
}
