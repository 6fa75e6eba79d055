// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/openshift"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/rig"
)

// loopback is the address of the API server.
var loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// report is what the demo reads of a report in JSON.
type report struct {
	Verdict string
	Results []result
}

type result struct {
	Requirement finding.Requirement
	Subject     finding.Subject
	Outcome     string
	Reason      finding.Reason
	Message     string
}

func (r result) String() string {
	return cut(strings.TrimSpace(fmt.Sprintf("%-8s %s %s", r.Outcome, r.Reason, r.Message)), 150)
}

// of returns the result of a requirement. Its reason is empty if it passed.
func (r report) of(requirement finding.Requirement) result {
	i := slices.IndexFunc(r.Results, func(r result) bool { return r.Requirement == requirement })
	if i < 0 {
		return result{Requirement: requirement, Reason: finding.NotChecked}
	}
	return r.Results[i]
}

// kubelets shows the connections to kubelets: the kube-apiserver's own, which the agent checks, and those to the
// kubelets of all Nodes, which the audit makes.
func (d *demo) kubelets(ctx context.Context) error {
	d.chapter("Connections to kubelets are checked, not only files")
	d.printf("\nNo kubelet runs here. Stand-ins answer as kubelets do: TLS, a request for a client certificate, 401.\n" +
		"A running agent or audit reports what lasts for some minutes. These commands answer at once.\n")
	other := pkitest.NewCAAround("other-signer", time.Now())
	at, own := rig.OwnAddress()
	if !own {
		at = loopback
	}
	kubelet, err := d.startKubelet(ctx, rig.Node, at, d.ca)
	if err != nil {
		return err
	}
	defer kubelet.Stop()
	if !own {
		d.printf("\nNot shown: the audit's check of all Nodes. This machine has loopback addresses only, and the audit " +
			"does not connect to those.\n")
		return d.connection(ctx, kubelet, other)
	}
	var shown func() error
	if shown, err = d.sweep(ctx, at, other); err != nil {
		return err
	}
	return errors.Join(d.connection(ctx, kubelet, other), shown())
}

// startKubelet starts a stand-in for the kubelet of a Node, with a certificate that serving signs.
func (d *demo) startKubelet(
	ctx context.Context, node string, at netip.Addr, serving *pkitest.CA,
) (*rig.Kubelet, error) {
	kubelet, err := rig.StartKubelet(ctx, node, at, serving, d.ca)
	if err != nil {
		return nil, err
	}
	if err := d.rig.AnnounceKubelet(ctx, node, kubelet.Address); err != nil {
		kubelet.Stop()
		return nil, err
	}
	return kubelet, nil
}

// connection breaks and repairs the kube-apiserver's connection to the kubelet of its node, and shows what the agent
// finds.
func (d *demo) connection(ctx context.Context, kubelet *rig.Kubelet, other *pkitest.CA) error {
	if err := d.rig.MakeAgentPod(ctx, rig.Node); err != nil {
		return err
	}
	kubeconfig, err := d.rig.AgentKubeconfig(ctx)
	if err != nil {
		return err
	}
	flags := []string{
		"--kubelet-address", kubelet.Address.String(), "--pod", rig.AgentPod, "--node-address", loopback.String(),
	}
	swap := func(ca *pkitest.CA) error {
		now := time.Now()
		pair := ca.Issue(pkitest.KubeletClient().Valid(now.Add(-time.Minute), now.AddDate(0, 0, 30)))
		return openshift.SwapDirectory(d.tree.Directory(), d.tree.Staging(),
			map[string][]byte{"tls.crt": pair.Certificate, "tls.key": pair.Key})
	}
	for _, scene := range []struct {
		title    string
		change   func() error
		accepted bool
	}{
		{
			"the agent asks the real kube-apiserver for a line of its own log, which comes from the kubelet",
			func() error { return nil }, true,
		},
		{
			"the client certificate is replaced by one of another CA: the kubelet refuses the kube-apiserver",
			func() error { return swap(other) }, false,
		},
		{"it is replaced by one of the right CA", func() error { return swap(d.ca) }, true},
		{
			"the kubelet loads the bundle of another client CA: no file shows that",
			func() error { kubelet.TrustClientsOf(other); return nil }, false,
		},
		{"the kubelet loads the right bundle", func() error { kubelet.TrustClientsOf(d.ca); return nil }, true},
	} {
		if err := scene.change(); err != nil {
			return err
		}
		d.printf("\n%s\n  $ nodeagent check -o json %s\n", scene.title, strings.Join(flags, " "))
		want := finding.Reason("")
		if !scene.accepted {
			want = finding.ClientCertificateNotAccepted
		}
		if err := d.awaitConnection(ctx, want, append(flags, "-o", "json", "--kubeconfig", kubeconfig)); err != nil {
			return fmt.Errorf("%s: %w", scene.title, err)
		}
		if scene.accepted {
			d.connected++
		} else {
			d.disconnected++
		}
	}
	return nil
}

// awaitConnection runs nodeagent check until the result about the connection has a reason, and prints the results about
// the kubelet and those that fail. A kube-apiserver loads its client certificate again after a second at the earliest
// (Kubernetes client-go transport, cachingCertificateLoader).
func (d *demo) awaitConnection(ctx context.Context, want finding.Reason, flags []string) error {
	ctx, cancel := context.WithTimeout(ctx, stepTime)
	defer cancel()
	for {
		result := d.rig.AgentOnce(ctx, d.tree.Root, flags...)
		var got report
		if err := json.Unmarshal([]byte(result.Output), &got); err != nil {
			return fmt.Errorf("nodeagent check exited with %d:\n%s", result.Code, result.Output)
		}
		if got.of(finding.Kubelet.Requires(finding.Connection)).Reason == want {
			for _, r := range got.Results {
				if r.Requirement.Family() == finding.Kubelet || r.Outcome == finding.Fail.String() {
					d.printf("  %-26s %s\n", r.Requirement, r)
				}
			}
			d.printf("  verdict %s, exit code %d\n", got.Verdict, result.Code)
			if (result.Code == 0) != (want == "") {
				return fmt.Errorf("nodeagent check exited with %d", result.Code)
			}
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the result about the connection is not %q: %w\n%s", want, ctx.Err(), result.Output)
		case <-time.After(lookEvery):
		}
	}
}

// sweep starts stand-ins for the kubelets of three more Nodes, and the audit's check of all Nodes. shown waits for its
// end, and prints what it found.
func (d *demo) sweep(ctx context.Context, at netip.Addr, other *pkitest.CA) (shown func() error, err error) {
	kubeconfig, err := d.rig.AuditKubeconfig(ctx)
	if err != nil {
		return nil, err
	}
	bundle := d.rig.KubectlCommand(ctx, "-n", "openshift-kube-apiserver", "create", "configmap", "kubelet-serving-ca",
		"--from-literal=ca-bundle.crt="+string(d.ca.PEM()))
	if bundle.Code != 0 {
		return nil, fmt.Errorf("make the CA bundle of kubelets: %s", bundle.Output)
	}
	var kubelets []*rig.Kubelet
	stop := func() {
		for _, k := range kubelets {
			k.Stop()
		}
	}
	signers := map[string]*pkitest.CA{"worker-0": d.ca, "worker-1": other, "worker-2": d.ca}
	for node, ca := range signers {
		kubelet, err := d.startKubelet(ctx, node, at, ca)
		if err != nil {
			stop()
			return nil, err
		}
		kubelets = append(kubelets, kubelet)
		if node == "worker-2" {
			kubelet.Stop()
		}
	}
	ended := make(chan rig.Result, 1)
	go func() {
		ended <- d.auditOnce(ctx, kubeconfig, "--kubelets")
	}()
	return func() error {
		result := <-ended
		stop()
		return d.sweepResult(result)
	}, nil
}

// auditOnce runs webhook audit --once with the guard's configuration.
func (d *demo) auditOnce(ctx context.Context, kubeconfig, flag string) rig.Result {
	return d.rig.AuditOnce(ctx, flag, "--kubeconfig", kubeconfig, "--config", d.rig.Path("webhook", "config.yaml"),
		"--guard-manifest", d.rig.Path("webhook", "guard.yaml"), "-o", "json")
}

// sweepResult prints the outcome of each Node: that of a requirement that fails, or of one that is not met.
func (d *demo) sweepResult(ended rig.Result) error {
	var got report
	if err := json.Unmarshal([]byte(ended.Output), &got); err != nil {
		return fmt.Errorf("webhook audit --once exited with %d:\n%s", ended.Code, ended.Output)
	}
	nodes := map[string]result{}
	for _, r := range got.Results {
		if r.Requirement.Family() != finding.NodeKubelet {
			continue
		}
		before, known := nodes[r.Subject.Name]
		if !known || before.Reason == "" || r.Outcome == finding.Fail.String() {
			nodes[r.Subject.Name] = r
		}
	}
	d.printf("\nmeanwhile the audit made a TLS handshake with the kubelet of each Node\n" +
		"  $ webhook audit --once --kubelets -o json\n")
	for _, name := range slices.Sorted(maps.Keys(nodes)) {
		d.printf("  %-10s %s\n", name, nodes[name])
	}
	d.printf("  verdict %s, exit code %d\n", got.Verdict, ended.Code)
	for name, want := range map[string]finding.Reason{
		rig.Node: "", "worker-0": "", "worker-1": finding.KubeletCertificateUntrusted, "worker-2": finding.KubeletUnreachable,
	} {
		if seen, known := nodes[name]; !known || seen.Reason != want {
			return fmt.Errorf("the outcome of Node %s is %s, want %q", name, seen, want)
		}
	}
	if ended.Code != 1 {
		return fmt.Errorf("webhook audit --once exited with %d", ended.Code)
	}
	d.swept = len(nodes)
	return nil
}
