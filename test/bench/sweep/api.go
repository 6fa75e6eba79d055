// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
)

// api is an API server with the Nodes of the kubelets, OpenShift's configuration and a Lease. It refuses everything
// else.
type api struct {
	server     *httptest.Server
	kubeconfig string
	kubelets   *kubelets
	encoder    runtime.Encoder

	mu sync.Mutex
	// lease is the Lease as it was last written, leaseType its content type.
	lease     []byte
	leaseType string
}

func newAPI(dir string, of *kubelets) (*api, error) {
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	a := &api{
		kubelets: of, kubeconfig: filepath.Join(dir, "kubeconfig"), encoder: protobuf.NewSerializer(scheme, scheme),
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v1/nodes", a.nodes)
	mux.HandleFunc("GET /api/v1/namespaces/openshift-kube-apiserver/configmaps/{name}", a.configMap)
	const requests = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
	mux.HandleFunc("GET "+requests, func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, metav1.List{TypeMeta: metav1.TypeMeta{
			APIVersion: "certificates.k8s.io/v1", Kind: "CertificateSigningRequestList",
		}})
	})
	const leases = "/apis/coordination.k8s.io/v1/namespaces/guard/leases"
	mux.HandleFunc("GET "+leases+"/{name}", a.getLease)
	mux.HandleFunc("POST "+leases, a.putLease)
	mux.HandleFunc("PUT "+leases+"/{name}", a.putLease)
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, http.StatusForbidden, metav1.StatusReasonForbidden)
	})
	a.server = httptest.NewServer(mux)
	return a, os.WriteFile(a.kubeconfig, fmt.Appendf(nil, `apiVersion: v1
kind: Config
current-context: bench
contexts: [{name: bench, context: {cluster: bench, user: bench}}]
clusters: [{name: bench, cluster: {server: %q}}]
users: [{name: bench, user: {token: none}}]
`, a.server.URL), 0o600)
}

func (a *api) close() { a.server.Close() }

func answer(w http.ResponseWriter, code int, object any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(object) // the client may be gone
}

func refuse(w http.ResponseWriter, code int, reason metav1.StatusReason) {
	answer(w, code, metav1.Status{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: metav1.StatusFailure,
		Code: int32(code), Reason: reason,
	})
}

// nodes answers with a page of Nodes, as protobuf, as an API server does.
func (a *api) nodes(w http.ResponseWriter, r *http.Request) {
	list := corev1.NodeList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "NodeList"}}
	query := r.URL.Query()
	if name, one := strings.CutPrefix(query.Get("fieldSelector"), "metadata.name="); one {
		i, _ := strconv.Atoi(strings.TrimPrefix(name, "worker-"))
		list.Items = append(list.Items, node(i))
	} else {
		from, _ := strconv.Atoi(query.Get("continue")) // empty at first
		limit, _ := strconv.Atoi(query.Get("limit"))
		to := min(from+limit, a.kubelets.count)
		for i := from; i < to; i++ {
			list.Items = append(list.Items, node(i))
		}
		if to < a.kubelets.count {
			list.Continue = strconv.Itoa(to)
		}
	}
	w.Header().Set("Content-Type", "application/vnd.kubernetes.protobuf")
	_ = a.encoder.Encode(&list, w) // the client may be gone
}

// node returns a Node as large as usual: most of it are the names of images.
func node(i int) corev1.Node {
	n := corev1.Node{}
	n.Name, n.UID = nameOf(i), "00000000-0000-0000-0000-000000000000"
	n.Labels = map[string]string{"kubernetes.io/os": "linux", "node-role.kubernetes.io/worker": ""}
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
	n.Status.Addresses = []corev1.NodeAddress{
		{Type: corev1.NodeInternalIP, Address: addressOf(i).String()}, {Type: corev1.NodeHostName, Address: n.Name},
	}
	n.Status.DaemonEndpoints.KubeletEndpoint.Port = port
	for image := range 50 { // the kubelet's limit (--node-status-max-images)
		n.Status.Images = append(n.Status.Images, corev1.ContainerImage{
			Names: []string{
				fmt.Sprintf("quay.io/openshift-release-dev/ocp-v4.0-art-dev@sha256:%064d", image),
				fmt.Sprintf("registry.example.com/team-%d/application-with-a-long-name:v1.2.3-%064d", i, image),
			},
			SizeBytes: 1 << 30,
		})
	}
	return n
}

func (a *api) configMap(w http.ResponseWriter, r *http.Request) {
	data := map[string]map[string]string{
		"config": {"config.yaml": `{"kind":"KubeAPIServerConfig","servicesSubnet":"172.30.0.0/16","apiServerArguments":{` +
			`"kubelet-preferred-address-types":["InternalIP"],"kubelet-certificate-authority":` +
			`["/etc/kubernetes/static-pod-resources/configmaps/kubelet-serving-ca/ca-bundle.crt"]}}`},
		"kubelet-serving-ca": {"ca-bundle.crt": string(a.kubelets.ca.PEM())},
	}[r.PathValue("name")]
	answer(w, http.StatusOK, corev1.ConfigMap{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"}, Data: data})
}

func (a *api) getLease(w http.ResponseWriter, _ *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.lease == nil {
		refuse(w, http.StatusNotFound, metav1.StatusReasonNotFound)
		return
	}
	w.Header().Set("Content-Type", a.leaseType)
	_, _ = w.Write(a.lease) // the client may be gone
}

func (a *api) putLease(w http.ResponseWriter, r *http.Request) {
	lease, err := io.ReadAll(r.Body)
	if err != nil {
		refuse(w, http.StatusBadRequest, metav1.StatusReasonBadRequest)
		return
	}
	a.mu.Lock()
	a.lease, a.leaseType = lease, r.Header.Get("Content-Type")
	a.mu.Unlock()
	w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
	_, _ = w.Write(lease) // the client may be gone
}
