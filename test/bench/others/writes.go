// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// contentBytes is the size of what a Secret or a ConfigMap contains: about that of a certificate with its key.
const contentBytes = 2 << 10

// send makes a write as one of the clients, and returns the time that it took.
type send func(ctx context.Context, client int) (time.Duration, error)

// api is the part of a typed client that writes.
type api[T metav1.Object] interface {
	Create(ctx context.Context, object T, options metav1.CreateOptions) (T, error)
	Update(ctx context.Context, object T, options metav1.UpdateOptions) (T, error)
	Delete(ctx context.Context, name string, options metav1.DeleteOptions) error
}

// updates creates an object for each client. A write changes an annotation of it.
func updates[T metav1.Object](ctx context.Context, to api[T], newObject func(name string) T) (send, error) {
	var stored [atATime]T
	for i := range stored {
		var err error
		if stored[i], err = to.Create(ctx, newObject(fmt.Sprintf("other-%d", i)), metav1.CreateOptions{}); err != nil {
			return nil, err
		}
	}
	return func(ctx context.Context, client int) (time.Duration, error) {
		object := stored[client]
		object.SetAnnotations(map[string]string{"bench": object.GetResourceVersion()}) // another one each time
		begin := time.Now()
		updated, err := to.Update(ctx, object, metav1.UpdateOptions{})
		took := time.Since(begin)
		if err == nil {
			stored[client] = updated
		}
		return took, err
	}, nil
}

// createsAndDeletes: a write creates an object and deletes it.
func createsAndDeletes[T metav1.Object](to api[T], newObject func(name string) T) send {
	return func(ctx context.Context, client int) (time.Duration, error) {
		object := newObject(fmt.Sprintf("new-%d", client))
		begin := time.Now()
		if _, err := to.Create(ctx, object, metav1.CreateOptions{}); err != nil {
			return 0, err
		}
		err := to.Delete(ctx, object.GetName(), metav1.DeleteOptions{})
		return time.Since(begin), err
	}
}

func content() []byte { return bytes.Repeat([]byte("x"), contentBytes) }

func newSecret(name string) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string][]byte{"content": content()}}
}

func newConfigMap(name string) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"content": string(content())},
	}
}

func newLease(name string) *coordinationv1.Lease {
	return &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: name}}
}

func newPod(name string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PodSpec{
			AutomountServiceAccountToken: new(false), Containers: []corev1.Container{{Name: "main", Image: "none"}},
		},
	}
}
