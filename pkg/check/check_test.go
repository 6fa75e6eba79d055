// SPDX-License-Identifier: Apache-2.0

package check_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/control"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/messages"
)

// fixture has a subject to check, as part of a family, and the expected results.
type fixture struct {
	results func(family finding.Family) []finding.Result
	// want are the results other than pass, each "aspect outcome reason @ subject". If it is
	// empty, all pass. wantOf has the results of families that differ.
	want   []string
	wantOf map[finding.Family][]string
	// mentions is a value that the first message must contain. (The whole sentence is in
	// docs/messages.md.)
	mentions string
}

// kind is a type of subject.
type kind struct {
	families []finding.Family
	// aspects that the checks of the subject answer.
	aspects  string
	fixtures map[string]fixture
}

const (
	pairAspects   = "certificate key chain pair validity usage strength certificate-only issuer"
	secretAspects = "exists type " + pairAspects + " dns-names renewal identity"
	filesAspects  = pairAspects + " key-file-mode identity"
	configAspects = "readable client-certificate client-key https certificate-authority read-only-port admission"
)

var secretFamilies = []finding.Family{finding.ServingCert, finding.KubeletClient, finding.AddedSecret}

func kinds() map[string]kind {
	only := func(family finding.Family) []finding.Family { return []finding.Family{family} }
	return map[string]kind{
		"pair":      {append(only(finding.ClientFiles), secretFamilies...), pairAspects, pairFixtures()},
		"secret":    {secretFamilies, secretAspects, secretFixtures()},
		"rotated":   {only(finding.KubeletClient), secretAspects, rotatedFixtures()},
		"service":   {secretFamilies, "service", serviceFixtures()},
		"served":    {servedFamilies, "served", servedFixtures()},
		"key":       {secretFamilies, "configured-key", configuredKeyFixtures()},
		"files":     {only(finding.ClientFiles), filesAspects, filesFixtures()},
		"manifest":  {only(finding.Manifest), "readable single", manifestFixtures()},
		"config":    {only(finding.Config), configAspects, configFixtures()},
		"kubelet":   {only(finding.Kubelet), "tls serving-trusted client-accepted connection read-only-port", kubeletFixtures()},
		"kubelets":  {only(finding.NodeKubelet), nodeKubeletAspects, nodeKubeletFixtures()},
		"platform":  {only(finding.Platform), "control-plane", platformFixtures()},
		"override":  {only(finding.Overrides), "kubelet-arguments admission", overrideFixtures()},
		"guard":     {only(finding.Guard), "installed", guardFixtures()},
		"selection": {only(finding.AddedSecret), "selected", selectionFixtures()},
		"action":    {only(finding.Guard), "action", actionFixtures()},
		"effect":    {only(finding.Guard), "policy-refuses webhook-asked", effectFixtures()},
	}
}

// TestCatalogue runs every fixture. At least one fixture must give each reason of each
// requirement, and each requirement must pass in at least one.
func TestCatalogue(t *testing.T) {
	type answer struct {
		requirement finding.Requirement
		reason      finding.Reason // empty for a pass
	}
	page := messages.Record(t, "findings of package check")
	given := map[answer]bool{}
	for kindName, k := range kinds() {
		for name, f := range k.fixtures {
			for _, family := range k.families {
				t.Run(strings.Join([]string{kindName, string(family), name}, "/"), func(t *testing.T) {
					results := f.results(family)
					assertComplete(t, results, family, k.aspects)
					for _, r := range results {
						given[answer{r.Requirement, r.Reason}] = true
						if r.Message != because(r.Reason).Message { // which is a text of the test
							page.Finding(r)
						}
					}
					got := notPassed(results)
					want := f.want
					if differs, ok := f.wantOf[family]; ok {
						want = differs
					}
					if d := cmp.Diff(slices.Sorted(slices.Values(want)), slices.Sorted(slices.Values(lines(got, family)))); d != "" {
						t.Errorf("results other than pass (-want +got):\n%s", d)
					}
					if f.mentions != "" && (len(got) == 0 || !strings.Contains(got[0].Message, f.mentions)) {
						t.Errorf("the message of the first of these does not mention %q:\n%q", f.mentions, texts(got))
					}
				})
			}
		}
	}
	for _, known := range check.Catalogue() {
		if !given[answer{known.Requirement, ""}] {
			t.Errorf("%s: no passing fixture", known.Requirement)
		}
		for _, reason := range known.Reasons {
			if !given[answer{known.Requirement, reason}] {
				t.Errorf("%s: no fixture with %s", known.Requirement, reason)
			}
		}
	}
}

// TestPassesAt checks the subject of each pass.
func TestPassesAt(t *testing.T) {
	at := map[finding.Family][]string{
		finding.Platform:      {"control-plane @ Infrastructure cluster"},
		finding.Manifest:      {"readable @ /etc/kubernetes/manifests/kube-apiserver-pod.yaml", "single @ /etc/kubernetes/manifests/kube-apiserver-pod.yaml"},
		finding.ServingCert:   append(passesOfSecret(), "served @ Secret"),
		finding.KubeletClient: passesOfSecret(),
		finding.AddedSecret:   append(passesOfSecret(), "served @ Secret", "selected @ Secret a"),
		finding.Config: {
			"readable @ /config.yaml", "client-certificate @ /config.yaml kubelet-client-certificate",
			"client-key @ /config.yaml kubelet-client-key", "https @ /config.yaml kubelet-https",
			"certificate-authority @ /config.yaml kubelet-certificate-authority",
			"read-only-port @ /config.yaml kubelet-read-only-port", "admission @ /config.yaml",
		},
		finding.ClientFiles: {
			"certificate @ /c/tls.crt", "key @ /c/tls.key", "chain @ /c/tls.crt", "pair @ /c/tls.key",
			"validity @ /c/tls.crt", "usage @ /c/tls.crt", "strength @ /c/tls.crt", "certificate-only @ /c/tls.crt",
			"issuer @ /c/tls.crt",
			"key-file-mode @ /c/tls.key", "identity @ /c/tls.crt",
		},
		finding.Kubelet: {
			"tls @ Kubelet 192.0.2.7:10250", "serving-trusted @ Kubelet 192.0.2.7:10250",
			"client-accepted @ Kubelet 192.0.2.7:10250", "connection @ Kubelet 192.0.2.7:10250",
			"read-only-port @ Kubelet 192.0.2.7:10255",
		},
		finding.NodeKubelet: {
			"tls @ Node worker-1", "serving-trusted @ Node worker-1", "client-requested @ Node worker-1", "identity @ Node worker-1",
			"read-only-port @ Node worker-1",
		},
		finding.Overrides: {
			"kubelet-arguments @ KubeAPIServer cluster spec.unsupportedConfigOverrides",
			"admission @ KubeAPIServer cluster spec.unsupportedConfigOverrides",
		},
		finding.Guard: {
			"installed @ ValidatingWebhookConfiguration guard", "action @ Secret shop/till",
			"policy-refuses @ APIServer 192.0.2.1:6443 ValidatingAdmissionPolicy",
			"webhook-asked @ APIServer 192.0.2.1:6443 ValidatingAdmissionWebhook",
		},
	}
	good := map[string]string{
		"secret": "as service-ca writes it", "service": "requests it", "served": "all serve it", "key": "RSA as configured", "files": "good", "manifest": "read", "config": "good",
		"kubelet": "good", "platform": "in this cluster", "override": "nothing", "guard": "as installed", "action": "Deny",
		"effect": "both refuse", "selection": "all selected", "kubelets": "good",
	}
	all := kinds()
	got := map[finding.Family][]string{}
	for kindName, name := range good {
		for _, family := range all[kindName].families {
			for _, r := range all[kindName].fixtures[name].results(family) {
				if r.Outcome == finding.Pass {
					got[family] = append(got[family], string(r.Requirement.Aspect())+" @ "+subject(r, family))
				}
			}
		}
	}
	for family, want := range at {
		slices.Sort(want)
		slices.Sort(got[family])
		if d := cmp.Diff(want, got[family]); d != "" {
			t.Errorf("%s passes at (-want +got):\n%s", family, d)
		}
	}
}

func passesOfSecret() []string {
	all := []string{
		"exists @ Secret", "type @ Secret type", "renewal @ Secret metadata", "service @ Service api",
		"key @ Secret tls.key", "pair @ Secret tls.key", "configured-key @ Secret tls.crt",
	}
	const ofCertificate = "certificate chain validity usage strength certificate-only issuer dns-names identity"
	for aspect := range strings.FieldsSeq(ofCertificate) {
		all = append(all, aspect+" @ Secret tls.crt")
	}
	return all
}

// assertComplete checks that the results answer exactly the aspects, and that each result has its reason, subject,
// message and remedy.
func assertComplete(t *testing.T, results []finding.Result, family finding.Family, aspects string) {
	t.Helper()
	answered := map[finding.Requirement]bool{}
	for _, r := range results {
		answered[r.Requirement] = true
		own := slices.Contains(check.Reasons(r.Requirement), r.Reason)
		switch r.Outcome {
		case finding.Pass:
			messageAllowed := r.Message == "" || family == finding.Guard || strings.HasPrefix(r.Message, "assuming that ")
			if r.Subject == (finding.Subject{}) || r.Reason != "" || !messageAllowed || r.Remedy != "" {
				t.Fatalf("a pass must have a subject, and only an assumption for a message: %+v", r)
			}
		case finding.NotApplicable:
			if r.Reason != "" || r.Message == "" {
				t.Fatalf("a result that is not applicable must have a message and no reason: %+v", r)
			}
		case finding.Warn, finding.Fail:
			if !own || r.Reason.Outcome() != r.Outcome {
				t.Fatalf("the requirement does not have this reason, or the reason has another outcome: %+v", r)
			}
			fallthrough
		case finding.Unknown:
			if r.Subject == (finding.Subject{}) || !slices.Contains(finding.Reasons(), r.Reason) || r.Message == "" ||
				r.Remedy == "" {
				t.Fatalf("reason, subject, message or remedy is missing: %+v", r)
			}
			if strings.ContainsAny(r.Message+r.Remedy, "\n\r") {
				t.Fatalf("message and remedy must be one line each: %+v", r)
			}
		}
	}
	want := map[finding.Requirement]bool{}
	for aspect := range strings.FieldsSeq(aspects) {
		want[family.Requires(finding.Aspect(aspect))] = true
	}
	if d := cmp.Diff(want, answered); d != "" {
		t.Fatalf("requirements that are answered (-want +got):\n%s", d)
	}
}

func notPassed(results []finding.Result) []finding.Result {
	return slices.DeleteFunc(slices.Clone(results), func(r finding.Result) bool { return r.Outcome == finding.Pass })
}

func lines(results []finding.Result, family finding.Family) []string {
	var lines []string
	for _, r := range results {
		lines = append(lines, fmt.Sprintf("%s %s %s @ %s", r.Requirement.Aspect(), r.Outcome, r.Reason, subject(r, family)))
	}
	return lines
}

// subject returns the subject of a result. It omits the names of a protected Secret and its
// Service, which differ by family.
func subject(r finding.Result, family finding.Family) string {
	want := expected(family)
	return strings.NewReplacer(
		"Secret "+want.Namespace+"/"+want.Name, "Secret", "Service "+want.Namespace+"/", "Service ",
	).Replace(r.Subject.String())
}

func texts(results []finding.Result) []string {
	var texts []string
	for _, r := range results {
		texts = append(texts, r.Message)
	}
	return texts
}

// unknown returns the lines of aspects that are unknown for the same reason, "Reason @ subject".
func unknown(aspects, why string) []string {
	var lines []string
	for aspect := range strings.FieldsSeq(aspects) {
		lines = append(lines, aspect+" unknown "+why)
	}
	return lines
}

// because returns a result that makes other results unknown.
func because(reason finding.Reason) *finding.Result {
	return &finding.Result{
		Requirement: "other/requirement", Subject: finding.File("/why"), Outcome: reason.Outcome(), Reason: reason,
		Message: "it was not seen", Remedy: "look again",
	}
}

// TestNeeds: checks run after the checks that they need, in the same family, and one check
// answers each requirement.
func TestNeeds(t *testing.T) {
	before := map[finding.Requirement]bool{}
	for _, known := range check.Catalogue() {
		for _, needed := range known.Needs {
			if !before[needed] {
				t.Errorf("%s needs %s, which no earlier check of its family answers", known.Requirement, needed)
			}
		}
		if before[known.Requirement] {
			t.Errorf("%s is answered by two checks", known.Requirement)
		}
		before[known.Requirement] = true
	}
}

// TestControls: a check answers every requirement of a control, every check belongs to a
// control, and every reason belongs to a check.
func TestControls(t *testing.T) {
	required, answered := map[finding.Requirement]bool{}, map[finding.Requirement]bool{}
	for _, c := range control.Table() {
		for _, r := range c.Requirements {
			required[r.Requirement] = true
		}
	}
	given := map[finding.Reason]bool{}
	for _, known := range check.Catalogue() {
		answered[known.Requirement] = true
		for _, reason := range known.Reasons {
			given[reason] = true
			if !slices.Contains(finding.Reasons(), reason) {
				t.Errorf("%s: %s is not in the table of reasons", known.Requirement, reason)
			}
		}
	}
	if d := cmp.Diff(required, answered); d != "" {
		t.Errorf("requirements of controls (-) and of checks (+):\n%s", d)
	}
	for _, reason := range finding.Reasons() {
		if !given[reason] {
			t.Errorf("%s: no check gives this reason", reason)
		}
	}
}

// TestOneFinding: results that are unknown because of one problem are one finding.
func TestOneFinding(t *testing.T) {
	good := pkitest.NewCA("signer").Issue(pkitest.KubeletClient())
	cases := map[string]struct {
		results func(finding.Family) []finding.Result
		family  finding.Family
		want    []string
	}{
		"a file that cannot be read": {
			func(finding.Family) []finding.Result {
				return clientFiles(check.File{WhyUnknown: because(finding.Unreadable)},
					check.File{WhyUnknown: because(finding.Unreadable)}, file("/ca.crt", good.Certificate))
			}, finding.ClientFiles,
			[]string{"certificate unknown Unreadable @ /why"},
		},
		"no certificate": {pairFixtures()["white space"].results, finding.ClientFiles, []string{"certificate fail CertificateMissing @ /crt"}},
		"no Secret":      {secretFixtures()["not there"].results, finding.ServingCert, []string{"exists fail SecretMissing @ Secret"}},
		"configuration not configured to be checked": {
			func(finding.Family) []finding.Result {
				return configured(check.Configuration{WhyUnknown: because(finding.NotChecked)})
			}, finding.Config, nil,
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if d := cmp.Diff(c.want, lines(finding.Findings(c.results(c.family)), c.family)); d != "" {
				t.Errorf("findings (-want +got):\n%s", d)
			}
		})
	}
}

// TestCheckedReasons: the reasons of a requirement do not count as checked for if it could not be
// observed, fails, or does not apply.
func TestCheckedReasons(t *testing.T) {
	const (
		notAccepted, untrusted = "ClientCertificateNotAccepted", "KubeletCertificateUntrusted"
		notTLS, open           = "KubeletHasNoCertificate KubeletNotTLS", "ReadOnlyPortOpen"
	)
	all := kubeletFixtures()
	looked := func(t *testing.T, want string, fixtures ...string) {
		t.Helper()
		var results []finding.Result
		for _, name := range fixtures {
			results = append(results, all[name].results(finding.Kubelet)...)
		}
		// Only one of these cases is about the connection, whose reasons those of other requirements include.
		if !slices.Equal(fixtures, []string{"good", "connection, forbidden"}) {
			results = slices.DeleteFunc(results,
				func(r finding.Result) bool { return r.Requirement == finding.Kubelet.Requires(finding.Connection) })
		}
		var got []string
		for _, reason := range check.CheckedReasons(results) {
			got = append(got, string(reason))
		}
		if d := cmp.Diff(want, strings.Join(got, " ")); d != "" {
			t.Errorf("(-want +got):\n%s", d)
		}
	}
	join := func(reasons ...string) string { return strings.Join(reasons, " ") }
	everything := join("AlgorithmUnsupported", notAccepted, untrusted, notTLS, open)
	for name, want := range map[string]string{
		"good":                    everything,
		"no client certificate":   everything, // the kube-apiserver has one
		"no CA configured":        join(notAccepted, notTLS, open),
		"CA bundle forbidden":     join(notAccepted, notTLS, open),
		"knows another client CA": everything, // it accepts the certificate
		"read-only port open":     everything, // a warning only
		"no TLS":                  open,
		"nothing answers":         "",
		"not checked":             "",
	} {
		t.Run(name, func(t *testing.T) { looked(t, want, name) })
	}
	t.Run("one of two subjects is unknown", func(t *testing.T) { looked(t, "", "good", "has not answered yet") })
	t.Run("a connection that works, and one that is forbidden", func(t *testing.T) {
		looked(t, everything, "good", "connection, forbidden")
	})
	t.Run("one of two subjects was not checked", func(t *testing.T) { looked(t, everything, "good", "not checked") })
}

// TestUncertain: nothing passes, and findings stay.
func TestUncertain(t *testing.T) {
	results := []finding.Result{
		{Requirement: "a/pass", Subject: finding.File("/a"), Outcome: finding.Pass},
		{Requirement: "a/none", Subject: finding.File("/a"), Outcome: finding.NotApplicable, Message: "why"},
		{Requirement: "a/warn", Subject: finding.File("/a"), Outcome: finding.Warn, Reason: finding.WeakKey, Message: "m", Remedy: "r"},
		{Requirement: "a/fail", Subject: finding.File("/a"), Outcome: finding.Fail, Reason: finding.KeyMismatch, Message: "m", Remedy: "r"},
		{Requirement: "a/unknown", Subject: finding.File("/a"), Reason: finding.StaleMount, Message: "m", Remedy: "r"},
	}
	cases := map[string]struct {
		got  []finding.Result
		want []string
	}{
		"Uncertain": {check.Uncertain(results, *because(finding.ManifestMissing)), []string{
			"pass unknown ManifestMissing @ /why", "none unknown ManifestMissing @ /why",
			"warn warn WeakKey @ /a", "warn unknown ManifestMissing @ /why",
			"fail fail KeyMismatch @ /a", "fail unknown ManifestMissing @ /why",
			"unknown unknown StaleMount @ /a",
		}},
		"AllUnknown": {check.AllUnknown(results, *because(finding.KeyMissing)), unknown("pass none warn fail unknown", "KeyMissing @ /why")},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if d := cmp.Diff(c.want, lines(c.got, "a")); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}
