// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/openvex/go-vex/pkg/vex"
)

// verify checks a release: the signatures of the checksums, of image and chart and of each attestation, that the files
// are those that were signed, and that they fit together. With from it also checks that the registry has the same image
// and chart, and verifies the signatures there. It does not build anything again.
func verify(ctx context.Context, dir, version, from string, c cosign, out io.Writer) error {
	if err := c.verifySums(ctx, dir); err != nil {
		return fmt.Errorf("the signature of %s: %w", checksums, err)
	}
	release, err := checkFiles(dir)
	if err != nil {
		return err
	}
	if release.version != version {
		return fmt.Errorf("the release is version %s, want %s", release.version, version)
	}
	if from == "" {
		at, stop := localRegistry()
		defer stop()
		if err := release.push(ctx, at); err != nil {
			return err
		}
		from = at
	}
	if err := release.verifyRegistry(ctx, from, c); err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "verified %s:%s@%s\nverified %s:%s@%s\n",
		imageName, version, release.image, chartName, version, release.chart)
	return err
}

// checkFiles checks what needs no signature: checksums, and that the parts of a release fit together.
func checkFiles(dir string) (opened, error) {
	if err := checkSums(dir); err != nil {
		return opened{}, err
	}
	release, err := open(dir)
	if err != nil {
		return opened{}, err
	}
	return release, release.check()
}

// verifyRegistry checks the signatures and attestations of image and chart in a registry.
func (o opened) verifyRegistry(ctx context.Context, at string, c cosign) error {
	for repository, digest := range map[string]v1.Hash{imageName: o.image, chartName: o.chart} {
		tag, err := name.NewTag(at + "/" + repository + ":" + o.version)
		if err != nil {
			return err
		}
		found, err := remote.Head(tag, remote.WithContext(ctx))
		if err != nil {
			return fmt.Errorf("read %s: %w", tag, err)
		}
		if found.Digest != digest {
			return fmt.Errorf("%s has digest %s, but the release has %s", tag, found.Digest, digest)
		}
	}
	signed, err := o.signed()
	if err != nil {
		return err
	}
	for _, manifest := range signed {
		arguments := slices.Concat([]string{"verify"}, c.verifying(), []string{at + "/" + manifest})
		if _, err := c.run(ctx, arguments...); err != nil {
			return fmt.Errorf("the signature of %s: %w", manifest, err)
		}
	}
	all, err := o.attestations()
	if err != nil {
		return err
	}
	for _, one := range all {
		if err := o.verifyAttestation(ctx, c, at, one); err != nil {
			return fmt.Errorf("attestation %s of %s@%s: %w", one.kind, one.repository, one.digest, err)
		}
	}
	return nil
}

// signed returns what has a signature, as REPOSITORY@DIGEST: the image, that of each platform, and the chart.
func (o opened) signed() ([]string, error) {
	_, manifest, err := o.index()
	if err != nil {
		return nil, fmt.Errorf("read the image: %w", err)
	}
	all := []string{imageName + "@" + o.image.String(), chartName + "@" + o.chart.String()}
	for _, one := range manifest.Manifests {
		all = append(all, imageName+"@"+one.Digest.String())
	}
	return all, nil
}

// check checks that the parts of a release fit together, without signatures.
func (o opened) check() error {
	text, err := readFile(filepath.Join(o.dir, provenanceFile))
	if err != nil {
		return err
	}
	made, predicate, err := parseStatement(text)
	if err != nil {
		return fmt.Errorf("%s: %w", provenanceFile, err)
	}
	want, err := o.subjects()
	if err != nil {
		return err
	}
	got := subjects{}
	for _, subject := range made.GetSubject() {
		got[subject.GetName()] = subject.GetDigest()["sha256"]
	}
	if !maps.Equal(got, want) {
		return fmt.Errorf("%s: the subjects are not what the release has: %s", provenanceFile, difference(got, want))
	}
	dependencies := predicate.GetBuildDefinition().GetResolvedDependencies()
	if len(dependencies) != 1 || dependencies[0].GetUri() != "git+"+sourceURL {
		return fmt.Errorf("%s: the source is not %s", provenanceFile, sourceURL)
	}
	if builder := predicate.GetRunDetails().GetBuilder().GetId(); builder != builderID {
		return fmt.Errorf("%s: the builder is %q, want %q", provenanceFile, builder, builderID)
	}
	revision := dependencies[0].GetDigest()["gitCommit"]
	if _, err := checkPrograms(o.dir, revision); err != nil {
		return err
	}
	return errors.Join(o.checkImage(revision), o.checkChart(), o.checkSBOMs(), o.checkVEX())
}

// difference names the first subject that differs.
func difference(got, want subjects) string {
	for _, subject := range sortedKeys(got, want) {
		if got[subject] != want[subject] {
			return subject
		}
	}
	return ""
}

// checkImage checks that the image of each platform has the two programs and nothing else, and the settings of build.
func (o opened) checkImage(revision string) error {
	index, manifest, err := o.index()
	if err != nil {
		return fmt.Errorf("read the image: %w", err)
	}
	architectures, err := platforms(o.dir)
	if err != nil {
		return err
	}
	var found []string
	for _, one := range manifest.Manifests {
		if one.Platform == nil || one.Platform.OS != "linux" {
			return fmt.Errorf("image %s: not for linux", one.Digest)
		}
		found = append(found, one.Platform.Architecture)
		platform, err := index.Image(one.Digest)
		if err != nil {
			return fmt.Errorf("read the image of %s: %w", one.Platform, err)
		}
		if err := o.checkPlatform(platform, one.Platform.Architecture, revision); err != nil {
			return fmt.Errorf("image of %s: %w", one.Platform, err)
		}
	}
	slices.Sort(found)
	if !slices.Equal(found, architectures) {
		return fmt.Errorf("the image has platforms %s, the release programs for %s",
			strings.Join(found, ", "), strings.Join(architectures, ", "))
	}
	return nil
}

func (o opened) checkPlatform(platform v1.Image, architecture, revision string) error {
	config, err := platform.ConfigFile()
	if err != nil {
		return err
	}
	settings := config.Config
	if settings.User != "65532:65532" || !maps.Equal(settings.Labels, labels(revision)) ||
		config.Architecture != architecture || len(settings.Entrypoint)+len(settings.Cmd)+len(settings.Env) > 0 {
		return fmt.Errorf("the configuration is not that of this project")
	}
	content := mutate.Extract(platform)
	defer func() { _ = content.Close() }()
	var found []string
	for files := tar.NewReader(io.LimitReader(content, maxFile)); ; {
		header, err := files.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		found = append(found, header.Name)
		if !slices.Contains(programs, header.Name) {
			return fmt.Errorf("has file %q", header.Name)
		}
		data, err := io.ReadAll(files)
		if err != nil {
			return err
		}
		outside := "linux-" + architecture + "/" + header.Name // one of programs, as checked above
		want, err := readFile(filepath.Join(o.dir, outside))
		if err != nil {
			return err
		}
		if digestOf(data) != digestOf(want) || header.Mode != 0o755 {
			return fmt.Errorf("program %s is not the one in %s", header.Name, outside)
		}
	}
	slices.Sort(found)
	if !slices.Equal(found, programs) {
		return fmt.Errorf("has files %q, want %q", found, programs)
	}
	return nil
}

// checkChart checks that the chart in the layout is the package.
func (o opened) checkChart() error {
	packaged, err := chartPackage(o.dir)
	if err != nil {
		return err
	}
	data, err := readFile(packaged)
	if err != nil {
		return err
	}
	root, err := o.layout.ImageIndex()
	if err != nil {
		return err
	}
	chart, err := root.Image(o.chart)
	if err != nil {
		return fmt.Errorf("read the chart's artifact: %w", err)
	}
	manifest, err := chart.Manifest()
	if err != nil {
		return fmt.Errorf("read the chart's artifact: %w", err)
	}
	if len(manifest.Layers) != 1 || manifest.Layers[0].MediaType != chartLayerType ||
		manifest.Layers[0].Digest.Hex != digestOf(data) {
		return fmt.Errorf("the chart's artifact is not %s", filepath.Base(packaged))
	}
	return nil
}

// checkSBOMs checks that each SBOM lists the modules that Go recorded in its program.
func (o opened) checkSBOMs() error {
	architectures, err := platforms(o.dir)
	if err != nil {
		return err
	}
	for _, architecture := range architectures {
		for _, program := range programs {
			file := path.Join("linux-"+architecture, program+".cdx.json")
			text, err := readFile(filepath.Join(o.dir, file))
			if err != nil {
				return err
			}
			listed, err := components(text)
			if err != nil {
				return fmt.Errorf("%s: %w", file, err)
			}
			info, err := readBuildInfo(o.dir, architecture, program)
			if err != nil {
				return err
			}
			if recorded := modules(info); !slices.Equal(listed, recorded) {
				return fmt.Errorf("%s: lists other modules than the program was built from", file)
			}
		}
	}
	return nil
}

// checkVEX checks that each statement is about the image.
func (o opened) checkVEX() error {
	text, err := readFile(filepath.Join(o.dir, vexFile))
	if err != nil {
		return err
	}
	var document vex.VEX
	if err := json.Unmarshal(text, &document); err != nil {
		return fmt.Errorf("%s: %w", vexFile, err)
	}
	for i, statement := range document.Statements {
		if len(statement.Products) != 1 || statement.Products[0].ID != product(o.image.Hex) {
			return fmt.Errorf("%s: statement %d is not about the image %s", vexFile, i+1, o.image)
		}
		if err := statement.Validate(); err != nil {
			return fmt.Errorf("%s: statement %d: %w", vexFile, i+1, err)
		}
	}
	return nil
}
