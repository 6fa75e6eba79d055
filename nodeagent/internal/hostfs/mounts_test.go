// SPDX-License-Identifier: Apache-2.0

package hostfs_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/kubelet-https-guard/kubelet-https-guard/nodeagent/internal/hostfs"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
)

func isNotMounted(err error) bool {
	_, ok := errors.AsType[*check.NotMountedError](err)
	return ok
}

// answer returns the state of a path: there, missing, stale, the path that is not mounted,
// or another error.
func answer(host *hostfs.FS, name string) string {
	_, err := host.Stat(name)
	notMounted, ok := errors.AsType[*check.NotMountedError](err)
	switch {
	case err == nil:
		return "there"
	case ok && !errors.Is(err, fs.ErrNotExist):
		return "not mounted: " + notMounted.Path
	case errors.Is(err, syscall.ESTALE) && !errors.Is(err, fs.ErrNotExist):
		return "stale"
	case errors.Is(err, fs.ErrNotExist):
		return "missing"
	}
	return err.Error()
}

// line is a line of the table of mounts, as the kernel writes it.
func line(source, at string) string {
	return fmt.Sprintf("36 35 98:0 %s %s ro,noatime master:1 - ext4 /dev/root rw\n", source, at)
}

// TestMounts: the state of paths for each table of mounts.
func TestMounts(t *testing.T) {
	base := t.TempDir()
	root := base + "/host"
	tree(t, base, [2]string{"elsewhere/file", "text"})
	tree(
		t,
		root,
		[2]string{"etc/kubernetes/manifests/pod.yaml", "text"},
		[2]string{"etc/kubernetes/out", "-> /var/lib/certs/tls.crt"},
		[2]string{
			"etc/kubernetes/out-there",
			"-> /var/lib/kubelet/config.yaml",
		},
		[2]string{"etc/kubernetes/in", "-> /etc/kubernetes/none"},
		[2]string{"etc/kubernetes/relative", "-> ../../var/lib/certs/tls.crt"},
		[2]string{"etc/kubernetes2/file", "text"},
		[2]string{
			"var/lib/kubelet/config.yaml",
			"text",
		},
		[2]string{"var/lib/kubelet/pki/key", "text"},
		[2]string{"a b/c\\d/file", "text"},
	)
	link := base + "/link"
	if err := os.Symlink(root, link); err != nil {
		t.Fatal(err)
	}
	kubernetes := line("/etc/kubernetes", root+"/etc/kubernetes")
	cases := map[string]struct {
		root, table string
		want        map[string]string
	}{
		"no mounts, a copy of a host's files": {
			table: line("/", "/") + line("/", base+"/elsewhere") + line("/", root+"2"),
			want: map[string]string{
				"etc/kubernetes/manifests/pod.yaml": "there", "etc/none": "missing", "var/lib/certs/tls.crt": "missing",
				".": "there",
			},
		},
		"an empty table": {want: map[string]string{"var/lib/certs/tls.crt": "missing", ".": "there"}},
		"the root is a mount": {table: line("/", root) + kubernetes, want: map[string]string{
			"etc/kubernetes/out": "missing", "var/lib/none": "missing", "etc/kubernetes2/file": "there",
		}},
		"one directory": {table: line("/", "/") + kubernetes + line("/", "/proc"), want: map[string]string{
			"etc/kubernetes":                    "there",
			"etc/kubernetes/manifests/pod.yaml": "there",
			"etc/kubernetes/manifests/none":     "missing",
			"etc/kubernetes/none/none":          "missing",
			"etc/kubernetes/in":                 "missing",
			"etc/kubernetes/out":                "not mounted: /var/lib/certs/tls.crt",
			"etc/kubernetes/relative":           "not mounted: /var/lib/certs/tls.crt",
			"etc/kubernetes/out-there":          "not mounted: /var/lib/kubelet/config.yaml",
			"etc/kubernetes2/file":              "not mounted: /etc/kubernetes2/file",
			"etc/none":                          "not mounted: /etc/none",
			"etc":                               "not mounted: /etc",
			".":                                 "not mounted: /",
			"none":                              "not mounted: /none",
		}},
		"the root is a symlink": {root: link, table: kubernetes, want: map[string]string{
			"etc/kubernetes/manifests/pod.yaml": "there", "etc/kubernetes/none": "missing", "var/lib/none/x": "not mounted: " +
				"/var/lib/none/x",
		}},
		"a single file": {
			table: kubernetes + line("/var/lib/kubelet/config.yaml", root+"/var/lib/kubelet/config.yaml"),
			want: map[string]string{
				"var/lib/kubelet/config.yaml": "there", "etc/kubernetes/out-there": "there",
				"var/lib/kubelet/config.yaml/x": "missing",
				"var/lib/kubelet":               "not mounted: /var/lib/kubelet", "var/lib/kubelet/pki/key": "not mounted: " +
					"/var/lib/kubelet/pki/key",
				"var/lib/kubelet/config.json": "not mounted: /var/lib/kubelet/config.json",
			},
		},
		"a single file that the host has replaced": {
			table: kubernetes + line("/var/lib/kubelet/config.yaml//deleted", root+"/var/lib/kubelet/config.yaml"),
			want: map[string]string{
				"var/lib/kubelet/config.yaml": "stale", "etc/kubernetes/out-there": "stale", "etc/kubernetes/none": "missing",
			},
		},
		"a directory that the host has replaced": {
			table: line("/etc/kubernetes//deleted", root+"/etc/kubernetes"),
			want: map[string]string{
				"etc/kubernetes/none": "stale", "etc/kubernetes/manifests/pod.yaml": "stale",
				"etc/kubernetes2/file": "not mounted: /etc/kubernetes2/file",
			},
		},
		"a mount on a mount": {table: line("/k//deleted", root+"/etc/kubernetes") + kubernetes, want: map[string]string{"etc/kubernetes/none": "missing"}},
		"a mount in a mount": {table: line("/etc//deleted", root+"/etc") + kubernetes, want: map[string]string{
			"etc/kubernetes/none": "missing", "etc/none": "stale",
		}},
		"names that the kernel escapes": {table: line("/", root+`/a\040b/c\134d`), want: map[string]string{
			`a b/c\d/file`: "there", `a b/c\d/none`: "missing", "a b/none": "not mounted: /a b/none",
		}},
		"invalid escapes": {table: line("/", root+`/etc/\04`) + line("/", root+`/etc/\999`), want: map[string]string{
			`etc/\04/x`: "missing", "etc/none": "not mounted: /etc/none",
		}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			table := filepath.Join(t.TempDir(), "mountinfo")
			if err := os.WriteFile(table, []byte(c.table), 0o600); err != nil {
				t.Fatal(err)
			}
			at := root
			if c.root != "" {
				at = c.root
			}
			host, err := hostfs.New(at, maxBytes, table)
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]string{}
			for path := range c.want {
				got[path] = answer(host, path)
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("state of paths (-want +got):\n%s", d)
			}
		})
	}
	t.Run("the root is gone", func(t *testing.T) {
		gone := base + "/gone"
		tree(t, gone, [2]string{"file", "text"})
		host := newFS(t, gone, maxBytes)
		if err := os.RemoveAll(gone); err != nil {
			t.Fatal(err)
		}
		if got, want := answer(host, "file"), "not mounted: /file"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		want := "stat /file: find the host's root: lstat " + gone + ": no such file or directory"
		if got := answer(host.WithCurrentMounts(), "file"); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

// TestInvalidMountInfo: without a valid table it is not known which paths belong to the
// host, and no path is reported as missing.
func TestInvalidMountInfo(t *testing.T) {
	root := t.TempDir()
	tree(t, root, [2]string{"file", "text"})
	cases := map[string]struct{ table, want string }{
		"not a table": {"rubbish\n", "a line has 1 fields, expected at least 5"},
		"a long line": {strings.Repeat("x", 300<<10), "a line is longer than 262144 bytes"},
		"too large":   {strings.Repeat(line("/", "/x"), 9<<20/len(line("/", "/x"))), "the table is larger than 8388608 bytes"},
		"too many":    {strings.Repeat(line("/", root+"/x"), 10_001), "more than 10000 mounts below " + root},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			table := filepath.Join(t.TempDir(), "mountinfo")
			if err := os.WriteFile(table, []byte(c.table), 0o600); err != nil {
				t.Fatal(err)
			}
			host, err := hostfs.New(root, maxBytes, table)
			if err != nil {
				t.Fatal(err)
			}
			for _, path := range []string{"file", "none"} {
				_, err := host.ReadFile(path)
				if want := "open /" + path + ": read the table of mounts: " + c.want; text(err) != want ||
					errors.Is(err, fs.ErrNotExist) {
					t.Errorf("got error %v, want %s", err, want)
				}
			}
		})
	}
	t.Run("does not exist", func(t *testing.T) {
		host, err := hostfs.New(root, maxBytes, root+"/none")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := host.Stat("none"); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("got error %v, want one that does not report the file as missing", err)
		}
	})
}

// TestRealMounts does the same with real mounts: one is added, one is removed, and the host
// replaces a single file.
func TestRealMounts(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	base := t.TempDir()
	root := base + "/host"
	tree(t, base,
		[2]string{"real/etc/kubernetes/link", "-> /var/lib/certs/tls.crt"}, [2]string{"real/var/lib/certs/tls.crt", "text"},
		[2]string{"real/config.yaml", "old"}, [2]string{"real/config.new", "new"},
		[2]string{"host/etc/kubernetes/", ""}, [2]string{"host/var/lib/certs/", ""}, [2]string{"host/config.yaml", ""},
	)
	host := newFS(t, root, maxBytes)
	mount := func(path string) {
		t.Helper()
		if err := unix.Mount(base+"/real"+path, root+path, "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Unmount(root+path, unix.MNT_DETACH) })
	}
	expect := func(when string, want map[string]string) {
		t.Helper()
		now, got := host.WithCurrentMounts(), map[string]string{}
		for path := range want {
			got[path] = answer(now, path)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s: state of paths (-want +got):\n%s", when, d)
		}
	}
	mount("/etc/kubernetes")
	mount("/config.yaml")
	expect("without the directory of the pair", map[string]string{
		"etc/kubernetes/link": "not mounted: /var/lib/certs/tls.crt", "etc/kubernetes/none": "missing",
		"var/lib/certs/none": "not mounted: /var/lib/certs/none", "config.yaml": "there",
	})
	mount("/var/lib/certs")
	expect("with it", map[string]string{
		"etc/kubernetes/link": "there", "var/lib/certs/none": "missing", "var/lib/none": "not mounted: /var/lib/none",
	})
	if err := os.Rename(base+"/real/config.new", base+"/real/config.yaml"); err != nil {
		t.Fatal(err)
	}
	expect("after a file was replaced", map[string]string{"config.yaml": "stale", "etc/kubernetes/link": "there"})
	if err := unix.Unmount(root+"/var/lib/certs", 0); err != nil {
		t.Fatal(err)
	}
	expect("after an unmount", map[string]string{"etc/kubernetes/link": "not mounted: /var/lib/certs/tls.crt"})
}

// TestReadDir: the sorted names of a directory, and paths that are not a directory.
func TestReadDir(t *testing.T) {
	root := t.TempDir()
	tree(t, root, [2]string{"d/b", ""}, [2]string{"d/.hidden", ""}, [2]string{"d/a/", ""}, [2]string{"link", "-> /d"},
		[2]string{"file", ""})
	for i := range 10_001 {
		tree(t, root, [2]string{fmt.Sprintf("many/%d", i), ""})
	}
	host := newFS(t, root, maxBytes)
	cases := map[string]struct {
		want []string
		err  string
	}{
		"d":    {want: []string{".hidden", "a", "b"}},
		"link": {want: []string{".hidden", "a", "b"}},
		"file": {err: "list /file: not a directory"},
		"none": {err: "open /none: no such file or directory"},
		"many": {err: "list /many: more than 10000 entries"},
		"../d": {err: "open ../d: invalid argument"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			entries, err := fs.ReadDir(host, name)
			if text(err) != c.err {
				t.Fatalf("got error %v, want %q", err, c.err)
			}
			var got []string
			for _, entry := range entries {
				got = append(got, entry.Name())
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("names (-want +got):\n%s", d)
			}
		})
	}
}

// FuzzMountInfo: for any table, a file outside of all mounts is never reported as missing
// if there is a mount below the root, and reading never panics.
func FuzzMountInfo(f *testing.F) {
	f.Add([]byte(line("/", "/")))
	f.Add([]byte("36 35 98:0 / ROOT/etc/kubernetes ro - ext4 /dev/root rw\n"))
	f.Add([]byte("36 35 98:0 /a//deleted ROOT/etc\\040x ro - ext4 /dev/root rw\n"))
	f.Add([]byte("36 35 98:0 / ROOT\\057etc\n36"))
	f.Add([]byte("\\\\\\0 \\04 \\040 \\777 \\377"))
	root := f.TempDir()
	if err := os.WriteFile(root+"/file", nil, 0o600); err != nil {
		f.Fatal(err)
	}
	elsewhere := "\n" + line("/", root+"/elsewhere")
	f.Fuzz(func(t *testing.T, data []byte) {
		text := strings.ReplaceAll(string(data), "ROOT", root)
		table := filepath.Join(t.TempDir(), "mountinfo")
		if err := os.WriteFile(table, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		host, err := hostfs.New(root, maxBytes, table)
		if err != nil {
			t.Fatal(err)
		}
		_ = answer(host, "file")
		if strings.Contains(text, root) { // it may mount anything
			return
		}
		if err := os.WriteFile(table, []byte(text+elsewhere), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := answer(host.WithCurrentMounts(), "none"); got == "missing" || got == "there" {
			t.Errorf("a file outside of all mounts is %s", got)
		}
	})
}
