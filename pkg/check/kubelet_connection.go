// SPDX-License-Identifier: Apache-2.0

package check

import (
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// ConnectionState is what a kube-apiserver's answer shows about its connection to a kubelet.
type ConnectionState int

// The states. The zero value is unknown.
const (
	// ConnectionUnknown: the answer does not show whether the kube-apiserver can connect.
	ConnectionUnknown ConnectionState = iota
	// ConnectionWorks: the kubelet answered the kube-apiserver's request.
	ConnectionWorks
	// ConnectionUnauthenticated: the kubelet responded 401. It does not accept the client
	// certificate, or the kube-apiserver presents none.
	ConnectionUnauthenticated
	// ConnectionForbidden: the kubelet responded 403. It accepts the certificate, and its user
	// may not read logs.
	ConnectionForbidden
	// ConnectionUntrusted: the kube-apiserver does not trust the kubelet's certificate.
	ConnectionUntrusted
	// ConnectionPairUnusable: the kube-apiserver cannot load its client certificate and key.
	ConnectionPairUnusable
	// ConnectionNotTLS: the server on the kubelet's port does not speak TLS.
	ConnectionNotTLS
	// ConnectionUnreachable: the kube-apiserver got no response from the kubelet.
	ConnectionUnreachable
)

// ConnectionAnswer is a kube-apiserver's answer to a request that it can only answer with the help of
// the kubelet.
type ConnectionAnswer struct {
	State ConnectionState
	// Why says what was observed, in words of this program: never text of the kubelet. It is
	// empty if the connection works.
	Why string
	// Remedy says what to do if the state is unknown.
	Remedy string
	// ThroughService: the request went to the Service of the API servers, so the answer may be
	// that of another node's.
	ThroughService bool
}

// Conclusive reports whether the answer shows that the connection works, or that it fails.
func (a *ConnectionAnswer) Conclusive() bool {
	return a.State != ConnectionUnknown && a.State != ConnectionUnreachable
}

// refused reports whether the kubelet refused to authenticate the kube-apiserver.
func (a *ConnectionAnswer) refused() bool { return a != nil && a.State == ConnectionUnauthenticated }

// authenticated reports whether the kubelet authenticated the kube-apiserver, or any client: a
// kubelet without a client CA does not ask for a certificate.
func (a *ConnectionAnswer) authenticated() bool {
	return a != nil && (a.State == ConnectionWorks || a.State == ConnectionForbidden)
}

// Connection combines a kubelet's facts with the kube-apiserver's answer about its connection to this
// kubelet. answer is nil before the first answer, or if configured is false: nothing is configured
// to ask the kube-apiserver.
func (k Kubelet) Connection(answer *ConnectionAnswer, configured bool) Kubelet {
	k.connection, k.connectionConfigured = answer, configured
	return k
}

// kubeletConnection: the running kube-apiserver connects to this kubelet over TLS, and the kubelet accepts its client
// certificate and authorizes its user. A Pod's log comes from the kubelet, so the kube-apiserver's answer to a request
// for it shows all of this (Kubernetes pkg/registry/core/pod/rest/log.go). It does not show that the kube-apiserver
// verifies the kubelet's certificate.
func kubeletConnection(k Kubelet, _ time.Time) []finding.Result {
	a := k.connection
	switch {
	case a == nil && !k.connectionConfigured:
		return single(finding.NotChecked, k.at(),
			"the kube-apiserver's connection to the kubelet was not checked, because --pod is not set", "set --pod")
	case a == nil:
		return single(finding.NotObserved, k.at(),
			"the kube-apiserver has not answered yet whether it can connect to the kubelet",
			"wait; if this persists, check that the agent's Pod can reach the API server")
	}
	var found []finding.Result
	switch a.State {
	case ConnectionWorks:
		return []finding.Result{{Subject: k.at(), Outcome: finding.Pass, Message: k.connectionAssumption()}}
	case ConnectionUnauthenticated:
		found = k.clientRefused()
	case ConnectionForbidden:
		found = single(finding.ClientNotAuthorized, k.at(),
			"the kubelet accepts the kube-apiserver's client certificate but does not authorize its user: "+a.Why,
			"restore the ClusterRoleBinding that grants system:kubelet-api-admin to the certificate's user")
	case ConnectionUntrusted:
		found = single(finding.KubeletCertificateUntrusted, k.at(),
			"the kube-apiserver does not trust the kubelet's certificate: "+a.Why,
			"approve the kubelet's pending certificate signing request (oc get csr), or update the CA bundle")
	case ConnectionPairUnusable:
		found = single(finding.ClientCertificateUnusable, k.at(),
			"the kube-apiserver cannot connect to the kubelet with its client certificate and key: "+a.Why,
			"restore both files; the kube-apiserver loads them again at its next connection, without a restart")
	case ConnectionNotTLS:
		found = single(finding.KubeletNotTLS, k.at(),
			"the kube-apiserver found a server on the kubelet's port that does not speak TLS",
			"find out what listens on the kubelet's port; a kubelet always serves it over TLS")
	case ConnectionUnreachable:
		found = single(finding.KubeletUnreachable, k.at(),
			"the kube-apiserver got no response from the kubelet: "+a.Why,
			"check that the kubelet runs, and that the kube-apiserver can reach it")
	case ConnectionUnknown:
		found = single(finding.ConnectionUnknown, k.at(),
			"it is not known whether the kube-apiserver can connect to the kubelet: "+a.Why, a.Remedy)
	}
	if a.ThroughService {
		for i := range found {
			found[i].Message += " (the answer of any API server, since this node's own was not found)"
		}
	}
	return found
}

// clientRefused is the result of a kubelet that did not authenticate the kube-apiserver.
func (k Kubelet) clientRefused() []finding.Result {
	return single(finding.ClientCertificateNotAccepted, k.at(),
		"the kubelet refuses the kube-apiserver's client certificate ("+k.connection.Why+")",
		"check that the certificate is valid and that the kubelet's client CA bundle contains its issuer "+
			"(on OpenShift the machine-config-operator updates the bundle)")
}

// refusesAnonymous is what must be true if an answer is to show that the kubelet accepts a client certificate: one that
// permits anonymous users to read logs (authentication.anonymous, authorization.mode AlwaysAllow) needs none.
const refusesAnonymous = "the kubelet lets no anonymous user read logs"

// connectionAssumption says what a connection that works does not show. It may be an open connection, which nothing
// verifies again: the kube-apiserver reads its certificate, and verifies the kubelet's, for a new one only.
func (k Kubelet) connectionAssumption() string {
	assumptions := []string{
		"a new connection would work, too: if other requests keep one to this kubelet open, the kube-apiserver used that one",
		refusesAnonymous,
	}
	if k.connection.ThroughService {
		assumptions = append(assumptions, "this node's kube-apiserver connects as the API server that answered: "+
			"this node's own was not found")
	}
	switch {
	case k.ca.Path == "" && k.ca.WhyUnknown == nil:
		assumptions = append(assumptions, "the server is the kubelet: the kube-apiserver does not verify its certificate, "+
			"because kubelet-certificate-authority is not set")
	case k.ca.WhyUnknown != nil:
		assumptions = append(assumptions, "the kube-apiserver verifies the kubelet's certificate: it is not known whether "+
			"kubelet-certificate-authority is set")
	}
	return Assuming(assumptions...)
}
