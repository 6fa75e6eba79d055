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
	"regexp"
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

	// maxBatchNames is how many names fit into a line of progress.
	maxBatchNames = 3
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

// commands are those of a control plane.
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

// batches groups commands that one go build can build, so that all cores compile while one links.
func batches(commands []command) [][]command {
	var all [][]command
	for _, c := range commands {
		i := slices.IndexFunc(all, func(batch []command) bool {
			first := batch[0]
			return first.module == c.module && first.cgo == c.cgo && first.tags == c.tags
		})
		if i < 0 {
			all = append(all, []command{c})
			continue
		}
		all[i] = append(all[i], c)
	}
	return all
}

// batchName is the name of a batch in messages.
func batchName(batch []command) string {
	var names []string
	for _, c := range batch {
		names = append(names, c.name)
	}
	if len(names) > maxBatchNames {
		return fmt.Sprintf("%d programs", len(names))
	}
	return strings.Join(names, ", ")
}

// buildArguments does not use -trimpath, so that the build can reuse packages that
// builds of the product with the same Go release (make GO_RELEASE=local) have compiled.
// All commands are of one batch.
func buildArguments(batch []command, version, output string) []string {
	arguments := []string{"build", "-v"}
	for _, c := range batch {
		linker := "-s -w"
		if c.versionModule != "" {
			linker += " " + versionFlags(version)
		}
		if len(batch) > 1 {
			linker = c.importPath + "=" + linker
		}
		arguments = append(arguments, "-ldflags", linker)
	}
	if tags := batch[0].tags; tags != "" {
		arguments = append(arguments, "-tags", tags)
	}
	arguments = append(arguments, "-o", output)
	for _, c := range batch {
		arguments = append(arguments, c.importPath)
	}
	return arguments
}

// majorVersion is the last element of the path of a module with a version of its own.
var majorVersion = regexp.MustCompile(`^v[0-9]+$`)

// executable is how the go command names the binary.
func (c command) executable() string {
	if base := path.Base(c.importPath); !majorVersion.MatchString(base) {
		return base
	}
	return path.Base(path.Dir(c.importPath))
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
	estimate := ": about " + buildEstimate(missing) + " on 2 cores if nothing is cached."
	if p.quick {
		estimate = ": some minutes." // the caller has compiled a part of it
	}
	fmt.Fprintf(progress, "Building %s once%s\n", strings.Join(missing, ", "), estimate)
	fmt.Fprintf(progress, "The binaries are cached in %s\n", p.directory)
	wanted := slices.DeleteFunc(slices.Clone(commands), func(c command) bool { return !slices.Contains(missing, c.name) })
	for _, batch := range batches(wanted) {
		if err := build(ctx, p, batch, newDisplay(progress, batchName(batch))); err != nil {
			return fmt.Errorf("build %s: %w", batchName(batch), err)
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

func build(ctx context.Context, p place, batch []command, d *display) error {
	ctx, cancel := context.WithTimeoutCause(ctx, buildTimeout, fmt.Errorf("not done after %s", buildTimeout))
	defer cancel()

	var version string
	for _, c := range batch {
		if c.versionModule == "" || version != "" {
			continue
		}
		var err error
		if version, err = p.goOutput(ctx, "list", "-m", "-f", "{{.Version}}", c.versionModule); err != nil {
			return err
		}
	}
	packages, err := dependencies(ctx, p, batch, d)
	if err != nil {
		return err
	}

	partial, err := os.MkdirTemp(p.directory, "partial-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(partial) }()
	d.state = state{total: len(packages)}
	compiled := map[string]bool{}
	arguments := buildArguments(batch, version, partial+string(filepath.Separator))
	err = runGo(ctx, p.batchCommand(ctx, batch, arguments...), d, nil, func(line string) bool {
		known := packages[line]
		if known {
			d.state.compiled++
			compiled[line] = true
			d.state.linking = !slices.ContainsFunc(batch, func(c command) bool { return !compiled[c.importPath] })
		}
		return known
	})
	if err != nil {
		return err
	}
	for _, c := range batch {
		if err := os.Rename(filepath.Join(partial, c.executable()), filepath.Join(p.directory, c.name)); err != nil {
			return err
		}
	}
	d.finish()
	return nil
}

// dependencies lists the packages of the commands, including themselves. The go command
// downloads their modules here.
func dependencies(ctx context.Context, p place, batch []command, d *display) (map[string]bool, error) {
	var out strings.Builder
	arguments := []string{"list", "-deps", "-tags", batch[0].tags}
	for _, c := range batch {
		arguments = append(arguments, c.importPath)
	}
	err := runGo(ctx, p.batchCommand(ctx, batch, arguments...), d, &out, func(string) bool { return false })
	if err != nil {
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
