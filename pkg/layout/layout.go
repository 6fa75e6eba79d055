// SPDX-License-Identifier: Apache-2.0

// Package layout describes the kinds of control-plane nodes that the agent can check: how a kind is recognized, where
// it has the files of its kube-apiserver and kubelet, whose name is in the client certificate, and which program
// writes it.
//
// The package reads nothing but the existence of a few paths. It judges nothing.
package layout

import (
	"io/fs"
	"path"
	"slices"
	"strings"
)

// Auto is the value of --layout that stands for detection.
const Auto = "auto"

// Identity is the subject of a kubelet client certificate.
type Identity struct{ CommonName, Organization string }

// Layout describes one kind of control-plane node. All paths are host paths.
type Layout struct {
	// Name is the value of --layout and of the chart's nodeagent.layout.
	Name string
	// Title is the name for people, with the first release for which the paths are right.
	Title string
	// Source says where the paths are defined.
	Source string

	// Mark is a directory or file that only nodes of this kind have.
	Mark string

	// StaticPods is the directory with static Pods, if the kubelet's configuration is not visible. It is empty if the
	// kube-apiserver is no static Pod: then Process is the program that runs it in its own process, and Certificate, Key
	// and KubeletCA are the files with which that program starts it.
	StaticPods                  string
	Process                     string
	Certificate, Key, KubeletCA string

	// ClientCA is the kubelet's client CA bundle, if the kubelet's configuration is not visible.
	ClientCA string
	// KubeletConfig is the kubelet's configuration file. KubeletDropIns is a directory with drop-ins that the platform
	// always names on the kubelet's command line, which is not visible. Both can be empty.
	KubeletConfig, KubeletDropIns string
	// PairNames are the names of the client pair without .crt and .key, in a directory that flags name.
	PairNames []string

	// Identities are the subjects that the platform issues for the client certificate.
	Identities []Identity
	// Writer is the program that writes and renews the pair.
	Writer string

	// Directories and Files are what the agent's Pod must mount. Files are mounted one by one where their directory also
	// contains keys that the agent does not need.
	Directories, Files []string
}

// The data directories of k3s and RKE2 (k3s pkg/datadir, RKE2 pkg/cli/defaults), and of MicroShift
// (microshift pkg/config).
const (
	k3sData        = "/var/lib/rancher/k3s"
	rke2Data       = "/var/lib/rancher/rke2"
	microshiftData = "/var/lib/microshift"
)

// Paths of OpenShift and kubeadm that other packages use where the layout is not known.
const (
	// ManifestDirectory has the static Pods on both.
	ManifestDirectory = "/etc/kubernetes/manifests"
	// OpenShiftClientCA and KubeadmClientCA are the kubelet's client CA bundles.
	OpenShiftClientCA = "/etc/kubernetes/kubelet-ca.crt"
	KubeadmClientCA   = "/etc/kubernetes/pki/ca.crt"
	// OpenShiftKubeletConfig and KubeadmKubeletConfig are the kubelet's configuration files. kubeadm has a kubeconfig at
	// the first path, which has another kind.
	OpenShiftKubeletConfig = "/etc/kubernetes/kubelet.conf"
	KubeadmKubeletConfig   = "/var/lib/kubelet/config.yaml"
)

// Table returns all layouts.
func Table() []Layout {
	return []Layout{openShift(), kubeadm(), microShift(), k3s(), rke2()}
}

// openShift is the layout of all releases of OpenShift 4. Where a release has the pair is in the kube-apiserver's
// configuration, so the difference between 4.8 and 4.9 is not needed here.
func openShift() Layout {
	return Layout{
		Name: "openshift", Title: "OpenShift 4",
		Source: "cluster-kube-apiserver-operator bindata/assets, machine-config-operator templates/master",
		Mark:   "/etc/kubernetes/static-pod-resources", StaticPods: ManifestDirectory,
		ClientCA: OpenShiftClientCA, KubeletConfig: OpenShiftKubeletConfig,
		// The second name is that of the bootstrap node (bindata/bootkube).
		PairNames:  []string{"tls", "kube-apiserver-to-kubelet-client"},
		Identities: []Identity{{"system:kube-apiserver", "kube-master"}}, Writer: "the kube-apiserver operator",
		Directories: []string{"/etc/kubernetes"},
	}
}

func kubeadm() Layout {
	return Layout{
		Name: "kubeadm", Title: "kubeadm",
		Source: "Kubernetes cmd/kubeadm/app/constants (KubeletConfigurationFileName), phases/certs/certlist.go",
		Mark:   "/etc/kubernetes/pki/apiserver-kubelet-client.crt", StaticPods: ManifestDirectory,
		ClientCA: KubeadmClientCA, KubeletConfig: KubeadmKubeletConfig,
		PairNames: []string{"apiserver-kubelet-client"},
		// kubeadm issued the second one up to 1.28.
		Identities: []Identity{
			{"kube-apiserver-kubelet-client", "kubeadm:cluster-admins"}, {"kube-apiserver-kubelet-client", "system:masters"},
		},
		Writer: "kubeadm (kubeadm certs renew apiserver-kubelet-client)", Directories: []string{"/etc/kubernetes"},
	}
}

func microShift() Layout {
	const (
		certificates = microshiftData + "/certs"
		pair         = certificates + "/kube-apiserver-to-kubelet-client-signer/kube-apiserver-to-kubelet-client"
		kubeletCA    = certificates + "/kubelet-csr-signer-signer/csr-signer/ca-bundle.crt"
	)
	return Layout{
		Name: "microshift", Title: "MicroShift",
		Source: "microshift pkg/util/cryptomaterial/certinfo.go, pkg/controllers/kube-apiserver.go, pkg/node/kubelet.go",
		Mark:   certificates, Process: "microshift",
		Certificate: pair + "/client.crt", Key: pair + "/client.key", KubeletCA: kubeletCA,
		ClientCA:      certificates + "/ca-bundle/kubelet-ca.crt",
		KubeletConfig: microshiftData + "/resources/kubelet/config/config.yaml", PairNames: []string{"client"},
		Identities: []Identity{{"system:kube-apiserver", "kube-master"}}, Writer: "microshift, when it starts",
		Directories: []string{pair, certificates + "/ca-bundle", microshiftData + "/resources/kubelet/config"},
		Files:       []string{kubeletCA},
	}
}

func k3s() Layout {
	const certificates = k3sData + "/server/tls"
	files := []string{
		certificates + "/client-kube-apiserver.crt", certificates + "/client-kube-apiserver.key",
		certificates + "/server-ca.crt",
	}
	return Layout{
		Name: "k3s", Title: "k3s", Source: "k3s pkg/daemons/control/deps/deps.go, pkg/daemons/control/server.go",
		Mark: certificates, Process: "k3s", Certificate: files[0], Key: files[1], KubeletCA: files[2],
		ClientCA: k3sData + "/agent/client-ca.crt", KubeletDropIns: k3sData + "/agent/etc/kubelet.conf.d",
		PairNames:  []string{"client-kube-apiserver"},
		Identities: []Identity{{"system:apiserver", "system:masters"}}, Writer: "k3s, when it starts",
		Files: append(files, k3sData+"/agent/client-ca.crt"),
	}
}

func rke2() Layout {
	const certificates = rke2Data + "/server/tls"
	return Layout{
		Name: "rke2", Title: "RKE2",
		Source:     "rke2 pkg/executor/staticpod/staticpod.go, pkg/rke2/psa.go; k3s pkg/daemons/control/deps/deps.go",
		Mark:       rke2Data + "/agent/pod-manifests",
		StaticPods: rke2Data + "/agent/pod-manifests", ClientCA: rke2Data + "/agent/client-ca.crt",
		KubeletDropIns: rke2Data + "/agent/etc/kubelet.conf.d", PairNames: []string{"client-kube-apiserver"},
		Identities: []Identity{{"system:apiserver", "system:masters"}}, Writer: "rke2, when it starts",
		Directories: []string{rke2Data + "/agent/pod-manifests"},
		Files: []string{
			certificates + "/client-kube-apiserver.crt", certificates + "/client-kube-apiserver.key",
			certificates + "/server-ca.crt", rke2Data + "/agent/client-ca.crt",
			"/etc/rancher/rke2/rke2-pss.yaml", // the configuration of admission plugins
		},
	}
}

// Identities returns the subjects that the layouts with a directory of static Pods issue; of all layouts if it is
// empty.
func Identities(staticPods string) []Identity {
	var all []Identity
	for _, l := range Table() {
		if staticPods != "" && l.StaticPods != staticPods {
			continue
		}
		for _, identity := range l.Identities {
			if !slices.Contains(all, identity) {
				all = append(all, identity)
			}
		}
	}
	return all
}

// Names returns the values of --layout.
func Names() []string {
	names := []string{Auto}
	for _, l := range Table() {
		names = append(names, l.Name)
	}
	return names
}

// ByName returns the layout with a name. It returns false for other names, such as [Auto].
func ByName(name string) (Layout, bool) {
	all := Table()
	i := slices.IndexFunc(all, func(l Layout) bool { return l.Name == name })
	if i < 0 {
		return Layout{}, false
	}
	return all[i], true
}

// Detect returns the layouts whose mark exists on a host.
func Detect(host fs.FS) []Layout {
	return slices.DeleteFunc(Table(), func(l Layout) bool {
		_, err := fs.Stat(host, strings.TrimPrefix(path.Clean(l.Mark), "/"))
		return err != nil
	})
}
