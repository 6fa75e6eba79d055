// SPDX-License-Identifier: Apache-2.0

package staticpod_test

import (
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/staticpod"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/messages"
)

// quoted matches the names in an error. Tests compare these; the sentence is in docs/messages.md.
var quoted = regexp.MustCompile(`"(?:[^"\\]|\\.)*"`)

// TestDirectoryNames: the certificate and key in a directory, by the names of its files.
func TestDirectoryNames(t *testing.T) {
	page := messages.Record(t, "errors of directories")
	type seen struct {
		Certificate, Key string
		// Names are the quoted file names in the error.
		Names string
		// Missing: both files are missing, whatever their names.
		Missing bool
	}
	many := []string{strings.Repeat("long", 30)}
	for i := range 15 {
		many = append(many, fmt.Sprintf("file-%02d", i))
	}
	cases := map[string]struct {
		files []string
		want  seen
	}{
		"a Secret":              {[]string{"tls.crt", "tls.key", "ca.crt"}, seen{Certificate: "/d/tls.crt", Key: "/d/tls.key"}},
		"a mounted Secret":      {[]string{"tls.crt", "tls.key", "..data/client.crt"}, seen{Certificate: "/d/tls.crt", Key: "/d/tls.key"}},
		"kubeadm":               {[]string{"apiserver-kubelet-client.crt", "apiserver-kubelet-client.key", "ca.crt", "ca.key"}, seen{Certificate: "/d/apiserver-kubelet-client.crt", Key: "/d/apiserver-kubelet-client.key"}},
		"MicroShift":            {[]string{"client.crt", "client.key"}, seen{Certificate: "/d/client.crt", Key: "/d/client.key"}},
		"OpenShift's bootstrap": {[]string{"kube-apiserver-to-kubelet-client.crt", "kube-apiserver-to-kubelet-client.key"}, seen{Certificate: "/d/kube-apiserver-to-kubelet-client.crt", Key: "/d/kube-apiserver-to-kubelet-client.key"}},
		"k3s":                   {[]string{"client-kube-apiserver.crt", "client-kube-apiserver.key", "client-admin.crt", "client-admin.key"}, seen{Certificate: "/d/client-kube-apiserver.crt", Key: "/d/client-kube-apiserver.key"}},
		"kubelet-client":        {[]string{"kubelet-client.crt", "kubelet-client.key"}, seen{Certificate: "/d/kubelet-client.crt", Key: "/d/kubelet-client.key"}},
		"MicroShift, no key":    {[]string{"client.crt"}, seen{Certificate: "/d/client.crt", Key: "/d/client.key"}},
		"MicroShift, key alone": {[]string{"client.key", "other.crt"}, seen{Certificate: "/d/client.crt", Key: "/d/client.key"}},
		"names of its own":      {[]string{"kubelet.pem", "kubelet-key.pem"}, seen{Names: `"kubelet-key.pem" "kubelet.pem"`}},
		"names in another case": {[]string{"TLS.crt", "TLS.key"}, seen{Names: `"TLS.crt" "TLS.key"`}},
		"a CA alone":            {[]string{"ca.crt"}, seen{Names: `"ca.crt"`}},
		"many, and a long name": {many, seen{Names: `"file-00" "file-01" "file-02" "file-03" "file-04" "file-05" "file-06" "file-07" "file-08" "file-09"`}},
		"a name that is long":   {many[:1], seen{Names: `"` + strings.Repeat("long", 16) + `…"`}},
		"a name of two lines":   {[]string{"a\nb"}, seen{Names: `"a\nb"`}},
		"two pairs":             {[]string{"tls.crt", "tls.key", "client.crt", "client.key"}, seen{Names: `"client.crt" "client.key" "tls.crt" "tls.key"`}},
		"halves of two pairs":   {[]string{"tls.crt", "client.key"}, seen{Names: `"client.key" "tls.crt"`}},
		"hidden files alone":    {[]string{".gitkeep"}, seen{Missing: true}},
		"no such directory":     {nil, seen{Missing: true}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			files := map[string]string{}
			for _, file := range c.files {
				files["/d/"+file] = ""
			}
			layout := staticpod.Discover(host(files), staticpod.Given{Directory: "/d"})
			page.Error(name, layout.PairErr)
			got := seen{Certificate: layout.Certificate.Host, Key: layout.Key.Host}
			if layout.PairErr != nil {
				got.Names = strings.Join(quoted.FindAllString(layout.PairErr.Error(), -1), " ")
			}
			got.Missing = errors.Is(layout.Certificate.Err, fs.ErrNotExist) && errors.Is(layout.Key.Err, fs.ErrNotExist) &&
				layout.Certificate.Configured == "/d" && layout.Key.Configured == "/d"
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("certificate and key (-want +got):\n%s", d)
			}
			if layout.PairDirectory != "/d" {
				t.Errorf("the directory: got %q", layout.PairDirectory)
			}
		})
	}
}

// TestFromFiles: files that are named one by one are used, whether they exist or not.
func TestFromFiles(t *testing.T) {
	layout := staticpod.Discover(host(map[string]string{kubeadmCA: ""}),
		staticpod.Given{Certificate: "/a/./one.pem", Key: "/b/two.pem"})
	want := []string{"/a/one.pem", "/b/two.pem", kubeadmCA, openShiftCA}
	if d := cmp.Diff(sorted(want...), pathsOf(layout)); d != "" {
		t.Errorf("paths (-want +got):\n%s", d)
	}
	if d := cmp.Diff([]string{"/a/one.pem", "/b/two.pem"}, absolute.FindAllString(layout.How, -1)); d != "" ||
		layout.Manifest != "" ||
		layout.ConfigAt != "" {
		t.Errorf("got %+v\n%s", layout, d)
	}
}
