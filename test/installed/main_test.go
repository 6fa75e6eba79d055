// SPDX-License-Identifier: Apache-2.0

// Package installed_test tests the guard as its users have it: the image is built from the Dockerfile
// and installed by Helm on a cluster with a real kubelet.
//
// `make e2e` runs it on its own node (test/cluster), as root. With E2E_EXISTING=1 it runs on the
// cluster of KUBECONFIG, with the image E2E_IMAGE, which that cluster can pull or has. Tests that only
// the owner of the node may run are skipped there, and it protects a Secret of its own, not one of the
// platform's.
package installed_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/kubelet-https-guard/kubelet-https-guard/test/rig"
)

const (
	// release is the Helm release, and its namespace.
	release = "kubelet-https-guard"
	chart   = "charts/kubelet-https-guard"
	// repository is the root of the repository, relative to this package.
	repository = "../.."
	// helmWait is how long Helm waits for Pods to become ready.
	helmWait = "3m"
)

// installation is where the guard is installed.
type installation struct {
	rig   *rig.Rig // nil on an existing cluster
	image string   // REPOSITORY:TAG
	// node is the name of a control-plane node.
	node   string
	config *rest.Config
	client kubernetes.Interface
	// secret is the protected Secret that the tests write to.
	secret protected
	dir    string
}

// shared is set by TestMain, before any test.
var shared installation

func TestMain(m *testing.M) {
	if os.Getenv("E2E") == "" {
		_, _ = fmt.Fprintln(os.Stderr, "test/installed needs E2E=1, since it needs a whole cluster. Fix: make e2e")
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
	dir, err := os.MkdirTemp("", "khg-e2e")
	if err != nil {
		return 0, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	shared.dir = dir
	kubeconfig := os.Getenv("KUBECONFIG")
	if os.Getenv("E2E_EXISTING") != "" {
		shared.image, shared.secret = os.Getenv("E2E_IMAGE"), ownSecret
		if shared.image == "" || kubeconfig == "" || !strings.Contains(shared.image, ":") {
			return 0, fmt.Errorf(
				"E2E_EXISTING needs KUBECONFIG and E2E_IMAGE, REPOSITORY:TAG, which the cluster can pull or has (kind: kind " +
					"load docker-image)",
			)
		}
	} else {
		if os.Getuid() != 0 {
			return 0, fmt.Errorf("starting a node requires root. " +
				"Fix: run as root, or set E2E_EXISTING=1, KUBECONFIG and E2E_IMAGE")
		}
		archive, err := buildImage(ctx, dir)
		if err != nil {
			return 0, err
		}
		shared.image, shared.secret = imageName, servingCert
		shared.rig, err = rig.Start(ctx, rig.Options{Repository: repository, Dir: filepath.Join(dir, "rig"),
			Progress: os.Stderr, RealNode: true, Helm: true})
		defer shared.rig.Stop()
		if err != nil {
			return 0, err
		}
		kubeconfig = shared.rig.Kubeconfig
		if loaded := shared.rig.Cluster(ctx, "load", archive); loaded.Code != 0 {
			return 0, fmt.Errorf("load the image into the node: %s", loaded.Output)
		}
	}
	if shared.config, err = clientcmd.BuildConfigFromFlags("", kubeconfig); err != nil {
		return 0, err
	}
	shared.config.QPS, shared.config.Burst = 1000, 1000
	shared.config.WarningHandler = rest.NoWarnings{}
	if shared.client, err = kubernetes.NewForConfig(shared.config); err != nil {
		return 0, err
	}
	nodes, err := shared.client.CoreV1().Nodes().List(ctx,
		metav1.ListOptions{LabelSelector: "node-role.kubernetes.io/control-plane"})
	if err != nil {
		return 0, err
	}
	if len(nodes.Items) == 0 {
		return 0, fmt.Errorf("no node of the cluster has the label node-role.kubernetes.io/control-plane")
	}
	shared.node = nodes.Items[0].Name
	return m.Run(), nil
}

// result is the result of a command.
type result = rig.Result

func (i installation) kubectl(ctx context.Context, args ...string) result {
	return i.kubectlInput(ctx, "", args...)
}

func (i installation) kubectlInput(ctx context.Context, input string, args ...string) result {
	if i.rig != nil {
		return i.rig.KubectlInput(ctx, input, args...)
	}
	command := exec.CommandContext(ctx, "kubectl", args...)
	command.Stdin = strings.NewReader(input)
	return output(command)
}

func (i installation) helm(ctx context.Context, args ...string) result {
	if i.rig != nil {
		return i.rig.Helm(ctx, args...)
	}
	command := exec.CommandContext(ctx, filepath.Join(".tools", "helm"), args...)
	command.Dir = repository
	return output(command)
}

func output(command *exec.Cmd) result {
	text, err := command.CombinedOutput()
	if err != nil && command.ProcessState == nil {
		return result{Code: -1, Output: err.Error()}
	}
	return result{Code: command.ProcessState.ExitCode(), Output: strings.TrimSpace(string(text))}
}

// values are the chart's settings for this cluster.
func (i installation) values() []string {
	name, tag, _ := strings.Cut(i.image, ":")
	if at := strings.LastIndex(i.image, ":"); at > 0 {
		name, tag = i.image[:at], i.image[at+1:] // a registry may have a port
	}
	set := []string{"--set", "image.repository=" + name, "--set", "image.tag=" + tag}
	if i.rig != nil {
		return append(set, "--set", "image.pullPolicy=Never")
	}
	return append(set, "--set-json", i.secret.values())
}
