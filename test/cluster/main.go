// SPDX-License-Identifier: Apache-2.0

// Command cluster builds and runs a real Kubernetes control plane on this
// machine: etcd and kube-apiserver, and kubectl as the client. It needs Go, but no
// root, no containers and no image registry. With --node it runs a whole cluster
// with one node, which needs Linux, root and a few packages.
//
//	go run -C test/cluster . build [--node | --quick]
//	go run -C test/cluster . serve [--node] --dir DIR [--until-stdin-closes]
//	go run -C test/cluster . up [--node] [--dir DIR]
//	go run -C test/cluster . down [--node] [--dir DIR]
//	go run -C test/cluster . load --dir DIR IMAGE.tar
//	go run -C test/cluster . join --dir DIR [--until-stdin-closes] [-- ARGUMENTS]
//	go run -C test/cluster . paths
//
// Without --node there is only the control plane: no controller manager, no
// scheduler, no node. Nothing creates the ServiceAccount "default", so create one
// before you create a pod; a deleted namespace stays Terminating; pods stay Pending.
// Admission, authorization, webhooks by URL and the audit log work as usual.
//
// The command join runs another kube-apiserver with the same etcd and the same keys,
// as in a control plane with several nodes. It gets the arguments of the first one,
// then ARGUMENTS, which take precedence. With --etcd-prefix it is a separate, empty
// cluster.
//
// # The node
//
// With --node it also runs kube-controller-manager, kube-scheduler, kube-proxy,
// containerd and a kubelet, so that pods run. Everything runs in separate namespaces
// (mount, PID, network, IPC, UTS) and does not change the machine. When process 1 of
// the node ends, the kernel ends all its processes and mounts. The machine has only
// the files in DIR and, while the node runs, a cgroup named
// kubelet-https-guard-node-... in each hierarchy. Details:
//
//   - The Node is node-0, with the roles control-plane and master and the taint
//     node-role.kubernetes.io/control-plane:NoSchedule, which pods must tolerate.
//   - DIR/host/etc/kubernetes is the node's /etc/kubernetes. It can be changed
//     from outside.
//   - DIR/kubelet.yaml is the kubelet's configuration. When it changes, the
//     kubelet restarts.
//   - DIR/pki contains all keys, including the key of the CA (ca).
//   - DIR/node-pid is process 1 of the node, for `nsenter --target PID --net`.
//   - DIR/run/containerd.sock is containerd's socket. The command load imports
//     images from a docker-archive. There is no registry, so pods need
//     imagePullPolicy Never or IfNotPresent. Initially there is only the image of
//     the sandboxes.
//   - There is no DNS, no storage, and no way out of the cluster.
//
// The programs are built; KUBEBUILDER_ASSETS is ignored. containerd and the network
// tools are those of the machine. As root on Debian, missing ones are installed.
//
// `go run` does not forward SIGTERM to the program and turns every exit status into
// 1. A program that starts serve therefore uses --until-stdin-closes, or builds this
// program and runs it. Since -C changes the directory, a relative --dir is relative
// to test/cluster.
//
// # About go.mod
//
// This directory is a separate module, so that the product does not depend on the
// dependencies of Kubernetes. The program itself imports only the standard library;
// the commands that it builds are `tool` lines. k8s.io/kubernetes refers to its
// staging modules (k8s.io/api, k8s.io/apiserver, ...) by `replace` lines with
// paths in its own tree. Go ignores the replace lines of a dependency, so go.mod
// replaces each staging module by its published version: v0.X.Y for Kubernetes
// v1.X.Y. k8s.io/kube-openapi and k8s.io/utils are not staging modules and have their
// own versions. To use another Kubernetes version, change the `require` line of
// k8s.io/kubernetes and all replace lines, then run `go mod tidy`; the code contains
// no versions. runc, which only a node needs, is a separate module in runc/, since it
// would change the versions of the kubelet's dependencies.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
)

const usage = `Usage: go run -C test/cluster . COMMAND

  build [--quick]        build etcd, kube-apiserver and kubectl, unless they are cached; with
                         --quick by the go command and the settings of the caller, for
                         KUBEBUILDER_ASSETS: prints their directory
  serve --dir DIR [--until-stdin-closes]
                         run a control plane in the foreground, with all its files in DIR;
                         prints "ready KUBECONFIG=... KUBECTL=..." when it is ready
  up [--dir DIR]         run a control plane in the background and print how to use it
  down [--dir DIR]       stop it and remove DIR
  join --dir DIR [--until-stdin-closes] [-- ARGUMENTS]
                         run another kube-apiserver in the foreground, with the etcd of the
                         control plane in DIR; prints "ready ADDRESS=..." when it is ready
  paths                  print where the built binaries are

The default DIR of up and down is .cluster in the root of the repository. If
KUBEBUILDER_ASSETS is set to a directory with etcd, kube-apiserver and kubectl, these
are used and nothing is built.

With --node, build, serve, up and down do the same for a whole cluster with one
node. This needs root on Linux. The default DIR of up and down is .node, and
KUBEBUILDER_ASSETS is ignored.

  load --dir DIR IMAGE   import the images of a docker-archive into the node
`

// exitUsage is EX_USAGE of sysexits.h.
const exitUsage = 64

// usageError is an error in the command line.
type usageError struct{ text string }

func (e usageError) Error() string { return e.text }

func main() {
	// A child's parent-death signal is tied to the thread that started it
	// (see childAttributes). This goroutine starts all children; locked, its
	// thread lives as long as the process.
	runtime.LockOSThread()

	err := run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return
	}
	fmt.Fprintf(os.Stderr, "cluster: %v\n", err)
	if _, ok := errors.AsType[usageError](err); ok {
		fmt.Fprintf(os.Stderr, "\n%s", usage)
		os.Exit(exitUsage)
	}
	os.Exit(1)
}

func run(arguments []string, stdin io.Reader, stdout, stderr io.Writer) error {
	command, options, err := parse(arguments)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprint(stdout, usage)
	}
	if err != nil {
		return err
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// The first signal requests a graceful shutdown. Restore the default behavior, so
	// that a second one ends the process immediately.
	context.AfterFunc(ctx, stop)

	switch command {
	case "build":
		switch {
		case options.node:
			_, err = ensureNodeBinaries(ctx, stderr)
		case options.quick:
			var directory string
			if directory, err = ensureQuickBinaries(ctx, stderr); err == nil {
				_, err = fmt.Fprintln(stdout, directory)
			}
		default:
			_, err = ensureBinaries(ctx, stderr)
		}
		return err
	case "paths":
		return printPaths(ctx, stdout)
	case "serve":
		if options.untilStdinCloses {
			ctx = untilClosed(ctx, stdin)
		}
		if options.node {
			return serveNode(ctx, options.dir, stdout, stderr)
		}
		return serve(ctx, options.dir, stdout, stderr)
	case "join":
		if options.untilStdinCloses {
			ctx = untilClosed(ctx, stdin)
		}
		return join(ctx, options.dir, options.arguments, stdout, stderr)
	case "up":
		return up(ctx, options, stdout, stderr)
	case "load":
		return load(ctx, options.dir, options.archive, stdout)
	case "node-init":
		return nodeInit(untilClosed(ctx, stdin), options.dir, options.binaries)
	case "node-run":
		return nodeRun(ctx, options.dir, options.binaries)
	default: // "down": parse accepts no other name
		return down(ctx, options, stderr)
	}
}

type options struct {
	dir              string
	node             bool
	quick            bool
	untilStdinCloses bool
	archive          string   // of images, absolute
	arguments        []string // of a kube-apiserver
	binaries         string   // directory, internal
}

// parse parses the command line. The returned directory is absolute, or empty for
// commands without a directory.
func parse(arguments []string) (command string, o options, err error) {
	if len(arguments) == 0 {
		return "", options{}, usageError{"missing command"}
	}
	command = arguments[0]
	flags := flag.NewFlagSet(command, flag.ContinueOnError)
	flags.SetOutput(io.Discard) // the returned error is printed once
	switch command {
	case "help", "-h", "-help", "--help":
		return "", options{}, flag.ErrHelp
	case "paths":
	case "build":
		flags.BoolVar(&o.node, "node", false, "")
		flags.BoolVar(&o.quick, "quick", false, "")
	case "up", "down":
		flags.StringVar(&o.dir, "dir", "", "")
		flags.BoolVar(&o.node, "node", false, "")
	case "serve":
		flags.StringVar(&o.dir, "dir", "", "")
		flags.BoolVar(&o.node, "node", false, "")
		flags.BoolVar(&o.untilStdinCloses, "until-stdin-closes", false, "")
	case "load":
		flags.StringVar(&o.dir, "dir", "", "")
	case "join":
		flags.StringVar(&o.dir, "dir", "", "")
		flags.BoolVar(&o.untilStdinCloses, "until-stdin-closes", false, "")
	case "node-init", "node-run": // how serve --node starts itself
		flags.StringVar(&o.dir, "dir", "", "")
		flags.StringVar(&o.binaries, "binaries", "", "")
	default:
		return "", options{}, usageError{fmt.Sprintf("unknown command %q", command)}
	}
	if err := flags.Parse(arguments[1:]); errors.Is(err, flag.ErrHelp) {
		return "", options{}, err
	} else if err != nil {
		return "", options{}, usageError{fmt.Sprintf("%s: %v", command, err)}
	}
	rest := flags.Args()
	if command == "load" {
		if len(rest) == 0 {
			return "", options{}, usageError{"load: missing archive"}
		}
		if o.archive, err = filepath.Abs(rest[0]); err != nil {
			return "", options{}, err
		}
		rest = rest[1:]
	}
	if command == "join" && len(rest) > 0 {
		o.arguments, rest = rest, nil
	}
	if len(rest) > 0 {
		return "", options{}, usageError{fmt.Sprintf("%s: unexpected argument %q", command, rest[0])}
	}
	if flags.Lookup("dir") == nil {
		return command, o, nil
	}

	if o.dir == "" && command != "up" && command != "down" {
		return "", options{}, usageError{command + ": missing --dir"}
	}
	if o.dir == "" {
		module, err := moduleDirectory()
		if err != nil {
			return "", options{}, err
		}
		name := ".cluster"
		if o.node {
			name = ".node"
		}
		o.dir = filepath.Join(module, "..", "..", name)
	}
	if o.dir, err = filepath.Abs(o.dir); err != nil {
		return "", options{}, err
	}
	// kube-apiserver and etcd take some paths inside comma-separated lists.
	if strings.ContainsAny(o.dir, ",\n") {
		return "", options{}, usageError{fmt.Sprintf("%s: --dir %q contains a comma or a line break", command, o.dir)}
	}
	if o.node && !nodeCanBeIn(o.dir) {
		return "", options{}, usageError{
			fmt.Sprintf("%s: --dir %q is in /run, which a node mounts separately", command, o.dir),
		}
	}
	return command, o, nil
}

// untilClosed returns a context that ends with ctx or at the end of r, so that a
// cluster ends with the test that started it.
func untilClosed(ctx context.Context, r io.Reader) context.Context {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		_, _ = io.Copy(io.Discard, r) // an error ends the stream as well
		cancel(errors.New("stdin was closed"))
	}()
	return ctx
}
