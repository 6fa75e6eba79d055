#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# A YAML document that has only comments makes a kube-apiserver reject its whole directory of static policies.
#
# Version:  k8s.io/apiserver v0.37.2 (pkg/admission/plugin/policy/manifest/loader, which kube-apiserver 1.37.2 uses for
#           staticManifestsDir)
# Input:    A directory with one file: a comment, `---`, a policy, `---`, its binding. Then the same file without the
#           `---` after the comment.
# Expected: Both are loaded. kubectl and Helm ignore a document without an object, and many files begin with a license
#           comment and `---`.
# Seen:     The first one is an error, and nothing of the directory is loaded:
#               error loading .../policies.yaml: Object 'Kind' is missing in '# A comment.'
#           The second one is loaded. With such a file, an API server does not start; a running one keeps what it had.
# Relates:  `webhook policy --static` writes its comment into the first object's document.
# Thread:   None found. https://github.com/kubernetes/enhancements/issues/5793 is the feature.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"

cat >main.go <<'GO'
package main

import (
	"fmt"
	"os"

	v1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apiserver/pkg/admission/plugin/policy/manifest/loader"
)

// accept accepts objects of one type.
func accept[T metav1.Object](object runtime.Object) ([]T, error) {
	if typed, ok := object.(T); ok {
		return []T{typed}, nil
	}
	return nil, loader.ErrUnrecognizedType
}

func main() {
	scheme := runtime.NewScheme()
	if err := v1.AddToScheme(scheme); err != nil {
		panic(err)
	}
	policies, bindings, _, err := loader.LoadPolicyManifests(os.Args[1],
		serializer.NewCodecFactory(scheme).UniversalDeserializer(),
		accept[*v1.ValidatingAdmissionPolicy], accept[*v1.ValidatingAdmissionPolicyBinding],
		func(b *v1.ValidatingAdmissionPolicyBinding) string { return b.Spec.PolicyName })
	if err != nil {
		fmt.Println("  error:", err)
		return
	}
	fmt.Printf("  loaded %d policy, %d binding\n", len(policies), len(bindings))
}
GO
{ go mod init example.com/load && go get k8s.io/apiserver@v0.37.2 k8s.io/api@v0.37.2 && go mod tidy && go build -o load .; } \
	>install.log 2>&1 || { cat install.log >&2; exit 2; }

mkdir separate joined
objects='apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: example.static.k8s.io}
spec:
  matchConstraints:
    resourceRules:
    - {apiGroups: [""], apiVersions: [v1], resources: [configmaps], operations: [DELETE]}
  validations: [{expression: "false"}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: example.static.k8s.io}
spec: {policyName: example.static.k8s.io, validationActions: [Deny]}'
printf '# A comment.\n---\n%s\n' "$objects" >separate/policies.yaml
printf '# A comment.\n%s\n' "$objects" >joined/policies.yaml

for case in separate joined; do
	echo "== the comment is $case"
	./load "$dir/$case" | sed "s|$dir|...|" | tee "$case.result"
done
if ! grep -q "Object 'Kind' is missing" separate.result || ! grep -q 'loaded 1 policy, 1 binding' joined.result; then
	echo "The behavior changed."
	exit 1
fi
