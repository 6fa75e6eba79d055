// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/kubelet-https-guard/kubelet-https-guard/test/rig"
)

const (
	gatekeeperModule = "github.com/open-policy-agent/gatekeeper/v3"
	// gatekeeperFolder pins it, in its own module.
	gatekeeperFolder = "test/bench/gatekeeper"
)

//go:embed gatekeeper.yaml
var gatekeeperTemplate string

// startGatekeeper builds Gatekeeper from its module and starts its webhook with the flags of its
// manifests (charts/gatekeeper), except for those that need a Pod or a Service, and without mutation.
// Its only rule checks what our webhook checks.
func (b *bench) startGatekeeper(ctx context.Context) (contender, error) {
	fmt.Fprintln(os.Stderr, "building Gatekeeper (minutes, once)")
	program, err := filepath.Abs("bin/gatekeeper")
	if err != nil {
		return contender{}, err
	}
	if _, err := goCommand(ctx, "build", "-o", program, gatekeeperModule); err != nil {
		return contender{}, err
	}
	source, err := goCommand(ctx, "list", "-m", "-f", "{{.Dir}} {{.Version}}", gatekeeperModule)
	if err != nil {
		return contender{}, err
	}
	directory, version, _ := strings.Cut(source, " ")
	b.document.Notes = append(b.document.Notes, "Gatekeeper "+version+".")

	if err := b.kubectl(ctx, "", "apply", "--server-side", "-f",
		filepath.Join(directory, "charts/gatekeeper/crds")); err != nil {
		return contender{}, err
	}
	if err := b.kubectl(ctx, "", "wait", "--for=condition=Established", "--timeout=60s", "--all", "crd"); err != nil {
		return contender{}, err
	}
	if err := b.kubectl(ctx, "", "create", "namespace", "gatekeeper-system"); err != nil {
		return contender{}, err
	}
	c := contender{name: "Gatekeeper, same checks", namespace: "bench-gatekeeper", judges: true}
	if err := b.constrain(ctx, program, c); err != nil {
		return contender{}, err
	}
	process, port, err := b.launchGatekeeper(ctx, program, "webhook")
	if err != nil {
		return contender{}, err
	}
	c.url, c.pid = fmt.Sprintf("https://127.0.0.1:%d/v1/admit", port), process.PID()
	return c, nil
}

// launchGatekeeper starts a process for some of Gatekeeper's operations.
func (b *bench) launchGatekeeper(
	ctx context.Context,
	program string,
	operations ...string,
) (process *rig.Process, port int, err error) {
	var ports [3]int
	for i := range ports {
		if ports[i], err = rig.FreePort(ctx); err != nil {
			return nil, 0, err
		}
	}
	_, certDir := b.rig.WebhookAddress()
	flags := []string{
		"--kubeconfig", b.rig.Kubeconfig, "--debug-use-fake-pod",
		"--host=127.0.0.1", fmt.Sprintf("--port=%d", ports[0]), fmt.Sprintf("--health-addr=127.0.0.1:%d", ports[1]),
		fmt.Sprintf("--prometheus-port=%d", ports[2]),
		"--cert-dir", certDir, "--disable-cert-rotation",
		"--logtostderr", "--exempt-namespace=gatekeeper-system", "--disable-opa-builtin={http.send}", "--shutdown-delay=0",
	}
	for _, operation := range operations {
		flags = append(flags, "--operation="+operation)
	}
	process, err = b.rig.Launch("gatekeeper-"+operations[0], program, flags...)
	return process, ports[0], err
}

// constrain stores Gatekeeper's rule, for direct requests and for those of the API server. As in
// Gatekeeper's manifests, the process that makes a kind from a template is not that of the webhook. It
// ends when that is done.
func (b *bench) constrain(ctx context.Context, program string, c contender) error {
	constraint, err := json.Marshal(map[string]any{
		"apiVersion": "constraints.gatekeeper.sh/v1beta1", "kind": "ServingCert",
		"metadata": map[string]any{"name": "serving-cert"},
		"spec": map[string]any{
			"enforcementAction": "deny",
			"match": map[string]any{
				"kinds":      []any{map[string]any{"apiGroups": []string{""}, "kinds": []string{"Secret"}}},
				"namespaces": []string{guardedNamespace, c.namespace}, "name": secretName,
			},
			"parameters": map[string]string{"ca": string(b.rig.ServiceCA.PEM()), "dnsName": "api.openshift-apiserver.svc"},
		},
	})
	if err != nil {
		return err
	}
	generator, _, err := b.launchGatekeeper(ctx, program, "audit", "status", "generate")
	if err != nil {
		return err
	}
	if err := b.kubectl(ctx, gatekeeperTemplate, "apply", "-f", "-"); err != nil {
		return err
	}
	const kind = "crd/servingcert.constraints.gatekeeper.sh"
	for _, until := range []string{"create", "condition=Established"} {
		if err := b.kubectl(ctx, "", "wait", "--for="+until, "--timeout=60s", kind); err != nil {
			return err
		}
	}
	return errors.Join(b.kubectl(ctx, string(constraint), "apply", "-f", "-"), generator.Stop())
}

func (b *bench) kubectl(ctx context.Context, input string, args ...string) error {
	if result := b.rig.KubectlInput(ctx, input, args...); result.Code != 0 {
		return fmt.Errorf("kubectl %s: %s", strings.Join(args, " "), result.Output)
	}
	return nil
}

// goCommand runs go in the module that pins Gatekeeper.
func goCommand(ctx context.Context, args ...string) (output string, err error) {
	command := exec.CommandContext(ctx, "go", args...)
	command.Dir, command.Env = gatekeeperFolder, append(os.Environ(), "CGO_ENABLED=0")
	out, err := command.Output()
	if failed, ok := errors.AsType[*exec.ExitError](err); ok {
		return "", fmt.Errorf("go %s in %s: %w\n%s", args[0], gatekeeperFolder, err, failed.Stderr)
	}
	return strings.TrimSpace(string(out)), err
}
