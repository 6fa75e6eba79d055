// SPDX-License-Identifier: Apache-2.0

package model

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	registrationv1 "k8s.io/api/admissionregistration/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/configuration"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/admission/plugin/webhook"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/generic"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	webhookutil "k8s.io/apiserver/pkg/util/webhook"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/kubernetes/scheme"
	crwebhook "sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/report"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/admit"
)

// APIServer is the admission of an API server, in process: its own plugins with the policies and the registration of
// the guard, and the webhook's handler, which it calls without a connection. It stores nothing.
type APIServer struct {
	// policies evaluates the policies in the API, static the static ones.
	policies, static *validating.Plugin
	hooks            *generic.Webhook
	handler          *admit.Handler
	// inactive: the webhook has no permission to answer.
	inactive atomic.Bool
	scheme   admission.ObjectInterfaces
}

// Guard is what is installed of the guard.
type Guard struct {
	Policies []runtime.Object // with their bindings
	Static   []runtime.Object
	Webhooks *registrationv1.ValidatingWebhookConfiguration
	Secrets  []admit.ProtectedSecret
}

// NewAPIServer returns an API server with a guard, until the context ends.
func NewAPIServer(ctx context.Context, guard Guard, namespaces ...string) (*APIServer, error) {
	s := &APIServer{scheme: admission.NewObjectInterfacesFromScheme(scheme.Scheme)}
	index := admit.NewIndex(guard.Secrets)
	s.handler = &admit.Handler{
		Protected: index.Find, OverridesAction: func() admit.Action { return admit.Deny },
		Reporter: nobody{}, Meter: nobody{}, Log: slog.New(slog.DiscardHandler),
	}
	var err error
	if s.policies, err = s.newPolicies(ctx, guard.Policies, namespaces); err != nil {
		return nil, err
	}
	if s.static, err = s.newPolicies(ctx, guard.Static, namespaces); err != nil {
		return nil, err
	}
	s.hooks, err = generic.NewWebhook(
		admission.NewHandler(admission.Create, admission.Update, admission.Delete), nil,
		func(f informers.SharedInformerFactory, excluded sets.Set[schema.GroupResource]) generic.Source {
			return configuration.NewValidatingWebhookConfigurationManager(f, excluded)
		},
		func(*webhookutil.ClientManager) generic.Dispatcher { return s },
	)
	if err != nil {
		return nil, err
	}
	client := newClient(namespaces, guard.Webhooks)
	factory := informers.NewSharedInformerFactory(client, 0)
	s.hooks.SetExternalKubeClientSet(client)
	s.hooks.SetExternalKubeInformerFactory(factory)
	s.hooks.SetUnconditionalAuthorizer(s)
	if err := s.hooks.ValidateInitialization(); err != nil {
		return nil, err
	}
	factory.Start(ctx.Done())
	return s, nil
}

// setDefaults sets the fields of an object of a guard that API servers set and its plugins need (Kubernetes
// pkg/apis/admissionregistration/v1/defaults.go).
func setDefaults(object runtime.Object) {
	everything := &metav1.LabelSelector{}
	switch o := object.(type) {
	case *registrationv1.ValidatingAdmissionPolicy:
		constraints := o.Spec.MatchConstraints
		constraints.NamespaceSelector = cmp.Or(constraints.NamespaceSelector, everything)
		constraints.ObjectSelector = cmp.Or(constraints.ObjectSelector, everything)
	case *registrationv1.ValidatingWebhookConfiguration:
		for i := range o.Webhooks {
			o.Webhooks[i].ObjectSelector = cmp.Or(o.Webhooks[i].ObjectSelector, everything)
			o.Webhooks[i].NamespaceSelector = cmp.Or(o.Webhooks[i].NamespaceSelector, everything)
		}
	}
}

// newClient returns a client of an API that has namespaces and other objects.
func newClient(namespaces []string, objects ...runtime.Object) *fake.Clientset {
	for _, object := range objects {
		setDefaults(object)
	}
	for _, name := range namespaces {
		objects = append(objects, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
			Name: name, Labels: map[string]string{corev1.LabelMetadataName: name},
		}})
	}
	return fake.NewClientset(objects...)
}

// newPolicies returns the plugin that evaluates policies.
func (s *APIServer) newPolicies(
	ctx context.Context, policies []runtime.Object, namespaces []string,
) (*validating.Plugin, error) {
	plugin, err := validating.NewPlugin(nil)
	if err != nil {
		return nil, err
	}
	client := newClient(namespaces, policies...)
	factory := informers.NewSharedInformerFactory(client, 0)
	plugin.SetExternalKubeInformerFactory(factory)
	plugin.SetExternalKubeClientSet(client)
	plugin.SetRESTMapper(meta.NewDefaultRESTMapper(nil))
	plugin.SetDynamicClient(dynamicfake.NewSimpleDynamicClient(scheme.Scheme))
	plugin.SetDrainedNotification(ctx.Done())
	plugin.SetUnconditionalAuthorizer(s)
	if err := plugin.ValidateInitialization(); err != nil {
		return nil, err
	}
	factory.Start(ctx.Done())
	return plugin, nil
}

// question is a request with its objects.
type question struct {
	request  Request
	old, new *corev1.Secret
	// rawOld and rawNew are their JSON.
	rawOld, rawNew []byte
}

var (
	secretKind     = corev1.SchemeGroupVersion.WithKind("Secret")
	secretResource = corev1.SchemeGroupVersion.WithResource("secrets")
)

// groups returns the groups of a user.
func groups(name string) []string {
	if namespace, ok := strings.CutPrefix(name, "system:serviceaccount:"); ok {
		namespace, _, _ = strings.Cut(namespace, ":")
		return []string{"system:serviceaccounts", "system:serviceaccounts:" + namespace, user.AllAuthenticated}
	}
	return []string{user.SystemPrivilegedGroup, user.AllAuthenticated}
}

func (q question) attributes() admission.Attributes {
	var object, old runtime.Object
	var options runtime.Object
	secret := q.new
	switch q.request.Operation() {
	case admission.Create:
		object, options = q.new, &metav1.CreateOptions{}
	case admission.Update:
		object, old, options = q.new, q.old, &metav1.UpdateOptions{}
	default:
		secret, old, options = q.old, q.old, &metav1.DeleteOptions{}
	}
	name := secret.Name
	if q.request.Collection {
		name = ""
	}
	return admission.NewAttributesRecord(object, old, secretKind, secret.Namespace, name, secretResource, "",
		q.request.Operation(), options, false, &user.DefaultInfo{Name: q.request.User, Groups: groups(q.request.User)})
}

// Marker of each part in its refusals.
const policyMarker, webhookMarker = "[kubelet-https-guard/policy]", "[kubelet-https-guard/webhook]"

// refusedBy reports whether an answer of admission is a refusal with a marker. Another error is a fault: an expression
// that fails, for example.
func refusedBy(err error, marker string) (bool, error) {
	switch {
	case err == nil:
		return false, nil
	case strings.Contains(err.Error(), marker):
		return true, nil
	}
	return false, fmt.Errorf("refused for another reason than the rule: %w", err)
}

// policiesRefuse reports whether the policies in the API refuse, or the static ones.
func (s *APIServer) policiesRefuse(ctx context.Context, q question, static bool) (bool, error) {
	plugin := s.policies
	if static {
		plugin = s.static
	}
	return refusedBy(plugin.Validate(ctx, q.attributes(), s.scheme), policyMarker)
}

// errCalled is the answer to a request for which the API server calls the webhook.
var errCalled = errors.New("the webhook is called")

// webhookAnswers reports whether the API server calls the webhook, and if so, whether that refuses at each time.
func (s *APIServer) webhookAnswers(
	ctx context.Context, q question, times []time.Time,
) (isCalled bool, refuses []bool, err error) {
	err = s.hooks.Dispatch(ctx, q.attributes(), s.scheme)
	if !errors.Is(err, errCalled) {
		return false, make([]bool, len(times)), err
	}
	for _, at := range times {
		refused, err := s.call(ctx, q, at)
		if err != nil {
			return true, nil, err
		}
		refuses = append(refuses, refused)
	}
	return true, refuses, nil
}

// Dispatch implements [generic.Dispatcher].
func (s *APIServer) Dispatch(
	ctx context.Context, a admission.Attributes, o admission.ObjectInterfaces, hooks []webhook.WebhookAccessor,
) error {
	for _, hook := range hooks {
		invocation, err := s.hooks.ShouldCallHook(ctx, hook, a, o, versions{a, o})
		if err != nil {
			return err
		}
		if invocation != nil {
			return errCalled
		}
	}
	return nil
}

// call reports whether the webhook's handler refuses a request.
func (s *APIServer) call(ctx context.Context, q question, at time.Time) (bool, error) {
	handler, a := *s.handler, q.attributes()
	handler.Now = func() time.Time { return at }
	response := handler.Handle(ctx, crwebhook.Request{AdmissionRequest: admissionv1.AdmissionRequest{
		Kind:      metav1.GroupVersionKind{Version: "v1", Kind: "Secret"},
		Resource:  metav1.GroupVersionResource{Version: "v1", Resource: "secrets"},
		Operation: admissionv1.Operation(a.GetOperation()), Namespace: a.GetNamespace(), Name: a.GetName(),
		UserInfo: authenticationv1.UserInfo{Username: a.GetUserInfo().GetName(), Groups: a.GetUserInfo().GetGroups()},
		Object:   runtime.RawExtension{Raw: q.rawNew}, OldObject: runtime.RawExtension{Raw: q.rawOld},
	}})
	if response.Allowed {
		return false, nil
	}
	return refusedBy(errors.New(response.Result.Message), webhookMarker)
}

// versions implements [generic.VersionedAttributeAccessor].
type versions struct {
	attributes admission.Attributes
	scheme     admission.ObjectInterfaces
}

func (v versions) VersionedAttribute(kind schema.GroupVersionKind) (*admission.VersionedAttributes, error) {
	return admission.NewVersionedAttributes(v.attributes, kind, v.scheme)
}

// Authorize implements [authorizer.UnconditionalAuthorizer]. The only question is whether the webhook is active.
func (s *APIServer) Authorize(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	if a.GetVerb() != "answer" || a.GetAPIGroup() != "kubelet-https-guard.io" || a.GetResource() != "admissions" {
		return authorizer.DecisionNoOpinion, "", fmt.Errorf("unexpected question: %s %s", a.GetVerb(), a.GetResource())
	}
	if s.inactive.Load() {
		return authorizer.DecisionNoOpinion, "", nil
	}
	return authorizer.DecisionAllow, "", nil
}

// nobody reads reports and counts.
type nobody struct{}

// Report implements [report.Reporter].
func (nobody) Report(context.Context, report.Notice) {}

// CountRequest implements [admit.Meter].
func (nobody) CountRequest(string, string, string, time.Duration) {}

// objects makes the objects of states, once for each.
type objects struct {
	kind *Kind
	made map[State]madeObject
}

type madeObject struct {
	secret *corev1.Secret
	raw    []byte
}

// newObjects makes the objects of all states and of those that only a request has.
func newObjects(kind *Kind, states []State) (objects, error) {
	all := objects{kind, map[State]madeObject{}}
	for _, state := range states {
		for _, lifecycle := range []uint8{state.Lifecycle, released} {
			if lifecycle == released && state.Lifecycle != deleting {
				continue
			}
			state.Lifecycle = lifecycle
			secret := kind.object(state)
			if secret == nil {
				continue
			}
			raw, err := json.Marshal(secret)
			if err != nil {
				return all, err
			}
			all.made[state] = madeObject{secret, raw}
		}
	}
	return all, nil
}

// question returns a request with its objects.
func (o objects) question(r Request) question {
	old, after := o.made[r.Old], o.made[r.New]
	q := question{request: r, old: old.secret, new: after.secret, rawOld: old.raw, rawNew: after.raw}
	if r.Old == r.New {
		// A write that changes nothing that is checked, as that of a migrator.
		q.new = q.new.DeepCopy()
		q.new.Labels = map[string]string{"changed": "true"}
	}
	return q
}
