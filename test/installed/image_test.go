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
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	imageName = "localhost/kubelet-https-guard:e2e"
	// The image of the previous version.
	beforeRepository, beforeTag = "localhost/kubelet-https-guard", "before"
	// baseImage is the image that the Dockerfile builds from.
	baseImage = "docker.io/library/golang:1.27"
	// maxImage is the limit of the image's size, in bytes.
	maxImage = 60 << 20
)

// builder is buildah with its own directories.
type builder struct {
	dir string
	env []string
	// flags mount what the stand-in for the base image does not have.
	flags []string
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

// buildImage builds the image from the unchanged Dockerfile by `make image`, and returns it as an
// archive. It needs no registry: the Dockerfile's base image is replaced by one with this machine's Go
// and shell.
func buildImage(ctx context.Context, dir string) (archive string, err error) {
	if _, err := exec.LookPath("buildah"); err != nil {
		return "", fmt.Errorf("build the image: buildah is not installed (Debian: apt-get install buildah): %w", err)
	}
	b := builder{dir: filepath.Join(dir, "image")}
	storage := filepath.Join(b.dir, "storage.conf")
	b.env = []string{"CONTAINERS_STORAGE_CONF=" + storage, "BUILDAH_ISOLATION=chroot"}
	base := filepath.Join(b.dir, "base")
	if err := os.MkdirAll(base, 0o755); err != nil {
		return "", err
	}
	config := fmt.Sprintf("[storage]\ndriver = \"vfs\"\ngraphroot = %q\nrunroot = %q\n", filepath.Join(b.dir, "store"),
		filepath.Join(b.dir, "run"))
	if err := os.WriteFile(storage, []byte(config), 0o600); err != nil {
		return "", err
	}
	_, _ = fmt.Fprintln(os.Stderr, "building the image …")
	if b.flags, err = b.standInImage(ctx, base); err != nil {
		return "", err
	}
	if archive, err = b.image(ctx, repository, imageName, "image.tar"); err != nil {
		return "", err
	}
	builtBy = b
	return archive, nil
}

// image builds the image of a checkout and returns it as an archive.
func (b builder) image(ctx context.Context, checkout, name, file string) (archive string, err error) {
	if _, err := b.run(ctx, checkout, "make", "image", "IMAGE="+name, "BUILDER=buildah",
		"IMAGE_FLAGS="+strings.Join(b.flags, " ")); err != nil {
		return "", err
	}
	archive = filepath.Join(b.dir, file)
	_, err = b.run(ctx, checkout, "buildah", "push", "-q", name, "docker-archive:"+archive+":"+name)
	return archive, err
}

// buildPreviousVersion checks out the previous version, builds its image, loads it into the node and returns
// the checkout.
func buildPreviousVersion(t *testing.T) (checkout string) {
	t.Helper()
	checkout = filepath.Join(builtBy.dir, "before")
	if err := os.MkdirAll(checkout, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := builtBy.run(t.Context(), repository, "git", "cat-file", "-e",
		previousVersion+"^{commit}"); err != nil {
		t.Skip("the previous version is in the history, which this checkout does not have " +
			"(a shallow clone, or no clone). Fix: git fetch --unshallow")
	}
	archive := filepath.Join(builtBy.dir, "before.tar")
	if _, err := builtBy.run(t.Context(), repository, "git", "archive", "--output", archive,
		previousVersion); err != nil {
		t.Fatalf("check out the previous version: %v", err)
	}
	if _, err := builtBy.run(t.Context(), checkout, "tar", "-xf", archive); err != nil {
		t.Fatal(err)
	}
	if _, err := builtBy.run(t.Context(), checkout, "go", "mod", "download"); err != nil {
		t.Fatalf("download the modules of the previous version: %v", err)
	}
	before := builtBy
	before.flags = append(slices.Clone(builtBy.flags), "--build-arg=GO_IMAGE="+baseImage) // it had another one
	image, err := before.image(t.Context(), checkout, beforeRepository+":"+beforeTag, "image-before.tar")
	if err != nil {
		t.Fatal(err)
	}
	if loaded := shared.rig.Cluster(t.Context(), "load", image); loaded.Code != 0 {
		t.Fatalf("load the image of the previous version into the node: %s", loaded.Output)
	}
	return checkout
}

// builtBy is the builder that built the image.
var builtBy builder

// standInImage makes the base image: links and empty directories, at which this machine's programs, module
// cache and build cache are mounted while the image is built. The flags mount them.
func (b builder) standInImage(ctx context.Context, base string) (flags []string, err error) {
	for _, folder := range []string{"usr", "etc/ssl", "tmp", "root", "go/pkg/mod"} {
		if err := os.MkdirAll(filepath.Join(base, folder), 0o755); err != nil {
			return nil, err
		}
	}
	for _, link := range []string{"bin", "sbin", "lib", "lib64"} {
		target, err := os.Readlink("/" + link)
		if err != nil {
			return nil, fmt.Errorf("make a stand-in for %s: /%s is not a link into /usr: %w", baseImage, link, err)
		}
		if err := os.Symlink(target, filepath.Join(base, link)); err != nil {
			return nil, err
		}
	}
	if err := os.WriteFile(filepath.Join(base, "etc/passwd"), []byte("root:x:0:0:root:/root:/bin/sh\n"),
		0o600); err != nil {
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
	// Go is where it is installed, or in the module cache if the go command downloaded it.
	golang := paths[0]
	if inCache, ok := strings.CutPrefix(golang, paths[1]+"/"); ok {
		golang = "/go/pkg/mod/" + inCache
	} else if !strings.HasPrefix(golang, "/usr/") {
		return nil, fmt.Errorf("make a stand-in for %s: Go is in %s, but only /usr is mounted", baseImage, golang)
	}
	containerfile := filepath.Join(b.dir, "base.containerfile")
	text := fmt.Sprintf(
		"FROM scratch\nCOPY . /\nENV PATH=%s/bin:/usr/sbin:/usr/bin HOME=/root GOPATH=/go GOTOOLCHAIN=local GOPROXY=off\n",
		golang,
	)
	if err := os.WriteFile(containerfile, []byte(text), 0o600); err != nil {
		return nil, err
	}
	if _, err := b.run(ctx, base, "buildah", "build", "-q", "-t", baseImage, "-f", containerfile, "."); err != nil {
		return nil, err
	}
	return []string{
		"--pull=never",
		"--volume=/usr:/usr:ro",
		"--volume=" + paths[1] + ":/go/pkg/mod:ro",
		"--volume=" + paths[2] + ":/root/.cache/go-build",
	}, nil
}

// TestImage: the image is small, contains nothing but the two programs, does not run as root by
// default, and its programs are the same as those built elsewhere from the same commit.
func TestImage(t *testing.T) {
	if shared.rig == nil {
		t.Skip("the image is that of E2E_IMAGE")
	}
	b := builtBy
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
		t.Errorf("the image runs as user %q", got)
	}
	for _, label := range []string{"title", "description", "source", "revision", "licenses"} {
		if image.OCIv1.Config.Labels["org.opencontainers.image."+label] == "" {
			t.Errorf("the image has no label %s", label)
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
		t.Errorf("the image has %d bytes, limit is %d", size, maxImage)
	}

	// Build the programs again, in another directory.
	dist := t.TempDir()
	if _, err := b.run(t.Context(), repository, "env", "GOCACHE="+filepath.Join(dist, "cache"), "make", "dist",
		"DIST="+dist, "ARCHITECTURES="+runtime.GOARCH); err != nil {
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

// sameProgram compares two programs byte by byte. The error says how their builds differ.
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
	return errors.New("the programs differ (-in the image +built again):\n" + cmp.Diff(info[0], info[1]))
}
