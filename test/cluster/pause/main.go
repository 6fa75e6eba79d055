// SPDX-License-Identifier: Apache-2.0

// Command pause is what a pod's sandbox runs: it holds the namespaces that the
// pod's containers share, and ends when it is asked to.
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	// As process 1 of a pod that shares its process namespace it gets the
	// orphans; ignored children leave no zombies.
	signal.Ignore(syscall.SIGCHLD)
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM)
	<-stop
}
