#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# fsnotify: after an exchange of the parent directories, events name a file that is not there.
#
# Version:  github.com/fsnotify/fsnotify v1.10.1, golang.org/x/sys v0.49.0, Linux (inotify)
# Input:    A watch on live/certs. Then renameat2(live, next, RENAME_EXCHANGE), as a program does
#           that replaces a directory of certificates at once.
# Expected: An event, or a watch list without live/certs: it is another directory now. After
#           Add("live/certs") one watch in the kernel, as the watch list has one entry.
# Seen:         exchange:              no event; WatchList [live/certs]
#               new file live/certs/a: no event
#               new file next/certs/b: CREATE live/certs/b; does live/certs/b exist? false
#               Add("live/certs") again; WatchList [live/certs]; watches in the kernel: 2
#               new file live/certs/c: CREATE live/certs/c
#               new file next/certs/d: no event
#           inotify follows the inode and reports a move only for the renamed inode itself, not
#           for what is below it. fsnotify keeps the path that Add was given. The second Add gets
#           a new watch and forgets the first, which stays in the kernel.
# Relates:  The node agent watches certificate directories. It remembers the inode of each and
#           looks again at each tick.
# Thread:   https://github.com/fsnotify/fsnotify/issues/172 and its fix,
#           https://github.com/fsnotify/fsnotify/pull/518, treat a rename of the watched
#           directory itself. None found for its parent.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"

cat >main.go <<'GO'
package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"
)

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
}

var lines []string

func say(format string, args ...any) {
	lines = append(lines, fmt.Sprintf(format, args...))
	fmt.Println(lines[len(lines)-1])
}

// events returns what the watcher reports within half a second.
func events(w *fsnotify.Watcher) string {
	var seen []string
	for end := time.After(500 * time.Millisecond); ; {
		select {
		case e := <-w.Events:
			seen = append(seen, e.Op.String()+" "+e.Name)
		case err := <-w.Errors:
			seen = append(seen, err.Error())
		case <-end:
			if seen == nil {
				return "no event"
			}
			return strings.Join(seen, ", ")
		}
	}
}

// kernelWatches counts the inotify watches of this process.
func kernelWatches() int {
	n := 0
	files, err := filepath.Glob("/proc/self/fdinfo/*")
	must(err)
	for _, file := range files {
		if text, err := os.ReadFile(file); err == nil { // else it was the handle of this very listing
			n += bytes.Count(text, []byte("inotify wd:"))
		}
	}
	return n
}

func create(file string) { must(os.WriteFile(file, nil, 0o600)) }

func main() {
	must(os.MkdirAll("live/certs", 0o700))
	must(os.MkdirAll("next/certs", 0o700))
	w, err := fsnotify.NewWatcher()
	must(err)
	must(w.Add("live/certs"))

	must(unix.Renameat2(unix.AT_FDCWD, "live", unix.AT_FDCWD, "next", unix.RENAME_EXCHANGE))
	say("exchange:              %s; WatchList %v", events(w), w.WatchList())
	create("live/certs/a")
	say("new file live/certs/a: %s", events(w))
	create("next/certs/b")
	got := events(w)
	_, err = os.Lstat("live/certs/b")
	say("new file next/certs/b: %s; does live/certs/b exist? %t", got, err == nil)

	must(w.Add("live/certs"))
	say("Add(\"live/certs\") again; WatchList %v; watches in the kernel: %d", w.WatchList(), kernelWatches())
	create("live/certs/c")
	say("new file live/certs/c: %s", events(w))
	create("next/certs/d")
	say("new file next/certs/d: %s", events(w))

	want := `exchange:              no event; WatchList [live/certs]
new file live/certs/a: no event
new file next/certs/b: CREATE live/certs/b; does live/certs/b exist? false
Add("live/certs") again; WatchList [live/certs]; watches in the kernel: 2
new file live/certs/c: CREATE live/certs/c
new file next/certs/d: no event`
	if strings.Join(lines, "\n") != want {
		fmt.Println("The behavior changed.")
		os.Exit(1)
	}
}
GO
{ go mod init example.com/finding &&
	go get github.com/fsnotify/fsnotify@v1.10.1 golang.org/x/sys@v0.49.0 && go build -o finding .; } >install.log 2>&1 ||
	{ cat install.log >&2; exit 2; }
./finding
