// SPDX-License-Identifier: Apache-2.0

package tlsserver

import (
	"crypto/tls"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pkitest"
)

func TestProfileOf(t *testing.T) {
	standard := Profile{MinVersion: tls.VersionTLS12, CipherSuites: intermediate}
	cases := map[string]struct {
		spec  string // empty: there is no such object
		want  Profile
		fault string
	}{
		"no object":          {},
		"none chosen":        {spec: `{}`, want: standard},
		"an empty one":       {spec: `{"tlsSecurityProfile":{}}`, want: standard},
		"Intermediate":       {spec: `{"tlsSecurityProfile":{"type":"Intermediate","intermediate":{}}}`, want: standard},
		"Old":                {spec: `{"tlsSecurityProfile":{"type":"Old","old":{}}}`, want: Profile{MinVersion: tls.VersionTLS12}},
		"Modern":             {spec: `{"tlsSecurityProfile":{"type":"Modern","modern":{}}}`, want: Profile{MinVersion: tls.VersionTLS13}},
		"Custom":             {spec: `{"tlsSecurityProfile":{"type":"Custom","custom":{"minTLSVersion":"VersionTLS12","ciphers":["DHE-RSA-AES128-GCM-SHA256","ECDHE-RSA-AES128-GCM-SHA256"]}}}`, want: Profile{MinVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}}},
		"Custom, too old":    {spec: `{"tlsSecurityProfile":{"type":"Custom","custom":{"minTLSVersion":"VersionTLS10","ciphers":["ECDHE-RSA-AES256-SHA"]}}}`, want: Profile{MinVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA}}},
		"Custom, TLS 1.3":    {spec: `{"tlsSecurityProfile":{"type":"Custom","custom":{"minTLSVersion":"VersionTLS13","ciphers":["TLS_AES_128_GCM_SHA256"]}}}`, want: Profile{MinVersion: tls.VersionTLS13}},
		"Custom, unspoken":   {spec: `{"tlsSecurityProfile":{"type":"Custom","custom":{"minTLSVersion":"VersionTLS12","ciphers":["AES128-SHA"]}}}`, want: Profile{MinVersion: tls.VersionTLS12}, fault: "none of spec.tlsSecurityProfile.custom.ciphers is spoken"},
		"Custom, no version": {spec: `{"tlsSecurityProfile":{"type":"Custom","custom":{}}}`, fault: `spec.tlsSecurityProfile.custom.minTLSVersion "" is not known`},
		"Custom, garbage":    {spec: `{"tlsSecurityProfile":{"type":"Custom","custom":{"minTLSVersion":"VersionTLS12","ciphers":7}}}`, want: Profile{MinVersion: tls.VersionTLS12}, fault: "spec.tlsSecurityProfile.custom.ciphers: "},
		"of the future":      {spec: `{"tlsSecurityProfile":{"type":"PostQuantum"}}`, fault: `spec.tlsSecurityProfile.type "PostQuantum" is not known`},
		"garbage":            {spec: `{"tlsSecurityProfile":7}`, fault: "spec.tlsSecurityProfile: "},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var object *unstructured.Unstructured
			if c.spec != "" {
				object = &unstructured.Unstructured{}
				if err := json.Unmarshal([]byte(`{"spec":`+c.spec+`}`), &object.Object); err != nil {
					t.Fatal(err)
				}
			}
			got, err := ProfileOf(object)
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if (err == nil) != (c.fault == "") || err != nil && !strings.HasPrefix(err.Error(), c.fault) {
				t.Errorf("error %v, want %q", err, c.fault)
			}
		})
	}
}

// TestProfile: that of now counts, for each connection.
func TestProfile(t *testing.T) {
	r := start(t, pkitest.NewCAAround("ca", time.Now()), 0, echo)
	dial := func(client *tls.Config) error {
		client.RootCAs = r.roots
		connection, err := (&tls.Dialer{Config: client}).DialContext(t.Context(), "tcp", r.address)
		if err != nil {
			return err
		}
		return connection.Close()
	}
	tls12 := &tls.Config{MinVersion: tls.VersionTLS12, MaxVersion: tls.VersionTLS12}
	aes256 := &tls.Config{MinVersion: tls.VersionTLS12, MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384}}
	cases := map[string]struct {
		profile       Profile
		tls12, aes256 bool // whether such a client is served
	}{
		"zero":       {Profile{}, true, true},
		"TLS 1.3":    {Profile{MinVersion: tls.VersionTLS13}, false, false},
		"below":      {Profile{MinVersion: tls.VersionTLS10}, true, true},
		"one cipher": {Profile{MinVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}}, true, false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			r.profile.Store(&c.profile)
			if err := dial(tls12); (err == nil) != c.tls12 {
				t.Errorf("TLS 1.2: %v", err)
			}
			if err := dial(aes256); (err == nil) != c.aes256 {
				t.Errorf("AES 256: %v", err)
			}
			if err := dial(&tls.Config{MinVersion: tls.VersionTLS13}); err != nil {
				t.Errorf("TLS 1.3: %v", err)
			}
			if err := dial(&tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}); err == nil {
				t.Error("TLS 1.1 is spoken")
			}
		})
	}
}

// TestClientCA: who may ask is told by a client certificate, and whoever may not
// is told why, before anything is read.
func TestClientCA(t *testing.T) {
	now := time.Now()
	ca, foreign := pkitest.NewCAAround("clients", now), pkitest.NewCAAround("foreign", now)
	of := func(ca *pkitest.CA, name string) *tls.Certificate {
		request := pkitest.KubeletClient().Valid(now.Add(-time.Hour), now.AddDate(0, 0, 1))
		request.CommonName = name
		issued := ca.Issue(request)
		pair, err := tls.X509KeyPair(issued.Certificate, issued.Key)
		if err != nil {
			t.Fatal(err)
		}
		return &pair
	}
	file := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(file, ca.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	handled := 0
	r := startWith(t, pkitest.NewCAAround("ca", now), Options{ClientCA: file, ClientNames: []string{"api-server"}, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handled++; echo(w, r) })})
	type answer struct {
		Code    int
		Says    string
		Handled int
	}
	ask := func(pair *tls.Certificate) answer {
		handled = 0
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: r.roots, MinVersion: tls.VersionTLS12}}}
		defer client.CloseIdleConnections()
		if pair != nil {
			client.Transport.(*http.Transport).TLSClientConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return pair, nil }
		}
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+r.address, strings.NewReader("x"))
		if err != nil {
			t.Fatal(err)
		}
		response, err := client.Do(request)
		if err != nil {
			return answer{Says: "a TLS alert"}
		}
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		says, _, _ := strings.Cut(string(text), ":")
		return answer{response.StatusCode, says, handled}
	}
	check := func(what string, pair *tls.Certificate, want answer) {
		t.Helper()
		if diff := cmp.Diff(want, ask(pair)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	good := answer{http.StatusOK, "x", 1}
	check("the API server", of(ca, "api-server"), good)
	check("nobody", nil, answer{http.StatusUnauthorized, "who asks this webhook must show a client certificate", 0})
	check("somebody else", of(ca, "somebody"), answer{http.StatusForbidden, "\"somebody\" is not among those who may ask this webhook", 0})
	check("of a foreign CA", of(foreign, "api-server"), answer{Says: "a TLS alert"})

	// Both CAs are known while one takes over from the other.
	if err := os.WriteFile(file, append(ca.PEM(), foreign.PEM()...), 0o600); err != nil {
		t.Fatal(err)
	}
	r.reload()
	check("of the old CA", of(ca, "api-server"), good)
	check("of the new CA", of(foreign, "api-server"), good)
	if err := os.WriteFile(file, []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.reload()
	check("after garbage", of(foreign, "api-server"), good)
	if err := r.Ready(t.Context()); err != nil {
		t.Errorf("it is not ready: %v", err)
	}
	if _, err := New(Options{Directory: r.Directory, ClientCA: file, Now: time.Now, Log: r.Log}); err == nil || !strings.Contains(err.Error(), "holds no PEM block") {
		t.Errorf("garbage at the start: %v", err)
	}
}
