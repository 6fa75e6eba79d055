// SPDX-License-Identifier: Apache-2.0

package kubeapiserver_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/kubeapiserver"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/messages"
)

// values has the arguments of the control that are set, with their effective values.
type values map[string]string

func valuesOf(config kubeapiserver.Config) values {
	set := values{}
	for _, name := range []string{
		kubeapiserver.KubeletClientCertificate, kubeapiserver.KubeletClientKey,
		kubeapiserver.KubeletCertificateAuthority, kubeapiserver.KubeletHTTPS, kubeapiserver.KubeletReadOnlyPort,
	} {
		if value, ok := config.Value(name); ok {
			set[name] = value
		}
	}
	return set
}

// The platform's configuration: resources is the directory of OpenShift up to 4.8, certs the one from 4.9 on.
const (
	resources = "/etc/kubernetes/static-pod-resources/secrets/kubelet-client"
	certs     = "/etc/kubernetes/static-pod-certs/secrets/kubelet-client"
	hosted    = "/etc/kubernetes/certs"
	kubeletCA = "/etc/kubernetes/static-pod-resources/configmaps/kubelet-serving-ca/ca-bundle.crt"
)

func pair(folder, ca string, more values) values {
	all := values{
		kubeapiserver.KubeletClientCertificate: folder + "/tls.crt", kubeapiserver.KubeletClientKey: folder + "/tls.key",
		kubeapiserver.KubeletCertificateAuthority: ca,
	}
	maps.Copy(all, more)
	return all
}

// argument returns a configuration with kubelet-https only.
func argument(value string) string {
	return "kind: KubeAPIServerConfig\napiServerArguments:\n  kubelet-https: " + value + "\n"
}

func https(value string) values { return values{kubeapiserver.KubeletHTTPS: value} }

func TestParseConfig(t *testing.T) {
	cases := map[string]struct {
		data string
		want values
	}{
		"OpenShift 4.5": {
			data: `{"apiVersion":"kubecontrolplane.config.openshift.io/v1","kind":"KubeAPIServerConfig","kubeletClientInfo":{"ca":"` + kubeletCA +
				`","certFile":"` + resources + `/tls.crt","keyFile":"` + resources +
				`/tls.key","port":10250},"servicesSubnet":"172.30.0.0/16"}`,
			want: pair(resources, kubeletCA, nil),
		},
		"OpenShift 4.6 to 4.8": {
			data: `{"apiServerArguments":{"kubelet-certificate-authority":["` + kubeletCA +
				`"],"kubelet-client-certificate":["` + resources +
				`/tls.crt"],"kubelet-client-key":["` + resources +
				`/tls.key"],"kubelet-https":["true"],"kubelet-preferred-address-types":["InternalIP"],` +
				`"kubelet-read-only-port":["0"]},"apiVersion":"kubecontrolplane.config.openshift.io/v1","kind":"KubeAPIServerConfig"}`,
			want: pair(resources, kubeletCA, values{kubeapiserver.KubeletHTTPS: "true", kubeapiserver.KubeletReadOnlyPort: "0"}),
		},
		"OpenShift 4.9 and later": {
			data: `{"admission":{"pluginConfig":{"PodSecurity":{"configuration":{"kind":"PodSecurityConfiguration"}}}},"apiServerArguments":{` +
				`"kubelet-certificate-authority":["` + kubeletCA + `"],"kubelet-client-certificate":["` + certs +
				`/tls.crt"],"kubelet-client-key":["` + certs +
				`/tls.key"],"kubelet-read-only-port":["0"]},"apiVersion":"kubecontrolplane.config.openshift.io/v1","kind":"KubeAPIServerConfig"}`,
			want: pair(certs, kubeletCA, values{kubeapiserver.KubeletReadOnlyPort: "0"}),
		},
		"hosted control plane, indented config.json": {
			data: "{\n    \"kind\": \"KubeAPIServerConfig\",\n    \"apiServerArguments\": {\n" +
				"        \"kubelet-certificate-authority\": [\n            \"" + hosted + "/kubelet-ca/ca.crt\"\n        ],\n" +
				"        \"kubelet-client-certificate\": [\n            \"" + hosted + "/kubelet/tls.crt\"\n        ],\n" +
				"        \"kubelet-client-key\": [\n            \"" + hosted + "/kubelet/tls.key\"\n        ]\n    }\n}\n",
			want: pair(hosted+"/kubelet", hosted+"/kubelet-ca/ca.crt", nil),
		},
		"YAML as in the operator's defaults": {
			data: "apiVersion: kubecontrolplane.config.openshift.io/v1\nkind: KubeAPIServerConfig\napiServerArguments:\n" +
				"  # comments do no harm\n  kubelet-certificate-authority:\n    - " + kubeletCA + "\n" +
				"  kubelet-client-certificate:\n    - " + certs + "/tls.crt\n  kubelet-client-key:\n    - \"" + certs +
				"/tls.key\"\n",
			want: pair(certs, kubeletCA, nil),
		},
		"both shapes: arguments win one by one": {
			data: `{"kind":"KubeAPIServerConfig","apiServerArguments":{"kubelet-client-key":["/new.key"]},` +
				`"kubeletClientInfo":{"ca":"/old.ca","certFile":"/old.crt","keyFile":"/old.key"}}`,
			want: values{
				kubeapiserver.KubeletCertificateAuthority: "/old.ca", kubeapiserver.KubeletClientCertificate: "/old.crt",
				kubeapiserver.KubeletClientKey: "/new.key",
			},
		},
		"kubeletClientInfo empty":    {data: `{"kind":"KubeAPIServerConfig","kubeletClientInfo":{"ca":"","certFile":"","keyFile":""}}`, want: values{}},
		"kubeletClientInfo null":     {data: `{"kind":"KubeAPIServerConfig","kubeletClientInfo":null}`, want: values{}},
		"no kind":                    {data: `{"apiServerArguments":{"kubelet-https":["true"]}}`, want: https("true")},
		"no relevant field":          {data: `{"kind":"KubeAPIServerConfig"}`, want: values{}},
		"no arguments":               {data: `{"kind":"KubeAPIServerConfig","apiServerArguments":null}`, want: values{}},
		"comment only":               {data: "# nothing here\n", want: values{}},
		"scalar":                     {data: argument(`"false"`), want: https("false")},
		"scalar without quotes":      {data: argument(`maybe`), want: https("maybe")},
		"truth value":                {data: argument(`false`), want: https("false")},
		"truth value of YAML 1.1":    {data: argument(`off`), want: https("false")},
		"truth value in a list":      {data: argument(`[true]`), want: https("true")},
		"number":                     {data: argument(`0`), want: https("0")},
		"number in a list":           {data: argument(`[10255]`), want: https("10255")},
		"large number":               {data: argument(`[1000000000]`), want: https("1000000000")},
		"fraction":                   {data: argument(`[-0.5]`), want: https("-0.5")},
		"several values: last":       {data: argument(`["true", "false"]`), want: https("false")},
		"several kinds: last":        {data: argument(`["x", 1, true]`), want: https("true")},
		"empty list":                 {data: argument(`[]`), want: values{}},
		"null":                       {data: argument(`null`), want: values{}},
		"nothing after the colon":    {data: argument(``), want: values{}},
		"null in a list is no value": {data: argument(`["true", null]`), want: https("true")},
		"nulls only":                 {data: argument(`[null, ~]`), want: values{}},
		"empty value":                {data: argument(`""`), want: https("")},
		"empty value comes last":     {data: argument(`["true", ""]`), want: https("")},
		"two documents: the first":   {data: argument(`["true"]`) + "---\n" + argument(`["false"]`), want: https("true")},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			config, err := kubeapiserver.ParseConfig([]byte(c.data))
			if err != nil {
				t.Fatalf("ParseConfig: %v", err)
			}
			if d := cmp.Diff(c.want, valuesOf(config)); d != "" {
				t.Errorf("arguments (-want +got):\n%s", d)
			}
		})
	}
}

// TestParseConfigAsTheServerReadsIt: unusual configurations as kube-apiserver reads them
// (openshift/kubernetes openshift-kube-apiserver/enablement,
// GetOpenshiftConfig, and openshiftkubeapiserver, ConfigToFlags). Its decoder
// accepts a field by its exact name only. Each value becomes a flag, in the order
// of the arguments' names, so that an empty list sets nothing, and in flags
// "_" is "-".
func TestParseConfigAsTheServerReadsIt(t *testing.T) {
	cases := map[string]struct {
		data string
		want values
	}{
		"another spelling is not taken": {
			data: `{"kind":"KubeAPIServerConfig","apiserverarguments":{"kubelet-https":["true"]}}`, want: values{},
		},
		"another spelling after it": {
			data: `{"kind":"KubeAPIServerConfig","apiServerArguments":{"kubelet-https":["false"]},"apiserverarguments":{"kubelet-https":["true"]}}`,
			want: https("false"),
		},
		"another spelling in kubeletClientInfo": {
			data: `{"kind":"KubeAPIServerConfig","kubeletClientInfo":{"certFile":"","certfile":"/tls.crt"}}`, want: values{},
		},
		"underscores": {
			data: `{"kind":"KubeAPIServerConfig","apiServerArguments":{"kubelet_https":["false"]}}`, want: https("false"),
		},
		"underscores come after dashes": {
			data: `{"kind":"KubeAPIServerConfig","apiServerArguments":{"kubelet_https":["false"],"kubelet-https":["true"]}}`,
			want: https("false"),
		},
		"a value in the name": {
			data: `{"kind":"KubeAPIServerConfig","apiServerArguments":{"kubelet-client-key=/a":["b"]}}`,
			want: values{kubeapiserver.KubeletClientKey: "/a=b"},
		},
		"a value in the name, none in the list": {
			data: `{"kind":"KubeAPIServerConfig","apiServerArguments":{"kubelet-client-key=/a":[]}}`, want: values{},
		},
		"an empty list leaves kubeletClientInfo as it is": {
			data: `{"kind":"KubeAPIServerConfig","apiServerArguments":{"kubelet-client-key":[]},"kubeletClientInfo":{"keyFile":"/old.key"}}`,
			want: values{kubeapiserver.KubeletClientKey: "/old.key"},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			config, err := kubeapiserver.ParseConfig([]byte(c.data))
			if err != nil {
				t.Fatalf("ParseConfig: %v", err)
			}
			if d := cmp.Diff(c.want, valuesOf(config)); d != "" {
				t.Errorf("arguments (-want +got):\n%s", d)
			}
		})
	}
}

// TestParseConfigErrors: the error for an invalid configuration is one line and mentions the invalid argument.
func TestParseConfigErrors(t *testing.T) {
	page := messages.Record(t, "errors of the kube-apiserver's configuration")
	cases := map[string]struct{ data, mentions string }{
		"nothing":                        {"", ""},
		"white space":                    {" \n\t\n", ""},
		"too large":                      {strings.Repeat(" ", kubeapiserver.MaxConfigBytes+1), "1048576"},
		"rubbish":                        {"rubbish", ""},
		"bytes":                          {"\x00\x01\x02", ""},
		"cut off":                        {`{"kind":"KubeAPIServerConfig","apiServerArguments":{"kubelet-https":["tr`, ""},
		"a list":                         {`["kubelet-https"]`, ""},
		"tabs in YAML":                   {"kind:\tKubeAPIServerConfig\n\tapiServerArguments: {}\n", ""},
		"another kind":                   {`{"kind":"OpenShiftAPIServerConfig"}`, ""},
		"another spelling of the kind":   {`{"kind":"kubeapiserverconfig"}`, ""},
		"arguments are a list":           {`{"apiServerArguments":["--kubelet-https=true"]}`, ""},
		"arguments are a text":           {`{"apiServerArguments":"--kubelet-https=true"}`, ""},
		"kubeletClientInfo is a list":    {`{"kubeletClientInfo":["/tls.crt"]}`, ""},
		"certFile is a list":             {`{"kubeletClientInfo":{"certFile":["/tls.crt"]}}`, ""},
		"a list inside a list":           {argument(`[["true"]]`), `"kubelet-https"`},
		"an empty list inside a list":    {argument(`["true", []]`), `"kubelet-https"`},
		"a map":                          {argument(`{value: "true"}`), `"kubelet-https"`},
		"a map in a list":                {argument(`[{value: "true"}]`), `"kubelet-https"`},
		"no number":                      {argument(`.nan`), ""},
		"an alias without its anchor":    {argument(`*x`), ""},
		"an anchor that contains itself": {"x: &x [*x]\n", ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			config, err := kubeapiserver.ParseConfig([]byte(c.data))
			page.Error(name, err)
			if err == nil {
				t.Fatalf("ParseConfig: got %v, want an error", valuesOf(config))
			}
			if !strings.Contains(err.Error(), c.mentions) {
				t.Errorf("ParseConfig: got error %q, want one that mentions %s", err, c.mentions)
			}
			if strings.ContainsAny(err.Error(), "\n\r") {
				t.Errorf("ParseConfig: the error has more than one line: %q", err)
			}
			if d := cmp.Diff(values{}, valuesOf(config)); d != "" {
				t.Errorf("arguments beside an error (-want +got):\n%s", d)
			}
		})
	}
}

// TestErrorsHoldNoValues: an error has the beginning of an argument's name, quoted, and no part of a value in the name.
func TestErrorsHoldNoValues(t *testing.T) {
	parsers := map[string]func(data []byte) error{
		"ParseConfig":             func(data []byte) error { _, err := kubeapiserver.ParseConfig(data); return err },
		"ParseOverrides":          func(data []byte) error { _, err := kubeapiserver.ParseOverrides(data); return err },
		"ParseAdmissionOverrides": func(data []byte) error { _, err := kubeapiserver.ParseAdmissionOverrides(data); return err },
	}
	long := strings.Repeat("a", 65)
	cases := map[string]struct {
		parsers   []string
		key, want string
	}{
		"a value of the kubelet's argument": {
			[]string{"ParseConfig", "ParseOverrides"},
			"kubelet-https=-----BEGIN",
			`"kubelet-https"`,
		},
		"a value of a plugin's argument": {
			[]string{
				"ParseConfig",
				"ParseAdmissionOverrides",
			}, "disable-admission-plugins=-----BEGIN", `"disable-admission-plugins"`,
		},
		"64 bytes": {[]string{"ParseConfig"}, long[1:], `"` + long[1:] + `"`},
		"more":     {[]string{"ParseConfig"}, long, `"` + long[1:] + `"`},
		"a letter of several bytes at the end": {
			[]string{"ParseConfig"}, long[2:] + "é", `"` + long[2:] + `\xc3"`,
		},
		"a line break": {[]string{"ParseConfig"}, `a\nb`, `"a\nb"`},
		"only a value": {[]string{"ParseConfig"}, "=x", `""`},
	}
	for name, c := range cases {
		for _, parser := range c.parsers {
			t.Run(name+"/"+parser, func(t *testing.T) {
				err := parsers[parser]([]byte(`{"apiServerArguments":{"` + c.key + `":{"a":1}}}`))
				if !strings.Contains(errorText(err), "apiServerArguments."+c.want+": ") ||
					strings.Contains(errorText(err), "BEGIN") {
					t.Errorf("%s: got error %q, want one about apiServerArguments.%s", parser, errorText(err), c.want)
				}
			})
		}
	}
}

// TestParseConfigErrorIsTheSameEachTime: of several errors the same one is returned each time, so that the message of a
// finding does not change.
func TestParseConfigErrorIsTheSameEachTime(t *testing.T) {
	data := []byte(`{"apiServerArguments":{"b":{},"c":[[]],"a":{},"d":{}}}`)
	const want = `apiServerArguments."a": `
	for range 100 {
		if _, err := kubeapiserver.ParseConfig(data); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Fatalf("ParseConfig: got error %v, want one about %s", err, want)
		}
	}
}

// TestParseConfigIsBounded: parsing a configuration of the permitted size does not take long.
func TestParseConfigIsBounded(t *testing.T) {
	const limit = 20 * time.Second // without the limit it takes hours
	full := func(text string) string { return strings.Repeat(text, kubeapiserver.MaxConfigBytes/len(text)) }
	cases := map[string]string{
		"billion laughs":       billionLaughs(),
		"lists in lists":       full("["),
		"maps in maps":         full("{a: "),
		"lists in block style": full("- "),
		"keys of keys":         full("? "),
		"comments":             full("#\n"),
		"one long word":        full("x"),
		"one long text":        `{"kind":"` + strings.Repeat("x", kubeapiserver.MaxConfigBytes-11) + `"}`,
		"deeper and deeper": func() string {
			var b strings.Builder
			for depth := range 1400 {
				fmt.Fprintf(&b, "%*sa:\n", depth, "")
			}
			return b.String()
		}(),
		"many arguments": func() string {
			var b strings.Builder
			b.WriteString(`{"apiServerArguments":{`)
			for i := 0; b.Len() < kubeapiserver.MaxConfigBytes-100; i++ {
				fmt.Fprintf(&b, `"a%d":[],`, i)
			}
			b.WriteString(`"kubelet-https":["true"]}}`)
			return b.String()
		}(),
	}
	for name, data := range cases {
		t.Run(name, func(t *testing.T) {
			done := make(chan struct{})
			go func() {
				defer close(done)
				_, _ = kubeapiserver.ParseConfig([]byte(data))
			}()
			select {
			case <-done:
			case <-time.After(limit):
				t.Fatalf("ParseConfig of %d bytes takes more than %s", len(data), limit)
			}
		})
	}
}

// billionLaughs is a list of nine times the list before, 25 times over.
func billionLaughs() string {
	text := "a: &a [lol,lol,lol,lol,lol,lol,lol,lol,lol]\n"
	for name := 'b'; name <= 'z'; name++ {
		text += fmt.Sprintf("%c: &%c [%s]\n", name, name,
			strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*%c,", name-1), 9), ","))
	}
	return text
}

// TestParseConfigMemoryIsBounded: a long text that aliases repeat must not be expanded. At the permitted size
// that would be tens of GB.
func TestParseConfigMemoryIsBounded(t *testing.T) {
	const most = 8 << 20
	data := []byte("text: &text " + strings.Repeat("x", 16<<10) + "\nlist: [" + strings.Repeat("*text,", 500) + "]\n")
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := kubeapiserver.ParseConfig(data)
	runtime.ReadMemStats(&after)
	if allocated := after.TotalAlloc - before.TotalAlloc; allocated > most {
		t.Errorf("ParseConfig of %d bytes allocates %d bytes, more than %d (error %v)", len(data), allocated, most, err)
	}
}

func TestParseFlags(t *testing.T) {
	cases := map[string]struct {
		words []string
		want  values
	}{
		"no words": {words: nil, want: values{}},
		"name=value": {
			words: []string{"kube-apiserver", "--kubelet-client-key=/tls.key"},
			want:  values{kubeapiserver.KubeletClientKey: "/tls.key"},
		},
		"name value": {
			words: []string{"--kubelet-client-key", "/tls.key", "--v=2"},
			want:  values{kubeapiserver.KubeletClientKey: "/tls.key"},
		},
		"underscores": {
			words: []string{"--kubelet_client_certificate=/a_b.crt", "--kubelet_client-key", "/a_b.key"},
			want:  values{kubeapiserver.KubeletClientCertificate: "/a_b.crt", kubeapiserver.KubeletClientKey: "/a_b.key"},
		},
		"value with =": {
			words: []string{"--kubelet-client-key=/a=b"},
			want:  values{kubeapiserver.KubeletClientKey: "/a=b"},
		},
		"empty value": {
			words: []string{"--kubelet-client-key="},
			want:  values{kubeapiserver.KubeletClientKey: ""},
		},
		"a value that looks like a flag": {
			words: []string{"--kubelet-client-key", "--kubelet-https=false"},
			want:  values{kubeapiserver.KubeletClientKey: "--kubelet-https=false"},
		},
		"a truth value before a flag": {words: []string{"--profiling", "--kubelet-https=false"}, want: https("false")},
		"a short flag and its value": {
			words: []string{"-v", "--kubelet-https=true", "--kubelet-https=false"},
			want:  https("false"),
		},
		"behind the flags": {
			words: []string{"--kubelet-https=false", "--", "--kubelet-https=true"},
			want:  https("false"),
		},
		"no value at the end": {
			words: []string{"--kubelet-client-key"},
			want:  values{kubeapiserver.KubeletClientKey: ""},
		},
		"repeated: last": {
			words: []string{"--kubelet-https=true", "--kubelet-https=false"},
			want:  https("false"),
		},
		"repeated in another way: last": {
			words: []string{"--kubelet-read-only-port=0", "--kubelet_read_only_port", "10255"},
			want:  values{kubeapiserver.KubeletReadOnlyPort: "10255"},
		},
		"kubelet-https alone":         {words: []string{"--kubelet-https"}, want: https("true")},
		"kubelet-https takes no word": {words: []string{"--kubelet-https", "false"}, want: https("true")},
		"kubelet_https alone":         {words: []string{"--kubelet_https", "false"}, want: https("true")},
		"among other words": {
			words: []string{"hyperkube", "kube-apiserver", "--kubelet-https=false", "-v=2", "x"},
			want:  https("false"),
		},
		"one dash is a short flag": {words: []string{"-kubelet-https=false"}, want: values{}},
		"no dash":                  {words: []string{"kubelet-https=false"}, want: values{}},
		"another case":             {words: []string{"--Kubelet-HTTPS=false"}, want: values{}},
		"a name that goes on":      {words: []string{"--kubelet-https-x=false"}, want: values{}},
		"quotes are the caller's": {
			words: []string{`--kubelet-client-key="/tls.key"`},
			want:  values{kubeapiserver.KubeletClientKey: `"/tls.key"`},
		},
		"dashes only": {words: []string{"--", "---", "--=", "-", ""}, want: values{}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if d := cmp.Diff(c.want, valuesOf(kubeapiserver.ParseFlags(c.words))); d != "" {
				t.Errorf("ParseFlags(%q) (-want +got):\n%s", c.words, d)
			}
		})
	}
	flags := kubeapiserver.ParseFlags([]string{"--openshift-config", "/config.yaml"})
	if got, _ := flags.Value(kubeapiserver.OpenShiftConfigFlag); got != "/config.yaml" {
		t.Errorf("%s: got %q", kubeapiserver.OpenShiftConfigFlag, got)
	}
}

// TestParseWords: command lines with words that are not known.
func TestParseWords(t *testing.T) {
	known := func(text string) kubeapiserver.Word { return kubeapiserver.Word{Text: text} }
	partly := func(text string) kubeapiserver.Word { return kubeapiserver.Word{Text: text, Undecided: "unknown"} }
	plain := kubeapiserver.Word{Undecided: "unknown", Plain: true}
	several := kubeapiserver.Word{Undecided: "unknown", Several: true}
	const key, https = kubeapiserver.KubeletClientKey, kubeapiserver.KubeletHTTPS
	const config = kubeapiserver.OpenShiftConfigFlag
	const takesNext = `"etcd-servers"` // the reason mentions it
	of := func(why string) map[string]string { return map[string]string{key: why, https: why, config: why} }
	cases := map[string]struct {
		words []kubeapiserver.Word
		// want says why arguments are not known, wantValues has the values of the others.
		want       map[string]string
		wantValues values
	}{
		"a value": {
			words:      []kubeapiserver.Word{partly("--kubelet-client-key="), known("--kubelet-https=true")},
			want:       map[string]string{key: "unknown"},
			wantValues: values{https: "true"},
		},
		"the end of a value": {
			words: []kubeapiserver.Word{partly("--kubelet_client_key=/a/")},
			want:  map[string]string{key: "unknown"},
		},
		"a value in its own word": {
			words: []kubeapiserver.Word{known("--kubelet-client-key"), partly("")},
			want:  map[string]string{key: "unknown"},
		},
		"another flag's value": {
			words:      []kubeapiserver.Word{partly("--advertise-address="), known("--kubelet-client-key=/k")},
			wantValues: values{key: "/k"},
		},
		"several for a value": {
			words: []kubeapiserver.Word{known("--kubelet-client-key"), several},
			want:  of("unknown"),
		},
		"a value, then another": {
			words:      []kubeapiserver.Word{partly("--kubelet-https="), known("--kubelet-https=false")},
			wantValues: values{https: "false"},
		},
		"another, then a value": {
			words: []kubeapiserver.Word{known("--kubelet-https=false"), partly("--kubelet-https=")},
			want:  map[string]string{https: "unknown"},
		},
		"one of several that add": {
			words: []kubeapiserver.Word{partly("--feature-gates="), known("--feature-gates=A=true")},
			want:  map[string]string{kubeapiserver.FeatureGates: "unknown"},
		},
		"a word": {
			words: []kubeapiserver.Word{known("--kubelet-https=true"), partly("")},
			want:  of("unknown"),
		},
		"a word in front": {
			words: []kubeapiserver.Word{partly(""), known("--kubelet-https=true")},
			want:  of("unknown"),
		},
		"a name":       {words: []kubeapiserver.Word{partly("--kubelet-")}, want: of("unknown")},
		"dashes":       {words: []kubeapiserver.Word{partly("-")}, want: of("unknown")},
		"a short flag": {words: []kubeapiserver.Word{partly("-v=")}},
		"several words": {
			words: []kubeapiserver.Word{{Text: "--advertise-address=", Undecided: "unknown", Several: true}},
			want:  of("unknown"),
		},
		"an address": {
			words:      []kubeapiserver.Word{plain, known("--kubelet-https=true")},
			wantValues: values{https: "true"},
		},
		"a path": {
			words:      []kubeapiserver.Word{partly("/etc/"), known("--kubelet-https=true")},
			wantValues: values{https: "true"},
		},
		"behind the flags": {words: []kubeapiserver.Word{known("--"), partly("")}},
		"configuration behind it": {
			words:      []kubeapiserver.Word{partly(""), known("--openshift-config=/c")},
			want:       map[string]string{key: "unknown", https: "unknown"},
			wantValues: values{config: "/c"},
		},
		"configuration before it": {
			words: []kubeapiserver.Word{known("--openshift-config=/c"), partly("")},
			want:  of("unknown"),
		},
		"may take the next one": {
			words: []kubeapiserver.Word{known("--etcd-servers"), known("--kubelet-https=false")},
			want:  of(takesNext),
		},
		"takes a word that is not a flag": {
			words:      []kubeapiserver.Word{known("--etcd-servers"), known("http://a"), known("--kubelet-https=false")},
			wantValues: values{https: "false"},
		},
		"takes what may be a flag": {
			words:      []kubeapiserver.Word{known("--etcd-servers"), partly(""), known("--kubelet-https=false")},
			wantValues: values{https: "false"},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			got := kubeapiserver.ParseWords(c.words)
			for _, argument := range []string{key, https, config, kubeapiserver.FeatureGates} {
				want := c.want[argument]
				if want == "" && got.AllUndecided() != "" && argument == kubeapiserver.FeatureGates {
					want = got.AllUndecided()
				}
				if why := got.Undecided(argument); why != want && (want != takesNext || !strings.Contains(why, want)) {
					t.Errorf("Undecided(%s): got %q, want %q", argument, why, want)
				}
				if value, set := got.Value(argument); value != c.wantValues[argument] || set != (c.wantValues[argument] != "") {
					t.Errorf("Value(%s): got %q, %t, want %q", argument, value, set, c.wantValues[argument])
				}
			}
		})
	}
}

// TestUnderUndecided: the values of a configuration file count whatever the command line has, except for arguments of
// which all values count.
func TestUnderUndecided(t *testing.T) {
	file, err := kubeapiserver.ParseConfig(
		[]byte(`{"apiServerArguments":{"kubelet-client-key":["/file.key"],"feature-gates":["A=true"],"kubelet-https":[]}}`),
	)
	if err != nil {
		t.Fatal(err)
	}
	for name, words := range map[string][]kubeapiserver.Word{
		"all":  {{Undecided: "unknown", Several: true}},
		"each": {{Text: "--kubelet-client-key=", Undecided: "unknown"}, {Text: "--feature-gates=", Undecided: "unknown"}, {Text: "--kubelet-https=", Undecided: "unknown"}},
	} {
		t.Run(name, func(t *testing.T) {
			got := kubeapiserver.ParseWords(words).Under(file)
			if value, set := got.Value(kubeapiserver.KubeletClientKey); value != "/file.key" || !set ||
				got.Undecided(kubeapiserver.KubeletClientKey) != "" {
				t.Errorf("%s: got %q, %t, undecided %q", kubeapiserver.KubeletClientKey, value, set,
					got.Undecided(kubeapiserver.KubeletClientKey))
			}
			for _, argument := range []string{kubeapiserver.FeatureGates, kubeapiserver.KubeletHTTPS} {
				if got.Undecided(argument) != "unknown" {
					t.Errorf("%s is known", argument)
				}
			}
			if argument, why := got.AdmissionUndecided(); argument == "" || why != "unknown" {
				t.Errorf("AdmissionUndecided: got %q, %q", argument, why)
			}
		})
	}
}

func TestUnder(t *testing.T) {
	parse := func(data string) kubeapiserver.Config {
		config, err := kubeapiserver.ParseConfig([]byte(data))
		if err != nil {
			t.Fatal(err)
		}
		return config
	}
	flags := kubeapiserver.ParseFlags([]string{"--kubelet-https=false", "--kubelet-client-key=/flag.key"})
	file := parse(`{"apiServerArguments":{"kubelet-https":["true"],"kubelet-client-certificate":["/file.crt"]}}`)

	cases := map[string]struct {
		base, over kubeapiserver.Config
		want       values
	}{
		"what the other sets, counts": {base: flags, over: file, want: values{
			kubeapiserver.KubeletHTTPS: "true", kubeapiserver.KubeletClientKey: "/flag.key", kubeapiserver.KubeletClientCertificate: "/file.crt",
		}},
		"the other way round": {base: file, over: flags, want: values{
			kubeapiserver.KubeletHTTPS: "false", kubeapiserver.KubeletClientKey: "/flag.key", kubeapiserver.KubeletClientCertificate: "/file.crt",
		}},
		"zero under": {
			base: kubeapiserver.Config{},
			over: flags,
			want: values{kubeapiserver.KubeletHTTPS: "false", kubeapiserver.KubeletClientKey: "/flag.key"},
		},
		"zero over": {
			base: flags,
			over: kubeapiserver.Config{},
			want: values{kubeapiserver.KubeletHTTPS: "false", kubeapiserver.KubeletClientKey: "/flag.key"},
		},
		"zero and zero": {want: values{}},
		"an empty value is set": {
			base: flags,
			over: parse(argument(`[""]`)),
			want: values{kubeapiserver.KubeletHTTPS: "", kubeapiserver.KubeletClientKey: "/flag.key"},
		},
		"an empty list sets nothing": {
			base: flags,
			over: parse(argument(`[]`)),
			want: values{kubeapiserver.KubeletHTTPS: "false", kubeapiserver.KubeletClientKey: "/flag.key"},
		},
		"null sets nothing": {
			base: flags,
			over: parse(argument(`null`)),
			want: values{kubeapiserver.KubeletHTTPS: "false", kubeapiserver.KubeletClientKey: "/flag.key"},
		},
		"an empty list in the base": {
			base: parse(argument(`[]`)),
			over: file,
			want: values{kubeapiserver.KubeletHTTPS: "true", kubeapiserver.KubeletClientCertificate: "/file.crt"},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			base, over := valuesOf(c.base), valuesOf(c.over)
			if d := cmp.Diff(c.want, valuesOf(c.base.Under(c.over))); d != "" {
				t.Errorf("Under (-want +got):\n%s", d)
			}
			if d := cmp.Diff([]values{base, over}, []values{valuesOf(c.base), valuesOf(c.over)}); d != "" {
				t.Errorf("Under changed what it was given (-before +after):\n%s", d)
			}
		})
	}
}

// FuzzParse: no input makes a parser panic. With an error there is no result. Without an error the result has lists of
// texts only, which are the same after they are written and read again.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"", " ", "rubbish", "null", "[]", "{}", "\x00", billionLaughs(), strings.Repeat(" ", kubeapiserver.MaxConfigBytes+1),
		`{"kind":"KubeAPIServerConfig","apiServerArguments":{"kubelet-https":["true"],"kubelet-read-only-port":["0"]}}`,
		`{"kind":"KubeAPIServerConfig","kubeletClientInfo":{"ca":"/ca","certFile":"/crt","keyFile":"/key","port":10250}}`,
		`{"kind":"Pod"}`, `{"kind":5}`, `{"kind":["KubeAPIServerConfig"]}`,
		`{"apiServerArguments":["--kubelet-https"]}`, `{"kubeletClientInfo":[]}`, `{"kubeletClientInfo":null}`,
		argument(`"a"`), argument(`true`), argument(`off`), argument(`0`), argument(`1e300`), argument(`-0.5`), argument(`.nan`), argument(`.inf`),
		argument(`null`), argument(`[]`), argument(`[""]`), argument(`[null]`), argument(`["a", 1, false]`), argument(`[[]]`), argument(`{}`), argument(`[{}]`),
		argument(`2026-11-22`), argument(`!!binary aGk=`), argument(`!!str 5`), argument(`&a [*a]`), argument(`*a`),
		"a: &a [x]\n" + argument(`*a`), "<<: {kind: Pod}\n" + argument(`1`), "1: a\n\"1\": b\n", "~: x\n", "? [a]\n: b\n",
		`{"kind":"KubeAPIServerConfig","admission":{"disabledPlugins":["ValidatingAdmissionWebhook"],"pluginConfig":{"ValidatingAdmissionPolicy":{"location":"/x"}}}}`,
		`{"apiServerArguments":{"disable-admission-plugins":["A,ValidatingAdmissionPolicy"],"runtime-config=api/ga":["false"],"feature-gates":["ValidatingAdmissionPolicy=0"],"admission-control":[""]}}`,
		"--disable-admission-plugins=\"ValidatingAdmissionWebhook --runtime-config=api/all=false,admissionregistration.k8s.io/v1/validatingadmissionpolicies --admission-control",
		"--kubelet-https --kubelet_client_key /a --kubelet-client-certificate=/b --kubelet-read-only-port", "-- --= --- -",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		config, err := kubeapiserver.ParseConfig(data)
		got := valuesOf(config)
		if err != nil && len(got) > 0 {
			t.Errorf("ParseConfig: %v beside error %v", got, err)
		}
		if err == nil && len(data) > kubeapiserver.MaxConfigBytes {
			t.Errorf("ParseConfig: no error for %d bytes", len(data))
		}
		lists := map[string][]string{}
		for name, value := range got {
			lists[name] = []string{value}
		}
		written, err := json.Marshal(map[string]any{"kind": "KubeAPIServerConfig", "apiServerArguments": lists})
		if err != nil {
			t.Fatal(err)
		}
		if len(written) <= kubeapiserver.MaxConfigBytes {
			again, err := kubeapiserver.ParseConfig(written)
			if err != nil {
				t.Errorf("ParseConfig of %s: %v", written, err)
			}
			if d := cmp.Diff(got, valuesOf(again)); d != "" {
				t.Errorf("read, written and read again (-first +second):\n%s", d)
			}
		}

		if overrides, err := kubeapiserver.ParseOverrides(data); err != nil && overrides != nil {
			t.Errorf("ParseOverrides: %v beside error %v", overrides, err)
		}
		settings, err := kubeapiserver.ParseAdmissionOverrides(data)
		if err != nil && settings != nil {
			t.Errorf("ParseAdmissionOverrides: %v beside error %v", settings, err)
		}
		checkSettings(t, settings)
		checkSettings(t, config.DisabledAdmission())
		checkSettings(t, kubeapiserver.ParseFlags(strings.Fields(string(data))).DisabledAdmission())
		if plugins, err := config.AdmissionPlugins(); err != nil && plugins.Plugins != nil {
			t.Errorf("AdmissionPlugins: %v beside error %v", plugins, err)
		}

		flags := kubeapiserver.ParseFlags(strings.Fields(string(data)))
		var words []string
		for name, value := range valuesOf(flags) {
			words = append(words, "--"+name+"="+value)
		}
		if d := cmp.Diff(valuesOf(flags), valuesOf(kubeapiserver.ParseFlags(words))); d != "" {
			t.Errorf("flags read, written and read again (-first +second):\n%s", d)
		}
		if d := cmp.Diff(got, valuesOf(kubeapiserver.Config{}.Under(config))); d != "" {
			t.Errorf("laid over nothing (-want +got):\n%s", d)
		}
	})
}
