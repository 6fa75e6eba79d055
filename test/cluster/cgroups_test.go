// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"testing"
)

func TestParseHierarchies(t *testing.T) {
	tests := map[string]struct {
		mountinfo string
		want      hierarchies
	}{
		"V1": {
			mountinfo: `22 1 0:20 / /proc rw,nosuid shared:12 - proc proc rw
25 1 0:23 / /sys/fs/cgroup ro,nosuid shared:9 - tmpfs tmpfs ro,mode=755
26 25 0:24 / /sys/fs/cgroup/unified rw,nosuid shared:10 - cgroup2 cgroup2 rw
27 25 0:25 / /sys/fs/cgroup/systemd rw,nosuid shared:11 - cgroup cgroup rw,name=systemd
30 25 0:28 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid - cgroup cgroup rw,cpu,cpuacct
31 25 0:28 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid - cgroup cgroup rw,cpu,cpuacct
32 1 0:28 / /mnt/cgroup rw - cgroup cgroup rw,cpu,cpuacct
`,
			want: hierarchies{v1: []string{"/sys/fs/cgroup/systemd", "/sys/fs/cgroup/cpu,cpuacct"}, unified: "/sys/fs/cgroup/unified"},
		},
		"V2": {
			mountinfo: "25 1 0:23 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw\n",
			want:      hierarchies{unified: "/sys/fs/cgroup"},
		},
		"None": {mountinfo: "22 1 0:20 / /proc rw - proc proc rw\nnonsense\n1 2 - cgroup\n"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := parseHierarchies(tt.mountinfo)
			if !slices.Equal(got.v1, tt.want.v1) || got.unified != tt.want.unified {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
	if got, want := (hierarchies{v1: []string{"a"}, unified: "b"}).all(), []string{"a", "b"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
