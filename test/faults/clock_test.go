// SPDX-License-Identifier: Apache-2.0

package faults_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/control"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/report"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/admission"
)

// clockVariable names a file. Programs built by clocked read from it by how many seconds to shift
// their clock.
const clockVariable = "CLOCK_SHIFT_FILE"

// clocked builds both programs on a package time whose Now is shifted by what a file says. This is
// what a program sees when the machine's clock jumps: the monotonic clock continues. The test cannot
// change the clock itself: it belongs to the whole machine, time namespaces do not shift the wall
// clock, and a preloaded library (libfaketime) has no effect on static programs.
var clocked = sync.OnceValues(func() (directory string, err error) {
	ctx := context.Background() // all rows share the programs
	output, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return "", err
	}
	directory = filepath.Join(shared.dir, "clocked")
	if err := os.MkdirAll(directory, 0o700); err != nil {
		return "", err
	}
	// The go command replaces no file in the module cache, where a downloaded Go is: give it another path.
	root := filepath.Join(directory, "go")
	if err := os.Symlink(strings.TrimSpace(string(output)), root); err != nil {
		return "", err
	}
	standard := filepath.Join(root, "src", "time", "time.go")
	source, err := os.ReadFile(standard)
	if err != nil {
		return "", err
	}
	const (
		now = "\tsec, nsec, mono := runtimeNow()\n\tif mono == 0 {\n\t\treturn Time{uint64(nsec), sec + " +
			"unixToInternal, Local}"
		imports = "import (\n"
	)
	text := string(source)
	if strings.Count(text, now) != 1 || !strings.Contains(text, imports) {
		return "", fmt.Errorf("cannot patch %s: its func Now is not the one that this test knows", standard)
	}
	text = strings.Replace(text, now, strings.Replace(now, "\n", "\n\tsec += shift.Load()\n", 1), 1)
	text = strings.Replace(text, imports, imports+"\t\"sync/atomic\"\n", 1)
	text += "\nvar shift atomic.Int64\n\nfunc Shift(seconds int64) { shift.Store(seconds) }\n"
	changed := filepath.Join(directory, "time.go")
	if err := os.WriteFile(changed, []byte(text), 0o600); err != nil {
		return "", err
	}
	checkout, err := filepath.Abs(repository)
	if err != nil {
		return "", err
	}
	added := filepath.Join(checkout, "test", "faults", "testdata", "clock.go.txt")
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {
		standard: changed,
		filepath.Join(checkout, "webhook", "clock_shift.go"):   added,
		filepath.Join(checkout, "nodeagent", "clock_shift.go"): added,
	}})
	if err != nil {
		return "", err
	}
	list := filepath.Join(directory, "overlay.json")
	if err := os.WriteFile(list, overlay, 0o600); err != nil {
		return "", err
	}
	build := exec.CommandContext(ctx, "go", "build", "-overlay", list, "-o", directory+"/", "./webhook", "./nodeagent")
	build.Dir, build.Env = checkout, append(os.Environ(), "CGO_ENABLED=0", "GOROOT="+root)
	if output, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the programs with a shifted clock: %w\n%s", err, output)
	}
	return directory, nil
})

// clock is a clock that the programs started with it share.
type clock struct{ file string }

func (s *scene) startClock() (c clock, l launch) {
	s.Helper()
	binaries, err := clocked()
	if err != nil {
		s.Fatal(err)
	}
	c.file = filepath.Join(s.TempDir(), "clock")
	s.write(c.file, []byte("0"))
	return c, launch{binaries: binaries, environment: []string{clockVariable + "=" + c.file}}
}

// jump shifts the clock of programs by this much from now. It waits until each program uses it, which
// the Date header of its responses shows.
func (s *scene) jump(c clock, by time.Duration, metrics ...string) {
	s.Helper()
	partial := c.file + ".new"
	s.write(partial, fmt.Append(nil, int64(by.Seconds())))
	if err := os.Rename(partial, c.file); err != nil {
		s.Fatal(err)
	}
	for _, address := range metrics {
		s.await("the clock has jumped", func(ctx context.Context) bool {
			request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/healthz", nil)
			if err != nil {
				s.Fatal(err)
			}
			request.Close = true
			response, err := http.DefaultClient.Do(request)
			if err != nil {
				return false
			}
			defer response.Body.Close()
			if response.StatusCode != http.StatusOK {
				s.Errorf("/healthz returns %[2]s after the clock jumped by %[1]s", by, response.Status)
			}
			at, err := http.ParseTime(response.Header.Get("Date"))
			off := time.Until(at.Add(-by)).Abs()
			return err == nil && off < 10*time.Minute
		})
	}
}

const year = 365 * 24 * time.Hour

func clockJumps(s *scene) {
	c, l := s.startClock()
	w, a := s.startWebhook(l), s.startAgent(l)
	auditor := s.startAudit("audit", l)
	s.awaitReady(w)
	s.awaitCleanAudit(auditor)
	s.awaitEvents(a)
	s.awaitRest("webhook", w.Process, webhookLimit)
	s.awaitRest("audit", auditor.Process, webhookLimit)
	s.awaitRest("agent", a.process.Process, agentLimit)

	deletable := s.validSecret().DeepCopy()
	deletable.Annotations = map[string]string{
		"kubelet-https-guard.io/allow-delete-until": time.Now().Add(30 * time.Minute).UTC().Format(time.RFC3339),
	}
	deletion, err := admission.Review(deletable, nil)
	if err != nil {
		s.Fatal(err)
	}
	other := s.changes[2].To // valid, too
	foreign := s.changes[3].To
	questions := func(atTheirTime, mayDelete bool) []admission.Question {
		post := func(body []byte) func(context.Context) (bool, error) {
			return func(ctx context.Context) (bool, error) { return admission.Post(ctx, w.client, w.url, body) }
		}
		return []admission.Question{
			{Name: "a new Secret", Allowed: atTheirTime, Ask: post(s.creation(s.validSecret()))},
			{Name: "another new Secret", Allowed: atTheirTime, Ask: post(s.creation(other))},
			{Name: "a new Secret signed by an unknown CA", Ask: post(s.creation(foreign))},
			{Name: "a delete, allowed until a given time", Allowed: mayDelete, Ask: post(deletion)},
		}
	}
	active, resolved := string(report.FindingActive)+" ", string(report.FindingResolved)+" "
	verified, notVerified := compliant(control.UseHTTPS), notCompliant(control.UseHTTPS)
	expired, early, soon := string(finding.CertificateExpired), string(
		finding.CertificateNotYetValid,
	), string(finding.CertificateExpiringSoon)
	stream := admission.Stream{}
	for range 2 { // the second time, each object has been checked at each of these times
		for _, jump := range []struct {
			by                 time.Duration
			there, back        []string // the changes that the agent logs
			atTheirTime, allow bool
		}{
			{3 * year, []string{active + expired, notVerified}, []string{resolved + expired, verified}, false, false},
			{-3 * year, []string{active + early, notVerified}, []string{resolved + early, verified}, false, false},
			{28 * 24 * time.Hour, []string{active + soon}, []string{resolved + soon}, true, false},
			{40 * time.Minute, nil, nil, true, false},
		} {
			for _, step := range []struct {
				by                 time.Duration
				changes            []string
				atTheirTime, allow bool
			}{{jump.by, jump.there, jump.atTheirTime, jump.allow}, {0, jump.back, true, true}} {
				s.jump(c, step.by, w.Metrics, auditor.Metrics, a.process.Metrics)
				for _, q := range questions(step.atTheirTime, step.allow) {
					stream.Ask(s.Context(), q)
				}
				s.agentLogs(a, step.changes...)
			}
		}
	}
	s.logsNothing(a)
	counts := stream.Counts()
	s.noneWrong(counts)
	s.allAnswered(counts)
	s.addFigure("admission: %s", counts)
	s.awaitReady(w)
	s.breakAndRepair(a)
	s.awaitEvents(a)
	s.allAnswered(s.askOnce(w))
	w.client.CloseIdleConnections()
	// The audit uses the same clock. What it reported at a tick during which the clock jumped, it resolves
	// at the next tick.
	count := func() (active, resolved int) {
		return len(
			s.lines(auditor.log, string(report.FindingActive)),
		), len(s.lines(auditor.log, string(report.FindingResolved)))
	}
	s.await("the audit resolves its findings", func(context.Context) bool {
		active, resolved := count()
		return active == resolved
	}, func() string { return fmt.Sprint(count()) })
}

// creation is the AdmissionReview of a new Secret.
func (s *scene) creation(secret *corev1.Secret) []byte {
	s.Helper()
	body, err := admission.Review(secret, secret)
	if err != nil {
		s.Fatal(err)
	}
	var review admissionv1.AdmissionReview
	if err := json.Unmarshal(body, &review); err != nil {
		s.Fatal(err)
	}
	review.Request.Operation, review.Request.OldObject = admissionv1.Create, runtime.RawExtension{Raw: []byte("null")}
	if body, err = json.Marshal(review); err != nil {
		s.Fatal(err)
	}
	return body
}
