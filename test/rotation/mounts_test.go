// SPDX-License-Identifier: Apache-2.0

package rotation_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
)

// mountsVariable has the plan of mounts. It is set for a process in its own namespaces.
const mountsVariable = "ROTATION_MOUNTS"

// mountPlan says which parts of a host the agent's Pod has.
type mountPlan struct {
	// Host is the host's tree, View the directory at which parts of it are mounted.
	Host, View string
	// First is mounted before the agent starts; Late is mounted at At when the FIFO When is written to.
	// All paths are relative.
	First, Late, At, When string
}

// applyTo makes a command, which would start the agent, do the mounts first.
func (p mountPlan) applyTo(command *exec.Cmd) error {
	plan, err := json.Marshal(p)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	command.Args = append([]string{self, command.Path}, command.Args[1:]...)
	command.Path = self
	command.Env = append(os.Environ(), mountsVariable+"="+string(plan))
	inNamespaces(command)
	return nil
}

// inNamespaces allows a command to mount.
func inNamespaces(command *exec.Cmd) {
	command.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
}

// runMounted does the mounts of the plan and runs the agent until it exits.
func runMounted(encoded string, args []string) error {
	var p mountPlan
	if err := json.Unmarshal([]byte(encoded), &p); err != nil {
		return err
	}
	if err := p.mount(p.First, p.First); err != nil {
		return err
	}
	agent := exec.Command(args[0], args[1:]...) //nolint:noctx // it ends with this program
	agent.Stdout, agent.Stderr = os.Stdout, os.Stderr
	agent.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	if err := agent.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- agent.Wait() }()
	mounted := make(chan error, 1)
	go func() {
		_, err := os.ReadFile(p.When) // waits for a writer
		mounted <- errors.Join(err, p.mount(p.Late, p.At))
	}()
	for {
		select {
		case err := <-ended:
			return err
		case err := <-mounted:
			if err != nil {
				_ = agent.Process.Kill()
				return errors.Join(err, <-ended)
			}
			mounted = nil
		case <-stop:
			if err := agent.Process.Signal(syscall.SIGTERM); err != nil {
				return err
			}
		}
	}
}

func (p mountPlan) mount(from, at string) error {
	target := filepath.Join(p.View, at)
	if err := os.MkdirAll(target, 0o755); err != nil {
		return err
	}
	if err := syscall.Mount(filepath.Join(p.Host, from), target, "", syscall.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount %s: %w", at, err)
	}
	return nil
}
