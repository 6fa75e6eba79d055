// SPDX-License-Identifier: Apache-2.0

package report

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
	"k8s.io/client-go/tools/clientcmd"
)

const (
	// callTime bounds one call of the API server.
	callTime = 10 * time.Second
	// callsPerSecond and burst bound how fast Events are sent; client-go's own
	// 5 per second would hold up those of a minute's trouble.
	callsPerSecond, burst = 20, 40
)

// ErrNoAPIServer: there is neither a kubeconfig nor a Pod's own credentials.
var ErrNoAPIServer = rest.ErrNotInCluster

// Config says how to reach the API server: by a kubeconfig or, without one, by
// what a Pod is given; [ErrNoAPIServer] where there is neither.
func Config(kubeconfig, userAgent string) (*rest.Config, error) {
	config, err := rest.InClusterConfig()
	if kubeconfig != "" {
		config, err = clientcmd.BuildConfigFromFlags("", kubeconfig)
	}
	if err != nil {
		return nil, err
	}
	config.UserAgent = userAgent
	config.QPS, config.Burst = callsPerSecond, burst
	return config, nil
}

// Connect returns a client by [Config].
func Connect(kubeconfig, userAgent string) (*Client, error) {
	config, err := Config(kubeconfig, userAgent)
	if err != nil {
		return nil, err
	}
	return NewClient(config)
}

// Client is an [EventAPI] over the API server. It speaks JSON through a bare
// REST client: the clientset of all APIs would double the agent's size.
type Client struct{ rest *rest.RESTClient }

// NewClient returns a client; it does not call the API server yet.
func NewClient(config *rest.Config) (*Client, error) {
	config = rest.CopyConfig(config)
	scheme := runtime.NewScheme()
	// The API server's own errors are the only objects that are decoded.
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

// What stands between here and the API server may answer 200 in its place, with
// nothing or with anything.
var (
	errNoEvent = errors.New("the answer is not the Event that was sent")
	errNoUID   = errors.New("the answer has no UID")
)

// CreateEvent implements [EventAPI]. An Event is stored only where the answer is
// that Event.
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

// NodeUID implements [EventAPI].
func (c *Client) NodeUID(ctx context.Context, node string) (types.UID, error) {
	body, err := c.rest.Get().AbsPath("/api/v1/nodes", node).
		SetHeader("Accept", "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1").Do(ctx).Raw()
	if err != nil {
		return "", err
	}
	var metadata metav1.PartialObjectMetadata
	if err := json.Unmarshal(body, &metadata); err != nil {
		return "", fmt.Errorf("decode the Node: %w", err)
	}
	if metadata.UID == "" {
		return "", errNoUID
	}
	return metadata.UID, nil
}
