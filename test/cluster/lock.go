// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
)

// lockInterval is the interval for retrying a lock. flock(2) would wait without a bound
// and ignore a canceled context.
const lockInterval = 50 * time.Millisecond

// errLocked says that another process holds the lock.
var errLocked = errors.New("locked by another process")

// tryLock locks the file and creates it if necessary. The lock lasts until the returned
// file is closed or the process ends.
func tryLock(path string) (*os.File, error) {
	for {
		file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, err
		}
		if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			file.Close()
			if errors.Is(err, syscall.EWOULDBLOCK) {
				return nil, errLocked
			}
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		// Between the two steps the holder may have removed the file. The lock would then
		// be on a deleted file.
		mine, err := file.Stat()
		if err != nil {
			file.Close()
			return nil, err
		}
		current, err := os.Stat(path)
		if err == nil && os.SameFile(mine, current) {
			return file, nil
		}
		file.Close()
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
}

// waitForLock retries tryLock until the timeout. It calls waiting once if it has to wait.
func waitForLock(ctx context.Context, path string, timeout time.Duration, waiting func()) (*os.File, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("%s is %w, still after %s", path, errLocked, timeout))
	defer cancel()
	tick := time.NewTicker(lockInterval)
	defer tick.Stop()
	for waited := false; ; waited = true {
		file, err := tryLock(path)
		if !errors.Is(err, errLocked) {
			return file, err
		}
		if !waited {
			waiting()
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-tick.C:
		}
	}
}
