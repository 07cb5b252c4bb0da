package app

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/rejoin-io/rejoin/internal/auth"
	"github.com/rejoin-io/rejoin/pkg/socketio"
)

// verifyTimeout bounds how long a token waits for keys: longer than the verifier
// does, and shorter than an event may take.
const verifyTimeout = Timeout * 9 / 10

// longestWait is after how long an expiry is looked at again, at the latest: it is
// a time of the clock on the wall, which can be set.
const longestWait = time.Hour

// A client is one socket that has shown a token.
type client struct {
	socket *socketio.Socket

	judged *auth.Identity // by which all its rooms were judged; nil if that failed. Of be only

	mu    sync.Mutex
	id    auth.Identity // by the newest token; replaced, never changed
	timer *time.Timer   // ends the connection with the token
	ended bool
}

type clientKey struct{}

// identity returns who a connected client is.
func (a *App) identity(s *socketio.Socket) *auth.Identity {
	c, ok := s.Value(clientKey{}).(*client)
	if !ok {
		return &a.anonymous
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	id := c.id
	return &id
}

// admit is the middleware of all clients: a client that is let in has its rooms,
// and the end of its token is waited for.
func (a *App) admit(ctx context.Context, s *socketio.Socket) error {
	if a.verifier == nil {
		return s.KeepRooms(ctx, a.anonymous.MayBeIn)
	}
	id, err := a.verify(ctx, s, shown)
	if err != nil {
		return refusal(ctx, err)
	}
	s.SetUser(id.User)
	c := &client{socket: s}
	s.SetValue(clientKey{}, c)
	context.AfterFunc(s.Context(), c.end)
	if err := c.be(ctx, id); err != nil {
		return refusal(ctx, err)
	}
	return nil
}

// verify judges a token that is to be found in some way.
func (a *App) verify(ctx context.Context, s *socketio.Socket, find func(*socketio.Socket) (string, error)) (auth.Identity, error) {
	token, err := find(s)
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
		a.log.Debug("a token is refused", zap.String("code", string(refused.Code)), zap.String("reason", refused.Message),
			zap.String("address", s.Handshake().RemoteAddr))
	}
	return id, err
}

// shown returns the token that a client connects with: auth.token, or what the
// Authorization header of its first request bears.
func shown(s *socketio.Socket) (string, error) {
	var payload struct {
		Token json.RawMessage `json:"token"`
	}
	if err := s.Auth(&payload); err == nil && len(payload.Token) > 0 && string(payload.Token) != "null" {
		var token string
		if json.Unmarshal(payload.Token, &token) != nil {
			return "", &auth.Error{Code: auth.TokenInvalid, Message: "auth.token is not a string"}
		}
		return token, nil
	}
	scheme, token, _ := strings.Cut(s.Handshake().Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", nil
	}
	return strings.TrimSpace(token), nil
}

// renew answers the event token, by which a client that is connected goes on with
// a fresh one.
func renew(ctx context.Context, r *request) (any, error) {
	type reply struct {
		OK      bool   `json:"ok"`
		Expires *int64 `json:"expires"` // Unix time in milliseconds
	}
	c, ok := r.Socket().Value(clientKey{}).(*client)
	if !ok {
		return reply{OK: true}, nil // there is nothing to expire
	}
	id, err := r.app.verify(ctx, r.Socket(), func(*socketio.Socket) (string, error) {
		var token string
		if err := r.Arg(0, &token); err != nil {
			return "", &auth.Error{Code: auth.TokenInvalid, Message: "the token is not a string"}
		}
		return token, nil
	})
	if err != nil {
		return nil, err
	}
	if id.User != r.Socket().User() {
		return nil, fail(forbidden, "the token is another user's; connect anew with it")
	}
	if err := c.be(ctx, id); err != nil {
		return nil, err
	}
	expires := id.Expires.UnixMilli()
	return reply{true, &expires}, nil
}

// be makes the client what its token says. It is called for one token after
// another. If it fails the client is that, but for some of its rooms.
func (c *client) be(ctx context.Context, id auth.Identity) error {
	c.mu.Lock()
	c.id = id
	c.await()
	c.mu.Unlock()
	// A token that says the same of rooms as the last one, which may come often, costs no
	// judgement: what the client has joined since was judged alike.
	if c.judged == nil || !c.judged.SameRooms(&id) {
		c.judged = nil
		if err := c.socket.KeepRooms(ctx, id.MayBeIn); err != nil {
			return err
		}
		c.judged = &id
	}
	return c.socket.Join(ctx, append([]string{auth.UserRoom(id.User)}, id.Rooms...)...)
}

// await sets the timer. c.mu is held.
func (c *client) await() {
	if c.ended {
		return
	}
	if c.timer != nil {
		c.timer.Stop()
	}
	c.timer = time.AfterFunc(min(time.Until(c.id.Expires), longestWait), c.expire)
}

// expire cuts the client if its token has expired. It comes back by itself, with a
// fresh one if it has a way to get one.
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

// end lets go of the timer.
func (c *client) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	if c.timer != nil {
		c.timer.Stop()
	}
}
