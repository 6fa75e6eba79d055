// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/admit"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/audit"
)

// reloadEvery is how often the configuration and the files that it names are
// read again. They come out of ConfigMaps, which the kubelet itself writes
// about once a minute.
const reloadEvery = 10 * time.Second

// reloader is the configuration that counts now. A file that cannot be read or
// used changes nothing: the last good configuration is kept.
type reloader struct {
	path    string
	guard   string // path too
	log     *slog.Logger
	current atomic.Pointer[config]
	// bundles may be nil: then none is known.
	bundles *bundles
	good    prometheus.Gauge
	// fault is the last one that was told of.
	fault string
}

// newReloader loads the configuration for the first time, which must work.
func newReloader(path, guard string, registry prometheus.Registerer, log *slog.Logger) (*reloader, error) {
	loaded, err := loadConfig(path, guard)
	if err != nil {
		return nil, err
	}
	r := &reloader{path: path, guard: guard, log: log, good: prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "kubelet_https_guard_config_last_reload_successful", Help: "1 if the configuration in its file is the one that counts, 0 if the last good one is kept.",
	})}
	registry.MustRegister(r.good)
	r.good.Set(1)
	r.take(loaded)
	return r, nil
}

// Protected are the Secrets that are protected now.
func (r *reloader) Protected() []admit.Protected { return r.current.Load().protectedNow(r.bundles) }

// OverridesAction is that of now.
func (r *reloader) OverridesAction() admit.Action { return r.current.Load().overridesAction }

// Subject is what is audited now.
func (r *reloader) Subject(guardPatience time.Duration) audit.Subject {
	return r.current.Load().subject(guardPatience)
}

// Run reloads until the context ends.
func (r *reloader) Run(ctx context.Context) error {
	if r.path == "" && r.guard == "" {
		return nil // the default does not change
	}
	ticker := time.NewTicker(reloadEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			r.reload()
		}
	}
}

func (r *reloader) reload() {
	loaded, err := loadConfig(r.path, r.guard)
	if err != nil {
		r.good.Set(0)
		if r.fault != err.Error() {
			r.fault = err.Error()
			r.log.Error("Configuration not reloaded, the last good one is kept", "err", err)
		}
		return
	}
	r.good.Set(1)
	r.fault = ""
	if loaded.digest != r.current.Load().digest {
		r.log.Info("Configuration reloaded", "path", r.path)
		r.take(loaded)
	}
}

func (r *reloader) take(loaded config) {
	r.current.Store(&loaded)
	for _, p := range loaded.protected {
		r.log.Info("Protecting", "namespace", p.Namespace, "name", p.Name)
	}
}
