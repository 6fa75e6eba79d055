// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"path/filepath"
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

// TestStaticPolicies: the file is the same each time and holds everything in one rename. Files that API servers do not
// read are ignored, other static policies stay, and policies of another version are replaced on request.
func TestStaticPolicies(t *testing.T) {
	directory := t.TempDir()
	policyStatic := func(t *testing.T, flags ...string) (code int, stdout, stderr string) {
		t.Helper()
		var out, errs bytes.Buffer
		code = run(t.Context(), append([]string{"policy", "--static"}, flags...), noEnvironment, &out, &errs)
		return code, out.String(), errs.String()
	}
	code, printed, stderr := policyStatic(t)
	if code != 0 {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	if code, _, stderr := policyStatic(t, "--name-prefix", strings.Repeat("a", 230)); code != 64 ||
		!strings.Contains(stderr, "a.openshift-apiserver.serving-cert.static.k8s.io would have a name of 277 characters") {
		t.Errorf("a prefix that is too long: exit code %d, %s", code, stderr)
	}
	path := filepath.Join(directory, staticFile)
	write := func(t *testing.T, name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(directory, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, ignored := range []string{"README.md", ".kubelet-https-guard.yaml.1.tmp"} {
		write(t, ignored, "not YAML: {")
	}
	if err := os.Mkdir(filepath.Join(directory, "directory.yaml"), 0o700); err != nil {
		t.Fatal(err)
	}
	const written, unchanged = "written", "unchanged"
	theirs := "apiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingAdmissionPolicy\n" +
		"metadata: {name: theirs.static.k8s.io}\n"
	for _, step := range []struct {
		title   string
		prepare func()
		flags   []string
		want    string // empty: an error
	}{
		{"the first time", func() {}, nil, written},
		{"again", func() {}, nil, unchanged},
		{"another prefix", func() {}, []string{"--name-prefix", "other"}, ""},
		{"another prefix, replaced", func() {}, []string{"--name-prefix", "other", "--replace"}, written},
		{"back", func() {}, []string{"--replace"}, written},
		{"the same, with another mode", func() { _ = os.Chmod(path, 0o600) }, nil, written},
		{"beside an invalid file, the same", func() { write(t, "b.yaml", "{") }, nil, ""},
		{"beside an empty file", func() { write(t, "b.yaml", " \n") }, nil, unchanged},
		{"alone again", func() { _ = os.Remove(filepath.Join(directory, "b.yaml")) }, nil, unchanged},
		{"beside others, the same", func() { write(t, "a.json", theirs) }, nil, unchanged},
		{"beside others, missing", func() { _ = os.Remove(path) }, nil, ""},
		{"beside others, on purpose", func() {}, []string{"--replace"}, written},
	} {
		step.prepare()
		code, stdout, stderr := policyStatic(t, append(step.flags, "--directory", directory)...)
		want := path + " " + step.want + "\n"
		if step.want == "" {
			want = ""
		}
		if stdout != want || (code == 0) != (want != "") {
			t.Errorf("%s: exit code %d, %q, %s; want %q", step.title, code, stdout, stderr, want)
		}
	}
	stored, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(printed, string(stored)); d != "" {
		t.Errorf("the file (-printed +written):\n%s", d)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != staticMode {
		t.Errorf("%v: %v", info.Mode(), err)
	}
	entries, err := os.ReadDir(directory)
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, entry := range entries {
		left = append(left, entry.Name())
	}
	want := []string{".kubelet-https-guard.yaml.1.tmp", "README.md", "a.json", "directory.yaml", staticFile}
	if d := cmp.Diff(want, left); d != "" {
		t.Errorf("the directory (-want +got):\n%s", d)
	}
	// API servers do not accept a document without a kind.
	for document := range strings.SplitSeq(printed, "\n---\n") {
		if !strings.Contains(document, "\nkind: ") && !strings.HasPrefix(document, "kind: ") {
			t.Errorf("a document without a kind:\n%s", document)
		}
	}
}
