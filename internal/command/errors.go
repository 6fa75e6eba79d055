// SPDX-License-Identifier: Apache-2.0

package command

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// usageError is an error in the command line.
type usageError struct {
	err error
	// hint is true if the command's help shows the valid usage.
	hint bool
}

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// Usagef returns an error that ends the command with [ExitUsage]. Its text is one line
// that names the flag.
func Usagef(format string, arguments ...any) error {
	return &usageError{err: fmt.Errorf(format, arguments...)}
}

// hintf is like Usagef. The program adds how to get help.
func hintf(format string, arguments ...any) error {
	return &usageError{err: fmt.Errorf(format, arguments...), hint: true}
}

// IsUsage reports whether an error ends the command with [ExitUsage].
func IsUsage(err error) bool {
	_, is := errors.AsType[*usageError](err)
	return is
}

// FileError returns a usage error for the file that a flag names, such as "--config /x: no such
// file". It keeps only the cause of a file system error.
func FileError(flag, path string, err error) error {
	return Usagef("%s %s: %w", flag, path, cause(err, "no such file"))
}

// FileInError is [FileError] for a file in the directory that a flag names, such as
// "--cert-dir /x: tls.crt: no such file".
func FileInError(flag, directory, name string, err error) error {
	return Usagef("%s %s: %s: %w", flag, directory, name, cause(err, "no such file"))
}

// CheckDirectory returns a usage error unless a flag names a directory; stat is [os.Stat].
func CheckDirectory(flag, path string, stat func(string) (fs.FileInfo, error)) error {
	if path == "" {
		return Usagef("%s is empty: it must name a directory", flag)
	}
	info, err := stat(path)
	switch {
	case err != nil:
		return Usagef("%s %s: %w", flag, path, cause(err, "no such directory"))
	case !info.IsDir():
		return Usagef("%s %s: not a directory", flag, path)
	}
	return nil
}

// CheckDuration returns a usage error unless a flag's value is within its bounds, inclusive.
func CheckDuration(flag string, value, lowest, highest time.Duration) error {
	if value < lowest || value > highest {
		return Usagef("%s %s: must be between %s and %s", flag, Duration(value), Duration(lowest), Duration(highest))
	}
	return nil
}

// Duration formats a duration without zero units: "24h" and "10m", where the String method of
// [time.Duration] returns "24h0m0s" and "10m0s". [time.ParseDuration] reads both.
func Duration(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// CheckBindAddress returns a usage error unless a flag's value is an address to listen on:
// HOST:PORT or :PORT, with a port from 0 to 65535.
func CheckBindAddress(flag, value string) error {
	_, port, err := net.SplitHostPort(value)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return Usagef("%s %q: must be HOST:PORT or :PORT, with a port from 0 to 65535", flag, value)
	}
	return nil
}

// ListenError returns the error of listening on a flag's address, such as "--bind-address :9443:
// address already in use". It is not a usage error, because the address may be free later.
func ListenError(flag, address string, err error) error {
	return fmt.Errorf("%s %s: %w", flag, address, cause(err, "no such host"))
}

// cause returns the cause of an error without the operation and the path or address, which the
// message has already.
func cause(err error, missing string) error {
	if errors.Is(err, fs.ErrNotExist) {
		return errors.New(missing)
	}
	if errno, is := errors.AsType[syscall.Errno](err); is {
		if errno == syscall.EISDIR {
			return errors.New("is a directory, not a file")
		}
		return errno
	}
	if path, is := errors.AsType[*fs.PathError](err); is {
		return path.Err
	}
	return err
}
