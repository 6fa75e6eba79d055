// SPDX-License-Identifier: Apache-2.0

package connection_test

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/report"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/openshift"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/rig"
)

const (
	// waitTime bounds waits for what takes seconds on an idle machine.
	waitTime = 3 * time.Minute
	// askTime is longer than the agent takes from one request to the answer of the next one: 2 minutes, a random part,
	// and a minute for the answer (nodeagent/internal/connection).
	askTime = 4 * time.Minute
	// reportTime is longer than it takes until a connection that fails is reported: a request, and 9 minutes.
	reportTime = askTime + 10*time.Minute
	// stillTime is how long no finding must be reported after a change. It is longer than the 9 minutes after which a
	// failure is reported that the agent's next request sees, which follows within 2 minutes.
	stillTime = 12 * time.Minute
	// pollInterval is the interval at which a condition is checked.
	pollInterval = 500 * time.Millisecond
	// maxStarting bounds how many kube-apiservers start at the same time.
	maxStarting = 2
)

var starting = make(chan struct{}, maxStarting)

// member is a member of the control plane: a kube-apiserver with its files, and an agent that checks them.
type member struct {
	*testing.T
	name string
	// address is that of its kube-apiserver; client is a client of it.
	address string
	client  kubernetes.Interface
	// tree has the files of the kube-apiserver. It uses the ones at these paths.
	tree openshift.Tree
	// auditLog is the kube-apiserver's, agentLog the agent's.
	auditLog, agentLog string
	kubeconfig         string
	// account is the agent's ServiceAccount.
	account string
	agent   *rig.Process
}

// pairFiles are the files of a kubelet client pair.
func pairFiles(pair pkitest.Pair) map[string][]byte {
	return map[string][]byte{"tls.crt": pair.Certificate, "tls.key": pair.Key}
}

// validPair is a new valid kubelet client pair.
func validPair(ca *pkitest.CA) map[string][]byte {
	now := time.Now()
	return pairFiles(ca.Issue(pkitest.KubeletClient().Valid(now.Add(-time.Hour), now.AddDate(0, 0, 30))))
}

// newMember starts a kube-apiserver with a kubelet client pair of this CA. It trusts kubelets of the trusted CAs. All
// have different numbers.
func newMember(t *testing.T, number int, name string, ca *pkitest.CA, trusted ...*pkitest.CA) *member {
	t.Helper()
	m := &member{T: t, name: "hop-" + name, address: fmt.Sprintf("172.30.0.%d", 10+number)}
	m.agentLog = shared.rig.Path(m.name + "-agent.log")
	files := validPair(ca)
	var err error
	m.tree, err = openshift.Write(t.TempDir(), openshift.Current, openshift.Files{
		Certificate: files["tls.crt"], Key: files["tls.key"], ClientCA: shared.ca.PEM(),
	})
	if err != nil {
		t.Fatal(err)
	}
	m.copyClientCA()
	m.trustKubelets(trusted...)
	m.startServer()
	return m
}

// copyClientCA writes the kubelet's client CA bundle to where the agent reads it.
func (m *member) copyClientCA() {
	m.Helper()
	data, err := os.ReadFile(shared.kubelet.clientCA)
	if err == nil {
		err = replaceFile(filepath.Join(m.tree.Root, "etc/kubernetes/kubelet-ca.crt"), data)
	}
	if err != nil {
		m.Fatal(err)
	}
}

// trustKubelets writes the CAs that the kube-apiserver trusts for kubelets.
func (m *member) trustKubelets(cas ...*pkitest.CA) {
	m.Helper()
	if err := replaceFile(m.kubeletCA(), bundle(cas...)); err != nil {
		m.Fatal(err)
	}
}

// kubeletCA is the file with these CAs.
func (m *member) kubeletCA() string {
	return filepath.Join(m.tree.Root, fmt.Sprintf(
		"etc/kubernetes/static-pod-resources/kube-apiserver-pod-%d/configmaps/kubelet-serving-ca/ca-bundle.crt",
		m.tree.Revision))
}

// swap replaces the pair, as OpenShift does.
func (m *member) swap(files map[string][]byte) {
	m.Helper()
	if err := openshift.SwapDirectory(m.tree.Directory(), m.tree.Staging(), files); err != nil {
		m.Fatal(err)
	}
}

// startServer starts the kube-apiserver.
func (m *member) startServer() {
	m.Helper()
	starting <- struct{}{}
	defer func() { <-starting }()
	if err := addAddress(m.T, m.address); err != nil {
		m.Fatal(err)
	}
	m.auditLog = shared.rig.Path(m.name + "-audit.log")
	// If an argument is set twice, the last value applies.
	command := shared.command(shared.server[0], append(slices.Clone(shared.server[1:]),
		"--bind-address="+m.address, "--advertise-address="+m.address,
		"--kubelet-client-certificate="+m.tree.Certificate(), "--kubelet-client-key="+m.tree.Key(),
		"--kubelet-certificate-authority="+m.kubeletCA(), "--audit-log-path="+m.auditLog)...)
	server, err := shared.rig.Launch(m.name+"-server", command[0], command[1:]...)
	if err != nil {
		m.Fatal(err)
	}
	m.Cleanup(func() { _ = server.Stop() })
	// Before it listens, the first kube-apiserver answers at this address, too. So only a request in its audit log counts,
	// and the next one needs a new connection.
	attempt := 0
	m.await(waitTime, "its kube-apiserver is ready", func() (bool, string) {
		attempt++
		config := rest.CopyConfig(shared.config)
		config.Host, config.Dial = "https://"+net.JoinHostPort(m.address, serverPort), shared.dial
		config.ServerName = "kubernetes.default.svc"
		if m.client, err = kubernetes.NewForConfig(config); err != nil {
			m.Fatal(err)
		}
		name := fmt.Sprintf("%s-%d", m.name, attempt)
		ready, err := m.client.Discovery().RESTClient().Get().AbsPath("/readyz").Param("attempt", name).DoRaw(m.Context())
		return err == nil && strings.Contains(m.text(m.auditLog), name), fmt.Sprintf("%s %v", ready, err)
	})
	m.await(waitTime, "its address is an endpoint of Service default/kubernetes", func() (bool, string) {
		slice, err := shared.client.DiscoveryV1().EndpointSlices(metav1.NamespaceDefault).Get(m.Context(), "kubernetes",
			metav1.GetOptions{})
		if err != nil {
			return false, err.Error()
		}
		for _, endpoint := range slice.Endpoints {
			if slices.Contains(endpoint.Addresses, m.address) {
				return true, ""
			}
		}
		return false, fmt.Sprint(slice.Endpoints)
	})
}

// addAddress gives the node one more address.
func addAddress(t *testing.T, address string) error {
	t.Helper()
	return runInNode(t, "ip", "address", "add", address+"/24", "dev", "node0")
}

// startAgent starts the agent with the permissions of a ServiceAccount, and waits until it has reported that the node
// is compliant. So its first request was answered.
func (m *member) startAgent(serviceAccount string) {
	m.Helper()
	m.account, m.kubeconfig = serviceAccount, filepath.Join(m.TempDir(), "kubeconfig")
	m.useToken(m.newToken(serviceAccount))
	user := fmt.Sprintf("{tokenFile: %q}", m.kubeconfig+".token")
	if err := os.WriteFile(m.kubeconfig, kubeconfig(user), 0o600); err != nil {
		m.Fatal(err)
	}
	command := shared.command(filepath.Join(repositoryPath(m.T), "bin", "nodeagent"), append(m.flags("run"),
		"--node-address", m.address, "--metrics-bind-address", "0")...)
	var err error
	if m.agent, err = shared.rig.Launch(m.name+"-agent", command[0], command[1:]...); err != nil {
		m.Fatal(err)
	}
	m.Cleanup(func() {
		_ = m.agent.Stop()
		if m.Failed() {
			m.Logf("the agent logged:\n%s\nanswers of the kube-apiserver to its requests: %q", m.text(m.agentLog), m.answers())
		}
	})
	m.await(waitTime, "the agent reports that the node is compliant", func() (bool, string) {
		text := m.text(m.agentLog)
		return strings.Contains(text, `"msg":"Compliant"`) && len(m.answers()) > 0, text
	})
}

// flags are the agent's flags.
func (m *member) flags(verb string) []string {
	return []string{
		verb, "--root", m.tree.Root, "--node-name", rig.RealNode, "--kubeconfig", m.kubeconfig, "--kubelet-address",
		nodeAddress, "--pod", namespace + "/" + pod,
	}
}

func repositoryPath(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs(repository)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// newToken returns a token of a ServiceAccount.
func (m *member) newToken(serviceAccount string) string {
	m.Helper()
	token, err := shared.client.CoreV1().ServiceAccounts(namespace).CreateToken(m.Context(), serviceAccount,
		&authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: new(int64(24 * 3600))}},
		metav1.CreateOptions{})
	if err != nil {
		m.Fatal(err)
	}
	return token.Status.Token
}

// useToken makes the agent use this token: as in a Pod, the file is replaced.
func (m *member) useToken(token string) {
	m.Helper()
	if err := replaceFile(m.kubeconfig+".token", []byte(token)); err != nil {
		m.Fatal(err)
	}
}

// kubeconfig is one for the first kube-apiserver, inside the node. Its user is in YAML.
func kubeconfig(user string) []byte {
	return fmt.Appendf(nil, `apiVersion: v1
kind: Config
clusters: [{name: node, cluster: {server: "https://%s", certificate-authority-data: %q}}]
users: [{name: user, user: %s}]
contexts: [{name: node, context: {cluster: node, user: user}}]
current-context: node
`, net.JoinHostPort(nodeAddress, serverPort), base64.StdEncoding.EncodeToString(shared.config.CAData), user)
}

// connection is outcome and reason of the connection now.
func (m *member) connection() string {
	command := shared.command(filepath.Join(repositoryPath(m.T), "bin", "nodeagent"),
		append(m.flags("check"), "--node-address", m.address, "-o", "json")...)
	return rig.ConnectionOf(exec.CommandContext(m.Context(), command[0], command[1:]...))
}

// awaitConnection waits until the connection has this outcome and reason.
func (m *member) awaitConnection(want string) {
	m.Helper()
	m.await(askTime, "the connection: "+want, func() (bool, string) {
		got := m.connection()
		return got == want, got
	})
}

// awaitFailure does the same for a connection that fails. A kube-apiserver would use an idle connection for the next
// request, so a stream occupies it.
func (m *member) awaitFailure(want string) {
	m.Helper()
	m.await(askTime, "the connection: "+want, func() (bool, string) {
		got := m.connection()
		if got == "pass" {
			_, _ = m.follow() // fails if it needs a new connection
		}
		return got == want, got
	})
}

// await waits until a condition is true.
func (m *member) await(within time.Duration, what string, condition func() (met bool, now string)) {
	m.Helper()
	deadline := time.After(within)
	for {
		met, now := condition()
		if met {
			return
		}
		select {
		case <-m.Context().Done():
			m.Fatal(m.Context().Err())
		case <-deadline:
			m.Fatalf("timed out after %s waiting for: %s; now: %s", within, what, now)
		case <-time.After(pollInterval):
		}
	}
}

func (m *member) text(path string) string {
	m.Helper()
	data, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		m.Fatal(err)
	}
	return string(data)
}

// notices are all findings that the agent has reported as active or resolved, in order.
func (m *member) notices() []string { return noticesIn(m.text(m.agentLog)) }

// noticesIn are all findings that a log reports as active or resolved, in order.
func noticesIn(log string) (all []string) {
	for text := range strings.Lines(log) {
		var line struct{ Msg, Reason, Location string }
		if json.Unmarshal([]byte(text), &line) != nil {
			continue // not written completely
		}
		switch report.NoticeType(line.Msg) {
		case report.FindingActive:
			all = append(all, active(finding.Reason(line.Reason), line.Location))
		case report.FindingResolved:
			all = append(all, resolved(finding.Reason(line.Reason), line.Location))
		case report.FindingStillActive, report.Compliant, report.NotCompliant, report.CouldNotVerify, report.NotApplicable,
			report.CertificateRotated, report.RequestDenied, report.RequestByBreakGlass:
		}
	}
	return all
}

func active(reason finding.Reason, at string) string {
	return fmt.Sprintf("active: %s at %s", reason, at)
}
func resolved(reason finding.Reason, at string) string {
	return fmt.Sprintf("resolved: %s at %s", reason, at)
}

// awaitNotices waits until the agent has reported as many findings as these, and requires that all that it has ever
// reported are these. The order of the last ones, after the first known, does not count.
func (m *member) awaitNotices(within time.Duration, known int, want ...string) {
	m.Helper()
	m.await(within, strings.Join(want, ", "), func() (bool, string) {
		got := m.notices()
		return len(got) >= len(want), fmt.Sprintf("%q", got)
	})
	m.onlyNotices(known, want...)
}

// onlyNotices requires that the agent has reported these findings and no others.
func (m *member) onlyNotices(known int, want ...string) {
	m.Helper()
	got := m.notices()
	want = slices.Clone(want)
	slices.Sort(want[min(known, len(want)):])
	slices.Sort(got[min(known, len(got)):])
	if d := cmp.Diff(want, got); d != "" {
		m.Fatalf("the findings that the agent has reported (-want +got):\n%s", d)
	}
}

// answers are the kube-apiserver's answers to the requests for the Pod's log as the agent makes them, from its audit
// log: the code, and the message of an error.
func (m *member) answers() (all []string) {
	m.Helper()
	file, err := os.Open(m.auditLog)
	if err != nil {
		m.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	wanted := fmt.Sprintf("/api/v1/namespaces/%s/pods/%s/log?container=nodeagent&limitBytes=1&tailLines=1", namespace, pod)
	for lines := bufio.NewReader(file); ; {
		text, err := lines.ReadBytes('\n')
		if err == io.EOF {
			return all
		}
		if err != nil {
			m.Fatal(err)
		}
		var event struct {
			Stage, RequestURI string
			User              struct{ Username string }
			ResponseStatus    metav1.Status
		}
		if json.Unmarshal(text, &event) == nil && event.RequestURI == wanted && event.Stage == "ResponseComplete" &&
			event.User.Username == "system:serviceaccount:"+namespace+":"+m.account {
			all = append(all, strings.TrimSpace(fmt.Sprint(event.ResponseStatus.Code, " ", event.ResponseStatus.Message)))
		}
	}
}

// awaitAnswer waits until the kube-apiserver has answered one more request of the agent, and returns it.
func (m *member) awaitAnswer(before int) string {
	m.Helper()
	m.await(askTime, "the agent's next request", func() (bool, string) {
		answers := m.answers()
		return len(answers) > before, fmt.Sprintf("%q", answers)
	})
	return m.answers()[before]
}

// awaitWorks waits until the kube-apiserver's last answer to the agent is a success.
func (m *member) awaitWorks(since int) {
	m.Helper()
	m.await(reportTime, "the connection works", func() (bool, string) {
		answers := m.answers()
		return len(answers) > since && answers[len(answers)-1] == fmt.Sprint(http.StatusOK), fmt.Sprintf("%q", answers)
	})
}

// stream reads the Pod's log through this kube-apiserver, as kubectl logs --follow does. ended is closed at its end.
func (m *member) stream() (ended <-chan struct{}) {
	m.Helper()
	ended, err := m.follow()
	if err != nil {
		m.Fatalf("follow the log of the Pod: %v", err)
	}
	return ended
}

// follow is stream with an error.
func (m *member) follow() (ended <-chan struct{}, err error) {
	ctx, cancel := context.WithCancel(m.Context())
	log, err := m.client.CoreV1().Pods(namespace).GetLogs(pod, &corev1.PodLogOptions{Follow: true}).Stream(ctx)
	if err != nil {
		cancel()
		return nil, err
	}
	end := make(chan struct{})
	go func() {
		defer close(end)
		_, _ = io.Copy(io.Discard, log)
	}()
	m.Cleanup(func() {
		cancel()
		_ = log.Close()
		<-end
	})
	return end, nil
}

// still waits for a time in which nothing else is done.
func (m *member) still(long time.Duration) {
	m.Helper()
	select {
	case <-m.Context().Done():
		m.Fatal(m.Context().Err())
	case <-time.After(long):
	}
}
