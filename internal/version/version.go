// SPDX-License-Identifier: Apache-2.0

// Package version returns the version of the program.
package version

import "runtime/debug"

// String returns the module's version, or the commit of the working tree, or "devel" if the
// toolchain recorded neither.
func String() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "devel"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	revision, modified := "devel", ""
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			revision = s.Value
		case "vcs.modified":
			if s.Value == "true" {
				modified = "+modified"
			}
		}
	}
	return revision + modified
}
