// SPDX-License-Identifier: Apache-2.0

package model

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	registrationv1 "k8s.io/api/admissionregistration/v1"
	kuberuntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/klog/v2"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/admit"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/facts"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/policy"
)

// whole explores all pairs of states, not only those that differ in one dimension, with all values.
var whole = flag.Bool("whole", false, "explore everything, which takes minutes")

func TestMain(m *testing.M) {
	klog.LogToStderr(false) // the API server's plugins say which requests they refuse
	klog.SetOutput(io.Discard)
	m.Run() // the go command's main ends the process with its result
}

// The users of requests, besides the renewer of each Secret.
const (
	person = "system:admin"
	// Migrators write each object again without a change.
	storageMigrator = "system:serviceaccount:openshift-kube-storage-version-migrator:kube-storage-version-migrator-sa"
	inTreeMigrator  = "system:serviceaccount:kube-system:storage-version-migrator-controller"
)

// decision has the answers of all parts of the guard to one request. None depends on the state of the others, so they
// are asked once, not once for each state of the guard.
type decision struct {
	policy, static, called bool
	webhook                []bool // by the clock
}

// explored is what was found about one kind.
type explored struct {
	*Kind
	server    *APIServer
	protected admit.ProtectedSecret
	states    []State
	objects   objects
	decisions map[Request]decision
}

// few leaves only a few values of each dimension.
func (k *Kind) few() *Kind {
	few := *k
	few.contents = slices.DeleteFunc(slices.Clone(k.contents), func(c content) bool {
		return !slices.Contains([]string{"good", "renewed", "with the key of another", "without certificate"}, c.name)
	})
	few.attachments = slices.DeleteFunc(slices.Clone(k.attachments), func(a attachment) bool {
		return !slices.Contains([]string{
			"attached", "attached to another Service", "without owner", "with another owner", "postponed",
		}, a.name)
	})
	few.allowances = k.allowances[:2]
	return &few
}

// protect returns the configuration of a Secret, as the default one.
func (k *Kind) protect(action admit.Action) admit.ProtectedSecret {
	want := check.SecretExpectation{
		Namespace: k.Namespace, Name: k.Name, ManagedBy: check.ManagedByCertRotation, Usage: pkitest.KubeletClient().Usages[0],
		Roots: []*x509.Certificate{k.CA.Certificate},
	}
	if k.ServiceCA {
		want.ManagedBy, want.Service, want.Usage = check.ManagedByServiceCA, serviceName, pkitest.ServingCert().Usages[0]
		want.DNSNames = pkitest.ServingCert().DNSNames[:1]
	}
	return admit.ProtectedSecret{SecretExpectation: want, Action: action}
}

// explore asks all parts of the guard about all requests.
func explore(t *testing.T, kind *Kind, action admit.Action) *explored {
	t.Helper()
	e := install(t, kind, action)
	e.decide(t, e.allRequests())
	return e
}

// install returns a guard that was not asked yet.
func install(t *testing.T, kind *Kind, action admit.Action) *explored {
	t.Helper()
	e := &explored{Kind: kind, protected: kind.protect(action), states: kind.states()}
	guard := Guard{Webhooks: registration(t), Secrets: []admit.ProtectedSecret{e.protected}}
	apiPolicy, binding, err := policy.New("guard", nil, e.protected)
	if err != nil {
		t.Fatal(err)
	}
	guard.Policies = []kuberuntime.Object{apiPolicy, binding}
	static, err := policy.Static(policy.Guard{Prefix: "guard", Namespace: "guard"}, nil, guard.Secrets)
	if err != nil {
		t.Fatal(err)
	}
	for _, object := range static {
		guard.Static = append(guard.Static, object.(kuberuntime.Object)) //nolint:forcetypeassert // policies and bindings
	}
	if e.server, err = NewAPIServer(t.Context(), guard, kind.Namespace); err != nil {
		t.Fatal(err)
	}
	if e.objects, err = newObjects(kind, e.states); err != nil {
		t.Fatal(err)
	}
	return e
}

// registration returns the chart's registration of the webhook.
func registration(t *testing.T) *registrationv1.ValidatingWebhookConfiguration {
	t.Helper()
	output, err := exec.CommandContext(t.Context(), cmp.Or(os.Getenv("HELM"), "../../.tools/helm"), "template", "guard",
		"../../charts/kubelet-https-guard", "--namespace", "guard",
		"--show-only", "templates/webhook/validatingwebhookconfiguration.yaml").CombinedOutput()
	if err != nil {
		t.Fatalf("helm template: %v\n%s", err, output)
	}
	object, _, err := scheme.Codecs.UniversalDeserializer().Decode(output, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return object.(*registrationv1.ValidatingWebhookConfiguration) //nolint:forcetypeassert // a test that fails
}

// allRequests returns the requests that are asked, each once.
func (e *explored) allRequests() []Request {
	known := map[Request]bool{}
	var all []Request
	ask := func(r Request) {
		if !known[r] {
			known[r] = true
			all = append(all, r)
		}
	}
	for _, old := range e.states {
		after := append(e.neighbours(old), old)
		if !old.Exists {
			after = slices.DeleteFunc(slices.Clone(e.states[1:]), State.isDeleting)
		}
		if *whole && old.Exists && old.isCore() {
			for _, s := range e.states[1:] {
				if s.isCore() {
					ask(Request{User: person, Old: old, New: s})
				}
			}
		}
		for _, s := range after {
			for _, user := range []string{person, e.Renewer, collector} {
				ask(Request{User: user, Old: old, New: s})
			}
			if s == old {
				ask(Request{User: namespaceController, Old: old, New: s})
				ask(Request{User: storageMigrator, Old: old, New: s})
				ask(Request{User: inTreeMigrator, Old: old, New: s})
			}
		}
		if old.Exists {
			for _, user := range []string{person, e.Renewer, collector, namespaceController} {
				ask(Request{User: user, Old: old})
				ask(Request{User: user, Old: old, Collection: true})
			}
		}
	}
	return all
}

// isCore reports whether a Secret has nothing that only deletes depend on.
func (s State) isCore() bool { return s.Allowance == 0 && s.Lifecycle == notHeld }

// decide asks about requests, on all processors.
func (e *explored) decide(t *testing.T, all []Request) {
	t.Helper()
	e.decisions = make(map[Request]decision, len(all))
	answers := make([]decision, len(all))
	var next atomic.Int64
	var failed sync.Once
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for i := next.Add(1) - 1; int(i) < len(all); i = next.Add(1) - 1 {
				answer, err := e.ask(t.Context(), all[i])
				if err != nil {
					failed.Do(func() { t.Errorf("%s: %v", e.describeRequest(all[i]), err) })
					return
				}
				answers[i] = answer
			}
		})
	}
	workers.Wait()
	if t.Failed() {
		t.FailNow()
	}
	for i, r := range all {
		e.decisions[r] = answers[i]
	}
}

// ask asks all parts of the guard about a request.
func (e *explored) ask(ctx context.Context, r Request) (d decision, err error) {
	if d.policy, err = e.server.policiesRefuse(ctx, e.objects.question(r), false); err != nil {
		return d, fmt.Errorf("policy: %w", err)
	}
	if d.static, err = e.server.policiesRefuse(ctx, e.objects.question(r), true); err != nil {
		return d, fmt.Errorf("static policy: %w", err)
	}
	if d.called, d.webhook, err = e.server.webhookAnswers(ctx, e.objects.question(r), e.clocks()); err != nil {
		return d, fmt.Errorf("webhook: %w", err)
	}
	return d, nil
}

func (e *explored) describeRequest(r Request) string {
	text := fmt.Sprintf("%s by %s: %s", r.Operation(), r.User, e.describe(r.Old))
	if r.New.Exists {
		text += " → " + e.describe(r.New)
	}
	return text
}

// maxShown bounds the counterexamples of one invariant that are shown.
const maxShown = 5

// failures shows a few counterexamples, and counts the others.
type failures struct {
	t     *testing.T
	count int
}

func (f *failures) add(format string, arguments ...any) {
	f.t.Helper()
	if f.count++; f.count <= maxShown {
		f.t.Errorf(format, arguments...)
	}
}

func (f *failures) end() {
	if f.count > maxShown {
		f.t.Errorf("and %d more", f.count-maxShown)
	}
}

// TestGuard explores all requests, and checks the invariants of docs/design/model.md.
func TestGuard(t *testing.T) {
	for _, kind := range NewWorld().Kinds() {
		t.Run(kind.Name, func(t *testing.T) {
			if !*whole {
				kind = kind.few()
			}
			e := explore(t, kind, admit.Deny)
			t.Run("each part follows its rule", e.testRule)
			t.Run("invariants of transitions", e.testTransitions)
			t.Run("policy and webhook agree", e.testAgreement)
			t.Run("good is reachable again", e.testRecovery)
			t.Run("people reach no bad state", e.testReachable)
			t.Run("the audit sees each bad state", e.testAudit)
			t.Run("the webhook is not called before it is active", e.testInactive)
		})
	}
}

// testRule compares the code with the rule of this package.
func (e *explored) testRule(t *testing.T) {
	wrong := failures{t: t}
	defer wrong.end()
	for r, got := range e.decisions {
		want := decision{policy: e.policyRefuses(r), static: e.policyRefuses(r), called: e.webhookIsCalled(r)}
		for _, now := range e.clocks() {
			want.webhook = append(want.webhook, want.called && e.webhookRefuses(r, now))
		}
		if diff := gocmp.Diff(want, got, gocmp.AllowUnexported(decision{})); diff != "" {
			wrong.add("%s (-rule +code):\n%s", e.describeRequest(r), diff)
		}
	}
	t.Logf("%d states, %d requests, %d decisions", len(e.states), len(e.decisions), len(e.decisions)*(2+len(e.clocks())))
}

// webhookState is what the webhook can do.
type webhookState uint8

const (
	up webhookState = iota
	// down: no answer, or none in time. The failure policy refuses.
	down
	// inactive: not yet activated.
	inactive
)

// guardState is the state of the guard itself.
type guardState struct {
	webhook        webhookState
	policy, static bool
}

func guardStates() []guardState {
	var all []guardState
	for _, w := range []webhookState{up, down, inactive} {
		for _, p := range []bool{true, false} {
			for _, s := range []bool{true, false} {
				all = append(all, guardState{w, p, s})
			}
		}
	}
	return all
}

// allows reports whether an API server allows a request.
func (g guardState) allows(d decision, clock int) bool {
	switch {
	case g.policy && d.policy, g.static && d.static:
		return false
	case g.webhook == inactive, !d.called:
		return true
	}
	return g.webhook == up && !d.webhook[clock]
}

// mayIntroduce names the reason for which an allowed request may introduce problems; empty if it has no reason.
func (e *explored) mayIntroduce(r Request, introduced []Problem, g guardState, now time.Time) string {
	floor := g.policy || g.static
	onlyWebhookSees := len(inPolicy(introduced)) == 0
	switch {
	case r.User == collector && (!r.New.Exists || e.onlyDetaches(r)), r.User == namespaceController && !r.New.Exists:
		return "a controller that must not be blocked"
	case !r.New.Exists && e.mayDelete(r.Old, now):
		return "break-glass"
	case r.User == e.Renewer && r.New.Exists && (onlyWebhookSees || !floor):
		return "a renewing writer"
	case g.webhook == inactive && (onlyWebhookSees || !floor):
		return "an inactive webhook"
	case g.webhook == inactive && !r.New.Exists && e.allowances[r.Old.Allowance].text != "":
		return "an inactive webhook: policies have no clock"
	}
	return ""
}

// testTransitions: problems are introduced only for a known reason, and what introduces none is allowed.
func (e *explored) testTransitions(t *testing.T) {
	wrong := failures{t: t}
	defer wrong.end()
	count, reasons := 0, map[string]int{}
	for r, d := range e.decisions {
		if !e.valid(r) {
			continue
		}
		for clock, now := range e.clocks() {
			introduced := e.introduced(r, now)
			for _, g := range guardStates() {
				count++
				allowed := g.allows(d, clock)
				reason := e.mayIntroduce(r, introduced, g, now)
				isLegitimate := len(introduced) == 0 || reason != "" && reason != "an inactive webhook" || r.Old == r.New
				switch {
				case allowed && len(introduced) > 0 && reason == "":
					wrong.add("%s, at %s, guard %+v: allowed, introduces %v", e.describeRequest(r), now, g, introduced)
				case allowed && len(introduced) > 0:
					reasons[reason]++
				case !allowed && isLegitimate && (g.webhook != down || !d.called):
					wrong.add("%s, at %s, guard %+v: refused, introduces %v, %s", e.describeRequest(r), now, g, introduced, reason)
				case r.Old == r.New && d.called:
					wrong.add("%s: the webhook is called for a request that changes nothing", e.describeRequest(r))
				}
			}
		}
	}
	t.Logf("%d transitions; problems were introduced by: %v", count, reasons)
}

// testAgreement: what the policy refuses, the webhook refuses, too; and what the webhook refuses for a reason that CEL
// can see, the policy refuses.
func (e *explored) testAgreement(t *testing.T) {
	wrong := failures{t: t}
	defer wrong.end()
	for r, d := range e.decisions {
		if d.policy != d.static {
			wrong.add("%s: the policy refuses: %t, the static policy: %t", e.describeRequest(r), d.policy, d.static)
		}
		if !d.called {
			continue
		}
		for clock, now := range e.clocks() {
			switch {
			case d.policy && !d.webhook[clock]:
				wrong.add("%s, at %s: the policy refuses, the webhook does not", e.describeRequest(r), now)
			case d.webhook[clock] && !d.policy && r.New.Exists && len(inPolicy(e.introduced(r, now))) > 0:
				wrong.add("%s, at %s: the webhook refuses what the policy could see", e.describeRequest(r), now)
			}
		}
	}
}

// testRecovery: from each state a good one is reached again by the renewing writer alone, except if the API server
// forbids its update, or the Secret is attached to a Service that does not exist. Then one break-glass is enough, or
// for the latter the garbage collector.
func (e *explored) testRecovery(t *testing.T) {
	wrong := failures{t: t}
	defer wrong.end()
	ctx := t.Context()
	everything := guardState{up, true, true}
	allowed := func(r Request, clock int) bool {
		d, err := e.ask(ctx, r)
		if err != nil {
			t.Fatal(err)
		}
		return e.valid(r) && everything.allows(d, clock)
	}
	ways := map[string]int{}
	for clock, now := range e.clocks() {
		good := State{Exists: true, Content: uint8(slices.IndexFunc(e.contents, func(c content) bool {
			return c.problem == nil && now.After(c.notBefore) && now.Before(c.notAfter)
		}))}
		create := allowed(Request{User: e.Renewer, New: good}, clock)
		if !create {
			wrong.add("at %s: the renewing writer cannot create a Secret", now)
		}
		for _, s := range e.states[1:] {
			repaired := good
			repaired.Lifecycle, repaired.Allowance = s.Lifecycle, s.Allowance
			byRenewer := s.Lifecycle != deleting && allowed(Request{User: e.Renewer, Old: s, New: repaired}, clock)
			elsewhere := e.attachedTo(s) == otherService
			needsHelp := s.Type != typeTLS || s.Immutable == immutable || elsewhere || s.Lifecycle == deleting
			gone := s
			gone.Lifecycle = released
			switch {
			case byRenewer:
				ways["renewing writer"]++
			case !needsHelp:
				wrong.add("%s, at %s: the renewing writer cannot repair it", e.describe(s), now)
			case s.Lifecycle == deleting && !allowed(Request{User: person, Old: s, New: gone}, clock):
				wrong.add("%s, at %s: its finalizer cannot be removed", e.describe(s), now)
			case s.Lifecycle == deleting:
				ways["end of its delete, then renewing writer"]++
			case elsewhere && !allowed(Request{User: collector, Old: s}, clock):
				wrong.add("%s, at %s: the garbage collector cannot delete it", e.describe(s), now)
			case elsewhere:
				ways["garbage collector, then renewing writer"]++
			case clock > 0: // the allowances of the model are for the first time
			default:
				open := s
				open.Allowance = 1
				if s.Allowance != 1 && !allowed(Request{User: person, Old: s, New: open}, clock) ||
					!allowed(Request{User: person, Old: open}, clock) {
					wrong.add("%s, at %s: it cannot be deleted by break-glass", e.describe(s), now)
				}
				ways["break-glass, then renewing writer"]++
			}
		}
	}
	t.Log(ways)
}

// testReachable: from a good Secret, all that people can reach in any number of requests, without break-glass and at
// one time, is a Secret without problems.
func (e *explored) testReachable(t *testing.T) {
	wrong := failures{t: t}
	defer wrong.end()
	good := State{Exists: true}
	next := map[State][]State{}
	for r, d := range e.decisions {
		if r.User == person && e.valid(r) && (guardState{up, true, false}).allows(d, 0) &&
			(r.New.Exists || !e.mayDelete(r.Old, e.clocks()[0])) {
			next[r.Old] = append(next[r.Old], r.effect())
		}
	}
	reached, depth := map[State]bool{good: true}, 0
	for frontier := []State{good}; len(frontier) > 0; {
		var found []State
		for _, s := range frontier {
			if problems := e.problems(s, e.attachedTo(good), e.clocks()[0]); len(problems) > 0 {
				wrong.add("people reach: %s, with %v", e.describe(s), problems)
			}
			for _, after := range next[s] {
				if !reached[after] {
					reached[after] = true
					found = append(found, after)
				}
			}
		}
		if frontier = found; len(found) > 0 {
			depth++
		}
	}
	if len(reached) < 2 {
		t.Error("nothing is reachable")
	}
	t.Logf("%d states, at most %d requests from a good one", len(reached), depth)
}

// testAudit: the checks that the audit uses fail for each bad state, for the right reasons, and for no other.
func (e *explored) testAudit(t *testing.T) {
	wrong := failures{t: t}
	defer wrong.end()
	for clock, now := range e.clocks() {
		for _, s := range e.states {
			want := e.protected.SecretExpectation
			service := e.attachedTo(State{Exists: true})
			want.ServiceUID = string(service)
			var stored *facts.Secret
			if s.Exists {
				var err error
				if stored, err = decodeFacts(e.objects.made[s].raw); err != nil {
					t.Fatal(err)
				}
			}
			var expected []Problem
			for _, p := range e.problems(s, service, now) {
				expected = append(expected, Problem{Key: p.Key, Reason: p.Reason})
			}
			slices.SortFunc(expected, byKey)
			got := reasons(check.CheckSecret(want, stored.Facts(), now).Results)
			if diff := gocmp.Diff(expected, got); diff != "" {
				wrong.add("%s, clock %d (-rule +audit):\n%s", e.describe(s), clock, diff)
			}
		}
	}
}

// testInactive: no request is sent to a webhook that has no permission to answer.
func (e *explored) testInactive(t *testing.T) {
	e.server.inactive.Store(true)
	defer e.server.inactive.Store(false)
	wrong := failures{t: t}
	defer wrong.end()
	for r, d := range e.decisions {
		if !d.called || r.User != person {
			continue
		}
		called, _, err := e.server.webhookAnswers(t.Context(), e.objects.question(r), nil)
		if called || err != nil {
			wrong.add("%s: called: %t, %v", e.describeRequest(r), called, err)
		}
	}
}

// TestActions: with the actions Warn and Audit nothing is refused.
func TestActions(t *testing.T) {
	kind := NewWorld().Kinds()[1].few()
	kind.contents, kind.attachments = kind.contents[:3], kind.attachments[:2]
	for _, action := range []admit.Action{admit.Warn, admit.Audit} {
		t.Run(string(action), func(t *testing.T) {
			e := explore(t, kind, action)
			wrong := failures{t: t}
			defer wrong.end()
			for r, d := range e.decisions {
				if d.policy || d.static || slices.Contains(d.webhook, true) {
					wrong.add("%s: %+v", e.describeRequest(r), d)
				}
			}
		})
	}
}

// reasons of the results that fail.
func reasons(results []finding.Result) []Problem {
	var all []Problem
	for _, r := range finding.WithOutcome(results, finding.Fail) {
		key, _, _ := strings.Cut(r.Subject.Key, " ")
		all = append(all, Problem{Key: key, Reason: r.Reason})
	}
	slices.SortFunc(all, byKey)
	return all
}

func byKey(a, b Problem) int { return strings.Compare(a.Key+string(a.Reason), b.Key+string(b.Reason)) }

// decodeFacts decodes a Secret as the audit does.
func decodeFacts(raw []byte) (*facts.Secret, error) {
	secret := new(facts.Secret)
	return secret, json.Unmarshal(raw, secret)
}
