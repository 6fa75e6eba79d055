// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"os"
	"time"
)

const (
	// etcdStartTimeout and apiServerStartTimeout: 0.3 s and 3 s on two idle
	// cores, much longer while the machine is compiling.
	etcdStartTimeout      = time.Minute
	apiServerStartTimeout = 3 * time.Minute

	// apiServerStopGrace is longer than the second that watches get.
	apiServerStopGrace = 10 * time.Second
	etcdStopGrace      = 5 * time.Second
)

// serve runs a control plane in dir until ctx ends. It is an error if one of its
// processes ends by itself.
func serve(ctx context.Context, dir string, stdout, stderr io.Writer) error {
	binaries, err := ensureBinaries(ctx, stderr)
	if err != nil {
		return err
	}
	f := clusterDirectory(dir)
	lock, err := f.claim(ctx)
	if err != nil {
		return err
	}
	defer lock.Close()

	etcd, apiServer, err := startControlPlane(ctx, f, binaries)
	if err != nil {
		return err
	}
	err = announce(f, binaries.kubectl, stdout)
	if err == nil {
		select {
		case <-ctx.Done():
		case <-apiServer.ended:
			err = apiServer.failure()
		case <-etcd.ended:
			err = etcd.failure()
		}
	}

	if removed := os.Remove(f.ready()); !errors.Is(removed, os.ErrNotExist) {
		err = errors.Join(err, removed)
	}
	// In this order: kube-apiserver needs etcd for a graceful shutdown.
	return errors.Join(err, apiServer.stop(apiServerStopGrace), etcd.stop(etcdStopGrace))
}

func announce(f clusterDirectory, kubectl string, stdout io.Writer) error {
	line := readyLine(f.kubeconfig(), kubectl) + "\n"
	if err := writeFile(f.ready(), line); err != nil {
		return err
	}
	_, err := io.WriteString(stdout, line)
	return err
}

// startControlPlane returns when both processes are ready and the kubeconfig is written.
// After an error, no process is left running.
func startControlPlane(ctx context.Context, f clusterDirectory, b binaries) (etcd, apiServer *process, err error) {
	authority, token, err := writeControlPlane(f, leaves)
	if err != nil {
		return nil, nil, err
	}

	client := newClient(authority)
	defer client.CloseIdleConnections()

	etcd, etcdPort, err := startOnFreePort(ctx, "etcd", b.etcd, f.etcdLog(), etcdStartTimeout,
		func(port int) []string { return etcdArguments(f, port) },
		func(port int) []probe {
			return []probe{{client: client, url: "http://" + address(port) + "/health"}}
		})
	if err != nil {
		return nil, nil, err
	}
	if err := writeFile(f.etcdURL(), "http://"+address(etcdPort)); err != nil {
		return nil, nil, errors.Join(err, etcd.stop(etcdStopGrace))
	}
	apiServer, port, err := startOnFreePort(ctx, "kube-apiserver", b.apiServer, f.apiServerLog(), apiServerStartTimeout,
		func(port int) []string { return apiServerArguments(f, port, etcdPort) },
		func(port int) []probe {
			server := serverURL(port)
			return []probe{
				{client: client, url: server + "/readyz", token: token},
				// readyz does not wait for namespace default.
				{client: client, url: server + "/api/v1/namespaces/default", token: token},
			}
		})
	if err == nil {
		err = writeFile(f.kubeconfig(), kubeconfig(serverURL(port), authority, token))
	}
	if err == nil {
		return etcd, apiServer, nil
	}
	if apiServer != nil {
		err = errors.Join(err, apiServer.stop(apiServerStopGrace))
	}
	return nil, nil, errors.Join(err, etcd.stop(etcdStopGrace))
}

// writeControlPlane writes the files that kube-apiserver reads. It returns the certificate
// of the CA and the token of the administrator.
func writeControlPlane(f clusterDirectory, leaves []leaf) (authority []byte, token string, err error) {
	if err := writeCertificates(f, time.Now(), leaves); err != nil {
		return nil, "", err
	}
	if authority, err = os.ReadFile(f.certificate(authorityName)); err != nil {
		return nil, "", err
	}
	if token, err = newToken(); err != nil {
		return nil, "", err
	}
	if err := writeFile(f.tokens(), tokenFile(token)); err != nil {
		return nil, "", err
	}
	return authority, token, writeFile(f.auditPolicy(), auditPolicy)
}

func serverURL(port int) string { return "https://" + address(port) }

// newClient trusts only the CA of the cluster and uses no proxy.
func newClient(authority []byte) *http.Client {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority)
	return &http.Client{
		Timeout:   probeTimeout,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}},
	}
}

func newToken() (string, error) {
	token := make([]byte, 16)
	if _, err := rand.Read(token); err != nil {
		return "", err
	}
	return hex.EncodeToString(token), nil
}
