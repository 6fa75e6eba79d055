// SPDX-License-Identifier: Apache-2.0

package sweep

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

const (
	// maxNamed bounds the number of Nodes that have results of their own, in each [class] of requirements. Each of them
	// can be a finding with an Event.
	maxNamed = 100
	// maxListed bounds how many Nodes a result about several Nodes names.
	maxListed = 10
	// forgetAfter is how long a Node that had a finding keeps its own results after it passes or is deleted. It must be
	// longer than a tracker needs to see that the finding is gone.
	forgetAfter = 10 * time.Minute
)

// class is a class of requirements: those that can fail, and those that have warnings only. Each has room for
// [maxNamed] Nodes, so that thousands of Nodes with a warning do not take the places of those that fail later.
type class bool

const (
	canFail   class = true
	warnsOnly class = false
)

// classes returns the class of each requirement.
func classes() map[finding.Requirement]class {
	all := map[finding.Requirement]class{}
	for _, requirement := range check.NodeKubeletRequirements() {
		all[requirement] = class(check.NodeKubeletCanFail(requirement))
	}
	return all
}

// summary turns the outcomes of all Nodes into few results, so that a tracker of findings does not hold one for each
// Node and requirement.
//
// A Node that fails, or has a warning, is named in the class of the requirement: it has a result for each requirement
// of the class, its passes included, until it has passed for [forgetAfter]. So the finding is resolved when the Node is
// seen to pass, hidden while it is unknown, and resolved when the Node is deleted. At most [maxNamed] Nodes are named
// in each class, and none gives its place to another one while it has a finding. All other Nodes are counted: there is
// one result for each requirement, outcome and reason.
type summary struct {
	classes map[finding.Requirement]class
	named   map[class]map[string]*namedNode
	// counted has the Nodes that are not named and fail or have a warning, and those of which that is not known any
	// more. While there is one, a pass of others says nothing about the finding about several Nodes.
	counted map[finding.Requirement]map[string]bool
}

// namedNode is a Node with results of its own.
type namedNode struct {
	// uid is its UID, also after it was deleted.
	uid string
	// since is when it was first seen to pass, or to be deleted; zero while it has a finding.
	since time.Time
}

func newSummary() *summary {
	return &summary{
		classes: classes(), named: map[class]map[string]*namedNode{canFail: {}, warnsOnly: {}},
		counted: map[finding.Requirement]map[string]bool{},
	}
}

// results returns the results of all outcomes at a time.
func (s *summary) results(outcomes []Outcome, now time.Time) []finding.Result {
	sorted := slices.SortedFunc(slices.Values(outcomes), func(a, b Outcome) int { return cmp.Compare(a.Node, b.Node) })
	s.name(sorted)
	s.forget(sorted, now)
	if len(sorted) == 0 && len(s.named[canFail]) == 0 && len(s.named[warnsOnly]) == 0 {
		return noNodes()
	}
	return slices.Concat(s.ofNamed(sorted), s.ofCounted(sorted))
}

// name names Nodes while there is room in the class, those that fail first.
func (s *summary) name(sorted []Outcome) {
	for class, named := range s.named {
		for _, worst := range []finding.Outcome{finding.Fail, finding.Warn} {
			for _, o := range sorted {
				if len(named) < maxNamed && named[o.Node] == nil && len(finding.WithOutcome(s.of(o, class), worst)) > 0 {
					named[o.Node] = &namedNode{uid: o.UID}
				}
			}
		}
	}
}

// of returns the results of the requirements of a class, without passes.
func (s *summary) of(o Outcome, class class) []finding.Result {
	var results []finding.Result
	for _, r := range o.Results {
		if s.classes[r.Requirement] == class {
			results = append(results, r)
		}
	}
	return results
}

// isNamed reports whether a Node has a result of its own for a requirement. One that is unknown for the same reason as
// another one's own result belongs to the same finding.
func (s *summary) isNamed(o Outcome, requirement finding.Requirement) bool {
	class := s.classes[requirement]
	if s.named[class][o.Node] != nil {
		return true
	}
	r := o.of(requirement)
	return r != nil && r.Outcome == finding.Unknown && s.named[!class][o.Node] != nil &&
		slices.ContainsFunc(s.of(o, !class), func(own finding.Result) bool { return own.Reason == r.Reason })
}

// uids returns the UIDs of the named Nodes.
func (s *summary) uids() map[string]string {
	uids := map[string]string{}
	for _, named := range s.named {
		for name, n := range named {
			uids[name] = n.uid
		}
	}
	return uids
}

// noNodes returns the results about a cluster that has no Nodes.
func noNodes() []finding.Result {
	var results []finding.Result
	for _, requirement := range check.NodeKubeletRequirements() {
		results = append(results, finding.Result{
			Requirement: requirement, Subject: several, Outcome: finding.NotApplicable, Message: "there are no Nodes",
		})
	}
	return results
}

// forget updates since when named Nodes have had no finding, and forgets those that have had none for [forgetAfter].
func (s *summary) forget(sorted []Outcome, now time.Time) {
	for class, named := range s.named {
		unsettled := map[string]bool{}
		for _, o := range sorted {
			if n := named[o.Node]; n != nil {
				n.uid = o.UID // another Node may have the name now
			}
			// An unknown result may hide a finding.
			unsettled[o.Node] = named[o.Node] != nil && len(finding.Findings(s.of(o, class))) > 0
		}
		for name, n := range named {
			switch {
			case unsettled[name]:
				n.since = time.Time{}
			case n.since.IsZero():
				n.since = now
			case now.Sub(n.since) > forgetAfter:
				delete(named, name)
			}
		}
	}
}

// ofNamed returns the results of the named Nodes. A requirement does not apply to a Node that was deleted.
func (s *summary) ofNamed(sorted []Outcome) []finding.Result {
	var results []finding.Result
	exists := map[string]bool{}
	for _, o := range sorted {
		if s.named[canFail][o.Node] == nil && s.named[warnsOnly][o.Node] == nil {
			continue
		}
		exists[o.Node] = true
		for _, r := range o.All() {
			if s.isNamed(o, r.Requirement) {
				results = append(results, r)
			}
		}
	}
	for _, requirement := range check.NodeKubeletRequirements() {
		for _, name := range slices.Sorted(maps.Keys(s.named[s.classes[requirement]])) {
			if exists[name] {
				continue
			}
			results = append(results, finding.Result{
				Requirement: requirement, Subject: finding.Subject{Kind: finding.KindNode, Name: name},
				Outcome: finding.NotApplicable, Message: "the Node was deleted",
			})
		}
	}
	return results
}

// several is the subject of results about several Nodes; passing that of passes which do not resolve a finding about
// several.
var (
	several = finding.Subject{Kind: finding.KindNode}
	passing = finding.Subject{Kind: "Nodes"}
)

// group is what the results about several Nodes have in common.
type group struct {
	outcome finding.Outcome
	reason  finding.Reason
}

// ofCounted returns the results of the Nodes that are not named, one for each requirement, outcome and reason. If the
// kubelets of Nodes that are not ready, or are virtual, do not answer, that is no finding: the cluster reports it.
func (s *summary) ofCounted(sorted []Outcome) []finding.Result {
	var results []finding.Result
	for _, requirement := range check.NodeKubeletRequirements() {
		nodes, examples := map[group][]string{}, map[group]finding.Result{}
		counted := map[string]bool{}
		for _, o := range sorted {
			if s.isNamed(o, requirement) {
				continue
			}
			r := o.of(requirement)
			if r == nil {
				r = &finding.Result{Outcome: finding.Pass}
			}
			if r.Outcome == finding.Warn || r.Outcome == finding.Fail ||
				r.Outcome == finding.Unknown && s.counted[requirement][o.Node] {
				counted[o.Node] = true
			}
			of := group{r.Outcome, r.Reason}
			if o.excused && r.Reason == finding.KubeletUnreachable && !s.counted[requirement][o.Node] {
				of.reason = finding.NotChecked
			}
			if nodes[of] = append(nodes[of], o.Node); len(nodes[of]) == 1 {
				examples[of] = *r
			}
		}
		s.counted[requirement] = counted
		for _, of := range slices.SortedFunc(maps.Keys(nodes), compareGroups) {
			results = append(results, resultOf(requirement, of, nodes[of], examples[of], len(counted) > 0))
		}
	}
	return results
}

func compareGroups(a, b group) int {
	return cmp.Or(cmp.Compare(a.outcome, b.outcome), cmp.Compare(a.reason, b.reason))
}

// resultOf returns the result about several Nodes.
func resultOf(
	requirement finding.Requirement, of group, nodes []string, example finding.Result, others bool,
) finding.Result {
	result := finding.Result{Requirement: requirement, Subject: several, Outcome: of.outcome, Reason: of.reason}
	switch {
	case of.outcome == finding.Pass && others:
		result.Subject = passing
	case of.outcome == finding.Pass:
	case of.outcome == finding.NotApplicable:
		result.Message = example.Message
		if others {
			result.Subject = passing
		}
	default:
		result.Message, result.Remedy = list(nodes)+": "+example.Message, example.Remedy
		if len(nodes) > 1 {
			result.Message = list(nodes) + ", the first one: " + example.Message
		}
	}
	return result
}

// list lists names, with a limit.
func list(nodes []string) string {
	what := fmt.Sprintf("%d Nodes", len(nodes))
	if len(nodes) == 1 {
		what = "1 Node"
	}
	if more := len(nodes) - maxListed; more > 0 {
		return what + " (" + strings.Join(nodes[:maxListed], ", ") + fmt.Sprintf(" and %d more)", more)
	}
	return what + " (" + strings.Join(nodes, ", ") + ")"
}
