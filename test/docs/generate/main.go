// SPDX-License-Identifier: Apache-2.0

// Command generate writes what in the documentation comes from the code: the
// flags of both programs, and the table of the control mapping. It is run at the
// root of the repository.
package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/kubelet-https-guard/kubelet-https-guard/test/docs"
)

func main() {
	if err := run(context.Background()); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "generate:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	bin, err := os.MkdirTemp("", "docs")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(bin) }()
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", bin, "./webhook", "./nodeagent").CombinedOutput(); err != nil {
		return fmt.Errorf("build: %w\n%s", err, out)
	}
	for name, command := range map[string][]string{
		"flags of webhook": {"webhook"}, "flags of webhook audit": {"webhook", "audit"}, "flags of nodeagent": {"nodeagent"},
	} {
		var help bytes.Buffer
		program := exec.CommandContext(ctx, filepath.Join(bin, command[0]), append(command[1:], "--help")...)
		program.Stderr = &help
		program.Env = []string{} // defaults come from the environment
		if err := program.Run(); err != nil {
			return fmt.Errorf("%s --help: %w", strings.Join(command, " "), err)
		}
		if err := write("configuration.md", name, "```text\n"+help.String()+"```\n"); err != nil {
			return err
		}
	}
	mapping, err := docs.ReadMapping(".")
	if err != nil {
		return err
	}
	return write("control-mapping.md", "mapping", mapping.Table())
}

// write puts a text between the markers of a page.
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
