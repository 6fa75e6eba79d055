// SPDX-License-Identifier: Apache-2.0

// Package vitals measures what must not grow forever in a running process: memory, goroutines and file
// descriptors.
package vitals

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/test/rotation"
)

// readTime bounds one request for metrics.
const readTime = 5 * time.Second

// Process is a process to measure.
type Process struct {
	PID int
	// Metrics is the address at which it serves metrics and health.
	Metrics string
}

// Vitals are the values at one time.
type Vitals struct {
	// RSS is the resident memory in bytes, MostRSS its peak.
	RSS, MostRSS int64
	// Goroutines is the number that the process reports, Descriptors the number of files in its
	// /proc/PID/fd.
	Goroutines, Descriptors int
}

func (v Vitals) String() string {
	return fmt.Sprintf("%.1f MiB (at most %.1f), %d goroutines, %d descriptors", mebibytes(v.RSS), mebibytes(v.MostRSS),
		v.Goroutines, v.Descriptors)
}

func mebibytes(bytes int64) float64 { return float64(bytes) / (1 << 20) }

// Vitals reads the values.
func (p Process) Vitals(ctx context.Context) (v Vitals, err error) {
	memory, err := rotation.MemoryOf(p.PID)
	if err != nil {
		return v, err
	}
	v.RSS, v.MostRSS = memory.Now, memory.Most
	if v.Descriptors, err = p.Descriptors(); err != nil {
		return v, err
	}
	metrics, err := p.Read(ctx)
	if err != nil {
		return v, err
	}
	goroutines, known := metrics["go_goroutines"]
	if !known {
		return v, fmt.Errorf("process %d has no metric go_goroutines", p.PID)
	}
	v.Goroutines = int(goroutines)
	return v, nil
}

// Descriptors counts open files, without a request to the process.
func (p Process) Descriptors() (int, error) {
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.PID))
	return len(open), err
}

// Metrics are values by series, as in Prometheus: name{labels}.
type Metrics map[string]float64

// Sum is the sum of all series with this name and these labels.
func (m Metrics) Sum(name string, labels ...string) (sum float64) {
	for series, value := range m {
		if series != name && !strings.HasPrefix(series, name+"{") {
			continue
		}
		all := true
		for _, label := range labels {
			all = all && strings.Contains(series, label)
		}
		if all {
			sum += value
		}
	}
	return sum
}

// Read reads the process's metrics. It keeps no connection.
func (p Process) Read(ctx context.Context) (Metrics, error) {
	metrics := Metrics{}
	err := p.get(ctx, "/metrics", func(response *http.Response) error {
		if response.StatusCode != http.StatusOK {
			return errors.New(response.Status)
		}
		lines := bufio.NewScanner(response.Body)
		for lines.Scan() {
			series, text, ok := cutLast(lines.Text(), " ")
			if value, err := strconv.ParseFloat(text, 64); ok && err == nil {
				metrics[series] = value
			}
		}
		return lines.Err()
	})
	return metrics, err
}

// Status is the status code of the response to a path, such as /readyz.
func (p Process) Status(ctx context.Context, path string) (code int, err error) {
	err = p.get(ctx, path, func(response *http.Response) error {
		code = response.StatusCode
		return nil
	})
	return code, err
}

func (p Process) get(ctx context.Context, path string, read func(*http.Response) error) error {
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.Metrics+path, nil)
	if err != nil {
		return err
	}
	request.Close = true
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("process %d: %w", p.PID, err)
	}
	defer func() { _ = response.Body.Close() }()
	if err := read(response); err != nil {
		return fmt.Errorf("process %d, %s: %w", p.PID, path, err)
	}
	return nil
}

func cutLast(text, separator string) (before, after string, found bool) {
	if i := strings.LastIndex(text, separator); i >= 0 {
		return text[:i], text[i+len(separator):], true
	}
	return text, "", false
}
