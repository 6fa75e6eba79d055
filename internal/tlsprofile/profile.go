// SPDX-License-Identifier: Apache-2.0

// Package tlsprofile has the TLS settings of servers, which on OpenShift are those of the cluster.
package tlsprofile

import (
	"crypto/fips140"
	"crypto/tls"
	"fmt"
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Profile has the TLS settings. The zero value means Go's defaults, from TLS 1.2 on.
type Profile struct {
	// MinVersion is the lowest version that is accepted; a value below TLS 1.2 means TLS 1.2.
	MinVersion uint16
	// CipherSuites are the cipher suites of TLS 1.2; nil: Go's defaults. It does not affect TLS 1.3.
	CipherSuites []uint16
	// Groups are the groups for the key exchange; nil: Go's defaults. Their order has no effect: Go has its own.
	Groups []tls.CurveID
}

// Config returns the settings as a configuration of a server, which lacks a certificate.
func (p Profile) Config() *tls.Config {
	return &tls.Config{
		MinVersion: max(p.MinVersion, tls.VersionTLS12), CipherSuites: p.CipherSuites, CurvePreferences: p.Groups,
	}
}

// versions are the names of TLS versions in Kubernetes and OpenShift.
var versions = map[string]uint16{
	"VersionTLS10": tls.VersionTLS10, "VersionTLS11": tls.VersionTLS11, "VersionTLS12": tls.VersionTLS12,
	"VersionTLS13": tls.VersionTLS13,
}

// ParseVersion parses the name of a TLS version that the server supports.
func ParseVersion(name string) (uint16, error) {
	version := versions[name]
	if version < tls.VersionTLS12 {
		return 0, fmt.Errorf("%q is neither VersionTLS12 nor VersionTLS13", name)
	}
	return version, nil
}

// suites are the cipher suites of TLS 1.2 that OpenShift's profiles can name and Go
// supports, by OpenSSL's names (openshift/api config/v1/types_tlssecurityprofile.go).
var suites = map[string]uint16{
	"ECDHE-ECDSA-AES128-GCM-SHA256": tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
	"ECDHE-RSA-AES128-GCM-SHA256":   tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	"ECDHE-ECDSA-AES256-GCM-SHA384": tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
	"ECDHE-RSA-AES256-GCM-SHA384":   tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	"ECDHE-ECDSA-CHACHA20-POLY1305": tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
	"ECDHE-RSA-CHACHA20-POLY1305":   tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
	"ECDHE-ECDSA-AES128-SHA":        tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA,
	"ECDHE-RSA-AES128-SHA":          tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA,
	"ECDHE-ECDSA-AES256-SHA":        tls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA,
	"ECDHE-RSA-AES256-SHA":          tls.TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA,
}

// intermediate are the cipher suites of the profile Intermediate, which is OpenShift's
// default. Go does not support those with DHE.
var intermediate = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

// groups are the groups that OpenShift's profiles can name (openshift/api config/v1, TLSGroup).
var groups = map[string]tls.CurveID{
	"X25519": tls.X25519, "secp256r1": tls.CurveP256, "secp384r1": tls.CurveP384, "secp521r1": tls.CurveP521,
	"X25519MLKEM768": tls.X25519MLKEM768,
}

// Of returns the TLS security profile that OpenShift's APIServer `cluster`
// (config.openshift.io/v1, spec.tlsSecurityProfile) configures; the zero Profile if the
// object does not exist (nil). It never goes below TLS 1.2. If Go supports no cipher suite
// of the profile, or no group, Go's defaults apply: if no client could connect, every request
// that the webhook must decide on would be refused. The error says which setting is not applied.
//
// spec.tlsAdherence is not read: it says which components must follow the profile, and the
// servers of this project always do.
func Of(apiServer *unstructured.Unstructured) (Profile, error) {
	if apiServer == nil {
		return Profile{}, nil
	}
	wanted, found, err := unstructured.NestedMap(apiServer.Object, "spec", "tlsSecurityProfile")
	if err != nil {
		return Profile{}, fmt.Errorf("spec.tlsSecurityProfile: %w", err)
	}
	name, _, _ := unstructured.NestedString(wanted, "type") // a value of another type counts as absent
	switch {
	case !found, name == "", name == "Intermediate":
		return Profile{MinVersion: tls.VersionTLS12, CipherSuites: intermediate}, nil
	case name == "Old":
		return Profile{MinVersion: tls.VersionTLS12}, nil
	case name == "Modern":
		return Profile{MinVersion: tls.VersionTLS13}, nil
	case name != "Custom":
		return Profile{}, fmt.Errorf("spec.tlsSecurityProfile.type %q is unknown", name)
	}
	version, _, _ := unstructured.NestedString(wanted, "custom", "minTLSVersion") // as above
	if versions[version] == 0 {
		return Profile{}, fmt.Errorf("spec.tlsSecurityProfile.custom.minTLSVersion %q is unknown", version)
	}
	profile := Profile{MinVersion: max(versions[version], tls.VersionTLS12)}
	var ciphersErr, groupsErr error
	profile.CipherSuites, ciphersErr = suitesOf(wanted, profile.MinVersion)
	profile.Groups, groupsErr = groupsOf(wanted)
	switch {
	case ciphersErr == nil:
		return profile, groupsErr
	case groupsErr == nil:
		return profile, ciphersErr
	}
	return profile, fmt.Errorf("%w; %w", ciphersErr, groupsErr)
}

// suitesOf returns the cipher suites of a custom profile that Go supports, nil if Go supports none,
// which is an error unless TLS 1.3 is the minimum.
func suitesOf(profile map[string]any, minVersion uint16) ([]uint16, error) {
	ciphers, _, err := unstructured.NestedStringSlice(profile, "custom", "ciphers")
	if err != nil {
		return nil, fmt.Errorf("spec.tlsSecurityProfile.custom.ciphers: %w", err)
	}
	var known []uint16
	for _, cipher := range ciphers {
		if id, ok := suites[cipher]; ok {
			known = append(known, id)
		}
	}
	if len(known) == 0 && minVersion < tls.VersionTLS13 {
		supported := slices.Sorted(maps.Keys(suites))
		return nil, fmt.Errorf("spec.tlsSecurityProfile.custom.ciphers %v: none is supported; supported are %v", ciphers,
			supported)
	}
	return known, nil
}

// groupsOf returns the groups of a custom profile that Go supports, nil if Go supports none. The
// error names the others.
func groupsOf(profile map[string]any) ([]tls.CurveID, error) {
	names, _, err := unstructured.NestedStringSlice(profile, "custom", "groups")
	if err != nil {
		return nil, fmt.Errorf("spec.tlsSecurityProfile.custom.groups: %w", err)
	}
	var known []tls.CurveID
	var unsupported []string
	for _, name := range names {
		id, ok := groups[name]
		// Go's FIPS 140-3 mode refuses X25519, so a server with no other group could not serve.
		if ok && (id != tls.X25519 || !fips140.Enabled()) {
			known = append(known, id)
		} else {
			unsupported = append(unsupported, name)
		}
	}
	switch {
	case len(unsupported) == 0:
		return known, nil
	case len(known) == 0:
		return nil, fmt.Errorf("spec.tlsSecurityProfile.custom.groups %v: none is supported; the default is used",
			unsupported)
	}
	return known, fmt.Errorf("spec.tlsSecurityProfile.custom.groups: %v are not supported and not used", unsupported)
}
