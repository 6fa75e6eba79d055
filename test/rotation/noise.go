// SPDX-License-Identifier: Apache-2.0

package rotation

import (
	"context"
	"os"
	"path/filepath"
	"time"
)

const noiseEvery = 10 * time.Millisecond

// Noise creates and removes a file in a directory until the context ends, which causes this many
// inotify events a second. It returns the number of events.
func Noise(ctx context.Context, directory string, eachSecond int) (events int) {
	ticker := time.NewTicker(noiseEvery)
	defer ticker.Stop()
	name := filepath.Join(directory, "unrelated")
	began := time.Now()
	for {
		select {
		case <-ctx.Done():
			return events
		case <-ticker.C:
		}
		for float64(events) < float64(eachSecond)*time.Since(began).Seconds() {
			if err := os.WriteFile(name, nil, 0o600); err != nil {
				return events
			}
			_ = os.Remove(name)
			events += 2
		}
	}
}
