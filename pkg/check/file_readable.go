// SPDX-License-Identifier: Apache-2.0

package check

import (
	"errors"
	"io/fs"
	"syscall"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// NotMountedError says that no mount of the agent contains a path of the host. Whether the
// path exists on the host is not known.
type NotMountedError struct {
	// Path on the host, with symlinks resolved as far as possible.
	Path string
}

// Error returns a message with the path.
func (e *NotMountedError) Error() string { return e.Path + " is not mounted in the agent's Pod" }

// NotMounted returns true. Packages that do not import this one recognise the error by it.
func (e *NotMountedError) NotMounted() bool { return true }

// unreadable returns the result for a file that could not be read.
//
// ESTALE means that the host replaced the directory: a mount of it shows the deleted one, empty, until it is
// mounted again. So it does not show whether a file exists on the host.
func unreadable(location finding.Subject, what string, err error) []finding.Result {
	if notMounted, ok := errors.AsType[*NotMountedError](err); ok {
		return single(finding.NotMounted, location,
			"cannot check "+what+": "+oneLine(notMounted)+", so it is not known whether it exists on the host",
			"add its directory to the chart's value nodeagent.hostPaths, or run nodeagent check on the node itself")
	}
	if errors.Is(err, syscall.ESTALE) {
		return single(finding.StaleMount, location,
			"cannot check "+what+": the directory or file was replaced on the host, "+
				"and the mount in the agent's Pod shows the deleted one",
			"restart the agent's Pod; mount a parent directory (/etc/kubernetes, chart value nodeagent.hostPaths) "+
				"instead of the directory or file itself")
	}
	return single(finding.Unreadable, location, "cannot read "+what+": "+oneLine(err), repairReading(err))
}

// repairReading returns the remedy for a file that cannot be read.
func repairReading(err error) string {
	if errors.Is(err, fs.ErrPermission) {
		return "run the agent as root (on OpenShift with the SELinux type spc_t)"
	}
	return "correct the path, restore the file, or repair the file system"
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
