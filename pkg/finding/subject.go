// SPDX-License-Identifier: Apache-2.0

package finding

import (
	"cmp"
	"strings"
)

// Kinds of subjects. All but Node are not Kubernetes kinds.
const (
	// KindFile is a file on the host. [Subject.Path] is its path. If the path is not known,
	// [Subject.Name] says which file it is.
	KindFile = "File"
	// KindKubelet is a kubelet. [Subject.Name] is the address of the connection.
	KindKubelet = "Kubelet"
	// KindNode is a Node. Without a name it is several Nodes, which the message names.
	KindNode = "Node"
	// KindAPIServer is one kube-apiserver. [Subject.Name] is its address.
	KindAPIServer = "APIServer"
)

// Subject is what a result is about: an API object, a file on the host, or a server. Use
// [Subject.String] only for people.
type Subject struct {
	// Kind of an object ("Secret"), or one of the constants above.
	Kind string `json:"kind"`
	// Namespace and Name of an object.
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name,omitempty"`
	// Path of a file on the host, absolute.
	Path string `json:"path,omitempty"`
	// Key is a part of the subject: "tls.crt", "spec.unsupportedConfigOverrides".
	Key string `json:"key,omitempty"`
}

// File returns the subject of a path on the host.
func File(path string) Subject { return Subject{Kind: KindFile, Path: path} }

// Part returns the subject of a part of the subject.
func (s Subject) Part(key string) Subject {
	s.Key = strings.TrimSpace(s.Key + " " + key)
	return s
}

// Whole returns the subject without [Subject.Key].
func (s Subject) Whole() Subject {
	s.Key = ""
	return s
}

// String returns the subject for people: "Secret openshift-apiserver/serving-cert tls.crt", or
// a path.
func (s Subject) String() string {
	text := s.Path
	if text == "" {
		text = s.Kind
		switch {
		case s.Namespace != "":
			text += " " + s.Namespace + "/" + s.Name
		case s.Name != "":
			text += " " + s.Name
		}
	}
	if s.Key != "" {
		text += " " + s.Key
	}
	return text
}

// Compare orders subjects by their texts.
func (s Subject) Compare(other Subject) int { return cmp.Compare(s.String(), other.String()) }
