// SPDX-License-Identifier: Apache-2.0

package sweep

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	certificatesclient "k8s.io/client-go/kubernetes/typed/certificates/v1"
	coreclient "k8s.io/client-go/kubernetes/typed/core/v1"
	networkingclient "k8s.io/client-go/kubernetes/typed/networking/v1"
	"k8s.io/client-go/rest"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/kubeclient"
	"github.com/kubelet-https-guard/kubelet-https-guard/internal/plainyaml"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/kubeapiserver"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/pki"
)

const (
	// callTime bounds one request to the API server.
	callTime = 10 * time.Second
	// pageSize is the number of Nodes in one answer: a Node has 10 to 20 KiB, mostly names of images.
	pageSize = 100
	// requestPage is the number of certificate signing requests in one answer, requestPages the largest number of
	// answers: a request has 2 to 3 KiB, and a cluster of 5,000 Nodes that all renew has some 5,000.
	requestPage, requestPages = 500, 20
	// maxServiceRanges bounds how many ServiceCIDRs are read. A cluster has one or two.
	maxServiceRanges = 100
)

// The ConfigMaps with the kube-apiserver's configuration on OpenShift, and with the CAs that it verifies kubelets with:
// each node has a copy (cluster-kube-apiserver-operator pkg/operator/targetconfigcontroller).
const (
	configNamespace, configName, configKey = "openshift-kube-apiserver", "config", "config.yaml"
	caName, caKey                          = "kubelet-serving-ca", "ca-bundle.crt"
	// caPath is in the path of that bundle on each node.
	caPath = "/configmaps/" + caName + "/"
)

// commonAddressTypes are used if the kube-apiserver's configuration is not known. OpenShift sets InternalIP alone,
// kubeadm InternalIP, ExternalIP, Hostname. For a kube-apiserver that is known to set none see
// [kubeapiserver.DefaultKubeletAddressTypes], which begins with Hostname.
func commonAddressTypes() []string {
	types := []corev1.NodeAddressType{
		corev1.NodeInternalIP, corev1.NodeExternalIP, corev1.NodeHostName, corev1.NodeInternalDNS, corev1.NodeExternalDNS,
	}
	var names []string
	for _, t := range types {
		names = append(names, string(t))
	}
	return names
}

// ConfigMapKey names a key of a ConfigMap.
type ConfigMapKey struct{ Namespace, Name, Key string }

// String returns the ConfigMap in words, without the key.
func (k ConfigMapKey) String() string { return "ConfigMap " + k.Namespace + "/" + k.Name }

// API reads from an API server. [NewAPI] makes one.
type API struct {
	core         coreclient.CoreV1Interface
	certificates certificatesclient.CertificatesV1Interface
	networking   networkingclient.NetworkingV1Interface
	// kubeletCA has the CAs that the kube-apiserver verifies kubelets with, if its configuration does not say where they
	// are. The zero value is not known.
	kubeletCA ConfigMapKey
}

// NewAPI returns a reader that uses a configuration. kubeletCA has the CAs that the kube-apiserver verifies kubelets
// with; the zero value is not known. On OpenShift the kube-apiserver's own configuration names them.
func NewAPI(config *rest.Config, kubeletCA ConfigMapKey) (API, error) {
	own := rest.CopyConfig(config)
	// Protobuf takes a fifth of the time and memory of JSON.
	own.ContentType, own.AcceptContentTypes = "application/vnd.kubernetes.protobuf", "application/vnd.kubernetes.protobuf"
	own.QPS = -1 // a sweep makes few requests, and the API server has its own limits
	core, err := coreclient.NewForConfig(own)
	if err != nil {
		return API{}, fmt.Errorf("create a client for Nodes: %w", err)
	}
	certificates, err := certificatesclient.NewForConfig(own)
	if err != nil {
		return API{}, fmt.Errorf("create a client for certificate signing requests: %w", err)
	}
	networking, err := networkingclient.NewForConfig(own)
	if err != nil {
		return API{}, fmt.Errorf("create a client for ServiceCIDRs: %w", err)
	}
	return API{core, certificates, networking, kubeletCA}, nil
}

// Nodes implements [Cluster]. It reads them in pages and keeps little of each.
func (a API) Nodes(ctx context.Context, types []string) ([]Node, error) {
	var nodes []Node
	options := metav1.ListOptions{Limit: pageSize}
	for {
		page, err := a.page(ctx, options)
		if err != nil {
			return nil, err
		}
		for i := range page.Items {
			nodes = append(nodes, NewNode(&page.Items[i], types))
		}
		if options.Continue = page.Continue; options.Continue == "" {
			return nodes, nil
		}
	}
}

func (a API) page(ctx context.Context, options metav1.ListOptions) (*corev1.NodeList, error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	return a.core.Nodes().List(ctx, options)
}

// Node implements [Cluster]. It lists with the Node's name, which needs no other permission.
func (a API) Node(ctx context.Context, name string, types []string) (node Node, exists bool, err error) {
	list, err := a.page(ctx, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, name).String(),
	})
	if err != nil || len(list.Items) == 0 {
		return Node{}, false, err
	}
	return NewNode(&list.Items[0], types), true, nil
}

// Requests implements [Cluster]. It reads [requestPages] pages, all together within [callTime], and keeps little of
// each.
func (a API) Requests(ctx context.Context) (map[string]string, error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	newest := newestRequests{}
	options := metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector("spec.signerName", certificatesv1.KubeletServingSignerName).String(),
		Limit:         requestPage,
	}
	for range requestPages {
		page, err := a.certificates.CertificateSigningRequests().List(ctx, options)
		if err != nil {
			return newest.unsigned(), errors.New(readError(err))
		}
		for _, r := range page.Items {
			newest.add(r)
		}
		if options.Continue = page.Continue; options.Continue == "" {
			return newest.unsigned(), nil
		}
	}
	return newest.unsigned(), fmt.Errorf("there are more than %d", requestPage*requestPages)
}

// signingRequest is what is needed of a certificate signing request.
type signingRequest struct {
	name, state string // see stateOf
	created     time.Time
}

// newestRequests has the newest request of each Node.
type newestRequests map[string]signingRequest

func (n newestRequests) add(r certificatesv1.CertificateSigningRequest) {
	// The signer signs no other request (Kubernetes pkg/apis/certificates/helpers.go).
	node, isNode := strings.CutPrefix(r.Spec.Username, "system:node:")
	if r.Spec.SignerName != certificatesv1.KubeletServingSignerName || !isNode {
		return
	}
	added, known := signingRequest{name: r.Name, state: stateOf(r), created: r.CreationTimestamp.Time}, n[node]
	if known.name == "" || cmp.Or(added.created.Compare(known.created), cmp.Compare(known.name, added.name)) > 0 {
		n[node] = added
	}
}

// unsigned returns what became of the newest request of each Node, if it was not signed.
func (n newestRequests) unsigned() map[string]string {
	all := map[string]string{}
	for node, r := range n {
		if r.state != "" {
			all[node] = "its CertificateSigningRequest " + strconv.Quote(r.name) + " " + r.state
		}
	}
	return all
}

// stateOf says what became of a request; empty if it was signed.
func stateOf(r certificatesv1.CertificateSigningRequest) string {
	is := func(t certificatesv1.RequestConditionType) bool {
		return slices.ContainsFunc(r.Status.Conditions, func(c certificatesv1.CertificateSigningRequestCondition) bool {
			return c.Type == t && c.Status == corev1.ConditionTrue
		})
	}
	switch {
	case is(certificatesv1.CertificateDenied):
		return "was denied"
	case is(certificatesv1.CertificateFailed):
		return "was approved, but signing it failed"
	case len(r.Status.Certificate) > 0:
		return ""
	case is(certificatesv1.CertificateApproved):
		return "was approved, but is not signed yet"
	}
	return "is pending"
}

// Settings implements [Cluster]. On OpenShift they are the configuration that its operator stores in a ConfigMap.
// Elsewhere the ranges for Services are those of the ServiceCIDRs, which exist since Kubernetes 1.33.
func (a API) Settings(ctx context.Context) Settings {
	settings := a.configured(ctx)
	settings.GoVersion, _ = kubeclient.GoVersion(ctx, a.core.RESTClient()) // empty with an error
	if len(settings.Services) == 0 {
		settings.Services = a.serviceRanges(ctx)
	}
	return settings
}

// configured returns the settings in OpenShift's ConfigMap.
func (a API) configured(ctx context.Context) Settings {
	settings := Settings{AddressTypes: commonAddressTypes()}
	configMap, err := a.configMap(ctx, configNamespace, configName)
	switch settings.Unread = err != nil && !apierrors.IsNotFound(err); {
	case apierrors.IsNotFound(err), apierrors.IsForbidden(err):
		// Not OpenShift: the namespace does not exist, and the chart grants nothing in it. If it is, the audit reports that
		// it cannot read its configuration.
		settings.CA = a.namedCA(ctx)
		return settings
	case err != nil:
		settings.CA.WhyUnknown = new(unreadableConfig(openShiftKey(configName, configKey), readError(err)))
		return settings
	}
	text := []byte(configMap.Data[configKey])
	config, err := kubeapiserver.ParseConfig(text)
	if err != nil {
		settings.Unread = true
		settings.CA.WhyUnknown = new(unreadableConfig(openShiftKey(configName, configKey), err.Error()))
		return settings
	}
	settings.AddressTypes = kubeapiserver.DefaultKubeletAddressTypes()
	if types := config.List(kubeapiserver.KubeletPreferredAddressTypes); len(types) > 0 {
		settings.AddressTypes = types
	}
	settings.Services = servicesOf(config, text)
	settings.CA = a.configuredCA(ctx, config)
	return settings
}

// serviceRanges returns the ranges of the ServiceCIDRs; none if the API does not have them or they cannot be read.
func (a API) serviceRanges(ctx context.Context) []netip.Prefix {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	list, err := a.networking.ServiceCIDRs().List(ctx, metav1.ListOptions{Limit: maxServiceRanges})
	if err != nil {
		return nil
	}
	var ranges []netip.Prefix
	for _, item := range list.Items {
		for _, text := range item.Spec.CIDRs {
			if prefix, err := netip.ParsePrefix(text); err == nil {
				ranges = append(ranges, prefix)
			}
		}
	}
	return ranges
}

// servicesOf returns the cluster's ranges for Services: of the argument, or of OpenShift's own field. A range that
// cannot be parsed is ignored.
func servicesOf(config kubeapiserver.Config, text []byte) []netip.Prefix {
	var file struct {
		ServicesSubnet string `json:"servicesSubnet"`
	}
	_ = plainyaml.Unmarshal(text, &file) // a field of another type counts as absent; ParseConfig checked the format
	var ranges []netip.Prefix
	for _, text := range append(config.List("service-cluster-ip-range"), strings.Split(file.ServicesSubnet, ",")...) {
		if prefix, err := netip.ParsePrefix(strings.TrimSpace(text)); err == nil {
			ranges = append(ranges, prefix)
		}
	}
	return ranges
}

// configuredCA returns the CAs that the kube-apiserver's configuration names.
func (a API) configuredCA(ctx context.Context, config kubeapiserver.Config) check.KubeletCA {
	path, set := config.Value(kubeapiserver.KubeletCertificateAuthority)
	switch {
	case !set || path == "":
		return check.KubeletCA{NotConfigured: true}
	case !strings.Contains(path, caPath):
		return a.namedCA(ctx) // a file of the nodes that no known ConfigMap has
	}
	return a.readCA(ctx, openShiftKey(caName, caKey))
}

// namedCA returns the CAs in the ConfigMap that was named for them.
func (a API) namedCA(ctx context.Context) check.KubeletCA {
	if a.kubeletCA == (ConfigMapKey{}) {
		return check.KubeletCA{}
	}
	return a.readCA(ctx, a.kubeletCA)
}

func (a API) readCA(ctx context.Context, from ConfigMapKey) check.KubeletCA {
	configMap, err := a.configMap(ctx, from.Namespace, from.Name)
	if err != nil {
		return check.KubeletCA{WhyUnknown: new(unreadableConfig(from, readError(err)))}
	}
	bundle, err := pki.ParsePool([]byte(configMap.Data[from.Key]))
	if err != nil {
		return check.KubeletCA{WhyUnknown: new(unreadableConfig(from, "it has no certificate under the key "+from.Key))}
	}
	return check.KubeletCA{At: from.String(), Roots: bundle.Pool(), Unusable: bundle.Unusable}
}

func (a API) configMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	return a.core.ConfigMaps(namespace).Get(ctx, name, metav1.GetOptions{})
}

func openShiftKey(name, key string) ConfigMapKey { return ConfigMapKey{configNamespace, name, key} }

// unreadableConfig says why a ConfigMap cannot be used.
func unreadableConfig(from ConfigMapKey, why string) finding.Result {
	return finding.Result{
		Subject: finding.Subject{Kind: "ConfigMap", Namespace: from.Namespace, Name: from.Name}, Reason: finding.Unreadable,
		Message: "cannot use it to verify kubelets: " + why,
		Remedy: "grant the audit's ServiceAccount (or the user of the kubeconfig) permission to get it, " +
			"or check that the API server is available",
	}
}

// readError describes an error in words that are the same at each attempt.
func readError(err error) string {
	if reason := apierrors.ReasonForError(err); reason != "" {
		return "the API server answers " + string(reason)
	}
	return "the API server does not answer"
}
