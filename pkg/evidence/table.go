// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/control"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pki"
)

// paint returns text in a colour, or unchanged.
type paint func(colour, text string) string

// Colours of ECMA-48 (SGR), which every terminal supports.
const bold, red, green, yellow = "1", "1;31", "1;32", "1;33"

func plain(_, text string) string { return text }

func coloured(colour, text string) string { return "\x1b[" + colour + "m" + text + "\x1b[0m" }

// colourOf returns the colour of a finding's outcome. Unknown has that of a warning.
func colourOf(o finding.Outcome) string {
	if o == finding.Fail {
		return red
	}
	return yellow
}

func colourOfStatus(s control.Status) string {
	switch s {
	case control.Compliant:
		return green
	case control.NotCompliant:
		return red
	case control.NotApplicable:
		return bold
	case control.CouldNotVerify:
		return yellow
	}
	return yellow
}

// writeTable writes the verdicts, the findings with their remedies, the requirements that were
// not observed or not checked, and what was checked.
func writeTable(w io.Writer, d Document, o Options) error {
	paint := plain
	if o.Colour {
		paint = coloured
	}
	var text bytes.Buffer
	tabulateVerdicts(&text, d, paint)
	for _, f := range d.findings() {
		_, _ = fmt.Fprintf(&text, "\n%s %s\n  at    %s\n  why   %s\n  fix   %s\n  more  %s\n",
			paint(colourOf(f.Outcome), f.Outcome.Severity()), paint(bold, string(f.Reason)),
			printable(f.Subject.String()), printable(f.Message), printable(f.Remedy), f.Reason.HelpURI())
	}
	tabulateUnobserved(&text, d)
	_, _ = fmt.Fprintln(&text)

	table := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	row := func(key, value string) {
		if value != "" {
			_, _ = fmt.Fprintf(table, "%s\t%s\n", key, printable(value))
		}
	}
	row("checked", d.At.UTC().Format(time.RFC3339)+" by "+d.Generator+" "+d.Version)
	row("found by", d.FoundBy)
	row("revision", d.Revision)
	for _, e := range d.Examined {
		row(e.Role, e.Subject.String())
	}
	for _, c := range d.Certificates {
		// One block for all of them, so that they are aligned.
		row("certificate "+c.Role, c.X509.Subject.String())
		row("  issued by", c.X509.Issuer.String())
		row("  valid", c.X509.NotBefore.UTC().Format(time.RFC3339)+" to "+c.X509.NotAfter.UTC().Format(time.RFC3339))
		row("  SHA-256", pki.Fingerprint(c.X509))
	}
	// Writing to a buffer never fails.
	_ = table.Flush()
	tabulateWhoCanDisable(&text, d.WhoCanDisable)
	_, err := text.WriteTo(w)
	return err
}

// tabulateWhoCanDisable writes a line for each subject that is not part of the platform, and the number of the others.
func tabulateWhoCanDisable(text *bytes.Buffer, who *WhoCanDisable) {
	if who == nil {
		return
	}
	_, _ = fmt.Fprintf(text, "\nwho could disable the guard, as RBAC grants it\n")
	if who.Unknown != "" {
		_, _ = fmt.Fprintf(text, "  not known: %s\n", printable(who.Unknown))
	}
	for _, action := range who.Actions {
		_, _ = fmt.Fprintf(text, "  %s\n", printable(action.Description))
		platform := 0
		for _, s := range action.Subjects {
			if s.Platform {
				platform++
				continue
			}
			name := s.Name
			if s.Namespace != "" {
				name = s.Namespace + "/" + name
			}
			if s.Everyone {
				name += " (everyone)"
			}
			var by []string
			for _, g := range s.Grants {
				by = append(by, g.Binding+" to "+g.Role)
			}
			_, _ = fmt.Fprintf(text, "    %s by %s\n", printable(s.Kind+" "+name), printable(strings.Join(by, ", ")))
		}
		if platform > 0 {
			_, _ = fmt.Fprintf(text, "    %s of the platform\n", subjectCount(platform))
		}
		if action.Omitted > 0 {
			_, _ = fmt.Fprintf(text, "    %s more\n", subjectCount(action.Omitted))
		}
	}
}

func subjectCount(n int) string {
	if n == 1 {
		return "1 subject"
	}
	return strconv.Itoa(n) + " subjects"
}

// tabulateVerdicts writes the verdict of the exit code, one line for each control that counts,
// and one line for all neighbours.
func tabulateVerdicts(text *bytes.Buffer, d Document, paint paint) {
	worst := control.Worst(d.Verdicts)
	_, _ = fmt.Fprintf(text, "%s: %s\n", printable(d.subject()), paint(colourOfStatus(worst), worst.String()))
	width := 0
	for _, v := range d.counted() {
		width = max(width, len(v.Status.String()))
	}
	var neighbours []string
	for _, v := range d.Verdicts {
		status := v.Status.String()
		if v.Control.Neighbour {
			neighbours = append(neighbours, v.Control.String()+" "+status)
			continue
		}
		name := v.Control.String()
		if name != v.Control.Title {
			name += ": " + v.Control.Title
		}
		// Colours have no width.
		_, _ = fmt.Fprintf(text, "  %s%s  %s\n", paint(colourOfStatus(v.Status), status),
			strings.Repeat(" ", width-len(status)), name)
	}
	if neighbours != nil {
		_, _ = fmt.Fprintf(text, "  also: %s\n", strings.Join(neighbours, ", "))
	}
}

// tabulateUnobserved writes the unknown requirements that prevent a verdict, those that were
// not checked on purpose, and the messages of results that pass or do not apply.
func tabulateUnobserved(text *bytes.Buffer, d Document) {
	var preventing unobserved
	for _, v := range d.Verdicts {
		if v.Status != control.CouldNotVerify {
			continue
		}
		for _, a := range v.Unmet() {
			preventing.add(a.Results)
		}
	}
	if len(preventing) > 0 {
		_, _ = fmt.Fprint(text, "\nrequired and not observed\n")
	}
	for _, u := range preventing {
		_, _ = fmt.Fprintf(text, "  %s\n    %s at %s: %s\n", u.list(), u.Reason, printable(u.Subject.String()),
			printable(u.Message))
	}

	var unchecked unobserved
	for _, r := range d.Results {
		if r.Reason == finding.NotChecked && !preventing.has(r.Requirement) {
			// One flag or value excludes many subjects.
			r.Subject = finding.Subject{}
			unchecked.add([]finding.Result{r})
		}
	}
	var parts []string
	for _, u := range unchecked {
		parts = append(parts, u.list()+" ("+printable(u.Message)+")")
	}
	if parts != nil {
		_, _ = fmt.Fprintf(text, "\nnot checked: %s\n", strings.Join(parts, "; "))
	}
	for _, r := range d.Results {
		onPurpose := r.Outcome == finding.Pass ||
			r.Outcome == finding.NotApplicable && r.Requirement.Family() == finding.Guard
		if onPurpose && r.Message != "" {
			_, _ = fmt.Fprintf(text, "\n%s: %s\n", printable(r.Subject.String()), printable(r.Message))
		}
	}
}

// unobserved are requirements that were not observed, by cause.
type unobserved []cause

// cause is why requirements were not observed.
type cause struct {
	finding.ID
	Message      string
	Requirements []finding.Requirement
}

// add adds the results that are unknown.
func (u *unobserved) add(results []finding.Result) {
	for _, r := range finding.WithOutcome(results, finding.Unknown) {
		i := slices.IndexFunc(*u, func(c cause) bool { return c.ID == r.ID() && c.Message == r.Message })
		if i < 0 {
			i = len(*u)
			*u = append(*u, cause{ID: r.ID(), Message: r.Message})
		}
		if entry := &(*u)[i]; !slices.Contains(entry.Requirements, r.Requirement) {
			entry.Requirements = append(entry.Requirements, r.Requirement)
		}
	}
}

func (u unobserved) has(r finding.Requirement) bool {
	return slices.ContainsFunc(u, func(c cause) bool { return slices.Contains(c.Requirements, r) })
}

func (c cause) list() string {
	words := make([]string, len(c.Requirements))
	for i, r := range c.Requirements {
		words[i] = string(r)
	}
	return strings.Join(words, ", ")
}

// printable escapes characters that could control a terminal, as Go does in strings: names in
// certificates and paths in manifests come from others.
func printable(text string) string {
	if strings.IndexFunc(text, unprintable) < 0 {
		return text
	}
	var b strings.Builder
	for _, r := range text {
		if unprintable(r) {
			b.WriteString(strings.Trim(strconv.QuoteRuneToASCII(r), "'"))
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

func unprintable(r rune) bool { return !unicode.IsPrint(r) }
