// SPDX-License-Identifier: Apache-2.0

// Command release makes, signs, publishes and verifies a release: an image for several platforms, the chart, SBOMs,
// provenance, an OpenVEX document, checksums and signatures. It needs no container runtime, and only a release that is
// published needs a registry.
//
//	go run -C release . build --dir DIR --version VERSION --revision COMMIT --time UNIX
//	go run -C release . sign --dir DIR --key FILE
//	go run -C release . publish --dir DIR --to REGISTRY/PATH
//	go run -C release . verify --dir DIR --version VERSION --key FILE [--from REGISTRY/PATH]
//
// DIR has the release. Before build it must have the programs and their SBOMs (make dist) in linux-ARCHITECTURE, and
// the packaged chart:
//
//	linux-amd64/webhook, linux-amd64/webhook.cdx.json, …   what build reads
//	kubelet-https-guard-VERSION.tgz
//	oci/                                                   what build writes: image and chart as an OCI layout
//	provenance.intoto.json, openvex.json
//	SHA256SUMS, SHA256SUMS.sig                             what sign writes, and signatures and attestations in oci/
//
// Signatures and attestations are made and checked by the program cosign, which finds its key's password in
// COSIGN_PASSWORD. With an empty --key it signs keyless, which needs a network and an identity.
//
// This directory is a module of its own, so that the product does not depend on its dependencies.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// exitUsage is EX_USAGE of sysexits.h.
const exitUsage = 64

// maxTime bounds a command.
const maxTime = 30 * time.Minute

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, maxTime)
	defer cancel()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		if errors.As(err, &usageError{}) {
			os.Exit(exitUsage) //nolint:gocritic // nothing is deferred that outlives the process
		}
		os.Exit(1)
	}
}

// usageError is an error in the command line.
type usageError struct{ text string }

func (e usageError) Error() string { return e.text }

// options are the flags of all commands.
type options struct {
	dir, version, revision, key, cosign, to, from string
	created                                       int64
	identity                                      identity
}

// run runs a command.
func run(ctx context.Context, arguments []string, out io.Writer) error {
	if len(arguments) == 0 {
		return usageError{"missing command: build, sign, publish or verify"}
	}
	var o options
	flags := flag.NewFlagSet(arguments[0], flag.ContinueOnError)
	flags.StringVar(&o.dir, "dir", "", "`directory` of the release")
	flags.StringVar(&o.cosign, "cosign", "cosign", "the `program` cosign")
	var do func() error
	switch arguments[0] {
	case "build":
		flags.StringVar(&o.version, "version", "", "`version` of the release")
		flags.StringVar(&o.revision, "revision", "", "`commit` that the programs were built from")
		flags.Int64Var(&o.created, "time", 0, "Unix `time` of that commit, in seconds")
		do = func() error { return build(o.dir, o.version, o.revision, time.Unix(o.created, 0).UTC(), out) }
	case "sign":
		flags.StringVar(&o.key, "key", "", "`file` of the private key; empty to sign keyless")
		do = func() error { return sign(ctx, o.dir, cosign{program: o.cosign, key: o.key}, out) }
	case "publish":
		flags.StringVar(&o.to, "to", "", "`registry` and path below which the release is published")
		do = func() error { return publish(ctx, o.dir, o.to, out) }
	case "verify":
		flags.StringVar(&o.key, "key", "", "`file` of the public key; empty to verify what was signed keyless")
		flags.StringVar(&o.identity.subject, "certificate-identity", "", "who signed keyless: the certificate's `subject`")
		flags.StringVar(&o.identity.issuer, "certificate-oidc-issuer", "", "who signed keyless: the token's `issuer`")
		flags.StringVar(&o.version, "version", "", "`version` that it must be: an older release is signed, too")
		flags.StringVar(&o.from, "from", "", "`registry` and path of a published release, which must be the same as in DIR")
		do = func() error {
			if o.version == "" {
				return usageError{"verify: --version is required"}
			}
			return verify(ctx, o.dir, o.version, o.from, cosign{program: o.cosign, key: o.key, identity: o.identity}, out)
		}
	default:
		return usageError{fmt.Sprintf("unknown command %q: want build, sign, publish or verify", arguments[0])}
	}
	if err := flags.Parse(arguments[1:]); err != nil {
		return usageError{err.Error()}
	}
	if o.dir == "" || flags.NArg() > 0 {
		return usageError{arguments[0] + ": --dir is required, and no other arguments than flags"}
	}
	return do()
}
