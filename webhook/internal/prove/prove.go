// SPDX-License-Identifier: Apache-2.0

// Package prove tests whether the guard refuses. It sends each API server two changes of a
// decoy Secret: the policy must refuse one, the webhook the other. Both are dry runs, so
// nothing changes.
//
// The guard's objects in the API prove nothing: an API server can run without the admission
// plugins that use them.
package prove

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	coreclient "k8s.io/client-go/kubernetes/typed/core/v1"
	discoveryclient "k8s.io/client-go/kubernetes/typed/discovery/v1"
	"k8s.io/client-go/rest"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/admit"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/policy"
)

const (
	// Interval is the time between two proofs while the guard refuses, retryInterval while
	// it is not seen to refuse.
	Interval, retryInterval = 5 * time.Minute, 20 * time.Second
	// callTime bounds one change, maxServers the number of API servers.
	callTime   = 10 * time.Second
	maxServers = 16
	// staleAfter is the age at which the result of a proof becomes unknown.
	staleAfter = 3 * Interval
	// maxAnswer bounds how much of an API server's answer is quoted, in bytes.
	maxAnswer = 300
)

// The changes. The decoy's values are empty, so the policy finds the same problem before and
// after, and refuses only the first change: it cannot parse certificates.
var (
	forPolicy  = []byte(`{"immutable":true}`)
	forWebhook = []byte(`{"data":{"tls.crt":"` + base64.StdEncoding.EncodeToString([]byte("not a certificate")) + `"}}`)
	// asInstalled changes nothing, so nothing refuses it, if the decoy is as the chart
	// installs it.
	asInstalled = []byte(`{"immutable":null,"data":{"tls.crt":"","tls.key":""}}`)
	// forStatic is refused by static policies only.
	forStatic = []byte(`{"metadata":{"annotations":{"` + policy.ProofAnnotation + `":""}}}`)
)

// Guard names what must refuse.
type Guard struct {
	// Namespace and Name of the decoy. Without a decoy they are empty, and there is no proof.
	Namespace, Name string
	// Policy is the name of the decoy's policy and of its binding, Webhook that of the
	// webhook in its configuration. A part that is disabled on purpose is empty.
	Policy, Webhook string
	// Static is the name of the static policy that must refuse, too, and StaticWords are in its refusal if its directory
	// has the policies of this guard and configuration. Without static policies both are empty.
	Static, StaticWords string
}

// Server is an API server.
type Server struct {
	// Address has its host and port, for messages.
	Address string
	Secrets coreclient.SecretsGetter
}

// Prover proves that the guard refuses.
type Prover struct {
	// Guard returns the guard of now. It may change.
	Guard func() Guard
	// Servers lists the API servers.
	Servers func(context.Context) ([]Server, error)
	Now     func() time.Time

	mu      sync.Mutex
	proved  Guard // the guard of the effects
	effects []check.Effect
	at      time.Time // when the effects were seen
}

// Effects returns what each API server did in the last proof. It is unknown before the first
// proof, after a change of the guard, and if the last proof is too old.
func (p *Prover) Effects() []check.Effect {
	p.mu.Lock()
	defer p.mu.Unlock()
	server := finding.Subject{Kind: finding.KindAPIServer}
	switch guard := p.Guard(); {
	case guard.Name == "":
		return []check.Effect{unknown(guard.Static != "", server, finding.Result{
			Subject: server, Reason: finding.NotObserved, Message: "the configuration has no decoy, so no dry runs are sent",
			Remedy: "set decoy to the chart's decoy Secret",
		})}
	case p.effects == nil || guard != p.proved || p.Now().Sub(p.at) > staleAfter:
		return []check.Effect{unknown(guard.Static != "", server, finding.Result{
			Subject: server, Reason: finding.NotObserved, Message: "there was no dry run on any API server recently",
			Remedy: "wait; if this lasts, read the audit's log",
		})}
	}
	return p.effects
}

// Run proves the guard until the context ends. It begins with unknown effects: those of an
// earlier run may be old.
func (p *Prover) Run(ctx context.Context) {
	p.store(Guard{}, nil)
	var failures memory
	for {
		guard := p.Guard()
		p.mu.Lock()
		due := guard != p.proved || !Proven(p.effects) || p.Now().Sub(p.at) >= Interval
		p.mu.Unlock()
		if due && guard.Name != "" {
			if guard != p.proved { // only this goroutine sets it
				failures = memory{}
			}
			effects := p.prove(ctx, guard)
			if ctx.Err() != nil {
				return
			}
			p.store(guard, failures.add(effects, p.Now()))
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(retryInterval):
		}
	}
}

func (p *Prover) store(guard Guard, effects []check.Effect) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.proved, p.effects, p.at = guard, effects, p.Now()
}

// Proven reports whether each part of the guard was seen to refuse on each API server. Parts
// that are disabled on purpose do not count.
func Proven(effects []check.Effect) bool {
	return len(effects) > 0 && !slices.ContainsFunc(effects, func(e check.Effect) bool {
		results, _ := e.Check(time.Time{})
		return slices.ContainsFunc(results, finding.Result.IsFinding)
	})
}

// Prove sends the changes to all API servers once, and returns what each of them did.
func (p *Prover) Prove(ctx context.Context) []check.Effect { return p.prove(ctx, p.Guard()) }

// prove sends the changes to all API servers at the same time.
func (p *Prover) prove(ctx context.Context, guard Guard) []check.Effect {
	servers, err := p.Servers(ctx)
	if err != nil {
		subject := finding.Subject{Kind: "EndpointSlice", Namespace: metav1.NamespaceDefault, Name: kubernetesSlice}
		server := finding.Subject{Kind: finding.KindAPIServer}
		return []check.Effect{unknown(guard.Static != "", server, unreadable(subject, err))}
	}
	effects := make([]check.Effect, len(servers))
	var attempts sync.WaitGroup
	for i, server := range servers {
		subject := finding.Subject{Kind: finding.KindAPIServer, Name: server.Address}
		if i >= maxServers {
			effects[i] = unknown(guard.Static != "", subject, finding.Result{
				Subject: subject, Reason: finding.Unreadable,
				Message: fmt.Sprintf("not tested: only the first %d of %d API servers get dry runs", maxServers, len(servers)),
				Remedy:  "report this as a bug of kubelet-https-guard",
			})
			continue
		}
		attempts.Go(func() {
			effects[i] = check.Effect{
				Server:  subject,
				Policy:  attempt(ctx, server, guard, part{"policy", guard.Policy, forPolicy, byPolicy}),
				Webhook: attempt(ctx, server, guard, part{"webhook", guard.Webhook, forWebhook, byWebhook}),
			}
			if guard.Static != "" {
				effects[i].Static = new(attempt(ctx, server, guard, part{staticPolicies, guard.Static, forStatic,
					func(err error, name string) bool {
						return byPolicy(err, name) && strings.Contains(err.Error(), guard.StaticWords)
					}}))
			}
		})
	}
	attempts.Wait()
	return effects
}

// part of the guard: its kind, its name, the change that it must refuse, and a function that
// recognizes its refusals.
type part struct {
	kind, name string
	patch      []byte
	refusedBy  func(err error, name string) bool
}

const staticPolicies = "static policies"

// attempt sends a change, and reports whether the part of the guard refused it.
func attempt(ctx context.Context, server Server, guard Guard, part part) check.Attempt {
	if part.name == "" {
		return check.Attempt{WhyNotApplicable: "the " + part.kind + " is disabled"}
	}
	decoy := finding.Subject{Kind: "Secret", Namespace: guard.Namespace, Name: guard.Name}
	err := send(ctx, server, guard, part.patch)
	switch {
	case err == nil && send(ctx, server, guard, asInstalled) != nil:
		return check.Attempt{WhyUnknown: &finding.Result{
			Subject: decoy, Reason: finding.Unreadable,
			Message: "the decoy Secret has changed since the install, so a dry run on it proves nothing",
			Remedy:  "delete it and install the chart's release again (helm upgrade)",
		}}
	case err == nil:
		return check.Attempt{Answer: "the change would have been stored"}
	case part.refusedBy(err, part.name):
		return check.Attempt{Refused: true}
	case part.kind == staticPolicies && byPolicy(err, part.name):
		return check.Attempt{Answer: "the file in the directory is of another configuration or version of the guard"}
	case guard.Webhook != "" && byWebhook(err, guard.Webhook):
		// API servers call webhooks after the policies, and only if these allow the request
		// (kubernetes pkg/kubeapiserver/options/plugins.go, AllOrderedPlugins).
		return check.Attempt{Answer: "the webhook refused it, and API servers call the webhook only after the policies"}
	case apierrors.IsNotFound(err):
		return check.Attempt{WhyUnknown: &finding.Result{
			Subject: decoy, Reason: finding.Unreadable,
			Message: "the decoy Secret does not exist, so no dry run is possible",
			Remedy:  "install the chart's release again (helm upgrade)",
		}}
	case apierrors.IsForbidden(err) && refusedByAdmission(err):
		return check.Attempt{WhyUnknown: &finding.Result{
			Subject: decoy, Reason: finding.Unreadable,
			Message: "the dry run was refused, but not by the guard's " + part.kind + ": " + quoted(err),
			Remedy:  "exempt the decoy Secret from the policy or webhook that refused it",
		}}
	}
	return check.Attempt{
		WhyUnknown: new(unreadable(finding.Subject{Kind: finding.KindAPIServer, Name: server.Address}, err)),
	}
}

// send sends a change as a dry run.
func send(ctx context.Context, server Server, guard Guard, patch []byte) error {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	_, err := server.Secrets.Secrets(guard.Namespace).Patch(ctx, guard.Name, types.MergePatchType, patch,
		metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}})
	return err
}

// byPolicy reports whether the policy refused. The refusal names the policy and its binding
// (k8s.io/apiserver pkg/admission/plugin/policy/validating/dispatcher.go), and has the
// policies' marker.
func byPolicy(err error, name string) bool {
	return apierrors.IsForbidden(err) && strings.Contains(err.Error(), policy.Marker) &&
		strings.Contains(err.Error(),
			fmt.Sprintf("ValidatingAdmissionPolicy '%s' with binding '%s' denied request", name, name))
}

// byWebhook reports whether the webhook refused: the refusal names the webhook and has its
// marker, or the webhook could not be called and fails closed (k8s.io/apiserver
// pkg/admission/plugin/webhook/errors/statuserror.go, ToStatusErr, and
// pkg/admission/plugin/webhook/validating/dispatcher.go).
func byWebhook(err error, name string) bool {
	quoted := strconv.Quote(name)
	switch {
	case apierrors.IsForbidden(err):
		return strings.Contains(err.Error(), admit.Marker) &&
			strings.Contains(err.Error(), "admission webhook "+quoted+" denied the request")
	case apierrors.IsInternalError(err):
		return strings.Contains(err.Error(), "failed calling webhook "+quoted)
	}
	return false
}

// refusedByAdmission distinguishes a refusal from a missing permission.
func refusedByAdmission(err error) bool {
	return strings.Contains(err.Error(), "denied request") || strings.Contains(err.Error(), "denied the request")
}

func unknown(static bool, server finding.Subject, because finding.Result) check.Effect {
	why := check.Attempt{WhyUnknown: &because}
	effect := check.Effect{Server: server, Policy: why, Webhook: why}
	if static {
		effect.Static = &why
	}
	return effect
}

// unreadable says why a dry run was not possible, in a text that is the same in each attempt.
func unreadable(subject finding.Subject, err error) finding.Result {
	why := "the API server did not answer"
	if reason := apierrors.ReasonForError(err); reason != "" {
		why = "the API server answered " + string(reason)
	}
	return finding.Result{
		Subject: subject, Reason: finding.Unreadable,
		Message: "cannot test whether the guard refuses: " + why,
		Remedy:  "check that this API server is available, and that the audit's ServiceAccount has the chart's permissions",
	}
}

func quoted(err error) string {
	text := strings.Join(strings.Fields(err.Error()), " ")
	if len(text) > maxAnswer {
		text = strings.ToValidUTF8(text[:maxAnswer], "") + "…"
	}
	return strconv.Quote(text)
}

// The EndpointSlice of Service default/kubernetes, which lists all API servers (Kubernetes
// pkg/controlplane/reconcilers), and a name in each of their serving certificates.
const (
	kubernetesSlice = "kubernetes"
	serverName      = "kubernetes.default.svc"
)

// errNoServers: the EndpointSlice is empty.
var errNoServers = errors.New("the EndpointSlice has no API server")

// EachServer lists the API servers behind Service default/kubernetes. Each gets its own
// client, with its own address and the credentials of the configuration.
func EachServer(config *rest.Config) func(context.Context) ([]Server, error) {
	return func(ctx context.Context) ([]Server, error) {
		ctx, cancel := context.WithTimeout(ctx, callTime)
		defer cancel()
		client, err := discoveryclient.NewForConfig(config)
		if err != nil {
			return nil, fmt.Errorf("create a client for the API server: %w", err)
		}
		slice, err := client.EndpointSlices(metav1.NamespaceDefault).Get(ctx, kubernetesSlice, metav1.GetOptions{})
		if err != nil {
			return nil, err
		}
		var servers []Server
		for _, port := range slice.Ports {
			for _, endpoint := range slice.Endpoints {
				if port.Port == nil || len(endpoint.Addresses) == 0 {
					continue
				}
				server, err := serverAt(config, net.JoinHostPort(endpoint.Addresses[0], strconv.Itoa(int(*port.Port))))
				if err != nil {
					return nil, err
				}
				servers = append(servers, server)
			}
		}
		if servers == nil {
			return nil, errNoServers
		}
		return servers, nil
	}
}

// serverAt returns one API server.
func serverAt(config *rest.Config, address string) (Server, error) {
	own := rest.CopyConfig(config)
	own.Host, own.APIPath = "https://"+address, ""
	if own.ServerName == "" {
		own.ServerName = serverName
	}
	// API servers warn about the decoy's certificate, which is invalid, each time.
	own.WarningHandler, own.WarningHandlerWithContext = rest.NoWarnings{}, nil
	own.Wrap(func(transport http.RoundTripper) http.RoundTripper { return connectionPerRequest{transport} })
	core, err := coreclient.NewForConfig(own)
	if err != nil {
		return Server{}, fmt.Errorf("create a client for the API server at %s: %w", address, err)
	}
	return Server{Address: address, Secrets: core}, nil
}

// connectionPerRequest makes a connection for each request. There can be several API servers
// behind one address, and a connection that is kept open reaches only one of them.
type connectionPerRequest struct{ transport http.RoundTripper }

// RoundTrip implements [http.RoundTripper].
func (c connectionPerRequest) RoundTrip(request *http.Request) (*http.Response, error) {
	request = request.Clone(request.Context())
	request.Close = true
	return c.transport.RoundTrip(request)
}
