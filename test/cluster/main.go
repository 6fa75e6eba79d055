// SPDX-License-Identifier: Apache-2.0

// Command cluster builds and runs a real Kubernetes control plane on this
// machine: etcd and kube-apiserver, and kubectl to talk to them. It needs Go,
// no root, no containers and no registry of images.
//
//	go run -C test/cluster . build
//	go run -C test/cluster . serve --dir DIR [--until-stdin-closes]
//	go run -C test/cluster . up [--dir DIR]
//	go run -C test/cluster . down [--dir DIR]
//	go run -C test/cluster . paths
//
// The control plane is all there is: no controller manager, no scheduler, no
// node. A ServiceAccount "default" does not appear by itself, so a pod needs
// one made by hand; a deleted namespace stays Terminating; pods stay Pending.
// Admission, authorization, webhooks by URL and the audit log are the real ones.
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
// three commands it builds are `tool` lines. k8s.io/kubernetes points to its
// staging modules (k8s.io/api, k8s.io/apiserver, ...) by `replace` lines with
// paths in its own tree, and replace lines of a dependency do not count, so
// go.mod replaces each staging module by its published version: v0.X.Y for
// Kubernetes v1.X.Y. k8s.io/kube-openapi and k8s.io/utils are no staging
// modules and keep versions of their own. To move to another version, change
// it in the `require` line of k8s.io/kubernetes and in all replace lines, then
// run `go mod tidy`; nothing in the code names a version.
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
		_, err := ensureBinaries(ctx, stderr)
		return err
	case "paths":
		return printPaths(ctx, stdout)
	case "serve":
		if options.untilStdinCloses {
			ctx = untilClosed(ctx, stdin)
		}
		return serve(ctx, options.dir, stdout, stderr)
	case "up":
		return up(ctx, options.dir, stdout, stderr)
	default: // "down": parse lets no other name through
		return down(ctx, options.dir, stderr)
	}
}

type options struct {
	dir              string
	untilStdinCloses bool
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
	case "build", "paths":
	case "up", "down":
		flags.StringVar(&o.dir, "dir", "", "")
	case "serve":
		flags.StringVar(&o.dir, "dir", "", "")
		flags.BoolVar(&o.untilStdinCloses, "until-stdin-closes", false, "")
	default:
		return "", options{}, usageError{fmt.Sprintf("unknown command %q", command)}
	}
	if err := flags.Parse(arguments[1:]); errors.Is(err, flag.ErrHelp) {
		return "", options{}, err
	} else if err != nil {
		return "", options{}, usageError{fmt.Sprintf("%s: %v", command, err)}
	}
	if flags.NArg() > 0 {
		return "", options{}, usageError{fmt.Sprintf("%s: unexpected argument %q", command, flags.Arg(0))}
	}
	if flags.Lookup("dir") == nil {
		return command, o, nil
	}

	if o.dir == "" && command == "serve" {
		return "", options{}, usageError{"serve: --dir is missing"}
	}
	if o.dir == "" {
		module, err := moduleFolder()
		if err != nil {
			return "", options{}, err
		}
		o.dir = filepath.Join(module, "..", "..", ".cluster")
	}
	if o.dir, err = filepath.Abs(o.dir); err != nil {
		return "", options{}, err
	}
	// kube-apiserver and etcd take some paths inside comma-separated lists.
	if strings.ContainsAny(o.dir, ",\n") {
		return "", options{}, usageError{fmt.Sprintf("%s: --dir %q has a comma or a line break", command, o.dir)}
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
