// SPDX-License-Identifier: Apache-2.0

// Package watch wakes the agent when something happens in directories.
//
// An event is a wake-up and never a fact: nothing of an event is looked at but
// that there was one. What is watched are directories, found anew each time by
// whoever scans, and told apart by device and inode, since OpenShift's
// cert-syncer swaps whole directories under their names (library-go
// pkg/operator/staticpod/internal/atomicdir), after which inotify is silent
// about the old name for ever.
package watch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
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
	notify *fsnotify.Watcher
	armed  map[string]hostfs.Directory
	wake   chan struct{}
	log    *slog.Logger
	// refused are the directories that cannot be watched, of which was told;
	// limited that the kernel's limit on watches was told of.
	refused map[string]bool
	limited bool
}

// New returns a watcher of nothing. It fails where the kernel gives no more
// inotify instances.
func New(log *slog.Logger) (*Watcher, error) {
	notify, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("start inotify: %w", err)
	}
	return &Watcher{
		notify: notify, armed: map[string]hostfs.Directory{}, refused: map[string]bool{}, log: log,
		// One place is enough: a wake-up during a scan is kept for after it.
		wake: make(chan struct{}, 1),
	}, nil
}

// Wake gives a value after something happened in a watched directory.
func (w *Watcher) Wake() <-chan struct{} { return w.wake }

// Run turns events into wake-ups until the context ends or inotify dies, which
// is an error. It closes the watcher.
func (w *Watcher) Run(ctx context.Context) error {
	defer func() { _ = w.notify.Close() }()
	var due <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case _, ok := <-w.notify.Events:
			if !ok {
				return errors.New("inotify stopped giving events")
			}
			if due == nil {
				due = time.After(Window)
			}
		case err, ok := <-w.notify.Errors:
			if !ok {
				return errors.New("inotify stopped giving errors")
			}
			// Events may be lost (fsnotify.ErrEventOverflow), so look again.
			// fsnotify also says "invalid argument" when a watched directory
			// was swapped away, which is the ordinary case here.
			if !errors.Is(err, syscall.EINVAL) {
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

func (w *Watcher) trigger() {
	select {
	case w.wake <- struct{}{}:
	default: // one is waiting already
	}
}

// Arm makes the watched directories those given. It reports whether any was
// not watched before, in which case something may have happened there unseen.
// A directory that cannot be watched is left to the tick.
func (w *Watcher) Arm(directories []hostfs.Directory) (changed bool) {
	wanted := make(map[string]hostfs.Directory, len(directories))
	for _, d := range directories {
		wanted[d.Path] = d
	}
	// fsnotify forgets directories that were moved or deleted.
	alive := make(map[string]bool, len(w.armed))
	for _, path := range w.notify.WatchList() {
		alive[path] = true
	}
	for path, d := range w.armed {
		if wanted[path] == d && alive[path] {
			continue
		}
		// It may be gone already, which is as good.
		_ = w.notify.Remove(path)
		delete(w.armed, path)
	}
	for path := range w.refused {
		if _, still := wanted[path]; !still {
			delete(w.refused, path)
		}
	}
	for path, d := range wanted {
		if _, ok := w.armed[path]; ok {
			continue
		}
		if err := w.notify.Add(path); err != nil {
			w.tellOnce(path, err)
			continue
		}
		w.armed[path] = d
		changed = true
	}
	return changed
}

// tellOnce says that a directory is not watched. That it is gone again, or that
// the agent is ending, is no news; that the limit is used up is, once.
func (w *Watcher) tellOnce(path string, err error) {
	switch {
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ENOTDIR), errors.Is(err, fsnotify.ErrClosed):
	case errors.Is(err, syscall.ENOSPC):
		if !w.limited {
			w.log.Warn("The kernel gives no more watches (fs.inotify.max_user_watches), scanning by the clock only", "path", path)
		}
		w.limited = true
	case !w.refused[path]:
		w.refused[path] = true
		w.log.Warn("Directory cannot be watched, scanning it by the clock only", "path", path, "err", err)
	}
}
