// SPDX-License-Identifier: Apache-2.0

// Package handshake makes a TLS handshake with a server and records which certificates it sends.
//
// It uses no private key, verifies nothing and sends no data: the handshake is completed without a client certificate.
//
// The peer may be anything, also hostile. Time and bytes of a handshake are bounded, no error quotes what the peer
// sent, and [Refuse] has the addresses that nothing must be made to connect to.
package handshake

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"time"
)

const (
	// Timeout bounds one handshake.
	Timeout = 3 * time.Second
	// maxBytes bounds what is read from the peer in one handshake, in bytes. A server sends some 5 KiB: a few
	// certificates and the names of a few CAs.
	maxBytes = 48 << 10
	// maxCertificates bounds the number of certificates that the peer may send.
	maxCertificates = 10
)

// Control checks an address before a connection to it is made, after name resolution. It returns an error to refuse the
// address; see [net.Dialer] Control, [ControlOf] and [RefusedError].
type Control func(network, address string, connection syscall.RawConn) error

// Dialer connects to servers. The zero value connects to any address.
type Dialer struct {
	Control Control
}

// Answer is the response of a server to a handshake.
type Answer struct {
	// Err says why the handshake failed, in words that are the same at each attempt. NotTLS: the server does not speak
	// TLS.
	Err    error
	NotTLS bool
	// Alert is the TLS alert that ended the handshake. It is nil if the server sent none.
	Alert *tls.AlertError
	// Certificates of the server, its own first, as it sent them. There is at least one if Err is nil.
	Certificates []*x509.Certificate
	// RequestsClientCertificate: it requested a client certificate. AcceptedCAs are the names (DER) of the CAs whose
	// client certificates it accepts.
	RequestsClientCertificate bool
	AcceptedCAs               [][]byte
	// SignatureSchemes are the signature algorithms of client certificates that it can verify (RFC 8446 4.2.3).
	SignatureSchemes []tls.SignatureScheme
}

// Handshake connects to an address, host:port, and records what the server sends. name is the TLS server name. It takes
// at most [Timeout].
//
// A server that refuses the handshake because no client certificate was presented has sent what is needed, so that is
// no error.
func (d Dialer) Handshake(ctx context.Context, address, name string) Answer {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	var answer Answer
	err := d.handshake(ctx, address, name, &answer)
	if err == nil {
		return answer
	}
	answer.Err = err
	interpretAlert(&answer)
	_, answer.NotTLS = errors.AsType[tls.RecordHeaderError](answer.Err)
	if answer.Err != nil {
		answer.Err = StableError(answer.Err, Timeout)
	}
	return answer
}

func (d Dialer) handshake(ctx context.Context, address, name string, answer *Answer) error {
	connection, err := d.Connect(ctx, address)
	if err != nil {
		return err
	}
	defer func() { _ = connection.Close() }()
	client := tls.Client(&limited{Conn: connection, left: maxBytes}, &tls.Config{
		MinVersion: tls.VersionTLS12, // as all of Kubernetes' clients
		ServerName: name,
		// No data is sent, and certificates that are not valid must be recorded, too. Package check verifies them.
		InsecureSkipVerify: true, //nolint:gosec // see above
		GetClientCertificate: func(request *tls.CertificateRequestInfo) (*tls.Certificate, error) {
			answer.RequestsClientCertificate, answer.AcceptedCAs = true, request.AcceptableCAs
			answer.SignatureSchemes = request.SignatureSchemes
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
	_ = client.Close() // ends the connection properly, so that the server logs no error
	return nil
}

// Connect opens a TCP connection, if [Dialer.Control] allows it.
func (d Dialer) Connect(ctx context.Context, address string) (net.Conn, error) {
	dialer := net.Dialer{Control: d.Control, KeepAlive: -1} // it is too short for keep-alive probes
	return dialer.DialContext(ctx, "tcp", address)
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

// IsTimeout reports whether an error of this package is that there was no answer.
func IsTimeout(err error) bool {
	_, ok := errors.AsType[timeoutError](err)
	return ok
}

// interpretAlert handles a handshake that the server itself ended. If it sent its
// certificate and asked for ours before that, the cause is that no certificate was presented, and
// everything that is needed was seen. (In TLS 1.3 the handshake is complete before
// the server sends the alert.)
func interpretAlert(answer *Answer) {
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

// alertOf returns the alert that the server sent. crypto/tls uses an unexported type for
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

// StableError replaces an error by one without what changes from attempt to attempt, such as the local port, without
// the address, which the finding names already, and without anything that the peer sent.
func StableError(err error, timeout time.Duration) error {
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
