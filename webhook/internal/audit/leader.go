// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"
	"slices"
	"time"

	coordination "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/uuid"
	coordinationv1 "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// The values that OpenShift recommends for leader election (openshift/enhancements
// CONVENTIONS.md): they tolerate a minute without an API server and cause little load.
// The audit can start late: nothing waits for it.
const (
	leaseDuration = 137 * time.Second
	renewDeadline = 107 * time.Second
	retryPeriod   = 26 * time.Second
	// retryDelay is the delay after the audit has failed, or the Lease could not be
	// prepared. While the API server refuses (no permission, no such Deployment), which may
	// last forever, the delay doubles up to maxRetryDelay.
	retryDelay, maxRetryDelay = 30 * time.Second, 5 * time.Minute
	// prepareTime bounds the API calls before an election.
	prepareTime = 20 * time.Second
)

// Leader runs an audit in one of the processes that share a Lease.
type Leader struct {
	Leases          coordinationv1.LeasesGetter
	Namespace, Name string // of the Lease
	// Owner returns the object with which the Lease is deleted; nil: the Lease has no owner.
	Owner func(context.Context) (metav1.OwnerReference, error)
	// Identity of this process; a random suffix is added.
	Identity string
	// Audit runs until its context ends.
	Audit func(context.Context)
	// Leading is called with true when the audit starts, and with false when it has ended.
	Leading func(bool)
	// Failed is called after each panic of the audit.
	Failed func()
	Log    *slog.Logger
}

// Run takes part in the election until the context ends, and audits while it leads. It
// returns no error: it logs each failure and tries again.
func (l *Leader) Run(ctx context.Context) {
	for l.awaitLease(ctx) {
		if err := l.runTerm(ctx); err != nil {
			l.Log.ErrorContext(ctx, "The audit failed, trying again", "err", err, "after", retryDelay)
			sleep(ctx, retryDelay)
		}
	}
}

// awaitLease prepares the Lease, and retries until that succeeds; false if the context ended
// first. It logs the first failure, each failure with another reason, and the recovery.
func (l *Leader) awaitLease(ctx context.Context) bool {
	delay, failing, logged := retryDelay, false, metav1.StatusReason("")
	for ctx.Err() == nil {
		err := l.prepareLease(ctx)
		if err == nil {
			if failing {
				l.Log.InfoContext(ctx, "The audit's Lease can be used again", "lease", l.Name)
			}
			return true
		}
		if ctx.Err() != nil {
			break
		}
		reason := apierrors.ReasonForError(err)
		if !failing || reason != logged {
			l.Log.ErrorContext(ctx, "Cannot start the audit, trying again with increasing delays",
				"err", err, "longestInterval", maxRetryDelay.String())
		}
		failing, logged = true, reason
		sleep(ctx, delay)
		if delay = min(2*delay, maxRetryDelay); !isRefusal(err) {
			delay = retryDelay
		}
	}
	return false
}

// sleep waits for a delay, or until the context ends.
func sleep(ctx context.Context, delay time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(delay):
	}
}

// isRefusal reports whether the API server answered and will probably give the same answer again.
func isRefusal(err error) bool { return apierrors.IsForbidden(err) || apierrors.IsNotFound(err) }

// lock is the Lease. If reading it is forbidden, client-go would try, and log an error, twice
// a minute. This lock ends the term instead, and [Leader.awaitLease] waits for the permission.
type lock struct {
	resourcelock.Interface
	refused func()
}

// Get implements [resourcelock.Interface].
func (l lock) Get(ctx context.Context) (*resourcelock.LeaderElectionRecord, []byte, error) {
	record, raw, err := l.Interface.Get(ctx)
	if apierrors.IsForbidden(err) {
		l.refused()
	}
	return record, raw, err
}

// runTerm takes part in the election for a prepared Lease and, once elected, audits until
// the Lease is lost or the audit ends.
func (l *Leader) runTerm(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	elected := make(chan context.Context, 1)
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: lock{&resourcelock.LeaseLock{
			LeaseMeta: metav1.ObjectMeta{Namespace: l.Namespace, Name: l.Name}, Client: l.Leases,
			LockConfig: resourcelock.ResourceLockConfig{Identity: l.Identity + "_" + string(uuid.NewUUID())},
		}, cancel},
		LeaseDuration: leaseDuration, RenewDeadline: renewDeadline, RetryPeriod: retryPeriod,
		ReleaseOnCancel: true, Name: l.Name,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(ctx context.Context) { elected <- ctx },
			OnStoppedLeading: func() {}, // nothing to do: the end of its context ends the audit
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
		err := l.runRecovered(leading)
		cancel()
		<-lost
		return err
	}
}

// prepareLease checks that the Lease can be read, and creates it with its owner if it does
// not exist: the election would create it without one. If the Lease has another owner (the
// webhook's Deployment up to chart 0.2), it gets this one; otherwise it would be deleted
// with the old one. It also loses its holder: the old owner's Pods are no longer permitted
// to release it, and it would take minutes to expire.
func (l *Leader) prepareLease(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, prepareTime)
	defer cancel()
	if l.Owner == nil {
		_, err := l.Leases.Leases(l.Namespace).Get(ctx, l.Name, metav1.GetOptions{})
		if apierrors.IsForbidden(err) {
			return fmt.Errorf("read Lease %s: %w", l.Name, err)
		}
		return nil // the election reports other errors
	}
	owner, err := l.Owner(ctx)
	if err != nil {
		return fmt.Errorf("prepare Lease %s: %w", l.Name, err)
	}
	owners := []metav1.OwnerReference{owner}
	leases := l.Leases.Leases(l.Namespace)
	lease, err := leases.Get(ctx, l.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		created := &coordination.Lease{ObjectMeta: metav1.ObjectMeta{Name: l.Name, OwnerReferences: owners}}
		_, err = leases.Create(ctx, created, metav1.CreateOptions{})
		if apierrors.IsAlreadyExists(err) { // by another replica
			err = nil
		}
	case err == nil && !slices.Equal(lease.OwnerReferences, owners):
		lease.OwnerReferences, lease.Spec.HolderIdentity = owners, nil
		_, err = leases.Update(ctx, lease, metav1.UpdateOptions{})
	}
	if err != nil {
		return fmt.Errorf("prepare Lease %s: %w", l.Name, err)
	}
	return nil
}

// runRecovered runs the audit and turns a panic into an error. It logs the stack of a panic,
// but not its value, which may contain anything.
func (l *Leader) runRecovered(ctx context.Context) (err error) {
	l.Log.InfoContext(ctx, "Audit started")
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
		l.Log.ErrorContext(ctx, "Panic in the audit", "panic", what, "stack", string(debug.Stack()))
		err = fmt.Errorf("panic: %s", what)
	}()
	l.Audit(ctx)
	return nil
}
