// SPDX-License-Identifier: Apache-2.0

package installed_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/docs"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/openshift"
)

// TestDocs runs the commands in the documentation, page by page, as a reader would: with oc and helm,
// in the root of the repository. It simulates what else OpenShift has: service-ca, the kubelet
// client's Secret, the configuration.
func TestDocs(t *testing.T) {
	if shared.rig == nil {
		t.Skip("the commands in the documentation run only on the tests' own cluster")
	}
	must(t, shared.kubectl(t.Context(), "delete", "namespace", release, "--ignore-not-found", "--wait"))
	storeSecret(t)
	likeOpenShift(t)
	layOut(t)
	simulateServiceCA(t)
	t.Cleanup(func() {
		shared.helm(context.WithoutCancel(t.Context()),
			"uninstall", release, "--namespace", release, "--ignore-not-found", "--wait")
	})

	name, tag, _ := strings.Cut(shared.image, ":")
	if at := strings.LastIndex(shared.image, ":"); at > 0 {
		name, tag = shared.image[:at], shared.image[at+1:]
	}
	root := absolute(t, repository)
	reader := newReader(t, map[string]string{
		"oc": fmt.Sprintf("exec %q \"$@\"\n", shared.rig.Kubectl),
		// The node already has the image, under another name than the chart's.
		"helm": fmt.Sprintf("case $1 in install | upgrade) set -- \"$@\" --set image.repository=%s,image.tag=%s,image.pullPolicy=Never ;; esac\nexec %q \"$@\"\n",
			name, tag, filepath.Join(root, ".tools", "helm")),
		"webhook": fmt.Sprintf("exec %q \"$@\"\n", filepath.Join(root, "bin", "webhook")),
	})
	ran := 0
	for _, page := range docs.Pages() {
		blocks, err := docs.Blocks(repository, page)
		if err != nil {
			t.Fatal(err)
		}
		for _, block := range blocks {
			ran++
			reader.dir = workspace(t, root)
			ok := reader.run(t, block)
			if !ok && page == "install.md" {
				t.Fatal("the other commands depend on this one")
			}
			if block.Section == "OpenShift" {
				awaitRefusal(t)
			}
		}
	}
	if ran < len(docs.Pages()) {
		t.Errorf("found only %d blocks", ran)
	}
}

// reader runs commands of the documentation.
type reader struct {
	dir         string // where commands run
	environment []string
}

// newReader is a reader whose programs are, first, these scripts of bash.
func newReader(t *testing.T, scripts map[string]string) reader {
	t.Helper()
	programs := t.TempDir()
	for program, script := range scripts {
		if err := os.WriteFile(filepath.Join(programs, program), []byte("#!/bin/bash\n"+script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return reader{environment: append(os.Environ(), "PATH="+programs+":"+os.Getenv("PATH"),
		"KUBECONFIG="+shared.rig.Kubeconfig)}
}

// run runs a block as a subtest.
func (r reader) run(t *testing.T, block docs.Block) (ok bool) {
	t.Helper()
	return t.Run(fmt.Sprintf("%s line %d %s", block.Page, block.Line, block.Section), func(t *testing.T) {
		command := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", block.Script)
		command.Dir, command.Env = r.dir, r.environment
		out, err := command.CombinedOutput()
		t.Logf("%s\n%s", block.Script, out)
		if err != nil {
			t.Fatal(err)
		}
		const refused = "refused, as it should be"
		if strings.Count(string(out), refused) != strings.Count(block.Script, refused) {
			t.Error("a request was allowed that should be refused")
		}
		for _, code := range printedCode.FindAllSubmatch(out, -1) {
			if !slices.Contains([]string{"1", "2", "4"}, string(code[1])) { // the verdicts
				t.Errorf("a command printed no report: %s", code[0])
			}
		}
	})
}

// absolute is the absolute path of a path that is relative to this package.
func absolute(t *testing.T, path string) string {
	t.Helper()
	path, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// printedCode is what the commands for reports print if they exit with another code than 0.
var printedCode = regexp.MustCompile(`(?m)^exit code (\d+)$`)

// TestGettingStarted runs the page that leads from a clone to a guarded cluster as it is printed: the image is built by
// the Dockerfile and loaded into the node. kind is the only program that is not what its name says: it loads the image
// into the tests' own node, by `make node-load`.
func TestGettingStarted(t *testing.T) {
	if shared.rig == nil {
		t.Skip("the commands in the documentation run only on the tests' own cluster")
	}
	root := absolute(t, repository)
	reader := newReader(t, map[string]string{
		"kubectl": fmt.Sprintf("exec %q \"$@\"\n", shared.rig.Kubectl),
		"helm":    fmt.Sprintf("exec %q \"$@\"\n", filepath.Join(root, ".tools", "helm")),
		"kind": fmt.Sprintf("[ \"$*\" = 'load image-archive dist/image.tar' ] && exec make node-load NODE_DIR=%q\n",
			shared.rig.Path("cluster")),
	})
	reader.dir = root
	reader.environment = append(reader.environment, builtBy.env...)
	reader.environment = append(reader.environment, "BUILDER=buildah", "IMAGE_FLAGS="+strings.Join(builtBy.flags, " "))
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		shared.helm(ctx, "uninstall", release, "--namespace", release, "--ignore-not-found", "--wait")
		shared.kubectl(ctx, "delete", "namespace", release, "example", "--ignore-not-found", "--wait")
	})
	must(t, shared.kubectl(t.Context(), "delete", "namespace", release, "--ignore-not-found", "--wait"))
	blocks, err := docs.Blocks(repository, docs.GettingStarted)
	if err != nil {
		t.Fatal(err)
	}
	if len(blocks) == 0 {
		t.Fatal("the page has no commands")
	}
	for _, block := range blocks {
		if !reader.run(t, block) {
			t.Fatal("the other commands depend on this one")
		}
	}
}

// workspace is a directory for a reader's files, which has the chart where the repository has it.
func workspace(t *testing.T, root string) string {
	t.Helper()
	folder := t.TempDir()
	if err := os.Symlink(filepath.Join(root, "charts"), filepath.Join(folder, "charts")); err != nil {
		t.Fatal(err)
	}
	return folder
}

// likeOpenShift makes other objects that the documentation uses.
func likeOpenShift(t *testing.T) {
	t.Helper()
	now := time.Now()
	pair := shared.rig.ServiceCA.Issue(pkitest.KubeletClient().Valid(now.Add(-time.Hour), now.AddDate(0, 0, 30)))
	secret := openshift.KubeletClient(pair.Certificate, pair.Key)
	if _, err := shared.client.CoreV1().Secrets(secret.Namespace).Create(t.Context(), secret,
		metav1.CreateOptions{}); err != nil &&
		!apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	crd, err := os.ReadFile(openReports)
	if err != nil {
		t.Fatal(err)
	}
	must(t, shared.kubectlInput(t.Context(), string(crd), "apply", "-f", "-"))
	config := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: "openshift-kube-apiserver", Name: "config"},
		Data: map[string]string{
			"config.yaml": `{"apiServerArguments":{"kubelet-certificate-authority":["/etc/kubernetes/static-pod-resources/configmaps/kubelet-serving-ca/ca-bundle.crt"],` +
				`"kubelet-client-certificate":["/etc/kubernetes/static-pod-certs/secrets/kubelet-client/tls.crt"],"kubelet-client-key":["/etc/kubernetes/static-pod-certs/secrets/kubelet-client/tls.key"],"kubelet-preferred-address-types":["InternalIP"]},` +
				`"apiVersion":"kubecontrolplane.config.openshift.io/v1","kind":"KubeAPIServerConfig"}`,
		},
	}
	// One CA signs all certificates of the test cluster.
	cluster := rest.CopyConfig(shared.config)
	if err := rest.LoadTLSFiles(cluster); err != nil {
		t.Fatal(err)
	}
	kubeletCA := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: config.Namespace, Name: "kubelet-serving-ca"},
		Data:       map[string]string{"ca-bundle.crt": string(cluster.CAData)},
	}
	for _, object := range []*corev1.ConfigMap{config, kubeletCA} {
		_, err := shared.client.CoreV1().ConfigMaps(object.Namespace).Create(t.Context(), object, metav1.CreateOptions{})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			t.Fatal(err)
		}
	}
}

// openReports is the kind for evidence as an object.
const openReports = "../e2e/testdata/openreports.io_clusterreports.yaml"

// simulateServiceCA recreates a deleted Secret, as service-ca does.
func simulateServiceCA(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	serviceCA := as(t, openshift.ServiceCA)
	go func() {
		defer close(ended)
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(pollInterval):
			}
			if _, err := shared.client.CoreV1().Secrets(shared.secret.namespace).Get(ctx, shared.secret.name,
				metav1.GetOptions{}); !apierrors.IsNotFound(
				err,
			) {
				continue
			}
			service, err := shared.client.CoreV1().Services(shared.secret.namespace).Get(ctx, "api", metav1.GetOptions{})
			if err != nil {
				continue
			}
			now := time.Now()
			pair := shared.rig.ServiceCA.Issue(shared.secret.request.Valid(now.Add(-time.Hour), now.AddDate(2, 0, 0)))
			_, _ = serviceCA.CoreV1().Secrets(shared.secret.namespace).Create(ctx,
				openshift.ServingCert(service.UID, pair.Certificate, pair.Key), metav1.CreateOptions{})
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
}
