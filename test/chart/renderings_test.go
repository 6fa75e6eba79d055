// SPDX-License-Identifier: Apache-2.0

package chart_test

import (
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kubelet-https-guard/kubelet-https-guard/test/chart"
)

// APIs by which the chart knows what a cluster has.
var (
	openShift = []string{"security.openshift.io/v1"}
)

// rendering is one way to install the chart.
type rendering struct {
	apis []string // that the cluster has, besides those of Kubernetes
	set  []string // as --set takes it
}

var renderings = map[string]rendering{
	"OpenShift":        {apis: openShift},
	"other Kubernetes": {},
}

func (r rendering) args() []string {
	var args []string
	for _, api := range r.apis {
		args = append(args, "--api-versions", api)
	}
	for _, value := range r.set {
		args = append(args, "--set", value)
	}
	return args
}

func (r rendering) render(t *testing.T) []byte {
	t.Helper()
	needs(t, "HELM")
	rendered, err := chart.Render(t.Context(), r.args()...)
	if err != nil {
		t.Fatal(err)
	}
	return rendered
}

// needs leaves a test out if nobody has the time to build a program.
func needs(t *testing.T, variable string) {
	t.Helper()
	if testing.Short() && os.Getenv(variable) == "" {
		t.Skip("-short, and " + variable + " is not set")
	}
}

// TestRenderingIsStable: the same values give the same text, so that Helm, or
// who compares, sees no change where there is none.
func TestRenderingIsStable(t *testing.T) {
	for name, r := range renderings {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(string(r.render(t)), string(r.render(t))); diff != "" {
				t.Errorf("rendered twice (-first +second):\n%s", diff)
			}
		})
	}
}
