// SPDX-License-Identifier: Apache-2.0

package control_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"slices"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/control"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// The control of these tests, and its requirements.
const (
	platform = finding.Requirement("platform/control-plane")
	needed   = finding.Requirement("config/https")
	strict   = finding.Requirement("config/certificate-authority")
	optional = finding.Requirement("kubelet/tls")
	ofNodes  = finding.Requirement("node-kubelet/tls")
)

func example() control.Control {
	node := []control.Scope{control.Node}
	return control.Control{
		ID: "example", Platform: platform,
		Requirements: []control.Required{
			{Requirement: platform, Scopes: node},
			{Requirement: needed, Scopes: node},
			{Requirement: strict, Scopes: node, Strict: true},
			{Requirement: optional, Scopes: node, Optional: true},
			{Requirement: ofNodes, Scopes: node, Optional: true, Supplementary: true, ObservedOnce: true},
			{Requirement: "guard/installed", Scopes: []control.Scope{control.Cluster}},
		},
	}
}

func result(r finding.Requirement, o finding.Outcome, reason finding.Reason) finding.Result {
	return finding.Result{Requirement: r, Outcome: o, Reason: reason}
}

func pass(requirements ...finding.Requirement) []finding.Result {
	var results []finding.Result
	for _, r := range requirements {
		results = append(results, result(r, finding.Pass, ""))
	}
	return results
}

// TestJudge: the first of these that applies is the verdict: control plane elsewhere, failed,
// not observed, not applicable, compliant.
func TestJudge(t *testing.T) {
	allPass := pass(platform, needed, strict, optional, ofNodes)
	// with replaces the results of the given requirements.
	with := func(results ...finding.Result) []finding.Result {
		rest := slices.DeleteFunc(slices.Clone(allPass), func(old finding.Result) bool {
			return slices.ContainsFunc(results, func(r finding.Result) bool { return r.Requirement == old.Requirement })
		})
		return append(rest, results...)
	}
	without := func(r finding.Requirement) []finding.Result {
		return slices.DeleteFunc(slices.Clone(allPass), func(old finding.Result) bool { return old.Requirement == r })
	}
	elsewhere := result(platform, finding.NotApplicable, "")
	failed := result(needed, finding.Fail, finding.KubeletHTTPSDisabled)
	unread := result(needed, finding.Unknown, finding.Unreadable)
	unasked := result(optional, finding.Unknown, finding.NotChecked)

	type want struct {
		Status control.Status
		Unmet  []finding.Requirement
	}
	cases := map[string]struct {
		results []finding.Result
		want    want
	}{
		"all was observed": {results: allPass, want: want{Status: control.Compliant}},
		"control plane elsewhere, whatever else was observed": {
			results: with(elsewhere, failed), want: want{Status: control.NotApplicable, Unmet: []finding.Requirement{needed}},
		},
		"location of the control plane not known": {
			results: with(result(platform, finding.Unknown, finding.Unreadable)), want: want{Unmet: []finding.Requirement{platform}},
		},
		"a failure outweighs what was not observed": {
			results: with(failed, result(strict, finding.Unknown, finding.Unreadable)),
			want:    want{Status: control.NotCompliant, Unmet: []finding.Requirement{needed, strict}},
		},
		"one subject of many fails": {
			results: append(with(), failed), want: want{Status: control.NotCompliant, Unmet: []finding.Requirement{needed}},
		},
		"one subject of many was not observed": {
			results: append(with(), unread), want: want{Unmet: []finding.Requirement{needed}},
		},
		"not observed":    {results: with(unread), want: want{Unmet: []finding.Requirement{needed}}},
		"no result":       {results: without(needed), want: want{Unmet: []finding.Requirement{needed}}},
		"no results":      {want: want{Unmet: []finding.Requirement{platform, needed, strict, optional, ofNodes}}},
		"an empty result": {results: with(finding.Result{Requirement: needed}), want: want{Unmet: []finding.Requirement{needed}}},
		"a required one that was not configured": {
			results: with(result(needed, finding.Unknown, finding.NotChecked)), want: want{Unmet: []finding.Requirement{needed}},
		},
		"an optional one that was not configured":    {results: with(unasked), want: want{Status: control.Compliant}},
		"an optional one without a result":           {results: without(optional), want: want{Unmet: []finding.Requirement{optional}}},
		"an optional one that could not be observed": {results: with(result(optional, finding.Unknown, finding.KubeletUnreachable)), want: want{Unmet: []finding.Requirement{optional}}},
		"an optional one that was not observed yet":  {results: with(result(optional, finding.Unknown, finding.NotObserved)), want: want{Unmet: []finding.Requirement{optional}}},
		"an optional one, not configured for one subject and not observed for another": {
			results: with(unasked, result(optional, finding.Unknown, finding.KubeletUnreachable)), want: want{Unmet: []finding.Requirement{optional}},
		},
		"an optional one, not observed for one subject and not configured for another": {
			results: with(result(optional, finding.Unknown, finding.KubeletUnreachable), unasked), want: want{Unmet: []finding.Requirement{optional}},
		},
		"an optional one that fails": {
			results: with(result(optional, finding.Fail, finding.KubeletNotTLS)),
			want:    want{Status: control.NotCompliant, Unmet: []finding.Requirement{optional}},
		},
		"a supplementary one that could not be observed for any subject": {
			results: with(result(ofNodes, finding.Unknown, finding.KubeletUnreachable)),
			want:    want{Unmet: []finding.Requirement{ofNodes}},
		},
		"a supplementary one that was not configured": {
			results: with(result(ofNodes, finding.Unknown, finding.NotChecked)), want: want{Status: control.Compliant},
		},
		"a supplementary one, not configured for one subject and not observed for another": {
			results: with(result(ofNodes, finding.Unknown, finding.NotChecked),
				result(ofNodes, finding.Unknown, finding.KubeletUnreachable)),
			want: want{Unmet: []finding.Requirement{ofNodes}},
		},
		"a supplementary one that passes for one subject and could not be observed for another": {
			results: append(with(), result(ofNodes, finding.Unknown, finding.KubeletUnreachable)),
			want:    want{Status: control.Compliant},
		},
		"a supplementary one that does not apply to one subject and could not be observed for another": {
			results: with(result(ofNodes, finding.NotApplicable, ""),
				result(ofNodes, finding.Unknown, finding.KubeletUnreachable)),
			want: want{Unmet: []finding.Requirement{ofNodes}},
		},
		"a supplementary one that does not apply to any subject": {
			results: with(result(ofNodes, finding.NotApplicable, "")), want: want{Status: control.Compliant},
		},
		"a supplementary one without a result": {
			results: without(ofNodes), want: want{Unmet: []finding.Requirement{ofNodes}},
		},
		"a supplementary one that fails for one subject": {
			results: append(with(result(ofNodes, finding.Unknown, finding.KubeletUnreachable)),
				result(ofNodes, finding.Fail, finding.KubeletNotTLS)),
			want: want{Status: control.NotCompliant, Unmet: []finding.Requirement{ofNodes}},
		},
		"a warning leaves it compliant": {results: with(result(needed, finding.Warn, finding.WeakKey)), want: want{Status: control.Compliant}},
		"a warning fails a strict one": {
			results: with(result(strict, finding.Warn, finding.KubeletCANotConfigured)),
			want:    want{Status: control.NotCompliant, Unmet: []finding.Requirement{strict}},
		},
		"one that does not apply": {results: with(result(needed, finding.NotApplicable, "")), want: want{Status: control.Compliant}},
		"nothing applies": {
			results: []finding.Result{
				elsewhere, result(needed, finding.NotApplicable, ""), result(strict, finding.NotApplicable, ""),
				result(optional, finding.NotApplicable, ""), result(ofNodes, finding.NotApplicable, ""),
			},
			want: want{Status: control.NotApplicable},
		},
		"results of other controls are ignored": {
			results: append(with(), result("guard/installed", finding.Fail, finding.GuardMissing), result("x/y", finding.Unknown, "")),
			want:    want{Status: control.Compliant},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			verdict := example().Judge(control.Node, c.results)
			got := want{Status: verdict.Status}
			for _, a := range verdict.Unmet() {
				got.Unmet = append(got.Unmet, a.Requirement)
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("Judge (-want +got):\n%s", d)
			}
			if len(verdict.Answers) != 5 {
				t.Errorf("it answers %d requirements, the scope has 5", len(verdict.Answers))
			}
		})
	}
}

// TestNothingApplies: a control without a platform is not applicable, and not compliant, if none
// of its requirements applies.
func TestNothingApplies(t *testing.T) {
	c := example()
	c.Platform = ""
	var results []finding.Result
	for _, r := range c.Requirements {
		results = append(results, result(r.Requirement, finding.NotApplicable, ""))
	}
	if got := c.Judge(control.Node, results).Status; got != control.NotApplicable {
		t.Errorf("got %q", got)
	}
}

// TestKubeletCA: the same result is a warning for one control and a failure for another.
func TestKubeletCA(t *testing.T) {
	for id, want := range map[string]control.Status{
		control.UseHTTPS: control.Compliant, control.ClientPair: control.Compliant, control.KubeletCA: control.NotCompliant,
	} {
		c := control.ByID(id)
		results := slices.DeleteFunc(allPass(c, control.Node), func(r finding.Result) bool {
			return r.Requirement == finding.Config.Requires(finding.CertificateAuthority)
		})
		results = append(
			results,
			result(finding.Config.Requires(finding.CertificateAuthority), finding.KubeletCANotConfigured.Outcome(),
				finding.KubeletCANotConfigured),
		)
		if got := c.Judge(control.Node, results).Status; got != want {
			t.Errorf("%s: got %q, want %q", id, got, want)
		}
	}
}

// allPass returns results by which all requirements of the control in the scope pass.
func allPass(c control.Control, scope control.Scope) []finding.Result {
	var results []finding.Result
	for _, r := range c.Requirements {
		if r.In(scope) {
			results = append(results, pass(r.Requirement)...)
		}
	}
	return results
}

// TestMutationOfObservation removes the observation of each requirement of each control, one at
// a time. The verdict is then not compliant, except for an optional requirement that is not
// configured to be checked.
func TestMutationOfObservation(t *testing.T) {
	const unasked, unanswered = "nobody asked", "no result"
	mutations := map[string][]finding.Result{
		unanswered:             nil,
		"unreadable":           {{Reason: finding.Unreadable}},
		unasked:                {{Reason: finding.NotChecked}},
		"unreadable elsewhere": {{Outcome: finding.Pass}, {Reason: finding.Unreadable}},
		"not observed yet":     {{Outcome: finding.Pass}, {Reason: finding.NotObserved}},
	}
	for _, c := range control.Table() {
		for _, scope := range []control.Scope{control.Node, control.Cluster} {
			base := allPass(c, scope)
			want := control.Compliant
			if len(base) == 0 {
				want = control.CouldNotVerify
			}
			if got := c.Judge(scope, base).Status; got != want {
				t.Errorf("%s in the scope %s: all passes, and it is %q, want %q", c.ID, scope, got, want)
			}
			for _, required := range c.Requirements {
				if !required.In(scope) {
					continue
				}
				for name, mutation := range mutations {
					results := slices.DeleteFunc(slices.Clone(base),
						func(r finding.Result) bool { return r.Requirement == required.Requirement })
					for _, r := range mutation {
						r.Requirement = required.Requirement
						results = append(results, r)
					}
					want := control.CouldNotVerify
					observed := slices.ContainsFunc(mutation, finding.Result.Observed)
					accepted := required.Supplementary && (observed || !required.ObservedOnce && len(mutation) > 0)
					if required.Optional && name == unasked || accepted {
						want = control.Compliant
					}
					if got := c.Judge(scope, results).Status; got != want {
						t.Errorf("%s in the scope %s, %s, %s: got %q, want %q", c.ID, scope, required.Requirement, name, got, want)
					}
				}
			}
		}
	}
}

// TestTable: the table is complete.
func TestTable(t *testing.T) {
	families, aspects := constants(t, "Family"), constants(t, "Aspect")
	usedFamilies, usedAspects := map[string]bool{}, map[string]bool{}
	ids := map[string]bool{}
	for _, c := range control.Table() {
		if c.ID == "" || c.Title == "" || c.Automated == "" || c.LeftToTheAuditor == "" || ids[c.ID] {
			t.Errorf("%q: the ID is not unique, or a text is missing", c.ID)
		}
		ids[c.ID] = true
		if control.ByID(c.ID).Title != c.Title {
			t.Errorf("%s: ByID gives another control", c.ID)
		}
		if len(c.Requirements) == 0 {
			t.Errorf("%s requires nothing", c.ID)
		}
		if c.Platform != "" &&
			!slices.ContainsFunc(c.Requirements, func(r control.Required) bool { return r.Requirement == c.Platform }) {
			t.Errorf("%s: %s says where it applies and is not required", c.ID, c.Platform)
		}
		type key struct {
			requirement finding.Requirement
			scope       control.Scope
		}
		seen := map[key]bool{}
		for _, r := range c.Requirements {
			family, aspect := r.Family(), r.Aspect()
			usedFamilies[string(family)], usedAspects[string(aspect)] = true, true
			if family.Requires(aspect) != r.Requirement || !slices.Contains(families, string(family)) ||
				!slices.Contains(aspects, string(aspect)) {
				t.Errorf("%s: %q is not a known family and aspect", c.ID, r.Requirement)
			}
			if len(r.Scopes) == 0 {
				t.Errorf("%s: %s belongs to no scope", c.ID, r.Requirement)
			}
			for _, scope := range r.Scopes {
				k := key{r.Requirement, scope}
				if seen[k] {
					t.Errorf("%s: %s is required twice in the scope %s", c.ID, r.Requirement, scope)
				}
				seen[k] = true
			}
			if of, ok := control.Of(r.Requirement); !ok || !ids[of.ID] {
				t.Errorf("%s: Of gives %q, %v", r.Requirement, of.ID, ok)
			}
		}
	}
	if d := cmp.Diff(families, slices.Sorted(maps.Keys(usedFamilies))); d != "" {
		t.Errorf("families (-constants +required by a control):\n%s", d)
	}
	if d := cmp.Diff(aspects, slices.Sorted(maps.Keys(usedAspects))); d != "" {
		t.Errorf("aspects (-constants +required by a control):\n%s", d)
	}
}

// constants returns the values of package finding's constants of a type, sorted.
func constants(t *testing.T, of string) []string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "../finding/requirement.go", nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	var values []string
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if name, ok := spec.Type.(*ast.Ident); !ok || name.Name != of {
			return false
		}
		for _, value := range spec.Values {
			text, err := strconv.Unquote(value.(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			values = append(values, text)
		}
		return false
	})
	slices.Sort(values)
	return values
}

func TestOf(t *testing.T) {
	for requirement, want := range map[finding.Requirement]string{
		"client-files/pair":              control.UseHTTPS,
		"client-files/key-file-mode":     control.UseHTTPS,
		"config/certificate-authority":   control.UseHTTPS,
		"config/admission":               control.GuardInForce,
		"protected-secret/pair":          control.ProtectedSecrets,
		"nobody/requires":                "",
		finding.Requirement("not-a-one"): "",
	} {
		if got, ok := control.Of(requirement); got.ID != want || ok != (want != "") {
			t.Errorf("%s: got %q, %v, want %q", requirement, got.ID, ok, want)
		}
	}
}

func TestWorst(t *testing.T) {
	of := func(s control.Status) control.Verdict { return control.Verdict{Status: s} }
	neighbour := of(control.NotCompliant)
	neighbour.Control.Neighbour = true
	cases := map[string]struct {
		verdicts []control.Verdict
		want     control.Status
	}{
		"none":                               {want: control.CouldNotVerify},
		"neighbours alone":                   {verdicts: []control.Verdict{neighbour}, want: control.CouldNotVerify},
		"neighbours do not count":            {verdicts: []control.Verdict{neighbour, of(control.Compliant)}, want: control.Compliant},
		"not applicable outweighs compliant": {verdicts: []control.Verdict{of(control.Compliant), of(control.NotApplicable)}, want: control.NotApplicable},
		"could not verify outweighs those":   {verdicts: []control.Verdict{of(control.NotApplicable), of(control.CouldNotVerify), of(control.Compliant)}, want: control.CouldNotVerify},
		"not compliant outweighs all": {
			verdicts: []control.Verdict{of(control.Compliant), of(control.CouldNotVerify), of(control.NotCompliant), of(control.NotApplicable)},
			want:     control.NotCompliant,
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if got := control.Worst(c.verdicts); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestNames(t *testing.T) {
	type names struct {
		Text string
		IDs  []string
	}
	want := map[string]names{
		control.UseHTTPS: {
			"CIS OpenShift 1.2.4 (1.2.2 from v1.8)",
			[]string{"cis-ocp-1.7:1.2.4", "cis-ocp-1.8:1.2.2", "cis-ocp-1.9:1.2.2", "cis-ocp-2.0:1.2.2"},
		},
		control.ClientPair: {
			"CIS OpenShift 1.2.5 (1.2.3 from v1.8)",
			[]string{"cis-ocp-1.7:1.2.5", "cis-ocp-1.8:1.2.3", "cis-ocp-1.9:1.2.3", "cis-ocp-2.0:1.2.3"},
		},
		control.KubeletCA: {
			"CIS OpenShift 1.2.6 (1.2.4 from v1.8)",
			[]string{"cis-ocp-1.7:1.2.6", "cis-ocp-1.8:1.2.4", "cis-ocp-1.9:1.2.4", "cis-ocp-2.0:1.2.4"},
		},
		control.KeyFileMode:      {"CIS OpenShift 1.1.21", []string{"cis-ocp-1.7:1.1.21"}},
		control.GuardInForce:     {"The guard is in force", []string{control.GuardInForce}},
		control.AdmissionEnabled: {"The kube-apiserver runs with its admission plugins", []string{control.AdmissionEnabled}},
		control.ProtectedSecrets: {"Protected Secrets that were added are valid", []string{control.ProtectedSecrets}},
	}
	got := map[string]names{}
	for _, c := range control.Table() {
		got[c.ID] = names{c.String(), c.RefIDs()}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("names (-want +got):\n%s", d)
	}
}

// TestWords: the words of a status are contracts, and an invalid status is not compliant.
func TestWords(t *testing.T) {
	want := map[control.Status][2]string{
		0:                      {"could not verify", "CouldNotVerify"},
		control.NotCompliant:   {"not compliant", "NotCompliant"},
		control.NotApplicable:  {"not applicable", "NotApplicable"},
		control.Compliant:      {"compliant", "Compliant"},
		control.Compliant + 77: {"could not verify", "CouldNotVerify"},
	}
	for status, want := range want {
		if got := [2]string{status.String(), status.Word()}; got != want {
			t.Errorf("%d: got %q, want %q", int(status), got, want)
		}
	}
	if got := (control.Verdict{}).Status; got != control.CouldNotVerify {
		t.Errorf("the verdict's zero value is %q", got)
	}
	if control.Node.String() != "node" || control.Cluster.String() != "cluster" {
		t.Errorf("scopes: %q and %q", control.Node, control.Cluster)
	}
}
