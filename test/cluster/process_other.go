// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package main

import "syscall"

// childAttributes: a group of their own keeps the terminal's ^C from the
// children, which are stopped in order instead. Nothing here ends them when
// this process is killed: only Linux has a signal for that.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
