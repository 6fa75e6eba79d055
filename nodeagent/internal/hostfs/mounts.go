// SPDX-License-Identifier: Apache-2.0

package hostfs

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
)

// mounts knows which paths below a root belong to the host.
//
// The rule: if the root is "/" or a mount itself (the host's root as a hostPath), all of it
// belongs to the host. If there are mounts below the root, as in the Pod of the chart, only
// these belong to the host, and the rest belongs to the container. If nothing is mounted at
// or below the root, it is a copy of a host's files, and all of it counts. A Pod cannot be
// in this state: the image is built from scratch and has no directory for the root, so the
// agent does not start.
type mounts struct {
	// root is the real path of the root.
	root string
	// whole is true if all of the root belongs to the host.
	whole bool
	// points are the mounts below the root, as host paths.
	points []mountPoint
}

type mountPoint struct {
	path string
	// deleted is true if the host has removed or replaced what is mounted, so it has no
	// name on its file system any more.
	deleted bool
}

// problem returns why a path without symlinks is not the host's; nil if it is.
func (m mounts) problem(hostPath string) error {
	if m.whole {
		return nil
	}
	deepest := mountPoint{}
	for _, point := range m.points {
		if within(hostPath, point.path) && len(point.path) >= len(deepest.path) {
			deepest = point // of two mounts at one path, the later one hides the other
		}
	}
	switch {
	case deepest.path == "":
		return &check.NotMountedError{Path: hostPath}
	case deepest.deleted:
		return syscall.ESTALE
	}
	return nil
}

// hostPath converts a real path of this process to a path of the host.
func (m mounts) hostPath(at string) string {
	// The kernel adds this to a path without a name; the mount says that it is deleted.
	at = strings.TrimSuffix(at, " (deleted)")
	if !within(at, m.root) {
		return at // not below the root
	}
	return path.Join("/", strings.TrimPrefix(at, m.root))
}

// within reports whether a clean path is the directory or below it.
func within(p, directory string) bool {
	return p == directory || strings.HasPrefix(p, strings.TrimSuffix(directory, "/")+"/")
}

const (
	// maxMountInfoBytes bounds the table of mounts. A Pod's table has about 10 KiB.
	maxMountInfoBytes = 8 << 20
	// maxMountInfoLine bounds a line of the table. A line has two paths and the options
	// of an overlay.
	maxMountInfoLine = 256 << 10
	// maxMountPoints bounds the mounts below the root.
	maxMountPoints = 10_000
)

// readMounts reads the table, unless the root is "/". No error wraps fs.ErrNotExist:
// callers would conclude that the host does not have a file.
func readMounts(root, mountinfo string) (mounts, error) {
	at, err := filepath.EvalSymlinks(root)
	if err == nil {
		at, err = filepath.Abs(at)
	}
	if err != nil {
		return mounts{}, fmt.Errorf("find the host's root: %v", err) //nolint:errorlint // see above
	}
	if at == "/" {
		return mounts{root: at, whole: true}, nil
	}
	file, err := os.Open(mountinfo)
	if err != nil {
		return mounts{}, fmt.Errorf("read the table of mounts: %v", err) //nolint:errorlint // see above
	}
	defer func() { _ = file.Close() }()
	m, err := parseMounts(file, at)
	if err != nil {
		return mounts{}, fmt.Errorf("read the table of mounts: %w", err)
	}
	return m, nil
}

// parseMounts returns the mounts at and below a root from a table. The root is a real path.
func parseMounts(table io.Reader, root string) (mounts, error) {
	m := mounts{root: root}
	limited := &io.LimitedReader{R: table, N: maxMountInfoBytes + 1}
	lines := bufio.NewScanner(limited)
	lines.Buffer(nil, maxMountInfoLine)
	for lines.Scan() {
		// proc_pid_mountinfo(5): ID, parent, device, root in the file system, mount
		// point, …
		fields := strings.Split(lines.Text(), " ")
		if len(fields) < 5 {
			return mounts{}, fmt.Errorf("a line has %d fields, expected at least 5", len(fields))
		}
		source, at := unescape(fields[3]), unescape(fields[4])
		switch {
		case at == root:
			m.whole = true
		case within(at, root):
			if len(m.points) == maxMountPoints {
				return mounts{}, fmt.Errorf("more than %d mounts below %s", maxMountPoints, root)
			}
			m.points = append(m.points, mountPoint{m.hostPath(at), strings.HasSuffix(source, "//deleted")})
		}
	}
	if err := lines.Err(); errors.Is(err, bufio.ErrTooLong) {
		return mounts{}, fmt.Errorf("a line is longer than %d bytes", maxMountInfoLine)
	} else if err != nil {
		return mounts{}, err
	}
	if limited.N == 0 {
		return mounts{}, fmt.Errorf("the table is larger than %d bytes", maxMountInfoBytes)
	}
	m.whole = m.whole || len(m.points) == 0
	return m, nil
}

// unescape decodes the kernel's octal escapes: it writes a backslash, a space, a tab, a
// newline and "#" as \134, \040, \011, \012 and \043 (fs/proc_namespace.c, mangle).
func unescape(field string) string {
	var text strings.Builder
	for i := 0; i < len(field); i++ {
		if digits := field[i:min(i+4, len(field))]; len(digits) == 4 && digits[0] == '\\' && isOctal(digits[1:]) {
			text.WriteByte((digits[1]-'0')<<6 | (digits[2]-'0')<<3 | (digits[3] - '0'))
			i += 3
			continue
		}
		text.WriteByte(field[i])
	}
	return text.String()
}

// isOctal reports whether three digits are the octal form of one byte.
func isOctal(digits string) bool {
	return digits[0] >= '0' && digits[0] <= '3' && digits[1] >= '0' && digits[1] <= '7' && digits[2] >= '0' &&
		digits[2] <= '7'
}
