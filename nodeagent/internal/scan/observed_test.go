// SPDX-License-Identifier: Apache-2.0

package scan_test

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/internal/staticpod"
	"github.com/kubelet-https-guard/kubelet-https-guard/nodeagent/internal/scan"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/control"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/openshift"
)

// view is a node and the options of its scan.
type view struct {
	node
	kubelet    scan.Kubelet
	options    scan.Options
	connection scan.Connection
}

func (v *view) scan() scan.Snapshot {
	from := scan.Sources{Host: v.host, Kubelet: v.kubelet, Connection: v.connection}
	return scan.Scan(from, v.options, pkitest.Now())
}

// blindness makes an observation impossible.
type blindness func(t *testing.T, v *view)

// unreadable replaces a file with a link to itself, which even root cannot read.
func unreadable(path func(n node) string) blindness {
	return func(t *testing.T, v *view) {
		at := path(v.node)
		must(t, os.Remove(at))
		must(t, os.Symlink(filepath.Base(at), at))
	}
}

// noMount configures a file that is outside of all mounts of the kube-apiserver.
func noMount(file string) blindness {
	return func(t *testing.T, v *view) { replace(t, v.Config(), file, "/srv/file") }
}

// pairElsewhere writes a valid pair to the path that the agent uses without a manifest.
func pairElsewhere(t *testing.T, v *view) {
	put(t, v.Root+staticpod.CISDirectory+"/tls.crt", v.pair.Certificate)
	put(t, v.Root+staticpod.CISDirectory+"/tls.key", v.pair.Key)
}

// connected sets what the kube-apiserver's answer shows about its connection.
func connected(state check.ConnectionState) blindness {
	return func(_ *testing.T, v *view) {
		v.connection = connections{&check.ConnectionAnswer{State: state, Why: "boom", Remedy: "mend it"}}
	}
}

// Ways to make something unobservable.
const (
	manifestGone        = "manifest gone"
	manifestGoneGuessed = "manifest gone, a pair elsewhere"
	manifestUnreadable  = "manifest unreadable"
	manifestOfAnother   = "manifest of another Pod"
	manifestGarbage     = "manifest garbage"
	manifestGuessed     = "manifest garbage, a pair elsewhere"
	directoryGiven      = "--kubelet-client-dir"
	anotherUnreadable   = "another file beside the manifest unreadable"

	kubeletConfigUnreadable = "the kubelet's configuration unreadable"
	kubeletConfigUnclear    = "the kubelet's configuration garbage"

	configUnreadable = "configuration unreadable"
	configNoMount    = "configuration under no mount"

	certificateUnreadable = "certificate unreadable"
	certificateNoMount    = "certificate under no mount"
	keyUnreadable         = "key unreadable"
	keyNoMount            = "key under no mount"

	admissionGone       = "configuration of admission gone"
	admissionUnreadable = "configuration of admission unreadable"
	admissionNoMount    = "configuration of admission under no mount"

	clientCAGone       = "client CA gone"
	clientCAUnreadable = "client CA unreadable"
	clientCAGarbage    = "client CA garbage"
	clientCAGiven      = "--kubelet-ca, not there"

	kubeletNotAsked     = "kubelet not asked"
	kubeletSilent       = "kubelet has not answered yet"
	kubeletAway         = "kubelet away"
	kubeletRefuses      = "kubelet refuses the handshake"
	kubeletCAUnreadable = "CA of kubelets unreadable"
	kubeletCANoMount    = "CA of kubelets under no mount"

	connectionNotAsked    = "connection not checked"
	connectionSilent      = "no answer about the connection yet"
	connectionUnknown     = "connection unknown"
	connectionUnreachable = "the kube-apiserver does not reach the kubelet"
)

func ways() map[string]blindness {
	const certs = "/etc/kubernetes/static-pod-certs/secrets/kubelet-client"
	manifestGarbled := func(t *testing.T, v *view) { put(t, v.Manifest(), []byte("{")) }
	return map[string]blindness{
		manifestGone:        func(t *testing.T, v *view) { must(t, os.Remove(v.Manifest())) },
		manifestGoneGuessed: func(t *testing.T, v *view) { must(t, os.Remove(v.Manifest())); pairElsewhere(t, v) },
		manifestUnreadable:  unreadable(func(n node) string { return n.Manifest() }),
		manifestOfAnother:   func(t *testing.T, v *view) { put(t, v.Manifest(), []byte(`{"kind":"Pod"}`)) },
		manifestGarbage:     manifestGarbled,
		manifestGuessed:     func(t *testing.T, v *view) { manifestGarbled(t, v); pairElsewhere(t, v) },
		directoryGiven:      func(_ *testing.T, v *view) { v.options.Directory = directory },

		anotherUnreadable: func(t *testing.T, v *view) {
			at := func(n node) string { return n.Manifest() + ".bak" }
			put(t, at(v.node), nil)
			unreadable(at)(t, v)
		},
		kubeletConfigUnreadable: unreadable(func(n node) string { return n.Root + n.KubeletFile() }),
		kubeletConfigUnclear:    func(t *testing.T, v *view) { put(t, v.Root+v.KubeletFile(), []byte("{")) },

		configUnreadable: unreadable(func(n node) string { return n.Config() }),
		configNoMount: func(t *testing.T, v *view) {
			replace(t, v.Manifest(), "--openshift-config=/etc/kubernetes/static-pod-resources", "--openshift-config=/srv")
		},

		certificateUnreadable: unreadable(func(n node) string { return n.Certificate() }),
		certificateNoMount:    noMount(certs + "/tls.crt"),
		keyUnreadable:         unreadable(func(n node) string { return n.Key() }),
		keyNoMount:            noMount(certs + "/tls.key"),

		admissionGone: func(t *testing.T, v *view) {
			v.configure(t, argument("admission-control-config-file", admissionInContainer))
		},
		admissionUnreadable: func(t *testing.T, v *view) {
			v.configure(t, argument("admission-control-config-file", admissionInContainer))
			put(t, v.Root+admission, nil)
			unreadable(func(n node) string { return n.Root + admission })(t, v)
		},
		admissionNoMount: func(t *testing.T, v *view) {
			v.configure(t, argument("admission-control-config-file", "/srv/admission.yaml"))
		},

		clientCAGone:       func(t *testing.T, v *view) { must(t, os.Remove(v.Root+clientCA)) },
		clientCAUnreadable: unreadable(func(n node) string { return n.Root + clientCA }),
		clientCAGarbage:    func(t *testing.T, v *view) { put(t, v.Root+clientCA, []byte("garbage")) },
		clientCAGiven:      func(_ *testing.T, v *view) { v.options.ClientCA = "/srv/ca.crt" },

		kubeletNotAsked: func(_ *testing.T, v *view) { v.kubelet = nil },
		kubeletSilent:   func(_ *testing.T, v *view) { v.kubelet = answers{} },
		kubeletAway: func(_ *testing.T, v *view) {
			v.kubelet = answers{
				&check.KubeletAnswer{At: finding.Subject{Kind: finding.KindKubelet, Name: "192.0.2.7:10250"}, Err: errBoom},
			}
		},
		kubeletRefuses: func(_ *testing.T, v *view) {
			at := finding.Subject{Kind: finding.KindKubelet, Name: "192.0.2.7:10250"}
			v.kubelet = answers{&check.KubeletAnswer{At: at, ReadOnlyAt: at, Err: errBoom, Alert: new(tls.AlertError(40))}}
		},
		kubeletCAUnreadable: unreadable(func(n node) string { return n.Root + kubeletCA }),
		kubeletCANoMount:    noMount("/etc/kubernetes/static-pod-resources/configmaps/kubelet-serving-ca/ca-bundle.crt"),

		connectionNotAsked:    func(_ *testing.T, v *view) { v.connection = nil },
		connectionSilent:      func(_ *testing.T, v *view) { v.connection = connections{} },
		connectionUnknown:     connected(check.ConnectionUnknown),
		connectionUnreachable: connected(check.ConnectionUnreachable),
	}
}

// unseen are the ways in which each requirement of a node becomes unknown.
// [TestUnobservedIsNeverCompliant] fails if a requirement of a control is missing here.
func whyAbsenceUnknown() map[finding.Requirement][]string {
	noManifest := []string{
		manifestGone, manifestGoneGuessed, manifestUnreadable, manifestOfAnother, manifestGarbage, manifestGuessed,
		kubeletConfigUnreadable, kubeletConfigUnclear,
	}
	noConfig := slices.Concat(noManifest, []string{directoryGiven, configUnreadable, configNoMount})
	// If a flag names the directory of the pair, the pair is known.
	noFiles := slices.Concat(noManifest, []string{configUnreadable, configNoMount})
	noCertificate := slices.Concat(noFiles, []string{certificateUnreadable, certificateNoMount})
	noKey := slices.Concat(noFiles, []string{keyUnreadable, keyNoMount})
	noAnswer := []string{kubeletNotAsked, kubeletSilent, kubeletAway}
	noHandshake := slices.Concat(noAnswer, []string{kubeletRefuses})
	noConnection := []string{connectionSilent, connectionUnknown, connectionUnreachable}
	manifest, config, files, kubelet := finding.Manifest, finding.Config, finding.ClientFiles, finding.Kubelet
	return map[finding.Requirement][]string{
		manifest.Requires(finding.Readable): slices.Concat(noManifest, []string{directoryGiven}),
		manifest.Requires(finding.Single):   slices.Concat(noManifest, []string{directoryGiven, anotherUnreadable}),

		config.Requires(finding.Readable):             noConfig,
		config.Requires(finding.ClientCertificate):    noConfig,
		config.Requires(finding.ClientKey):            noConfig,
		config.Requires(finding.HTTPS):                noConfig,
		config.Requires(finding.CertificateAuthority): noConfig,
		config.Requires(finding.ReadOnlyPort):         noConfig,
		config.Requires(finding.Admission): slices.Concat(noConfig,
			[]string{admissionGone, admissionUnreadable, admissionNoMount}),

		files.Requires(finding.Certificate):     noCertificate,
		files.Requires(finding.Chain):           noCertificate,
		files.Requires(finding.Validity):        noCertificate,
		files.Requires(finding.Usage):           noCertificate,
		files.Requires(finding.Strength):        noCertificate,
		files.Requires(finding.Identity):        noCertificate,
		files.Requires(finding.CertificateOnly): noCertificate,
		files.Requires(finding.Key):             noKey,
		files.Requires(finding.KeyFileMode):     noKey,
		files.Requires(finding.Pair):            slices.Concat(noCertificate, noKey),
		files.Requires(finding.Issuer): slices.Concat(noCertificate,
			[]string{clientCAGone, clientCAUnreadable, clientCAGarbage, clientCAGiven}),

		kubelet.Requires(finding.TLS):          noHandshake,
		kubelet.Requires(finding.ReadOnlyPort): noAnswer,
		kubelet.Requires(finding.ServingTrusted): slices.Concat(noHandshake, noConfig,
			[]string{kubeletCAUnreadable, kubeletCANoMount}),
		kubelet.Requires(finding.ClientAccepted): slices.Concat(noHandshake, noConnection),
		kubelet.Requires(finding.Connection):     append([]string{connectionNotAsked}, noConnection...),
	}
}

const kubeletCA = resources + "/kube-apiserver-pod-7/configmaps/kubelet-serving-ca/ca-bundle.crt"

// TestUnobservedIsNeverCompliant prevents the observation of each requirement of a control
// on a node. The control is then never compliant, unless the requirement is optional and
// not configured.
func TestUnobservedIsNeverCompliant(t *testing.T) {
	ca := pkitest.NewCA("kube-apiserver-to-kubelet-signer")
	pair := ca.Issue(pkitest.KubeletClient())
	serving := ca.Issue(pkitest.Request{
		CommonName: "system:node:master-0", IPs: []net.IP{net.IPv4(192, 0, 2, 7)},
		Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}.Valid(pkitest.Now().Add(-time.Hour), pkitest.Now().Add(time.Hour)))
	scanned := func(t *testing.T, blind blindness) []finding.Result {
		t.Helper()
		v := &view{node: newNode(t, openshift.Current, ca, pair), kubelet: answers{&check.KubeletAnswer{
			At:         finding.Subject{Kind: finding.KindKubelet, Name: "192.0.2.7:10250"},
			ReadOnlyAt: finding.Subject{Kind: finding.KindKubelet, Name: "192.0.2.7:10255"},
			Host:       "192.0.2.7", Certificates: []*x509.Certificate{serving.Leaf},
			RequestsClientCertificate: true, AcceptedCAs: [][]byte{ca.Certificate.RawSubject},
		}}}
		v.options.ExpiringFraction = check.DefaultExpiringFraction
		connected(check.ConnectionWorks)(t, v)
		blind(t, v)
		return v.scan().Results()
	}
	requirements, unseen := nodeRequirements(), whyAbsenceUnknown()
	t.Run("all observed", func(t *testing.T) {
		results := scanned(t, func(*testing.T, *view) {})
		for _, c := range control.Table() {
			if verdict := c.Judge(control.Node, results); len(verdict.Answers) > 0 && verdict.Status != control.Compliant {
				t.Errorf("%s: %s, %+v", c.ID, verdict.Status, verdict.Unmet())
			}
		}
	})
	for requirement := range requirements {
		if len(unseen[requirement]) == 0 {
			t.Errorf("%s is required of a node, but unseen has no way for it", requirement)
		}
	}
	for requirement, names := range unseen {
		if !requirements[requirement] {
			t.Errorf("%s is not a requirement of a node", requirement)
		}
		for _, name := range names {
			if ways()[name] == nil {
				t.Errorf("%s: there is no blindness %q", requirement, name)
			}
		}
	}
	for name, blind := range ways() {
		t.Run(name, func(t *testing.T) {
			results := scanned(t, blind)
			taken := 0
			for _, c := range control.Table() {
				verdict := c.Judge(control.Node, results)
				for _, answer := range verdict.Answers {
					if !slices.Contains(unseen[answer.Requirement], name) {
						continue
					}
					taken++
					notAsked := answer.Optional &&
						!slices.ContainsFunc(answer.Results, func(r finding.Result) bool { return r.Reason != finding.NotChecked })
					switch {
					case answer.Outcome != finding.Unknown:
						t.Errorf("%s: %s is still observed: %+v", c.ID, answer.Requirement, answer.Results)
					case answer.Met != notAsked:
						t.Errorf("%s: %s counts as met: %t, want %t: %+v", c.ID, answer.Requirement, answer.Met, notAsked, answer.Results)
					case !notAsked && verdict.Status != control.CouldNotVerify:
						t.Errorf("%s without %s: got %s, want %s", c.ID, answer.Requirement, verdict.Status, control.CouldNotVerify)
					}
				}
			}
			if taken == 0 {
				t.Error("it makes nothing unobservable")
			}
		})
	}
}

// nodeRequirements returns the requirements of all controls on a node.
func nodeRequirements() map[finding.Requirement]bool {
	all := map[finding.Requirement]bool{}
	for _, c := range control.Table() {
		for _, required := range c.Requirements {
			if required.In(control.Node) {
				all[required.Requirement] = true
			}
		}
	}
	return all
}

// TestEveryRequirementIsAnswered: in every case, each requirement of a node has a result,
// and an unknown one has a reason.
func TestEveryRequirementIsAnswered(t *testing.T) {
	ca := pkitest.NewCA("kube-apiserver-to-kubelet-signer")
	pair := ca.Issue(pkitest.KubeletClient())
	views := ways()
	views["all there"] = func(*testing.T, *view) {}
	views["nothing there"] = func(t *testing.T, v *view) { must(t, os.RemoveAll(v.Root+"/etc")) }
	for name, blind := range views {
		t.Run(name, func(t *testing.T) {
			v := &view{node: newNode(t, openshift.Current, ca, pair)}
			blind(t, v)
			answered := map[finding.Requirement]bool{}
			for _, r := range v.scan().Results() {
				answered[r.Requirement] = true
				if r.Outcome == finding.Unknown && (r.Reason == "" || r.Message == "" || r.Remedy == "" || r.Subject.Kind == "") {
					t.Errorf("an unknown result without reason, message or remedy: %+v", r)
				}
			}
			if d := cmp.Diff(nodeRequirements(), answered); d != "" {
				t.Errorf("requirements with an answer (-want +got):\n%s", d)
			}
		})
	}
}

// TestGuessed: without a usable manifest the agent checks the pair at the path of the CIS
// text. What is wrong with it is a finding. What is right proves nothing.
func TestGuessed(t *testing.T) {
	ca, foreign := pkitest.NewCA("kube-apiserver-to-kubelet-signer"), pkitest.NewCA("foreign")
	good, strange := ca.Issue(pkitest.KubeletClient()), foreign.Issue(pkitest.KubeletClient())
	cases := map[string]struct {
		pair pkitest.Pair
		mode os.FileMode
		want []string // outcomes, apart from unknown
	}{
		"a good pair":                 {good, 0o600, nil},
		"a pair of a foreign CA":      {strange, 0o600, []string{"client-files/issuer fail"}},
		"a pair whose key is exposed": {good, 0o644, []string{"client-files/key-file-mode warn"}},
		"both":                        {strange, 0o644, []string{"client-files/issuer fail", "client-files/key-file-mode warn"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, openshift.Legacy, ca, good)
			must(t, os.Remove(n.Manifest()))
			put(t, n.Root+staticpod.CISDirectory+"/tls.crt", c.pair.Certificate)
			put(t, n.Root+staticpod.CISDirectory+"/tls.key", c.pair.Key)
			must(t, os.Chmod(n.Root+staticpod.CISDirectory+"/tls.key", c.mode))
			// The kubelet accepts the CA of the guessed certificate, which proves nothing either.
			kubelet := answers{
				&check.KubeletAnswer{
					Certificates:              []*x509.Certificate{good.Leaf},
					RequestsClientCertificate: true,
					AcceptedCAs:               [][]byte{ca.Certificate.RawSubject},
				},
			}
			s := scan.Scan(scan.Sources{Host: n.host, Kubelet: kubelet}, scan.Options{}, pkitest.Now())
			var got []string
			unknown := map[finding.Requirement]bool{}
			for _, r := range s.Results() {
				switch {
				case r.Outcome == finding.Unknown:
					unknown[r.Requirement] = true
					if r.Reason != finding.ManifestMissing && r.Requirement != finding.Kubelet.Requires(finding.Connection) {
						t.Errorf("unknown because of %s at %s", r.Reason, r.Subject)
					}
				case r.Requirement.Family() == finding.Kubelet && (r.Requirement.Aspect() == finding.TLS ||
					r.Requirement.Aspect() == finding.ReadOnlyPort):
				default:
					got = append(got, string(r.Requirement)+" "+r.Outcome.String())
				}
			}
			slices.Sort(got)
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("outcomes (-want +got):\n%s", d)
			}
			for _, r := range s.FileResults {
				if !unknown[r.Requirement] {
					t.Errorf("%s is not unknown", r.Requirement)
				}
			}
			if s.Valid || !s.Leaf.Equal(c.pair.Leaf) {
				t.Errorf("Valid: %t, Leaf: %v", s.Valid, s.Leaf)
			}
		})
	}
}
