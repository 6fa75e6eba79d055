// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/statusserver"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/rotation"
)

// asFloor is this program's argument to run as the floor.
const asFloor = "floor"

// serveFloor runs a program that is only scraped: with the agent's metrics server, the metrics of Go
// and of the process, and the agent's runtime settings. Its CPU time is what the machine takes for
// waking a process.
func serveFloor(ctx context.Context) error {
	debug.SetGCPercent(50)
	runtime.GOMAXPROCS(1)
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	var listen net.ListenConfig
	listener, err := listen.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(listener.Addr())
	well := func(context.Context) error { return nil }
	return statusserver.Serve(ctx, listener, registry, well, well)
}

// measureFloor returns the percentage of a core that the floor uses during this time.
func measureFloor(ctx context.Context, long time.Duration) (percent float64, err error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	command := exec.CommandContext(ctx, self, asFloor)
	out, err := command.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := command.Start(); err != nil {
		return 0, err
	}
	defer func() {
		stop()
		_ = command.Wait() // it was killed
	}()
	address, _, err := bufio.NewReader(out).ReadLine()
	if err != nil {
		return 0, fmt.Errorf("start the program that is only scraped: %w", err)
	}
	return scraped(
		ctx,
		string(address),
		func() (time.Duration, error) { return rotation.CPUOf(command.Process.Pid) },
		func(ctx context.Context) error {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(long):
				return nil
			}
		},
	)
}
