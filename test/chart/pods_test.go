// SPDX-License-Identifier: Apache-2.0

package chart_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// TestPodsAreRestricted: in every rendering, the Pods comply with the Pod Security
// Standard "restricted" and some additional rules. The agent has two exceptions: it
// runs as uid 0, which owns the files, and mounts host paths.
func TestPodsAreRestricted(t *testing.T) {
	for name, r := range renderings {
		t.Run(name, func(t *testing.T) {
			objects := r.objects(t)
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
					t.Errorf("%s %s: this test does not know the field of its Pod", o.GetKind(), o.GetName())
				default:
					continue
				}
				for _, fault := range podFaults(pod, o.GetKind() == "DaemonSet") {
					faults = append(faults, fmt.Sprintf("%s %s: %s", o.GetKind(), o.GetName(), fault))
				}
			}
			if diff := cmp.Diff([]string(nil), faults); diff != "" {
				t.Errorf("unnecessary permissions of the Pods (-want +got):\n%s", diff)
			}
		})
	}
}

// TestPodsAreRestrictedBites: each rule finds its violation.
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
			pod.Volumes = []corev1.Volume{
				{Name: "host", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{}}},
			}
		}},
		"root": {change: func(pod *corev1.PodSpec) {
			pod.SecurityContext.RunAsNonRoot, pod.SecurityContext.RunAsUser = nil, new(int64(0))
		}, want: []string{"root"}},
		"root in the container": {
			change: container(func(c *corev1.SecurityContext) { c.RunAsUser = new(int64(0)) }),
			want:   []string{"guard: user or seccomp profile of the container"},
		},
		"host path": {change: func(pod *corev1.PodSpec) {
			pod.Volumes = []corev1.Volume{
				{Name: "host", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{}}},
			}
		}, want: []string{"volume host: host path"}},
		"host network": {
			change: func(pod *corev1.PodSpec) { pod.HostNetwork = true },
			want:   []string{"host network, PID or IPC namespace"},
		},
		"host PID": {
			change: func(pod *corev1.PodSpec) { pod.HostPID = true },
			want:   []string{"host network, PID or IPC namespace"},
		},
		"host IPC": {
			change: func(pod *corev1.PodSpec) { pod.HostIPC = true },
			want:   []string{"host network, PID or IPC namespace"},
		},
		"host port": {
			change: func(pod *corev1.PodSpec) { pod.Containers[0].Ports = []corev1.ContainerPort{{HostPort: 80}} },
			want:   []string{"guard: host port"},
		},
		"no seccomp profile": {
			change: func(pod *corev1.PodSpec) { pod.SecurityContext.SeccompProfile = nil },
			want:   []string{"no seccomp profile"},
		},
		"default ServiceAccount": {
			change: func(pod *corev1.PodSpec) { pod.ServiceAccountName = "" },
			want:   []string{"default ServiceAccount"},
		},
		"privileged": {
			change: container(func(c *corev1.SecurityContext) { c.Privileged = new(true) }),
			want:   []string{"guard: privileged"},
		},
		"privilege escalation": {
			change: container(func(c *corev1.SecurityContext) { c.AllowPrivilegeEscalation = nil }),
			want:   []string{"guard: privilege escalation"},
		},
		"writable root file system": {
			change: container(func(c *corev1.SecurityContext) { c.ReadOnlyRootFilesystem = nil }),
			want:   []string{"guard: writable root file system"},
		},
		"capabilities": {
			change: container(func(c *corev1.SecurityContext) { c.Capabilities = nil }),
			want:   []string{"guard: capabilities"},
		},
		"a capability": {change: container(func(c *corev1.SecurityContext) { c.Capabilities.Add = []corev1.Capability{"DAC_READ_SEARCH"} }), want: []string{"guard: capabilities"}},
		"no memory limit": {
			change: func(pod *corev1.PodSpec) { pod.Containers[0].Resources.Limits = nil },
			want:   []string{"guard: no memory limit"},
		},
		"in an init container": {
			change: func(pod *corev1.PodSpec) { pod.InitContainers = []corev1.Container{{Name: "init"}} },
			want:   []string{"init: no security context"},
		},
		"no security context": {
			change: func(pod *corev1.PodSpec) { pod.Containers[0].SecurityContext = nil },
			want:   []string{"guard: no security context"},
		},
		"no Pod security context": {
			change: func(pod *corev1.PodSpec) { pod.SecurityContext = nil },
			want:   []string{"no security context"},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			pod := webhook()
			tc.change(&pod)
			if diff := cmp.Diff(tc.want, podFaults(pod, tc.agent)); diff != "" {
				t.Errorf("unnecessary permissions of the Pod (-want +got):\n%s", diff)
			}
		})
	}
}

// is reports whether a boolean is set to a value.
func is(set *bool, value bool) bool { return set != nil && *set == value }

// podFaults returns the permissions that a Pod has and does not need.
func podFaults(pod corev1.PodSpec, agent bool) []string {
	var faults []string
	if pod.HostNetwork || pod.HostPID || pod.HostIPC {
		faults = append(faults, "host network, PID or IPC namespace")
	}
	if pod.ServiceAccountName == "" {
		faults = append(faults, "default ServiceAccount")
	}
	for _, v := range pod.Volumes {
		if v.HostPath != nil && !agent {
			faults = append(faults, "volume "+v.Name+": host path")
		}
	}
	if c := pod.SecurityContext; c == nil {
		faults = append(faults, "no security context")
	} else {
		if !agent && !is(c.RunAsNonRoot, true) {
			faults = append(faults, "root")
		}
		if c.SeccompProfile == nil || c.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
			faults = append(faults, "no seccomp profile")
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
			fault("user or seccomp profile of the container")
		}
		if !is(c.AllowPrivilegeEscalation, false) {
			fault("privilege escalation")
		}
		if !is(c.ReadOnlyRootFilesystem, true) {
			fault("writable root file system")
		}
		if c.Capabilities == nil || len(c.Capabilities.Add) > 0 ||
			!slices.Equal(c.Capabilities.Drop, []corev1.Capability{"ALL"}) {
			fault("capabilities")
		}
		if slices.ContainsFunc(container.Ports, func(p corev1.ContainerPort) bool { return p.HostPort != 0 }) {
			fault("host port")
		}
		if _, bounded := container.Resources.Limits[corev1.ResourceMemory]; !bounded {
			fault("no memory limit")
		}
	}
	return faults
}
