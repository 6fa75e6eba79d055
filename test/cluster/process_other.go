// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package main

import "syscall"

// childAttributes: a separate process group protects the children from ^C in the
// terminal; they are stopped in order instead. Only Linux can end them when this process
// is killed.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
