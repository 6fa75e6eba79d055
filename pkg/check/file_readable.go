// SPDX-License-Identifier: Apache-2.0

package check

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// fileReadable: the file can be looked at. Trouble with that may be ours alone
// (permission, SELinux, an I/O error), so that nothing is known, which is said. A
// file that is not there is the pair's own finding.
func fileReadable(f File, _ time.Time) []finding.Finding {
	if f.seen() {
		return nil
	}
	return unreadable(finding.Location(f.Path), "it", f.Err)
}

// fileRegular: the file is one that kube-apiserver could read. A directory, a
// FIFO, a socket or a device is none; a file larger than a Secret may be did
// not come out of one.
func fileRegular(f File, _ time.Time) []finding.Finding {
	location := finding.Location(f.Path)
	switch {
	case !f.Mode.IsRegular():
		return one(finding.NotRegularFile, location,
			"it is "+kindOfFile(f.Mode)+", not a regular file",
			"remove it, so that whoever writes the certificates can put the file there")
	case f.Size > MaxFileBytes:
		return one(finding.FileTooLarge, location,
			fmt.Sprintf("it has %d bytes, more than the %d that a Secret can hold", f.Size, MaxFileBytes),
			"replace it by the PEM text that belongs there")
	}
	return nil
}

// unreadable is what is said of a file that could not be looked at.
//
// ESTALE stands for a directory that the host has replaced: a mount of it goes
// on showing the old one, empty, for ever. Nothing in it says anything of the
// host, least of all that a file is missing.
func unreadable(location finding.Location, what string, err error) []finding.Finding {
	if errors.Is(err, syscall.ESTALE) {
		return one(finding.StaleMount, location,
			what+" cannot be looked at: the directory was replaced on the host, and what is mounted here is the deleted one",
			"mount a directory above it (/etc/kubernetes) and not the directory itself, and restart the Pod")
	}
	return one(finding.Unreadable, location,
		what+" cannot be read: "+oneLine(err),
		"let the agent read it (it must run as root, on OpenShift with the SELinux type spc_t), or mend the file system")
}

func kindOfFile(mode fs.FileMode) string {
	switch {
	case mode&fs.ModeDir != 0:
		return "a directory"
	case mode&fs.ModeNamedPipe != 0:
		return "a FIFO"
	case mode&fs.ModeSocket != 0:
		return "a socket"
	case mode&fs.ModeDevice != 0:
		return "a device"
	}
	return "a special file"
}
