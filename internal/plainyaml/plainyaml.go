// SPDX-License-Identifier: Apache-2.0

// Package plainyaml decodes YAML and JSON as Kubernetes' API machinery does, but refuses
// aliases: a few of them expand a small text to gigabytes, and no program that writes
// manifests or configurations uses them.
package plainyaml

import (
	stdjson "encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	yamlv3 "go.yaml.in/yaml/v3"
	"sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// MaxYAML bounds a text that is not JSON, in bytes: YAML takes more than a hundred times its
// size in memory. kubeadm and OpenShift write at most 30 KB.
const MaxYAML = 128 << 10

// ErrLimit is wrapped by errors for a text that exceeds a limit of this package, but may be
// valid for other programs.
var ErrLimit = errors.New("it exceeds a limit")

// limitError is an [ErrLimit] with its own text.
type limitError string

func (e limitError) Error() string { return string(e) }

// Is makes it an ErrLimit.
func (limitError) Is(target error) bool { return target == ErrLimit }

// errAlias is the error for a text with an alias.
const errAlias limitError = "it uses YAML aliases, which are not supported"

// UnmarshalJSON is [Unmarshal] for JSON only.
func UnmarshalJSON(data []byte, into any) error {
	return Explain(json.UnmarshalCaseSensitivePreserveInts(data, into))
}

// Unmarshal decodes the first document in data with the names in the "json" tags of into. Names
// are case-sensitive. It ignores unknown fields. In a value of type any, numbers become int64
// or float64. The caller bounds data. Errors, as those of all functions of this package, are
// those of [Explain].
func Unmarshal(data []byte, into any) error {
	// Most texts are JSON, which is fast.
	err := json.UnmarshalCaseSensitivePreserveInts(data, into)
	if isSyntax, _ := json.SyntaxErrorOffset(err); err == nil || !isSyntax {
		return Explain(err) // it is JSON with wrong types, so it need not be parsed as YAML
	}
	if len(data) > MaxYAML {
		return limitError(fmt.Sprintf("it is not JSON, and its %d bytes of YAML exceed the limit of %d",
			len(data), MaxYAML))
	}
	var document yamlv3.Node
	if err := yamlv3.Unmarshal(data, &document); err != nil {
		return Explain(err)
	}
	if hasAlias(&document) {
		return errAlias
	}
	converted, err := yaml.YAMLToJSON(data)
	if err != nil {
		return Explain(err)
	}
	return Explain(json.UnmarshalCaseSensitivePreserveInts(converted, into))
}

// TypeMeta returns the apiVersion and kind of a text as Kubernetes' decoders do: unlike all
// other fields, their names are not case-sensitive, and the last one of several counts
// (k8s.io/apimachinery pkg/runtime/serializer/json, SimpleMetaFactory). In YAML the order is
// that of the names.
func TypeMeta(data []byte) (apiVersion, kind string, err error) {
	if !stdjson.Valid(data) {
		var object map[string]any
		if err := Unmarshal(data, &object); err != nil {
			return "", "", err
		}
		for name := range object {
			if !strings.EqualFold(name, "apiVersion") && !strings.EqualFold(name, "kind") {
				delete(object, name)
			}
		}
		if data, err = stdjson.Marshal(object); err != nil {
			return "", "", err
		}
	}
	var meta struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
	}
	if err := stdjson.Unmarshal(data, &meta); err != nil {
		return "", "", Explain(err)
	}
	return meta.APIVersion, meta.Kind, nil
}

// UnmarshalStrict is [Unmarshal] for what Kubernetes decodes strictly: an unknown or duplicate
// field is an error. After an error, into is not valid.
func UnmarshalStrict(data []byte, into any) error {
	var anything any
	if err := Unmarshal(data, &anything); err != nil {
		return err
	}
	if json.UnmarshalCaseSensitivePreserveInts(data, &anything) != nil {
		converted, err := yaml.YAMLToJSONStrict(data)
		if err != nil {
			// Its text has a line for each error.
			return errors.New(strings.Join(strings.Fields(Explain(err).Error()), " "))
		}
		data = converted
	}
	faults, err := json.UnmarshalStrict(data, into)
	if err == nil && len(faults) > 0 {
		err = faults[0]
	}
	return Explain(err)
}

func hasAlias(node *yamlv3.Node) bool {
	return node.Kind == yamlv3.AliasNode || slices.ContainsFunc(node.Content, hasAlias)
}
