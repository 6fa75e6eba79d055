// SPDX-License-Identifier: Apache-2.0

package connection

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
)

// The kinds in the details of an error (metav1.StatusDetails) say who refused the request: the API server refuses the
// agent's own request for kind "pods", or without a kind, before it asks the kubelet. An error of the kubelet has kind
// "pods/log" (k8s.io/apimachinery pkg/api/errors, NewGenericServerResponse).
const (
	ofAPIServer = "pods"
	ofKubelet   = "pods/log"
)

// Remedies for answers that show nothing.
const (
	reachAPIServer = "check that the API server runs, and that the agent's Pod can reach it"
	restoreRole    = "restore the agent's Role in its namespace: it needs get on pods/log"
	restartPod     = "restart the agent's Pod"
	readLogs       = "read the kube-apiserver's log; kubectl logs for the agent's Pod shows the same error"
)

// text is a part of an error message in a response with code 500. These errors have no other mark: the kube-apiserver
// passes on the text of Go's crypto/tls, crypto/x509 and net.
type text struct {
	begins, part string
	state        check.ConnectionState
	why          string
}

// texts returns what identifies the cause of an error: how it begins, and a part of it. The first that matches counts.
// All were seen in Kubernetes 1.35 to 1.37 (Go 1.25 and 1.26). A text that is not in the list is unknown.
func texts() []text {
	const verification, dial = "tls: failed to verify certificate: x509: ", "dial tcp"
	return []text{
		{verification, "certificate signed by unknown authority", check.ConnectionUntrusted,
			"it is not signed by a CA in kubelet-certificate-authority"},
		{verification, "certificate has expired or is not yet valid", check.ConnectionUntrusted,
			"it has expired or is not yet valid"},
		{verification, "cannot validate certificate for", check.ConnectionUntrusted, notForAddress},
		{verification, "certificate is valid for", check.ConnectionUntrusted, notForAddress},
		{verification, "certificate is not valid for any names", check.ConnectionUntrusted, notForAddress},
		{verification, "", check.ConnectionUntrusted, "its verification failed"},

		{"tls: private key does not match public key", "", check.ConnectionPairUnusable,
			"the key does not match the certificate"},
		{"tls: failed to find any PEM data", "", check.ConnectionPairUnusable, "a file contains no PEM data"},
		{"tls: failed to find PEM block", "", check.ConnectionPairUnusable,
			"a file contains no certificate or no key"},
		{"tls: failed to find certificate PEM data", "", check.ConnectionPairUnusable,
			"the certificate's file contains no certificate"},
		{"open /", ": no such file or directory", check.ConnectionPairUnusable, "a file does not exist"},
		{"open /", ": permission denied", check.ConnectionPairUnusable, "it is not allowed to read a file"},

		{"http: server gave HTTP response to HTTPS client", "", check.ConnectionNotTLS, ""},

		{"net/http: TLS handshake timeout", "", check.ConnectionUnreachable, "the TLS handshake did not end in time"},
		{dial, ": connection refused", check.ConnectionUnreachable, "connection refused"},
		{dial, ": i/o timeout", check.ConnectionUnreachable, "timeout"},
		{dial, ": no such host", check.ConnectionUnreachable, "its host name cannot be resolved"},
		{dial, ": no route to host", check.ConnectionUnreachable, "no route to host"},
		{dial, ": network is unreachable", check.ConnectionUnreachable, "network is unreachable"},
		{"read tcp ", ": connection reset by peer", check.ConnectionUnreachable, "connection reset by peer"},
	}
}

const notForAddress = "it is not valid for the address that the kube-apiserver connects to"

// justChanged is the error of the first request after the kube-apiserver's client certificate changed: it then closes
// its connections to kubelets, this one included (Kubernetes client-go transport/cert_rotation.go).
const justChanged = "use of closed network connection"

// waiting is part of the kubelet's answer for a container that has not started
// (Kubernetes pkg/kubelet/kubelet_pods.go, validateContainerLogStatus).
const waiting = "is waiting to start"

// anonymous is the user of a request that the kubelet did not authenticate (its authentication.anonymous is enabled).
const anonymous = "user=system:anonymous"

// ofHop matches the error of the kube-apiserver's own request to a kubelet (net/http, [url.Error]), and nothing that
// happens before it, such as an error of etcd. Its group is the cause.
var ofHop = regexp.MustCompile(`^Get "https://[^"\s]+/containerLogs/[^"\s]*": (.*)$`)

// interpret returns what an answer shows. again: the request must be repeated.
func interpret(code int, status metav1.Status) (answer check.ConnectionAnswer, again bool) {
	kind := ""
	if status.Details != nil {
		kind = status.Details.Kind
	}
	switch {
	case code == http.StatusOK, code == http.StatusBadRequest && strings.Contains(status.Message, waiting),
		// The kubelet authenticated and authorized the request. One that has just started does not know the Pod yet; one
		// with enableDebuggingHandlers: false serves no logs.
		kind == ofKubelet && (code == http.StatusNotFound || code == http.StatusMethodNotAllowed):
		return check.ConnectionAnswer{State: check.ConnectionWorks}, false
	case code == http.StatusForbidden && kind == ofKubelet && strings.Contains(status.Message, anonymous):
		return check.ConnectionAnswer{
			State: check.ConnectionUnauthenticated, Why: "403 Forbidden for the anonymous user",
		}, false
	case code == http.StatusUnauthorized && kind == ofKubelet:
		return check.ConnectionAnswer{State: check.ConnectionUnauthenticated, Why: "401 Unauthorized"}, false
	case code == http.StatusUnauthorized:
		return apiAnswered(code), false
	case code == http.StatusForbidden && kind == ofKubelet:
		return check.ConnectionAnswer{State: check.ConnectionForbidden, Why: "403 Forbidden"}, false
	case code == http.StatusForbidden && kind == ofAPIServer:
		return unknown("the agent is not allowed to read its own Pod's log (403 Forbidden)", restoreRole), false
	case code == http.StatusNotFound:
		return unknown("the API server does not know the agent's Pod (404 Not Found)",
			"check --pod: it must name the agent's own Pod"), false
	case code != http.StatusInternalServerError:
		return apiAnswered(code), false
	case strings.Contains(status.Message, justChanged):
		return unknown("the kube-apiserver closed its connection, as it does when its client certificate changes", readLogs),
			true
	case strings.HasPrefix(status.Message, "Authorization error (user="):
		return unknown("the kubelet could not authorize the request in time",
			"check that the kubelet can reach an API server, and read the kubelet's log"), false
	case kind == ofKubelet: // its own words
		return unknown("the kubelet answered 500 Internal Server Error", "read the kubelet's log"), false
	}
	if hop := ofHop.FindStringSubmatch(status.Message); hop != nil {
		for _, known := range texts() {
			if strings.HasPrefix(hop[1], known.begins) && strings.Contains(hop[1], known.part) {
				return check.ConnectionAnswer{State: known.state, Why: known.why}, false
			}
		}
	}
	return unknown("the API server answered 500 Internal Server Error with a message that this version does not know",
		readLogs), false
}

// interpretLookup returns what a failed request for the EndpointSlice shows.
func interpretLookup(code int) check.ConnectionAnswer {
	if code == http.StatusForbidden {
		return unknown("the agent is not allowed to read EndpointSlice default/kubernetes (403 Forbidden)",
			"restore the agent's Role in namespace default: it needs get on endpointslices")
	}
	return apiAnswered(code)
}

// apiAnswered is an answer of the API server itself, to any request.
func apiAnswered(code int) check.ConnectionAnswer {
	switch code {
	case http.StatusUnauthorized:
		return unknown("the API server did not accept the token of the agent's ServiceAccount (401 Unauthorized)",
			"check that the agent's ServiceAccount exists, and restart the agent's Pod")
	case http.StatusTooManyRequests, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return unknown(fmt.Sprintf("the API server is overloaded or not ready (%d %s)", code, http.StatusText(code)),
			reachAPIServer)
	}
	return unknown(fmt.Sprintf("the API server answered %d %s", code, http.StatusText(code)), readLogs)
}

func unknown(why, remedy string) check.ConnectionAnswer {
	return check.ConnectionAnswer{State: check.ConnectionUnknown, Why: why, Remedy: remedy}
}
