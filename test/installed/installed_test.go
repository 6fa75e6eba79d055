// SPDX-License-Identifier: Apache-2.0

package installed_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/pkitest"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/openshift"
)

const (
	// waitTime bounds each wait. Pods take seconds to start; the agent asks about the connection every 2 minutes.
	waitTime = 3 * time.Minute
	// pollInterval is the interval at which a condition is checked.
	pollInterval = 100 * time.Millisecond
	// stillTime is how long a test checks that something does not happen.
	stillTime = 8 * time.Second
)

// await waits for a condition. what describes it in the failure message.
func await(t *testing.T, what string, condition func() (bool, string)) {
	t.Helper()
	deadline := time.After(waitTime)
	for {
		met, now := condition()
		if met {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("timed out after %[2]s waiting for: %[1]s; now: %[3]s\n%[4]s", what, waitTime, now,
				state(context.WithoutCancel(t.Context())))
		case <-time.After(pollInterval):
		}
	}
}

// state is the state of the cluster, for a failure message.
func state(ctx context.Context) string {
	var text strings.Builder
	for _, args := range [][]string{
		{"get", "pods", "-A", "-o", "wide"},
		{"describe", "pods", "-n", release},
		{"logs", "-n", release, "-l", "app.kubernetes.io/instance=" + release, "--tail=20", "--prefix"},
	} {
		fmt.Fprintf(&text, "$ kubectl %s\n%s\n", strings.Join(args, " "), shared.kubectl(ctx, args...).Output)
	}
	return text.String()
}

// must requires that helm or kubectl succeeded.
func must(t *testing.T, r result) string {
	t.Helper()
	if r.Code != 0 {
		t.Fatalf("exit code %d:\n%s\n%s", r.Code, r.Output, state(context.WithoutCancel(t.Context())))
	}
	return r.Output
}

// install runs helm install for this cluster.
func install(t *testing.T, args ...string) result {
	t.Helper()
	return shared.helm(
		t.Context(),
		append(append([]string{"install", release, chart, "--namespace", release}, shared.values()...), args...)...)
}

// upgrade runs helm upgrade.
func upgrade(t *testing.T, args ...string) result {
	t.Helper()
	return shared.helm(
		t.Context(),
		append(
			append(
				[]string{"upgrade", release, chart, "--namespace", release, "--wait", "--timeout", helmWait},
				shared.values()...),
			args...)...)
}

// uninstall removes the release and checks that nothing is left.
func uninstall(t *testing.T) {
	t.Helper()
	must(t, shared.helm(t.Context(), "uninstall", release, "--namespace", release, "--wait", "--timeout", helmWait))
	nothingLeft(t)
}

// nothingLeft: no object of the release is left, of any kind, and the webhook is not called any more.
func nothingLeft(t *testing.T) {
	t.Helper()
	kinds := must(t, shared.kubectl(t.Context(), "api-resources", "--verbs=list,delete", "-o", "name"))
	var all []string
	for kind := range strings.FieldsSeq(kinds) {
		// Events expire; Endpoints are made from EndpointSlices, and kubectl warns about them.
		if !strings.HasPrefix(kind, "events") && kind != "endpoints" {
			all = append(all, kind)
		}
	}
	await(t, "all objects of the release are deleted", func() (bool, string) {
		labelled := shared.kubectl(t.Context(), "get", strings.Join(all, ","), "-A", "-l",
			"app.kubernetes.io/instance="+release, "--ignore-not-found", "-o", "name")
		return labelled.Code == 0 && labelled.Output == "", labelled.Output
	})
	// Also objects without this label; some of them are garbage collected.
	await(t, "nothing is left in the namespace", func() (bool, string) {
		here := must(
			t,
			shared.kubectl(t.Context(),
				"get", "secrets,configmaps,leases,pods,services,endpointslices,serviceaccounts", "-n", release, "-o", "name"),
		)
		left := slices.DeleteFunc(strings.Fields(here), platforms.MatchString)
		return len(left) == 0, strings.Join(left, " ")
	})
	everywhere := must(
		t,
		shared.kubectl(
			t.Context(),
			"get",
			"validatingwebhookconfigurations,validatingadmissionpolicies,validatingadmissionpolicybindings,clusterroles,clusterrolebindings,roles,rolebindings",
			"-A", "-o", "name",
		),
	)
	for name := range strings.FieldsSeq(everywhere) {
		if strings.Contains(name, release) {
			t.Errorf("%s still exists", name)
		}
	}
	body := mismatched(t)
	await(t, "a write to the Secret is allowed", func() (bool, string) {
		v, err := shared.secret.write(t.Context(), body)
		return v == allowed, fmt.Sprint(err)
	})
}

// mismatched is a write that only the webhook can refuse.
func mismatched(t *testing.T) []byte {
	t.Helper()
	now := time.Now()
	ca := pkitest.NewCAAround("ca", now)
	request := shared.secret.request.Valid(now.Add(-time.Hour), now.AddDate(0, 0, 30))
	return patch(ca.Issue(request).Certificate, ca.Issue(request).Key)
}

// awaitRefusal waits until the webhook refuses.
func awaitRefusal(t *testing.T) {
	t.Helper()
	body := mismatched(t)
	await(t, "the webhook refuses", func() (bool, string) {
		v, err := shared.secret.write(t.Context(), body)
		return v == refused && strings.Contains(err.Error(), "KeyMismatch"), fmt.Sprint(err)
	})
}

// as is a client that impersonates a user.
func as(t *testing.T, user string) kubernetes.Interface {
	t.Helper()
	config := rest.CopyConfig(shared.config)
	config.Impersonate.UserName = user
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// storeSecret writes the protected Secret, as the component that renews it would.
func storeSecret(t *testing.T) {
	t.Helper()
	now := time.Now()
	ca := pkitest.NewCAAround("ca", now)
	pair := ca.Issue(shared.secret.request.Valid(now.Add(-time.Hour), now.AddDate(2, 0, 0)))
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: shared.secret.namespace, Name: shared.secret.name}, Type: corev1.SecretTypeTLS,
		Data: map[string][]byte{corev1.TLSCertKey: pair.Certificate, corev1.TLSPrivateKeyKey: pair.Key},
	}
	client := shared.client
	if shared.rig != nil {
		service, err := client.CoreV1().Services(secret.Namespace).Get(t.Context(), "api", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		secret, client = openshift.ServingCert(service.UID, pair.Certificate, pair.Key), as(t, openshift.ServiceCA)
	}
	_, err := client.CoreV1().Secrets(secret.Namespace).Create(t.Context(), secret, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
}

// makeNamespace makes a namespace and removes it at the end. On an existing cluster it must not exist
// yet: what is in it would be uninstalled.
func makeNamespace(t *testing.T, name string) {
	t.Helper()
	_, err := shared.client.CoreV1().Namespaces().Create(t.Context(),
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	switch {
	case apierrors.IsAlreadyExists(err) && shared.rig != nil:
		return
	case apierrors.IsAlreadyExists(err):
		t.Fatalf("namespace %s exists: this test installs, breaks and uninstalls a release there. "+
			"Fix: use another cluster, or delete the namespace", name)
	case err != nil:
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if r := shared.kubectl(context.WithoutCancel(t.Context()), "delete", "namespace", name, "--wait"); r.Code != 0 {
			t.Errorf("delete namespace %s: %s", name, r.Output)
		}
	})
}

// platforms are objects that platforms put into each namespace.
var platforms = regexp.MustCompile(
	`^(configmap/(kube-root-ca|openshift-service-ca)\.crt|serviceaccount/(default|builder|deployer)|secret/(default|builder|deployer)-(dockercfg|token)-.+)$`,
)

// TestInstalled is the life of an installation. Its parts depend on each other.
func TestInstalled(t *testing.T) {
	for _, namespace := range []string{release, shared.secret.namespace} {
		makeNamespace(t, namespace)
	}
	must(
		t,
		shared.kubectl(t.Context(),
			"label", "namespace", release, "--overwrite", "pod-security.kubernetes.io/enforce=privileged"),
	)
	storeSecret(t)
	t.Cleanup(func() {
		shared.helm(context.WithoutCancel(t.Context()), "uninstall", release, "--namespace", release, "--ignore-not-found")
	})
	nothingLeft(t)
	h := layOut(t)

	parts := []struct {
		name string
		run  func(*testing.T)
	}{
		{"invalid values", badValues},
		{"an image that cannot be pulled", noImage},
		{"install", installed},
		{"helm test", helmTest},
		{"refused and allowed", spotChecks},
		{"permissions", permissions},
		{"the agent", h.agent},
		{"the kubelet", h.kubelet},
		{"restarted under load", restarted},
		{"upgraded and rolled back under load", upgraded},
		{"uninstall", uninstall},
		{"from the previous chart", fromPreviousVersion},
		{"certificates from service-ca and cert-manager", certificatesOfOthers},
	}
	for _, part := range parts {
		if !t.Run(part.name, part.run) {
			return // the next ones depend on it
		}
	}
}

// badValues: Helm reports invalid values at once, and nothing is installed.
func badValues(t *testing.T) {
	cases := map[string]struct {
		args []string
		want string
	}{
		"a wrong type":     {[]string{"--set", "webhook.replicas=two"}, "webhook/replicas"},
		"an unknown value": {[]string{"--set", "webhook.replica=2"}, "replica"},
		"an unknown mode":  {[]string{"--set", "webhook.certificate.mode=letsencrypt"}, "webhook/certificate/mode"},
		"cert-manager that is not installed": {
			[]string{"--set", "webhook.certificate.mode=cert-manager"}, "cert-manager",
		},
		"service-ca on another platform": {
			[]string{"--set", "webhook.certificate.mode=service-ca"}, "service-ca",
		},
		"a namespace that does not exist": {
			[]string{
				"--set",
				"protectedSecrets[0].namespace=nowhere,protectedSecrets[0].name=a,protectedSecrets[0].usage=serverAuth",
			}, "namespace nowhere does not exist",
		},
		"alerts without the Prometheus operator": {
			[]string{"--set", "monitoring.prometheusRule=true"}, "monitoring.coreos.com",
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			r := install(t, c.args...)
			if r.Code == 0 || !strings.Contains(r.Output, c.want) {
				t.Errorf("exit code %d, want a refusal with %q:\n%s", r.Code, c.want, r.Output)
			}
		})
	}
	nothingLeft(t)
}

// noImage: while an install cannot complete, the guard does not refuse requests that only the webhook
// could judge.
func noImage(t *testing.T) {
	s := startStream(t, shared.secret)
	must(t, install(t, "--set", "image.tag=does-not-exist"))
	await(t, "a Pod without its image", func() (bool, string) {
		waiting := shared.kubectl(t.Context(),
			"get", "pods", "-n", release, "-l", "app.kubernetes.io/component=webhook", "-o",
			"jsonpath={.items[*].status.containerStatuses[*].state.waiting.reason}")
		return strings.Contains(waiting.Output, "Image"), waiting.Output
	})
	<-time.After(stillTime)
	s.stop()
	s.all.Wait()
	good, bad := s.now()
	if good.refused+good.failed+bad.refused+bad.failed > 0 || good.allowed == 0 {
		t.Errorf("with no replica: %+v, %+v", good, bad)
	}
	// The API server enforces the policy from the beginning.
	if v, err := shared.secret.write(t.Context(), patch(nil, nil)); v != refused {
		t.Errorf("empty values: %v", err)
	}
	uninstall(t)
}

// installed: from the beginning the guard refuses nothing that it should allow.
func installed(t *testing.T) {
	s := startStream(t, shared.secret)
	must(t, install(t, "--wait", "--timeout", helmWait))
	await(t, "the API server calls the webhook", func() (bool, string) {
		_, bad := s.now()
		return bad.refused > 0, fmt.Sprintf("%+v", bad)
	})
	<-time.After(stillTime)
	s.finish(t, false)
	notes := must(t, shared.helm(t.Context(), "get", "notes", release, "--namespace", release))
	for _, words := range []string{"helm test " + release, shared.secret.namespace} {
		if !strings.Contains(notes, words) {
			t.Errorf("the notes do not contain %q:\n%s", words, notes)
		}
	}
}

func helmTest(t *testing.T) {
	t.Log(must(t, shared.helm(t.Context(), "test", release, "--namespace", release, "--timeout", helmWait, "--logs")))
	left := must(
		t,
		shared.kubectl(t.Context(),
			"get", "roles,rolebindings,serviceaccounts,pods", "-A", "-l", "app.kubernetes.io/component=test", "-o", "name"),
	)
	if left != "" {
		t.Errorf("the test leaves Pods: %s", left)
	}
}

// spotChecks: through the real Service. test/e2e has all checks, on an API server alone.
func spotChecks(t *testing.T) {
	p := shared.secret
	now := time.Now()
	ca := pkitest.NewCAAround("ca", now)
	good := ca.Issue(p.request.Valid(now.Add(-time.Hour), now.AddDate(2, 0, 0)))
	expired := ca.Issue(p.request.Valid(now.AddDate(-1, 0, 0), now.Add(-time.Hour)))
	for name, c := range map[string]struct {
		body []byte
		want string // empty: allowed
	}{
		"a new pair":              {patch(good.Certificate, good.Key), ""},
		"a chain":                 {patch(good.ChainWith(ca.PEM()), good.Key), ""},
		"the key of another pair": {mismatched(t), "KeyMismatch"},
		"expired":                 {patch(expired.Certificate, expired.Key), "CertificateExpired"},
		"garbage":                 {patch([]byte("garbage"), good.Key), "CertificateUnparsable"},
		"an empty key":            {patch(good.Certificate, nil), "KeyMissing"},
		"an annotation":           {[]byte(`{"metadata":{"annotations":{"example.com/note":"x"}}}`), ""},
		"nothing":                 {[]byte(`{}`), ""},
		"an unknown finalizer":    {[]byte(`{"metadata":{"finalizers":["example.com/x"]}}`), ""},
		"a label and a new pair": {[]byte(strings.Replace(string(patch(good.Certificate, good.Key)), "{",
			`{"metadata":{"labels":{"a":"b"}},`, 1)), ""},
	} {
		t.Run(name, func(t *testing.T) {
			v, err := p.write(t.Context(), c.body)
			if c.want == "" && v != allowed ||
				c.want != "" &&
					(v != refused || !strings.Contains(err.Error(), c.want) ||
						!strings.Contains(err.Error(), "[kubelet-https-guard/")) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
	secrets := shared.client.CoreV1().Secrets(p.namespace)
	dryRun := metav1.DeleteOptions{DryRun: []string{metav1.DryRunAll}}
	for name, err := range map[string]error{
		"delete":            secrets.Delete(t.Context(), p.name, dryRun),
		"delete collection": secrets.DeleteCollection(t.Context(), dryRun, metav1.ListOptions{FieldSelector: "metadata.name=" + p.name}),
	} {
		if err == nil || !strings.Contains(err.Error(), "SecretMissing") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if shared.rig == nil {
		return
	}
	// Writes by the component that renews the Secret are never sent to the webhook.
	renewed := ca.Issue(p.request.Valid(now.Add(-time.Hour), now.AddDate(2, 0, 0)))
	service, err := shared.client.CoreV1().Services(p.namespace).Get(t.Context(), "api", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	secret := openshift.ServingCert(service.UID, renewed.Certificate, renewed.Key)
	if _, err := as(t, openshift.ServiceCA).CoreV1().Secrets(p.namespace).Update(t.Context(), secret,
		metav1.UpdateOptions{}); err != nil {
		t.Errorf("service-ca's renewal: %v", err)
	}
}

// rolledOut waits until all replicas are updated and available.
func rolledOut(t *testing.T) {
	t.Helper()
	must(
		t,
		shared.kubectl(t.Context(), "rollout", "status", "deployment/"+release+"-webhook",
			"-n", release, "--timeout", helmWait),
	)
}

// maxOutage is how long writes may fail closed after a replica was killed almost without grace period:
// those in progress, and those that are sent to it before each node knows that it is gone.
const maxOutage = 10 * time.Second

// restarted: replicas restart while one is always available, and no write fails; or only a few, if the
// replicas have no grace period.
func restarted(t *testing.T) {
	s := startStream(t, shared.secret)
	deployment := "deployment/" + release + "-webhook"
	lose := func(how ...string) {
		t.Helper()
		pods := strings.Fields(
			must(
				t,
				shared.kubectl(t.Context(), "get", "pods", "-n", release, "-l", "app.kubernetes.io/component=webhook",
					"--field-selector=status.phase=Running", "-o", "name"),
			),
		)
		if len(pods) < 2 {
			t.Fatalf("only %v", pods)
		}
		must(t, shared.kubectl(t.Context(), append([]string{"delete", pods[0], "-n", release, "--wait=false"}, how...)...))
		await(t, "two replicas", func() (bool, string) {
			available := shared.kubectl(t.Context(),
				"get", deployment, "-n", release, "-o", "jsonpath={.status.availableReplicas}")
			gone := shared.kubectl(t.Context(), "get", pods[0], "-n", release, "--ignore-not-found", "-o", "name")
			return available.Output == "2" && gone.Output == "", available.Output + " " + gone.Output
		})
	}
	must(t, shared.kubectl(t.Context(), "rollout", "restart", deployment, "-n", release))
	rolledOut(t)
	lose()
	s.finish(t, true)
	for _, how := range [][]string{{"--force", "--grace-period=0"}, {"--grace-period=1"}} {
		s := startStream(t, shared.secret)
		until := time.Now().Add(maxOutage)
		lose(how...)
		<-time.After(time.Until(until.Add(maxOutage / 2))) // nothing may fail during this time
		s.finishFailing(t, true, until)
	}
}

// upgraded: no write fails during an upgrade and a rollback.
func upgraded(t *testing.T) {
	s := startStream(t, shared.secret)
	must(t, upgrade(t, "--set", "log.level=debug", "--set", "webhook.replicas=3"))
	rolledOut(t)
	must(t, shared.helm(t.Context(), "rollback", release, "--namespace", release, "--wait", "--timeout", helmWait))
	rolledOut(t)
	s.finish(t, true)
	// Rendering the chart again changes nothing of what the webhook wrote.
	before := registered(t)
	must(t, upgrade(t))
	if after := registered(t); before != after {
		t.Errorf("an upgrade to the same version changes the registration:\n%s\n%s", before, after)
	}
}

// registered is the registration of the webhook, by which the API server calls it.
func registered(t *testing.T) string {
	t.Helper()
	return must(
		t,
		shared.kubectl(t.Context(), "get", "validatingwebhookconfiguration/"+release,
			"clusterrolebinding/"+release+"-answers", "-o", "jsonpath={range .items[*]}{.webhooks}{.subjects}{end}"),
	)
}

// previousVersion is the last commit of the previous chart version, 0.2.0.
const previousVersion = "46b028d8b5e49c544dcc6a7cbc3db06ae2525626"

// fromBefore: an upgrade from the previous version and a rollback, each with its own image.
func fromPreviousVersion(t *testing.T) {
	if shared.rig == nil {
		t.Skip("loads the image of the previous version into the node, so it runs only on the tests' own cluster")
	}
	folder := buildPreviousVersion(t)
	wait := []string{"--namespace", release, "--wait", "--timeout", helmWait}
	must(t, shared.helm(t.Context(), append([]string{
		"install", release, filepath.Join(folder, "charts", "kubelet-https-guard"),
		"--set", "image.repository=" + beforeRepository + ",image.tag=" + beforeTag + ",image.pullPolicy=Never",
	}, wait...)...))
	awaitRefusal(t)
	// A value that was moved is refused, with its new name, and nothing is changed.
	const moved = "webhook.protectedSecrets was moved after chart 0.2: set protectedSecrets instead"
	for _, args := range [][]string{
		{"--reuse-values"},
		{"--reset-then-reuse-values", "--set-json", `webhook.protectedSecrets=[{"namespace":"a","name":"b","usage":"serverAuth"}]`},
	} {
		if r := upgrade(t, args...); r.Code == 0 || !strings.Contains(r.Output, moved) {
			t.Errorf("%s: exit code %d, want a refusal with %q:\n%s", args, r.Code, moved, r.Output)
		}
	}
	exist(t, true, "deployment/"+release+"-audit", "secret/"+decoy)
	s := startStream(t, shared.secret)
	must(t, upgrade(t, "--reset-then-reuse-values"))
	awaitInForce(t)
	exist(t, true, "configmap/"+release+"-webhook") // its previous name
	rollback := func(revision string) {
		t.Helper()
		must(t, shared.helm(t.Context(), append([]string{"rollback", release, revision}, wait...)...))
	}
	rollback("1")
	exist(t, true, "deployment/"+release+"-audit", "secret/"+decoy, "configmap/"+release+"-config")
	awaitRefusal(t)
	rollback("2")
	awaitInForce(t)
	s.finish(t, true)
	must(t, shared.helm(t.Context(), "test", release, "--namespace", release, "--timeout", helmWait))
	uninstall(t)
}

// awaitAudit waits until a Pod of the audit has the Lease, which is deleted with its Deployment.
func awaitAudit(t *testing.T) {
	t.Helper()
	await(t, "the audit has its Lease", func() (bool, string) {
		lease := shared.kubectl(t.Context(), "get", "lease", release+"-audit",
			"-n", release, "-o", "jsonpath={.spec.holderIdentity} {.metadata.ownerReferences[*].name}")
		return strings.HasPrefix(lease.Output, release+"-audit-") &&
			strings.HasSuffix(lease.Output, " "+release+"-audit"), lease.Output
	})
}

// certificatesOfOthers: service-ca and cert-manager are not installed. The test simulates them, with a
// delay. Until then nothing is refused.
func certificatesOfOthers(t *testing.T) {
	if shared.rig == nil {
		t.Skip("simulates the APIs of OpenShift and cert-manager, so it runs only on the tests' own cluster")
	}
	for _, mode := range []struct{ name, apis, group string }{
		{"cert-manager", "testdata/cert-manager.yaml", "cert-manager.io/v1"},
		{"service-ca", "testdata/openshift.yaml", "security.openshift.io/v1"},
	} {
		t.Run(mode.name, func(t *testing.T) {
			apis, err := os.ReadFile(mode.apis)
			if err != nil {
				t.Fatal(err)
			}
			must(t, shared.kubectlInput(t.Context(), string(apis), "apply", "-f", "-"))
			must(t,
				shared.kubectlInput(t.Context(), string(apis), "wait", "--for=condition=Established", "--timeout=60s", "-f", "-"))
			// Helm uses the API server's list of served kinds, which is updated later.
			await(t, "the API server serves the kinds", func() (bool, string) {
				served := shared.kubectl(t.Context(), "api-versions")
				return strings.Contains(served.Output, mode.group), served.Output
			})
			defer func() {
				must(t, shared.kubectlInput(t.Context(), string(apis), "delete", "--wait", "-f", "-"))
			}()
			if mode.name == "service-ca" {
				must(
					t,
					shared.kubectl(t.Context(), "create", "configmap", "openshift-service-ca.crt", "-n", release,
						"--from-literal=service-ca.crt="+string(shared.rig.ServiceCA.PEM())),
				)
				defer func() {
					must(t, shared.kubectl(t.Context(), "delete", "configmap", "openshift-service-ca.crt", "-n", release))
				}()
			}
			s := startStream(t, shared.secret)
			must(t, install(t))
			<-time.After(stillTime)
			if good, bad := s.now(); good.refused+good.failed+bad.refused+bad.failed > 0 {
				t.Errorf("without a certificate: %+v, %+v", good, bad)
			}
			simulateIssuer(t, mode.name)
			await(t, "the API server calls the webhook", func() (bool, string) {
				_, bad := s.now()
				return bad.refused > 0, fmt.Sprintf("%+v", bad)
			})
			must(t, upgrade(t))
			s.finish(t, false)
			if err := shared.client.CoreV1().Secrets(release).Delete(t.Context(), release+"-webhook-"+mode.name,
				metav1.DeleteOptions{}); err != nil {
				t.Error(err) // service-ca deletes it with the Service, cert-manager keeps it: see the chart's README
			}
			uninstall(t)
		})
	}
}

// simulateIssuer makes the webhook's serving certificate and registers its CA where the chart requests it.
func simulateIssuer(t *testing.T, mode string) {
	t.Helper()
	asks := map[string][2]string{
		"cert-manager": {"certificates.cert-manager.io", "jsonpath={.items[*].spec.secretName}"},
		"service-ca":   {"services", `jsonpath={.items[*].metadata.annotations.service\.beta\.openshift\.io/serving-cert-secret-name}`},
	}[mode]
	if names := must(t, shared.kubectl(t.Context(), "get", asks[0], "-n", release, "-o", asks[1])); !strings.Contains(
		names,
		release+"-webhook-"+mode,
	) {
		t.Fatalf("the chart does not request Secret %s-webhook-%s, but %q", release, mode, names)
	}
	annotation := map[string]string{
		"cert-manager": `jsonpath={.metadata.annotations.cert-manager\.io/inject-ca-from}`,
		"service-ca":   `jsonpath={.metadata.annotations.service\.beta\.openshift\.io/inject-cabundle}`,
	}[mode]
	if value := must(t, shared.kubectl(t.Context(), "get", "validatingwebhookconfiguration", release, "-o",
		annotation)); value == "" {
		t.Fatal("the chart does not request the registration of the CA")
	}
	now := time.Now()
	ca := pkitest.NewCAAround(mode, now)
	name := release + "-webhook." + release + ".svc"
	pair := ca.Issue(
		pkitest.Request{CommonName: name, DNSNames: []string{name}}.Valid(now.Add(-time.Hour), now.AddDate(1, 0, 0)),
	)
	_, err := shared.client.CoreV1().Secrets(release).Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: release + "-webhook-" + mode}, Type: corev1.SecretTypeTLS,
		Data: map[string][]byte{corev1.TLSCertKey: pair.Certificate, corev1.TLSPrivateKeyKey: pair.Key},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	configurations := shared.client.AdmissionregistrationV1().ValidatingWebhookConfigurations()
	configuration, err := configurations.Get(t.Context(), release, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range configuration.Webhooks {
		configuration.Webhooks[i].ClientConfig.CABundle = ca.PEM()
	}
	if _, err := configurations.Update(t.Context(), configuration, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}
