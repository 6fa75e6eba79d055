// SPDX-License-Identifier: Apache-2.0

package check_test

import (
	"errors"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/kubeapiserver"
)

var overridesAt = finding.Subject{Kind: "KubeAPIServer", Name: "cluster", Key: "spec.unsupportedConfigOverrides"}

func overridden(o check.Override) []finding.Result {
	o.At = overridesAt
	results, _ := o.Check(pkitest.Now())
	return results
}

func overrideFixtures() map[string]fixture {
	const at = "KubeAPIServer cluster spec.unsupportedConfigOverrides"
	of := func(text string) func(finding.Family) []finding.Result {
		overrides, err := kubeapiserver.ParseOverrides([]byte(text))
		admission, admissionErr := kubeapiserver.ParseAdmissionOverrides([]byte(text))
		return always(
			overridden(check.Override{Overrides: overrides, Err: err, Admission: admission, AdmissionErr: admissionErr}),
		)
	}
	argument := func(name, value string) func(finding.Family) []finding.Result {
		return of(`{"apiServerArguments":{"` + name + `":` + value + `}}`)
	}
	weakenedIn := func(field string, arguments ...string) (want []string) {
		for _, argument := range arguments {
			want = append(want, "kubelet-arguments fail OverrideWeakensKubeletTLS @ "+at+"."+field+" "+argument)
		}
		return want
	}
	weakened := func(arguments ...string) []string { return weakenedIn("apiServerArguments", arguments...) }
	const (
		unreadable   = "kubelet-arguments fail OverrideWeakensKubeletTLS @ " + at
		noAdmission  = "admission fail AdmissionDisabled @ " + at
		withArgument = noAdmission + ".apiServerArguments "
	)
	const (
		resources = "/etc/kubernetes/static-pod-resources"
		certs     = "/etc/kubernetes/static-pod-certs"

		https, port                 = "kubelet-https", "kubelet-read-only-port"
		certificate, key, authority = "kubelet-client-certificate", "kubelet-client-key", "kubelet-certificate-authority"
	)
	all := []string{authority, certificate, key}
	return map[string]fixture{
		"nothing":                       {results: of("")},
		"null":                          {results: of("null")},
		"an empty object":               {results: of("{}")},
		"other arguments":               {results: argument("event-ttl", `["3h"]`)},
		"the platform's, 4.9 and later": {results: argument(key, `["`+certs+`/secrets/kubelet-client/tls.key"]`)},
		"the platform's, until 4.8":     {results: argument(key, `["`+resources+`/secrets/kubelet-client/tls.key"]`)},
		"the platform's, 4.5": {
			results: of(
				`{"kubeletClientInfo":{"ca":"` + resources + `/configmaps/kubelet-serving-ca/ca-bundle.crt","certFile":"` +
					resources + `/secrets/kubelet-client/tls.crt","keyFile":"` + resources +
					`/secrets/kubelet-client/tls.key","port":10250}}`,
			),
		},
		"https on, as a truth value": {results: argument(https, `true`)},
		"port 0, as a number":        {results: argument(port, `[0]`)},
		"https off": {
			results: argument(https, `["false"]`), want: weakened(https),
			mentions: `"false"`,
		},
		"https off, no list":            {results: argument(https, `false`), want: weakened(https)},
		"https off, in another writing": {results: argument("kubelet_https", `["false"]`), want: weakened(https)},
		"on, then off":                  {results: argument(https, `["true","false"]`), want: weakened(https)},
		"another port":                  {results: argument(port, `["10255"]`), want: weakened(port)},
		"another key": {
			results: argument(key, `["/tmp/key"]`), want: weakened(key),
			mentions: "/tmp/key",
		},
		"the key for a certificate": {results: argument(certificate, `["`+certs+`/secrets/kubelet-client/tls.key"]`), want: weakened(certificate)},
		"no CA": {
			results: argument(authority, `[]`), want: weakened(authority),
		},
		"a null CA":        {results: argument(authority, `null`), want: weakened(authority)},
		"an empty CA":      {results: argument(authority, `""`), want: weakened(authority)},
		"another key, 4.5": {results: of(`{"kubeletClientInfo":{"keyFile":"/tmp/key"}}`), want: weakenedIn("kubeletClientInfo", key)},
		"removed, and set in a field that is not read": {
			results: of(`{"apiServerArguments":{"kubelet-client-key":[]},"kubeletClientInfo":{"keyFile":"` + certs + `/secrets/kubelet-client/tls.key"}}`),
			want:    weakened(key),
		},
		"all arguments removed":                              {results: of(`{"apiServerArguments":null}`), want: weakened(all...)},
		"a list for arguments":                               {results: of(`{"apiServerArguments":[]}`), want: weakened(all...)},
		"all removed, 4.5":                                   {results: of(`{"kubeletClientInfo":null}`), want: weakenedIn("kubeletClientInfo", all...)},
		"a value in an argument's name":                      {results: argument("kubelet-https=false", `["x"]`), want: weakened(https)},
		"another spelling, which the operator does not read": {results: of(`{"APIServerArguments":null}`)},
		"a list for all": {
			results: of(`[]`), want: []string{unreadable, noAdmission},
		},
		"an object for a value": {
			results: argument(https, `{}`), want: []string{unreadable},
		},
		"an error of two lines": {results: always(overridden(check.Override{Err: errors.New("line 1:\nexpected an object")})), want: []string{unreadable}},
		"a plugin disabled": {
			results: argument("disable-admission-plugins", `["ValidatingAdmissionWebhook"]`),
			want:    []string{withArgument + "disable-admission-plugins ValidatingAdmissionWebhook"},
		},
		"both plugins disabled": {
			results: argument("disable-admission-plugins", `["ValidatingAdmissionWebhook,ValidatingAdmissionPolicy"]`),
			want: []string{
				withArgument + "disable-admission-plugins ValidatingAdmissionWebhook", withArgument +
					"disable-admission-plugins ValidatingAdmissionPolicy",
			},
		},
		"another plugin disabled": {results: argument("disable-admission-plugins", `["NodeRestriction"]`)},
		"a plugin disabled by its field": {
			results: of(`{"admission":{"disabledPlugins":["ValidatingAdmissionPolicy"]}}`),
			want:    []string{noAdmission + ".admission.disabledPlugins ValidatingAdmissionPolicy"},
		},
		"a plugin configured": {
			results: of(`{"admission":{"pluginConfig":{"ValidatingAdmissionWebhook":{"location":"/x"}}}}`),
			want:    []string{noAdmission + ".admission.pluginConfig ValidatingAdmissionWebhook"},
		},
		"the file of admission": {
			results: argument("admission-control-config-file", `["/x"]`), want: []string{
				withArgument + "admission-control-config-file ValidatingAdmissionPolicy", withArgument +
					"admission-control-config-file ValidatingAdmissionWebhook",
			},
		},
		"an object for plugins": {
			results: argument("disable-admission-plugins", `{}`), want: []string{noAdmission},
		},
		"an admission error of two lines": {results: always(overridden(check.Override{AdmissionErr: errors.New("line 1:\nexpected an object")})), want: []string{noAdmission}},
		"not known": {
			results: always(overridden(check.Override{WhyUnknown: because(finding.Unreadable)})), want: unknown("kubelet-arguments admission", "Unreadable @ /why"),
		},
		"not configured": {
			results: always(overridden(check.Override{WhyUnknown: because(finding.NotChecked)})), want: unknown("kubelet-arguments admission", "NotChecked @ /why"),
		},
		"not possible": {
			results: always(overridden(check.Override{WhyNotApplicable: "there is no operator of the kube-apiserver"})),
			want:    []string{"kubelet-arguments notApplicable  @ " + at, "admission notApplicable  @ " + at},
		},
	}
}
