// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	registrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	kubeyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/command"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/policy"
)

const (
	// staticFile is the only file that is written, so that one rename replaces all policies at once. If there were two,
	// API servers could read the old one with the new one.
	staticFile = "kubelet-https-guard.yaml"
	// staticHeader is its beginning. A file with another beginning is not replaced.
	staticHeader = "# Static policies of kubelet-https-guard, written by 'webhook policy --static'. Do not edit.\n"
	// staticMode: the policies are no secret, and a kube-apiserver may run as another user than root.
	staticMode = 0o644
	// maxStaticFiles bounds the files of the directory that are looked at.
	maxStaticFiles = 1000
)

// staticExtensions are the endings of the files that API servers read from the directory, in upper or lower case
// (k8s.io/apiserver pkg/admission/plugin/manifest/loader.go).
var staticExtensions = []string{".yaml", ".yml", ".json"}

func (o *policyOptions) staticFlags(flags *flag.FlagSet) {
	flags.BoolVar(&o.static, "static", false, "print static policies: the protected Secrets and the guard's own objects")
	flags.BoolVar(&o.selfProtection, "self-protection", false,
		"print only the policy of the API that protects the guard's webhook configuration and activation. "+
			"Policies of the API cannot protect policies and bindings")
	flags.StringVar(&o.namespace, "namespace", "kubelet-https-guard",
		"`namespace` of the guard: its webhook may activate itself in spite of the protection")
	flags.StringVar(&o.directory, "directory", "",
		"with --static, write "+staticFile+" into this `directory` at once, instead of printing. It must exist")
	flags.BoolVar(&o.replace, "replace", false,
		"with --directory, replace "+staticFile+" of another version or configuration, and leave other files as they are")
}

// checkStatic returns a usage error if the options for static policies are not valid.
func (o *policyOptions) checkStatic() error {
	switch {
	case o.selfProtection && o.static:
		return command.Usagef("--self-protection cannot be used with --static, which includes it")
	case o.directory != "" && !o.static:
		return command.Usagef("--directory requires --static")
	case o.replace && o.directory == "":
		return command.Usagef("--replace requires --directory")
	case (o.static || o.selfProtection) && len(validation.IsDNS1123Label(o.namespace)) > 0:
		return command.Usagef("--namespace %q: must be the name of a namespace", o.namespace)
	}
	return nil
}

// printSelfProtection prints the policy in the API that protects the guard, and its binding.
func printSelfProtection(out io.Writer, options policyOptions) error {
	made, binding := policy.SelfProtection(policy.Guard{
		Prefix: options.prefix, Namespace: options.namespace, AllowedUsers: options.allowedUsers,
	}, options.labels, false)
	for _, object := range []policy.Object{made, binding} {
		if err := printManifest(out, object); err != nil {
			return fmt.Errorf("print %s: %w", object.GetName(), err)
		}
	}
	return nil
}

// staticPolicies prints static policies, or writes them into the directory.
func staticPolicies(out io.Writer, options policyOptions) (command.Exit, error) {
	loaded, err := loadProtected(source{path: options.config})
	if err != nil {
		return command.ExitUsage, err
	}
	guard := policy.NewGuard(options.prefix, options.namespace, loaded.withDecoy())
	objects, err := policy.Static(guard, options.labels, loaded.withDecoy())
	if err != nil {
		return command.ExitFailed, err
	}
	var printed bytes.Buffer
	var names []string
	for _, object := range objects {
		name := object.GetName()
		if len(name) > validation.DNS1123SubdomainMaxLength {
			return command.ExitUsage, command.Usagef(
				"--name-prefix %q: the policy %s would have a name of %d characters, and API servers accept at most %d",
				options.prefix, name, len(name), validation.DNS1123SubdomainMaxLength)
		}
		names = append(names, name)
		if err := printManifest(&printed, object); err != nil {
			return command.ExitFailed, fmt.Errorf("print %s: %w", name, err)
		}
	}
	// API servers do not accept a document that has only a comment.
	text := append([]byte(staticHeader), bytes.TrimPrefix(printed.Bytes(), []byte("---\n"))...)
	if options.directory == "" {
		_, err := out.Write(text)
		return command.ExitOK, err
	}
	return writeStatic(out, options, text, names)
}

// writeStatic writes the file, unless it has this text. names are those of its objects.
func writeStatic(out io.Writer, options policyOptions, text []byte, names []string) (command.Exit, error) {
	if err := command.CheckDirectory("--directory", options.directory, os.Stat); err != nil {
		return command.ExitUsage, err
	}
	same, err := checkStaticDirectory(options.directory, text, names, options.replace)
	if err != nil {
		return command.ExitUsage, command.FileError("--directory", options.directory, err)
	}
	path, did := filepath.Join(options.directory, staticFile), "unchanged"
	if !same {
		did = "written"
		if err := writeAtOnce(options.directory, text); err != nil {
			return command.ExitFailed, fmt.Errorf("write %s: %w", path, err)
		}
	}
	_, err = fmt.Fprintf(out, "%s %s\n", path, did)
	return command.ExitOK, err
}

// checkStaticDirectory reports whether our file has this text, and returns an error about what is in the way: API
// servers read all files of the directory. If one is not valid, a running API server keeps what it read before, and no
// API server starts.
func checkStaticDirectory(directory string, text []byte, names []string, replace bool) (same bool, err error) {
	entries, err := os.ReadDir(directory)
	if err != nil {
		return false, err
	}
	if len(entries) > maxStaticFiles {
		return false, fmt.Errorf("has more than %d entries: expected a directory for static policies", maxStaticFiles)
	}
	if same, err = checkOwn(filepath.Join(directory, staticFile), text, replace); err != nil {
		return false, err
	}
	for _, entry := range entries {
		file := entry.Name()
		if entry.IsDir() || file == staticFile ||
			!slices.Contains(staticExtensions, strings.ToLower(filepath.Ext(file))) {
			continue
		}
		if !same && !replace {
			return false, fmt.Errorf("is not empty: API servers also read %s. "+
				"Move it away, or add --replace to leave it there", file)
		}
		if err := checkForeign(filepath.Join(directory, file), names); err != nil {
			return false, fmt.Errorf("%s: %w: move it away, since API servers then accept no file of the directory", file, err)
		}
	}
	return same, nil
}

// checkOwn reports whether our file has this text, and returns an error if it must not be replaced.
func checkOwn(path string, text []byte, replace bool) (same bool, err error) {
	stored, err := readBounded(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, err
	case bytes.Equal(stored, text):
		info, err := os.Stat(path)
		return err == nil && info.Mode().Perm() == staticMode, err
	case !bytes.HasPrefix(stored, []byte(staticHeader)):
		return false, fmt.Errorf("%s was not written by webhook policy --static: move it away", staticFile)
	case !replace:
		return false, fmt.Errorf("%s has the policies of another version or configuration: add --replace to replace it",
			staticFile)
	}
	return false, nil
}

// checkForeign returns an error if API servers would not accept this file beside ours: it has something else than
// policies and bindings with names for static ones, or one of the names (k8s.io/apiserver
// pkg/admission/plugin/policy/manifest/loader). Expressions are not compiled.
func checkForeign(path string, names []string) error {
	data, err := readBounded(path)
	if err != nil {
		return err
	}
	reader := kubeyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(data)))
	for {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if len(bytes.TrimSpace(document)) == 0 {
			continue
		}
		var list struct {
			metav1.PartialObjectMetadata
			Items []metav1.PartialObjectMetadata `json:"items"`
		}
		if err := yaml.Unmarshal(document, &list); err != nil {
			return fmt.Errorf("cannot be parsed: %w", err)
		}
		objects := list.Items
		if !strings.HasSuffix(list.Kind, "List") {
			objects = []metav1.PartialObjectMetadata{list.PartialObjectMetadata}
		}
		for _, object := range objects {
			kind := object.GroupVersionKind()
			switch {
			case kind.GroupVersion() != registrationv1.SchemeGroupVersion || !strings.HasPrefix(kind.Kind, policyKind):
				return fmt.Errorf("has an object of kind %q and apiVersion %q", object.Kind, object.APIVersion)
			case !strings.HasSuffix(object.Name, policy.StaticSuffix):
				return fmt.Errorf("has an object with the name %q, which does not end in %s", object.Name, policy.StaticSuffix)
			case slices.Contains(names, object.Name):
				return fmt.Errorf("also has an object with the name %s", object.Name)
			}
		}
	}
}

// policyKind is the kind of policies, and the beginning of that of bindings.
const policyKind = "ValidatingAdmissionPolicy"

// writeAtOnce writes the file under a name that API servers do not read, and renames it.
func writeAtOnce(directory string, text []byte) (err error) {
	file, err := os.CreateTemp(directory, "."+staticFile+".*.tmp")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = file.Close() // may be closed already
			_ = os.Remove(file.Name())
		}
	}()
	if _, err = file.Write(text); err != nil {
		return err
	}
	if err = file.Chmod(staticMode); err != nil {
		return err
	}
	if err = file.Sync(); err != nil {
		return err
	}
	if err = file.Close(); err != nil {
		return err
	}
	return os.Rename(file.Name(), filepath.Join(directory, staticFile))
}
