// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/control"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pki"
)

// Version and kind of the JSON documents. Within a version, fields may be added, but not be
// removed or change their meaning.
const (
	APIVersion = "evidence.kubelet-https-guard.io/v1"
	Kind       = "Evidence"
)

// jsonDocument is docs/evidence.schema.json. Lists are never null.
type (
	jsonDocument struct {
		APIVersion   string            `json:"apiVersion"`
		Kind         string            `json:"kind"`
		GeneratedAt  time.Time         `json:"generatedAt"`
		Generator    jsonGenerator     `json:"generator"`
		Subject      jsonSubject       `json:"subject"`
		Control      jsonTitle         `json:"control"`
		Verdict      string            `json:"verdict"`
		FoundBy      string            `json:"foundBy,omitempty"`
		Revision     string            `json:"revision,omitempty"`
		Examined     []jsonExamined    `json:"examined"`
		Certificates []jsonCertificate `json:"certificates"`
		Checked      []jsonChecked     `json:"checked"`
		Findings     []jsonFinding     `json:"findings"`
		Controls     []jsonControl     `json:"controls"`
		Results      []jsonResult      `json:"results"`
		// Not in documents of a node, and only if it was asked for.
		WhoCanDisable *jsonWhoCanDisable `json:"whoCanDisable,omitempty"`
	}
	jsonWhoCanDisable struct {
		Unknown string       `json:"unknown,omitempty"`
		Actions []jsonAction `json:"actions"`
	}
	jsonAction struct {
		Description string              `json:"description"`
		Permissions []string            `json:"permissions"`
		Subjects    []jsonActionSubject `json:"subjects"`
		Omitted     int                 `json:"omitted"`
	}
	jsonActionSubject struct {
		Kind      string      `json:"kind"`
		Namespace string      `json:"namespace,omitempty"`
		Name      string      `json:"name"`
		Everyone  bool        `json:"everyone"`
		Platform  bool        `json:"platform"`
		Grants    []jsonGrant `json:"grants"`
	}
	jsonGrant struct {
		Binding string `json:"binding"`
		Role    string `json:"role"`
	}
	jsonGenerator struct {
		Name    string `json:"name"`
		Version string `json:"version"`
	}
	jsonSubject struct {
		Kind string `json:"kind"`
		Name string `json:"name"`
	}
	jsonTitle struct {
		Title string   `json:"title"`
		IDs   []string `json:"ids"`
	}
	jsonExamined struct {
		Role     string `json:"role"`
		Location string `json:"location"`
	}
	jsonCertificate struct {
		jsonExamined
		Subject   string    `json:"subject"`
		Issuer    string    `json:"issuer"`
		Serial    string    `json:"serial"`
		NotBefore time.Time `json:"notBefore"`
		NotAfter  time.Time `json:"notAfter"`
		SHA256    string    `json:"sha256"`
	}
	jsonChecked struct {
		Reason   finding.Reason `json:"reason"`
		Severity string         `json:"severity"`
	}
	jsonFinding struct {
		jsonChecked
		Location    string              `json:"location"`
		Message     string              `json:"message"`
		Remedy      string              `json:"remedy"`
		HelpURI     string              `json:"helpURI"`
		Subject     finding.Subject     `json:"subject"`
		Outcome     string              `json:"outcome"`
		Requirement finding.Requirement `json:"requirement"`
		Controls    []string            `json:"controls"`
	}
	jsonControl struct {
		ID           string            `json:"id"`
		Title        string            `json:"title"`
		References   []jsonReference   `json:"references"`
		Mappings     []jsonMapping     `json:"mappings"`
		Scope        string            `json:"scope"`
		Neighbour    bool              `json:"neighbour"`
		Verdict      string            `json:"verdict"`
		Requirements []jsonRequirement `json:"requirements"`
	}
	jsonReference struct {
		Benchmark string `json:"benchmark"`
		Version   string `json:"version"`
		Number    string `json:"number"`
		ID        string `json:"id"`
	}
	jsonMapping struct {
		Framework string   `json:"framework"`
		Numbers   []string `json:"numbers"`
	}
	jsonRequirement struct {
		ID       finding.Requirement `json:"id"`
		Outcome  string              `json:"outcome"`
		Optional bool                `json:"optional"`
		Met      bool                `json:"met"`
		Reasons  []finding.Reason    `json:"reasons"`
		Subjects []finding.Subject   `json:"subjects"`
	}
	jsonResult struct {
		Requirement finding.Requirement `json:"requirement"`
		Subject     finding.Subject     `json:"subject"`
		Outcome     string              `json:"outcome"`
		Reason      finding.Reason      `json:"reason,omitempty"`
		Message     string              `json:"message,omitempty"`
		Remedy      string              `json:"remedy,omitempty"`
	}
)

func writeJSON(w io.Writer, d Document, _ Options) error {
	own := d.control()
	out := jsonDocument{
		APIVersion: APIVersion, Kind: Kind, GeneratedAt: d.At.UTC(),
		Generator: jsonGenerator{d.Generator, d.Version}, Subject: jsonSubject{d.Kind, d.Name},
		Control: jsonTitle{own.Title, own.RefIDs()},
		Verdict: control.Worst(d.Verdicts).Word(), FoundBy: d.FoundBy, Revision: d.Revision,
		Examined: []jsonExamined{}, Certificates: []jsonCertificate{}, Checked: []jsonChecked{}, Findings: []jsonFinding{},
		Controls: []jsonControl{}, Results: []jsonResult{},
	}
	for _, e := range d.Examined {
		out.Examined = append(out.Examined, jsonExamined{e.Role, e.Subject.String()})
	}
	for _, c := range d.Certificates {
		out.Certificates = append(out.Certificates, jsonCertificate{
			jsonExamined: jsonExamined{c.Role, c.Subject.String()},
			Subject:      c.X509.Subject.String(), Issuer: c.X509.Issuer.String(),
			Serial: fmt.Sprintf("%x", c.X509.SerialNumber), NotBefore: c.X509.NotBefore.UTC(), NotAfter: c.X509.NotAfter.UTC(),
			SHA256: pki.Fingerprint(c.X509),
		})
	}
	for _, reason := range d.Checked {
		out.Checked = append(out.Checked, jsonChecked{reason, reason.Severity()})
	}
	for _, f := range d.findings() {
		out.Findings = append(out.Findings, jsonFinding{
			jsonChecked: jsonChecked{f.Reason, f.Outcome.Severity()},
			Location:    f.Subject.String(), Message: f.Message, Remedy: f.Remedy, HelpURI: f.Reason.HelpURI(),
			Subject: f.Subject, Outcome: f.Outcome.String(), Requirement: f.Requirement, Controls: d.controlsOf(f),
		})
	}
	for _, v := range d.Verdicts {
		out.Controls = append(out.Controls, jsonControlOf(v))
	}
	for _, r := range d.Results {
		out.Results = append(out.Results,
			jsonResult{r.Requirement, r.Subject, r.Outcome.String(), r.Reason, r.Message, r.Remedy})
	}
	out.WhoCanDisable = jsonWhoCanDisableOf(d.WhoCanDisable)
	return encodeJSON(w, out)
}

func jsonWhoCanDisableOf(who *WhoCanDisable) *jsonWhoCanDisable {
	if who == nil {
		return nil
	}
	out := &jsonWhoCanDisable{Unknown: who.Unknown, Actions: []jsonAction{}}
	for _, a := range who.Actions {
		action := jsonAction{a.Description, append([]string{}, a.Permissions...), []jsonActionSubject{}, a.Omitted}
		for _, s := range a.Subjects {
			subject := jsonActionSubject{s.Kind, s.Namespace, s.Name, s.Everyone, s.Platform, []jsonGrant{}}
			for _, g := range s.Grants {
				subject.Grants = append(subject.Grants, jsonGrant(g))
			}
			action.Subjects = append(action.Subjects, subject)
		}
		out.Actions = append(out.Actions, action)
	}
	return out
}

func jsonControlOf(v control.Verdict) jsonControl {
	out := jsonControl{
		ID: v.Control.ID, Title: v.Control.Title, References: []jsonReference{}, Mappings: []jsonMapping{},
		Scope: v.Scope.String(), Neighbour: v.Control.Neighbour, Verdict: v.Status.Word(), Requirements: []jsonRequirement{},
	}
	for _, ref := range v.Control.Refs {
		out.References = append(out.References, jsonReference{ref.Benchmark, ref.Version, ref.Number, ref.ID()})
	}
	for _, m := range v.Control.Mappings {
		out.Mappings = append(out.Mappings, jsonMapping{m.Framework, append([]string{}, m.Numbers...)})
	}
	for _, a := range v.Answers {
		out.Requirements = append(out.Requirements, jsonRequirement{
			ID: a.Requirement, Outcome: a.Outcome.String(), Optional: a.Optional, Met: a.Met,
			Reasons: reasons(a.Results), Subjects: subjects(a.Results),
		})
	}
	return out
}

func encodeJSON(w io.Writer, value any) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(value)
}
