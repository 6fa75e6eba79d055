// SPDX-License-Identifier: Apache-2.0

package main

import "syscall"

// childAttributes: a group of their own keeps the terminal's ^C from the
// children, which are stopped in order instead; and the kernel kills them when
// this process is gone, even if it was killed itself.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
