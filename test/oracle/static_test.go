// SPDX-License-Identifier: Apache-2.0

// Package oracle_test compares what the agent makes of a host's files with what Kubernetes' own
// code makes of them.
package oracle_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/kubelet/config"
	kubetypes "k8s.io/kubernetes/pkg/kubelet/types"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/staticpod"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/layout"
)

// manifestDirectory is the directory with static Pods.
const manifestDirectory = layout.ManifestDirectory

// patience bounds the wait for the kubelet to list the Pods.
const patience = 30 * time.Second

type noObserver struct{}

func (noObserver) ObservedPodOnWatch(klog.Logger, *corev1.Pod, time.Time) {}

// listed returns the Pods that the code of the kubelet reads from a directory: for each Pod
// its name and the label that names its file.
func listed(t *testing.T, directory string) map[string]string {
	t.Helper()
	pods := config.NewPodConfig(record.NewFakeRecorder(100), noObserver{})
	config.NewSourceFile(klog.Background(), directory, types.NodeName("node"), time.Hour,
		pods.Channel(t.Context(), kubetypes.FileSource))
	select {
	case update := <-pods.Updates():
		got := map[string]string{}
		for _, pod := range update.Pods {
			got[pod.Namespace+"/"+strings.TrimSuffix(pod.Name, "-node")] = pod.Labels["file"]
		}
		return got
	case <-time.After(patience):
		t.Fatal("the code of the kubelet listed nothing")
		return nil
	}
}

// manifest is a valid Pod.
func manifest(file, namespace, name, container string) string {
	return fmt.Sprintf(
		"apiVersion: v1\nkind: Pod\nmetadata:\n  name: %s\n  namespace: %q\n  labels: {file: %q}\nspec:\n  containers:\n  "+
			"- {name: %s, image: x}\n",
		name,
		namespace,
		label(file),
		container,
	)
}

// label converts a file name to a label value.
func label(file string) string {
	return "x" + strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '-' || r == '_' {
			return r
		}
		return '_'
	}, file) + "x"
}

// tree writes files. Content that begins with "-> " is a symlink, content that begins with
// "dir" a directory.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, data := range files {
		at := filepath.Join(root, manifestDirectory, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if target, link := strings.CutPrefix(data, "-> "); link {
			err = os.Symlink(target, at)
		} else {
			err = os.WriteFile(at, []byte(data), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// compare checks that the agent and the kubelet use the same file for the kube-apiserver, and
// that the agent finds duplicates if and only if there are several files.
func compareStaticPods(t *testing.T, files map[string]string) {
	t.Helper()
	root := tree(t, files)
	kubelet := listed(t, filepath.Join(root, manifestDirectory))
	layout := staticpod.Discover(os.DirFS(root), staticpod.Given{})
	found := layout.ManifestReadErr == nil && layout.ManifestParseErr == nil
	if want, runs := kubelet["default/kube-apiserver"]; runs && found {
		if got := label(filepath.Base(layout.Manifest)); len(layout.Duplicates) == 0 && got != want {
			t.Errorf("the agent uses %s, the kubelet %s; files %q", got, want, slices.Sorted(maps.Keys(files)))
		}
		if last := len(layout.Duplicates) - 1; last > 0 && label(filepath.Base(layout.Duplicates[last])) != want {
			t.Errorf("the last duplicate is %s, the kubelet uses %s", layout.Duplicates[last], want)
		}
	}
	if _, runs := kubelet["default/kube-apiserver"]; runs != found {
		t.Errorf("found: %t, used by the kubelet: %t: %v %v; files %q", found, runs, layout.ManifestReadErr,
			layout.ManifestParseErr, files)
	}
}

func TestStaticPods(t *testing.T) {
	server := func(file string) string { return manifest(file, "", "kube-apiserver", "kube-apiserver") }
	cases := map[string]map[string]string{
		"one":                               {"kube-apiserver.yaml": server("kube-apiserver.yaml")},
		"none":                              {"etcd.yaml": manifest("etcd.yaml", "", "etcd", "etcd")},
		"a backup":                          {"kube-apiserver.yaml": server("kube-apiserver.yaml"), "kube-apiserver.yaml.backup": server("kube-apiserver.yaml.backup")},
		"order of bytes":                    {"Z": server("Z"), "a": server("a"), "é": server("é"), "_": server("_")},
		"hidden":                            {".kube-apiserver.yaml": server(".kube-apiserver.yaml")},
		"in a subdirectory":                 {"x/kube-apiserver.yaml": server("x")},
		"symlink":                           {"a.yaml": server("a.yaml"), ".z": server("z"), "z": "-> .z", "y": "-> nowhere"},
		"namespace by default":              {"a": manifest("a", "", "kube-apiserver", "kube-apiserver"), "b": manifest("b", "default", "kube-apiserver", "kube-apiserver")},
		"another version":                   {"a": strings.Replace(server("a"), "v1", "v1beta1", 1)},
		"no version":                        {"a": strings.Replace(server("a"), "apiVersion: v1\n", "", 1)},
		"another kind":                      {"a": strings.Replace(server("a"), "Pod", "pod", 1)},
		"no name":                           {"a": strings.Replace(server("a"), "name: kube-apiserver\n", "", 1)},
		"JSON":                              {"a": `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"kube-apiserver","labels":{"file":"xax"}},"spec":{"containers":[{"name":"kube-apiserver","image":"x"}]}}`},
		"a field in other case":             {"a": strings.Replace(server("a"), "kind:", "Kind:", 1)},
		"a field twice":                     {"a": server("a") + "  hostNetwork: true\n  hostNetwork: true\n"},
		"an unknown field":                  {"a": server("a") + "  none: 1\n"},
		"two documents":                     {"a": server("a") + "---\n" + manifest("a", "", "other", "x")},
		"two documents, the other first":    {"a": manifest("a", "", "other", "x") + "---\n" + server("a")},
		"an empty document first":           {"a": "---\n" + server("a")},
		"a list":                            {"a": "apiVersion: v1\nkind: List\nitems: []\n"},
		"invalid files":                     {"a": "rubbish", "b": server("b"), "c": "{", "d": ""},
		"two containers with the same name": {"a": server("a") + "  - {name: kube-apiserver, image: x}\n"},
		"a byte order mark":                 {"a": "\ufeff" + server("a")},
	}
	for name, files := range cases {
		t.Run(name, func(t *testing.T) { compareStaticPods(t, files) })
	}
}

// TestGeneratedStaticPods compares random trees.
func TestGeneratedStaticPods(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	pick := func(of ...string) string { return of[random.IntN(len(of))] }
	for i := range 100 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			files := map[string]string{}
			for range 1 + random.IntN(6) {
				file := pick("", "", ".", "0-", "Z", "~") + pick("kube-apiserver", "etcd",
					"a") + pick(".yaml", ".yaml.bak", ".yaml~", ".json", "", ".txt", " 2")
				data := manifest(file, pick("", "default", "kube-system"), pick("kube-apiserver", "kube-apiserver", "etcd"),
					pick("etcd", "x"))
				if strings.Contains(data, "name: kube-apiserver") {
					data = strings.Replace(data, "{name: etcd", "{name: kube-apiserver", 1)
				}
				switch random.IntN(8) {
				case 0:
					data = data[:random.IntN(len(data))]
				case 1:
					data = strings.Replace(data, pick("v1", "Pod", "name", "default", "-"), pick("v2", "pod", "", "x"), 1)
				}
				files[file] = data
			}
			root := tree(t, files)
			kubelet := listed(t, filepath.Join(root, manifestDirectory))
			layout := staticpod.Discover(os.DirFS(root), staticpod.Given{})
			// The last file of a Pod that the kubelet runs is one that the agent uses for it.
			for key, file := range kubelet {
				data := files[fileOf(files, file)]
				if !strings.HasSuffix(key, "/kube-apiserver") || !strings.Contains(data, "{name: kube-apiserver,") {
					continue
				}
				taken := append(slices.Clone(layout.Duplicates), layout.Manifest)
				if !slices.ContainsFunc(taken, func(at string) bool { return label(filepath.Base(at)) == file }) {
					t.Errorf("the kubelet runs %s of %s, the agent knows %q: %s", key, file, taken, cmp.Diff(nil, files))
				}
			}
		})
	}
}

func fileOf(files map[string]string, of string) string {
	for name := range files {
		if label(name) == of {
			return name
		}
	}
	return ""
}
