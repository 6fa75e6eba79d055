// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/command"
	"github.com/kubelet-https-guard/kubelet-https-guard/internal/kubeclient"
	"github.com/kubelet-https-guard/kubelet-https-guard/internal/logging"
	"github.com/kubelet-https-guard/kubelet-https-guard/internal/version"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/policy"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/prove"
)

// provePause is the time between two rounds of dry runs, maxProveWait the maximum of --wait.
const provePause, maxProveWait = time.Second, 10 * time.Minute

// proveOptions are the options of webhook prove.
type proveOptions struct {
	kubeconfig, config, guardManifest, namespace string
	wait                                         time.Duration
	log                                          logging.Options
}

// proveCommand is webhook prove, which helm test runs.
func proveCommand(getenv func(string) string) command.Command {
	return command.Command{
		Name: "prove", Summary: "test with dry runs whether each API server refuses what the guard must refuse",
		Description: "Send to each API server dry runs of changes to the decoy Secret " +
			"that the policy and the webhook must refuse, and print what each API server did. " +
			"Exits 0 if all changes were refused, 1 if one was not, " +
			"2 if an API server could not be tested. Changes nothing. This is what helm test runs.",
		Groups: []command.Group{
			{Title: "What to check", Flags: []string{"kubeconfig", "config", "guard-manifest", "namespace"}},
			{Title: "When", Flags: []string{"wait"}},
			{Title: "Log", Flags: []string{"log-format", "log-level"}},
		},
		Exits: []command.Exit{
			command.ExitOK, command.ExitNotCompliant, command.ExitCouldNotVerify, command.ExitFailed, command.ExitUsage,
		},
		New: func(flags *flag.FlagSet) command.Run {
			var o proveOptions
			flags.StringVar(&o.kubeconfig, "kubeconfig", "",
				"kubeconfig `file` for the API servers (default: the Pod's ServiceAccount)")
			flags.StringVar(&o.config, "config", "", "configuration `file` that names the decoy Secret; required")
			flags.StringVar(&o.guardManifest, "guard-manifest", "",
				"`file` with the objects of the guard as they were installed (webhook configuration, policies, activation); "+
					"required")
			flags.StringVar(&o.namespace, "namespace", getenv("POD_NAMESPACE"),
				"`namespace` of the guard (default: $POD_NAMESPACE)")
			flags.DurationVar(&o.wait, "wait", time.Minute,
				"retry for up to this `time` until all changes are refused: 0s to 10m. "+
					"After an installation, API servers need a moment until they refuse")
			o.log.Flags(flags)
			return func(ctx context.Context, output command.Output) (command.Exit, error) {
				newLogger(output.Stderr, o.log) // client-go logs to it
				return proveRefusals(ctx, o, output)
			}
		},
	}
}

// refusers returns what must refuse changes of the decoy according to the installed
// manifests: the decoy's policy, and the webhook for Secrets.
func (c config) refusers() prove.Guard {
	if c.decoy == nil {
		return prove.Guard{}
	}
	guard := prove.Guard{
		Namespace: c.decoy.Namespace, Name: c.decoy.Name, Static: c.staticProof, StaticWords: c.staticWords,
	}
	for _, object := range c.guard {
		switch object.GetKind() {
		case "ValidatingAdmissionPolicy":
			if policy.IsOf(object.Object, *c.decoy) {
				guard.Policy = object.GetName()
			}
		case "ValidatingWebhookConfiguration":
			webhooks, _, _ := unstructured.NestedSlice(object.Object, "webhooks") // a value of another type counts as absent
			for _, item := range webhooks {
				// The first one has the decoy, others are for selected namespaces.
				webhook, ok := item.(map[string]any)
				if ok && guard.Webhook == "" && slices.Contains(resourcesOf(webhook), "secrets") {
					guard.Webhook, _ = webhook["name"].(string)
				}
			}
		}
	}
	return guard
}

// resourcesOf returns the resources of all rules of a webhook. A value of another type counts
// as absent.
func resourcesOf(webhook map[string]any) []string {
	var resources []string
	rules, _, _ := unstructured.NestedSlice(webhook, "rules")
	for _, item := range rules {
		if rule, ok := item.(map[string]any); ok {
			inRule, _, _ := unstructured.NestedStringSlice(rule, "resources")
			resources = append(resources, inRule...)
		}
	}
	return resources
}

// proveRefusals makes dry runs on each API server until all refuse, or --wait is over, and
// prints the outcome of each requirement.
func proveRefusals(ctx context.Context, options proveOptions, output command.Output) (command.Exit, error) {
	if err := command.CheckDuration("--wait", options.wait, 0, maxProveWait); err != nil {
		return command.ExitUsage, err
	}
	switch {
	case options.config == "":
		return command.ExitUsage, command.Usagef("--config is required: the configuration file names the decoy Secret")
	case options.guardManifest == "":
		return command.ExitUsage, command.Usagef(
			"--guard-manifest is required: the objects of the guard as they were installed, as in the chart's ConfigMap",
		)
	}
	loaded, err := loadConfig(source{
		path: options.config, guardManifest: options.guardManifest, namespace: options.namespace,
	})
	if err != nil {
		return command.ExitUsage, err
	}
	guard := loaded.refusers()
	switch {
	case guard.Name == "":
		return command.ExitUsage, command.Usagef("--config %s: decoy is not set, so there is no Secret for the dry runs",
			options.config)
	case guard.Policy == "" && guard.Webhook == "" && guard.Static == "":
		return command.ExitUsage, command.Usagef("--guard-manifest %s: contains neither a policy for the decoy nor a "+
			"webhook for Secrets, so there is nothing to test", options.guardManifest)
	}
	client, err := kubeclient.Config(options.kubeconfig, "kubelet-https-guard-prove/"+version.String())
	switch {
	case errors.Is(err, kubeclient.ErrNoAPIServer):
		return command.ExitUsage, errNoAPIServer
	case err != nil:
		return command.ExitUsage, err
	}
	prover := prove.Prover{Guard: func() prove.Guard { return guard }, Servers: prove.EachServer(client), Now: time.Now}
	effects, proven := awaitProof(ctx, &prover, options.wait)
	if err := printEffects(output.Stdout, effects); err != nil {
		return command.ExitFailed, fmt.Errorf("write the report: %w", err)
	}
	return exitOf(effects, proven), nil
}

// exitOf returns the exit code for the effects.
func exitOf(effects []check.Effect, proven bool) command.Exit {
	if proven {
		return command.ExitOK
	}
	for _, effect := range effects {
		results, _ := effect.Check(time.Time{})
		if slices.ContainsFunc(results, func(r finding.Result) bool { return r.Outcome == finding.Fail }) {
			return command.ExitNotCompliant
		}
	}
	return command.ExitCouldNotVerify
}

// awaitProof repeats the dry runs until all are refused, or the wait is over.
func awaitProof(ctx context.Context, prover *prove.Prover, wait time.Duration) (effects []check.Effect, proven bool) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	for {
		effects = prover.Prove(context.WithoutCancel(ctx))
		if prove.Proven(effects) {
			return effects, true
		}
		select {
		case <-ctx.Done():
			return effects, false
		case <-time.After(provePause):
		}
	}
}

// printEffects writes a line for each API server and part of the guard.
func printEffects(stdout io.Writer, effects []check.Effect) error {
	for _, effect := range effects {
		results, _ := effect.Check(time.Time{})
		for i, r := range results {
			aspect := string(r.Requirement.Aspect())
			if effect.Static != nil && i == len(results)-1 {
				aspect += " (static policies)"
			}
			line := fmt.Sprintf("%s, %s: %s", effect.Server, aspect, outcomeWords(r.Outcome))
			if r.Outcome != finding.Pass {
				line += ": " + r.Message
			}
			if _, err := fmt.Fprintln(stdout, line); err != nil {
				return err
			}
		}
	}
	return nil
}

// outcomeWords returns an outcome in words.
func outcomeWords(o finding.Outcome) string {
	if o == finding.NotApplicable {
		return "not applicable"
	}
	return o.String()
}
