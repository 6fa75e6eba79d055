// SPDX-License-Identifier: Apache-2.0

package e2e_test

import (
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	registrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// noBypass are the fields with which nobody can disable the guard, and why. Package check's TestGuardFields changes
// them, too: the guard reports each change.
func noBypass() map[string]string {
	const (
		text    = "part of the text of a refusal"
		oneKind = "Secrets are served in one group and version"
		noRef   = "without both paramKind and paramRef, the policy is evaluated without parameters"
		refuses = "API servers cannot use the answer, and refuse"
		narrows = "it narrows what is excluded"
	)
	return map[string]string{
		"webhooks.name":                                            "a webhook of another name refuses the same",
		"webhooks.clientConfig.caBundle":                           "API servers do not trust the webhook, and refuse",
		"webhooks.clientConfig.service":                            "the tests' webhook has a URL",
		"webhooks.matchPolicy":                                     oneKind,
		"webhooks.sideEffects":                                     "both valid values allow dry runs",
		"webhooks.timeoutSeconds":                                  refuses,
		"webhooks.admissionReviewVersions":                         refuses,
		"spec.paramKind":                                           noRef,
		"spec.paramRef":                                            noRef,
		"spec.matchConstraints.matchPolicy":                        oneKind,
		"spec.matchResources.matchPolicy":                          oneKind,
		"spec.validations.message":                                 text,
		"spec.validations.messageExpression":                       text,
		"spec.validations.reason":                                  text,
		"spec.auditAnnotations":                                    "nothing is refused by them",
		"spec.variables.name":                                      "expressions that use the variable fail, and refuse",
		"spec.matchResources.resourceRules.scope":                  "as in matchConstraints.resourceRules",
		"spec.matchConstraints.excludeResourceRules.resourceNames": narrows,
		"spec.matchConstraints.excludeResourceRules.scope":         narrows,
		"spec.matchResources.excludeResourceRules.resourceNames":   narrows,
		"spec.matchResources.excludeResourceRules.scope":           narrows,
	}
}

// TestMutationsOfEachField: the mutations change each field of Kubernetes' types with which the guard can be
// disabled. A new version of Kubernetes may add fields.
func TestMutationsOfEachField(t *testing.T) {
	changed := map[string]bool{}
	for title, m := range mutations("https://elsewhere.example.com/") {
		if m.change == nil {
			continue
		}
		objects := guardObjects(t, registrationv1.GroupName, m.resource)
		installed, err := objects.Get(t.Context(), m.name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		mutated := installed.DeepCopy()
		m.change(mutated.Object)
		fields := differentFields("", installed.Object, mutated.Object)
		if len(fields) == 0 {
			t.Errorf("%s: it changes nothing", title)
		}
		for _, field := range fields {
			changed[field] = true
		}
	}
	var want, got []string
	for _, of := range []struct {
		path string
		spec any
	}{
		{"webhooks", registrationv1.ValidatingWebhook{}},
		{"spec", registrationv1.ValidatingAdmissionPolicySpec{}},
		{"spec", registrationv1.ValidatingAdmissionPolicyBindingSpec{}},
	} {
		for _, field := range fieldsOfType(of.path, reflect.TypeOf(of.spec)) {
			want = append(want, field)
			inField := func(path string) bool { return path == field || strings.HasPrefix(path, field+".") }
			exempt := slices.ContainsFunc(slices.Collect(maps.Keys(noBypass())),
				func(path string) bool { return path == field || strings.HasPrefix(field, path+".") })
			switch mutated := slices.ContainsFunc(slices.Collect(maps.Keys(changed)), inField); {
			case mutated && exempt:
				t.Errorf("%s is a field that disables nothing, and a mutation changes it", field)
			case mutated || exempt:
				got = append(got, field)
			}
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("fields (-all +with a mutation, or a reason in noBypass):\n%s", d)
	}
	for field := range noBypass() {
		if !slices.ContainsFunc(want, func(path string) bool { return path == field || strings.HasPrefix(path, field+".") }) {
			t.Errorf("noBypass has %s, which is not a field", field)
		}
	}
}

// fieldsOfType returns the paths of the fields of a type of package admissionregistration, inner ones included. The
// types of other packages, such as selectors, have no inner fields here.
func fieldsOfType(path string, of reflect.Type) []string {
	for of.Kind() == reflect.Pointer || of.Kind() == reflect.Slice {
		of = of.Elem()
	}
	if of.Kind() != reflect.Struct || of.PkgPath() != reflect.TypeFor[registrationv1.Rule]().PkgPath() {
		return []string{path}
	}
	var all []string
	for field := range of.Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		at := path
		if name != "" { // else an embedded type
			at += "." + name
		}
		all = append(all, fieldsOfType(at, field.Type)...)
	}
	return all
}

// differentFields returns the paths of the values that differ, without the indexes of lists. If an item was added, all
// its values differ; if one was removed, the list differs.
func differentFields(path string, before, after any) []string {
	join := func(name string) string { return strings.TrimPrefix(path+"."+name, ".") }
	switch b := after.(type) {
	case map[string]any:
		a, _ := before.(map[string]any)
		var all []string
		for name := range b {
			all = append(all, differentFields(join(name), a[name], b[name])...)
		}
		for name := range a {
			if _, has := b[name]; !has {
				all = append(all, join(name))
			}
		}
		return all
	case []any:
		a, _ := before.([]any)
		if len(b) < len(a) {
			return []string{path}
		}
		var all []string
		for i := range b {
			var item any
			if i < len(a) {
				item = a[i]
			}
			all = append(all, differentFields(path, item, b[i])...)
		}
		return all
	}
	if cmp.Equal(before, after) {
		return nil
	}
	return []string{path}
}
