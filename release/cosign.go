// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
)

// cosign runs the program cosign (v2).
type cosign struct {
	program string
	// key is the file of a key; empty for keyless signatures.
	key      string
	identity identity
}

// identity is who must have signed keyless.
type identity struct{ subject, issuer string }

// The types of attestations, as cosign calls them.
const (
	provenanceAttestation = "slsaprovenance1"
	vexAttestation        = "openvex"
	sbomAttestation       = "cyclonedx"
)

// run runs cosign with arguments. Its output is in the error if it fails: cosign prints no key.
func (c cosign) run(ctx context.Context, arguments ...string) ([]byte, error) {
	command := exec.CommandContext(ctx, c.program, arguments...) //nolint:gosec // the program that the user names
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	if err := command.Run(); err != nil {
		return nil, fmt.Errorf("%s %s: %w: %s", c.program, arguments[0], err, strings.TrimSpace(stderr.String()))
	}
	return stdout.Bytes(), nil
}

// signing returns the flags to sign with the key. With a key nothing is sent to a transparency log, since the key's
// owner may not want that.
func (c cosign) signing() []string {
	if c.key == "" {
		return []string{"--yes"}
	}
	return []string{"--yes", "--key", c.key, "--tlog-upload=false"}
}

// verifying returns the flags to verify with the key, or who signed keyless.
func (c cosign) verifying() []string {
	if c.key == "" {
		return []string{"--certificate-identity", c.identity.subject, "--certificate-oidc-issuer", c.identity.issuer}
	}
	return []string{"--key", c.key, "--insecure-ignore-tlog=true"}
}

// attestation is a document about a manifest.
type attestation struct {
	repository, digest string
	kind               string
	files              []string // with the predicates, relative to the directory of the release
}

// attestations returns all attestations of a release.
func (o opened) attestations() ([]attestation, error) {
	_, manifest, err := o.index()
	if err != nil {
		return nil, err
	}
	all := []attestation{
		{imageName, o.image.String(), provenanceAttestation, []string{provenanceFile}},
		{imageName, o.image.String(), vexAttestation, []string{vexFile}},
		{chartName, o.chart.String(), provenanceAttestation, []string{provenanceFile}},
	}
	for _, one := range manifest.Manifests {
		if one.Platform == nil {
			return nil, fmt.Errorf("image %s: no platform", one.Digest)
		}
		of := attestation{imageName, one.Digest.String(), sbomAttestation, nil}
		for _, program := range programs {
			of.files = append(of.files, path.Join("linux-"+one.Platform.Architecture, program+".cdx.json"))
		}
		all = append(all, of)
	}
	return all, nil
}

// sign signs image, chart and checksums, and attests provenance, SBOMs and the OpenVEX document.
func sign(ctx context.Context, dir string, c cosign, out io.Writer) error {
	release, err := open(dir)
	if err != nil {
		return err
	}
	at, stop := localRegistry()
	defer stop()
	if err := release.layout.RemoveDescriptors(attachedEntries()); err != nil {
		return err
	}
	if err := release.push(ctx, at); err != nil {
		return err
	}
	signed, err := release.signed()
	if err != nil {
		return err
	}
	for _, manifest := range signed {
		arguments := slices.Concat([]string{"sign"}, c.signing(), []string{at + "/" + manifest})
		if _, err := c.run(ctx, arguments...); err != nil {
			return fmt.Errorf("sign %s: %w", manifest, err)
		}
	}
	all, err := release.attestations()
	if err != nil {
		return err
	}
	for _, one := range all {
		for _, file := range one.files {
			if err := release.attest(ctx, c, at, one, file); err != nil {
				return fmt.Errorf("attest %s for %s@%s: %w", file, one.repository, one.digest, err)
			}
		}
	}
	if err := release.keepAttached(ctx, at); err != nil {
		return err
	}
	return signSums(ctx, dir, c, out)
}

// attest attaches a file as an attestation.
func (o opened) attest(ctx context.Context, c cosign, at string, one attestation, file string) error {
	predicate, err := o.predicate(one.kind, file)
	if err != nil {
		return err
	}
	folder, err := os.MkdirTemp("", "release")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(folder) }()
	in := filepath.Join(folder, "predicate.json")
	if err := os.WriteFile(in, predicate, 0o600); err != nil {
		return err
	}
	_, err = c.run(ctx, slices.Concat([]string{"attest", "--type", one.kind, "--predicate", in}, c.signing(),
		[]string{at + "/" + one.repository + "@" + one.digest})...)
	return err
}

// predicate returns what an attestation says: the file, or of a statement its predicate.
func (o opened) predicate(kind, file string) ([]byte, error) {
	text, err := readFile(filepath.Join(o.dir, file))
	if err != nil || kind != provenanceAttestation {
		return text, err
	}
	made, _, err := parseStatement(text)
	if err != nil {
		return nil, err
	}
	return protojson.Marshal(made.GetPredicate())
}

// signSums writes and signs the checksums.
func signSums(ctx context.Context, dir string, c cosign, out io.Writer) error {
	list, err := sums(dir)
	if err != nil {
		return fmt.Errorf("compute checksums: %w", err)
	}
	at := filepath.Join(dir, checksums)
	if err := os.WriteFile(at, list, 0o644); err != nil { //nolint:gosec // to publish
		return err
	}
	arguments := slices.Concat([]string{"sign-blob", "--output-signature", filepath.Join(dir, signature)}, c.signing())
	if c.key == "" {
		arguments = append(arguments, "--output-certificate", filepath.Join(dir, certificate))
	}
	if _, err := c.run(ctx, append(arguments, at)...); err != nil {
		return fmt.Errorf("sign %s: %w", checksums, err)
	}
	_, err = fmt.Fprintf(out, "signed image, chart and %s: %d files\n", checksums, bytes.Count(list, []byte("\n")))
	return err
}

// verifySums checks the signature of the checksums.
func (c cosign) verifySums(ctx context.Context, dir string) error {
	arguments := slices.Concat([]string{"verify-blob", "--signature", filepath.Join(dir, signature)}, c.verifying())
	if c.key == "" {
		arguments = append(arguments, "--certificate", filepath.Join(dir, certificate))
	}
	_, err := c.run(ctx, append(arguments, filepath.Join(dir, checksums))...)
	return err
}

// verifyAttestation checks that the attestations of one kind are signed, are about the manifest, and say what the files
// say. cosign compares their subjects with the manifest's digest.
func (o opened) verifyAttestation(ctx context.Context, c cosign, at string, one attestation) error {
	printed, err := c.run(ctx, slices.Concat([]string{"verify-attestation", "--type", one.kind}, c.verifying(),
		[]string{at + "/" + one.repository + "@" + one.digest})...)
	if err != nil {
		return err
	}
	var got, want []string
	for line := range bytes.Lines(printed) {
		var envelope struct{ Payload string }
		if err := json.Unmarshal(line, &envelope); err != nil {
			return err
		}
		payload, err := base64.StdEncoding.DecodeString(envelope.Payload)
		if err != nil {
			return err
		}
		var statement struct{ Predicate json.RawMessage }
		if err := json.Unmarshal(payload, &statement); err != nil {
			return err
		}
		text, err := indent(statement.Predicate)
		if err != nil {
			return err
		}
		got = append(got, string(text))
	}
	for _, file := range one.files {
		predicate, err := o.predicate(one.kind, file)
		if err != nil {
			return err
		}
		text, err := indent(predicate)
		if err != nil {
			return err
		}
		want = append(want, string(text))
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		return fmt.Errorf("the attestations are not those of %s", strings.Join(one.files, ", "))
	}
	return nil
}
