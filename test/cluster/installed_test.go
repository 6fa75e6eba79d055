// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestUnmet(t *testing.T) {
	is := func(met bool) func(context.Context) bool { return func(context.Context) bool { return met } }
	names, packages := unmet(t.Context(), []need{
		{name: "ctr", packages: []string{"containerd"}, met: is(false)},
		{name: "ip", packages: []string{"iproute2"}, met: is(true)},
		{name: "compiler", packages: []string{"libc6-dev", "gcc"}, met: is(false)},
		{name: "containerd", packages: []string{"containerd"}, met: is(false)},
	})
	if want := []string{"ctr", "compiler", "containerd"}; !slices.Equal(names, want) {
		t.Errorf("got the names %q, want %q", names, want)
	}
	if want := []string{"containerd", "gcc", "libc6-dev"}; !slices.Equal(packages, want) {
		t.Errorf("got the packages %q, want %q", packages, want)
	}
	want := "this machine does not have ctr, compiler: install them (Debian packages: containerd, gcc; as root on " +
		"Debian, this program installs them)"
	if got := notInstalled([]string{"ctr", "compiler"}, []string{"containerd", "gcc"}).Error(); got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestFindPlugins(t *testing.T) {
	part, whole := t.TempDir(), t.TempDir()
	for _, name := range usedPlugins {
		if err := os.WriteFile(filepath.Join(whole, name), nil, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(part, usedPlugins[0]), nil, 0o700); err != nil {
		t.Fatal(err)
	}
	if got, found := findPlugins([]string{part, whole}); got != whole || !found {
		t.Errorf("got %q, %t, want %q", got, found, whole)
	}
	if got, found := findPlugins([]string{part}); found {
		t.Errorf("got %q, where some are missing", got)
	}
}
