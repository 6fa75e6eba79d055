// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/openshift"
)

// prepare creates OpenShift's Secrets, writes files with other Secrets for kubectl,
// and installs the guard.
func (d *demo) prepare(ctx context.Context) error {
	d.printf("A real kube-apiserver is running, with OpenShift's Secrets in it. " +
		"Installing the guard's webhook and policies from the chart.\n")
	uid := d.rig.KubectlCommand(ctx, "-n", "openshift-apiserver", "get", "service", "api",
		"-o", "jsonpath={.metadata.uid}")
	if uid.Code != 0 {
		return fmt.Errorf("get Service api: %s", uid.Output)
	}
	now := time.Now()
	ca := d.rig.ServiceCA
	issue := func(r pkitest.Request, from, to time.Time) pkitest.Pair {
		r.Key = pkitest.RSA
		return ca.Issue(r.Valid(from, to))
	}
	twoYears := func(r pkitest.Request) pkitest.Pair {
		return issue(r, now.Add(-time.Hour), now.AddDate(2, 0, 0))
	}
	elsewhere := pkitest.ServingCert()
	elsewhere.DNSNames = []string{"api.elsewhere.svc"}
	first, second, third := twoYears(pkitest.ServingCert()), twoYears(pkitest.ServingCert()),
		twoYears(pkitest.ServingCert())
	expired := issue(pkitest.ServingCert(), now.AddDate(-2, 0, 0), now.Add(-time.Hour))
	otherName := twoYears(elsewhere)
	client := twoYears(pkitest.KubeletClient())

	serving := func(certificate, key []byte) *corev1.Secret {
		return openshift.ServingCert(types.UID(uid.Output), certificate, key)
	}
	opaque := serving(first.Certificate, first.Key)
	opaque.Type = corev1.SecretTypeOpaque
	for name, secret := range map[string]*corev1.Secret{
		"serving-cert.yaml":   serving(first.ChainWith(ca.PEM()), first.Key),
		"reissued.yaml":       serving(second.ChainWith(ca.PEM()), second.Key),
		"by-hand.yaml":        serving(third.ChainWith(ca.PEM()), third.Key),
		"mismatched.yaml":     serving(second.Certificate, first.Key),
		"expired.yaml":        serving(expired.Certificate, expired.Key),
		"other-name.yaml":     serving(otherName.Certificate, otherName.Key),
		"opaque.yaml":         opaque,
		"kubelet-client.yaml": openshift.KubeletClient(client.Certificate, client.Key),
	} {
		data, err := json.MarshalIndent(secret, "", "  ") // which is YAML too
		if err != nil {
			return err
		}
		if err := os.WriteFile(d.rig.Path(name), data, 0o600); err != nil {
			return err
		}
	}
	for _, name := range []string{"serving-cert.yaml", "kubelet-client.yaml"} {
		if result := d.rig.KubectlCommand(ctx, "create", "-f", name); result.Code != 0 {
			return fmt.Errorf("create %s: %s", name, result.Output)
		}
	}
	return d.rig.InstallGuard(ctx)
}

// refusals tries changes of the Secrets that are accepted, and changes that are refused.
func (d *demo) refusals(ctx context.Context) error {
	const ns, secret = "openshift-apiserver", "serving-cert"
	in := func(args ...string) []string { return append([]string{"-n", ns}, args...) }
	for _, step := range []func() error{
		func() error { d.chapter("Legitimate changes are accepted"); return nil },
		func() error {
			return d.pass(ctx, "service-ca renews the certificate: a full, unconditional PUT",
				"secret/serving-cert replaced", "--as", openshift.ServiceCA, "replace", "-f", "reissued.yaml")
		},
		func() error {
			return d.pass(ctx, "an administrator rotates by hand: new certificate and key together",
				"secret/serving-cert replaced", "replace", "-f", "by-hand.yaml")
		},

		func() error { d.chapter("Changes that break the control are refused"); return nil },
		func() error {
			return d.refuse(ctx, "empty the certificate, which the API server itself accepts",
				"CertificateMissing", in("patch", "secret", secret, "-p", `{"data":{"tls.crt":""}}`)...)
		},
		func() error {
			return d.refuse(ctx, "replace the key with garbage",
				"KeyUnparsable", in("patch", "secret", secret, "-p", `{"data":{"tls.key":"Z2FyYmFnZQ=="}}`)...)
		},
		func() error {
			return d.refuse(ctx, "write the certificate of one pair with the key of another",
				"KeyMismatch", "replace", "-f", "mismatched.yaml")
		},
		func() error {
			return d.refuse(ctx, "write a certificate that has expired",
				"CertificateExpired", "replace", "-f", "expired.yaml")
		},
		func() error {
			return d.refuse(ctx, "write a valid pair of another server",
				"DNSNameMissing", "replace", "-f", "other-name.yaml")
		},
		func() error {
			return d.refuse(ctx, "remove one annotation, without which service-ca never renews the Secret again",
				"RotationDetached",
				in("annotate", "secret", secret, "service.alpha.openshift.io/originating-service-name-")...)
		},
		func() error {
			return d.refuse(ctx, "empty the key in the Secret from which the nodes' files are written",
				"KeyMissing",
				"-n", "openshift-kube-apiserver", "patch", "secret", "kubelet-client", "-p", `{"data":{"tls.key":""}}`)
		},
		func() error {
			return d.refuse(ctx, "delete the Secret", "SecretMissing", in("delete", "secret", secret)...)
		},
		func() error {
			return d.refuse(ctx, "delete all Secrets of the namespace: a request without a name",
				"SecretMissing", "delete", "--raw", "/api/v1/namespaces/"+ns+"/secrets")
		},
		func() error {
			return d.step(ctx, "change the type, which the API server itself refuses",
				true, []string{"field is immutable"}, in("patch", "secret", secret, "-p", `{"type":"Opaque"}`)...)
		},

		func() error {
			d.chapter("An administrator can delete the Secret on purpose, but cannot create it again with another type")
			return nil
		},
		func() error {
			until := time.Now().Add(10 * time.Minute).UTC().Format(time.RFC3339)
			return d.pass(ctx, "do what the refusal above says",
				"secret/serving-cert annotated",
				in("annotate", "secret", secret, "kubelet-https-guard.io/allow-delete-until="+until)...)
		},
		func() error {
			return d.pass(ctx, "delete the Secret, within the time that was set",
				`secret "serving-cert" deleted`, in("delete", "secret", secret)...)
		},
		func() error {
			return d.refuse(ctx, "create it again as type Opaque", "WrongSecretType", "create", "-f", "opaque.yaml")
		},
		func() error {
			return d.pass(ctx, "service-ca creates it again, as it does on OpenShift within a moment",
				"secret/serving-cert created", "--as", openshift.ServiceCA, "create", "-f", "reissued.yaml")
		},
		func() error { return d.refusalEvents(ctx) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// stored restores a backup with a garbage key, which bypasses admission, and shows
// what the audit reports.
func (d *demo) stored(ctx context.Context) error {
	const ns, name = "openshift-apiserver", "serving-cert"
	d.chapter("The audit checks what is stored: restoring a backup bypasses admission")
	result := d.rig.KubectlCommand(ctx, "-n", ns, "get", "secret", name, "-o", "json")
	var secret corev1.Secret
	if err := json.Unmarshal([]byte(result.Output), &secret); err != nil {
		return fmt.Errorf("get Secret %s: %s", name, result.Output)
	}
	secret.Data["tls.key"] = []byte("garbage")
	d.printf("\nrestore a backup with a garbage key, directly into etcd\n")
	if err := d.rig.Restore(ctx, "secrets", ns, name, secret); err != nil {
		return err
	}
	report := func(note string) error {
		event, err := d.awaitEvent(ctx, ns, "KeyUnparsable", note)
		if err != nil {
			return err
		}
		d.printf("  Event %s %s on %s: %s\n", event.Type, event.Reason, event.object(), cut(event.Note, 190))
		return nil
	}
	if err := report("Secret openshift-apiserver/serving-cert tls.key: "); err != nil {
		return err
	}
	d.audited++
	if err := d.pass(ctx, "repair it", "secret/serving-cert replaced", "replace", "-f", "by-hand.yaml"); err != nil {
		return err
	}
	return report("Resolved: KeyUnparsable")
}

// refusalEvents shows the Events of a refusal and of a break-glass on the Secret.
func (d *demo) refusalEvents(ctx context.Context) error {
	d.printf("\nEvents record who was refused, and who used the break-glass\n")
	for _, want := range []struct{ reason, note string }{
		{"KeyMismatch", "Request denied"},
		{"SecretMissing", "Request allowed by break-glass"},
	} {
		event, err := d.awaitEvent(ctx, "openshift-apiserver", want.reason, want.note)
		if err != nil {
			return err
		}
		d.printf("  Event %s %s on %s: %s\n", event.Type, event.Reason, event.object(), cut(event.Note, 190))
	}
	return nil
}
