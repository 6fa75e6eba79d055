// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	registrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pkitest"
)

var (
	ca, foreign = pkitest.NewCA("serving"), pkitest.NewCA("foreign")
	account     = rbacv1.Subject{Kind: "ServiceAccount", Namespace: "guard", Name: "webhook"}
)

// world is what a keeper sees. The zero value is all well.
type world struct {
	noBinding, noDeployment, noConfiguration bool
	subjects                                 []rbacv1.Subject
	available                                int32
	bundle                                   []byte
	byURL                                    bool
	ready                                    error
	serves                                   string // the name in the certificate
	denied                                   bool   // the right that is bound
	changed                                  chan struct{}
}

func (w world) keeper(t *testing.T, log *strings.Builder) *Keeper {
	t.Helper()
	cluster := fake.NewClientset()
	cluster.PrependReactor("create", "selfsubjectaccessreviews", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, &authorizationv1.SelfSubjectAccessReview{Status: authorizationv1.SubjectAccessReviewStatus{Allowed: !w.denied}}, nil
	})
	var err error
	create := func(made error) {
		if err == nil {
			err = made
		}
	}
	if !w.noBinding {
		_, made := cluster.RbacV1().ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "answers"}, Subjects: w.subjects}, metav1.CreateOptions{})
		create(made)
	}
	if !w.noDeployment {
		_, made := cluster.AppsV1().Deployments("guard").Create(t.Context(), &appsv1.Deployment{
			ObjectMeta: metav1.ObjectMeta{Name: "webhook"}, Status: appsv1.DeploymentStatus{Replicas: 2, ReadyReplicas: 2, AvailableReplicas: w.available},
		}, metav1.CreateOptions{})
		create(made)
	}
	if !w.noConfiguration {
		client := registrationv1.WebhookClientConfig{CABundle: w.bundle, Service: &registrationv1.ServiceReference{Namespace: "guard", Name: "webhook"}}
		if w.byURL {
			client.Service, client.URL = nil, new("https://127.0.0.1:1/")
		}
		_, made := cluster.AdmissionregistrationV1().ValidatingWebhookConfigurations().Create(t.Context(), &registrationv1.ValidatingWebhookConfiguration{
			ObjectMeta: metav1.ObjectMeta{Name: "guard"}, Webhooks: []registrationv1.ValidatingWebhook{{Name: "a.example.com", ClientConfig: client}},
		}, metav1.CreateOptions{})
		create(made)
	}
	if err != nil {
		t.Fatal(err)
	}
	serving := ca.Issue(pkitest.Request{CommonName: w.serves, DNSNames: []string{w.serves}})
	pair, err := tls.X509KeyPair(serving.Certificate, serving.Key)
	if err != nil {
		t.Fatal(err)
	}
	return &Keeper{
		Bindings: cluster.RbacV1().ClusterRoleBindings(), Deployments: cluster.AppsV1().Deployments("guard"), Webhooks: cluster.AdmissionregistrationV1().ValidatingWebhookConfigurations(),
		Reviews: cluster.AuthorizationV1().SelfSubjectAccessReviews(), Changed: w.changed, Asked: func(bool) {},
		Binding: "answers", Deployment: "webhook", Configuration: "guard", Namespace: "guard", Account: "webhook",
		Ready: func(context.Context) error { return w.ready }, Serving: func() *tls.Certificate { return &pair },
		Now: pkitest.Now, Log: slog.New(slog.NewTextHandler(log, nil)),
	}
}

// TestRound: the gate is opened when an API server that asks would get the
// right answer, and never a moment earlier.
func TestRound(t *testing.T) {
	well := world{available: 1, bundle: ca.PEM(), serves: "webhook.guard.svc"}
	cases := map[string]struct {
		change func(*world)
		why    string // it stays closed; empty: it is open
	}{
		"all is well":           {func(*world) {}, ""},
		"open already":          {func(w *world) { w.subjects, w.available = []rbacv1.Subject{account}, 0 }, ""},
		"by a URL":              {func(w *world) { w.byURL, w.bundle = true, nil }, ""},
		"two CAs, ours last":    {func(w *world) { w.bundle = append(foreign.PEM(), ca.PEM()...) }, ""},
		"bound, not granted":    {func(w *world) { w.denied = true }, "the right to answer admissions.kubelet-https-guard.io is bound by ClusterRoleBinding answers, but not granted: see ClusterRole answers"},
		"of somebody else":      {func(w *world) { w.subjects = []rbacv1.Subject{{Kind: "User", Name: "alice"}} }, ""},
		"this one is not ready": {func(w *world) { w.ready = errors.New("not listening yet") }, "not listening yet"},
		"nobody is available":   {func(w *world) { w.available = 0 }, "no replica of Deployment webhook is available"},
		"no CA":                 {func(w *world) { w.bundle = nil }, "ValidatingWebhookConfiguration guard, a.example.com: nobody has registered the CA of the serving certificate yet"},
		"garbage for a CA":      {func(w *world) { w.bundle = []byte("x") }, "ValidatingWebhookConfiguration guard, a.example.com: its CA bundle holds no PEM block of type CERTIFICATE"},
		"another CA":            {func(w *world) { w.bundle = foreign.PEM() }, "ValidatingWebhookConfiguration guard, a.example.com: its CA bundle does not vouch for the serving certificate: x509: certificate signed by unknown authority"},
		"another name":          {func(w *world) { w.serves = "webhook.other.svc" }, "ValidatingWebhookConfiguration guard, a.example.com: its CA bundle does not vouch for the serving certificate: x509: certificate is valid for webhook.other.svc, not webhook.guard.svc"},
		"no binding":            {func(w *world) { w.noBinding = true }, `read ClusterRoleBinding answers: clusterrolebindings.rbac.authorization.k8s.io "answers" not found`},
		"no Deployment":         {func(w *world) { w.noDeployment = true }, `read Deployment webhook: deployments.apps "webhook" not found`},
		"no registration":       {func(w *world) { w.noConfiguration = true }, `read ValidatingWebhookConfiguration guard: validatingwebhookconfigurations.admissionregistration.k8s.io "guard" not found`},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			w := well
			c.change(&w)
			keeper := w.keeper(t, new(strings.Builder))
			err := keeper.round(t.Context())
			why := ""
			if err != nil {
				why = err.Error()
			}
			if d := cmp.Diff(c.why, why); d != "" {
				t.Errorf("why it stays closed (-want +got):\n%s", d)
			}
			if w.noBinding {
				return
			}
			binding, err := keeper.Bindings.Get(t.Context(), "answers", metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			want := w.subjects
			if c.why == "" || w.denied {
				want = []rbacv1.Subject{account}
			}
			if d := cmp.Diff(want, binding.Subjects); d != "" {
				t.Errorf("subjects (-want +got):\n%s", d)
			}
		})
	}
}

// TestRun: what keeps the gate closed is said once, not every second, and that
// it is open is looked after once a minute.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		changed := make(chan struct{})
		keeper := world{bundle: ca.PEM(), serves: "webhook.guard.svc", available: 1, changed: changed}.keeper(t, &log)
		var asked []bool
		keeper.Asked = func(yes bool) { asked = append(asked, yes) }
		run := func(d time.Duration) {
			ctx, cancel := context.WithTimeout(t.Context(), d)
			defer cancel()
			keeper.Run(ctx)
		}
		looks, fault := 0, errors.New("not listening yet")
		keeper.Ready = func(context.Context) error { looks++; return fault }
		run(10*retry + retry/2)
		if got := strings.Count(log.String(), fault.Error()); looks != 11 || got != 1 {
			t.Errorf("%d looks, and it was said %d times:\n%s", looks, got, log.String())
		}
		fault = nil
		const opened = "API servers ask the webhook from now on"
		run(retry)
		if got := strings.Count(log.String(), opened); got != 1 {
			t.Errorf("it was opened %d times:\n%s", got, log.String())
		}
		if asked[0] || !asked[len(asked)-1] {
			t.Errorf("asked at first %v, at last %v", asked[0], asked[len(asked)-1])
		}
		// Somebody installs the chart's manifest over it, while it rests; that is seen
		// at once, or after a minute.
		closeIt := func() {
			binding := &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "answers"}}
			if _, err := keeper.Bindings.Update(t.Context(), binding, metav1.UpdateOptions{}); err != nil {
				t.Error(err)
			}
		}
		time.AfterFunc(every/2, closeIt)
		time.AfterFunc(every-retry, func() {
			binding, err := keeper.Bindings.Get(t.Context(), "answers", metav1.GetOptions{})
			if err != nil || len(binding.Subjects) > 0 {
				t.Errorf("before a minute is over: %v, %v", binding, err)
			}
		})
		run(every + retry)
		time.AfterFunc(retry, func() { closeIt(); changed <- struct{}{} })
		run(2 * retry)
		if got := strings.Count(log.String(), opened); got != 3 {
			t.Errorf("it was opened %d times:\n%s", got, log.String())
		}
		if got := strings.Count(log.String(), "Somebody has had API servers ask the webhook no more"); got != 2 {
			t.Errorf("it was told %d times that somebody closed it:\n%s", got, log.String())
		}
	})
}
