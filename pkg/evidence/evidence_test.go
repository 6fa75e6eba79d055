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
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/control"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/evidence"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/messages"
)

const (
	manifest    = "/etc/kubernetes/manifests/kube-apiserver-pod.yaml"
	certificate = "/etc/kubernetes/static pod/tls.crt"
)

// Requirements of the test controls.
const (
	platform    = finding.Requirement("platform/control-plane")
	readable    = finding.Requirement("config/readable")
	https       = finding.Requirement("config/https")
	authority   = finding.Requirement("config/certificate-authority")
	key         = finding.Requirement("client-files/key")
	validity    = finding.Requirement("client-files/validity")
	strength    = finding.Requirement("client-files/strength")
	tls         = finding.Requirement("kubelet/tls")
	admission   = finding.Requirement("config/admission")
	nobodysRule = finding.Requirement("nobody/requires")
)

// controls returns three controls as in the table: the main one, the guard's, and a neighbour
// with a strict requirement.
func controls() []control.Control {
	own, guard, neighbour := control.ByID(control.UseHTTPS), control.ByID(
		control.GuardInForce,
	), control.ByID(control.KubeletCA)
	required := func(requirements ...finding.Requirement) []control.Required {
		var all []control.Required
		for _, r := range requirements {
			all = append(all, control.Required{Requirement: r, Scopes: []control.Scope{control.Node}, Optional: r == tls})
		}
		return all
	}
	own.Requirements = required(platform, readable, https, authority, key, validity, strength, tls)
	guard.Requirements = required(readable, admission)
	neighbour.Requirements = required(authority)
	neighbour.Requirements[0].Strict = true
	return []control.Control{own, neighbour, guard}
}

// documents returns a document of each verdict, and documents with special texts.
func documents() map[string]evidence.Document {
	now := pkitest.Now()
	leaf := pkitest.NewCA("kube-apiserver-to-kubelet-signer").Issue(pkitest.KubeletClient()).Leaf
	strange := *leaf
	strange.SerialNumber = big.NewInt(-255)
	strange.Subject.CommonName = "system:\x1b[2J\x00\xff<&\">]]>\u202e\u2028"

	crt, config := finding.File(certificate), finding.File("/etc/kubernetes/config.yaml").Part("apiServerArguments")
	kubelet := finding.Subject{Kind: finding.KindKubelet, Name: "10.0.0.1:10250"}
	good := map[finding.Requirement]finding.Result{
		platform: {Subject: finding.Subject{Kind: "Infrastructure", Name: "cluster"}}, readable: {Subject: config}, https: {Subject: config},
		authority: {Subject: config}, key: {Subject: finding.File("/etc/kubernetes/static pod/tls.key")}, validity: {Subject: crt}, strength: {Subject: crt},
		tls:       {Subject: kubelet, Reason: finding.NotChecked, Message: "no address is set"},
		admission: {Subject: config, Outcome: finding.NotApplicable, Message: "the guard is not installed"},
	}
	// with returns the compliant document with other results of some requirements.
	with := func(results ...finding.Result) evidence.Document {
		d := evidence.Document{
			At: now.In(time.FixedZone("CET", 3600)), Generator: "kubelet-https-guard/nodeagent", Version: "v1.2.3",
			Kind: "Node", Name: "master-0", FoundBy: "static pod manifest", Revision: "7",
			Examined:     []evidence.Examined{{Role: "manifest", Subject: finding.File(manifest)}, {Role: "certificate", Subject: crt}},
			Certificates: []evidence.Certificate{{Role: "kubelet-client", Subject: crt, X509: leaf}},
			Checked:      []finding.Reason{finding.KeyMissing, finding.Unreadable, finding.CertificateExpired, finding.Unreadable, finding.WeakKey},
		}
		for _, requirement := range []finding.Requirement{platform, readable, https, authority, key, validity, strength,
			tls, admission} {
			r := good[requirement]
			if r.Requirement = requirement; r.Reason == "" && r.Message == "" {
				r.Outcome = finding.Pass
			}
			if !slices.ContainsFunc(results, func(other finding.Result) bool { return other.Requirement == requirement }) {
				d.Results = append(d.Results, r)
			}
		}
		d.Results = append(d.Results, results...)
		for _, c := range controls() {
			d.Verdicts = append(d.Verdicts, c.Judge(control.Node, d.Results))
		}
		return d
	}
	weak := finding.Result{
		Requirement: strength, Subject: crt, Outcome: finding.Warn, Reason: finding.WeakKey, Message: "RSA 1024",
		Remedy: "renew it",
	}
	unread := func(requirement finding.Requirement) finding.Result {
		return finding.Result{
			Requirement: requirement, Subject: config, Reason: finding.Unreadable, Message: "permission denied",
			Remedy: "run as root",
		}
	}
	expired := finding.Result{
		Requirement: validity, Subject: crt, Outcome: finding.Fail, Reason: finding.CertificateExpired, Message: "expired",
		Remedy: "renew it",
	}
	expiredElsewhere := expired
	expiredElsewhere.Subject = finding.Subject{
		Kind: "Secret", Namespace: "openshift-kube-apiserver", Name: "kubelet-client", Key: "tls.crt",
	}

	who := with()
	who.WhoCanDisable = &evidence.WhoCanDisable{Actions: []evidence.Action{
		{
			Description: "change or delete the webhook configuration", Omitted: 3,
			Permissions: []string{"update validatingwebhookconfigurations.admissionregistration.k8s.io kubelet-https-guard"},
			Subjects: []evidence.ActionSubject{
				{
					Kind: "Group", Name: "system:authenticated", Everyone: true,
					Grants: []evidence.Grant{{Binding: "ClusterRoleBinding everyone", Role: "ClusterRole edit-all"}},
				},
				{
					Kind: "ServiceAccount", Namespace: "gitops", Name: "argocd\x1b[2K", Grants: []evidence.Grant{
						{Binding: "ClusterRoleBinding argocd", Role: "ClusterRole argocd"},
						{Binding: "ClusterRoleBinding argocd-2", Role: "ClusterRole cluster-admin"},
					},
				},
				{
					Kind: "Group", Name: "system:masters", Platform: true,
					Grants: []evidence.Grant{{Binding: "API server", Role: "allowed everything"}},
				},
			},
		},
		{Description: "act as another", Permissions: []string{"impersonate users x"}},
	}}
	whoUnknown := with()
	whoUnknown.WhoCanDisable = &evidence.WhoCanDisable{Unknown: "list ClusterRoles: no permission\nFix: x"}
	unanswered := with()
	unanswered.Results = slices.DeleteFunc(unanswered.Results,
		func(r finding.Result) bool { return r.Requirement == key || r.Requirement == readable })
	for i, c := range controls() {
		unanswered.Verdicts[i] = c.Judge(control.Node, unanswered.Results)
	}
	empty := with()
	empty.Verdicts = append(empty.Verdicts,
		control.Control{ID: "empty", Title: "A control without requirements"}.Judge(control.Node, empty.Results))
	unlisted := with(expired)
	unlisted.Checked = nil
	texts := with(finding.Result{
		Requirement: key, Subject: finding.File("/x\x1b[1A\ny"), Outcome: finding.Fail, Reason: finding.KeyMissing,
		Message: "a\x00\xff]]>b", Remedy: "c\r\nd",
	}, finding.Result{Requirement: https, Subject: config, Reason: finding.NotChecked, Message: "e\x1b[2K\nf"})
	texts.Name = "a\x1b]0;b\a<&"
	texts.Certificates = []evidence.Certificate{{Role: "kubelet-client", Subject: crt, X509: &strange}}
	return map[string]evidence.Document{
		"compliant":        with(),
		"with a warning":   with(weak),
		"could not verify": with(weak, unread(readable), unread(https)),
		"required, but not checked": with(
			finding.Result{Requirement: https, Subject: config, Reason: finding.NotChecked, Message: "no --config is set"}),
		"not compliant": with(unread(readable), unread(https), unread(admission), expired, expiredElsewhere),
		"not applicable": with(finding.Result{
			Requirement: platform, Subject: finding.Subject{Kind: "Infrastructure", Name: "cluster"},
			Outcome: finding.NotApplicable,
			Message: "the control plane is in another cluster",
		}, expired),
		"a warning that fails a neighbour": with(finding.Result{
			Requirement: authority, Subject: config, Outcome: finding.Warn, Reason: finding.KubeletCANotConfigured,
			Message: "not set", Remedy: "set it",
		}),
		"of no control":                  with(finding.Result{Requirement: nobodysRule, Subject: crt, Outcome: finding.Warn, Reason: finding.WeakKey, Message: "m", Remedy: "r"}),
		"a requirement has no result":    unanswered,
		"a control without requirements": empty,
		"found, but not in Checked":      unlisted,
		"nothing known":                  {At: now, Generator: "g", Kind: "Node"},
		"texts with control characters":  texts,
		"who can disable the guard":      who,
		"who can disable is not known":   whoUnknown,
	}
}

func write(t *testing.T, format evidence.Format, d evidence.Document) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := evidence.Write(&b, format, d, evidence.Options{}); err != nil {
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

// xmllint, because no Go library validates XML schemas.
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

// verdict is what a reader of each format gets from the document.
type verdict struct {
	Exit       int
	JSON       string
	Controls   string // JSON: each control's verdict
	Found      string // JSON: reasons of the findings
	Checked    string // JSON: reasons that were checked
	Failed     string // JUnit
	Errored    string // JUnit
	Skipped    string // JUnit
	Reports    string // OpenReports: pass, fail, warn, error, skip
	Results    string // SARIF: kind, level and rule of each
	Files      string // SARIF: the files of the results
	Successful bool   // SARIF
}

// TestVerdict: all formats agree.
func TestVerdict(t *testing.T) {
	const (
		all     = "CertificateExpired KeyMissing Unreadable WeakKey"
		skipped = "kubelet/tls config/admission"
		sound   = "use-https=Compliant kubelet-ca=Compliant guard-in-force=Compliant"
		crt     = "file:///etc/kubernetes/static%20pod/tls.crt"
		config  = "file:///etc/kubernetes/config.yaml"
	)
	want := map[string]verdict{
		"compliant": {JSON: "Compliant", Controls: sound, Checked: all, Skipped: skipped, Reports: "7 0 0 0 2", Successful: true},
		// Who can disable the guard has no influence.
		"who can disable the guard": {
			JSON: "Compliant", Controls: sound, Checked: all, Skipped: skipped, Reports: "7 0 0 0 2", Successful: true,
		},
		"who can disable is not known": {
			JSON: "Compliant", Controls: sound, Checked: all, Skipped: skipped, Reports: "7 0 0 0 2", Successful: true,
		},
		"with a warning": {
			JSON: "Compliant", Controls: sound, Found: "WeakKey", Checked: all, Skipped: skipped, Reports: "6 0 1 0 2",
			Results: "fail/warning/WeakKey", Files: crt, Successful: true,
		},
		"could not verify": {
			Exit: 2, JSON: "CouldNotVerify", Controls: "use-https=CouldNotVerify kubelet-ca=Compliant " +
				"guard-in-force=CouldNotVerify",
			Found: "Unreadable WeakKey", Checked: all, Errored: "config/readable config/https", Skipped: skipped,
			Reports: "4 0 1 2 2",
			Results: "open/none/Unreadable fail/warning/WeakKey", Files: config + " " + crt,
		},
		"required, but not checked": {
			Exit: 2, JSON: "CouldNotVerify", Controls: "use-https=CouldNotVerify kubelet-ca=Compliant guard-in-force=Compliant",
			Checked: all, Errored: "config/https", Skipped: skipped, Reports: "6 0 0 1 2",
		},
		"not compliant": {
			Exit: 1, JSON: "NotCompliant", Controls: "use-https=NotCompliant kubelet-ca=Compliant guard-in-force=CouldNotVerify",
			Found: "CertificateExpired CertificateExpired Unreadable", Checked: all, Failed: "client-files/validity",
			Errored: "config/readable config/https config/admission", Skipped: "kubelet/tls", Reports: "4 2 0 3 1",
			Results: "fail/error/CertificateExpired fail/error/CertificateExpired open/none/Unreadable", Files: crt +
				" none " + config,
		},
		// Results of a control that is not applicable do not count.
		"not applicable": {
			Exit: 4, JSON: "NotApplicable", Controls: "use-https=NotApplicable kubelet-ca=Compliant guard-in-force=Compliant",
			Found: "CertificateExpired", Checked: all,
			Skipped: "platform/control-plane config/https config/certificate-authority client-files/key client-files/validity " +
				"client-files/strength kubelet/tls config/admission",
			Reports: "5 1 0 0 3", Results: "fail/error/CertificateExpired", Files: crt, Successful: true,
		},
		"a warning that fails a neighbour": {
			JSON: "Compliant", Controls: "use-https=Compliant kubelet-ca=NotCompliant guard-in-force=Compliant",
			Found:   "KubeletCANotConfigured",
			Checked: "CertificateExpired KeyMissing KubeletCANotConfigured Unreadable WeakKey", Skipped: skipped,
			Reports: "6 0 1 0 2",
			Results: "fail/warning/KubeletCANotConfigured", Files: config, Successful: true,
		},
		"of no control": {
			JSON: "Compliant", Controls: sound, Found: "WeakKey", Checked: all, Skipped: skipped, Reports: "7 0 1 0 2",
			Results: "fail/warning/WeakKey", Files: crt, Successful: true,
		},
		"a requirement has no result": {
			Exit: 2, JSON: "CouldNotVerify", Controls: "use-https=CouldNotVerify kubelet-ca=Compliant " +
				"guard-in-force=CouldNotVerify",
			Found: "NotObserved", Checked: "CertificateExpired KeyMissing NotObserved Unreadable WeakKey",
			Errored: "config/readable client-files/key", Skipped: skipped, Reports: "5 0 0 2 2",
			Results: "open/none/NotObserved", Files: "none",
		},
		"a control without requirements": {
			Exit: 2, JSON: "CouldNotVerify", Controls: sound + " empty=CouldNotVerify", Checked: all, Errored: "verdict",
			Skipped: skipped,
			Reports: "7 0 0 0 2",
		},
		"found, but not in Checked": {
			Exit: 1, JSON: "NotCompliant", Controls: "use-https=NotCompliant kubelet-ca=Compliant guard-in-force=Compliant",
			Found: "CertificateExpired", Checked: "CertificateExpired", Failed: "client-files/validity", Skipped: skipped,
			Reports: "6 1 0 0 2",
			Results: "fail/error/CertificateExpired", Files: crt, Successful: true,
		},
		"nothing known": {Exit: 2, JSON: "CouldNotVerify", Errored: "verdict", Reports: "0 0 0 0 0"},
		"texts with control characters": {
			Exit: 1, JSON: "NotCompliant", Controls: "use-https=NotCompliant kubelet-ca=Compliant guard-in-force=Compliant",
			Found: "KeyMissing", Checked: all, Failed: "client-files/key", Errored: "config/https", Skipped: skipped,
			Reports: "5 1 0 1 2",
			Results: "fail/error/KeyMissing", Files: "file:///x%1B%5B1A%0Ay", Successful: true,
		},
	}
	got := map[string]verdict{}
	for name, d := range documents() {
		got[name] = read(t, d)
		if v := got[name]; (v.Exit == 0 || v.Exit == 4) != (v.Failed == "" && v.Errored == "") {
			t.Errorf("%s: the exit code is %d, JUnit has failures %q and errors %q", name, v.Exit, v.Failed, v.Errored)
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("what readers get (-want +got):\n%s", d)
	}
}

// read parses all formats as their readers do.
func read(t *testing.T, d evidence.Document) verdict {
	t.Helper()
	v := verdict{Exit: int(d.Exit())}
	words := func(to *string, word string) { *to = strings.TrimSpace(*to + " " + word) }
	var document struct {
		Verdict           string
		Checked, Findings []struct{ Reason string }
		Controls          []struct {
			ID, Verdict  string
			Requirements []struct{}
		}
	}
	decode(t, json.Unmarshal, write(t, evidence.JSON, d), &document)
	v.JSON = document.Verdict
	for _, c := range document.Controls {
		words(&v.Controls, c.ID+"="+c.Verdict)
	}
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
			Skipped  int `xml:"skipped,attr"`
			Case     []struct {
				Name    string    `xml:"name,attr"`
				Failure *struct{} `xml:"failure"`
				Error   *struct{} `xml:"error"`
				Skipped *struct{} `xml:"skipped"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	decode(t, xml.Unmarshal, write(t, evidence.JUnit, d), &junit)
	seen := map[string]bool{}
	var failures, errors, skipped int
	for _, c := range junit.Suite.Case {
		seen[c.Name] = true
		if c.Failure != nil {
			failures++
			words(&v.Failed, c.Name)
		}
		if c.Error != nil {
			errors++
			words(&v.Errored, c.Name)
		}
		if c.Skipped != nil {
			skipped++
			words(&v.Skipped, c.Name)
		}
	}
	if s := junit.Suite; s.Tests != len(seen) || s.Failures != failures || s.Errors != errors || s.Skipped != skipped {
		t.Errorf("JUnit counts %d/%d/%d/%d, has %d/%d/%d/%d", s.Tests, s.Failures, s.Errors, s.Skipped, len(seen), failures,
			errors, skipped)
	}

	var report struct {
		Summary struct{ Pass, Fail, Warn, Error, Skip int }
		Results []struct{ Result string }
	}
	decode(t, json.Unmarshal, write(t, evidence.OpenReports, d), &report)
	counted := map[string]int{}
	for _, r := range report.Results {
		counted[r.Result]++
	}
	s := report.Summary
	v.Reports = fmt.Sprint(s.Pass, s.Fail, s.Warn, s.Error, s.Skip)
	if has := fmt.Sprint(counted["pass"], counted["fail"], counted["warn"], counted["error"],
		counted["skip"]); has != v.Reports {
		t.Errorf("OpenReports counts %s, has %s", v.Reports, has)
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

// colours matches the escape sequences of colours.
var colours = regexp.MustCompile(`\x1b\[[0-9;]*m`)

// TestTable: the verdict comes first, then the findings, then what is unknown. The complete
// tables are in docs/messages.md.
func TestTable(t *testing.T) {
	page := messages.Record(t, "tables")
	const node = "Node/master-0: "
	compliant, unverified := node+control.Compliant.String(), node+control.CouldNotVerify.String()
	// The verdict, the findings, and requirements that were not observed or not checked.
	landmark := regexp.MustCompile(`(?m)^Node.*$|^[A-Z]\w+ [A-Z]\w+$|\b(?:config|client-files|kubelet)/[a-z-]+\b`)
	cases := map[string][]string{
		"compliant":                        {compliant, "kubelet/tls"},
		"a warning that fails a neighbour": {compliant, "Warning KubeletCANotConfigured", "kubelet/tls"},
		"could not verify": {
			unverified, "Unverified Unreadable", "Warning WeakKey", "config/readable", "config/https", "kubelet/tls",
		},
		"required, but not checked":   {unverified, "config/https", "kubelet/tls"},
		"a requirement has no result": {unverified, "Unverified NotObserved", "config/readable", "client-files/key", "kubelet/tls"},
		"nothing known":               {"Node: " + control.CouldNotVerify.String()},
	}
	for name, want := range cases {
		t.Run(name, func(t *testing.T) {
			text := string(write(t, evidence.Table, documents()[name]))
			begin, _, _ := strings.Cut(text, "\nchecked ")
			page.Text(name, begin)
			if d := cmp.Diff(want, landmark.FindAllString(begin, -1)); d != "" {
				t.Errorf("the table (-want +got):\n%s\n%s", d, begin)
			}
		})
	}
}

// TestWhoCanDisable: the formats table and json list who could disable the guard. The table has one line for each
// subject that is not part of the platform.
func TestWhoCanDisable(t *testing.T) {
	page := messages.Record(t, "who-can-disable")
	for name, want := range map[string][]string{
		"who can disable the guard": {
			"change or delete the webhook configuration",
			"Group system:authenticated (everyone) by ClusterRoleBinding everyone to ClusterRole edit-all",
			"ClusterRoleBinding argocd to ClusterRole argocd, ClusterRoleBinding argocd-2 to ClusterRole cluster-admin",
			"1 subject of the platform", "3 subjects more", "act as another",
		},
		"who can disable is not known": {"not known: list ClusterRoles: no permission"},
	} {
		_, text, found := strings.Cut(string(write(t, evidence.Table, documents()[name])), "\nwho could disable")
		if !found {
			t.Errorf("%s: the table has no such part", name)
		}
		page.Text(name, "who could disable"+text)
		for _, line := range want {
			if !strings.Contains(text, line) {
				t.Errorf("%s: the table has no %q:\n%s", name, line, text)
			}
		}
	}
	type subject struct {
		Kind, Namespace, Name string
		Everyone, Platform    bool
		Grants                []struct{ Binding, Role string }
	}
	var document struct {
		WhoCanDisable *struct {
			Unknown string
			Actions []struct {
				Description string
				Permissions []string
				Subjects    []subject
				Omitted     int
			}
		}
	}
	decode(t, json.Unmarshal, write(t, evidence.JSON, documents()["who can disable the guard"]), &document)
	who := document.WhoCanDisable
	if who == nil || len(who.Actions) != 2 || len(who.Actions[0].Subjects) != 3 || who.Actions[0].Omitted != 3 ||
		!who.Actions[0].Subjects[0].Everyone || len(who.Actions[0].Subjects[1].Grants) != 2 ||
		who.Actions[1].Subjects == nil {
		t.Errorf("JSON: %+v", who)
	}
	if text := write(t, evidence.JSON, documents()["compliant"]); bytes.Contains(text, []byte("whoCanDisable")) {
		t.Error("the JSON has whoCanDisable, though it was not asked")
	}
}

// TestTableIsPrintable: the table has no control characters, and colours do not change its
// text.
func TestTableIsPrintable(t *testing.T) {
	for name, d := range documents() {
		var coloured bytes.Buffer
		if err := evidence.Write(&coloured, evidence.Table, d, evidence.Options{Colour: true}); err != nil {
			t.Fatal(err)
		}
		plain := string(write(t, evidence.Table, d))
		if d := cmp.Diff(plain, colours.ReplaceAllString(coloured.String(), "")); d != "" {
			t.Errorf("%s: the table in colours has another text (-plain +coloured):\n%s", name, d)
		}
		if plain == coloured.String() {
			t.Errorf("%s: the table in colours has no colours", name)
		}
		for _, r := range plain {
			if r != '\n' && (r < ' ' || r == 0x7f || r == 0x202e || r == 0x2028) {
				t.Errorf("%s: the table has %U", name, r)
			}
		}
	}
}

// TestColourOfOthers: the option for colours does not change other formats.
func TestColourOfOthers(t *testing.T) {
	document := documents()["not compliant"]
	for _, format := range []evidence.Format{evidence.JSON, evidence.JUnit, evidence.SARIF, evidence.OpenReports} {
		var coloured bytes.Buffer
		if err := evidence.Write(&coloured, format, document, evidence.Options{Colour: true}); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(string(write(t, format, document)), coloured.String()); d != "" {
			t.Errorf("%s changes with colours:\n%s", formatName(t, format), d)
		}
	}
}

// TestOpenReports: each result is listed once, under the first control that it counts for, in
// an object with a valid name. (test/e2e applies such a report.)
func TestOpenReports(t *testing.T) {
	page := messages.Record(t, "results of OpenReports")
	type result struct {
		Policy, Category, Rule, Severity, Result, Message string
		Scored                                            bool
		Properties                                        map[string]string
		// The message includes the remedy.
		Remedy string `json:"-"`
	}
	const (
		cis     = "cis-ocp-1.7:1.2.4 cis-ocp-1.8:1.2.2 cis-ocp-1.9:1.2.2 cis-ocp-2.0:1.2.2"
		runbook = "https://github.com/kubelet-https-guard/kubelet-https-guard/blob/main/docs/runbook.md#"
		config  = "/etc/kubernetes/config.yaml apiServerArguments"
		title   = "Use https for kubelet connections"
	)
	cases := map[string]struct {
		document string
		rule     finding.Requirement
		want     []result
	}{
		"a pass has no reason": {"compliant", key, []result{{
			Policy: title, Category: "CIS OpenShift", Rule: "client-files/key", Result: "pass", Scored: true,
			Properties: map[string]string{"location": "/etc/kubernetes/static pod/tls.key", "controls": cis},
		}}},
		"a warning": {"with a warning", strength, []result{{
			Policy: title, Category: "CIS OpenShift", Rule: "client-files/strength", Result: "warn", Severity: "medium",
			Message: "RSA 1024", Remedy: "renew it",
			Properties: map[string]string{
				"location": certificate, "controls": cis, "reason": "WeakKey", "helpURI": runbook + "weakkey",
			},
		}}},
		"a failure of each subject": {"not compliant", validity, []result{
			{
				Policy: title, Category: "CIS OpenShift", Rule: "client-files/validity", Result: "fail", Severity: "high",
				Scored:  true,
				Message: "expired", Remedy: "renew it",
				Properties: map[string]string{
					"location": certificate, "controls": cis, "reason": "CertificateExpired",
					"helpURI": runbook + "certificateexpired",
				},
			},
			{
				Policy: title, Category: "CIS OpenShift", Rule: "client-files/validity", Result: "fail", Severity: "high",
				Scored:  true,
				Message: "expired", Remedy: "renew it",
				Properties: map[string]string{
					"location": "Secret openshift-kube-apiserver/kubelet-client tls.crt", "controls": cis,
					"reason": "CertificateExpired", "helpURI": runbook + "certificateexpired",
				},
			},
		}},
		"what could not be read, of a control of our own": {"not compliant", admission, []result{{
			Policy: "The guard is in force", Rule: "config/admission", Result: "error", Scored: true, Message: "permission " +
				"denied", Remedy: "run as root",
			Properties: map[string]string{
				"location": config, "controls": "guard-in-force", "reason": "Unreadable", "helpURI": runbook + "unreadable",
			},
		}}},
		"what nobody asked for": {"compliant", tls, []result{{
			Policy: title, Category: "CIS OpenShift", Rule: "kubelet/tls", Result: "skip", Scored: true,
			Message: "no address is set",
			Properties: map[string]string{
				"location": "Kubelet 10.0.0.1:10250", "controls": cis, "reason": "NotChecked",
				"helpURI": runbook + "notchecked",
			},
		}}},
		"what nobody asked for, and is required": {"required, but not checked", https, []result{{
			Policy: title, Category: "CIS OpenShift", Rule: "config/https", Result: "error", Scored: true,
			Message: "no --config is set",
			Properties: map[string]string{
				"location": config, "controls": cis, "reason": "NotChecked", "helpURI": runbook + "notchecked",
			},
		}}},
		"a requirement of no control": {"of no control", nobodysRule, []result{{
			Policy: "kubelet-https-guard", Rule: "nobody/requires", Result: "warn", Severity: "medium", Message: "m",
			Remedy:     "r",
			Properties: map[string]string{"location": certificate, "reason": "WeakKey", "helpURI": runbook + "weakkey"},
		}}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var report struct{ Results []result }
			decode(t, json.Unmarshal, write(t, evidence.OpenReports, documents()[c.document]), &report)
			got := slices.DeleteFunc(report.Results, func(r result) bool { return r.Rule != string(c.rule) })
			for i := range got {
				page.Text(name, got[i].Message)
				got[i].Message, got[i].Remedy, _ = strings.Cut(got[i].Message, ". ")
				_, got[i].Remedy, _ = strings.Cut(got[i].Remedy, ": ")
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
	for document, want := range map[string]string{
		"compliant": "kubelet-https-guard-node-master-0", "nothing known": "kubelet-https-guard-node", "texts with " +
			"control characters": "kubelet-https-guard-node-a--0-b",
	} {
		var report struct{ Metadata struct{ Name string } }
		decode(t, json.Unmarshal, write(t, evidence.OpenReports, documents()[document]), &report)
		if report.Metadata.Name != want {
			t.Errorf("%s: the object's name is %q, want %q", document, report.Metadata.Name, want)
		}
	}
}

// TestStricter: if several controls have the same requirement, the strictest one decides in
// JUnit and OpenReports, so that they agree with the exit code. A control that is not
// applicable does not count.
func TestStricter(t *testing.T) {
	const requirement = tls
	lenient := control.Control{
		ID:           "lenient",
		Requirements: []control.Required{{Requirement: requirement, Scopes: []control.Scope{control.Node}, Optional: true}},
	}
	strict := control.Control{
		ID:           "strict",
		Requirements: []control.Required{{Requirement: requirement, Scopes: []control.Scope{control.Node}, Strict: true}},
	}
	elsewhere := strict
	elsewhere.Platform = platform
	elsewhere.Requirements = append(
		[]control.Required{{Requirement: platform, Scopes: []control.Scope{control.Node}}},
		strict.Requirements...)
	neighbour := strict
	neighbour.Neighbour = true
	unasked := finding.Result{Requirement: requirement, Reason: finding.NotChecked, Message: "m"}
	warning := finding.Result{
		Requirement: requirement, Outcome: finding.Warn, Reason: finding.WeakKey, Message: "m", Remedy: "r",
	}
	unread := finding.Result{Requirement: requirement, Reason: finding.Unreadable, Message: "m", Remedy: "r"}

	type says struct {
		Exit           int
		JUnit, Reports string
	}
	cases := map[string]struct {
		controls []control.Control
		results  []finding.Result
		want     says
	}{
		"optional in all":                 {[]control.Control{lenient}, []finding.Result{unasked}, says{0, "skipped", "skip"}},
		"required by a neighbour":         {[]control.Control{lenient, neighbour}, []finding.Result{unasked}, says{0, "skipped", "skip"}},
		"required by the second":          {[]control.Control{lenient, strict}, []finding.Result{unasked}, says{2, "error", "error"}},
		"required by the first":           {[]control.Control{strict, lenient}, []finding.Result{unasked}, says{2, "error", "error"}},
		"required, and decided elsewhere": {[]control.Control{elsewhere, lenient}, []finding.Result{unasked}, says{4, "skipped", "skip"}},
		"a warning, for all":              {[]control.Control{lenient}, []finding.Result{warning}, says{0, "", "warn"}},
		"a warning, for a neighbour":      {[]control.Control{lenient, neighbour}, []finding.Result{warning}, says{0, "", "warn"}},
		"it fails the second":             {[]control.Control{lenient, strict}, []finding.Result{warning}, says{1, "failure", "warn"}},
		"it fails the first":              {[]control.Control{strict, lenient}, []finding.Result{warning}, says{1, "failure", "warn"}},
		"a failure outweighs an error":    {[]control.Control{lenient, strict}, []finding.Result{unread, warning}, says{1, "failure", "warn"}},
		"it would fail one elsewhere":     {[]control.Control{elsewhere, lenient}, []finding.Result{warning}, says{4, "", "warn"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			d := evidence.Document{Kind: "Node", Results: append(c.results, finding.Result{
				Requirement: platform, Outcome: finding.NotApplicable, Message: "elsewhere",
			})}
			for _, one := range c.controls {
				d.Verdicts = append(d.Verdicts, one.Judge(control.Node, d.Results))
			}
			got := says{Exit: int(d.Exit())}
			var junit struct {
				Cases []struct {
					Name     string                       `xml:"name,attr"`
					Children []struct{ XMLName xml.Name } `xml:",any"`
				} `xml:"testsuite>testcase"`
			}
			decode(t, xml.Unmarshal, write(t, evidence.JUnit, d), &junit)
			for _, one := range junit.Cases {
				if one.Name == string(requirement) && len(one.Children) > 0 {
					got.JUnit = one.Children[0].XMLName.Local
				}
			}
			var report struct {
				Results []struct{ Rule, Result string }
			}
			decode(t, json.Unmarshal, write(t, evidence.OpenReports, d), &report)
			for _, one := range report.Results {
				if one.Rule == string(requirement) {
					got.Reports = one.Result
				}
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

// TestJSON: the document has each control with its numbers and the outcome of each of its
// requirements, and each finding names its controls.
func TestJSON(t *testing.T) {
	type requirement struct {
		ID, Outcome   string
		Optional, Met bool
		Reasons       []string
	}
	type found struct {
		Reason, Severity, Outcome, Requirement, Location string
		Subject                                          finding.Subject
		Controls                                         []string
	}
	var document struct {
		Control struct {
			Title string
			IDs   []string
		}
		Controls []struct {
			ID, Scope    string
			Neighbour    bool
			References   []struct{ Version, Number string }
			Mappings     []struct{ Framework string }
			Requirements []requirement
		}
		Findings []found
	}
	decode(t, json.Unmarshal, write(t, evidence.JSON, documents()["could not verify"]), &document)
	own := document.Controls[0]
	if d := cmp.Diff([]requirement{
		{ID: "platform/control-plane", Outcome: "pass", Met: true, Reasons: []string{}},
		{ID: "config/readable", Outcome: "unknown", Reasons: []string{"Unreadable"}},
		{ID: "config/https", Outcome: "unknown", Reasons: []string{"Unreadable"}},
		{ID: "config/certificate-authority", Outcome: "pass", Met: true, Reasons: []string{}},
		{ID: "client-files/key", Outcome: "pass", Met: true, Reasons: []string{}},
		{ID: "client-files/validity", Outcome: "pass", Met: true, Reasons: []string{}},
		{ID: "client-files/strength", Outcome: "warn", Met: true, Reasons: []string{"WeakKey"}},
		{ID: "kubelet/tls", Outcome: "unknown", Optional: true, Met: true, Reasons: []string{"NotChecked"}},
	}, own.Requirements); d != "" {
		t.Errorf("requirements (-want +got):\n%s", d)
	}
	config := finding.Subject{Kind: "File", Path: "/etc/kubernetes/config.yaml", Key: "apiServerArguments"}
	if d := cmp.Diff([]found{
		{
			Reason: "Unreadable", Severity: "Unverified", Outcome: "unknown", Requirement: "config/readable",
			Location: config.String(), Subject: config,
			Controls: []string{"use-https", "guard-in-force"},
		},
		{
			Reason: "WeakKey", Severity: "Warning", Outcome: "warn", Requirement: "client-files/strength", Location: certificate,
			Subject: finding.File(certificate), Controls: []string{"use-https"},
		},
	}, document.Findings); d != "" {
		t.Errorf("findings (-want +got):\n%s", d)
	}
	want := control.ByID(control.UseHTTPS)
	if d := cmp.Diff([]any{want.Title, want.RefIDs()}, []any{document.Control.Title, document.Control.IDs}); d != "" {
		t.Errorf("the document's control (-want +got):\n%s", d)
	}
	if own.ID != want.ID || own.Scope != "node" || own.Neighbour || len(own.References) != len(want.Refs) ||
		len(own.Mappings) != len(want.Mappings) {
		t.Errorf("the first control is %+v", own)
	}
	if second := document.Controls[1]; second.ID != control.KubeletCA || !second.Neighbour {
		t.Errorf("the second control is %+v", second)
	}
}

// TestWriteChangesNothing: Write does not change the caller's document.
func TestWriteChangesNothing(t *testing.T) {
	for name, d := range documents() {
		before := fmt.Sprintf("%+v", d)
		write(t, evidence.JSON, d)
		if d := cmp.Diff(before, fmt.Sprintf("%+v", d)); d != "" {
			t.Errorf("%s (-before +after):\n%s", name, d)
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
		t.Error("the format yaml is accepted")
	}
}

var errFull = errors.New("no space left on device")

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errFull }

// TestFull: Write returns the error of a full disk.
func TestFull(t *testing.T) {
	for _, format := range []evidence.Format{evidence.Table, evidence.JSON, evidence.JUnit, evidence.SARIF,
		evidence.OpenReports} {
		if err := evidence.Write(full{}, format, documents()["compliant"], evidence.Options{}); !errors.Is(err, errFull) {
			t.Errorf("%s: got %v", formatName(t, format), err)
		}
	}
}
