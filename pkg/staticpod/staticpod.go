// SPDX-License-Identifier: Apache-2.0

// Package staticpod finds out which files the kube-apiserver of a node really
// uses, on the host.
//
// The path in the CIS text, [CISDirectory], exists inside a kube-apiserver's
// container only, and of OpenShift up to 4.8 only. What counts is the live
// static pod manifest: its volumes and mounts, the configuration that it is
// started with, the files named there, translated to paths on the host. Old
// revisions lie beside the live one, with expired certificates; they are never
// looked at.
//
// The package judges nothing. What could not be read or understood stands in
// the [Layout] as an error, for package check to make findings of.
package staticpod

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"unicode"

	corev1 "k8s.io/api/core/v1"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/kubeapiserver"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/plainyaml"
)

const (
	// OpenShiftManifest is written by OpenShift's installer pod (library-go
	// pkg/operator/staticpod/installerpod/cmd.go).
	OpenShiftManifest = "/etc/kubernetes/manifests/kube-apiserver-pod.yaml"
	// KubeadmManifest is kubeadm's.
	KubeadmManifest = "/etc/kubernetes/manifests/kube-apiserver.yaml"
	// CISDirectory is the path in the text of CIS OpenShift 1.2.4.
	CISDirectory = "/etc/kubernetes/static-pod-resources/secrets/kubelet-client"

	// OpenShiftClientCA is the bundle by which the kubelet knows its clients
	// on OpenShift (machine-config-operator
	// templates/master/01-master-kubelet/_base/files/kubelet.yaml).
	OpenShiftClientCA = "/etc/kubernetes/kubelet-ca.crt"
	// KubeadmClientCA is the same on kubeadm nodes (clientCAFile in
	// /var/lib/kubelet/config.yaml, which kubeadm writes).
	KubeadmClientCA = "/etc/kubernetes/pki/ca.crt"

	// MaxManifestBytes bounds a manifest; OpenShift's has about 20 KiB.
	MaxManifestBytes = 1 << 20

	containerName = "kube-apiserver"
	// revisionLabel is set by OpenShift's installer.
	revisionLabel = "revision"
)

// File is a file that a configuration names.
type File struct {
	// Host is its path on the host; empty where it is not configured or not
	// on the host.
	Host string
	// Configured is the path as the kube-apiserver knows it.
	Configured string
	// Err says why the file is not on the host.
	Err error
}

// Layout says which files the kube-apiserver of a node uses.
type Layout struct {
	// How it was found out, in a few words for people.
	How string

	// Manifest is the path of the manifest that was read or, without one,
	// looked for; empty where none was asked for. ManifestReadErr wraps
	// [fs.ErrNotExist] where there is none.
	Manifest         string
	ManifestReadErr  error
	ManifestParseErr error
	// Revision of the static pod, where the platform has them.
	Revision string

	// Config is what the kube-apiserver is started with. ConfigAt is where
	// that stands: the manifest itself, or the file that it names. Empty where
	// no configuration was asked for or there is no manifest.
	Config    kubeapiserver.Config
	ConfigAt  string
	ConfigErr error
	// ConfigUnread: ConfigErr says why the file could not be read, not why
	// what was read is no configuration.
	ConfigUnread bool

	// Certificate and Key are the kubelet client pair, KubeletCA the bundle
	// by which the kube-apiserver knows kubelets.
	Certificate, Key, KubeletCA File
	// ClientCA is the host path of the bundle by which the kubelet knows its
	// clients; empty where that is not known.
	ClientCA string

	// read are the host paths whose contents decided on the layout, sought
	// those that were looked for in vain.
	read, sought []string
}

// Paths are all the host paths that the layout rests on, whether they exist or
// not: when something happens to one of them, it is time to look again.
func (l Layout) Paths() []string {
	var paths []string
	files := []string{l.Certificate.Host, l.Key.Host, l.KubeletCA.Host, l.ClientCA}
	for _, p := range slices.Concat(l.read, files, l.sought) {
		if p != "" && !slices.Contains(paths, p) {
			paths = append(paths, p)
		}
	}
	return paths
}

// Discover reads the host's files. With a directory (a path on the host), the
// pair in it is taken and no manifest asked for. Without a usable manifest the
// pair in [CISDirectory] is taken, if it exists.
func Discover(host fs.FS, directory string) Layout {
	if directory != "" {
		layout := inDirectory(host, path.Clean("/"+directory))
		layout.How = "directory " + path.Clean("/"+directory) + ", as told"
		return layout
	}
	manifest, data, err := readManifest(host)
	layout := Layout{Manifest: manifest, ManifestReadErr: err, read: []string{OpenShiftManifest, KubeadmManifest}}
	if err == nil {
		if layout.ManifestParseErr = layout.fromManifest(host, data); layout.ManifestParseErr == nil {
			return layout
		}
	}
	if _, err := fs.Stat(host, name(CISDirectory)); err == nil {
		found := inDirectory(host, CISDirectory)
		layout.sought = found.sought
		layout.Certificate, layout.Key, layout.ClientCA = found.Certificate, found.Key, found.ClientCA
		layout.How = "directory of the CIS text, for want of a usable manifest"
		return layout
	}
	layout.sought = []string{CISDirectory}
	layout.How = "no usable manifest, no directory " + CISDirectory
	return layout
}

// inDirectory is the layout of a directory with a pair.
func inDirectory(host fs.FS, directory string) Layout {
	// kubeadm's names if such a file is there, else those of a Secret.
	certificate, key := path.Join(directory, "tls.crt"), path.Join(directory, "tls.key")
	kubeadmCertificate, kubeadmKey := path.Join(directory, "apiserver-kubelet-client.crt"), path.Join(directory, "apiserver-kubelet-client.key")
	layout := Layout{sought: []string{certificate, key, kubeadmCertificate, kubeadmKey, OpenShiftClientCA, KubeadmClientCA}}
	for _, file := range []string{kubeadmCertificate, kubeadmKey} {
		if _, err := fs.Stat(host, name(file)); err == nil {
			certificate, key = kubeadmCertificate, kubeadmKey
		}
	}
	layout.Certificate, layout.Key = File{Host: certificate}, File{Host: key}
	for _, ca := range []string{OpenShiftClientCA, KubeadmClientCA} {
		if _, err := fs.Stat(host, name(ca)); err == nil {
			layout.ClientCA = ca
			return layout
		}
	}
	// Neither can be had: that is told, not passed over.
	layout.ClientCA = OpenShiftClientCA
	return layout
}

// readManifest reads the first manifest that is there; the error is that of
// OpenShift's where there is none.
func readManifest(host fs.FS) (at string, data []byte, err error) {
	for _, at := range []string{OpenShiftManifest, KubeadmManifest} {
		data, err := fs.ReadFile(host, name(at))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		return at, data, err
	}
	return OpenShiftManifest, nil, fs.ErrNotExist
}

// parsePod reads a manifest, JSON or YAML.
func parsePod(data []byte) (*corev1.Pod, error) {
	if len(data) > MaxManifestBytes {
		return nil, fmt.Errorf("it has %d bytes, more than %d", len(data), MaxManifestBytes)
	}
	var pod corev1.Pod
	if err := plainyaml.Unmarshal(data, &pod); err != nil {
		return nil, fmt.Errorf("parse as a Pod: %w", err)
	}
	if pod.Kind != "Pod" {
		return nil, errors.New("its kind is another one than Pod")
	}
	return &pod, nil
}

// container returns the pod's only container that is a kube-apiserver.
func container(pod *corev1.Pod) (*corev1.Container, error) {
	var found *corev1.Container
	for i, c := range pod.Spec.Containers {
		if c.Name != containerName {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("it has two containers named %s", containerName)
		}
		found = &pod.Spec.Containers[i]
	}
	if found == nil {
		return nil, fmt.Errorf("it has no container named %s", containerName)
	}
	return found, nil
}

// fromManifest fills the layout from the live pod. The error says why the
// manifest is of no use; trouble behind it stands in the layout.
func (l *Layout) fromManifest(host fs.FS, data []byte) error {
	pod, err := parsePod(data)
	if err != nil {
		return err
	}
	container, err := container(pod)
	if err != nil {
		return err
	}
	mounts := mountsOf(pod, container)
	l.Revision = pod.Labels[revisionLabel]
	l.Config = kubeapiserver.ParseFlags(words(container))
	l.ConfigAt = l.Manifest
	l.ClientCA = KubeadmClientCA
	l.How = "manifest " + l.Manifest

	if file, _ := l.Config.Value(kubeapiserver.OpenShiftConfigFlag); file != "" {
		l.ClientCA = OpenShiftClientCA
		l.ConfigErr = l.addConfig(host, mounts.translate(file))
	}
	if l.ConfigErr == nil {
		l.addFiles(mounts)
	}
	return nil
}

// addFiles takes the files that the configuration names.
func (l *Layout) addFiles(mounts mounts) {
	l.Certificate = mounts.argument(l.Config, kubeapiserver.KubeletClientCertificate)
	l.Key = mounts.argument(l.Config, kubeapiserver.KubeletClientKey)
	l.KubeletCA = mounts.argument(l.Config, kubeapiserver.KubeletCertificateAuthority)
}

// addConfig lays the configuration file over the flags, as OpenShift's
// kube-apiserver does.
func (l *Layout) addConfig(host fs.FS, file File) error {
	l.ConfigAt = file.Configured
	l.ConfigUnread = true
	if file.Err != nil {
		return file.Err
	}
	l.ConfigAt = file.Host
	l.read = append(l.read, file.Host)
	l.How += ", configuration " + file.Host
	data, err := fs.ReadFile(host, name(file.Host))
	if err != nil {
		return err
	}
	l.ConfigUnread = false
	config, err := kubeapiserver.ParseConfig(data)
	if err != nil {
		return err
	}
	l.Config = l.Config.Under(config)
	return nil
}

// words are the words of the container's command line. kubeadm gives one
// argument an element; OpenShift gives a shell script, whose words are told
// apart well enough by white space and quotes.
func words(container *corev1.Container) []string {
	var all []string
	for _, element := range slices.Concat(container.Command, container.Args) {
		for word := range strings.FieldsSeq(element) {
			all = append(all, strings.NewReplacer(`"`, "", `'`, "").Replace(word))
		}
	}
	return all
}

// mount is a folder (or file) of the host inside the container.
type mount struct {
	container string
	host      string
	err       error // why it is not one of the host's
}

type mounts []mount

// mountsOf lists the container's mounts, deepest first.
func mountsOf(pod *corev1.Pod, container *corev1.Container) mounts {
	volumes := map[string]*corev1.HostPathVolumeSource{}
	for _, volume := range pod.Spec.Volumes {
		volumes[volume.Name] = volume.HostPath
	}
	var all mounts
	for _, m := range container.VolumeMounts {
		entry := mount{container: path.Clean("/" + m.MountPath)}
		switch hostPath := volumes[m.Name]; {
		case hostPath == nil:
			entry.err = fmt.Errorf("volume %q is no folder of the host", m.Name)
		case m.SubPathExpr != "":
			entry.err = fmt.Errorf("volume %q is mounted with a subPathExpr, which only the kubelet can expand", m.Name)
		default:
			// A subPath cannot lead out of its volume: the API refuses "..".
			entry.host = path.Join("/", hostPath.Path, m.SubPath)
		}
		all = append(all, entry)
	}
	slices.SortStableFunc(all, func(a, b mount) int { return len(b.container) - len(a.container) })
	return all
}

// argument is the file that an argument of the configuration names.
func (m mounts) argument(config kubeapiserver.Config, argument string) File {
	value, _ := config.Value(argument)
	if value == "" {
		return File{}
	}
	return m.translate(value)
}

// maxPath is Linux's PATH_MAX, in bytes.
const maxPath = 4096

// translate finds a path of the container on the host.
func (m mounts) translate(inContainer string) File {
	if len(inContainer) > maxPath || strings.ContainsFunc(inContainer, unicode.IsControl) || strings.Contains(inContainer, "-----BEGIN") {
		// It may be the key itself, and is shown to nobody.
		return File{Configured: "(no path)", Err: errors.New("what is configured is no path")}
	}
	file := File{Configured: inContainer}
	if !path.IsAbs(inContainer) {
		file.Err = errors.New("the path is not absolute")
		return file
	}
	clean := path.Clean(inContainer)
	for _, entry := range m {
		rest, below := strings.CutPrefix(clean, strings.TrimSuffix(entry.container, "/"))
		if !below || (rest != "" && rest[0] != '/') {
			continue
		}
		if entry.err != nil {
			file.Err = entry.err
			return file
		}
		file.Host = path.Join(entry.host, rest)
		return file
	}
	file.Err = errors.New("the path is under no mount of the kube-apiserver's container")
	return file
}

// name is a host path as [fs.FS] wants it.
func name(hostPath string) string {
	if n := strings.TrimPrefix(path.Clean("/"+hostPath), "/"); n != "" {
		return n
	}
	return "."
}
