// SPDX-License-Identifier: Apache-2.0

package connection

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/messages"
)

// TestInterpret: what each answer shows. The errors are those that Kubernetes 1.37.2 sent, with other
// names and addresses.
func TestInterpret(t *testing.T) {
	const get = `Get "https://192.0.2.7:10250/containerLogs/guard/agent/nodeagent?limitBytes=1&tailLines=1": `
	status := func(reason metav1.StatusReason, kind, message string) metav1.Status {
		s := metav1.Status{Reason: reason, Message: message}
		if kind != "" {
			s.Details = &metav1.StatusDetails{Kind: kind, Name: "agent"}
		}
		return s
	}
	failed := func(message string) metav1.Status { return status("", "", message) }
	type shown struct {
		State check.ConnectionState
		Again bool
	}
	cases := map[string]struct {
		code   int
		status metav1.Status
		want   shown
	}{
		"works": {code: 200, want: shown{State: check.ConnectionWorks}},
		"container waiting": {
			400, status("BadRequest", "", `container "nodeagent" in pod "agent" is waiting to start: ContainerCreating`),
			shown{State: check.ConnectionWorks},
		},
		"no such container":          {400, status("BadRequest", "", "container x is not valid for pod agent"), shown{}},
		"not scheduled":              {204, metav1.Status{}, shown{}},
		"the kubelet refuses":        {401, status("Unauthorized", "pods/log", "the server has asked for the client to provide credentials ( pods/log agent)"), shown{State: check.ConnectionUnauthenticated}},
		"own token":                  {401, status("Unauthorized", "", "Unauthorized"), shown{}},
		"the user is not authorized": {403, status("Forbidden", "pods/log", "Forbidden (user=someone, verb=get, resource=nodes, subresource(s)=[proxy])"), shown{State: check.ConnectionForbidden}},
		"the anonymous user":         {403, status("Forbidden", "pods/log", "Forbidden (user=system:anonymous, verb=get, resource=nodes, subresource(s)=[proxy])"), shown{State: check.ConnectionUnauthenticated}},
		"no logs served":             {405, status("MethodNotAllowed", "pods/log", "the server does not allow this method on the requested resource ( pods/log agent)"), shown{State: check.ConnectionWorks}},
		"own permission":             {403, status("Forbidden", "pods", `pods "agent" is forbidden: User "agent" cannot get resource "pods/log"`), shown{}},
		"forbidden by another":       {403, metav1.Status{}, shown{}},
		"kubelet just started":       {404, status("NotFound", "pods/log", "the server could not find the requested resource ( pods/log agent)"), shown{State: check.ConnectionWorks}},
		"no such Pod":                {404, status("NotFound", "pods", `pods "agent" not found`), shown{}},
		"too many requests":          {429, status("TooManyRequests", "", "too many requests, please try again later"), shown{}},
		"starting":                   {503, metav1.Status{}, shown{}},
		"redirect":                   {307, metav1.Status{}, shown{}},
		"no such code":               {999, metav1.Status{}, shown{}},

		"authorizer hangs": {
			500,
			status("InternalError", "", "Authorization error (user=someone, verb=get, resource=nodes, subresource(s)=[proxy])"),
			shown{},
		},
		"the kubelet's own error": {500, status("InternalError", "pods/log", "an error on the server: x509: certificate signed by unknown authority"), shown{}},

		"unknown authority": {500, failed(get + "tls: failed to verify certificate: x509: certificate signed by unknown authority"), shown{State: check.ConnectionUntrusted}},
		"no IP":             {500, failed(get + "tls: failed to verify certificate: x509: cannot validate certificate for 192.0.2.7 because it doesn't contain any IP SANs"), shown{State: check.ConnectionUntrusted}},
		"another IP":        {500, failed(get + "tls: failed to verify certificate: x509: certificate is valid for 192.0.2.8, not 192.0.2.7"), shown{State: check.ConnectionUntrusted}},
		"no names":          {500, failed(get + "tls: failed to verify certificate: x509: certificate is not valid for any names, but wanted to match master-0"), shown{State: check.ConnectionUntrusted}},
		"expired":           {500, failed(get + "tls: failed to verify certificate: x509: certificate has expired or is not yet valid: current time 2026-11-29T12:00:00Z is after 2026-11-28T12:00:00Z"), shown{State: check.ConnectionUntrusted}},
		"another x509":      {500, failed(get + "tls: failed to verify certificate: x509: certificate specifies an incompatible key usage"), shown{State: check.ConnectionUntrusted}},

		"mismatch":           {500, failed(get + "tls: private key does not match public key"), shown{State: check.ConnectionPairUnusable}},
		"no PEM":             {500, failed(get + "tls: failed to find any PEM data in certificate input"), shown{State: check.ConnectionPairUnusable}},
		"gone":               {500, failed(get + "open /etc/kubernetes/pki/client.crt: no such file or directory"), shown{State: check.ConnectionPairUnusable}},
		"not readable":       {500, failed(get + "open /etc/kubernetes/pki/client.key: permission denied"), shown{State: check.ConnectionPairUnusable}},
		"plain HTTP":         {500, failed(get + "http: server gave HTTP response to HTTPS client"), shown{State: check.ConnectionNotTLS}},
		"refused":            {500, failed(get + "dial tcp 192.0.2.7:10250: connect: connection refused"), shown{State: check.ConnectionUnreachable}},
		"handshake":          {500, failed(get + "net/http: TLS handshake timeout"), shown{State: check.ConnectionUnreachable}},
		"dropped":            {500, failed(get + "dial tcp 192.0.2.7:10250: i/o timeout"), shown{State: check.ConnectionUnreachable}},
		"no route":           {500, failed(get + "dial tcp 192.0.2.7:10250: connect: no route to host"), shown{State: check.ConnectionUnreachable}},
		"no name":            {500, failed(get + "dial tcp: lookup master-0: no such host"), shown{State: check.ConnectionUnreachable}},
		"just changed":       {500, failed(get + "write tcp 192.0.2.1:40000->192.0.2.7:10250: use of closed network connection"), shown{Again: true}},
		"etcd's certificate": {500, failed("rpc error: code = Unavailable desc = connection error: tls: failed to verify certificate: x509: certificate has expired or is not yet valid"), shown{}},
		"etcd":               {500, failed("etcdserver: permission denied"), shown{}},
		"encryption":         {500, failed(`unable to transform key "/registry/pods/guard/agent": dial unix /opt/kms.sock: connect: no such file or directory`), shown{}},
		"konnectivity":       {500, failed(get + "dial unix /etc/konnectivity-server.socket: connect: permission denied"), shown{}},
		"another error":      {500, failed(get + "remote error: tls: handshake failure"), shown{}},
		"nothing to say":     {500, metav1.Status{}, shown{}},
	}
	page := messages.Record(t, "what a kube-apiserver's answer shows about its connection")
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			answer, again := interpret(c.code, c.status)
			if d := cmp.Diff(c.want, shown{answer.State, again}); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
			needsWhy := answer.State != check.ConnectionWorks && answer.State != check.ConnectionNotTLS
			if (answer.Why != "") != needsWhy || (answer.Remedy != "") != (answer.State == check.ConnectionUnknown) {
				t.Errorf("incomplete: %+v", answer)
			}
			for _, secret := range []string{"192.0.2", "someone", "/etc/", "master-0"} {
				if strings.Contains(answer.Why, secret) {
					t.Errorf("%q quotes the answer", answer.Why)
				}
			}
			if answer.Remedy != "" {
				answer.Why += "; fix: " + answer.Remedy
			}
			page.Text(name, answer.Why)
		})
	}
}
