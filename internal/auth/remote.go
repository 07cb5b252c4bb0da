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

// How the keys of a server are fetched.
const (
	refreshEvery = 5 * time.Minute  // so that keys that were withdrawn are forgotten
	retryEvery   = 10 * time.Second // after a failure
	refreshLeast = 3 * time.Second  // between two, however many unknown keys are shown
	fetchTimeout = 3 * time.Second
	maxJWKS      = 1 << 20 // bytes
)

// A remote has the public keys of a server (RFC 7517). One goroutine fetches
// them: again and again, and when somebody shows a key that is not known, which
// strangers can do as they like, so those wait for one another. While the server
// can't be reached the keys that it gave last stay good.
type remote struct {
	url    string
	client *http.Client
	log    *zap.Logger
	cancel context.CancelFunc
	ended  chan struct{}
	wanted chan struct{} // holds one: somebody waits for next

	mu   sync.Mutex
	keys keyfunc.Keyfunc // nil until the first are there; replaced, never changed
	now  *fetch          // the one that is under way, or nil
	next *fetch          // the one that has not begun
	last error           // of the last one
}

// A fetch is one request to the server, whoever waits for it.
type fetch struct {
	done chan struct{}
	err  error // set before done is closed
}

var errNoKeysYet = errors.New("auth: no keys have been fetched yet")

func newRemote(address string, log *zap.Logger) (*remote, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, errors.New("auth: the JWKS URL is not an http or https URL") // it may hold a password
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &remote{
		url:    address,
		log:    log.With(zap.Stringer("jwks", &url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path})), // the rest may be a key
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

// staySafe keeps a redirect from leading out of https.
func staySafe(next *http.Request, via []*http.Request) error {
	if via[0].URL.Scheme == "https" && next.URL.Scheme != "https" {
		return errors.New("redirected from https to " + next.URL.Scheme)
	}
	if len(via) > 3 {
		return errors.New("redirected too often")
	}
	return nil
}

func (r *remote) close() {
	r.cancel()
	<-r.ended
	r.client.CloseIdleConnections()
}

// ready returns nil once there are keys, and otherwise what the last attempt met.
func (r *remote) ready() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.keys != nil {
		return nil
	}
	return r.last
}

// find returns the keys that may have signed a token. unknown says that the
// server may have further ones: the token names a key that is not among ours, or
// none.
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

// refresh waits until keys were fetched by a request that began after this call,
// or by one that is under way while there are none, and returns its error.
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

// fetch serves those who have asked until now.
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
		r.log.Info("the keys of the JWKS server are there")
	case err != nil && (before == nil || errors.Is(before, errNoKeysYet)):
		r.log.Warn("the keys of the JWKS server can't be fetched; those that are known stay good", zap.Error(err))
	}
	f.err = err
	close(f.done)
	return err
}

// get asks the server once.
func (r *remote) get(ctx context.Context) (keyfunc.Keyfunc, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", "application/jwk-set+json, application/json")
	response, err := r.client.Do(request)
	if whole := (*url.Error)(nil); errors.As(err, &whole) {
		err = fmt.Errorf("auth: ask the JWKS server: %w", whole.Err) // without the URL, which may hold a key
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("auth: the JWKS server answers %s", response.Status)
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, maxJWKS+1))
	if err != nil {
		return nil, err
	}
	if len(body) > maxJWKS {
		return nil, fmt.Errorf("auth: the JWKS server answers with more than %d bytes", maxJWKS)
	}
	return r.read(body)
}

// read takes the keys of a set that are for signatures. Others, and those that it
// does not understand, are left out, as the RFC wants it: symmetric ones above
// all, for what is in this answer is no secret.
func (r *remote) read(body []byte) (keyfunc.Keyfunc, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(body, &set); err != nil {
		return nil, fmt.Errorf("auth: the JWKS server's answer is not a set of keys: %w", err)
	}
	var good []jwkset.JWK
	for i, raw := range set.Keys {
		key, err := publicKey(raw)
		if err != nil {
			r.log.Debug("a key of the JWKS server is left out", zap.Int("index", i), zap.Error(err))
			continue
		}
		good = append(good, key)
	}
	if len(good) == 0 {
		return nil, errors.New("auth: the JWKS server has no public key for signatures")
	}
	store := jwkset.NewMemoryStorage()
	if err := store.KeyReplaceAll(context.Background(), good); err != nil {
		return nil, err
	}
	return keyfunc.New(keyfunc.Options{Storage: store})
}

// publicKey reads one key of a set. What is private in it is not looked at.
func publicKey(raw json.RawMessage) (jwkset.JWK, error) {
	key, err := jwkset.NewJWKFromRawJSON(raw, jwkset.JWKMarshalOptions{}, jwkset.JWKValidateOptions{})
	if err != nil {
		return key, err
	}
	if use := key.Marshal().USE; use != "" && use != jwkset.UseSig {
		return key, errors.New("it is not for signatures")
	}
	var check keyring
	return key, check.add(key.Key())
}
