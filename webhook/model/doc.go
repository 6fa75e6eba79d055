// SPDX-License-Identifier: Apache-2.0

// Package model explores what can happen to a protected Secret, with the guard's own code and the admission plugins of
// an API server. docs/design/model.md has its states and its invariants.
//
// Its tests explore a part, with -whole everything. It is not part of the product.
package model
