// SPDX-License-Identifier: Apache-2.0

package main

import (
	"path"
	"slices"
	"strings"
)

// cgroupRoot is the mount point of cgroups.
const cgroupRoot = "/sys/fs/cgroup"

// hierarchies are the mounted cgroup hierarchies.
type hierarchies struct {
	v1      []string // one for each controller or set of controllers
	unified string   // cgroup v2; next to v1 it has no relevant controllers
}

// parseHierarchies parses /proc/self/mountinfo.
func parseHierarchies(mountinfo string) hierarchies {
	var h hierarchies
	for line := range strings.Lines(mountinfo) {
		// "36 35 98:0 /root /mount/point options [tags...] - type source options"
		before, after, ok := strings.Cut(line, " - ")
		fields := strings.Fields(before)
		if !ok || len(fields) < 5 {
			continue
		}
		point := path.Clean(fields[4])
		if point != cgroupRoot && !strings.HasPrefix(point, cgroupRoot+"/") {
			continue
		}
		switch kind, _, _ := strings.Cut(after, " "); kind {
		case "cgroup":
			if !slices.Contains(h.v1, point) {
				h.v1 = append(h.v1, point)
			}
		case "cgroup2":
			h.unified = point
		}
	}
	return h
}

// all returns all hierarchies.
func (h hierarchies) all() []string {
	if h.unified == "" {
		return h.v1
	}
	return append(slices.Clone(h.v1), h.unified)
}
