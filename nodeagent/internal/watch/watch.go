// SPDX-License-Identifier: Apache-2.0

// Package watch wakes the agent when something changes in directories.
//
// An event only wakes the agent; it is never a result. The watcher checks one thing: does
// the event concern a name on the path to a file that matters, or any name in a directory
// that the agent lists?
//
// The watcher watches directories. Each scan names them again, and the watcher identifies
// them by device and inode: OpenShift's cert-syncer swaps directories in place
// (library-go pkg/operator/staticpod/internal/atomicdir), and after that inotify reports
// no more events for the path.
//
// If the kernel provides no inotify instance or not enough watches, the agent falls back
// to polling. The watcher logs this once and keeps trying.
package watch

import (
	"context"
	"errors"
	"log/slog"
	"path"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/kubelet-https-guard/kubelet-https-guard/nodeagent/internal/hostfs"
)

// The first event after a quiet time wakes the agent at once, and so do a few after it: a writer replaces one file
// after the other, and the agent may have read only some of them. A steady stream of events wakes it once in each
// Window.
const (
	// Window is the time for one wake-up: in any period, there are at most Burst wake-ups and one more for each Window.
	Window = 30 * time.Millisecond
	Burst  = 5
	// pause is the least time between two wake-ups. Events in it cause one.
	pause = 2 * time.Millisecond
)

// Watcher watches a set of directories. [New] makes one.
type Watcher struct {
	log  *slog.Logger
	wake chan struct{}
	// notify is nil until the kernel provides an inotify instance. opened passes it to
	// Run.
	notify  *fsnotify.Watcher
	opened  chan *fsnotify.Watcher
	watched map[string]inode
	errors  atomic.Uint64
	// unwatchable are the directories that cannot be watched and for which this was
	// logged.
	unwatchable map[string]bool
	// limited is true while a limit of the kernel prevents watches. It was logged.
	limited bool

	mu sync.Mutex
	// names are the paths that matter: directories, and the names that are looked up in
	// them. An event wakes the agent only if it concerns one of them, or any name in a
	// directory of anyName.
	names, anyName map[string]bool
}

// inode identifies a directory. Another directory at the same path has another inode.
type inode struct{ device, inode uint64 }

// New returns a watcher that watches nothing yet.
func New(log *slog.Logger) *Watcher {
	return &Watcher{
		log: log, watched: map[string]inode{}, names: map[string]bool{}, unwatchable: map[string]bool{},
		opened: make(chan *fsnotify.Watcher, 1), wake: make(chan struct{}),
	}
}

// Wake receives a value after an event for a name that matters. While nobody receives it, the wake-up is kept, and
// later events add no other one.
func (w *Watcher) Wake() <-chan struct{} { return w.wake }

// Errors counts how often a directory could not be watched, or events were lost.
func (w *Watcher) Errors() uint64 { return w.errors.Load() }

// Run turns events into wake-ups until the context ends. It returns an error if inotify
// stops.
func (w *Watcher) Run(ctx context.Context) error {
	var notify *fsnotify.Watcher
	select {
	case notify = <-w.opened:
	case <-ctx.Done():
		select {
		case notify = <-w.opened: // it must be closed
		default:
			return nil
		}
	}
	defer func() { _ = notify.Close() }()
	return w.listen(ctx, notify.Events, notify.Errors)
}

func (w *Watcher) listen(ctx context.Context, events <-chan fsnotify.Event, failures <-chan error) error {
	var pace pace
	var due <-chan time.Time // nil, or fires when the next wake-up may come
	var wake chan<- struct{} // nil, or takes it
	for {
		idle := due == nil && wake == nil
		select {
		case <-ctx.Done():
			return nil
		case event, ok := <-events:
			if !ok {
				return errors.New("inotify stopped: its channel of events is closed")
			}
			if idle && w.matters(event.Name) {
				due = time.After(time.Until(pace.next()))
			}
		case err, ok := <-failures:
			if !ok {
				return errors.New("inotify stopped: its channel of errors is closed")
			}
			// Events may be lost (fsnotify.ErrEventOverflow), so scan again.
			// fsnotify also returns "invalid argument" after a swap of a watched
			// directory, which is normal here.
			if !errors.Is(err, syscall.EINVAL) {
				w.errors.Add(1)
				w.log.Warn("Watching files failed, scanning now", "err", err)
			}
			if idle {
				due = time.After(time.Until(pace.next()))
			}
		case <-due:
			due, wake = nil, w.wake
		case wake <- struct{}{}:
			wake = nil
			pace.woke(time.Now())
		}
	}
}

// pace limits wake-ups. The zero value has had none.
type pace struct {
	last time.Time
	// end is when the wake-ups so far would have ended with one in each Window.
	end time.Time
}

// next returns the earliest time of the next wake-up. It may be in the past.
func (p *pace) next() time.Time {
	return latest(p.last.Add(pause), p.end.Add(-(Burst-1)*Window))
}

func (p *pace) woke(now time.Time) {
	p.last, p.end = now, latest(p.end, now).Add(Window)
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func (w *Watcher) matters(name string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.names[name] || w.anyName[path.Dir(name)]
}

// Watch replaces the watched directories, and the names that matter in them. It reports
// whether any directory or name is new: then something may have changed there before it
// was watched. The agent polls what cannot be watched.
func (w *Watcher) Watch(directories []hostfs.Directory) (changed bool) {
	if !w.open() {
		return false
	}
	wanted := make(map[string]inode, len(directories))
	names, anyName := make(map[string]bool, 2*len(directories)), map[string]bool{}
	for _, d := range directories {
		wanted[d.Path] = inode{d.Device, d.Inode}
		// A change of the directory itself concerns everything in it.
		names[d.Path], names[path.Join(d.Path, d.Name)] = true, true
		if d.AnyName {
			anyName[d.Path] = true
		}
	}
	w.mu.Lock()
	before, anyNameBefore := w.names, w.anyName
	w.names, w.anyName = names, anyName
	w.mu.Unlock()

	// fsnotify forgets directories that were moved or deleted.
	alive := make(map[string]bool, len(w.watched))
	for _, at := range w.notify.WatchList() {
		alive[at] = true
	}
	for at, id := range w.watched {
		if wanted[at] == id && alive[at] {
			continue
		}
		// An error is harmless: the watch may be gone already.
		_ = w.notify.Remove(at)
		delete(w.watched, at)
	}
	for at := range w.unwatchable {
		if _, still := wanted[at]; !still {
			delete(w.unwatchable, at)
		}
	}
	all := true
	for at, id := range wanted {
		if _, ok := w.watched[at]; ok {
			continue
		}
		if err := w.notify.Add(at); err != nil {
			all = all && !w.failed(at, err)
			continue
		}
		w.watched[at] = id
		changed = true
	}
	for _, d := range directories {
		isNew := !before[path.Join(d.Path, d.Name)] || d.AnyName && !anyNameBefore[d.Path]
		if _, ok := w.watched[d.Path]; ok && isNew {
			changed = true
		}
	}
	if all && w.limited {
		w.limited = false
		w.log.Info("Watching files again; polling continues as a fallback")
	}
	return changed
}

// open creates the inotify instance if it does not exist yet.
func (w *Watcher) open() bool {
	if w.notify != nil {
		return true
	}
	notify, err := fsnotify.NewWatcher()
	if err != nil {
		w.errors.Add(1)
		if !w.limited {
			w.log.Warn("Cannot create an inotify instance (limit: fs.inotify.max_user_instances), falling back to polling",
				"err", err)
		}
		w.limited = true
		return false
	}
	w.notify = notify
	w.opened <- notify
	return true
}

// failed logs, once, that a directory is not watched, and reports whether the kernel's
// limit on watches is the cause. It logs nothing if the directory is gone again or the
// agent is stopping.
func (w *Watcher) failed(at string, err error) (limit bool) {
	switch {
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ENOTDIR), errors.Is(err, fsnotify.ErrClosed):
		return false
	case errors.Is(err, syscall.ENOSPC):
		w.errors.Add(1)
		if !w.limited {
			w.log.Warn("Cannot watch more directories (limit: fs.inotify.max_user_watches), falling back to polling",
				"path", at)
		}
		w.limited = true
		return true
	}
	w.errors.Add(1)
	if !w.unwatchable[at] {
		w.unwatchable[at] = true
		w.log.Warn("Cannot watch directory, falling back to polling for it", "path", at, "err", err)
	}
	return false
}
