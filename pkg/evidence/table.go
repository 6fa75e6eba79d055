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

// writeTable writes the verdict, what is wrong and what to do about it, and
// then what was looked at.
func writeTable(w io.Writer, d Document) error {
	var text bytes.Buffer
	_, _ = fmt.Fprintf(&text, "%s: %s\n%s, %q\n", printable(d.subject()), finding.VerdictOf(d.Findings), finding.ControlsText, finding.ControlTitle)
	for _, f := range d.Findings {
		_, _ = fmt.Fprintf(&text, "\n%s %s\n  at     %s\n  seen   %s\n  to do  %s\n",
			f.Severity(), f.Reason, printable(string(f.Location)), printable(f.Message), printable(f.Remedy))
	}
	_, _ = fmt.Fprintln(&text)

	table := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	row := func(key, value string) {
		if value != "" {
			_, _ = fmt.Fprintf(table, "%s:\t%s\n", key, printable(value))
		}
	}
	row("at", d.At.UTC().Format(time.RFC3339))
	row("found by", d.FoundBy)
	row("revision", d.Revision)
	for _, e := range d.Examined {
		row(e.Role, string(e.Location))
	}
	for _, c := range d.Certificates {
		_, _ = fmt.Fprintf(table, "\n%s:\t%s\n", printable(c.Role), printable(c.X509.Subject.String()))
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
