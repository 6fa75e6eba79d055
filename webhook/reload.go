// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/kubeclient"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/admit"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/audit"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/prove"
)

// reloadEvery is the time between two reads of the configuration. It is a mounted ConfigMap,
// which the kubelet updates about once a minute.
const reloadEvery = 10 * time.Second

// reloader holds the current configuration. If a file cannot be read or is not valid, the last
// valid configuration is kept.
type reloader struct {
	from    source
	log     *slog.Logger
	current atomic.Pointer[config]
	// bundles is nil if no API server is configured.
	bundles *bundles
	// release is the API server's Go release; nil if no API server is configured.
	release     *kubeclient.GoRelease
	reloadValid prometheus.Gauge
	// lastError is the error of the last reload; empty if it succeeded.
	lastError string
}

// newReloader returns a reloader that begins with the configuration loaded, which was read
// from the files that it reads again.
func newReloader(from source, loaded config, registry prometheus.Registerer, log *slog.Logger) *reloader {
	r := &reloader{from: from, log: log, reloadValid: prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "kubelet_https_guard_config_last_reload_successful",
		Help: "1 if the configuration file is in use, 0 if it is not valid and the last valid configuration is in use.",
	})}
	registry.MustRegister(r.reloadValid)
	r.reloadValid.Set(1)
	r.apply(loaded)
	return r
}

// Protected returns a Secret that the current configuration protects; ok is false if it does not protect it.
func (r *reloader) Protected(namespace, name string) (p admit.ProtectedSecret, ok bool) {
	p, ok = r.current.Load().find(r.bundles, namespace, name)
	p.GoVersion = r.release.Version()
	return p, ok
}

// withGoVersion sets the API server's Go release for all Secrets.
func withGoVersion(secrets []admit.ProtectedSecret, version string) []admit.ProtectedSecret {
	for i := range secrets {
		secrets[i].GoVersion = version
	}
	return secrets
}

// OverridesAction returns the action of the current configuration.
func (r *reloader) OverridesAction() admit.Action { return r.current.Load().overridesAction }

// Subject returns what the audit checks by the current configuration.
func (r *reloader) Subject(guardPatience time.Duration) audit.Subject {
	subject := r.current.Load().subject(guardPatience)
	subject.Secrets = withGoVersion(slices.Clone(subject.Secrets), r.release.Version())
	return subject
}

// Guard returns what the dry runs test by the current configuration.
func (r *reloader) Guard() prove.Guard { return r.current.Load().refusers() }

// Run reloads until the context ends.
func (r *reloader) Run(ctx context.Context) error {
	if r.from.path == "" && r.from.guardManifest == "" {
		return nil // there is no file that can change
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
	// Parsing takes much longer than reading, and the files rarely change.
	if sum, err := r.from.digest(); err == nil && sum == r.current.Load().digest {
		r.reloadValid.Set(1)
		r.lastError = ""
		return
	}
	loaded, err := loadConfig(r.from)
	if err != nil {
		r.reloadValid.Set(0)
		if r.lastError != err.Error() {
			r.lastError = err.Error()
			r.log.Error("Configuration not reloaded, keeping the last valid one", "err", err)
		}
		return
	}
	r.reloadValid.Set(1)
	r.lastError = ""
	if loaded.digest == r.current.Load().digest {
		return
	}
	r.log.Info("Configuration reloaded", "path", r.from.path)
	r.apply(loaded)
}

// followBundles watches the CA bundles of the current configuration.
func (r *reloader) followBundles() { r.bundles.follow(r.current.Load().protected) }

// apply makes a configuration the current one.
func (r *reloader) apply(loaded config) {
	r.current.Store(&loaded)
	r.followBundles()
	for _, p := range loaded.protected {
		action := cmp.Or(p.Action, admit.Deny)
		if p.Selector != nil {
			r.log.Info("Protecting the Secrets of selected namespaces", "namespaceSelector",
				metav1.FormatLabelSelector(p.Selector), "name", p.Name, "action", action)
			continue
		}
		r.log.Info("Protecting a Secret", "namespace", p.Namespace, "name", p.Name, "action", action)
	}
}
