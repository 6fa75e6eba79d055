// SPDX-License-Identifier: Apache-2.0

package scan_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/nodeagent/internal/scan"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/messages"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/openshift"
)

// start changes the command that starts the kube-apiserver of a node.
func (n node) start(t *testing.T, change func(c *corev1.Container)) {
	t.Helper()
	data, err := os.ReadFile(n.Manifest())
	must(t, err)
	var pod corev1.Pod
	must(t, yaml.Unmarshal(data, &pod))
	change(&pod.Spec.Containers[0])
	data, err = json.Marshal(pod)
	must(t, err)
	put(t, n.Manifest(), data)
}

// TestScanCommandLine: the scan finds the flags of the kube-apiserver as the kubelet, exec
// and a shell pass them. If they depend on more than the manifest, the result is unknown.
func TestScanCommandLine(t *testing.T) {
	page := messages.Record(t, "findings of the scan of command lines")
	const (
		pki         = "/etc/kubernetes/pki/"
		crt, key    = pki + "apiserver-kubelet-client.crt", pki + "apiserver-kubelet-client.key"
		crtFlag     = "--kubelet-client-certificate="
		keyFlag     = "--kubelet-client-key="
		kubeadm     = kubeadmManifest
		openshiftAt = openShiftManifest
		noKubeletCA = "KubeletCANotConfigured " + kubeadm + " kubelet-certificate-authority"
		off         = "KubeletHTTPSDisabled " + kubeadm + " kubelet-https"
		keyUnknown  = "Unreadable " + kubeadm + " kubelet-client-key"
	)
	secret := corev1.EnvVar{
		Name:      "KEY",
		ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{Key: "k"}},
	}
	field := func(name, path string) corev1.EnvVar {
		return corev1.EnvVar{
			Name:      name,
			ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: path}},
		}
	}
	command := func(words ...string) func(*corev1.Container) {
		return func(c *corev1.Container) { c.Command = append([]string{"kube-apiserver"}, words...) }
	}
	with := func(change func(*corev1.Container), env ...corev1.EnvVar) func(*corev1.Container) {
		return func(c *corev1.Container) { change(c); c.Env = append(c.Env, env...) }
	}
	bash := func(script string) func(*corev1.Container) {
		return func(c *corev1.Container) { c.Command = []string{"/bin/bash", "-ec", script} }
	}
	args := func(change func(script string) string) func(*corev1.Container) {
		return func(c *corev1.Container) { c.Args[0] = change(c.Args[0]) }
	}
	flags := crtFlag + crt + " " + keyFlag + key
	cases := map[string]struct {
		layout openshift.Layout
		change func(c *corev1.Container)
		want   []string
	}{
		"a comment in a wrapper": {openshift.Kubeadm, bash("# kube-apiserver --kubelet-https=false\nexec kube-apiserver " + flags + " # --kubelet-https=false\n"), []string{noKubeletCA}},
		"off in a wrapper":       {openshift.Kubeadm, bash("exec kube-apiserver " + flags + " \\\n  '--kubelet-https=false'\n"), []string{off, noKubeletCA}},
		"a comment on OpenShift": {openshift.Current, args(func(script string) string { return "# kube-apiserver --openshift-config=/none\n" + script }), nil},
		"a space in a path": {openshift.Kubeadm, command(crtFlag+crt, keyFlag+pki+"of the kubelet/client.key"), []string{
			"KeyMissing " + pki + "of the kubelet/client.key", noKubeletCA,
		}},
		"no flag behind a space":          {openshift.Kubeadm, command(crtFlag+crt, keyFlag+key, "--service-account-issuer=a --kubelet-https=false"), []string{noKubeletCA}},
		"a flag in two elements":          {openshift.Kubeadm, command("--kubelet-client-certificate", crt, "--kubelet-client-key", key, "--kubelet-https=false"), []string{off, noKubeletCA}},
		"a variable in a path":            {openshift.Kubeadm, with(command(crtFlag+"$(PKI)apiserver-kubelet-client.crt", keyFlag+"$(PKI)$(NAME).key"), corev1.EnvVar{Name: "PKI", Value: pki}, corev1.EnvVar{Name: "NAME", Value: "apiserver-kubelet-client"}), []string{noKubeletCA}},
		"a variable for a whole flag":     {openshift.Kubeadm, with(command(crtFlag+crt, "$(KEY_FLAG)"), corev1.EnvVar{Name: "KEY_FLAG", Value: keyFlag + key}), []string{noKubeletCA}},
		"an escaped variable":             {openshift.Kubeadm, with(command(crtFlag+crt, keyFlag+key, "$$(OFF)"), corev1.EnvVar{Name: "OFF", Value: "--kubelet-https=false"}), []string{noKubeletCA}},
		"a variable in a script":          {openshift.Kubeadm, with(bash("exec kube-apiserver "+crtFlag+"${PKI}apiserver-kubelet-client.crt "+keyFlag+"$(PKI)apiserver-kubelet-client.key"), corev1.EnvVar{Name: "PKI", Value: pki}), []string{noKubeletCA}},
		"an address from a field":         {openshift.Kubeadm, with(command("--advertise-address=$(HOST_IP)", crtFlag+crt, keyFlag+key), field("HOST_IP", "status.hostIP")), []string{noKubeletCA}},
		"a path from a Secret":            {openshift.Kubeadm, with(command(crtFlag+crt, keyFlag+"$(KEY)"), secret), []string{keyUnknown, noKubeletCA}},
		"a path with a field":             {openshift.Kubeadm, with(command(crtFlag+crt, keyFlag+pki+"$(NODE).key"), field("NODE", "spec.nodeName")), []string{keyUnknown, noKubeletCA}},
		"a path from a Secret, in a word": {openshift.Kubeadm, with(command(crtFlag+crt, "--kubelet-client-key", "$(KEY)"), secret), []string{keyUnknown, noKubeletCA}},
		"a whole flag from a Secret":      {openshift.Kubeadm, with(command(crtFlag+crt, keyFlag+key, "$(KEY)"), secret), []string{"Unreadable " + kubeadm}},
		"flags from a Secret in a script": {openshift.Kubeadm, with(bash("exec kube-apiserver "+flags+" $KEY"), secret), []string{"Unreadable " + kubeadm}},
		"HTTPS from a Secret":             {openshift.Kubeadm, with(command(crtFlag+crt, keyFlag+key, "--kubelet-https=$(KEY)"), secret), []string{"Unreadable " + kubeadm + " kubelet-https", noKubeletCA}},
		"admission from a Secret":         {openshift.Kubeadm, with(command(crtFlag+crt, keyFlag+key, "--disable-admission-plugins=$(KEY)"), secret), []string{"Unreadable " + kubeadm + " disable-admission-plugins", noKubeletCA}},
		"admission off beside a Secret": {
			openshift.Kubeadm,
			with(
				command(crtFlag+crt, keyFlag+key, "--feature-gates=$(KEY)",
					"--disable-admission-plugins=ValidatingAdmissionWebhook"),
				secret,
			),
			[]string{
				"AdmissionDisabled " + kubeadm + " disable-admission-plugins ValidatingAdmissionWebhook",
				noKubeletCA,
			},
		},
		"a script file":                {openshift.Kubeadm, func(c *corev1.Container) { c.Command = []string{"bash", "/opt/start.sh", "--kubelet-https=false"} }, []string{"Unreadable " + kubeadm}},
		"a script that does not parse": {openshift.Kubeadm, bash("exec kube-apiserver '" + flags), []string{"Unreadable " + kubeadm}},
		"one of two":                   {openshift.Kubeadm, bash("if [ -e /x ]; then exec kube-apiserver " + flags + "; fi\nexec kube-apiserver --kubelet-https=false"), []string{"Unreadable " + kubeadm}},

		"OpenShift, the value of a flag that its file sets": {openshift.Current, with(args(func(script string) string { return script[:len(script)-1] + ` --kubelet-client-key="$KEY"` }), secret), nil},
		"OpenShift, the value of a flag that it does not": {
			openshift.Current,
			with(args(func(script string) string { return script[:len(script)-1] + ` --kubelet-https="$KEY"` }), secret),
			[]string{
				"Unreadable " + openshiftAt + " kubelet-https",
			},
		},
		"OpenShift, any flags": {
			openshift.Current,
			with(args(func(script string) string { return script[:len(script)-1] + ` $KEY` }), secret),
			[]string{
				"Unreadable " + openshiftAt,
			},
		},
	}
	ca := pkitest.NewCA("kube-apiserver-to-kubelet-signer")
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			pair := ca.Issue(c.layout.ClientRequest())
			n := newNode(t, c.layout, ca, pair)
			put(t, filepath.Join(n.Root, pki, "node.key"), pair.Key)
			n.start(t, c.change)
			snapshot := scanHost(t, n.host, scan.Options{ClientCA: clientCAOf(c.layout)}, pkitest.Now())
			page.Unobserved(snapshot.FileResults)
			if d := cmp.Diff(c.want, lines(snapshot.FileResults)); d != "" {
				t.Errorf("findings (-want +got):\n%s", d)
			}
			unknown := slices.ContainsFunc(snapshot.FileResults,
				func(r finding.Result) bool { return r.Reason == finding.Unreadable && r.Outcome != finding.Unknown })
			if unknown {
				t.Errorf("want outcome unknown: %+v", snapshot.FileResults)
			}
		})
	}
}

// clientCAOf is the kubelet's client CA bundle, which this test does not check.
func clientCAOf(layout openshift.Layout) string {
	if layout == openshift.Kubeadm {
		return kubeadmCA
	}
	return openShiftCA
}
