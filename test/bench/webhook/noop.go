// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"

	"github.com/go-logr/logr"
	crlog "sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/webhook"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"
)

// noop serves what every comparison here is with: a webhook of controller-
// runtime that lets everything pass.
func noop(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("noop", flag.ContinueOnError)
	port := flags.Int("port", 0, "`port` on 127.0.0.1")
	certDir := flags.String("cert-dir", "", "`directory` with tls.crt and tls.key")
	if err := flags.Parse(args); err != nil {
		return err
	}
	crlog.SetLogger(logr.FromSlogHandler(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})))
	server := webhook.NewServer(webhook.Options{Host: "127.0.0.1", Port: *port, CertDir: *certDir})
	server.Register("/validate", &admission.Webhook{Handler: admission.HandlerFunc(func(context.Context, admission.Request) admission.Response {
		return admission.Allowed("")
	})})
	if err := server.Start(ctx); err != nil {
		return fmt.Errorf("serve the no-op webhook: %w", err)
	}
	return nil
}
