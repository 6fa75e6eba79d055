// SPDX-License-Identifier: Apache-2.0

package hostfs_test

import (
	"bytes"
	stdcmp "cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/kubelet-https-guard/kubelet-https-guard/nodeagent/internal/hostfs"
)

const (
	maxBytes = 1 << 20
	// patience is longer than any step takes on a busy machine.
	patience = 20 * time.Second
)

// tree writes files: a name that ends in "/" is a directory, a text that begins with "-> "
// is the target of a symlink, and any other text is that of a file.
func tree(t *testing.T, root string, entries ...[2]string) {
	t.Helper()
	for _, entry := range entries {
		at, text := filepath.Join(root, entry[0]), entry[1]
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if target, link := strings.CutPrefix(text, "-> "); link {
			err = os.Symlink(target, at)
		} else if strings.HasSuffix(entry[0], "/") {
			err = os.MkdirAll(at, 0o755)
		} else {
			err = os.WriteFile(at, []byte(text), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func newFS(t *testing.T, root string, maxBytes int64) *hostfs.FS {
	t.Helper()
	host, err := hostfs.New(root, maxBytes, hostfs.MountInfo)
	if err != nil {
		t.Fatal(err)
	}
	return host
}

// inTime fails the test if a function does not return.
func inTime(t *testing.T, what string, do func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		do()
	}()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatalf("%s does not return", what)
	}
}

func TestNew(t *testing.T) {
	root := t.TempDir()
	tree(t, root, [2]string{"file", "text"})
	cases := map[string]struct{ root, want string }{
		"directory": {root: root},
		"file":      {root: root + "/file", want: "the host's root " + root + "/file is not a directory"},
		"not there": {root: root + "/none", want: "find the host's root: stat " + root + "/none: no such file or directory"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			host, err := hostfs.New(c.root, maxBytes, hostfs.MountInfo)
			if (err == nil) != (c.want == "") || (err != nil && err.Error() != c.want) {
				t.Errorf("New: got error %v, want %q", err, c.want)
			}
			if (host == nil) != (err != nil) {
				t.Errorf("New: got %v and error %v", host, err)
			}
		})
	}
}

// TestReadFile reads files through links of all kinds, and what cannot be read.
func TestReadFile(t *testing.T) {
	const outside = "outside of the root"
	base := t.TempDir()
	root := base + "/a/root"
	tree(
		t,
		base,
		[2]string{"secret", outside},
		[2]string{"a/secret", outside},
		[2]string{"a/root/inside", "inside"},
		[2]string{
			"a/root/etc/real/tls.crt",
			"real",
		},
		[2]string{"a/root/etc/empty", ""},
		[2]string{"a/root/etc/real/deep/", ""},
		[2]string{"a/root/etc/relative", "-> real/tls.crt"},
		[2]string{"a/root/etc/absolute", "-> /etc/real/tls.crt"},
		[2]string{"a/root/etc/linked", "-> /etc/real"},
		[2]string{"a/root/etc/twice", "-> linked/tls.crt"},
		[2]string{"a/root/etc/up", "-> ../inside"},
		[2]string{"a/root/etc/far-up", "-> ../../../../../../inside"},
		[2]string{"a/root/etc/behind-link", "-> to-deep/../tls.crt"},
		[2]string{"a/root/etc/to-deep", "-> /etc/real/deep"},
		[2]string{"a/root/etc/out", "-> ../../secret"},
		[2]string{"a/root/etc/out-absolute", "-> " + base + "/secret"},
		[2]string{"a/root/etc/out-directory", "-> ../.."},
		[2]string{"a/root/etc/dangling", "-> none"},
		[2]string{
			"a/root/etc/loop",
			"-> loop",
		},
		[2]string{"a/root/etc/ping", "-> pong"},
		[2]string{"a/root/etc/pong", "-> ping"},
		[2]string{
			"a/root/..data/tls.crt",
			"dots",
		},
		[2]string{"a/root/ten", "0123456789"},
		[2]string{"a/root/eleven", "0123456789+"},
	)
	// A link of /proc that leads out of the root.
	tree(t, root, [2]string{"magic", "-> /proc/self/root" + base + "/secret"})
	if err := os.Truncate(root+"/eleven", 1<<40); err != nil { // a sparse file
		t.Fatal(err)
	}

	cases := map[string]struct {
		name    string
		want    string
		wantErr string
		is      error
	}{
		"file":                   {name: "etc/real/tls.crt", want: "real"},
		"empty file":             {name: "etc/empty", want: ""},
		"dots in a name":         {name: "..data/tls.crt", want: "dots"},
		"relative link":          {name: "etc/relative", want: "real"},
		"absolute link":          {name: "etc/absolute", want: "real"},
		"linked directory":       {name: "etc/linked/tls.crt", want: "real"},
		"link over a link":       {name: "etc/twice", want: "real"},
		"link upwards":           {name: "etc/up", want: "inside"},
		"up from the root":       {name: "etc/far-up", want: "inside"},
		"upwards after a link":   {name: "etc/behind-link", want: "real"},
		"as large as allowed":    {name: "ten", want: "0123456789"},
		"too large":              {name: "eleven", wantErr: "read /eleven: larger than 10 bytes"},
		"link out":               {name: "etc/out", wantErr: "open /etc/out: no such file or directory", is: fs.ErrNotExist},
		"absolute link out":      {name: "etc/out-absolute", wantErr: "open /etc/out-absolute: no such file or directory", is: fs.ErrNotExist},
		"directory link out":     {name: "etc/out-directory/secret", wantErr: "open /etc/out-directory/secret: no such file or directory", is: fs.ErrNotExist},
		"link out by /proc":      {name: "magic", wantErr: "open /magic: no such file or directory", is: fs.ErrNotExist},
		"not there":              {name: "etc/none", wantErr: "open /etc/none: no such file or directory", is: fs.ErrNotExist},
		"in a missing directory": {name: "none/none/none", wantErr: "open /none/none/none: no such file or directory", is: fs.ErrNotExist},
		"dangling link":          {name: "etc/dangling", wantErr: "open /etc/dangling: no such file or directory", is: fs.ErrNotExist},
		"through a file":         {name: "inside/tls.crt", wantErr: "open /inside/tls.crt: file does not exist (not a directory)", is: fs.ErrNotExist},
		"through a linked file":  {name: "etc/up/tls.crt", wantErr: "open /etc/up/tls.crt: file does not exist (not a directory)", is: fs.ErrNotExist},
		"loop":                   {name: "etc/loop", wantErr: "open /etc/loop: too many levels of symbolic links", is: syscall.ELOOP},
		"loop of two":            {name: "etc/ping", wantErr: "open /etc/ping: too many levels of symbolic links", is: syscall.ELOOP},
		"through a loop":         {name: "etc/loop/tls.crt", wantErr: "open /etc/loop/tls.crt: too many levels of symbolic links", is: syscall.ELOOP},
		"directory":              {name: "etc/real", wantErr: "read /etc/real: not a regular file"},
		"the root":               {name: ".", wantErr: "read /.: not a regular file"},
		"a name too long":        {name: strings.Repeat("x", 300), wantErr: "open /" + strings.Repeat("x", 300) + ": file name too long", is: syscall.ENAMETOOLONG},
	}
	host := newFS(t, root, 10)
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			data, err := host.ReadFile(c.name)
			if got := text(err); string(data) != c.want || got != c.wantErr {
				t.Errorf("ReadFile: got %q and error %q, want %q and %q", data, got, c.want, c.wantErr)
			}
			if c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("ReadFile: error %v is not %v", err, c.is)
			}
			if !errors.Is(c.is, fs.ErrNotExist) && errors.Is(err, fs.ErrNotExist) {
				t.Errorf("ReadFile: error %v must not wrap fs.ErrNotExist", err)
			}
			if pathErr := new(fs.PathError); err != nil && !errors.As(err, &pathErr) {
				t.Errorf("ReadFile: error %v is not a *fs.PathError", err)
			}
			// Stat and Open fail for the same paths.
			_, statErr := host.Stat(c.name)
			_, openErr := host.Open(c.name)
			if found := c.is == nil; (statErr == nil) != found || (openErr == nil) != found {
				t.Errorf("got error %v of Stat, %v of Open, %v of ReadFile", statErr, openErr, err)
			}
		})
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// TestNames: names must be valid as [fs.ValidPath] defines.
func TestNames(t *testing.T) {
	root := t.TempDir()
	tree(t, root, [2]string{"file", "text"})
	host := newFS(t, root, maxBytes)
	for of, try := range map[string]func(name string) error{
		"Open":     func(name string) error { _, err := host.Open(name); return err },
		"ReadFile": func(name string) error { _, err := host.ReadFile(name); return err },
		"Stat":     func(name string) error { _, err := host.Stat(name); return err },
	} {
		t.Run(of, func(t *testing.T) {
			for _, name := range []string{"", "/", "/file", "./file", "../file", "a/../file", "file/", "a//file"} {
				if err := try(name); !errors.Is(err, fs.ErrInvalid) {
					t.Errorf("%s(%q): got error %v, want fs.ErrInvalid", of, name, err)
				}
			}
		})
	}
}

// TestOpen: an open file can be read and has a Stat.
func TestOpen(t *testing.T) {
	root := t.TempDir()
	tree(t, root, [2]string{"etc/file", "text"}, [2]string{"link", "-> /etc/file"})
	host := newFS(t, root, 2) // the limit applies to ReadFile only
	file, err := host.Open("link")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil || info.Mode() != 0o600 || info.Size() != 4 {
		t.Errorf("Stat: got %v with error %v", info, err)
	}
	if data, err := io.ReadAll(file); string(data) != "text" || err != nil {
		t.Errorf("got %q with error %v", data, err)
	}
	if data, err := fs.ReadFile(onlyOpen{host}, "link"); string(data) != "text" || err != nil {
		t.Errorf("fs.ReadFile by Open alone: got %q with error %v", data, err)
	}
}

// onlyOpen hides all methods but Open.
type onlyOpen struct{ fs fs.FS }

func (o onlyOpen) Open(name string) (fs.File, error) { return o.fs.Open(name) }

// TestNotRegular: files that would block or never end have a Stat, and are not read. The
// device is one in /dev.
func TestNotRegular(t *testing.T) {
	root := t.TempDir()
	tree(t, root, [2]string{"directory/file", "text"}, [2]string{"link", "-> fifo"})
	for name, kind := range map[string]uint32{"fifo": unix.S_IFIFO, "socket": unix.S_IFSOCK} {
		if err := unix.Mknod(filepath.Join(root, name), kind|0o600, 0); err != nil {
			t.Fatal(err)
		}
	}
	cases := map[string]struct {
		root, name string
		want       fs.FileMode
	}{
		"directory":      {root, "directory", fs.ModeDir},
		"FIFO":           {root, "fifo", fs.ModeNamedPipe},
		"link to a FIFO": {root, "link", fs.ModeNamedPipe},
		"socket":         {root, "socket", fs.ModeSocket},
		"device":         {"/dev", "null", fs.ModeDevice | fs.ModeCharDevice},
		"endless device": {"/dev", "zero", fs.ModeDevice | fs.ModeCharDevice},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			host := newFS(t, c.root, maxBytes)
			inTime(t, "looking at it", func() {
				file, err := host.Open(c.name)
				if err != nil {
					t.Errorf("Open: %v", err)
					return
				}
				defer func() { _ = file.Close() }()
				info, err := file.Stat()
				if err != nil || info.Mode().Type() != c.want {
					t.Errorf("Open, Stat: got %v with error %v, want %v", info, err, c.want)
				}
				if n, err := file.Read(make([]byte, 1)); err == nil {
					t.Errorf("Open, Read: got %d bytes", n)
				}
				if info, err := host.Stat(c.name); err != nil || info.Mode().Type() != c.want {
					t.Errorf("Stat: got %v with error %v, want %v", info, err, c.want)
				}
				data, err := host.ReadFile(c.name)
				if want := "read /" + c.name + ": not a regular file"; text(err) != want || data != nil {
					t.Errorf("ReadFile: got %q with error %v, want error %q", data, err, want)
				}
			})
		})
	}
}

// TestNoPermission: a file without permission is not reported as missing. The test drops
// all capabilities, so that root is refused, too.
func TestNoPermission(t *testing.T) {
	root := t.TempDir()
	tree(t, root, [2]string{"etc/closed/deep/tls.crt", "text"}, [2]string{"etc/tls.key", "text"},
		[2]string{"link", "-> /etc/closed/deep/tls.crt"})
	host := newFS(t, root, maxBytes)
	closed, key := root+"/etc/closed", root+"/etc/tls.key"
	chmod(t, closed, 0)
	chmod(t, key, 0)
	t.Cleanup(func() {
		chmod(t, closed, 0o755) // or it cannot be removed
	})
	withoutCapabilities(t)

	for _, name := range []string{"etc/closed/deep/tls.crt", "etc/closed/none", "link"} {
		_, openErr := host.Open(name)
		_, readErr := host.ReadFile(name)
		_, statErr := host.Stat(name)
		for of, err := range map[string]error{"Open": openErr, "ReadFile": readErr, "Stat": statErr} {
			if want := "open /" + name + ": permission denied"; text(err) != want || !errors.Is(err, fs.ErrPermission) ||
				errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s(%s): got error %v, want %s", of, name, err, want)
			}
		}
	}
	if _, err := host.ReadFile("etc/tls.key"); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("ReadFile of a file of mode 0: got error %v", err)
	}
	if info, err := host.Stat("etc/tls.key"); err != nil || info.Mode() != 0 {
		t.Errorf("Stat of a file of mode 0: got %v with error %v", info, err)
	}
	// The closed directory itself is visible.
	if d := cmp.Diff([]string{"/", "/etc", "/etc/closed"}, paths(t, root,
		host.Chains()("/etc/closed/deep/tls.crt"))); d != "" {
		t.Errorf("chain (-want +got):\n%s", d)
	}
}

func chmod(t *testing.T, name string, mode fs.FileMode) {
	t.Helper()
	if err := os.Chmod(name, mode); err != nil {
		t.Error(err)
	}
}

// withoutCapabilities drops all capabilities of this test's thread. The thread ends with
// the test.
func withoutCapabilities(t *testing.T) {
	t.Helper()
	runtime.LockOSThread() // until the thread ends
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData // version 3 has two
	if err := unix.Capset(&header, &sets[0]); err != nil {
		t.Fatal(err)
	}
}

// TestOwned: files of the root directory's owner and of other users.
func TestOwned(t *testing.T) {
	root := t.TempDir()
	tree(t, root, [2]string{"file", "text"})
	host := newFS(t, root, maxBytes)
	own, err := host.Stat("file")
	if err != nil {
		t.Fatal(err)
	}
	stat, ok := own.Sys().(*syscall.Stat_t)
	if !ok {
		t.Fatalf("Sys is a %T", own.Sys())
	}
	cases := map[string]struct {
		info fs.FileInfo
		want bool
	}{
		"own":             {own, true},
		"somebody's":      {infoWith{own, &syscall.Stat_t{Uid: stat.Uid + 1}}, false},
		"who knows whose": {infoWith{own, nil}, false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if got := host.Owned(c.info); got != c.want {
				t.Errorf("Owned: got %v, want %v", got, c.want)
			}
		})
	}
}

// infoWith is a file's info with another Sys.
type infoWith struct {
	fs.FileInfo
	sys any
}

func (i infoWith) Sys() any { return i.sys }

// paths returns the paths of a chain without the root, and checks that each one is the
// directory with that device and inode.
func paths(t *testing.T, root string, chain []hostfs.Directory) []string {
	t.Helper()
	var all []string
	for _, d := range chain {
		info, err := os.Lstat(d.Path)
		if d.Path == root { // which may be a symlink
			info, err = os.Stat(d.Path)
		}
		if err != nil {
			t.Errorf("%s: %v", d.Path, err)
			continue
		}
		stat, ok := info.Sys().(*syscall.Stat_t)
		if !ok || !info.IsDir() || stat.Ino != d.Inode ||
			uint64(stat.Dev) != d.Device { //nolint:unconvert // narrower on some architectures
			t.Errorf("%+v is not the directory there", d)
		}
		rest, below := strings.CutPrefix(d.Path, root)
		if !below {
			t.Errorf("%s is not below the root", d.Path)
		}
		all = append(all, "/"+strings.TrimPrefix(rest, "/"))
	}
	return all
}

func TestChain(t *testing.T) {
	base := t.TempDir()
	root := base + "/root"
	tree(t, base, [2]string{"outside/deep/file", "text"})
	tree(
		t,
		root,
		[2]string{"etc/pki/tls.crt", "text"},
		[2]string{"var/lib/real/tls.crt", "text"},
		[2]string{"etc/linked", "-> ../var/lib/real"},
		[2]string{"etc/absolute", "-> /var/lib/real"},
		[2]string{"etc/file", "-> /var/lib/real/tls.crt"},
		[2]string{"etc/twice", "-> linked"},
		[2]string{"etc/loop", "-> loop"},
		[2]string{"etc/ping", "-> /etc/pong"},
		[2]string{"etc/pong", "-> ping"},
		[2]string{"etc/dangling", "-> /var/none/deep"},
		[2]string{"etc/out", "-> ../../../outside/deep"},
		[2]string{
			"etc/out-absolute",
			"-> " + base + "/outside/deep",
		},
		[2]string{"etc/behind-link", "-> absolute/../up"},
		[2]string{"var/lib/up/", ""},
		[2]string{
			"secret/..data",
			"-> ..2026_11_22",
		},
		[2]string{"secret/..2026_11_22/tls.crt", "text"},
		[2]string{"secret/tls.crt", "-> ..data/tls.crt"},
	)
	cases := map[string]struct {
		path string
		want []string
	}{
		"root":                          {"/", []string{"/"}},
		"file":                          {"/etc/pki/tls.crt", []string{"/", "/etc", "/etc/pki"}},
		"directory":                     {"/etc/pki", []string{"/", "/etc", "/etc/pki"}},
		"slashes":                       {"//etc//pki//", []string{"/", "/etc", "/etc/pki"}},
		"not there":                     {"/etc/pki/none", []string{"/", "/etc", "/etc/pki"}},
		"far from there":                {"/etc/none/none/none", []string{"/", "/etc"}},
		"through a file":                {"/etc/pki/tls.crt/none", []string{"/", "/etc", "/etc/pki"}},
		"linked directory":              {"/etc/linked/tls.crt", []string{"/", "/etc", "/var", "/var/lib", "/var/lib/real"}},
		"absolute link":                 {"/etc/absolute/tls.crt", []string{"/", "/etc", "/var", "/var/lib", "/var/lib/real"}},
		"link to a file":                {"/etc/file", []string{"/", "/etc", "/var", "/var/lib", "/var/lib/real"}},
		"link over a link":              {"/etc/twice/tls.crt", []string{"/", "/etc", "/var", "/var/lib", "/var/lib/real"}},
		"..data":                        {"/secret/tls.crt", []string{"/", "/secret", "/secret/..2026_11_22"}},
		"dangling link":                 {"/etc/dangling/tls.crt", []string{"/", "/etc", "/var"}},
		"upwards after a link":          {"/etc/behind-link", []string{"/", "/etc", "/var", "/var/lib", "/var/lib/real", "/var/lib/up"}},
		"loop":                          {"/etc/loop/tls.crt", []string{"/", "/etc"}},
		"loop of two":                   {"/etc/ping/tls.crt", []string{"/", "/etc"}},
		"link out of the root":          {"/etc/out/file", []string{"/", "/etc"}},
		"absolute link out of the root": {"/etc/out-absolute/file", []string{"/", "/etc"}},
	}
	link := base + "/link"
	if err := os.Symlink(root, link); err != nil {
		t.Fatal(err)
	}
	for name, c := range cases {
		for way, root := range map[string]string{"": root, ", root is a symlink": link} {
			t.Run(name+way, func(t *testing.T) {
				// A directory may be in a chain twice.
				if d := cmp.Diff(c.want, unique(paths(t, root, newFS(t, root, maxBytes).Chains()(c.path)))); d != "" {
					t.Errorf("chain of %s (-want +got):\n%s", c.path, d)
				}
			})
		}
	}

	t.Run("root is gone", func(t *testing.T) {
		gone := base + "/gone"
		tree(t, gone, [2]string{"etc/file", "text"})
		host := newFS(t, gone, maxBytes)
		if err := os.RemoveAll(gone); err != nil {
			t.Fatal(err)
		}
		if chain := host.Chains()("/etc/file"); chain != nil {
			t.Errorf("chain: got %v", chain)
		}
	})

	t.Run("bounded", func(t *testing.T) {
		const deep = 300
		long := strings.Repeat("/d", deep)
		tree(t, base+"/deep", [2]string{long + "/file", "text"})
		if got := len(newFS(t, base+"/deep", maxBytes).Chains()(long)); got != 256 {
			t.Errorf("the chain of %d directories has %d, want 256", deep, got)
		}
	})

	t.Run("many links", func(t *testing.T) {
		// Each link leads to the next one. The kernel follows 40.
		last := base + "/many"
		tree(t, last, [2]string{"target/file", "text"}, [2]string{"link1", "-> target"})
		for i := 2; i <= 50; i++ {
			tree(t, last, [2]string{fmt.Sprintf("link%d", i), fmt.Sprintf("-> link%d", i-1)})
		}
		host := newFS(t, last, maxBytes)
		for links, want := range map[int][]string{40: {"/", "/target"}, 41: {"/"}} {
			if d := cmp.Diff(want, unique(paths(t, last, host.Chains()(fmt.Sprintf("/link%d/file", links))))); d != "" {
				t.Errorf("chain over %d links (-want +got):\n%s", links, d)
			}
			if _, err := host.Stat(fmt.Sprintf("link%d/file", links)); (err == nil) != (links <= 40) {
				t.Errorf("Stat over %d links: %v", links, err)
			}
		}
	})
}

// TestChainNames: the names that are looked up in each directory.
func TestChainNames(t *testing.T) {
	root := t.TempDir()
	tree(t, root,
		[2]string{"secret/..data", "-> ..2026_11_22"}, [2]string{"secret/..2026_11_22/tls.crt", "text"},
		[2]string{"secret/tls.crt", "-> ..data/tls.crt"}, [2]string{"etc/absolute", "-> /secret"})
	cases := map[string][]string{
		"/secret/tls.crt":    {"/ secret", "/secret tls.crt", "/secret ..data", "/secret ..2026_11_22", "/secret/..2026_11_22 tls.crt"},
		"/etc/absolute/none": {"/ etc", "/etc absolute", "/ secret", "/secret none"},
		"/etc/none/none":     {"/ etc", "/etc none"},
		"/etc":               {"/ etc", "/etc "},
	}
	for path, want := range cases {
		t.Run(path, func(t *testing.T) {
			var got []string
			for _, d := range newFS(t, root, maxBytes).Chains()(path) {
				got = append(got, stdcmp.Or(strings.TrimPrefix(d.Path, root), "/")+" "+d.Name)
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("chain of %s (-want +got):\n%s", path, d)
			}
		})
	}
}

// TestStaleMount: a file that is missing in a mounted directory is not reported as missing
// if the host has deleted that directory. A mount needs a namespace, so the test runs
// itself again in one.
func TestStaleMount(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	base := t.TempDir()
	root, leaf, staging := base+"/host", base+"/real/secrets/kubelet-client", base+"/real/staging"
	mounted := root + "/etc/secrets/kubelet-client"
	tree(t, base, [2]string{"real/secrets/kubelet-client/tls.crt", "old"},
		[2]string{"host/etc/secrets/kubelet-client/", ""}, [2]string{"real/staging/tls.crt", "new"})
	if err := unix.Mount(leaf, mounted, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(mounted, unix.MNT_DETACH) })
	host := newFS(t, root, maxBytes)
	look := func(when, name string, want error) {
		t.Helper()
		_, err := host.ReadFile(name)
		_, statErr := host.Stat(name)
		for _, err := range []error{err, statErr} {
			if !errors.Is(err, want) || (want != nil && errors.Is(err, syscall.ESTALE) != errors.Is(want, syscall.ESTALE)) {
				t.Errorf("%s, %s: got %v, want %v", when, name, err, want)
			}
		}
	}
	look("before", "etc/secrets/kubelet-client/tls.crt", nil)
	look("before", "etc/secrets/kubelet-client/tls.key", fs.ErrNotExist)
	if err := unix.Renameat2(unix.AT_FDCWD, staging, unix.AT_FDCWD, leaf, unix.RENAME_EXCHANGE); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(staging); err != nil {
		t.Fatal(err)
	}
	look("swapped", "etc/secrets/kubelet-client/tls.crt", syscall.ESTALE)
	look("swapped", "etc/secrets/kubelet-client/deep/down", syscall.ESTALE)
	for _, outside := range []string{"etc/secrets/other", "etc/none/kubelet-client/tls.crt"} {
		if _, err := host.ReadFile(outside); !isNotMounted(err) {
			t.Errorf("%s, which is outside of all mounts: got %v", outside, err)
		}
	}
}

// inNamespace reports whether this process may mount. If not, it runs the calling test again
// in its own namespace, and the caller must return.
func inNamespace(t *testing.T) bool {
	t.Helper()
	const inside = "HOSTFS_TEST_IN_NAMESPACE"
	if os.Getenv(inside) != "" {
		return true
	}
	again := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	again.Env = append(os.Environ(), inside+"=1")
	again.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	out, err := again.CombinedOutput()
	if _, ran := errors.AsType[*exec.ExitError](err); err != nil && !ran && os.Getenv("CI") == "" {
		t.Skipf("namespaces are not available: %v", err)
	}
	if err != nil || !bytes.Contains(out, []byte("--- PASS: "+t.Name())) {
		t.Errorf("in a namespace: %v\n%s", err, out)
	}
	return false
}

func unique(all []string) []string {
	seen := map[string]bool{}
	var some []string
	for _, one := range all {
		if !seen[one] {
			some = append(some, one)
		}
		seen[one] = true
	}
	return some
}

// TestChainDistinguishesDirectories: another directory at the same path has another device
// or inode in the chain.
func TestChainDistinguishesDirectories(t *testing.T) {
	root := t.TempDir()
	tree(t, root, [2]string{"etc/live/tls.crt", "old"}, [2]string{"etc/staging/tls.crt", "new"})
	host := newFS(t, root, maxBytes)
	before := host.Chains()("/etc/live/tls.crt")
	if err := unix.Renameat2(unix.AT_FDCWD, root+"/etc/staging", unix.AT_FDCWD, root+"/etc/live",
		unix.RENAME_EXCHANGE); err != nil {
		t.Fatal(err)
	}
	after := host.Chains()("/etc/live/tls.crt")
	if d := cmp.Diff(paths(t, root, after), []string{"/", "/etc", "/etc/live"}); d != "" {
		t.Errorf("chain (-got +want):\n%s", d)
	}
	if len(before) != 3 || len(after) != 3 || before[0] != after[0] || before[1] != after[1] || before[2] == after[2] {
		t.Errorf("got %v before and %v after: only the last must differ", before, after)
	}
}

// TestLstat: Lstat and ReadLink do not follow a symlink.
func TestLstat(t *testing.T) {
	root := t.TempDir()
	if err := os.Symlink("/d", root+"/link"); err != nil {
		t.Fatal(err)
	}
	host := newFS(t, root, 10)
	info, err := fs.Lstat(host, "link")
	if err != nil || info.Mode()&fs.ModeSymlink == 0 {
		t.Errorf("Lstat of a symlink: %v, %v", info, err)
	}
	if target, err := fs.ReadLink(host, "link"); err != nil || target != "/d" {
		t.Errorf("ReadLink: %q, %v", target, err)
	}
	if _, err := fs.Lstat(host, "none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Lstat of nothing: %v", err)
	}
}
