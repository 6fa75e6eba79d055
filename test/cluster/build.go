// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
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

	// buildLockTimeout bounds the wait for another build.
	buildLockTimeout = time.Hour

	// goStopTimeout is the time in which an interrupted go command must end.
	goStopTimeout = 10 * time.Second

	// maxGoErrorLines bounds the messages of the go command in an error.
	maxGoErrorLines = 40
)

// command is something to build.
type command struct {
	name          string
	importPath    string
	versionModule string // sets the version of the binary, if not empty

	module string // subdirectory with its module, if separate
	cgo    bool
	tags   string // for the go command, comma-separated
}

// commands is in build order: small ones first, so that errors in the module show
// early.
var commands = []command{
	{name: "etcd", importPath: "go.etcd.io/etcd/server/v3"},
	{name: "kubectl", importPath: "k8s.io/kubernetes/cmd/kubectl", versionModule: "k8s.io/kubernetes"},
	{name: "kube-apiserver", importPath: "k8s.io/kubernetes/cmd/kube-apiserver", versionModule: "k8s.io/kubernetes"},
}

// nodeCommands are all commands of a node, including the control plane. runc is a
// separate module, since it needs other versions of dependencies of the kubelet. pause
// is part of this module.
var nodeCommands = append(
	slices.Clone(commands),
	command{name: "pause", importPath: modulePath + "/pause"},
	command{name: "runc", importPath: "github.com/opencontainers/runc", module: "runc", cgo: true, tags: "seccomp"},
	command{
		name:          "kube-controller-manager",
		importPath:    "k8s.io/kubernetes/cmd/kube-controller-manager",
		versionModule: "k8s.io/kubernetes",
	},
	command{
		name:          "kube-scheduler",
		importPath:    "k8s.io/kubernetes/cmd/kube-scheduler",
		versionModule: "k8s.io/kubernetes",
	},
	command{name: "kube-proxy", importPath: "k8s.io/kubernetes/cmd/kube-proxy", versionModule: "k8s.io/kubernetes"},
	command{name: "kubelet", importPath: "k8s.io/kubernetes/cmd/kubelet", versionModule: "k8s.io/kubernetes"},
)

// goCommand prepares the go command for c in the module of this program.
func (c command) goCommand(ctx context.Context, module string, arguments ...string) *exec.Cmd {
	cmd := goCommand(ctx, filepath.Join(module, c.module), arguments...)
	if c.cgo {
		cmd.Env = append(cmd.Env, "CGO_ENABLED=1")
	}
	return cmd
}

// buildArguments does not use -trimpath, so that the build can reuse packages that
// builds of the product with the same Go release (make GO_RELEASE=local) have compiled.
func buildArguments(c command, version, output string) []string {
	linker := "-s -w"
	if c.versionModule != "" {
		linker += " " + versionFlags(version)
	}
	arguments := []string{"build", "-v", "-ldflags", linker}
	if c.tags != "" {
		arguments = append(arguments, "-tags", c.tags)
	}
	return append(arguments, "-o", output, c.importPath)
}

// versionFlags sets the version of a Kubernetes binary. The default is
// v0.0.0-master+$Format:%H$, which clients cannot parse.
func versionFlags(version string) string {
	const variable = "-X k8s.io/component-base/version."
	major, rest, _ := strings.Cut(strings.TrimPrefix(version, "v"), ".")
	minor, _, _ := strings.Cut(rest, ".")
	return variable + "gitVersion=" + version + " " +
		variable + "gitMajor=" + major + " " +
		variable + "gitMinor=" + minor
}

// buildMissing builds the missing commands. A concurrent run waits and then finds
// nothing to build.
func buildMissing(ctx context.Context, p place, commands []command, progress io.Writer) error {
	if err := os.MkdirAll(p.directory, 0o755); err != nil {
		return err
	}
	lock, err := waitForLock(ctx, filepath.Join(p.directory, "lock"), buildLockTimeout, func() {
		fmt.Fprintf(progress, "Waiting for another build in %s\n", p.directory)
	})
	if err != nil {
		return err
	}
	defer lock.Close()

	missing := missingIn(p.directory, commands)
	if len(missing) == 0 {
		return nil
	}
	fmt.Fprintf(progress, "Building %s once: about %s on 2 cores if nothing is cached.\n", strings.Join(missing, ", "),
		buildEstimate(missing))
	fmt.Fprintf(progress, "The binaries are cached in %s\n", p.directory)
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

// buildEstimate estimates the duration of a build without cache. kube-apiserver takes
// most of it, the kubelet a third of that.
func buildEstimate(missing []string) string {
	switch apiServer, kubelet := slices.Contains(missing, "kube-apiserver"), slices.Contains(missing, "kubelet"); {
	case apiServer && kubelet:
		return "12-20 minutes"
	case apiServer:
		return "8-15 minutes"
	case kubelet:
		return "4-8 minutes"
	default:
		return "a minute"
	}
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

	final := filepath.Join(p.directory, c.name)
	partial := final + ".partial"
	d.state = state{total: len(packages)}
	err = runGo(ctx, c.goCommand(ctx, p.module, buildArguments(c, version, partial)...), d, nil, func(line string) bool {
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

// dependencies lists the packages of c, including itself. The go command downloads
// their modules here.
func dependencies(ctx context.Context, module string, c command, d *display) (map[string]bool, error) {
	var out strings.Builder
	list := c.goCommand(ctx, module, "list", "-deps", "-tags", c.tags, c.importPath)
	if err := runGo(ctx, list, d, &out, func(string) bool { return false }); err != nil {
		return nil, err
	}
	packages := map[string]bool{}
	for name := range strings.FieldsSeq(out.String()) {
		packages[name] = true
	}
	return packages, nil
}

// runGo runs the go command, prepared with ctx, and updates d meanwhile. It passes each
// line of stderr to seen. Lines that seen rejects, other than downloads, are messages
// and become part of the error.
func runGo(ctx context.Context, cmd *exec.Cmd, d *display, stdout io.Writer, seen func(line string) bool) error {
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
		// A line that is too long for the scanner must not block the go command.
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
	return fmt.Errorf("go %s %s: %w\n%s", cmd.Args[1], path.Base(cmd.Args[len(cmd.Args)-1]), err,
		strings.Join(messages, "\n"))
}
