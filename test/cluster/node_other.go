// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package main

import (
	"context"
	"errors"
	"io"
)

var errNoLinux = errors.New("a node needs Linux")

func ensureNode(context.Context, io.Writer) (string, error)         { return "", errNoLinux }
func serveNode(context.Context, string, io.Writer, io.Writer) error { return errNoLinux }
func nodeInit(context.Context, string, string) error                { return errNoLinux }
func nodeRun(context.Context, string, string) error                 { return errNoLinux }
func removeCgroups(context.Context, string) error                   { return nil }
