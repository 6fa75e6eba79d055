// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"path"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/nodeagent/internal/probe"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/evidence"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/usage"
)

// errNoNode: Events are about a Node.
var errNoNode = errors.New("there is an API server to send Events to, but no node to send them about: set --node-name or NODE_NAME")

// errHelp: help was asked for and given.
var errHelp = flag.ErrHelp

// maxResync bounds --resync: an agent that is silent for longer is not alive.
const maxResync = 24 * time.Hour

// config is what the command line says.
type config struct {
	root, directory, clientCA string
	nodeName, kubeconfig      string
	kubelet                   *probe.Prober // nil: none is asked
	metricsAddress            string
	resync, settle            time.Duration
	expiringFraction          float64
	logFormat                 string
	logLevel                  slog.Level
	once, version             bool
	output                    evidence.Format
}

// parseConfig reads the flags. Its error is one line for people.
func parseConfig(args []string, getenv func(string) string, stderr io.Writer) (config, error) {
	c := config{output: evidence.Table}
	var kubeletAddress string
	flags := flag.NewFlagSet("nodeagent", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // the caller prints the error, once
	flags.StringVar(&c.root, "root", "/", "`directory` where the host's root is mounted")
	flags.StringVar(&c.directory, "kubelet-client-dir", "", "host `directory` of the kubelet client pair (default: found out from the static pod manifest)")
	flags.StringVar(&c.clientCA, "kubelet-ca", "", "host `file` with the CAs of the kubelet's clients (default: by layout)")
	flags.StringVar(&c.nodeName, "node-name", getenv("NODE_NAME"), "`name` of this node (default: $NODE_NAME)")
	flags.StringVar(&c.kubeconfig, "kubeconfig", "", "`file` to reach the API server by (default: that of the Pod; without either: log only)")
	flags.StringVar(&kubeletAddress, "kubelet-address", "", "`address` of this node's kubelet, port 10250 unless it has one; empty: no handshake with it")
	flags.StringVar(&c.metricsAddress, "metrics-bind-address", ":8080", "`address` on which metrics and health are served over plain HTTP; 0: none")
	flags.DurationVar(&c.resync, "resync", 30*time.Second, "look in any case after this `time`")
	flags.DurationVar(&c.settle, "settle", time.Second, "tell a finding from files when it has lasted this `time`")
	flags.Float64Var(&c.expiringFraction, "expiring-fraction", check.DefaultExpiringFraction, "`part` of its lifetime, between 0 and 1, under which a certificate expires soon")
	flags.StringVar(&c.logFormat, "log-format", "json", "`format` of the log: json or text")
	flags.TextVar(&c.logLevel, "log-level", slog.LevelInfo, "`level` of the log: debug, info, warn or error")
	flags.BoolVar(&c.once, "once", false, "look once, print the verdict, exit 0 (compliant), 1 (a violation) or 2 (could not verify)")
	flags.TextVar(&c.output, "o", evidence.Table, "`format` of what --once prints: table, json, junit, sarif or openreports")
	flags.BoolVar(&c.version, "version", false, "print the version")

	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		usage.Print(stderr, "nodeagent watches the kubelet client certificate of a control-plane node.", flags, groups()...)
		return config{}, errHelp
	case err != nil:
		return config{}, err
	case flags.NArg() > 0:
		return config{}, fmt.Errorf("argument %q: only flags are taken", flags.Arg(0))
	}
	if kubeletAddress != "" {
		var err error
		if c.kubelet, err = probe.New(kubeletAddress); err != nil {
			return c, fmt.Errorf("--kubelet-address: %w", err)
		}
	}
	return c, c.validate()
}

// groups are the flags as --help shows them.
func groups() []usage.Group {
	return []usage.Group{
		{Title: "What it looks at", Flags: []string{"root", "kubelet-client-dir", "kubelet-ca", "kubelet-address", "expiring-fraction"}},
		{Title: "When", Flags: []string{"resync", "settle"}},
		{Title: "Whom it tells", Flags: []string{"node-name", "kubeconfig", "metrics-bind-address", "log-format", "log-level"}},
		{Title: "Once, for evidence", Flags: []string{"once", "o"}},
		{Title: "Other", Flags: []string{"version"}},
	}
}

func (c config) validate() error {
	switch {
	case c.kubeconfig != "" && c.nodeName == "":
		return errNoNode
	case c.root == "":
		return errors.New("--root is empty")
	case c.directory != "" && !path.IsAbs(c.directory):
		return fmt.Errorf("--kubelet-client-dir %q is not an absolute path of the host", c.directory)
	case c.clientCA != "" && !path.IsAbs(c.clientCA):
		return fmt.Errorf("--kubelet-ca %q is not an absolute path of the host", c.clientCA)
	case c.resync < time.Second || c.resync > maxResync:
		return fmt.Errorf("--resync %s is not between a second and %s", c.resync, maxResync)
	case c.settle < 0 || c.settle > time.Minute:
		return fmt.Errorf("--settle %s is not between 0 and a minute", c.settle)
	case !(c.expiringFraction >= 0 && c.expiringFraction < 1): // NaN too
		return fmt.Errorf("--expiring-fraction %v is not at least 0 and below 1", c.expiringFraction)
	}
	return nil
}
