// Package hooks asks a backend questions about clients, over HTTP: who may connect, and what to do with
// an event.
//
// A question is one POST with a JSON body, signed as Standard Webhooks specifies, with the attributes of
// a CloudEvent in its headers. The answer is in the response. The package knows neither sockets nor
// rooms: package app asks the questions and carries the answers out. docs/hooks.md is the manual.
//
// These rules hold for every question:
//
//   - It ends within the timeout, whatever the backend does.
//   - The number and the size of concurrent questions are bounded; one that exceeds them is refused
//     without being sent.
//   - A question that may have been processed is not sent again, unless its client has named it. Then
//     every attempt has the same id.
//   - An answer is obeyed completely or not at all: what is not understood is a failure.
package hooks

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/sony/gobreaker/v2"
	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/rejoin-io/rejoin/internal/limit"
)

// Options configure a [Backend]. URL and Secrets are required.
type Options struct {
	// URL is where all questions are sent: http or https. A user and a password in it are sent as
	// basic authentication.
	URL string
	// Secrets sign the questions, all of them each question, so that one can replace another.
	// [CheckSecret] describes them.
	Secrets []string
	// Timeout bounds a question, with all attempts and the wait for its turn. 5 seconds by default.
	Timeout time.Duration
	// Concurrency is the maximum number of questions in flight. 128 by default.
	Concurrency int
	// Node is the id of the node, the source of the questions.
	Node string
	// Transport sends the requests. By default it is one of the backend's own.
	Transport http.RoundTripper
	// Tally counts and logs what the limits refuse. By default one of its own, which logs nothing.
	Tally *limit.Tally
	// Logger receives the logs, which contain neither questions nor answers. By default nothing is
	// logged.
	Logger *zap.Logger
}

// A Backend answers questions. Its methods are safe for concurrent use.
type Backend struct {
	url       *url.URL
	signers   []*standardwebhooks.Webhook
	secrets   [][]byte // the same
	timeout   time.Duration
	source    string
	transport http.RoundTripper
	closeIdle func()
	queue     *queue
	breakers  map[string]*gobreaker.TwoStepCircuitBreaker[struct{}] // by type: what clients send must not close the door to others
	metrics   metrics
	tally     *limit.Tally
	log       *zap.Logger
	open      context.Context // ends with Close
	close     context.CancelFunc
}

// Parameters of the breaker: after failures no question is sent, except one per second.
const (
	breakerRow      = 10 // failures in a row
	breakerRequests = 20 // of which half fail, within breakerWindow
	breakerWindow   = 10 * time.Second
	breakerPause    = time.Second
)

// New returns a backend. It sends nothing until it is asked.
func New(o Options) (*Backend, error) {
	u, err := url.Parse(o.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, errors.New("hooks: the URL must have the scheme http or https, and a host") // it may contain a password
	}
	b := &Backend{
		url:     u,
		timeout: cmp.Or(o.Timeout, 5*time.Second),
		source:  "/rejoin/" + o.Node,
		metrics: newMetrics(),
		tally:   cmp.Or(o.Tally, limit.NewTally(zap.NewNop())),
	}
	b.queue = newQueue(cmp.Or(o.Concurrency, 128))
	b.metrics.watch(b)
	if len(o.Secrets) == 0 {
		return nil, errors.New("hooks: no secret to sign with")
	}
	for i, secret := range o.Secrets {
		if err := CheckSecret(secret); err != nil {
			return nil, fmt.Errorf("hooks: secret %d %w", i+1, err)
		}
		signer, err := standardwebhooks.NewWebhook(secret)
		if err != nil {
			return nil, fmt.Errorf("hooks: secret %d is malformed", i+1)
		}
		b.signers = append(b.signers, signer)
		b.secrets = append(b.secrets, []byte(secret))
	}
	if b.transport = o.Transport; b.transport == nil {
		own := newTransport(cmp.Or(o.Concurrency, 128), b.timeout)
		b.transport, b.closeIdle = own, own.CloseIdleConnections
	}
	// A backend that fails must not fill the log.
	b.log = cmp.Or(o.Logger, zap.NewNop()).WithOptions(zap.WrapCore(func(c zapcore.Core) zapcore.Core {
		return zapcore.NewSamplerWithOptions(c, 10*time.Second, 5, 0)
	}))
	b.breakers = make(map[string]*gobreaker.TwoStepCircuitBreaker[struct{}])
	for _, kind := range []string{typePing, typeConnect, typeEvent} {
		b.breakers[kind] = b.newBreaker(kind)
	}
	b.open, b.close = context.WithCancel(context.Background())
	return b, nil
}

func (b *Backend) newBreaker(kind string) *gobreaker.TwoStepCircuitBreaker[struct{}] {
	return gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		Name:        kind,
		MaxRequests: 1,
		Interval:    breakerWindow, BucketPeriod: breakerWindow / 10,
		Timeout: breakerPause,
		ReadyToTrip: func(c gobreaker.Counts) bool {
			return c.ConsecutiveFailures >= breakerRow || c.Requests >= breakerRequests && 2*c.TotalFailures >= c.Requests
		},
		IsSuccessful: func(err error) bool { return !isFailure(err) },
		IsExcluded:   func(err error) bool { return errors.Is(err, context.Canceled) },
		OnStateChange: func(kind string, _, to gobreaker.State) {
			b.log.Warn("backend hook breaker changed", zap.String("type", kind), zap.Stringer("state", to))
		},
	})
}

// typePing is the type of the question of [Backend.Ping].
const typePing = "rejoin.ping"

// newTransport returns a transport that follows no redirect, keeps no cookie, and reads a bounded
// number of headers. It verifies certificates.
func newTransport(connections int, timeout time.Duration) *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConns, t.MaxIdleConnsPerHost, t.MaxConnsPerHost = connections, connections, connections
	t.MaxResponseHeaderBytes = 64 << 10
	// Servers close idle connections too: Node.js by default after 5 seconds. A question on a
	// connection that is being closed would have an unknown outcome.
	t.IdleConnTimeout = 4 * time.Second
	// What a question has begun continues when the question has timed out, and takes the place of another
	// connection. A connection of HTTP/2 outlives the questions that have timed out on it, so one that has
	// died in silence must be noticed.
	t.DialContext = (&net.Dialer{Timeout: timeout}).DialContext
	t.TLSHandshakeTimeout = timeout
	t.HTTP2 = &http.HTTP2Config{SendPingTimeout: timeout, PingTimeout: timeout}
	t.DisableCompression = true // an answer is short, and its size is bounded as it arrives
	return t
}

// Close ends the questions in flight. Later ones fail. The backend has no goroutines of its own: those
// that ask own the questions.
func (b *Backend) Close() {
	b.close()
	if b.closeIdle != nil {
		b.closeIdle()
	}
}

// Ping asks the backend for nothing, to check the URL and the secrets: it must answer 200 or 204.
func (b *Backend) Ping(ctx context.Context) error {
	q := &question{kind: typePing, id: newID()}
	return b.ask(ctx, q, struct {
		Type string `json:"type"`
		ID   string `json:"id"`
	}{q.kind, q.id}, func(answer) error { return nil })
}
