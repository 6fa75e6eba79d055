// SPDX-License-Identifier: Apache-2.0

package check

import (
	"crypto/tls"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// The alerts of a Go server without a certificate. The first: its GetCertificate fails, as in a kubelet until its first
// certificate is signed (Kubernetes pkg/kubelet/kubelet.go, "no serving certificate available for the kubelet"). The
// second: it is configured without one (crypto/tls handshake_server_tls13.go, pickCertificate).
const (
	alertInternalError    = 80  // RFC 8446 6.2
	alertUnrecognizedName = 112 // RFC 6066 3
)

// kubeletTLS: the kubelet serves over TLS, which is the purpose of the control. A kubelet that does not respond
// may have many causes, such as a restart or a firewall, so the result is unknown then.
//
// A kubelet that ends the handshake with an alert is reachable. A kubelet without a certificate does so for every
// client, and so for the kube-apiserver. Any other alert refuses what this program offers; a kube-apiserver that was
// built with another release of Go may offer something else.
func kubeletTLS(k Kubelet, _ time.Time) []finding.Result {
	switch {
	case k.answer == nil && !k.configured:
		return single(finding.NotChecked, k.at(),
			"the kubelet was not checked, because --kubelet-address is not set", "set --kubelet-address")
	case k.answer == nil:
		return single(finding.NotObserved, k.at(),
			"the kubelet has not responded yet", "wait; if this persists, check that the kubelet runs")
	case k.answer.AssumedPort != 0 && k.known.Port != 0 && k.answer.AssumedPort != k.known.Port:
		return single(finding.KubeletUnreachable, k.answer.At,
			fmt.Sprintf("the kubelet is configured with port %d, but port %d was checked, because --kubelet-address has no port",
				k.known.Port, k.answer.AssumedPort),
			fmt.Sprintf("set the port in --kubelet-address, as in 192.0.2.1:%d", k.known.Port))
	case k.answer.NotTLS:
		return single(finding.KubeletNotTLS, k.answer.At,
			"the server on the kubelet's port does not speak TLS",
			"find out what listens on the kubelet's port; a kubelet always serves it over TLS")
	case k.answer.Alert != nil:
		return kubeletAlert(k, *k.answer.Alert)
	case k.answer.Err != nil:
		return kubeletUnreachable(k, oneLine(k.answer.Err))
	case len(k.answer.Certificates) == 0:
		return kubeletUnreachable(k, "the kubelet sent no certificate")
	}
	return nil
}

func kubeletAlert(k Kubelet, alert tls.AlertError) []finding.Result {
	name := strings.TrimPrefix(alert.Error(), "tls: ")
	ended := "the kubelet ended the TLS handshake with the alert " + strconv.Quote(name)
	if (alert == alertInternalError || alert == alertUnrecognizedName) && len(k.answer.Certificates) == 0 {
		return single(
			finding.KubeletHasNoCertificate,
			k.answer.At,
			ended+" before it sent a certificate, as a kubelet without a certificate does, "+
				"so the kube-apiserver cannot connect to it either",
			"approve its pending certificate signing request for kubernetes.io/kubelet-serving (oc get csr; oc adm "+
				"certificate approve NAME), "+
				"or, without a pending request, read the kubelet's log",
		)
	}
	return single(finding.KubeletRefusesHandshake, k.answer.At,
		ended+", so it is not known whether the kube-apiserver can connect to it",
		"compare tlsMinVersion and tlsCipherSuites in the kubelet's configuration with what the kube-apiserver offers, "+
			"and read the kubelet's log")
}

func kubeletUnreachable(k Kubelet, why string) []finding.Result {
	return single(finding.KubeletUnreachable, k.answer.At,
		"the TLS handshake with the kubelet failed: "+why,
		"check that the kubelet runs, and that the agent's Pod can reach it")
}
