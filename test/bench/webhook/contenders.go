// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/test/bench/results"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/rig"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/rotation"
)

// reference is the contender that the others are compared with.
const reference = "controller-runtime no-op"

// answerTime bounds waiting until a contender gives the right answer.
const answerTime = time.Minute

// contender is what a request for a Secret passes through: a webhook, the policy or nothing.
type contender struct {
	name string
	// namespace of the Secrets for which the API server calls it.
	namespace string
	// url and process of a webhook; empty without a webhook.
	url string
	pid int
	// judges: it refuses a pair that does not match.
	judges bool
	// ours: budgets apply to it.
	ours bool
}

// webhooks are the contenders to which requests can be sent directly.
func (b *bench) webhooks() []contender {
	return slices.DeleteFunc(slices.Clone(b.contenders), func(c contender) bool { return c.pid == 0 })
}

// startContenders starts the contenders that are not running yet.
func (b *bench) startContenders(ctx context.Context) error {
	bare, err := b.startNoop(ctx, "net/http no-op", "bench-net-http", "--bare")
	if err != nil {
		return err
	}
	controllerRuntime, err := b.startNoop(ctx, reference, "bench-controller-runtime")
	if err != nil {
		return err
	}
	b.contenders = []contender{
		{name: "no webhook", namespace: "bench-none"},
		{name: "policy alone", namespace: policyNamespace},
		bare, controllerRuntime,
	}
	if b.gatekeeper {
		gatekeeper, err := b.startGatekeeper(ctx)
		if err != nil {
			return err
		}
		b.contenders = append(b.contenders, gatekeeper)
	}
	address, _ := b.rig.WebhookAddress()
	b.contenders = append(b.contenders, contender{
		name: "ours", namespace: guardedNamespace, url: "https://" + address + "/validate", pid: b.rig.Webhook.PID(),
		judges: true, ours: true,
	})
	return nil
}

func (b *bench) startNoop(ctx context.Context, name, namespace string, flags ...string) (contender, error) {
	self, err := os.Executable()
	if err != nil {
		return contender{}, err
	}
	port, err := rig.FreePort(ctx)
	if err != nil {
		return contender{}, err
	}
	_, certDir := b.rig.WebhookAddress()
	process, err := b.rig.Launch(
		namespace,
		self,
		append([]string{noopCommand, "--port", fmt.Sprint(port), "--cert-dir", certDir}, flags...)...)
	if err != nil {
		return contender{}, err
	}
	return contender{
		name:      name,
		namespace: namespace,
		url:       fmt.Sprintf("https://127.0.0.1:%d/validate", port),
		pid:       process.PID(),
	}, nil
}

// proveAnswers waits until each webhook allows a valid Secret and, if it judges, refuses one with the
// key of another pair. Then it records their idle memory.
func (b *bench) proveAnswers(ctx context.Context) error {
	pairs := b.rsa[:2]
	good, err := b.updates(pairs, pairs, asItIs)
	if err != nil {
		return err
	}
	bad, err := b.updates(pairs, mismatched(pairs), asItIs)
	if err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	http := client()
	for _, c := range b.webhooks() {
		for {
			_, goodErr := ask(limited, http, c.url, good[0], true)
			_, badErr := ask(limited, http, c.url, bad[0], !c.judges)
			err := errors.Join(goodErr, badErr)
			if err == nil {
				break
			}
			select {
			case <-limited.Done():
				return fmt.Errorf("%s does not give the right answers: %w", c.name, err)
			case <-time.After(100 * time.Millisecond):
			}
		}
	}
	return b.eachMemory("idle", 45, func(m rotation.Memory) int64 { return m.Now })
}

// eachMemory adds the resident memory of each webhook.
func (b *bench) eachMemory(metric string, budget float64, of func(rotation.Memory) int64) error {
	for _, c := range b.webhooks() {
		memory, err := rotation.MemoryOf(c.pid)
		if err != nil {
			return err
		}
		row := results.Measured("resident memory", c.name, metric, "MiB", float64(of(memory))/(1<<20))
		if c.ours {
			row = row.AtMost(budget)
		}
		b.add(row)
	}
	return nil
}
