// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

const (
	imageName = "kubelet-https-guard"
	// chartName is the repository of the chart.
	chartName = "charts/" + imageName
	sourceURL = "https://github.com/kubelet-https-guard/kubelet-https-guard"

	// The media types of a chart in a registry (helm.sh/helm pkg/registry/constants.go).
	chartConfigType types.MediaType = "application/vnd.cncf.helm.config.v1+json"
	chartLayerType  types.MediaType = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"
)

// labels are those of the image, as in the Dockerfile.
func labels(revision string) map[string]string {
	return map[string]string{
		"org.opencontainers.image.title": imageName,
		"org.opencontainers.image.description": "Enforces and verifies CIS OpenShift 1.2.4 (1.2.2 from v1.8), " +
			"Use https for kubelet connections",
		"org.opencontainers.image.source":   sourceURL,
		"org.opencontainers.image.revision": revision,
		"org.opencontainers.image.licenses": "Apache-2.0",
	}
}

// image makes the image of a platform as the Dockerfile does: one layer with both programs.
func image(dir, architecture, revision string, created time.Time) (v1.Image, error) {
	var archive bytes.Buffer
	writer := tar.NewWriter(&archive)
	for _, program := range programs {
		data, err := readFile(filepath.Join(dir, "linux-"+architecture, program))
		if err != nil {
			return nil, err
		}
		header := tar.Header{
			Typeflag: tar.TypeReg, Name: program, Mode: 0o755, Size: int64(len(data)), ModTime: created,
			Format: tar.FormatPAX,
		}
		if err := writer.WriteHeader(&header); err != nil {
			return nil, err
		}
		if _, err := writer.Write(data); err != nil {
			return nil, err
		}
	}
	if err := writer.Close(); err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(archive.Bytes())), nil
	}, tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, err
	}
	base := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	built, err := mutate.AppendLayers(base, layer)
	if err != nil {
		return nil, err
	}
	config, err := built.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.Architecture, config.OS, config.Created = architecture, "linux", v1.Time{Time: created}
	config.Config.User, config.Config.Labels = "65532:65532", labels(revision)
	config.History = []v1.History{{Created: config.Created, CreatedBy: "COPY webhook nodeagent /"}}
	return mutate.ConfigFile(built, config)
}

// imageIndex makes the image of all platforms.
func imageIndex(dir, version, revision string, created time.Time) (v1.ImageIndex, error) {
	architectures, err := platforms(dir)
	if err != nil {
		return nil, err
	}
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, architecture := range architectures {
		one, err := image(dir, architecture, revision, created)
		if err != nil {
			return nil, fmt.Errorf("make the image for linux/%s: %w", architecture, err)
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: one, Descriptor: v1.Descriptor{
			Platform: &v1.Platform{OS: "linux", Architecture: architecture},
		}})
	}
	annotations := labels(revision)
	annotations["org.opencontainers.image.version"] = version
	annotations["org.opencontainers.image.created"] = created.Format(time.RFC3339)
	annotated, ok := mutate.Annotations(index, annotations).(v1.ImageIndex)
	if !ok {
		return nil, fmt.Errorf("annotate the index: it is no index any more")
	}
	return annotated, nil
}

// chartImage makes of the packaged chart what helm push makes of it, but with the time of the commit: a manifest with
// the chart's metadata and one layer, the package. Its content depends on nothing else.
func chartImage(archive, metadata []byte, created time.Time) (v1.Image, error) {
	layer := static.NewLayer(archive, chartLayerType)
	described, err := partial.Descriptor(layer)
	if err != nil {
		return nil, err
	}
	config := static.NewLayer(metadata, chartConfigType)
	configured, err := partial.Descriptor(config)
	if err != nil {
		return nil, err
	}
	manifest, err := json.Marshal(v1.Manifest{
		SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Config: *configured, Layers: []v1.Descriptor{*described},
		Annotations: map[string]string{
			"org.opencontainers.image.created": created.Format(time.RFC3339),
			"org.opencontainers.image.source":  sourceURL,
		},
	})
	if err != nil {
		return nil, err
	}
	return partial.CompressedToImage(artifact{manifest: manifest, config: metadata, layer: layer})
}

// artifact is an image whose config is not about a container.
type artifact struct {
	manifest, config []byte
	layer            v1.Layer
}

func (a artifact) RawConfigFile() ([]byte, error)                         { return a.config, nil }
func (a artifact) MediaType() (types.MediaType, error)                    { return types.OCIManifestSchema1, nil }
func (a artifact) RawManifest() ([]byte, error)                           { return a.manifest, nil }
func (a artifact) LayerByDigest(v1.Hash) (partial.CompressedLayer, error) { return a.layer, nil }
