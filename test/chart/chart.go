// SPDX-License-Identifier: Apache-2.0

// Package chart renders the project's Helm chart without a cluster, for tests.
//
// It runs the tools that tools/go.mod pins. The environment variables HELM and
// KUBECONFORM set their absolute paths. Otherwise it uses .tools and builds tools
// that are missing, which takes minutes.
package chart

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	sigsyaml "sigs.k8s.io/yaml"
)

// Release and Namespace are the name and the namespace of the rendered release.
const (
	Release   = "kubelet-https-guard"
	Namespace = "kubelet-https-guard"
)

// folder is the folder of the chart, relative to the repository.
const folder = "charts/kubelet-https-guard"

// The tools: command names and their packages in tools/go.mod.
var packages = map[string]string{
	"helm":        "helm.sh/helm/v4/cmd/helm",
	"kubeconform": "github.com/yannh/kubeconform/cmd/kubeconform",
}

// Repository returns the root of the repository that contains the working directory.
func Repository() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		switch _, err := os.Stat(filepath.Join(dir, folder, "Chart.yaml")); {
		case err == nil:
			return dir, nil
		case !errors.Is(err, fs.ErrNotExist):
			return "", err
		case dir == filepath.Dir(dir):
			return "", errors.New("there is no " + folder + " in any folder above this one")
		}
		dir = filepath.Dir(dir)
	}
}

// Tool returns the path of a tool that tools/go.mod pins.
func Tool(ctx context.Context, name string) (string, error) {
	if path := os.Getenv(strings.ToUpper(name)); path != "" {
		return path, nil
	}
	repository, err := Repository()
	if err != nil {
		return "", err
	}
	path := filepath.Join(repository, ".tools", name)
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return path, err
	}
	build := exec.CommandContext(ctx, "go", "build", "-o", path, packages[name])
	build.Dir = filepath.Join(repository, "tools")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // as make does
	if output, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", name, err, output)
	}
	return path, nil
}

// RenderError is the error message of Helm.
type RenderError struct{ Message string }

func (e *RenderError) Error() string { return "render the chart: " + e.Message }

// Render runs `helm template` on the chart with additional arguments.
func Render(ctx context.Context, args ...string) ([]byte, error) {
	repository, err := Repository()
	if err != nil {
		return nil, err
	}
	helm, err := Tool(ctx, "helm")
	if err != nil {
		return nil, err
	}
	command := exec.CommandContext(ctx, helm, slices.Concat(
		[]string{"template", Release, filepath.Join(repository, folder), "--namespace", Namespace}, args)...)
	// Helm settings of the user must not affect the result.
	command.Env = slices.DeleteFunc(os.Environ(), func(entry string) bool { return strings.HasPrefix(entry, "HELM_") })
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	var exit *exec.ExitError
	switch err := command.Run(); {
	case errors.As(err, &exit) && exit.Exited():
		return nil, &RenderError{strings.TrimSpace(stderr.String())}
	case err != nil:
		return nil, fmt.Errorf("run helm: %w", err)
	}
	return stdout.Bytes(), nil
}

// Objects parses rendered manifests.
func Objects(rendered []byte) ([]*unstructured.Unstructured, error) {
	var objects []*unstructured.Unstructured
	documents := yaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(rendered)))
	for {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return objects, nil
		}
		if err != nil {
			return nil, err
		}
		object := &unstructured.Unstructured{}
		if err := sigsyaml.UnmarshalStrict(document, &object.Object); err != nil {
			return nil, fmt.Errorf("%w\n%s", err, document)
		}
		if len(object.Object) > 0 { // not empty
			objects = append(objects, object)
		}
	}
}

// Decode converts the only rendered object of a kind to a typed object. Unknown fields
// are errors.
func Decode(rendered []byte, kind string, into any) error {
	objects, err := Objects(rendered)
	if err != nil {
		return err
	}
	objects = slices.DeleteFunc(objects, func(o *unstructured.Unstructured) bool { return o.GetKind() != kind })
	if len(objects) != 1 {
		return fmt.Errorf("%d objects of kind %s were rendered, want 1", len(objects), kind)
	}
	data, err := objects[0].MarshalJSON()
	if err != nil {
		return err
	}
	return sigsyaml.UnmarshalStrict(data, into)
}
