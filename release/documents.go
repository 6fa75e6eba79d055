// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/CycloneDX/cyclonedx-go"
	provenance "github.com/in-toto/attestation/go/predicates/provenance/v1"
	intoto "github.com/in-toto/attestation/go/v1"
	"github.com/openvex/go-vex/pkg/vex"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

const (
	// provenanceType is the type of the predicate (slsa.dev/spec/v1.1/provenance), statementType that of the statement.
	provenanceType, statementType = "https://slsa.dev/provenance/v1", "https://in-toto.io/Statement/v1"
	// buildType names the page that describes the build.
	buildType = sourceURL + "/blob/main/docs/release.md"
	// builderID names what ran the build: any machine with this repository. It is no hosted builder, so by itself the
	// provenance is of SLSA build level 1.
	builderID = sourceURL + "/blob/main/Makefile"
)

// subjects are the SHA-256 digests of what a release has, in hexadecimal, by name: programs, the chart's package, and
// the manifests of image and chart.
type subjects map[string]string

// statement makes the provenance of all subjects. Its text depends only on its arguments.
func statement(of subjects, version, revision string, created time.Time, goVersion string) ([]byte, error) {
	external, err := structpb.NewStruct(map[string]any{"version": version, "source": sourceURL, "target": "make release"})
	if err != nil {
		return nil, err
	}
	internal, err := structpb.NewStruct(map[string]any{"go": goVersion})
	if err != nil {
		return nil, err
	}
	predicate := &provenance.Provenance{
		BuildDefinition: &provenance.BuildDefinition{
			BuildType: buildType, ExternalParameters: external, InternalParameters: internal,
			ResolvedDependencies: []*intoto.ResourceDescriptor{{
				Uri: "git+" + sourceURL, Digest: map[string]string{"gitCommit": revision},
			}},
		},
		RunDetails: &provenance.RunDetails{
			Builder: &provenance.Builder{Id: builderID},
			// The time of the commit, so that the same commit gives the same text.
			Metadata: &provenance.BuildMetadata{StartedOn: timestamppb.New(created), FinishedOn: timestamppb.New(created)},
		},
	}
	if err := predicate.Validate(); err != nil {
		return nil, fmt.Errorf("provenance: %w", err)
	}
	text, err := protojson.Marshal(predicate)
	if err != nil {
		return nil, err
	}
	fields := &structpb.Struct{}
	if err := protojson.Unmarshal(text, fields); err != nil {
		return nil, err
	}
	made := &intoto.Statement{Type: statementType, PredicateType: provenanceType, Predicate: fields}
	for _, name := range slices.Sorted(maps.Keys(of)) {
		made.Subject = append(made.Subject, &intoto.ResourceDescriptor{
			Name: name, Digest: map[string]string{"sha256": of[name]},
		})
	}
	if err := made.Validate(); err != nil {
		return nil, fmt.Errorf("statement: %w", err)
	}
	if text, err = protojson.Marshal(made); err != nil {
		return nil, err
	}
	// protojson varies the white space and keeps the order; json sorts the fields of a Struct.
	return indent(text)
}

// indent formats JSON with sorted keys.
func indent(text []byte) ([]byte, error) {
	var value any
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	if err := decoder.Decode(&value); err != nil {
		return nil, err
	}
	text, err := json.MarshalIndent(value, "", "  ")
	return append(text, '\n'), err
}

// parseStatement parses a provenance statement and its predicate.
func parseStatement(text []byte) (*intoto.Statement, *provenance.Provenance, error) {
	var made intoto.Statement
	if err := protojson.Unmarshal(text, &made); err != nil {
		return nil, nil, err
	}
	if err := made.Validate(); err != nil {
		return nil, nil, err
	}
	if made.GetPredicateType() != provenanceType {
		return nil, nil, fmt.Errorf("the predicate is of type %q, want %q", made.GetPredicateType(), provenanceType)
	}
	raw, err := protojson.Marshal(made.GetPredicate())
	if err != nil {
		return nil, nil, err
	}
	var predicate provenance.Provenance
	if err := protojson.Unmarshal(raw, &predicate); err != nil {
		return nil, nil, err
	}
	return &made, &predicate, predicate.Validate()
}

// vulnerabilities.json has statements about vulnerabilities that scanners report for this project's dependencies and
// that do not affect it (github.com/openvex/spec). The product of each is added by build.
//
//go:embed vulnerabilities.json
var vulnerabilities []byte

// openVEX makes the document about a release whose image has this digest.
func openVEX(statements []byte, version, digest string, created time.Time) ([]byte, error) {
	var known []vex.Statement
	decoder := json.NewDecoder(bytes.NewReader(statements))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&known); err != nil {
		return nil, fmt.Errorf("vulnerabilities.json: %w", err)
	}
	for i := range known {
		known[i].Products = []vex.Product{{Component: vex.Component{ID: product(digest)}}}
		if err := known[i].Validate(); err != nil {
			return nil, fmt.Errorf("vulnerabilities.json: statement %d: %w", i+1, err)
		}
	}
	document := vex.VEX{
		Metadata: vex.Metadata{
			Context: vex.ContextLocator(), ID: sourceURL + "/releases/" + version + "/" + vexFile,
			Author: imageName + " maintainers", Timestamp: &created, Version: 1,
		},
		Statements: append([]vex.Statement{}, known...),
	}
	var text bytes.Buffer
	err := document.ToJSON(&text)
	return text.Bytes(), err
}

// product is the package URL of the image (github.com/package-url/purl-spec, type oci).
func product(digest string) string {
	return "pkg:oci/" + imageName + "@sha256%3A" + digest
}

// modules returns name@version of each module in a program, without the main module.
func modules(info *debug.BuildInfo) []string {
	var all []string
	for _, module := range info.Deps {
		if module.Replace != nil {
			module = module.Replace
		}
		all = append(all, module.Path+"@"+module.Version)
	}
	slices.Sort(all)
	return all
}

// components returns name@version of each Go module in an SBOM, without the standard library.
func components(sbom []byte) ([]string, error) {
	var parsed cyclonedx.BOM
	if err := cyclonedx.NewBOMDecoder(bytes.NewReader(sbom), cyclonedx.BOMFileFormatJSON).Decode(&parsed); err != nil {
		return nil, err
	}
	var all []string
	if parsed.Components == nil {
		return nil, fmt.Errorf("no components")
	}
	for _, component := range *parsed.Components {
		if component.Name != "std" && strings.HasPrefix(component.PackageURL, "pkg:golang/") {
			all = append(all, component.Name+"@"+component.Version)
		}
	}
	slices.Sort(all)
	return all, nil
}

// readBuildInfo reads what Go recorded in a program.
func readBuildInfo(dir, architecture, program string) (*debug.BuildInfo, error) {
	data, err := readFile(filepath.Join(dir, "linux-"+architecture, program))
	if err != nil {
		return nil, err
	}
	return buildinfo.Read(bytes.NewReader(data))
}

// setting returns a setting of a build; empty if it has none.
func setting(info *debug.BuildInfo, key string) string {
	for _, s := range info.Settings {
		if s.Key == key {
			return s.Value
		}
	}
	return ""
}

func digestOf(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
