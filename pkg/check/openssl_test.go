// SPDX-License-Identifier: Apache-2.0

package check_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
)

// TestWildWithOpenSSL: OpenSSL makes the same of each pair as crypto/tls does at the client, except of a few. What a
// kube-apiserver can use is decided by crypto/tls.
func TestWildWithOpenSSL(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("openssl is missing (Debian: openssl)")
		}
		t.Skip("no openssl here (Debian: openssl)")
	}
	differs := []string{
		"RSA, e = 2^33+1", "RSA 512, which crypto/tls loads", "serial number -1", // only OpenSSL accepts these
		"any usage, under a CA of any usage", // only crypto/tls accepts it
	}
	for name, c := range pkitest.WildPairs() {
		t.Run(name, func(t *testing.T) {
			want := strings.HasPrefix(c.Works, "client 1.") != slices.Contains(differs, name)
			if accepts := opensslAccepts(t, c); accepts != want {
				t.Errorf("OpenSSL accepts the pair: %t, want %t", accepts, want)
			}
		})
	}
}

// opensslAccepts reports whether OpenSSL verifies the certificate as that of a client, and the key belongs to it.
func opensslAccepts(t *testing.T, c pkitest.WildPair) bool {
	t.Helper()
	directory := t.TempDir()
	path := func(name string) string { return filepath.Join(directory, name) }
	for name, data := range map[string][]byte{"crt": c.Certificate, "key": c.Key, "ca": c.Roots} {
		if err := os.WriteFile(path(name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run := func(args ...string) ([]byte, bool) {
		command := exec.CommandContext(t.Context(), "openssl", args...)
		var stdout, stderr bytes.Buffer
		command.Stdout, command.Stderr = &stdout, &stderr
		if err := command.Run(); err != nil {
			t.Logf("openssl %s: %v\n%s", args[0], err, stderr.Bytes())
			return nil, false
		}
		return stdout.Bytes(), true
	}
	// The file has the leaf first; the rest of it are intermediates.
	_, verified := run("verify", "-attime", strconv.FormatInt(pkitest.Now().Unix(), 10), "-purpose", "sslclient",
		"-CAfile", path("ca"), "-untrusted", path("crt"), path("crt"))
	ofCertificate, readable := run("x509", "-in", path("crt"), "-noout", "-pubkey")
	ofKey, loadable := run("pkey", "-in", path("key"), "-pubout", "-passin", "pass:")
	return verified && readable && loadable && bytes.Equal(ofCertificate, ofKey)
}
