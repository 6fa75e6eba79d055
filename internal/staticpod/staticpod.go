// SPDX-License-Identifier: Apache-2.0

// Package staticpod finds the files on the host that the kube-apiserver of a node uses.
//
// The path in the CIS text, [CISDirectory], exists only inside a kube-apiserver's container,
// and only on OpenShift up to 4.8. What counts is the live static pod manifest: its volumes
// and mounts, its configuration, and the files named there, translated to paths on the
// host. Old revisions with expired certificates are in the same place; they are never read.
//
// The package judges nothing. Errors of reading and parsing are in [Found], and package
// check turns them into findings.
package staticpod

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"unicode"

	corev1 "k8s.io/api/core/v1"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/cmdline"
	"github.com/kubelet-https-guard/kubelet-https-guard/internal/kubeletconfig"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/kubeapiserver"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/layout"
)

const (
	// CISDirectory is the path in the text of CIS OpenShift 1.2.4.
	CISDirectory = "/etc/kubernetes/static-pod-resources/secrets/kubelet-client"

	containerName = "kube-apiserver"
	// revisionLabel is set by OpenShift's installer.
	revisionLabel = "revision"
)

// File is a file that a configuration names.
type File struct {
	// Host is its path on the host; empty if it is not configured or not on the host.
	Host string
	// Configured is the path in the kube-apiserver's container.
	Configured string
	// Err is why the path cannot be translated to a path on the host.
	Err error
}

// Found has the files that the kube-apiserver of a node uses.
type Found struct {
	// Layout is the kind of host; the zero value if it is not known. Layouts are the names of several that match, so that
	// nothing was read.
	Layout  layout.Layout
	Layouts []string
	named   bool // by a flag
	// Process is the program that runs the kube-apiserver in its own process, so that no manifest and no configuration is
	// on disk; empty if that is not so, or if flags name the pair.
	Process string
	// How the files were found, in a few words for people.
	How string

	// Kubelet is the configuration of this host's kubelet.
	Kubelet kubeletconfig.Config
	// Directory is the directory or file with the kubelet's static Pods; empty if it was not
	// needed, is not known, or does not exist. FirstNames are the first file names in it.
	Directory  string
	FirstNames []string
	// Manifest is the path of the manifest that was read. Without a manifest, it is the file
	// or directory that shows why; empty if no manifest was needed. ManifestReadErr wraps
	// [fs.ErrNotExist] if there is no manifest.
	Manifest         string
	ManifestReadErr  error
	ManifestParseErr error
	// ManifestContainers are the names of the containers of the manifest's Pod that may be
	// the kube-apiserver, if there are several. Then it is not known whose settings count,
	// and none of them is read.
	ManifestContainers []string
	// Duplicates are the files with a Pod of the kube-apiserver, or with another Pod of
	// its name, in the kubelet's order, if there are several. Then Manifest is the last one
	// with exactly one kube-apiserver container, if any.
	Duplicates []string
	// Unread are files of the directory that may be the manifest and could not be read.
	Unread []File
	// Revision of the static pod, if the platform has revisions.
	Revision string

	// Config is the configuration of the kube-apiserver. ConfigAt is the manifest itself, or
	// the file that it names. Both are empty if they were not needed or there is no
	// manifest.
	Config    kubeapiserver.Config
	ConfigAt  string
	ConfigErr error
	// ConfigUnread is true if the file could not be read, and false if it was read and is
	// not a configuration. ConfigErr says why.
	ConfigUnread bool

	// Certificate and Key are the kubelet client pair. KubeletCA is the bundle with which
	// the kube-apiserver verifies kubelets.
	Certificate, Key, KubeletCA File
	// PairErr is why it is not known which files of PairDirectory are the certificate and key. Then
	// Certificate and Key are empty.
	PairErr       error
	PairDirectory string
	// Admission is the file with the configuration of admission plugins
	// (admission-control-config-file). It is not read here.
	Admission File
	// ClientCA is the host path of the kubelet's client CA bundle; empty if it is not known
	// or the kubelet has none.
	ClientCA string

	// read are the host paths whose contents were used, tried those that may not exist,
	// and listed the directories.
	read, tried, listed []string
	mounts              mounts
}

// Paths returns all host paths that this depends on, whether they exist or not. After a
// change of one of them, the host must be scanned again.
func (l Found) Paths() []string {
	var paths []string
	files := []string{l.Certificate.Host, l.Key.Host, l.KubeletCA.Host, l.ClientCA, l.Admission.Host}
	for _, p := range slices.Concat(l.read, files, l.tried, l.Kubelet.Read, l.Kubelet.Tried, l.Listed()) {
		if p != "" && !slices.Contains(paths, p) {
			paths = append(paths, p)
		}
	}
	return paths
}

// Listed returns the host paths of the directories whose entries matter, whether
// they exist or not. Any new or removed entry matters.
func (l Found) Listed() []string {
	listed := slices.Concat(l.listed, l.Kubelet.Listed)
	slices.Sort(listed)
	return slices.Compact(listed)
}

// AdmissionPath translates a path in the configuration of admission plugins, such as a
// plugin's own file. A relative path is relative to the directory of the Admission file
// (k8s.io/apiserver pkg/admission/config.go, ReadAdmissionConfiguration).
// It is not among [Found.Paths].
func (l Found) AdmissionPath(inContainer string) File {
	if inContainer == "" {
		return File{}
	}
	if !path.IsAbs(inContainer) && path.IsAbs(l.Admission.Configured) {
		inContainer = path.Join(path.Dir(l.Admission.Configured), inContainer)
	}
	return l.mounts.translate(inContainer)
}

// Given is what flags say about a host. The zero value says nothing.
type Given struct {
	// Layout is the name of the host's layout; empty or [layout.Auto] to detect it.
	Layout string
	// Directory has the certificate and key, or Certificate and Key are the files. All are paths on the host. If they are
	// set, no manifest is needed and none is read. Set Directory, or both files, or nothing.
	Directory, Certificate, Key string
}

// Discover reads the host's files. Without a usable manifest, where one is expected, it uses the pair in
// [CISDirectory], if that exists.
func Discover(host fs.FS, given Given) Found {
	kind, several := resolve(host, given.Layout)
	kubelet := kubeletconfig.Read(host, kubeletSources(kind))
	var found Found
	switch {
	case given.Certificate != "":
		found = fromFiles(host, given.Certificate, given.Key)
	case given.Directory != "":
		directory := path.Clean("/" + given.Directory)
		found = fromDirectory(host, directory)
		found.How = "directory " + directory + " (from --kubelet-client-dir)"
	default:
		found.Layout, found.Layouts, found.Kubelet = kind, several, kubelet
		found.named = kind.Name != "" && kind.Name == given.Layout
		found.fromLayout(host)
		return found
	}
	found.Layout, found.Kubelet = kind, kubelet
	found.setClientCA(cmp.Or(kind.ClientCA, found.ClientCA))
	return found
}

// resolve returns the layout with a name. To detect it, it returns the only one whose mark exists, or the zero value
// and the names of several, unless all have their static Pods in the same directory.
func resolve(host fs.FS, name string) (kind layout.Layout, several []string) {
	if kind, ok := layout.ByName(name); ok {
		return kind, nil
	}
	detected := layout.Detect(host)
	if len(detected) == 1 {
		kind := detected[0]
		if kind.StaticPods == layout.ManifestDirectory {
			// Other installers write there, too. So the mark does not show which of the subjects is the right one.
			kind.Identities = layout.Identities(layout.ManifestDirectory)
		}
		return kind, nil
	}
	if !slices.ContainsFunc(detected, func(d layout.Layout) bool { return d.StaticPods != layout.ManifestDirectory }) {
		return layout.Layout{}, nil // the manifest decides
	}
	for _, d := range detected {
		several = append(several, d.Name)
	}
	return layout.Layout{}, several
}

// kubeletSources returns where a layout has the kubelet's configuration. Layouts in /etc/kubernetes are not told apart:
// kubeletconfig reads the files of all of them.
func kubeletSources(kind layout.Layout) kubeletconfig.Sources {
	if kind.Name == "" || kind.StaticPods == layout.ManifestDirectory {
		return kubeletconfig.Sources{}
	}
	sources := kubeletconfig.Sources{DropIns: kind.KubeletDropIns}
	if kind.KubeletConfig != "" {
		sources.Files = []string{kind.KubeletConfig}
	}
	return sources
}

// fromLayout finds the files where the layout has them.
func (l *Found) fromLayout(host fs.FS) {
	switch {
	case len(l.Layouts) > 0:
		l.How = "nothing found: the host matches several layouts: " + strings.Join(l.Layouts, ", ")
		return
	case l.Layout.Process != "":
		l.fromProcess()
		return
	case l.fromStaticPods(host):
		return
	}
	if _, err := fs.Stat(host, name(CISDirectory)); err == nil {
		cis := fromDirectory(host, CISDirectory)
		l.tried = append(l.tried, cis.tried...)
		l.Certificate, l.Key = cis.Certificate, cis.Key
		l.PairErr, l.PairDirectory = cis.PairErr, cis.PairDirectory
		l.setClientCA(cmp.Or(l.Layout.ClientCA, cis.ClientCA))
		l.How = "the directory in the CIS text, because there is no usable manifest"
		return
	}
	l.tried = append(l.tried, CISDirectory)
	l.How = "nothing found: there is no usable manifest, and no directory " + CISDirectory
}

// fromProcess uses the files with which a program starts the kube-apiserver in its own process.
func (l *Found) fromProcess() {
	l.Process, l.How = l.Layout.Process, "the paths of "+l.Layout.Title
	l.Certificate, l.Key = File{Host: l.Layout.Certificate}, File{Host: l.Layout.Key}
	l.KubeletCA = File{Host: l.Layout.KubeletCA}
	l.setClientCA(l.Layout.ClientCA)
}

// fromStaticPods fills it from the kubelet's static Pods. It reports whether the
// container of the kube-apiserver is known.
func (l *Found) fromStaticPods(host fs.FS) bool {
	at := cmp.Or(l.Layout.StaticPods, layout.ManifestDirectory)
	switch {
	case l.Kubelet.Problem.Err != nil:
		l.Manifest = l.Kubelet.Problem.At
		return false
	case l.Kubelet.Seen && l.Kubelet.StaticPodPath == "":
		l.Manifest, l.ManifestReadErr = l.Kubelet.StaticPodPathAt, fs.ErrNotExist
		return false
	case l.Kubelet.Seen:
		at = l.Kubelet.StaticPodPath
	}
	l.tried = append(l.tried, at)
	found, err := l.listManifests(host, at)
	if err != nil {
		l.Manifest, l.ManifestReadErr = at, err
		if errors.Is(err, errNotFileOrDirectory) {
			l.ManifestReadErr, l.ManifestParseErr = nil, err
		}
		return false
	}
	chosen, ok := l.choose(found)
	if !ok {
		l.notFound(found)
		return false
	}
	l.Manifest = chosen.at
	if len(chosen.servers) > 1 {
		for _, c := range chosen.servers {
			l.ManifestContainers = append(l.ManifestContainers, c.Name)
		}
		return false
	}
	l.fromManifest(host, chosen.pod, chosen.servers[0])
	return true
}

// setClientCA sets the kubelet's client CA as its configuration names it. If that is not visible,
// it is the platform's default.
func (l *Found) setClientCA(byDefault string) {
	switch {
	case l.Kubelet.Problem.Err != nil:
		l.ClientCA = ""
	case l.Kubelet.Seen:
		l.ClientCA = l.Kubelet.ClientCAFile
	default:
		l.ClientCA = byDefault
	}
}

// fromManifest fills it from the live pod, with the errors of its files.
func (l *Found) fromManifest(host fs.FS, pod *corev1.Pod, container *corev1.Container) {
	l.mounts = mountsOf(pod, container)
	l.Revision = pod.Labels[revisionLabel]
	l.Config = kubeapiserver.ParseWords(words(container))
	l.ConfigAt = l.Manifest
	l.How = "manifest " + l.Manifest

	clientCA := layout.KubeadmClientCA
	file, _ := l.Config.Value(kubeapiserver.OpenShiftConfigFlag)
	switch why := l.Config.Undecided(kubeapiserver.OpenShiftConfigFlag); {
	case why != "":
		// The file that it may name can set every argument.
		l.Config = kubeapiserver.WithAllUndecided(why)
	case file != "":
		clientCA = layout.OpenShiftClientCA
		l.ConfigErr = l.addConfig(host, l.mounts.translate(file))
	}
	l.refineLayout(file != "")
	l.setClientCA(cmp.Or(l.Layout.ClientCA, clientCA))
	if l.ConfigErr == nil {
		l.addFiles()
	}
}

// refineLayout corrects a layout that was detected by its mark in /etc/kubernetes, where the manifest is the better
// evidence: only OpenShift's names a configuration of its own.
func (l *Found) refineLayout(openShift bool) {
	const name = "openshift"
	if l.named || l.Directory != layout.ManifestDirectory || openShift == (l.Layout.Name == name) {
		return
	}
	if l.Layout = (layout.Layout{}); openShift {
		l.Layout, _ = layout.ByName(name)
		l.Layout.Identities = layout.Identities(layout.ManifestDirectory)
	}
}

// addFiles sets the files that the configuration names.
func (l *Found) addFiles() {
	l.Certificate = l.mounts.argument(l.Config, kubeapiserver.KubeletClientCertificate)
	l.Key = l.mounts.argument(l.Config, kubeapiserver.KubeletClientKey)
	l.KubeletCA = l.mounts.argument(l.Config, kubeapiserver.KubeletCertificateAuthority)
	l.Admission = l.mounts.argument(l.Config, kubeapiserver.AdmissionControlConfigFile)
}

// addConfig merges the configuration file over the flags, as OpenShift's kube-apiserver does.
func (l *Found) addConfig(host fs.FS, file File) error {
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

// words returns the words with which the container starts its kube-apiserver.
func words(container *corev1.Container) []kubeapiserver.Word {
	var all []kubeapiserver.Word
	for _, word := range cmdline.Read(container) {
		all = append(all, kubeapiserver.Word(word))
	}
	return all
}

// mount is a directory or file of the host inside the container.
type mount struct {
	container string
	host      string
	// foreign is why it does not come from the host. It is a text, because an error in an
	// unexported field prints as an address, which changes.
	foreign string
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
			entry.foreign = fmt.Sprintf("volume %q is not a hostPath", m.Name)
		case m.SubPathExpr != "":
			entry.foreign = fmt.Sprintf("volume %q is mounted with subPathExpr, "+
				"which only the kubelet can expand", m.Name)
		default:
			// A subPath cannot lead out of its volume: the API refuses "..".
			entry.host = path.Join("/", hostPath.Path, m.SubPath)
		}
		all = append(all, entry)
	}
	slices.SortStableFunc(all, func(a, b mount) int { return len(b.container) - len(a.container) })
	return all
}

// argument returns the file that an argument of the configuration names.
func (m mounts) argument(config kubeapiserver.Config, argument string) File {
	value, _ := config.Value(argument)
	if value == "" {
		return File{}
	}
	return m.translate(value)
}

// maxPath is Linux's PATH_MAX, in bytes.
const maxPath = 4096

// translate returns the path on the host of a path in the container.
func (m mounts) translate(inContainer string) File {
	if len(inContainer) > maxPath || strings.ContainsFunc(inContainer, unicode.IsControl) ||
		strings.Contains(inContainer, "-----BEGIN") {
		// It may be the private key itself, so never show it.
		return File{Configured: "(not a path)", Err: errors.New("the configured value is not a path")}
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
		if entry.foreign != "" {
			file.Err = errors.New(entry.foreign)
			return file
		}
		file.Host = path.Join(entry.host, rest)
		return file
	}
	file.Err = errors.New("the path is outside of all mounts of the kube-apiserver's container")
	return file
}

// name converts a host path to a name for [fs.FS].
func name(hostPath string) string {
	if n := strings.TrimPrefix(path.Clean("/"+hostPath), "/"); n != "" {
		return n
	}
	return "."
}
