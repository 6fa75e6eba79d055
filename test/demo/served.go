// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"

	corev1 "k8s.io/api/core/v1"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/openshift"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/rig"
)

// nodeAndServed shows what happens on a node. Meanwhile it checks what a server serves, and shows that afterwards:
// webhook audit --once takes 3 s if it finds something.
func (d *demo) nodeAndServed(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var output bytes.Buffer
	meanwhile := &demo{out: &output, rig: d.rig}
	ended := make(chan error, 1)
	go func() { ended <- meanwhile.served(ctx) }()
	if err := d.node(ctx); err != nil {
		cancel()
		<-ended
		return err
	}
	err := <-ended
	d.printf("%s", &output)
	d.passed += meanwhile.passed
	d.stale, d.asStored = meanwhile.stale, meanwhile.asStored
	return err
}

// served shows what the audit finds if the server of a Secret does not load the renewed certificate.
func (d *demo) served(ctx context.Context) error {
	d.chapter("The audit checks what a server serves: a renewed certificate must also be loaded")
	at, own := rig.OwnAddress()
	if !own {
		d.printf("\nNot shown. This machine has loopback addresses only, and the audit does not connect to those.\n")
		return nil
	}
	d.printf("\nMeanwhile a TLS server stood in for a Pod of openshift-apiserver, and served the stored certificate.\n" +
		"A running audit reports another certificate after 10 minutes. This command reports it at once, if the stored one\n" +
		"was issued at least 10 minutes ago: here it was an hour ago.\n")
	certificate, key, err := d.pairIn("by-hand.yaml") // which is stored
	if err != nil {
		return err
	}
	endpoint, err := rig.StartEndpoint(ctx, at, certificate, key)
	if err != nil {
		return err
	}
	defer endpoint.Stop()
	if err := d.rig.AnnounceEndpoint(ctx, endpoint); err != nil {
		return err
	}
	kubeconfig, err := d.rig.AuditKubeconfig(ctx)
	if err != nil {
		return err
	}
	if err := d.servedResult(ctx, kubeconfig, ""); err != nil {
		return err
	}
	if err := d.pass(ctx, "service-ca renews the certificate, and the server does not load it",
		"secret/serving-cert replaced", "--as", openshift.ServiceCA, "replace", "-f", "reissued.yaml"); err != nil {
		return err
	}
	if err := d.servedResult(ctx, kubeconfig, finding.ServedCertificateStale); err != nil {
		return err
	}
	d.printf("\nthe server loads it\n")
	if certificate, key, err = d.pairIn("reissued.yaml"); err != nil {
		return err
	}
	if err := endpoint.Load(certificate, key); err != nil {
		return err
	}
	if err := d.servedResult(ctx, kubeconfig, ""); err != nil {
		return err
	}
	return d.rig.WithdrawEndpoint(ctx)
}

// servedResult runs webhook audit --once, and prints its result about what the endpoint serves.
func (d *demo) servedResult(ctx context.Context, kubeconfig string, want finding.Reason) error {
	ended := d.auditOnce(ctx, kubeconfig, "--served-certificates")
	var got report
	if err := json.Unmarshal([]byte(ended.Output), &got); err != nil {
		return fmt.Errorf("webhook audit --once exited with %d:\n%s", ended.Code, ended.Output)
	}
	seen := got.of(finding.ServingCert.Requires(finding.Served))
	d.printf("  $ webhook audit --once --served-certificates -o json\n  %-20s %s\n  verdict %s, exit code %d\n",
		seen.Requirement, seen, got.Verdict, ended.Code)
	if seen.Reason != want {
		return fmt.Errorf("the reason is %q, want %q", seen.Reason, want)
	}
	if want == "" {
		d.asStored++
	} else {
		d.stale++
	}
	return nil
}

// pairIn reads certificate and key from a file with a Secret.
func (d *demo) pairIn(file string) (certificate, key []byte, err error) {
	data, err := os.ReadFile(d.rig.Path(file))
	if err != nil {
		return nil, nil, err
	}
	var secret corev1.Secret
	if err := json.Unmarshal(data, &secret); err != nil {
		return nil, nil, fmt.Errorf("read the Secret in %s: %w", file, err)
	}
	return secret.Data[corev1.TLSCertKey], secret.Data[corev1.TLSPrivateKeyKey], nil
}
