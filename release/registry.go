// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/match"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// splitName splits REPOSITORY:TAG.
func splitName(full string) (repository, tag string) {
	at := strings.LastIndex(full, ":")
	if at < 0 {
		return full, ""
	}
	return full[:at], full[at+1:]
}

// isAttached reports whether a tag is that of cosign's signatures or attestations of a manifest (sha256-….sig, .att).
func isAttached(tag string) bool { return strings.HasPrefix(tag, "sha256-") }

// localRegistry runs a registry on the loopback address, in memory. The result of address is HOST:PORT.
func localRegistry() (address string, stop func()) {
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	return strings.TrimPrefix(server.URL, "http://"), server.Close
}

// publish copies the release with its signatures and attestations to a registry.
func publish(ctx context.Context, dir, to string, out io.Writer) error {
	if to == "" {
		return usageError{"publish: --to is required"}
	}
	release, err := open(dir)
	if err != nil {
		return err
	}
	if err := release.push(ctx, to); err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "published %s/%s@%s\npublished %s/%s@%s\n",
		to, imageName, release.image, to, chartName, release.chart)
	return err
}

// push copies all entries of the layout to a registry.
func (o opened) push(ctx context.Context, to string) error {
	entries, err := o.entries()
	if err != nil {
		return err
	}
	root, err := o.layout.ImageIndex()
	if err != nil {
		return err
	}
	for _, entry := range entries {
		at := to + "/" + entry.Annotations[refName]
		reference, err := name.NewTag(at)
		if err != nil {
			return err
		}
		if entry.MediaType.IsIndex() {
			var index v1.ImageIndex
			if index, err = root.ImageIndex(entry.Digest); err == nil {
				err = remote.WriteIndex(reference, index, remote.WithContext(ctx))
			}
		} else {
			var one v1.Image
			if one, err = root.Image(entry.Digest); err == nil {
				err = remote.Write(reference, one, remote.WithContext(ctx))
			}
		}
		if err != nil {
			return fmt.Errorf("push %s: %w", at, err)
		}
	}
	return nil
}

// keepAttached replaces the signatures and attestations in the layout by those in a registry.
func (o opened) keepAttached(ctx context.Context, from string) error {
	if err := o.layout.RemoveDescriptors(attachedEntries()); err != nil {
		return err
	}
	for _, repository := range []string{imageName, chartName} {
		at, err := name.NewRepository(from + "/" + repository)
		if err != nil {
			return err
		}
		tags, err := remote.List(at, remote.WithContext(ctx))
		if err != nil {
			return fmt.Errorf("list the tags of %s: %w", at, err)
		}
		slices.Sort(tags)
		for _, tag := range tags {
			if !isAttached(tag) {
				continue
			}
			attached, err := remote.Image(at.Tag(tag), remote.WithContext(ctx))
			if err != nil {
				return fmt.Errorf("read %s:%s: %w", at, tag, err)
			}
			if err := o.layout.AppendImage(attached,
				layout.WithAnnotations(map[string]string{refName: repository + ":" + tag})); err != nil {
				return fmt.Errorf("store %s:%s: %w", at, tag, err)
			}
		}
	}
	return nil
}

// attachedEntries matches the signatures and attestations in a layout.
func attachedEntries() match.Matcher {
	return func(entry v1.Descriptor) bool {
		_, tag := splitName(entry.Annotations[refName])
		return isAttached(tag)
	}
}
