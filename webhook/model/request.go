// SPDX-License-Identifier: Apache-2.0

package model

import "k8s.io/apiserver/pkg/admission"

// Request is a request that an API server asks its admission about: a create, an update or a delete. The four patches
// are updates: admission sees their effect only. A dry run is the same request, and changes nothing.
type Request struct {
	User     string
	Old, New State
	// Collection: the delete of a collection, which has no name.
	Collection bool
}

// Operation returns the operation.
func (r Request) Operation() admission.Operation {
	switch {
	case !r.Old.Exists:
		return admission.Create
	case !r.New.Exists:
		return admission.Delete
	}
	return admission.Update
}

// valid reports whether an API server gets as far as to ask its admission: before that, it validates the new Secret
// (Kubernetes pkg/apis/core/validation/validation.go, ValidateSecretUpdate). The replay on a real API server tests
// this function.
func (k *Kind) valid(r Request) bool {
	if r.Operation() != admission.Update {
		return true
	}
	sameContent := r.Old.Content == r.New.Content
	return r.Old.Type == r.New.Type && (r.Old.Immutable == mutable || r.New.Immutable == immutable && sameContent)
}

// effect returns the state after an allowed request.
func (r Request) effect() State {
	switch {
	case r.Operation() == admission.Delete && r.Old.Lifecycle != notHeld:
		after := r.Old
		after.Lifecycle = deleting
		return after
	case r.New.Lifecycle == released:
		return State{} // the last finalizer of a deleted Secret is gone
	}
	return r.New
}
