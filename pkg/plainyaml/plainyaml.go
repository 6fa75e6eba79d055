// SPDX-License-Identifier: Apache-2.0

// Package plainyaml decodes YAML and JSON as the API machinery of Kubernetes
// does, but for aliases, which it refuses: a few of them blow a small text up to
// gigabytes, and nothing that writes manifests or configurations uses them.
package plainyaml

import (
	"errors"
	"fmt"
	"slices"

	yamlv3 "go.yaml.in/yaml/v3"
	"sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// MaxYAML bounds a text that is no JSON, in bytes: in memory YAML takes a hundred
// times its size and more. What kubeadm and OpenShift write has at most 30 KB.
const MaxYAML = 128 << 10

// errAlias is the answer to a text with an alias.
var errAlias = errors.New("it uses YAML aliases, which are not followed here")

// UnmarshalJSON decodes JSON alone, in the same way.
func UnmarshalJSON(data []byte, into any) error {
	return json.UnmarshalCaseSensitivePreserveInts(data, into)
}

// Unmarshal decodes the first document in data by the names in the "json" tags
// of into, letter for letter. Unknown fields are left alone. In a value of type
// any, numbers become int64 or float64. The caller bounds data.
func Unmarshal(data []byte, into any) error {
	// Most of what comes here is JSON, which is quickly read.
	err := json.UnmarshalCaseSensitivePreserveInts(data, into)
	if isSyntax, _ := json.SyntaxErrorOffset(err); err == nil || !isSyntax {
		return err // JSON all the same, of another shape: no need to read it twice
	}
	if len(data) > MaxYAML {
		return fmt.Errorf("it is no JSON, and YAML of %d bytes, more than %d", len(data), MaxYAML)
	}
	var document yamlv3.Node
	if err := yamlv3.Unmarshal(data, &document); err != nil {
		return err
	}
	if hasAlias(&document) {
		return errAlias
	}
	converted, err := yaml.YAMLToJSON(data)
	if err != nil {
		return err
	}
	return json.UnmarshalCaseSensitivePreserveInts(converted, into)
}

func hasAlias(node *yamlv3.Node) bool {
	return node.Kind == yamlv3.AliasNode || slices.ContainsFunc(node.Content, hasAlias)
}
