// SPDX-License-Identifier: Apache-2.0

package logging

import (
	"io"

	"golang.org/x/term"
)

// Colours reports whether output to out may have colours: it is a terminal, not a dumb one,
// and NO_COLOR is not set (no-color.org).
func Colours(out io.Writer, getenv func(string) string) bool {
	file, isFile := out.(interface{ Fd() uintptr })
	return isFile && getenv("NO_COLOR") == "" && getenv("TERM") != "dumb" && term.IsTerminal(int(file.Fd()))
}
