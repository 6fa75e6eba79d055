// SPDX-License-Identifier: Apache-2.0

package rig

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// stopTime is how long a process may take to exit after SIGTERM.
	stopTime = time.Minute
	// pollInterval is the interval at which a log is read.
	pollInterval = 10 * time.Millisecond
	// tailBytes is how much of a log an error shows.
	tailBytes = 4 << 10
)

// processes starts processes that end with this one, unless they are detached. The kernel kills a
// child when the thread that started it ends, so one thread starts them all and lives as long as this
// process.
type processes struct {
	detach bool
	starts chan func()
	mu     sync.Mutex
	all    []*Process
}

func newProcesses(detach bool) *processes {
	p := &processes{detach: detach, starts: make(chan func())}
	go func() {
		runtime.LockOSThread()
		for start := range p.starts {
			start()
		}
	}()
	return p
}

func (p *processes) start(command *exec.Cmd) error {
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if p.detach {
		command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	}
	done := make(chan error)
	p.starts <- func() { done <- command.Start() }
	return <-done
}

// Process is a running program of the guard.
type Process struct {
	name    string
	command *exec.Cmd
	log     string
	ended   chan error // sends one value, then is closed
	offset  int64      // in the log, after the last line that Await returned
}

// PID is the number of the process.
func (p *Process) PID() int { return p.command.Process.Pid }

// launch starts a program with its log in a file.
func (p *processes) launch(log, program string, args ...string) (*Process, error) {
	file, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	before, err := file.Stat()
	if err != nil {
		return nil, err
	}
	// Stop ends the process, not the context of the caller.
	command := exec.CommandContext(context.Background(), program, args...) //nolint:forbidigo // see above
	command.Stdout, command.Stderr = file, file
	process := &Process{
		name: filepath.Base(program), command: command, log: log, ended: make(chan error, 1), offset: before.Size(),
	}
	if err := p.start(command); err != nil {
		return nil, fmt.Errorf("start %s: %w", process.name, err)
	}
	go func() {
		process.ended <- command.Wait()
		close(process.ended)
	}()
	if p.detach {
		if err := os.WriteFile(log+".pid", fmt.Append(nil, command.Process.Pid), 0o600); err != nil {
			return nil, err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all = append(p.all, process)
	return process, nil
}

// endDetached ends the process whose ID is in a file, if it still is the program that was started.
func endDetached(pidFile string) error {
	text, err := os.ReadFile(pidFile)
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(string(text))
	if err != nil {
		return fmt.Errorf("read %s: %w", pidFile, err)
	}
	// The part after a dash is what the program does: webhook-audit.
	name, _, _ := strings.Cut(strings.TrimSuffix(filepath.Base(pidFile), ".log.pid"), "-")
	program, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	if err == nil && strings.HasPrefix(filepath.Base(program), name) {
		if err := syscall.Kill(pid, syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("end %s: %w", name, err)
		}
	}
	return os.Remove(pidFile)
}

// stopAll stops all processes, the last one first.
func (p *processes) stopAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, process := range slices.Backward(p.all) {
		_ = process.Stop()
	}
	p.all = nil
}

// Stop sends SIGTERM, and SIGKILL after stopTime. The error is that of the process.
func (p *Process) Stop() error {
	_ = p.command.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-p.ended:
		return err
	case <-time.After(stopTime):
		_ = p.command.Process.Kill()
		return errors.Join(fmt.Errorf("%s did not exit within %s", p.name, stopTime), <-p.ended)
	}
}

// Line is a line of a log.
type Line map[string]any

// Text is a value of the line as text.
func (l Line) Text(key string) string {
	value, _ := l[key].(string)
	return value
}

// Await waits for the next line of the log that matches, after the last line that it returned.
func (p *Process) Await(ctx context.Context, what string, match func(Line) bool) (Line, error) {
	for {
		data, err := os.ReadFile(p.log)
		if err != nil {
			return nil, err
		}
		data = data[p.offset:]
		for {
			text, rest, whole := bytes.Cut(data, []byte("\n"))
			if !whole {
				break
			}
			data = rest
			p.offset += int64(len(text)) + 1
			var line Line
			if json.Unmarshal(text, &line) == nil && match(line) {
				return line, nil
			}
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting until %s logs %s: %w\nIts log ends with:\n%s", p.name, what, ctx.Err(),
				p.tail())
		case err := <-p.ended:
			return nil, fmt.Errorf("%s exited: %w\nIts log ends with:\n%s", p.name, errors.Join(err,
				errors.New("while waiting until it logs "+what)), p.tail())
		case <-time.After(pollInterval):
		}
	}
}

// tail is the end of the log.
func (p *Process) tail() string {
	data, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(data[max(0, len(data)-tailBytes):])
}
