// SPDX-License-Identifier: Apache-2.0

package kubeapiserver_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/plainyaml"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/kubeapiserver"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/messages"
)

const (
	policy  = kubeapiserver.ValidatingAdmissionPolicy
	webhook = kubeapiserver.ValidatingAdmissionWebhook
)

func both() []string { return []string{policy, webhook} }

// off returns a setting that disables plugins.
func off(argument, setting string, plugins ...string) kubeapiserver.AdmissionSetting {
	return kubeapiserver.AdmissionSetting{Argument: argument, Setting: setting, Plugins: plugins}
}

func disable(plugin string) kubeapiserver.AdmissionSetting {
	return off(kubeapiserver.DisableAdmissionPlugins, plugin, plugin)
}

type settings = []kubeapiserver.AdmissionSetting

// TestDisabledAdmission: by flags, as kube-apiserver 1.30 to 1.37 reads them.
func TestDisabledAdmission(t *testing.T) {
	const (
		runtimeConfig = kubeapiserver.RuntimeConfig
		api           = "admissionregistration.k8s.io/v1"
	)
	cases := map[string]struct {
		words []string
		want  settings
	}{
		"nothing":                {words: []string{"kube-apiserver"}},
		"other plugins":          {words: []string{"--disable-admission-plugins=PodSecurity,MutatingAdmissionWebhook"}},
		"one":                    {words: []string{"--disable-admission-plugins=ValidatingAdmissionWebhook"}, want: settings{disable(webhook)}},
		"in two words":           {words: []string{"--disable-admission-plugins", "ValidatingAdmissionPolicy"}, want: settings{disable(policy)}},
		"with underscores":       {words: []string{"--disable_admission_plugins=ValidatingAdmissionPolicy"}, want: settings{disable(policy)}},
		"both in one list":       {words: []string{"--disable-admission-plugins=ValidatingAdmissionWebhook,PodSecurity,ValidatingAdmissionPolicy"}, want: settings{disable(policy), disable(webhook)}},
		"several flags add up":   {words: []string{"--disable-admission-plugins=ValidatingAdmissionWebhook", "--disable-admission-plugins=PodSecurity"}, want: settings{disable(webhook)}},
		"twice is once":          {words: []string{"--disable-admission-plugins=ValidatingAdmissionWebhook,ValidatingAdmissionWebhook"}, want: settings{disable(webhook)}},
		"as a field of CSV":      {words: []string{`--disable-admission-plugins=PodSecurity,"ValidatingAdmissionWebhook"`}, want: settings{disable(webhook)}},
		"broken CSV":             {words: []string{`--disable-admission-plugins=",ValidatingAdmissionWebhook`}, want: settings{disable(webhook)}},
		"first line of CSV":      {words: []string{"--disable-admission-plugins=ValidatingAdmissionWebhook\nPodSecurity"}, want: settings{disable(webhook)}},
		"second line of CSV":     {words: []string{"--disable-admission-plugins=PodSecurity\nValidatingAdmissionWebhook"}},
		"another case":           {words: []string{"--disable-admission-plugins=validatingadmissionwebhook"}},
		"a name that goes on":    {words: []string{"--disable-admission-plugins=ValidatingAdmissionWebhook2"}},
		"empty":                  {words: []string{"--disable-admission-plugins="}},
		"enabled":                {words: []string{"--enable-admission-plugins=ValidatingAdmissionWebhook"}},
		"others enabled":         {words: []string{"--enable-admission-plugins=NodeRestriction"}},
		"enabled and disabled":   {words: []string{"--enable-admission-plugins=ValidatingAdmissionWebhook", "--disable-admission-plugins=ValidatingAdmissionWebhook"}, want: settings{disable(webhook)}},
		"exact list, both":       {words: []string{"--admission-control=ValidatingAdmissionWebhook,ValidatingAdmissionPolicy"}},
		"exact list, in two":     {words: []string{"--admission-control=ValidatingAdmissionWebhook", "--admission-control=ValidatingAdmissionPolicy"}},
		"exact list without one": {words: []string{"--admission-control=NodeRestriction,ValidatingAdmissionWebhook"}, want: settings{off(kubeapiserver.AdmissionControl, "", policy)}},
		"exact list with none":   {words: []string{"--admission-control=NodeRestriction"}, want: settings{off(kubeapiserver.AdmissionControl, "", both()...)}},
		"empty exact list":       {words: []string{"--admission-control="}, want: settings{off(kubeapiserver.AdmissionControl, "", both()...)}},

		"API off":                 {words: []string{"--runtime-config=" + api + "=false"}, want: settings{off(runtimeConfig, api+"=false", both()...)}},
		"API off, a zero":         {words: []string{"--runtime-config=" + api + "=0"}, want: settings{off(runtimeConfig, api+"=0", both()...)}},
		"API off, with space":     {words: []string{"--runtime-config=batch/v1=true, " + api + " = false "}, want: settings{off(runtimeConfig, api+"=false", both()...)}},
		"API on":                  {words: []string{"--runtime-config=" + api + "=true"}},
		"API on, by its name":     {words: []string{"--runtime-config=" + api}},
		"API, no truth value":     {words: []string{"--runtime-config=" + api + "=no"}},
		"another version off":     {words: []string{"--runtime-config=" + api + "beta1=false"}},
		"the group alone":         {words: []string{"--runtime-config=admissionregistration.k8s.io=false"}},
		"the last counts: on":     {words: []string{"--runtime-config=" + api + "=false", "--runtime-config=" + api + "=true"}},
		"the last counts: off":    {words: []string{"--runtime-config=" + api + "=true," + api + "=false"}, want: settings{off(runtimeConfig, api+"=false", both()...)}},
		"GA off":                  {words: []string{"--runtime-config=api/ga=false"}, want: settings{off(runtimeConfig, "api/ga=false", both()...)}},
		"GA, a zero":              {words: []string{"--runtime-config=api/ga=0"}},
		"all off":                 {words: []string{"--runtime-config=api/all=false"}, want: settings{off(runtimeConfig, "api/all=false", both()...)}},
		"all off, GA on":          {words: []string{"--runtime-config=api/ga=true,api/all=false"}},
		"all on, GA off":          {words: []string{"--runtime-config=api/ga=false,api/all=true"}, want: settings{off(runtimeConfig, "api/ga=false", both()...)}},
		"all off, the API on":     {words: []string{"--runtime-config=" + api + "=true,api/all=false"}},
		"all on, the API off":     {words: []string{"--runtime-config=" + api + "=false,api/all=true"}, want: settings{off(runtimeConfig, api+"=false", both()...)}},
		"beta off":                {words: []string{"--runtime-config=api/beta=false,api/alpha=false,api/legacy=false"}},
		"webhooks off":            {words: []string{"--runtime-config=" + api + "/validatingwebhookconfigurations=false"}, want: settings{off(runtimeConfig, api+"/validatingwebhookconfigurations=false", webhook)}},
		"policies off":            {words: []string{"--runtime-config=" + api + "/validatingadmissionpolicies=false"}, want: settings{off(runtimeConfig, api+"/validatingadmissionpolicies=false", policy)}},
		"bindings off":            {words: []string{"--runtime-config=" + api + "/validatingadmissionpolicybindings=f"}, want: settings{off(runtimeConfig, api+"/validatingadmissionpolicybindings=f", policy)}},
		"mutating webhooks off":   {words: []string{"--runtime-config=" + api + "/mutatingwebhookconfigurations=false"}},
		"API off, webhooks on":    {words: []string{"--runtime-config=" + api + "/validatingwebhookconfigurations=true," + api + "=false"}, want: settings{off(runtimeConfig, api+"=false", policy)}},
		"API off, bindings on":    {words: []string{"--runtime-config=" + api + "/validatingadmissionpolicybindings=true," + api + "=false"}, want: settings{off(runtimeConfig, api+"=false", both()...)}},
		"API on, one off":         {words: []string{"--runtime-config=api/all=false," + api + "," + api + "/validatingwebhookconfigurations=false"}, want: settings{off(runtimeConfig, api+"/validatingwebhookconfigurations=false", webhook)}},
		"gate off":                {words: []string{"--feature-gates=ValidatingAdmissionPolicy=false"}, want: settings{off(kubeapiserver.FeatureGates, "ValidatingAdmissionPolicy=false", policy)}},
		"gate off among others":   {words: []string{"--feature-gates=AllBeta=true, ValidatingAdmissionPolicy = F ,AllAlpha=false"}, want: settings{off(kubeapiserver.FeatureGates, "ValidatingAdmissionPolicy=F", policy)}},
		"gate of the component":   {words: []string{"--feature-gates=kube:ValidatingAdmissionPolicy=false"}, want: settings{off(kubeapiserver.FeatureGates, "kube:ValidatingAdmissionPolicy=false", policy)}},
		"gate of another one":     {words: []string{"--feature-gates=wardle:ValidatingAdmissionPolicy=false"}},
		"gate on":                 {words: []string{"--feature-gates=ValidatingAdmissionPolicy=true"}},
		"gate: the last counts":   {words: []string{"--feature-gates=ValidatingAdmissionPolicy=false", "--feature-gates=ValidatingAdmissionPolicy=true"}},
		"gate without a value":    {words: []string{"--feature-gates=ValidatingAdmissionPolicy"}},
		"other gates":             {words: []string{"--feature-gates=AllBeta=false,ManifestBasedAdmissionControlConfig=false"}},
		"a file turns off no one": {words: []string{"--admission-control-config-file=/etc/admission.yaml"}},
		"all of it, in order": {
			words: []string{
				"--feature-gates=ValidatingAdmissionPolicy=false", "--runtime-config=api/ga=false",
				"--admission-control=PodSecurity", "--disable-admission-plugins=ValidatingAdmissionWebhook",
			},
			want: settings{
				disable(webhook), off(kubeapiserver.AdmissionControl, "", both()...), off(runtimeConfig, "api/ga=false", both()...),
				off(kubeapiserver.FeatureGates, "ValidatingAdmissionPolicy=false", policy),
			},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if d := cmp.Diff(c.want, kubeapiserver.ParseFlags(c.words).DisabledAdmission()); d != "" {
				t.Errorf("DisabledAdmission with %q (-want +got):\n%s", c.words, d)
			}
		})
	}
}

// TestDisabledAdmissionOnOpenShift: by a KubeAPIServerConfig that is merged with a command line.
func TestDisabledAdmissionOnOpenShift(t *testing.T) {
	cases := map[string]struct {
		data  string
		words []string
		want  settings
	}{
		"what the operator writes": {
			data: `{"admission":{"pluginConfig":{"PodSecurity":{"configuration":{"kind":"PodSecurityConfiguration"}},"network.openshift.io/ExternalIPRanger":` +
				`{"configuration":{"externalIPNetworkCIDRs":null},"location":""}}},"apiServerArguments":{"enable-admission-plugins":["NodeRestriction",` +
				`"ValidatingAdmissionWebhook"],"disable-admission-plugins":["authorization.openshift.io/RestrictSubjectBindings"],` +
				`"feature-gates":["OpenShiftPodSecurityAdmission=true"],"runtime-config":["resource.k8s.io/v1beta1=true"]}}`,
		},
		"a list of lists":     {data: `{"apiServerArguments":{"disable-admission-plugins":["A,B","C,ValidatingAdmissionPolicy"]}}`, want: settings{disable(policy)}},
		"a single value":      {data: `{"apiServerArguments":{"disable-admission-plugins":"ValidatingAdmissionPolicy"}}`, want: settings{disable(policy)}},
		"quoted":              {data: `{"apiServerArguments":{"disable-admission-plugins":["\"ValidatingAdmissionPolicy\""]}}`, want: settings{disable(policy)}},
		"both spellings":      {data: `{"apiServerArguments":{"disable-admission-plugins":["ValidatingAdmissionPolicy"],"disable_admission_plugins":["A"]}}`, want: settings{disable(policy)}},
		"no values":           {data: `{"apiServerArguments":{"disable-admission-plugins":[],"admission-control":null,"runtime-config":[]}}`},
		"API in the name":     {data: `{"apiServerArguments":{"runtime-config=admissionregistration.k8s.io/v1":["false"]}}`, want: settings{off(kubeapiserver.RuntimeConfig, "admissionregistration.k8s.io/v1=false", both()...)}},
		"gate in the name":    {data: `{"apiServerArguments":{"feature-gates=ValidatingAdmissionPolicy":["false"]}}`, want: settings{off(kubeapiserver.FeatureGates, "ValidatingAdmissionPolicy=false", policy)}},
		"plugin in the name":  {data: `{"apiServerArguments":{"disable-admission-plugins=ValidatingAdmissionPolicy,A":["b"]}}`, want: settings{disable(policy)}},
		"line in the name":    {data: `{"apiServerArguments":{"disable-admission-plugins=ValidatingAdmissionPolicy\n":["b"]}}`, want: settings{disable(policy)}},
		"the field":           {data: `{"admission":{"disabledPlugins":["A","ValidatingAdmissionWebhook"]}}`, want: settings{off(kubeapiserver.DisabledPluginsField, webhook, webhook)}},
		"the other field":     {data: `{"admission":{"enabledPlugins":["A"]}}`},
		"fields of null":      {data: `{"admission":{"enabledPlugins":null,"disabledPlugins":null,"pluginConfig":null}}`},
		"null":                {data: `{"admission":null}`},
		"configuration of it": {data: `{"admission":{"pluginConfig":{"ValidatingAdmissionWebhook":{"configuration":null,"location":"/x"}}}}`},
		"on the command line": {
			data: `{"apiServerArguments":{"disable-admission-plugins":["A"],"feature-gates":["A=true"],"runtime-config":["a/v1=true"]}}`,
			words: []string{
				"--disable-admission-plugins=ValidatingAdmissionWebhook", "--feature-gates=ValidatingAdmissionPolicy=false",
				"--runtime-config=api/ga=false",
			},
			want: settings{
				disable(webhook), off(kubeapiserver.RuntimeConfig, "api/ga=false", both()...),
				off(kubeapiserver.FeatureGates, "ValidatingAdmissionPolicy=false", policy),
			},
		},
		"on there, off here": {
			data:  `{"apiServerArguments":{"runtime-config":["api/ga=false"]}}`,
			words: []string{"--runtime-config=api/ga=true"},
			want:  settings{off(kubeapiserver.RuntimeConfig, "api/ga=false", both()...)},
		},
		"off there, on here": {
			data:  `{"apiServerArguments":{"runtime-config":["api/ga=true"]}}`,
			words: []string{"--runtime-config=api/ga=false"},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			config, err := kubeapiserver.ParseConfig([]byte(c.data))
			if err != nil {
				t.Fatalf("ParseConfig: %v", err)
			}
			if d := cmp.Diff(c.want, kubeapiserver.ParseFlags(c.words).Under(config).DisabledAdmission()); d != "" {
				t.Errorf("DisabledAdmission (-want +got):\n%s", d)
			}
		})
	}
}

func TestParseAdmissionOverrides(t *testing.T) {
	page := messages.Record(t, "errors of the overrides of admission")
	file := off(kubeapiserver.AdmissionControlConfigFile, "", both()...)
	cases := map[string]struct {
		data    string
		want    settings
		wantErr string
	}{
		"nothing at all": {},
		"null":           {data: `null`},
		"nothing of it":  {data: `{"apiServerArguments":{"kubelet-https":["false"],"enable-admission-plugins":["ValidatingAdmissionWebhook"]},"servicesSubnet":{}}`},
		"no JSON":        {data: `{`, wantErr: "JSON"},
		"a list":         {data: `[]`, wantErr: "JSON"},
		"too large":      {data: strings.Repeat(" ", kubeapiserver.MaxConfigBytes+1), wantErr: "1048576"},

		"disabled":              {data: `{"apiServerArguments":{"disable-admission-plugins":["ValidatingAdmissionWebhook"]}}`, want: settings{disable(webhook)}},
		"disabled by a text":    {data: `{"apiServerArguments":{"disable-admission-plugins":"ValidatingAdmissionWebhook,ValidatingAdmissionPolicy"}}`, want: settings{disable(policy), disable(webhook)}},
		"disabled, underscores": {data: `{"apiServerArguments":{"disable_admission_plugins":["ValidatingAdmissionPolicy"]}}`, want: settings{disable(policy)}},
		"disabled by the field": {data: `{"admission":{"disabledPlugins":["ValidatingAdmissionPolicy"]}}`, want: settings{off(kubeapiserver.DisabledPluginsField, policy, policy)}},
		"field of one value":    {data: `{"admission":{"disabledPlugins":"ValidatingAdmissionPolicy"}}`, want: settings{off(kubeapiserver.DisabledPluginsField, policy, policy)}},
		"an exact list":         {data: `{"apiServerArguments":{"admission-control":["ValidatingAdmissionPolicy"]}}`, want: settings{off(kubeapiserver.AdmissionControl, "", webhook)}},
		"API":                   {data: `{"apiServerArguments":{"runtime-config":["admissionregistration.k8s.io/v1=false"]}}`, want: settings{off(kubeapiserver.RuntimeConfig, "admissionregistration.k8s.io/v1=false", both()...)}},
		"API, a map":            {data: `{"apiServerArguments":{"runtime-config":{"admissionregistration.k8s.io/v1":false}}}`, wantErr: `"runtime-config"`},
		"API in the name":       {data: `{"apiServerArguments":{"runtime-config=api/ga":[false]}}`, want: settings{off(kubeapiserver.RuntimeConfig, "api/ga=false", both()...)}},
		"gate":                  {data: `{"apiServerArguments":{"feature-gates":["ValidatingAdmissionPolicy=false"]}}`, want: settings{off(kubeapiserver.FeatureGates, "ValidatingAdmissionPolicy=false", policy)}},
		"a file":                {data: `{"apiServerArguments":{"admission-control-config-file":["/etc/admission.yaml"]}}`, want: settings{file}},
		"no file instead":       {data: `{"apiServerArguments":{"admission-control-config-file":[""]}}`, want: settings{file}},
		"a file in the name":    {data: `{"apiServerArguments":{"admission_control_config_file=/etc":[""]}}`, want: settings{file}},
		"no values for a file":  {data: `{"apiServerArguments":{"admission-control-config-file":[]}}`},
		"configuration of a plugin": {
			data: `{"admission":{"pluginConfig":{"ValidatingAdmissionWebhook":{"location":"/x"},"ValidatingAdmissionPolicy":null}}}`,
			want: settings{off(kubeapiserver.PluginConfigField, policy, policy), off(kubeapiserver.PluginConfigField, webhook, webhook)},
		},
		"configuration of another": {data: `{"admission":{"pluginConfig":{"PodSecurity":{"location":"/x"}}}}`},

		// This removes the platform's lists; both plugins are enabled by default.
		"arguments of null":     {data: `{"apiServerArguments":null}`},
		"arguments of a text":   {data: `{"apiServerArguments":"disable-admission-plugins=ValidatingAdmissionWebhook"}`},
		"argument of null":      {data: `{"apiServerArguments":{"disable-admission-plugins":null,"enable-admission-plugins":null,"runtime-config":null}}`},
		"admission of null":     {data: `{"admission":null}`},
		"admission of a list":   {data: `{"admission":["ValidatingAdmissionWebhook"]}`},
		"configuration of null": {data: `{"admission":{"pluginConfig":null,"disabledPlugins":null}}`},
		"another spelling":      {data: `{"Admission":{"disabledPlugins":["ValidatingAdmissionPolicy"]},"apiserverarguments":{"disable-admission-plugins":["ValidatingAdmissionPolicy"]}}`},

		"no list":                       {data: `{"apiServerArguments":{"disable-admission-plugins":[["ValidatingAdmissionPolicy"]]}}`, wantErr: `"disable-admission-plugins"`},
		"no list there":                 {data: `{"admission":{"disabledPlugins":{}}}`, wantErr: "admission.disabledPlugins"},
		"other lists are not looked at": {data: `{"apiServerArguments":{"audit-log-path":[[]],"disable-admission-plugins":["ValidatingAdmissionPolicy"]}}`, want: settings{disable(policy)}},
		"all of it": {
			data: `{"apiServerArguments":{"disable-admission-plugins":["ValidatingAdmissionPolicy"],"admission-control-config-file":["/x"]},` +
				`"admission":{"disabledPlugins":["ValidatingAdmissionPolicy"],"pluginConfig":{"ValidatingAdmissionPolicy":{}}}}`,
			want: settings{
				disable(policy), off(kubeapiserver.DisabledPluginsField, policy, policy), file,
				off(kubeapiserver.PluginConfigField, policy, policy),
			},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := kubeapiserver.ParseAdmissionOverrides([]byte(c.data))
			page.Error(name, err)
			if !matches(err, c.wantErr) {
				t.Errorf("ParseAdmissionOverrides: got error %q, want one that mentions %q", errorText(err), c.wantErr)
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("ParseAdmissionOverrides (-want +got):\n%s", d)
			}
		})
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// admissionFile returns an AdmissionConfiguration with entries.
func admissionFile(entries ...string) string {
	return "apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\nplugins:\n" + strings.Join(entries, "")
}

// entry returns an entry of it. configuration is in flow style.
func entry(name, configuration string) string {
	return fmt.Sprintf("- name: %s\n  configuration: %s\n", name, configuration)
}

const (
	webhookKind = "apiVersion: apiserver.config.k8s.io/v1, kind: WebhookAdmissionConfiguration"
	policyKind  = "apiVersion: apiserver.config.k8s.io/v1, kind: ValidatingAdmissionPolicyConfiguration"
)

// matches reports whether an error mentions a value. An empty value means no error.
func matches(err error, mentions string) bool {
	return (err != nil) == (mentions != "") && strings.Contains(errorText(err), mentions)
}

// TestParseAdmissionFile: an error is one line and mentions what is wrong.
func TestParseAdmissionFile(t *testing.T) {
	page := messages.Record(t, "errors of the configuration of admission")
	const unknownKind = "AdmissionConfiguration"
	cases := map[string]struct {
		data        string
		want        []kubeapiserver.AdmissionPlugin
		wantErr     string
		notExamined bool
	}{
		"no plugins":              {data: admissionFile()},
		"plugins of null":         {data: "apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\nplugins: null\n"},
		"the older version":       {data: `{"apiVersion":"apiserver.k8s.io/v1alpha1","kind":"AdmissionConfiguration","plugins":[{"name":"ValidatingAdmissionWebhook","path":"webhook.yaml"}]}`, want: []kubeapiserver.AdmissionPlugin{{Name: webhook, Path: "webhook.yaml"}}},
		"other plugins":           {data: admissionFile(entry("PodSecurity", "{kind: whatever}"), entry("MutatingAdmissionWebhook", "{}"), "- path: x\n")},
		"client certificates":     {data: admissionFile(entry(webhook, "{"+webhookKind+", kubeConfigFile: /etc/kubeconfig}")), want: []kubeapiserver.AdmissionPlugin{{Name: webhook, KubeConfigFile: "/etc/kubeconfig"}}},
		"static webhooks":         {data: admissionFile(entry(webhook, "{"+webhookKind+", staticManifestsDir: /etc/static}")), want: []kubeapiserver.AdmissionPlugin{{Name: webhook, StaticManifestsDir: "/etc/static"}}},
		"both":                    {data: admissionFile(entry(webhook, "{"+webhookKind+", staticManifestsDir: /s, kubeConfigFile: /k}")), want: []kubeapiserver.AdmissionPlugin{{Name: webhook, KubeConfigFile: "/k", StaticManifestsDir: "/s"}}},
		"empty values":            {data: admissionFile(entry(webhook, "{"+webhookKind+", staticManifestsDir: '', kubeConfigFile: ''}")), want: []kubeapiserver.AdmissionPlugin{{Name: webhook}}},
		"webhooks, older version": {data: admissionFile(entry(webhook, "{apiVersion: apiserver.config.k8s.io/v1alpha1, kind: WebhookAdmission, kubeConfigFile: /k}")), want: []kubeapiserver.AdmissionPlugin{{Name: webhook, KubeConfigFile: "/k"}}},
		"static policies":         {data: admissionFile(entry(policy, "{"+policyKind+", staticManifestsDir: /etc/static}")), want: []kubeapiserver.AdmissionPlugin{{Name: policy, StaticManifestsDir: "/etc/static"}}},
		"both plugins":            {data: admissionFile(entry(webhook, "{"+webhookKind+"}"), entry(policy, "{"+policyKind+"}")), want: []kubeapiserver.AdmissionPlugin{{Name: webhook}, {Name: policy}}},
		"of two the first counts": {data: admissionFile(entry(policy, "{"+policyKind+", staticManifestsDir: /a}"), entry(policy, "{}")), want: []kubeapiserver.AdmissionPlugin{{Name: policy, StaticManifestsDir: "/a"}}},
		"in another file":         {data: admissionFile("- name: ValidatingAdmissionPolicy\n  path: ../policy.yaml\n"), want: []kubeapiserver.AdmissionPlugin{{Name: policy, Path: "../policy.yaml"}}},
		"null here, in a file":    {data: admissionFile("- name: ValidatingAdmissionPolicy\n  path: /policy.yaml\n  configuration: null\n"), want: []kubeapiserver.AdmissionPlugin{{Name: policy, Path: "/policy.yaml"}}},
		"here counts":             {data: admissionFile(entry(policy, "{"+policyKind+"}") + "  path: /policy.yaml\n"), want: []kubeapiserver.AdmissionPlugin{{Name: policy}}},
		"neither here nor there":  {data: admissionFile("- name: ValidatingAdmissionPolicy\n"), want: []kubeapiserver.AdmissionPlugin{{Name: policy}}},
		"two documents":           {data: admissionFile() + "---\nrubbish\n"},
		"legacy image policy":     {data: "imagePolicy:\n  kubeConfigFile: /x\n"},
		"legacy node selector":    {data: "podNodeSelectorPluginConfig: {}\n"},

		"nothing":              {wantErr: unknownKind},
		"a comment":            {data: "# nothing\n", wantErr: unknownKind},
		"null":                 {data: "null", wantErr: unknownKind},
		"no kind":              {data: "apiVersion: apiserver.config.k8s.io/v1\nplugins: []\n", wantErr: unknownKind},
		"kind of another type": {data: "apiVersion: 1\nkind: [AdmissionConfiguration]\n", wantErr: unknownKind},
		"another kind":         {data: "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources: []\n", wantErr: unknownKind},
		"no such version":      {data: "apiVersion: apiserver.config.k8s.io/v1alpha1\nkind: AdmissionConfiguration\n", wantErr: unknownKind},
		"another case":         {data: "apiVersion: apiserver.config.k8s.io/v1\nKind: AdmissionConfiguration\n", wantErr: unknownKind},
		"rubbish":              {data: "rubbish", wantErr: "AdmissionConfiguration"},
		"a list":               {data: "[]", wantErr: "AdmissionConfiguration"},
		"cut off": {
			data:    `{"apiVersion":"apiserver.config.k8s.io/v1","kind":"Adm`,
			wantErr: "AdmissionConfiguration",
		},
		"unknown field": {data: admissionFile() + "disabled: true\n", wantErr: `"disabled"`},
		"unknown field in an entry": {
			data:    admissionFile("- name: PodSecurity\n  disable: true\n"),
			wantErr: `"plugins[0].disable"`,
		},
		"a field twice": {
			data:    admissionFile() + "kind: AdmissionConfiguration\n",
			wantErr: "AdmissionConfiguration",
		},
		"a field twice, JSON": {
			data:    `{"apiVersion":"apiserver.config.k8s.io/v1","kind":"AdmissionConfiguration","plugins":[],"plugins":[]}`,
			wantErr: `"plugins"`,
		},
		"plugins are a map": {
			data:    "apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\nplugins: {}\n",
			wantErr: "AdmissionConfiguration",
		},
		"a plugin of nothing": {data: admissionFile(entry(webhook, "{}")), wantErr: "ValidatingAdmissionWebhook"},
		"a plugin of a text": {
			data:    admissionFile(entry(webhook, "disable")),
			wantErr: "ValidatingAdmissionWebhook",
		},
		"the other plugin's kind": {
			data:    admissionFile(entry(webhook, "{"+policyKind+"}")),
			wantErr: "ValidatingAdmissionWebhook",
		},
		"the mutating plugin's kind": {
			data: admissionFile(
				entry(policy, "{apiVersion: apiserver.config.k8s.io/v1, kind: MutatingAdmissionPolicyConfiguration}"),
			),
			wantErr: "ValidatingAdmissionPolicy",
		},
		"of OpenShift 3": {
			data:    admissionFile(entry(webhook, "{apiVersion: v1, kind: DefaultAdmissionConfig, disable: true}")),
			wantErr: "ValidatingAdmissionWebhook",
		},
		"unknown field of a plugin": {
			data:    admissionFile(entry(policy, "{"+policyKind+", disable: true}")),
			wantErr: `"disable"`,
		},
		"field of the other plugin": {
			data:    admissionFile(entry(policy, "{"+policyKind+", kubeConfigFile: /k}")),
			wantErr: "kubeConfigFile",
		},
		"field of the newer version": {
			data: admissionFile(
				entry(webhook, "{apiVersion: apiserver.config.k8s.io/v1alpha1, kind: WebhookAdmission, staticManifestsDir: /s}"),
			),
			wantErr: "staticManifestsDir",
		},
		"relative folder": {
			data:    admissionFile(entry(policy, "{"+policyKind+", staticManifestsDir: s}")),
			wantErr: "staticManifestsDir",
		},
		"relative kubeconfig": {
			data:    admissionFile(entry(webhook, "{"+webhookKind+", kubeConfigFile: k}")),
			wantErr: "kubeConfigFile",
		},
		"a folder that is a list": {
			data:    admissionFile(entry(policy, "{"+policyKind+", staticManifestsDir: [s]}")),
			wantErr: "ValidatingAdmissionPolicy",
		},
		"an alias": {
			data:        "a: &a b\n" + admissionFile("- name: *a\n"),
			wantErr:     "YAML aliases",
			notExamined: true,
		},
		"too large": {
			data:        strings.Repeat(" ", kubeapiserver.MaxAdmissionFileBytes+1),
			wantErr:     "1048576",
			notExamined: true,
		},
		"too large for YAML": {
			data:        admissionFile() + strings.Repeat("#\n", plainyaml.MaxYAML/2),
			wantErr:     "JSON",
			notExamined: true,
		},
		"errors are in a single line": {
			data:    admissionFile() + "a: 1\na: 1\nb: 1\nb: 1\n",
			wantErr: "AdmissionConfiguration",
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := kubeapiserver.ParseAdmissionFile([]byte(c.data))
			page.Error(name, err)
			if text := errorText(err); !matches(err, c.wantErr) || strings.ContainsAny(text, "\n\r") {
				t.Errorf("ParseAdmissionFile: got error %q, want one that mentions %q", text, c.wantErr)
			}
			if errors.Is(err, kubeapiserver.ErrNotExamined) != c.notExamined {
				t.Errorf("ParseAdmissionFile: error %v, want one of ErrNotExamined: %t", err, c.notExamined)
			}
			if d := cmp.Diff(c.want, got.Plugins); d != "" {
				t.Errorf("ParseAdmissionFile (-want +got):\n%s", d)
			}
		})
	}
}

func TestParseAdmissionPlugin(t *testing.T) {
	cases := map[string]struct {
		name, data string
		want       kubeapiserver.AdmissionPlugin
		wantErr    string
	}{
		"webhooks": {
			name: webhook,
			data: "{" + webhookKind + ", kubeConfigFile: /k}",
			want: kubeapiserver.AdmissionPlugin{Name: webhook, KubeConfigFile: "/k"},
		},
		"policies": {
			name: policy,
			data: "{" + policyKind + ", staticManifestsDir: /s}",
			want: kubeapiserver.AdmissionPlugin{Name: policy, StaticManifestsDir: "/s"},
		},
		"empty":            {name: policy, wantErr: "kind"},
		"of the other one": {name: policy, data: "{" + webhookKind + "}", wantErr: "kind"},
		"of another one":   {name: "PodSecurity", data: "{" + webhookKind + "}", wantErr: "kind"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := kubeapiserver.ParseAdmissionPlugin(c.name, []byte(c.data))
			if !matches(err, c.wantErr) {
				t.Errorf("ParseAdmissionPlugin: got error %q, want one that mentions %q", errorText(err), c.wantErr)
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("ParseAdmissionPlugin (-want +got):\n%s", d)
			}
		})
	}
}

// TestAdmissionPlugins: admission.pluginConfig as OpenShift's kube-apiserver reads it.
func TestAdmissionPlugins(t *testing.T) {
	const (
		webhookJSON = `{"apiVersion":"apiserver.config.k8s.io/v1","kind":"WebhookAdmissionConfiguration","kubeConfigFile":"/k"}`
		policyJSON  = `{"apiVersion":"apiserver.config.k8s.io/v1","kind":"ValidatingAdmissionPolicyConfiguration","staticManifestsDir":"/s"}`
	)
	cases := map[string]struct {
		data    string
		want    []kubeapiserver.AdmissionPlugin
		wantErr string
	}{
		"none":          {data: `{}`},
		"other plugins": {data: `{"admission":{"pluginConfig":{"PodSecurity":{"configuration":{"disable":true}}}}}`},
		"both": {
			data: `{"admission":{"pluginConfig":{"ValidatingAdmissionWebhook":{"configuration":` + webhookJSON +
				`,"location":""},"ValidatingAdmissionPolicy":{"configuration":` + policyJSON + `}}}}`,
			want: []kubeapiserver.AdmissionPlugin{
				{Name: policy, StaticManifestsDir: "/s"},
				{Name: webhook, KubeConfigFile: "/k"},
			},
		},
		"in a file": {
			data: `{"admission":{"pluginConfig":{"ValidatingAdmissionWebhook":{"configuration":null,"location":"/webhook.yaml"}}}}`,
			want: []kubeapiserver.AdmissionPlugin{{Name: webhook, Path: "/webhook.yaml"}},
		},
		"of nothing": {
			data: `{"admission":{"pluginConfig":{"ValidatingAdmissionWebhook":null}}}`,
			want: []kubeapiserver.AdmissionPlugin{{Name: webhook}},
		},
		"another kind": {
			data:    `{"admission":{"pluginConfig":{"ValidatingAdmissionWebhook":{"configuration":{"kind":"DefaultAdmissionConfig","disable":true}}}}}`,
			wantErr: "ValidatingAdmissionWebhook",
		},
		"a file instead": {
			data: `{"apiServerArguments":{"admission-control-config-file":["/x"]},"admission":{"pluginConfig":{"ValidatingAdmissionWebhook":{"configuration":{}}}}}`,
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			config, err := kubeapiserver.ParseConfig([]byte(c.data))
			if err != nil {
				t.Fatalf("ParseConfig: %v", err)
			}
			for how, config := range map[string]kubeapiserver.Config{"alone": config,
				"over flags": kubeapiserver.Config{}.Under(config), "under": config.Under(kubeapiserver.Config{})} {
				got, err := config.AdmissionPlugins()
				if !matches(err, c.wantErr) {
					t.Errorf("AdmissionPlugins, %s: got error %q, want one that mentions %q", how, errorText(err), c.wantErr)
				}
				if d := cmp.Diff(c.want, got.Plugins); d != "" {
					t.Errorf("AdmissionPlugins, %s (-want +got):\n%s", how, d)
				}
			}
		})
	}
}

// TestUnderLeavesAdmissionAlone: Under does not change the configuration that it merges.
func TestUnderLeavesAdmissionAlone(t *testing.T) {
	parse := func(plugin string) kubeapiserver.Config {
		config, err := kubeapiserver.ParseConfig(
			[]byte(
				`{"apiServerArguments":{"disable-admission-plugins":["A","` + plugin + `"]},"admission":{"disabledPlugins":["` +
					plugin + `"],"pluginConfig":{"` + plugin + `":{"location":"/x"}}}}`,
			),
		)
		if err != nil {
			t.Fatal(err)
		}
		return config
	}
	base, over := parse(policy), parse(webhook)
	merged := base.Under(over)
	for name, c := range map[string]struct {
		config  kubeapiserver.Config
		plugins []string
	}{
		"base": {base, []string{policy}}, "over": {over, []string{webhook}}, "merged": {merged, both()},
	} {
		var want settings
		for _, argument := range []string{kubeapiserver.DisableAdmissionPlugins, kubeapiserver.DisabledPluginsField} {
			for _, plugin := range c.plugins {
				want = append(want, off(argument, plugin, plugin))
			}
		}
		if d := cmp.Diff(want, c.config.DisabledAdmission()); d != "" {
			t.Errorf("%s: DisabledAdmission (-want +got):\n%s", name, d)
		}
		file, err := c.config.AdmissionPlugins()
		if err != nil || len(file.Plugins) != len(c.plugins) {
			t.Errorf("%s: AdmissionPlugins: got %v and error %v, want entries for %v", name, file, err, c.plugins)
		}
	}
}

// checkSettings checks that a setting has plugins of the guard, each once, and no free text.
func checkSettings(t *testing.T, all settings) {
	t.Helper()
	for _, setting := range all {
		if len(setting.Plugins) == 0 || !slices.IsSorted(setting.Plugins) ||
			len(slices.Compact(slices.Clone(setting.Plugins))) != len(setting.Plugins) ||
			slices.ContainsFunc(setting.Plugins, func(p string) bool { return !slices.Contains(both(), p) }) {
			t.Errorf("setting %+v: its plugins are not plugins of the guard, or not in order", setting)
		}
		if len(setting.Setting) > 80 || strings.ContainsAny(setting.Setting, "\n ") {
			t.Errorf("setting %+v: free text", setting)
		}
	}
}

// FuzzParseAdmission: no input makes a parser panic. With an error there is no result. A result has plugins of
// the guard only, each once.
func FuzzParseAdmission(f *testing.F) {
	for _, seed := range []string{
		"", "null", "{}", "[]", "rubbish", "\x00", "imagePolicy: {}", billionLaughs(),
		strings.Repeat(" ", kubeapiserver.MaxAdmissionFileBytes+1),
		admissionFile(), admissionFile(entry(webhook, "{"+webhookKind+", kubeConfigFile: /k}")),
		admissionFile(entry(policy, "{"+policyKind+", staticManifestsDir: /s}")),
		admissionFile(entry(policy, "null"), entry(policy, "{}"), entry(webhook, "[]")),
		admissionFile("- name: ValidatingAdmissionPolicy\n  path: x\n"),
		admissionFile() + admissionFile(), "{" + webhookKind + "}", "{" + policyKind + ", kubeConfigFile: /k}",
		`{"apiVersion":"apiserver.k8s.io/v1alpha1","kind":"AdmissionConfiguration","plugins":[{"name":"ValidatingAdmissionWebhook","configuration":{"a":1e400}}]}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := kubeapiserver.ParseAdmissionFile(data)
		if err != nil && file.Plugins != nil {
			t.Errorf("ParseAdmissionFile: %v beside error %v", file, err)
		}
		seen := map[string]bool{}
		for _, plugin := range file.Plugins {
			if seen[plugin.Name] || !slices.Contains(both(), plugin.Name) {
				t.Errorf("ParseAdmissionFile: %v", file)
			}
			seen[plugin.Name] = true
			if plugin.Path != "" && (plugin.KubeConfigFile != "" || plugin.StaticManifestsDir != "") {
				t.Errorf("ParseAdmissionFile: %+v is both here and in a file", plugin)
			}
		}
		for _, name := range both() {
			if plugin, err := kubeapiserver.ParseAdmissionPlugin(name, data); err != nil &&
				plugin != (kubeapiserver.AdmissionPlugin{}) {
				t.Errorf("ParseAdmissionPlugin: %v beside error %v", plugin, err)
			}
		}
	})
}
