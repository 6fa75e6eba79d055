// SPDX-License-Identifier: Apache-2.0

// Package chart renders the project's Helm chart, without a cluster, for tests
// of what it renders.
//
// It runs the programs that tools/go.mod pins: those that the environment names
// (HELM, KUBECONFORM; absolute paths, make sets them), else those in .tools,
// which are built if they are not there, which takes minutes.
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

// Release is the name of the release that is rendered, and Namespace where.
const (
	Release   = "kubelet-https-guard"
	Namespace = "kubelet-https-guard"
)

// folder is the chart's, seen from the repository.
const folder = "charts/kubelet-https-guard"

// The programs, by the names of the commands; packages of tools/go.mod.
var packages = map[string]string{
	"helm":        "helm.sh/helm/v4/cmd/helm",
	"kubeconform": "github.com/yannh/kubeconform/cmd/kubeconform",
}

// Repository is the folder of the repository that the working directory, that
// of a package under test, is in.
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

// Tool is a program that tools/go.mod pins.
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

// RenderError is what Helm said instead of rendering.
type RenderError struct{ Said string }

func (e *RenderError) Error() string { return "render the chart: " + e.Said }

// Render runs `helm template` on the chart with more arguments.
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
	// What a person has set for Helm is not to change what is rendered.
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

// Objects are the objects in what was rendered.
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
		if len(object.Object) > 0 { // a template that had nothing to say
			objects = append(objects, object)
		}
	}
}

// Decode makes the one object of a kind that was rendered a typed one, and
// takes no field that the type has not.
func Decode(rendered []byte, kind string, into any) error {
	objects, err := Objects(rendered)
	if err != nil {
		return err
	}
	objects = slices.DeleteFunc(objects, func(o *unstructured.Unstructured) bool { return o.GetKind() != kind })
	if len(objects) != 1 {
		return fmt.Errorf("%d objects of kind %s were rendered, not one", len(objects), kind)
	}
	data, err := objects[0].MarshalJSON()
	if err != nil {
		return err
	}
	return sigsyaml.UnmarshalStrict(data, into)
}
