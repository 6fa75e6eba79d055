// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"
	"time"

	coordination "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/uuid"
	coordinationv1 "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// What OpenShift asks of leader election (openshift/enhancements
// CONVENTIONS.md): that it survives a minute without an API server, and is no
// burden to it. Nobody waits for the audit.
const (
	leaseDuration = 137 * time.Second
	renewDeadline = 107 * time.Second
	retryPeriod   = 26 * time.Second
	// restPeriod is how long nothing is tried after the audit has failed.
	restPeriod = 30 * time.Second
	// prepareTime bounds the calls before an election.
	prepareTime = 20 * time.Second
)

// Leader runs an audit in one of the processes that share a Lease.
type Leader struct {
	Leases          coordinationv1.LeasesGetter
	Namespace, Name string // of the Lease
	// Owner is what the Lease goes with when it is deleted; nil: with nothing.
	Owner func(context.Context) (metav1.OwnerReference, error)
	// Identity of this process; something random is added.
	Identity string
	// Audit runs until its context ends.
	Audit func(context.Context)
	// Leading is told when the audit begins and when it has ended.
	Leading func(bool)
	// Failed is told of each panic of the audit.
	Failed func()
	Log    *slog.Logger
}

// Run stands for election until the context ends. It has no error: whatever
// happens to the audit, admission goes on.
func (l *Leader) Run(ctx context.Context) {
	for ctx.Err() == nil {
		if err := l.term(ctx); err != nil {
			l.Log.ErrorContext(ctx, "The audit ended, trying again", "err", err, "after", restPeriod)
			select {
			case <-ctx.Done():
			case <-time.After(restPeriod):
			}
		}
	}
}

// term stands for election and, once elected, audits until the Lease is lost or
// the audit ends.
func (l *Leader) term(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := l.prepare(ctx); err != nil {
		return err
	}
	elected := make(chan context.Context, 1)
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: &resourcelock.LeaseLock{
			LeaseMeta: metav1.ObjectMeta{Namespace: l.Namespace, Name: l.Name}, Client: l.Leases,
			LockConfig: resourcelock.ResourceLockConfig{Identity: l.Identity + "_" + string(uuid.NewUUID())},
		},
		LeaseDuration: leaseDuration, RenewDeadline: renewDeadline, RetryPeriod: retryPeriod,
		ReleaseOnCancel: true, Name: l.Name,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(ctx context.Context) { elected <- ctx },
			OnStoppedLeading: func() {}, // the audit's context has ended, that is enough
		},
	})
	if err != nil {
		return fmt.Errorf("elect a leader for the audit: %w", err)
	}
	lost := make(chan struct{})
	go func() {
		defer close(lost)
		elector.Run(ctx)
	}()
	select {
	case <-lost:
		return nil
	case leading := <-elected:
		err := l.guarded(leading)
		cancel()
		<-lost
		return err
	}
}

// prepare makes the Lease with its owner, if there is none: those that elect
// make one without.
func (l *Leader) prepare(ctx context.Context) error {
	if l.Owner == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, prepareTime)
	defer cancel()
	leases := l.Leases.Leases(l.Namespace)
	if _, err := leases.Get(ctx, l.Name, metav1.GetOptions{}); err == nil || !apierrors.IsNotFound(err) {
		return err
	}
	owner, err := l.Owner(ctx)
	if err != nil {
		return fmt.Errorf("make Lease %s: %w", l.Name, err)
	}
	_, err = leases.Create(ctx, &coordination.Lease{ObjectMeta: metav1.ObjectMeta{Name: l.Name, OwnerReferences: []metav1.OwnerReference{owner}}}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) { // by another replica
		return fmt.Errorf("make Lease %s: %w", l.Name, err)
	}
	return nil
}

// guarded runs the audit. A panic is an error: its value may hold anything, so
// only where it was is logged.
func (l *Leader) guarded(ctx context.Context) (err error) {
	l.Log.InfoContext(ctx, "Auditing what is stored")
	l.Leading(true)
	defer func() {
		l.Leading(false)
		value := recover()
		if value == nil {
			return
		}
		l.Failed()
		what := fmt.Sprintf("%T", value)
		if runtimeError, ok := value.(runtime.Error); ok {
			what = runtimeError.Error()
		}
		l.Log.ErrorContext(ctx, "Panic while auditing", "panic", what, "stack", string(debug.Stack()))
		err = fmt.Errorf("panic: %s", what)
	}()
	l.Audit(ctx)
	return nil
}
