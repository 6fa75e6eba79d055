// SPDX-License-Identifier: Apache-2.0

package statusserver

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/kubeclient"
)

const (
	// reviewTime bounds how long a request waits for the API server.
	reviewTime = 5 * time.Second
	// maxReviews bounds the requests that wait for the API server at one time: those of known
	// clients, and those of all others.
	maxReviews = 4
	// knownTime is how long a client is known after its permission has ended. It has no
	// permission then, but unknown clients cannot delay its next review.
	knownTime = time.Hour
	// decisionTime is how long a decision of the API server is used again. Prometheus scrapes
	// every 15 to 60 s.
	decisionTime = time.Minute
	// maxDecisions bounds the decisions that are kept, of about 200 bytes each.
	maxDecisions = 100
	// logEvery limits how often refusals are logged.
	logEvery = time.Minute
	// authenticated is the group of all users whom API servers have authenticated
	// (k8s.io/apiserver pkg/authentication/user).
	authenticated = "system:authenticated"
)

// API asks an API server who a client is and what it may do. [kubeclient.Client] implements it.
type API interface {
	// ReviewToken returns [kubeclient.ErrTokenRefused] for a token that is not valid.
	ReviewToken(ctx context.Context, token string) (kubeclient.User, error)
	MayGet(ctx context.Context, user kubeclient.User, path string) (bool, error)
}

// access decides who may read metrics. As in Kubernetes, a client shows a certificate that is
// signed by the cluster's client CA, or a bearer token, and its user must be permitted to get
// the path. What cannot be decided is refused.
type access struct {
	api   API
	users []string // permitted without asking the API server
	now   func() time.Time
	log   *slog.Logger
	// clientCA has the CAs of client certificates; nil: not known yet.
	clientCA atomic.Pointer[x509.CertPool]
	// reviews has an element for each running review, knownReviews for each of a known client.
	// Each has a few: the others wait here, not for the client's rate limit, which both share.
	reviews, knownReviews chan struct{}

	mu        sync.Mutex
	decisions map[identity]decision
	logged    time.Time // when a refusal was logged
}

func newAccess(api API, users []string, now func() time.Time, log *slog.Logger) *access {
	return &access{
		api: api, users: users, now: now, log: log,
		reviews: make(chan struct{}, maxReviews), knownReviews: make(chan struct{}, maxReviews),
		decisions: map[identity]decision{},
	}
}

// identity is the hash of a client certificate or a token, for which a decision is kept. The token
// itself is not kept.
type identity [sha256.Size]byte

// decision is the answer to a client.
type decision struct {
	code int // 200: permitted
	// reason is what a client that is refused gets. err says more, for the log only.
	reason string
	err    error
	until  time.Time
}

var permitted = decision{code: http.StatusOK}

func refused(code int, format string, arguments ...any) decision {
	return decision{code: code, reason: fmt.Sprintf(format, arguments...)}
}

// unchecked is the answer if the API server gave none.
func unchecked(err error) decision {
	return decision{
		code: http.StatusServiceUnavailable, err: err,
		reason: "the API server did not say whether this client may read metrics; the log has the error",
	}
}

// protect lets only clients that may get [metricsPath] pass.
func (a *access) protect(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		decision := a.decide(r)
		if decision.code == http.StatusOK {
			handler.ServeHTTP(w, r)
			return
		}
		a.logRefusal(r, decision)
		if decision.code == http.StatusUnauthorized {
			w.Header().Set("WWW-Authenticate", "Bearer")
		}
		http.Error(w, decision.reason, decision.code)
	})
}

// logRefusal logs a refusal, unless one was logged a moment ago.
func (a *access) logRefusal(r *http.Request, d decision) {
	a.mu.Lock()
	now := a.now()
	recent := now.Sub(a.logged) < logEvery
	if !recent {
		a.logged = now
	}
	a.mu.Unlock()
	if !recent {
		reason := d.reason
		if d.err != nil {
			reason = d.err.Error()
		}
		a.log.WarnContext(r.Context(), "Request for metrics refused", "client", r.RemoteAddr, "status", d.code,
			"reason", reason)
	}
}

// decide authenticates and authorizes a client. A client certificate comes first, as in API
// servers: one that is not valid is ignored if there is a token.
func (a *access) decide(r *http.Request) decision {
	user, id, certificateErr := a.certificateUser(r)
	token := bearerToken(r)
	switch {
	case certificateErr == nil:
		if slices.Contains(a.users, user.Name) {
			return permitted // does not depend on the API server
		}
	case token != "":
		id = sha256.Sum256([]byte("token " + token))
	case errors.Is(certificateErr, errNoCertificate):
		return refused(http.StatusUnauthorized,
			"metrics are served only to clients with a client certificate of the cluster or a bearer token")
	case errors.Is(certificateErr, errNoClientCA):
		return refused(http.StatusServiceUnavailable, "%s", certificateErr)
	default:
		return refused(http.StatusUnauthorized, "%s", certificateErr)
	}
	kept, isCurrent := a.kept(id)
	if isCurrent {
		return kept
	}
	reviews := a.reviews
	if kept.isKnown(a.now()) {
		reviews = a.knownReviews
	}
	ctx, cancel := context.WithTimeout(r.Context(), reviewTime)
	defer cancel()
	select {
	case reviews <- struct{}{}:
		defer func() { <-reviews }()
	case <-ctx.Done():
		return refused(http.StatusServiceUnavailable, "too many requests wait for the API server")
	}
	if certificateErr != nil {
		var err error
		user, err = a.api.ReviewToken(ctx, token)
		switch {
		case errors.Is(err, kubeclient.ErrTokenRefused):
			return a.keep(id, refused(http.StatusUnauthorized, "%s", err))
		case err != nil:
			return unchecked(err)
		}
	}
	return a.authorize(ctx, id, user)
}

func (a *access) authorize(ctx context.Context, id identity, user kubeclient.User) decision {
	if slices.Contains(a.users, user.Name) {
		return a.keep(id, permitted)
	}
	if !slices.Contains(user.Groups, authenticated) {
		user.Groups = append(slices.Clone(user.Groups), authenticated)
	}
	allowed, err := a.api.MayGet(ctx, user, metricsPath)
	switch {
	case err != nil:
		return unchecked(err)
	case !allowed:
		return a.keep(id, refused(http.StatusForbidden, "user %q cannot get path %q. Fix: grant get on the nonResourceURL %s",
			user.Name, metricsPath, metricsPath))
	}
	return a.keep(id, permitted)
}

var (
	errNoCertificate = errors.New("no client certificate was presented")
	errNoClientCA    = errors.New("client certificates are not accepted: the client CA of the cluster is not known yet")
)

// certificateUser returns the user of the client certificate, and its identity.
// It is verified with each request: it may have expired, and the CAs may have changed.
func (a *access) certificateUser(r *http.Request) (kubeclient.User, identity, error) {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return kubeclient.User{}, identity{}, errNoCertificate
	}
	roots := a.clientCA.Load()
	if roots == nil {
		return kubeclient.User{}, identity{}, errNoClientCA
	}
	leaf := r.TLS.PeerCertificates[0]
	intermediates := x509.NewCertPool()
	for _, other := range r.TLS.PeerCertificates[1:] {
		intermediates.AddCert(other)
	}
	if _, err := leaf.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: intermediates, CurrentTime: a.now(),
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}); err != nil {
		return kubeclient.User{}, identity{}, fmt.Errorf("the client certificate is not accepted: %w", err)
	}
	if leaf.Subject.CommonName == "" {
		return kubeclient.User{}, identity{}, errors.New("the client certificate names no user: its common name is empty")
	}
	return kubeclient.User{Name: leaf.Subject.CommonName, Groups: leaf.Subject.Organization},
		sha256.Sum256(append([]byte("certificate "), leaf.Raw...)), nil
}

// bearerToken returns the token of a request, or an empty string.
func bearerToken(r *http.Request) string {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

// kept returns the last decision, and whether it is still used.
func (a *access) kept(id identity) (last decision, isCurrent bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	last = a.decisions[id]
	return last, a.now().Before(last.until)
}

// keep returns the decision, and keeps it: it is used again for [decisionTime]. If too many are
// kept, another one makes room: refusals first, so that unknown clients cannot displace Prometheus.
func (a *access) keep(id identity, d decision) decision {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.now()
	d.until = now.Add(decisionTime)
	if _, ok := a.decisions[id]; !ok && len(a.decisions) >= maxDecisions {
		var first identity
		var displaced decision
		for other, kept := range a.decisions {
			if displaced.until.IsZero() || kept.before(displaced, now) {
				first, displaced = other, kept
			}
		}
		delete(a.decisions, first)
	}
	a.decisions[id] = d
	return d
}

// isKnown reports whether the client was permitted a short time ago.
func (d decision) isKnown(now time.Time) bool {
	return d.code == http.StatusOK && now.Before(d.until.Add(knownTime))
}

// before reports whether a decision makes room before another one.
func (d decision) before(other decision, now time.Time) bool {
	if d.isKnown(now) != other.isKnown(now) {
		return other.isKnown(now)
	}
	return d.until.Before(other.until)
}
