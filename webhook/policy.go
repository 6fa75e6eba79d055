// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"strings"

	kuberuntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/yaml"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/command"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/policy"
)

// policyOptions are the options of webhook policy.
type policyOptions struct {
	config, prefix string
	labels         map[string]string
	// static prints the policies for a directory of static policies. The others are only with it.
	static               bool
	namespace, directory string
	replace              bool
	// selfProtection prints the policy in the API that protects the guard's own objects.
	selfProtection bool
	allowedUsers   []string
}

// policyCommand is webhook policy: it prints the policies that the chart renders, or static ones. It does not connect
// to a cluster.
func policyCommand() command.Command {
	return command.Command{
		Name: "policy", Summary: "print the ValidatingAdmissionPolicies for the protected Secrets",
		Description: "Print the ValidatingAdmissionPolicies for the protected Secrets and the decoy, and their bindings, " +
			"as YAML. Needs no cluster.\n" +
			"With --static: print policies that the API server reads from a directory (Kubernetes 1.37 or later), so that " +
			"nobody can remove them through the API. They also protect the guard's own objects: see docs/static-policies.md.",
		Groups: []command.Group{
			{Title: "What to protect", Flags: []string{"config"}},
			{Title: "Names and labels", Flags: []string{"name-prefix", "labels"}},
			{Title: "Protect the guard", Flags: []string{
				"self-protection", "allowed-users", "static", "namespace", "directory", "replace",
			}},
		},
		Exits: command.Endings(),
		New: func(flags *flag.FlagSet) command.Run {
			o := policyOptions{labels: map[string]string{}}
			flags.StringVar(&o.config, "config", "", configUsage)
			flags.StringVar(&o.prefix, "name-prefix", "kubelet-https-guard", "`prefix` of the names of policies and bindings")
			labels := flags.String("labels", "", "comma-separated `labels` of policies and bindings, each NAME=VALUE")
			o.staticFlags(flags)
			users := flags.String("allowed-users", "",
				"with --self-protection, comma-separated `users` who may change the guard nevertheless")
			return func(_ context.Context, output command.Output) (command.Exit, error) {
				if err := o.complete(*labels); err != nil {
					return command.ExitUsage, err
				}
				if *users != "" {
					o.allowedUsers = strings.Split(*users, ",")
				}
				switch {
				case len(o.allowedUsers) > 0 && !o.selfProtection:
					return command.ExitUsage, command.Usagef("--allowed-users requires --self-protection")
				case o.selfProtection:
					return command.ExitOK, printSelfProtection(output.Stdout, o)
				case o.static:
					return staticPolicies(output.Stdout, o)
				}
				return command.ExitOK, printPolicies(output.Stdout, o)
			}
		},
	}
}

// complete checks the prefix and parses the labels. It returns a usage error.
func (o *policyOptions) complete(labels string) error {
	if len(validation.IsDNS1123Subdomain(o.prefix)) > 0 {
		return command.Usagef("--name-prefix %q: must be lower-case letters, digits, '-' and '.'", o.prefix)
	}
	for label := range strings.SplitSeq(labels, ",") {
		name, value, found := strings.Cut(label, "=")
		switch {
		case labels == "":
		case !found || len(validation.IsQualifiedName(name)) > 0 || len(validation.IsValidLabelValue(value)) > 0:
			return command.Usagef("--labels %q: each must be NAME=VALUE of a label", label)
		default:
			o.labels[name] = value
		}
	}
	return o.checkStatic()
}

// printPolicies writes a policy and a binding for each protected Secret and the decoy.
func printPolicies(out io.Writer, options policyOptions) error {
	loaded, err := loadProtected(source{path: options.config})
	if err != nil {
		return err
	}
	for _, secret := range loaded.withDecoy() {
		made, binding, err := policy.New(options.prefix, options.labels, secret)
		if err != nil {
			return err
		}
		for _, object := range []any{made, binding} {
			if err := printManifest(out, object); err != nil {
				return fmt.Errorf("print the policy for Secret %s/%s: %w", secret.Namespace, secret.Name, err)
			}
		}
	}
	return nil
}

// printManifest writes an object as a YAML document, without the status, which only the API
// server sets.
func printManifest(out io.Writer, object any) error {
	fields, err := kuberuntime.DefaultUnstructuredConverter.ToUnstructured(object)
	if err != nil {
		return err
	}
	delete(fields, "status")
	text, err := yaml.Marshal(fields)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "---\n%s", text)
	return err
}
