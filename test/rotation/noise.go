// SPDX-License-Identifier: Apache-2.0

package rotation

import (
	"context"
	"os"
	"path/filepath"
	"time"
)

const (
	// eventsEachSecond is how often the kernel tells of what Noise does.
	eventsEachSecond = 10_000
	noiseEvery       = 10 * time.Millisecond
)

// Noise makes and removes a file in a directory over and over, of each of which
// the kernel tells once, until the context ends. It returns how often.
func Noise(ctx context.Context, directory string) (events int) {
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
		for float64(events) < eventsEachSecond*time.Since(began).Seconds() {
			if err := os.WriteFile(name, nil, 0o600); err != nil {
				return events
			}
			_ = os.Remove(name)
			events += 2
		}
	}
}
