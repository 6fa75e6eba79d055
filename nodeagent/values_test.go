// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/chart"
)

// schemaOf returns the part of the chart's schema for a value that becomes a flag.
type schemaOf struct {
	Pattern          string
	Minimum          *float64
	ExclusiveMaximum *float64
	Maximum          *float64
}

func chartSchema(t *testing.T) (nodeagent map[string]schemaOf, expiringFraction schemaOf) {
	t.Helper()
	repository, err := chart.Repository()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(repository, "charts/kubelet-https-guard/values.schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	var schema struct {
		Properties struct {
			ExpiringFraction schemaOf
			Nodeagent        struct{ Properties map[string]json.RawMessage }
		}
	}
	if err := json.Unmarshal(data, &schema); err != nil {
		t.Fatal(err)
	}
	nodeagent = map[string]schemaOf{}
	for _, name := range []string{"resync", "settle", "metricsPort"} {
		var property schemaOf
		if err := json.Unmarshal(schema.Properties.Nodeagent.Properties[name], &property); err != nil {
			t.Fatal(err)
		}
		nodeagent[name] = property
	}
	return nodeagent, schema.Properties.ExpiringFraction
}

// takes reports whether the program accepts a flag.
func takes(name, value string) bool {
	var c config
	flags := flag.NewFlagSet("", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	c.defineFlags(flags, noEnvironment)
	return flags.Parse([]string{"--" + name + "=" + value}) == nil && c.validate() == nil
}

// spellings returns a duration as people may write it.
func spellings(d time.Duration) []string {
	all := []string{d.String()}
	if d%time.Millisecond == 0 {
		all = append(all, fmt.Sprintf("%dms", d.Milliseconds()))
	}
	if d%time.Second == 0 {
		all = append(all, fmt.Sprintf("%ds", int(d.Seconds())))
	}
	if d%time.Minute == 0 && d > 0 {
		all = append(all, fmt.Sprintf("%dm", int(d.Minutes())))
	}
	return all
}

// TestSchemaBoundsAsFlags: the program accepts what the chart's schema accepts. The bounds of
// --settle and --expiring-fraction are the same in both. That of resync is narrower in the
// chart, because the alert KubeletHTTPSAgentSilent fires after ten minutes.
func TestSchemaBoundsAsFlags(t *testing.T) {
	nodeagent, fraction := chartSchema(t)
	const step = time.Millisecond
	durations := []time.Duration{
		-time.Second,
		0,
		step,
		time.Second - step,
		time.Second,
		time.Second + step,
		5 * time.Second,
		10*time.Second - step,
		10 * time.Second,
	}
	for _, around := range []time.Duration{30 * time.Second, time.Minute, 90 * time.Second, 2 * time.Minute,
		5 * time.Minute, 10 * time.Minute, time.Hour, maxResync} {
		durations = append(durations, around-time.Second, around-step, around, around+step, around+time.Second)
	}
	const chartResync = 5 * time.Minute
	for name, schema := range map[string]schemaOf{"resync": nodeagent["resync"], "settle": nodeagent["settle"]} {
		pattern := regexp.MustCompile(schema.Pattern)
		for _, d := range durations {
			written := spellings(d)
			accepted := slices.ContainsFunc(written, pattern.MatchString)
			for _, value := range written {
				if pattern.MatchString(value) && !takes(name, value) {
					t.Errorf("%s %s: the schema accepts it, the program does not", name, value)
				}
			}
			want := takes(name, d.String())
			if name == "resync" {
				want = want && d <= chartResync && d%time.Second == 0
			}
			if accepted != want {
				t.Errorf("%s %s: the schema accepts %v, want %v", name, d, accepted, want)
			}
		}
		for _, value := range []string{"", "1", "1h", "2m", "1 s", "1S", "60001ms", "99999ms", "9999s", "1m1s", "61s",
			"5m1s", "24h1s", "1.5", "s", "-1s", "NaN"} {
			if pattern.MatchString(value) && !takes(name, value) {
				t.Errorf("%s %q: the schema accepts it, the program does not", name, value)
			}
		}
	}

	text := regexp.MustCompile(fraction.Pattern)
	for _, value := range []string{"0", "0.0", "0.000000001", "0.15", "0.2", "0.999999999", "1", "1.0", "-0.1", "2",
		"20%", "NaN", "Inf", "", "0,2"} {
		if text.MatchString(value) != takes("expiring-fraction", value) {
			t.Errorf("expiringFraction %q: the schema accepts %v, the program %v", value, text.MatchString(value),
				takes("expiring-fraction", value))
		}
		number, err := strconv.ParseFloat(value, 64)
		if err != nil {
			continue
		}
		if accepted := number >= *fraction.Minimum && number < *fraction.ExclusiveMaximum; accepted != takes(
			"expiring-fraction",
			value,
		) {
			t.Errorf("expiringFraction %v: the schema accepts %v as a number, the program does not agree", number, accepted)
		}
	}

	if port := nodeagent["metricsPort"]; *port.Minimum != 1 || *port.Maximum != 65535 {
		t.Errorf("metricsPort: got the bounds %v to %v", *port.Minimum, *port.Maximum)
	}
}

// TestFractionInBothForms: helm --set converts a number with a decimal point to a string.
func TestFractionInBothForms(t *testing.T) {
	if testing.Short() && os.Getenv("HELM") == "" {
		t.Skip("-short, and HELM is not set")
	}
	for _, set := range []string{"--set", "--set-json", "--set-string"} {
		if got := containerArgs(t, renderedPod(t, []string{set, "expiringFraction=0.2"}), nil).expiringFraction; got != 0.2 {
			t.Errorf("%s expiringFraction=0.2: the agent has %v", set, got)
		}
		var refused *chart.RenderError
		if _, err := chart.Render(t.Context(), set, "expiringFraction=1"); !errors.As(err, &refused) {
			t.Errorf("%s expiringFraction=1: got error %v, want the error of the schema", set, err)
		}
	}
}

// TestKeyPolicyAsFlags: the algorithms and bounds of the chart's key policy are those of the program.
func TestKeyPolicyAsFlags(t *testing.T) {
	repository, err := chart.Repository()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(repository, "charts/kubelet-https-guard/values.schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	var schema struct {
		Definitions struct {
			KeyPolicy struct {
				Properties struct {
					MinimumRSABits struct {
						AnyOf []struct{ Minimum, Maximum int }
					}
					AllowedAlgorithms struct{ Items struct{ Enum []string } }
				}
			}
		}
	}
	if err := json.Unmarshal(data, &schema); err != nil {
		t.Fatal(err)
	}
	policy := schema.Definitions.KeyPolicy.Properties
	if d := cmp.Diff(check.KeyAlgorithms(), policy.AllowedAlgorithms.Items.Enum); d != "" {
		t.Errorf("algorithms (-program +schema):\n%s", d)
	}
	bounds := policy.MinimumRSABits.AnyOf[1]
	for bits, want := range map[int]bool{
		bounds.Minimum - 1: false, bounds.Minimum: true, bounds.Maximum: true, bounds.Maximum + 1: false, 0: true,
	} {
		if got := takes("minimum-rsa-bits", strconv.Itoa(bits)); got != want {
			t.Errorf("--minimum-rsa-bits=%d: the program accepts it: %t, the schema %t", bits, got, want)
		}
	}
}
