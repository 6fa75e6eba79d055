// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

const (
	// portAttempts bounds the attempts to start a process on a free port: another
	// process may take the port before it is used.
	portAttempts = 5

	// probeInterval is a small part of the shortest start (etcd's 0.2 s).
	probeInterval = 25 * time.Millisecond

	// probeTimeout bounds one request of a probe.
	probeTimeout = 5 * time.Second

	// killTimeout is the time in which a process must end after SIGKILL.
	killTimeout = 10 * time.Second

	tailLines = 20
	tailBytes = 64 << 10 // read at the end of a log to find the last lines
)

// process is a running child that writes to a log.
type process struct {
	name string
	log  string
	cmd  *exec.Cmd

	ended chan struct{} // closed at its end
	err   error         // how it ended; read after ended only
}

// start must be called in the goroutine of main; see there.
func start(name, binary string, arguments []string, log string, attributes *syscall.SysProcAttr) (*process, error) {
	cmd := exec.Command(binary, arguments...) //nolint:noctx // it is stopped by stop, apiserver before etcd
	cmd.SysProcAttr = attributes
	return startCommand(name, cmd, log)
}

// startCommand is start for a command that needs more than arguments.
func startCommand(name string, cmd *exec.Cmd, log string) (*process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_TRUNC|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close() // the child has a copy
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p := &process{name: name, log: log, cmd: cmd, ended: make(chan struct{})}
	go func() {
		defer close(p.ended)
		p.err = cmd.Wait()
	}()
	return p, nil
}

// stop ends the process with SIGTERM, and with SIGKILL after the grace period.
func (p *process) stop(grace time.Duration) error {
	// An error means that the process has already ended.
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
		return nil
	case <-time.After(grace):
	}
	_ = p.cmd.Process.Kill()
	select {
	case <-p.ended:
		return nil
	case <-time.After(killTimeout):
		return fmt.Errorf("%s (process %d) is still running %s after SIGKILL", p.name, p.cmd.Process.Pid, killTimeout)
	}
}

// failure describes an unexpected end. Call it only after ended.
func (p *process) failure() error {
	how := "without an error"
	if p.err != nil {
		how = p.err.Error()
	}
	return fmt.Errorf("%s ended: %s; last lines of %s:\n%s", p.name, how, p.log, tail(p.log))
}

// tail returns the last lines of a log, or why it cannot be read.
func tail(path string) string {
	file, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	defer file.Close()
	if info, err := file.Stat(); err == nil && info.Size() > tailBytes {
		if _, err := file.Seek(-tailBytes, io.SeekEnd); err != nil {
			return err.Error()
		}
	}
	data, err := io.ReadAll(io.LimitReader(file, tailBytes))
	if err != nil {
		return err.Error()
	}
	return lastLines(string(data), tailLines)
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// probe is a URL that returns 200 when a process is ready.
type probe struct {
	client *http.Client
	url    string
	token  string
}

func (p probe) ready(ctx context.Context) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url, nil)
	if err != nil {
		return err
	}
	if p.token != "" {
		request.Header.Set("Authorization", "Bearer "+p.token)
	}
	response, err := p.client.Do(request)
	if err != nil {
		return err
	}
	response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s returned %s", p.url, response.Status)
	}
	return nil
}

// await waits until the probe succeeds, the process ends or the timeout expires.
func (p *process) await(ctx context.Context, probe probe, timeout time.Duration) error {
	bounded, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	tick := time.NewTicker(probeInterval)
	defer tick.Stop()
	var last error
	for {
		err := probe.ready(bounded)
		if err == nil {
			return nil
		}
		// An error from a canceled request is less useful than the one before it.
		if bounded.Err() == nil || last == nil {
			last = err
		}
		select {
		case <-p.ended:
			return p.failure()
		case <-tick.C:
			continue
		case <-bounded.Done():
		}
		if ctx.Err() != nil {
			return fmt.Errorf("stopped while %s was starting: %w", p.name, context.Cause(ctx))
		}
		return fmt.Errorf("%s is not ready after %s (%w); last lines of %s:\n%s", p.name, timeout, last, p.log, tail(p.log))
	}
}

// startOnFreePort starts a process on a port that the kernel chooses and waits
// until it is ready; it retries if another process has taken the port.
func startOnFreePort(ctx context.Context, name, binary, log string, timeout time.Duration,
	arguments func(port int) []string, probes func(port int) []probe,
) (*process, int, error) {
	for attempt := 1; ; attempt++ {
		port, err := freePort()
		if err != nil {
			return nil, 0, fmt.Errorf("choose a port for %s: %w", name, err)
		}
		p, err := start(name, binary, arguments(port), log, childAttributes())
		if err != nil {
			return nil, 0, err
		}
		for _, probe := range probes(port) {
			if err == nil {
				err = p.await(ctx, probe, timeout)
			}
		}
		if err == nil {
			return p, port, nil
		}
		if p.hasEnded() && attempt < portAttempts && strings.Contains(tail(log), "address already in use") {
			continue
		}
		return nil, 0, errors.Join(err, p.stop(0))
	}
}

func (p *process) hasEnded() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

func freePort() (int, error) {
	listener, err := net.Listen("tcp", address(0)) //nolint:noctx // it does not wait
	if err != nil {
		return 0, err
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port, nil
}
