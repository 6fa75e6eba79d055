// SPDX-License-Identifier: Apache-2.0

package staticpod

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/plainyaml"
)

const (
	// MaxManifestBytes bounds a manifest; OpenShift's has about 20 KiB.
	MaxManifestBytes = 1 << 20
	// MaxManifests bounds the files of the directory with static Pods. A control-plane
	// node has about ten.
	MaxManifests = 100
	// maxFirstNames bounds the names in [Found.FirstNames].
	maxFirstNames = 10

	// kubeletMaxBytes is the size from which on the kubelet ignores a file (Kubernetes
	// pkg/kubelet/config/common.go, maxConfigLength).
	kubeletMaxBytes = 10 << 20
)

// staticPod is a Pod that the kubelet reads from a file.
type staticPod struct {
	at  string
	pod *corev1.Pod
	// servers are its containers that may be a kube-apiserver.
	servers []*corev1.Container
}

// key identifies the Pod for the kubelet, which also adds the node's name to all of them.
func (p staticPod) key() string {
	namespace := p.pod.Namespace
	if namespace == "" {
		namespace = metav1.NamespaceDefault // applyDefaults in pkg/kubelet/config/common.go
	}
	return namespace + "/" + p.pod.Name
}

// manifests is the content of the kubelet's directory.
type manifests struct {
	// pods in the kubelet's order: of several with one name, the last one counts.
	pods []staticPod
	// unparsable are files that are not a Pod for the kubelet. unread are files that may be
	// a Pod, and cannot be read or exceed a bound.
	unparsable, unread []fileError
}

type fileError struct {
	at  string
	err error
}

// errNotFileOrDirectory is the kubelet's error for anything else.
var errNotFileOrDirectory = errors.New("not a directory and not a file")

// listManifests reads static Pods as the kubelet does (Kubernetes pkg/kubelet/config/file.go,
// listConfig and extractFromDir): from a file, or from all regular files of a directory and
// symlinks to such files, in the order of their names and without names that begin with a
// dot. It skips files that it cannot parse.
func (l *Found) listManifests(host fs.FS, at string) (found manifests, err error) {
	l.Directory = at
	info, err := stat(host, at)
	switch {
	case err != nil:
		return found, err
	case info.Mode().IsRegular():
		found.add(host, at, info)
		l.read = append(l.read, at)
		l.FirstNames = []string{path.Base(at)}
		return found, nil
	case !info.IsDir():
		return found, errNotFileOrDirectory
	}
	l.listed = append(l.listed, at)
	if strings.ContainsAny(at, `*?[\`) {
		return found, errors.New("its path has characters that the kubelet reads as a pattern: one of * ? [ \\")
	}
	entries, err := fs.ReadDir(host, name(at))
	if err != nil {
		return found, err
	}
	entries = slices.DeleteFunc(entries, func(e fs.DirEntry) bool { return strings.HasPrefix(e.Name(), ".") })
	if len(entries) > MaxManifests {
		return found, fmt.Errorf("it has %d files, more than the limit of %d", len(entries), MaxManifests)
	}
	for _, entry := range entries {
		if len(l.FirstNames) < maxFirstNames {
			l.FirstNames = append(l.FirstNames, entry.Name())
		}
		file := path.Join(at, entry.Name())
		l.read = append(l.read, file)
		info, err := stat(host, file)
		switch {
		case errors.Is(err, fs.ErrNotExist): // a dangling symlink
		case err != nil:
			found.unread = append(found.unread, fileError{file, err})
		case info.Mode().IsRegular():
			found.add(host, file, info)
		}
	}
	return found, nil
}

// add reads one file.
func (m *manifests) add(host fs.FS, at string, info fs.FileInfo) {
	if info.Size() >= kubeletMaxBytes {
		err := fmt.Errorf("it has %d bytes, and the kubelet ignores files of %d bytes or more", info.Size(), kubeletMaxBytes)
		m.unparsable = append(m.unparsable, fileError{at, err})
		return
	}
	data, err := fs.ReadFile(host, name(at))
	if errors.Is(err, fs.ErrNotExist) {
		return // it was removed meanwhile
	}
	if err == nil && len(data) > MaxManifestBytes {
		err = fmt.Errorf("it has %d bytes, more than the limit of %d", len(data), MaxManifestBytes)
	}
	if err != nil {
		m.unread = append(m.unread, fileError{at, err})
		return
	}
	pod, err := parsePod(data)
	var servers []*corev1.Container
	if err == nil {
		servers, err = apiServers(pod)
	}
	switch {
	case errors.Is(err, plainyaml.ErrLimit):
		m.unread = append(m.unread, fileError{at, err})
	case err != nil:
		m.unparsable = append(m.unparsable, fileError{at, err})
	default:
		m.pods = append(m.pods, staticPod{at, pod, servers})
	}
}

// parsePod reads a manifest, JSON or YAML, as the kubelet does (tryDecodeSinglePod in
// pkg/kubelet/config/common.go): it must be a v1 Pod with a name. It does not validate the
// rest of the Pod.
func parsePod(data []byte) (*corev1.Pod, error) {
	var pod corev1.Pod
	if err := plainyaml.Unmarshal(data, &pod); err != nil {
		return nil, fmt.Errorf("parse as a Pod: %w", err)
	}
	apiVersion, kind, err := plainyaml.TypeMeta(data)
	if err != nil {
		return nil, fmt.Errorf("parse as a Pod: %w", err)
	}
	switch {
	case kind != "Pod":
		return nil, fmt.Errorf("kind is %s, expected Pod", quoteShort(kind))
	case apiVersion != "v1":
		return nil, fmt.Errorf("apiVersion is %s, expected v1", quoteShort(apiVersion))
	case pod.Name == "":
		return nil, errors.New("the Pod has no name")
	}
	return &pod, nil
}

// maxQuoted bounds a value of a manifest in an error, in bytes.
const maxQuoted = 64

// quoteShort quotes a value of a manifest in an error. A long value may be anything, so it is not
// shown.
func quoteShort(value string) string {
	switch {
	case value == "":
		return "empty"
	case len(value) > maxQuoted:
		return fmt.Sprintf("a text of %d bytes", len(value))
	}
	return strconv.Quote(value)
}

// apiServers returns the pod's containers that may be a kube-apiserver, by their name or by
// their command. Most Pods have none. With more than one it is not known which of them is
// the kube-apiserver. A Pod with two containers of one name is not valid.
func apiServers(pod *corev1.Pod) (servers []*corev1.Container, err error) {
	for i := range pod.Spec.Containers {
		c := &pod.Spec.Containers[i]
		if c.Name != containerName && (len(c.Command) == 0 || path.Base(c.Command[0]) != containerName) {
			continue
		}
		if slices.ContainsFunc(servers, func(other *corev1.Container) bool { return other.Name == c.Name }) {
			return nil, fmt.Errorf("two containers have the name %s", c.Name)
		}
		servers = append(servers, c)
	}
	return servers, nil
}

// choose returns the kube-apiserver's Pod. Of several Pods it is the last one with exactly one
// kube-apiserver container; if none has exactly one, it is the last one. Duplicates are all
// files that may be the Pod that runs.
func (l *Found) choose(found manifests) (chosen staticPod, ok bool) {
	servers := map[string]bool{}
	for _, p := range found.pods {
		if len(p.servers) == 0 {
			continue
		}
		servers[p.key()] = true
		if len(p.servers) == 1 || len(chosen.servers) != 1 {
			chosen, ok = p, true
		}
	}
	for _, p := range found.pods {
		if servers[p.key()] {
			l.Duplicates = append(l.Duplicates, p.at)
		}
	}
	if len(l.Duplicates) < 2 {
		l.Duplicates = nil
	}
	for _, u := range found.unread {
		l.Unread = append(l.Unread, File{Host: u.at, Err: u.err})
	}
	return chosen, ok
}

// notFound sets why there is no manifest: a file that cannot be read may be the manifest, or
// a file that cannot be parsed should be it.
func (l *Found) notFound(found manifests) {
	named := func(f fileError) bool { return strings.Contains(path.Base(f.at), containerName) }
	if len(found.unread) > 0 {
		first := found.unread[max(0, slices.IndexFunc(found.unread, named))]
		l.Manifest, l.ManifestReadErr = first.at, first.err
		return
	}
	if len(found.unparsable) > 0 {
		first := found.unparsable[max(0, slices.IndexFunc(found.unparsable, named))]
		l.Manifest, l.ManifestParseErr = first.at, first.err
		return
	}
	l.Manifest, l.ManifestReadErr = l.Directory, fs.ErrNotExist
}

// stat follows symlinks. It opens the file, so that package hostfs detects a deleted mount.
func stat(host fs.FS, at string) (fs.FileInfo, error) {
	file, err := host.Open(name(at))
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	return file.Stat()
}
