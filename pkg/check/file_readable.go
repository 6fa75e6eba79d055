// SPDX-License-Identifier: Apache-2.0

package check

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// fileReadable: the file is one that kube-apiserver could read. A directory, a
// FIFO, a socket or a device is none; a file larger than a Secret may be did
// not come out of one. A file that is not there is the pair's own finding. Any
// other trouble may be ours alone (permission, SELinux, an I/O error), so that
// nothing is known, which is said.
func fileReadable(f File, _ time.Time) []finding.Finding {
	location := finding.Location(f.Path)
	switch {
	case f.Path == "" || errors.Is(f.Err, fs.ErrNotExist):
		return nil
	case f.Err != nil:
		return one(finding.Unreadable, location,
			"it cannot be read: "+oneLine(f.Err),
			"let the agent read it (it must run as root, on OpenShift with the SELinux type spc_t), or mend the file system")
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
