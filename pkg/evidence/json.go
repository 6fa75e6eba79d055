// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pki"
)

// Version and kind of the JSON documents. Within a version fields are added,
// never taken away or given another meaning.
const (
	APIVersion = "evidence.kubelet-https-guard.io/v1"
	Kind       = "Evidence"
)

// document is docs/evidence.schema.json. Lists are never null.
type document struct {
	APIVersion   string            `json:"apiVersion"`
	Kind         string            `json:"kind"`
	GeneratedAt  time.Time         `json:"generatedAt"`
	Generator    generator         `json:"generator"`
	Subject      subject           `json:"subject"`
	Control      control           `json:"control"`
	Verdict      string            `json:"verdict"`
	FoundBy      string            `json:"foundBy,omitempty"`
	Revision     string            `json:"revision,omitempty"`
	Examined     []Examined        `json:"examined"`
	Certificates []certificate     `json:"certificates"`
	Checked      []checked         `json:"checked"`
	Findings     []findingDocument `json:"findings"`
}

type generator struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

type subject struct {
	Kind string `json:"kind"`
	Name string `json:"name"`
}

type control struct {
	Title string   `json:"title"`
	IDs   []string `json:"ids"`
}

type certificate struct {
	Examined
	Subject   string    `json:"subject"`
	Issuer    string    `json:"issuer"`
	Serial    string    `json:"serial"`
	NotBefore time.Time `json:"notBefore"`
	NotAfter  time.Time `json:"notAfter"`
	SHA256    string    `json:"sha256"`
}

type checked struct {
	Reason   finding.Reason `json:"reason"`
	Severity string         `json:"severity"`
}

type findingDocument struct {
	checked
	Location finding.Location `json:"location"`
	Message  string           `json:"message"`
	Remedy   string           `json:"remedy"`
	HelpURI  string           `json:"helpURI"`
}

func writeJSON(w io.Writer, d Document) error {
	out := document{
		APIVersion: APIVersion, Kind: Kind, GeneratedAt: d.At.UTC(),
		Generator: generator{d.Generator, d.Version}, Subject: subject{d.Kind, d.Name},
		Control: control{finding.ControlTitle, finding.Controls()},
		Verdict: verdict(d), FoundBy: d.FoundBy, Revision: d.Revision,
		Examined: append([]Examined{}, d.Examined...), Certificates: []certificate{}, Checked: []checked{}, Findings: []findingDocument{},
	}
	for _, c := range d.Certificates {
		out.Certificates = append(out.Certificates, certificate{
			Examined: Examined{c.Role, c.Location},
			Subject:  c.X509.Subject.String(), Issuer: c.X509.Issuer.String(),
			Serial: fmt.Sprintf("%x", c.X509.SerialNumber), NotBefore: c.X509.NotBefore.UTC(), NotAfter: c.X509.NotAfter.UTC(),
			SHA256: pki.Fingerprint(c.X509),
		})
	}
	for _, reason := range d.Checked {
		out.Checked = append(out.Checked, checked{reason, reason.Severity().String()})
	}
	for _, f := range d.Findings {
		out.Findings = append(out.Findings, findingDocument{
			checked:  checked{f.Reason, f.Severity().String()},
			Location: f.Location, Message: f.Message, Remedy: f.Remedy, HelpURI: f.Reason.HelpURI(),
		})
	}
	return encodeJSON(w, out)
}

// verdict is one word, for programs.
func verdict(d Document) string {
	switch finding.VerdictOf(d.Findings) {
	case finding.Compliant:
		return "Compliant"
	case finding.NotCompliant:
		return "NotCompliant"
	case finding.CouldNotVerify:
		return "CouldNotVerify"
	}
	return "CouldNotVerify"
}

func encodeJSON(w io.Writer, value any) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(value)
}
