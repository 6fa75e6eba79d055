// SPDX-License-Identifier: Apache-2.0

// Package scan takes one look at a host: which files its kube-apiserver uses,
// what is in them, what its kubelet answered, what is wrong. It keeps nothing
// between two looks.
package scan

import (
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/staticpod"
)

// Host is the file system to look at.
type Host interface {
	fs.FS
	// Owned reports whether a file belongs to root.
	Owned(info fs.FileInfo) bool
}

// Options say how to look.
type Options struct {
	// Directory with the pair, where it is not to be found out; a host path.
	Directory string
	// ClientCA is the host path of the kubelet's client CA bundle; empty for
	// that of the layout.
	ClientCA string
	// ExpiringFraction as in [check.Expectation].
	ExpiringFraction float64
}

// Snapshot is what one look saw. It is not changed afterwards.
type Snapshot struct {
	At     time.Time
	Layout staticpod.Layout
	// Findings are those that come from files.
	Findings []finding.Finding
	// Kubelet are those that come from the kubelet's answer, Waiting that it
	// has been asked and has not answered yet.
	Kubelet []finding.Finding
	Waiting bool
	// LookedFor are the reasons for which there was something to look at.
	LookedFor []finding.Reason
	// Serving is the kubelet's own certificate; nil where none was seen.
	// ServingAt says which kubelet; empty where none has answered.
	Serving   *x509.Certificate
	ServingAt finding.Location
	// Leaf is the certificate; nil where none could be read.
	Leaf *x509.Certificate
	// Sound: the pair is there and no Violation stands against it.
	Sound bool
	// Contents is the same in two snapshots if and only if all that was read
	// and answered was: what differs between their findings then comes from
	// the clock.
	Contents [sha256.Size]byte
	// NextChange is the next moment at which the findings may change by the
	// clock alone; zero where there is none.
	NextChange time.Time
}

// All are the findings of both kinds.
func (s Snapshot) All() []finding.Finding {
	return finding.Sort(slices.Concat(s.Findings, s.Kubelet))
}

// Kubelet gives what the kubelet answered last.
type Kubelet interface {
	// Answer is nil before there is one.
	Answer() *check.KubeletAnswer
}

// Scan looks at the host and at what its kubelet answered; kubelet is nil where
// none is asked. It has no error: what cannot be looked at is a finding.
func Scan(host Host, kubelet Kubelet, options Options, now time.Time) Snapshot {
	layout := staticpod.Discover(host, options.Directory)
	if options.ClientCA != "" {
		layout.ClientCA = options.ClientCA
	}
	certificate, key := configured(host, layout.Certificate), configured(host, layout.Key)
	clientCA, kubeletCA := read(host, layout.ClientCA), configured(host, layout.KubeletCA)
	files := check.NewClientFiles(certificate, key, clientCA, options.ExpiringFraction)
	fileFindings := files.Findings(now)

	snapshot := Snapshot{At: now, Layout: layout, LookedFor: files.LookedFor()}
	snapshot.Findings = append(snapshot.Findings, fileFindings...)
	if layout.Manifest != "" {
		manifest := check.Manifest{At: finding.Location(layout.Manifest), ReadErr: layout.ManifestReadErr, ParseErr: layout.ManifestParseErr}
		snapshot.Findings = append(snapshot.Findings, check.ManifestFindings(manifest, now)...)
		snapshot.LookedFor = append(snapshot.LookedFor, manifest.LookedFor()...)
	}
	if layout.ConfigAt != "" {
		configuration := configuration(layout)
		snapshot.Findings = append(snapshot.Findings, check.ConfigurationFindings(configuration, now)...)
		snapshot.LookedFor = append(snapshot.LookedFor, configuration.LookedFor()...)
	}
	snapshot.Findings = finding.Sort(snapshot.Findings)

	pair := files.Pair()
	snapshot.Leaf = pair.Leaf()
	snapshot.Sound = pair.Loads() && len(finding.OfSeverity(fileFindings, finding.Violation)) == 0
	snapshot.NextChange, _ = pair.NextChange(now)

	var answer *check.KubeletAnswer
	if kubelet != nil {
		answer = kubelet.Answer()
		snapshot.Waiting = answer == nil
	}
	if answer != nil {
		seen := check.NewKubelet(*answer, pair, kubeletCA)
		snapshot.Kubelet = seen.Findings(now)
		snapshot.LookedFor = append(snapshot.LookedFor, seen.LookedFor()...)
		if next, ok := seen.NextChange(now); ok && (snapshot.NextChange.IsZero() || next.Before(snapshot.NextChange)) {
			snapshot.NextChange = next
		}
		snapshot.ServingAt = answer.At
		if len(answer.Certificates) > 0 {
			snapshot.Serving = answer.Certificates[0]
		}
	}
	snapshot.Contents = contents(layout, answer, certificate, key, clientCA, kubeletCA)
	return snapshot
}

func configuration(layout staticpod.Layout) check.Configuration {
	c := check.Configuration{At: finding.Location(layout.ConfigAt), Config: layout.Config}
	switch {
	case errors.Is(layout.ConfigErr, fs.ErrNotExist):
		c.Missing = true
	case layout.ConfigUnread && !isNoFile(layout.ConfigErr):
		c.ReadErr = layout.ConfigErr
	default:
		c.Err = layout.ConfigErr
	}
	return c
}

// isNoFile: what is there is no file that anybody could read as a
// configuration (a FIFO, a directory, far too large), which is no trouble of
// ours as a refusal of the system or a path under no mount is.
func isNoFile(err error) bool {
	_, ofPath := errors.AsType[*fs.PathError](err)
	_, ofSystem := errors.AsType[syscall.Errno](err)
	return ofPath && !ofSystem
}

// configured reads a file that a configuration names.
func configured(host Host, file staticpod.File) check.File {
	if file.Err != nil {
		return check.File{Path: file.Configured, Err: file.Err}
	}
	return read(host, file.Host)
}

// read takes a file's facts, and its data if it is regular and not too large.
func read(host Host, hostPath string) check.File {
	facts := check.File{Path: hostPath}
	if hostPath == "" {
		return facts
	}
	file, err := host.Open(strings.TrimPrefix(hostPath, "/"))
	if err != nil {
		facts.Err = err
		return facts
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		facts.Err = err
		return facts
	}
	facts.Mode, facts.Size, facts.ForeignOwner = info.Mode(), info.Size(), !host.Owned(info)
	if !info.Mode().IsRegular() || facts.Size > check.MaxFileBytes {
		return facts
	}
	// A file may grow while it is read; one byte more than allowed shows it.
	facts.Data, facts.Err = io.ReadAll(io.LimitReader(file, check.MaxFileBytes+1))
	if int64(len(facts.Data)) > facts.Size {
		facts.Size = int64(len(facts.Data))
	}
	return facts
}

// contents sums up all that was read and answered.
func contents(layout staticpod.Layout, answer *check.KubeletAnswer, files ...check.File) (sum [sha256.Size]byte) {
	h := sha256.New()
	field(h, fmt.Sprintf("%+v", layout))
	for _, file := range files {
		field(h, fmt.Sprintf("%s %v %v %d %v", file.Path, file.Err, file.Mode, file.Size, file.ForeignOwner))
		field(h, string(file.Data))
	}
	if answer != nil {
		// Without the error's text, of which nothing hangs.
		field(h, fmt.Sprintf("%t %t %t %t %x", answer.Err != nil, answer.NotTLS, answer.AsksClients, answer.ReadOnlyOpen, answer.AcceptedCAs))
		for _, certificate := range answer.Certificates {
			field(h, string(certificate.Raw))
		}
	}
	h.Sum(sum[:0])
	return sum
}

// field adds one text, told apart from the next one by its length.
func field(h hash.Hash, text string) {
	// A hash takes everything and never fails.
	_, _ = fmt.Fprintf(h, "%d:%s", len(text), text)
}
