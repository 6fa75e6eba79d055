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

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/report"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/rotation"
)

// asFloor is this program's argument to be the floor.
const asFloor = "floor"

// serveFloor is a program that does nothing but be scraped: the agent's server of
// metrics, with Go's own and the process's, and its settings of the runtime. What
// it takes is what a machine asks for being woken.
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
	return report.Serve(ctx, listener, registry, well, well)
}

// measureFloor is what percentage of a core the floor takes, for so long.
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
		return 0, fmt.Errorf("start what is only scraped: %w", err)
	}
	return scraped(ctx, string(address), func() (time.Duration, error) { return rotation.CPUOf(command.Process.Pid) }, func(ctx context.Context) error {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(long):
			return nil
		}
	})
}
