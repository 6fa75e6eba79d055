// SPDX-License-Identifier: Apache-2.0

package check

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// Manifest is the static Pod manifest of the kube-apiserver as it was read.
type Manifest struct {
	// Process is the program that runs the kube-apiserver in its own process, so that there is no manifest; empty for a
	// static Pod. No other field is set then.
	Process string
	// Layouts are the names of several layouts that the host matches, so that it is not known where its manifest is.
	Layouts []string
	// Path on the host. If no manifest was found, it is the file or directory that ReadErr or
	// ParseErr is about. It is empty if flags name the files, so that no manifest was read.
	Path string
	// ReadErr says why it could not be read. It wraps [fs.ErrNotExist] if there is no
	// manifest.
	ReadErr error
	// ParseErr says why the file is not such a manifest.
	ParseErr error
	// Containers are the names of the Pod's containers that may be the kube-apiserver if
	// there are several, otherwise empty.
	Containers []string
	// Directory is the kubelet's static Pod path, a directory or a file. It is empty if the
	// kubelet has none configured. FileNames are the first names in it.
	Directory string
	FileNames []string
	// Duplicates are the files that define the kube-apiserver's Pod if there are several, in
	// the kubelet's order, otherwise empty.
	Duplicates []string
	// Unread are files of the directory that may be another manifest and could not be read,
	// with their errors.
	Unread []File
	// KubeletConfig says why the static Pod path is not known. It is the zero value if it is.
	KubeletConfig KubeletConfigProblem
	// Assumptions about the kubelet's configuration that were not verified. Each is the rest
	// of a sentence that begins with "assuming that".
	Assumptions []string
}

// KubeletConfigProblem is an error about the kubelet's configuration.
type KubeletConfigProblem struct {
	Path string
	Err  error
	// Unread: the file could not be read. Otherwise it could not be interpreted.
	Unread bool
}

// Result returns the problem as a result, or nil without an error.
func (p KubeletConfigProblem) Result() *finding.Result {
	switch {
	case p.Err == nil:
		return nil
	case p.Unread:
		return &unreadable(finding.File(p.Path), "the kubelet's configuration", p.Err)[0]
	}
	return &single(finding.KubeletConfigUnknown, finding.File(p.Path),
		"cannot determine the kubelet's configuration: "+oneLine(p.Err),
		"correct the file, or give the agent access to the kubelet's configuration and unit files "+
			"(chart: nodeagent.kubeletFiles, nodeagent.hostPaths)")[0]
}

// Check answers the requirements of a manifest.
func (m Manifest) Check(now time.Time) (results []finding.Result, nextChange time.Time) {
	return runChecks(finding.Manifest, manifestChecks(), m, now), time.Time{}
}

func manifestChecks() []check[Manifest] {
	at := func(m Manifest) finding.Subject {
		if m.Path == "" {
			return finding.Subject{Kind: finding.KindFile, Name: "static Pod manifest"}
		}
		return finding.File(m.Path)
	}
	return []check[Manifest]{
		{
			finding.Readable, nil,
			[]finding.Reason{
				finding.Unreadable, finding.StaleMount, finding.NotMounted, finding.ManifestMissing, finding.ManifestUnparsable,
				finding.KubeletConfigUnknown, finding.LayoutUnknown, finding.NotChecked,
			},
			at, manifestReadable,
		},
		{
			finding.Single, []finding.Aspect{finding.Readable},
			[]finding.Reason{finding.DuplicateStaticPod, finding.Unreadable, finding.StaleMount, finding.NotMounted},
			at, manifestSingle,
		},
	}
}

// manifestReadable: the manifest names the files that the kube-apiserver of this node uses. Without it it is not known
// whether files found elsewhere are the ones in use, so nothing is verified. (Only control-plane nodes have a
// manifest, and the agent should run there only.)
func manifestReadable(m Manifest, _ time.Time) []finding.Result {
	at := finding.File(m.Path)
	switch {
	case m.Process != "":
		return notApplicable(m.Process + " runs the kube-apiserver in its own process, so there is no static Pod")
	case len(m.Layouts) > 0:
		return single(finding.LayoutUnknown, finding.Subject{Kind: finding.KindFile, Name: "static Pod manifest"},
			"it is not known where this node has the files of its kube-apiserver, because it matches several layouts: "+
				strings.Join(m.Layouts, ", "),
			"set --layout (chart: nodeagent.layout) to the right one")
	case m.KubeletConfig.Err != nil:
		return []finding.Result{*m.KubeletConfig.Result()}
	case m.Path == "":
		return single(finding.NotChecked, finding.Subject{Kind: finding.KindFile, Name: "static Pod manifest"},
			"the static Pod manifest was not read, because flags name the certificate and key files",
			"remove the flags --kubelet-client-dir, --kubelet-client-certificate and --kubelet-client-key")
	case errors.Is(m.ReadErr, fs.ErrNotExist):
		return single(finding.ManifestMissing, at,
			"it is not known which files the kube-apiserver uses, "+
				"because no static Pod manifest of a kube-apiserver was found: "+m.searched(),
			"run the agent on control-plane nodes only, or set --kubelet-client-dir (chart: nodeagent.clientDirectory) "+
				"to the directory of the certificate and key")
	case m.ReadErr != nil && m.Path == m.Directory:
		return unreadableDirectory(at, m.ReadErr)
	case m.ReadErr != nil:
		return unreadableManifest(at, "the kube-apiserver's manifest", m.ReadErr)
	case m.ParseErr != nil && m.Path == m.Directory:
		return single(finding.ManifestUnparsable, at,
			"the kubelet cannot read static Pods from its staticPodPath: "+oneLine(m.ParseErr),
			"correct staticPodPath in the kubelet's configuration, or put a directory with the manifests there")
	case m.ParseErr != nil:
		return single(finding.ManifestUnparsable, at,
			"no other file defines a kube-apiserver, and the kubelet cannot create a Pod from this one: "+oneLine(m.ParseErr),
			"find out what wrote it, and restore the manifest")
	case len(m.Containers) > 0:
		return single(finding.ManifestUnparsable, at,
			fmt.Sprintf("%d containers of the Pod in this file may be the kube-apiserver (%s), "+
				"so it is not known which files the kube-apiserver uses",
				len(m.Containers), strings.Join(quoteNames(m.Containers), ", ")),
			"find out what wrote it, and keep only one container in the Pod whose name or command is kube-apiserver")
	case len(m.Assumptions) > 0:
		return []finding.Result{{Subject: at, Outcome: finding.Pass, Message: Assuming(m.Assumptions...)}}
	}
	return nil
}

// searched says where no manifest was found.
func (m Manifest) searched() string {
	switch {
	case m.Directory == "":
		return "the kubelet has no staticPodPath configured"
	case m.Path != m.Directory:
		return m.Directory + " contains no such manifest"
	case len(m.FileNames) == 0:
		return m.Directory + " does not exist or is empty"
	}
	return m.Directory + " contains only other files (" + strings.Join(quoteNames(m.FileNames), ", ") + ")"
}

func quoteNames(names []string) []string {
	quoted := make([]string, len(names))
	for i, name := range names {
		quoted[i] = quoteName(name)
	}
	return quoted
}

// Assuming joins assumptions, each the rest of a sentence, into one sentence.
func Assuming(assumptions ...string) string {
	return "assuming that " + strings.Join(assumptions, "; and that ")
}

// manifestSingle: only one file of the directory defines the kube-apiserver's Pod. If two Pods have the same name, the
// kubelet runs the last one at each listing (every 20 s by default), the one that was written last in between, and
// none until the next listing after either file is deleted (Kubernetes pkg/kubelet/config/file.go and file_linux.go).
// So two files are a violation, whichever Pod runs. Two kube-apiservers with different names both run.
func manifestSingle(m Manifest, _ time.Time) []finding.Result {
	switch {
	case len(m.Duplicates) > 0:
		last := len(m.Duplicates) - 1
		return single(finding.DuplicateStaticPod, finding.File(m.Directory),
			fmt.Sprintf("more than one file defines the kube-apiserver's Pod, so it is not certain which one runs: %s and %s",
				strings.Join(m.Duplicates[:last], ", "), m.Duplicates[last]),
			"move all but the right file out of the directory; the kubelet runs backup files there, too, "+
				"whatever their file extension")
	case len(m.Unread) > 0:
		return unreadableManifest(finding.File(m.Unread[0].Path),
			"a file that may be another manifest of the kube-apiserver", m.Unread[0].Err)
	}
	return nil
}

// unreadableDirectory is [unreadable] for the kubelet's static Pod path, where no manifest was found yet.
func unreadableDirectory(at finding.Subject, err error) []finding.Result {
	results := unreadable(at, "the kubelet's static Pod path", err)
	if beyondLimit(err) {
		results[0].Remedy = "move files that are not manifests out of the directory: " +
			"it exceeds a limit of the agent that the kubelet does not have"
	}
	return results
}

// unreadableManifest is [unreadable] for a manifest. The remedy differs if the file exceeds a
// limit of the agent, which reads less than the kubelet does.
func unreadableManifest(at finding.Subject, what string, err error) []finding.Result {
	results := unreadable(at, what, err)
	if beyondLimit(err) {
		results[0].Remedy = "find out what wrote it, and replace it with a manifest of the usual format and size: " +
			"it exceeds a limit of the agent that the kubelet does not have"
	}
	return results
}

// beyondLimit reports whether the file is visible and only exceeds a limit of the agent: no permission and no mount is
// missing, and no system call failed.
func beyondLimit(err error) bool {
	_, systemCall := errors.AsType[syscall.Errno](err)
	_, notMounted := errors.AsType[*NotMountedError](err)
	return !systemCall && !notMounted && !errors.Is(err, fs.ErrPermission)
}
