// SPDX-License-Identifier: Apache-2.0

package chart

// Exceptions returns the rules that the chart does not satisfy, with the reasons. A test fails if a rendering does not
// satisfy a rule and there is no exception, or if an exception is not needed.
func Exceptions() []Exception {
	everyPod := []string{"DaemonSet nodeagent", "Deployment audit", "Deployment webhook", "Pod test"}
	return []Exception{
		{"kube-linter run-as-non-root", []string{"DaemonSet nodeagent"}, "Only root can read the keys and certificates of " +
			"the kube-apiserver on a node. The agent is root without any capability, with a read-only root file system and " +
			"read-only mounts, and cannot escalate"},
		{"polaris hostPathSet", []string{"DaemonSet nodeagent"}, "The agent checks files of its node. It mounts only the " +
			"directories of its layout, read-only. Directories with tokens of Pods are refused"},
		{"kube-score container-security-context-user-group-id", everyPod, "OpenShift assigns the user (`restricted-v2`) and " +
			"refuses a fixed one, and Helm does not always know for which platform it renders. Elsewhere the image sets user " +
			"and group 65532. The agent is root, see above"},
		{"polaris automountServiceAccountToken", everyPod, "Each program uses the API. Its ServiceAccount has only the " +
			"permissions in its Roles, which tests compare with what it uses"},
		{"kube-score container-resources (cpu limit)", everyPod, "A limit would throttle the webhook while API servers wait " +
			"for its answer, and delay reports. The CPU request bounds the share of the node that it gets under load"},
		{"kube-score container-ephemeral-storage-request-and-limit", everyPod, "The containers write no files. Their logs " +
			"count as ephemeral storage, and kubelets rotate them; with a limit, a long log would evict the Pod"},
		{"kube-score container-image-pull-policy", everyPod, "With `Always`, Pods could not restart while the registry is " +
			"down. To make sure that the image is the one that you built, set `image.digest`; or set `image.pullPolicy`"},
		{"kube-score pod-networkpolicy (egress)", everyPod, "The chart does not know the addresses and ports of API servers, " +
			"kubelets and endpoints. A rule that is too narrow would disable the checks"},
		{"kube-linter no-anti-affinity", []string{"Deployment audit", "Deployment webhook"}, "`topologySpreadConstraints` " +
			"spread the Pods over nodes, and count the Pods of the new version only during an update. An anti-affinity would " +
			"count both versions"},
		{"polaris topologySpreadConstraint", []string{"DaemonSet nodeagent", "Pod test"}, "One Pod on each node, and a single Pod"},
		{"kube-score deployment-has-poddisruptionbudget", []string{"Deployment audit"}, "One Pod audits, the others wait for " +
			"its Lease. An evicted Pod releases the Lease, so the next one continues"},
		{"polaris metadataAndInstanceMismatched", everyPod, "`app.kubernetes.io/instance` is the release, as Kubernetes and " +
			"Helm recommend. Several objects belong to one release"},
		{"polaris priorityClassNotSet", []string{"Pod test"}, "The Pod runs for a minute, when you run `helm test`"},
		{"polaris readinessProbeMissing", []string{"Pod test"}, "The Pod serves nothing, and ends by itself or by its deadline"},
		{"trivy KSV-0113", []string{"Role audit", "Role test", "Role webhook"}, "The audit reads " +
			"the protected Secrets, by name, and sends dry runs on the decoy, as `helm test` does. In mode `self-managed` the " +
			"webhook may create Secrets in its own namespace, and read and update the one with its certificate"},
		{"trivy KSV-0041", []string{"ClusterRole audit"}, "Only if an entry of `protectedSecrets` has a `namespaceSelector`: " +
			"the audit reads the Secrets of that name in all namespaces"},
		{"trivy KSV-0114", []string{"ClusterRole webhook"}, "Only in mode `self-managed`: the webhook registers its CA in its " +
			"own ValidatingWebhookConfiguration, which is the only one that it may update. `service-ca`, `cert-manager` and " +
			"`provided` do not need this permission"},
		{"chart-verifier images-are-certified", []string{"chart"}, "No image is published yet, so none is named in " +
			"`artifacthub.io/images`, and none is certified"},
		{"chart-verifier signature-is-valid", []string{"chart"}, "No package of the chart is published yet, so none is signed"},
		{"ah maintainers", []string{"chart"}, "The project has no mail address. Vulnerabilities are reported as SECURITY.md says"},
	}
}
