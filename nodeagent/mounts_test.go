// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/internal/staticpod"
	"github.com/kubelet-https-guard/kubelet-https-guard/nodeagent/internal/agent"
	"github.com/kubelet-https-guard/kubelet-https-guard/nodeagent/internal/hostfs"
	"github.com/kubelet-https-guard/kubelet-https-guard/nodeagent/internal/scan"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/layout"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/report"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/chart"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/openshift"
)

// A host in some state. The agent needs other files on each of them.
type hostState struct {
	layout openshift.Layout
	change func(tree openshift.Tree) error
	flags  []string
}

const currentDirectory = "/etc/kubernetes/static-pod-resources/kube-apiserver-certs/secrets/kubelet-client"

func hostStates() map[string]hostState {
	noManifest := func(tree openshift.Tree) error { return os.Remove(tree.Manifest()) }
	return map[string]hostState{
		string(openshift.Current): {layout: openshift.Current},
		string(openshift.Legacy):  {layout: openshift.Legacy},
		string(openshift.Oldest):  {layout: openshift.Oldest},
		string(openshift.Kubeadm): {layout: openshift.Kubeadm},
		"given directory":         {layout: openshift.Current, flags: []string{"--kubelet-client-dir", currentDirectory}},
		"given directory, kubeadm": {
			layout: openshift.Kubeadm, flags: []string{"--kubelet-client-dir", "/etc/kubernetes/pki"},
		},
		"given CA":         {layout: openshift.Current, flags: []string{"--kubelet-ca", "/etc/kubernetes/kubelet-ca.crt"}},
		"no manifest":      {layout: openshift.Current, change: noManifest},
		"manifest rubbish": {layout: openshift.Current, change: func(tree openshift.Tree) error { return os.WriteFile(tree.Manifest(), []byte("{"), 0o600) }},
		"directory of the CIS text": {layout: openshift.Current, change: func(tree openshift.Tree) error {
			if err := os.MkdirAll(filepath.Join(tree.Root, staticpod.CISDirectory), 0o755); err != nil {
				return err
			}
			return noManifest(tree)
		}},
		"no configuration": {layout: openshift.Current, change: func(tree openshift.Tree) error { return os.Remove(tree.Config()) }},
		"no pair":          {layout: openshift.Current, change: func(tree openshift.Tree) error { return os.RemoveAll(tree.Directory()) }},
		// Without the directory itself the Pod does not start.
		"nothing": {layout: openshift.Current, change: func(tree openshift.Tree) error {
			directory := filepath.Join(tree.Root, "etc/kubernetes")
			return errors.Join(os.RemoveAll(directory), os.Mkdir(directory, 0o755))
		}},
	}
}

// TestMountsCoverWhatIsRead: the chart mounts every file that the agent reads, in any state
// of the host, and the mounts show the new files after every kind of rotation.
func TestMountsCoverWhatIsRead(t *testing.T) {
	for on, args := range map[string][]string{
		"OpenShift":        {"--api-versions", "security.openshift.io/v1"},
		"other Kubernetes": nil,
	} {
		pod := renderedPod(t, args)
		if diff := cmp.Diff([]string(nil), mountFaults(pod)); diff != "" {
			t.Errorf("faults of the mounts on %s (-want +got):\n%s", on, diff)
		}
		for name, state := range hostStates() {
			t.Run(on+"/"+name, func(t *testing.T) {
				tree := state.lay(t)
				seen := touched(t, tree.Root, containerArgs(t, pod, state.flags))
				if len(seen) == 0 {
					t.Error("the agent read nothing")
				}
				if diff := cmp.Diff([]string(nil), unmounted(pod, seen)); diff != "" {
					t.Errorf("read or watched, but under no mount (-want +got):\n%s", diff)
				}
				if diff := cmp.Diff([]string(nil), notMounted(t, pod, tree.Root, containerArgs(t, pod, state.flags))); diff != "" {
					t.Errorf("reported as not mounted (-want +got):\n%s", diff)
				}
			})
		}
		for name, rotate := range rotations() {
			t.Run(on+"/"+name, func(t *testing.T) {
				if diff := cmp.Diff([]string(nil), stale(t, pod, rotate)); diff != "" {
					t.Errorf("mounts that show old files (-want +got):\n%s", diff)
				}
			})
		}
	}
}

// TestMountsOfLayouts: with the value of each layout, the chart mounts every file that the agent reads in its tree.
func TestMountsOfLayouts(t *testing.T) {
	for _, kind := range layout.Table() {
		t.Run(kind.Name, func(t *testing.T) {
			pod := renderedPod(t, []string{"--set", "nodeagent.layout=" + kind.Name})
			if diff := cmp.Diff([]string(nil), mountFaults(pod)); diff != "" {
				t.Errorf("faults of the mounts (-want +got):\n%s", diff)
			}
			args := containerArgs(t, pod, nil)
			if args.layout != kind.Name {
				t.Errorf("--layout: got %q", args.layout)
			}
			tree := hostState{layout: openshift.ByName()[kind.Name]}.lay(t)
			if diff := cmp.Diff([]string(nil), unmounted(pod, touched(t, tree.Root, args))); diff != "" {
				t.Errorf("read or watched, but under no mount (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff([]string(nil), notMounted(t, pod, tree.Root, args)); diff != "" {
				t.Errorf("reported as not mounted (-want +got):\n%s", diff)
			}
		})
	}
}

// TestLayoutByVersion: helm recognizes k3s and RKE2 by the version of the API server.
func TestLayoutByVersion(t *testing.T) {
	for version, want := range map[string]string{
		"v1.37.2": layout.Auto, "v1.37.2+rke2r1": "rke2", "v1.37.2+k3s1": "k3s", "v1.30.4-eks-a737599": layout.Auto,
	} {
		pod := renderedPod(t, []string{"--kube-version", version})
		if got := containerArgs(t, pod, nil).layout; got != want {
			t.Errorf("%s: got %s, want %s", version, got, want)
		}
	}
}

// TestMountsByValues: with the chart's values for another kind of host, the files that the
// agent needs are mounted and found.
func TestMountsByValues(t *testing.T) {
	const certs = "/var/lib/microshift/certs"
	pod := renderedPod(t, []string{
		"--set", "nodeagent.hostPaths={" + certs + "}", "--set", "nodeagent.kubeletFiles={/var/lib/kubelet/config.yaml}",
		"--set", "nodeagent.clientDirectory=" + certs + "/client", "--set", "nodeagent.kubeletCA=" + certs +
			"/ca-bundle/kubelet-ca.crt",
		"--set", "expiringFraction=0.2", "--set", "nodeagent.extraArgs={--settle=3s}",
	})
	if diff := cmp.Diff([]string(nil), mountFaults(pod)); diff != "" {
		t.Errorf("faults of the mounts (-want +got):\n%s", diff)
	}
	parsed := containerArgs(t, pod, nil)
	if parsed.expiringFraction != 0.2 || parsed.settle != 3*time.Second {
		t.Errorf("the flags: got %v and %s", parsed.expiringFraction, parsed.settle)
	}
	ca := pkitest.NewCA("kube-apiserver-to-kubelet-client-signer")
	pair := ca.Issue(pkitest.KubeletClient())
	root := t.TempDir()
	for at, data := range map[string][]byte{
		"/client/client.crt": pair.Certificate, "/client/client.key": pair.Key, "/ca-bundle/kubelet-ca.crt": ca.PEM(),
	} {
		if err := os.MkdirAll(filepath.Dir(root+certs+at), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(root+certs+at, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	seen := slices.DeleteFunc(touched(t, root, parsed),
		func(p string) bool { return strings.HasPrefix(p, "/etc"+watched) })
	if diff := cmp.Diff([]string(nil), unmounted(pod, seen)); diff != "" {
		t.Errorf("read or watched, but under no mount (-want +got):\n%s", diff)
	}
	host, err := hostfs.New(root, check.MaxFileBytes, hostfs.MountInfo)
	if err != nil {
		t.Fatal(err)
	}
	snapshot := scan.Scan(
		scan.Sources{Host: host},
		scan.Options{Directory: parsed.directory, ClientCA: parsed.clientCA, ExpiringFraction: parsed.expiringFraction},
		pkitest.Now())
	if !snapshot.Valid {
		t.Errorf("Valid is false: %+v", snapshot.FileResults)
	}
}

// TestMountRules: each rule of this test finds its fault.
func TestMountRules(t *testing.T) {
	sound := renderedPod(t, nil)
	hostPath := func(pod *corev1.PodSpec) *corev1.HostPathVolumeSource {
		i := slices.IndexFunc(pod.Volumes, func(v corev1.Volume) bool { return v.HostPath != nil })
		return pod.Volumes[i].HostPath
	}
	mount := func(pod *corev1.PodSpec) *corev1.VolumeMount {
		i := slices.IndexFunc(pod.Containers[0].VolumeMounts,
			func(m corev1.VolumeMount) bool { return strings.HasPrefix(m.MountPath, "/host") })
		return &pod.Containers[0].VolumeMounts[i]
	}
	at := func(directory string) func(pod *corev1.PodSpec) {
		return func(pod *corev1.PodSpec) { hostPath(pod).Path, mount(pod).MountPath = directory, "/host"+directory }
	}
	const (
		revision = "/etc/kubernetes/static-pod-resources/kube-apiserver-pod-7"
		manifest = "/etc/kubernetes/manifests/kube-apiserver-pod.yaml"
		clientCA = "/etc/kubernetes/kubelet-ca.crt"
	)
	configuration := []string{
		revision + "/configmaps/config/config.yaml",
		revision + "/configmaps/kubelet-serving-ca/ca-bundle.crt",
	}
	pair := []string{currentDirectory + "/tls.crt", currentDirectory + "/tls.key"}
	kubelet := []string{
		"/etc/kubernetes/kubelet-env",
		"/etc/kubernetes/kubelet-workaround",
		"/etc/kubernetes/kubelet.conf",
	}
	const manifests = "/etc/kubernetes/manifests"
	type found struct {
		// Unmounted are files only.
		Faults, Unmounted, Stale []string
		// NotMounted is what the agent reports: fewer files, because it finds no others
		// without the manifest.
		NotMounted []string
	}
	cases := map[string]struct {
		change func(pod *corev1.PodSpec)
		want   found
	}{
		"the manifests only": {change: at("/etc/kubernetes/manifests"), want: found{
			Unmounted: slices.Concat([]string{clientCA}, kubelet, pair, configuration), NotMounted: []string{clientCA, configuration[0]},
		}},
		"the pair's directory": {change: at(currentDirectory), want: found{
			Unmounted: slices.Concat([]string{clientCA}, kubelet, []string{manifests, manifest}, configuration),
			Stale:     []string{currentDirectory}, NotMounted: []string{manifests},
		}},
		"the revision": {change: at(revision), want: found{
			Unmounted: slices.Concat([]string{clientCA}, kubelet, []string{manifests, manifest}, pair),
			Stale:     []string{revision}, NotMounted: []string{manifests},
		}},
		"a file": {change: func(pod *corev1.PodSpec) { hostPath(pod).Type = new(corev1.HostPathFile) }, want: found{
			Faults: []string{"/etc/kubernetes: type File, not Directory"},
		}},
		"created where it is not": {
			change: func(pod *corev1.PodSpec) { hostPath(pod).Type = new(corev1.HostPathDirectoryOrCreate) },
			want: found{
				Faults: []string{"/etc/kubernetes: type DirectoryOrCreate, not Directory"},
			},
		},
		"a subPath": {change: func(pod *corev1.PodSpec) { mount(pod).SubPath = "manifests" }, want: found{
			Faults: []string{"/etc/kubernetes: only a part of the volume is mounted"},
		}},
		"a subPathExpr": {change: func(pod *corev1.PodSpec) { mount(pod).SubPathExpr = "$(NODE_NAME)" }, want: found{
			Faults: []string{"/etc/kubernetes: only a part of the volume is mounted"},
		}},
		"writable": {change: func(pod *corev1.PodSpec) { mount(pod).ReadOnly = false }, want: found{
			Faults: []string{"/etc/kubernetes: writable"},
		}},
		"blind to later mounts": {change: func(pod *corev1.PodSpec) { mount(pod).MountPropagation = nil }, want: found{
			Faults: []string{"/etc/kubernetes: mounts below it that are made later are not seen"},
		}},
		"the whole host": {
			change: func(pod *corev1.PodSpec) { hostPath(pod).Path, mount(pod).MountPath = "/", "/host" },
			want: found{
				Faults: []string{"/: the whole host"},
			},
		},
		"at another place": {change: func(pod *corev1.PodSpec) { mount(pod).MountPath = "/host/kubernetes" }, want: found{
			Faults:     []string{"/etc/kubernetes: mounted at /host/kubernetes, which for the agent is another path of the host"},
			NotMounted: []string{manifests},
			Unmounted:  slices.Concat([]string{clientCA}, kubelet, []string{manifests, manifest}, pair, configuration),
		}},
		"the kubelet's directory": {change: at("/var/lib/kubelet"), want: found{
			Faults: []string{"/var/lib/kubelet: the tokens of Pods"}, NotMounted: []string{manifests},
			Unmounted: slices.Concat([]string{clientCA}, kubelet, []string{manifests, manifest}, pair, configuration),
		}},
		"something over it": {change: func(pod *corev1.PodSpec) {
			pod.Volumes = append(pod.Volumes,
				corev1.Volume{Name: "empty", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}})
			pod.Containers[0].VolumeMounts = append(pod.Containers[0].VolumeMounts,
				corev1.VolumeMount{Name: "empty", MountPath: "/host/etc/kubernetes/manifests"})
		}, want: found{
			Faults: []string{"/host/etc/kubernetes/manifests: what is mounted in the host's place is not the host's"},
		}},
		"unused": {change: func(pod *corev1.PodSpec) {
			pod.Volumes = append(pod.Volumes,
				corev1.Volume{Name: "var", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/var"}}})
		}, want: found{
			Faults: []string{"/var: not mounted"},
		}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			pod := *sound.DeepCopy()
			tc.change(&pod)
			tree := hostState{layout: openshift.Current}.lay(t)
			files := slices.DeleteFunc(touched(t, tree.Root, containerArgs(t, pod, nil)),
				func(p string) bool { return strings.HasSuffix(p, watched) })
			got := found{
				Faults:     mountFaults(pod),
				Unmounted:  unmounted(pod, files),
				NotMounted: notMounted(t, pod, tree.Root, containerArgs(t, pod, nil)),
			}
			for _, rotate := range rotations() {
				got.Stale = append(got.Stale, stale(t, pod, rotate)...)
			}
			slices.Sort(got.Stale)
			got.Stale = slices.Compact(got.Stale)
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("faults (-want +got):\n%s", diff)
			}
		})
	}
}

// lay writes the files of the host.
func (s hostState) lay(t *testing.T) openshift.Tree {
	t.Helper()
	ca := pkitest.NewCA("kube-apiserver-to-kubelet-signer")
	pair := ca.Issue(pkitest.KubeletClient())
	tree, err := openshift.Write(t.TempDir(), s.layout,
		openshift.Files{Certificate: pair.Certificate, Key: pair.Key, ClientCA: ca.PEM()})
	if err == nil && s.change != nil {
		err = s.change(tree)
	}
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// renderedPod is the Pod of the DaemonSet that the chart renders.
func renderedPod(t *testing.T, args []string) corev1.PodSpec {
	t.Helper()
	if testing.Short() && os.Getenv("HELM") == "" {
		t.Skip("-short, and HELM is not set")
	}
	rendered, err := chart.Render(
		t.Context(),
		append([]string{"--show-only", "templates/nodeagent/daemonset.yaml"}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	var daemonSet appsv1.DaemonSet
	if err := chart.Decode(rendered, "DaemonSet", &daemonSet); err != nil {
		t.Fatal(err)
	}
	pod := daemonSet.Spec.Template.Spec
	if len(pod.Containers) != 1 || len(pod.InitContainers) != 0 {
		t.Fatalf("the Pod has %d containers and %d init containers, want the agent only", len(pod.Containers),
			len(pod.InitContainers))
	}
	return pod
}

// containerArgs parses the arguments of the agent's container and more flags.
func containerArgs(t *testing.T, pod corev1.PodSpec, flags []string) config {
	t.Helper()
	values := strings.NewReplacer("$(NODE_NAME)", "master-0", "$(HOST_IP)", "192.0.2.1",
		"$(POD_NAMESPACE)", "guard", "$(POD_NAME)", "agent-x")
	var args []string
	for _, arg := range pod.Containers[0].Args {
		args = append(args, values.Replace(arg))
	}
	for i, arg := range args {
		if strings.HasPrefix(arg, "--metrics-cert-dir=") {
			args[i] = "--metrics-cert-dir=" + t.TempDir() // its mount is not of the host
		}
	}
	var parsed config
	set := flag.NewFlagSet("", flag.ContinueOnError)
	parsed.defineFlags(set, noEnvironment)
	if err := set.Parse(append(args, flags...)); err != nil {
		t.Fatal(err)
	}
	if err := parsed.validate(); err != nil {
		t.Fatal(err)
	}
	if parsed.root == "/" {
		t.Fatal("--root is the container's own root")
	}
	return parsed
}

// recorder is a host that records which paths are read.
type recorder struct {
	*hostfs.FS
	asked map[string]bool
}

func (r recorder) Open(name string) (fs.File, error) {
	r.asked["/"+name] = true
	return r.FS.Open(name)
}

func (r recorder) ReadFile(name string) ([]byte, error) {
	r.asked["/"+name] = true
	return r.FS.ReadFile(name)
}

func (r recorder) ReadDir(name string) ([]fs.DirEntry, error) {
	r.asked["/"+name] = true
	return r.FS.ReadDir(name)
}

func (r recorder) Stat(name string) (fs.FileInfo, error) {
	r.asked["/"+name] = true
	return r.FS.Stat(name)
}

// watchRecorder records which directories are watched, and never wakes the agent.
type watchRecorder struct {
	root  string
	asked map[string]bool
}

func (a watchRecorder) Watch(directories []hostfs.Directory) bool {
	for _, d := range directories {
		a.asked[path.Join("/", strings.TrimPrefix(d.Path, a.root))+watched] = true
	}
	return false
}

func (watchRecorder) Wake() <-chan struct{} { return nil }

// watched is appended to a directory that is watched.
const watched = " (watched)"

// end stops the agent after its first scan.
type end context.CancelFunc

func (e end) Scanned(agent.Trigger, time.Duration, scan.Snapshot) { e() }

// touched returns the paths of the host that the agent reads or watches in one scan.
func touched(t *testing.T, root string, config config) []string {
	t.Helper()
	host, err := hostfs.New(root, check.MaxFileBytes, hostfs.MountInfo)
	if err != nil {
		t.Fatal(err)
	}
	asked := map[string]bool{}
	options := scan.Options{
		Layout: config.layout, Directory: config.directory, Certificate: config.certificate, Key: config.key,
		ClientCA: config.clientCA, ExpiringFraction: config.expiringFraction,
	}
	var kubelet []string
	ctx, cancel := context.WithCancel(t.Context())
	guard := &agent.Agent{
		Scan: func(now time.Time) scan.Snapshot {
			snapshot := scan.Scan(scan.Sources{Host: recorder{host, asked}}, options, now)
			kubelet = slices.Concat(snapshot.Found.Kubelet.Tried, snapshot.Found.Kubelet.Listed)
			return snapshot
		},
		Chains:  host.Chains,
		Watcher: watchRecorder{root, asked}, Meter: end(cancel), Reporter: report.Reporters{},
		Now: pkitest.Now, Log: slog.New(slog.DiscardHandler), Resync: config.resync, Settle: config.settle,
	}
	if err := guard.Run(ctx); err != nil {
		t.Fatal(err)
	}
	// The agent looks for the kubelet's configuration in more places than are mounted. If
	// it is not visible, the result names the assumption.
	maps.DeleteFunc(asked, func(p string, _ bool) bool {
		directory, isWatched := strings.CutSuffix(p, watched)
		return !below(directory, "/etc/kubernetes") && slices.ContainsFunc(kubelet, func(k string) bool {
			return below(directory, k) || below(k, directory) && (isWatched || strings.HasSuffix(directory, "/systemd/system"))
		})
	})
	// To detect the layout, the agent looks for the marks of all of them.
	for _, kind := range layout.Table() {
		if config.layout == layout.Auto {
			delete(asked, kind.Mark)
		}
	}
	return slices.Sorted(maps.Keys(asked))
}

// notMounted returns the subjects that the agent reports as not mounted, with a table of the
// Pod's mounts; sorted, each once.
func notMounted(t *testing.T, pod corev1.PodSpec, root string, config config) []string {
	t.Helper()
	var table strings.Builder
	for _, m := range mountsIn(pod) {
		at := path.Join(root, strings.TrimPrefix(path.Clean(m.MountPath), rootArg(pod)))
		_, _ = fmt.Fprintf(&table, "36 35 98:0 / %s ro - ext4 /dev/root rw\n", at)
	}
	mountinfo := filepath.Join(t.TempDir(), "mountinfo")
	if err := os.WriteFile(mountinfo, []byte(table.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	host, err := hostfs.New(root, check.MaxFileBytes, mountinfo)
	if err != nil {
		t.Fatal(err)
	}
	options := scan.Options{
		Layout: config.layout, Directory: config.directory, Certificate: config.certificate, Key: config.key,
		ClientCA: config.clientCA, ExpiringFraction: config.expiringFraction,
	}
	var subjects []string
	for _, result := range scan.Scan(scan.Sources{Host: host}, options, pkitest.Now()).FileResults {
		if result.Reason == finding.NotMounted {
			subjects = append(subjects, result.Subject.Path)
		}
	}
	slices.Sort(subjects)
	return slices.Compact(subjects)
}

// mountOf is a mount in the container, with its volume.
type mountOf struct {
	corev1.VolumeMount
	volume corev1.Volume
}

func mountsIn(pod corev1.PodSpec) []mountOf {
	var all []mountOf
	for _, m := range pod.Containers[0].VolumeMounts {
		i := slices.IndexFunc(pod.Volumes, func(v corev1.Volume) bool { return v.Name == m.Name })
		all = append(all, mountOf{m, pod.Volumes[i]})
	}
	return all
}

// rootArg is the value of --root.
func rootArg(pod corev1.PodSpec) string {
	for _, arg := range pod.Containers[0].Args {
		if root, ok := strings.CutPrefix(arg, "--root="); ok {
			return path.Clean(root)
		}
	}
	return "/"
}

// below reports whether a path is the directory or below it.
func below(p, directory string) bool {
	return directory == "/" || p == directory || strings.HasPrefix(p, directory+"/")
}

// mountFaults returns what is wrong with the mounts and volumes.
func mountFaults(pod corev1.PodSpec) []string {
	var faults []string
	root, mounted := rootArg(pod), map[string]bool{}
	for _, m := range mountsIn(pod) {
		mounted[m.Name] = true
		if m.volume.HostPath == nil {
			if below(path.Clean(m.MountPath), root) {
				faults = append(faults, m.MountPath+": what is mounted in the host's place is not the host's")
			}
			continue
		}
		host := path.Clean(m.volume.HostPath.Path)
		fault := func(text string) { faults = append(faults, host+": "+text) }
		if host == "/" {
			fault("the whole host")
		}
		if path.Clean(m.MountPath) != path.Join(root, host) {
			fault("mounted at " + m.MountPath + ", which for the agent is another path of the host")
		}
		// The mount of a single file shows the old file after it was replaced. The agent
		// reports this (StaleMount), and the kubelet's directory must not be mounted. The
		// kubelet must not create a missing path.
		kind := deref(m.volume.HostPath.Type)
		single := kind == corev1.HostPathFile && (path.Dir(host) == "/var/lib/kubelet" ||
			slices.ContainsFunc(layout.Table(), func(l layout.Layout) bool { return slices.Contains(l.Files, host) }))
		if kind != corev1.HostPathDirectory && !single {
			fault(fmt.Sprintf("type %s, not Directory", kind))
		}
		if !single && (below(host, "/var/lib/kubelet") || below("/var/lib/kubelet", host)) && host != "/" {
			fault("the tokens of Pods")
		}
		if m.SubPath != "" || m.SubPathExpr != "" {
			fault("only a part of the volume is mounted")
		}
		if !m.ReadOnly {
			fault("writable")
		}
		if single {
			continue
		}
		if m.MountPropagation == nil || *m.MountPropagation != corev1.MountPropagationHostToContainer {
			fault("mounts below it that are made later are not seen")
		}
	}
	for _, v := range pod.Volumes {
		if v.HostPath != nil && !mounted[v.Name] {
			faults = append(faults, v.HostPath.Path+": not mounted")
		}
	}
	return faults
}

func deref(kind *corev1.HostPathType) corev1.HostPathType {
	if kind == nil {
		return "(none)"
	}
	return *kind
}

// unmounted returns the paths outside of all mounts. To watch a directory above a mount is
// useless and harmless: it belongs to the container.
func unmounted(pod corev1.PodSpec, paths []string) []string {
	root := rootArg(pod)
	var missing []string
	for _, p := range paths {
		directory, isWatched := strings.CutSuffix(p, watched)
		if !slices.ContainsFunc(mountsIn(pod), func(m mountOf) bool {
			if m.volume.HostPath == nil {
				return false
			}
			at, host := path.Clean(m.MountPath), path.Clean(m.volume.HostPath.Path)
			if at != path.Join(root, host) {
				return false
			}
			return below(directory, host) || isWatched && below(host, directory)
		}) {
			missing = append(missing, p)
		}
	}
	return missing
}

// rotation is one way in which the platform writes new files.
type rotation struct {
	layout openshift.Layout
	write  func(tree openshift.Tree, files map[string][]byte) error
}

func rotations() map[string]rotation {
	all := map[string]rotation{}
	for _, layout := range []openshift.Layout{openshift.Current, openshift.Legacy, openshift.Oldest} {
		all[string(layout)+", directory swapped"] = rotation{
			layout,
			func(tree openshift.Tree, files map[string][]byte) error {
				return openshift.SwapDirectory(tree.Directory(), tree.Staging(), files)
			},
		}
		all[string(layout)+", directory created again"] = rotation{
			layout,
			func(tree openshift.Tree, files map[string][]byte) error {
				return openshift.Recreate(tree.Directory(), files)
			},
		}
		// Old revisions are pruned.
		all[string(layout)+", new revision"] = rotation{layout, func(tree openshift.Tree, files map[string][]byte) error {
			_, err := openshift.Write(tree.Root, layout,
				openshift.Files{Certificate: files["tls.crt"], Key: files["tls.key"], Revision: tree.Revision + 1})
			if err != nil {
				return err
			}
			return os.RemoveAll(
				filepath.Join(tree.Root, "etc/kubernetes/static-pod-resources",
					fmt.Sprintf("kube-apiserver-pod-%d", tree.Revision)),
			)
		}}
	}
	return all
}

// stale returns the mounted directories that a rotation replaces or removes: their mounts
// keep showing the old ones.
func stale(t *testing.T, pod corev1.PodSpec, rotation rotation) []string {
	t.Helper()
	tree := hostState{layout: rotation.layout}.lay(t)
	inode := func(host string) uint64 {
		info, err := os.Stat(filepath.Join(tree.Root, host))
		if err != nil {
			return 0
		}
		stat, _ := info.Sys().(*syscall.Stat_t)
		return stat.Ino
	}
	before := map[string]uint64{}
	for _, m := range mountsIn(pod) {
		if m.volume.HostPath != nil {
			before[m.volume.HostPath.Path] = inode(m.volume.HostPath.Path)
		}
	}
	pair := pkitest.NewCA("kube-apiserver-to-kubelet-signer").Issue(pkitest.KubeletClient())
	if err := rotation.write(tree, map[string][]byte{"tls.crt": pair.Certificate, "tls.key": pair.Key}); err != nil {
		t.Fatal(err)
	}
	var changed []string
	for _, host := range slices.Sorted(maps.Keys(before)) {
		if inode(host) != before[host] {
			changed = append(changed, host)
		}
	}
	return changed
}
