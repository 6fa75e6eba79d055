// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	sigsyaml "sigs.k8s.io/yaml"
)

// Rule is something that scanners of charts and manifests ask for. The scanners themselves are not run: most of them
// are not available as Go modules. The rules are those that they report by default, read in their sources
// (kube-linter 0.7.6, kube-score 1.20, polaris 10.2.2, trivy 0.74.0, chart-verifier 1.16.0 with profile partner 1.3,
// chart-testing 3.14, ah 1.22).
type Rule struct {
	// Names are the scanners that have the rule, and what each calls it. The first one identifies the rule.
	Names []string
	// Wants is what an object must have.
	Wants string

	find func(Scanned) []string
}

// Exception says why objects do not satisfy a rule.
type Exception struct {
	// Rule is the first name of the rule.
	Rule string
	// Subjects are the objects, kind and component, or "chart".
	Subjects []string
	Why      string
}

// Finding is an object that does not satisfy a rule.
type Finding struct{ Rule, Subject string }

// workload is an object with Pods.
type workload struct {
	kind, component, name string
	labels, podLabels     map[string]string
	selector              map[string]string
	replicas              *int32
	spec                  corev1.PodSpec
}

func (w workload) subject() string { return w.kind + " " + w.component }

// Scanned is what rules are about: the chart, and one rendering of it.
type Scanned struct {
	metadata  map[string]any
	files     []string // relative to the chart
	objects   []*unstructured.Unstructured
	workloads []workload
	services  []corev1.Service
	policies  []networkingv1.NetworkPolicy
	budgets   []policyv1.PodDisruptionBudget
	roles     []rbacv1.ClusterRole // also Roles, which have the same fields
}

// componentLabel is the label with the component that an object belongs to.
const componentLabel = "app.kubernetes.io/component"

// NewScanned returns what rules are about: the chart in a repository, and a rendering.
func NewScanned(repository string, objects []*unstructured.Unstructured) (Scanned, error) {
	s := Scanned{objects: objects}
	dir := filepath.Join(repository, folder)
	text, err := os.ReadFile(filepath.Join(dir, "Chart.yaml"))
	if err != nil {
		return s, err
	}
	if err := sigsyaml.UnmarshalStrict(text, &s.metadata); err != nil {
		return s, fmt.Errorf("parse Chart.yaml: %w", err)
	}
	err = filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			s.files = append(s.files, strings.TrimPrefix(path, dir+"/"))
		}
		return err
	})
	if err != nil {
		return s, err
	}
	for _, o := range objects {
		if err := s.add(o); err != nil {
			return s, fmt.Errorf("read %s %s: %w", o.GetKind(), o.GetName(), err)
		}
	}
	return s, nil
}

// add adds an object under its type. Kinds without rules are ignored.
func (s *Scanned) add(o *unstructured.Unstructured) error {
	into := func(typed any) error { return runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, typed) }
	w := workload{kind: o.GetKind(), component: o.GetLabels()[componentLabel], name: o.GetName(), labels: o.GetLabels()}
	switch o.GetKind() {
	case "Deployment":
		var d appsv1.Deployment
		if err := into(&d); err != nil {
			return err
		}
		w.spec, w.podLabels, w.replicas = d.Spec.Template.Spec, d.Spec.Template.Labels, d.Spec.Replicas
		w.selector = d.Spec.Selector.MatchLabels
		s.workloads = append(s.workloads, w)
	case "DaemonSet":
		var d appsv1.DaemonSet
		if err := into(&d); err != nil {
			return err
		}
		w.spec, w.podLabels, w.selector = d.Spec.Template.Spec, d.Spec.Template.Labels, d.Spec.Selector.MatchLabels
		s.workloads = append(s.workloads, w)
	case "Pod":
		var p corev1.Pod
		if err := into(&p); err != nil {
			return err
		}
		w.spec, w.podLabels, w.selector = p.Spec, p.Labels, p.Labels
		s.workloads = append(s.workloads, w)
	case "Service":
		return appendAs(&s.services, into)
	case "NetworkPolicy":
		return appendAs(&s.policies, into)
	case "PodDisruptionBudget":
		return appendAs(&s.budgets, into)
	case "Role", "ClusterRole":
		return appendAs(&s.roles, into)
	}
	return nil
}

func appendAs[T any](list *[]T, into func(any) error) error {
	var object T
	err := into(&object)
	*list = append(*list, object)
	return err
}

// Scan returns the objects that do not satisfy a rule, sorted.
func Scan(s Scanned) []Finding {
	var findings []Finding
	for _, rule := range Rules() {
		for _, subject := range rule.find(s) {
			findings = append(findings, Finding{rule.Names[0], subject})
		}
	}
	slices.SortFunc(findings, func(a, b Finding) int {
		return strings.Compare(a.Rule+"\x00"+a.Subject, b.Rule+"\x00"+b.Subject)
	})
	return slices.Compact(findings)
}

// pods makes a rule about the Pods of workloads from a function that says whether one satisfies it.
func pods(satisfied func(workload) bool) func(Scanned) []string {
	return func(s Scanned) []string {
		var found []string
		for _, w := range s.workloads {
			if !satisfied(w) {
				found = append(found, w.subject())
			}
		}
		return found
	}
}

// containers makes a rule about each container.
func containers(satisfied func(workload, corev1.Container) bool) func(Scanned) []string {
	return pods(func(w workload) bool {
		all := slices.Concat(w.spec.InitContainers, w.spec.Containers)
		return !slices.ContainsFunc(all, func(c corev1.Container) bool { return !satisfied(w, c) })
	})
}

// deployments makes a rule about Deployments only.
func deployments(satisfied func(Scanned, workload) bool) func(Scanned) []string {
	return func(s Scanned) []string {
		return pods(func(w workload) bool { return w.kind != "Deployment" || satisfied(s, w) })(s)
	}
}

// about makes a rule about the chart itself.
func about(satisfied func(Scanned) bool) func(Scanned) []string {
	return func(s Scanned) []string {
		if satisfied(s) {
			return nil
		}
		return []string{"chart"}
	}
}

// has makes a rule about a file of the chart.
func has(name string) func(Scanned) []string {
	return about(func(s Scanned) bool { return slices.Contains(s.files, name) })
}

// annotated makes a rule about an annotation of the chart.
func annotated(name string) func(Scanned) []string {
	return about(func(s Scanned) bool { return s.annotation(name) != "" })
}

func (s Scanned) annotation(name string) string {
	text, _, _ := unstructured.NestedString(s.metadata, "annotations", name)
	return text
}

// selected reports whether labels match a selector that has labels.
func selected(selector, of map[string]string) bool {
	return len(selector) > 0 && labels.SelectorFromSet(selector).Matches(labels.Set(of))
}

// covered reports whether a NetworkPolicy of a type selects the Pods of a workload.
func (s Scanned) covered(w workload, direction networkingv1.PolicyType) bool {
	return slices.ContainsFunc(s.policies, func(p networkingv1.NetworkPolicy) bool {
		return slices.Contains(p.Spec.PolicyTypes, direction) && selected(p.Spec.PodSelector.MatchLabels, w.podLabels)
	})
}

func isTrue(set *bool) bool  { return set != nil && *set }
func isFalse(set *bool) bool { return set != nil && !*set }

// resource reports whether a list has a quantity.
func resource(list corev1.ResourceList, name corev1.ResourceName) bool {
	_, ok := list[name]
	return ok
}

// port reports whether a port that a probe or a Service names is one of a container.
func port(c corev1.Container, target intstr.IntOrString) bool {
	return slices.ContainsFunc(c.Ports, func(p corev1.ContainerPort) bool {
		return target.Type == intstr.String && p.Name == target.StrVal ||
			target.Type == intstr.Int && p.ContainerPort == target.IntVal
	})
}

// merged returns the fields of a container's security context that the rules are about: those that it does not set are
// the Pod's.
func merged(pod *corev1.PodSecurityContext, container *corev1.SecurityContext) corev1.SecurityContext {
	var all corev1.SecurityContext
	if pod != nil {
		all.RunAsNonRoot, all.RunAsUser, all.SeccompProfile = pod.RunAsNonRoot, pod.RunAsUser, pod.SeccompProfile
	}
	if container != nil {
		all.RunAsNonRoot = cmp.Or(container.RunAsNonRoot, all.RunAsNonRoot)
		all.RunAsUser = cmp.Or(container.RunAsUser, all.RunAsUser)
		all.SeccompProfile = cmp.Or(container.SeccompProfile, all.SeccompProfile)
	}
	return all
}

// roleRule makes a rule about permissions: verbs on a resource that no role of some kinds may have.
func roleRule(kinds []string, resource string, verbs ...string) func(Scanned) []string {
	return func(s Scanned) []string {
		var found []string
		for _, role := range s.roles {
			if slices.Contains(kinds, role.Kind) && slices.ContainsFunc(role.Rules, func(r rbacv1.PolicyRule) bool {
				hasResource := slices.Contains(r.Resources, resource) || slices.Contains(r.Resources, rbacv1.ResourceAll)
				return hasResource && slices.ContainsFunc(verbs, func(verb string) bool {
					return slices.Contains(r.Verbs, verb) || slices.Contains(r.Verbs, rbacv1.VerbAll)
				})
			}) {
				found = append(found, role.Kind+" "+role.Labels[componentLabel])
			}
		}
		return found
	}
}

var (
	sensitivePath = regexp.MustCompile(`^/(boot|dev|etc|lib|proc|sys|usr)?$|docker\.sock`)
	secretName    = regexp.MustCompile(`(?i)secret|password|token|key`)
	versionTag    = regexp.MustCompile(`(@sha256:[0-9a-f]{64}|:[^:/@]+)$`)
	writes        = []string{"create", "update", "patch", "delete", "deletecollection", "impersonate", "*"}
	reads         = append([]string{"get", "list", "watch"}, writes...)
)

// Rules returns all rules that are checked.
func Rules() []Rule {
	return slices.Concat(podRules(), containerRules(), objectRules(), chartRules())
}

func podRules() []Rule {
	return []Rule{
		{[]string{"kube-linter host-ipc", "kube-linter host-network", "kube-linter host-pid", "polaris hostIPCSet",
			"polaris hostNetworkSet", "polaris hostPIDSet", "trivy KSV-0008", "trivy KSV-0009", "trivy KSV-0010"},
			"no namespace of the host", pods(func(w workload) bool {
				return !w.spec.HostIPC && !w.spec.HostNetwork && !w.spec.HostPID
			})},
		{[]string{"kube-linter run-as-non-root", "polaris runAsRootAllowed", "trivy KSV-0012", "trivy KSV-0105"},
			"a user other than root", containers(func(w workload, c corev1.Container) bool {
				context := merged(w.spec.SecurityContext, c.SecurityContext)
				return isTrue(context.RunAsNonRoot) && (context.RunAsUser == nil || *context.RunAsUser != 0)
			})},
		{[]string{"kube-score container-security-context-user-group-id", "trivy KSV-0020", "trivy KSV-0021"},
			"a user and a group above 10000 in the manifest", pods(func(w workload) bool {
				c := w.spec.SecurityContext
				return c != nil && c.RunAsUser != nil && *c.RunAsUser > 10000 && c.RunAsGroup != nil && *c.RunAsGroup > 10000
			})},
		{[]string{"polaris hostPathSet", "trivy KSV-0023"}, "no hostPath volume", pods(func(w workload) bool {
			return !slices.ContainsFunc(w.spec.Volumes, func(v corev1.Volume) bool { return v.HostPath != nil })
		})},
		{[]string{"kube-linter sensitive-host-mounts", "kube-linter docker-sock"}, "no system directory of the host",
			pods(func(w workload) bool {
				return !slices.ContainsFunc(w.spec.Volumes, func(v corev1.Volume) bool {
					return v.HostPath != nil && sensitivePath.MatchString(v.HostPath.Path)
				})
			})},
		{[]string{"polaris linuxHardening", "trivy KSV-0030", "trivy KSV-0104"}, "a seccomp profile",
			containers(func(w workload, c corev1.Container) bool {
				profile := merged(w.spec.SecurityContext, c.SecurityContext).SeccompProfile
				return profile != nil && profile.Type == corev1.SeccompProfileTypeRuntimeDefault
			})},
		{[]string{"kube-linter unsafe-sysctls"}, "no sysctls", pods(func(w workload) bool {
			return w.spec.SecurityContext == nil || len(w.spec.SecurityContext.Sysctls) == 0
		})},
		{[]string{"polaris automountServiceAccountToken"}, "no token of the ServiceAccount", pods(func(w workload) bool {
			return isFalse(w.spec.AutomountServiceAccountToken)
		})},
		{[]string{"polaris priorityClassNotSet"}, "a priority class", pods(func(w workload) bool {
			return w.spec.PriorityClassName != ""
		})},
		{[]string{"kube-linter deprecated-service-account-field"}, "no deprecated field serviceAccount",
			pods(func(w workload) bool { return w.spec.DeprecatedServiceAccount == "" })},
		{[]string{"kube-linter non-existent-service-account"}, "a ServiceAccount that exists", func(s Scanned) []string {
			return pods(func(w workload) bool {
				return slices.ContainsFunc(s.objects, func(o *unstructured.Unstructured) bool {
					return o.GetKind() == "ServiceAccount" && o.GetName() == w.spec.ServiceAccountName
				})
			})(s)
		}},
		{[]string{"kube-linter mismatching-selector"}, "a selector that matches the Pods", pods(func(w workload) bool {
			return selected(w.selector, w.podLabels)
		})},
		{[]string{"polaris metadataAndInstanceMismatched"}, "the label app.kubernetes.io/instance with the name of the object",
			pods(func(w workload) bool { return w.labels["app.kubernetes.io/instance"] == w.name })},
		{[]string{"kube-score pod-networkpolicy", "polaris missingNetworkPolicy"}, "a NetworkPolicy for ingress",
			func(s Scanned) []string {
				return pods(func(w workload) bool { return s.covered(w, networkingv1.PolicyTypeIngress) })(s)
			}},
		{[]string{"kube-score pod-networkpolicy (egress)"}, "a NetworkPolicy for egress", func(s Scanned) []string {
			return pods(func(w workload) bool { return s.covered(w, networkingv1.PolicyTypeEgress) })(s)
		}},
	}
}

func containerRules() []Rule {
	context := func(satisfied func(*corev1.SecurityContext) bool) func(Scanned) []string {
		return containers(func(_ workload, c corev1.Container) bool {
			return c.SecurityContext != nil && satisfied(c.SecurityContext)
		})
	}
	return []Rule{
		{[]string{"kube-linter privileged-container", "kube-score container-security-context-privileged",
			"polaris runAsPrivileged", "trivy KSV-0017"}, "no privileged container",
			context(func(c *corev1.SecurityContext) bool { return !isTrue(c.Privileged) })},
		{[]string{"kube-linter privilege-escalation-container", "polaris privilegeEscalationAllowed", "trivy KSV-0001"},
			"no privilege escalation",
			context(func(c *corev1.SecurityContext) bool { return isFalse(c.AllowPrivilegeEscalation) })},
		{[]string{"kube-linter no-read-only-root-fs", "kube-score container-security-context-readonlyrootfilesystem",
			"polaris notReadOnlyRootFilesystem", "trivy KSV-0014"}, "a read-only root file system",
			context(func(c *corev1.SecurityContext) bool { return isTrue(c.ReadOnlyRootFilesystem) })},
		{[]string{"kube-linter drop-net-raw-capability", "polaris dangerousCapabilities", "polaris insecureCapabilities",
			"trivy KSV-0003", "trivy KSV-0106"}, "no capabilities", context(func(c *corev1.SecurityContext) bool {
			return c.Capabilities != nil && len(c.Capabilities.Add) == 0 && slices.Contains(c.Capabilities.Drop, "ALL")
		})},
		{[]string{"kube-linter unset-cpu-requirements", "kube-score container-resources (cpu request)",
			"polaris cpuRequestsMissing", "trivy KSV-0015"}, "a CPU request",
			containers(func(_ workload, c corev1.Container) bool { return resource(c.Resources.Requests, corev1.ResourceCPU) })},
		{[]string{"kube-linter unset-memory-requirements", "kube-score container-resources (memory)",
			"polaris memoryRequestsMissing", "polaris memoryLimitsMissing", "trivy KSV-0016", "trivy KSV-0018"},
			"a memory request and limit", containers(func(_ workload, c corev1.Container) bool {
				return resource(c.Resources.Requests, corev1.ResourceMemory) && resource(c.Resources.Limits, corev1.ResourceMemory)
			})},
		{[]string{"kube-score container-resources (cpu limit)", "polaris cpuLimitsMissing", "trivy KSV-0011"}, "a CPU limit",
			containers(func(_ workload, c corev1.Container) bool { return resource(c.Resources.Limits, corev1.ResourceCPU) })},
		{[]string{"kube-score container-ephemeral-storage-request-and-limit"}, "a request and a limit of ephemeral storage",
			containers(func(_ workload, c corev1.Container) bool {
				return resource(c.Resources.Requests, corev1.ResourceEphemeralStorage) &&
					resource(c.Resources.Limits, corev1.ResourceEphemeralStorage)
			})},
		{[]string{"kube-linter latest-tag", "kube-score container-image-tag", "polaris tagNotSpecified", "trivy KSV-0013"},
			"an image tag other than latest, or a digest", containers(func(_ workload, c corev1.Container) bool {
				return versionTag.MatchString(c.Image) && !strings.HasSuffix(c.Image, ":latest")
			})},
		{[]string{"kube-score container-image-pull-policy", "polaris pullPolicyNotAlways"}, "the image pull policy Always",
			containers(func(_ workload, c corev1.Container) bool { return c.ImagePullPolicy == corev1.PullAlways })},
		{[]string{"polaris readinessProbeMissing", "polaris livenessProbeMissing", "kube-score pod-probes"},
			"a readiness and a liveness probe, which differ", containers(func(_ workload, c corev1.Container) bool {
				return c.ReadinessProbe != nil && c.LivenessProbe != nil &&
					c.ReadinessProbe.ProbeHandler.String() != c.LivenessProbe.ProbeHandler.String()
			})},
		{[]string{"kube-linter liveness-port", "kube-linter readiness-port", "kube-linter startup-port"},
			"probes of ports that the container has", containers(func(_ workload, c corev1.Container) bool {
				for _, probe := range []*corev1.Probe{c.LivenessProbe, c.ReadinessProbe, c.StartupProbe} {
					if probe != nil && (probe.HTTPGet == nil || !port(c, probe.HTTPGet.Port)) {
						return false
					}
				}
				return true
			})},
		{[]string{"kube-linter ssh-port", "polaris hostPortSet", "trivy KSV-0024", "trivy KSV-0117"},
			"no host port, and no port below 1024", containers(func(_ workload, c corev1.Container) bool {
				return !slices.ContainsFunc(c.Ports, func(p corev1.ContainerPort) bool {
					return p.HostPort != 0 || p.ContainerPort < 1024
				})
			})},
		{[]string{"kube-linter duplicate-env-var", "kube-linter env-var-secret", "polaris sensitiveContainerEnvVar",
			"kube-score environment-variable-key-duplication"}, "no environment variable twice or with a secret",
			containers(func(_ workload, c corev1.Container) bool {
				names := map[string]bool{}
				for _, variable := range c.Env {
					if names[variable.Name] || variable.Value != "" && secretName.MatchString(variable.Name) {
						return false
					}
					names[variable.Name] = true
				}
				return true
			})},
	}
}

func objectRules() []Rule {
	return []Rule{
		{[]string{"kube-linter no-anti-affinity", "kube-score deployment-has-host-podantiaffinity"},
			"an anti-affinity of the Pods of a Deployment", deployments(func(_ Scanned, w workload) bool {
				return w.spec.Affinity != nil && w.spec.Affinity.PodAntiAffinity != nil
			})},
		{[]string{"polaris topologySpreadConstraint"}, "a topology spread constraint",
			pods(func(w workload) bool { return len(w.spec.TopologySpreadConstraints) > 0 })},
		{[]string{"polaris deploymentMissingReplicas", "kube-score deployment-replicas"},
			"at least two replicas of a Deployment",
			deployments(func(_ Scanned, w workload) bool { return w.replicas != nil && *w.replicas >= 2 })},
		{[]string{"kube-score deployment-has-poddisruptionbudget", "polaris missingPodDisruptionBudget"},
			"a PodDisruptionBudget for a Deployment", deployments(func(s Scanned, w workload) bool {
				return slices.ContainsFunc(s.budgets, func(b policyv1.PodDisruptionBudget) bool {
					return selected(b.Spec.Selector.MatchLabels, w.podLabels)
				})
			})},
		{[]string{"kube-linter pdb-max-unavailable", "kube-linter pdb-min-available",
			"kube-linter pdb-unhealthy-pod-eviction-policy", "polaris pdbDisruptionsIsZero"},
			"a PodDisruptionBudget that lets nodes be drained", func(s Scanned) []string {
				var found []string
				for _, b := range s.budgets {
					if b.Spec.MaxUnavailable == nil || b.Spec.MaxUnavailable.IntValue() < 1 ||
						b.Spec.UnhealthyPodEvictionPolicy == nil {
						found = append(found, "PodDisruptionBudget "+b.Labels[componentLabel])
					}
				}
				return found
			}},
		{[]string{"kube-score networkpolicy-targets-pod"}, "a NetworkPolicy that selects Pods", func(s Scanned) []string {
			var found []string
			for _, p := range s.policies {
				if !slices.ContainsFunc(s.workloads, func(w workload) bool {
					return selected(p.Spec.PodSelector.MatchLabels, w.podLabels)
				}) {
					found = append(found, "NetworkPolicy "+p.Labels[componentLabel])
				}
			}
			return found
		}},
		{[]string{"kube-linter dangling-service", "kube-score service-targets-pod", "kube-linter invalid-target-ports"},
			"a Service that selects Pods and names one of their ports", func(s Scanned) []string {
				var found []string
				for _, service := range s.services {
					if !slices.ContainsFunc(s.workloads, func(w workload) bool {
						return selected(service.Spec.Selector, w.podLabels) &&
							!slices.ContainsFunc(service.Spec.Ports, func(p corev1.ServicePort) bool {
								return !slices.ContainsFunc(w.spec.Containers, func(c corev1.Container) bool {
									return port(c, p.TargetPort)
								})
							})
					}) {
						found = append(found, "Service "+service.Labels[componentLabel])
					}
				}
				return found
			}},
		{[]string{"kube-score service-type"}, "a Service that is not of type NodePort", func(s Scanned) []string {
			var found []string
			for _, service := range s.services {
				if service.Spec.Type == corev1.ServiceTypeNodePort {
					found = append(found, "Service "+service.Labels[componentLabel])
				}
			}
			return found
		}},
		{[]string{"kube-linter no-extensions-v1beta", "kube-score stable-version"}, "stable versions of Kubernetes' APIs",
			func(s Scanned) []string {
				var found []string
				for _, o := range s.objects {
					version := o.GroupVersionKind().GroupVersion()
					if strings.Contains(version.Version, "beta") || strings.Contains(version.Version, "alpha") {
						found = append(found, o.GetKind()+" "+o.GetLabels()[componentLabel])
					}
				}
				return found
			}},
		{[]string{"trivy KSV-0041"}, "no permission on Secrets in all namespaces",
			roleRule([]string{"ClusterRole"}, "secrets", reads...)},
		{[]string{"trivy KSV-0113"}, "no permission on Secrets in a namespace",
			roleRule([]string{"Role"}, "secrets", reads...)},
		{[]string{"trivy KSV-0114"}, "no permission to change webhook configurations",
			roleRule([]string{"ClusterRole", "Role"}, "validatingwebhookconfigurations", writes...)},
		{[]string{"polaris clusterrolePodExecAttach", "polaris rolePodExecAttach"}, "no permission to run commands in Pods",
			roleRule([]string{"ClusterRole", "Role"}, "pods/exec", reads...)},
		{[]string{"polaris clusterrolebindingClusterAdmin", "polaris rolebindingClusterAdminClusterRole"},
			"no cluster administrator", func(s Scanned) []string {
				var found []string
				for _, o := range s.objects {
					if role, _, _ := unstructured.NestedString(o.Object, "roleRef", "name"); role == "cluster-admin" {
						found = append(found, o.GetKind()+" "+o.GetLabels()[componentLabel])
					}
				}
				return found
			}},
	}
}

func chartRules() []Rule {
	field := func(name string) func(Scanned) []string {
		return about(func(s Scanned) bool { return s.metadata[name] != nil && s.metadata[name] != "" })
	}
	return []Rule{
		{[]string{"chart-verifier required-annotations-present"}, "the annotation charts.openshift.io/name",
			annotated("charts.openshift.io/name")},
		{[]string{"chart-verifier has-kubeversion"}, "kubeVersion", field("kubeVersion")},
		{[]string{"chart-verifier is-helm-v3"}, "apiVersion v2",
			about(func(s Scanned) bool { return s.metadata["apiVersion"] == "v2" })},
		{[]string{"chart-verifier has-readme", "ah readme"}, "README.md", has("README.md")},
		{[]string{"chart-verifier has-notes"}, "templates/NOTES.txt", has("templates/NOTES.txt")},
		{[]string{"chart-verifier contains-values"}, "values.yaml", has("values.yaml")},
		{[]string{"chart-verifier contains-values-schema", "ah values schema"}, "values.schema.json",
			has("values.schema.json")},
		{[]string{"chart-verifier contains-test"}, "a test in templates/tests", about(func(s Scanned) bool {
			return slices.ContainsFunc(s.files, func(file string) bool { return strings.HasPrefix(file, "templates/tests/") })
		})},
		{[]string{"chart-verifier not-contains-crds", "chart-verifier not-contain-csi-objects"},
			"no CustomResourceDefinition and no CSIDriver", about(func(s Scanned) bool {
				return !slices.ContainsFunc(s.files, func(file string) bool { return strings.HasPrefix(file, "crds/") }) &&
					!slices.ContainsFunc(s.objects, func(o *unstructured.Unstructured) bool {
						return o.GetKind() == "CSIDriver" || o.GetKind() == "CustomResourceDefinition"
					})
			})},
		{[]string{"chart-verifier images-are-certified", "ah containers images"}, "images that are published and certified",
			annotated("artifacthub.io/images")},
		{[]string{"chart-verifier signature-is-valid", "ah sign key"}, "a signature", annotated("artifacthub.io/signKey")},
		{[]string{"ct lint maintainers"}, "maintainers", field("maintainers")},
		{[]string{"ah maintainers"}, "a mail address of each maintainer", about(func(s Scanned) bool {
			all, _, _ := unstructured.NestedSlice(s.metadata, "maintainers")
			return len(all) > 0 && !slices.ContainsFunc(all, func(m any) bool {
				fields, _ := m.(map[string]any)
				return fields["email"] == nil
			})
		})},
		{[]string{"ah logo URL", "helm lint icon"}, "an icon", field("icon")},
		{[]string{"ah home URL"}, "home", field("home")},
		{[]string{"ah keywords"}, "keywords", field("keywords")},
		{[]string{"ah license"}, "a license", annotated("artifacthub.io/license")},
		{[]string{"ah category"}, "a category", annotated("artifacthub.io/category")},
		{[]string{"ah links"}, "links", annotated("artifacthub.io/links")},
		{[]string{"ah changes"}, "changes", annotated("artifacthub.io/changes")},
		{[]string{"ah recommendations"}, "recommendations", annotated("artifacthub.io/recommendations")},
		{[]string{"ah pre-release"}, "whether it is a prerelease", annotated("artifacthub.io/prerelease")},
		{[]string{"ah contains security updates"}, "whether it has security updates",
			annotated("artifacthub.io/containsSecurityUpdates")},
	}
}

// ScannersPage returns the generated parts of docs/scanners.md: exceptions, and rules.
func ScannersPage() (exceptions, rules string) {
	byName := map[string]Rule{}
	for _, rule := range Rules() {
		byName[rule.Names[0]] = rule
	}
	var text bytes.Buffer
	text.WriteString("| reported by | missing | objects | why |\n| --- | --- | --- | --- |\n")
	for _, e := range Exceptions() {
		rule := byName[e.Rule]
		fmt.Fprintf(&text, "| %s | %s | %s | %s |\n", strings.Join(quoted(rule.Names), ", "), rule.Wants,
			strings.Join(e.Subjects, ", "), e.Why)
	}
	exceptions = text.String()
	text.Reset()
	scanners := map[string][]string{}
	for _, rule := range Rules() {
		for _, name := range rule.Names {
			scanner, id, _ := strings.Cut(name, " ")
			scanners[scanner] = append(scanners[scanner], "`"+id+"`")
		}
	}
	text.WriteString("| scanner | rules |\n| --- | --- |\n")
	for _, scanner := range slices.Sorted(maps.Keys(scanners)) {
		slices.Sort(scanners[scanner])
		fmt.Fprintf(&text, "| %s | %s |\n", scanner, strings.Join(slices.Compact(scanners[scanner]), ", "))
	}
	return exceptions, text.String()
}

func quoted(names []string) []string {
	var out []string
	for _, name := range names {
		out = append(out, "`"+name+"`")
	}
	return out
}
