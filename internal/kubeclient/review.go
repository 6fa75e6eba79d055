// SPDX-License-Identifier: Apache-2.0

package kubeclient

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/plainyaml"
)

// User is who sent a request, as the API server knows users. The JSON is that of a TokenReview
// (authentication.k8s.io/v1, UserInfo).
type User struct {
	Name   string              `json:"username"`
	UID    string              `json:"uid,omitempty"`
	Groups []string            `json:"groups,omitempty"`
	Extra  map[string][]string `json:"extra,omitempty"`
}

// ErrTokenRefused is returned for a token that is not valid.
var ErrTokenRefused = errors.New("the API server does not accept the token")

// errNoReview is the error if a proxy before the API server responds with 200 and any body.
var errNoReview = errors.New("the answer is not the review that was requested")

// maxAnswer bounds what is read of an answer, in bytes: a ConfigMap has at most 1 MiB, and JSON
// doubles its line ends.
const maxAnswer = 3 << 20

// ReviewToken returns the user of a bearer token, for which it creates a TokenReview, or
// [ErrTokenRefused]. Errors contain neither the token nor text of the answer. It takes at most 10 s.
func (c *Client) ReviewToken(ctx context.Context, token string) (User, error) {
	type review struct {
		Kind       string `json:"kind"`
		APIVersion string `json:"apiVersion"`
		Spec       struct {
			Token string `json:"token"`
		} `json:"spec"`
		Status struct {
			Authenticated bool `json:"authenticated"`
			User          User `json:"user"`
		} `json:"status"`
	}
	asked := review{Kind: "TokenReview", APIVersion: "authentication.k8s.io/v1"}
	asked.Spec.Token = token
	var answer review
	if err := c.create(ctx, "/apis/authentication.k8s.io/v1/tokenreviews", asked, &answer); err != nil {
		return User{}, fmt.Errorf("create TokenReview: %w", err)
	}
	switch {
	case answer.Kind != asked.Kind:
		return User{}, fmt.Errorf("create TokenReview: %w", errNoReview)
	case !answer.Status.Authenticated || answer.Status.User.Name == "":
		return User{}, ErrTokenRefused
	}
	return answer.Status.User, nil
}

// MayGet returns whether a user may get a path that is no resource, such as /metrics. It creates a
// SubjectAccessReview, and takes at most 10 s. Errors contain no text of the answer.
func (c *Client) MayGet(ctx context.Context, user User, path string) (bool, error) {
	type attributes struct {
		Path string `json:"path"`
		Verb string `json:"verb"`
	}
	type review struct {
		Kind       string `json:"kind"`
		APIVersion string `json:"apiVersion"`
		Spec       struct {
			Attributes attributes          `json:"nonResourceAttributes"`
			User       string              `json:"user"`
			UID        string              `json:"uid,omitempty"`
			Groups     []string            `json:"groups,omitempty"`
			Extra      map[string][]string `json:"extra,omitempty"`
		} `json:"spec"`
		Status struct {
			Allowed bool `json:"allowed"`
		} `json:"status"`
	}
	asked := review{Kind: "SubjectAccessReview", APIVersion: "authorization.k8s.io/v1"}
	asked.Spec.Attributes = attributes{Path: path, Verb: "get"}
	asked.Spec.User, asked.Spec.UID, asked.Spec.Groups, asked.Spec.Extra = user.Name, user.UID, user.Groups, user.Extra
	var answer review
	if err := c.create(ctx, "/apis/authorization.k8s.io/v1/subjectaccessreviews", asked, &answer); err != nil {
		return false, fmt.Errorf("create SubjectAccessReview: %w", err)
	}
	if answer.Kind != asked.Kind {
		return false, fmt.Errorf("create SubjectAccessReview: %w", errNoReview)
	}
	return answer.Status.Allowed, nil
}

// ClientCA returns the CAs (PEM) with which API servers verify client certificates: ConfigMap
// kube-system/extension-apiserver-authentication, which each API server writes (k8s.io/kubernetes
// pkg/controlplane/controller/clusterauthenticationtrust). It takes at most 10 s.
func (c *Client) ClientCA(ctx context.Context) ([]byte, error) {
	const path = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication"
	const key = "client-ca-file"
	var object struct {
		Data map[string]string `json:"data"`
	}
	if err := c.get(ctx, path, &object); err != nil {
		return nil, fmt.Errorf("read ConfigMap kube-system/extension-apiserver-authentication: %w", err)
	}
	if object.Data[key] == "" {
		return nil, fmt.Errorf("ConfigMap kube-system/extension-apiserver-authentication has no key %s", key)
	}
	return []byte(object.Data[key]), nil
}

// APIServerConfig returns OpenShift's APIServer cluster (config.openshift.io/v1), or nil if the
// cluster has none. It takes at most 10 s.
func (c *Client) APIServerConfig(ctx context.Context) (*unstructured.Unstructured, error) {
	object := &unstructured.Unstructured{}
	err := c.get(ctx, "/apis/config.openshift.io/v1/apiservers/cluster", &object.Object)
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil //nolint:nilnil // see above
	case err != nil:
		return nil, fmt.Errorf("read APIServer cluster: %w", err)
	}
	return object, nil
}

func (c *Client) create(ctx context.Context, path string, object, answer any) error {
	body, err := json.Marshal(object)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	stream, err := c.rest.Post().AbsPath(path).SetHeader("Content-Type", runtime.ContentTypeJSON).Body(body).
		WarningHandler(rest.NoWarnings{}). // they are text of the answer
		Stream(ctx)
	if err != nil {
		return withoutAnswer(err)
	}
	return decode(stream, answer)
}

// errNoAnswer stands for errors that may quote an answer.
var errNoAnswer = errors.New("the request was not sent, or the answer is not valid HTTP")

// withoutAnswer returns an error that has nothing of the answer except the HTTP code. An API server or a proxy may
// quote the request in its answer, also in the reason, and client-go has the answer in its errors.
func withoutAnswer(err error) error {
	var status apierrors.APIStatus
	if errors.As(err, &status) {
		code := int(status.Status().Code)
		return fmt.Errorf("the answer is HTTP %d %s", code, http.StatusText(code))
	}
	for _, of := range []error{context.DeadlineExceeded, context.Canceled, io.EOF} {
		if errors.Is(err, of) {
			return of
		}
	}
	if network, ok := errors.AsType[*net.OpError](err); ok {
		return network
	}
	// The handshake ends before the request is sent.
	if certificate, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return certificate
	}
	return errNoAnswer
}

func (c *Client) get(ctx context.Context, path string, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	stream, err := c.rest.Get().AbsPath(path).Stream(ctx)
	if err != nil {
		return err
	}
	return decode(stream, answer)
}

// decode decodes an answer. Its error does not quote it: a TokenReview has a token.
func decode(stream io.ReadCloser, answer any) error {
	defer func() { _ = stream.Close() }()
	if err := json.NewDecoder(io.LimitReader(stream, maxAnswer)).Decode(answer); err != nil {
		return fmt.Errorf("decode the answer: %w", plainyaml.Explain(err))
	}
	return nil
}
