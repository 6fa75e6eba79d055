// SPDX-License-Identifier: Apache-2.0

package rotation

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/control"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// Fault is something that goes wrong on a host.
type Fault struct {
	Name string
	// Reasons that the agent must report.
	Reasons []finding.Reason
	// NotCompliant are the IDs of the controls that are not compliant then, or could not be verified.
	NotCompliant []string

	// pair returns a bad pair; any writer can write it.
	pair func(h *Host) pkitest.Pair
	// inject causes the fault without a writer; undo undoes what a writer does not.
	inject, undo func(h *Host) error
}

// Inject causes the fault. The writer writes a bad pair.
func (f Fault) Inject(h *Host, w Writer) error {
	if f.pair != nil {
		return w.Write(h, f.pair(h))
	}
	return f.inject(h)
}

// Repair repairs it, with a new pair.
func (f Fault) Repair(h *Host, w Writer, p pkitest.Pair) error {
	if f.undo != nil {
		if err := f.undo(h); err != nil {
			return err
		}
	}
	return w.Write(h, p)
}

// Faults are all faults.
func Faults() []Fault {
	now := time.Now()
	https := []string{control.UseHTTPS}
	// Without the configuration, the agent cannot know either whether it disables admission.
	all := []string{control.UseHTTPS, control.AdmissionEnabled}
	bad := func(name string, pair func(h *Host) pkitest.Pair, reasons ...finding.Reason) Fault {
		return Fault{Name: name, Reasons: reasons, NotCompliant: https, pair: pair}
	}
	removed := func(name string, path func(h *Host) string, reasons ...finding.Reason) Fault {
		return Fault{
			Name: name, Reasons: reasons, NotCompliant: https,
			inject: func(h *Host) error { return os.RemoveAll(path(h)) },
		}
	}
	stored := func(name string, path func(h *Host) string, data []byte, notCompliant []string,
		reasons ...finding.Reason) Fault {
		var before []byte
		return Fault{
			Name: name, Reasons: reasons, NotCompliant: notCompliant,
			inject: func(h *Host) (err error) {
				if before, err = os.ReadFile(path(h)); err != nil {
					return err
				}
				if data == nil {
					return os.Remove(path(h))
				}
				return os.WriteFile(path(h), data, 0o600)
			},
			undo: func(h *Host) error { return os.WriteFile(path(h), before, 0o600) },
		}
	}
	certificate := func(h *Host) string { return h.Tree.Certificate() }
	key := func(h *Host) string { return h.Tree.Key() }
	clientCA := func(h *Host) string { return filepath.Join(h.Tree.Root, "etc/kubernetes/kubelet-ca.crt") }
	other := pkitest.NewCAAround("other", now)

	return []Fault{
		removed("certificate removed", certificate, finding.CertificateMissing),
		removed("key removed", key, finding.KeyMissing),
		removed("directory removed", func(h *Host) string { return h.Tree.Directory() }, finding.CertificateMissing,
			finding.KeyMissing),
		stored("manifest removed", func(h *Host) string { return h.Tree.Manifest() }, nil, all, finding.ManifestMissing),
		stored("configuration garbage", func(h *Host) string { return h.Tree.Config() }, []byte("{"), all,
			finding.ConfigUnparsable),
		stored("client CA removed", clientCA, nil, https, finding.ClientCAUnavailable),
		bad("of a foreign CA", func(*Host) pkitest.Pair {
			return padded(other.Issue(pkitest.KubeletClient().Valid(now.Add(-time.Hour), now.AddDate(0, 0, 30))))
		}, finding.UntrustedIssuer),
		bad("expired", func(h *Host) pkitest.Pair {
			return h.Issue(pkitest.KubeletClient().Valid(now.AddDate(0, 0, -30), now.Add(-time.Hour)))
		}, finding.CertificateExpired),
		bad("of a server", func(h *Host) pkitest.Pair {
			return h.Issue(pkitest.ServingCert().Valid(now.Add(-time.Hour), now.AddDate(0, 0, 30)))
		}, finding.WrongKeyUsage, finding.UnexpectedIdentity),
		bad("key of another pair", func(h *Host) pkitest.Pair {
			pair := h.Pair()
			pair.Key = h.Pair().Key
			return pair
		}, finding.KeyMismatch),
		bad("certificate garbage", func(h *Host) pkitest.Pair {
			pair := h.Pair()
			pair.Certificate = pad([]byte("garbage"))
			return pair
		}, finding.CertificateUnparsable),
		bad("key garbage", func(h *Host) pkitest.Pair {
			pair := h.Pair()
			pair.Key = pad([]byte("garbage"))
			return pair
		}, finding.KeyUnparsable),
		bad("certificate of 2 MiB", func(h *Host) pkitest.Pair {
			pair := h.Pair()
			pair.Certificate = make([]byte, 2<<20)
			return pair
		}, finding.FileTooLarge),
		{
			Name: "key a FIFO", Reasons: []finding.Reason{finding.NotRegularFile}, NotCompliant: https,
			inject: func(h *Host) error { return errors.Join(os.Remove(key(h)), syscall.Mkfifo(key(h), 0o600)) },
			undo:   func(h *Host) error { return os.Remove(key(h)) },
		},
		{
			Name: "key for all to read", Reasons: []finding.Reason{finding.KeyFileExposed},
			inject: func(h *Host) error { return os.Chmod(key(h), 0o644) },
			undo:   func(h *Host) error { return os.Chmod(key(h), 0o600) },
		},
	}
}
