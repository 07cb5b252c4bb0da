package hooks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"
	"unicode/utf8"

	"github.com/rejoin-io/rejoin/internal/auth"
	"github.com/rejoin-io/rejoin/internal/limit"
	"github.com/rejoin-io/rejoin/internal/strict"
)

// typeEvent is the type of the question what to do with an event.
const typeEvent = "rejoin.event"

// An Event is the question what to do with an event of a client.
type Event struct {
	// ID is that of the question, if the client has named its event: see [NamedID]. "" otherwise.
	ID string `json:"-"`
	// Owner has a bounded number of questions that wait: the client's user, or its address. "" for
	// any number.
	Owner string `json:"-"`

	Namespace   string          `json:"namespace"`
	Socket      Socket          `json:"socket"`
	Event       string          `json:"event"`
	Args        json.RawMessage `json:"args"`        // an array, with placeholders for binary data, as in packets
	Attachments [][]byte        `json:"attachments"` // the binary data
	Ack         bool            `json:"ack"`         // the client requests an ack
}

// A Socket describes the client that has sent an event.
type Socket struct {
	ID        string          `json:"id"`
	User      string          `json:"user"`
	Rooms     []string        `json:"rooms"` // nil if there are too many to list
	RoomCount int             `json:"roomCount"`
	Data      json.RawMessage `json:"data"`
	Address   string          `json:"address"`
}

// A Reply is the answer: what to do, in this order. The zero value acks.
type Reply struct {
	Leave, Join []string
	Data        json.RawMessage // nil leaves it unchanged
	Emits       []Emit
	Ack         []json.RawMessage // arguments of the ack; nil for the default
	Error       *Refusal          // instead of all others: the ack reports it
	Disconnect  bool
}

// An Emit is an event to be sent. Its body is that of the API's emit.
type Emit struct {
	Self       bool // to the client itself, instead of receivers in the body
	ExceptSelf bool
	Body       json.RawMessage // without self and exceptSelf
}

// A Refusal is an error for the client.
type Refusal struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// Limits of a reply.
const (
	maxRooms = 1000 // in each list
	maxEmits = 500
	maxRoom  = 200 // bytes of a name
	maxArgs  = 100 // of an ack
)

// Event asks what to do with an event.
func (b *Backend) Event(ctx context.Context, e Event) (r Reply, err error) {
	q := &question{kind: typeEvent, id: e.ID, subject: e.Namespace, owner: e.Owner, named: e.ID != ""}
	if !q.named {
		q.id = newID()
	}
	err = b.ask(ctx, q, struct {
		Type string `json:"type"`
		ID   string `json:"id"`
		Event
	}{q.kind, q.id, e}, func(a answer) error {
		if a.status == http.StatusNoContent {
			return nil
		}
		var err error
		r, err = parseReply(a.body)
		return err
	})
	return r, err
}

// Late returns an error, and counts it, if an event that was received at a time has waited behind the
// client's earlier ones for longer than a question may take: the socket's backend is too slow for its
// client. The client must learn of that soon, so no question is asked.
func (b *Backend) Late(received time.Time) error {
	if time.Since(received) <= b.timeout {
		return nil
	}
	b.tally.Refuse(limit.HookLag, "event for the backend refused")
	b.metrics.questions.WithLabelValues(typeEvent, string(Busy)).Inc()
	return &Error{Outcome: Busy, Cause: errLate}
}

var errLate = errors.New("client's earlier events timed out")

func parseReply(text []byte) (r Reply, err error) {
	var raw struct {
		Leave      []string           `json:"leave"`
		Join       []string           `json:"join"`
		Data       json.RawMessage    `json:"data"`
		Emits      []json.RawMessage  `json:"emits"`
		Ack        *[]json.RawMessage `json:"ack"`
		Error      *Refusal           `json:"error"`
		Disconnect bool               `json:"disconnect"`
	}
	if err := strict.Decode(text, &raw); err != nil {
		return r, err
	}
	if raw.Error != nil {
		if raw.Leave != nil || raw.Join != nil || raw.Data != nil || raw.Emits != nil || raw.Ack != nil || raw.Disconnect {
			return r, errors.New("error excludes everything else")
		}
		r.Error = raw.Error
		return r, checkReason(raw.Error.Code, raw.Error.Message)
	}
	for name, rooms := range map[string][]string{"leave": raw.Leave, "join": raw.Join} {
		if err := checkRooms(rooms); err != nil {
			return r, fmt.Errorf("%s: %w", name, err)
		}
	}
	r.Leave, r.Join, r.Data, r.Disconnect = raw.Leave, raw.Join, raw.Data, raw.Disconnect
	if len(raw.Emits) > maxEmits {
		return r, fmt.Errorf("emits has more than %d elements", maxEmits)
	}
	for i, text := range raw.Emits {
		e, err := parseEmit(text)
		if err != nil {
			return r, fmt.Errorf("emit %d: %w", i, err)
		}
		r.Emits = append(r.Emits, e)
	}
	if raw.Ack != nil {
		if r.Ack = *raw.Ack; len(r.Ack) > maxArgs {
			return r, fmt.Errorf("ack has more than %d elements", maxArgs)
		}
	}
	return r, nil
}

// parseEmit takes apart what only a reply may have. The rest is checked by the API's own rules.
func parseEmit(text json.RawMessage) (e Emit, err error) {
	members, err := strict.Members(text)
	if err != nil {
		return e, err
	}
	for name, into := range map[string]*bool{"self": &e.Self, "exceptSelf": &e.ExceptSelf} {
		if value, there := members[name]; there {
			if err := json.Unmarshal(value, into); err != nil {
				return e, fmt.Errorf("%s must be true or false", name)
			}
			delete(members, name)
		}
	}
	if e.Self && e.ExceptSelf {
		return e, errors.New("self excludes exceptSelf")
	}
	e.Body, err = encode(members)
	return e, err
}

func checkRooms(rooms []string) error {
	if len(rooms) > maxRooms {
		return fmt.Errorf("more than %d rooms", maxRooms)
	}
	for _, name := range rooms {
		if name == "" || len(name) > maxRoom || !utf8.ValidString(name) {
			return fmt.Errorf("names are 1 to %d bytes of UTF-8", maxRoom)
		}
		if auth.OfUser(name) {
			return errors.New("rooms of users have all connections of their users, and no others")
		}
	}
	return nil
}
