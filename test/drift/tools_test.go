// SPDX-License-Identifier: Apache-2.0

package drift_test

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/argoproj/argo-cd/gitops-engine/pkg/diff"
	"github.com/fluxcd/pkg/ssa/jsondiff"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
	"k8s.io/kube-openapi/pkg/util/proto"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// tool is a tool that keeps a cluster as a chart renders it.
type tool struct {
	name string
	// changes reports whether the tool would change the live object.
	changes func(ctx context.Context, desired, live *unstructured.Unstructured) (bool, error)
	// sync applies the object as the tool does, on the server side.
	sync func(ctx context.Context, desired *unstructured.Unstructured) error
}

// The names under which the tools apply: Argo CD (common.ArgoCDSSAManager) and Flux's helm-controller.
const (
	argoManager = "argocd-controller"
	fluxManager = "helm-controller"
)

// newTools returns the three ways in which Argo CD finds differences (controller/state.go; the default, the sync option
// ServerSideApply, and the option ServerSideDiff), and that of Flux's helm-controller (internal/action/diff.go).
func newTools(config *rest.Config, c client.Client) ([]tool, error) {
	parser, err := newParser(config)
	if err != nil {
		return nil, err
	}
	dryRun := dryRunner{client: c}
	argo := func(name string, options ...diff.Option) tool {
		options = append(options, diff.WithGVKParser(parser), diff.WithManager(argoManager))
		return tool{name, func(_ context.Context, desired, live *unstructured.Unstructured) (bool, error) {
			result, err := diff.Diff(desired, live, options...)
			if err != nil {
				return false, err
			}
			return result.Modified, nil
		}, applier(c, argoManager)}
	}
	return []tool{
		argo("Argo CD"),
		argo("Argo CD, ServerSideApply", diff.WithStructuredMergeDiff(true)),
		argo("Argo CD, ServerSideDiff", diff.WithServerSideDiff(true), diff.WithServerSideDryRunner(dryRun)),
		{"Flux", func(ctx context.Context, desired, _ *unstructured.Unstructured) (bool, error) {
			set, err := jsondiff.UnstructuredList(ctx, c, []*unstructured.Unstructured{desired},
				jsondiff.FieldOwner(fluxManager), jsondiff.Rationalize(true))
			return set.HasChanges(), err
		}, applier(c, fluxManager)},
	}, nil
}

// applier applies objects on the server side and takes over fields of others.
func applier(c client.Client, manager string) func(context.Context, *unstructured.Unstructured) error {
	return func(ctx context.Context, object *unstructured.Unstructured) error {
		return c.Apply(ctx, client.ApplyConfigurationFromUnstructured(object), client.FieldOwner(manager),
			client.ForceOwnership)
	}
}

// newParser returns the types of a cluster, as Argo CD reads them (gitops-engine pkg/utils/kube, LoadOpenAPISchema).
func newParser(config *rest.Config) (*managedfields.GvkParser, error) {
	discoverer, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return nil, err
	}
	document, err := discoverer.OpenAPISchema()
	if err != nil {
		return nil, fmt.Errorf("read the OpenAPI document: %w", err)
	}
	models, err := proto.NewOpenAPIData(document)
	if err != nil {
		return nil, fmt.Errorf("parse the OpenAPI document: %w", err)
	}
	return managedfields.NewGVKParser(models, false)
}

// dryRunner is what Argo CD does with kubectl: a dry run of a server-side apply.
type dryRunner struct{ client client.Client }

func (d dryRunner) Run(ctx context.Context, object *unstructured.Unstructured, manager string) (string, error) {
	predicted := object.DeepCopy()
	err := d.client.Apply(ctx, client.ApplyConfigurationFromUnstructured(predicted), client.DryRunAll,
		client.FieldOwner(manager), client.ForceOwnership)
	if err != nil {
		return "", fmt.Errorf("dry run of %s %s: %w", object.GetKind(), object.GetName(), err)
	}
	text, err := json.Marshal(predicted)
	return string(text), err
}
