// SPDX-License-Identifier: Apache-2.0

// Command cluster builds and runs a real Kubernetes control plane on this
// machine: etcd and kube-apiserver, and kubectl to talk to them. It needs Go,
// no root, no containers and no registry of images. With --node it is a whole
// cluster, of one node, which needs Linux, root and a few packages.
//
//	go run -C test/cluster . build [--node]
//	go run -C test/cluster . serve [--node] --dir DIR [--until-stdin-closes]
//	go run -C test/cluster . up [--node] [--dir DIR]
//	go run -C test/cluster . down [--node] [--dir DIR]
//	go run -C test/cluster . load --dir DIR IMAGE.tar
//	go run -C test/cluster . paths
//
// Without --node the control plane is all there is: no controller manager, no scheduler, no
// node. A ServiceAccount "default" does not appear by itself, so a pod needs
// one made by hand; a deleted namespace stays Terminating; pods stay Pending.
// Admission, authorization, webhooks by URL and the audit log are the real ones.
//
// # The node
//
// With --node there are kube-controller-manager, kube-scheduler and kube-proxy,
// containerd and a kubelet, too, and pods run. All of it lives in namespaces of
// its own (mount, PID, network, IPC, UTS), so that nothing of the machine is
// changed, and the kernel ends every process and mount of the node with its
// process 1. On the machine there are the files in DIR and, while it runs, a
// control group named kubelet-https-guard-node-... in each tree. What to know:
//
//   - The Node is node-0, with the roles control-plane and master and the taint
//     node-role.kubernetes.io/control-plane:NoSchedule, which pods must tolerate.
//   - DIR/host/etc/kubernetes is the node's /etc/kubernetes. It may be changed
//     from outside.
//   - DIR/kubelet.yaml is the kubelet's configuration. When it changes, the
//     kubelet starts again.
//   - DIR/pki has all keys, those of the authority (ca) included.
//   - DIR/node-pid is process 1 of the node, for `nsenter --target PID --net`.
//   - DIR/run/containerd.sock is containerd's socket. The command load brings
//     an image of a docker-archive in; there is no registry, so that pods have
//     imagePullPolicy Never or IfNotPresent. The only image that is there
//     already is that of the sandboxes.
//   - There is no DNS, no storage, and no way out of the cluster.
//
// The programs are built, and KUBEBUILDER_ASSETS is not looked at. containerd
// and the tools for the network are the machine's; as root on Debian, what is
// missing is installed.
//
// Two things about `go run` matter to a program that starts serve: it does not
// hand SIGTERM on to what it runs, and it turns every exit status into 1.
// Such a program uses --until-stdin-closes, or builds this one and runs it.
// And since -C is a change of folder, a relative --dir starts at test/cluster.
//
// # How go.mod came to be
//
// The folder is a module of its own so that Kubernetes' dependencies stay out
// of the product's. The program itself imports the standard library alone; the
// commands it builds are `tool` lines. k8s.io/kubernetes points to its
// staging modules (k8s.io/api, k8s.io/apiserver, ...) by `replace` lines with
// paths in its own tree, and replace lines of a dependency do not count, so
// go.mod replaces each staging module by its published version: v0.X.Y for
// Kubernetes v1.X.Y. k8s.io/kube-openapi and k8s.io/utils are no staging
// modules and keep versions of their own. To move to another version, change
// it in the `require` line of k8s.io/kubernetes and in all replace lines, then
// run `go mod tidy`; nothing in the code names a version. runc, which only a node
// needs, has a module of its own in runc/, since it would move the versions of
// what the kubelet is made of.
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

  build                  build etcd, kube-apiserver and kubectl, unless they are cached
  serve --dir DIR [--until-stdin-closes]
                         run a control plane in the foreground, with all its files in DIR;
                         prints "ready KUBECONFIG=... KUBECTL=..." when it answers
  up [--dir DIR]         run one in the background and print how to use it
  down [--dir DIR]       stop it and remove DIR
  paths                  print where the built binaries are

DIR of up and down is .cluster at the root of the repository unless given.
KUBEBUILDER_ASSETS, if set, names a folder with etcd, kube-apiserver and kubectl
to use; nothing is built then.

With --node, build, serve, up and down do the same for a whole cluster of one
node. It needs root on Linux; DIR of up and down is .node unless given, and
KUBEBUILDER_ASSETS does not count.

  load --dir DIR IMAGE   import the images of a docker-archive into the node
`

// exitUsage is EX_USAGE of sysexits.h.
const exitUsage = 64

// usageError says that the command line makes no sense.
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
	// The first signal asks for an orderly end; with the default behaviour back,
	// a second one does not have to wait for it.
	context.AfterFunc(ctx, stop)

	switch command {
	case "build":
		if options.node {
			_, err = ensureNodeBinaries(ctx, stderr)
		} else {
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
	case "up":
		return up(ctx, options, stdout, stderr)
	case "load":
		return load(ctx, options.dir, options.archive, stdout)
	case "node-init":
		return nodeInit(untilClosed(ctx, stdin), options.dir, options.binaries)
	case "node-run":
		return nodeRun(ctx, options.dir, options.binaries)
	default: // "down": parse lets no other name through
		return down(ctx, options, stderr)
	}
}

type options struct {
	dir              string
	node             bool
	untilStdinCloses bool
	archive          string // of images, absolute
	binaries         string // folder, for the program's own use
}

// parse reads the command line. The folder it returns is absolute, and empty
// for the commands that have none.
func parse(arguments []string) (command string, o options, err error) {
	if len(arguments) == 0 {
		return "", options{}, usageError{"a command is missing"}
	}
	command = arguments[0]
	flags := flag.NewFlagSet(command, flag.ContinueOnError)
	flags.SetOutput(io.Discard) // the error says it all, once
	switch command {
	case "help", "-h", "-help", "--help":
		return "", options{}, flag.ErrHelp
	case "paths":
	case "build":
		flags.BoolVar(&o.node, "node", false, "")
	case "up", "down":
		flags.StringVar(&o.dir, "dir", "", "")
		flags.BoolVar(&o.node, "node", false, "")
	case "serve":
		flags.StringVar(&o.dir, "dir", "", "")
		flags.BoolVar(&o.node, "node", false, "")
		flags.BoolVar(&o.untilStdinCloses, "until-stdin-closes", false, "")
	case "load":
		flags.StringVar(&o.dir, "dir", "", "")
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
			return "", options{}, usageError{"load: an archive is missing"}
		}
		if o.archive, err = filepath.Abs(rest[0]); err != nil {
			return "", options{}, err
		}
		rest = rest[1:]
	}
	if len(rest) > 0 {
		return "", options{}, usageError{fmt.Sprintf("%s: unexpected argument %q", command, rest[0])}
	}
	if flags.Lookup("dir") == nil {
		return command, o, nil
	}

	if o.dir == "" && command != "up" && command != "down" {
		return "", options{}, usageError{command + ": --dir is missing"}
	}
	if o.dir == "" {
		module, err := moduleFolder()
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
		return "", options{}, usageError{fmt.Sprintf("%s: --dir %q has a comma or a line break", command, o.dir)}
	}
	if o.node && !nodeCanBeIn(o.dir) {
		return "", options{}, usageError{fmt.Sprintf("%s: --dir %q is in /run, of which a node has its own", command, o.dir)}
	}
	return command, o, nil
}

// untilClosed returns a context that ends with ctx or when r reaches its end,
// so that a test that dies takes its cluster with it.
func untilClosed(ctx context.Context, r io.Reader) context.Context {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		_, _ = io.Copy(io.Discard, r) // an error ends the stream as well
		cancel(errors.New("stdin was closed"))
	}()
	return ctx
}
