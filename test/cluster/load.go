// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

const (
	// importTimeout is longer than the import of an image of 1 GB.
	importTimeout = 5 * time.Minute

	// imageInterval is the interval for polling containerd for an image.
	imageInterval = 50 * time.Millisecond

	// snapshotter copies instead of using overlays, which works on every file system,
	// including that of a container.
	snapshotter = "native"
)

// load imports an image into the node that runs in dir.
func load(ctx context.Context, dir, archive string, out io.Writer) error {
	f := clusterDirectory(dir)
	s, err := f.status()
	if err != nil {
		return err
	}
	if s.kubectl == "" {
		return fmt.Errorf("no cluster is ready in %s", f)
	}
	if _, err := os.Stat(f.containerdSocket()); err != nil {
		return fmt.Errorf("the cluster in %s has no node: %w", f, err)
	}
	if err := addAdministratorsPath(); err != nil {
		return err
	}
	// The path of a socket is limited to 107 bytes; this one is always short.
	run, err := os.Open(f.containerdRun())
	if err != nil {
		return err
	}
	defer run.Close()
	names, err := importImage(ctx, archive, func(ctx context.Context, arguments ...string) *exec.Cmd {
		cmd := ctr(ctx, "/proc/self/fd/3/"+filepath.Base(f.containerdSocket()), arguments...)
		cmd.ExtraFiles = []*os.File{run}
		return cmd
	})
	for _, name := range names {
		fmt.Fprintln(out, name)
	}
	return err
}

// ctr prepares the containerd client with the namespace of the kubelet.
func ctr(ctx context.Context, socket string, arguments ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "ctr", append([]string{"--address", socket, "--namespace", "k8s.io"}, arguments...)...)
}

// importImage imports images and returns their names when the kubelet can use them.
func importImage(
	ctx context.Context,
	archive string,
	ctr func(ctx context.Context, arguments ...string) *exec.Cmd,
) ([]string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, importTimeout, fmt.Errorf("not done after %s", importTimeout))
	defer cancel()
	out, err := output(ctr(ctx, "images", "import", "--snapshotter", snapshotter, archive))
	if err != nil {
		return nil, fmt.Errorf("import %s: %w", archive, err)
	}
	names := importedNames(out)
	if len(names) == 0 {
		return nil, fmt.Errorf("import %s: containerd names no image: %s", archive, out)
	}
	// The CRI plugin of containerd, which serves the kubelet, gets events about images and
	// labels those that it knows.
	tick := time.NewTicker(imageInterval)
	defer tick.Stop()
	for _, name := range names {
		for {
			out, err := output(ctr(ctx, "images", "list", "name=="+name))
			if err != nil {
				return nil, fmt.Errorf("look for image %s: %w", name, err)
			}
			if strings.Contains(out, "io.cri-containerd.image=managed") {
				break
			}
			select {
			case <-ctx.Done():
				return nil, fmt.Errorf("wait for image %s: %w", name, context.Cause(ctx))
			case <-tick.C:
			}
		}
	}
	return names, nil
}

// importedNames parses lines like "unpacking NAME (sha256:...)...done".
func importedNames(out string) []string {
	var names []string
	for line := range strings.Lines(out) {
		if rest, ok := strings.CutPrefix(line, "unpacking "); ok {
			name, _, _ := strings.Cut(rest, " ")
			names = append(names, name)
		}
	}
	return names
}

// output returns the stdout of a command. The error contains its stderr.
func output(cmd *exec.Cmd) (string, error) {
	out, err := cmd.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return "", fmt.Errorf("%w: %s", err, strings.TrimSpace(string(exit.Stderr)))
	}
	return string(out), err
}
