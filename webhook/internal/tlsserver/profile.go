// SPDX-License-Identifier: Apache-2.0

package tlsserver

import (
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

// ProfileOf returns the TLS security profile that OpenShift's APIServer `cluster`
// (config.openshift.io/v1, spec.tlsSecurityProfile) configures; the zero Profile if the
// object does not exist (nil). It never goes below TLS 1.2. If Go supports no cipher suite
// of the profile, Go's defaults apply: if no client could connect, every request that the
// webhook must decide on would be refused. The error says which setting is not applied.
func ProfileOf(apiServer *unstructured.Unstructured) (Profile, error) {
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
	ciphers, _, err := unstructured.NestedStringSlice(wanted, "custom", "ciphers")
	if err != nil {
		return profile, fmt.Errorf("spec.tlsSecurityProfile.custom.ciphers: %w", err)
	}
	for _, cipher := range ciphers {
		if id, ok := suites[cipher]; ok {
			profile.CipherSuites = append(profile.CipherSuites, id)
		}
	}
	if len(profile.CipherSuites) == 0 && profile.MinVersion < tls.VersionTLS13 {
		supported := slices.Sorted(maps.Keys(suites))
		return profile, fmt.Errorf("spec.tlsSecurityProfile.custom.ciphers %v: none is supported; supported are %v", ciphers,
			supported)
	}
	return profile, nil
}
