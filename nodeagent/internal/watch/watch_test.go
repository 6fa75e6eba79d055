// SPDX-License-Identifier: Apache-2.0

package watch_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/kubelet-https-guard/kubelet-https-guard/nodeagent/internal/hostfs"
	"github.com/kubelet-https-guard/kubelet-https-guard/nodeagent/internal/watch"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/openshift"
)

const (
	// patience is longer than a wake-up takes on a busy machine.
	patience = 20 * time.Second
	// silence is long enough to conclude that no wake-up will come.
	silence = 5 * watch.Window
)

// rig is a watcher of the path to one file of a host, with a real inotify.
type rig struct {
	t    *testing.T
	root string
	at   string // path on the host
	host *hostfs.FS
	*watch.Watcher
	log *log
}

func newRig(t *testing.T, root, at string) *rig {
	t.Helper()
	host, err := hostfs.New(root, 1<<20, hostfs.MountInfo)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, root: root, at: at, host: host, log: &log{}}
	r.Watcher = watch.New(slog.New(slog.NewTextHandler(r.log, nil)))
	return r
}

// run runs the watcher until the test ends, or stop is called.
func (r *rig) run() (stop func()) {
	ctx, cancel := context.WithCancel(r.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				r.t.Errorf("Run: %v", err)
			}
		case <-time.After(patience):
			r.t.Error("Run does not return after its context ended")
		}
	})
	r.t.Cleanup(stop)
	return stop
}

// watchPath watches what is on the path now, until nothing is new.
func (r *rig) watchPath() (changed bool) {
	r.t.Helper()
	for range 10 {
		if !r.Watch(r.host.Chains()(r.at)) {
			return changed
		}
		changed = true
	}
	r.t.Error("Watch reports something new each time")
	return changed
}

func (r *rig) wait(what string) {
	r.t.Helper()
	select {
	case <-r.Wake():
	case <-time.After(patience):
		r.t.Fatalf("no wake-up: %s", what)
	}
}

// settle watches the path again until there has been no wake-up for a while.
func (r *rig) settle() {
	r.t.Helper()
	deadline := time.After(patience)
	for {
		r.watchPath()
		select {
		case <-r.Wake():
		case <-time.After(silence):
			return
		case <-deadline:
			r.t.Fatal("wake-ups do not stop")
		}
	}
}

// log keeps what was logged.
type log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *log) Write(data []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(data)
}

func (l *log) lines() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.FieldsFunc(l.text.String(), func(r rune) bool { return r == '\n' })
}

// silent fails the test if anything was logged.
func (l *log) silent(t *testing.T) {
	t.Helper()
	if lines := l.lines(); len(lines) > 0 {
		t.Errorf("logged: %q", lines)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func put(t *testing.T, at, text string) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(at), 0o755))
	must(t, os.WriteFile(at, []byte(text), 0o600))
}

// exchange swaps two paths.
func exchange(t *testing.T, a, b string) {
	t.Helper()
	must(t, unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE))
}

// link replaces a symlink at once, as the kubelet's atomic writer does.
func link(t *testing.T, target, at string) {
	t.Helper()
	must(t, os.Symlink(target, at+"_tmp"))
	must(t, os.Rename(at+"_tmp", at))
}

// TestWakes: in whatever way the file gets new content, there is a wake-up after which
// the content can be read. Each case does it three times and watches the path again in
// between.
func TestWakes(t *testing.T) {
	const (
		at   = "/certs/secrets/kubelet-client/tls.crt"
		live = "/certs/secrets/kubelet-client"
	)
	one := func(text string) map[string][]byte { return map[string][]byte{"tls.crt": []byte(text)} }
	plain := func(t *testing.T, root string) { put(t, root+at, "text 0") }

	cases := map[string]struct {
		before func(t *testing.T, root string)
		change func(t *testing.T, root, text string)
	}{
		"write in place": {plain, func(t *testing.T, root, text string) {
			must(t, openshift.WriteInPlace(root+live, one(text)))
		}},
		"temporary file and rename": {plain, func(t *testing.T, root, text string) {
			must(t, openshift.WriteAtomically(root+live, one(text)))
		}},
		"exchange of the directory": {plain, func(t *testing.T, root, text string) {
			must(t, openshift.SwapDirectory(root+live, root+"/certs/staging/cert-sync/secrets/kubelet-client", one(text)))
		}},
		"exchange of a directory above": {plain, func(t *testing.T, root, text string) {
			put(t, root+"/unwatched/certs/secrets/kubelet-client/tls.crt", text)
			exchange(t, root+"/certs", root+"/unwatched/certs")
		}},
		"directory removed and created again": {plain, func(t *testing.T, root, text string) {
			must(t, openshift.Recreate(root+live, one(text)))
		}},
		"directory above removed and created again": {plain, func(t *testing.T, root, text string) {
			must(t, os.RemoveAll(root+"/certs"))
			put(t, root+at, text)
		}},
		"directory moved away and a new one in": {plain, func(t *testing.T, root, text string) {
			put(t, root+"/unwatched/new/tls.crt", text)
			must(t, os.RemoveAll(root+"/unwatched/old"))
			must(t, os.Rename(root+live, root+"/unwatched/old"))
			must(t, os.Rename(root+"/unwatched/new", root+live))
		}},
		"..data": {
			func(t *testing.T, root string) {
				put(t, root+live+"/..text 0/tls.crt", "text 0")
				link(t, "..text 0", root+live+"/..data")
				link(t, "..data/tls.crt", root+at)
			},
			func(t *testing.T, root, text string) {
				put(t, root+live+"/.."+text+"/tls.crt", text)
				link(t, ".."+text, root+live+"/..data")
			},
		},
		"a symlink's target replaced": {
			func(t *testing.T, root string) {
				put(t, root+"/elsewhere/deep/the.crt", "text 0")
				must(t, os.MkdirAll(root+live, 0o755))
				link(t, "/elsewhere/deep/the.crt", root+at)
			},
			func(t *testing.T, root, text string) {
				must(t, openshift.WriteAtomically(root+"/elsewhere/deep", map[string][]byte{"the.crt": []byte(text)}))
			},
		},
		"a directory behind a symlink exchanged": {
			func(t *testing.T, root string) {
				put(t, root+"/elsewhere/deep/tls.crt", "text 0")
				must(t, os.MkdirAll(root+"/certs/secrets", 0o755))
				link(t, "../../elsewhere/deep", root+live)
			},
			func(t *testing.T, root, text string) {
				must(t, openshift.SwapDirectory(root+"/elsewhere/deep", root+"/unwatched/staging", one(text)))
			},
		},
		"a symlink pointed elsewhere": {
			func(t *testing.T, root string) {
				put(t, root+"/elsewhere/text 0/tls.crt", "text 0")
				must(t, os.MkdirAll(root+"/certs/secrets", 0o755))
				link(t, "/elsewhere/text 0", root+live)
			},
			func(t *testing.T, root, text string) {
				put(t, root+"/elsewhere/"+text+"/tls.crt", text)
				link(t, "/elsewhere/"+text, root+live)
			},
		},
		"file that does not exist at first": {
			func(t *testing.T, root string) { put(t, root+"/certs/other", "text") },
			func(t *testing.T, root, text string) { put(t, root+at, text) },
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			c.before(t, root)
			r := newRig(t, root, at)
			r.run()
			r.settle()
			for i := 1; i <= 3; i++ {
				text := fmt.Sprintf("text %d", i)
				c.change(t, root, text)
				for {
					r.wait(fmt.Sprintf("change %d", i))
					r.watchPath()
					if data, err := r.host.ReadFile(strings.TrimPrefix(at, "/")); err == nil && string(data) == text {
						break
					}
				}
				r.settle()
			}
			r.log.silent(t)
		})
	}
}

// TestWakesOnEachLayout swaps the directory of the pair twice on a host of each layout.
func TestWakesOnEachLayout(t *testing.T) {
	for _, layout := range []openshift.Layout{openshift.Current, openshift.Legacy, openshift.Oldest, openshift.Kubeadm} {
		t.Run(string(layout), func(t *testing.T) {
			tree, err := openshift.Write(t.TempDir(), layout, openshift.Files{Certificate: []byte("text 0"), Key: []byte("key")})
			must(t, err)
			r := newRig(t, tree.Root, tree.CertificateOnHost())
			r.run()
			r.settle()
			name := filepath.Base(tree.Certificate())
			for i := 1; i <= 2; i++ {
				text := fmt.Sprintf("text %d", i)
				must(t, openshift.SwapDirectory(tree.Directory(), tree.Staging(), map[string][]byte{name: []byte(text)}))
				r.wait(text)
				r.settle()
				data, err := r.host.ReadFile(strings.TrimPrefix(tree.CertificateOnHost(), "/"))
				if string(data) != text || err != nil {
					t.Errorf("got %q with error %v, want %q", data, err, text)
				}
			}
			r.log.silent(t)
		})
	}
}

// TestSteadyStream: a steady stream of events of the kernel neither prevents wake-ups nor causes
// more than [watch.Burst] and one in each window.
func TestSteadyStream(t *testing.T) {
	const wakeUps = 20
	root := t.TempDir()
	put(t, root+"/etc/tls.crt", "text")
	r := newRig(t, root, "/etc/tls.crt")
	r.run()
	r.settle()

	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		tick := time.NewTicker(watch.Window / 30)
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			// Alternate, because the kernel merges equal events.
			if err := os.WriteFile(root+[]string{"/etc/tls.crt", "/etc/other"}[i%2], []byte("text"), 0o600); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	defer func() {
		close(stop)
		select {
		case <-stopped:
		case <-time.After(patience):
			t.Error("the writer of the steady stream does not stop")
		}
	}()

	r.wait("first wake-up of a steady stream")
	begin := time.Now()
	for i := range wakeUps {
		r.wait(fmt.Sprintf("wake-up %d of a steady stream", i+2))
	}
	if took, least := time.Since(begin), (wakeUps-watch.Burst)*watch.Window; took < least {
		t.Errorf("%d wake-ups came in %s, less than %s", wakeUps, took, least)
	}
	r.log.silent(t)
}

// TestWatch: Watch reports a change if and only if a directory is newly watched, or a
// name in a directory newly matters.
func TestWatch(t *testing.T) {
	root := t.TempDir()
	put(t, root+"/a/b/file", "text")
	put(t, root+"/c/file", "text")
	r := newRig(t, root, "/a/b/file")
	host := r.host
	gone := hostfs.Directory{Path: root + "/none"}
	file := hostfs.Directory{Path: root + "/a/b/file/none"}
	abc := append(host.Chains()("/a/b"), host.Chains()("/c")...)

	steps := []struct {
		what        string
		directories []hostfs.Directory
		want        bool
	}{
		{"nothing", nil, false},
		{"first time", host.Chains()("/a/b"), true},
		{"again", host.Chains()("/a/b"), false},
		{"each twice", append(host.Chains()("/a/b"), host.Chains()("/a/b")...), false},
		{"fewer", host.Chains()("/a"), false},
		{"one that was removed before", host.Chains()("/a/b"), true},
		{"one more", abc, true},
		{"another name in a watched directory", append(host.Chains()("/a/b/none"), abc...), true},
		{"without that name", abc, false},
		{"one more, which does not exist", append([]hostfs.Directory{gone, file}, abc...), false},
		{"none", nil, false},
		{"all again", abc, true},
	}
	for _, step := range steps {
		if got := r.Watch(step.directories); got != step.want {
			t.Errorf("%s: got %v, want %v", step.what, got, step.want)
		}
	}
	r.log.silent(t)
	r.run()
}

// TestWatchRemovesDirectories: a directory that is no longer watched causes no wake-up.
func TestWatchRemovesDirectories(t *testing.T) {
	root := t.TempDir()
	put(t, root+"/a/file", "text")
	put(t, root+"/b/file", "text")
	r := newRig(t, root, "/b/file")
	r.Watch(append(r.host.Chains()("/a"), r.host.Chains()("/b")...))
	r.run()
	r.settle() // with /b alone
	put(t, root+"/a/file", "more")
	select {
	case <-r.Wake():
		t.Error("wake-up by a directory that is no longer watched")
	case <-time.After(silence):
	}
	put(t, root+"/b/file", "more")
	r.wait("in the directory that is still watched")
}

// TestWatchAfterExchange: fsnotify believes that the path is watched, but another
// directory is there now. The watcher does not run yet, so Watch sees no event of this.
func TestWatchAfterExchange(t *testing.T) {
	root := t.TempDir()
	put(t, root+"/etc/live/tls.crt", "old")
	put(t, root+"/etc/staging/tls.crt", "new")
	r := newRig(t, root, "/etc/live/tls.crt")
	if !r.watchPath() {
		t.Fatal("Watch: nothing is new")
	}
	exchange(t, root+"/etc/live", root+"/etc/staging")
	if !r.Watch(r.host.Chains()(r.at)) {
		t.Error("the directory that was swapped in is not watched")
	}
	r.run()
	r.settle()
	put(t, root+"/etc/live/tls.crt", "newer")
	r.wait("in the directory that was swapped in")
	r.settle()
	exchange(t, root+"/etc/live", root+"/etc/staging") // back to the first one
	r.wait("the first directory is back")
	r.settle()
	put(t, root+"/etc/live/tls.crt", "newest")
	r.wait("in the directory that came back")
	r.log.silent(t)
}

// TestWatchAfterExchangeAndBack: the original directory is back, but the swap removed its
// watch.
func TestWatchAfterExchangeAndBack(t *testing.T) {
	root := t.TempDir()
	put(t, root+"/etc/live/tls.crt", "old")
	put(t, root+"/etc/staging/tls.crt", "new")
	r := newRig(t, root, "/etc/live/tls.crt")
	r.run()
	r.settle()
	before := r.host.Chains()(r.at)
	exchange(t, root+"/etc/live", root+"/etc/staging")
	exchange(t, root+"/etc/live", root+"/etc/staging")
	if d := cmp.Diff(before, r.host.Chains()(r.at)); d != "" {
		t.Fatalf("chain (-before +after):\n%s", d)
	}
	r.wait("the exchange")
	r.settle()
	put(t, root+"/etc/live/tls.crt", "newer")
	r.wait("in the directory that came back")
	r.log.silent(t)
}

// backlog swaps a directory and removes the old one while earlier events still wait to be
// read. So fsnotify sees the swap when the old directory is gone, and fails on the watch
// that was removed with it.
func backlog(t *testing.T, root string) {
	t.Helper()
	put(t, root+"/etc/first", "event")
	must(t, openshift.SwapDirectory(root+"/etc/live", root+"/staging", map[string][]byte{"tls.crt": []byte("new")}))
}

// TestInvalidArgumentIsNotLogged: fsnotify returns EINVAL for each swapped directory,
// which is normal.
func TestInvalidArgumentIsNotLogged(t *testing.T) {
	t.Run("fsnotify returns EINVAL", func(t *testing.T) {
		root := t.TempDir()
		put(t, root+"/etc/live/tls.crt", "old")
		notify, err := fsnotify.NewWatcher()
		must(t, err)
		defer func() { _ = notify.Close() }()
		must(t, notify.Add(root+"/etc"))
		must(t, notify.Add(root+"/etc/live"))
		backlog(t, root)
		deadline := time.After(patience)
		for returned := false; !returned; {
			select {
			case <-notify.Events:
			case err := <-notify.Errors:
				returned = errors.Is(err, syscall.EINVAL)
			case <-deadline:
				t.Fatal("no EINVAL, so the next test proves nothing")
			}
		}
	})

	t.Run("watch does not log it", func(t *testing.T) {
		root := t.TempDir()
		put(t, root+"/etc/live/tls.crt", "old")
		r := newRig(t, root, "/etc/live/tls.crt")
		r.watchPath()
		backlog(t, root)
		r.run()
		r.wait("the swap")
		r.settle()
		r.log.silent(t)
		put(t, root+"/etc/live/tls.crt", "newer")
		r.wait("after the swap")
	})
}

// TestOverflow: if the kernel dropped events, the watcher logs this and wakes the agent.
func TestOverflow(t *testing.T) {
	data, err := os.ReadFile("/proc/sys/fs/inotify/max_queued_events")
	must(t, err)
	most, err := strconv.Atoi(strings.TrimSpace(string(data)))
	must(t, err)
	root := t.TempDir()
	put(t, root+"/etc/tls.crt", "text")
	r := newRig(t, root, "/etc/tls.crt")
	r.watchPath()
	var files [2]*os.File
	for i := range files {
		files[i], err = os.Create(fmt.Sprintf("%s/etc/file%d", root, i))
		must(t, err)
		defer func() { _ = files[i].Close() }()
	}
	for i := range 2*most + 10_000 { // fsnotify takes some at once
		if _, err := files[i%2].WriteAt([]byte("x"), 0); err != nil {
			t.Fatal(err)
		}
	}
	r.run()
	r.wait("the queue has overflowed")
	r.settle()
	lines := r.log.lines()
	if len(lines) != 1 || !strings.Contains(lines[0], "level=WARN ") ||
		!strings.HasSuffix(lines[0], ` err="fsnotify: queue or buffer overflow"`) {
		t.Errorf("logged: %q", lines)
	}
	put(t, root+"/etc/tls.crt", "more")
	r.wait("after the overflow")
}

// message matches the message of a log line.
var message = regexp.MustCompile(`msg="[^"]*" `)

// TestNotWatchable: the watcher logs once that it cannot watch a directory, and not again
// with each scan.
func TestNotWatchable(t *testing.T) {
	root := t.TempDir()
	must(t, os.Symlink("loop", root+"/loop"))
	put(t, root+"/etc/tls.crt", "text")
	r := newRig(t, root, "/etc/tls.crt")
	directories := append(r.host.Chains()(r.at), hostfs.Directory{Path: root + "/loop"})
	if !r.Watch(directories) {
		t.Error("Watch: nothing is new, so the other directories are not watched")
	}
	for range 3 {
		if r.Watch(directories) {
			t.Error("Watch: something is new")
		}
	}
	want := []string{`level=WARN path=` + root + `/loop err="too many levels of symbolic links"`}
	var got []string
	for _, line := range r.log.lines() {
		_, line, _ = strings.Cut(line, " ") // without the time
		got = append(got, message.ReplaceAllString(line, ""))
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("logged (-want +got):\n%s", d)
	}
	r.run()
	put(t, root+"/etc/tls.crt", "more")
	r.wait("in one of the other directories")
}

// TestAnyName: in a directory that the agent lists, each name causes a wake-up, even a new one. A
// directory that is listed from now on counts as new.
func TestAnyName(t *testing.T) {
	root := t.TempDir()
	host, err := hostfs.New(root, 1, hostfs.MountInfo)
	if err != nil {
		t.Fatal(err)
	}
	w := watch.New(slog.New(slog.DiscardHandler))
	ended := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { ended <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case <-ended:
		case <-time.After(patience):
			t.Error("Run does not return after its context ended")
		}
	})
	if err := os.Mkdir(root+"/d", 0o755); err != nil {
		t.Fatal(err)
	}
	plain := host.Chains()("/d")
	anyName := slices.Clone(plain)
	anyName[len(anyName)-1].AnyName = true
	for i, step := range []struct {
		directories []hostfs.Directory
		want        bool
	}{{plain, true}, {plain, false}, {anyName, true}, {anyName, false}} {
		if got := w.Watch(step.directories); got != step.want {
			t.Errorf("step %d: something new: %t, want %t", i, got, step.want)
		}
	}
	for what, change := range map[string]func() error{
		"a new backup file": func() error { return os.WriteFile(root+"/d/x.backup", nil, 0o600) },
		"a new hidden file": func() error { return os.WriteFile(root+"/d/.x", nil, 0o600) },
	} {
		if err := change(); err != nil {
			t.Fatal(err)
		}
		select {
		case <-w.Wake():
		case <-time.After(patience):
			t.Fatalf("no wake-up: %s", what)
		}
	}
}

// TestUnrelatedNames: changes of other names cause no wake-up, however many there are.
func TestUnrelatedNames(t *testing.T) {
	root := t.TempDir()
	put(t, root+"/etc/live/tls.crt", "text")
	r := newRig(t, root, "/etc/live/tls.crt")
	r.run()
	r.settle()
	for i := range 100 {
		put(t, fmt.Sprintf("%s/etc/live/other%d", root, i), "text")
		put(t, fmt.Sprintf("%s/etc/tls.crt", root), "text")
		must(t, os.RemoveAll(root+"/live"))
		put(t, root+"/live", "text")
	}
	select {
	case <-r.Wake():
		t.Error("wake-up by names that do not matter")
	case <-time.After(silence):
	}
	put(t, root+"/etc/live/tls.crt", "more")
	r.wait("the name that matters")
}

// TestLimits: if a limit of the kernel is reached, the watcher logs this once and keeps
// trying. The limits are those of a user namespace, so the test runs itself again in one.
func TestLimits(t *testing.T) {
	const inside = "WATCH_TEST_IN_NAMESPACE"
	if os.Getenv(inside) == "" {
		again := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestLimits$", "-test.v")
		again.Env = append(os.Environ(), inside+"=1")
		again.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
		}
		out, err := again.CombinedOutput()
		if _, ran := errors.AsType[*exec.ExitError](err); err != nil && !ran && os.Getenv("CI") == "" {
			t.Skipf("user namespaces are not available: %v", err)
		}
		if err != nil || !bytes.Contains(out, []byte("--- PASS: TestLimits")) {
			t.Errorf("in a namespace: %v\n%s", err, out)
		}
		return
	}
	for limit, mentions := range map[string]string{
		"max_inotify_watches":   "fs.inotify.max_user_watches",
		"max_inotify_instances": "fs.inotify.max_user_instances",
	} {
		t.Run(limit, func(t *testing.T) {
			set := func(most string) { must(t, os.WriteFile("/proc/sys/user/"+limit, []byte(most), 0)) }
			root := t.TempDir()
			put(t, root+"/etc/live/tls.crt", "text")
			r := newRig(t, root, "/etc/live/tls.crt")
			r.run()
			set("0")
			for range 3 {
				if r.Watch(r.host.Chains()(r.at)) {
					t.Error("Watch: something is new")
				}
			}
			if errors := r.Errors(); errors < 3 {
				t.Errorf("%d errors counted", errors)
			}
			set("1000")
			if !r.watchPath() {
				t.Error("Watch: nothing is new after the limit was raised")
			}
			put(t, root+"/etc/live/tls.crt", "more")
			r.wait("after the limit was raised")
			lines := r.log.lines()
			if len(lines) != 2 || !strings.Contains(lines[0], mentions) || !strings.Contains(lines[1], "level=INFO ") {
				t.Errorf("logged: %q", lines)
			}
		})
	}
}

// TestRunEnds: Run returns when its context ends and leaves no goroutine behind. After
// that, Watch watches nothing and logs nothing.
func TestRunEnds(t *testing.T) {
	root := t.TempDir()
	put(t, root+"/etc/tls.crt", "text")
	r := newRig(t, root, "/etc/tls.crt")
	stop := r.run()
	r.settle()
	if !strings.Contains(stacks(), "fsnotify") {
		t.Error("fsnotify has no goroutine while it runs, so this test proves nothing")
	}
	put(t, root+"/etc/tls.crt", "one more event")
	stop()

	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for left := stacks(); strings.Contains(left, "fsnotify") ||
		strings.Contains(left, "watch.(*Watcher)"); left = stacks() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("goroutine left behind:\n%s", left)
		}
	}
	if r.Watch(r.host.Chains()("/")) {
		t.Error("Watch: something is new after the end")
	}
	r.log.silent(t)
}

// stacks returns the stacks of all other goroutines.
func stacks() string {
	buffer := make([]byte, 1<<20)
	all := string(buffer[:runtime.Stack(buffer, true)])
	_, others, _ := strings.Cut(all, "\n\n")
	return others
}
