// SPDX-License-Identifier: Apache-2.0

package installed_test

import (
	"bytes"
	"context"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	imageName = "localhost/kubelet-https-guard:e2e"
	// baseImage is what the Dockerfile builds from.
	baseImage = "docker.io/library/golang:1.26"
	// maxImage is the image's budget, in bytes.
	maxImage = 60 << 20
)

// builder is buildah with folders of its own.
type builder struct {
	dir string
	env []string
}

func (b builder) run(ctx context.Context, folder, program string, args ...string) (string, error) {
	command := exec.CommandContext(ctx, program, args...)
	command.Dir, command.Env = folder, append(os.Environ(), b.env...)
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	if err := command.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s%s", program, strings.Join(args, " "), err, stdout.String(), stderr.String())
	}
	return strings.TrimSpace(stdout.String()), nil
}

// buildImage builds the image from the Dockerfile as it is, by `make image`, and
// returns it as an archive. A registry is not needed: instead of the image that
// the Dockerfile builds from there is one with this machine's own Go and shell.
func buildImage(ctx context.Context, dir string) (archive string, err error) {
	if _, err := exec.LookPath("buildah"); err != nil {
		return "", fmt.Errorf("build the image: buildah is not there (Debian: apt-get install buildah): %w", err)
	}
	b := builder{dir: filepath.Join(dir, "image")}
	storage := filepath.Join(b.dir, "storage.conf")
	b.env = []string{"CONTAINERS_STORAGE_CONF=" + storage, "BUILDAH_ISOLATION=chroot"}
	base := filepath.Join(b.dir, "base")
	if err := os.MkdirAll(base, 0o755); err != nil {
		return "", err
	}
	config := fmt.Sprintf("[storage]\ndriver = \"vfs\"\ngraphroot = %q\nrunroot = %q\n", filepath.Join(b.dir, "store"), filepath.Join(b.dir, "run"))
	if err := os.WriteFile(storage, []byte(config), 0o600); err != nil {
		return "", err
	}
	_, _ = fmt.Fprintln(os.Stderr, "building the image …")
	flags, err := b.standIn(ctx, base)
	if err != nil {
		return "", err
	}
	if _, err := b.run(ctx, repository, "make", "image", "IMAGE="+imageName, "BUILDER=buildah", "IMAGE_FLAGS="+strings.Join(flags, " ")); err != nil {
		return "", err
	}
	archive = filepath.Join(b.dir, "image.tar")
	if _, err := b.run(ctx, repository, "buildah", "push", "-q", imageName, "docker-archive:"+archive+":"+imageName); err != nil {
		return "", err
	}
	built = b
	return archive, nil
}

// built is by what the image was built.
var built builder

// standIn makes the base image: links and empty folders, over which this
// machine's programs, module cache and build cache are mounted while the image
// is built. The flags mount them.
func (b builder) standIn(ctx context.Context, base string) (flags []string, err error) {
	for _, folder := range []string{"usr", "etc/ssl", "tmp", "root", "go/pkg/mod"} {
		if err := os.MkdirAll(filepath.Join(base, folder), 0o755); err != nil {
			return nil, err
		}
	}
	for _, link := range []string{"bin", "sbin", "lib", "lib64"} {
		target, err := os.Readlink("/" + link)
		if err != nil {
			return nil, fmt.Errorf("make a stand-in for %s: /%s is no link into /usr: %w", baseImage, link, err)
		}
		if err := os.Symlink(target, filepath.Join(base, link)); err != nil {
			return nil, err
		}
	}
	if err := os.WriteFile(filepath.Join(base, "etc/passwd"), []byte("root:x:0:0:root:/root:/bin/sh\n"), 0o600); err != nil {
		return nil, err
	}
	if _, err := b.run(ctx, repository, "go", "mod", "download"); err != nil {
		return nil, err
	}
	caches, err := b.run(ctx, repository, "go", "env", "GOROOT", "GOMODCACHE", "GOCACHE")
	if err != nil {
		return nil, err
	}
	paths := strings.Fields(caches)
	if len(paths) != 3 {
		return nil, fmt.Errorf("go env: %q", caches)
	}
	if !strings.HasPrefix(paths[0], "/usr/") {
		return nil, fmt.Errorf("make a stand-in for %s: Go is in %s, and only /usr is mounted", baseImage, paths[0])
	}
	containerfile := filepath.Join(b.dir, "base.containerfile")
	text := fmt.Sprintf("FROM scratch\nCOPY . /\nENV PATH=%s/bin:/usr/sbin:/usr/bin HOME=/root GOPATH=/go GOTOOLCHAIN=local GOPROXY=off\n", paths[0])
	if err := os.WriteFile(containerfile, []byte(text), 0o600); err != nil {
		return nil, err
	}
	if _, err := b.run(ctx, base, "buildah", "build", "-q", "-t", baseImage, "-f", containerfile, "."); err != nil {
		return nil, err
	}
	return []string{"--pull=never", "--volume=/usr:/usr:ro", "--volume=" + paths[1] + ":/go/pkg/mod:ro", "--volume=" + paths[2] + ":/root/.cache/go-build"}, nil
}

// TestImage: small, nothing in it but the two programs, not root by default, and
// the same programs as are built anywhere else from the same commit.
func TestImage(t *testing.T) {
	if shared.rig == nil {
		t.Skip("the image was given by E2E_IMAGE")
	}
	b := built
	inspected, err := b.run(t.Context(), repository, "buildah", "inspect", "--type", "image", imageName)
	if err != nil {
		t.Fatal(err)
	}
	var image struct {
		OCIv1 struct {
			Config struct {
				User   string
				Labels map[string]string
			} `json:"config"`
		}
	}
	if err := json.Unmarshal([]byte(inspected), &image); err != nil {
		t.Fatal(err)
	}
	if got := image.OCIv1.Config.User; got != "65532:65532" {
		t.Errorf("it runs as %q", got)
	}
	for _, label := range []string{"title", "description", "source", "revision", "licenses"} {
		if image.OCIv1.Config.Labels["org.opencontainers.image."+label] == "" {
			t.Errorf("it has no label %s", label)
		}
	}

	container, err := b.run(t.Context(), repository, "buildah", "from", "--pull=never", imageName)
	if err != nil {
		t.Fatal(err)
	}
	root, err := b.run(t.Context(), repository, "buildah", "mount", container)
	if err != nil {
		t.Fatal(err)
	}
	var files []string
	var size int64
	err = filepath.WalkDir(root, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		size += info.Size()
		name, err := filepath.Rel(root, path)
		files = append(files, name)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"nodeagent", "webhook"}, files); d != "" {
		t.Errorf("files of the image (-want +got):\n%s", d)
	}
	t.Logf("the image is %.1f MB", float64(size)/1e6)
	if size > maxImage {
		t.Errorf("it is %d bytes, more than %d", size, maxImage)
	}

	// Built once more, elsewhere.
	dist := t.TempDir()
	if _, err := b.run(t.Context(), repository, "env", "GOCACHE="+filepath.Join(dist, "cache"), "make", "dist", "DIST="+dist, "ARCHITECTURES="+runtime.GOARCH); err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		again := filepath.Join(dist, "linux-"+runtime.GOARCH, name)
		if err := sameProgram(filepath.Join(root, name), again); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		sbom, err := os.ReadFile(again + ".cdx.json")
		if err != nil {
			t.Fatal(err)
		}
		var parts struct {
			BOMFormat  string
			Components []struct{ Name string }
		}
		if err := json.Unmarshal(sbom, &parts); err != nil || parts.BOMFormat != "CycloneDX" || len(parts.Components) < 10 {
			t.Errorf("SBOM of %s: %v, format %q, %d components", name, err, parts.BOMFormat, len(parts.Components))
		}
	}
}

// sameProgram compares two programs byte by byte, and says what differs in how
// they were built.
func sameProgram(a, b string) error {
	var data [2][]byte
	var info [2]string
	for i, path := range []string{a, b} {
		var err error
		if data[i], err = os.ReadFile(path); err != nil {
			return err
		}
		read, err := buildinfo.Read(bytes.NewReader(data[i]))
		if err != nil {
			return err
		}
		info[i] = read.String()
	}
	if bytes.Equal(data[0], data[1]) {
		return nil
	}
	return errors.New("another program (-in the image +built again):\n" + cmp.Diff(info[0], info[1]))
}
