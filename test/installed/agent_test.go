// SPDX-License-Identifier: Apache-2.0

package installed_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/openshift"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/rig"
)

// host is the node's side of the files that the agent sees through its mount. It is empty on an
// existing cluster.
type host struct {
	root string
	// ca is the cluster's CA, which signs the kube-apiserver's client certificate and the kubelet's
	// serving certificate.
	ca   *pkitest.CA
	seen map[types.UID]bool // Events that were already awaited
}

// layOut lays out a kubeadm-style tree on the node, with the pair that its kube-apiserver really uses.
func layOut(t *testing.T) *host {
	t.Helper()
	h := &host{seen: map[types.UID]bool{}}
	if shared.rig == nil {
		return h
	}
	h.root = shared.rig.Path("cluster", "host")
	// Remove what another test laid out; the directory itself is mounted.
	laid, err := filepath.Glob(filepath.Join(h.root, "etc/kubernetes/*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range laid {
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
	}
	ca := h.file(t, "pki/ca.crt")
	if h.ca, err = pkitest.LoadCA(ca, h.file(t, "pki/ca.key")); err != nil {
		t.Fatal(err)
	}
	if _, err := openshift.Write(h.root, openshift.Kubeadm, openshift.Files{Certificate: h.file(t,
		"pki/kubelet-client.crt"), Key: h.file(t, "pki/kubelet-client.key"), ClientCA: ca}); err != nil {
		t.Fatal(err)
	}
	return h
}

// file reads one of the cluster's own files.
func (h *host) file(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(shared.rig.Path("cluster", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// newPair is a new kubelet client pair, signed by the cluster's CA.
func (h *host) newPair() map[string][]byte {
	pair := h.ca.Issue(pkitest.KubeletClient().Valid(time.Now().Add(-time.Minute), time.Now().AddDate(0, 0, 30)))
	return map[string][]byte{"tls.crt": pair.Certificate, "tls.key": pair.Key}
}

// event waits for the agent's next Event on the Node with this reason and this text in its note.
func (h *host) event(t *testing.T, reason, words string) {
	t.Helper()
	await(t, fmt.Sprintf("Event %s with %q on Node %s", reason, words, shared.node), func() (bool, string) {
		list, err := shared.client.EventsV1().Events(metav1.NamespaceDefault).List(t.Context(),
			metav1.ListOptions{FieldSelector: "regarding.kind=Node,regarding.name=" + shared.node})
		if err != nil {
			return false, err.Error()
		}
		var all []string
		for _, e := range list.Items {
			if !h.seen[e.UID] && ours(e) {
				if e.Reason == reason && strings.Contains(e.Note, words) {
					h.seen[e.UID] = true
					return true, ""
				}
				all = append(all, e.Reason+": "+e.Note)
			}
		}
		return false, strings.Join(all, "\n")
	})
}

func ours(e eventsv1.Event) bool { return e.ReportingController == "kubelet-https-guard.io/nodeagent" }

// log is the agent's log.
func (h *host) log(t *testing.T) []map[string]any {
	t.Helper()
	var lines []map[string]any
	scanner := bufio.NewScanner(
		strings.NewReader(must(t, shared.kubectl(t.Context(), "logs", "-n", release, "daemonset/"+release+"-nodeagent"))),
	)
	for scanner.Scan() {
		var line map[string]any
		if json.Unmarshal(scanner.Bytes(), &line) == nil {
			lines = append(lines, line)
		}
	}
	return lines
}

// agent: the agent finds the files on the host, detects through its mount that they are replaced, and
// reports it on the real Node.
func (h *host) agent(t *testing.T) {
	running := must(
		t,
		shared.kubectl(t.Context(), "get", "daemonset", release+"-nodeagent",
			"-n", release, "-o", "jsonpath={.status.numberReady} {.status.desiredNumberScheduled}"),
	)
	if ready, desired, _ := strings.Cut(running, " "); ready != desired || ready == "0" {
		t.Fatalf("%s of %s agents are ready", ready, desired)
	}
	if shared.rig == nil {
		await(t, "an Event of the agent on the Node", func() (bool, string) {
			list, err := shared.client.EventsV1().Events(metav1.NamespaceDefault).List(t.Context(),
				metav1.ListOptions{FieldSelector: "regarding.kind=Node"})
			if err != nil {
				return false, err.Error()
			}
			return slices.ContainsFunc(list.Items, ours), "none"
		})
		return
	}
	h.event(t, "Compliant", "")

	// The node becomes an OpenShift node.
	tree, err := openshift.Write(
		h.root,
		openshift.Current,
		openshift.Files{
			Certificate: h.file(t, "pki/kubelet-client.crt"),
			Key:         h.file(t, "pki/kubelet-client.key"),
			ClientCA:    h.ca.PEM(),
		},
	)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(h.root, "etc/kubernetes/manifests/kube-apiserver.yaml")); err != nil {
		t.Fatal(err)
	}
	await(t, "the agent checks OpenShift's files", func() (bool, string) {
		lines := h.log(t)
		for _, line := range lines {
			if line["msg"] == "Found the kube-apiserver's client certificate for kubelets" &&
				line["certificate"] == tree.CertificateOnHost() {
				return true, ""
			}
		}
		return false, fmt.Sprint(lines)
	})
	before := len(h.log(t))
	for range 3 {
		if err := openshift.SwapDirectory(tree.Directory(), tree.Staging(), h.newPair()); err != nil {
			t.Fatal(err)
		}
		h.event(t, "CertificateRotated", tree.CertificateOnHost())
	}
	for _, line := range h.log(t)[before:] {
		if line["msg"] == "Finding active" {
			t.Errorf("a rotation causes a finding: %v", line)
		}
	}
	if err := os.Remove(tree.Key()); err != nil {
		t.Fatal(err)
	}
	h.event(t, string(finding.KeyMissing), "kubelet-client/tls.key")
	if err := openshift.SwapDirectory(tree.Directory(), tree.Staging(), h.newPair()); err != nil {
		t.Fatal(err)
	}
	h.event(t, string(finding.KeyMissing), "Resolved: ")

	described := must(t, shared.kubectl(t.Context(), "describe", "node", shared.node))
	_, events, _ := strings.Cut(described, "\nEvents:")
	for _, word := range []string{"KeyMissing", "CertificateRotated", "Compliant"} {
		if !strings.Contains(events, word) {
			t.Errorf("kubectl describe node does not show %s:\n%s", word, events)
		}
	}
}

// kubelet: the handshake with the real kubelet, with a valid and with an invalid certificate.
func (h *host) kubelet(t *testing.T) {
	if shared.rig == nil {
		t.Skip("changes the configuration of the kubelet, so it runs only on the tests' own node")
	}
	path := shared.rig.Path("cluster", "kubelet.yaml")
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(path, good, 0o600); err != nil {
			t.Error(err)
		}
	})
	configure := func(change func(map[string]any)) {
		t.Helper()
		config := map[string]any{}
		if err := yaml.Unmarshal(good, &config); err != nil {
			t.Fatal(err)
		}
		change(config)
		data, err := yaml.Marshal(config)
		if err != nil {
			t.Fatal(err)
		}
		// In one step: the kubelet restarts when the file changes.
		if err := os.WriteFile(path+".new", data, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	foreign := pkitest.NewCAAround("foreign", time.Now())
	address := must(
		t,
		shared.kubectl(t.Context(), "get", "node", shared.node, "-o",
			`jsonpath={.status.addresses[?(@.type=="InternalIP")].address}`),
	)
	serving := foreign.Issue(
		pkitest.Request{
			CommonName: "kubelet",
			IPs:        []net.IP{net.ParseIP(address)},
		}.Valid(time.Now().Add(-time.Minute), time.Now().AddDate(0, 0, 30)),
	)
	write := func(name string, data []byte) string {
		t.Helper()
		at := shared.rig.Path("cluster", name)
		if err := os.WriteFile(at, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return at
	}
	certificate, key, ca := write("foreign.crt", serving.Certificate), write("foreign.key",
		serving.Key), write("foreign-ca.crt", foreign.PEM())

	nodeagent := filepath.Join(t.TempDir(), "nodeagent")
	built := output(exec.CommandContext(t.Context(), "go", "build", "-o", nodeagent, "../../nodeagent"))
	if built.Code != 0 {
		t.Fatal(built.Output)
	}
	pod := must(t, shared.kubectl(t.Context(), "get", "pod", "-n", release, "-l", "app.kubernetes.io/component=nodeagent",
		"-o", "jsonpath={.items[0].metadata.name}"))
	connected := func(t *testing.T) string {
		t.Helper()
		return rig.ConnectionOf(exec.CommandContext(t.Context(), nodeagent, "check", "-o", "json", "--root", h.root,
			"--kubeconfig", shared.rig.Kubeconfig, "--pod", release+"/"+pod))
	}
	connection := func(t *testing.T, want string) {
		t.Helper()
		await(t, "the connection: "+want, func() (bool, string) {
			got := connected(t)
			return got == want, got
		})
	}
	connection(t, "pass")
	asksOthers := func(c map[string]any) {
		c["authentication"] = map[string]any{"anonymous": map[string]any{"enabled": false},
			"webhook": map[string]any{"enabled": true}, "x509": map[string]any{"clientCAFile": ca}}
	}
	asksNobody := func(c map[string]any) {
		c["authentication"] = map[string]any{"anonymous": map[string]any{"enabled": false},
			"webhook": map[string]any{"enabled": true}}
	}
	for _, c := range []struct {
		name       string
		change     func(map[string]any)
		event      finding.Reason // of the agent, by its handshake
		connection string
	}{
		{"read-only port", func(c map[string]any) { c["readOnlyPort"] = 10255 }, finding.ReadOnlyPortOpen, "pass"},
		{"serving certificate of another CA", func(c map[string]any) {
			c["tlsCertFile"], c["tlsPrivateKeyFile"] = certificate, key
		}, finding.KubeletCertificateUntrusted, "fail KubeletCertificateUntrusted"},
		{"asks nobody", asksNobody, finding.ClientCertificateNotAccepted, "fail ClientCertificateNotAccepted"},
		{"asks others", asksOthers, "", "fail ClientCertificateNotAccepted"},
	} {
		t.Run(c.name, func(t *testing.T) {
			configure(c.change)
			if c.event != "" {
				h.event(t, string(c.event), "")
			}
			connection(t, c.connection)
			configure(func(map[string]any) {})
			if c.event != "" {
				h.event(t, string(c.event), "Resolved: ")
			}
			connection(t, "pass")
		})
	}
	// restart restarts the kubelet, which closes its connections and forgets what it authorized.
	pods := 100
	restart := func() { pods++; configure(func(c map[string]any) { c["maxPods"] = pods }) }
	t.Run("user not authorized", func(t *testing.T) {
		const binding = "kube-apiserver-kubelet-api-admin"
		bindings := shared.client.RbacV1().ClusterRoleBindings()
		old, err := bindings.Get(t.Context(), binding, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		must(t, shared.kubectl(t.Context(), "delete", "clusterrolebinding", binding))
		restart()
		connection(t, "fail ClientNotAuthorized")
		old.ObjectMeta = metav1.ObjectMeta{Name: binding}
		if _, err := bindings.Create(t.Context(), old, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		restart()
		connection(t, "pass")
	})
	t.Run("key of another certificate", func(t *testing.T) {
		at := shared.rig.Path("cluster", "pki/kubelet-client.key")
		old := h.file(t, "pki/kubelet-client.key")
		replace := func(data []byte) {
			t.Helper()
			if err := os.WriteFile(at, data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		replace(h.newPair()["tls.key"])
		// A kube-apiserver that has read both files less than a second ago uses them for the next connection, too, and
		// keeps it while it is used. So break connections until a new one needs the files.
		restarted := time.Time{}
		await(t, "the connection fails", func() (bool, string) {
			got := connected(t)
			if got == "pass" && time.Since(restarted) > 10*time.Second {
				restart()
				restarted = time.Now()
			}
			return got == "fail ClientCertificateUnusable", got
		})
		replace(old)
		connection(t, "pass")
	})
	configure(func(map[string]any) {})
	// The old state is restored, for all tests.
	await(t, "the kubelet has its old configuration", func() (bool, string) {
		config := shared.kubectl(t.Context(), "get", "--raw", "/api/v1/nodes/"+shared.node+"/proxy/configz")
		return strings.Contains(config.Output, `"maxPods":110,`), config.Output
	})
	await(t, "the node is ready", func() (bool, string) {
		ready := shared.kubectl(t.Context(), "get", "node", shared.node, "-o",
			`jsonpath={.status.conditions[?(@.type=="Ready")].status}`)
		return ready.Output == "True", ready.Output
	})
	await(t, "the kubelet knows the agent's Pod again", func() (bool, string) {
		logs := shared.kubectl(t.Context(), "logs", "-n", release, "daemonset/"+release+"-nodeagent", "--tail=1")
		return logs.Code == 0, logs.Output
	})
	await(t, "the agent reports that the node is compliant", func() (bool, string) {
		for _, line := range slices.Backward(h.log(t)) {
			if msg := line["msg"]; msg == "Compliant" || msg == "Not compliant" || msg == "Could not verify" {
				return msg == "Compliant", fmt.Sprint(line)
			}
		}
		return false, "no verdict"
	})
}
