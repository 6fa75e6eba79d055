// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
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
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/match"
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
		t.Fatalf("%s is not set. Fix: run make test-release", variable)
	}
	return path
}

// execute runs a program and returns what it prints.
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
	second := copied(t, first)
	var lists [2]string
	for i, dir := range []string{first, second} {
		if err := build(dir, version, revision, created, io.Discard); err != nil {
			t.Fatal(err)
		}
		list(t, dir)
		lists[i] = read(t, filepath.Join(dir, checksums))
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
			changed := copied(t, dir)
			if c.change != nil {
				c.change(changed)
			}
			err := build(changed, c.version, c.revision, c.created, io.Discard)
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

// edit returns a change that replaces a text in a file.
func edit(file, from, to string) func(*testing.T, string) {
	return func(t *testing.T, dir string) { replace(t, filepath.Join(dir, file), from, to) }
}

// flip changes one bit in the middle of a file.
func flip(t *testing.T, path string) {
	t.Helper()
	data := []byte(read(t, path))
	data[len(data)/2] ^= 1
	write(t, path, string(data))
}

// list writes SHA256SUMS again, as somebody who changes a release would.
func list(t *testing.T, dir string) {
	t.Helper()
	text, err := sums(dir)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, checksums), string(text))
}

// copied returns a copy of a release.
func copied(t *testing.T, dir string) string {
	t.Helper()
	to := t.TempDir()
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return to
}

// moreModules adds a module to an SBOM.
var moreModules = edit("linux-arm64/webhook.cdx.json", `"components":[`,
	`"components":[{"type":"library","name":"example.com/x","version":"v1.0.0","purl":"pkg:golang/example.com/x@v1.0.0"},`)

// TestChangedByte: a changed byte in any file is found, and the error names the file.
func TestChangedByte(t *testing.T) {
	dir, revision := inputs(t)
	if err := build(dir, version, revision, created, io.Discard); err != nil {
		t.Fatal(err)
	}
	list(t, dir)
	files := byName([]byte(read(t, filepath.Join(dir, checksums))))
	// 4 programs and SBOMs, the chart, 2 documents, and the layout with 2 files and at least an index, 3 manifests with
	// configuration, and 3 layers.
	if len(files) < 22 {
		t.Fatalf("%d files are listed", len(files))
	}
	for file := range files {
		path := filepath.Join(dir, file)
		before := read(t, path)
		flip(t, path)
		want := file + ": the file has another checksum than in SHA256SUMS"
		if _, err := checkFiles(dir); err == nil || err.Error() != want {
			t.Errorf("%s changed: got %v, want %q", file, err, want)
		}
		write(t, path, before)
	}
	if _, err := checkFiles(dir); err != nil {
		t.Errorf("after all changes are undone: %v", err)
	}
}

// TestCheck: a release whose parts do not fit together is refused, although its checksums are right.
func TestCheck(t *testing.T) {
	dir, revision := inputs(t)
	if err := build(dir, version, revision, created, io.Discard); err != nil {
		t.Fatal(err)
	}
	list(t, dir)
	for title, c := range map[string]struct {
		change func(*testing.T, string)
		listed bool   // SHA256SUMS is written again after the change
		want   string // empty: no error
	}{
		"unchanged":         {},
		"a file is missing": {removed(vexFile), false, vexFile + ": the file is missing"},
		"a file more": {func(t *testing.T, dir string) { write(t, filepath.Join(dir, "README"), "x") }, false,
			"README: the file is not listed"},
		"no checksums":   {removed(checksums), false, checksums},
		"no layout":      {removed(filepath.Join(layoutDir, "index.json")), true, "read the OCI layout"},
		"another module": {moreModules, true, "linux-arm64/webhook.cdx.json: lists other modules"},
		"another program": {func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "linux-arm64", "webhook"), read(t, filepath.Join(dir, "linux-arm64", "nodeagent")))
		}, true, "the subjects are not what the release has: linux-arm64/webhook"},
		"another commit": {edit(provenanceFile, revision, strings.Repeat("0", 40)), true, "built from commit"},
		"another builder": {edit(provenanceFile, builderID, "https://example.com"), true,
			`the builder is "https://example.com"`},
		"another source": {edit(provenanceFile, `"uri": "git+`+sourceURL, `"uri": "git+https://example.com`), true,
			"the source is not"},
		"another subject": {edit(provenanceFile, `"name": "linux-amd64/webhook"`, `"name": "other"`), true,
			"the subjects are not what the release has: linux-amd64/webhook"},
		"no statement": {func(t *testing.T, dir string) { write(t, filepath.Join(dir, provenanceFile), "{}") }, true,
			provenanceFile + ": "},
		"an image with other programs": {func(t *testing.T, dir string) {
			other := copied(t, dir)
			for _, architecture := range []string{"amd64", "arm64"} {
				folder := filepath.Join(other, "linux-"+architecture)
				write(t, filepath.Join(folder, "webhook"), read(t, filepath.Join(folder, "nodeagent")))
			}
			replaceImage(t, dir, other, revision)
		}, true, "image of linux/amd64: program webhook is not the one in linux-amd64/webhook"},
		"an image of another commit": {func(t *testing.T, dir string) {
			replaceImage(t, dir, dir, strings.Repeat("0", 40))
		}, true, "image of linux/amd64: the configuration is not"},
		"an image for fewer platforms": {func(t *testing.T, dir string) {
			other := copied(t, dir)
			if err := os.RemoveAll(filepath.Join(other, "linux-arm64")); err != nil {
				t.Fatal(err)
			}
			replaceImage(t, dir, other, revision)
		}, true, "the image has platforms amd64, the release programs for amd64, arm64"},
		"a statement about another image": {func(t *testing.T, dir string) {
			text, err := openVEX([]byte(statementText), version, strings.Repeat("0", 64), created)
			if err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(dir, vexFile), string(text))
		}, true, "statement 1 is not about the image"},
	} {
		t.Run(title, func(t *testing.T) {
			changed := copied(t, dir)
			if c.change != nil {
				c.change(t, changed)
			}
			if c.listed {
				list(t, changed)
			}
			_, err := checkFiles(changed)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// replaceImage replaces the image of a release by that of the programs in another directory, and the provenance by one
// that names it.
func replaceImage(t *testing.T, dir, programs, revision string) {
	t.Helper()
	index, err := imageIndex(programs, version, revision, created)
	if err != nil {
		t.Fatal(err)
	}
	release := opens(t, dir)
	if err := release.layout.ReplaceIndex(index, match.Name(imageName+":"+version),
		layout.WithAnnotations(map[string]string{refName: imageName + ":" + version})); err != nil {
		t.Fatal(err)
	}
	replaced := opens(t, dir)
	replace(t, filepath.Join(dir, provenanceFile), release.image.Hex, replaced.image.Hex)
}

// TestSigned: a signed release is verified; one with another signature or attestation is not. Rows with signed sign the
// checksums again after the change, as somebody with the key could.
func TestSigned(t *testing.T) {
	dir, revision := inputs(t)
	private, public := keyPair(t)
	_, other := keyPair(t)
	if err := build(dir, version, revision, created, io.Discard); err != nil {
		t.Fatal(err)
	}
	if err := sign(t.Context(), dir, private, io.Discard); err != nil {
		t.Fatal(err)
	}
	// without returns a change that removes what is attached to a manifest: suffix is .sig or .att.
	without := func(manifest, suffix string) func(*testing.T, string) {
		_, digest, _ := strings.Cut(manifest, "@sha256:")
		return func(t *testing.T, dir string) {
			if err := opens(t, dir).layout.RemoveDescriptors(func(entry v1.Descriptor) bool {
				return strings.HasSuffix(entry.Annotations[refName], ":sha256-"+digest+suffix)
			}); err != nil {
				t.Fatal(err)
			}
		}
	}
	release := opens(t, dir)
	signed, err := release.signed()
	if err != nil {
		t.Fatal(err)
	}
	type row struct {
		change func(*testing.T, string)
		signed bool
		key    cosign
		want   string // empty: verified
	}
	cases := map[string]row{
		"unchanged":                 {},
		"signed again, unchanged":   {signed: true},
		"verified with another key": {key: other, want: "the signature of SHA256SUMS"},
		"a program changed": {want: "linux-arm64/webhook: the file has another checksum", change: func(t *testing.T, dir string) {
			flip(t, filepath.Join(dir, "linux-arm64", "webhook"))
		}},
		"the checksums changed": {want: "the signature of SHA256SUMS", change: func(t *testing.T, dir string) {
			flip(t, filepath.Join(dir, checksums))
		}},
		"the signature changed": {want: "the signature of SHA256SUMS", change: func(t *testing.T, dir string) {
			flip(t, filepath.Join(dir, signature))
		}},
		"the checksums are missing": {change: removed(checksums), want: "the signature of SHA256SUMS"},
		"the signature is missing":  {change: removed(signature), want: "the signature of SHA256SUMS"},
		"the checksums written again": {want: "the signature of SHA256SUMS", change: func(t *testing.T, dir string) {
			moreModules(t, dir)
			list(t, dir)
		}},
		"another text in an SBOM": {change: edit("linux-arm64/webhook.cdx.json", `"name":"webhook"`, `"name":"webhook2"`),
			signed: true, want: "attestation cyclonedx of kubelet-https-guard@sha256:"},
		"another version in the provenance": {change: edit(provenanceFile, `"version": "`+version, `"version": "9`),
			signed: true, want: "attestation slsaprovenance1"},
		"another OpenVEX document": {change: edit(vexFile, "maintainers", "others"), signed: true, want: "attestation openvex"},
		"another image's attestation": {change: func(t *testing.T, dir string) {
			without(signed[2], ".att")(t, dir)
			_, to, _ := strings.Cut(signed[2], "@sha256:")
			_, from, _ := strings.Cut(signed[3], "@sha256:")
			path := filepath.Join(dir, layoutDir, "index.json")
			replace(t, path, imageName+":sha256-"+from+".att", imageName+":sha256-"+to+".att")
		}, signed: true, want: "attestation cyclonedx of " + signed[2]},
	}
	for _, manifest := range signed {
		cases["no signature of "+manifest] = row{without(manifest, ".sig"), true, cosign{}, "the signature of " + manifest}
		cases["no attestation of "+manifest] = row{without(manifest, ".att"), true, cosign{}, "of " + manifest + ": "}
	}
	for title, c := range cases {
		t.Run(title, func(t *testing.T) {
			changed := copied(t, dir)
			if c.change != nil {
				c.change(t, changed)
			}
			if c.signed {
				if err := signSums(t.Context(), changed, private, io.Discard); err != nil {
					t.Fatal(err)
				}
			}
			key := public
			if c.key.key != "" {
				key = c.key
			}
			err := verify(t.Context(), changed, version, "", key, io.Discard)
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

// TestSignedPublished: what is published is verified at the registry, and helm pulls the same chart.
func TestSignedPublished(t *testing.T) {
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
	if err := verify(t.Context(), dir, version, to, public, io.Discard); err == nil {
		t.Error("verified, but nothing is published")
	}
	if err := publish(t.Context(), dir, to, io.Discard); err != nil {
		t.Fatal(err)
	}
	if err := verify(t.Context(), dir, "1.2.4", to, public, io.Discard); err == nil ||
		!strings.Contains(err.Error(), "is version 1.2.3, want 1.2.4") {
		t.Errorf("an older release: %v", err)
	}
	if err := verify(t.Context(), dir, version, to, public, io.Discard); err != nil {
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
	if err := verify(t.Context(), dir, version, to, public, io.Discard); err == nil ||
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
	for _, line := range []string{
		"FROM scratch\n", "COPY --from=build /out/webhook /out/nodeagent /\n", "USER 65532:65532\n",
	} {
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
		if _, ok := run(t.Context(), arguments, &out).(usageError); !ok { //nolint:errorlint // not wrapped
			t.Errorf("%q: no usage error", arguments)
		}
	}
}
