// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
)

// headerTime bounds how long a client may take for its request.
const headerTime = 10 * time.Second

// api is an API server with some objects, which lists and watches them as JSON, and refuses dry runs on the decoy as
// the guard does. It listens at several addresses: each is an API server of the cluster.
type api struct {
	server     *http.Server
	kubeconfig string
	addresses  []netip.AddrPort

	mu      sync.Mutex
	version int
	// objects and watches are those of a resource, such as /api/v1/secrets.
	objects map[string][]*unstructured.Unstructured
	watches map[*watching]bool
	// lease is the Lease as it was last written, leaseType its content type.
	lease     []byte
	leaseType string
	// dryRuns counts them by the address that got them.
	dryRuns map[string]int
}

// watching is a watch.
type watching struct {
	selection
	events chan []byte
}

// selection is what a request selects.
type selection struct {
	resource, namespace string
	names               fields.Selector
	labels              labels.Selector
}

func (s selection) has(o *unstructured.Unstructured) bool {
	return (s.namespace == "" || s.namespace == o.GetNamespace()) &&
		s.names.Matches(fields.Set{metav1.ObjectNameField: o.GetName()}) && s.labels.Matches(labels.Set(o.GetLabels()))
}

// newAPI starts the API servers, on loopback addresses.
func newAPI(ctx context.Context, dir string, servers int) (*api, error) {
	now := time.Now()
	ca := pkitest.NewCAAround("kube-apiserver-signer", now)
	request := pkitest.Request{
		DNSNames: []string{"kubernetes.default.svc"},
	}.Valid(now.Add(-time.Hour), now.AddDate(0, 0, 1))
	a := &api{
		kubeconfig: dir + "/kubeconfig", version: 1, objects: map[string][]*unstructured.Unstructured{},
		watches: map[*watching]bool{}, dryRuns: map[string]int{},
	}
	address := netip.MustParseAddr("127.0.0.1")
	var listeners []net.Listener
	port := uint16(0)
	for range servers {
		listener, err := new(net.ListenConfig).Listen(ctx, "tcp4", netip.AddrPortFrom(address, port).String())
		if err != nil {
			return nil, err
		}
		listening, _ := listener.Addr().(*net.TCPAddr) // a TCP listener has no other
		port = listening.AddrPort().Port()
		a.addresses = append(a.addresses, netip.AddrPortFrom(address, port))
		request.IPs = append(request.IPs, net.IP(address.AsSlice()))
		listeners = append(listeners, listener)
		address = address.Next()
	}
	serving := ca.Issue(request)
	pair, err := tls.X509KeyPair(serving.Certificate, serving.Key)
	if err != nil {
		return nil, err
	}
	a.server = &http.Server{
		Handler: a.handler(), ReadHeaderTimeout: headerTime, ErrorLog: log.New(io.Discard, "", 0),
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12},
		// As many streams in a connection as an API server allows.
		HTTP2: &http.HTTP2Config{MaxConcurrentStreams: 100},
	}
	for _, listener := range listeners {
		go func() { _ = a.server.ServeTLS(listener, "", "") }() // until close
	}
	return a, os.WriteFile(a.kubeconfig, fmt.Appendf(nil, `apiVersion: v1
kind: Config
current-context: bench
contexts: [{name: bench, context: {cluster: bench, user: bench}}]
clusters: [{name: bench, cluster: {server: "https://%s", certificate-authority-data: %s}}]
users: [{name: bench, user: {token: none}}]
`, a.addresses[0], base64.StdEncoding.EncodeToString(ca.PEM())), 0o600)
}

func (a *api) close() { _ = a.server.Close() }

func (a *api) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /version", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, map[string]string{"goVersion": "go1.27.4"})
	})
	mux.HandleFunc("GET /apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes", a.endpoints)
	mux.HandleFunc("PATCH /api/v1/namespaces/guard/secrets/decoy", a.dryRun)
	mux.HandleFunc("POST /apis/events.k8s.io/v1/namespaces/{namespace}/events", echo)
	const leases = "/apis/coordination.k8s.io/v1/namespaces/guard/leases"
	mux.HandleFunc("GET "+leases+"/{name}", a.getLease)
	mux.HandleFunc("POST "+leases, a.putLease)
	mux.HandleFunc("PUT "+leases+"/{name}", a.putLease)
	mux.HandleFunc("GET /", a.list)
	return mux
}

func answer(w http.ResponseWriter, code int, object any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(object) // the client may be gone
}

func refuse(w http.ResponseWriter, code int, reason metav1.StatusReason, message string) {
	answer(w, code, metav1.Status{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: metav1.StatusFailure,
		Code: int32(code), Reason: reason, Message: message,
	})
}

func echo(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusCreated)
	_, _ = io.Copy(w, r.Body) // the client may be gone
}

// endpoints answers with the EndpointSlice of all API servers.
func (a *api) endpoints(w http.ResponseWriter, _ *http.Request) {
	var endpoints []any
	for _, address := range a.addresses {
		endpoints = append(endpoints, map[string]any{"addresses": []string{address.Addr().String()}})
	}
	answer(w, http.StatusOK, map[string]any{
		"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4", "endpoints": endpoints,
		"ports": []any{map[string]any{"port": a.addresses[0].Port()}},
	})
}

// dryRun refuses as the policy does, or as the webhook does.
func (a *api) dryRun(w http.ResponseWriter, r *http.Request) {
	patch, _ := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	address, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	a.mu.Lock()
	a.dryRuns[address.String()]++
	a.mu.Unlock()
	message := `admission webhook "` + webhookName + `" denied the request: not a certificate [kubelet-https-guard/webhook]`
	if strings.Contains(string(patch), "immutable") {
		message = "ValidatingAdmissionPolicy '" + policyName + "' with binding '" + policyName +
			"' denied request: immutable [kubelet-https-guard/policy]"
	}
	refuse(w, http.StatusForbidden, metav1.StatusReasonForbidden, `secrets "decoy" is forbidden: `+message)
}

// selected parses a request for a list. ok is false if this API is not served.
func (a *api) selected(r *http.Request) (s selection, ok bool) {
	path := r.URL.Path
	if before, after, found := strings.Cut(path, "/namespaces/"); found {
		namespace, resource, _ := strings.Cut(after, "/")
		path, s.namespace = before+"/"+resource, namespace
	}
	s.resource = path
	query := r.URL.Query()
	names, err := fields.ParseSelector(query.Get("fieldSelector"))
	byLabel, labelErr := labels.Parse(query.Get("labelSelector"))
	s.names, s.labels = names, byLabel
	isBuiltIn := strings.HasPrefix(path, "/api/v1/") || strings.Contains(path, ".k8s.io/")
	return s, err == nil && labelErr == nil && isBuiltIn
}

// list lists in pages, or watches.
func (a *api) list(w http.ResponseWriter, r *http.Request) {
	s, ok := a.selected(r)
	if !ok {
		refuse(w, http.StatusNotFound, metav1.StatusReasonNotFound, "the server could not find the requested resource")
		return
	}
	query := r.URL.Query()
	if query.Get("watch") != "" {
		a.watch(w, r, s)
		return
	}
	a.mu.Lock()
	var items []*unstructured.Unstructured
	for _, o := range a.objects[s.resource] {
		if s.has(o) {
			items = append(items, o)
		}
	}
	metadata := map[string]any{"resourceVersion": strconv.Itoa(a.version)}
	a.mu.Unlock()
	from, _ := strconv.Atoi(query.Get("continue")) // empty at first
	items = items[min(from, len(items)):]
	if limit, _ := strconv.Atoi(query.Get("limit")); limit > 0 && limit < len(items) {
		items, metadata["continue"] = items[:limit], strconv.Itoa(from+limit)
	}
	list := map[string]any{"apiVersion": "v1", "kind": "List", "metadata": metadata, "items": items}
	if items == nil {
		list["items"] = []any{}
	}
	answer(w, http.StatusOK, list)
}

func (a *api) watch(w http.ResponseWriter, r *http.Request, s selection) {
	seconds, _ := strconv.Atoi(r.URL.Query().Get("timeoutSeconds"))
	own := &watching{selection: s, events: make(chan []byte, 10)}
	a.mu.Lock()
	a.watches[own] = true
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		delete(a.watches, own)
		a.mu.Unlock()
	}()
	w.Header().Set("Content-Type", "application/json")
	control := http.NewResponseController(w)
	_ = control.Flush() // the client may be gone
	ended := time.NewTimer(time.Duration(max(seconds, 1)) * time.Second)
	defer ended.Stop()
	for {
		select {
		case <-r.Context().Done():
			return
		case <-ended.C:
			return
		case event := <-own.events:
			if _, err := w.Write(event); err != nil || control.Flush() != nil {
				return
			}
		}
	}
}

// put stores an object of a resource, and sends it to the watches that select it.
func (a *api) put(resource string, object map[string]any) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.version++
	o := &unstructured.Unstructured{Object: object}
	o.SetResourceVersion(strconv.Itoa(a.version))
	kind := "ADDED"
	for i, stored := range a.objects[resource] {
		if stored.GetNamespace() == o.GetNamespace() && stored.GetName() == o.GetName() {
			kind, a.objects[resource][i] = "MODIFIED", o
		}
	}
	if kind == "ADDED" {
		a.objects[resource] = append(a.objects[resource], o)
	}
	event, err := json.Marshal(map[string]any{"type": kind, "object": o})
	if err != nil {
		return err
	}
	for w := range a.watches {
		if w.resource != resource || !w.has(o) {
			continue
		}
		select {
		case w.events <- append(event, '\n'):
		default:
			return errors.New("a watch does not read its events")
		}
	}
	return nil
}

// provenServers is how many API servers got both dry runs.
func (a *api) provenServers() (count int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, n := range a.dryRuns {
		if n >= 2 {
			count++
		}
	}
	return count
}

// watchCount is the number of watches.
func (a *api) watchCount() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.watches)
}

func (a *api) getLease(w http.ResponseWriter, _ *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.lease == nil {
		refuse(w, http.StatusNotFound, metav1.StatusReasonNotFound, "not found")
		return
	}
	w.Header().Set("Content-Type", a.leaseType)
	_, _ = w.Write(a.lease) // the client may be gone
}

func (a *api) putLease(w http.ResponseWriter, r *http.Request) {
	lease, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		refuse(w, http.StatusBadRequest, metav1.StatusReasonBadRequest, err.Error())
		return
	}
	a.mu.Lock()
	a.lease, a.leaseType = lease, r.Header.Get("Content-Type")
	a.mu.Unlock()
	w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
	_, _ = w.Write(lease) // the client may be gone
}
