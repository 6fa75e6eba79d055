// SPDX-License-Identifier: Apache-2.0

package connection_test

import (
	"crypto/x509"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/rig"
)

// The files of a kubelet client pair, as findings name them.
const (
	certificateAt = "/etc/kubernetes/static-pod-resources/kube-apiserver-certs/secrets/kubelet-client/tls.crt"
	keyAt         = "/etc/kubernetes/static-pod-resources/kube-apiserver-certs/secrets/kubelet-client/tls.key"
)

// TestConnection is all of it. In each part, the states that take minutes are made at the same time.
func TestConnection(t *testing.T) {
	for _, part := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"kube-apiserver", servers},
		{"kubelet that does not reload the names of its client CAs", withOldNames},
		{"kubelet", kubeletStates},
	} {
		t.Run(part.name, part.run)
	}
}

// brokenPair is a state of the files of the kubelet client pair.
type brokenPair struct {
	name  string
	files func(ca *pkitest.CA) map[string][]byte
	// inFiles is what the agent finds in the files, within seconds, and connection what it finds by the connection.
	inFiles    []string
	connection finding.Reason
}

func brokenPairs() []brokenPair {
	issue := func(change func(*pkitest.Request)) func(*pkitest.CA) map[string][]byte {
		return func(ca *pkitest.CA) map[string][]byte {
			now := time.Now()
			request := pkitest.KubeletClient().Valid(now.Add(-time.Hour), now.AddDate(0, 0, 30))
			change(&request)
			return pairFiles(ca.Issue(request))
		}
	}
	with := func(name string, data []byte) func(*pkitest.CA) map[string][]byte {
		return func(ca *pkitest.CA) map[string][]byte {
			files := validPair(ca)
			if files[name] = data; data == nil {
				delete(files, name)
			}
			return files
		}
	}
	const refused, unusable = finding.ClientCertificateNotAccepted, finding.ClientCertificateUnusable
	return []brokenPair{
		{"expired", issue(func(r *pkitest.Request) {
			*r = r.Valid(time.Now().AddDate(0, 0, -30), time.Now().Add(-time.Minute))
		}), []string{active(finding.CertificateExpired, certificateAt)}, refused},
		{"not yet valid", issue(func(r *pkitest.Request) {
			*r = r.Valid(time.Now().Add(time.Hour), time.Now().AddDate(0, 0, 30))
		}), []string{active(finding.CertificateNotYetValid, certificateAt)}, refused},
		{"of an unknown issuer", func(*pkitest.CA) map[string][]byte {
			return validPair(pkitest.NewCAAround("foreign", time.Now()))
		}, []string{active(finding.UntrustedIssuer, certificateAt)}, refused},
		{"for another use", issue(func(r *pkitest.Request) {
			r.Usages = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		}), []string{active(finding.WrongKeyUsage, certificateAt)}, refused},
		// kubeadm's, which has no permissions on this cluster.
		{"of a user without permissions", issue(func(r *pkitest.Request) {
			r.CommonName, r.Organization = "kube-apiserver-kubelet-client", "kubeadm:cluster-admins"
		}), nil, finding.ClientNotAuthorized},
		{"key of another certificate", func(ca *pkitest.CA) map[string][]byte {
			files := validPair(ca)
			files["tls.key"] = validPair(ca)["tls.key"]
			return files
		}, []string{active(finding.KeyMismatch, keyAt)}, unusable},
		{"garbage", with("tls.crt", []byte("garbage\n")),
			[]string{active(finding.CertificateUnparsable, certificateAt)}, unusable},
		{"missing", with("tls.crt", nil), []string{active(finding.CertificateMissing, certificateAt)}, unusable},
	}
}

// servers are the states of kube-apiservers and their agents, and the rotations, with a kubelet as it is by default.
func servers(t *testing.T) {
	serving := pkitest.NewCAAround("kubelet-serving-signer", time.Now()) // the next CA of the kubelet's certificate
	t.Cleanup(func() {
		if err := shared.kubelet.serve(shared.ca, servingRequest()); err != nil {
			t.Error(err)
		}
	})
	number := 0
	start := func(name string, ca *pkitest.CA, run func(*member), trusted ...*pkitest.CA) {
		number++
		n := number
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			run(newMember(t, n, strings.ReplaceAll(name, " ", "-"), ca, trusted...))
		})
	}
	for _, c := range brokenPairs() {
		start("pair "+c.name, shared.ca, func(m *member) { breakPair(m, c) }, shared.ca, serving)
	}
	start("agent without permission", shared.ca, withoutPermission, shared.ca, serving)
	start("agent with a bad token", shared.ca, badToken, shared.ca, serving)
	start("rotation of the pair", shared.ca, rotatePair, shared.ca, serving)
	old := acceptedSigner(t)
	start("rotation of the signer", old, func(m *member) { rotateSigner(m, old, true) }, shared.ca, serving)
	start("rotation of the serving CA", shared.ca, func(m *member) { rotateServingCA(m, serving) }, shared.ca)
	t.Run("another leader of the audit in the middle of a sweep", func(t *testing.T) {
		t.Parallel()
		changeLeader(t)
	})
}

// breakPair breaks the pair while kube-apiserver and agent run, and repairs it after the agent has reported that.
func breakPair(m *member, c brokenPair) {
	m.startAgent(account)
	m.onlyNotices(0)
	m.swap(c.files(shared.ca))
	began := time.Now()
	all := slices.Clone(c.inFiles)
	if len(all) > 0 {
		m.awaitNotices(waitTime, 0, all...)
	}
	all = append(all, active(c.connection, kubeletAt))
	m.awaitNotices(reportTime, len(c.inFiles), all...)
	m.Logf("reported after %s; answers: %q", time.Since(began).Round(time.Second), m.answers())
	m.repair(func() { m.swap(validPair(shared.ca)) }, all)
}

// repair makes a repair, and waits until the agent has reported that all active findings are resolved, and no others.
func (m *member) repair(do func(), all []string) {
	m.Helper()
	known := len(all)
	for _, notice := range all[:known] {
		all = append(all, strings.Replace(notice, "active", "resolved", 1))
	}
	do()
	began := time.Now()
	m.awaitNotices(askTime, known, all...)
	m.Logf("resolved after %s", time.Since(began).Round(time.Second))
}

// withoutPermission: an agent that may not read its own log does not know whether the connection works.
func withoutPermission(m *member) {
	const own = "hop-permission"
	ctx := m.Context()
	meta := metav1.ObjectMeta{Namespace: namespace, Name: own}
	accounts := shared.client.CoreV1().ServiceAccounts(namespace)
	if _, err := accounts.Create(ctx, &corev1.ServiceAccount{ObjectMeta: meta}, metav1.CreateOptions{}); err != nil {
		m.Fatal(err)
	}
	bind := func(in, role string) {
		m.Helper()
		_, err := shared.client.RbacV1().RoleBindings(in).Create(ctx, &rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: own},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: role},
			Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: own}},
		}, metav1.CreateOptions{})
		if err != nil {
			m.Fatal(err)
		}
	}
	bind(metav1.NamespaceDefault, account)
	bind(namespace, account+"-own-log")
	m.startAgent(own)
	m.onlyNotices(0)
	err := shared.client.RbacV1().RoleBindings(namespace).Delete(ctx, own, metav1.DeleteOptions{})
	if err != nil {
		m.Fatal(err)
	}
	all := []string{active(finding.ConnectionUnknown, kubeletAt)}
	m.awaitNotices(reportTime, 0, all...)
	m.repair(func() { bind(namespace, account+"-own-log") }, all)
}

// badToken: an agent whose token is not accepted does not know whether the connection works.
func badToken(m *member) {
	m.startAgent(account)
	m.onlyNotices(0)
	m.useToken("invalid")
	all := []string{active(finding.ConnectionUnknown, kubeletAt)}
	m.awaitNotices(reportTime, 0, all...)
	m.repair(func() { m.useToken(m.newToken(account)) }, all)
}

// rotatePair: the first request after the pair has changed fails, and open streams end. This is no finding.
func rotatePair(m *member) {
	m.startAgent(account)
	ended := m.stream()
	for range 2 {
		before := len(m.answers())
		m.swap(validPair(shared.ca))
		first := m.awaitAnswer(before)
		if !strings.HasPrefix(first, "500 ") || !strings.Contains(first, "use of closed network connection") {
			m.Errorf("the first answer after the change is %q", first)
		}
		if second := m.awaitAnswer(before + 1); second != "200" {
			m.Errorf("the second answer after the change is %q", second)
		}
		select {
		case <-ended:
		case <-time.After(waitTime):
			m.Error("the stream did not end")
		}
		ended = m.stream()
	}
	m.still(stillTime)
	m.onlyNotices(0)
	m.awaitWorks(0)
}

// rotateSigner replaces the CA that signs the pair, as OpenShift does: the kubelet accepts the new one, then there is a
// new pair, then the old CA is removed. names: the kubelet names the new CA at the end.
func rotateSigner(m *member, old *pkitest.CA, names bool) {
	m.Helper()
	next := signer()
	m.startAgent(account)
	m.onlyNotices(0)
	m.stream()

	change := func(change func(*pkitest.CA) error, ca *pkitest.CA) {
		m.Helper()
		if err := change(ca); err != nil {
			m.Fatal(err)
		}
		m.copyClientCA()
	}
	change(shared.kubelet.accept, next)
	before := len(m.answers())
	m.swap(validPair(next))
	m.awaitWorks(before + 1)
	m.stream()
	change(shared.kubelet.refuse, old)
	m.still(stillTime)
	m.awaitWorks(before + 2)
	m.onlyNotices(0)
	answers := m.answers()
	if slices.ContainsFunc(answers, func(a string) bool { return strings.HasPrefix(a, "401") }) {
		m.Errorf("the kubelet refused the certificate: %q", answers)
	}
	named := m.namedCAs()
	if got := slices.Contains(named, next.Certificate.Subject.CommonName); got != names {
		m.Errorf("the kubelet names %q, the signer is %q", named, next.Certificate.Subject.CommonName)
	}
	m.Logf("the kubelet names %q; answers: %q", named, answers)
	// The old pair is refused, so the kubelet authenticates with the current file.
	m.swap(validPair(old))
	m.awaitConnection("fail " + string(finding.ClientCertificateNotAccepted))
}

// acceptedSigner is a signer whose certificates the kubelet accepts.
func acceptedSigner(t *testing.T) *pkitest.CA {
	t.Helper()
	ca := signer()
	if err := shared.kubelet.accept(ca); err != nil {
		t.Fatal(err)
	}
	return ca
}

// signer is a CA with a time in its name, as OpenShift's.
func signer() *pkitest.CA {
	now := time.Now()
	return pkitest.NewCAAround("openshift-kube-apiserver-operator_kube-apiserver-to-kubelet-signer@"+
		now.Format(time.RFC3339Nano), now)
}

// rotateServingCA replaces the CA that signs the kubelet's serving certificate: the kube-apiserver's bundle has both,
// then the kubelet has a new certificate, then the old CA is removed. A running kube-apiserver reads its bundle when it
// sends a request, but not within 5 minutes after it did the last time. So in the worst case, it reads the old one just
// before the change, the agent's next request fails, and so do the next two.
func rotateServingCA(m *member, next *pkitest.CA) {
	m.startAgent(account)
	m.onlyNotices(0)
	for before := range 3 {
		m.awaitAnswer(before)
	}
	// The next request of the agent is due in 2 minutes, more than 5 after the kube-apiserver has started.
	m.still(100 * time.Second)
	m.stream()
	m.trustKubelets(shared.ca, next)
	if err := shared.kubelet.serve(next, servingRequest()); err != nil {
		m.Fatal(err)
	}
	before := len(m.answers())
	if first := m.awaitAnswer(before); !strings.Contains(first, "certificate signed by unknown authority") {
		m.Errorf("the first answer after the change is %q", first)
	}
	m.awaitWorks(before + 1)
	m.trustKubelets(next)
	m.awaitWorks(len(m.answers()))
	m.onlyNotices(0)
	m.Logf("answers: %q", m.answers())
}

// withOldNames: without the feature ReloadKubeletClientCAFile, and before Kubernetes 1.36, a kubelet names the client
// CAs that it loaded at its start.
func withOldNames(t *testing.T) {
	old := acceptedSigner(t)
	restartKubelet(t, withoutReload)
	rotateSigner(newMember(t, 20, "old-names", old, shared.ca), old, false)
	restartKubelet(t, func(map[string]any) {})
}

func withoutReload(config map[string]any) {
	gates, _ := config["featureGates"].(map[string]any)
	gates = maps.Clone(gates)
	if gates == nil {
		gates = map[string]any{}
	}
	gates["ReloadKubeletClientCAFile"] = false
	config["featureGates"] = gates
}

// kubeletStates are states of the kubelet, one after the other: there is one kubelet.
func kubeletStates(t *testing.T) {
	m := newMember(t, 21, "kubelet", shared.ca, shared.ca)
	m.startAgent(account)
	serving := func(change func(*pkitest.Request)) func() error {
		return func() error {
			request := servingRequest()
			change(&request)
			return shared.kubelet.serve(shared.ca, request)
		}
	}
	valid := serving(func(*pkitest.Request) {})
	nft := func(args ...string) func() error {
		return func() error { return runInNode(t, "nft", args...) }
	}
	signal := func(s syscall.Signal) func() error {
		return func() error { shared.kubelet.signal(t, s); return nil }
	}
	var all []string
	for _, c := range []struct {
		name            string
		breaks, repairs func() error
		reason          finding.Reason
		connection      string
	}{
		{
			"serving certificate without its address",
			serving(func(r *pkitest.Request) { r.IPs = nil }), valid,
			finding.KubeletCertificateUntrusted, "fail KubeletCertificateUntrusted",
		},
		{
			"serving certificate expired",
			serving(func(r *pkitest.Request) {
				*r = r.Valid(time.Now().AddDate(0, 0, -30), time.Now().Add(-time.Minute))
			}), valid,
			finding.KubeletCertificateUntrusted, "fail KubeletCertificateUntrusted",
		},
		{
			"stopped", shared.kubelet.stop, shared.kubelet.start,
			finding.KubeletUnreachable, "unknown KubeletUnreachable",
		},
		{
			"hangs", signal(syscall.SIGSTOP), signal(syscall.SIGCONT),
			finding.KubeletUnreachable, "unknown KubeletUnreachable",
		},
		{
			"packets are dropped",
			nft("add table inet hop; add chain inet hop in { type filter hook input priority 0; }; " +
				"add rule inet hop in tcp dport 10250 drop"),
			nft("delete table inet hop"),
			finding.KubeletUnreachable, "unknown KubeletUnreachable",
		},
	} {
		ok := t.Run(c.name, func(t *testing.T) {
			m.T = t
			began := time.Now()
			if err := c.breaks(); err != nil {
				t.Fatal(err)
			}
			known := len(all)
			now := []string{active(c.reason, kubeletAt)}
			all = append(all, now...)
			m.awaitNotices(askTime, known, all...)
			m.awaitFailure(c.connection)
			if err := c.repairs(); err != nil {
				t.Fatal(err)
			}
			known = len(all)
			for _, notice := range now {
				all = append(all, strings.Replace(notice, "active", "resolved", 1))
			}
			m.awaitNotices(askTime, known, all...)
			m.awaitConnection("pass")
			t.Logf("took %s", time.Since(began).Round(time.Second))
		})
		if m.T = t; !ok {
			return
		}
	}
}

// restartKubelet restarts the kubelet with another configuration, and waits until it serves the Pod's log.
func restartKubelet(t *testing.T, change func(map[string]any)) {
	t.Helper()
	// Something that each restart changes, and that has no effect here.
	pods := 100 + int(time.Now().Unix()%1000)
	err := shared.kubelet.configure(func(config map[string]any) {
		config["maxPods"] = pods
		change(config)
	})
	if err != nil {
		t.Fatal(err)
	}
	m := &member{T: t}
	m.await(waitTime, "the kubelet has its new configuration", func() (bool, string) {
		data, err := shared.client.CoreV1().RESTClient().Get().Resource("nodes").Name(rig.RealNode).SubResource("proxy").
			Suffix("configz").DoRaw(t.Context())
		return err == nil && strings.Contains(string(data), `"maxPods":`+strconv.Itoa(pods)), string(data)
	})
	m.await(waitTime, "the kubelet serves the Pod's log", func() (bool, string) {
		_, err := shared.client.CoreV1().Pods(namespace).GetLogs(pod, &corev1.PodLogOptions{}).DoRaw(t.Context())
		return err == nil, http.StatusText(http.StatusOK)
	})
}
