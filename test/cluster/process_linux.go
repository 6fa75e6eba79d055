// SPDX-License-Identifier: Apache-2.0

package main

import "syscall"

// childAttributes: a separate process group protects the children from ^C in the
// terminal; they are stopped in order instead. The kernel kills them when this process
// ends, even if it is killed.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
