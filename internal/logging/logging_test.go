// SPDX-License-Identifier: Apache-2.0

package logging_test

import (
	"bytes"
	"flag"
	"io"
	"strings"
	"testing"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/logging"
)

// TestOptions: the flags accept the documented values, and an error names the wrong value.
func TestOptions(t *testing.T) {
	cases := map[string]struct {
		args, want, wantErr string
	}{
		"the default":      {want: `"msg":"Two"`},
		"JSON":             {args: "--log-format json", want: `"msg":"Two"`},
		"text":             {args: "--log-format text", want: " msg=Two"},
		"all":              {args: "--log-level debug", want: `"msg":"One"`},
		"upper case":       {args: "--log-level WARN", want: `"msg":"Three"`},
		"errors only":      {args: "--log-level error", want: ""},
		"another format":   {args: "--log-format xml", wantErr: `"xml"`},
		"another level":    {args: "--log-level loud", wantErr: `"loud"`},
		"a relative level": {args: "--log-level info+2", wantErr: `"info+2"`},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var options logging.Options
			flags := flag.NewFlagSet("", flag.ContinueOnError)
			flags.SetOutput(io.Discard)
			options.Flags(flags)
			err := flags.Parse(strings.Fields(c.args))
			if c.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), c.wantErr) {
					t.Errorf("error %v, want %q", err, c.wantErr)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var buffer bytes.Buffer
			log := logging.New(&buffer, options)
			log.Debug("One")
			log.Info("Two")
			log.Warn("Three")
			first, _, _ := strings.Cut(buffer.String(), "\n")
			if !strings.Contains(first, c.want) || c.want == "" && first != "" {
				t.Errorf("the first line is %q, want one with %q", first, c.want)
			}
		})
	}
}
