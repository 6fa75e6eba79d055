// SPDX-License-Identifier: Apache-2.0

package cmdline

import (
	"fmt"
	"strings"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"
)

// expand replaces references "$(VAR)" as the kubelet does
// (k8s.io/kubernetes third_party/forked/golang/expansion, Expand). "$$" is a dollar sign
// and ends a reference, "$" before anything else stays, and so does a reference that lookup does
// not know.
func (r *reader) expand(input string, lookup func(name string) (value, bool)) value {
	var all value
	write := func(text string) {
		if text != "" {
			all = append(all, part{text: text})
			r.spend(len(text))
		}
	}
	checkpoint, lastCloser := 0, strings.LastIndexByte(input, ')')
	for cursor := 0; cursor < len(input) && r.stopped == ""; cursor++ {
		if input[cursor] != '$' || cursor+1 == len(input) {
			continue
		}
		write(input[checkpoint:cursor])
		read, isVariable, advance := reference(input[cursor+1:], lastCloser > cursor)
		switch found, known := lookup(read); {
		case !isVariable:
			write(read)
		case known:
			for _, p := range found {
				r.spend(len(p.text) + 1)
			}
			all = append(all, found...)
		default:
			write("$(" + read + ")")
		}
		cursor += advance
		checkpoint = cursor + 1
	}
	write(input[checkpoint:])
	return all.merged()
}

// reference reads what follows a dollar sign: the name of a variable, or a text that is not a
// reference, and the number of its bytes. closed is true if it has a closing bracket. (To
// search for it at each dollar sign would be slow.)
func reference(input string, closed bool) (read string, isVariable bool, advance int) {
	r, size := utf8.DecodeRuneInString(input)
	switch r {
	case '$':
		return "$", false, size
	case '(':
		if closed {
			end := strings.IndexByte(input, ')')
			return input[1:end], true, end + 1
		}
		return "$(", false, 1
	}
	// A byte that is not UTF-8 becomes U+FFFD, as in the kubelet.
	return "$" + string(r), false, size
}

// environment has the environment variables of a container.
type environment struct {
	variables map[string]variable
	// prefixes of variables that come from a ConfigMap or Secret as a whole.
	prefixes []string
}

// environment determines the container's environment (k8s.io/kubernetes
// pkg/kubelet/kubelet_pods.go, makeEnvironmentVariables): a variable may refer to those before
// it, the last one of several with the same name counts, and env takes precedence over envFrom.
func (r *reader) environment(container *corev1.Container) environment {
	e := environment{variables: map[string]variable{}}
	for _, from := range container.EnvFrom {
		e.prefixes = append(e.prefixes, from.Prefix)
	}
	for _, env := range container.Env {
		if r.stopped != "" {
			break
		}
		found := value(nil)
		switch from := env.ValueFrom; {
		case env.Value != "":
			found = r.expand(env.Value, e.lookup)
		case from != nil:
			found = value{valueFrom(env.Name, from)}
		}
		e.variables[env.Name] = variable{value: found, exported: true}
	}
	return e
}

// valueFrom returns a part that is not known, because only the kubelet knows the value. If an
// optional source does not exist, the variable is not set, or has the value of an earlier entry
// with its name.
func valueFrom(name string, from *corev1.EnvVarSource) part {
	p := part{why: "environment variable " + quoted(name) + " comes from "}
	switch {
	case from.FieldRef != nil:
		p.plain = isPlainField(from.FieldRef.FieldPath)
		p.why += "a field (" + quoted(from.FieldRef.FieldPath) + ")"
	case from.ResourceFieldRef != nil:
		p.plain = true
		p.why += "a resource field"
	case from.ConfigMapKeyRef != nil:
		p.why += "a ConfigMap"
	case from.SecretKeyRef != nil:
		p.why += "a Secret"
	default:
		p.why += "elsewhere"
	}
	return p
}

// isPlainField reports whether the field's value is an address or a name, and never empty.
func isPlainField(fieldPath string) bool {
	switch fieldPath {
	case "metadata.name",
		"metadata.namespace", "metadata.uid", "spec.nodeName", "status.hostIP", "status.hostIPs", "status.podIP",
		"status.podIPs":
		return true
	}
	return false
}

// lookup returns a variable. If it returns false, the kubelet does not know the variable either,
// and a reference to it is not expanded.
func (e environment) lookup(name string) (value, bool) {
	if v, set := e.variables[name]; set {
		return v.value, true
	}
	for _, prefix := range e.prefixes {
		if rest, found := strings.CutPrefix(name, prefix); found && isKey(rest) {
			return value{{why: fmt.Sprintf("environment variable %s may come from envFrom", quoted(name))}}, true
		}
	}
	if isServiceVariable(name) {
		return value{{why: fmt.Sprintf("environment variable %s may come from a Service", quoted(name)), plain: true}}, true
	}
	return nil, false
}

// isKey reports whether the name can be a key of a ConfigMap or Secret (k8s.io/apimachinery
// pkg/util/validation, IsConfigMapKey).
func isKey(name string) bool {
	return name != "" && strings.Trim(name, "-._abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789") == ""
}

// isServiceVariable reports whether the kubelet may set the variable for a Service: an address, a
// port or a URL (k8s.io/kubernetes pkg/kubelet/envvars/envvars.go).
func isServiceVariable(name string) bool {
	if strings.Trim(name, "_ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789") != "" {
		return false
	}
	return strings.HasSuffix(name, "_SERVICE_HOST") || strings.Contains(name, "_SERVICE_PORT") ||
		strings.HasSuffix(name, "_PORT") ||
		strings.Contains(name, "_PORT_")
}
