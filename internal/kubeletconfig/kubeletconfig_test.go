// SPDX-License-Identifier: Apache-2.0

package kubeletconfig_test

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/kubeletconfig"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/layout"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/messages"
)

// seen is a Config as text.
type seen struct {
	StaticPods, ClientCA, ClientCAAt string
	Port, ReadOnly                   int
	// Assumptions are the paths that each assumption mentions; empty for none.
	Assumptions []string
	// Problem is its path.
	Problem string
}

var absolute = regexp.MustCompile(`/[^ ,)]*`)

func see(c kubeletconfig.Config) seen {
	if c.Problem.Err != nil {
		return seen{Problem: c.Problem.At}
	}
	var s seen
	for _, assumption := range c.Assumptions {
		s.Assumptions = append(s.Assumptions, absolute.FindString(assumption))
	}
	if c.Seen {
		s.StaticPods, s.ClientCA, s.ClientCAAt, s.Port, s.ReadOnly = c.StaticPodPath, c.ClientCAFile, c.ClientCAAt, c.Port,
			c.ReadOnlyPort
	}
	return s
}

// record adds the problem or the assumptions of a configuration.
func record(page *messages.Part, title string, c kubeletconfig.Config) {
	if c.Problem.Err != nil {
		page.Error(title, c.Problem)
		return
	}
	for _, assumption := range c.Assumptions {
		page.Text(title, "assuming that "+assumption)
	}
}

func host(files map[string]string) fstest.MapFS {
	system := fstest.MapFS{}
	for at, data := range files {
		mode := fs.FileMode(0o600)
		if target, link := strings.CutPrefix(data, "-> "); link {
			mode, data = fs.ModeSymlink, target
		}
		system[strings.TrimPrefix(at, "/")] = &fstest.MapFile{Data: []byte(data), Mode: mode}
	}
	return system
}

const (
	head = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n"
	own  = head + "staticPodPath: /pods\nauthentication: {x509: {clientCAFile: /ca.crt}}\n"

	openShiftFile, kubeadmFile = layout.OpenShiftKubeletConfig, layout.KubeadmKubeletConfig

	unit   = "/etc/systemd/system/kubelet.service"
	dropIn = "/usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf"
	// somewhere makes a directory of units visible.
	somewhere = "/usr/lib/systemd/system/x.service"

	// noUnit is the assumption without a unit file: it mentions no path.
	noUnit = ""
)

// started is a host whose complete command line is visible.
func started(exec string, more map[string]string) map[string]string {
	files := map[string]string{unit: "[Service]\nExecStart=" + exec + "\n", somewhere: "", kubeadmFile: own}
	maps.Copy(files, more)
	return files
}

func TestRead(t *testing.T) {
	page := messages.Record(t, "errors of the kubelet's configuration")
	const config = "--config=/var/lib/kubelet/config.yaml"
	good := seen{StaticPods: "/pods", ClientCA: "/ca.crt", ClientCAAt: kubeadmFile, Port: 10250}
	assuming := func(s seen, assumptions ...string) seen {
		s.Assumptions = assumptions
		return s
	}
	with := func(change func(s *seen)) seen {
		s := good
		change(&s)
		return s
	}
	problem := func(at string) seen { return seen{Problem: at} }
	only := func(at, data string) map[string]string { return map[string]string{at: data} }
	drop := func(more map[string]string) map[string]string {
		return started("/usr/bin/kubelet "+config+" --config-dir=/d", more)
	}
	cases := map[string]struct {
		files map[string]string
		want  seen
	}{
		"nothing":        {want: seen{Assumptions: []string{noUnit}}},
		"kubeadm's file": {files: only(kubeadmFile, own), want: assuming(good, noUnit)},
		"OpenShift's file": {files: only(openShiftFile, own), want: assuming(with(func(s *seen) {
			s.ClientCAAt = openShiftFile
		}), noUnit)},
		"a kubeconfig in OpenShift's place": {
			files: map[string]string{
				openShiftFile: "apiVersion: v1\nkind: Config\n",
				kubeadmFile:   own,
			},
			want: assuming(good, noUnit),
		},
		"a kubeconfig alone": {files: only(openShiftFile, "apiVersion: v1\nkind: Config\n"), want: seen{Assumptions: []string{noUnit}}},
		"two that agree":     {files: map[string]string{openShiftFile: own, kubeadmFile: own}, want: assuming(good, noUnit)},
		"two that disagree": {
			files: map[string]string{openShiftFile: own + "port: 1\n", kubeadmFile: own},
			want:  problem("/var/lib/kubelet/config.yaml"),
		},
		"two that disagree, and a unit": {
			files: started("/usr/bin/kubelet "+config, only(openShiftFile, own+"port: 1\n")), want: good,
		},
		"unknown fields, and one twice": {files: only(kubeadmFile, own+"new: 1\nport: 1\nport: 2\n"), want: assuming(with(func(s *seen) { s.Port = 2 }), noUnit)},
		"relative paths": {
			files: only(kubeadmFile, head+"staticPodPath: pods\nauthentication: {x509: {clientCAFile: ../ca.crt}}\n"),
			want:  assuming(with(func(s *seen) { s.StaticPods, s.ClientCA = "/var/lib/kubelet/pods", "/var/lib/ca.crt" }), noUnit),
		},
		"names in other letters":      {files: only(kubeadmFile, own+"Port: 1\n"), want: assuming(good, noUnit)},
		"garbage":                     {files: only(kubeadmFile, "{"), want: problem("/var/lib/kubelet/config.yaml")},
		"empty":                       {files: only(kubeadmFile, ""), want: problem("/var/lib/kubelet/config.yaml")},
		"another version":             {files: only(kubeadmFile, strings.Replace(own, "v1beta1", "v1", 1)), want: problem("/var/lib/kubelet/config.yaml")},
		"a port that is not a number": {files: only(kubeadmFile, own+"port: x\n"), want: problem("/var/lib/kubelet/config.yaml")},
		"a key for a path": {
			files: only(kubeadmFile, head+"staticPodPath: '-----BEGIN PRIVATE KEY-----'\n"),
			want:  problem("/var/lib/kubelet/config.yaml"),
		},
		"ports": {files: only(kubeadmFile, own+"port: 1\nreadOnlyPort: 2\n"), want: assuming(with(func(s *seen) { s.Port, s.ReadOnly = 1, 2 }), noUnit)},

		// Flags.
		"flags win": {
			files: started("/usr/bin/kubelet "+config+" --pod_manifest_path /f --client-ca-file=/f.crt --port=0x10 --read-only-port 5 --v=2 -v 3", nil),
			want:  seen{StaticPods: "/f", ClientCA: "/f.crt", ClientCAAt: unit, Port: 16, ReadOnly: 5},
		},
		"the last of a flag":           {files: started("/usr/bin/kubelet --port=1 "+config+" --port=2", nil), want: with(func(s *seen) { s.Port = 2 })},
		"a wrapper":                    {files: started("/usr/local/bin/kubenswrapper \\\n  /usr/bin/kubelet \\\n# no\n  "+config, nil), want: good},
		"quotes":                       {files: started(`/usr/bin/kubelet "--config=/var/lib/kubelet/config.yaml" '--port=1' --x=a\x20b`, nil), want: with(func(s *seen) { s.Port = 1 })},
		"no configuration file at all": {files: started("/usr/bin/kubelet --pod-manifest-path=/f", nil), want: seen{StaticPods: "/f", ClientCAAt: unit, Port: 10250, ReadOnly: 10255}},
		"a configuration that is not there": {
			files: started("/usr/bin/kubelet --config=/none", nil),
			want:  problem("/none"),
		},
		"a relative configuration":    {files: started("/usr/bin/kubelet --config=none", nil), want: problem(unit)},
		"--port that is not a number": {files: started("/usr/bin/kubelet --port=x "+config, nil), want: problem(unit)},
		"a flag without a value":      {files: started("/usr/bin/kubelet "+config+" --port", nil), want: problem(unit)},
		"a script":                    {files: started("/usr/bin/start.sh --port=1", nil), want: assuming(good, unit)},
		"a specifier in a flag":       {files: started("/usr/bin/kubelet --port=%i "+config, nil), want: problem(unit)},
		"a specifier in another flag": {files: started("/usr/bin/kubelet --x=%i --y=%% "+config, nil), want: good},
		"two commands": {
			files: started("/usr/bin/kubelet --port=1\nExecStart=/usr/bin/kubelet --port=2", nil),
			want:  problem(unit),
		},
		"a quote that is not closed": {files: started(`/usr/bin/kubelet "`, nil), want: problem(unit)},

		// Units.
		"a drop-in that replaces the command": {
			files: started("/usr/bin/kubelet --port=1", only(unit+".d/1.conf", "[Unit]\nExecStart=x\n[Service]\nExecStart=\nExecStart=/usr/bin/kubelet "+config+"\n")), want: with(func(*seen) {}),
		},
		"a drop-in that hides another": {
			files: started("/usr/bin/kubelet $A "+config, map[string]string{
				"/etc/systemd/system/kubelet.service.d/1.conf":     "[Service]\nEnvironment=A=--port=1\n",
				"/usr/lib/systemd/system/kubelet.service.d/1.conf": "[Service]\nEnvironment=A=--port=2\n",
			}), want: with(func(s *seen) { s.Port = 1 }),
		},
		"drop-ins in the order of their names": {
			files: started("/usr/bin/kubelet $A "+config, map[string]string{
				"/etc/systemd/system/kubelet.service.d/1.conf":     "[Service]\nEnvironment=A=--port=1\n",
				"/usr/lib/systemd/system/kubelet.service.d/2.conf": "[Service]\nEnvironment=A=--port=2\n",
				"/etc/systemd/system/kubelet.service.d/3.conf.bak": "[Service]\nEnvironment=A=--port=3\n",
			}), want: with(func(s *seen) { s.Port = 2 }),
		},
		"units of one directory only": {
			files: map[string]string{unit: "[Service]\nExecStart=/usr/bin/kubelet " + config, kubeadmFile: own},
			want:  assuming(good, "/usr/lib/systemd/system"),
		},
		"kubeadm's unit": {
			files: map[string]string{
				somewhere: "", "/etc/systemd/system/x": "",
				"/usr/lib/systemd/system/kubelet.service": "[Service]\nExecStart=/usr/bin/kubelet\n",
				dropIn: "[Service]\nEnvironment=\"C=" + config +
					"\"\nEnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env\nEnvironmentFile=-/etc/default/kubelet\n" +
					"ExecStart=\nExecStart=/usr/bin/kubelet $C $KUBELET_KUBEADM_ARGS $KUBELET_EXTRA_ARGS\n",
				kubeadmFile: own, kubeletconfig.KubeadmFlags: "KUBELET_KUBEADM_ARGS=\"--port=1 " +
					"--client-ca-file=/f.crt\"\n",
			},
			want: assuming(with(func(s *seen) { s.Port, s.ClientCA, s.ClientCAAt = 1, "/f.crt", dropIn }),
				dropIn, "/etc/default/kubelet"),
		},
		"kubeadm's flags alone": {
			files: map[string]string{
				kubeadmFile:                own,
				kubeletconfig.KubeadmFlags: "KUBELET_KUBEADM_ARGS=\"--port=1\"\n",
			},
			want: assuming(with(func(s *seen) { s.Port = 1 }), kubeletconfig.KubeadmFlags),
		},
		"a variable that is not visible in a flag": {
			files: started("/usr/bin/kubelet "+config+" --port=${P}\nEnvironmentFile=/etc/p", nil),
			want:  problem(unit),
		},
		"a variable that is not visible in another flag": {files: started("/usr/bin/kubelet "+config+" --x=${P}\nEnvironmentFile=/etc/p", nil), want: good},
		"a variable in braces is one word":               {files: started("/usr/bin/kubelet "+config+" --x=${P}\nEnvironment='P=a --port=1'", nil), want: good},

		// Drop-ins of the configuration.
		"drop-ins in order": {
			files: drop(map[string]string{
				"/d/20.conf": head + "authentication: {x509: {clientCAFile: /b.crt}}\n", "/d/10.conf": head + "authentication: " +
					"{x509: {clientCAFile: /a.crt}}\nport: 1\n",
				"/d/30.yaml": "rubbish", "/d/15/1.conf": head + "port: 2\n",
			}),
			want: with(func(s *seen) { s.ClientCA, s.ClientCAAt, s.Port = "/b.crt", "/d/20.conf", 2 }),
		},
		"a drop-in that takes away":         {files: drop(only("/d/1.conf", head+"authentication: null\nstaticPodPath: null\n")), want: seen{ClientCAAt: "/d/1.conf", Port: 10250}},
		"a drop-in with a name in capitals": {files: drop(only("/d/1.conf", head+"ReadOnlyPort: 7\n")), want: with(func(s *seen) { s.ReadOnly = 7 })},
		"a drop-in of another kind":         {files: drop(only("/d/1.conf", "port: 1\n")), want: problem("/d/1.conf")},
		"a drop-in with a field twice":      {files: drop(only("/d/1.conf", head+"port: 1\nport: 2\n")), want: problem("/d/1.conf")},
		"a drop-in with a relative path":    {files: drop(only("/d/1.conf", head+"staticPodPath: x\n")), want: problem("/d/1.conf")},
		"no drop-in directory":              {files: drop(nil), want: problem("/d")},
		"a symlink for a drop-in directory": {
			files: drop(map[string]string{"/d": "-> e", "/e/1.conf": head + "port: 1\n"}), want: good,
		},
		"the usual drop-ins, no unit": {
			files: map[string]string{
				kubeadmFile:                             own,
				"/etc/kubernetes/kubelet.conf.d/1.conf": head + "port: 1\n",
			},
			want: problem("/etc/kubernetes/kubelet.conf.d"),
		},
		"the usual drop-ins, that change nothing": {
			files: map[string]string{
				kubeadmFile:                             own,
				"/etc/kubernetes/kubelet.conf.d/1.conf": head + "maxPods: 1\n",
			}, want: assuming(good, noUnit),
		},
		"the usual drop-ins, not used": {
			files: started("/usr/bin/kubelet "+config, only("/etc/kubernetes/kubelet.conf.d/1.conf", head+"port: 1\n")), want: good,
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			read := kubeletconfig.Read(host(c.files), kubeletconfig.Sources{})
			record(page, name, read)
			if d := cmp.Diff(c.want, see(read)); d != "" {
				t.Errorf("configuration (-want +got):\n%s", d)
			}
		})
	}
}

// failing cannot read one file.
type failing struct {
	fstest.MapFS
	name string
}

var errBoom = errors.New("boom")

func (f failing) Open(name string) (fs.File, error) {
	if name == f.name {
		return nil, errBoom
	}
	return f.MapFS.Open(name)
}

func (f failing) ReadFile(name string) ([]byte, error) {
	if name == f.name {
		return nil, errBoom
	}
	return f.MapFS.ReadFile(name)
}

// TestUnread: a file that exists and cannot be read is always a problem.
func TestUnread(t *testing.T) {
	files := started(
		"/usr/bin/kubelet --config=/var/lib/kubelet/config.yaml --config-dir=/d $A\nEnvironmentFile=/etc/a",
		map[string]string{
			"/d/1.conf": head, "/etc/a": "", unit + ".d/1.conf": "",
		},
	)
	for _, at := range []string{unit, unit + ".d/1.conf", "/etc/a", kubeadmFile, "/d/1.conf"} {
		t.Run(at, func(t *testing.T) {
			c := kubeletconfig.Read(failing{host(files), strings.TrimPrefix(at, "/")}, kubeletconfig.Sources{})
			if c.Problem.At != at || !c.Problem.Unread || !errors.Is(c.Problem, errBoom) {
				t.Errorf("got the problem %+v, want one at %s with errBoom", c.Problem, at)
			}
		})
	}
}

// TestBounds: a problem names the bound that is exceeded.
func TestBounds(t *testing.T) {
	page := messages.Record(t, "bounds of the kubelet's configuration")
	many := started("/usr/bin/kubelet --config=/var/lib/kubelet/config.yaml --config-dir=/d", nil)
	for i := range 10_000 {
		many[fmt.Sprintf("/d/%d.conf", i)] = head
	}
	units := started("/usr/bin/kubelet", nil)
	for i := range kubeletconfig.MaxUnitDropIns + 1 {
		units[fmt.Sprintf("%s.d/%d.conf", unit, i)] = ""
	}
	for name, c := range map[string]struct {
		files     map[string]string
		at, bound string
	}{
		"10,000 drop-ins": {many, "/d", "1000"},
		"drop-ins of a unit": {
			units, unit + ".d", "100",
		},
		"a file": {
			map[string]string{kubeadmFile: own + strings.Repeat(" ", kubeletconfig.MaxFileBytes)},
			kubeadmFile, "1048576",
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := kubeletconfig.Read(host(c.files), kubeletconfig.Sources{})
			record(page, name, got)
			if got.Problem.At != c.at || !strings.Contains(got.Problem.Error(), " "+c.bound) || !got.Problem.Unread {
				t.Errorf("got the problem %+v, want one at %s with the bound %s", got.Problem, c.at, c.bound)
			}
		})
	}
}

// FuzzRead: no unit, configuration, drop-in or file of flags makes it panic. Paths are
// clean and absolute, ports are numbers, and there are settings or a problem, not both.
func FuzzRead(f *testing.F) {
	f.Add("[Service]\nExecStart=/usr/bin/kubelet --config=/c $A ${B} %i\nEnvironmentFile=/e\nEnvironment=\"A=--port=1\"\n",
		own, head+"port: 1\n", "B='x' \"y\\\n\"\n")
	f.Add("[Service]\nExecStart=kubelet --config-dir=/d/\n", "{", "", "#\nA")
	f.Add("", own, "", "KUBELET_KUBEADM_ARGS=\"--port=1\"")
	f.Fuzz(func(t *testing.T, service, config, dropIn, variables string) {
		c := kubeletconfig.Read(host(map[string]string{
			unit: service, somewhere: "", "/c": config, kubeadmFile: config, "/d/1.conf": dropIn, "/e": variables,
			kubeletconfig.KubeadmFlags: variables,
		}), kubeletconfig.Sources{})
		if c.Problem.Err != nil {
			if c.Problem.At == "" || c.Problem.Error() == "" {
				t.Errorf("a problem without a place: %+v", c.Problem)
			}
			return
		}
		for _, p := range []string{c.StaticPodPath, c.ClientCAFile} {
			if p != "" && (p[0] != '/' || strings.Contains(p, "//") || strings.ContainsRune(p, 0)) {
				t.Errorf("%q is not a clean absolute path", p)
			}
		}
		if c.FlagsSeen && !c.Seen {
			t.Error("the whole command line was seen, and no settings")
		}
	})
}

// TestReadUnitFile has what systemd reads in a unit file beside the command line.
func TestReadUnitFile(t *testing.T) {
	const exec = "ExecStart=/usr/bin/kubelet --config=/var/lib/kubelet/config.yaml"
	for name, tc := range map[string]struct {
		unit     string
		readOnly int
		unknown  bool
	}{
		"a byte order mark":               {unit: "\ufeff[Service]\n" + exec + " --read-only-port=10255\n", readOnly: 10255},
		"a variable":                      {unit: "[Service]\nEnvironment=A=--read-only-port=10255\n" + exec + " $A\n", readOnly: 10255},
		"one that is unset":               {unit: "[Service]\nUnsetEnvironment=A\nEnvironment=A=--read-only-port=10255\n" + exec + " $A\n"},
		"unset with another value":        {unit: "[Service]\nUnsetEnvironment=A=x\nEnvironment=A=--read-only-port=10255\n" + exec + " $A\n", readOnly: 10255},
		"unset list cleared":              {unit: "[Service]\nUnsetEnvironment=A\nUnsetEnvironment=\nEnvironment=A=--read-only-port=10255\n" + exec + " $A\n", readOnly: 10255},
		"one of systemd's own":            {unit: "[Service]\nPassEnvironment=A B\n" + exec + " $A\n", unknown: true},
		"another program":                 {unit: "[Service]\nExecStart=/usr/bin/podman run --name kubelet --read-only-port=10255 image\n", unknown: true},
		"a shell":                         {unit: "[Service]\nExecStart=/bin/sh -c '/usr/bin/kubelet' --read-only-port=10255\n", unknown: true},
		"OpenShift's wrapper":             {unit: "[Service]\nExecStart=/usr/local/bin/kubenswrapper /usr/bin/kubelet --config=/var/lib/kubelet/config.yaml --read-only-port=10255\n", readOnly: 10255},
		"one of its own that is set here": {unit: "[Service]\nPassEnvironment=A\nEnvironment=A=--v=2\n" + exec + " $A\n"},
	} {
		t.Run(name, func(t *testing.T) {
			files := host(map[string]string{unit: tc.unit, somewhere: "", kubeadmFile: own})
			c := kubeletconfig.Read(files, kubeletconfig.Sources{})
			if c.Problem.Err != nil || !c.Seen {
				t.Fatalf("problem %v, seen %v", c.Problem.Err, c.Seen)
			}
			if c.ReadOnlyPort != tc.readOnly || c.FlagsSeen == tc.unknown {
				t.Errorf("read-only port %d, want %d; flags seen %v, want %v", c.ReadOnlyPort, tc.readOnly, c.FlagsSeen,
					!tc.unknown)
			}
		})
	}
}

// TestReadMaskedDropIn: with the whole host as the root, /dev/null is there.
func TestReadMaskedDropIn(t *testing.T) {
	system := host(started("/usr/bin/kubelet --config=/var/lib/kubelet/config.yaml $A", map[string]string{
		dropIn: "[Service]\nEnvironment=A=--read-only-port=10255\n",
	}))
	system["etc/systemd/system/kubelet.service.d/10-kubeadm.conf"] = &fstest.MapFile{
		Mode: fs.ModeSymlink,
		Data: []byte("../../../../dev/null"),
	}
	system["dev/null"] = &fstest.MapFile{Mode: fs.ModeDevice | fs.ModeCharDevice}
	c := kubeletconfig.Read(notRegular{system}, kubeletconfig.Sources{})
	if c.Problem.Err != nil || c.ReadOnlyPort != 0 || !c.FlagsSeen {
		t.Errorf("problem %v, read-only port %d, flags seen %v", c.Problem.Err, c.ReadOnlyPort, c.FlagsSeen)
	}
}

// notRegular refuses to read what is no regular file, as the agent's file system does.
type notRegular struct{ fstest.MapFS }

func (n notRegular) ReadFile(name string) ([]byte, error) {
	if info, err := n.Stat(name); err == nil && !info.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "read", Path: name, Err: errors.New("not a regular file")}
	}
	return n.MapFS.ReadFile(name)
}

// TestStaticPodURL: what comes from elsewhere may be a kube-apiserver, too.
func TestStaticPodURL(t *testing.T) {
	for name, files := range map[string]map[string]string{
		"a field": {kubeadmFile: own + "staticPodURL: http://192.0.2.1/pods\n"},
		"a flag":  {kubeadmFile: own, unit: "[Service]\nExecStart=/usr/bin/kubelet --config=/var/lib/kubelet/config.yaml --manifest-url=http://192.0.2.1/pods\n"},
	} {
		t.Run(name, func(t *testing.T) {
			want := kubeadmFile
			if files[unit] != "" {
				want = unit
			}
			if c := kubeletconfig.Read(host(files), kubeletconfig.Sources{}); c.Problem.Err == nil || c.Problem.At != want {
				t.Errorf("problem %+v, want one at %s", c.Problem, want)
			}
		})
	}
}
