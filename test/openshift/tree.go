// SPDX-License-Identifier: Apache-2.0

// Package openshift behaves as OpenShift does: it lays out host trees as its releases do, writes
// certificates as its components do, and makes the Secrets that its controllers make. It is for tests
// and the demo.
package openshift

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
)

// Layout is how a release lays out the files of its kube-apiserver.
type Layout string

// Layouts of control-plane nodes.
const (
	// Current is OpenShift 4.9 and later: the pair is in kube-apiserver-certs.
	Current Layout = "OpenShift 4.9 and later"
	// Legacy is OpenShift 4.6 to 4.8: the pair is in the directory of the revision.
	Legacy Layout = "OpenShift 4.6 to 4.8"
	// Oldest is OpenShift 4.5 and before: as Legacy, with kubeletClientInfo.
	Oldest Layout = "OpenShift 4.5 and before"
	// Kubeadm is a node that was set up by kubeadm.
	Kubeadm Layout = "kubeadm"
	// MicroShift runs the kube-apiserver and the kubelet in its own process.
	MicroShift Layout = "MicroShift"
	// K3s runs the kube-apiserver and the kubelet in its own process.
	K3s Layout = "k3s"
	// RKE2 has static Pods in its own directory.
	RKE2 Layout = "RKE2"
)

// ByName returns the layout of a tree for each name in the table of package layout. OpenShift's is the current one.
func ByName() map[string]Layout {
	return map[string]Layout{"openshift": Current, "kubeadm": Kubeadm, "microshift": MicroShift, "k3s": K3s, "rke2": RKE2}
}

// ClientRequest is the platform's request for the kubelet client certificate.
func (l Layout) ClientRequest() pkitest.Request {
	request := pkitest.KubeletClient()
	switch l {
	case Kubeadm:
		request.CommonName, request.Organization = "kube-apiserver-kubelet-client", "kubeadm:cluster-admins"
	case K3s, RKE2:
		request.CommonName, request.Organization = "system:apiserver", "system:masters"
	case Current, Legacy, Oldest, MicroShift:
	}
	return request
}

// Files is the variable content of a tree.
type Files struct {
	// Certificate and Key are the kubelet client pair.
	Certificate, Key []byte
	// ClientCA is the kubelet's bundle of client CAs.
	ClientCA []byte
	// Revision of the static pod; 7 if it is not set.
	Revision int
}

// Tree is a host's tree of files.
type Tree struct {
	Root   string
	Layout Layout
	// Revision of the static pod.
	Revision int
}

// Write lays out a host below root.
func Write(root string, layout Layout, files Files) (Tree, error) {
	if files.Revision == 0 {
		files.Revision = 7
	}
	tree := Tree{Root: root, Layout: layout, Revision: files.Revision}
	all := map[string]File{
		filepath.Join(tree.dir(), tree.certificateName()): {Data: files.Certificate, Mode: 0o600},
		filepath.Join(tree.dir(), tree.keyName()):         {Data: files.Key, Mode: 0o600},
		tree.clientCA(): {Data: files.ClientCA, Mode: 0o644},
	}
	if tree.manifest() != "" {
		all[tree.manifest()] = File{Data: tree.pod(), Mode: 0o600}
	}
	if tree.hasConfig() {
		all[filepath.Join(tree.revision(), "configmaps/config/config.yaml")] = File{Data: tree.config(), Mode: 0o600}
	}
	if layout == RKE2 {
		all["etc/rancher/rke2/rke2-pss.yaml"] = File{Data: []byte(rke2Admission), Mode: 0o600}
	}
	if ca := tree.kubeletCA(); ca != "" {
		all[ca] = File{Data: files.ClientCA, Mode: 0o600}
	}
	maps.Copy(all, tree.kubelet())
	for path, file := range all {
		if err := put(filepath.Join(root, path), file); err != nil {
			return Tree{}, fmt.Errorf("lay out a host like %s: %w", layout, err)
		}
	}
	return tree, nil
}

// Directory is the path of the pair's directory in the tree.
func (t Tree) Directory() string { return filepath.Join(t.Root, t.dir()) }

// Certificate is the path of the certificate in the tree.
func (t Tree) Certificate() string { return filepath.Join(t.Directory(), t.certificateName()) }

// CertificateOnHost is the path of the certificate on the host that the tree stands for.
func (t Tree) CertificateOnHost() string { return filepath.Join("/", t.dir(), t.certificateName()) }

// Key is the path of the key in the tree.
func (t Tree) Key() string { return filepath.Join(t.Directory(), t.keyName()) }

// Manifest is the path of the static Pod manifest in the tree.
func (t Tree) Manifest() string { return filepath.Join(t.Root, t.manifest()) }

// InProcess reports whether the kube-apiserver is no static Pod: another program runs it in its own process.
func (t Tree) InProcess() bool { return t.manifest() == "" }

// Config is the path of the kube-apiserver configuration in the tree; kubeadm has none.
func (t Tree) Config() string {
	return filepath.Join(t.Root, t.revision(), "configmaps/config/config.yaml")
}

// Staging is the directory in which the cert-syncer prepares a new one.
func (t Tree) Staging() string {
	return filepath.Join(t.Root, resources, "kube-apiserver-certs/staging/cert-sync/secrets/kubelet-client")
}

const resources = "etc/kubernetes/static-pod-resources"

func (t Tree) revision() string {
	return filepath.Join(resources, fmt.Sprintf("kube-apiserver-pod-%d", t.Revision))
}

// The data directories of MicroShift, k3s and RKE2.
const (
	microshiftCerts = "var/lib/microshift/certs"
	k3s             = "var/lib/rancher/k3s"
	rke2            = "var/lib/rancher/rke2"
)

// places are where a layout has its files, relative to the root. pair has no .crt and .key. manifest is empty without a
// static Pod, kubeletCA without a bundle of its own.
type places struct{ directory, pair, clientCA, kubeletCA, manifest string }

func (t Tree) places() places {
	switch t.Layout {
	case Kubeadm:
		const pki = "etc/kubernetes/pki"
		return places{pki, "apiserver-kubelet-client", pki + "/ca.crt", "", "etc/kubernetes/manifests/kube-apiserver.yaml"}
	case MicroShift:
		return places{
			microshiftCerts + "/kube-apiserver-to-kubelet-client-signer/kube-apiserver-to-kubelet-client", "client",
			microshiftCerts + "/ca-bundle/kubelet-ca.crt",
			microshiftCerts + "/kubelet-csr-signer-signer/csr-signer/ca-bundle.crt", "",
		}
	case K3s:
		return places{
			k3s + "/server/tls", "client-kube-apiserver", k3s + "/agent/client-ca.crt", k3s + "/server/tls/server-ca.crt", "",
		}
	case RKE2:
		return places{
			rke2 + "/server/tls", "client-kube-apiserver", rke2 + "/agent/client-ca.crt", rke2 + "/server/tls/server-ca.crt",
			rke2 + "/agent/pod-manifests/kube-apiserver.yaml",
		}
	case Current, Legacy, Oldest:
	}
	p := places{
		filepath.Join(resources, "kube-apiserver-certs/secrets/kubelet-client"), "tls", "etc/kubernetes/kubelet-ca.crt",
		filepath.Join(t.revision(), "configmaps/kubelet-serving-ca/ca-bundle.crt"),
		"etc/kubernetes/manifests/kube-apiserver-pod.yaml",
	}
	if t.Layout != Current {
		p.directory = filepath.Join(t.revision(), "secrets/kubelet-client")
	}
	return p
}

func (t Tree) dir() string             { return t.places().directory }
func (t Tree) certificateName() string { return t.places().pair + ".crt" }
func (t Tree) keyName() string         { return t.places().pair + ".key" }
func (t Tree) clientCA() string        { return t.places().clientCA }
func (t Tree) kubeletCA() string       { return t.places().kubeletCA }
func (t Tree) manifest() string        { return t.places().manifest }

// hasConfig reports whether the kube-apiserver has a configuration file.
func (t Tree) hasConfig() bool {
	return t.Layout == Current || t.Layout == Legacy || t.Layout == Oldest
}

// inContainer is the directory of the pair as the kube-apiserver's configuration names it.
func (t Tree) inContainer() string {
	if t.Layout == Current {
		return "/etc/kubernetes/static-pod-certs/secrets/kubelet-client"
	}
	return "/etc/kubernetes/static-pod-resources/secrets/kubelet-client"
}

// config is the configuration as the operator writes it: compact JSON
// (library-go pkg/operator/resource/resourcemerge/generic_config_merger.go).
func (t Tree) config() []byte {
	const kubeletCA = "/etc/kubernetes/static-pod-resources/configmaps/kubelet-serving-ca/ca-bundle.crt"
	config := map[string]any{
		"apiVersion": "kubecontrolplane.config.openshift.io/v1", "kind": "KubeAPIServerConfig",
		"servicesSubnet": "172.30.0.0/16",
	}
	certificate, key := t.inContainer()+"/tls.crt", t.inContainer()+"/tls.key"
	if t.Layout == Oldest {
		config["kubeletClientInfo"] = map[string]any{"ca": kubeletCA, "certFile": certificate, "keyFile": key, "port": 10250}
		return encode(config)
	}
	arguments := map[string]any{
		"kubelet-certificate-authority":   []string{kubeletCA},
		"kubelet-client-certificate":      []string{certificate},
		"kubelet-client-key":              []string{key},
		"kubelet-preferred-address-types": []string{"InternalIP"},
		"kubelet-read-only-port":          []string{"0"},
	}
	if t.Layout == Legacy {
		arguments["kubelet-https"] = []string{"true"}
	}
	config["apiServerArguments"] = arguments
	return encode(config)
}

// pod is the static Pod manifest: OpenShift's in one line of JSON, as its installer writes it
// (library-go resourceread.WritePodV1OrDie), kubeadm's as YAML.
func (t Tree) pod() []byte {
	if t.Layout == RKE2 {
		return []byte(rke2Pod)
	}
	if t.Layout == Kubeadm {
		return []byte(`apiVersion: v1
kind: Pod
metadata:
  name: kube-apiserver
  namespace: kube-system
spec:
  containers:
  - name: kube-apiserver
    command:
    - kube-apiserver
    - --kubelet-client-certificate=/etc/kubernetes/pki/apiserver-kubelet-client.crt
    - --kubelet-client-key=/etc/kubernetes/pki/apiserver-kubelet-client.key
    - --kubelet-preferred-address-types=InternalIP,ExternalIP,Hostname
    volumeMounts:
    - mountPath: /etc/kubernetes/pki
      name: k8s-certs
      readOnly: true
  hostNetwork: true
  volumes:
  - hostPath:
      path: /etc/kubernetes/pki
      type: DirectoryOrCreate
    name: k8s-certs
`)
	}
	hostPath := func(name, path string) map[string]any {
		return map[string]any{"name": name, "hostPath": map[string]any{"path": path}}
	}
	mounts := []map[string]any{
		{"mountPath": "/etc/kubernetes/static-pod-resources", "name": "resource-dir"},
		{"mountPath": "/etc/kubernetes/static-pod-certs", "name": "cert-dir"},
	}
	return encode(map[string]any{
		"apiVersion": "v1", "kind": "Pod",
		"metadata": map[string]any{
			"name": "kube-apiserver", "namespace": "openshift-kube-apiserver",
			"labels": map[string]string{
				"apiserver": "true",
				"app":       "openshift-kube-apiserver",
				"revision":  fmt.Sprint(t.Revision),
			},
		},
		"spec": map[string]any{
			"containers": []map[string]any{
				{
					"name": "kube-apiserver", "command": []string{"/bin/bash", "-ec"},
					"args": []string{script},
					"env": []map[string]any{
						fieldEnv("POD_NAME", "metadata.name"), fieldEnv("POD_NAMESPACE", "metadata.namespace"),
						{"name": "STATIC_POD_VERSION", "value": fmt.Sprint(t.Revision)}, fieldEnv("HOST_IP", "status.hostIP"),
						{"name": "GOGC", "value": "100"},
					},
					"volumeMounts": mounts,
				},
				{"name": "kube-apiserver-cert-syncer", "command": []string{"cluster-kube-apiserver-operator", "cert-syncer"}, "volumeMounts": mounts},
			},
			"hostNetwork": true,
			"volumes": []map[string]any{
				hostPath("resource-dir", "/"+t.revision()),
				hostPath("cert-dir", "/"+resources+"/kube-apiserver-certs"),
			},
		},
	})
}

// rke2Pod has what matters of the manifest that rke2 writes (rke2 pkg/podtemplate).
const rke2Pod = `apiVersion: v1
kind: Pod
metadata:
  labels:
    component: kube-apiserver
    tier: control-plane
  name: kube-apiserver
  namespace: kube-system
spec:
  containers:
  - args:
    - --admission-control-config-file=/etc/rancher/rke2/rke2-pss.yaml
    - --kubelet-preferred-address-types=InternalIP,ExternalIP,Hostname
    - --kubelet-certificate-authority=/var/lib/rancher/rke2/server/tls/server-ca.crt
    - --kubelet-client-certificate=/var/lib/rancher/rke2/server/tls/client-kube-apiserver.crt
    - --kubelet-client-key=/var/lib/rancher/rke2/server/tls/client-kube-apiserver.key
    command:
    - kube-apiserver
    name: kube-apiserver
    volumeMounts:
    - mountPath: /var/lib/rancher/rke2/server
      name: dir0
    - mountPath: /etc/rancher/rke2/rke2-pss.yaml
      name: file0
  hostNetwork: true
  volumes:
  - hostPath:
      path: /var/lib/rancher/rke2/server
      type: DirectoryOrCreate
    name: dir0
  - hostPath:
      path: /etc/rancher/rke2/rke2-pss.yaml
      type: File
    name: file0
`

// rke2Admission is the configuration of admission plugins that rke2 writes at its start (rke2 pkg/rke2/psa.go).
const rke2Admission = `apiVersion: apiserver.config.k8s.io/v1
kind: AdmissionConfiguration
plugins:
- name: PodSecurity
  configuration:
    apiVersion: pod-security.admission.config.k8s.io/v1beta1
    kind: PodSecurityConfiguration
    defaults:
      enforce: "privileged"
      enforce-version: "latest"
`

// script is the one that starts OpenShift's kube-apiserver (cluster-kube-apiserver-operator
// bindata/assets/kube-apiserver/pod.yaml).
const script = `LOCK=/var/log/kube-apiserver/.lock
# We should be able to acquire the lock immediately. If not, it means the init container has not released it yet and kubelet or CRI-O started container prematurely.
exec {LOCK_FD}>${LOCK} && flock --verbose -w 30 "${LOCK_FD}" || {
  echo "Failed to acquire lock for kube-apiserver. Please check setup container for details. This is likely kubelet or CRI-O bug."
  exit 1
}
if [ -f /etc/kubernetes/static-pod-certs/configmaps/trusted-ca-bundle/ca-bundle.crt ]; then
  echo "Copying system trust bundle ..."
  cp -f /etc/kubernetes/static-pod-certs/configmaps/trusted-ca-bundle/ca-bundle.crt /etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem
fi

exec watch-termination --termination-touch-file=/var/log/kube-apiserver/.terminating --termination-log-file=/var/log/kube-apiserver/termination.log --graceful-termination-duration=135s --kubeconfig=/etc/kubernetes/static-pod-resources/configmaps/kube-apiserver-cert-syncer-kubeconfig/kubeconfig -- hyperkube kube-apiserver --openshift-config=/etc/kubernetes/static-pod-resources/configmaps/config/config.yaml --advertise-address=${HOST_IP} -v=2 --permit-address-sharing
`

func fieldEnv(name, path string) map[string]any {
	return map[string]any{"name": name, "valueFrom": map[string]any{"fieldRef": map[string]any{"fieldPath": path}}}
}

func encode(value any) []byte {
	data, err := json.Marshal(value)
	if err != nil {
		panic("openshift: " + err.Error()) // cannot happen with strings, numbers and maps
	}
	return data
}

// File is a file to write.
type File struct {
	Data []byte
	Mode os.FileMode
}

func put(path string, file File) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, file.Data, file.Mode)
}
