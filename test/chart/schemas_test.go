// SPDX-License-Identifier: Apache-2.0

package chart_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kubelet-https-guard/kubelet-https-guard/test/chart"
)

// schemaTemplate is the file name of the schema of a kind, as a kubeconform template.
// For the core API, kubeconform uses the version as the group.
const schemaTemplate = "{{ .ResourceKind }}-{{ .Group }}-{{ .ResourceAPIVersion }}.json"

// A definition in the OpenAPI document is almost a JSON schema.
type definition = map[string]any

const reference = "#/definitions/"

// Patterns of a quantity (apimachinery pkg/api/resource) and of the format byte.
const (
	quantity = `^[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?$`
	base64   = "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"
)

// writeSchemas writes a JSON schema for each kind to a folder and returns the folder.
// The source is the OpenAPI document in the Go module of the Kubernetes version that
// test/cluster runs, so nothing is downloaded.
func writeSchemas(t *testing.T) string {
	t.Helper()
	repository, err := chart.Repository()
	if err != nil {
		t.Fatal(err)
	}
	download := exec.CommandContext(t.Context(), "go", "mod", "download", "-json", "k8s.io/kubernetes")
	download.Dir = filepath.Join(repository, "test", "cluster")
	output, err := download.Output()
	if err != nil {
		t.Fatalf("find the Kubernetes module: %v\n%s", err, output)
	}
	var module struct{ Dir string }
	if err := json.Unmarshal(output, &module); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(module.Dir, "api", "openapi-spec", "swagger.json"))
	if err != nil {
		t.Fatal(err)
	}
	var document struct {
		Definitions map[string]definition `json:"definitions"`
	}
	if err := json.Unmarshal(data, &document); err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	for name, schema := range schemas(document.Definitions) {
		encoded, err := json.Marshal(schema)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(folder, name), encoded, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return folder
}

// schemas returns the schemas of all kinds in a document, by name. Each one is
// self-contained.
func schemas(definitions map[string]definition) map[string]definition {
	strict := make(map[string]definition, len(definitions))
	for name, d := range definitions {
		strict[name] = closed(d)
	}
	maps.Copy(strict, loose)
	all := map[string]definition{}
	for name, d := range definitions {
		kinds, _ := d["x-kubernetes-group-version-kind"].([]any)
		if len(kinds) != 1 { // none, or a kind that belongs to all groups
			continue
		}
		kind, _ := kinds[0].(map[string]any)
		schema := maps.Clone(strict[name])
		schema["$schema"] = "http://json-schema.org/draft-07/schema#"
		needed := map[string]definition{}
		gather(strict, strict[name], needed)
		schema["definitions"] = needed
		group, version := kind["group"], kind["version"]
		if group == "" {
			group = version
		}
		all[fmt.Sprintf("%s-%s-%s.json", strings.ToLower(fmt.Sprint(kind["kind"])), group, version)] = schema
	}
	return all
}

// gather adds the definitions that a schema refers to.
func gather(definitions map[string]definition, value any, into map[string]definition) {
	switch value := value.(type) {
	case map[string]any:
		if to, ok := value["$ref"].(string); ok {
			name := strings.TrimPrefix(to, reference)
			if _, known := into[name]; known {
				return
			}
			into[name] = definitions[name]
			gather(definitions, definitions[name], into)
			return
		}
		for _, inner := range value {
			gather(definitions, inner, into)
		}
	case []any:
		for _, inner := range value {
			gather(definitions, inner, into)
		}
	}
}

// loose lists the types that can be a string or a number. The document calls them
// strings.
var loose = map[string]definition{
	"io.k8s.apimachinery.pkg.util.intstr.IntOrString": {"type": []any{"integer", "string"}},
	"io.k8s.apimachinery.pkg.api.resource.Quantity": {
		"type":    []any{"number", "string"},
		"pattern": quantity,
	},
}

// closed returns a schema that allows no unknown fields, at all levels, without
// descriptions.
func closed(schema definition) definition {
	out := definition{}
	for key, value := range schema {
		switch key {
		case "type", "$ref", "required", "format":
			out[key] = value
		case "items", "additionalProperties":
			inner, _ := value.(map[string]any)
			out[key] = closed(inner)
		case "properties":
			fields, closedFields := value.(map[string]any), definition{}
			for name, field := range fields {
				inner, _ := field.(map[string]any)
				closedFields[name] = closed(inner)
			}
			out[key] = closedFields
			out["additionalProperties"] = false
		}
	}
	if schema["format"] == "byte" {
		out["pattern"] = base64
	}
	return out
}

// conformance is the result of kubeconform: the number of objects that it checked or
// skipped, and the errors.
type conformance struct {
	Objects int
	Wrong   []string
}

// conform checks rendered manifests with kubeconform.
func conform(t *testing.T, schemas string, rendered []byte) conformance {
	t.Helper()
	kubeconform, err := chart.Tool(t.Context(), "kubeconform")
	if err != nil {
		t.Fatal(err)
	}
	command := exec.CommandContext(t.Context(), kubeconform, "-strict", "-verbose", "-output", "json", "-schema-location",
		filepath.Join(schemas, schemaTemplate), "-skip", strings.Join(slices.Collect(maps.Keys(elsewhere)), ","))
	command.Stdin = bytes.NewReader(rendered)
	var stderr strings.Builder
	command.Stderr = &stderr
	// Exit code 1 means that an object does not conform; the output says which.
	output, err := command.Output()
	var result struct {
		Resources []struct{ Kind, Name, Status, Msg string }
	}
	if unreadable := json.Unmarshal(output, &result); unreadable != nil {
		t.Fatalf("kubeconform: %v: %v\n%s%s", err, unreadable, output, stderr.String())
	}
	got := conformance{Objects: len(result.Resources)}
	for _, r := range result.Resources {
		if r.Status != "statusValid" && r.Status != "statusSkipped" {
			// Without the prefix, which is the schema file.
			_, msg, found := strings.Cut(r.Msg, ".json#' - ")
			if !found {
				msg = r.Msg
			}
			got.Wrong = append(got.Wrong, fmt.Sprintf("%s %s: %s", r.Kind, r.Name, msg))
		}
	}
	slices.Sort(got.Wrong)
	return got
}
