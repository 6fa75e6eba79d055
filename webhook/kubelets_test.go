// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/evidence"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/sweep"
)

// TestOnceListsEveryNode: the document of webhook audit --once has each Node with its outcome, whatever its address.
func TestOnceListsEveryNode(t *testing.T) {
	list := corev1.NodeList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "NodeList"}}
	for name, addresses := range map[string][]string{
		"none": nil, "loopback": {"127.0.0.1"}, "mapped": {"::ffff:127.0.0.1"}, "metadata": {"169.254.169.254"},
		"alibaba": {"100.100.100.200"}, "api": {"192.0.2.1"}, "many": make([]string, 50), "name": {"localhost"},
	} {
		node := corev1.Node{}
		node.Name = name
		for _, a := range addresses {
			node.Status.Addresses = append(node.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a})
		}
		list.Items = append(list.Items, node)
	}
	nodesForbidden := false
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.URL.Path == "/api/v1/nodes" && !nodesForbidden {
			_ = json.NewEncoder(w).Encode(list)
			return
		}
		w.WriteHeader(http.StatusForbidden)
		_ = json.NewEncoder(w).Encode(metav1.Status{
			TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: metav1.StatusFailure, Code: http.StatusForbidden,
			Reason: metav1.StatusReasonForbidden,
		})
	}))
	defer api.Close()
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	text := fmt.Sprintf("apiVersion: v1\nkind: Config\ncurrent-context: x\n"+
		"contexts: [{name: x, context: {cluster: c, user: u}}]\n"+
		"clusters: [{name: c, cluster: {server: %q}}]\nusers: [{name: u, user: {token: t}}]\n", api.URL)
	if err := os.WriteFile(kubeconfig, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(options auditOptions) []byte {
		t.Helper()
		var out bytes.Buffer
		options.kubeconfig, options.once, options.time = kubeconfig, true, time.Minute
		options.apiService = "192.0.2.1"
		if _, err := runAuditOnce(t.Context(), options, func(string) string { return "" }, &out); err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	outcomes := func(kubelets bool) map[string]map[string]int {
		t.Helper()
		var document struct {
			Results []struct {
				Requirement finding.Requirement
				Subject     finding.Subject
				Outcome     string
				Reason      finding.Reason
			}
		}
		if err := json.Unmarshal(run(auditOptions{kubelets: kubelets, output: evidence.JSON}), &document); err != nil {
			t.Fatal(err)
		}
		seen := map[string]map[string]int{}
		for _, r := range document.Results {
			if r.Requirement.Family() != finding.NodeKubelet {
				continue
			}
			if seen[r.Subject.String()] == nil {
				seen[r.Subject.String()] = map[string]int{}
			}
			seen[r.Subject.String()][r.Outcome+" "+string(r.Reason)]++
		}
		return seen
	}
	want := map[string]map[string]int{}
	for _, node := range list.Items {
		want["Node "+node.Name] = map[string]int{"unknown NodeAddressUnusable": 5}
	}
	if d := cmp.Diff(want, outcomes(true)); d != "" {
		t.Errorf("with --kubelets (-want +got):\n%s", d)
	}
	if d := cmp.Diff(map[string]map[string]int{"Cluster": {"unknown NotChecked": 5}}, outcomes(false)); d != "" {
		t.Errorf("without --kubelets (-want +got):\n%s", d)
	}
	report := run(auditOptions{kubelets: true, output: evidence.OpenReports})
	if n := bytes.Count(report, []byte("8 Nodes (")); n != len(check.NodeKubeletRequirements()) {
		t.Errorf("%d results about all Nodes in the ClusterReport:\n%s", n, report)
	}
	nodesForbidden = true
	if d := cmp.Diff(map[string]map[string]int{"Node": {"unknown Unreadable": 5}}, outcomes(true)); d != "" {
		t.Errorf("without permission (-want +got):\n%s", d)
	}
}

// TestTimeToSweep: there is time for a report after the sweep, for each --timeout.
func TestTimeToSweep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for timeout, want := range map[time.Duration]time.Duration{
			minAuditTime: minAuditTime / 2, auditTime: 40 * time.Second, maxAuditTime: maxAuditTime - 20*time.Second,
		} {
			ctx, cancel := context.WithTimeout(t.Context(), timeout)
			defer cancel()
			if got := timeToSweep(ctx); got != want {
				t.Errorf("--timeout %s: %s, want %s", timeout, got, want)
			}
		}
	})
}

// TestKubeletMeter: a sweep replaces the values of the one before.
func TestKubeletMeter(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	m := newKubeletMeter(registry)
	m.swept(sweep.Sweep{
		Outcomes: map[finding.Outcome]int{finding.Pass: 3, finding.Fail: 1},
		Reasons:  map[finding.Reason]int{finding.KubeletNotTLS: 1}, Took: time.Second,
	})
	m.swept(sweep.Sweep{
		Outcomes: map[finding.Outcome]int{finding.Pass: 4},
		Reasons:  map[finding.Reason]int{finding.ReadOnlyPortOpen: 2}, Took: 2 * time.Second, At: time.Unix(1700000000, 0),
	})
	want := map[string]float64{
		"kubelet_https_guard_kubelets pass": 4, "kubelet_https_guard_kubelets warn": 0, "kubelet_https_guard_kubelets fail": 0,
		"kubelet_https_guard_kubelets unknown": 0, "kubelet_https_guard_kubelet_findings ReadOnlyPortOpen": 2,
		"kubelet_https_guard_kubelet_sweep_seconds": 2, "kubelet_https_guard_kubelet_sweep_timestamp_seconds": 1700000000,
	}
	if d := cmp.Diff(want, gauges(t, registry)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	m.forget()
	if d := cmp.Diff(map[string]float64{}, gauges(t, registry)); d != "" {
		t.Errorf("after forget (-want +got):\n%s", d)
	}
}

// gauges returns the values of all gauges, by their names and label values.
func gauges(t *testing.T, registry prometheus.Gatherer) map[string]float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]float64{}
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			name := family.GetName()
			for _, label := range metric.GetLabel() {
				name += " " + label.GetValue()
			}
			values[name] = metric.GetGauge().GetValue()
		}
	}
	return values
}
