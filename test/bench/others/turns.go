// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
)

const (
	// guardedNamespace has the protected Secret. The writes in it are to others.
	guardedNamespace, protected = "openshift-apiserver", "serving-cert"
	otherNamespace              = "bench-other"
)

// measureInTurns measures writes while the guard is installed and while it is not, by turns.
func (b *bench) measureInTurns(ctx context.Context, g *guard) error {
	fmt.Fprintln(os.Stderr, "measuring: without the guard and with it")
	kinds, err := b.kindsOfWrites(ctx)
	if err != nil {
		return err
	}
	contenders := []string{reference, noise, guarded}
	byContender := map[string][]*cell{}
	var all []*cell
	for _, kind := range kinds {
		for _, contender := range contenders {
			c := &cell{what: kind.what, contender: contender, send: kind.send}
			byContender[contender] = append(byContender[contender], c)
			all = append(all, c)
		}
	}
	installed := false
	for round := range b.rounds {
		fmt.Fprintf(os.Stderr, "  round %d of %d\n", round+1, b.rounds)
		for _, n := range b.random.Perm(len(contenders)) {
			want := contenders[n] == guarded
			switch {
			case want && !installed:
				err = b.install(ctx, g)
			case !want && installed:
				err = b.remove(ctx, g)
			}
			if err != nil {
				return err
			}
			installed = want
			if err := b.measure(ctx, byContender[contenders[n]]); err != nil {
				return err
			}
		}
	}
	if installed {
		if err := b.remove(ctx, g); err != nil {
			return err
		}
	}
	b.report(all, true)
	return nil
}

// Kinds of writes that the headline is about.
const (
	updateInGuarded = "guarded namespace: update of another Secret"
	updateInAnother = "another namespace: update of a Secret"
)

// kind is a kind of write.
type kind struct {
	what string
	send send
}

// kindsOfWrites prepares the writes.
func (b *bench) kindsOfWrites(ctx context.Context) ([]kind, error) {
	for _, namespace := range []string{guardedNamespace, otherNamespace} {
		if err := b.createNamespace(ctx, namespace); err != nil {
			return nil, err
		}
	}
	core := b.client.CoreV1()
	secrets, err := updates(ctx, core.Secrets(guardedNamespace), newSecret)
	if err != nil {
		return nil, err
	}
	elsewhere, err := updates(ctx, core.Secrets(otherNamespace), newSecret)
	if err != nil {
		return nil, err
	}
	configMaps, err := updates(ctx, core.ConfigMaps(guardedNamespace), newConfigMap)
	if err != nil {
		return nil, err
	}
	leases, err := updates(ctx, b.client.CoordinationV1().Leases(guardedNamespace), newLease)
	if err != nil {
		return nil, err
	}
	pods, err := updates(ctx, core.Pods(guardedNamespace), newPod)
	if err != nil {
		return nil, err
	}
	return []kind{
		{updateInGuarded, secrets},
		{"guarded namespace: create and delete of another Secret", createsAndDeletes(core.Secrets(guardedNamespace), newSecret)},
		{"guarded namespace: update of a ConfigMap", configMaps},
		{"guarded namespace: update of a Lease", leases},
		{"guarded namespace: update of a Pod", pods},
		{updateInAnother, elsewhere},
		{"another namespace: create and delete of a Secret", createsAndDeletes(core.Secrets(otherNamespace), newSecret)},
	}, nil
}
