// SPDX-License-Identifier: Apache-2.0

package check

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"strings"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/finding"
)

// Served has the certificates that the endpoints of a Secret's Service serve, and what they are compared with.
type Served struct {
	// Secret is the Secret that the endpoints mount. If no Service is configured for it, there is nothing to check.
	Secret SecretExpectation
	// Stored is the certificate in the Secret.
	Stored *x509.Certificate
	// NotConfigured: nothing is configured to connect to endpoints.
	NotConfigured bool
	// WhyUnknown says why the endpoints cannot be asked. Answers is not set then.
	WhyUnknown *finding.Result
	// Answers are those since Stored was seen first. It is nil if the endpoints have not been asked since then.
	Answers *ServedAnswers
	// Grace is how long after Stored was issued an endpoint may serve another certificate. It is for callers that do not
	// wait until a result has lasted. Zero: no time.
	Grace time.Duration
}

// ServedAnswers are the answers of the endpoints of a Service. The zero value is a Service without endpoints.
type ServedAnswers struct {
	// WhyUnknown says why the endpoints are not known. It is nil if they are.
	WhyUnknown *finding.Result
	// Endpoints have an answer for each endpoint that counts, in a stable order.
	Endpoints []EndpointAnswer
	// Omitted is how many more endpoints there are, which were not asked.
	Omitted int
}

// EndpointAnswer is the answer of one endpoint to a TLS handshake.
type EndpointAnswer struct {
	// Name is its address and, if known, its Pod.
	Name string
	// Leaf is the certificate that it serves. If it is nil, Why says why it is not known.
	Leaf *x509.Certificate
	Why  string
}

// Serves reports whether the endpoint serves a certificate. The certificate's key belongs to it: a handshake without it
// fails.
func (a EndpointAnswer) Serves(certificate *x509.Certificate) bool {
	return a.Leaf != nil && certificate != nil && bytes.Equal(a.Leaf.Raw, certificate.Raw)
}

// Check answers the requirement about what is served, as part of the Secret's family. secret are the results about the
// same Secret, from [CheckSecret]: what is served is compared with a valid pair only. It returns nothing for Secret
// kubelet-client, which has a client certificate.
func (s Served) Check(secret []finding.Result, now time.Time) (results []finding.Result, nextChange time.Time) {
	family := s.Secret.Family()
	return runChecks(family, servedChecks(family), s, now, secret...), s.nextChange(now)
}

// ServerName is the TLS server name for the endpoints: the first name that the certificate must be valid for, or the
// Service's.
func (w SecretExpectation) ServerName() string {
	if len(w.DNSNames) > 0 {
		return w.DNSNames[0]
	}
	return w.Service + "." + w.Namespace + ".svc"
}

func (s Served) at() finding.Subject { return s.Secret.at("") }

func servedChecks(family finding.Family) []check[Served] {
	if family == finding.KubeletClient {
		return nil
	}
	return []check[Served]{{
		finding.Served, []finding.Aspect{finding.Exists, finding.Certificate, finding.Key, finding.Pair, finding.Validity},
		[]finding.Reason{
			finding.ServedCertificateInvalid, finding.ServedCertificateStale, finding.ServedCertificateUnknown,
			finding.NotChecked, finding.NotObserved,
		},
		Served.at, servedCertificates,
	}}
}

// nextChange returns the next time after now at which the results may change although nothing else does.
func (s Served) nextChange(now time.Time) (next time.Time) {
	if s.Answers == nil {
		return time.Time{}
	}
	for _, e := range s.Answers.Endpoints {
		if e.Leaf == nil {
			continue
		}
		for _, moment := range []time.Time{e.Leaf.NotBefore, e.Leaf.NotAfter.Add(time.Nanosecond)} {
			if moment.After(now) {
				next = earliest(next, moment)
			}
		}
	}
	return next
}

// servedCertificates: each endpoint serves the stored certificate. A server that does not load the renewed one serves
// the old one until it expires; then clients refuse it, although the Secret is valid. openshift-apiserver polls its
// files each minute (k8s.io/apiserver pkg/server/dynamiccertificates/dynamic_serving_content.go), and the kubelet
// updates a mounted Secret within about two minutes (Kubernetes, "Mounted Secrets are updated automatically").
//
// Another certificate is a warning, whatever it is: Secret and answer are from different moments, and clients may trust
// it. One that clients refuse is a failure: it follows from the answer of one endpoint and the time alone.
func servedCertificates(s Served, now time.Time) []finding.Result {
	switch {
	case s.Secret.Service == "":
		return s.Secret.notConfigured(finding.ServingCert, s.at(),
			"no Service is configured for the Secret (service), so it is not known what serves its certificate")
	case s.NotConfigured:
		return single(finding.NotChecked, s.at(),
			"the certificate that Service "+s.Secret.Service+" serves was not checked, because --served-certificates is not set",
			"set webhook.servedCertificates.enabled=true (--served-certificates)")
	case s.WhyUnknown != nil:
		return []finding.Result{Unknown(*s.WhyUnknown)}
	case s.Answers == nil || s.Stored == nil:
		return single(finding.NotObserved, s.at(),
			"the endpoints of Service "+s.Secret.Service+" have not been asked for their certificate since it was stored",
			"wait a minute; if this persists, read the audit's log")
	case s.Answers.WhyUnknown != nil:
		return []finding.Result{Unknown(*s.Answers.WhyUnknown)}
	case len(s.Answers.Endpoints) == 0:
		return s.unknown("Service "+s.Secret.Service+" has no endpoint, so nothing serves the stored certificate",
			"check that Pods match the selector of the Service, and that they are ready")
	}
	return s.judge(now)
}

// judge compares the answers with the stored certificate.
func (s Served) judge(now time.Time) []finding.Result {
	var invalid, stale, silent, listed []string
	var expires time.Time // when the first stale one does
	for _, e := range s.Answers.Endpoints {
		why := ""
		if e.Leaf != nil {
			why = s.whyRefused(e.Leaf, now)
		}
		switch {
		case e.Leaf == nil:
			silent = append(silent, e.Name+" ("+e.Why+")")
		case e.Serves(s.Stored):
		case why != "":
			invalid = append(invalid, e.Name+" ("+why+")")
		default:
			stale, expires = append(stale, e.Name), earliest(expires, e.Leaf.NotAfter)
		}
		listed = append(listed, e.Name)
	}
	of := fmt.Sprintf(" of %s of Service %s ", counted(len(listed)+s.Answers.Omitted), s.Secret.Service)
	restart := "restart the Pods of the endpoint (oc delete pod); if it still serves another certificate, check that " +
		"its Pod mounts Secret " + s.Secret.Name
	var results []finding.Result
	if len(invalid) > 0 {
		results = append(results, single(finding.ServedCertificateInvalid, s.at(),
			fmt.Sprint(len(invalid), of, verb(invalid, "serves", "serve"),
				" a certificate that clients refuse, not the stored one: ", listedNames(invalid)), restart)...)
	}
	switch issued := s.Stored.NotBefore; {
	case len(stale) == 0:
	case now.Before(issued.Add(s.Grace)):
		results = append(results, single(finding.NotObserved, s.at(),
			fmt.Sprint(len(stale), of, verb(stale, "does", "do"), " not serve the stored certificate yet, which was issued at ",
				timestamp(issued), ": ", listedNames(stale)),
			fmt.Sprintf("run the check again %s after that time", s.Grace))...)
	default:
		results = append(results, single(finding.ServedCertificateStale, s.at(),
			fmt.Sprint(len(stale), of, verb(stale, "serves", "serve"), " another certificate than the stored one: ",
				listedNames(stale), "; clients refuse it from ", timestamp(expires), " at the latest"), restart)...)
	}
	if s.Answers.Omitted > 0 {
		silent = append(silent, fmt.Sprintf("%d more, which are too many to ask", s.Answers.Omitted))
	}
	if len(silent) > 0 {
		n := len(silent)
		if s.Answers.Omitted > 0 {
			n += s.Answers.Omitted - 1
		}
		results = append(results, s.unknown(
			fmt.Sprint("the certificate of ", n, of, "is not known: ", listedNames(silent)),
			"check that they are ready, and that the audit's Pods can reach them (NetworkPolicies, firewalls)")...)
	}
	return results
}

func (s Served) unknown(message, remedy string) []finding.Result {
	return single(finding.ServedCertificateUnknown, s.at(), message, remedy)
}

// whyRefused says why clients refuse a served certificate, whatever CAs they trust. It is empty if they may not.
func (s Served) whyRefused(leaf *x509.Certificate, now time.Time) string {
	switch {
	case now.After(leaf.NotAfter):
		return "it expired at " + timestamp(leaf.NotAfter)
	case now.Before(leaf.NotBefore):
		return "it is not valid before " + timestamp(leaf.NotBefore)
	}
	for _, name := range s.Secret.DNSNames {
		if leaf.VerifyHostname(name) != nil {
			return "it is not valid for " + name
		}
	}
	return ""
}

// maxListedEndpoints bounds how many endpoints a message names.
const maxListedEndpoints = 5

// listedNames lists names, with a limit.
func listedNames(names []string) string {
	if more := len(names) - maxListedEndpoints; more > 0 {
		return strings.Join(names[:maxListedEndpoints], ", ") + fmt.Sprintf(" and %d more", more)
	}
	return strings.Join(names, ", ")
}

func counted(endpoints int) string {
	if endpoints == 1 {
		return "1 endpoint"
	}
	return fmt.Sprintf("%d endpoints", endpoints)
}

func verb(subjects []string, singular, plural string) string {
	if len(subjects) == 1 {
		return singular
	}
	return plural
}
