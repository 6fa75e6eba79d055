// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// installTimeout bounds apt-get: its packages are some 100 MB.
const installTimeout = 15 * time.Minute

// need is a tool of the machine that is not built from a Go module.
type need struct {
	name     string
	packages []string // Debian packages with it
	met      func(ctx context.Context) bool
}

// nodeNeeds are the tools that a node needs in addition to the built programs.
var nodeNeeds = []need{
	onPath("containerd", "containerd"),
	onPath("containerd-shim-runc-v2", "containerd"),
	onPath("ctr", "containerd"),
	onPath("ip", "iproute2"),
	onPath("mount", "mount"),       // the kubelet's way to mount volumes
	onPath("nft", "nftables"),      // kube-proxy's
	onPath("iptables", "iptables"), // the CNI plugin portmap's
	{name: "CNI plugins", packages: []string{"containernetworking-plugins"}, met: func(context.Context) bool {
		_, found := findPlugins(pluginDirectories)
		return found
	}},
}

// runcBuildNeeds are the build tools of runc, which is partly written in C.
var runcBuildNeeds = []need{
	onPath("gcc", "gcc", "libc6-dev"),
	onPath("pkg-config", "pkg-config"),
	{
		name:     "libseccomp's header files",
		packages: []string{"libseccomp-dev", "pkg-config"},
		met: func(ctx context.Context) bool {
			return exec.CommandContext(ctx, "pkg-config", "--exists", "libseccomp").Run() == nil
		},
	},
}

func onPath(name string, packages ...string) need {
	return need{name: name, packages: packages, met: func(context.Context) bool {
		_, err := exec.LookPath(name)
		return err == nil
	}}
}

// pluginDirectories are the directories with CNI plugins, on Debian and elsewhere.
var pluginDirectories = []string{"/usr/lib/cni", "/opt/cni/bin"}

// usedPlugins are the CNI plugins of the node's network.
var usedPlugins = []string{"ptp", "portmap", "host-local", "loopback"}

// findPlugins returns the first directory with all used plugins.
func findPlugins(directories []string) (string, bool) {
	for _, directory := range directories {
		has := func(name string) bool {
			_, err := os.Stat(filepath.Join(directory, name))
			return err == nil
		}
		if !slices.ContainsFunc(usedPlugins, func(name string) bool { return !has(name) }) {
			return directory, true
		}
	}
	return "", false
}

// addAdministratorsPath adds the sbin directories to PATH. They are missing if a user became
// root without a login.
func addAdministratorsPath() error {
	return os.Setenv("PATH", os.Getenv("PATH")+":/usr/local/sbin:/usr/sbin:/sbin")
}

// unmet returns the missing tools and the packages that contain them.
func unmet(ctx context.Context, needs []need) (names, packages []string) {
	for _, n := range needs {
		if !n.met(ctx) {
			names = append(names, n.name)
			packages = append(packages, n.packages...)
		}
	}
	slices.Sort(packages)
	return names, slices.Compact(packages)
}

// ensureInstalled installs missing tools as root on Debian. Elsewhere it returns an error
// that names them.
func ensureInstalled(ctx context.Context, needs []need, progress io.Writer) error {
	if err := addAdministratorsPath(); err != nil {
		return err
	}
	names, packages := unmet(ctx, needs)
	if len(names) == 0 {
		return nil
	}
	_, noDebian := os.Stat("/etc/debian_version")
	if os.Geteuid() != 0 || noDebian != nil {
		return notInstalled(names, packages)
	}
	fmt.Fprintf(progress, "Missing: %s. Installing with apt-get: %s\n", strings.Join(names, ", "),
		strings.Join(packages, " "))
	ctx, cancel := context.WithTimeoutCause(ctx, installTimeout, fmt.Errorf("not done after %s", installTimeout))
	defer cancel()
	for _, arguments := range [][]string{
		{"update", "--quiet"},
		append([]string{"install", "--quiet", "--yes", "--no-install-recommends"}, packages...),
	} {
		cmd := exec.CommandContext(ctx, "apt-get", arguments...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		cmd.Stdout, cmd.Stderr = progress, progress
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("apt-get %s: %w", strings.Join(arguments, " "), err)
		}
	}
	if names, packages := unmet(ctx, needs); len(names) > 0 {
		return notInstalled(names, packages)
	}
	return nil
}

func notInstalled(names, packages []string) error {
	return fmt.Errorf(
		"this machine does not have %s: install them (Debian packages: %s; as root on Debian, this program installs them)",
		strings.Join(names, ", "), strings.Join(packages, ", "))
}
