// SPDX-License-Identifier: Apache-2.0

package sweep

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// server is an API server with some Nodes, ConfigMaps of openshift-kube-apiserver and certificate signing requests.
type server struct {
	nodes      []corev1.Node
	configMaps map[string]map[string]string
	requests   []certificatesv1.CertificateSigningRequest
	ranges     []string       // of ServiceCIDRs, one for each; nil: the API does not have them
	refuse     map[string]int // paths and their status
	queries    []string
	kubeletCA  ConfigMapKey
}

func (s *server) start(t *testing.T) API {
	t.Helper()
	running := httptest.NewServer(s)
	t.Cleanup(running.Close)
	api, err := NewAPI(&rest.Config{Host: running.URL}, s.kubeletCA)
	if err != nil {
		t.Fatal(err)
	}
	return api
}

// ServeHTTP implements [http.Handler].
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.queries = append(s.queries, r.Method+" "+r.URL.Path+" "+r.URL.Query().Get("fieldSelector"))
	w.Header().Set("Content-Type", "application/json")
	write := func(code int, object any) {
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(object)
	}
	fail := func(code int, reason metav1.StatusReason) {
		write(code, metav1.Status{
			TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: metav1.StatusFailure,
			Code: int32(code), Reason: reason,
		})
	}
	for path, code := range s.refuse {
		if strings.HasSuffix(r.URL.Path, path) {
			reason := metav1.StatusReasonForbidden
			if code != http.StatusForbidden {
				reason = metav1.StatusReasonInternalError
			}
			fail(code, reason)
			return
		}
	}
	switch path := r.URL.Path; {
	case path == "/api/v1/nodes":
		list := corev1.NodeList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "NodeList"}, Items: s.nodes}
		if name, one := strings.CutPrefix(r.URL.Query().Get("fieldSelector"), "metadata.name="); one {
			list.Items = nil
			for _, n := range s.nodes {
				if n.Name == name {
					list.Items = append(list.Items, n)
				}
			}
			write(http.StatusOK, list)
			return
		}
		list.Items, list.Continue = pageOf(s.nodes, r)
		write(http.StatusOK, list)
	case path == "/apis/networking.k8s.io/v1/servicecidrs" && s.ranges != nil:
		list := networkingv1.ServiceCIDRList{
			TypeMeta: metav1.TypeMeta{APIVersion: "networking.k8s.io/v1", Kind: "ServiceCIDRList"},
		}
		for _, cidrs := range s.ranges {
			list.Items = append(list.Items, networkingv1.ServiceCIDR{
				Spec: networkingv1.ServiceCIDRSpec{CIDRs: strings.Split(cidrs, ",")},
			})
		}
		write(http.StatusOK, list)
	case path == "/api/v1/namespaces/kube-system/configmaps/kubelet-ca":
		write(http.StatusOK, corev1.ConfigMap{
			TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"}, Data: s.configMaps["kubelet-ca"],
		})
	case strings.HasPrefix(path, "/api/v1/namespaces/openshift-kube-apiserver/configmaps/"):
		data, exists := s.configMaps[path[strings.LastIndex(path, "/")+1:]]
		if !exists {
			fail(http.StatusNotFound, metav1.StatusReasonNotFound)
			return
		}
		write(http.StatusOK, corev1.ConfigMap{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"}, Data: data})
	case path == "/apis/certificates.k8s.io/v1/certificatesigningrequests":
		list := certificatesv1.CertificateSigningRequestList{
			TypeMeta: metav1.TypeMeta{APIVersion: "certificates.k8s.io/v1", Kind: "CertificateSigningRequestList"},
		}
		list.Items, list.Continue = pageOf(s.requests, r)
		write(http.StatusOK, list)
	default:
		fail(http.StatusNotFound, metav1.StatusReasonNotFound)
	}
}

// pageOf returns the page of a list that a request asks for, and where the next one begins.
func pageOf[T any](all []T, r *http.Request) (page []T, next string) {
	from, _ := strconv.Atoi(r.URL.Query().Get("continue"))
	limit, _ := strconv.Atoi(r.URL.Query().Get("limit"))
	to := min(from+limit, len(all))
	if to < len(all) {
		next = strconv.Itoa(to)
	}
	return all[from:to], next
}

// TestNodes: all Nodes are read, in pages, and one by its name.
func TestNodes(t *testing.T) {
	s := &server{}
	for i := range 2*pageSize + 1 {
		n := *ready("InternalIP=192.0.2.7")
		n.Name = fmt.Sprintf("n-%d", i)
		s.nodes = append(s.nodes, n)
	}
	api := s.start(t)
	nodes, err := api.Nodes(t.Context(), commonAddressTypes())
	if err != nil || len(nodes) != len(s.nodes) || len(s.queries) != 3 {
		t.Errorf("%d Nodes in %d requests, %v", len(nodes), len(s.queries), err)
	}
	node, exists, err := api.Node(t.Context(), "n-7", commonAddressTypes())
	if err != nil || !exists || node.Name != "n-7" || node.Host != "192.0.2.7" {
		t.Errorf("one Node: %+v, %t, %v", node, exists, err)
	}
	if _, exists, err := api.Node(t.Context(), "gone", nil); exists || err != nil {
		t.Errorf("a Node that does not exist: %t, %v", exists, err)
	}
	s.refuse = map[string]int{"/nodes": http.StatusForbidden}
	if _, err := api.Nodes(t.Context(), nil); err == nil {
		t.Error("no error without permission")
	}
}

// TestRequests: the newest request of each Node counts, and only those of the kubelets' signer.
func TestRequests(t *testing.T) {
	const serving = certificatesv1.KubeletServingSignerName
	request := func(
		name, user, signer string, minute int, conditions ...certificatesv1.RequestConditionType,
	) certificatesv1.CertificateSigningRequest {
		r := certificatesv1.CertificateSigningRequest{}
		r.Name, r.Spec.Username, r.Spec.SignerName = name, user, signer
		r.CreationTimestamp = metav1.NewTime(pkitest.Now().Add(time.Duration(minute) * time.Minute))
		for _, c := range conditions {
			r.Status.Conditions = append(r.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{
				Type: c, Status: corev1.ConditionTrue, Message: "MARKER",
			})
		}
		return r
	}
	signed := request("csr-4", "system:node:renewed", serving, 9, certificatesv1.CertificateApproved)
	signed.Status.Certificate = []byte("certificate")
	s := &server{requests: []certificatesv1.CertificateSigningRequest{
		request("csr-1", "system:node:new", serving, 1),
		request("csr-2", "system:node:denied", serving, 1),
		request("csr-3", "system:node:denied", serving, 2, certificatesv1.CertificateDenied),
		request("csr-0", "system:node:renewed", serving, 1), signed,
		request("csr-5", "system:node:waiting", serving, 1, certificatesv1.CertificateApproved),
		request("csr-6", "system:node:failed", serving, 1,
			certificatesv1.CertificateApproved, certificatesv1.CertificateFailed),
		request("csr-7", "system:node:client", certificatesv1.KubeAPIServerClientKubeletSignerName, 1),
		request("csr-8", "mallory", serving, 1),
	}}
	got, err := s.start(t).Requests(t.Context())
	if err != nil {
		t.Error(err)
	}
	want := map[string]string{
		"new":     `its CertificateSigningRequest "csr-1" is pending`,
		"denied":  `its CertificateSigningRequest "csr-3" was denied`,
		"waiting": `its CertificateSigningRequest "csr-5" was approved, but is not signed yet`,
		"failed":  `its CertificateSigningRequest "csr-6" was approved, but signing it failed`,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	const list = "GET /apis/certificates.k8s.io/v1/certificatesigningrequests spec.signerName=" + serving
	if s.queries[0] != list {
		t.Errorf("the request is %q", s.queries[0])
	}
	s.refuse = map[string]int{"/certificatesigningrequests": http.StatusForbidden}
	if got, err := s.start(t).Requests(t.Context()); len(got) != 0 || err == nil {
		t.Errorf("without permission: %v, %v", got, err)
	}
}

// TestManyRequests: requests are read in pages, and a list that is too long is cut, with an error. A newer request that
// comes first counts.
func TestManyRequests(t *testing.T) {
	for name, c := range map[string]struct {
		requests, queries int
		cut               bool
	}{
		"two pages":          {requestPage + 1, 2, false},
		"as many as can be":  {requestPage * requestPages, requestPages, false},
		"more than are read": {requestPage*requestPages + 1, requestPages, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := &server{}
			for i := range c.requests {
				r := certificatesv1.CertificateSigningRequest{}
				r.Name, r.Spec.SignerName = fmt.Sprintf("csr-%05d", i), certificatesv1.KubeletServingSignerName
				r.Spec.Username = fmt.Sprintf("system:node:n-%d", i)
				r.CreationTimestamp = metav1.NewTime(pkitest.Now())
				s.requests = append(s.requests, r)
			}
			s.requests[0].Spec.Username = s.requests[requestPage].Spec.Username
			s.requests[0].CreationTimestamp = metav1.NewTime(pkitest.Now().Add(time.Minute))
			s.requests[0].Status.Certificate = []byte("certificate")
			got, err := s.start(t).Requests(t.Context())
			want := min(c.requests, requestPage*requestPages) - 2 // one Node has two, and the newest is signed
			if len(got) != want || (err != nil) != c.cut || len(s.queries) != c.queries {
				t.Errorf("%d Nodes, want %d; %d queries, want %d; %v", len(got), want, len(s.queries), c.queries, err)
			}
		})
	}
}

// TestSettings: the settings are those of OpenShift's ConfigMaps, as far as they can be read.
func TestSettings(t *testing.T) {
	bundle := map[string]string{"ca-bundle.crt": string(pkitest.NewCA("csr-signer").PEM())}
	config := func(text string) map[string]string {
		return map[string]string{"config.yaml": `{"apiVersion":"kubecontrolplane.config.openshift.io/v1","kind":"KubeAPIServerConfig",` + text + `}`}
	}
	const caFile = `"kubelet-certificate-authority":["/etc/kubernetes/static-pod-resources/configmaps/kubelet-serving-ca/ca-bundle.crt"]`
	openshift := config(`"servicesSubnet":"172.30.0.0/16","apiServerArguments":{` + caFile + `,"kubelet-preferred-address-types":["InternalIP"],
		"service-cluster-ip-range":["172.30.0.0/16,fd02::/112"]}`)
	type seen struct {
		Unread        bool
		Types         string
		Services      string
		Roots         bool
		NotConfigured bool
		Unusable      bool
		WhyUnknown    finding.Reason
	}
	all := strings.Join(commonAddressTypes(), " ")
	const unset = "Hostname InternalDNS InternalIP ExternalDNS ExternalIP" // the kube-apiserver's own default
	named := ConfigMapKey{"kube-system", "kubelet-ca", "ca.crt"}
	cases := map[string]struct {
		configMaps map[string]map[string]string
		refuse     map[string]int
		want       seen
		ranges     []string
		kubeletCA  ConfigMapKey
	}{
		"not OpenShift, ServiceCIDRs": {
			want:   seen{Types: all, Services: "10.96.0.0/12 fd02::/112 10.112.0.0/16"},
			ranges: []string{"10.96.0.0/12,fd02::/112", "x,10.112.0.0/16"},
		},
		"not OpenShift, without permission in its namespace": {
			refuse: map[string]int{"/config": http.StatusForbidden}, ranges: []string{"10.96.0.0/12"},
			want: seen{Unread: true, Types: all, Services: "10.96.0.0/12"},
		},
		"ServiceCIDRs forbidden": {
			refuse: map[string]int{"/servicecidrs": http.StatusForbidden}, ranges: []string{"10.96.0.0/12"},
			want: seen{Types: all},
		},
		"OpenShift, which says the ranges itself": {
			configMaps: map[string]map[string]string{"config": openshift, "kubelet-serving-ca": bundle},
			ranges:     []string{"10.96.0.0/12"},
			want:       seen{Types: "InternalIP", Services: "172.30.0.0/16 fd02::/112 172.30.0.0/16", Roots: true},
		},
		"not OpenShift, a named CA": {
			configMaps: map[string]map[string]string{"kubelet-ca": {"ca.crt": bundle["ca-bundle.crt"]}}, kubeletCA: named,
			want: seen{Types: all, Roots: true},
		},
		"a named CA without the key": {
			configMaps: map[string]map[string]string{"kubelet-ca": bundle}, kubeletCA: named,
			want: seen{Types: all, WhyUnknown: finding.Unreadable},
		},
		"a named CA, forbidden": {
			refuse: map[string]int{"/kubelet-ca": http.StatusForbidden}, kubeletCA: named,
			want: seen{Types: all, WhyUnknown: finding.Unreadable},
		},
		"a named CA, and no CA configured": {
			configMaps: map[string]map[string]string{
				"config": config(`"servicesSubnet":"172.30.0.0/16"`), "kubelet-ca": {"ca.crt": bundle["ca-bundle.crt"]},
			},
			kubeletCA: named, want: seen{Types: unset, Services: "172.30.0.0/16", NotConfigured: true},
		},
		"a named CA, and another one configured": {
			configMaps: map[string]map[string]string{
				"config":     config(`"apiServerArguments":{"kubelet-certificate-authority":["/other"]}`),
				"kubelet-ca": {"ca.crt": bundle["ca-bundle.crt"]},
			},
			kubeletCA: named, want: seen{Types: unset, Roots: true},
		},
		"OpenShift": {
			configMaps: map[string]map[string]string{"config": openshift, "kubelet-serving-ca": bundle},
			want:       seen{Types: "InternalIP", Services: "172.30.0.0/16 fd02::/112 172.30.0.0/16", Roots: true},
		},
		"not OpenShift":                 {want: seen{Types: all}},
		"not OpenShift, no permissions": {refuse: map[string]int{"": http.StatusForbidden}, want: seen{Unread: true, Types: all}},
		"an API server that fails": {
			refuse: map[string]int{"/config": http.StatusInternalServerError},
			want:   seen{Unread: true, Types: all, WhyUnknown: finding.Unreadable},
		},
		"no CA configured": {
			configMaps: map[string]map[string]string{"config": config(`"servicesSubnet":"172.30.0.0/16"`), "kubelet-serving-ca": bundle},
			want:       seen{Types: unset, Services: "172.30.0.0/16", NotConfigured: true},
		},
		"another CA configured": {
			configMaps: map[string]map[string]string{"config": config(`"apiServerArguments":{"kubelet-certificate-authority":["/other"]}`), "kubelet-serving-ca": bundle},
			want:       seen{Types: unset},
		},
		"no bundle": {
			configMaps: map[string]map[string]string{"config": openshift},
			want:       seen{Types: "InternalIP", Services: "172.30.0.0/16 fd02::/112 172.30.0.0/16", WhyUnknown: finding.Unreadable},
		},
		"a CA that cannot be used": {
			configMaps: map[string]map[string]string{"config": openshift, "kubelet-serving-ca": {
				"ca-bundle.crt": bundle["ca-bundle.crt"] + string(pkitest.Algorithms()["Ed448"].Certificate("1.3.101.113")),
			}},
			want: seen{Types: "InternalIP", Services: "172.30.0.0/16 fd02::/112 172.30.0.0/16", Roots: true, Unusable: true},
		},
		"an empty bundle": {
			configMaps: map[string]map[string]string{"config": openshift, "kubelet-serving-ca": {"ca-bundle.crt": "x"}},
			want:       seen{Types: "InternalIP", Services: "172.30.0.0/16 fd02::/112 172.30.0.0/16", WhyUnknown: finding.Unreadable},
		},
		"bundle forbidden": {
			configMaps: map[string]map[string]string{"config": openshift, "kubelet-serving-ca": bundle},
			refuse:     map[string]int{"/kubelet-serving-ca": http.StatusForbidden},
			want:       seen{Types: "InternalIP", Services: "172.30.0.0/16 fd02::/112 172.30.0.0/16", WhyUnknown: finding.Unreadable},
		},
		"unparsable": {
			configMaps: map[string]map[string]string{"config": {"config.yaml": "]"}},
			want:       seen{Unread: true, Types: all, WhyUnknown: finding.Unreadable},
		},
		"ranges that cannot be parsed": {
			configMaps: map[string]map[string]string{"config": config(`"servicesSubnet":7,"apiServerArguments":{"service-cluster-ip-range":["x,172.30.0.0/16"]}`)},
			want:       seen{Types: unset, Services: "172.30.0.0/16", NotConfigured: true},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			settings := (&server{
				configMaps: c.configMaps, refuse: c.refuse, ranges: c.ranges, kubeletCA: c.kubeletCA,
			}).start(t).Settings(t.Context())
			got := seen{
				Unread: settings.Unread, Types: strings.Join(settings.AddressTypes, " "), Services: join(settings.Services),
				Roots: settings.CA.Roots != nil, NotConfigured: settings.CA.NotConfigured,
				Unusable: settings.CA.Unusable != nil,
			}
			if settings.CA.WhyUnknown != nil {
				got.WhyUnknown = settings.CA.WhyUnknown.Reason
			}
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func join(prefixes []netip.Prefix) string {
	var all []string
	for _, p := range prefixes {
		all = append(all, p.String())
	}
	return strings.Join(all, " ")
}
