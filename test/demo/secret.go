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

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/openshift"
)

// prepare makes the Secrets that OpenShift makes, and files with others for
// kubectl, and installs the guard.
func (d *demo) prepare(ctx context.Context) error {
	d.printf("A real kube-apiserver runs, with OpenShift's Secrets in it. Installing the guard as its chart registers it.\n")
	uid := d.rig.KubectlCommand(ctx, "-n", "openshift-apiserver", "get", "service", "api", "-o", "jsonpath={.metadata.uid}")
	if uid.Code != 0 {
		return fmt.Errorf("get Service api: %s", uid.Output)
	}
	now := time.Now()
	ca := d.rig.ServiceCA
	issue := func(r pkitest.Request, from, to time.Time) pkitest.Pair {
		r.Key = pkitest.RSA
		return ca.Issue(r.Valid(from, to))
	}
	twoYears := func(r pkitest.Request) pkitest.Pair { return issue(r, now.Add(-time.Hour), now.AddDate(2, 0, 0)) }
	elsewhere := pkitest.ServingCert()
	elsewhere.DNSNames = []string{"api.elsewhere.svc"}
	first, second, third := twoYears(pkitest.ServingCert()), twoYears(pkitest.ServingCert()), twoYears(pkitest.ServingCert())
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

// refusals plays what may and may not be done to the Secrets.
func (d *demo) refusals(ctx context.Context) error {
	const ns, secret = "openshift-apiserver", "serving-cert"
	in := func(args ...string) []string { return append([]string{"-n", ns}, args...) }
	for _, step := range []func() error{
		func() error { d.chapter("Legitimate changes pass"); return nil },
		func() error {
			return d.pass(ctx, "service-ca re-issues the certificate: its full, unconditional PUT", "secret/serving-cert replaced", "--as", openshift.ServiceCA, "replace", "-f", "reissued.yaml")
		},
		func() error {
			return d.pass(ctx, "an administrator rotates by hand: new certificate and key together", "secret/serving-cert replaced", "replace", "-f", "by-hand.yaml")
		},

		func() error { d.chapter("Downgrades are refused"); return nil },
		func() error {
			return d.refuse(ctx, "an empty certificate, which the API server itself would take", "CertificateMissing", in("patch", "secret", secret, "-p", `{"data":{"tls.crt":""}}`)...)
		},
		func() error {
			return d.refuse(ctx, "garbage for a key", "KeyUnparsable", in("patch", "secret", secret, "-p", `{"data":{"tls.key":"Z2FyYmFnZQ=="}}`)...)
		},
		func() error {
			return d.refuse(ctx, "the certificate of one pair with the key of another", "KeyMismatch", "replace", "-f", "mismatched.yaml")
		},
		func() error {
			return d.refuse(ctx, "a certificate that has expired", "CertificateExpired", "replace", "-f", "expired.yaml")
		},
		func() error {
			return d.refuse(ctx, "a good pair, for another server", "DNSNameMissing", "replace", "-f", "other-name.yaml")
		},
		func() error {
			return d.refuse(ctx, "nothing but an annotation less, so that service-ca would never renew it again", "RotationDetached", in("annotate", "secret", secret, "service.alpha.openshift.io/originating-service-name-")...)
		},
		func() error {
			return d.refuse(ctx, "an empty key in the Secret that the nodes' files are written from", "KeyMissing", "-n", "openshift-kube-apiserver", "patch", "secret", "kubelet-client", "-p", `{"data":{"tls.key":""}}`)
		},
		func() error {
			return d.refuse(ctx, "delete it", "SecretMissing", in("delete", "secret", secret)...)
		},
		func() error {
			return d.refuse(ctx, "delete the whole collection: a request without a name", "SecretMissing", "delete", "--raw", "/api/v1/namespaces/"+ns+"/secrets")
		},
		func() error {
			return d.step(ctx, "change its type: the one downgrade that the API server refuses by itself", true, []string{"field is immutable"}, in("patch", "secret", secret, "-p", `{"type":"Opaque"}`)...)
		},

		func() error {
			d.chapter("On purpose, it can be deleted; but not come back as something else")
			return nil
		},
		func() error {
			until := time.Now().Add(10 * time.Minute).UTC().Format(time.RFC3339)
			return d.pass(ctx, "what the refusal above says to do", "secret/serving-cert annotated", in("annotate", "secret", secret, "kubelet-https-guard.io/allow-delete-until="+until)...)
		},
		func() error {
			return d.pass(ctx, "delete it, within these minutes", `secret "serving-cert" deleted`, in("delete", "secret", secret)...)
		},
		func() error {
			return d.refuse(ctx, "create it again as Opaque", "WrongSecretType", "create", "-f", "opaque.yaml")
		},
		func() error {
			return d.pass(ctx, "service-ca creates it again, as it does within a moment", "secret/serving-cert created", "--as", openshift.ServiceCA, "create", "-f", "reissued.yaml")
		},
		func() error { return d.refusalEvents(ctx) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// stored plays what nobody asks the webhook about: a backup is restored, and
// garbage with it.
func (d *demo) stored(ctx context.Context) error {
	const ns, name = "openshift-apiserver", "serving-cert"
	d.chapter("What is stored is audited: nobody is asked when a backup is restored")
	result := d.rig.KubectlCommand(ctx, "-n", ns, "get", "secret", name, "-o", "json")
	var secret corev1.Secret
	if err := json.Unmarshal([]byte(result.Output), &secret); err != nil {
		return fmt.Errorf("get Secret %s: %s", name, result.Output)
	}
	secret.Data["tls.key"] = []byte("garbage")
	d.printf("\na backup with garbage for a key is restored into etcd, behind the API server's back\n")
	if err := d.rig.Restore(ctx, "secrets", ns, name, secret); err != nil {
		return err
	}
	tell := func(note string) error {
		event, err := d.awaitEvent(ctx, ns, "KeyUnparsable", note)
		if err != nil {
			return err
		}
		d.printf("  Event %s %s on %s: %s\n", event.Type, event.Reason, event.object(), cut(event.Note, 190))
		return nil
	}
	if err := tell("Secret openshift-apiserver/serving-cert tls.key: it holds"); err != nil {
		return err
	}
	d.audited++
	if err := d.pass(ctx, "it is repaired", "secret/serving-cert replaced", "replace", "-f", "by-hand.yaml"); err != nil {
		return err
	}
	return tell("Cleared: KeyUnparsable")
}

// refusalEvents shows the Events that a refusal and a break-glass leave on the
// Secret.
func (d *demo) refusalEvents(ctx context.Context) error {
	d.printf("\nwho tried, and who did, stays on record\n")
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
