// SPDX-License-Identifier: Apache-2.0

package staticpod_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/kubeapiserver"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/staticpod"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/openshift"
)

// seen is a layout as people could read it. A file is "host" or "host (as
// configured)" or "configured: error".
type seen struct {
	How, Manifest, ReadErr, ParseErr, Revision string
	ConfigAt, ConfigErr                        string
	Certificate, Key, KubeletCA, ClientCA      string
}

func see(l staticpod.Layout) seen {
	return seen{
		How: l.How, Manifest: l.Manifest, ReadErr: text(l.ManifestReadErr), ParseErr: text(l.ManifestParseErr), Revision: l.Revision,
		ConfigAt: l.ConfigAt, ConfigErr: text(l.ConfigErr),
		Certificate: seeFile(l.Certificate), Key: seeFile(l.Key), KubeletCA: seeFile(l.KubeletCA), ClientCA: l.ClientCA,
	}
}

func seeFile(f staticpod.File) string {
	switch {
	case f.Err != nil:
		return f.Host + f.Configured + ": " + f.Err.Error()
	case f.Configured == "" || f.Configured == f.Host:
		return f.Host
	}
	return f.Host + " (" + f.Configured + ")"
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// host is a host's file system with a line of text in each file.
func host(files map[string]string) fstest.MapFS {
	system := fstest.MapFS{}
	for at, data := range files {
		system[strings.TrimPrefix(at, "/")] = &fstest.MapFile{Data: []byte(data), Mode: 0o600}
	}
	return system
}

// manifest is a kube-apiserver's static pod that is started with words, /host/a
// mounted at /a and /host/b at /b, changed as wanted.
func manifest(t testing.TB, change func(pod *corev1.Pod), words ...string) string {
	t.Helper()
	pod := &corev1.Pod{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		Spec: corev1.PodSpec{
			Containers: []corev1.Container{{
				Name: "kube-apiserver", Command: append([]string{"kube-apiserver"}, words...),
				VolumeMounts: []corev1.VolumeMount{{Name: "a", MountPath: "/a"}, {Name: "b", MountPath: "/b"}},
			}},
			Volumes: []corev1.Volume{
				hostPath("a", "/host/a"), hostPath("b", "/host/b"),
				{Name: "scratch", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
			},
		},
	}
	if change != nil {
		change(pod)
	}
	data, err := json.Marshal(pod)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func hostPath(name, at string) corev1.Volume {
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: at}}}
}

// Words of a command line.
const (
	certificateFlag = "--kubelet-client-certificate="
	keyFlag         = "--kubelet-client-key="
	caFlag          = "--kubelet-certificate-authority="
	configFlag      = "--openshift-config="
)

// opened remembers what was opened.
type opened struct {
	fs.FS
	names []string
}

func (o *opened) Open(name string) (fs.File, error) {
	o.names = append(o.names, name)
	return o.FS.Open(name)
}

// failing cannot read one file.
type failing struct {
	fs.FS
	name string
	err  error
}

func (f failing) Open(name string) (fs.File, error) {
	if name == f.name {
		return nil, f.err
	}
	return f.FS.Open(name)
}

var errBoom = errors.New("boom")

// TestDiscoverReleases reads hosts as the releases lay them out.
func TestDiscoverReleases(t *testing.T) {
	const (
		resources = "/etc/kubernetes/static-pod-resources"
		live      = resources + "/kube-apiserver-pod-7"
		config    = live + "/configmaps/config/config.yaml"
		how       = "manifest /etc/kubernetes/manifests/kube-apiserver-pod.yaml, configuration " + config
		kubeletCA = live + "/configmaps/kubelet-serving-ca/ca-bundle.crt (" + resources + "/configmaps/kubelet-serving-ca/ca-bundle.crt)"
		inLegacy  = resources + "/secrets/kubelet-client"
		inCurrent = "/etc/kubernetes/static-pod-certs/secrets/kubelet-client"
	)
	cases := map[openshift.Layout]struct {
		want  seen
		https string // kubelet-https as configured
		paths []string
	}{
		openshift.Current: {
			want: seen{
				How: how, Manifest: staticpod.OpenShiftManifest, Revision: "7", ConfigAt: config,
				Certificate: resources + "/kube-apiserver-certs/secrets/kubelet-client/tls.crt (" + inCurrent + "/tls.crt)",
				Key:         resources + "/kube-apiserver-certs/secrets/kubelet-client/tls.key (" + inCurrent + "/tls.key)",
				KubeletCA:   kubeletCA, ClientCA: "/etc/kubernetes/kubelet-ca.crt",
			},
			paths: []string{
				staticpod.OpenShiftManifest, staticpod.KubeadmManifest, config,
				resources + "/kube-apiserver-certs/secrets/kubelet-client/tls.crt", resources + "/kube-apiserver-certs/secrets/kubelet-client/tls.key",
				live + "/configmaps/kubelet-serving-ca/ca-bundle.crt", "/etc/kubernetes/kubelet-ca.crt",
			},
		},
		openshift.Legacy: {
			want: seen{
				How: how, Manifest: staticpod.OpenShiftManifest, Revision: "7", ConfigAt: config,
				Certificate: live + "/secrets/kubelet-client/tls.crt (" + inLegacy + "/tls.crt)",
				Key:         live + "/secrets/kubelet-client/tls.key (" + inLegacy + "/tls.key)",
				KubeletCA:   kubeletCA, ClientCA: "/etc/kubernetes/kubelet-ca.crt",
			},
			https: "true",
			paths: []string{
				staticpod.OpenShiftManifest, staticpod.KubeadmManifest, config,
				live + "/secrets/kubelet-client/tls.crt", live + "/secrets/kubelet-client/tls.key",
				live + "/configmaps/kubelet-serving-ca/ca-bundle.crt", "/etc/kubernetes/kubelet-ca.crt",
			},
		},
		openshift.Oldest: {
			want: seen{
				How: how, Manifest: staticpod.OpenShiftManifest, Revision: "7", ConfigAt: config,
				Certificate: live + "/secrets/kubelet-client/tls.crt (" + inLegacy + "/tls.crt)",
				Key:         live + "/secrets/kubelet-client/tls.key (" + inLegacy + "/tls.key)",
				KubeletCA:   kubeletCA, ClientCA: "/etc/kubernetes/kubelet-ca.crt",
			},
			paths: []string{
				staticpod.OpenShiftManifest, staticpod.KubeadmManifest, config,
				live + "/secrets/kubelet-client/tls.crt", live + "/secrets/kubelet-client/tls.key",
				live + "/configmaps/kubelet-serving-ca/ca-bundle.crt", "/etc/kubernetes/kubelet-ca.crt",
			},
		},
		openshift.Kubeadm: {
			want: seen{
				How: "manifest /etc/kubernetes/manifests/kube-apiserver.yaml", Manifest: staticpod.KubeadmManifest, ConfigAt: staticpod.KubeadmManifest,
				Certificate: "/etc/kubernetes/pki/apiserver-kubelet-client.crt", Key: "/etc/kubernetes/pki/apiserver-kubelet-client.key",
				ClientCA: "/etc/kubernetes/pki/ca.crt",
			},
			paths: []string{
				staticpod.OpenShiftManifest, staticpod.KubeadmManifest,
				"/etc/kubernetes/pki/apiserver-kubelet-client.crt", "/etc/kubernetes/pki/apiserver-kubelet-client.key", "/etc/kubernetes/pki/ca.crt",
			},
		},
	}
	for release, c := range cases {
		t.Run(string(release), func(t *testing.T) {
			root := t.TempDir()
			// Revisions before and after the live one lie beside it.
			for _, revision := range []int{6, 8, 7} {
				if _, err := openshift.Write(root, release, openshift.Files{Revision: revision}); err != nil {
					t.Fatal(err)
				}
			}
			host := &opened{FS: os.DirFS(root)}
			layout := staticpod.Discover(host, "")
			if d := cmp.Diff(c.want, see(layout)); d != "" {
				t.Errorf("layout (-want +got):\n%s", d)
			}
			if d := cmp.Diff(c.paths, layout.Paths()); d != "" {
				t.Errorf("paths (-want +got):\n%s", d)
			}
			if got, _ := layout.Config.Value(kubeapiserver.KubeletHTTPS); got != c.https {
				t.Errorf("kubelet-https: got %q, want %q", got, c.https)
			}
			for _, name := range host.names {
				if strings.Contains(name, "kube-apiserver-pod-6") || strings.Contains(name, "kube-apiserver-pod-8") {
					t.Errorf("another revision was looked at: %s", name)
				}
			}
		})
	}
}

// decisive are the paths that decide what a directory holds, sorted.
func decisive(directory string) []string {
	paths := []string{staticpod.OpenShiftClientCA, staticpod.KubeadmClientCA}
	for _, name := range []string{"tls.crt", "tls.key", "apiserver-kubelet-client.crt", "apiserver-kubelet-client.key"} {
		paths = append(paths, path.Join(directory, name))
	}
	slices.Sort(paths)
	return paths
}

// TestDiscoverDirectory: the pair of a directory that was given is taken
// without a look at any manifest.
func TestDiscoverDirectory(t *testing.T) {
	secret := map[string]string{"/pki/tls.crt": "", "/pki/tls.key": ""}
	kubeadm := map[string]string{"/pki/apiserver-kubelet-client.crt": "", "/pki/apiserver-kubelet-client.key": "", "/pki/apiserver.crt": ""}
	with := func(files map[string]string, more ...string) map[string]string {
		all := map[string]string{}
		maps.Copy(all, files)
		for _, at := range more {
			all[at] = ""
		}
		return all
	}
	cases := map[string]struct {
		files     map[string]string
		directory string
		want      seen
	}{
		"names of a Secret": {
			files: with(secret, staticpod.OpenShiftClientCA), directory: "/pki",
			want: seen{How: "directory /pki, as told", Certificate: "/pki/tls.crt", Key: "/pki/tls.key", ClientCA: staticpod.OpenShiftClientCA},
		},
		"no CA": {
			files: with(secret), directory: "/pki",
			want: seen{How: "directory /pki, as told", Certificate: "/pki/tls.crt", Key: "/pki/tls.key", ClientCA: staticpod.OpenShiftClientCA},
		},
		"kubeadm's key alone": {
			files: map[string]string{"/pki/apiserver-kubelet-client.key": "", staticpod.KubeadmClientCA: ""}, directory: "/pki",
			want: seen{
				How: "directory /pki, as told", Certificate: "/pki/apiserver-kubelet-client.crt", Key: "/pki/apiserver-kubelet-client.key",
				ClientCA: staticpod.KubeadmClientCA,
			},
		},
		"names of kubeadm": {
			files: with(kubeadm, staticpod.KubeadmClientCA), directory: "/pki",
			want: seen{
				How: "directory /pki, as told", Certificate: "/pki/apiserver-kubelet-client.crt", Key: "/pki/apiserver-kubelet-client.key",
				ClientCA: staticpod.KubeadmClientCA,
			},
		},
		"both, OpenShift's CA first": {
			files: with(secret, "/pki/apiserver-kubelet-client.crt", staticpod.KubeadmClientCA, staticpod.OpenShiftClientCA), directory: "/pki",
			want: seen{
				How: "directory /pki, as told", Certificate: "/pki/apiserver-kubelet-client.crt", Key: "/pki/apiserver-kubelet-client.key",
				ClientCA: staticpod.OpenShiftClientCA,
			},
		},
		"not there": {
			files: with(nil, staticpod.OpenShiftClientCA), directory: "/none",
			want: seen{How: "directory /none, as told", Certificate: "/none/tls.crt", Key: "/none/tls.key", ClientCA: staticpod.OpenShiftClientCA},
		},
		"no slash in front, dots": {
			files: with(secret, staticpod.OpenShiftClientCA), directory: "x/../pki/",
			want: seen{How: "directory /pki, as told", Certificate: "/pki/tls.crt", Key: "/pki/tls.key", ClientCA: staticpod.OpenShiftClientCA},
		},
		"out of the root": {
			files: with(secret, staticpod.OpenShiftClientCA), directory: "/../../pki",
			want: seen{How: "directory /pki, as told", Certificate: "/pki/tls.crt", Key: "/pki/tls.key", ClientCA: staticpod.OpenShiftClientCA},
		},
		"the root itself": {
			files: with(map[string]string{"/tls.crt": "", "/tls.key": ""}, staticpod.OpenShiftClientCA), directory: "/",
			want: seen{How: "directory /, as told", Certificate: "/tls.crt", Key: "/tls.key", ClientCA: staticpod.OpenShiftClientCA},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			c.files[staticpod.OpenShiftManifest] = manifest(t, nil, certificateFlag+"/a/tls.crt")
			layout := staticpod.Discover(host(c.files), c.directory)
			if d := cmp.Diff(c.want, see(layout)); d != "" {
				t.Errorf("layout (-want +got):\n%s", d)
			}
			paths := layout.Paths()
			slices.Sort(paths)
			if d := cmp.Diff(decisive(path.Dir(layout.Certificate.Host)), paths); d != "" {
				t.Errorf("paths (-want +got):\n%s", d)
			}
		})
	}
}

// TestDiscoverManifest: which manifest is taken, what is wrong with it, and
// what is taken without one.
func TestDiscoverManifest(t *testing.T) {
	const (
		cis     = staticpod.CISDirectory
		nothing = "no usable manifest, no directory " + cis
		want    = "directory of the CIS text, for want of a usable manifest"
	)
	pair := []string{certificateFlag + "/a/tls.crt", keyFlag + "/a/tls.key"}
	usable := manifest(t, nil, pair...)
	unusable := func(at, why string) seen {
		return seen{How: nothing, Manifest: at, ParseErr: why}
	}
	cases := map[string]struct {
		files map[string]string
		want  seen
		paths []string // nil for those of TestPaths
	}{
		"OpenShift's": {
			files: map[string]string{staticpod.OpenShiftManifest: usable},
			want: seen{
				How: "manifest " + staticpod.OpenShiftManifest, Manifest: staticpod.OpenShiftManifest, ConfigAt: staticpod.OpenShiftManifest,
				Certificate: "/host/a/tls.crt (/a/tls.crt)", Key: "/host/a/tls.key (/a/tls.key)", ClientCA: staticpod.KubeadmClientCA,
			},
			paths: []string{staticpod.OpenShiftManifest, staticpod.KubeadmManifest, "/host/a/tls.crt", "/host/a/tls.key", staticpod.KubeadmClientCA},
		},
		"both: OpenShift's": {
			files: map[string]string{staticpod.OpenShiftManifest: usable, staticpod.KubeadmManifest: manifest(t, nil, certificateFlag+"/b/tls.crt")},
			want: seen{
				How: "manifest " + staticpod.OpenShiftManifest, Manifest: staticpod.OpenShiftManifest, ConfigAt: staticpod.OpenShiftManifest,
				Certificate: "/host/a/tls.crt (/a/tls.crt)", Key: "/host/a/tls.key (/a/tls.key)", ClientCA: staticpod.KubeadmClientCA,
			},
			paths: []string{staticpod.OpenShiftManifest, staticpod.KubeadmManifest, "/host/a/tls.crt", "/host/a/tls.key", staticpod.KubeadmClientCA},
		},
		"OpenShift's is rubbish: kubeadm's is not taken instead": {
			files: map[string]string{staticpod.OpenShiftManifest: `{"kind":"Job"}`, staticpod.KubeadmManifest: usable},
			want:  unusable(staticpod.OpenShiftManifest, "its kind is another one than Pod"),
		},
		"no container": {
			files: map[string]string{staticpod.KubeadmManifest: manifest(t, func(pod *corev1.Pod) { pod.Spec.Containers = nil })},
			want:  unusable(staticpod.KubeadmManifest, "it has no container named kube-apiserver"),
		},
		"another container": {
			files: map[string]string{staticpod.KubeadmManifest: manifest(t, func(pod *corev1.Pod) { pod.Spec.Containers[0].Name = "kube-apiserver-cert-syncer" })},
			want:  unusable(staticpod.KubeadmManifest, "it has no container named kube-apiserver"),
		},
		"an init container only": {
			files: map[string]string{staticpod.KubeadmManifest: manifest(t, func(pod *corev1.Pod) {
				pod.Spec.InitContainers, pod.Spec.Containers = pod.Spec.Containers, nil
			})},
			want: unusable(staticpod.KubeadmManifest, "it has no container named kube-apiserver"),
		},
		"two containers": {
			files: map[string]string{staticpod.KubeadmManifest: manifest(t, func(pod *corev1.Pod) {
				pod.Spec.Containers = append(pod.Spec.Containers, pod.Spec.Containers[0])
			})},
			want: unusable(staticpod.KubeadmManifest, "it has two containers named kube-apiserver"),
		},
		"empty": {
			files: map[string]string{staticpod.KubeadmManifest: ""},
			want:  unusable(staticpod.KubeadmManifest, "its kind is another one than Pod"),
		},
		"too large": {
			files: map[string]string{staticpod.KubeadmManifest: usable + strings.Repeat(" ", staticpod.MaxManifestBytes)},
			want:  unusable(staticpod.KubeadmManifest, "it has "+number(len(usable)+staticpod.MaxManifestBytes)+" bytes, more than 1048576"),
		},
		"nothing at all": {
			want: seen{How: nothing, Manifest: staticpod.OpenShiftManifest, ReadErr: "file does not exist"},
		},
		"directory of the CIS text without a manifest": {
			files: map[string]string{cis + "/tls.crt": "", cis + "/tls.key": "", staticpod.OpenShiftClientCA: ""},
			want: seen{
				How: want, Manifest: staticpod.OpenShiftManifest, ReadErr: "file does not exist",
				Certificate: cis + "/tls.crt", Key: cis + "/tls.key", ClientCA: staticpod.OpenShiftClientCA,
			},
			paths: []string{staticpod.OpenShiftManifest, staticpod.KubeadmManifest, cis + "/tls.crt", cis + "/tls.key", staticpod.OpenShiftClientCA, cis + "/apiserver-kubelet-client.crt", cis + "/apiserver-kubelet-client.key", staticpod.KubeadmClientCA},
		},
		"directory of the CIS text beside rubbish": {
			files: map[string]string{staticpod.OpenShiftManifest: `{"kind":"Job"}`, cis + "/tls.key": "", staticpod.OpenShiftClientCA: ""},
			want: seen{
				How: want, Manifest: staticpod.OpenShiftManifest, ParseErr: "its kind is another one than Pod",
				Certificate: cis + "/tls.crt", Key: cis + "/tls.key", ClientCA: staticpod.OpenShiftClientCA,
			},
			paths: []string{staticpod.OpenShiftManifest, staticpod.KubeadmManifest, cis + "/tls.crt", cis + "/tls.key", staticpod.OpenShiftClientCA, cis + "/apiserver-kubelet-client.crt", cis + "/apiserver-kubelet-client.key", staticpod.KubeadmClientCA},
		},
		"directory of the CIS text beside a usable manifest": {
			files: map[string]string{staticpod.KubeadmManifest: usable, cis + "/tls.crt": "", cis + "/tls.key": ""},
			want: seen{
				How: "manifest " + staticpod.KubeadmManifest, Manifest: staticpod.KubeadmManifest, ConfigAt: staticpod.KubeadmManifest,
				Certificate: "/host/a/tls.crt (/a/tls.crt)", Key: "/host/a/tls.key (/a/tls.key)", ClientCA: staticpod.KubeadmClientCA,
			},
			paths: []string{staticpod.OpenShiftManifest, staticpod.KubeadmManifest, "/host/a/tls.crt", "/host/a/tls.key", staticpod.KubeadmClientCA},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			layout := staticpod.Discover(host(c.files), "")
			if d := cmp.Diff(c.want, see(layout)); d != "" {
				t.Errorf("layout (-want +got):\n%s", d)
			}
			if d := cmp.Diff(c.paths, layout.Paths()); c.paths != nil && d != "" {
				t.Errorf("paths (-want +got):\n%s", d)
			}
			if missing := c.want.ReadErr != ""; errors.Is(layout.ManifestReadErr, fs.ErrNotExist) != missing {
				t.Errorf("error %v: fs.ErrNotExist must be in it if and only if there is no manifest", layout.ManifestReadErr)
			}
		})
	}
}

func number(n int) string {
	data, _ := json.Marshal(n)
	return string(data)
}

// TestDiscoverRubbish: what is no manifest by the words of a library.
func TestDiscoverRubbish(t *testing.T) {
	for name, data := range map[string]string{
		"text": "rubbish", "bytes": "\x00\x01", "cut off": `{"kind":"Pod","spec":{"conta`, "a list": `[{"kind":"Pod"}]`,
		"another shape": `{"kind":"Pod","spec":{"containers":{"name":"kube-apiserver"}}}`,
		"tabs":          "kind:\tPod\n\tspec: {}\n",
	} {
		t.Run(name, func(t *testing.T) {
			layout := staticpod.Discover(host(map[string]string{staticpod.OpenShiftManifest: data}), "")
			if err := text(layout.ManifestParseErr); !strings.HasPrefix(err, "parse as a Pod: ") {
				t.Errorf("got error %q, want one that begins with %q", err, "parse as a Pod: ")
			}
			if layout.ManifestReadErr != nil || layout.ConfigAt != "" || layout.Certificate != (staticpod.File{}) {
				t.Errorf("something was taken from it: %+v", see(layout))
			}
		})
	}
}

// TestDiscoverNotReadable: a manifest that is there but cannot be read is not
// a missing one, and no other is taken in its place.
func TestDiscoverNotReadable(t *testing.T) {
	files := host(map[string]string{
		staticpod.OpenShiftManifest: manifest(t, nil, configFlag+"/a/config.yaml"), staticpod.KubeadmManifest: manifest(t, nil, certificateFlag+"/b/tls.crt"),
		"/host/a/config.yaml": `{"kind":"KubeAPIServerConfig"}`,
	})
	t.Run("manifest", func(t *testing.T) {
		layout := staticpod.Discover(failing{files, strings.TrimPrefix(staticpod.OpenShiftManifest, "/"), errBoom}, "")
		want := seen{How: "no usable manifest, no directory " + staticpod.CISDirectory, Manifest: staticpod.OpenShiftManifest, ReadErr: "boom"}
		if d := cmp.Diff(want, see(layout)); d != "" {
			t.Errorf("layout (-want +got):\n%s", d)
		}
	})
	t.Run("configuration", func(t *testing.T) {
		layout := staticpod.Discover(failing{files, "host/a/config.yaml", errBoom}, "")
		want := seen{
			How:      "manifest " + staticpod.OpenShiftManifest + ", configuration /host/a/config.yaml",
			Manifest: staticpod.OpenShiftManifest, ConfigAt: "/host/a/config.yaml", ConfigErr: "boom", ClientCA: staticpod.OpenShiftClientCA,
		}
		if d := cmp.Diff(want, see(layout)); d != "" {
			t.Errorf("layout (-want +got):\n%s", d)
		}
	})
}

// TestDiscoverConfig: the configuration that a manifest names.
func TestDiscoverConfig(t *testing.T) {
	const (
		at  = "/host/a/config.yaml"
		how = "manifest " + staticpod.OpenShiftManifest
	)
	found := seen{How: how + ", configuration " + at, Manifest: staticpod.OpenShiftManifest, ConfigAt: at, ClientCA: staticpod.OpenShiftClientCA}
	with := func(change func(s *seen)) seen {
		s := found
		change(&s)
		return s
	}
	pair := `{"kind":"KubeAPIServerConfig","apiServerArguments":{"kubelet-client-certificate":["/b/tls.crt"],"kubelet-client-key":["/b/tls.key"]}}`
	whole := with(func(s *seen) {
		s.Certificate, s.Key = "/host/b/tls.crt (/b/tls.crt)", "/host/b/tls.key (/b/tls.key)"
	})
	cases := map[string]struct {
		words  []string
		change func(pod *corev1.Pod)
		config string // at /host/a/config.yaml; none if empty
		want   seen
	}{
		"read":                {words: []string{configFlag + "/a/config.yaml"}, config: pair, want: whole},
		"flag in two words":   {words: []string{"--openshift-config", "/a/config.yaml"}, config: pair, want: whole},
		"in double quotes":    {words: []string{`--openshift-config="/a/config.yaml"`}, config: pair, want: whole},
		"in single quotes":    {words: []string{`'--openshift-config=/a/config.yaml'`}, config: pair, want: whole},
		"in a script":         {words: []string{"-c", "exec hyperkube kube-apiserver \\\n\t--openshift-config=/a/config.yaml \\\n\t-v=2\n"}, config: pair, want: whole},
		"among the arguments": {change: func(pod *corev1.Pod) { pod.Spec.Containers[0].Args = []string{configFlag + "/a/config.yaml"} }, config: pair, want: whole},
		"over the flags": {
			words:  []string{certificateFlag + "/a/old.crt", configFlag + "/a/config.yaml", caFlag + "/a/ca.crt"},
			config: pair,
			want: with(func(s *seen) {
				s.Certificate, s.Key, s.KubeletCA = "/host/b/tls.crt (/b/tls.crt)", "/host/b/tls.key (/b/tls.key)", "/host/a/ca.crt (/a/ca.crt)"
			}),
		},
		"nothing in it": {words: []string{configFlag + "/a/config.yaml"}, config: `{"kind":"KubeAPIServerConfig"}`, want: found},
		"not there": {words: []string{configFlag + "/a/config.yaml", certificateFlag + "/a/tls.crt"}, want: with(func(s *seen) {
			s.ConfigErr = "open host/a/config.yaml: file does not exist"
		})},
		"another kind": {words: []string{configFlag + "/a/config.yaml"}, config: `{"kind":"Pod"}`, want: with(func(s *seen) {
			s.ConfigErr = "its kind is another one than KubeAPIServerConfig"
		})},
		"empty": {words: []string{configFlag + "/a/config.yaml"}, config: "\n", want: with(func(s *seen) { s.ConfigErr = "it is empty" })},
		"too large": {words: []string{configFlag + "/a/config.yaml"}, config: strings.Repeat("x", kubeapiserver.MaxConfigBytes+1), want: with(func(s *seen) {
			s.ConfigErr = "it has 1048577 bytes, more than 1048576"
		})},
		"under no mount": {words: []string{configFlag + "/c/config.yaml"}, config: pair, want: with(func(s *seen) {
			s.How, s.ConfigAt, s.ConfigErr = how, "/c/config.yaml", "the path is under no mount of the kube-apiserver's container"
		})},
		"in an emptyDir": {
			words: []string{configFlag + "/a/config.yaml"}, config: pair,
			change: func(pod *corev1.Pod) { pod.Spec.Containers[0].VolumeMounts[0].Name = "scratch" },
			want: with(func(s *seen) {
				s.How, s.ConfigAt, s.ConfigErr = how, "/a/config.yaml", `volume "scratch" is no folder of the host`
			}),
		},
		"not absolute": {words: []string{configFlag + "config.yaml"}, config: pair, want: with(func(s *seen) {
			s.How, s.ConfigAt, s.ConfigErr = how, "config.yaml", "the path is not absolute"
		})},
		"named without a value": {words: []string{configFlag}, config: pair, want: seen{
			How: how, Manifest: staticpod.OpenShiftManifest, ConfigAt: staticpod.OpenShiftManifest, ClientCA: staticpod.KubeadmClientCA,
		}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			files := map[string]string{staticpod.OpenShiftManifest: manifest(t, c.change, c.words...)}
			if c.config != "" {
				files[at] = c.config
			}
			layout := staticpod.Discover(host(files), "")
			if d := cmp.Diff(c.want, see(layout)); d != "" {
				t.Errorf("layout (-want +got):\n%s", d)
			}
			if missing := c.config == "" && c.want.ConfigErr != ""; errors.Is(layout.ConfigErr, fs.ErrNotExist) != missing {
				t.Errorf("error %v: fs.ErrNotExist must be in it if and only if there is no file", layout.ConfigErr)
			}
		})
	}
}

// TestNoPath: what is configured instead of a path may be the key itself, and
// is shown to nobody.
func TestNoPath(t *testing.T) {
	const marker = "c2VjcmV0"
	for name, value := range map[string]string{
		"a key":     "-----BEGIN-PRIVATE-KEY-----" + marker,
		"two lines": "/a/" + marker + "\u0001",
		"long":      "/a/" + strings.Repeat(marker, 1000),
	} {
		t.Run(name, func(t *testing.T) {
			layout := staticpod.Discover(host(map[string]string{staticpod.OpenShiftManifest: manifest(t, nil, keyFlag+value)}), "")
			if layout.Key.Err == nil || layout.Key.Err.Error() != "what is configured is no path" {
				t.Errorf("error: %v", layout.Key.Err)
			}
			if shown := fmt.Sprintf("%+v", see(layout)) + fmt.Sprint(layout.Paths()); strings.Contains(shown, marker) {
				t.Errorf("it is shown: %s", shown)
			}
		})
	}
}

// TestPaths: what was looked for in vain decides, too, and a path of the
// container is none of the host.
func TestPaths(t *testing.T) {
	manifests := []string{staticpod.OpenShiftManifest, staticpod.KubeadmManifest}
	cases := map[string]struct {
		files     map[string]string
		directory string
		want      []string
	}{
		"no manifest":         {want: append(slices.Clone(manifests), staticpod.CISDirectory)},
		"an unusable one":     {files: map[string]string{staticpod.KubeadmManifest: "{}"}, want: append(slices.Clone(manifests), staticpod.CISDirectory)},
		"a directory, no CAs": {directory: "/pki", want: []string{"/pki/tls.crt", "/pki/tls.key", staticpod.OpenShiftClientCA, "/pki/apiserver-kubelet-client.crt", "/pki/apiserver-kubelet-client.key", staticpod.KubeadmClientCA}},
		"configuration under no mount": {
			files: map[string]string{staticpod.OpenShiftManifest: manifest(t, nil, configFlag+"/c/config.yaml")},
			want:  append(slices.Clone(manifests), staticpod.OpenShiftClientCA),
		},
		"configuration with a relative path": {
			files: map[string]string{staticpod.OpenShiftManifest: manifest(t, nil, configFlag+"config.yaml")},
			want:  append(slices.Clone(manifests), staticpod.OpenShiftClientCA),
		},
		"a file under no mount": {
			files: map[string]string{staticpod.OpenShiftManifest: manifest(t, nil, certificateFlag+"/c/tls.crt", keyFlag+"tls.key")},
			want:  append(slices.Clone(manifests), staticpod.KubeadmClientCA),
		},
		"certificate and key in one file": {
			files: map[string]string{staticpod.OpenShiftManifest: manifest(t, nil, certificateFlag+"/a/tls.pem", keyFlag+"/a/tls.pem")},
			want:  append(slices.Clone(manifests), "/host/a/tls.pem", staticpod.KubeadmClientCA),
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if d := cmp.Diff(c.want, staticpod.Discover(host(c.files), c.directory).Paths()); d != "" {
				t.Errorf("paths (-want +got):\n%s", d)
			}
		})
	}
	if paths := (staticpod.Layout{}).Paths(); paths != nil {
		t.Errorf("paths of no layout: %q", paths)
	}
}

// TestTranslate: paths of the container on the host.
func TestTranslate(t *testing.T) {
	mounts := func(all ...corev1.VolumeMount) []corev1.VolumeMount { return all }
	at := func(mountPath, volume string) corev1.VolumeMount {
		return corev1.VolumeMount{MountPath: mountPath, Name: volume}
	}
	subPath := func(m corev1.VolumeMount, subPath string) corev1.VolumeMount {
		m.SubPath = subPath
		return m
	}
	expression := at("/a", "a")
	expression.SubPathExpr = "$(POD_NAME)"
	const noMount = "the path is under no mount of the kube-apiserver's container"

	cases := map[string]struct {
		configured string
		mounts     []corev1.VolumeMount
		want       staticpod.File
		wantErr    string
	}{
		"below a mount":               {configured: "/a/x/tls.crt", mounts: mounts(at("/a", "a")), want: staticpod.File{Host: "/host/a/x/tls.crt"}},
		"a mounted file":              {configured: "/a/tls.crt", mounts: mounts(at("/a/tls.crt", "file")), want: staticpod.File{Host: "/host/the.crt"}},
		"a slash behind the mount":    {configured: "/a/tls.crt", mounts: mounts(at("/a/", "a")), want: staticpod.File{Host: "/host/a/tls.crt"}},
		"slashes in all places":       {configured: "//a///tls.crt", mounts: mounts(at("//a//", "a")), want: staticpod.File{Host: "/host/a/tls.crt"}},
		"dots":                        {configured: "/b/../a/./tls.crt", mounts: mounts(at("/a", "a"), at("/b", "b")), want: staticpod.File{Host: "/host/a/tls.crt"}},
		"dots out of the root":        {configured: "/../../a/tls.crt", mounts: mounts(at("/a", "a")), want: staticpod.File{Host: "/host/a/tls.crt"}},
		"host's root":                 {configured: "/a/etc/tls.crt", mounts: mounts(at("/a", "root")), want: staticpod.File{Host: "/etc/tls.crt"}},
		"the longest of nested ones":  {configured: "/a/b/tls.crt", mounts: mounts(at("/a", "a"), at("/a/b", "b")), want: staticpod.File{Host: "/host/b/tls.crt"}},
		"in any order":                {configured: "/a/b/tls.crt", mounts: mounts(at("/a/b", "b"), at("/a", "a")), want: staticpod.File{Host: "/host/b/tls.crt"}},
		"beside the nested one":       {configured: "/a/c/tls.crt", mounts: mounts(at("/a/b", "b"), at("/a", "a")), want: staticpod.File{Host: "/host/a/c/tls.crt"}},
		"mounted at the root":         {configured: "/x/tls.crt", mounts: mounts(at("/", "b")), want: staticpod.File{Host: "/host/b/x/tls.crt"}},
		"below one at the root":       {configured: "/a/tls.crt", mounts: mounts(at("/", "b"), at("/a", "a")), want: staticpod.File{Host: "/host/a/tls.crt"}},
		"subPath":                     {configured: "/a/tls.crt", mounts: mounts(subPath(at("/a", "a"), "x/y")), want: staticpod.File{Host: "/host/a/x/y/tls.crt"}},
		"subPath to a file":           {configured: "/a/tls.crt", mounts: mounts(subPath(at("/a/tls.crt", "a"), "x.crt")), want: staticpod.File{Host: "/host/a/x.crt"}},
		"subPathExpr":                 {configured: "/a/tls.crt", mounts: mounts(expression), wantErr: `volume "a" is mounted with a subPathExpr, which only the kubelet can expand`},
		"no mounts":                   {configured: "/a/tls.crt", wantErr: noMount},
		"under none":                  {configured: "/c/tls.crt", mounts: mounts(at("/a", "a"), at("/b", "b")), wantErr: noMount},
		"above it":                    {configured: "/a", mounts: mounts(at("/a/b", "b")), wantErr: noMount},
		"a name that begins like it":  {configured: "/etc/kubernetes/static-pod-resources-other/tls.crt", mounts: mounts(at("/etc/kubernetes/static-pod-resources", "a")), wantErr: noMount},
		"a name that goes on":         {configured: "/etc/kubernetes/static-pod/tls.crt", mounts: mounts(at("/etc/kubernetes/static-pod-resources", "a")), wantErr: noMount},
		"a long name is not deeper":   {configured: "/a/tls.crt", mounts: mounts(at("/a-long-name-beside-it", "b"), at("/a", "a")), want: staticpod.File{Host: "/host/a/tls.crt"}},
		"emptyDir":                    {configured: "/a/tls.crt", mounts: mounts(at("/a", "scratch")), wantErr: `volume "scratch" is no folder of the host`},
		"emptyDir in a host's folder": {configured: "/a/b/tls.crt", mounts: mounts(at("/a", "a"), at("/a/b", "scratch")), wantErr: `volume "scratch" is no folder of the host`},
		"host's folder in emptyDir":   {configured: "/a/b/tls.crt", mounts: mounts(at("/a", "scratch"), at("/a/b", "b")), want: staticpod.File{Host: "/host/b/tls.crt"}},
		"volume not there":            {configured: "/a/tls.crt", mounts: mounts(at("/a", "none")), wantErr: `volume "none" is no folder of the host`},
		"relative":                    {configured: "a/tls.crt", mounts: mounts(at("/", "a")), wantErr: "the path is not absolute"},
		"relative, dots":              {configured: "../a/tls.crt", mounts: mounts(at("/", "a")), wantErr: "the path is not absolute"},
		"environment":                 {configured: "$(CERTS)/tls.crt", mounts: mounts(at("/", "a")), wantErr: "the path is not absolute"},
		"not configured":              {configured: "", mounts: mounts(at("/", "a"))},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			data := manifest(t, func(pod *corev1.Pod) {
				pod.Spec.Containers[0].VolumeMounts = c.mounts
				pod.Spec.Volumes = append(pod.Spec.Volumes, hostPath("file", "/host/the.crt"), hostPath("root", "/"))
			}, certificateFlag+c.configured, keyFlag+c.configured, caFlag+c.configured)
			layout := staticpod.Discover(host(map[string]string{staticpod.KubeadmManifest: data}), "")
			if layout.ManifestParseErr != nil {
				t.Fatal(layout.ManifestParseErr)
			}
			for _, file := range []staticpod.File{layout.Certificate, layout.Key, layout.KubeletCA} {
				if got := text(file.Err); got != c.wantErr {
					t.Errorf("got error %q, want %q", got, c.wantErr)
				}
				file.Err = nil
				c.want.Configured = c.configured
				if d := cmp.Diff(c.want, file); d != "" {
					t.Errorf("file (-want +got):\n%s", d)
				}
			}
			if paths := layout.Paths(); slices.Contains(paths, "") || (c.want.Host != "") != slices.Contains(paths, c.want.Host) {
				t.Errorf("Paths: got %q with the file at %q", paths, c.want.Host)
			}
		})
	}
}

// TestDiscoverIsBounded: no manifest of the permitted size takes long or fills
// the memory by repeating itself.
func TestDiscoverIsBounded(t *testing.T) {
	const (
		limit = 20 * time.Second
		most  = 8 << 20
	)
	for name, data := range map[string]string{
		"lists in lists":     strings.Repeat("[", staticpod.MaxManifestBytes),
		"maps in maps":       strings.Repeat("{a: ", staticpod.MaxManifestBytes/4),
		"a text by its name": "text: &text " + strings.Repeat("x", 16<<10) + "\nlist: [" + strings.Repeat("*text,", 500) + "]\n",
	} {
		t.Run(name, func(t *testing.T) {
			system := host(map[string]string{staticpod.OpenShiftManifest: data})
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			done := make(chan struct{})
			go func() {
				defer close(done)
				staticpod.Discover(system, "")
			}()
			select {
			case <-done:
			case <-time.After(limit):
				t.Fatalf("Discover with a manifest of %d bytes takes more than %s", len(data), limit)
			}
			runtime.ReadMemStats(&after)
			if allocated := after.TotalAlloc - before.TotalAlloc; allocated > uint64(most+16*len(data)) {
				t.Errorf("Discover with a manifest of %d bytes allocates %d bytes", len(data), allocated)
			}
		})
	}
}

// FuzzDiscover: no manifest and no configuration makes it panic. What is found
// are clean absolute paths of the host, each file is either on the host or has
// an error, and an unusable manifest leaves nothing behind.
func FuzzDiscover(f *testing.F) {
	config := `{"kind":"KubeAPIServerConfig","apiServerArguments":{"kubelet-client-certificate":["/a/tls.crt"],"kubelet-client-key":["/none/tls.key"]}}`
	for _, seed := range []string{
		"", "rubbish", "{}", `{"kind":"Pod"}`, `{"kind":"Job"}`, "[]", "\x00",
		`{"kind":"Pod","spec":{"containers":[{"name":"kube-apiserver"}]}}`,
		`{"kind":"Pod","spec":{"containers":[{"name":"kube-apiserver"},{"name":"kube-apiserver"}]}}`,
		"kind: Pod\nspec:\n  containers:\n  - name: kube-apiserver\n    command: [--kubelet-client-certificate, /a/tls.crt]\n    volumeMounts:\n    - {name: a, mountPath: /a}\n  volumes:\n  - {name: a, hostPath: {path: /host/a}}\n",
		manifest(f, nil, certificateFlag+"/a/tls.crt", keyFlag+"b", caFlag+"/c/ca.crt"),
		manifest(f, nil, configFlag+"/a/config.yaml"), manifest(f, nil, configFlag+"/b/../a/config.yaml"),
		manifest(f, func(pod *corev1.Pod) {
			pod.Labels = map[string]string{"revision": "7"}
			pod.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{
				{Name: "a", MountPath: "/", SubPath: "../x"}, {Name: "scratch", MountPath: "b"}, {Name: "b", MountPath: "/c/", SubPathExpr: "$(X)"}, {Name: "none"},
			}
			pod.Spec.Volumes[0].HostPath.Path = "../.."
		}, configFlag+"/a/config.yaml", certificateFlag+"/b", keyFlag+"/c"),
		manifest(f, func(pod *corev1.Pod) {
			pod.Spec.Containers = append([]corev1.Container{{Name: "cert-syncer"}}, pod.Spec.Containers...)
			pod.Spec.Containers[1].VolumeMounts = []corev1.VolumeMount{{Name: "scratch", MountPath: "/a"}, {Name: "b", MountPath: "/b", SubPathExpr: "$(X)"}, {Name: "b", MountPath: "/"}}
			pod.Spec.Volumes[1].HostPath.Path = "/"
		}, certificateFlag+"/a/tls.crt", keyFlag+"/b/tls.key", caFlag+"/"),
		manifest(f, nil, configFlag+"a/config.yaml"), manifest(f, nil, configFlag+"/none"),
		strings.Repeat(" ", staticpod.MaxManifestBytes+1),
	} {
		f.Add(seed, config)
		f.Add(seed, "")
	}
	f.Fuzz(func(t *testing.T, data, config string) {
		layout := staticpod.Discover(host(map[string]string{staticpod.OpenShiftManifest: data, "/host/a/config.yaml": config}), "")
		if layout.How == "" || layout.Manifest != staticpod.OpenShiftManifest || layout.ManifestReadErr != nil {
			t.Errorf("layout of a manifest that is there: %+v", see(layout))
		}
		for _, at := range layout.Paths() {
			if !path.IsAbs(at) || path.Clean(at) != at {
				t.Errorf("%q to be watched is not a clean absolute path", at)
			}
		}
		for _, file := range []staticpod.File{layout.Certificate, layout.Key, layout.KubeletCA} {
			if file.Host != "" && (!path.IsAbs(file.Host) || path.Clean(file.Host) != file.Host) {
				t.Errorf("%q is not a clean absolute path", file.Host)
			}
			if (file.Configured == "") != (file.Host == "" && file.Err == nil) || (file.Host != "" && file.Err != nil) {
				t.Errorf("neither on the host nor an error, or both: %+v", file)
			}
			if layout.ManifestParseErr != nil && file != (staticpod.File{}) {
				t.Errorf("%+v out of a manifest that cannot be used: %v", file, layout.ManifestParseErr)
			}
		}
		if (layout.ManifestParseErr == nil) != (layout.ConfigAt != "") {
			t.Errorf("configuration at %q with error %v", layout.ConfigAt, layout.ManifestParseErr)
		}
	})
}
