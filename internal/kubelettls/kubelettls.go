// SPDX-License-Identifier: Apache-2.0

// Package kubelettls makes the TLS handshake with a kubelet as a kube-apiserver does, and records the kubelet's
// certificate and the client CAs that it accepts.
//
// It uses no private key: the kubelet names the CAs that it accepts in its request for a client certificate, and the
// handshake is completed without a certificate. It sends no request. Package check decides what the answer means.
//
// The peer may be anything, also hostile. Time and bytes of a handshake are bounded, and no error quotes what the peer
// sent.
package kubelettls

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/kubelet-https-guard/kubelet-https-guard/pkg/check"
)

const (
	// Port is the default port of the kubelet (Kubernetes pkg/cluster/ports/ports.go).
	Port = 10250
	// ReadOnlyPort is the default port of its read-only server (same file).
	ReadOnlyPort = 10255

	// Timeout bounds one handshake, ReadOnlyTimeout one connection to the read-only port.
	Timeout, ReadOnlyTimeout = 3 * time.Second, time.Second
	// maxBytes bounds what is read from the peer in one handshake, in bytes. A kubelet sends some 5 KiB: a few
	// certificates and the names of a few CAs.
	maxBytes = 48 << 10
	// maxCertificates bounds the number of certificates that the peer may send.
	maxCertificates = 10
)

// Control checks an address before a connection to it is made, after name resolution. It returns an error to refuse the
// address; see [net.Dialer] Control.
type Control func(network, address string, connection syscall.RawConn) error

// Dialer connects to kubelets. The zero value connects to any address.
type Dialer struct {
	Control Control
}

// Target is the kubelet to connect to.
type Target struct {
	// Address of the TLS server, and of the read-only server: host:port.
	Address, ReadOnly string
	// Host is the address or name without the port, for the TLS server name.
	Host string
}

// At returns the target for a host, an IP address or a DNS name, and a port.
func At(host string, port int) Target {
	return Target{
		Address: net.JoinHostPort(host, strconv.Itoa(port)), ReadOnly: net.JoinHostPort(host, strconv.Itoa(ReadOnlyPort)),
		Host: host,
	}
}

// Handshake connects to the kubelet and records in the answer what it sends: Err, NotTLS, Alert, Certificates,
// RequestsClientCertificate and AcceptedCAs. It takes at most [Timeout].
func (d Dialer) Handshake(ctx context.Context, to Target, answer *check.KubeletAnswer) {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	err := d.handshake(ctx, to, answer)
	if err == nil {
		return
	}
	answer.Err = err
	interpretAlert(answer)
	_, answer.NotTLS = errors.AsType[tls.RecordHeaderError](answer.Err)
	if answer.Err != nil {
		answer.Err = stableError(answer.Err, Timeout)
	}
}

func (d Dialer) handshake(ctx context.Context, to Target, answer *check.KubeletAnswer) error {
	connection, err := d.connect(ctx, to.Address)
	if err != nil {
		return err
	}
	defer func() { _ = connection.Close() }()
	client := tls.Client(&limited{Conn: connection, left: maxBytes}, &tls.Config{
		MinVersion: tls.VersionTLS12, // as all of Kubernetes' clients
		ServerName: to.Host,
		// No data is sent, and certificates that are not valid must be recorded, too. Package check verifies them.
		InsecureSkipVerify: true, //nolint:gosec // see above
		GetClientCertificate: func(request *tls.CertificateRequestInfo) (*tls.Certificate, error) {
			answer.RequestsClientCertificate, answer.AcceptedCAs = true, request.AcceptableCAs
			return &tls.Certificate{}, nil // no certificate
		},
		VerifyConnection: func(state tls.ConnectionState) error {
			if n := len(state.PeerCertificates); n > maxCertificates {
				return tooManyCertificatesError(n)
			}
			answer.Certificates = state.PeerCertificates // also if the handshake fails later
			return nil
		},
	})
	if err := client.HandshakeContext(ctx); err != nil {
		return err
	}
	_ = client.Close() // ends the connection properly, so that the kubelet logs no error
	return nil
}

// connect opens a TCP connection.
func (d Dialer) connect(ctx context.Context, address string) (net.Conn, error) {
	dialer := net.Dialer{Control: d.Control, KeepAlive: -1} // it is too short for keep-alive probes
	return dialer.DialContext(ctx, "tcp", address)
}

// ReadOnlyOpen reports whether the read-only port is open. It returns an error if this is not known: only a refused
// connection shows that the port is closed. It takes at most [ReadOnlyTimeout].
func (d Dialer) ReadOnlyOpen(ctx context.Context, to Target) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, ReadOnlyTimeout)
	defer cancel()
	connection, err := d.connect(ctx, to.ReadOnly)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return false, nil
	case err != nil:
		return false, stableError(err, ReadOnlyTimeout)
	}
	_ = connection.Close()
	return true, nil
}

// limited is a connection of which only a number of bytes are read.
type limited struct {
	net.Conn
	left int
}

// errTooLong: the peer sent more than [maxBytes].
var errTooLong = fmt.Errorf("the server sent more than %d KiB before the handshake was complete", maxBytes>>10)

// Read implements [net.Conn].
func (l *limited) Read(b []byte) (int, error) {
	if l.left <= 0 {
		return 0, errTooLong
	}
	n, err := l.Conn.Read(b[:min(len(b), l.left)])
	l.left -= n
	return n, err
}

// tooManyCertificatesError: the peer sent this number of certificates.
type tooManyCertificatesError int

func (n tooManyCertificatesError) Error() string {
	return fmt.Sprintf("the server sent %d certificates, more than %d", int(n), maxCertificates)
}

// timeoutError: there was no answer within this time.
type timeoutError time.Duration

func (e timeoutError) Error() string { return fmt.Sprintf("no answer within %s", time.Duration(e)) }

// IsFiltered reports whether an error of [Dialer.ReadOnlyOpen] is what a firewall causes: no answer, or one that says
// that there is no way to the host. A host that is down or far away causes the same errors.
func IsFiltered(err error) bool {
	_, timeout := errors.AsType[timeoutError](err)
	return timeout || errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.ENETUNREACH)
}

// interpretAlert handles a handshake that the kubelet itself ended. If it sent its
// certificate and asked for ours before that, the cause is that no certificate was presented, and
// everything that is needed was seen. (In TLS 1.3 the handshake is complete before
// the kubelet sends the alert.)
func interpretAlert(answer *check.KubeletAnswer) {
	alert, ok := alertOf(answer.Err)
	switch {
	case !ok:
		answer.Certificates = nil
	case len(answer.Certificates) > 0 && answer.RequestsClientCertificate:
		answer.Err = nil
	default:
		answer.Alert = &alert
	}
}

// alertOf returns the alert that the kubelet sent. crypto/tls uses an unexported type for
// it, which only its text identifies.
func alertOf(err error) (alert tls.AlertError, ok bool) {
	operation, ok := errors.AsType[*net.OpError](err)
	if !ok || operation.Op != remoteError {
		return 0, false
	}
	for code := range 1 << 8 {
		if alert := tls.AlertError(code); alert.Error() == operation.Err.Error() {
			return alert, true
		}
	}
	return 0, false
}

// remoteError is the Op of the error for an alert (crypto/tls conn.go).
const remoteError = "remote error"

// Errors in words that are the same at each attempt, and that quote nothing of the peer.
var (
	errUnparsable = errors.New("the server's certificate cannot be parsed")
	errProtocol   = errors.New("the server does not follow the TLS protocol")
	errNoSuchName = errors.New("the host name does not exist")
	errNoDNS      = errors.New("the host name cannot be resolved")
)

// stableError replaces an error by one without what changes from attempt to attempt, such as the local port, without
// the address, which the finding names already, and without anything that the peer sent.
func stableError(err error, timeout time.Duration) error {
	var refused *RefusedError
	var tooMany tooManyCertificatesError
	var name *net.DNSError
	operation, isOperation := errors.AsType[*net.OpError](err)
	switch {
	case errors.As(err, &refused):
		return refused
	case errors.Is(err, errTooLong):
		return errTooLong
	case errors.As(err, &tooMany):
		return tooMany
	case errors.As(err, &name) && name.IsNotFound:
		return errNoSuchName
	case errors.As(err, &name):
		return errNoDNS
	case errors.Is(err, context.DeadlineExceeded):
		return timeoutError(timeout)
	case isOperation && operation.Op == remoteError: // an alert, whose names are those of the standard
		return err
	case isOperation:
		return operation.Err
	}
	return ofProtocol(err)
}

// ofProtocol replaces an error of crypto/tls that may have something that the peer sent, such as a number or a name in
// quotes, by a fixed one.
func ofProtocol(err error) error {
	text := err.Error()
	switch {
	case strings.Contains(text, "failed to parse certificate"):
		return errUnparsable
	case strings.ContainsAny(text, `0123456789"'`+"`") || len(text) > maxErrorText:
		return errProtocol
	}
	return err
}

// maxErrorText bounds an error of the TLS stack that is passed on, in bytes.
const maxErrorText = 100

// RefusedError is the error of a [Control] that refuses an address.
type RefusedError struct {
	// Why says what is wrong with the address.
	Why string
}

// Error returns why the address is refused.
func (e *RefusedError) Error() string { return e.Why }
