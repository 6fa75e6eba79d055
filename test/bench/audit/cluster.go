// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
)

// The names of the guard's policy and webhook that must refuse dry runs on the decoy.
const (
	policyName  = "kubelet-https-guard.guard.decoy"
	webhookName = "secrets.kubelet-https-guard.io"
)

const (
	// pairCount is how many pairs there are: creating a key of RSA 2048 for each Secret would take minutes.
	pairCount = 20
	// mostSelected is how many namespaces an entry with a selector may select (webhook/internal/follow, MaxObjects).
	mostSelected = 500
)

// How an entry of the configuration names Secrets.
const (
	byName     = "by namespace and name"
	bySelector = "by namespaceSelector"
)

// cluster is a cluster with protected Secrets.
type cluster struct {
	dir     string
	api     *api
	secrets int
	// how is byName or bySelector.
	how   string
	pairs []pkitest.Pair
	ca    *pkitest.CA
	// written is how often each Secret was written.
	written map[int]int
}

// newPairs issues the pairs of all clusters.
func newPairs() (*pkitest.CA, []pkitest.Pair) {
	now := time.Now()
	ca := pkitest.NewCAAround("signer", now)
	request := pkitest.Request{
		CommonName: "server", DNSNames: []string{"server.example"}, Key: pkitest.RSA,
	}.Valid(now.Add(-time.Hour), now.AddDate(1, 0, 0))
	request.Usages = pkitest.ServingCert().Usages
	var pairs []pkitest.Pair
	for range pairCount {
		pairs = append(pairs, ca.Issue(request))
	}
	return ca, pairs
}

// fill stores the objects, and writes the configuration. With a guard, it has a decoy and the guard's manifests.
func (c *cluster) fill(ctx context.Context, program string, guard bool) (flags []string, err error) {
	config := map[string]any{"apiVersion": "kubelet-https-guard.io/v1alpha1", "kind": "WebhookConfiguration"}
	var entries []any
	entry := func(names map[string]any) {
		maps.Copy(names, map[string]any{
			"usage": "serverAuth", "dnsNames": []string{"server.example"},
			"caBundleConfigMap": map[string]any{"namespace": "guard", "name": "signer", "key": "ca.crt"},
		})
		entries = append(entries, names)
	}
	for i := range c.secrets {
		namespace := map[string]any{
			"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{
				"name": namespaceOf(i), "uid": "namespace-" + fmt.Sprint(i), "creationTimestamp": "2026-01-01T00:00:00Z",
				"labels": map[string]any{groupOf(i): "true"},
			},
		}
		if err := c.api.put("/api/v1/namespaces", namespace); err != nil {
			return nil, err
		}
		if err := c.write(i); err != nil {
			return nil, err
		}
		switch {
		case c.how == byName:
			entry(map[string]any{"namespace": namespaceOf(i), "name": groupOf(i)})
		case i%mostSelected == 0:
			entry(map[string]any{
				"name": groupOf(i), "namespaceSelector": map[string]any{"matchLabels": map[string]string{groupOf(i): "true"}},
			})
		}
	}
	config["protectedSecrets"] = entries
	bundle := corev1.ConfigMap{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "guard", Name: "signer", UID: "signer"},
		Data:       map[string]string{"ca.crt": string(c.ca.PEM())},
	}
	if err := c.put("/api/v1/configmaps", &bundle); err != nil {
		return nil, err
	}
	if guard {
		config["decoy"] = map[string]any{"namespace": "guard", "name": "decoy"}
	}
	// JSON is YAML.
	text, err := json.Marshal(config)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(c.dir, "config.yaml")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		return nil, err
	}
	flags = []string{"--config", path}
	if !guard {
		return flags, nil
	}
	manifest, err := c.install(ctx, program, path)
	return append(flags, "--guard-manifest", manifest), err
}

// install stores the guard's objects, and writes their manifest.
func (c *cluster) install(ctx context.Context, program, config string) (manifest string, err error) {
	policies, err := exec.CommandContext(ctx, program, "policy", "--config", config).Output()
	if err != nil {
		return "", fmt.Errorf("print the policies: %w", err)
	}
	text := append(policies, `---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: kubelet-https-guard}
webhooks:
- name: `+webhookName+`
  rules: [{apiGroups: [""], apiVersions: [v1], resources: [secrets], operations: [CREATE, UPDATE, DELETE]}]
`...)
	for document := range strings.SplitSeq(string(text), "---\n") {
		if strings.TrimSpace(document) == "" {
			continue
		}
		object := map[string]any{}
		if err := yaml.Unmarshal([]byte(document), &object); err != nil {
			return "", fmt.Errorf("parse a manifest of the guard: %w", err)
		}
		kind, _ := object["kind"].(string)
		plural := strings.ToLower(kind) + "s"
		if stem, isPolicy := strings.CutSuffix(plural, "policys"); isPolicy {
			plural = stem + "policies"
		}
		if err := c.api.put("/apis/admissionregistration.k8s.io/v1/"+plural, object); err != nil {
			return "", err
		}
	}
	manifest = filepath.Join(c.dir, "guard.yaml")
	return manifest, os.WriteFile(manifest, text, 0o600)
}

func namespaceOf(i int) string { return fmt.Sprintf("namespace-%04d", i) }

// groupOf is the name of a Secret, and the label of its namespace.
func groupOf(i int) string { return fmt.Sprintf("serving-%d", i/mostSelected) }

// write writes a Secret with another pair than before.
func (c *cluster) write(i int) error {
	pair := c.pairs[(i+c.written[i])%len(c.pairs)]
	var managed metav1.FieldsV1
	managed.SetRawString(`{"f:data":{".":{},"f:tls.crt":{},"f:tls.key":{}},"f:type":{}}`)
	c.written[i]++
	return c.put("/api/v1/secrets", &corev1.Secret{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespaceOf(i), Name: groupOf(i), UID: types.UID("secret-" + fmt.Sprint(i)),
			CreationTimestamp: metav1.NewTime(time.Now()),
			ManagedFields: []metav1.ManagedFieldsEntry{{
				Manager: "operator", Operation: metav1.ManagedFieldsOperationUpdate, APIVersion: "v1", FieldsType: "FieldsV1",
				FieldsV1: &managed,
			}},
		},
		Type: corev1.SecretTypeTLS,
		Data: map[string][]byte{"tls.crt": pair.ChainWith(c.ca.PEM()), "tls.key": pair.Key},
	})
}

func (c *cluster) put(resource string, typed any) error {
	object, err := runtime.DefaultUnstructuredConverter.ToUnstructured(typed)
	if err != nil {
		return err
	}
	return c.api.put(resource, object)
}
