// SPDX-License-Identifier: Apache-2.0

package chart_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/kubelet-https-guard/kubelet-https-guard/test/chart"
)

// TestPodsAreRestricted: in every way to install it, the Pods keep to the Pod
// Security Standard "restricted" and a little more, but for two things that the
// agent is for: it is uid 0, to which the files belong, and reads the host's
// files.
func TestPodsAreRestricted(t *testing.T) {
	for name, r := range renderings {
		t.Run(name, func(t *testing.T) {
			objects, err := chart.Objects(r.render(t))
			if err != nil {
				t.Fatal(err)
			}
			var faults []string
			for _, o := range objects {
				var pod corev1.PodSpec
				switch o.GetKind() {
				case "Deployment":
					pod = typed[appsv1.Deployment](t, o).Spec.Template.Spec
				case "DaemonSet":
					pod = typed[appsv1.DaemonSet](t, o).Spec.Template.Spec
				case "Pod":
					pod = typed[corev1.Pod](t, o).Spec
				case "Job", "CronJob", "StatefulSet", "ReplicaSet":
					t.Errorf("%s %s: this test does not know where its Pod is", o.GetKind(), o.GetName())
				default:
					continue
				}
				for _, fault := range podFaults(pod, o.GetKind() == "DaemonSet") {
					faults = append(faults, fmt.Sprintf("%s %s: %s", o.GetKind(), o.GetName(), fault))
				}
			}
			if diff := cmp.Diff([]string(nil), faults); diff != "" {
				t.Errorf("what the Pods might do (-want +got):\n%s", diff)
			}
		})
	}
}

// TestPodsAreRestrictedBites: each of the rules finds what it is there for.
func TestPodsAreRestrictedBites(t *testing.T) {
	webhook := func() corev1.PodSpec {
		return corev1.PodSpec{
			ServiceAccountName: "guard",
			SecurityContext: &corev1.PodSecurityContext{
				RunAsNonRoot: new(true), SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
			},
			Containers: []corev1.Container{{
				Name: "guard", Resources: corev1.ResourceRequirements{Limits: corev1.ResourceList{corev1.ResourceMemory: {}}},
				SecurityContext: &corev1.SecurityContext{
					AllowPrivilegeEscalation: new(false), ReadOnlyRootFilesystem: new(true),
					Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
				},
			}},
		}
	}
	container := func(change func(c *corev1.SecurityContext)) func(pod *corev1.PodSpec) {
		return func(pod *corev1.PodSpec) { change(pod.Containers[0].SecurityContext) }
	}
	cases := map[string]struct {
		agent  bool
		change func(pod *corev1.PodSpec)
		want   []string
	}{
		"sound": {change: func(*corev1.PodSpec) {}},
		"agent": {agent: true, change: func(pod *corev1.PodSpec) {
			pod.SecurityContext.RunAsNonRoot, pod.SecurityContext.RunAsUser = nil, new(int64(0))
			pod.Volumes = []corev1.Volume{{Name: "host", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{}}}}
		}},
		"root": {change: func(pod *corev1.PodSpec) {
			pod.SecurityContext.RunAsNonRoot, pod.SecurityContext.RunAsUser = nil, new(int64(0))
		}, want: []string{"root"}},
		"root in the container": {change: container(func(c *corev1.SecurityContext) { c.RunAsUser = new(int64(0)) }), want: []string{"guard: a user or seccomp profile of its own"}},
		"the host's files": {change: func(pod *corev1.PodSpec) {
			pod.Volumes = []corev1.Volume{{Name: "host", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{}}}}
		}, want: []string{"volume host: the host's files"}},
		"the host's network":     {change: func(pod *corev1.PodSpec) { pod.HostNetwork = true }, want: []string{"the host's network, processes or memory"}},
		"the host's processes":   {change: func(pod *corev1.PodSpec) { pod.HostPID = true }, want: []string{"the host's network, processes or memory"}},
		"the host's memory":      {change: func(pod *corev1.PodSpec) { pod.HostIPC = true }, want: []string{"the host's network, processes or memory"}},
		"a port of the host":     {change: func(pod *corev1.PodSpec) { pod.Containers[0].Ports = []corev1.ContainerPort{{HostPort: 80}} }, want: []string{"guard: a port of the host"}},
		"every system call":      {change: func(pod *corev1.PodSpec) { pod.SecurityContext.SeccompProfile = nil }, want: []string{"every system call"}},
		"everybody's account":    {change: func(pod *corev1.PodSpec) { pod.ServiceAccountName = "" }, want: []string{"the account of every Pod without one"}},
		"privileged":             {change: container(func(c *corev1.SecurityContext) { c.Privileged = new(true) }), want: []string{"guard: privileged"}},
		"more rights by setuid":  {change: container(func(c *corev1.SecurityContext) { c.AllowPrivilegeEscalation = nil }), want: []string{"guard: more rights by setuid"}},
		"a writable image":       {change: container(func(c *corev1.SecurityContext) { c.ReadOnlyRootFilesystem = nil }), want: []string{"guard: a writable image"}},
		"capabilities":           {change: container(func(c *corev1.SecurityContext) { c.Capabilities = nil }), want: []string{"guard: capabilities"}},
		"a capability":           {change: container(func(c *corev1.SecurityContext) { c.Capabilities.Add = []corev1.Capability{"DAC_READ_SEARCH"} }), want: []string{"guard: capabilities"}},
		"all the node's memory":  {change: func(pod *corev1.PodSpec) { pod.Containers[0].Resources.Limits = nil }, want: []string{"guard: all the memory of the node"}},
		"in an init container":   {change: func(pod *corev1.PodSpec) { pod.InitContainers = []corev1.Container{{Name: "init"}} }, want: []string{"init: no security context"}},
		"no security context":    {change: func(pod *corev1.PodSpec) { pod.Containers[0].SecurityContext = nil }, want: []string{"guard: no security context"}},
		"none for the whole Pod": {change: func(pod *corev1.PodSpec) { pod.SecurityContext = nil }, want: []string{"no security context"}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			pod := webhook()
			tc.change(&pod)
			if diff := cmp.Diff(tc.want, podFaults(pod, tc.agent)); diff != "" {
				t.Errorf("what the Pod might do (-want +got):\n%s", diff)
			}
		})
	}
}

// is reports whether a switch is set to a value.
func is(set *bool, value bool) bool { return set != nil && *set == value }

// podFaults is what a Pod might do and need not.
func podFaults(pod corev1.PodSpec, agent bool) []string {
	var faults []string
	if pod.HostNetwork || pod.HostPID || pod.HostIPC {
		faults = append(faults, "the host's network, processes or memory")
	}
	if pod.ServiceAccountName == "" {
		faults = append(faults, "the account of every Pod without one")
	}
	for _, v := range pod.Volumes {
		if v.HostPath != nil && !agent {
			faults = append(faults, "volume "+v.Name+": the host's files")
		}
	}
	if c := pod.SecurityContext; c == nil {
		faults = append(faults, "no security context")
	} else {
		if !agent && !is(c.RunAsNonRoot, true) {
			faults = append(faults, "root")
		}
		if c.SeccompProfile == nil || c.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
			faults = append(faults, "every system call")
		}
	}
	for _, container := range slices.Concat(pod.InitContainers, pod.Containers) {
		fault := func(text string) { faults = append(faults, container.Name+": "+text) }
		if container.SecurityContext == nil {
			fault("no security context")
			continue
		}
		c := container.SecurityContext
		if is(c.Privileged, true) {
			fault("privileged")
		}
		if c.RunAsUser != nil || c.RunAsNonRoot != nil || c.SeccompProfile != nil {
			fault("a user or seccomp profile of its own")
		}
		if !is(c.AllowPrivilegeEscalation, false) {
			fault("more rights by setuid")
		}
		if !is(c.ReadOnlyRootFilesystem, true) {
			fault("a writable image")
		}
		if c.Capabilities == nil || len(c.Capabilities.Add) > 0 || !slices.Equal(c.Capabilities.Drop, []corev1.Capability{"ALL"}) {
			fault("capabilities")
		}
		if slices.ContainsFunc(container.Ports, func(p corev1.ContainerPort) bool { return p.HostPort != 0 }) {
			fault("a port of the host")
		}
		if _, bounded := container.Resources.Limits[corev1.ResourceMemory]; !bounded {
			fault("all the memory of the node")
		}
	}
	return faults
}
