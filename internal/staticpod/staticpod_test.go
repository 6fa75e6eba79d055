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
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/staticpod"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/kubeapiserver"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/layout"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/messages"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/openshift"
)

// Paths of the platforms.
const (
	manifestDirectory      = layout.ManifestDirectory
	openShiftCA, kubeadmCA = layout.OpenShiftClientCA, layout.KubeadmClientCA

	openShiftManifest = manifestDirectory + "/kube-apiserver-pod.yaml"
	kubeadmManifest   = manifestDirectory + "/kube-apiserver.yaml"
)

// seen is what the tests compare of a layout. The sentences are in docs/messages.md, under the
// name of the case. A file is "host", "host (as configured)" or "configured: " with failed or
// missing.
type seen struct {
	// How has the paths in [staticpod.Found.How], with a space between each two.
	How, Manifest, ReadErr, ParseErr, Revision string
	ConfigAt, ConfigErr                        string
	Certificate, Key, KubeletCA, ClientCA      string
	Admission                                  string
}

func see(l staticpod.Found) seen {
	return seen{
		How: strings.Join(absolute.FindAllString(l.How, -1), " "), Manifest: l.Manifest,
		ReadErr: kindOf(l.ManifestReadErr), ParseErr: kindOf(l.ManifestParseErr), Revision: l.Revision,
		ConfigAt: l.ConfigAt, ConfigErr: kindOf(l.ConfigErr),
		Certificate: seeFile(l.Certificate), Key: seeFile(l.Key), KubeletCA: seeFile(l.KubeletCA), ClientCA: l.ClientCA,
		Admission: seeFile(l.Admission),
	}
}

var absolute = regexp.MustCompile(`/[^ ,]*`)

// The kinds of errors: missing wraps [fs.ErrNotExist].
const failed, missing = "an error", "it does not exist"

func kindOf(err error) string {
	switch {
	case err == nil:
		return ""
	case errors.Is(err, fs.ErrNotExist):
		return missing
	}
	return failed
}

func seeFile(f staticpod.File) string {
	switch {
	case f.Err != nil:
		return f.Host + f.Configured + ": " + kindOf(f.Err)
	case f.Configured == "" || f.Configured == f.Host:
		return f.Host
	}
	return f.Host + " (" + f.Configured + ")"
}

// record adds how a layout was found, and what is wrong with it.
func record(page *messages.Part, title string, l staticpod.Found) {
	page.Text(title, "found by: "+l.How)
	for _, err := range []error{
		l.ManifestReadErr, l.ManifestParseErr, l.ConfigErr, l.PairErr, l.Certificate.Err, l.Key.Err, l.KubeletCA.Err,
		l.Admission.Err,
	} {
		page.Error(title, err)
	}
}

// host is a host's file system with a line of text in each file.
func host(files map[string]string) fstest.MapFS {
	system := fstest.MapFS{}
	for at, data := range files {
		system[strings.TrimPrefix(at, "/")] = &fstest.MapFile{Data: []byte(data), Mode: 0o600}
	}
	return system
}

// pathsOf returns the layout's paths, sorted, without those of the kubelet's configuration.
func pathsOf(l staticpod.Found) []string {
	paths := slices.DeleteFunc(l.Paths(), func(p string) bool {
		return slices.Contains(slices.Concat(l.Kubelet.Read, l.Kubelet.Tried, l.Kubelet.Listed), p)
	})
	slices.Sort(paths)
	return paths
}

// sorted is the expected result of pathsOf.
func sorted(paths ...string) []string { return slices.Sorted(slices.Values(paths)) }

// manifest is a kube-apiserver's static pod that is started with words, /host/a
// mounted at /a and /host/b at /b, changed as wanted.
func manifest(t testing.TB, change func(pod *corev1.Pod), words ...string) string {
	t.Helper()
	pod := &corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Name: "kube-apiserver", Namespace: "kube-system"},
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
	admissionFlag   = "--admission-control-config-file="
	configFlag      = "--openshift-config="
)

// opened records which files were opened.
type opened struct {
	fs.FS
	names []string
}

func (o *opened) Open(name string) (fs.File, error) {
	o.names = append(o.names, name)
	return o.FS.Open(name)
}

// failing is a host where one file cannot be read.
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

// TestDiscoverReleases reads hosts with the layout of each release.
func TestDiscoverReleases(t *testing.T) {
	const (
		resources = "/etc/kubernetes/static-pod-resources"
		live      = resources + "/kube-apiserver-pod-7"
		config    = live + "/configmaps/config/config.yaml"
		how       = openShiftManifest + " " + config
		kubeletCA = live + "/configmaps/kubelet-serving-ca/ca-bundle.crt (" + resources +
			"/configmaps/kubelet-serving-ca/ca-bundle.crt)"
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
				How: how, Manifest: openShiftManifest, Revision: "7", ConfigAt: config,
				Certificate: resources + "/kube-apiserver-certs/secrets/kubelet-client/tls.crt (" + inCurrent + "/tls.crt)",
				Key:         resources + "/kube-apiserver-certs/secrets/kubelet-client/tls.key (" + inCurrent + "/tls.key)",
				KubeletCA:   kubeletCA, ClientCA: "/etc/kubernetes/kubelet-ca.crt",
			},
			paths: []string{
				openShiftManifest, manifestDirectory, config,
				resources + "/kube-apiserver-certs/secrets/kubelet-client/tls.crt", resources +
					"/kube-apiserver-certs/secrets/kubelet-client/tls.key",
				live + "/configmaps/kubelet-serving-ca/ca-bundle.crt", "/etc/kubernetes/kubelet-ca.crt",
			},
		},
		openshift.Legacy: {
			want: seen{
				How: how, Manifest: openShiftManifest, Revision: "7", ConfigAt: config,
				Certificate: live + "/secrets/kubelet-client/tls.crt (" + inLegacy + "/tls.crt)",
				Key:         live + "/secrets/kubelet-client/tls.key (" + inLegacy + "/tls.key)",
				KubeletCA:   kubeletCA, ClientCA: "/etc/kubernetes/kubelet-ca.crt",
			},
			https: "true",
			paths: []string{
				openShiftManifest, manifestDirectory, config,
				live + "/secrets/kubelet-client/tls.crt", live + "/secrets/kubelet-client/tls.key",
				live + "/configmaps/kubelet-serving-ca/ca-bundle.crt", "/etc/kubernetes/kubelet-ca.crt",
			},
		},
		openshift.Oldest: {
			want: seen{
				How: how, Manifest: openShiftManifest, Revision: "7", ConfigAt: config,
				Certificate: live + "/secrets/kubelet-client/tls.crt (" + inLegacy + "/tls.crt)",
				Key:         live + "/secrets/kubelet-client/tls.key (" + inLegacy + "/tls.key)",
				KubeletCA:   kubeletCA, ClientCA: "/etc/kubernetes/kubelet-ca.crt",
			},
			paths: []string{
				openShiftManifest, manifestDirectory, config,
				live + "/secrets/kubelet-client/tls.crt", live + "/secrets/kubelet-client/tls.key",
				live + "/configmaps/kubelet-serving-ca/ca-bundle.crt", "/etc/kubernetes/kubelet-ca.crt",
			},
		},
		openshift.Kubeadm: {
			want: seen{
				How: kubeadmManifest, Manifest: kubeadmManifest, ConfigAt: kubeadmManifest,
				Certificate: "/etc/kubernetes/pki/apiserver-kubelet-client.crt",
				Key:         "/etc/kubernetes/pki/apiserver-kubelet-client.key",
				ClientCA:    "/etc/kubernetes/pki/ca.crt",
			},
			paths: []string{
				kubeadmManifest, manifestDirectory,
				"/etc/kubernetes/pki/apiserver-kubelet-client.crt", "/etc/kubernetes/pki/apiserver-kubelet-client.key",
				"/etc/kubernetes/pki/ca.crt",
			},
		},
	}
	for release, c := range cases {
		t.Run(string(release), func(t *testing.T) {
			root := t.TempDir()
			// The host also has an older and a newer revision.
			for _, revision := range []int{6, 8, 7} {
				if _, err := openshift.Write(root, release, openshift.Files{Revision: revision}); err != nil {
					t.Fatal(err)
				}
			}
			host := &opened{FS: os.DirFS(root)}
			layout := staticpod.Discover(host, staticpod.Given{})
			if d := cmp.Diff(c.want, see(layout)); d != "" {
				t.Errorf("layout (-want +got):\n%s", d)
			}
			if d := cmp.Diff(sorted(c.paths...), pathsOf(layout)); d != "" {
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

// decisive returns the paths that determine the pair of a directory, sorted.
func decisive(directory string) []string {
	paths := append(known(directory), openShiftCA, kubeadmCA)
	slices.Sort(paths)
	return paths
}

// known are the files of a directory that have the names of a pair, in order.
func known(directory string) []string {
	var paths []string
	for _, name := range []string{"tls", "apiserver-kubelet-client", "client", "kube-apiserver-to-kubelet-client",
		"client-kube-apiserver", "kubelet-client"} {
		paths = append(paths, path.Join(directory, name+".crt"), path.Join(directory, name+".key"))
	}
	return paths
}

// TestDiscoverDirectory: the pair of a given directory is used, and no manifest is read.
func TestDiscoverDirectory(t *testing.T) {
	secret := map[string]string{"/pki/tls.crt": "", "/pki/tls.key": ""}
	kubeadm := map[string]string{
		"/pki/apiserver-kubelet-client.crt": "",
		"/pki/apiserver-kubelet-client.key": "",
		"/pki/apiserver.crt":                "",
	}
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
			files: with(secret, openShiftCA), directory: "/pki",
			want: seen{How: "/pki", Certificate: "/pki/tls.crt", Key: "/pki/tls.key", ClientCA: openShiftCA},
		},
		"no CA": {
			files: with(secret), directory: "/pki",
			want: seen{How: "/pki", Certificate: "/pki/tls.crt", Key: "/pki/tls.key"},
		},
		"kubeadm's key alone": {
			files: map[string]string{"/pki/apiserver-kubelet-client.key": "", kubeadmCA: ""}, directory: "/pki",
			want: seen{
				How: "/pki", Certificate: "/pki/apiserver-kubelet-client.crt",
				Key:      "/pki/apiserver-kubelet-client.key",
				ClientCA: kubeadmCA,
			},
		},
		"names of kubeadm": {
			files: with(kubeadm, kubeadmCA), directory: "/pki",
			want: seen{
				How: "/pki", Certificate: "/pki/apiserver-kubelet-client.crt",
				Key:      "/pki/apiserver-kubelet-client.key",
				ClientCA: kubeadmCA,
			},
		},
		"OpenShift's CA first": {
			files: with(kubeadm, kubeadmCA, openShiftCA), directory: "/pki",
			want: seen{
				How: "/pki", Certificate: "/pki/apiserver-kubelet-client.crt",
				Key:      "/pki/apiserver-kubelet-client.key",
				ClientCA: openShiftCA,
			},
		},
		"no slash in front, dots": {
			files: with(secret, openShiftCA), directory: "x/../pki/",
			want: seen{How: "/pki", Certificate: "/pki/tls.crt", Key: "/pki/tls.key", ClientCA: openShiftCA},
		},
		"out of the root": {
			files: with(secret, openShiftCA), directory: "/../../pki",
			want: seen{How: "/pki", Certificate: "/pki/tls.crt", Key: "/pki/tls.key", ClientCA: openShiftCA},
		},
		"the root itself": {
			files: with(map[string]string{"/tls.crt": "", "/tls.key": ""}, openShiftCA), directory: "/",
			want: seen{How: "/", Certificate: "/tls.crt", Key: "/tls.key", ClientCA: openShiftCA},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			c.files[openShiftManifest] = manifest(t, nil, certificateFlag+"/a/tls.crt")
			layout := staticpod.Discover(host(c.files), staticpod.Given{Directory: c.directory})
			if d := cmp.Diff(c.want, see(layout)); d != "" {
				t.Errorf("layout (-want +got):\n%s", d)
			}
			if d := cmp.Diff(decisive(path.Clean("/"+c.directory)), pathsOf(layout)); d != "" {
				t.Errorf("paths (-want +got):\n%s", d)
			}
		})
	}
}

// TestDiscoverManifest: which manifest is used, what is wrong with it, and what is used
// without one.
func TestDiscoverManifest(t *testing.T) {
	page := messages.Record(t, "errors of static Pods")
	const cis = staticpod.CISDirectory
	pair := []string{certificateFlag + "/a/tls.crt", keyFlag + "/a/tls.key"}
	usable := manifest(t, nil, pair...)
	unusable := seen{How: cis, Manifest: kubeadmManifest, ParseErr: failed}
	none := seen{How: cis, Manifest: manifestDirectory, ReadErr: missing}
	cases := map[string]struct {
		files map[string]string
		want  seen
		paths []string // nil for those of TestPaths
	}{
		"OpenShift's": {
			files: map[string]string{openShiftManifest: usable},
			want: seen{
				How: openShiftManifest, Manifest: openShiftManifest, ConfigAt: openShiftManifest,
				Certificate: "/host/a/tls.crt (/a/tls.crt)", Key: "/host/a/tls.key (/a/tls.key)",
				ClientCA: kubeadmCA,
			},
			paths: []string{openShiftManifest, manifestDirectory, "/host/a/tls.crt", "/host/a/tls.key", kubeadmCA},
		},
		"both: the last one": {
			files: map[string]string{openShiftManifest: usable, kubeadmManifest: manifest(t, nil, certificateFlag+"/b/tls.crt")},
			want: seen{
				How: kubeadmManifest, Manifest: kubeadmManifest, ConfigAt: kubeadmManifest,
				Certificate: "/host/b/tls.crt (/b/tls.crt)", ClientCA: kubeadmCA,
			},
			paths: []string{openShiftManifest, kubeadmManifest, manifestDirectory, "/host/b/tls.crt", kubeadmCA},
		},
		"a file that the kubelet skips, too": {
			files: map[string]string{openShiftManifest: `{"kind":"Job"}`, kubeadmManifest: usable},
			want: seen{
				How: kubeadmManifest, Manifest: kubeadmManifest, ConfigAt: kubeadmManifest,
				Certificate: "/host/a/tls.crt (/a/tls.crt)", Key: "/host/a/tls.key (/a/tls.key)",
				ClientCA: kubeadmCA,
			},
		},
		"no container": {
			files: map[string]string{kubeadmManifest: manifest(t, func(pod *corev1.Pod) { pod.Spec.Containers = nil })},
			want:  none,
		},
		"another container": {
			files: map[string]string{kubeadmManifest: manifest(t, func(pod *corev1.Pod) {
				pod.Spec.Containers[0].Name, pod.Spec.Containers[0].Command = "kube-apiserver-cert-syncer", nil
			})},
			want: none,
		},
		"an init container only": {
			files: map[string]string{kubeadmManifest: manifest(t, func(pod *corev1.Pod) {
				pod.Spec.InitContainers, pod.Spec.Containers = pod.Spec.Containers, nil
			})},
			want: none,
		},
		"two containers": {
			files: map[string]string{kubeadmManifest: manifest(t, func(pod *corev1.Pod) {
				pod.Spec.Containers = append(pod.Spec.Containers, pod.Spec.Containers[0])
			})},
			want: unusable,
		},
		"empty": {
			files: map[string]string{kubeadmManifest: ""},
			want:  unusable,
		},
		"too large": {
			files: map[string]string{kubeadmManifest: usable + strings.Repeat(" ", staticpod.MaxManifestBytes)},
			want:  seen{How: cis, Manifest: kubeadmManifest, ReadErr: failed},
		},
		"nothing at all": {
			want: none,
		},
		"directory of the CIS text without a manifest": {
			files: map[string]string{cis + "/tls.crt": "", cis + "/tls.key": "", openShiftCA: ""},
			want: seen{
				Manifest: manifestDirectory, ReadErr: missing,
				Certificate: cis + "/tls.crt", Key: cis + "/tls.key", ClientCA: openShiftCA,
			},
			paths: slices.Concat([]string{manifestDirectory, cis + "/tls.crt", cis + "/tls.key", openShiftCA}, known(cis)[2:], []string{kubeadmCA}),
		},
		"directory of the CIS text beside rubbish": {
			files: map[string]string{openShiftManifest: `{"kind":"Job"}`, cis + "/tls.key": "", openShiftCA: ""},
			want: seen{
				Manifest: openShiftManifest, ParseErr: failed,
				Certificate: cis + "/tls.crt", Key: cis + "/tls.key", ClientCA: openShiftCA,
			},
			paths: slices.Concat([]string{openShiftManifest, manifestDirectory, cis + "/tls.crt", cis + "/tls.key", openShiftCA}, known(cis)[2:], []string{kubeadmCA}),
		},
		"directory of the CIS text beside a usable manifest": {
			files: map[string]string{kubeadmManifest: usable, cis + "/tls.crt": "", cis + "/tls.key": ""},
			want: seen{
				How: kubeadmManifest, Manifest: kubeadmManifest, ConfigAt: kubeadmManifest,
				Certificate: "/host/a/tls.crt (/a/tls.crt)", Key: "/host/a/tls.key (/a/tls.key)",
				ClientCA: kubeadmCA,
			},
			paths: []string{kubeadmManifest, manifestDirectory, "/host/a/tls.crt", "/host/a/tls.key", kubeadmCA},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			layout := staticpod.Discover(host(c.files), staticpod.Given{})
			record(page, name, layout)
			if d := cmp.Diff(c.want, see(layout)); d != "" {
				t.Errorf("layout (-want +got):\n%s", d)
			}
			if d := cmp.Diff(sorted(c.paths...), pathsOf(layout)); c.paths != nil && d != "" {
				t.Errorf("paths (-want +got):\n%s", d)
			}
		})
	}
}

// TestDiscoverContainers: if several containers of a Pod may be the kube-apiserver, it is not
// known which one is, whatever other Pods there are.
func TestDiscoverContainers(t *testing.T) {
	const name = "kube-apiserver"
	of := func(pod string, containers ...corev1.Container) string {
		return manifest(t, func(p *corev1.Pod) { p.Name, p.Spec.Containers = pod, containers })
	}
	container := func(name string, command ...string) corev1.Container {
		return corev1.Container{Name: name, Command: command}
	}
	good, two := of("x", container(name, name)), of("y", container("a", name), container("b", "/bin/"+name))
	type found struct {
		Manifest, ParseErr     string // the error's kind
		Containers, Duplicates []string
		Known                  bool // the configuration
	}
	const a, b = manifestDirectory + "/a", manifestDirectory + "/b"
	for title, c := range map[string]struct {
		files map[string]string
		want  found
	}{
		"one by name":                   {map[string]string{a: of("x", container(name, "sh"), container("b", "sleep"))}, found{Manifest: a, Known: true}},
		"one by command":                {map[string]string{a: of("x", container("a", "sh"), container("b", name))}, found{Manifest: a, Known: true}},
		"two by command":                {map[string]string{a: two}, found{Manifest: a, Containers: []string{"a", "b"}}},
		"one by name, one by command":   {map[string]string{a: of("x", container("b", name), container(name, "sh"))}, found{Manifest: a, Containers: []string{"b", name}}},
		"of one name":                   {map[string]string{a: of("x", container(name, name), container(name, name))}, found{Manifest: a, ParseErr: failed}},
		"two, after a good manifest":    {map[string]string{a: good, b: two}, found{Manifest: a, Duplicates: []string{a, b}, Known: true}},
		"two, before a good manifest":   {map[string]string{a: two, b: good}, found{Manifest: b, Duplicates: []string{a, b}, Known: true}},
		"two, beside another such file": {map[string]string{a: two, b: two}, found{Manifest: b, Containers: []string{"a", "b"}, Duplicates: []string{a, b}}},
	} {
		t.Run(title, func(t *testing.T) {
			l := staticpod.Discover(host(c.files), staticpod.Given{})
			got := found{
				Manifest: l.Manifest, ParseErr: kindOf(l.ManifestParseErr), Containers: l.ManifestContainers,
				Duplicates: l.Duplicates, Known: l.ConfigAt != "",
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("layout (-want +got):\n%s", d)
			}
		})
	}
}

// TestDiscoverRubbish: files that are not a manifest, with the error of a library.
func TestDiscoverRubbish(t *testing.T) {
	page := messages.Record(t, "errors of static Pods that are no YAML of a Pod")
	for name, data := range map[string]string{
		"text": "rubbish", "bytes": "\x00\x01", "cut off": `{"kind":"Pod","spec":{"conta`, "a list": `[{"kind":"Pod"}]`,
		"another shape": `{"kind":"Pod","spec":{"containers":{"name":"kube-apiserver"}}}`,
		"tabs":          "kind:\tPod\n\tspec: {}\n",
	} {
		t.Run(name, func(t *testing.T) {
			layout := staticpod.Discover(host(map[string]string{openShiftManifest: data}), staticpod.Given{})
			page.Error(name, layout.ManifestParseErr)
			if layout.ManifestParseErr == nil {
				t.Error("there is no error")
			}
			if layout.ManifestReadErr != nil || layout.ConfigAt != "" || layout.Certificate != (staticpod.File{}) {
				t.Errorf("something was taken from it: %+v", see(layout))
			}
		})
	}
}

// TestDiscoverNotReadable: a manifest that cannot be read is not reported as missing.
func TestDiscoverNotReadable(t *testing.T) {
	files := host(map[string]string{
		openShiftManifest:     manifest(t, nil, configFlag+"/a/config.yaml"),
		"/host/a/config.yaml": `{"kind":"KubeAPIServerConfig"}`,
	})
	t.Run("manifest", func(t *testing.T) {
		layout := staticpod.Discover(failing{files, strings.TrimPrefix(openShiftManifest, "/"), errBoom}, staticpod.Given{})
		want := seen{How: staticpod.CISDirectory, Manifest: openShiftManifest, ReadErr: failed}
		if d := cmp.Diff(want, see(layout)); d != "" {
			t.Errorf("layout (-want +got):\n%s", d)
		}
	})
	t.Run("configuration", func(t *testing.T) {
		layout := staticpod.Discover(failing{files, "host/a/config.yaml", errBoom}, staticpod.Given{})
		want := seen{
			How:      openShiftManifest + " /host/a/config.yaml",
			Manifest: openShiftManifest, ConfigAt: "/host/a/config.yaml", ConfigErr: failed,
			ClientCA: openShiftCA,
		}
		if d := cmp.Diff(want, see(layout)); d != "" {
			t.Errorf("layout (-want +got):\n%s", d)
		}
	})
}

// TestDiscoverConfig: the configuration that a manifest names.
func TestDiscoverConfig(t *testing.T) {
	page := messages.Record(t, "errors of what a static Pod names")
	const (
		at  = "/host/a/config.yaml"
		how = openShiftManifest
	)
	found := seen{
		How: how + " " + at, Manifest: openShiftManifest, ConfigAt: at,
		ClientCA: openShiftCA,
	}
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
		"read":              {words: []string{configFlag + "/a/config.yaml"}, config: pair, want: whole},
		"flag in two words": {words: []string{"--openshift-config", "/a/config.yaml"}, config: pair, want: whole},
		"quotes without a shell": {
			words:  []string{`--openshift-config="/a/config.yaml"`},
			config: pair,
			want: with(func(s *seen) {
				s.How, s.ConfigAt, s.ConfigErr = how, `"/a/config.yaml"`, failed
			}),
		},
		"in a script": {
			change: func(pod *corev1.Pod) {
				pod.Spec.Containers[0].Command = []string{
					"/bin/sh",
					"-c",
					"exec hyperkube kube-apiserver \\\n\t'--openshift-config=/a/config.yaml' \\\n\t-v=2\n",
				}
			},
			config: pair, want: whole,
		},
		"not known": {
			change: func(pod *corev1.Pod) {
				pod.Spec.Containers[0].Command = []string{
					"/bin/sh",
					"-c",
					`exec hyperkube kube-apiserver --openshift-config="$CONFIG"`,
				}
			},
			config: pair,
			want:   seen{How: how, Manifest: openShiftManifest, ConfigAt: openShiftManifest, ClientCA: kubeadmCA},
		},
		"among the arguments": {change: func(pod *corev1.Pod) { pod.Spec.Containers[0].Args = []string{configFlag + "/a/config.yaml"} }, config: pair, want: whole},
		"over the flags": {
			words:  []string{certificateFlag + "/a/old.crt", configFlag + "/a/config.yaml", caFlag + "/a/ca.crt"},
			config: pair,
			want: with(func(s *seen) {
				s.Certificate, s.Key, s.KubeletCA = "/host/b/tls.crt (/b/tls.crt)", "/host/b/tls.key (/b/tls.key)",
					"/host/a/ca.crt (/a/ca.crt)"
			}),
		},
		"nothing in it": {words: []string{configFlag + "/a/config.yaml"}, config: `{"kind":"KubeAPIServerConfig"}`, want: found},
		"with a file for admission": {
			words: []string{configFlag + "/a/config.yaml"}, config: `{"apiServerArguments":{"admission-control-config-file":["/b/admission.yaml"]}}`,
			want: with(func(s *seen) { s.Admission = "/host/b/admission.yaml (/b/admission.yaml)" }),
		},
		"not there": {
			words: []string{configFlag + "/a/config.yaml", certificateFlag + "/a/tls.crt"},
			want:  with(func(s *seen) { s.ConfigErr = missing }),
		},
		"another kind": {words: []string{configFlag + "/a/config.yaml"}, config: `{"kind":"Pod"}`, want: with(func(s *seen) {
			s.ConfigErr = failed
		})},
		"empty": {words: []string{configFlag + "/a/config.yaml"}, config: "\n", want: with(func(s *seen) { s.ConfigErr = failed })},
		"too large": {
			words:  []string{configFlag + "/a/config.yaml"},
			config: strings.Repeat("x", kubeapiserver.MaxConfigBytes+1),
			want:   with(func(s *seen) { s.ConfigErr = failed }),
		},
		"under no mount": {words: []string{configFlag + "/c/config.yaml"}, config: pair, want: with(func(s *seen) {
			s.How, s.ConfigAt, s.ConfigErr = how, "/c/config.yaml", failed
		})},
		"in an emptyDir": {
			words: []string{configFlag + "/a/config.yaml"}, config: pair,
			change: func(pod *corev1.Pod) { pod.Spec.Containers[0].VolumeMounts[0].Name = "scratch" },
			want: with(func(s *seen) {
				s.How, s.ConfigAt, s.ConfigErr = how, "/a/config.yaml", failed
			}),
		},
		"not absolute": {words: []string{configFlag + "config.yaml"}, config: pair, want: with(func(s *seen) {
			s.How, s.ConfigAt, s.ConfigErr = how, "config.yaml", failed
		})},
		"named without a value": {words: []string{configFlag}, config: pair, want: seen{
			How: how, Manifest: openShiftManifest, ConfigAt: openShiftManifest, ClientCA: kubeadmCA,
		}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			files := map[string]string{openShiftManifest: manifest(t, c.change, c.words...)}
			if c.config != "" {
				files[at] = c.config
			}
			layout := staticpod.Discover(host(files), staticpod.Given{})
			record(page, name, layout)
			if d := cmp.Diff(c.want, see(layout)); d != "" {
				t.Errorf("layout (-want +got):\n%s", d)
			}
		})
	}
}

// TestNoPath: a value that is not a path may be the key itself, and is never shown.
func TestNoPath(t *testing.T) {
	const marker = "c2VjcmV0"
	for name, value := range map[string]string{
		"a key":     "-----BEGIN-PRIVATE-KEY-----" + marker,
		"two lines": "/a/" + marker + "\u0001",
		"long":      "/a/" + strings.Repeat(marker, 1000),
	} {
		t.Run(name, func(t *testing.T) {
			files := host(map[string]string{openShiftManifest: manifest(t, nil, keyFlag+value)})
			layout := staticpod.Discover(files, staticpod.Given{})
			if layout.Key.Err == nil {
				t.Error("there is no error")
			}
			shown := fmt.Sprint(layout.How, layout.Key.Host, layout.Key.Configured, layout.Key.Err, layout.Paths())
			if strings.Contains(shown, marker) {
				t.Errorf("it is shown: %s", shown)
			}
		})
	}
}

// TestPaths: missing files also determine the layout, and a path in the container is not a
// path on the host.
func TestPaths(t *testing.T) {
	openShift := []string{openShiftManifest, manifestDirectory}
	kubeadm := []string{kubeadmManifest, manifestDirectory}
	cases := map[string]struct {
		files     map[string]string
		directory string
		want      []string
	}{
		"no manifest":         {want: []string{manifestDirectory, staticpod.CISDirectory}},
		"an unusable one":     {files: map[string]string{kubeadmManifest: "{}"}, want: append(slices.Clone(kubeadm), staticpod.CISDirectory)},
		"a directory, no CAs": {directory: "/pki", want: append(known("/pki"), staticpod.ClientCAs()...)},
		"configuration under no mount": {
			files: map[string]string{openShiftManifest: manifest(t, nil, configFlag+"/c/config.yaml")},
			want:  append(slices.Clone(openShift), openShiftCA),
		},
		"configuration with a relative path": {
			files: map[string]string{openShiftManifest: manifest(t, nil, configFlag+"config.yaml")},
			want:  append(slices.Clone(openShift), openShiftCA),
		},
		"a file under no mount": {
			files: map[string]string{openShiftManifest: manifest(t, nil, certificateFlag+"/c/tls.crt", keyFlag+"tls.key")},
			want:  append(slices.Clone(openShift), kubeadmCA),
		},
		"a file for admission": {
			files: map[string]string{kubeadmManifest: manifest(t, nil, admissionFlag+"/a/admission.yaml")},
			want:  append(slices.Clone(kubeadm), kubeadmCA, "/host/a/admission.yaml"),
		},
		"certificate and key in one file": {
			files: map[string]string{openShiftManifest: manifest(t, nil, certificateFlag+"/a/tls.pem", keyFlag+"/a/tls.pem")},
			want:  append(slices.Clone(openShift), "/host/a/tls.pem", kubeadmCA),
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			paths := pathsOf(staticpod.Discover(host(c.files), staticpod.Given{Directory: c.directory}))
			if d := cmp.Diff(sorted(c.want...), paths); d != "" {
				t.Errorf("paths (-want +got):\n%s", d)
			}
		})
	}
	if paths := (staticpod.Found{}).Paths(); len(paths) != 0 {
		t.Errorf("paths of no layout: %q", paths)
	}
}

// TestTranslate: paths of the container on the host.
func TestTranslate(t *testing.T) {
	page := messages.Record(t, "errors of paths in a static Pod")
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

	cases := map[string]struct {
		configured string
		mounts     []corev1.VolumeMount
		want       staticpod.File
		wantErr    bool
	}{
		"below a mount":                  {configured: "/a/x/tls.crt", mounts: mounts(at("/a", "a")), want: staticpod.File{Host: "/host/a/x/tls.crt"}},
		"a mounted file":                 {configured: "/a/tls.crt", mounts: mounts(at("/a/tls.crt", "file")), want: staticpod.File{Host: "/host/the.crt"}},
		"a slash behind the mount":       {configured: "/a/tls.crt", mounts: mounts(at("/a/", "a")), want: staticpod.File{Host: "/host/a/tls.crt"}},
		"slashes in all places":          {configured: "//a///tls.crt", mounts: mounts(at("//a//", "a")), want: staticpod.File{Host: "/host/a/tls.crt"}},
		"dots":                           {configured: "/b/../a/./tls.crt", mounts: mounts(at("/a", "a"), at("/b", "b")), want: staticpod.File{Host: "/host/a/tls.crt"}},
		"dots out of the root":           {configured: "/../../a/tls.crt", mounts: mounts(at("/a", "a")), want: staticpod.File{Host: "/host/a/tls.crt"}},
		"host's root":                    {configured: "/a/etc/tls.crt", mounts: mounts(at("/a", "root")), want: staticpod.File{Host: "/etc/tls.crt"}},
		"the longest of nested ones":     {configured: "/a/b/tls.crt", mounts: mounts(at("/a", "a"), at("/a/b", "b")), want: staticpod.File{Host: "/host/b/tls.crt"}},
		"in any order":                   {configured: "/a/b/tls.crt", mounts: mounts(at("/a/b", "b"), at("/a", "a")), want: staticpod.File{Host: "/host/b/tls.crt"}},
		"beside the nested one":          {configured: "/a/c/tls.crt", mounts: mounts(at("/a/b", "b"), at("/a", "a")), want: staticpod.File{Host: "/host/a/c/tls.crt"}},
		"mounted at the root":            {configured: "/x/tls.crt", mounts: mounts(at("/", "b")), want: staticpod.File{Host: "/host/b/x/tls.crt"}},
		"below one at the root":          {configured: "/a/tls.crt", mounts: mounts(at("/", "b"), at("/a", "a")), want: staticpod.File{Host: "/host/a/tls.crt"}},
		"subPath":                        {configured: "/a/tls.crt", mounts: mounts(subPath(at("/a", "a"), "x/y")), want: staticpod.File{Host: "/host/a/x/y/tls.crt"}},
		"subPath to a file":              {configured: "/a/tls.crt", mounts: mounts(subPath(at("/a/tls.crt", "a"), "x.crt")), want: staticpod.File{Host: "/host/a/x.crt"}},
		"subPathExpr":                    {configured: "/a/tls.crt", mounts: mounts(expression), wantErr: true},
		"no mounts":                      {configured: "/a/tls.crt", wantErr: true},
		"under none":                     {configured: "/c/tls.crt", mounts: mounts(at("/a", "a"), at("/b", "b")), wantErr: true},
		"above it":                       {configured: "/a", mounts: mounts(at("/a/b", "b")), wantErr: true},
		"a name that begins like it":     {configured: "/etc/kubernetes/static-pod-resources-other/tls.crt", mounts: mounts(at("/etc/kubernetes/static-pod-resources", "a")), wantErr: true},
		"a name that goes on":            {configured: "/etc/kubernetes/static-pod/tls.crt", mounts: mounts(at("/etc/kubernetes/static-pod-resources", "a")), wantErr: true},
		"a long name is not deeper":      {configured: "/a/tls.crt", mounts: mounts(at("/a-long-name-beside-it", "b"), at("/a", "a")), want: staticpod.File{Host: "/host/a/tls.crt"}},
		"emptyDir":                       {configured: "/a/tls.crt", mounts: mounts(at("/a", "scratch")), wantErr: true},
		"emptyDir in a host's directory": {configured: "/a/b/tls.crt", mounts: mounts(at("/a", "a"), at("/a/b", "scratch")), wantErr: true},
		"host's directory in emptyDir":   {configured: "/a/b/tls.crt", mounts: mounts(at("/a", "scratch"), at("/a/b", "b")), want: staticpod.File{Host: "/host/b/tls.crt"}},
		"volume not there":               {configured: "/a/tls.crt", mounts: mounts(at("/a", "none")), wantErr: true},
		"relative":                       {configured: "a/tls.crt", mounts: mounts(at("/", "a")), wantErr: true},
		"relative, dots":                 {configured: "../a/tls.crt", mounts: mounts(at("/", "a")), wantErr: true},
		"environment":                    {configured: "$(CERTS)/tls.crt", mounts: mounts(at("/", "a")), wantErr: true},
		"not configured":                 {configured: "", mounts: mounts(at("/", "a"))},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			data := manifest(t, func(pod *corev1.Pod) {
				pod.Spec.Containers[0].VolumeMounts = c.mounts
				pod.Spec.Volumes = append(pod.Spec.Volumes, hostPath("file", "/host/the.crt"), hostPath("root", "/"))
			}, certificateFlag+c.configured, keyFlag+c.configured, caFlag+c.configured, admissionFlag+c.configured)
			layout := staticpod.Discover(host(map[string]string{kubeadmManifest: data}), staticpod.Given{})
			if layout.ManifestParseErr != nil {
				t.Fatal(layout.ManifestParseErr)
			}
			files := []staticpod.File{layout.Certificate, layout.Key, layout.KubeletCA, layout.Admission}
			if path.IsAbs(c.configured) {
				files = append(files, layout.AdmissionPath(c.configured))
			}
			for _, file := range files {
				page.Error(name, file.Err)
				if (file.Err != nil) != c.wantErr {
					t.Errorf("got error %v, want one: %t", file.Err, c.wantErr)
				}
				file.Err = nil
				c.want.Configured = c.configured
				if d := cmp.Diff(c.want, file); d != "" {
					t.Errorf("file (-want +got):\n%s", d)
				}
			}
			if paths := layout.Paths(); slices.Contains(paths, "") ||
				(c.want.Host != "") != slices.Contains(paths, c.want.Host) {
				t.Errorf("Paths: got %q with the file at %q", paths, c.want.Host)
			}
		})
	}
}

// TestAdmissionPath: paths in the admission configuration, with /host/a mounted at /a.
func TestAdmissionPath(t *testing.T) {
	cases := map[string]struct {
		words []string // of the command line
		named string
		want  string
	}{
		"nothing":           {words: []string{admissionFlag + "/a/b/admission.yaml"}},
		"absolute":          {words: []string{admissionFlag + "/a/b/admission.yaml"}, named: "/a/policies", want: "/host/a/policies (/a/policies)"},
		"beside it":         {words: []string{admissionFlag + "/a/b/admission.yaml"}, named: "webhook.yaml", want: "/host/a/b/webhook.yaml (/a/b/webhook.yaml)"},
		"above it":          {words: []string{admissionFlag + "/a/b/admission.yaml"}, named: "../webhook.yaml", want: "/host/a/webhook.yaml (/a/webhook.yaml)"},
		"out of the mount":  {words: []string{admissionFlag + "/a/admission.yaml"}, named: "../webhook.yaml", want: "/webhook.yaml: " + failed},
		"beside a relative": {words: []string{admissionFlag + "admission.yaml"}, named: "webhook.yaml", want: "webhook.yaml: " + failed},
		"no file":           {named: "webhook.yaml", want: "webhook.yaml: " + failed},
		"no file, absolute": {named: "/b/webhook.yaml", want: "/host/b/webhook.yaml (/b/webhook.yaml)"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			files := host(map[string]string{kubeadmManifest: manifest(t, nil, c.words...)})
			layout := staticpod.Discover(files, staticpod.Given{})
			if got := seeFile(layout.AdmissionPath(c.named)); got != c.want {
				t.Errorf("AdmissionPath(%q): got %q, want %q", c.named, got, c.want)
			}
		})
	}
	if got := seeFile(staticpod.Found{}.AdmissionPath("/a/x")); got != "/a/x: "+failed {
		t.Errorf("AdmissionPath without a layout: got %q", got)
	}
}

// TestLayoutPrintsTheSame: if a host did not change, its layout prints the same, including
// unexported fields.
func TestLayoutPrintsTheSame(t *testing.T) {
	config := `{"apiServerArguments":{"b":["1"],"a":["2"]},"admission":{"pluginConfig":{"ValidatingAdmissionWebhook":{"configuration":{"x":{"y":[1]}}}}}}`
	system := host(map[string]string{
		"/host/a/config.yaml": config,
		openShiftManifest: manifest(t, func(pod *corev1.Pod) {
			mounts := &pod.Spec.Containers[0].VolumeMounts
			*mounts = append(*mounts, corev1.VolumeMount{Name: "scratch", MountPath: "/c"},
				corev1.VolumeMount{Name: "b", MountPath: "/d", SubPathExpr: "$(X)"})
		}, configFlag+"/a/config.yaml", certificateFlag+"/c/x", keyFlag+"/d/x", admissionFlag+"x"),
	})
	first := fmt.Sprintf("%+v", staticpod.Discover(system, staticpod.Given{}))
	second := fmt.Sprintf("%+v", staticpod.Discover(system, staticpod.Given{}))
	if d := cmp.Diff(first, second); d != "" {
		t.Errorf("two layouts of one host (-first +second):\n%s", d)
	}
}

// TestDiscoverIsBounded: no manifest of the permitted size takes much time or memory.
func TestDiscoverIsBounded(t *testing.T) {
	const (
		limit = 20 * time.Second
		most  = 8 << 20
	)
	for name, data := range map[string]string{
		"lists in lists": strings.Repeat("[", staticpod.MaxManifestBytes),
		"maps in maps":   strings.Repeat("{a: ", staticpod.MaxManifestBytes/4),
		"a text by its name": "text: &text " + strings.Repeat("x", 16<<10) + "\nlist: [" + strings.Repeat("*text,", 500) +
			"]\n",
	} {
		t.Run(name, func(t *testing.T) {
			system := host(map[string]string{openShiftManifest: data})
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			done := make(chan struct{})
			go func() {
				defer close(done)
				staticpod.Discover(system, staticpod.Given{})
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

// FuzzDiscover: no manifest and no configuration causes a panic. All paths are clean and
// absolute, each file has a path on the host or an error, and an unusable manifest sets no
// files.
func FuzzDiscover(f *testing.F) {
	config := `{"kind":"KubeAPIServerConfig","apiServerArguments":{"kubelet-client-certificate":["/a/tls.crt"],"kubelet-client-key":["/none/tls.key"]}}`
	for _, seed := range []string{
		"", "rubbish", "{}", `{"kind":"Pod"}`, `{"kind":"Job"}`, "[]", "\x00",
		`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"},"spec":{"containers":[{"name":"kube-apiserver"}]}}`,
		`{"kind":"Pod","spec":{"containers":[{"name":"kube-apiserver"},{"name":"kube-apiserver"}]}}`,
		"apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  containers:\n  - name: kube-apiserver\n    command: " +
			"[--kubelet-client-certificate, /a/tls.crt]\n    volumeMounts:\n    - {name: a, mountPath: /a}\n  volumes:\n  - " +
			"{name: a, hostPath: {path: /host/a}}\n",
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
			pod.Spec.Containers[1].VolumeMounts = []corev1.VolumeMount{{Name: "scratch", MountPath: "/a"},
				{Name: "b", MountPath: "/b", SubPathExpr: "$(X)"}, {Name: "b", MountPath: "/"}}
			pod.Spec.Volumes[1].HostPath.Path = "/"
		}, certificateFlag+"/a/tls.crt", keyFlag+"/b/tls.key", caFlag+"/"),
		manifest(f, nil, admissionFlag+"/a/admission.yaml"), manifest(f, nil, admissionFlag+"admission.yaml"),
		manifest(f, nil, configFlag+"a/config.yaml"), manifest(f, nil, configFlag+"/none"),
		strings.Repeat(" ", staticpod.MaxManifestBytes+1),
	} {
		f.Add(seed, config)
		f.Add(seed, "")
	}
	f.Fuzz(func(t *testing.T, data, config string) {
		files := host(map[string]string{openShiftManifest: data, "/host/a/config.yaml": config})
		layout := staticpod.Discover(files, staticpod.Given{})
		if layout.How == "" || layout.Manifest != openShiftManifest && layout.Manifest != manifestDirectory {
			t.Errorf("layout of a manifest that is there: %+v", see(layout))
		}
		for _, at := range layout.Paths() {
			if !path.IsAbs(at) || path.Clean(at) != at {
				t.Errorf("%q to be watched is not a clean absolute path", at)
			}
		}
		for _, file := range []staticpod.File{
			layout.Certificate, layout.Key, layout.KubeletCA, layout.Admission, layout.AdmissionPath("x"),
			layout.AdmissionPath("/a/x"),
		} {
			if file.Host != "" && (!path.IsAbs(file.Host) || path.Clean(file.Host) != file.Host) {
				t.Errorf("%q is not a clean absolute path", file.Host)
			}
			if (file.Configured == "") != (file.Host == "" && file.Err == nil) || (file.Host != "" && file.Err != nil) {
				t.Errorf("neither on the host nor an error, or both: %+v", file)
			}
			if layout.ConfigAt == "" && file.Host != "" {
				t.Errorf("%+v out of a manifest that cannot be used: %v %v", file, layout.ManifestReadErr, layout.ManifestParseErr)
			}
		}
		for _, file := range []staticpod.File{layout.Certificate, layout.Key, layout.KubeletCA, layout.Admission} {
			if layout.ConfigAt == "" && file != (staticpod.File{}) {
				t.Errorf("%+v out of a manifest that cannot be used: %v %v", file, layout.ManifestReadErr, layout.ManifestParseErr)
			}
		}
		if (layout.ManifestParseErr == nil && layout.ManifestReadErr == nil) != (layout.ConfigAt != "") {
			t.Errorf("configuration at %q with error %v", layout.ConfigAt, layout.ManifestParseErr)
		}
	})
}

// FuzzDirectory: no names and contents of a directory cause a panic or a contradiction: there
// are at least two duplicates, the manifest is one of them, and hidden files do not count.
func FuzzDirectory(f *testing.F) {
	usable := manifest(f, nil)
	f.Add("a", "b", ".c", usable, usable, true)
	f.Add("kube-apiserver.yaml", "kube-apiserver.yaml.bak", "x", usable, "{", false)
	f.Fuzz(func(t *testing.T, first, second, third, data, other string, link bool) {
		system := fstest.MapFS{}
		for name, content := range map[string]string{first: data, second: other, third: data} {
			if at := "etc/kubernetes/manifests/" + name; name != "" && !strings.Contains(name, "/") && fs.ValidPath(at) {
				system[at] = &fstest.MapFile{Data: []byte(content), Mode: 0o600}
			}
		}
		if at := "etc/kubernetes/manifests/zz-link"; link {
			system[at] = &fstest.MapFile{Data: []byte(first), Mode: fs.ModeSymlink}
		}
		layout := staticpod.Discover(system, staticpod.Given{})
		if len(layout.Duplicates) == 1 || len(layout.Duplicates) > 0 && !slices.Contains(layout.Duplicates, layout.Manifest) {
			t.Errorf("duplicates %q, manifest %q", layout.Duplicates, layout.Manifest)
		}
		for _, at := range append(slices.Clone(layout.Duplicates), layout.Manifest) {
			if strings.HasPrefix(path.Base(at), ".") {
				t.Errorf("%q is hidden", at)
			}
		}
	})
}
