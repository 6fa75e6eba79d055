// SPDX-License-Identifier: Apache-2.0

package oracle_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"
	internal "k8s.io/kubernetes/pkg/kubelet/apis/config"
	"k8s.io/kubernetes/pkg/kubelet/apis/config/v1beta1"
	"k8s.io/kubernetes/pkg/kubelet/kubeletconfig/configfiles"
	"k8s.io/kubernetes/pkg/util/filesystem"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/kubeletconfig"
)

// settings are the compared settings.
type settings struct {
	StaticPods, ClientCA string
	Port, ReadOnly       int
}

const (
	file    = "/var/lib/kubelet/config.yaml"
	dropIns = "/var/lib/kubelet/conf.d"
)

// merged loads a configuration file and its drop-ins like the kubelet. The loader is that of
// Kubernetes. The walk is a copy of the unexported mergeKubeletConfigurations in
// cmd/kubelet/app/server.go.
func merged(t *testing.T, root string) (settings, error) {
	t.Helper()
	loader, err := configfiles.NewFsLoader(&filesystem.DefaultFs{}, filepath.Join(root, file))
	if err != nil {
		t.Fatal(err)
	}
	config, err := loader.Load(t.Context())
	if err != nil {
		return settings{}, err
	}
	versioned := &kubeletv1beta1.KubeletConfiguration{}
	if err := v1beta1.Convert_config_KubeletConfiguration_To_v1beta1_KubeletConfiguration(config, versioned,
		nil); err != nil {
		return settings{}, err
	}
	base, err := json.Marshal(versioned)
	if err != nil {
		return settings{}, err
	}
	err = filepath.WalkDir(filepath.Join(root, dropIns), func(path string, info fs.DirEntry, err error) error {
		if err != nil || info.IsDir() || filepath.Ext(info.Name()) != ".conf" {
			return err
		}
		loader, err := configfiles.NewFsLoader(&filesystem.DefaultFs{}, path)
		if err != nil {
			return err
		}
		patch, kind, err := loader.LoadIntoJSON()
		if err != nil {
			return err
		}
		if kind == nil || *kind != kubeletv1beta1.SchemeGroupVersion.WithKind("KubeletConfiguration") {
			return errors.New("another kind")
		}
		base, err = jsonpatch.MergePatch(base, patch)
		return err
	})
	if err != nil {
		return settings{}, err
	}
	versioned = &kubeletv1beta1.KubeletConfiguration{}
	if err := json.Unmarshal(base, versioned); err != nil {
		return settings{}, err
	}
	v1beta1.SetDefaults_KubeletConfiguration(versioned)
	config = &internal.KubeletConfiguration{}
	if err := v1beta1.Convert_v1beta1_KubeletConfiguration_To_config_KubeletConfiguration(versioned, config,
		nil); err != nil {
		return settings{}, err
	}
	onHost := func(p string) string { return strings.TrimPrefix(p, root) }
	return settings{
		onHost(config.StaticPodPath),
		onHost(config.Authentication.X509.ClientCAFile),
		int(config.Port),
		int(config.ReadOnlyPort),
	}, nil
}

// compareConfig checks that the agent reads the same settings as the kubelet. If the kubelet
// does not start, the agent must report the settings as unknown, unless the error is in a
// field that it does not read.
func compareConfig(t *testing.T, files map[string]string) {
	t.Helper()
	root := t.TempDir()
	write := func(at, data string) {
		at = filepath.Join(root, at)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("/etc/systemd/system/kubelet.service",
		"[Service]\nExecStart=/usr/bin/kubelet --config="+file+" --config-dir="+dropIns+"\n")
	write("/usr/lib/systemd/system/x.service", "")
	write(dropIns+"/README", "")
	for at, data := range files {
		write(at, data)
	}
	want, err := merged(t, root)
	got := kubeletconfig.Read(os.DirFS(root), kubeletconfig.Sources{})
	if (got.Problem.Err != nil) != (err != nil) {
		t.Fatalf("the agent has the problem %v, the kubelet %v, with %q", got.Problem.Err, err, files)
	}
	if err != nil {
		return
	}
	if d := cmp.Diff(want, settings{got.StaticPodPath, got.ClientCAFile, got.Port, got.ReadOnlyPort}); d != "" {
		t.Errorf("settings of %q (-kubelet +agent):\n%s", files, d)
	}
}

const head = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n"

func TestKubeletConfig(t *testing.T) {
	const own = head + "staticPodPath: /pods\nauthentication: {x509: {clientCAFile: /ca.crt}}\nport: 1\nreadOnlyPort: 2\n"
	with := func(dropIns ...string) map[string]string {
		files := map[string]string{file: own}
		for i, data := range dropIns {
			files[fmt.Sprintf("/var/lib/kubelet/conf.d/%d.conf", i)] = data
		}
		return files
	}
	for name, files := range map[string]map[string]string{
		"a file":                           with(),
		"no settings":                      {file: head},
		"JSON":                             {file: `{"apiVersion":"kubelet.config.k8s.io/v1beta1","kind":"KubeletConfiguration","port":3}`},
		"unknown fields":                   {file: own + "none: 1\n"},
		"a field twice":                    {file: own + "port: 4\n"},
		"other case":                       {file: head + "Port: 4\nStaticPodPath: /x\n"},
		"relative":                         {file: head + "staticPodPath: x\nauthentication: {x509: {clientCAFile: ../y}}\n"},
		"no kind":                          {file: "apiVersion: kubelet.config.k8s.io/v1beta1\n"},
		"no version":                       {file: "kind: KubeletConfiguration\n"},
		"another version":                  {file: strings.Replace(own, "v1beta1", "v1", 1)},
		"another type":                     {file: head + "port: x\n"},
		"a port as a string":               {file: head + "port: '1'\n"},
		"a float":                          {file: head + "port: 1.0\n"},
		"null":                             {file: head + "port: null\nauthentication: null\n"},
		"empty":                            {file: ""},
		"white space":                      {file: "\n"},
		"two documents":                    {file: own + "---\n" + head + "port: 9\n"},
		"a list":                           {file: "[]"},
		"drop-in":                          with(head + "port: 5\n"),
		"drop-ins":                         with(head+"port: 5\nstaticPodPath: /y\n", head+"port: 6\n"),
		"drop-in null":                     with(head + "port: null\nauthentication: null\n"),
		"drop-in null below":               with(head + "authentication: {x509: null}\n"),
		"drop-in other case":               with(head + "Port: 7\n"),
		"drop-in unknown":                  with(head + "none: 7\n"),
		"drop-in twice":                    with(head + "port: 7\nport: 8\n"),
		"drop-in no kind":                  with("port: 7\n"),
		"kind in other case":               {file: strings.Replace(own, "kind", "KIND", 1)},
		"drop-in kind in other case":       with(strings.Replace(head, "kind", "Kind", 1) + "port: 7\n"),
		"drop-in empty":                    with(""),
		"drop-in invalid":                  with("{"),
		"drop-in another type":             with(head + "port: x\n"),
		"drop-in fixed by the next":        with(head+"port: x\n", head+"port: 3\n"),
		"drop-in string instead of object": with(head + "authentication: x\n"),
		"drop-in deep": {
			file: own, "/var/lib/kubelet/conf.d/a/1.conf": head + "port: 8\n", "/var/lib/kubelet/conf.d/a.conf": head +
				"port: 9\n",
			"/var/lib/kubelet/conf.d/.hidden.conf": head + "readOnlyPort: 10\n", "/var/lib/kubelet/conf.d/x.yaml": "rubbish",
		},
	} {
		t.Run(name, func(t *testing.T) { compareConfig(t, files) })
	}
}

// TestGeneratedKubeletConfigs compares random trees.
func TestGeneratedKubeletConfigs(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	pick := func(of ...string) string { return of[random.IntN(len(of))] }
	field := func() string {
		return pick("port: 1", "port: 0", "port: null", "readOnlyPort: 7", "readOnlyPort: null", "staticPodPath: /a",
			"staticPodPath: ''", "authentication: {x509: {clientCAFile: /b}}", "authentication: {x509: {}}",
			"authentication: {anonymous: {enabled: true}}", "authentication: null", "ReadOnlyPort: 9", "StaticPodPath: /c",
			"maxPods: 5", "none: {a: b}") + "\n"
	}
	text := func() string {
		data := head
		if random.IntN(15) == 0 {
			data = strings.Replace(data, pick("v1beta1", "Kubelet", "kind"), "x", 1)
		}
		for range random.IntN(4) {
			data += field()
		}
		return data
	}
	for i := range 300 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			files := map[string]string{file: text()}
			for range random.IntN(4) {
				files[filepath.Join(dropIns, pick("", "a", "b/c"), pick("1", "10", "2", "Z", ".h")+pick(".conf", ".conf",
					".CONF"))] = text()
			}
			compareConfig(t, files)
		})
	}
}
