// SPDX-License-Identifier: Apache-2.0

// Command generate writes what is generated from the code: in the documentation the flags of both programs, the
// control mapping, the index of decisions, the table of layouts and what scanners report about the chart; in the chart
// the template of the policies, the host paths of each layout and the Secrets that are protected by default. Run it in
// the root of the repository.
package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/command"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/chart"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/docs"
)

func main() {
	if err := run(context.Background()); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	if err := writeMapping(); err != nil {
		return err
	}
	if err := writeProtectedSecrets(); err != nil {
		return err
	}
	if err := writeLayouts(); err != nil {
		return err
	}
	if err := writeDecisions(); err != nil {
		return err
	}
	exceptions, rules := chart.ScannersPage()
	for name, text := range map[string]string{"exceptions": exceptions, "rules": rules} {
		if err := write("scanners.md", name, text); err != nil {
			return err
		}
	}
	bin, err := os.MkdirTemp("", "docs")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(bin) }()
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", bin, "./webhook",
		"./nodeagent").CombinedOutput(); err != nil {
		return fmt.Errorf("build: %w\n%s", err, out)
	}
	for name, arguments := range map[string][]string{
		"help of webhook": {"webhook"}, "flags of webhook serve": {"webhook", "serve"}, "flags of webhook audit": {"webhook", "audit"},
		"flags of webhook prove": {"webhook", "prove"}, "flags of webhook policy": {"webhook", "policy"},
		"help of nodeagent": {"nodeagent"}, "flags of nodeagent run": {"nodeagent", "run"}, "flags of nodeagent check": {"nodeagent", "check"},
	} {
		var help bytes.Buffer
		program := exec.CommandContext(ctx, filepath.Join(bin, arguments[0]), append(arguments[1:], "--help")...)
		program.Stdout = &help
		program.Env = []string{} // defaults depend on the environment
		if err := program.Run(); err != nil {
			return fmt.Errorf("%s --help: %w", strings.Join(arguments, " "), err)
		}
		if err := write("configuration.md", name, "```text\n"+help.String()+"```\n"); err != nil {
			return err
		}
	}
	if err := write("configuration.md", "exit codes", exitCodes()); err != nil {
		return err
	}
	if err := generatePolicies(ctx, bin); err != nil {
		return err
	}
	return generateSelfProtection(ctx, bin)
}

// exitCodes is the table of exit codes.
func exitCodes() string {
	var table strings.Builder
	table.WriteString("| exit code | means |\n| --- | --- |\n")
	for _, exit := range command.Exits() {
		fmt.Fprintf(&table, "| %d | %s |\n", exit, exit.Meaning())
	}
	return table.String()
}

// writeMapping writes the control mapping in both formats.
func writeMapping() error {
	mapping := docs.NewMapping(check.Reasons)
	text, err := mapping.JSON()
	if err != nil {
		return fmt.Errorf("write the control mapping as JSON: %w", err)
	}
	if err := os.WriteFile(filepath.Join("docs", "control-mapping.json"), []byte(text), 0o644); err != nil {
		return err
	}
	return write("control-mapping.md", "mapping", mapping.Markdown())
}

// writeDecisions writes the index of the decision records.
func writeDecisions() error {
	records, err := docs.ADRs(".")
	if err != nil {
		return err
	}
	return write(filepath.Join("adr", "README.md"), "index", docs.ADRIndex(records))
}

// writeProtectedSecrets writes the list that the program embeds as the chart's default.
func writeProtectedSecrets() error {
	const from, to, key = "webhook/protected-secrets.yaml", "charts/kubelet-https-guard/values.yaml",
		"\nprotectedSecrets:\n"
	list, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	values, err := os.ReadFile(to)
	if err != nil {
		return err
	}
	before, rest, found := strings.Cut(string(values), key)
	if !found {
		return fmt.Errorf("%s has no protectedSecrets at its top level", to)
	}
	_, after, _ := strings.Cut("\n"+rest, "\n\n")
	var value strings.Builder
	for line := range strings.Lines(string(list)) {
		if !strings.HasPrefix(line, "#") { // the file's own comment
			value.WriteString("  " + line)
		}
	}
	return os.WriteFile(to, []byte(before+key+value.String()+"\n"+after), 0o644)
}

// write replaces the text between the markers of a page.
func write(page, name, text string) error {
	path := filepath.Join("docs", page)
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	changed, err := docs.Between(string(data), name, text)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return os.WriteFile(path, []byte(changed), 0o644)
}
