// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/layout"
)

// layoutTemplate is the chart's template with the host paths of each layout.
const layoutTemplate = "charts/kubelet-https-guard/templates/_layouts.tpl"

// layoutFormat is that template. helm template without a cluster has no version, so it renders auto.
const layoutFormat = `{{- /* Generated from pkg/layout by make generate: do not edit. */}}

{{- /* The layout of the control-plane nodes: the value, or what the version of the API server shows. */}}
{{- define "kubelet-https-guard.layout" -}}
{{- $value := dig "layout" "auto" .Values.nodeagent -}}
{{- $version := .Capabilities.KubeVersion.Version -}}
{{- if ne $value "auto" }}{{ $value }}
{{- else if contains "+k3s" $version }}k3s
{{- else if contains "+rke2" $version }}rke2
{{- else }}auto
{{- end -}}
{{- end -}}

{{- /* The directories and files of the host that the agent of that layout reads, as JSON. */}}
{{- define "kubelet-https-guard.layoutPaths" -}}
{{- $layouts := dict
%s-}}
{{- get $layouts (include "kubelet-https-guard.layout" .) | toJson -}}
{{- end -}}
`

// writeLayouts writes what the chart and the documentation have from the table of layouts.
func writeLayouts() error {
	detected := layout.Layout{Name: layout.Auto, Directories: []string{"/etc/kubernetes"}}
	var paths strings.Builder
	for _, l := range append([]layout.Layout{detected}, layout.Table()...) {
		fmt.Fprintf(&paths, "  %q (dict \"directories\" (list%s) \"files\" (list%s))\n", l.Name, quoted(l.Directories), quoted(l.Files))
	}
	if err := os.WriteFile(layoutTemplate, fmt.Appendf(nil, layoutFormat, paths.String()), 0o644); err != nil {
		return err
	}
	var table strings.Builder
	table.WriteString("| layout | for | recognized by | kube-apiserver | client certificate | the pair is written by |\n" +
		"| --- | --- | --- | --- | --- | --- |\n")
	for _, l := range layout.Table() {
		server := "static Pod in `" + l.StaticPods + "`"
		if l.Process != "" {
			server = "in the process of " + l.Process
		}
		var subjects []string
		for _, identity := range l.Identities {
			subjects = append(subjects, "`CN="+identity.CommonName+", O="+identity.Organization+"`")
		}
		fmt.Fprintf(&table, "| `%s` | %s | `%s` | %s | %s | %s |\n", l.Name, l.Title, l.Mark, server,
			strings.Join(subjects, " or "), l.Writer)
	}
	return write("install.md", "layouts", table.String())
}

// quoted returns texts as arguments of a template's function.
func quoted(texts []string) string {
	var all strings.Builder
	for _, text := range texts {
		fmt.Fprintf(&all, " %q", text)
	}
	return all.String()
}
