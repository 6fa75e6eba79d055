// SPDX-License-Identifier: Apache-2.0

// Package connection_test breaks the connection of real kube-apiservers to a real kubelet in each way that the agent
// distinguishes, and renews certificates and CAs. Running agents must report each finding that is true, resolve it by
// themselves after the repair, and report no other.
//
// Like the nodes of a control plane, each kube-apiserver has an address, a kubelet client pair and an agent of its own.
// All of them run on the one node of test/cluster and use its kubelet, whose log endpoint is the same for each. States
// that take minutes are made at the same time.
//
// `make e2e-hop` runs it, as root. test/installed has a short form with the agent's Pod as the chart installs it.
package connection_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/rig"
)

const (
	repository = "../.."
	// namespace is the guard's, pod the Pod that stands for the agent's own: agents run beside it, on the node.
	namespace, pod = "kubelet-https-guard", "agent"
	// account is the agent's ServiceAccount in the chart.
	account = "kubelet-https-guard-nodeagent"
	// image of the Pod. Each node of test/cluster has it.
	image = "registry.k8s.io/pause:3.6"
	// nodeAddress is the address of the node, on which its kubelet and its first kube-apiserver listen.
	nodeAddress = "172.30.0.1"
	serverPort  = "6443"
	// kubeletAt is the kubelet in findings.
	kubeletAt = "Kubelet " + nodeAddress + ":10250"
)

// suite is what all tests share, since starting a node takes most of a minute.
type suite struct {
	rig *rig.Rig
	// process is process 1 of the node.
	process int
	// server is the command line of the node's first kube-apiserver.
	server  []string
	config  *rest.Config // cluster administrator
	client  kubernetes.Interface
	kubelet *kubelet
	// ca is the cluster's CA. It signs the kubelet client pairs of all kube-apiservers, and the kubelet's serving pair.
	ca *pkitest.CA
}

// shared is set by TestMain, before any test.
var shared suite

func TestMain(m *testing.M) {
	if os.Getenv("E2E_HOP") == "" {
		_, _ = fmt.Fprintln(os.Stderr, "test/connection needs E2E_HOP=1, since it takes most of an hour. Fix: make e2e-hop")
		os.Exit(0)
	}
	code, err := run(m)
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "set up:", err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (int, error) {
	ctx := context.Background() // no test has started, so there is no context of a test
	if os.Getuid() != 0 {
		return 0, fmt.Errorf("starting a node requires root. Fix: run as root")
	}
	dir, err := os.MkdirTemp("", "khg-hop")
	if err != nil {
		return 0, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	r, err := rig.Start(ctx, rig.Options{Repository: repository, Dir: filepath.Join(dir, "rig"), Progress: os.Stderr,
		RealNode: true})
	defer r.Stop()
	if err != nil {
		return 0, err
	}
	if err := r.InstallAccounts(ctx); err != nil {
		return 0, err
	}
	s := suite{rig: r}
	if s.process, err = r.NodeProcess(); err != nil {
		return 0, err
	}
	if s.server, err = r.APIServerCommand(); err != nil {
		return 0, err
	}
	if s.config, err = clientcmd.BuildConfigFromFlags("", r.Kubeconfig); err != nil {
		return 0, err
	}
	s.config.QPS = -1
	if s.client, err = kubernetes.NewForConfig(s.config); err != nil {
		return 0, err
	}
	certificate, key, err := s.pair("ca")
	if err != nil {
		return 0, err
	}
	if s.ca, err = pkitest.LoadCA(certificate, key); err != nil {
		return 0, err
	}
	if s.kubelet, err = newKubelet(s); err != nil {
		return 0, err
	}
	if err := s.startPod(ctx); err != nil {
		return 0, err
	}
	shared = s
	return m.Run(), nil
}

// pair reads one of the cluster's own pairs.
func (s suite) pair(name string) (certificate, key []byte, err error) {
	if certificate, err = os.ReadFile(s.rig.Path("cluster", "pki", name+".crt")); err != nil {
		return nil, nil, err
	}
	key, err = os.ReadFile(s.rig.Path("cluster", "pki", name+".key"))
	return certificate, key, err
}

// startPod starts the Pod, and waits until it runs.
func (s suite) startPod(ctx context.Context) error {
	pods := s.client.CoreV1().Pods(namespace)
	if _, err := pods.Create(ctx, ownPod(), metav1.CreateOptions{}); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, waitTime)
	defer cancel()
	for {
		p, err := pods.Get(ctx, pod, metav1.GetOptions{})
		if err == nil && p.Status.Phase == corev1.PodRunning {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait until Pod %s runs: %w; it is %s", pod, ctx.Err(), p.Status.String())
		case <-time.After(pollInterval):
		}
	}
}

func ownPod() *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: pod},
		Spec: corev1.PodSpec{
			NodeName:    rig.RealNode,
			Tolerations: []corev1.Toleration{{Operator: corev1.TolerationOpExists}},
			Containers:  []corev1.Container{{Name: "nodeagent", Image: image, ImagePullPolicy: corev1.PullNever}},
		},
	}
}

// inNode calls a function in the network namespace of the node. A socket that it opens stays there.
func (s suite) inNode(do func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with this goroutine
		done <- func() error {
			network, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", s.process))
			if err != nil {
				return err
			}
			defer func() { _ = network.Close() }()
			if err := unix.Setns(int(network.Fd()), unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("enter the network of the node: %w", err)
			}
			return do()
		}()
	}()
	return <-done
}

// dial connects to an IP address in the node.
func (s suite) dial(ctx context.Context, network, address string) (connection net.Conn, err error) {
	err = s.inNode(func() error {
		connection, err = new(net.Dialer).DialContext(ctx, network, address)
		return err
	})
	return connection, err
}

// listen listens on an IP address in the node.
func (s suite) listen(ctx context.Context, address string) (listener net.Listener, err error) {
	err = s.inNode(func() error {
		listener, err = new(net.ListenConfig).Listen(ctx, "tcp4", address)
		return err
	})
	return listener, err
}

// command is a command line that runs a program in the network namespace of the node.
func (s suite) command(program string, args ...string) []string {
	return append([]string{"nsenter", "--target", fmt.Sprint(s.process), "--net", "--", program}, args...)
}
