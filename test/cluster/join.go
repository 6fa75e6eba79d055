// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strconv"
)

// join runs another kube-apiserver of the control plane in dir, with additional
// arguments, until ctx ends. It is an error if the kube-apiserver ends by itself, as it
// does when the etcd of the control plane ends.
func join(ctx context.Context, dir string, more []string, stdout, stderr io.Writer) error {
	binaries, err := ensureBinaries(ctx, stderr)
	if err != nil {
		return err
	}
	f := clusterDirectory(dir)
	etcdPort, err := f.etcdPort()
	if err != nil {
		return err
	}
	authority, err := os.ReadFile(f.certificate(authorityName))
	if err != nil {
		return err
	}
	client := newClient(authority)
	defer client.CloseIdleConnections()
	tokens, err := os.ReadFile(f.tokens())
	if err != nil {
		return err
	}
	token := administrator(string(tokens))
	// Several can join, and each writes its own files.
	name := fmt.Sprintf("kube-apiserver-%d", os.Getpid())
	server, port, err := startOnFreePort(ctx, name, binaries.apiServer, f.path(name+".log"), apiServerStartTimeout,
		func(port int) []string { return joiningArguments(f, port, etcdPort, f.path(name+"-audit.log"), more) },
		func(port int) []probe {
			return []probe{
				{client: client, url: serverURL(port) + "/readyz", token: token},
				{client: client, url: serverURL(port) + "/api/v1/namespaces/default", token: token},
			}
		})
	if err != nil {
		return err
	}
	if _, err = fmt.Fprintf(stdout, "ready ADDRESS=%s\n", address(port)); err == nil {
		select {
		case <-ctx.Done():
		case <-server.ended:
			err = server.failure()
		}
	}
	return errors.Join(err, server.stop(apiServerStopGrace))
}

// joiningArguments: if an argument is set twice, the last value applies.
func joiningArguments(f clusterDirectory, port, etcdPort int, auditLog string, more []string) []string {
	return append(append(apiServerArguments(f, port, etcdPort), "--audit-log-path="+auditLog), more...)
}

// etcdPort returns the port of the etcd that runs in the directory.
func (f clusterDirectory) etcdPort() (int, error) {
	text, err := os.ReadFile(f.etcdURL())
	if err != nil {
		return 0, fmt.Errorf("find the control plane to join: %w", err)
	}
	etcd, err := url.Parse(string(text))
	if err != nil {
		return 0, fmt.Errorf("find the control plane to join: %w", err)
	}
	return strconv.Atoi(etcd.Port())
}
