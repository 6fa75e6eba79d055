// SPDX-License-Identifier: Apache-2.0

// Package kubeclient connects to an API server with a kubeconfig or as a Pod, and creates Events.
package kubeclient

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/kubelet-https-guard/kubelet-https-guard/internal/plainyaml"
)

const (
	// callTime bounds one call to the API server.
	callTime = 10 * time.Second
	// callsPerSecond and burst limit the rate of Events. client-go's default of 5 per second
	// would delay Events for too long.
	callsPerSecond, burst = 20, 40
)

// ErrNoAPIServer is returned if there is neither a kubeconfig nor a Pod's ServiceAccount.
var ErrNoAPIServer = rest.ErrNotInCluster

// Connect returns a client for [Config].
func Connect(kubeconfig, userAgent string) (*Client, error) {
	config, err := Config(kubeconfig, userAgent)
	if err != nil {
		return nil, err
	}
	return NewClient(config)
}

// Client implements report.EventAPI. It uses a plain REST client with JSON: the clientset of all
// APIs would double the agent's size.
type Client struct{ rest *rest.RESTClient }

// NewClient returns a client. It does not call the API server.
func NewClient(config *rest.Config) (*Client, error) {
	config = rest.CopyConfig(config)
	scheme := runtime.NewScheme()
	// Only the API server's errors are decoded as objects.
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"})
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	config.GroupVersion = &schema.GroupVersion{Version: "v1"}
	config.APIPath = "/api"
	config.Timeout = callTime
	config.ContentType = runtime.ContentTypeJSON
	config.AcceptContentTypes = runtime.ContentTypeJSON
	client, err := rest.RESTClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("make a client of the API server: %w", err)
	}
	return &Client{client}, nil
}

// A proxy before the API server may respond with 200 and any body.
var (
	errNoEvent = errors.New("the answer is not the Event that was sent")
	errNoUID   = errors.New("the answer has no UID")
)

// CreateEvent implements report.EventAPI. The Event is stored only if the response is that Event.
func (c *Client) CreateEvent(ctx context.Context, event *eventsv1.Event) error {
	body, err := json.Marshal(event)
	if err != nil {
		return fmt.Errorf("encode Event: %w", err)
	}
	answer, err := c.rest.Post().AbsPath("/apis/events.k8s.io/v1/namespaces", event.Namespace, "events").
		SetHeader("Content-Type", runtime.ContentTypeJSON).Body(body).Do(ctx).Raw()
	if err != nil {
		return err
	}
	var stored metav1.PartialObjectMetadata
	if err := json.Unmarshal(answer, &stored); err != nil || stored.Name != event.Name {
		return errNoEvent
	}
	return nil
}

// NodeUID implements report.EventAPI.
func (c *Client) NodeUID(ctx context.Context, node string) (types.UID, error) {
	body, err := c.rest.Get().AbsPath("/api/v1/nodes", node).
		SetHeader("Accept", "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1").Do(ctx).Raw()
	if err != nil {
		return "", err
	}
	var metadata metav1.PartialObjectMetadata
	if err := json.Unmarshal(body, &metadata); err != nil {
		return "", fmt.Errorf("decode the Node: %w", plainyaml.Explain(err))
	}
	if metadata.UID == "" {
		return "", errNoUID
	}
	return metadata.UID, nil
}
