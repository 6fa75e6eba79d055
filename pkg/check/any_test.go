// SPDX-License-Identifier: Apache-2.0

package check_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"testing"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// TestAnyFacts: for any facts, also contradictory ones, each requirement has a result, and each
// result is complete (see assertComplete).
func TestAnyFacts(t *testing.T) {
	now := pkitest.Now()
	ca := pkitest.NewCA("signer")
	p := ca.Issue(pkitest.KubeletClient())
	problems := []*finding.Result{nil, because(finding.Unreadable), because(finding.CertificateMissing)}
	data := [][]byte{nil, []byte("garbage"), p.Certificate, p.Key}
	errs := []error{nil, fs.ErrNotExist, fs.ErrPermission}
	modes := []fs.FileMode{0, 0o644, fs.ModeDir}

	var files []check.File
	for _, path := range []string{"", "/file"} {
		for _, err := range errs {
			for _, mode := range modes {
				for _, content := range data {
					files = append(files, check.File{Path: path, Err: err, Mode: mode, Data: content})
				}
			}
		}
	}
	for _, problem := range problems[1:] {
		files = append(files, check.File{WhyUnknown: problem}, check.File{Path: "/file", WhyUnknown: problem, Data: p.Key})
	}
	files = append(files, check.File{Path: "/file", Size: 2 << 20, Data: p.Key})

	t.Run("files", func(t *testing.T) {
		assertComplete(t, zeroFiles(), finding.ClientFiles, filesAspects)
		good := [3]check.File{file("/crt", p.Certificate), file("/key", p.Key), file("/ca", ca.PEM())}
		for _, f := range files {
			for i := range good {
				// One file, two files, or all of them.
				three, rest := good, [3]check.File{f, f, f}
				three[i], rest[i] = f, good[i]
				for _, these := range [][3]check.File{three, rest, {f, f, f}} {
					assertComplete(t, clientFiles(these[0], these[1], these[2]), finding.ClientFiles, filesAspects)
				}
			}
		}
	})
	t.Run("pair", func(t *testing.T) {
		// Problems of a half itself.
		halves := []*finding.Result{nil, because(finding.Unreadable), because(finding.NotRegularFile)}
		for _, certificate := range data {
			for _, key := range data {
				for _, ofCertificate := range halves {
					for _, ofKey := range halves {
						for _, roots := range problems {
							pair := check.NewKeyPair(
								check.Source{At: finding.File("/crt"), Data: certificate, Problem: ofCertificate},
								check.Source{At: finding.File("/key"), Data: key, Problem: ofKey}, check.Expectation{RootsProblem: roots})
							results, _ := pair.Check(finding.AddedSecret, now)
							assertComplete(t, results, finding.AddedSecret, pairAspects)
						}
					}
				}
			}
		}
	})
	t.Run("kubelet", func(t *testing.T) {
		at := finding.Subject{Kind: finding.KindKubelet, Name: "node"}
		var answers []*check.KubeletAnswer
		internal, failure := tls.AlertError(80), tls.AlertError(40)
		for i := range 1 << 7 {
			a := &check.KubeletAnswer{At: at, ReadOnlyAt: at, NotTLS: i&1 != 0,
				RequestsClientCertificate: i&2 != 0, ReadOnlyOpen: i&4 != 0}
			if i&8 != 0 {
				a.Err = errors.New("no answer")
			}
			if i&16 != 0 {
				a.Certificates = []*x509.Certificate{p.Leaf}
			}
			if i&32 != 0 {
				a.Alert = &internal
			}
			if i&64 != 0 {
				a.Alert = &failure
			}
			answers = append(answers, a)
		}
		bundles := []check.File{
			{}, {WhyUnknown: problems[1]}, absent("/ca"), forbidden("/ca"), {Path: "/ca", Mode: fs.ModeDir}, file("/ca", data[1]), file("/ca", ca.PEM()),
		}
		settings := []check.KubeletSettings{
			{}, {NodeName: "master-0"}, {AddressTypes: []string{"InternalIP"}}, {AddressTypes: []string{"ExternalDNS"}},
			{NoClientCAAt: "/config"}, {ReadOnlyPort: 1, ReadOnlyPortAt: "/config"},
		}
		clients := []check.KeyPair{
			{},
			check.NewKeyPair(check.Source{At: finding.File("/crt"), Data: p.Certificate}, check.Source{At: finding.File("/key")},
				check.Expectation{}),
		}
		for _, answer := range append(answers, nil) {
			for _, configured := range []bool{false, true} {
				for _, client := range clients {
					for i, bundle := range bundles {
						known := settings[i%len(settings)]
						for _, connection := range anyConnections() {
							kubelet := check.NewKubelet(answer, configured, client, bundle, known).
								Connection(connection, configured || connection != nil)
							results, ofConnection, _ := kubelet.Check(now)
							results = slices.Concat(results, ofConnection)
							for i, r := range results {
								// The zero value of a pair has no subject.
								if r.Reason == finding.CertificateMissing {
									results[i].Subject = at
								}
							}
							assertComplete(t, results, finding.Kubelet,
								"tls serving-trusted client-accepted connection read-only-port")
						}
					}
				}
			}
		}
	})
	t.Run("configuration", func(t *testing.T) {
		for _, problem := range problems {
			for _, why := range []string{"", "not here"} {
				for _, missing := range []bool{false, true} {
					for _, readErr := range errs {
						for _, err := range errs {
							configuration := check.Configuration{
								WhyUnknown: problem, WhyNotApplicable: why, Missing: missing, ReadErr: readErr, Err: err,
							}
							assertComplete(t, configured(configuration), finding.Config, configAspects)
							override := check.Override{WhyUnknown: problem, WhyNotApplicable: why, Err: err}
							assertComplete(t, overridden(override), finding.Overrides, "kubelet-arguments admission")
						}
					}
				}
			}
		}
	})
	t.Run("manifest", func(t *testing.T) {
		for _, path := range []string{"", "/manifest"} {
			for _, readErr := range errs {
				for _, parseErr := range errs {
					for _, configErr := range errs {
						for _, duplicates := range [][]string{nil, {"/a", "/b"}} {
							results, _ := check.Manifest{
								Path: path, ReadErr: readErr, ParseErr: parseErr, Directory: "/", Duplicates: duplicates,
								KubeletConfig: check.KubeletConfigProblem{Path: "/config", Err: configErr},
							}.Check(now)
							assertComplete(t, results, finding.Manifest, "readable single")
						}
					}
				}
			}
		}
	})
	t.Run("secret", func(t *testing.T) {
		for _, family := range secretFamilies {
			for _, managedBy := range []string{"", check.ManagedByServiceCA, check.ManagedByCertRotation, "unknown"} {
				for _, secret := range []*check.Secret{nil, {}, {Immutable: true, Owners: []check.Owner{{}}}, stored(p)} {
					for _, roots := range problems {
						want := check.SecretExpectation{ManagedBy: managedBy, RootsProblem: roots}
						want.Namespace, want.Name = expected(family).Namespace, expected(family).Name
						assertComplete(t, check.CheckSecret(want, secret, now).Results, family, secretAspects)
					}
				}
				for _, problem := range problems {
					for _, missing := range []bool{false, true} {
						s := check.Service{Secret: expected(family), WhyUnknown: problem, Missing: missing}
						s.Secret.ManagedBy = managedBy
						results, _ := s.Check(now)
						assertComplete(t, results, family, "service")
					}
				}
			}
		}
		results, _ := check.Service{}.Check(now)
		assertComplete(t, results, finding.AddedSecret, "service")
		assertComplete(t, check.CheckSecret(check.SecretExpectation{}, nil, now).Results, finding.AddedSecret, secretAspects)
	})
	t.Run("guard", func(t *testing.T) {
		values := []any{
			nil, "", "text", 7, true,
			[]any{},
			[]any{nil},
			[]any{map[string]any{}},
			map[string]any{},
			map[string]any{"a": nil},
		}
		for _, field := range []string{"webhooks", "spec", "rules", "roleRef", "subjects", "other"} {
			for _, installed := range values {
				for _, live := range values {
					results := guarded(map[string]any{field: installed}, map[string]any{field: live})
					assertComplete(t, results, finding.Guard, "installed")
					assertComplete(t, guarded(
						map[string]any{"webhooks": []any{map[string]any{"name": "a", field: installed}}},
						map[string]any{"webhooks": []any{map[string]any{"name": "a", field: live}}}), finding.Guard, "installed")
				}
			}
		}
		assertComplete(t, guarded(nil, nil), finding.Guard, "installed")
		assertComplete(t, guarded(nil, map[string]any{}), finding.Guard, "installed")
	})
	t.Run("effect", func(t *testing.T) {
		server := finding.Subject{Kind: finding.KindAPIServer, Name: "server"}
		for _, problem := range problems {
			for _, why := range []string{"", "off"} {
				for _, refused := range []bool{false, true} {
					attempt := check.Attempt{WhyUnknown: problem, WhyNotApplicable: why, Refused: refused}
					results, _ := check.Effect{Server: server, Policy: attempt, Webhook: attempt}.Check(now)
					assertComplete(t, results, finding.Guard, "policy-refuses webhook-asked")
				}
			}
		}
	})
	t.Run("platform", func(t *testing.T) {
		for _, problem := range problems {
			for i := range 1 << 2 {
				for _, topology := range []string{"", "External", "HighlyAvailable"} {
					results, _ := check.Platform{
						WhyUnknown: problem, Topology: topology, NoAPI: i&1 != 0, NoNamespace: i&2 != 0,
					}.Check(now)
					assertComplete(t, results, finding.Platform, "control-plane")
				}
			}
		}
	})
}

// zeroFiles returns the results of the zero value, which has no subjects.
func zeroFiles() []finding.Result {
	results, _ := check.ClientFiles{}.Check(pkitest.Now())
	for i, r := range results {
		if r.Outcome == finding.Pass {
			panic(fmt.Sprint("the zero value passes: ", r.Requirement))
		}
		results[i].Subject = finding.File("")
	}
	return results
}

// anyConnections returns no answer, and one of each state and of one that does not exist.
func anyConnections() []*check.ConnectionAnswer {
	answers := []*check.ConnectionAnswer{nil}
	for state := range check.ConnectionUnreachable + 1 {
		answers = append(answers, &check.ConnectionAnswer{State: state, Why: "why", Remedy: "remedy"})
	}
	return answers
}
