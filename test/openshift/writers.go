// SPDX-License-Identifier: Apache-2.0

package openshift

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// WriteInPlace overwrites files, as OpenShift up to 4.7 does.
func WriteInPlace(directory string, files map[string][]byte) error {
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(directory, name), data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// WriteAtomically replaces one file after the other by a rename, as OpenShift 4.8 to 4.20 does
// (library-go pkg/operator/staticpod/file_utils.go). For a moment certificate and key do not match.
func WriteAtomically(directory string, files map[string][]byte) error {
	for name, data := range files {
		temporary, err := os.CreateTemp(directory, name+".tmp")
		if err != nil {
			return err
		}
		_, err = temporary.Write(data)
		if closed := temporary.Close(); err == nil {
			err = closed
		}
		if err != nil {
			return err
		}
		if err := os.Rename(temporary.Name(), filepath.Join(directory, name)); err != nil {
			return err
		}
	}
	return nil
}

// SwapDirectory exchanges the whole directory for a new one, as OpenShift 4.21 and later does
// (library-go pkg/operator/staticpod/internal/atomicdir/sync.go).
func SwapDirectory(directory, staging string, files map[string][]byte) error {
	if err := os.RemoveAll(staging); err != nil {
		return err
	}
	if err := os.MkdirAll(staging, 0o755); err != nil {
		return err
	}
	if err := WriteInPlace(staging, files); err != nil {
		return err
	}
	if err := os.MkdirAll(directory, 0o755); err != nil {
		return err
	}
	if err := unix.Renameat2(unix.AT_FDCWD, staging, unix.AT_FDCWD, directory, unix.RENAME_EXCHANGE); err != nil {
		return fmt.Errorf("exchange %s and %s: %w", staging, directory, err)
	}
	return os.RemoveAll(staging)
}

// Recreate removes the directory and creates it with new files.
func Recreate(directory string, files map[string][]byte) error {
	if err := os.RemoveAll(directory); err != nil {
		return err
	}
	if err := os.MkdirAll(directory, 0o755); err != nil {
		return err
	}
	return WriteInPlace(directory, files)
}
