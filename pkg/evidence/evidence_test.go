// SPDX-License-Identifier: Apache-2.0

package evidence_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/evidence"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pkitest"
)

const (
	manifest    = "/etc/kubernetes/manifests/kube-apiserver-pod.yaml"
	certificate = "/etc/kubernetes/static pod/tls.crt"
)

// documents are one of each verdict, and what others' texts may do to them.
func documents() map[string]evidence.Document {
	now := pkitest.Now()
	leaf := pkitest.NewCA("kube-apiserver-to-kubelet-signer").Issue(pkitest.KubeletClient()).Leaf
	strange := *leaf
	strange.SerialNumber = big.NewInt(-255)
	strange.Subject.CommonName = "system:\x1b[2J\x00\xff<&\">]]>\u202e\u2028"
	base := evidence.Document{
		At: now.In(time.FixedZone("CET", 3600)), Generator: "kubelet-https-guard/nodeagent", Version: "v1.2.3",
		Kind: "Node", Name: "master-0", FoundBy: "static pod manifest", Revision: "7",
		Examined:     []evidence.Examined{{Role: "manifest", Location: manifest}, {Role: "certificate", Location: certificate}},
		Certificates: []evidence.Certificate{{Role: "kubelet-client", Location: certificate, X509: leaf}},
		Checked:      []finding.Reason{finding.KeyMissing, finding.Unreadable, finding.CertificateExpired, finding.Unreadable, finding.WeakKey},
	}
	with := func(change func(*evidence.Document)) evidence.Document {
		d := base
		change(&d)
		return d
	}
	weak := finding.Finding{Reason: finding.WeakKey, Location: certificate, Message: "RSA 1024", Remedy: "renew it"}
	unread := finding.Finding{Reason: finding.Unreadable, Location: manifest + " apiServerArguments", Message: "permission denied", Remedy: "run as root"}
	expired := finding.Finding{Reason: finding.CertificateExpired, Location: certificate, Message: "expired", Remedy: "renew it"}
	return map[string]evidence.Document{
		"compliant":        base,
		"with a warning":   with(func(d *evidence.Document) { d.Findings = []finding.Finding{weak} }),
		"could not verify": with(func(d *evidence.Document) { d.Findings = []finding.Finding{weak, unread} }),
		"not compliant": with(func(d *evidence.Document) {
			elsewhere := expired
			elsewhere.Location = "kubelet 10.0.0.1:10250"
			d.Findings = []finding.Finding{unread, expired, elsewhere}
		}),
		"found and not in the list": with(func(d *evidence.Document) { d.Checked, d.Findings = nil, []finding.Finding{expired} }),
		"nothing known":             {At: now, Generator: "g", Kind: "Node"},
		"strange texts": with(func(d *evidence.Document) {
			d.Name = "a\x1b]0;b\a<&"
			d.Certificates = []evidence.Certificate{{Role: "kubelet-client", Location: certificate, X509: &strange}}
			d.Findings = []finding.Finding{{Reason: finding.KeyMissing, Location: "/x\x1b[1A\ny", Message: "a\x00\xff]]>b", Remedy: "c\r\nd"}}
		}),
	}
}

func write(t *testing.T, format evidence.Format, d evidence.Document) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := evidence.Write(&b, format, d); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestSchemas: every document is valid by the schema of its format.
func TestSchemas(t *testing.T) {
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	validate := func(file string) func(*testing.T, []byte) {
		schema, err := compiler.Compile(file)
		if err != nil {
			t.Fatal(err)
		}
		return func(t *testing.T, text []byte) {
			value, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
			if err != nil {
				t.Fatal(err)
			}
			if err := schema.Validate(value); err != nil {
				t.Errorf("%v\n%s", err, text)
			}
		}
	}
	schemas := map[evidence.Format]func(*testing.T, []byte){
		evidence.JSON:  validate("../../docs/evidence.schema.json"),
		evidence.SARIF: validate("testdata/sarif-2.1.0.json"),
		evidence.JUnit: xmllint,
	}
	for format, valid := range schemas {
		for name, d := range documents() {
			t.Run(formatName(t, format)+"/"+name, func(t *testing.T) { valid(t, write(t, format, d)) })
		}
	}
}

// xmllint, since nothing written in Go knows XML schemas.
func xmllint(t *testing.T, text []byte) {
	program, err := exec.LookPath("xmllint")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("xmllint is missing (Debian: libxml2-utils)")
		}
		t.Skip("no xmllint here (Debian: libxml2-utils)")
	}
	command := exec.CommandContext(t.Context(), program, "--nonet", "--noout", "--schema", "testdata/junit.xsd", "-")
	command.Stdin = bytes.NewReader(text)
	if out, err := command.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s\n%s", err, out, text)
	}
}

func formatName(t *testing.T, format evidence.Format) string {
	t.Helper()
	name, err := format.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	return string(name)
}

// verdict is how a reader of each format sees what was found.
type verdict struct {
	JSON            string
	Found           string // reasons of the JSON's findings
	Checked         string // reasons that were looked for
	Failed, Errored string // JUnit
	Results         string // SARIF: kind, level and rule of each
	Files           string // SARIF: the files of the results
	Successful      bool   // SARIF
}

// TestVerdict: all formats say the same.
func TestVerdict(t *testing.T) {
	const all = "CertificateExpired KeyMissing Unreadable WeakKey"
	want := map[string]verdict{
		"compliant": {JSON: "Compliant", Checked: all, Successful: true},
		"with a warning": {
			JSON: "Compliant", Found: "WeakKey", Checked: all, Successful: true,
			Results: "fail/warning/WeakKey", Files: "file:///etc/kubernetes/static%20pod/tls.crt",
		},
		"could not verify": {
			JSON: "CouldNotVerify", Found: "Unreadable WeakKey", Checked: all, Errored: "Unreadable",
			Results: "open/none/Unreadable fail/warning/WeakKey", Files: "file://" + manifest + " file:///etc/kubernetes/static%20pod/tls.crt",
		},
		"not compliant": {
			JSON: "NotCompliant", Found: "CertificateExpired CertificateExpired Unreadable", Checked: all,
			Failed: "CertificateExpired", Errored: "Unreadable",
			Results: "fail/error/CertificateExpired fail/error/CertificateExpired open/none/Unreadable",
			Files:   "file:///etc/kubernetes/static%20pod/tls.crt none file://" + manifest,
		},
		"found and not in the list": {
			JSON: "NotCompliant", Found: "CertificateExpired", Checked: "CertificateExpired", Failed: "CertificateExpired", Successful: true,
			Results: "fail/error/CertificateExpired", Files: "file:///etc/kubernetes/static%20pod/tls.crt",
		},
		"nothing known": {JSON: "Compliant", Successful: true},
		"strange texts": {
			JSON: "NotCompliant", Found: "KeyMissing", Checked: all, Failed: "KeyMissing", Successful: true,
			Results: "fail/error/KeyMissing", Files: "none",
		},
	}
	got := map[string]verdict{}
	for name, d := range documents() {
		got[name] = read(t, d)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("what readers see (-want +got):\n%s", d)
	}
}

// read reads all formats as their readers do.
func read(t *testing.T, d evidence.Document) verdict {
	t.Helper()
	var v verdict
	var document struct {
		Verdict           string
		Checked, Findings []struct{ Reason string }
	}
	decode(t, json.Unmarshal, write(t, evidence.JSON, d), &document)
	v.JSON = document.Verdict
	words := func(to *string, word string) { *to = strings.TrimSpace(*to + " " + word) }
	for _, f := range document.Findings {
		words(&v.Found, f.Reason)
	}
	for _, c := range document.Checked {
		words(&v.Checked, c.Reason)
	}

	var junit struct {
		Suite struct {
			Tests    int `xml:"tests,attr"`
			Failures int `xml:"failures,attr"`
			Errors   int `xml:"errors,attr"`
			Case     []struct {
				Name    string    `xml:"name,attr"`
				Failure *struct{} `xml:"failure"`
				Error   *struct{} `xml:"error"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	decode(t, xml.Unmarshal, write(t, evidence.JUnit, d), &junit)
	var cases, failures, errors int
	var checked string
	for _, c := range junit.Suite.Case {
		cases++
		words(&checked, c.Name)
		if c.Failure != nil {
			failures++
			words(&v.Failed, c.Name)
		}
		if c.Error != nil {
			errors++
			words(&v.Errored, c.Name)
		}
	}
	if s := junit.Suite; s.Tests != cases || s.Failures != failures || s.Errors != errors || checked != v.Checked {
		t.Errorf("JUnit counts %d/%d/%d, has %d/%d/%d; cases %q, JSON %q", s.Tests, s.Failures, s.Errors, cases, failures, errors, checked, v.Checked)
	}

	var sarif struct {
		Runs []struct {
			Tool struct {
				Driver struct{ Rules []struct{ ID string } }
			}
			Invocations []struct{ ExecutionSuccessful bool }
			Results     []struct {
				RuleID, Kind, Level string
				RuleIndex           int
				Locations           []struct {
					PhysicalLocation struct{ ArtifactLocation struct{ URI string } }
				}
			}
		}
	}
	decode(t, json.Unmarshal, write(t, evidence.SARIF, d), &sarif)
	run := sarif.Runs[0]
	v.Successful = run.Invocations[0].ExecutionSuccessful
	for _, r := range run.Results {
		words(&v.Results, r.Kind+"/"+r.Level+"/"+r.RuleID)
		file := r.Locations[0].PhysicalLocation.ArtifactLocation.URI
		if file == "" {
			file = "none"
		}
		words(&v.Files, file)
		if rule := run.Tool.Driver.Rules[r.RuleIndex].ID; rule != r.RuleID {
			t.Errorf("SARIF: rule %d is %s, the result's is %s", r.RuleIndex, rule, r.RuleID)
		}
	}
	return v
}

func decode(t *testing.T, unmarshal func([]byte, any) error, text []byte, into any) {
	t.Helper()
	if err := unmarshal(text, into); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
}

// TestTable: the verdict comes first, and no text of others moves the cursor.
// colours are the escape sequences that set one.
var colours = regexp.MustCompile(`\x1b\[[0-9;]*m`)

func TestTable(t *testing.T) {
	const runbook = "https://github.com/kubelet-https-guard/kubelet-https-guard/blob/main/docs/runbook.md#"
	const want = `Node/master-0: could not verify
CIS OpenShift 1.2.4 (1.2.2 from v1.9), "Use https for kubelet connections"

Unverified Unreadable
  to do  run as root
  seen   permission denied
  at     /etc/kubernetes/manifests/kube-apiserver-pod.yaml apiServerArguments
  more   ` + runbook + `unreadable

Warning WeakKey
  to do  renew it
  seen   RSA 1024
  at     /etc/kubernetes/static pod/tls.crt
  more   ` + runbook + `weakkey

looked at                   2026-`
	text := string(write(t, evidence.Table, documents()["could not verify"]))
	if !strings.HasPrefix(text, want) {
		t.Errorf("the table begins (-want +got):\n%s", cmp.Diff(want, text))
	}
	for name, d := range documents() {
		if d := cmp.Diff(string(write(t, evidence.Table, d)), colours.ReplaceAllString(string(write(t, evidence.ColouredTable, d)), "")); d != "" {
			t.Errorf("%s: the table in colours says something else (-plain +coloured):\n%s", name, d)
		}
		for _, r := range string(write(t, evidence.Table, d)) {
			if r != '\n' && (r < ' ' || r == 0x7f || r == 0x202e || r == 0x2028) {
				t.Errorf("%s: the table holds %U", name, r)
			}
		}
	}
}

func TestColoured(t *testing.T) {
	for format, want := range map[evidence.Format]evidence.Format{evidence.Table: evidence.ColouredTable, evidence.JSON: evidence.JSON, evidence.SARIF: evidence.SARIF} {
		if got := format.Coloured(true); got != want {
			t.Errorf("%s with colours: got %d, want %d", formatName(t, format), got, want)
		}
		if got := format.Coloured(false); got != format {
			t.Errorf("%s without: got %d", formatName(t, format), got)
		}
	}
}

// TestOpenReports: one result for each finding and for each reason that was not
// found, counted rightly, in an object with a name that the API takes. (That the
// API takes all of it is tried in test/e2e.)
func TestOpenReports(t *testing.T) {
	type result struct{ Rule, Result string }
	want := map[string][]any{
		"compliant": {"kubelet-https-guard-node-master-0", "4 0 0 0", []result{{"CertificateExpired", "pass"}, {"KeyMissing", "pass"}, {"Unreadable", "pass"}, {"WeakKey", "pass"}}},
		"not compliant": {"kubelet-https-guard-node-master-0", "2 2 0 1", []result{
			{"CertificateExpired", "fail"}, {"CertificateExpired", "fail"}, {"KeyMissing", "pass"}, {"Unreadable", "error"}, {"WeakKey", "pass"},
		}},
		"could not verify": {"kubelet-https-guard-node-master-0", "2 0 1 1", []result{{"CertificateExpired", "pass"}, {"KeyMissing", "pass"}, {"Unreadable", "error"}, {"WeakKey", "warn"}}},
		"nothing known":    {"kubelet-https-guard-node", "0 0 0 0", []result{}},
		"strange texts":    {"kubelet-https-guard-node-a--0-b", "3 1 0 0", []result{{"CertificateExpired", "pass"}, {"KeyMissing", "fail"}, {"Unreadable", "pass"}, {"WeakKey", "pass"}}},
	}
	for name, want := range want {
		var report struct {
			Metadata struct{ Name string }
			Summary  struct{ Pass, Fail, Warn, Error int }
			Results  []result
		}
		decode(t, json.Unmarshal, write(t, evidence.OpenReports, documents()[name]), &report)
		s := report.Summary
		if d := cmp.Diff(want, []any{report.Metadata.Name, fmt.Sprint(s.Pass, s.Fail, s.Warn, s.Error), report.Results}); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
	}
}

func TestFormat(t *testing.T) {
	for _, name := range []string{"table", "json", "junit", "sarif", "openreports"} {
		var format evidence.Format
		if err := format.UnmarshalText([]byte(name)); err != nil {
			t.Error(err)
		}
		if got := formatName(t, format); got != name {
			t.Errorf("got %s, want %s", got, name)
		}
	}
	var format evidence.Format
	if err := format.UnmarshalText([]byte("yaml")); err == nil {
		t.Error("yaml is taken")
	}
}

var errFull = errors.New("no space left on device")

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errFull }

// TestFull: a report that could not be written is no report.
func TestFull(t *testing.T) {
	for _, format := range []evidence.Format{evidence.Table, evidence.JSON, evidence.JUnit, evidence.SARIF, evidence.OpenReports} {
		if err := evidence.Write(full{}, format, documents()["compliant"]); !errors.Is(err, errFull) {
			t.Errorf("%s: got %v", formatName(t, format), err)
		}
	}
}
