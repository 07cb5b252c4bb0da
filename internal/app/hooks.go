package app

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/rejoin-io/rejoin/internal/auth"
	"github.com/rejoin-io/rejoin/internal/hooks"
	"github.com/rejoin-io/rejoin/pkg/packet"
	"github.com/rejoin-io/rejoin/pkg/socketio"
)

// Hooks are the questions to the backend. The zero value asks none.
type Hooks struct {
	// Backend answers the questions. Without one there are none.
	Backend *hooks.Backend

	// Connect has the backend decide who may connect, after the Verifier.
	Connect bool

	// Events are the events that the backend handles: names, and prefixes followed by *, which match
	// only events that the application does not know.
	Events []string

	// ParseEmit checks an event that the backend wants to be emitted: as package api does for its callers. It is
	// required with Events.
	ParseEmit func(body []byte, namespace string, to *socketio.Broadcast) (Emit, error)

	// Headers are the names of the headers of a client's first request that are sent to the backend.
	Headers []string

	// Default are the permissions of clients for which neither the backend nor a token states any.
	Default auth.Permissions

	// Logger receives the logs of records that cannot be read. By default nothing is logged.
	Logger *zap.Logger
}

// An Emit is an event with its receivers. Its namespace is kept until Release is called.
type Emit struct {
	Broadcast socketio.Broadcast
	Event     string
	Args      []any
	Release   func()
}

// judge returns the backend's verdict about a connecting client, whose token names a user; "" without
// tokens. owner is that of the question. A client that reconnects soon, with the same credentials, has the verdict of its session, so
// that the clients of a node that dies are not as many questions.
func (h *Hooks) judge(ctx context.Context, r *socketio.ConnectRequest, user, owner string) (v hooks.Verdict, err error) {
	former, returns, err := r.Former(ctx)
	if err != nil {
		return v, err
	}
	question := h.question(r, user)
	question.Owner = owner
	if returns && h.stillGood(former, &question, &v) {
		r.RestOnFormer()
		r.Keep(former.Kept)
		return v, setData(r, former.Data)
	}
	// The backend continues if the client disconnects, so the question keeps its turn: clients that come
	// and go must not be more questions than the limit.
	v, record, err := h.Backend.Connect(context.WithoutCancel(ctx), question)
	if err != nil {
		return v, err
	}
	if user != "" && v.User != "" && v.User != user {
		return v, &hooks.Error{Outcome: hooks.Failed, Cause: errors.New("answer names another user than the token")}
	}
	if expired(v.Expires) { // otherwise its client would connect, be cut, and reconnect, without end
		return v, &hooks.Error{Outcome: hooks.Failed, Cause: errors.New("the answer has expired")}
	}
	if record != nil {
		r.Keep(append(h.Backend.Mark(credentials(&question)), record...))
	}
	return v, setData(r, v.Data)
}

// credentials returns what a client shows of itself: what it connects with, and the headers. The token
// is not part of it if the node has verified it, so that a client may reconnect with a fresh one.
func credentials(q *hooks.Connect) []byte {
	shown := []any{membersOf(q.Auth, func(name string) bool { return q.User == "" || !strings.EqualFold(name, "token") }), q.Headers}
	text, _ := json.Marshal(shown) // a map has its names in order
	return text
}

// stillGood reports whether the verdict in a session can be used again, and reads it into v.
func (h *Hooks) stillGood(former socketio.Former, q *hooks.Connect, v *hooks.Verdict) bool {
	if len(former.Kept) < hooks.MarkSize || q.User != "" && q.User != former.User {
		return false
	}
	mark, record := former.Kept[:hooks.MarkSize], former.Kept[hooks.MarkSize:]
	if !h.Backend.Marked(mark, credentials(q)) {
		return false
	}
	kept, err := hooks.ReadVerdict(record)
	if err != nil { // of a later release, perhaps
		h.log().Info("verdict of the backend in a session cannot be read", zap.Error(err))
		return false
	}
	if former.Away > kept.Good || expired(kept.Expires) {
		return false
	}
	*v = kept
	return true
}

func (h *Hooks) log() *zap.Logger { return cmp.Or(h.Logger, zap.NewNop()) }

func expired(at time.Time) bool { return !at.IsZero() && !time.Now().Before(at) }

func setData(r *socketio.ConnectRequest, data json.RawMessage) error {
	if data == nil {
		return nil
	}
	return r.SetData(data)
}

// combine returns the identity of a client with a token, or without one the zero Identity, and a
// verdict. The verdict adds rooms, and its permissions prevail.
func (h *Hooks) combine(token auth.Identity, v hooks.Verdict) auth.Identity {
	if !h.Connect {
		return token
	}
	id := auth.Identity{
		User:    cmp.Or(token.User, v.User),
		Rooms:   slices.Concat(token.Rooms, v.Rooms),
		Can:     token.Can,
		Expires: token.Expires,
	}
	switch {
	case v.Can != nil:
		id.Can = *v.Can
	case token.User == "":
		id.Can = h.Default
	}
	if !v.Expires.IsZero() && (id.Expires.IsZero() || v.Expires.Before(id.Expires)) {
		id.Expires = v.Expires
	}
	return id
}

// question returns the question about a connecting client.
func (h *Hooks) question(r *socketio.ConnectRequest, user string) hooks.Connect {
	var payload json.RawMessage
	_ = r.Auth(&payload)
	c := hooks.Connect{
		Namespace: r.Namespace().Name(),
		Socket:    r.ID(),
		User:      user,
		Returning: r.Returning(),
		Auth:      withoutSession(payload),
		Address:   address(r.Handshake().RemoteAddr),
		Transport: r.Transport(),
		Headers:   make(map[string]string),
	}
	for _, name := range h.Headers {
		if values := r.Handshake().Header.Values(name); len(values) > 0 {
			c.Headers[strings.ToLower(name)] = strings.Join(values, ", ")
		}
	}
	return c
}

// withoutSession returns the payload of CONNECT without the private id of the session, which is the
// client's alone, and what belongs to it.
func withoutSession(payload json.RawMessage) json.RawMessage {
	return membersOf(payload, func(name string) bool { return name != "pid" && name != "offset" && name != "recovery" })
}

// membersOf returns a JSON object with some of the members of another one, or nil if there is none.
func membersOf(object json.RawMessage, keep func(name string) bool) json.RawMessage {
	if len(object) == 0 {
		return nil
	}
	b := []byte{'{'}
	for name, value := range packet.Members(object) {
		if !keep(string(name)) {
			continue
		}
		if len(b) > 1 {
			b = append(b, ',')
		}
		b = append(packet.AppendString(b, string(name)), ':')
		b = append(b, value...)
	}
	return append(b, '}')
}

// address returns an address without its port.
func address(remote string) string {
	if a, err := netip.ParseAddrPort(remote); err == nil {
		return a.Addr().Unmap().String()
	}
	return remote
}

// unansweredReply returns the ack for a client whose event was not answered by the backend.
func unansweredReply(e *hooks.Error) failureReply {
	f := failureReply{Code: code(e.Outcome), MayHave: e.MayHave()}
	switch e.Outcome {
	case hooks.Refused:
		return failureReply{Code: code(e.Code), Message: cmp.Or(e.Detail, e.Code)}
	case hooks.Failed:
		f.Message = "the backend's answer was not understood; it has processed the event"
	case hooks.Timeout:
		f.Message = "the backend timed out; it may have processed the event"
	case hooks.Unavailable:
		f.Message = "the backend failed; it may have processed the event"
	case hooks.Busy:
		f.Message = "the backend is busy or unreachable; it has not processed the event"
	default:
		f.Code, f.Message = unavailable, "the node is stopping"
	}
	return f
}

// unansweredQuestion reports whether an error says that the backend has neither answered nor refused.
func unansweredQuestion(err error) bool {
	e := (*hooks.Error)(nil)
	return errors.As(err, &e) && e.Outcome != hooks.Refused
}
