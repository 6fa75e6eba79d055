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

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/layout"
)

// pairNames are the file names, without .crt and .key, of the kubelet client pair in all layouts.
func pairNames() []string {
	names := []string{"kubelet-client"}
	for _, kind := range layout.Table() {
		for _, name := range kind.PairNames {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names
}

// fromFiles returns what is found with the given certificate and key, paths on the host.
func fromFiles(host fs.FS, certificate, key string) Found {
	found := Found{Certificate: File{Host: path.Clean("/" + certificate)}, Key: File{Host: path.Clean("/" + key)}}
	found.How = "files " + found.Certificate.Host + " and " + found.Key.Host +
		" (from --kubelet-client-certificate and --kubelet-client-key)"
	found.setDefaultClientCA(host)
	return found
}

// setDefaultClientCA sets the first client CA bundle of [ClientCAs] that exists, or else the first
// one that cannot be read. If none exists, it is not known where this host has its bundle.
func (l *Found) setDefaultClientCA(host fs.FS) {
	l.tried = append(l.tried, ClientCAs()...)
	for _, ca := range ClientCAs() {
		switch _, err := fs.Stat(host, name(ca)); {
		case err == nil:
			l.ClientCA = ca
			return
		case l.ClientCA == "" && !errors.Is(err, fs.ErrNotExist):
			l.ClientCA = ca
		}
	}
}

// ClientCAs returns the client CA bundles of the layouts in /etc/kubernetes. They are tried if the layout is not known.
func ClientCAs() []string {
	var bundles []string
	for _, kind := range layout.Table() {
		if kind.StaticPods == layout.ManifestDirectory {
			bundles = append(bundles, kind.ClientCA)
		}
	}
	return bundles
}

// fromDirectory returns what is found with the certificate and key in a directory. If one of two
// files with a known name exists, the path of the other one is known, too. In an empty or missing
// directory both files are missing. If there is no known name, or more than one, it is not known
// which files are used.
func fromDirectory(host fs.FS, directory string) Found {
	found := Found{PairDirectory: directory}
	for _, base := range pairNames() {
		found.tried = append(found.tried, path.Join(directory, base+".crt"), path.Join(directory, base+".key"))
	}
	found.setDefaultClientCA(host)
	entries, err := fs.ReadDir(host, name(directory))
	// Skip the names with which the kubelet and others swap the files of a directory.
	entries = slices.DeleteFunc(entries, func(e fs.DirEntry) bool { return strings.HasPrefix(e.Name(), ".") })
	if err == nil && len(entries) == 0 {
		err = &fs.PathError{Op: "open", Path: directory, Err: fmt.Errorf("the directory is empty: %w", fs.ErrNotExist)}
	}
	if err != nil {
		found.Certificate, found.Key = File{Configured: directory, Err: err}, File{Configured: directory, Err: err}
		return found
	}
	has := func(name string) bool {
		return slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() == name })
	}
	known := slices.DeleteFunc(pairNames(), func(base string) bool { return !has(base+".crt") && !has(base+".key") })
	switch len(known) {
	case 0:
		found.PairErr = errors.New("none of its files has a known name, such as tls.crt or tls.key: " + names(entries))
	case 1:
		found.Certificate = File{Host: path.Join(directory, known[0]+".crt")}
		found.Key = File{Host: path.Join(directory, known[0]+".key")}
	default:
		found.PairErr = fmt.Errorf("its files match more than one known name (%s): %s",
			strings.Join(known, ", "), names(entries))
	}
	return found
}

const (
	// maxNames bounds the number of file names in a message.
	maxNames = 10
	// maxNameBytes bounds each of these names.
	maxNameBytes = 64
)

// names lists the file names of a directory for a message.
func names(entries []fs.DirEntry) string {
	var all []string
	for _, entry := range entries[:min(len(entries), maxNames)] {
		name := entry.Name()
		if len(name) > maxNameBytes {
			name = strings.ToValidUTF8(name[:maxNameBytes], "") + "…"
		}
		all = append(all, strconv.Quote(name))
	}
	text := strings.Join(all, ", ")
	if more := len(entries) - maxNames; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}
