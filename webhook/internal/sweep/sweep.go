// SPDX-License-Identifier: Apache-2.0

package sweep

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/handshake"
	"github.com/kubelet-https-guard/kubelet-https-guard/internal/kubelettls"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

const (
	// Every is the interval of sweeps. A random part of everyJitter is added to each.
	Every, everyJitter = 5 * time.Minute, 30 * time.Second
	// confirmEvery is the interval at which Nodes with a new finding are asked again, confirmations how often a finding
	// must be seen in a row until it waits for the next sweep, and maxConfirmed the number of Nodes each time.
	confirmEvery, confirmations, maxConfirmed = time.Minute, 4, 100
	// listTime bounds the list of all Nodes, with all its pages; confirmTime bounds asking Nodes again, of which
	// confirmReadTime is for reading them, so that those that were read are asked.
	listTime, confirmTime, confirmReadTime = time.Minute, 30 * time.Second, 15 * time.Second
	// perSecond bounds how many kubelets are asked in a second, maxInFlight how many at the same time. A kubelet that
	// answers at neither port takes [kubelettls.Timeout] and [kubelettls.ReadOnlyTimeout].
	perSecond, maxInFlight = 250, 256
	// staleAfter is the age at which the outcomes of a sweep become unknown.
	staleAfter = 3 * Every
	// retryOnce is the time after which [Sweeper.Once] asks the Nodes with findings again.
	retryOnce = 3 * time.Second
)

// Settings are what the kube-apiserver is configured with.
type Settings struct {
	// Unread: its configuration could not be read, so AddressTypes are common ones, and the rest is not known.
	Unread bool
	// AddressTypes are its kubelet-preferred-address-types.
	AddressTypes []string
	// Services are the ranges for Services, empty if not known.
	Services []netip.Prefix
	CA       check.KubeletCA
	// GoVersion as in [check.Expectation].
	GoVersion string
}

// Cluster reads from the API.
type Cluster interface {
	// Settings returns what is known; it has no error.
	Settings(ctx context.Context) Settings
	// Nodes returns all Nodes.
	Nodes(ctx context.Context, types []string) ([]Node, error)
	// Node returns one Node. exists is false if it was deleted.
	Node(ctx context.Context, name string, types []string) (node Node, exists bool, err error)
	// Requests returns for each Node whose kubelet has a certificate signing request that was not signed what became of
	// it. With an error it returns what is known, and the error says why there may be more, in words that are the same at
	// each attempt.
	Requests(ctx context.Context) (unsigned map[string]string, err error)
}

// Sweep describes a sweep, for metrics.
type Sweep struct {
	// Nodes by their worst outcome, and by each reason that they have.
	Outcomes map[finding.Outcome]int
	Reasons  map[finding.Reason]int
	// At is when it ended, Took how long it took.
	At   time.Time
	Took time.Duration
}

// Sweeper asks the kubelets of all Nodes in turn. Its exported fields must be set before use.
type Sweeper struct {
	Cluster Cluster
	// Refuse says why an address must not be dialed; see [Refuse].
	Refuse func(address netip.Addr, services []netip.Prefix) string
	// APIService is the address of Service default/kubernetes. It is refused while the ranges for Services are not known.
	// It is the zero value if it is not known.
	APIService netip.Addr
	// Random spreads the work. Only one goroutine uses it at a time.
	Random *rand.Rand
	Now    func() time.Time
	// Swept is called after each sweep. Stale is called when Nodes cannot be listed and the last sweep is too old to
	// count, maybe several times. Both may be nil.
	Swept func(Sweep)
	Stale func()
	Log   *slog.Logger

	mu       sync.Mutex
	outcomes map[string]Outcome
	results  []finding.Result
	uids     map[string]string // of the Nodes that have results of their own, also of deleted ones
	at       time.Time         // of the last sweep
	err      error             // of the last attempt to list Nodes
	// confirmed: the kubelets that failed in the first sweep were asked again, as far as there is time for it. The results
	// begin then, so that what is present at start can be told from what comes later.
	confirmed bool
	summary   *summary
	// addressTypes and services are the last ones that were read, nil if none were.
	addressTypes []string
	services     []netip.Prefix
	// once: there is no later sweep, so what was seen last is reported, however often it was seen. until is when no more
	// kubelets are asked.
	once  bool
	until time.Time
	// logged: a sweep was logged, with loggedReasons.
	logged        bool
	loggedReasons []finding.Reason
	// loggedRequests is why not all certificate signing requests could be read, empty if they could.
	loggedRequests string
}

// Run sweeps until the context ends. It begins with unknown outcomes: those of an earlier run may be old.
func (s *Sweeper) Run(ctx context.Context) {
	s.reset()
	for s.wait(ctx, time.Duration(s.Random.Int64N(int64(confirmEvery/12)))) {
		began := s.Now()
		s.sweep(ctx)
		next := began.Add(Every + time.Duration(s.Random.Int64N(int64(everyJitter))))
		for next.Sub(s.Now()) > confirmEvery {
			if !s.wait(ctx, confirmEvery) {
				return
			}
			s.confirm(ctx)
		}
		if !s.wait(ctx, next.Sub(s.Now())) {
			return
		}
	}
}

func (s *Sweeper) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.outcomes, s.results, s.uids, s.at, s.err, s.summary = nil, nil, nil, time.Time{}, nil, newSummary()
	s.confirmed = false
}

// wait waits for a time; false if the context ended.
func (s *Sweeper) wait(ctx context.Context, long time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(long):
		return true
	}
}

// Once asks all kubelets, and those with a finding again, and returns the outcomes, sorted by name. Without outcomes,
// [Sweeper.Results] says why. Kubelets that would be asked after a time are unknown; the ones that are being asked then
// take at most some seconds. The error is the context's.
func (s *Sweeper) Once(ctx context.Context, within time.Duration) ([]Outcome, error) {
	s.reset()
	s.once, s.until = true, s.Now().Add(within)
	s.sweep(ctx)
	if s.err == nil && s.Now().Add(retryOnce).Before(s.until) && s.wait(ctx, retryOnce) {
		s.confirm(ctx)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	byName := func(a, b Outcome) int { return strings.Compare(a.Node, b.Node) }
	return slices.SortedFunc(maps.Values(s.outcomes), byName), nil
}

// sweep asks all kubelets.
func (s *Sweeper) sweep(ctx context.Context) {
	began := s.Now()
	settings := s.settings(ctx)
	nodes, err := s.list(ctx, settings)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		s.Log.WarnContext(ctx, "Cannot list Nodes, so their kubelets are not checked", "err", err)
		s.mu.Lock()
		s.err = err
		isStale := s.Now().Sub(s.at) > staleAfter
		s.mu.Unlock()
		if isStale && s.Stale != nil {
			s.Stale()
		}
		return
	}
	// Another order each time: Nodes that hang are not asked one after the other, nor always last.
	s.Random.Shuffle(len(nodes), func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
	asked := s.ask(ctx, nodes, settings)
	if ctx.Err() != nil {
		return // some were not asked
	}
	outcomes := make(map[string]Outcome, len(nodes))
	for _, o := range asked {
		outcomes[o.Node] = s.following(o)
	}
	for _, node := range nodes {
		if _, isAsked := outcomes[node.Name]; !isAsked {
			outcomes[node.Name] = s.following(tooLate(node))
		}
	}
	s.store(outcomes, true)
	s.report(ctx, s.Now().Sub(began))
}

// settings returns the settings. What cannot be read, but was read before, decides which addresses are dialed: types of
// addresses, and ranges for Services. The CAs are not known then, as nothing that was not observed is.
func (s *Sweeper) settings(ctx context.Context) Settings {
	settings := s.Cluster.Settings(ctx)
	switch {
	case !settings.Unread:
		s.addressTypes = settings.AddressTypes
	case s.addressTypes != nil:
		settings.AddressTypes = s.addressTypes
	}
	switch {
	case len(settings.Services) > 0:
		s.services = settings.Services
	case s.services != nil:
		settings.Services = s.services
	case s.APIService.IsValid():
		settings.Services = []netip.Prefix{netip.PrefixFrom(s.APIService, s.APIService.BitLen())}
	}
	return settings
}

// within returns a context that ends after a time, with [Sweeper.Once] not later than that.
func (s *Sweeper) within(ctx context.Context, long time.Duration) (context.Context, context.CancelFunc) {
	if s.once {
		long = min(long, s.until.Sub(s.Now()))
	}
	return context.WithTimeout(ctx, long)
}

// list lists all Nodes.
func (s *Sweeper) list(ctx context.Context, settings Settings) ([]Node, error) {
	ctx, cancel := s.within(ctx, listTime)
	defer cancel()
	return s.Cluster.Nodes(ctx, settings.AddressTypes)
}

// following returns an outcome that follows the last one of the Node.
func (s *Sweeper) following(o Outcome) Outcome {
	last, known := s.outcomes[o.Node]
	if !known {
		return o.follow(nil)
	}
	return o.follow(&last)
}

// confirm asks again the kubelets that have a finding that is new. Only a few Nodes are read, each by its name. If this
// takes longer than [confirmTime], all outcomes stay as they are.
func (s *Sweeper) confirm(ctx context.Context) {
	names := s.toConfirm()
	if len(names) == 0 {
		return
	}
	ctx, cancel := s.within(ctx, confirmTime)
	defer cancel()
	settings := s.settings(ctx)
	nodes, deleted := s.read(ctx, names, settings)
	asked := s.ask(ctx, nodes, settings)
	if ctx.Err() != nil {
		return // some were not asked
	}
	outcomes := maps.Clone(s.outcomes)
	for _, name := range deleted {
		delete(outcomes, name)
	}
	for _, o := range asked {
		outcomes[o.Node] = s.following(o)
	}
	s.store(outcomes, false)
}

// toConfirm returns the names of at most [maxConfirmed] Nodes to ask again, the most urgent ones. Of equally urgent
// ones it takes random ones.
func (s *Sweeper) toConfirm() []string {
	var all []Outcome
	for _, o := range s.outcomes {
		if len(o.reasons()) > 0 && (o.seen < confirmations || o.unconfirmed()) {
			all = append(all, o)
		}
	}
	slices.SortFunc(all, func(a, b Outcome) int { return strings.Compare(a.Node, b.Node) })
	s.Random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	slices.SortStableFunc(all, func(a, b Outcome) int { return cmp.Compare(a.urgency(), b.urgency()) })
	var names []string
	for _, o := range all[:min(len(all), maxConfirmed)] {
		names = append(names, o.Node)
	}
	return names
}

// read reads some Nodes, in their order, until the first error or the end of [confirmReadTime].
func (s *Sweeper) read(ctx context.Context, names []string, settings Settings) (nodes []Node, deleted []string) {
	ctx, cancel := context.WithTimeout(ctx, confirmReadTime)
	defer cancel()
	for _, name := range names {
		node, exists, err := s.Cluster.Node(ctx, name, settings.AddressTypes)
		switch {
		case err != nil || ctx.Err() != nil: // the last outcomes of this Node and the following ones stay
			return nodes, deleted
		case !exists:
			deleted = append(deleted, name)
		default:
			nodes = append(nodes, node)
		}
	}
	return nodes, deleted
}

// store stores the outcomes of all Nodes; whole: of a whole sweep.
func (s *Sweeper) store(outcomes map[string]Outcome, whole bool) {
	now := s.Now()
	var reported []Outcome
	for _, o := range outcomes {
		if !s.once {
			o = o.reported()
		}
		reported = append(reported, o)
	}
	results := s.summary.results(reported, now)
	uids := s.summary.uids()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.outcomes, s.results, s.uids = outcomes, results, uids
	isFirst := whole && s.at.IsZero()
	s.confirmed = s.confirmed || s.once || !isFirst || !containUnconfirmed(outcomes)
	if whole {
		s.at, s.err = now, nil
	}
}

func containUnconfirmed(outcomes map[string]Outcome) bool {
	for _, o := range outcomes {
		if o.unconfirmed() {
			return true
		}
	}
	return false
}

// report reports a sweep, in the log only if it differs from the one before.
func (s *Sweeper) report(ctx context.Context, took time.Duration) {
	sweep := Sweep{Outcomes: map[finding.Outcome]int{}, Reasons: map[finding.Reason]int{}, At: s.Now(), Took: took}
	for _, o := range s.outcomes {
		sweep.Outcomes[o.Worst()]++
		for _, reason := range o.reasons() {
			sweep.Reasons[reason]++
		}
	}
	if s.Swept != nil {
		s.Swept(sweep)
	}
	reasons := slices.Sorted(maps.Keys(sweep.Reasons))
	if !s.logged || !slices.Equal(reasons, s.loggedReasons) {
		s.logged, s.loggedReasons = true, reasons
		s.Log.InfoContext(ctx, "Checked the kubelets of the Nodes", "nodes", len(s.outcomes),
			"passing", sweep.Outcomes[finding.Pass], "reasons", sweep.Reasons,
			"took", took.Round(time.Millisecond).String())
	}
}

// tooLate is the outcome of a Node whose kubelet was not asked in time.
func tooLate(node Node) Outcome {
	results := allUnknown(finding.Result{
		Subject: finding.Subject{Kind: finding.KindNode, Name: node.Name}, Reason: finding.NotObserved,
		Message: "the kubelet was not asked, because asking others took too long", Remedy: "set a longer --timeout",
	})
	return outcomeOf(node, results)
}

// ask asks the kubelets of some Nodes, and returns the outcomes in any order. If the context ends, or the time of
// [Sweeper.Once], some are missing.
func (s *Sweeper) ask(ctx context.Context, nodes []Node, settings Settings) []Outcome {
	requests := s.requests(ctx)
	dialer := kubelettls.Dialer{
		Control: handshake.ControlOf(func(address netip.Addr) string { return s.Refuse(address, settings.Services) }),
	}
	outcomes := make([]Outcome, len(nodes))
	began := s.Now()
	var group errgroup.Group
	group.SetLimit(maxInFlight)
	for i, node := range nodes {
		due := began.Add(time.Duration(i) * time.Second / perSecond)
		if early := due.Sub(s.Now()); early > 0 && !s.wait(ctx, early) {
			break
		}
		if s.once && s.Now().After(s.until) {
			break
		}
		group.Go(func() error {
			facts := askNode(ctx, dialer, node)
			facts.CA, facts.GoVersion, facts.Request = settings.CA, settings.GoVersion, requests[node.Name]
			results, _ := facts.Check(s.Now())
			outcomes[i] = outcomeOf(node, results)
			return nil
		})
	}
	_ = group.Wait() // always nil
	return slices.DeleteFunc(outcomes, func(o Outcome) bool { return o.Node == "" })
}

// requests returns what became of the certificate signing requests that were not signed. It logs each new reason why
// some may be missing.
func (s *Sweeper) requests(ctx context.Context) map[string]string {
	unsigned, err := s.Cluster.Requests(ctx)
	why := ""
	if err != nil && ctx.Err() == nil {
		why = err.Error()
	}
	if why != "" && why != s.loggedRequests {
		s.Log.WarnContext(ctx, "Cannot read all certificate signing requests, so findings may not name them", "err", err)
	}
	s.loggedRequests = why
	return unsigned
}

// askNode asks the kubelet of a Node, first at its TLS port, and then at its read-only port, which may be open where a
// firewall blocks the other one. It takes at most [kubelettls.Timeout] and [kubelettls.ReadOnlyTimeout].
func askNode(ctx context.Context, dialer kubelettls.Dialer, node Node) check.NodeKubelet {
	facts := check.NodeKubelet{Node: node.Name, Excuse: node.Excuse, NotAsked: node.Problem}
	if node.Problem != "" {
		return facts
	}
	to := kubelettls.At(node.Host, node.Port)
	answer := &check.KubeletAnswer{Host: node.Host}
	dialer.Handshake(ctx, to, answer)
	if refused, ok := errors.AsType[*handshake.RefusedError](answer.Err); ok {
		facts.NotAsked = refused.Why
		return facts
	}
	facts.Answer = answer
	answer.ReadOnlyOpen, answer.ReadOnlyErr = dialer.ReadOnlyOpen(ctx, to)
	// If the other port answers, the host can be reached, and a firewall is in between.
	facts.ReadOnlyFiltered = answer.Answered() && kubelettls.IsFiltered(answer.ReadOnlyErr)
	return facts
}

// Results returns the results about all Nodes, few however many Nodes there are (see summary).
func (s *Sweeper) Results() []finding.Result {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.at.IsZero() && s.err == nil:
		return allUnknown(finding.Result{
			Subject: several, Reason: finding.NotObserved, Message: "the kubelets have not been asked yet",
			Remedy: "wait a minute; if this persists, read the audit's log",
		})
	case s.err != nil && (s.at.IsZero() || s.Now().Sub(s.at) > staleAfter):
		return allUnknown(unreadable(s.err))
	case !s.confirmed:
		return allUnknown(finding.Result{
			Subject: several, Reason: finding.NotObserved,
			Message: "the kubelets that failed are asked again before anything is reported",
			Remedy:  "wait a few minutes; if this persists, read the audit's log",
		})
	case s.Now().Sub(s.at) > staleAfter:
		return allUnknown(finding.Result{
			Subject: several, Reason: finding.NotObserved, Message: "the kubelets have not been asked recently",
			Remedy: "wait; if this persists, read the audit's log",
		})
	}
	return s.results
}

// UID returns the UID of a Node that was seen, also for some time after it was deleted: the end of its findings is
// reported then. It is empty if the Node is not known.
func (s *Sweeper) UID(name string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o, exists := s.outcomes[name]; exists {
		return o.UID
	}
	return s.uids[name]
}

// allUnknown returns an unknown result for each requirement.
func allUnknown(because finding.Result) []finding.Result {
	var all []finding.Result
	for _, requirement := range check.NodeKubeletRequirements() {
		r := check.Unknown(because)
		r.Requirement = requirement
		all = append(all, r)
	}
	return all
}

// unreadable says why the Nodes could not be listed, in words that are the same at each attempt.
func unreadable(err error) finding.Result {
	return finding.Result{
		Subject: several, Reason: finding.Unreadable, Message: "cannot list Nodes: " + readError(err),
		Remedy: "grant the audit's ServiceAccount (or the user of the kubeconfig) permission to list nodes, " +
			"or check that the API server is available",
	}
}
