// SPDX-License-Identifier: Apache-2.0

package kubeclient_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/command"
	"github.com/kubelet-https-guard/kubelet-https-guard/internal/kubeclient"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/messages"
)

// TestKubeconfig: what is wrong with a kubeconfig is said by flag or variable, file and
// cause, and nothing in it is quoted.
func TestKubeconfig(t *testing.T) {
	page := messages.Record(t, "errors of kubeconfigs")
	const head = "apiVersion: v1\nkind: Config\n"
	const good = head + "clusters: [{name: c, cluster: {server: 'https://one.example.com'}}]\ncontexts: [{name: x, " +
		"context: {cluster: c, user: u}}]\nusers: [{name: u, user: {token: hush}}]\ncurrent-context: x\n"
	replaced := func(old, by string) string { return strings.Replace(good, old, by, 1) }
	home := t.TempDir()
	write := func(path, text string) {
		t.Helper()
		path = filepath.Join(home, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for path, text := range map[string]string{
		"good": good, "second": replaced("one.", "two."), "no-scheme": replaced("https://one.example.com",
			"three.example.com:6443"),
		"nothing": "", "empty": head, "words": "hush", "not-yaml": head + "a: hush: b\n", "another": "apiVersion: " +
			"v1\nkind: Secret\nstringData: {token: hush}\n",
		"no-current": replaced("current-context: x\n", ""), "wrong-current": replaced("current-context: x", "current-context: z"),
		"no-cluster": replaced("cluster: c", "cluster: d"), "no-server": replaced("server: 'https://one.example.com'", "server: ''"), "no-user": replaced("user: u}", "user: v}"),
		"no-ca": replaced("{server:", "{certificate-authority: ca.crt, server:"), "large": good + strings.Repeat("#", 1<<20),
		"bare/.kube/config": head, "home/.kube/config": replaced("one.", "home."), "directory/file": "",
	} {
		write(path, text)
	}
	if os.Geteuid() != 0 {
		write("closed", good)
		if err := os.Chmod(filepath.Join(home, "closed"), 0); err != nil {
			t.Fatal(err)
		}
	}
	cases := map[string]struct {
		flag, variable, home string
		// want is the server, wantErr the error; ~ is the directory of the files.
		want, wantErr string
	}{
		"a good file":                   {flag: "~/good", variable: "~/second", home: "~/home", want: "https://one.example.com"},
		"the first of KUBECONFIG":       {variable: "~/second:~/good", home: "~/home", want: "https://two.example.com"},
		"one of KUBECONFIG is there":    {variable: "/does/not/exist:~/empty:~/second", want: "https://two.example.com"},
		"in the home directory":         {home: "~/home", want: "https://home.example.com"},
		"a server without a scheme":     {flag: "~/no-scheme", want: "three.example.com:6443"},
		"no such file":                  {flag: "/does/not/exist", wantErr: "--kubeconfig /does/not/exist: "},
		"a directory":                   {flag: "~/directory", wantErr: "--kubeconfig ~/directory: "},
		"below a file":                  {flag: "~/good/x", wantErr: "--kubeconfig ~/good/x: "},
		"an empty file":                 {flag: "~/nothing", variable: "~/good", home: "~/home", wantErr: "--kubeconfig ~/nothing: "},
		"a file with nothing":           {flag: "~/empty", wantErr: "--kubeconfig ~/empty: "},
		"words":                         {flag: "~/words", wantErr: "--kubeconfig ~/words: "},
		"not YAML":                      {flag: "~/not-yaml", wantErr: "--kubeconfig ~/not-yaml: "},
		"another kind":                  {flag: "~/another", wantErr: "--kubeconfig ~/another: "},
		"too large":                     {flag: "~/large", wantErr: "--kubeconfig ~/large: "},
		"no current context":            {flag: "~/no-current", wantErr: "--kubeconfig ~/no-current: "},
		"an unknown current context":    {flag: "~/wrong-current", wantErr: "--kubeconfig ~/wrong-current: "},
		"a context without its cluster": {flag: "~/no-cluster", wantErr: "--kubeconfig ~/no-cluster: "},
		"a cluster without a server":    {flag: "~/no-server", wantErr: "--kubeconfig ~/no-server: "},
		"a context without its user":    {flag: "~/no-user", wantErr: "--kubeconfig ~/no-user: "},
		"none of KUBECONFIG is there":   {variable: "~/a:~/b", home: "~/home", wantErr: "KUBECONFIG ~/a:~/b: no such file"},
		"a bad one of KUBECONFIG":       {variable: "~/good:~/words", wantErr: "KUBECONFIG ~/words: "},
		"no file in the home directory": {home: "/does/not/exist", wantErr: kubeclient.ErrNoAPIServer.Error()},
		"an empty one there":            {home: "~/bare", wantErr: kubeclient.ErrNoAPIServer.Error()},
		"nothing at all":                {wantErr: kubeclient.ErrNoAPIServer.Error()},
	}
	if os.Geteuid() != 0 {
		c := cases["no such file"]
		c.flag, c.wantErr = "~/closed", "--kubeconfig ~/closed: "
		cases["an unreadable file"] = c
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			in := func(text string) string { return strings.ReplaceAll(text, "~", home) }
			environment := map[string]string{"KUBECONFIG": in(c.variable), "HOME": in(c.home)}
			config, err := kubeclient.UserConfig(in(c.flag), "test", func(key string) string { return environment[key] })
			if err != nil && name != "an unreadable file" { // which is of users other than root
				page.Text(name, strings.ReplaceAll(err.Error(), home, "/directory"))
			}
			switch {
			case err == nil && (c.wantErr != "" || config.Host != c.want || config.UserAgent != "test"):
				t.Errorf("got %s as %s, want %s, error %q", config.Host, config.UserAgent, c.want, c.wantErr)
			case err != nil && (c.wantErr == "" || !strings.HasPrefix(err.Error(), in(c.wantErr))):
				t.Errorf("error %q, want %q", err, in(c.wantErr))
			case err != nil && command.IsUsage(err) == (c.wantErr == kubeclient.ErrNoAPIServer.Error()):
				t.Errorf("usage error: %v", command.IsUsage(err))
			}
			if err != nil && strings.Contains(err.Error(), "hush") {
				t.Errorf("the error quotes the file: %v", err)
			}
			if c.flag == "" {
				return
			}
			if _, other := kubeclient.Config(in(c.flag), "test"); (other == nil) != (err == nil) ||
				err != nil && other.Error() != err.Error() {
				t.Errorf("Config says %v, UserConfig %v", other, err)
			}
		})
	}
	if _, err := kubeclient.Config(filepath.Join(home, "no-ca"), "test"); err == nil ||
		!strings.Contains(err.Error(), "unable to read certificate-authority "+filepath.Join(home, "ca.crt")) {
		t.Errorf("a CA that is not there: %v", err)
	}
}
