// SPDX-License-Identifier: Apache-2.0

// Package rotation rotates certificates in every way that OpenShift, Kubernetes and people do, and
// reads what a running agent logs about it.
package rotation

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// stopTime is how long the agent may take to exit after SIGTERM.
const stopTime = 10 * time.Second

// maxLines bounds the lines that wait to be read.
const maxLines = 100_000

// Build builds the agent as for a release, into a directory.
func Build(ctx context.Context, repository, directory string) (binary string, err error) {
	binary = filepath.Join(directory, "nodeagent")
	command := exec.CommandContext(ctx, "go", "build", "-o", binary, "./nodeagent")
	command.Dir, command.Env = repository, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := command.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the agent: %w\n%s", err, out)
	}
	return binary, nil
}

// Line is a line of the agent's log.
type Line struct {
	Time                                         time.Time
	Level, Msg, Reason, Control, SHA256, Address string
	// Text is the whole line.
	Text string `json:"-"`
}

// Agent is a running agent.
type Agent struct {
	// Lines are the lines of its log. The channel is closed after the last one.
	Lines   <-chan Line
	command *exec.Cmd
	ended   chan error
}

// Start starts the command of an agent and reads its log from standard error. The agent ends with the
// command's context at the latest.
func Start(command *exec.Cmd) (*Agent, error) {
	stderr, err := command.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := command.Start(); err != nil {
		return nil, fmt.Errorf("start the agent: %w", err)
	}
	lines := make(chan Line, maxLines)
	agent := &Agent{Lines: lines, command: command, ended: make(chan error, 1)}
	go func() {
		scanner := bufio.NewScanner(stderr)
		for scanner.Scan() {
			line := Line{Text: scanner.Text()}
			if err := json.Unmarshal(scanner.Bytes(), &line); err != nil {
				line.Level, line.Msg = "ERROR", "a line that is not JSON"
			}
			lines <- line
		}
		close(lines)
		agent.ended <- errors.Join(scanner.Err(), command.Wait())
	}()
	return agent, nil
}

// Stop sends SIGTERM, and SIGKILL after stopTime. The error is that of the process.
func (a *Agent) Stop() error {
	_ = a.command.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-a.ended:
		return err
	case <-time.After(stopTime):
		_ = a.command.Process.Kill()
		return errors.Join(fmt.Errorf("the agent did not exit within %s", stopTime), <-a.ended)
	}
}

// CPU is the CPU time that the agent has used.
func (a *Agent) CPU() (time.Duration, error) { return CPUOf(a.command.Process.Pid) }

// CPUOf is the CPU time that a process has used (the sum of the first number of schedstat,
// proc_pid_schedstat(5), over its threads).
func CPUOf(pid int) (time.Duration, error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil {
		return 0, err
	}
	var sum time.Duration
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return 0, err
		}
		first, _, _ := strings.Cut(string(data), " ")
		nanoseconds, err := strconv.ParseInt(first, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read %s: %w", file, err)
		}
		sum += time.Duration(nanoseconds)
	}
	return sum, nil
}

// Memory is a process's resident memory, in bytes.
type Memory struct {
	// Now is the current size, of which Anonymous is not backed by files; the rest are pages of the
	// program itself, which the kernel can reclaim. Most is the peak.
	Now, Anonymous, Most int64
}

// Memory is the agent's memory.
func (a *Agent) Memory() (Memory, error) { return MemoryOf(a.command.Process.Pid) }

// MemoryOf reads the memory of a process (proc_pid_status(5)).
func MemoryOf(pid int) (m Memory, err error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return m, err
	}
	for line := range strings.Lines(string(data)) {
		key, value, _ := strings.Cut(line, ":")
		kilobytes, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		switch key {
		case "VmRSS":
			m.Now = kilobytes << 10
		case "RssAnon":
			m.Anonymous = kilobytes << 10
		case "VmHWM":
			m.Most = kilobytes << 10
		}
	}
	return m, nil
}
