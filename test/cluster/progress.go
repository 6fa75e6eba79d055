// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"
	"time"
)

const (
	// On a terminal the line is rewritten in place, in a log each update is a new line.
	terminalInterval = time.Second
	logInterval      = 15 * time.Second
)

// state is the progress of building one command.
type state struct {
	downloaded int // modules
	compiled   int // packages; those in the go command's cache do not count
	total      int // packages, 0 while the go command lists them
	linking    bool
}

// progressLine says "at most" because the go command prints only the packages that it
// compiles, not those in its cache.
func progressLine(name string, s state, elapsed time.Duration) string {
	elapsed = elapsed.Truncate(time.Second)
	switch {
	case s.linking:
		return fmt.Sprintf("%s: linking, %s", name, elapsed)
	case s.total > 0:
		return fmt.Sprintf("%s: %d of at most %d packages compiled, %s", name, s.compiled, s.total, elapsed)
	default:
		return fmt.Sprintf("%s: %d modules downloaded, %s", name, s.downloaded, elapsed)
	}
}

// display shows the state of one build.
type display struct {
	state state

	name     string
	out      io.Writer
	terminal bool
	interval time.Duration
	start    time.Time
}

func newDisplay(out io.Writer, name string) *display {
	d := &display{name: name, out: out, interval: logInterval, start: time.Now()}
	if isTerminal(out) {
		d.terminal, d.interval = true, terminalInterval
	}
	return d
}

func (d *display) show() {
	d.erase()
	fmt.Fprint(d.out, progressLine(d.name, d.state, time.Since(d.start)))
	if !d.terminal {
		fmt.Fprintln(d.out)
	}
}

func (d *display) finish() {
	d.erase()
	fmt.Fprintf(d.out, "%s: built in %s\n", d.name, time.Since(d.start).Truncate(time.Second))
}

// erase clears the last line.
func (d *display) erase() {
	if d.terminal {
		fmt.Fprint(d.out, "\r\x1b[K")
	}
}

// isTerminal treats every character device as a terminal. That is wrong for /dev/null,
// where it does not matter.
func isTerminal(out io.Writer) bool {
	file, ok := out.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
