// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	// buildTimeout bounds one command's cold build; kube-apiserver's takes 8
	// minutes on 2 cores.
	buildTimeout = time.Hour

	// buildLockTimeout bounds the wait for a build of somebody else.
	buildLockTimeout = time.Hour

	// goStopTimeout is what an interrupted go command gets to end by itself.
	goStopTimeout = 10 * time.Second

	// maxGoErrorLines of the go command's messages end up in an error.
	maxGoErrorLines = 40
)

// command is something to build.
type command struct {
	name          string
	importPath    string
	versionModule string // whose version the binary must be told, if any
}

// commands is in the order of building: small ones first, so that a mistake
// in the module shows before minutes have passed.
var commands = []command{
	{name: "etcd", importPath: "go.etcd.io/etcd/server/v3"},
	{name: "kubectl", importPath: "k8s.io/kubernetes/cmd/kubectl", versionModule: "k8s.io/kubernetes"},
	{name: "kube-apiserver", importPath: "k8s.io/kubernetes/cmd/kube-apiserver", versionModule: "k8s.io/kubernetes"},
}

// buildArguments has no -trimpath: with it none of the packages that the
// product's own builds have compiled could be reused.
func buildArguments(c command, version, output string) []string {
	linker := "-s -w"
	if c.versionModule != "" {
		linker += " " + versionFlags(version)
	}
	return []string{"build", "-v", "-ldflags", linker, "-o", output, c.importPath}
}

// versionFlags tells a Kubernetes binary its version. Untold, it calls itself
// v0.0.0-master+$Format:%H$, which clients cannot parse.
func versionFlags(version string) string {
	const variable = "-X k8s.io/component-base/version."
	major, rest, _ := strings.Cut(strings.TrimPrefix(version, "v"), ".")
	minor, _, _ := strings.Cut(rest, ".")
	return variable + "gitVersion=" + version + " " +
		variable + "gitMajor=" + major + " " +
		variable + "gitMinor=" + minor
}

// buildMissing builds what place lacks. Of two runs at once the second waits
// for the first and finds its work done.
func buildMissing(ctx context.Context, p place, progress io.Writer) error {
	if err := os.MkdirAll(p.folder, 0o755); err != nil {
		return err
	}
	lock, err := waitForLock(ctx, filepath.Join(p.folder, "lock"), buildLockTimeout, func() {
		fmt.Fprintf(progress, "Waiting for another run that builds in %s\n", p.folder)
	})
	if err != nil {
		return err
	}
	defer lock.Close()

	missing := binariesIn(p.folder).missing()
	if len(missing) == 0 {
		return nil
	}
	fmt.Fprintf(progress, "Building %s, once: about 8-15 minutes on 2 cores when nothing is compiled yet.\n", strings.Join(missing, ", "))
	fmt.Fprintf(progress, "They are kept in %s\n", p.folder)
	for _, c := range commands {
		if !slices.Contains(missing, c.name) {
			continue
		}
		if err := build(ctx, p, c, newDisplay(progress, c.name)); err != nil {
			return fmt.Errorf("build %s: %w", c.name, err)
		}
	}
	return nil
}

func build(ctx context.Context, p place, c command, d *display) error {
	ctx, cancel := context.WithTimeoutCause(ctx, buildTimeout, fmt.Errorf("not done after %s", buildTimeout))
	defer cancel()

	var version string
	if c.versionModule != "" {
		var err error
		if version, err = goOutput(ctx, p.module, "list", "-m", "-f", "{{.Version}}", c.versionModule); err != nil {
			return err
		}
	}
	packages, err := dependencies(ctx, p.module, c, d)
	if err != nil {
		return err
	}

	final := filepath.Join(p.folder, c.name)
	partial := final + ".partial"
	d.state = state{total: len(packages)}
	err = runGo(ctx, p.module, buildArguments(c, version, partial), d, nil, func(line string) bool {
		known := packages[line]
		if known {
			d.state.compiled++
			d.state.linking = line == c.importPath
		}
		return known
	})
	if err != nil {
		return err
	}
	if err := os.Rename(partial, final); err != nil {
		return err
	}
	d.finish()
	return nil
}

// dependencies lists the packages of c, itself included; it is here that the
// go command downloads their modules.
func dependencies(ctx context.Context, module string, c command, d *display) (map[string]bool, error) {
	var out strings.Builder
	if err := runGo(ctx, module, []string{"list", "-deps", c.importPath}, d, &out, func(string) bool { return false }); err != nil {
		return nil, err
	}
	packages := map[string]bool{}
	for name := range strings.FieldsSeq(out.String()) {
		packages[name] = true
	}
	return packages, nil
}

// runGo runs the go command and keeps d up to date meanwhile. Each line on its
// standard error goes to seen; those that seen does not know and that are no
// notes about downloads are taken for messages and end up in the error.
func runGo(ctx context.Context, module string, arguments []string, d *display, stdout io.Writer, seen func(line string) bool) error {
	cmd := goCommand(ctx, module, arguments...)
	cmd.Stdout = stdout
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}

	lines := make(chan string)
	go func() {
		defer close(lines)
		scanner := bufio.NewScanner(stderr)
		for scanner.Scan() {
			lines <- scanner.Text()
		}
		// A line longer than the scanner takes must not block the go command.
		_, _ = io.Copy(io.Discard, stderr)
	}()

	tick := time.NewTicker(d.interval)
	defer tick.Stop()
	var messages []string
	for open := true; open; {
		select {
		case <-tick.C:
			d.show()
		case line, ok := <-lines:
			switch {
			case !ok:
				open = false
			case seen(line):
			case strings.HasPrefix(line, "go: downloading "):
				d.state.downloaded++
			default:
				messages = append(messages, line)
			}
		}
	}

	err = cmd.Wait()
	if err == nil {
		return nil
	}
	d.erase()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	messages = messages[max(0, len(messages)-maxGoErrorLines):]
	return fmt.Errorf("go %s %s: %w\n%s", arguments[0], path.Base(arguments[len(arguments)-1]), err, strings.Join(messages, "\n"))
}
