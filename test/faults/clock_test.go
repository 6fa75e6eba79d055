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

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/report"
	"github.com/kubelet-https-guard/kubelet-https-guard/test/admission"
)

// clockVariable names the file that says by how many seconds the clock of a
// program is wrong that was built by clocked.
const clockVariable = "CLOCK_SHIFT_FILE"

// clocked builds both programs as they are, on a package time of which Now is
// wrong by what a file says, as after a step of the machine's clock: the monotonic
// clock goes on. The clock itself is the whole machine's: time namespaces leave
// the wall clock alone, and what is preloaded (libfaketime) does not get into
// static programs.
var clocked = sync.OnceValues(func() (directory string, err error) {
	ctx := context.Background() // of all rows
	root, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return "", err
	}
	standard := filepath.Join(strings.TrimSpace(string(root)), "src", "time", "time.go")
	source, err := os.ReadFile(standard)
	if err != nil {
		return "", err
	}
	const (
		now     = "\tsec, nsec, mono := runtimeNow()\n\tif mono == 0 {\n\t\treturn Time{uint64(nsec), sec + unixToInternal, Local}"
		imports = "import (\n"
	)
	text := string(source)
	if strings.Count(text, now) != 1 || !strings.Contains(text, imports) {
		return "", fmt.Errorf("%s has another Now than this test knows", standard)
	}
	text = strings.Replace(text, now, strings.Replace(now, "\n", "\n\tsec += shift.Load()\n", 1), 1)
	text = strings.Replace(text, imports, imports+"\t\"sync/atomic\"\n", 1)
	text += "\nvar shift atomic.Int64\n\nfunc Shift(seconds int64) { shift.Store(seconds) }\n"
	directory = filepath.Join(shared.dir, "clocked")
	if err := os.MkdirAll(directory, 0o700); err != nil {
		return "", err
	}
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
	build.Dir, build.Env = checkout, append(os.Environ(), "CGO_ENABLED=0")
	if output, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the programs on another clock: %w\n%s", err, output)
	}
	return directory, nil
})

// clock is that of the programs that were started with it.
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

// jump sets the clock of programs to so much from now, and waits until each goes
// by it, which the date of its answers shows.
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
				s.Errorf("after a jump of the clock by %s /healthz answers %s", by, response.Status)
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
	w, a := s.startWebhook("webhook", l), s.startAgent(l)
	s.ready(w)
	s.audited(w)
	s.delivered(a)
	s.rested("webhook", w.Process, webhookLimit)
	s.rested("agent", a.process.Process, agentLimit)

	deletable := s.good().DeepCopy()
	deletable.Annotations = map[string]string{"kubelet-https-guard.io/allow-delete-until": time.Now().Add(30 * time.Minute).UTC().Format(time.RFC3339)}
	deletion, err := admission.Review(deletable, nil)
	if err != nil {
		s.Fatal(err)
	}
	other := s.changes[2].To // good, too
	foreign := s.changes[3].To
	questions := func(atTheirTime, mayDelete bool) []admission.Question {
		post := func(body []byte) func(context.Context) (bool, error) {
			return func(ctx context.Context) (bool, error) { return admission.Post(ctx, w.client, w.url, body) }
		}
		return []admission.Question{
			{Name: "a new Secret", Allowed: atTheirTime, Ask: post(s.creation(s.good()))},
			{Name: "another new one", Allowed: atTheirTime, Ask: post(s.creation(other))},
			{Name: "a new one of a foreign CA", Ask: post(s.creation(foreign))},
			{Name: "a delete until a moment", Allowed: mayDelete, Ask: post(deletion)},
		}
	}
	raised, cleared := string(report.FindingRaised)+" ", string(report.FindingCleared)+" "
	verified, notVerified := string(report.Verified), string(report.NotVerified)
	expired, early, soon := string(finding.CertificateExpired), string(finding.CertificateNotYetValid), string(finding.CertificateExpiringSoon)
	stream := admission.Stream{}
	for range 2 { // the second time all is remembered
		for _, jump := range []struct {
			by                 time.Duration
			there, back        []string // what the agent tells
			atTheirTime, allow bool
		}{
			{3 * year, []string{raised + expired, notVerified}, []string{cleared + expired, verified}, false, false},
			{-3 * year, []string{raised + early, notVerified}, []string{cleared + early, verified}, false, false},
			{28 * 24 * time.Hour, []string{raised + soon}, []string{cleared + soon}, true, false},
			{40 * time.Minute, nil, nil, true, false},
		} {
			for _, step := range []struct {
				by                 time.Duration
				edges              []string
				atTheirTime, allow bool
			}{{jump.by, jump.there, jump.atTheirTime, jump.allow}, {0, jump.back, true, true}} {
				s.jump(c, step.by, w.Metrics, a.process.Metrics)
				for _, q := range questions(step.atTheirTime, step.allow) {
					stream.Ask(s.Context(), q)
				}
				s.says(a, step.edges...)
			}
		}
	}
	s.quiet(a)
	counts := stream.Counts()
	s.noneWrong(counts)
	s.allAnswered(counts)
	s.figure("admission: %s", counts)
	s.ready(w)
	s.breakAndMend(a)
	s.delivered(a)
	s.allAnswered(s.askOnce(w))
	w.client.CloseIdleConnections()
	// The audit goes by the same clock. What it saw at one tick, if a jump was over it,
	// it clears at the next.
	count := func() (raised, cleared int) {
		return len(s.lines(w, string(report.FindingRaised))), len(s.lines(w, string(report.FindingCleared)))
	}
	s.await("the audit clears what it raised", func(context.Context) bool {
		raised, cleared := count()
		return raised == cleared
	}, func() string { return fmt.Sprint(count()) })
}

// creation is the review of a new Secret.
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
