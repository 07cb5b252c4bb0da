package app

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/rejoin-io/rejoin/internal/auth"
	"github.com/rejoin-io/rejoin/internal/hooks"
	"github.com/rejoin-io/rejoin/pkg/packet"
	"github.com/rejoin-io/rejoin/pkg/socketio"
)

// verifyTimeout bounds how long a token waits for keys: longer than the verifier
// does, and shorter than an event may take.
const verifyTimeout = Timeout * 9 / 10

// longestWait is the maximum interval between two checks of an expiry. An expiry is a wall-clock
// time, and the clock can be changed.
const longestWait = time.Hour

// A client is one socket that is identified, by its token or the backend.
type client struct {
	socket *socketio.Socket // nil until it is connected

	verdict hooks.Verdict // of the backend; zero if it is not asked

	judged *auth.Identity // by which all its rooms were judged; nil if that failed. Once it is connected, used by be only

	mu    sync.Mutex
	id    *auth.Identity // of the newest token and the verdict; replaced, never changed
	timer *time.Timer    // ends the connection when the identity expires; nil for never
	ended bool
}

type clientKey struct{}

// identity returns the identity of a connected client.
func (a *App) identity(s *socketio.Socket) *auth.Identity {
	c, ok := s.Value(clientKey{}).(*client)
	if !ok {
		return &a.anonymous
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.id
}

// identifies reports whether clients are identified: by a token, by the backend, or by both.
func (a *App) identifies() bool { return a.verifier != nil || a.hooks.Connect }

// admit is the middleware of all clients: it joins an accepted client to its rooms.
func (a *App) admit(ctx context.Context, r *socketio.ConnectRequest) error {
	if !a.identifies() {
		r.KeepRooms(a.anonymous.MayBeIn)
		return nil
	}
	id, verdict, err := a.identify(ctx, r)
	if err != nil {
		return refusal(ctx, err)
	}
	r.SetUser(id.User)
	r.SetValue(clientKey{}, &client{id: &id, judged: &id, verdict: verdict})
	r.KeepRooms(id.MayBeIn)
	if err := r.Join(ownRooms(&id)...); err != nil {
		return refusal(ctx, err)
	}
	return nil
}

// identify returns the identity of a connecting client.
func (a *App) identify(ctx context.Context, r *socketio.ConnectRequest) (id auth.Identity, v hooks.Verdict, err error) {
	if a.verifier != nil {
		id, err = a.verify(ctx, r.Handshake().RemoteAddr, func() (string, error) { return shown(r) })
		if err != nil {
			return id, v, err
		}
	}
	if !a.hooks.Connect {
		return id, v, nil
	}
	if v, err = a.hooks.judge(ctx, r, id.User, a.limits.Client(id.User, r.Handshake().RemoteAddr).Owner()); err != nil {
		return id, v, err
	}
	return a.hooks.combine(id, v), v, nil
}

// watch starts the timer of the expiry of a connected client's identity.
func (a *App) watch(s *socketio.Socket) {
	c := s.Value(clientKey{}).(*client)
	c.mu.Lock()
	c.socket = s
	c.await()
	c.mu.Unlock()
	context.AfterFunc(s.Context(), c.end)
}

// ownRooms returns the rooms that a client is in because of its identity.
func ownRooms(id *auth.Identity) []string {
	if id.User == "" {
		return id.Rooms
	}
	return append([]string{auth.UserRoom(id.User)}, id.Rooms...)
}

// verify verifies the token that find returns, of a client at an address.
func (a *App) verify(ctx context.Context, address string, find func() (string, error)) (auth.Identity, error) {
	token, err := find()
	var id auth.Identity
	if err == nil {
		ctx, cancel := context.WithTimeout(ctx, verifyTimeout)
		defer cancel()
		id, err = a.verifier.Verify(ctx, token)
	}
	if refused := (*auth.Error)(nil); errors.As(err, &refused) {
		a.mu.Lock()
		a.refusedTokens[refused.Code]++
		a.mu.Unlock()
		a.log.Debug("token refused", zap.String("code", string(refused.Code)), zap.String("reason", refused.Message),
			zap.String("address", address))
	}
	return id, err
}

// shown returns the token of a connecting client: auth.token, or that of the Authorization header
// of its first request.
func shown(r *socketio.ConnectRequest) (string, error) {
	var payload json.RawMessage
	_ = r.Auth(&payload) // is kept until the middlewares have run
	if found := tokenIn(payload); found != nil && string(found) != "null" {
		var token string
		if packet.Unmarshal(found, nil, &token) != nil {
			return "", &auth.Error{Code: auth.TokenInvalid, Message: "auth.token is not a string"}
		}
		return token, nil
	}
	scheme, token, _ := strings.Cut(r.Handshake().Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", nil
	}
	return strings.TrimSpace(token), nil
}

// tokenIn returns the token in a payload, or nil. Like encoding/json it ignores the case of the name.
func tokenIn(payload []byte) (token json.RawMessage) {
	for name, value := range packet.Members(payload) {
		if bytes.EqualFold(name, []byte("token")) {
			token = value
		}
	}
	return token
}

// renew answers the event token, with which a connected client sends a fresh token.
func renew(ctx context.Context, r *request) (any, error) {
	type reply struct {
		OK      bool   `json:"ok"`
		Expires *int64 `json:"expires"` // Unix time in milliseconds
	}
	c, ok := r.Socket().Value(clientKey{}).(*client)
	if !ok || r.app.verifier == nil {
		return reply{OK: true}, nil // there is no token to expire
	}
	if err := r.limits.Token(); err != nil {
		return nil, fail(rateLimited, "%v; the token was not verified", err)
	}
	id, err := r.app.verify(ctx, r.Socket().Handshake().RemoteAddr, func() (string, error) {
		var token string
		if err := r.Arg(0, &token); err != nil {
			return "", &auth.Error{Code: auth.TokenInvalid, Message: "the token is not a string"}
		}
		return token, nil
	})
	if err != nil {
		return nil, err
	}
	id = r.app.hooks.combine(id, c.verdict)
	if id.User != r.Socket().User() {
		return nil, fail(forbidden, "the token belongs to another user; reconnect with it")
	}
	if err := c.be(ctx, id); err != nil {
		return nil, err
	}
	expires := id.Expires.UnixMilli()
	return reply{true, &expires}, nil
}

// be gives a connected client the identity of its token. It is called for one token at a time. If it
// fails the client has the identity, but lacks some of its rooms.
func (c *client) be(ctx context.Context, id auth.Identity) error {
	c.mu.Lock()
	c.id = &id
	c.await()
	c.mu.Unlock()
	// A token with the same rooms as the last one, which may arrive often, needs no check: rooms
	// that the client has joined since were checked by the same rules.
	if c.judged == nil || !c.judged.SameRooms(&id) {
		c.judged = nil
		if err := c.socket.KeepRooms(ctx, id.MayBeIn); err != nil {
			return err
		}
		c.judged = &id
	}
	return c.socket.Join(ctx, ownRooms(&id)...)
}

// await sets the timer. c.mu is held.
func (c *client) await() {
	if c.ended || c.id.Expires.IsZero() {
		return
	}
	if c.timer != nil {
		c.timer.Stop()
	}
	c.timer = time.AfterFunc(min(time.Until(c.id.Expires), longestWait), c.expire)
}

// expire cuts the client if its identity has expired. The client reconnects, with a fresh token if it
// can get one, and the backend is asked again.
func (c *client) expire() {
	c.mu.Lock()
	expired := !time.Now().Before(c.id.Expires)
	if !expired {
		c.await()
	}
	c.mu.Unlock()
	if expired {
		c.socket.Cut()
	}
}

// end stops the timer.
func (c *client) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	if c.timer != nil {
		c.timer.Stop()
	}
}
