// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pki"
)

// paint gives text a colour, or leaves it as it is.
type paint func(colour, text string) string

// Colours of ECMA-48 (SGR), which every terminal knows.
const bold, red, green, yellow = "1", "1;31", "1;32", "1;33"

func plain(_, text string) string { return text }

func coloured(colour, text string) string { return "\x1b[" + colour + "m" + text + "\x1b[0m" }

// colourOf a severity; what could not be looked at is as doubtful as a warning.
func colourOf(s finding.Severity) string {
	switch s {
	case finding.Violation:
		return red
	case finding.Warning, finding.Unverified:
		return yellow
	case finding.Info:
		return green
	}
	return yellow
}

// writeTable writes the verdict, what is wrong and what to do about it, and
// then what was looked at.
func writeTable(w io.Writer, d Document) error { return tabulate(w, d, plain) }

func writeColouredTable(w io.Writer, d Document) error { return tabulate(w, d, coloured) }

func tabulate(w io.Writer, d Document, paint paint) error {
	var text bytes.Buffer
	verdict, colour := finding.VerdictOf(d.Findings), yellow
	switch verdict {
	case finding.Compliant:
		colour = green
	case finding.NotCompliant:
		colour = red
	case finding.CouldNotVerify:
	}
	_, _ = fmt.Fprintf(&text, "%s: %s\n%s, %q\n", printable(d.subject()), paint(colour, verdict.String()), finding.ControlsText, finding.ControlTitle)
	for _, f := range d.Findings {
		_, _ = fmt.Fprintf(&text, "\n%s %s\n  to do  %s\n  seen   %s\n  at     %s\n  more   %s\n",
			paint(colourOf(f.Severity()), f.Severity().String()), paint(bold, string(f.Reason)),
			printable(f.Remedy), printable(f.Message), printable(string(f.Location)), f.Reason.HelpURI())
	}
	_, _ = fmt.Fprintln(&text)

	table := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	row := func(key, value string) {
		if value != "" {
			_, _ = fmt.Fprintf(table, "%s\t%s\n", key, printable(value))
		}
	}
	row("looked at", d.At.UTC().Format(time.RFC3339)+" by "+d.Generator+" "+d.Version)
	row("found by", d.FoundBy)
	row("revision", d.Revision)
	for _, e := range d.Examined {
		row(e.Role, string(e.Location))
	}
	for _, c := range d.Certificates {
		// One block for all of them, so that they are aligned.
		row("certificate "+c.Role, c.X509.Subject.String())
		row("  issued by", c.X509.Issuer.String())
		row("  valid", c.X509.NotBefore.UTC().Format(time.RFC3339)+" to "+c.X509.NotAfter.UTC().Format(time.RFC3339))
		row("  SHA-256", pki.Fingerprint(c.X509))
	}
	// A buffer takes everything.
	_ = table.Flush()
	_, err := text.WriteTo(w)
	return err
}

// printable writes what could move a terminal's cursor as Go writes it in
// strings: names in certificates and paths in manifests are others' texts.
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
