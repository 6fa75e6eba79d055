// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"sigs.k8s.io/yaml"
)

// refName is the annotation that names an entry of an OCI layout (github.com/opencontainers/image-spec annotations.md).
// Here it is REPOSITORY:TAG, since a layout of a release has two repositories.
const refName = "org.opencontainers.image.ref.name"

// build makes the image, the chart's artifact, the provenance and the OpenVEX document from the programs and the
// packaged chart in dir. The same input gives the same bytes. It signs nothing.
func build(dir, version, revision string, created time.Time, out io.Writer) error {
	if version == "" || revision == "" || created.Unix() <= 0 {
		return usageError{"build: --version, --revision and --time are required"}
	}
	goVersion, err := checkPrograms(dir, revision)
	if err != nil {
		return err
	}
	index, err := imageIndex(dir, version, revision, created)
	if err != nil {
		return err
	}
	packaged, err := chartPackage(dir)
	if err != nil {
		return err
	}
	archive, err := readFile(packaged)
	if err != nil {
		return err
	}
	metadata, err := chartMetadata(archive, version)
	if err != nil {
		return fmt.Errorf("%s: %w", filepath.Base(packaged), err)
	}
	chart, err := chartImage(archive, metadata, created)
	if err != nil {
		return fmt.Errorf("make the artifact of the chart: %w", err)
	}
	if err := os.RemoveAll(filepath.Join(dir, layoutDir)); err != nil {
		return err
	}
	content, err := layout.Write(filepath.Join(dir, layoutDir), empty.Index)
	if err != nil {
		return fmt.Errorf("write the OCI layout: %w", err)
	}
	if err := errors.Join(
		content.AppendIndex(index, layout.WithAnnotations(map[string]string{refName: imageName + ":" + version})),
		content.AppendImage(chart, layout.WithAnnotations(map[string]string{refName: chartName + ":" + version})),
	); err != nil {
		return fmt.Errorf("write the OCI layout: %w", err)
	}

	release, err := open(dir)
	if err != nil {
		return err
	}
	of, err := release.subjects()
	if err != nil {
		return err
	}
	text, err := statement(of, version, revision, created, goVersion)
	if err != nil {
		return err
	}
	document, err := openVEX(vulnerabilities, version, release.image.Hex, created)
	if err != nil {
		return err
	}
	for name, data := range map[string][]byte{provenanceFile: text, vexFile: document} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil { //nolint:gosec // to publish
			return err
		}
	}
	_, _ = fmt.Fprintf(out, "image %s\nchart %s\n", release.image, release.chart)
	return nil
}

// checkPrograms checks that all programs are built from the commit, without changes, by one Go release, which it
// returns.
func checkPrograms(dir, revision string) (goVersion string, err error) {
	architectures, err := platforms(dir)
	if err != nil {
		return "", err
	}
	for _, architecture := range architectures {
		for _, program := range programs {
			info, err := readBuildInfo(dir, architecture, program)
			name := path.Join("linux-"+architecture, program)
			switch {
			case err != nil:
				return "", fmt.Errorf("%s: %w", name, err)
			case setting(info, "vcs.revision") != revision:
				return "", fmt.Errorf("%s: built from commit %q, want %q", name, setting(info, "vcs.revision"), revision)
			case setting(info, "vcs.modified") != "false":
				return "", fmt.Errorf("%s: built from a checkout with changes. Fix: commit them, then build again", name)
			case setting(info, "GOOS") != "linux" || setting(info, "GOARCH") != architecture:
				return "", fmt.Errorf("%s: built for %s/%s", name, setting(info, "GOOS"), setting(info, "GOARCH"))
			case goVersion != "" && goVersion != info.GoVersion:
				return "", fmt.Errorf("%s: built by %s, others by %s", name, info.GoVersion, goVersion)
			}
			goVersion = info.GoVersion
		}
	}
	return goVersion, nil
}

// chartMetadata returns the metadata of a packaged chart as JSON, as it is in a registry. The chart must have the
// version of the release.
func chartMetadata(archive []byte, version string) ([]byte, error) {
	zipped, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		return nil, err
	}
	for files := tar.NewReader(io.LimitReader(zipped, maxFile)); ; {
		header, err := files.Next()
		if err != nil {
			return nil, fmt.Errorf("find Chart.yaml: %w", err)
		}
		if header.Name != imageName+"/Chart.yaml" {
			continue
		}
		text, err := io.ReadAll(files)
		if err != nil {
			return nil, err
		}
		converted, err := yaml.YAMLToJSON(text)
		if err != nil {
			return nil, err
		}
		var chart struct{ Version, AppVersion string }
		if err := json.Unmarshal(converted, &chart); err != nil {
			return nil, err
		}
		if chart.Version != version || chart.AppVersion != version {
			return nil, fmt.Errorf("version %q and appVersion %q, want %q", chart.Version, chart.AppVersion, version)
		}
		return converted, nil
	}
}

// opened is a release in a directory.
type opened struct {
	dir     string
	layout  layout.Path
	version string
	// image and chart are the digests of their manifests.
	image, chart v1.Hash
}

// open reads the OCI layout of a release.
func open(dir string) (opened, error) {
	o := opened{dir: dir}
	content, err := layout.FromPath(filepath.Join(dir, layoutDir))
	if err != nil {
		return o, fmt.Errorf("read the OCI layout: %w", err)
	}
	o.layout = content
	entries, err := o.entries()
	if err != nil {
		return o, err
	}
	for _, entry := range entries {
		repository, tag := splitName(entry.Annotations[refName])
		switch {
		case isAttached(tag):
		case repository == imageName:
			o.image, o.version = entry.Digest, tag
		case repository == chartName:
			o.chart = entry.Digest
		}
	}
	if o.image.Hex == "" || o.chart.Hex == "" {
		return o, fmt.Errorf("the OCI layout in %s has not both image and chart", dir)
	}
	return o, nil
}

// entries returns what index.json of the layout lists.
func (o opened) entries() ([]v1.Descriptor, error) {
	index, err := o.layout.ImageIndex()
	if err != nil {
		return nil, fmt.Errorf("read the OCI layout: %w", err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return nil, fmt.Errorf("read the OCI layout: %w", err)
	}
	return manifest.Manifests, nil
}

// index returns the index of the images of all platforms.
func (o opened) index() (v1.ImageIndex, *v1.IndexManifest, error) {
	root, err := o.layout.ImageIndex()
	if err != nil {
		return nil, nil, err
	}
	index, err := root.ImageIndex(o.image)
	if err != nil {
		return nil, nil, err
	}
	manifest, err := index.IndexManifest()
	return index, manifest, err
}

// subjects returns what the provenance is about.
func (o opened) subjects() (subjects, error) {
	architectures, err := platforms(o.dir)
	if err != nil {
		return nil, err
	}
	packaged, err := chartPackage(o.dir)
	if err != nil {
		return nil, err
	}
	names := []string{filepath.Base(packaged)}
	for _, architecture := range architectures {
		for _, program := range programs {
			names = append(names, path.Join("linux-"+architecture, program))
		}
	}
	of := subjects{imageName + ":" + o.version: o.image.Hex, chartName + ":" + o.version: o.chart.Hex}
	for _, name := range names {
		data, err := readFile(filepath.Join(o.dir, name))
		if err != nil {
			return nil, err
		}
		of[name] = digestOf(data)
	}
	return of, nil
}
