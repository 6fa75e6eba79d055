// SPDX-License-Identifier: Apache-2.0

package activation

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	registrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/fake"
	rbacclient "k8s.io/client-go/kubernetes/typed/rbac/v1"
	clienttesting "k8s.io/client-go/testing"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/messages"
)

var (
	ca, foreign = pkitest.NewCA("serving"), pkitest.NewCA("foreign")
	account     = rbacv1.Subject{Kind: "ServiceAccount", Namespace: "guard", Name: "webhook"}
)

// world is what a keeper sees.
type world struct {
	noBinding, noDeployment, noConfiguration bool
	subjects                                 []rbacv1.Subject
	available                                int32
	bundle                                   []byte
	byURL                                    bool
	ready                                    error
	serves                                   string // the name in the certificate
	denied                                   bool   // the ClusterRole lacks the permission
	changed                                  chan struct{}
}

func (w world) keeper(t *testing.T, log *strings.Builder) *Keeper {
	t.Helper()
	cluster := fake.NewClientset()
	cluster.PrependReactor("create", "selfsubjectaccessreviews", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, &authorizationv1.SelfSubjectAccessReview{
			Status: authorizationv1.SubjectAccessReviewStatus{Allowed: !w.denied},
		}, nil
	})
	var err error
	create := func(made error) {
		if err == nil {
			err = made
		}
	}
	if !w.noBinding {
		_, made := cluster.RbacV1().ClusterRoleBindings().Create(
			t.Context(),
			&rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "answers"}, Subjects: w.subjects},
			metav1.CreateOptions{},
		)
		create(made)
	}
	if !w.noDeployment {
		_, made := cluster.AppsV1().Deployments("guard").Create(t.Context(), &appsv1.Deployment{
			ObjectMeta: metav1.ObjectMeta{Name: "webhook"}, Status: appsv1.DeploymentStatus{Replicas: 2, ReadyReplicas: 2, AvailableReplicas: w.available},
		}, metav1.CreateOptions{})
		create(made)
	}
	if !w.noConfiguration {
		client := registrationv1.WebhookClientConfig{
			CABundle: w.bundle,
			Service:  &registrationv1.ServiceReference{Namespace: "guard", Name: "webhook"},
		}
		if w.byURL {
			client.Service, client.URL = nil, new("https://127.0.0.1:1/")
		}
		_, made := cluster.AdmissionregistrationV1().ValidatingWebhookConfigurations().Create(
			t.Context(),
			&registrationv1.ValidatingWebhookConfiguration{
				ObjectMeta: metav1.ObjectMeta{Name: "guard"}, Webhooks: []registrationv1.ValidatingWebhook{{Name: "a.example.com", ClientConfig: client}},
			},
			metav1.CreateOptions{},
		)
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
		Reviews: cluster.AuthorizationV1().SelfSubjectAccessReviews(), Changed: w.changed, OnCheck: func(bool) {},
		Binding: "answers", Deployment: "webhook", Configuration: "guard", Namespace: "guard", Account: "webhook",
		Ready: func(context.Context) error { return w.ready }, Serving: func() *tls.Certificate { return &pair },
		Now: pkitest.Now, Log: slog.New(slog.NewTextHandler(log, nil)),
	}
}

// TestCheck: the webhook is activated if API servers get valid answers, and not before.
func TestCheck(t *testing.T) {
	page := messages.Record(t, "why the webhook is not active")
	well := world{available: 1, bundle: ca.PEM(), serves: "webhook.guard.svc"}
	cases := map[string]struct {
		change func(*world)
		why    string // what the error mentions; empty: the webhook is active
	}{
		"ready":                      {func(*world) {}, ""},
		"active already":             {func(w *world) { w.subjects, w.available = []rbacv1.Subject{account}, 0 }, ""},
		"by a URL":                   {func(w *world) { w.byURL, w.bundle = true, nil }, ""},
		"two CAs, ours last":         {func(w *world) { w.bundle = append(foreign.PEM(), ca.PEM()...) }, ""},
		"binding without permission": {func(w *world) { w.denied = true }, "ClusterRoleBinding answers"},
		"bound to another user":      {func(w *world) { w.subjects = []rbacv1.Subject{{Kind: "User", Name: "alice"}} }, ""},
		"this replica is not ready":  {func(w *world) { w.ready = errors.New("not listening yet") }, "not listening yet"},
		"no replica is available":    {func(w *world) { w.available = 0 }, "Deployment webhook"},
		"no CA":                      {func(w *world) { w.bundle = nil }, "ValidatingWebhookConfiguration guard"},
		"garbage as the CA bundle":   {func(w *world) { w.bundle = []byte("x") }, "ValidatingWebhookConfiguration guard"},
		"another CA":                 {func(w *world) { w.bundle = foreign.PEM() }, "ValidatingWebhookConfiguration guard"},
		"another name":               {func(w *world) { w.serves = "webhook.other.svc" }, "ValidatingWebhookConfiguration guard"},
		"no binding":                 {func(w *world) { w.noBinding = true }, "ClusterRoleBinding answers"},
		"no Deployment":              {func(w *world) { w.noDeployment = true }, "Deployment webhook"},
		"no registration":            {func(w *world) { w.noConfiguration = true }, "ValidatingWebhookConfiguration guard"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			w := well
			c.change(&w)
			keeper := w.keeper(t, new(strings.Builder))
			err := keeper.check(t.Context())
			why := ""
			if err != nil {
				why = err.Error()
			}
			page.Text(name, why)
			if (why == "") != (c.why == "") || !strings.Contains(why, c.why) {
				t.Errorf("why it is not active: got %q, want it to mention %q", why, c.why)
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

// TestRun: a cause is logged once, not every second, and an active webhook is checked once a
// minute.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		changed := make(chan struct{})
		keeper := world{bundle: ca.PEM(), serves: "webhook.guard.svc", available: 1, changed: changed}.keeper(t, &log)
		var active []bool
		keeper.OnCheck = func(yes bool) { active = append(active, yes) }
		run := func(d time.Duration) {
			ctx, cancel := context.WithTimeout(t.Context(), d)
			defer cancel()
			keeper.Run(ctx)
		}
		checks, problem := 0, errors.New("not listening yet")
		keeper.Ready = func(context.Context) error { checks++; return problem }
		run(10*retryInterval + retryInterval/2)
		if got := strings.Count(log.String(), problem.Error()); checks != 11 || got != 1 {
			t.Errorf("%d checks, and the problem was logged %d times:\n%s", checks, got, log.String())
		}
		problem = nil
		const activated, deactivated = "level=INFO .* binding=", "level=WARN .* binding="
		run(retryInterval)
		if got := count(log.String(), activated); got != 1 {
			t.Errorf("activated %d times:\n%s", got, log.String())
		}
		if active[0] || !active[len(active)-1] {
			t.Errorf("first %v, last %v", active[0], active[len(active)-1])
		}
		// A user installs the chart's manifest again between two checks. It is detected after
		// a minute, or at once if the watch works.
		deactivate := func() {
			binding := &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "answers"}}
			if _, err := keeper.Bindings.Update(t.Context(), binding, metav1.UpdateOptions{}); err != nil {
				t.Error(err)
			}
		}
		time.AfterFunc(checkInterval/2, deactivate)
		time.AfterFunc(checkInterval-retryInterval, func() {
			binding, err := keeper.Bindings.Get(t.Context(), "answers", metav1.GetOptions{})
			if err != nil || len(binding.Subjects) > 0 {
				t.Errorf("before a minute has passed: %v, %v", binding, err)
			}
		})
		run(checkInterval + retryInterval)
		time.AfterFunc(retryInterval, func() { deactivate(); changed <- struct{}{} })
		run(2 * retryInterval)
		if got := count(log.String(), activated); got != 3 {
			t.Errorf("activated %d times:\n%s", got, log.String())
		}
		if got := count(log.String(), deactivated); got != 2 {
			t.Errorf("deactivation was logged %d times:\n%s", got, log.String())
		}
	})
}

// count counts the lines of a log that match an expression.
func count(log, expression string) int {
	return len(regexp.MustCompile(expression).FindAllString(log, -1))
}

// refusedUntil refuses reads until a time.
type refusedUntil struct {
	rbacclient.ClusterRoleBindingInterface
	until time.Time
	asked int // how often
}

// Get implements [rbacclient.ClusterRoleBindingInterface].
func (r *refusedUntil) Get(
	ctx context.Context,
	name string,
	options metav1.GetOptions,
) (*rbacv1.ClusterRoleBinding, error) {
	if time.Now().Before(r.until) {
		r.asked++
		return nil, apierrors.NewForbidden(
			schema.GroupResource{Group: rbacv1.GroupName, Resource: "clusterrolebindings"},
			name,
			errors.New("no permission"),
		)
	}
	return r.ClusterRoleBindingInterface.Get(ctx, name, options)
}

// TestForbidden: a missing permission is logged once. Retries slow down to one a minute.
func TestForbidden(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		k := world{available: 1, bundle: ca.PEM(), serves: "webhook.guard.svc"}.keeper(t, &log)
		refused := &refusedUntil{ClusterRoleBindingInterface: k.Bindings, until: time.Now().Add(time.Hour)}
		k.Bindings = refused
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour+time.Minute)
		defer cancel()
		k.Run(ctx)
		if refused.asked < 60 || refused.asked > 70 {
			t.Errorf("asked %d times in an hour, want 60 to 70", refused.asked)
		}
		lines := strings.Split(strings.TrimSpace(log.String()), "\n")
		if len(lines) != 2 || !strings.Contains(lines[1], "level=INFO ") {
			t.Errorf("want one line at the beginning and one at the end:\n%s", &log)
		}
	})
}
