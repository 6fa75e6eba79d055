// SPDX-License-Identifier: Apache-2.0

package tlsserver

import (
	"crypto/tls"
	"fmt"
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Profile is how TLS is spoken. The zero value is as Go has it, from TLS 1.2 on.
type Profile struct {
	// MinVersion is the lowest version that is spoken; below TLS 1.2 none is,
	// whatever it says.
	MinVersion uint16
	// CipherSuites are those of TLS 1.2; nil: Go's choice. TLS 1.3 has its own.
	CipherSuites []uint16
}

// versions are the names of TLS versions, as Kubernetes and OpenShift have them.
var versions = map[string]uint16{
	"VersionTLS10": tls.VersionTLS10, "VersionTLS11": tls.VersionTLS11, "VersionTLS12": tls.VersionTLS12, "VersionTLS13": tls.VersionTLS13,
}

// ParseVersion reads a TLS version that is spoken here.
func ParseVersion(name string) (uint16, error) {
	version := versions[name]
	if version < tls.VersionTLS12 {
		return 0, fmt.Errorf("%q is neither VersionTLS12 nor VersionTLS13", name)
	}
	return version, nil
}

// suites are the suites of TLS 1.2 that OpenShift's profiles can name and Go
// speaks, by OpenSSL's names (openshift/api config/v1/types_tlssecurityprofile.go).
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

// intermediate are the suites of the profile Intermediate, which is OpenShift's
// where none is chosen. Those with DHE are not Go's.
var intermediate = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

// ProfileOf is the TLS security profile that OpenShift's APIServer `cluster`
// (config.openshift.io/v1, spec.tlsSecurityProfile) asks for; nil, an object that
// is not there, is no wish. It never goes below TLS 1.2, and a profile none of
// whose suites Go speaks leaves the choice to Go: a webhook that nobody can talk
// to would refuse all that it should judge. The error says what of it is not
// followed.
func ProfileOf(apiServer *unstructured.Unstructured) (Profile, error) {
	if apiServer == nil {
		return Profile{}, nil
	}
	wish, found, err := unstructured.NestedMap(apiServer.Object, "spec", "tlsSecurityProfile")
	if err != nil {
		return Profile{}, fmt.Errorf("spec.tlsSecurityProfile: %w", err)
	}
	name, _, _ := unstructured.NestedString(wish, "type") // no string is no profile's name
	switch {
	case !found, name == "", name == "Intermediate":
		return Profile{MinVersion: tls.VersionTLS12, CipherSuites: intermediate}, nil
	case name == "Old":
		return Profile{MinVersion: tls.VersionTLS12}, nil
	case name == "Modern":
		return Profile{MinVersion: tls.VersionTLS13}, nil
	case name != "Custom":
		return Profile{}, fmt.Errorf("spec.tlsSecurityProfile.type %q is not known", name)
	}
	version, _, _ := unstructured.NestedString(wish, "custom", "minTLSVersion") // as above
	if versions[version] == 0 {
		return Profile{}, fmt.Errorf("spec.tlsSecurityProfile.custom.minTLSVersion %q is not known", version)
	}
	profile := Profile{MinVersion: max(versions[version], tls.VersionTLS12)}
	ciphers, _, err := unstructured.NestedStringSlice(wish, "custom", "ciphers")
	if err != nil {
		return profile, fmt.Errorf("spec.tlsSecurityProfile.custom.ciphers: %w", err)
	}
	for _, cipher := range ciphers {
		if id, ok := suites[cipher]; ok {
			profile.CipherSuites = append(profile.CipherSuites, id)
		}
	}
	if len(profile.CipherSuites) == 0 && profile.MinVersion < tls.VersionTLS13 {
		return profile, fmt.Errorf("none of spec.tlsSecurityProfile.custom.ciphers is spoken, of %v", slices.Sorted(maps.Keys(suites)))
	}
	return profile, nil
}
