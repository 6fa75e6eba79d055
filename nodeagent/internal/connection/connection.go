// SPDX-License-Identifier: Apache-2.0

// Package connection asks the kube-apiserver of this node for the last line of the agent's own log. The
// kube-apiserver gets it from the kubelet, so the answer shows whether it can connect to this kubelet with its client
// certificate. Package check decides what the answer means.
//
// The agent needs no permission on Nodes for that: only "get" on pods/log in its own namespace.
package connection

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"syscall"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
)

const (
	// interval is the time between two requests. A kube-apiserver closes an idle connection to a kubelet after 90 s
	// (k8s.io/apimachinery pkg/util/net, SetTransportDefaults), so without other requests each one needs a new
	// handshake. jitter is the largest random addition: agents that start together spread their requests.
	interval, jitter = 2 * time.Minute, 10 * time.Second
	// minInterval is the least time between two requests, however often files change.
	minInterval = 20 * time.Second
	// timeout bounds one request with its answer. A kube-apiserver gives up after 54 s if the kubelet cannot authorize
	// the request, and after 30 s if the kubelet does not respond.
	timeout = time.Minute
	// lookupTime bounds the lookup of this node's kube-apiserver.
	lookupTime = 10 * time.Second
	// maxAnswer bounds an answer, in bytes.
	maxAnswer = 64 << 10
	// failureAge is how long a failure counts while later answers show nothing. It is less than the patience with which
	// the agent reports it (9 minutes), so a failure that was seen once, before the API server stopped to answer, is not
	// reported.
	failureAge = 6 * time.Minute
	// maxTries bounds the requests for one answer: the first one after a change of the client certificate fails once.
	maxTries = 2

	// serverName is a DNS name of each kube-apiserver's serving certificate, which may not have the node's address.
	serverName = "kubernetes.default.svc"
	// endpoints is the EndpointSlice of Service default/kubernetes (Kubernetes pkg/controlplane/reconcilers).
	endpoints = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes"
)

// Options configure an [Asker].
type Options struct {
	// API says how to connect to the Service of the API servers, and how to authenticate.
	API *rest.Config
	// Namespace and Pod name the agent's own Pod.
	Namespace, Pod string
	// Node is the address of this node, which finds its kube-apiserver among the endpoints of the Service. If it is not an
	// IP address, or was never among them, the Service is asked.
	Node string
}

// Asker asks the kube-apiserver. [New] makes one.
type Asker struct {
	options Options
	path    string
	api     *url.URL

	// foundOwn: this node's kube-apiserver was found before. Then another one's answer does not count.
	foundOwn bool

	soon     chan struct{} // receives a value if the next request must not wait for the interval
	answered chan struct{}
	mu       sync.Mutex
	answer   *check.ConnectionAnswer
	at       time.Time // when the answer was observed
}

// container is the name of the agent's container in the chart.
const container = "nodeagent"

// New returns an asker. It sends no request.
func New(options Options) (*Asker, error) {
	api, _, err := rest.DefaultServerUrlFor(options.API)
	if err != nil {
		return nil, fmt.Errorf("read the address of the API server: %w", err)
	}
	if api.Scheme != "https" {
		return nil, errors.New("the API server's address does not begin with https")
	}
	query := url.Values{"container": {container}, "tailLines": {"1"}, "limitBytes": {"1"}}
	a := &Asker{
		options: options, api: api, soon: make(chan struct{}, 1), answered: make(chan struct{}, 1),
		path: "/api/v1/namespaces/" + url.PathEscape(options.Namespace) + "/pods/" + url.PathEscape(options.Pod) + "/log?" +
			query.Encode(),
	}
	_, err = a.client("")
	return a, err
}

// client returns a client for the API servers. It reads the file of their CA again: client-go keeps one transport for
// each content. Redirects are not followed: they would get the token.
func (a *Asker) client(serverName string) (*http.Client, error) {
	config := rest.CopyConfig(a.options.API)
	config.Timeout = timeout
	if serverName != "" {
		config.TLSClientConfig.ServerName = serverName
	}
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("make a client of the API server: %w", err)
	}
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return client, nil
}

// Answered receives a value after each answer.
func (a *Asker) Answered() <-chan struct{} { return a.answered }

// Answer returns the last answer, nil before the first one.
func (a *Asker) Answer() *check.ConnectionAnswer {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.answer
}

// AskSoon requests that the next request does not wait for the interval, because a file of the connection has changed.
// It does not wait for it. There are at least 20 seconds between two requests.
func (a *Asker) AskSoon() { signal(a.soon) }

// Run asks at once, then in intervals and after [Asker.AskSoon], until the context ends.
func (a *Asker) Run(ctx context.Context) error {
	for {
		begin := time.Now()
		answer := a.Ask(ctx)
		select {
		case <-ctx.Done():
			return nil // the request may have failed because of this
		default:
		}
		a.keep(answer)
		signal(a.answered)
		pause := interval + rand.N(jitter) //nolint:gosec // it only spreads requests
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
			continue
		case <-a.soon:
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(minInterval - time.Since(begin)):
		}
		// This request is for all changes until now.
		select {
		case <-a.soon:
		default:
		}
	}
}

func signal(to chan<- struct{}) {
	select {
	case to <- struct{}{}:
	default: // a value is waiting already
	}
}

// keep makes an answer the last one. One that shows nothing does not replace a failure that was observed a short time
// before: it would look as if the failure had ended.
func (a *Asker) keep(answer check.ConnectionAnswer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	if !answer.Conclusive() && a.answer != nil && a.answer.Conclusive() && a.answer.State != check.ConnectionWorks &&
		now.Sub(a.at) < failureAge {
		return
	}
	a.answer, a.at = &answer, now
}

// Ask asks now. It takes a minute or two at most.
func (a *Asker) Ask(ctx context.Context) check.ConnectionAnswer {
	throughService, err := a.client("")
	if err != nil {
		return unknown("cannot use the CA of the API server", restartPod)
	}
	client, server := throughService, a.api
	own, problem := a.ownServer(ctx, throughService)
	switch {
	case own != nil:
		if client, err = a.client(serverName); err != nil {
			return unknown("cannot use the CA of the API server", restartPod)
		}
		server, a.foundOwn = own, true
	case a.foundOwn:
		return problem
	}
	var answer check.ConnectionAnswer
	for range maxTries {
		var again bool
		if answer, again = a.ask(ctx, client, server); !again {
			break
		}
	}
	answer.ThroughService = own == nil
	return answer
}

// ownServer returns the address of this node's kube-apiserver. If it is nil, problem says why it is not known.
func (a *Asker) ownServer(ctx context.Context, client *http.Client) (own *url.URL, problem check.ConnectionAnswer) {
	notListed := unknown("this node's kube-apiserver is not among the endpoints of Service default/kubernetes",
		reachAPIServer)
	node := net.ParseIP(a.options.Node)
	if node == nil {
		return nil, notListed
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	code, body, err := get(ctx, client, a.api.Scheme+"://"+a.api.Host+endpoints)
	switch {
	case err != nil:
		return nil, notAnswered(err, lookupTime)
	case code != http.StatusOK:
		return nil, interpretLookup(code)
	}
	var slice struct {
		Endpoints []struct {
			Addresses []string `json:"addresses"`
		} `json:"endpoints"`
		Ports []struct {
			Name string `json:"name"`
			Port int    `json:"port"`
		} `json:"ports"`
	}
	if json.Unmarshal(body, &slice) != nil {
		return nil, unknown("the API server answered with an EndpointSlice that cannot be read", reachAPIServer)
	}
	for _, endpoint := range slice.Endpoints {
		for _, address := range endpoint.Addresses {
			for _, port := range slice.Ports {
				if node.Equal(net.ParseIP(address)) && port.Name == "https" && port.Port > 0 {
					return &url.URL{Scheme: "https", Host: net.JoinHostPort(address, strconv.Itoa(port.Port))}, problem
				}
			}
		}
	}
	return nil, notListed
}

// ask sends one request. again: the answer says that the client certificate has just changed.
func (a *Asker) ask(
	ctx context.Context, client *http.Client, server *url.URL,
) (answer check.ConnectionAnswer, again bool) {
	code, body, err := get(ctx, client, server.Scheme+"://"+server.Host+a.path)
	if err != nil {
		return notAnswered(err, timeout), false
	}
	var status metav1.Status
	if code != http.StatusOK {
		// A proxy may answer with anything.
		if json.Unmarshal(body, &status) != nil || status.Kind != "Status" {
			status = metav1.Status{}
		}
	}
	return interpret(code, status)
}

// get sends a request and reads the answer within the bounds.
func get(ctx context.Context, client *http.Client, address string) (code int, body []byte, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
	if err != nil {
		return 0, nil, err
	}
	request.Header.Set("Accept", "application/json, */*")
	response, err := client.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = response.Body.Close() }()
	body, err = io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	return response.StatusCode, body, err
}

// notAnswered is the answer if a request, bounded by a time, failed.
func notAnswered(err error, within time.Duration) check.ConnectionAnswer {
	return unknown("the API server did not answer: "+plainError(err, within), reachAPIServer)
}

// plainError describes an error in words of this program: the peer may choose a part of its text.
func plainError(err error, within time.Duration) string {
	if ofURL, ok := errors.AsType[*url.Error](err); ok && ofURL.Timeout() {
		return fmt.Sprintf("no answer within %s", within)
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return "its certificate is not trusted"
	}
	if number, ok := errors.AsType[syscall.Errno](err); ok {
		return number.Error()
	}
	return "the connection failed"
}
