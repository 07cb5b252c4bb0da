package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/MicahParks/keyfunc/v3"
	"github.com/golang-jwt/jwt/v5"
	"go.uber.org/zap"
)

// Parameters of fetching a server's keys.
const (
	refreshEvery = 5 * time.Minute  // so that withdrawn keys are forgotten
	retryEvery   = 10 * time.Second // after a failure
	refreshLeast = 3 * time.Second  // minimum interval, also if clients send many unknown keys
	fetchTimeout = 3 * time.Second
	maxJWKS      = 1 << 20 // bytes
)

// A remote holds the public keys of a server (RFC 7517). One goroutine fetches them: periodically,
// and when a token names an unknown key. Clients can send such tokens at will, so these requests
// share fetches. While the server is unreachable its last keys stay valid.
type remote struct {
	url    string
	client *http.Client
	log    *zap.Logger
	cancel context.CancelFunc
	ended  chan struct{}
	wanted chan struct{} // holds a token if a caller waits for next

	mu   sync.Mutex
	keys keyfunc.Keyfunc // nil until the first are fetched; replaced, never changed
	now  *fetch          // the one in flight, or nil
	next *fetch          // the one that has not begun
	last error           // of the last one
}

// A fetch is one request to the server, shared by all callers that wait for it.
type fetch struct {
	done chan struct{}
	err  error // set before done is closed
}

var errNoKeysYet = errors.New("auth: no keys have been fetched yet")

func newRemote(address string, log *zap.Logger) (*remote, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, errors.New("auth: JWKS URL must have the scheme http or https") // it may contain a password
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &remote{
		url:    address,
		log:    log.With(zap.Stringer("jwks", &url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path})), // the rest may contain a key
		client: &http.Client{Timeout: fetchTimeout, CheckRedirect: staySafe},
		cancel: cancel,
		ended:  make(chan struct{}),
		wanted: make(chan struct{}, 1),
		next:   &fetch{done: make(chan struct{})},
		last:   errNoKeysYet,
	}
	go r.run(ctx) // until close
	return r, nil
}

// staySafe refuses a redirect from https to another scheme.
func staySafe(next *http.Request, via []*http.Request) error {
	if via[0].URL.Scheme == "https" && next.URL.Scheme != "https" {
		return errors.New("redirected from https to " + next.URL.Scheme)
	}
	if len(via) > 3 {
		return errors.New("too many redirects")
	}
	return nil
}

func (r *remote) close() {
	r.cancel()
	<-r.ended
	r.client.CloseIdleConnections()
}

// ready returns nil once there are keys, and otherwise the error of the last attempt.
func (r *remote) ready() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.keys != nil {
		return nil
	}
	return r.last
}

// find returns the keys that may have signed a token. unknown means that the server may have
// further ones: the token names an unknown key, or none.
func (r *remote) find(t *jwt.Token) (keys []jwt.VerificationKey, unknown bool) {
	r.mu.Lock()
	known := r.keys
	r.mu.Unlock()
	if known == nil {
		return nil, true
	}
	switch found, err := known.Keyfunc(t); found := found.(type) {
	case nil:
		return nil, errors.Is(err, jwkset.ErrKeyNotFound)
	case jwt.VerificationKeySet: // no kid
		return found.Keys, true
	default:
		return []jwt.VerificationKey{found}, false
	}
}

// refresh waits until keys were fetched by a request that began after this call, or by one in
// flight while there are none, and returns its error.
func (r *remote) refresh(ctx context.Context) error {
	r.mu.Lock()
	f := r.next
	if r.keys == nil && r.now != nil {
		f = r.now
	} else {
		select {
		case r.wanted <- struct{}{}:
		default:
		}
	}
	r.mu.Unlock()
	select {
	case <-f.done:
		return f.err
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-r.ended:
		return context.Canceled
	}
}

func (r *remote) run(ctx context.Context) {
	defer close(r.ended)
	for {
		pause := refreshEvery
		if err := r.fetch(ctx); err != nil {
			pause = retryEvery
		}
		least := time.After(refreshLeast)
		select {
		case <-time.After(pause):
		case <-r.wanted:
			select {
			case <-least:
			case <-ctx.Done():
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// fetch runs one fetch for all callers so far.
func (r *remote) fetch(ctx context.Context) error {
	r.mu.Lock()
	f := r.next
	r.now, r.next = f, &fetch{done: make(chan struct{})}
	select {
	case <-r.wanted:
	default:
	}
	r.mu.Unlock()
	keys, err := r.get(ctx)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	r.mu.Lock()
	r.now = nil
	before := r.last
	if r.last = err; err == nil {
		r.keys = keys
	}
	r.mu.Unlock()
	switch {
	case err == nil && before != nil:
		r.log.Info("JWKS fetched")
	case err != nil && (before == nil || errors.Is(before, errNoKeysYet)):
		r.log.Warn("JWKS not fetched; known keys stay valid", zap.Error(err))
	}
	f.err = err
	close(f.done)
	return err
}

// get sends one request to the server.
func (r *remote) get(ctx context.Context) (keyfunc.Keyfunc, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", "application/jwk-set+json, application/json")
	response, err := r.client.Do(request)
	if whole := (*url.Error)(nil); errors.As(err, &whole) {
		err = fmt.Errorf("auth: fetch JWKS: %w", whole.Err) // without the URL, which may contain a key
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("auth: JWKS server answered %s", response.Status)
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, maxJWKS+1))
	if err != nil {
		return nil, err
	}
	if len(body) > maxJWKS {
		return nil, fmt.Errorf("auth: JWKS response exceeds %d bytes", maxJWKS)
	}
	return r.read(body)
}

// read returns the keys of a set that are for signatures. Others, and unsupported ones, are
// ignored, as the RFC requires: symmetric ones above all, because this response is not secret.
func (r *remote) read(body []byte) (keyfunc.Keyfunc, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(body, &set); err != nil {
		return nil, fmt.Errorf("auth: JWKS response is not a key set: %w", err)
	}
	var good []jwkset.JWK
	for i, raw := range set.Keys {
		key, err := publicKey(raw)
		if err != nil {
			r.log.Debug("JWKS key ignored", zap.Int("index", i), zap.Error(err))
			continue
		}
		good = append(good, key)
	}
	if len(good) == 0 {
		return nil, errors.New("auth: JWKS response has no public signing key")
	}
	store := jwkset.NewMemoryStorage()
	if err := store.KeyReplaceAll(context.Background(), good); err != nil {
		return nil, err
	}
	return keyfunc.New(keyfunc.Options{Storage: store})
}

// publicKey parses one key of a set. Its private fields are ignored.
func publicKey(raw json.RawMessage) (jwkset.JWK, error) {
	key, err := jwkset.NewJWKFromRawJSON(raw, jwkset.JWKMarshalOptions{}, jwkset.JWKValidateOptions{})
	if err != nil {
		return key, err
	}
	if use := key.Marshal().USE; use != "" && use != jwkset.UseSig {
		return key, errors.New("key is not for signatures")
	}
	var check keyring
	return key, check.add(key.Key())
}
