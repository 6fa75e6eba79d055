// SPDX-License-Identifier: Apache-2.0

// Package watch wakes the agent when something happens in directories.
//
// An event is a wake-up and never a fact: of an event nothing is looked at but
// whether it concerns a name on the way to a file that matters. What is watched
// are directories, found anew each time by whoever scans, and told apart by
// device and inode, since OpenShift's cert-syncer swaps whole directories under
// their names (library-go pkg/operator/staticpod/internal/atomicdir), after
// which inotify is silent about the old name for ever.
//
// Where the kernel gives no inotify instance, or not enough watches, the agent
// goes by its tick; the watcher says so once and goes on trying.
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

// Window is how long events are gathered before they wake the agent. It opens
// at the first event and is not prolonged by others, so that a steady stream
// of them cannot put the agent to sleep.
const Window = 30 * time.Millisecond

// Watcher watches a set of directories. [New] makes one.
type Watcher struct {
	log  *slog.Logger
	wake chan struct{}
	// notify is nil as long as the kernel gives no instance; opened hands it
	// to Run.
	notify *fsnotify.Watcher
	opened chan *fsnotify.Watcher
	armed  map[string]inode
	errors atomic.Uint64
	// refused are the directories that cannot be watched, of which was told;
	// limited that one of the kernel's limits was told of.
	refused map[string]bool
	limited bool

	mu sync.Mutex
	// names are the paths that matter: directories, and what is looked up in
	// them. Only what happens to one of them wakes.
	names map[string]bool
}

// inode tells a directory from another one at the same path.
type inode struct{ device, inode uint64 }

// New returns a watcher of nothing.
func New(log *slog.Logger) *Watcher {
	return &Watcher{
		log: log, armed: map[string]inode{}, names: map[string]bool{}, refused: map[string]bool{},
		opened: make(chan *fsnotify.Watcher, 1),
		// One place is enough: a wake-up during a scan is kept for after it.
		wake: make(chan struct{}, 1),
	}
}

// Wake gives a value after something happened to a name that matters.
func (w *Watcher) Wake() <-chan struct{} { return w.wake }

// Errors is how often something could not be watched, or events were lost.
func (w *Watcher) Errors() uint64 { return w.errors.Load() }

// Run turns events into wake-ups until the context ends or inotify dies, which
// is an error.
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

func (w *Watcher) listen(ctx context.Context, events <-chan fsnotify.Event, troubles <-chan error) error {
	var due <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case event, ok := <-events:
			if !ok {
				return errors.New("inotify stopped giving events")
			}
			if due == nil && w.matters(event.Name) {
				due = time.After(Window)
			}
		case err, ok := <-troubles:
			if !ok {
				return errors.New("inotify stopped giving errors")
			}
			// Events may be lost (fsnotify.ErrEventOverflow), so look again.
			// fsnotify also says "invalid argument" when a watched directory
			// was swapped away, which is the ordinary case here.
			if !errors.Is(err, syscall.EINVAL) {
				w.errors.Add(1)
				w.log.Warn("Watching had trouble, scanning instead", "err", err)
			}
			if due == nil {
				due = time.After(Window)
			}
		case <-due:
			due = nil
			w.trigger()
		}
	}
}

func (w *Watcher) matters(name string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.names[name]
}

func (w *Watcher) trigger() {
	select {
	case w.wake <- struct{}{}:
	default: // one is waiting already
	}
}

// Arm makes the watched directories, and the names that matter in them, those
// given. It reports whether any directory or name is new, in which case
// something may have happened there unseen. What cannot be watched is left to
// the tick.
func (w *Watcher) Arm(directories []hostfs.Directory) (changed bool) {
	if !w.open() {
		return false
	}
	wanted, names := make(map[string]inode, len(directories)), make(map[string]bool, 2*len(directories))
	for _, d := range directories {
		wanted[d.Path] = inode{d.Device, d.Inode}
		// What happens to the directory itself concerns all that is in it.
		names[d.Path], names[path.Join(d.Path, d.Name)] = true, true
	}
	w.mu.Lock()
	before := w.names
	w.names = names
	w.mu.Unlock()

	// fsnotify forgets directories that were moved or deleted.
	alive := make(map[string]bool, len(w.armed))
	for _, at := range w.notify.WatchList() {
		alive[at] = true
	}
	for at, id := range w.armed {
		if wanted[at] == id && alive[at] {
			continue
		}
		// It may be gone already, which is as good.
		_ = w.notify.Remove(at)
		delete(w.armed, at)
	}
	for at := range w.refused {
		if _, still := wanted[at]; !still {
			delete(w.refused, at)
		}
	}
	all := true
	for at, id := range wanted {
		if _, ok := w.armed[at]; ok {
			continue
		}
		if err := w.notify.Add(at); err != nil {
			all = all && !w.failed(at, err)
			continue
		}
		w.armed[at] = id
		changed = true
	}
	for _, d := range directories {
		if _, ok := w.armed[d.Path]; ok && !before[path.Join(d.Path, d.Name)] {
			changed = true
		}
	}
	if all && w.limited {
		w.limited = false
		w.log.Info("The kernel gives watches again, no longer going by the clock only")
	}
	return changed
}

// open asks the kernel for an inotify instance, if there is none yet.
func (w *Watcher) open() bool {
	if w.notify != nil {
		return true
	}
	notify, err := fsnotify.NewWatcher()
	if err != nil {
		w.errors.Add(1)
		if !w.limited {
			w.log.Warn("The kernel gives no inotify instance (fs.inotify.max_user_instances), going by the clock only", "err", err)
		}
		w.limited = true
		return false
	}
	w.notify = notify
	w.opened <- notify
	return true
}

// failed says, once, that a directory is not watched, and reports whether that
// is for want of watches. That it is gone again, or that the agent is ending,
// is no news.
func (w *Watcher) failed(at string, err error) (limit bool) {
	switch {
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ENOTDIR), errors.Is(err, fsnotify.ErrClosed):
		return false
	case errors.Is(err, syscall.ENOSPC):
		w.errors.Add(1)
		if !w.limited {
			w.log.Warn("The kernel gives no more watches (fs.inotify.max_user_watches), going by the clock only", "path", at)
		}
		w.limited = true
		return true
	}
	w.errors.Add(1)
	if !w.refused[at] {
		w.refused[at] = true
		w.log.Warn("Directory cannot be watched, going by the clock only for what is in it", "path", at, "err", err)
	}
	return false
}
