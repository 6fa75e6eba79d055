// SPDX-License-Identifier: Apache-2.0

package logging_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/logging"
)

func TestColours(t *testing.T) {
	master, slave := terminal(t)
	defer func() { _, _ = master.Close(), slave.Close() }()
	file, err := os.Create(t.TempDir() + "/report")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	cases := map[string]struct {
		out         io.Writer
		environment map[string]string
		want        bool
	}{
		"a terminal":                 {slave, nil, true},
		"a terminal, NO_COLOR":       {slave, map[string]string{"NO_COLOR": "1"}, false},
		"a terminal, NO_COLOR empty": {slave, map[string]string{"NO_COLOR": ""}, true},
		"a dumb terminal":            {slave, map[string]string{"TERM": "dumb"}, false},
		"a file":                     {file, nil, false},
		"no file":                    {&bytes.Buffer{}, nil, false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if got := logging.Colours(c.out, func(name string) string { return c.environment[name] }); got != c.want {
				t.Errorf("got %v", got)
			}
		})
	}
}

// terminal is a pseudo-terminal (pty(7)).
func terminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	return master, slave
}
