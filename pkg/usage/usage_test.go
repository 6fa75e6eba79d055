// SPDX-License-Identifier: Apache-2.0

package usage_test

import (
	"bytes"
	"flag"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/usage"
)

func TestPrint(t *testing.T) {
	flags := flag.NewFlagSet("program", flag.ContinueOnError)
	flags.String("a", "", "`file` of a")
	flags.Duration("b", time.Second, "wait this `time`")
	flags.Bool("c", false, "see")
	flags.Int("left", 3, "out")
	// What was given before --help is no default.
	if err := flags.Parse([]string{"--b", "5s"}); err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	usage.Print(&got, "It does.", flags, usage.Group{Title: "Files", Flags: []string{"a"}}, usage.Group{Title: "Times", Flags: []string{"b", "c", "unknown"}})
	const want = `It does.

Files:
  -a file
    	file of a

Times:
  -b time
    	wait this time (default 1s)
  -c	see

Others:
  -left int
    	out (default 3)
`
	if d := cmp.Diff(want, got.String()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}
