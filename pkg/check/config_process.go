// SPDX-License-Identifier: Apache-2.0

package check

import (
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/kubeapiserver"
)

// inProcess answers the requirements of a configuration that exists only in the memory of a process. A connection
// that works shows what the kube-apiserver needs for it: a client certificate and key, and HTTPS. It does not show
// whether the kube-apiserver verifies the kubelet's certificate, or which admission plugins are enabled, so that
// stays unknown.
func (c Configuration) inProcess() []finding.Result {
	shown := shownByConnection()
	var results []finding.Result
	for _, check := range configurationChecks() {
		// One subject for all arguments that are not known: it is one finding.
		found := single(finding.Unreadable, c.At,
			c.Process+" runs the kube-apiserver in its own process, so its arguments are not on disk, and not all of them "+
				"show in its connection to the kubelet",
			"have the connection checked (--pod, chart: nodeagent.connection), and check the other arguments in the log of "+
				c.Process)[0]
		switch argument, canBeShown := shown[check.aspect]; {
		case check.aspect == finding.Readable:
			found = finding.Result{
				Subject: c.At, Outcome: finding.NotApplicable,
				Message: c.Process + " runs the kube-apiserver in its own process, so there is no configuration file",
			}
		case canBeShown && c.Connection.proves():
			found = finding.Result{
				Subject: c.argument(argument), Outcome: finding.Pass,
				Message: Assuming(refusesAnonymous),
			}
		}
		found.Requirement = finding.Config.Requires(check.aspect)
		results = append(results, found)
	}
	return results
}

// shownByConnection returns the aspects of a configuration that a connection that works shows, with their arguments.
func shownByConnection() map[finding.Aspect]string {
	return map[finding.Aspect]string{
		finding.ClientCertificate: kubeapiserver.KubeletClientCertificate,
		finding.ClientKey:         kubeapiserver.KubeletClientKey,
		finding.HTTPS:             kubeapiserver.KubeletHTTPS,
		finding.ReadOnlyPort:      kubeapiserver.KubeletReadOnlyPort,
	}
}

// SplitInProcess takes from the results of a configuration in the memory of a process those that are unknown because of
// the connection to the kubelet. They get the reason and subject of its result, so they are one finding with it, and
// must be reported with the same patience. connection are the results about the connection.
func SplitInProcess(config, connection []finding.Result) (own, ofConnection []finding.Result) {
	because := missingNeed(finding.Kubelet, []finding.Aspect{finding.Connection}, connection)
	if len(because) == 0 || because[0].Reason == finding.NotChecked {
		return config, nil
	}
	shown := map[finding.Requirement]bool{}
	for aspect := range shownByConnection() {
		shown[finding.Config.Requires(aspect)] = true
	}
	for _, r := range config {
		if r.Outcome != finding.Unknown || !shown[r.Requirement] {
			own = append(own, r)
			continue
		}
		of := because[0]
		of.Requirement = r.Requirement
		ofConnection = append(ofConnection, of)
	}
	return own, ofConnection
}

// proves reports whether the answer shows that this node's own kube-apiserver uses HTTPS to its kubelet with a client
// certificate that the kubelet accepts.
func (a *ConnectionAnswer) proves() bool {
	return a != nil && a.State == ConnectionWorks && !a.ThroughService
}
