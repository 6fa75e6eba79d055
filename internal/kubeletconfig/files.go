// SPDX-License-Identifier: Apache-2.0

package kubeletconfig

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/plainyaml"
)

const (
	apiVersion = "kubelet.config.k8s.io/v1beta1"
	kind       = "KubeletConfiguration"

	dropInExtension = ".conf"
)

// header has the apiVersion and kind of a file.
type header struct{ apiVersion, kind string }

func headerOf(data []byte) (h header, err error) {
	h.apiVersion, h.kind, err = plainyaml.TypeMeta(data)
	return h, err
}

// isKubeconfig reports whether a file is a kubeconfig. kubeadm has one at the path of
// OpenShift's kubelet configuration.
func isKubeconfig(data []byte) bool {
	h, err := headerOf(data)
	return err == nil && h == header{"v1", "Config"}
}

func (h header) check() error {
	if (h != header{apiVersion, kind}) {
		return fmt.Errorf("apiVersion is %.64q and kind is %.64q, expected %s and %s: "+
			"the kubelet does not start with this file", h.apiVersion, h.kind, apiVersion, kind)
	}
	return nil
}

// parseFile parses the configuration file of --config. Like the kubelet, which only warns, it
// accepts unknown and duplicate fields (Kubernetes pkg/kubelet/kubeletconfig/util/codec,
// DecodeKubeletConfiguration). A relative path is relative to the file's directory
// (configfiles.go, resolveRelativePaths).
func (r *reader) parseFile(at string, data []byte) error {
	var file settings
	if err := plainyaml.Unmarshal(data, &file); err != nil {
		return ProblemError{At: at, Err: parseError(err)}
	}
	h, err := headerOf(data)
	if err != nil {
		return ProblemError{At: at, Err: parseError(err)}
	}
	if err := h.check(); err != nil {
		return ProblemError{At: at, Err: err}
	}
	for _, p := range []*string{&file.StaticPodPath, &file.Authentication.X509.ClientCAFile} {
		if *p != "" && !path.IsAbs(*p) {
			*p = path.Join(path.Dir(at), *p)
		}
	}
	r.merged, r.at, r.config.Seen = file, at, true
	return nil
}

// parseError is the error of a file that could not be parsed. It does not quote the file.
func parseError(err error) error {
	return fmt.Errorf("parse as %s: %s", kind, strings.Join(strings.Fields(plainyaml.Explain(err).Error()), " "))
}

// mergeDirectory merges the drop-ins of a directory one after the other, as the kubelet does
// (Kubernetes cmd/kubelet/app/server.go, mergeKubeletConfigurations): all files below it
// whose names end in ".conf", in the order of filepath.WalkDir, as JSON merge patches of the
// file's settings. The kubelet does not start if it cannot read or parse one of them. It
// does not follow a directory that is a symlink, unless its path ends in a slash.
func (r *reader) mergeDirectory(directory string) error {
	clean := path.Clean(directory)
	if !strings.HasSuffix(directory, "/") {
		link, err := r.isSymlink(clean)
		if err != nil {
			return ProblemError{At: clean, Err: err, Unread: true}
		}
		if link {
			return nil
		}
	}
	base, err := json.Marshal(r.merged)
	if err != nil {
		return ProblemError{At: clean, Err: err}
	}
	var merged any
	if err := plainyaml.UnmarshalJSON(base, &merged); err != nil {
		return ProblemError{At: clean, Err: err}
	}
	left := MaxDropIns
	if err := r.mergeBelow(clean, &merged, &left); err != nil {
		return err
	}
	after, err := decode(merged)
	if err != nil {
		return ProblemError{At: r.at, Err: parseError(err)}
	}
	r.merged = after
	return nil
}

// decode converts merged settings with encoding/json, as the kubelet does. So the case of
// field names does not matter.
func decode(merged any) (settings, error) {
	text, err := json.Marshal(merged)
	if err != nil {
		return settings{}, err
	}
	var after settings
	err = json.Unmarshal(text, &after)
	return after, err
}

// isSymlink reports whether a path is a symlink.
func (r *reader) isSymlink(at string) (bool, error) {
	r.config.Listed = append(r.config.Listed, at)
	if at == "/" {
		return false, nil
	}
	info, err := fs.Lstat(r.host, name(at))
	if err != nil {
		return false, err
	}
	return info.Mode()&fs.ModeSymlink != 0, nil
}

func (r *reader) mergeBelow(directory string, merged *any, left *int) error {
	r.config.Listed = append(r.config.Listed, directory)
	entries, err := fs.ReadDir(r.host, name(directory))
	if err != nil {
		return ProblemError{At: directory, Err: err, Unread: true}
	}
	if *left -= len(entries); *left < 0 {
		return ProblemError{At: directory, Unread: true, Err: fmt.Errorf(
			"this directory and the others with drop-ins have more than %d entries in total, which is the limit", MaxDropIns)}
	}
	for _, entry := range entries {
		at := path.Join(directory, entry.Name())
		switch {
		case entry.IsDir():
			if err := r.mergeBelow(at, merged, left); err != nil {
				return err
			}
		case path.Ext(entry.Name()) == dropInExtension:
			if err := r.mergeFile(at, merged); err != nil {
				return err
			}
		}
	}
	return nil
}

// mergeFile merges one drop-in. A duplicate field is an error, as for the kubelet.
func (r *reader) mergeFile(at string, merged *any) error {
	data, err := r.file(at)
	if err != nil {
		return ProblemError{At: at, Err: err, Unread: true}
	}
	var patch map[string]any
	if err := plainyaml.UnmarshalStrict(data, &patch); err != nil {
		return ProblemError{At: at, Err: parseError(err)}
	}
	var h header // of a drop-in, case-sensitive (apimachinery's Unstructured)
	h.apiVersion, _ = patch["apiVersion"].(string)
	h.kind, _ = patch["kind"].(string)
	if err := h.check(); err != nil {
		return ProblemError{At: at, Err: err}
	}
	*merged = mergePatch(*merged, patch)
	r.at = at
	after, err := decode(*merged)
	if err != nil {
		return nil //nolint:nilerr // a later file may fix it; the kubelet decodes only the final state
	}
	if after.StaticPodPath != r.merged.StaticPodPath {
		r.config.StaticPodPathAt = at
	}
	if after.Authentication != r.merged.Authentication {
		r.config.ClientCAAt = at
	}
	if after.ReadOnlyPort != r.merged.ReadOnlyPort {
		r.config.ReadOnlyPortAt = at
	}
	r.merged = after
	return nil
}

// mergePatch implements RFC 7386.
func mergePatch(target, patch any) any {
	changes, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	into, ok := target.(map[string]any)
	if !ok {
		into = map[string]any{}
	}
	for key, change := range changes {
		if change == nil {
			delete(into, key)
			continue
		}
		into[key] = mergePatch(into[key], change)
	}
	return into
}
