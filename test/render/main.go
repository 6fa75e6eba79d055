// SPDX-License-Identifier: Apache-2.0

// Command render prints what helm template prints, for the flags that test/rig needs. It is helm's engine without the
// rest of helm, which takes longer to build than the guard.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	chartutil "helm.sh/helm/v4/pkg/chart/v2/util"
	"helm.sh/helm/v4/pkg/engine"
	releaseutil "helm.sh/helm/v4/pkg/release/v1/util"
	"helm.sh/helm/v4/pkg/strvals"
)

func main() {
	if err := run(context.Background(), os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
		os.Exit(1)
	}
}

// list is a flag that can be repeated.
type list []string

func (l *list) String() string { return strings.Join(*l, " ") }

func (l *list) Set(value string) error {
	*l = append(*l, value)
	return nil
}

// options are the flags of helm template with the same names.
type options struct {
	namespace                                 string
	apiVersions, valuesFiles, settings, shown list
}

// run renders a chart: FLAGS RELEASE CHART.
func run(ctx context.Context, arguments []string, out io.Writer) error {
	var o options
	flags := flag.NewFlagSet("render", flag.ContinueOnError)
	flags.StringVar(&o.namespace, "namespace", "default", "namespace of the release")
	flags.Var(&o.apiVersions, "api-versions", "API version that the cluster serves; can be repeated")
	flags.Var(&o.valuesFiles, "values", "file with values; can be repeated")
	flags.Var(&o.settings, "set", "value, as NAME=VALUE; can be repeated")
	flags.Var(&o.shown, "show-only", "template to print, instead of all; can be repeated")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	if flags.NArg() != 2 {
		return fmt.Errorf("got %d arguments, want the release and the chart", flags.NArg())
	}
	objects, err := o.render(ctx, flags.Arg(0), flags.Arg(1))
	if err != nil {
		return err
	}
	if len(o.shown) == 0 {
		return write(out, objects, "\n")
	}
	for _, template := range o.shown {
		of := slices.DeleteFunc(slices.Clone(objects), func(object releaseutil.Manifest) bool {
			_, name, _ := strings.Cut(object.Name, "/") // without the chart's name
			return name != template
		})
		if len(of) == 0 {
			return fmt.Errorf("could not find template %s in chart", template)
		}
		if err := write(out, of, "\n\n"); err != nil { // as helm separates chosen objects
			return err
		}
	}
	return nil
}

func write(out io.Writer, objects []releaseutil.Manifest, end string) error {
	for _, object := range objects {
		if _, err := fmt.Fprintf(out, "---\n# Source: %s\n%s%s", object.Name, object.Content, end); err != nil {
			return err
		}
	}
	return nil
}

// render returns the objects of a chart without its hooks, in the order in which helm installs them.
func (o options) render(ctx context.Context, release, folder string) ([]releaseutil.Manifest, error) {
	chart, err := loader.LoadDir(folder)
	if err != nil {
		return nil, fmt.Errorf("load the chart %s: %w", folder, err)
	}
	values, err := o.values()
	if err != nil {
		return nil, err
	}
	if err := chartutil.ProcessDependencies(chart, values); err != nil {
		return nil, fmt.Errorf("process the dependencies of %s: %w", folder, err)
	}
	capabilities := common.DefaultCapabilities.Copy()
	capabilities.APIVersions = append(slices.Clone(capabilities.APIVersions), o.apiVersions...)
	if wanted := chart.Metadata.KubeVersion; !chartutil.IsCompatibleRange(wanted, capabilities.KubeVersion.String()) {
		return nil, fmt.Errorf("chart requires kubeVersion %s, this is %s", wanted, capabilities.KubeVersion.Version)
	}
	input, err := util.ToRenderValues(chart, values, common.ReleaseOptions{
		Name: release, Namespace: o.namespace, Revision: 1, IsInstall: true,
	}, capabilities)
	if err != nil {
		return nil, err
	}
	files, err := engine.Engine{}.RenderWithContext(ctx, chart, input)
	if err != nil {
		return nil, err
	}
	for name := range files {
		if path.Base(name) == "NOTES.txt" {
			delete(files, name)
		}
	}
	_, objects, err := releaseutil.SortManifests(files, nil, releaseutil.InstallOrder)
	return objects, err
}

// values returns the values of all files and settings.
func (o options) values() (map[string]any, error) {
	values := map[string]any{}
	for _, name := range o.valuesFiles {
		file, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		read, err := loader.LoadValues(file)
		_ = file.Close()
		if err != nil {
			return nil, fmt.Errorf("read the values in %s: %w", name, err)
		}
		values = loader.MergeMaps(values, read)
	}
	for _, setting := range o.settings {
		if err := strvals.ParseInto(setting, values); err != nil {
			return nil, fmt.Errorf("read the value %s: %w", setting, err)
		}
	}
	return values, nil
}
