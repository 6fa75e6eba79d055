// SPDX-License-Identifier: Apache-2.0

package prove

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

// answer is what an API server says to a write, with the body of it.
type answer func(body string) error

func refused(by string) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusForbidden, Reason: metav1.StatusReasonForbidden,
		Message: by + " denied the request: it would break control CIS OpenShift 1.2.4 (1.2.2 from v1.9)",
	}}
}

// TestProve: only a refusal by the guard counts, and of each try.
func TestProve(t *testing.T) {
	secrets := schema.GroupResource{Resource: "secrets"}
	notFound := func(string) error { return apierrors.NewNotFound(secrets, "s") }
	guard := func(string) error { return refused("the guard") }
	cases := map[string]struct {
		patch, create answer
		want          []string
		ok            bool
	}{
		"refused": {patch: guard, ok: true, want: []string{
			"Secret ns/s, an empty certificate: refused: the guard denied the request: it would break control CIS OpenShift 1.2.4 (1.2.2 from v1.9)",
			"Secret ns/s, a certificate that is none: refused: the guard denied the request: it would break control CIS OpenShift 1.2.4 (1.2.2 from v1.9)",
		}},
		"no such Secret, refused": {patch: notFound, create: guard, ok: true, want: []string{
			"Secret ns/s, an empty certificate: refused: the guard denied the request: it would break control CIS OpenShift 1.2.4 (1.2.2 from v1.9)",
			"Secret ns/s, a certificate that is none: refused: the guard denied the request: it would break control CIS OpenShift 1.2.4 (1.2.2 from v1.9)",
		}},
		"nothing is refused": {patch: func(string) error { return nil }, want: []string{
			"Secret ns/s, an empty certificate: NOT REFUSED: it would have been stored",
			"Secret ns/s, a certificate that is none: NOT REFUSED: it would have been stored",
		}},
		"no such Secret, nothing is refused": {patch: notFound, create: func(string) error { return nil }, want: []string{
			"Secret ns/s, an empty certificate: NOT REFUSED: it would have been stored",
			"Secret ns/s, a certificate that is none: NOT REFUSED: it would have been stored",
		}},
		"the policy alone": {
			patch: func(body string) error {
				if strings.Contains(body, `"tls.crt":""`) {
					return refused("the policy")
				}
				return nil
			},
			want: []string{
				"Secret ns/s, an empty certificate: refused: the policy denied the request: it would break control CIS OpenShift 1.2.4 (1.2.2 from v1.9)",
				"Secret ns/s, a certificate that is none: NOT REFUSED: it would have been stored",
			},
		},
		"no right to": {
			patch: func(string) error { return apierrors.NewForbidden(secrets, "s", errors.New("no right to patch")) },
			want: []string{
				`Secret ns/s, an empty certificate: NOT REFUSED BY THE GUARD: secrets "s" is forbidden: no right to patch`,
				`Secret ns/s, a certificate that is none: NOT REFUSED BY THE GUARD: secrets "s" is forbidden: no right to patch`,
			},
		},
		"the webhook is away": {
			patch: func(string) error {
				return apierrors.NewInternalError(errors.New("failed calling webhook:\nconnection refused"))
			},
			want: []string{
				"Secret ns/s, an empty certificate: NOT REFUSED BY THE GUARD: Internal error occurred: failed calling webhook: connection refused",
				"Secret ns/s, a certificate that is none: NOT REFUSED BY THE GUARD: Internal error occurred: failed calling webhook: connection refused",
			},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			cluster := fake.NewClientset()
			dry := func(options []string) {
				if d := cmp.Diff([]string{metav1.DryRunAll}, options); d != "" {
					t.Errorf("this is no dry run: %v", options)
				}
			}
			cluster.PrependReactor("patch", "secrets", func(action clienttesting.Action) (bool, runtime.Object, error) {
				patch := action.(clienttesting.PatchActionImpl)
				dry(patch.PatchOptions.DryRun)
				return true, &corev1.Secret{}, c.patch(string(patch.Patch))
			})
			cluster.PrependReactor("create", "secrets", func(action clienttesting.Action) (bool, runtime.Object, error) {
				create := action.(clienttesting.CreateActionImpl)
				dry(create.CreateOptions.DryRun)
				if made := create.Object.(*corev1.Secret); made.Type != corev1.SecretTypeTLS {
					t.Errorf("of type %s", made.Type)
				}
				return true, &corev1.Secret{}, c.create("")
			})
			var out strings.Builder
			prover := Prover{Secrets: cluster.CoreV1(), Out: &out}
			err := prover.Prove(t.Context(), []Secret{{Namespace: "ns", Name: "s"}})
			if c.ok != (err == nil) || !c.ok && !errors.Is(err, ErrNotRefused) {
				t.Errorf("error %v, want none: %t", err, c.ok)
			}
			if d := cmp.Diff(strings.Join(c.want, "\n")+"\n", out.String()); d != "" {
				t.Errorf("what it says (-want +got):\n%s", d)
			}
		})
	}
}

// TestPatience: a guard that was just installed is waited for.
func TestPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		cluster := fake.NewClientset()
		cluster.PrependReactor("patch", "secrets", func(clienttesting.Action) (bool, runtime.Object, error) {
			if time.Since(begin) < 5*time.Second {
				return true, &corev1.Secret{}, nil
			}
			return true, nil, refused("the guard")
		})
		var out strings.Builder
		prover := Prover{Secrets: cluster.CoreV1(), Out: &out, Patience: time.Minute}
		if err := prover.Prove(t.Context(), []Secret{{Namespace: "ns", Name: "s"}}); err != nil {
			t.Errorf("%v\n%s", err, out.String())
		}
		if took := time.Since(begin); took != 5*time.Second {
			t.Errorf("it took %s", took)
		}
	})
}
