// SPDX-License-Identifier: Apache-2.0

package tlsserver

import (
	"crypto/fips140"
	"crypto/tls"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/internal/tlsprofile"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/messages"
)

// TestProfile: the current profile applies to each new connection.
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
	aes256 := &tls.Config{
		MinVersion:   tls.VersionTLS12,
		MaxVersion:   tls.VersionTLS12,
		CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384},
	}
	cases := map[string]struct {
		profile       tlsprofile.Profile
		tls12, aes256 bool // whether the server accepts such a client
		x25519        bool // the same, with TLS 1.3
	}{
		"zero":       {tlsprofile.Profile{}, true, true, true},
		"TLS 1.3":    {tlsprofile.Profile{MinVersion: tls.VersionTLS13}, false, false, true},
		"TLS 1.0":    {tlsprofile.Profile{MinVersion: tls.VersionTLS10}, true, true, true},
		"one cipher": {tlsprofile.Profile{MinVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}}, true, false, true},
		"one group":  {tlsprofile.Profile{Groups: []tls.CurveID{tls.CurveP384}}, true, true, false},
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
			x25519 := &tls.Config{MinVersion: tls.VersionTLS13, CurvePreferences: []tls.CurveID{tls.X25519}}
			if err := dial(x25519); (err == nil) != c.x25519 && !fips140.Enabled() {
				t.Errorf("X25519: %v", err)
			}
			if err := dial(&tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}); err == nil {
				t.Error("the server accepts TLS 1.1")
			}
		})
	}
}

// TestClientCA: only clients with an accepted certificate are answered. The others get the
// reason before their request is read.
func TestClientCA(t *testing.T) {
	page := messages.Record(t, "answers to clients without an accepted certificate")
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
	r := startWith(
		t,
		pkitest.NewCAAround("ca", now),
		Options{
			ClientCA:    file,
			ClientNames: []string{"api-server"},
			Handler:     http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handled++; echo(w, r) }),
		},
	)
	type answer struct {
		Code     int // 0 for a TLS alert
		Mentions string
		Handled  int
	}
	ask := func(pair *tls.Certificate) answer {
		handled = 0
		client := &http.Client{
			Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: r.roots, MinVersion: tls.VersionTLS12}},
		}
		defer client.CloseIdleConnections()
		if pair != nil {
			config := client.Transport.(*http.Transport).TLSClientConfig
			config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return pair, nil }
		}
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+r.address, strings.NewReader("x"))
		if err != nil {
			t.Fatal(err)
		}
		response, err := client.Do(request)
		if err != nil {
			return answer{}
		}
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		if response.StatusCode != http.StatusOK {
			page.Text(strconv.Itoa(response.StatusCode), string(text))
		}
		mentions := ""
		if strings.Contains(string(text), `"somebody"`) {
			mentions = "somebody"
		}
		return answer{response.StatusCode, mentions, handled}
	}
	check := func(what string, pair *tls.Certificate, want answer) {
		t.Helper()
		if diff := cmp.Diff(want, ask(pair)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	good := answer{http.StatusOK, "", 1}
	check("the API server", of(ca, "api-server"), good)
	check("no certificate", nil, answer{http.StatusUnauthorized, "", 0})
	check("another name", of(ca, "somebody"), answer{http.StatusForbidden, "somebody", 0})
	check("a certificate of a foreign CA", of(foreign, "api-server"), answer{})

	// During a rotation both CAs are accepted.
	if err := os.WriteFile(file, append(ca.PEM(), foreign.PEM()...), 0o600); err != nil {
		t.Fatal(err)
	}
	r.reload()
	check("a certificate of the old CA", of(ca, "api-server"), good)
	check("a certificate of the new CA", of(foreign, "api-server"), good)
	if err := os.WriteFile(file, []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.reload()
	check("after the file became invalid", of(foreign, "api-server"), good)
	r.answered.Store(nil)
	if err := r.Ready(t.Context()); err != nil {
		t.Errorf("not ready: %v", err)
	}
	if _, err := New(Options{Directory: r.Directory, ClientCA: file, Now: time.Now, Log: r.Log}); err == nil ||
		!strings.Contains(err.Error(), "no PEM block") {
		t.Errorf("an invalid file at the start: %v", err)
	}
}
