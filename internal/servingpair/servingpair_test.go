// SPDX-License-Identifier: Apache-2.0

package servingpair_test

import (
	"encoding/pem"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/command"
	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/internal/servingpair"
)

// TestRead: a valid pair is used when it is there, and stays in use while the files are not a valid pair.
func TestRead(t *testing.T) {
	ca := pkitest.NewCA("ca")
	first, second := ca.Issue(pkitest.ServingCert()), ca.Issue(pkitest.ServingCert())
	files := fstest.MapFS{}
	reader := servingpair.Reader{Flag: "--metrics-cert-dir", Directory: "/certs", Files: files}
	type step struct {
		name     string
		crt, key []byte // nil: no file
		changed  bool
		fault    string
		inUse    []byte // the certificate in use after this step
	}
	for _, s := range []step{
		{name: "no files", fault: "--metrics-cert-dir /certs: tls.crt: no such file"},
		{name: "no key", crt: first.Certificate, fault: "--metrics-cert-dir /certs: tls.key: no such file"},
		{name: "the first pair", crt: first.Certificate, key: first.Key, changed: true, inUse: first.Certificate},
		{name: "the same again", crt: first.Certificate, key: first.Key, inUse: first.Certificate},
		{
			name: "half written", crt: second.Certificate, key: first.Key, inUse: first.Certificate,
			fault: "--metrics-cert-dir /certs: tls: private key does not match public key",
		},
		{
			name: "too large", crt: make([]byte, 1<<20+1), key: first.Key, inUse: first.Certificate,
			fault: "--metrics-cert-dir /certs: tls.crt: larger than 1048576 bytes",
		},
		{name: "removed", inUse: first.Certificate, fault: "--metrics-cert-dir /certs: tls.crt: no such file"},
		{name: "renewed", crt: second.Certificate, key: second.Key, changed: true, inUse: second.Certificate},
	} {
		for name, content := range map[string][]byte{"tls.crt": s.crt, "tls.key": s.key} {
			delete(files, name)
			if content != nil {
				files[name] = &fstest.MapFile{Data: content}
			}
		}
		changed, err := reader.Read()
		fault := ""
		if err != nil {
			fault = err.Error()
			if !command.IsUsage(err) {
				t.Errorf("%s: no usage error: %v", s.name, err)
			}
		}
		if diff := cmp.Diff(s.fault, fault); diff != "" || changed != s.changed {
			t.Errorf("%s: changed %v, error (-want +got):\n%s", s.name, changed, diff)
		}
		if strings.Contains(fault, "PRIVATE") {
			t.Errorf("%s: the error quotes a key", s.name)
		}
		pair := reader.Pair()
		if (pair == nil) != (s.inUse == nil) || pair != nil && !strings.Contains(string(s.inUse), pemOf(pair.Leaf.Raw)) {
			t.Errorf("%s: another certificate is in use", s.name)
		}
	}
}

// pemOf returns the base64 lines of a PEM block.
func pemOf(der []byte) string {
	_, rest, _ := strings.Cut(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), "\n")
	body, _, _ := strings.Cut(rest, "-----")
	return body
}
