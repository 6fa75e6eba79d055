// SPDX-License-Identifier: Apache-2.0

package check_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/kubeapiserver"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/layout"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pki"
)

func file(path string, data []byte) check.File {
	return check.File{Path: path, Mode: 0o600, Size: int64(len(data)), Data: data}
}

func absent(path string) check.File    { return check.File{Path: path, Err: fs.ErrNotExist} }
func forbidden(path string) check.File { return check.File{Path: path, Err: fs.ErrPermission} }
func notMounted(path string) check.File {
	return check.File{
		Path: path,
		Err:  &fs.PathError{Op: "open", Path: path, Err: &check.NotMountedError{Path: "/elsewhere" + path}},
	}
}

func stale(path string) check.File {
	return check.File{Path: path, Err: &fs.PathError{Op: "open", Path: path, Err: syscall.ESTALE}}
}

// always returns results that do not depend on a family.
func always(results []finding.Result) func(finding.Family) []finding.Result {
	return func(finding.Family) []finding.Result { return results }
}

func clientFiles(certificate, key, clientCA check.File) []finding.Result {
	checked := check.NewClientFiles(
		certificate, key, clientCA, layout.Layout{}, check.KeyPolicy{}, "", check.DefaultExpiringFraction,
	)
	results, _ := checked.Check(pkitest.Now())
	return results
}

func filesFixtures() map[string]fixture {
	ca := pkitest.NewCA("kube-apiserver-to-kubelet-signer")
	good := ca.Issue(pkitest.KubeletClient())
	kubeadm, oldKubeadm, stranger := pkitest.KubeletClient(), pkitest.KubeletClient(), pkitest.KubeletClient()
	kubeadm.CommonName, kubeadm.Organization = "kube-apiserver-kubelet-client", "kubeadm:cluster-admins"
	oldKubeadm.CommonName, oldKubeadm.Organization = "kube-apiserver-kubelet-client", "system:masters"
	stranger.CommonName, stranger.Organization = "mallory", "system:masters"

	const certificatePath, keyPath, caPath = "/c/tls.crt", "/c/tls.key", "/ca.crt"
	files := func(p pkitest.Pair, change func(certificate, key,
		clientCA *check.File)) func(finding.Family) []finding.Result {
		certificate, key, clientCA := file(certificatePath, p.Certificate), file(keyPath, p.Key), file(caPath, ca.PEM())
		if change != nil {
			change(&certificate, &key, &clientCA)
		}
		return always(clientFiles(certificate, key, clientCA))
	}
	certificateIs := func(f check.File) func(finding.Family) []finding.Result {
		return files(good, func(certificate, _, _ *check.File) { *certificate = f })
	}
	keyIs := func(f check.File) func(finding.Family) []finding.Result {
		return files(good, func(_, key, _ *check.File) { *key = f })
	}
	caIs := func(f check.File) func(finding.Family) []finding.Result {
		return files(good, func(_, _, clientCA *check.File) { *clientCA = f })
	}
	const (
		ofCertificate = "chain pair validity usage strength certificate-only issuer identity"
		noIssuer      = "issuer unknown ClientCAUnavailable @ /ca.crt"
		exposed       = "key-file-mode warn KeyFileExposed @ /c/tls.key"
	)
	noCertificate := func(outcome, reason string) []string {
		why := reason + " @ " + certificatePath
		return append(unknown(ofCertificate, why), "certificate "+outcome+" "+why)
	}
	noKey := func(outcome, reason string) []string {
		why := reason + " @ " + keyPath
		return append(unknown("pair key-file-mode", why), "key "+outcome+" "+why)
	}
	special := func(mode fs.FileMode, what string) fixture {
		return fixture{
			results: certificateIs(check.File{Path: certificatePath, Mode: mode}),
			want:    noCertificate("fail", "NotRegularFile"), mentions: what,
		}
	}
	withMode := func(mode fs.FileMode) check.File {
		key := file(keyPath, good.Key)
		key.Mode = mode
		return key
	}
	unusable := pkitest.Algorithms()["Ed448"].Certificate("1.3.101.113")
	foreignKey, largeKey, largeCA := withMode(0o600), file(keyPath, good.Key), file(caPath, ca.PEM())
	foreignKey.ForeignOwner = true
	largeKey.Size, largeKey.Mode = 2<<20, 0o644
	largeCA.Size = 2 << 20
	readable := file(certificatePath, good.Certificate)
	readable.Mode = 0o644

	return map[string]fixture{
		"good":                           {results: files(good, nil)},
		"good, kubeadm's":                {results: files(ca.Issue(kubeadm), nil)},
		"good, of kubeadm 1.28":          {results: files(ca.Issue(oldKubeadm), nil)},
		"certificate readable by all":    {results: certificateIs(readable)},
		"key of mode 0400":               {results: keyIs(withMode(0o400))},
		"a bundle with more than one CA": {results: caIs(file(caPath, slices.Concat(pkitest.NewCA("other").PEM(), ca.PEM())))},

		"a bundle with a CA that cannot be used": {results: caIs(file(caPath, slices.Concat(unusable, ca.PEM())))},
		"issued by no CA of a bundle that can be used": {
			results: caIs(file(caPath, slices.Concat(unusable, pkitest.NewCA("other").PEM()))),
			want:    []string{"issuer unknown CAUnusable @ /c/tls.crt"}, mentions: "Ed448",
		},
		"a bundle without a CA that can be used": {results: caIs(file(caPath, unusable)), want: []string{noIssuer}, mentions: "Ed448"},
		"CA file not known":                      {results: caIs(check.File{WhyUnknown: because(finding.ManifestMissing)}), want: []string{"issuer unknown ManifestMissing @ /why"}},
		"CA not configured": {
			results: caIs(check.File{}), want: []string{"issuer unknown ClientCAUnavailable @ File kubelet client CA bundle"},
		},
		"no file named": {
			results: files(good, func(certificate, key, _ *check.File) { *certificate, *key = check.File{}, check.File{} }),
			want: append(unknown(ofCertificate, "CertificateMissing @ File kubelet client certificate"),
				"certificate fail CertificateMissing @ File kubelet client certificate",
				"key fail KeyMissing @ File kubelet client key", "key-file-mode unknown KeyMissing @ File kubelet client key"),
		},
		"files not known": {
			results: files(good, func(certificate, key, clientCA *check.File) {
				*certificate, *key = check.File{
					WhyUnknown: because(finding.ConfigUnparsable),
				}, check.File{
					WhyUnknown: because(finding.ConfigUnparsable),
				}
				*clientCA = check.File{WhyUnknown: because(finding.ConfigUnparsable)}
			}),
			want: unknown(filesAspects, "ConfigUnparsable @ /why"),
		},
		"key file not known": {
			results: keyIs(check.File{WhyUnknown: because(finding.ClientKeyNotConfigured)}),
			want:    unknown("key pair key-file-mode", "ClientKeyNotConfigured @ /why"),
		},
		"no certificate": {results: certificateIs(absent(certificatePath)), want: noCertificate("fail", "CertificateMissing")},
		"no key":         {results: keyIs(absent(keyPath)), want: noKey("fail", "KeyMissing")},
		"certificate not readable": {
			results: certificateIs(forbidden(certificatePath)), want: noCertificate("unknown", "Unreadable"),
		},
		"key not readable": {results: keyIs(forbidden(keyPath)), want: noKey("unknown", "Unreadable")},
		"in a directory that the host replaced": {
			results: files(good, func(certificate, key, _ *check.File) { *certificate, *key = stale(certificatePath), stale(keyPath) }),
			want:    append(noCertificate("unknown", "StaleMount"), "key unknown StaleMount @ /c/tls.key", "key-file-mode unknown StaleMount @ /c/tls.key"),
		},
		"in a directory that is not mounted": {
			results: files(good, func(certificate, key, _ *check.File) {
				*certificate, *key = notMounted(certificatePath), notMounted(keyPath)
			}),
			want:     append(noCertificate("unknown", "NotMounted"), "key unknown NotMounted @ /c/tls.key", "key-file-mode unknown NotMounted @ /c/tls.key"),
			mentions: "/elsewhere/c/tls.crt",
		},
		"CA in a directory that is not mounted":    {results: caIs(notMounted(caPath)), want: []string{"issuer unknown NotMounted @ /ca.crt"}},
		"CA in a directory that the host replaced": {results: caIs(stale(caPath)), want: []string{"issuer unknown StaleMount @ /ca.crt"}},
		"a directory":    special(fs.ModeDir|0o755, "a directory"),
		"a FIFO":         special(fs.ModeNamedPipe, "a FIFO"),
		"a socket":       special(fs.ModeSocket, "a socket"),
		"a device":       special(fs.ModeDevice|fs.ModeCharDevice, "a device"),
		"something else": special(fs.ModeIrregular, "a special file"),
		"too large": {
			results: certificateIs(check.File{Path: certificatePath, Size: 2 << 20}), want: noCertificate("fail", "FileTooLarge"),
			mentions: "2097152",
		},
		"too large, of which the first part is a certificate": {
			results: certificateIs(check.File{Path: certificatePath, Size: 2 << 20, Data: good.Certificate}), want: noCertificate("fail", "FileTooLarge"),
		},
		"key a directory": {results: keyIs(check.File{Path: keyPath, Mode: fs.ModeDir | 0o755}), want: noKey("fail", "NotRegularFile")},
		"key too large, and readable by all": {
			results: keyIs(largeKey), want: []string{"key fail FileTooLarge @ /c/tls.key", "pair unknown FileTooLarge @ /c/tls.key", exposed},
		},
		"key readable by all":       {results: keyIs(withMode(0o644)), want: []string{exposed}, mentions: "0644"},
		"key readable by the group": {results: keyIs(withMode(0o640)), want: []string{exposed}},
		"key not owned by root":     {results: keyIs(foreignKey), want: []string{exposed}},
		"key garbage, readable by all": {
			results: keyIs(check.File{Path: keyPath, Mode: 0o644, Data: []byte("garbage")}),
			want:    []string{"key fail KeyUnparsable @ /c/tls.key", "pair unknown KeyUnparsable @ /c/tls.key", exposed},
		},
		"certificate of another client": {
			results: files(ca.Issue(stranger), nil), want: []string{"identity warn UnexpectedIdentity @ /c/tls.crt"},
			mentions: `CN="mallory", O="system:masters"`,
		},
		"no client CA":          {results: caIs(absent(caPath)), want: []string{noIssuer}},
		"client CA garbage":     {results: caIs(file(caPath, []byte("garbage"))), want: []string{noIssuer}},
		"client CA a directory": {results: caIs(check.File{Path: caPath, Mode: fs.ModeDir}), want: []string{noIssuer}},
		"client CA too large":   {results: caIs(largeCA), want: []string{noIssuer}},
	}
}

func manifestFixtures() map[string]fixture {
	const path = "/etc/kubernetes/manifests/kube-apiserver-pod.yaml"
	manifest := func(m check.Manifest) func(finding.Family) []finding.Result {
		results, _ := m.Check(pkitest.Now())
		return always(results)
	}
	const directory = "/etc/kubernetes/manifests"
	unknown := func(reason, at string) []string {
		return []string{"readable unknown " + reason + " @ " + at, "single unknown " + reason + " @ " + at}
	}
	missing := func(m check.Manifest) func(finding.Family) []finding.Result {
		m.Path, m.ReadErr = directory, fs.ErrNotExist
		return manifest(m)
	}
	gone := unknown("ManifestMissing", directory)
	duplicate := []string{"single fail DuplicateStaticPod @ " + directory}
	return map[string]fixture{
		"read": {results: manifest(check.Manifest{Path: path})},
		"read, as far as the kubelet's flags are visible": {
			results: manifest(check.Manifest{Path: path, Assumptions: []string{"no flag says otherwise"}}),
		},
		"not looked for": {
			results: manifest(check.Manifest{}), want: unknown("NotChecked", "File static Pod manifest"),
		},
		"several layouts": {
			results: manifest(check.Manifest{Layouts: []string{"openshift", "k3s"}}),
			want:    unknown("LayoutUnknown", "File static Pod manifest"),
		},
		"not there": {
			results: missing(check.Manifest{Directory: directory}), want: gone,
		},
		"not there, others are": {
			results: missing(check.Manifest{Directory: directory, FileNames: []string{"etcd.yaml", "a\n"}}), want: gone,
			mentions: `"etcd.yaml", "a\n"`,
		},
		"no static pods": {
			results: missing(check.Manifest{}), want: gone,
		},
		"forbidden": {
			results: manifest(check.Manifest{Path: path, ReadErr: fs.ErrPermission}), want: unknown("Unreadable", path),
		},
		"in a directory that the host replaced": {
			results: manifest(check.Manifest{Path: path, ReadErr: syscall.ESTALE}), want: unknown("StaleMount", path),
		},
		"in a directory that is not mounted": {
			results: manifest(check.Manifest{Path: path, ReadErr: notMounted(path).Err}), want: unknown("NotMounted", path),
			mentions: "/elsewhere" + path,
		},
		"not a Pod": {
			results: manifest(check.Manifest{Path: path, ParseErr: errors.New("it has two containers\nwith a kube-apiserver")}),
			want:    unknown("ManifestUnparsable", path),
		},
		"of several containers": {
			results:  manifest(check.Manifest{Path: path, Containers: []string{"kube-apiserver", "b\n"}}),
			want:     unknown("ManifestUnparsable", path),
			mentions: `"kube-apiserver", "b\n"`,
		},
		"in a directory that is forbidden": {
			results: manifest(check.Manifest{Path: directory, Directory: directory, ReadErr: fs.ErrPermission}), want: unknown("Unreadable", directory),
			mentions: "permission denied",
		},
		"in a directory that is beyond a limit": {
			results: manifest(check.Manifest{Path: directory, Directory: directory, ReadErr: errors.New("it has 101 files")}), want: unknown("Unreadable", directory),
			mentions: "it has 101 files",
		},
		"a static Pod path that is not a directory": {
			results: manifest(check.Manifest{Path: directory, Directory: directory, ParseErr: errors.New("it is a FIFO")}), want: unknown("ManifestUnparsable", directory),
			mentions: "it is a FIFO",
		},
		"kubelet configuration not clear": {
			results: manifest(check.Manifest{Path: path, KubeletConfig: check.KubeletConfigProblem{Path: "/config", Err: errors.New("two\ndisagree")}}),
			want:    unknown("KubeletConfigUnknown", "/config"),
		},
		"kubelet configuration not readable": {
			results: manifest(check.Manifest{Path: path, KubeletConfig: check.KubeletConfigProblem{Path: "/config", Err: fs.ErrPermission, Unread: true}}),
			want:    unknown("Unreadable", "/config"),
		},
		"two": {
			results: manifest(check.Manifest{Path: path, Directory: directory, Duplicates: []string{path, path + ".backup"}}), want: duplicate,
			mentions: path + ".backup",
		},
		"two, and one that cannot be read": {
			results: manifest(check.Manifest{Path: path, Directory: directory, Duplicates: []string{path, "/b"}, Unread: []check.File{{Path: "/c", Err: fs.ErrPermission}}}),
			want:    duplicate,
		},
		"beside one that cannot be read": {
			results: manifest(check.Manifest{Path: path, Unread: []check.File{{Path: directory + "/b", Err: fs.ErrPermission}}}),
			want:    []string{"single unknown Unreadable @ " + directory + "/b"},
		},
		"beside one in a directory that the host replaced": {
			results: manifest(check.Manifest{Path: path, Unread: []check.File{{Path: directory + "/b", Err: syscall.ESTALE}}}),
			want:    []string{"single unknown StaleMount @ " + directory + "/b"},
		},
	}
}

func configured(c check.Configuration) []finding.Result {
	c.At = finding.File("/config.yaml")
	results, _ := c.Check(pkitest.Now())
	return results
}

func configFixtures() map[string]fixture {
	flags := func(words ...string) func(finding.Family) []finding.Result {
		return always(configured(check.Configuration{Config: kubeapiserver.ParseFlags(words)}))
	}
	good := []string{
		"--kubelet-client-certificate=/c/tls.crt",
		"--kubelet-client-key=/c/tls.key",
		"--kubelet-certificate-authority=/c/ca.crt",
	}
	with := func(word string) func(finding.Family) []finding.Result {
		return flags(append(slices.Clone(good), word)...)
	}
	admission := func(f check.File) func(finding.Family) []finding.Result {
		return always(configured(check.Configuration{Config: kubeapiserver.ParseFlags(good), AdmissionFile: f}))
	}
	const pluginConfig = `{"apiVersion": "apiserver.config.k8s.io/v1", "kind": "WebhookAdmissionConfiguration", "kubeConfigFile": "/k"}`
	pluginFile := func(f check.File) func(finding.Family) []finding.Result {
		c := check.Configuration{
			Config:      kubeapiserver.ParseFlags(good),
			PluginFiles: map[string]check.File{"ValidatingAdmissionWebhook": f},
		}
		return always(configured(c))
	}
	openshift := func(more string) func(finding.Family) []finding.Result {
		config, err := kubeapiserver.ParseConfig(
			[]byte(
				`{"apiVersion": "kubecontrolplane.config.openshift.io/v1", "kind": "KubeAPIServerConfig", "apiServerArguments": {
			"kubelet-client-certificate": ["/c/tls.crt"], "kubelet-client-key": ["/c/tls.key"], "kubelet-certificate-authority": ["/c/ca.crt"]}, ` + more + `}`,
			),
		)
		return always(configured(check.Configuration{Config: config, Err: err}))
	}
	const (
		of            = "client-certificate client-key https certificate-authority read-only-port admission"
		noCertificate = "client-certificate fail ClientCertificateNotConfigured @ /config.yaml kubelet-client-certificate"
		noKey         = "client-key fail ClientKeyNotConfigured @ /config.yaml kubelet-client-key"
		noCA          = "certificate-authority warn KubeletCANotConfigured @ /config.yaml kubelet-certificate-authority"
		noHTTPS       = "https fail KubeletHTTPSDisabled @ /config.yaml kubelet-https"
		noAdmission   = "admission fail AdmissionDisabled @ /config.yaml"
		admissionFile = `{"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AdmissionConfiguration", "plugins": []}`
		openPort      = "read-only-port warn ReadOnlyPortConfigured @ /config.yaml kubelet-read-only-port"
	)
	none := func(outcome, reason string) []string {
		return append(unknown(of, reason+" @ /config.yaml"), "readable "+outcome+" "+reason+" @ /config.yaml")
	}
	return map[string]fixture{
		"good":                  {results: flags(good...)},
		"https true":            {results: with("--kubelet-https=true")},
		"https without a value": {results: with("--kubelet-https")},
		"read-only port closed": {results: with("--kubelet-read-only-port=0")},
		"https disabled": {
			results: with("--kubelet-https=false"), want: []string{noHTTPS},
			mentions: `"false"`,
		},
		"https neither on nor off": {results: with("--kubelet-https=maybe"), want: []string{noHTTPS}},
		"read-only port open": {
			results: with("--kubelet-read-only-port=10255"), want: []string{openPort}, mentions: "10255",
		},
		"nothing set": {
			results: flags(), want: []string{noCertificate, noKey, noCA},
		},
		"no key": {results: flags(good[0], good[2]), want: []string{noKey}},
		"no CA": {
			results: flags(good[:2]...), want: []string{noCA},
		},
		"set to an empty value": {results: flags("--kubelet-client-certificate=", good[1], good[2]), want: []string{noCertificate}},
		"not there": {
			results: always(configured(check.Configuration{Missing: true})), want: none("fail", "ConfigMissing"),
		},
		"not readable": {
			results: always(configured(check.Configuration{ReadErr: fs.ErrPermission})), want: none("unknown", "Unreadable"),
		},
		"in a directory that the host replaced": {
			results: always(configured(check.Configuration{ReadErr: syscall.ESTALE})), want: none("unknown", "StaleMount"),
		},
		"in a directory that is not mounted": {
			results: always(configured(check.Configuration{ReadErr: notMounted("/config.yaml").Err})), want: none("unknown", "NotMounted"),
		},
		"not parsable": {
			results: always(configured(check.Configuration{Err: errors.New("it is\nempty")})), want: none("fail", "ConfigUnparsable"),
		},
		"a plugin disabled": {
			results: with("--disable-admission-plugins=ValidatingAdmissionPolicy"),
			want:    []string{noAdmission + " disable-admission-plugins ValidatingAdmissionPolicy"},
		},
		"their API disabled": {
			results: with("--runtime-config=admissionregistration.k8s.io/v1=false"),
			want:    []string{noAdmission + " runtime-config ValidatingAdmissionPolicy", noAdmission + " runtime-config ValidatingAdmissionWebhook"},
		},
		"another plugin disabled": {results: with("--disable-admission-plugins=NodeRestriction")},
		"admission file":          {results: admission(file("/admission.yaml", []byte(admissionFile)))},
		"admission file, broken": {
			results: admission(file("/admission.yaml", []byte("{}"))), want: []string{"admission fail AdmissionDisabled @ /admission.yaml"},
		},
		"admission file, too large for us": {
			results: admission(check.File{Path: "/admission.yaml", Mode: 0o600, Data: make([]byte, kubeapiserver.MaxAdmissionFileBytes+1)}),
			want:    []string{"admission unknown Unreadable @ /admission.yaml"},
		},
		"admission file, gone": {
			results: admission(absent("/admission.yaml")), want: []string{"admission unknown Unreadable @ /admission.yaml"},
		},
		"admission file, forbidden":                             {results: admission(forbidden("/admission.yaml")), want: []string{"admission unknown Unreadable @ /admission.yaml"}},
		"admission file, in a directory that the host replaced": {results: admission(stale("/admission.yaml")), want: []string{"admission unknown StaleMount @ /admission.yaml"}},
		"admission file, in a directory that is not mounted":    {results: admission(notMounted("/admission.yaml")), want: []string{"admission unknown NotMounted @ /admission.yaml"}},
		"admission file, a directory": {
			results: admission(check.File{Path: "/admission.yaml", Mode: fs.ModeDir}), want: []string{"admission unknown NotRegularFile @ /admission.yaml"},
		},
		"admission file, not known": {results: admission(check.File{WhyUnknown: because(finding.Unreadable)}), want: []string{"admission unknown Unreadable @ /why"}},
		"a plugin's configuration, broken": {
			results: openshift(`"admission": {"pluginConfig": {"ValidatingAdmissionWebhook": {"configuration": {"kind": "Other"}}}}`),
			want:    []string{noAdmission + " admission.pluginConfig"},
		},
		"a plugin's own file":         {results: pluginFile(file("/plugin.yaml", []byte(pluginConfig)))},
		"a plugin's own file, broken": {results: pluginFile(file("/plugin.yaml", []byte("{}"))), want: []string{"admission fail AdmissionDisabled @ /plugin.yaml"}},
		"a plugin's own file, gone":   {results: pluginFile(absent("/plugin.yaml")), want: []string{"admission unknown Unreadable @ /plugin.yaml"}},
		"a plugin's own file, not known": {
			results: pluginFile(check.File{WhyUnknown: because(finding.Unreadable)}), want: []string{"admission unknown Unreadable @ /why"},
		},
		"a plugin's configuration": {
			results: openshift(`"admission": {"pluginConfig": {"ValidatingAdmissionWebhook": {"configuration": {
			"apiVersion": "apiserver.config.k8s.io/v1", "kind": "WebhookAdmissionConfiguration", "kubeConfigFile": "/k"}}}}`),
		},
		"not configured": {
			results: always(configured(check.Configuration{WhyUnknown: because(finding.NotChecked)})), want: unknown(configAspects, "NotChecked @ /why"),
		},
		"not named, since the manifest is unparsable": {
			results: always(configured(check.Configuration{WhyUnknown: because(finding.ManifestUnparsable)})),
			want:    unknown(configAspects, "ManifestUnparsable @ /why"),
		},
		"elsewhere": {
			results: always(configured(check.Configuration{WhyNotApplicable: "the control plane runs elsewhere"})),
			want: []string{
				"readable notApplicable  @ /config.yaml", "admission notApplicable  @ /config.yaml",
				"client-certificate notApplicable  @ /config.yaml kubelet-client-certificate", "client-key notApplicable  @ " +
					"/config.yaml kubelet-client-key",
				"https notApplicable  @ /config.yaml kubelet-https", "read-only-port notApplicable  @ /config.yaml " +
					"kubelet-read-only-port",
				"certificate-authority notApplicable  @ /config.yaml kubelet-certificate-authority",
			},
		},
	}
}

func kubeletFixtures() map[string]fixture {
	const kubelet, readOnly = "192.0.2.7:10250", "192.0.2.7:10255"
	kubeletAt := finding.Subject{Kind: finding.KindKubelet, Name: kubelet}
	readOnlyAt := finding.Subject{Kind: finding.KindKubelet, Name: readOnly}
	now := pkitest.Now()
	servingCA, clientCA, foreign := pkitest.NewCA("csr-signer"), pkitest.NewCA("signer"), pkitest.NewCA("foreign")
	serving := pkitest.Request{
		CommonName: "system:node:master-0", Organization: "system:nodes",
		IPs: []net.IP{net.ParseIP("192.0.2.7")}, Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	own := servingCA.Issue(serving)
	client := clientCA.Issue(pkitest.KubeletClient())
	mldsa := []*x509.Certificate{parsed(own.SignedWith("2.16.840.1.101.3.4.3.18"))}
	unusable := pkitest.Algorithms()["Ed448"].Certificate("1.3.101.113")
	bridged := pkitest.NewCA("new signer")
	ofBridged := bridged.Issue(pkitest.KubeletClient())
	ofBridged.Certificate = ofBridged.ChainWith(clientCA.CrossSign(bridged))

	type facts struct {
		answer     *check.KubeletAnswer
		configured bool
		client     check.Source
		ca         check.File
		known      check.KubeletSettings
		connection *check.ConnectionAnswer
		asked      bool // whether the kube-apiserver is asked about its connection
	}
	seen := func(change func(f *facts)) func(finding.Family) []finding.Result {
		f := facts{
			answer: &check.KubeletAnswer{
				At: kubeletAt, Host: "192.0.2.7", Certificates: []*x509.Certificate{own.Leaf},
				RequestsClientCertificate: true, AcceptedCAs: [][]byte{foreign.Certificate.RawSubject, clientCA.Certificate.RawSubject},
				ReadOnlyAt: readOnlyAt,
			},
			configured: true, client: check.Source{At: finding.File("/crt"), Data: client.Certificate},
			ca:         file("/ca.crt", servingCA.PEM()),
			known:      check.KubeletSettings{AddressTypes: []string{"InternalIP"}},
			connection: &check.ConnectionAnswer{State: check.ConnectionWorks}, asked: true,
		}
		change(&f)
		pair := check.NewKeyPair(f.client, check.Source{At: finding.File("/key"), Data: client.Key}, check.Expectation{})
		kubelet := check.NewKubelet(f.answer, f.configured, pair, f.ca, f.known).Connection(f.connection, f.asked)
		results, connection, _ := kubelet.Check(now)
		return always(slices.Concat(results, connection))
	}
	answers := func(change func(a *check.KubeletAnswer)) func(finding.Family) []finding.Result {
		return seen(func(f *facts) { change(f.answer) })
	}
	shows := func(p pkitest.Pair) func(finding.Family) []finding.Result {
		return answers(func(a *check.KubeletAnswer) { a.Certificates = []*x509.Certificate{p.Leaf} })
	}
	withCA := func(ca check.File) func(finding.Family) []finding.Result { return seen(func(f *facts) { f.ca = ca }) }
	named := func(p pkitest.Pair, known check.KubeletSettings) func(finding.Family) []finding.Result {
		return seen(func(f *facts) { f.answer.Certificates, f.known = []*x509.Certificate{p.Leaf}, known })
	}
	byName := serving
	byName.IPs, byName.DNSNames = nil, []string{"master-0"}
	otherAddress, ofClient := serving, serving
	otherAddress.IPs = []net.IP{net.ParseIP("192.0.2.8")}
	ofClient.Usages = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	const (
		at          = " @ Kubelet " + kubelet
		distrusted  = "serving-trusted fail KubeletCertificateUntrusted" + at
		notAccepted = "client-accepted fail ClientCertificateNotAccepted" + at
		open        = "read-only-port warn ReadOnlyPortOpen @ Kubelet " + readOnly
		afterTLS    = "serving-trusted client-accepted"
	)
	addressUnknown := []string{"serving-trusted unknown NotChecked" + at}
	notTLS := append(unknown(afterTLS, "KubeletNotTLS"+at), "tls fail KubeletNotTLS"+at)
	alerted := func(alert tls.AlertError, change func(a *check.KubeletAnswer)) func(finding.Family) []finding.Result {
		return answers(func(a *check.KubeletAnswer) {
			a.Certificates, a.Alert, a.Err = nil, &alert, errors.New("remote error")
			if change != nil {
				change(a)
			}
		})
	}
	noServing := append(unknown(afterTLS, "KubeletHasNoCertificate"+at), "tls fail KubeletHasNoCertificate"+at)
	refuses := unknown("tls "+afterTLS, "KubeletRefusesHandshake"+at)
	unreachable := unknown("tls "+afterTLS, "KubeletUnreachable"+at)

	connected := func(a check.ConnectionAnswer) func(finding.Family) []finding.Result {
		return seen(func(f *facts) { f.connection = &a })
	}
	broken := func(state check.ConnectionState) func(finding.Family) []finding.Result {
		why := map[check.ConnectionState]string{
			check.ConnectionForbidden: "403 Forbidden", check.ConnectionUntrusted: "it has expired or is not yet valid",
			check.ConnectionPairUnusable: "the key does not match the certificate",
			check.ConnectionUnreachable:  "connection refused", check.ConnectionUnknown: "the agent is not allowed to read its own Pod's log",
		}
		return connected(check.ConnectionAnswer{State: state, Why: why[state], Remedy: "restore the agent's Role"})
	}
	const acceptance, connection = "client-accepted", "connection"
	brokenBy := func(outcome string, reason finding.Reason) []string {
		return append(unknown(acceptance, string(reason)+at), connection+" "+outcome+" "+string(reason)+at)
	}

	return map[string]fixture{
		"good": {results: seen(func(*facts) {})},
		"connection not checked": {
			results: seen(func(f *facts) { f.connection, f.asked = nil, false }),
			want:    unknown(connection, "NotChecked"+at),
		},
		"connection not checked, other CAs": {
			results: seen(func(f *facts) {
				f.connection, f.asked, f.answer.AcceptedCAs = nil, false, [][]byte{foreign.Certificate.RawSubject}
			}),
			want: append(unknown(acceptance, "ClientAcceptanceUnknown"+at), unknown(connection, "NotChecked"+at)...),
		},
		"connection not checked, any CA": {
			results: seen(func(f *facts) { f.connection, f.asked, f.answer.AcceptedCAs = nil, false, nil }),
			want:    unknown(connection, "NotChecked"+at),
		},
		"connection not checked, no client certificate": {
			results: seen(func(f *facts) { f.connection, f.asked, f.client.Data = nil, false, nil }),
			want:    append(unknown(acceptance, "CertificateMissing @ /crt"), unknown(connection, "NotChecked"+at)...),
		},
		"connection not checked, client certificate not known": {
			results: seen(func(f *facts) {
				f.connection, f.asked, f.client = nil, false, check.Source{Problem: because(finding.Unreadable)}
			}),
			want: append(unknown(acceptance, "Unreadable @ /why"), unknown(connection, "NotChecked"+at)...),
		},
		"no answer about the connection yet": {
			results: seen(func(f *facts) { f.connection = nil }),
			want:    unknown(acceptance+" "+connection, "NotObserved"+at),
		},
		"connection, unauthenticated": {
			results: broken(check.ConnectionUnauthenticated),
			want:    []string{notAccepted, connection + " fail ClientCertificateNotAccepted" + at},
		},
		"connection, forbidden": {
			results: broken(check.ConnectionForbidden),
			want:    []string{connection + " fail ClientNotAuthorized" + at},
		},
		"connection, kubelet not trusted": {
			results: broken(check.ConnectionUntrusted), want: brokenBy("fail", finding.KubeletCertificateUntrusted),
		},
		"connection, pair unusable": {
			results: broken(check.ConnectionPairUnusable), want: brokenBy("fail", finding.ClientCertificateUnusable),
		},
		"connection, no TLS": {
			results: broken(check.ConnectionNotTLS), want: brokenBy("fail", finding.KubeletNotTLS),
		},
		"connection, kubelet unreachable": {
			results: broken(check.ConnectionUnreachable), want: brokenBy("unknown", finding.KubeletUnreachable),
		},
		"connection unknown": {
			results: broken(check.ConnectionUnknown), want: brokenBy("unknown", finding.ConnectionUnknown),
		},
		"connection through the Service": {
			results: connected(check.ConnectionAnswer{State: check.ConnectionWorks, ThroughService: true}),
		},
		"connection through the Service, unauthenticated": {
			results: connected(check.ConnectionAnswer{State: check.ConnectionUnauthenticated, ThroughService: true}),
			want:    []string{notAccepted, connection + " fail ClientCertificateNotAccepted" + at},
		},
		"good, takes any client's CA": {results: answers(func(a *check.KubeletAnswer) { a.AcceptedCAs = nil })},
		"good, takes the bridge's CA": {results: seen(func(f *facts) { f.client.Data = ofBridged.Certificate })},
		"no CA configured": {
			results: withCA(check.File{}), want: []string{"serving-trusted notApplicable " + at},
		},
		"no CA configured, any server": {
			results: seen(func(f *facts) {
				f.ca, f.answer.Certificates = check.File{}, []*x509.Certificate{foreign.Issue(serving).Leaf}
			}),
			want: []string{"serving-trusted notApplicable " + at},
		},
		"CA bundle with a CA that cannot be used": {results: withCA(file("/ca.crt", slices.Concat(unusable, servingCA.PEM())))},
		"issued by no CA of a bundle that can be used": {
			results: withCA(file("/ca.crt", slices.Concat(unusable, foreign.PEM()))),
			want:    []string{"serving-trusted unknown CAUnusable" + at}, mentions: "certificate 1 of the bundle",
		},
		"signed with ML-DSA, API server of Go 1.26": {
			results: seen(func(f *facts) { f.answer.Certificates, f.known.GoVersion = mldsa, "go1.26.8" }),
			want:    []string{"serving-trusted fail AlgorithmUnsupported" + at}, mentions: "ML-DSA-65",
		},
		"signed with ML-DSA, API server of Go 1.26, no CA configured": {
			results: seen(func(f *facts) { f.answer.Certificates, f.known.GoVersion, f.ca = mldsa, "go1.26.8", check.File{} }),
			want:    []string{"serving-trusted fail AlgorithmUnsupported" + at},
		},
		"signed with ML-DSA, Go release of the API server not known": {
			results: seen(func(f *facts) { f.answer.Certificates = mldsa }),
			want:    []string{"serving-trusted unknown AlgorithmUnsupported" + at},
		},
		"CA bundle without a CA that can be used": {
			results: withCA(file("/ca.crt", unusable)), want: []string{"serving-trusted unknown CAUnusable" + at}, mentions: "Ed448",
		},
		"expired, in a bundle with a CA that cannot be used": {
			results: seen(func(f *facts) {
				expired := servingCA.Issue(serving.Valid(now.Add(-2*time.Hour), now.Add(-time.Hour)))
				f.answer.Certificates = []*x509.Certificate{expired.Leaf}
				f.ca = file("/ca.crt", slices.Concat(unusable, servingCA.PEM()))
			}),
			want: []string{distrusted},
		},
		"CA file not known":     {results: withCA(check.File{WhyUnknown: because(finding.ConfigMissing)}), want: []string{"serving-trusted unknown ConfigMissing @ /why"}},
		"no client certificate": {results: seen(func(f *facts) { f.client.Data = nil })},
		"not checked": {
			results: seen(func(f *facts) { f.answer, f.configured = nil, false }),
			want:    unknown("tls "+afterTLS+" read-only-port", "NotChecked @ Kubelet"),
		},
		"has not answered yet": {
			results: seen(func(f *facts) { f.answer = nil }),
			want:    unknown("tls "+afterTLS+" read-only-port", "NotObserved @ Kubelet"),
		},
		"no TLS": {
			results: answers(func(a *check.KubeletAnswer) { a.Certificates, a.NotTLS, a.Err = nil, true, errors.New("no TLS record") }),
			want:    notTLS,
		},
		"no TLS, and an open read-only port": {
			results: answers(func(a *check.KubeletAnswer) {
				a.Certificates, a.NotTLS, a.Err, a.ReadOnlyOpen = nil, true, errors.New("no TLS record"), true
			}),
			want: append(slices.Clone(notTLS), open),
		},
		"no certificate yet": {
			results: alerted(80, nil), want: noServing,
			mentions: `"internal error"`,
		},
		"no certificate configured": {results: alerted(112, nil), want: noServing},
		"no certificate yet, and an open read-only port": {
			results: alerted(80, func(a *check.KubeletAnswer) { a.ReadOnlyOpen = true }), want: append(slices.Clone(noServing), open),
		},
		"nothing in common": {
			results: alerted(40, nil), want: refuses,
			mentions: `"handshake failure"`,
		},
		"no TLS version in common": {results: alerted(70, nil), want: refuses},
		"an alert after its certificate": {
			results: alerted(80, func(a *check.KubeletAnswer) { a.Certificates = []*x509.Certificate{own.Leaf} }), want: refuses,
		},
		"nothing answers": {
			results:  answers(func(a *check.KubeletAnswer) { a.Certificates, a.Err = nil, errors.New("connection\nrefused") }),
			want:     append(slices.Clone(unreachable), "read-only-port unknown KubeletUnreachable"+at),
			mentions: "connection refused",
		},
		"only the read-only port answers": {
			results: answers(func(a *check.KubeletAnswer) {
				a.Certificates, a.Err, a.ReadOnlyOpen = nil, errors.New("connection refused"), true
			}),
			want: append(slices.Clone(unreachable), open),
		},
		"no certificate shown": {
			results: answers(func(a *check.KubeletAnswer) { a.Certificates = nil }),
			want:    append(slices.Clone(unreachable), "read-only-port unknown KubeletUnreachable"+at),
		},
		"read-only port open": {
			results: answers(func(a *check.KubeletAnswer) { a.ReadOnlyOpen = true }), want: []string{open},
		},
		"it is not known whether the read-only port is open": {
			results:  answers(func(a *check.KubeletAnswer) { a.ReadOnlyErr = errors.New("i/o\ntimeout") }),
			want:     []string{"read-only-port unknown KubeletUnreachable @ Kubelet " + readOnly},
			mentions: "i/o timeout",
		},
		"certificate of a foreign CA": {
			results: shows(foreign.Issue(serving)), want: []string{distrusted},
			mentions: `"foreign"`,
		},
		"certificate expired": {
			results: shows(servingCA.Issue(serving.Valid(now.Add(-2*time.Hour), now.Add(-time.Hour)))), want: []string{distrusted},
			mentions: now.Add(-2 * time.Hour).Format(time.RFC3339),
		},
		"certificate of another node": {
			results: shows(servingCA.Issue(otherAddress)), want: []string{distrusted},
			mentions: "192.0.2.8",
		},
		"by its name": {
			results: named(servingCA.Issue(byName), check.KubeletSettings{NodeName: "master-0"}),
		},
		"by its name, certificate for its address": {
			results: named(own, check.KubeletSettings{NodeName: "master-0", AddressTypes: []string{"Hostname", "InternalIP"}}), want: []string{distrusted},
			mentions: "master-0",
		},
		"by its address, certificate for its name": {
			results: shows(servingCA.Issue(byName)), want: []string{distrusted},
		},
		"by a name that is not configured": {
			results: named(own, check.KubeletSettings{}), want: addressUnknown,
		},
		"by a name that is not configured, certificate of a foreign CA": {
			results: named(foreign.Issue(serving), check.KubeletSettings{}), want: []string{distrusted},
		},
		"by an address that it may not have": {
			results: named(own, check.KubeletSettings{NodeName: "master-0", AddressTypes: []string{"ExternalIP", "InternalIP"}}), want: addressUnknown,
			mentions: `"ExternalIP"`,
		},
		"preferred address types not known": {
			results: named(own, check.KubeletSettings{NodeName: "master-0", WhyAddressTypesUnknown: "it comes from a Secret"}), want: addressUnknown,
			mentions: "it comes from a Secret",
		},
		"by its address, checked at its name": {
			results: answers(func(a *check.KubeletAnswer) { a.Host = "master-0" }), want: addressUnknown,
		},
		"configured with another port": {
			results: seen(func(f *facts) { f.answer.AssumedPort, f.known.Port = 10250, 10350 }), want: unknown("tls "+afterTLS, "KubeletUnreachable"+at),
			mentions: "10350",
		},
		"checked at another port by configuration": {
			results: seen(func(f *facts) { f.known.Port = 10350 }),
		},
		"configured with a read-only port": {
			results:  seen(func(f *facts) { f.known.ReadOnlyPort, f.known.ReadOnlyPortAt = 10300, "/config" }),
			want:     []string{"read-only-port warn ReadOnlyPortOpen @ /config"},
			mentions: "10300",
		},
		"configured without client CAs": {
			results: seen(func(f *facts) { f.known.NoClientCAAt = "/config" }),
			want:    []string{"client-accepted fail ClientCertificateNotAccepted @ /config"},
		},
		"certificate not for a server": {
			results: shows(servingCA.Issue(ofClient)), want: []string{distrusted},
		},
		"over an intermediate": {results: answers(func(a *check.KubeletAnswer) {
			intermediate := pkitest.NewCA("intermediate")
			block, _ := pem.Decode(servingCA.CrossSign(intermediate))
			bridge, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				panic(err)
			}
			a.Certificates = []*x509.Certificate{intermediate.Issue(serving).Leaf, bridge}
		})},
		"CA bundle gone":        {results: withCA(absent("/ca.crt")), want: []string{distrusted}},
		"CA bundle garbage":     {results: withCA(file("/ca.crt", []byte("garbage"))), want: []string{distrusted}},
		"CA bundle a directory": {results: withCA(check.File{Path: "/ca.crt", Mode: fs.ModeDir}), want: []string{distrusted}},
		"CA bundle forbidden": {
			results: withCA(forbidden("/ca.crt")), want: []string{"serving-trusted unknown Unreadable @ /ca.crt"},
		},
		"CA bundle in a directory that the host replaced": {results: withCA(stale("/ca.crt")), want: []string{"serving-trusted unknown StaleMount @ /ca.crt"}},
		"CA bundle in a directory that is not mounted":    {results: withCA(notMounted("/ca.crt")), want: []string{"serving-trusted unknown NotMounted @ /ca.crt"}},
		"does not request client certificates": {
			results: answers(func(a *check.KubeletAnswer) { a.RequestsClientCertificate = false }), want: []string{notAccepted},
		},
		"knows another client CA": {
			results: answers(func(a *check.KubeletAnswer) { a.AcceptedCAs = [][]byte{foreign.Certificate.RawSubject} }),
		},
	}
}

// TestNotMountedRemedy: the remedy for a path that is not mounted is to mount it, for manifests, too. A file
// that exceeds a limit of the agent has another remedy.
func TestNotMountedRemedy(t *testing.T) {
	const directory, path = "/etc/kubernetes/manifests", "/etc/kubernetes/manifests/kube-apiserver-pod.yaml"
	for name, err := range map[string]error{
		"not mounted": notMounted(path).Err, "beyond a limit": errors.New("it has 2000000 bytes"),
	} {
		for what, manifest := range map[string]check.Manifest{
			"the directory": {Path: directory, Directory: directory, ReadErr: err},
			"the manifest":  {Path: path, Directory: directory, ReadErr: err},
			"another file":  {Path: path, Directory: directory, Unread: []check.File{{Path: directory + "/other.yaml", Err: err}}},
		} {
			t.Run(name+"/"+what, func(t *testing.T) {
				results, _ := manifest.Check(pkitest.Now())
				found := finding.Findings(results)
				if len(found) != 1 {
					t.Fatalf("want one finding, got %+v", found)
				}
				wantReason := finding.Unreadable
				if name == "not mounted" {
					wantReason = finding.NotMounted
				}
				mounts := strings.Contains(found[0].Remedy, "nodeagent.hostPaths")
				if found[0].Reason != wantReason || mounts != (wantReason == finding.NotMounted) {
					t.Errorf("got %s with remedy %q", found[0].Reason, found[0].Remedy)
				}
			})
		}
	}
}

// TestPluginPaths: the configuration files of the guard's plugins, from the admission
// configuration file or from the configuration.
func TestPluginPaths(t *testing.T) {
	const (
		inFile   = `{"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AdmissionConfiguration", "plugins": [` + "%s" + `]}`
		inConfig = `{"apiVersion": "kubecontrolplane.config.openshift.io/v1", "kind": "KubeAPIServerConfig", "apiServerArguments": {}, "admission": {"pluginConfig": {` + "%s" + `}}}`
	)
	cases := map[string]struct {
		file, config string
		want         map[string]string
	}{
		"none":           {want: map[string]string{}},
		"in the file":    {file: `{"name": "ValidatingAdmissionWebhook", "path": "/w.yaml"}`, want: map[string]string{"ValidatingAdmissionWebhook": "/w.yaml"}},
		"another plugin": {file: `{"name": "PodSecurity", "path": "/p.yaml"}`, want: map[string]string{}},
		"in the configuration": {
			config: `"ValidatingAdmissionPolicy": {"location": "/p.yaml"}`,
			want:   map[string]string{"ValidatingAdmissionPolicy": "/p.yaml"},
		},
		"in both": {
			file:   `{"name": "ValidatingAdmissionWebhook", "path": "/w.yaml"}`,
			config: `"ValidatingAdmissionPolicy": {"location": "/p.yaml"}`,
			want:   map[string]string{"ValidatingAdmissionWebhook": "/w.yaml", "ValidatingAdmissionPolicy": "/p.yaml"},
		},
		"in a file that cannot be parsed": {file: `{`, want: map[string]string{}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			config, err := kubeapiserver.ParseConfig(fmt.Appendf(nil, inConfig, c.config))
			if err != nil {
				t.Fatal(err)
			}
			got := check.Configuration{
				Config:        config,
				AdmissionFile: file("/admission.yaml", fmt.Appendf(nil, inFile, c.file)),
			}.PluginPaths()
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("paths (-want +got):\n%s", d)
			}
		})
	}
}

// TestKubeletNextChange: the times at which the results about a kubelet's certificate change.
func TestKubeletNextChange(t *testing.T) {
	now := pkitest.Now()
	leaf := pkitest.NewCA("csr-signer").Issue(pkitest.ServingCert().Valid(now, now.Add(time.Hour))).Leaf
	answer := &check.KubeletAnswer{
		At:           finding.Subject{Kind: finding.KindKubelet, Name: "node"},
		Certificates: []*x509.Certificate{leaf},
	}
	cases := map[string]struct {
		answer *check.KubeletAnswer
		ca     check.File
		now    time.Time
		want   time.Time // zero: never
	}{
		"before it is valid":    {answer, file("/ca.crt", nil), now.Add(-time.Hour), leaf.NotBefore},
		"while it is valid":     {answer, file("/ca.crt", nil), now, leaf.NotAfter.Add(1)},
		"after it has expired":  {answer, file("/ca.crt", nil), now.Add(2 * time.Hour), time.Time{}},
		"dates are not checked": {answer, check.File{}, now, time.Time{}},
		"no answer":             {nil, file("/ca.crt", nil), now, time.Time{}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			kubelet := check.NewKubelet(c.answer, true, check.KeyPair{}, c.ca, check.KubeletSettings{})
			if _, _, got := kubelet.Check(c.now); !got.Equal(c.want) {
				t.Errorf("at %s: got %s, want %s", c.now, got, c.want)
			}
		})
	}
}

// TestKubeletAcceptsClient: the names of the CAs that the kubelet accepts are evidence only together with
// the connection. Each pair of both has its result.
func TestKubeletAcceptsClient(t *testing.T) {
	ca, foreign := pkitest.NewCA("signer"), pkitest.NewCA("foreign")
	pair := ca.Issue(pkitest.KubeletClient())
	own, other := ca.Certificate.RawSubject, foreign.Certificate.RawSubject
	at := finding.Subject{Kind: finding.KindKubelet, Name: "192.0.2.7:10250"}
	handshakes := map[string]*check.KubeletAnswer{
		"not answered": nil,
		"failed":       {At: at, Err: errors.New("refused")},
		"asks nobody":  {At: at, Certificates: []*x509.Certificate{pair.Leaf}},
		"names none":   {At: at, Certificates: []*x509.Certificate{pair.Leaf}, RequestsClientCertificate: true},
		"names ours": {
			At: at, Certificates: []*x509.Certificate{pair.Leaf}, RequestsClientCertificate: true, AcceptedCAs: [][]byte{other, own},
		},
		"names others": {
			At: at, Certificates: []*x509.Certificate{pair.Leaf}, RequestsClientCertificate: true, AcceptedCAs: [][]byte{other},
		},
	}
	states := map[string]check.ConnectionState{
		"works": check.ConnectionWorks, "unauthenticated": check.ConnectionUnauthenticated,
		"forbidden": check.ConnectionForbidden, "untrusted": check.ConnectionUntrusted,
		"pair unusable": check.ConnectionPairUnusable, "no TLS": check.ConnectionNotTLS,
		"unreachable": check.ConnectionUnreachable, "unknown": check.ConnectionUnknown,
	}
	const refuses = "fail ClientCertificateNotAccepted"
	const unseen, failed = "unknown NotObserved", "unknown KubeletUnreachable"
	rest := func(when string) map[string]string { // the connection shows neither
		return map[string]string{
			"untrusted": "unknown KubeletCertificateUntrusted", "pair unusable": "unknown ClientCertificateUnusable",
			"no TLS": "unknown KubeletNotTLS", "unreachable": "unknown KubeletUnreachable",
			"unknown": "unknown ConnectionUnknown", "not answered": unseen, "unauthenticated": refuses,
			"works": "pass", "forbidden": "pass", "not checked": when,
		}
	}
	always := func(result string) map[string]string {
		all := rest(result)
		for connection := range all {
			if connection != "unauthenticated" {
				all[connection] = result
			}
		}
		return all
	}
	asksNobody := always(refuses)
	want := map[string]map[string]string{
		"not answered": always(unseen),
		"failed":       always(failed),
		"asks nobody":  asksNobody,
		"names none":   rest("pass"),
		"names ours":   rest("pass"),
		"names others": rest("unknown ClientAcceptanceUnknown"),
	}
	keys := check.NewKeyPair(check.Source{At: finding.File("/crt"), Data: pair.Certificate},
		check.Source{At: finding.File("/key"), Data: pair.Key}, check.Expectation{})
	got := map[string]map[string]string{}
	for handshake, answer := range handshakes {
		got[handshake] = map[string]string{}
		judge := func(name string, connection *check.ConnectionAnswer, configured bool) {
			kubelet := check.NewKubelet(answer, true, keys, check.File{}, check.KubeletSettings{}).
				Connection(connection, configured)
			results, ofConnection, _ := kubelet.Check(pkitest.Now())
			if byHandshake := handshake == "asks nobody" || !configured; byHandshake != slices.ContainsFunc(results,
				func(r finding.Result) bool { return r.Requirement == finding.Kubelet.Requires(finding.ClientAccepted) }) {
				t.Errorf("%s, %s: the result comes from the handshake: want %t", handshake, name, byHandshake)
			}
			for _, r := range slices.Concat(results, ofConnection) {
				if r.Requirement == finding.Kubelet.Requires(finding.ClientAccepted) {
					got[handshake][name] = strings.TrimSpace(r.Outcome.String() + " " + string(r.Reason))
				}
			}
		}
		judge("not checked", nil, false)
		judge("not answered", nil, true)
		for name, state := range states {
			judge(name, &check.ConnectionAnswer{State: state}, true)
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("client-accepted by handshake and connection (-want +got):\n%s", d)
	}
}

// parsed returns a certificate (PEM) that crypto/x509 parses.
func parsed(text []byte) *x509.Certificate {
	chain, err := pki.ParseChain(text)
	if err != nil {
		panic(err)
	}
	return chain.Leaf
}
