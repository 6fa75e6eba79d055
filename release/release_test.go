// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

const version = "1.2.3"

// created is when the commit of the tests' programs was made.
var created = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

// program returns the path of a program that the tests need.
func program(t *testing.T, variable string) string {
	t.Helper()
	path := os.Getenv(variable)
	if path == "" {
		t.Fatalf("%s is not set. Fix: run make release-test", variable)
	}
	return path
}

// run runs a program and returns what it prints.
func execute(t *testing.T, dir string, arguments ...string) string {
	t.Helper()
	command := exec.CommandContext(t.Context(), arguments[0], arguments[1:]...)
	command.Dir = dir
	command.Env = append(os.Environ(), "COSIGN_PASSWORD=", "GOFLAGS=-mod=mod", "GIT_CONFIG_GLOBAL=/dev/null",
		"GIT_AUTHOR_DATE="+created.Format(time.RFC3339), "GIT_COMMITTER_DATE="+created.Format(time.RFC3339))
	out, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(arguments, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// inputs makes what build reads: small programs for two platforms from a commit, their SBOMs, and a chart.
func inputs(t *testing.T) (dir, revision string) {
	t.Helper()
	source, dir := t.TempDir(), t.TempDir()
	for file, text := range map[string]string{
		"go.mod":            "module example.com/programs\n\ngo 1.26.0\n",
		"webhook/main.go":   "package main\n\nfunc main() { println(\"webhook\") }\n",
		"nodeagent/main.go": "package main\n\nfunc main() { println(\"nodeagent\") }\n",
		"chart/Chart.yaml":  "apiVersion: v2\nname: " + imageName + "\nversion: " + version + "\nappVersion: " + version + "\n",
		"chart/values.yaml": "a: 1\n",
	} {
		path := filepath.Join(source, file)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, path, text)
	}
	execute(t, source, "git", "init", "-q")
	execute(t, source, "git", "add", "-A")
	execute(t, source, "git", "-c", "user.name=test", "-c", "user.email=test@example.com", "commit", "-qm", "test")
	revision = execute(t, source, "git", "rev-parse", "HEAD")
	for _, architecture := range []string{"amd64", "arm64"} {
		folder := filepath.Join(dir, "linux-"+architecture)
		execute(t, source, "env", "GOOS=linux", "CGO_ENABLED=0", "GOARCH="+architecture, "go", "build", "-trimpath",
			"-buildvcs=true", "-o", folder+"/", "./webhook", "./nodeagent")
		for _, one := range programs {
			write(t, filepath.Join(folder, one+".cdx.json"),
				`{"bomFormat":"CycloneDX","specVersion":"1.6","metadata":{"component":{"type":"application","name":"`+one+`"}},`+
					`"components":[{"type":"library","name":"std","version":"go1","purl":"pkg:golang/std@1"}]}`)
		}
	}
	if err := os.Rename(filepath.Join(source, "chart"), filepath.Join(source, imageName)); err != nil {
		t.Fatal(err)
	}
	execute(t, source, "touch", "-d", created.Format(time.RFC3339), imageName+"/Chart.yaml", imageName+"/values.yaml")
	execute(t, source, program(t, "HELM"), "package", imageName, "--destination", dir)
	return dir, revision
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// keyPair makes a throw-away key.
func keyPair(t *testing.T) (private, public cosign) {
	t.Helper()
	dir := t.TempDir()
	execute(t, dir, program(t, "COSIGN"), "generate-key-pair")
	t.Setenv("COSIGN_PASSWORD", "")
	return cosign{program: program(t, "COSIGN"), key: filepath.Join(dir, "cosign.key")},
		cosign{program: program(t, "COSIGN"), key: filepath.Join(dir, "cosign.pub")}
}

// TestBuild: the same input gives the same bytes in another directory, and SHA256SUMS is in the format of sha256sum.
func TestBuild(t *testing.T) {
	first, revision := inputs(t)
	second := t.TempDir()
	if err := os.CopyFS(second, os.DirFS(first)); err != nil {
		t.Fatal(err)
	}
	var lists [2]string
	for i, dir := range []string{first, second} {
		if err := build(dir, version, revision, created, io.Discard); err != nil {
			t.Fatal(err)
		}
		list, err := sums(dir)
		if err != nil {
			t.Fatal(err)
		}
		lists[i] = string(list)
		write(t, filepath.Join(dir, checksums), lists[i])
		execute(t, dir, "sha256sum", "--check", "--strict", checksums)
	}
	if lists[0] != lists[1] {
		t.Errorf("two builds differ:\n%s\n%s", lists[0], lists[1])
	}
}

// TestBuildRefuses: programs that are not those of the commit are refused.
func TestBuildRefuses(t *testing.T) {
	dir, revision := inputs(t)
	cases := map[string]struct {
		version, revision string
		created           time.Time
		change            func(dir string)
		want              string
	}{
		"no version":      {"", revision, created, nil, "--version"},
		"no time":         {version, revision, time.Unix(0, 0), nil, "--time"},
		"another commit":  {version, strings.Repeat("0", 40), created, nil, "linux-amd64/nodeagent: built from commit"},
		"another version": {"2.0.0", revision, created, nil, `version "1.2.3" and appVersion "1.2.3", want "2.0.0"`},
		"another platform": {version, revision, created, func(dir string) {
			write(t, filepath.Join(dir, "linux-arm64", "webhook"), read(t, filepath.Join(dir, "linux-amd64", "webhook")))
		}, "linux-arm64/webhook: built for linux/amd64"},
		"a program missing": {version, revision, created, func(dir string) {
			_ = os.Remove(filepath.Join(dir, "linux-arm64", "webhook"))
		}, "linux-arm64/webhook"},
		"no program": {version, revision, created, func(dir string) {
			write(t, filepath.Join(dir, "linux-arm64", "webhook"), "text")
		}, "linux-arm64/webhook: unrecognized file format"},
		"two charts": {version, revision, created, func(dir string) {
			write(t, filepath.Join(dir, imageName+"-0.0.1.tgz"), "")
		}, "2 files"},
	}
	for title, c := range cases {
		t.Run(title, func(t *testing.T) {
			copied := t.TempDir()
			if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
				t.Fatal(err)
			}
			if c.change != nil {
				c.change(copied)
			}
			err := build(copied, c.version, c.revision, c.created, io.Discard)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// replace changes a text in a file, which must have it.
func replace(t *testing.T, path, from, to string) {
	t.Helper()
	text := read(t, path)
	if !strings.Contains(text, from) {
		t.Fatalf("%s has no %q", path, from)
	}
	write(t, path, strings.Replace(text, from, to, 1))
}

// TestVerify: a release as it was made is verified; a change of anything is found. Rows with signed sign the checksums
// again after the change, as somebody with the key could.
func TestVerify(t *testing.T) {
	dir, revision := inputs(t)
	private, public := keyPair(t)
	_, other := keyPair(t)
	if err := build(dir, version, revision, created, io.Discard); err != nil {
		t.Fatal(err)
	}
	if err := sign(t.Context(), dir, private, io.Discard); err != nil {
		t.Fatal(err)
	}
	flip := func(name string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			data := []byte(read(t, filepath.Join(dir, name)))
			data[len(data)/2] ^= 1
			write(t, filepath.Join(dir, name), string(data))
		}
	}
	edit := func(name, from, to string) func(*testing.T, string) {
		return func(t *testing.T, dir string) { replace(t, filepath.Join(dir, name), from, to) }
	}
	sbom := edit("linux-arm64/webhook.cdx.json", `"components":[`,
		`"components":[{"type":"library","name":"example.com/x","version":"v1.0.0","purl":"pkg:golang/example.com/x@v1.0.0"},`)
	cases := map[string]struct {
		change func(*testing.T, string)
		signed bool
		key    cosign
		want   string // empty: verified
	}{
		"unchanged":               {},
		"signed again, unchanged": {signed: true},
		"verified with another key": {key: other,
			want: "the signature of SHA256SUMS"},
		"a program changed":         {change: flip("linux-arm64/webhook"), want: "linux-arm64/webhook: the file has another checksum"},
		"an SBOM changed":           {change: sbom, want: "linux-arm64/webhook.cdx.json: the file has another checksum"},
		"the chart changed":         {change: flip(imageName + "-" + version + ".tgz"), want: ".tgz: the file has another checksum"},
		"the provenance changed":    {change: edit(provenanceFile, revision, strings.Repeat("0", 40)), want: provenanceFile + ": the file has another"},
		"the OpenVEX changed":       {change: edit(vexFile, "maintainers", "others"), want: vexFile + ": the file has another checksum"},
		"the checksums changed":     {change: flip(checksums), want: "the signature of SHA256SUMS"},
		"the signature changed":     {change: flip(signature), want: "the signature of SHA256SUMS"},
		"the checksums are missing": {change: removed(checksums), want: "the signature of SHA256SUMS"},
		"a file is missing":         {change: removed(vexFile), want: vexFile + ": the file is missing"},
		"a file more": {change: func(t *testing.T, dir string) { write(t, filepath.Join(dir, "README"), "x") },
			want: "README: the file is not listed"},
		"the checksums made again": {change: func(t *testing.T, dir string) {
			sbom(t, dir)
			list, err := sums(dir)
			if err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(dir, checksums), string(list))
		}, want: "the signature of SHA256SUMS"},
		"another program, signed": {change: func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "linux-arm64", "webhook"), read(t, filepath.Join(dir, "linux-arm64", "nodeagent")))
		}, signed: true, want: "the subjects are not what the release has: linux-arm64/webhook"},
		"another SBOM, signed": {change: sbom, signed: true,
			want: "linux-arm64/webhook.cdx.json: lists other modules than the program was built from"},
		"another text in an SBOM, signed": {change: edit("linux-arm64/webhook.cdx.json", `"name":"webhook"`, `"name":"webhook2"`),
			signed: true, want: "attestation cyclonedx of kubelet-https-guard@sha256:"},
		"another commit, signed": {change: edit(provenanceFile, revision, strings.Repeat("0", 40)), signed: true,
			want: "built from commit"},
		"another builder, signed": {change: edit(provenanceFile, builderID, "https://example.com"), signed: true,
			want: "the builder is"},
		"another source, signed": {change: edit(provenanceFile, `"uri": "git+`+sourceURL, `"uri": "git+https://example.com`),
			signed: true, want: "the source is not"},
		"a subject less, signed": {change: edit(provenanceFile, `"name": "linux-amd64/webhook"`, `"name": "other"`),
			signed: true, want: "the subjects are not what the release has: linux-amd64/webhook"},
		"another version in the provenance, signed": {change: edit(provenanceFile, `"version": "`+version, `"version": "9`),
			signed: true, want: "attestation slsaprovenance1"},
		"no provenance, signed": {change: func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, provenanceFile), "{}")
		}, signed: true, want: provenanceFile + ": "},
		"another OpenVEX, signed": {change: edit(vexFile, "maintainers", "others"), signed: true, want: "attestation openvex"},
		"an OpenVEX statement about another image, signed": {change: func(t *testing.T, dir string) {
			text, err := openVEX([]byte(statementText), version, strings.Repeat("0", 64), created)
			if err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(dir, vexFile), string(text))
		}, signed: true, want: "statement 1 is not about the image"},
		"no attestations, signed": {change: func(t *testing.T, dir string) {
			release := opens(t, dir)
			if err := release.layout.RemoveDescriptors(func(entry v1.Descriptor) bool {
				return strings.HasSuffix(entry.Annotations[refName], ".att")
			}); err != nil {
				t.Fatal(err)
			}
		}, signed: true, want: "attestation slsaprovenance1"},
		"no signatures, signed": {change: func(t *testing.T, dir string) {
			if err := opens(t, dir).layout.RemoveDescriptors(attachedEntries()); err != nil {
				t.Fatal(err)
			}
		}, signed: true, want: "the signature of "},
	}
	for title, c := range cases {
		t.Run(title, func(t *testing.T) {
			copied := t.TempDir()
			if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
				t.Fatal(err)
			}
			if c.change != nil {
				c.change(t, copied)
			}
			if c.signed {
				if err := signSums(t.Context(), copied, private, io.Discard); err != nil {
					t.Fatal(err)
				}
			}
			key := public
			if c.key.key != "" {
				key = c.key
			}
			err := verify(t.Context(), copied, "", key, io.Discard)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func removed(name string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
}

func opens(t *testing.T, dir string) opened {
	t.Helper()
	release, err := open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return release
}

// statementText is an example of vulnerabilities.json.
const statementText = `[{"vulnerability":{"name":"CVE-2020-0001"},"status":"not_affected",` +
	`"justification":"vulnerable_code_not_in_execute_path"}]`

// TestOpenVEX: each statement is about the image; one that is not valid is refused.
func TestOpenVEX(t *testing.T) {
	text, err := openVEX([]byte(statementText), version, strings.Repeat("a", 64), created)
	if err != nil {
		t.Fatal(err)
	}
	var document struct {
		Statements []struct {
			Products []struct {
				ID string `json:"@id"`
			}
		}
	}
	if err := json.Unmarshal(text, &document); err != nil {
		t.Fatal(err)
	}
	if len(document.Statements) != 1 || len(document.Statements[0].Products) != 1 ||
		document.Statements[0].Products[0].ID != "pkg:oci/kubelet-https-guard@sha256%3A"+strings.Repeat("a", 64) {
		t.Errorf("got %s", text)
	}
	for title, statements := range map[string]string{
		"no justification": `[{"vulnerability":{"name":"CVE-2020-0001"},"status":"not_affected"}]`,
		"unknown status":   `[{"vulnerability":{"name":"CVE-2020-0001"},"status":"unimportant"}]`,
		"unknown field":    `[{"cve":"CVE-2020-0001"}]`,
		"no list":          `{}`,
	} {
		if _, err := openVEX([]byte(statements), version, strings.Repeat("a", 64), created); err == nil {
			t.Errorf("%s: no error", title)
		}
	}
}

// TestPublished: what is published is verified at the registry, and helm pulls the same chart.
func TestPublished(t *testing.T) {
	dir, revision := inputs(t)
	private, public := keyPair(t)
	if err := build(dir, version, revision, created, io.Discard); err != nil {
		t.Fatal(err)
	}
	if err := sign(t.Context(), dir, private, io.Discard); err != nil {
		t.Fatal(err)
	}
	at, stop := localRegistry()
	t.Cleanup(stop)
	to := at + "/team"
	if err := verify(t.Context(), dir, to, public, io.Discard); err == nil {
		t.Error("verified, but nothing is published")
	}
	if err := publish(t.Context(), dir, to, io.Discard); err != nil {
		t.Fatal(err)
	}
	if err := verify(t.Context(), dir, to, public, io.Discard); err != nil {
		t.Error(err)
	}
	pulled := t.TempDir()
	execute(t, pulled, program(t, "HELM"), "pull", "oci://"+to+"/"+chartName, "--version", version, "--plain-http")
	if got := read(t, filepath.Join(pulled, imageName+"-"+version+".tgz")); got != read(t,
		filepath.Join(dir, imageName+"-"+version+".tgz")) {
		t.Error("helm pulls another chart")
	}
	replaced, err := random.Image(10, 1)
	if err != nil {
		t.Fatal(err)
	}
	tag, err := name.NewTag(to + "/" + imageName + ":" + version)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(tag, replaced, remote.WithContext(t.Context())); err != nil {
		t.Fatal(err)
	}
	if err := verify(t.Context(), dir, to, public, io.Discard); err == nil ||
		!strings.Contains(err.Error(), "but the release has") {
		t.Errorf("another image at the tag: %v", err)
	}
}

// TestDockerfile: the image has the same labels and user as the one that the Dockerfile makes.
func TestDockerfile(t *testing.T) {
	text := read(t, filepath.Join("..", "Dockerfile"))
	for label, value := range labels("$REVISION") {
		if !strings.Contains(text, label+`="`+value+`"`) {
			t.Errorf("the Dockerfile has no label %s=%q", label, value)
		}
	}
	for _, line := range []string{"FROM scratch\n", "COPY --from=build /out/webhook /out/nodeagent /\n", "USER 65532:65532\n"} {
		if !strings.Contains(text, line) {
			t.Errorf("the Dockerfile has no line %q", line)
		}
	}
}

// TestUsage: bad command lines are usage errors.
func TestUsage(t *testing.T) {
	for _, arguments := range [][]string{
		{}, {"unknown", "--dir", "x"}, {"build"}, {"build", "--dir", "x"}, {"sign", "--dir", "x", "more"},
		{"publish", "--dir", "x"}, {"verify", "--unknown"},
	} {
		var out bytes.Buffer
		if _, ok := run(context.Background(), arguments, &out).(usageError); !ok { //nolint:errorlint // not wrapped
			t.Errorf("%q: no usage error", arguments)
		}
	}
}
