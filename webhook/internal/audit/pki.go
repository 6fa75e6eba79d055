// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"errors"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/facts"
	"github.com/kubelet-https-guard/kubelet-https-guard/webhook/internal/follow"
)

// pkiObject returns the object that configures which keys certificates have, pkiDefinitionObject the one that says in
// which versions the API server has it.
func pkiObject() follow.Object {
	at := check.PKISubject()
	return follow.Named(schema.GroupVersion{Group: check.ConfigGroup, Version: facts.PKIVersion}, at.Kind, "", at.Name)
}

func pkiDefinitionObject() follow.Object {
	group := schema.GroupVersion{Group: "apiextensions.k8s.io", Version: "v1"}
	return follow.Named(group, "CustomResourceDefinition", "", facts.PKIDefinition)
}

// pki returns what the cluster's PKI object configures.
func (seen *observation) pki() check.PKI {
	definition, object := pkiDefinitionObject(), pkiObject()
	if unknown := seen.whyUnknown(definition); unknown != nil {
		return check.PKI{WhyUnknown: unknown}
	}
	defined := seen.states[definition].Live
	if defined == nil {
		return check.PKI{Missing: true}
	}
	if unknown := seen.whyUnknown(object); unknown != nil {
		return check.PKI{WhyUnknown: unknown}
	}
	s := seen.states[object]
	if !s.NoAPI && s.Live == nil {
		return check.PKI{Missing: true}
	}
	if others := facts.OtherPKIVersions(defined.Object); len(others) > 0 {
		return check.PKI{Err: fmt.Errorf("the API server has it in version %s, and this program knows only %s",
			strings.Join(others, ", "), facts.PKIVersion)}
	}
	if s.Live == nil {
		return check.PKI{Err: errors.New(
			"at the last attempt to read it, the API server did not serve version " + facts.PKIVersion)}
	}
	return facts.PKI(s.Live.Object)
}
