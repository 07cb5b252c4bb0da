package hooks

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/rejoin-io/rejoin/internal/auth"
	"github.com/rejoin-io/rejoin/internal/strict"
)

// typeConnect is the type of the question whether a client may connect.
const typeConnect = "rejoin.connect"

// A Connect is the question whether a client may connect, and what it may do.
type Connect struct {
	// Owner has a bounded number of questions that wait: the client's address. "" for any number.
	Owner string `json:"-"`

	Namespace string          `json:"namespace"`
	Socket    string          `json:"socket"`    // the id that it gets unless it is recovered
	User      string          `json:"user"`      // of its verified token; "" without tokens
	Returning bool            `json:"returning"` // it states that it has a session, which may be recovered
	Auth      json.RawMessage `json:"auth"`      // what it connects with, without what belongs to the server
	Address   string          `json:"address"`   // of the client, without the port
	Transport string          `json:"transport"`
	// Headers are those of its first request that the configuration names, in lower case.
	Headers map[string]string `json:"headers"`
}

// A Verdict is the answer: what a token would state.
type Verdict struct {
	User    string            // "" for a client without a user, or for that of the token
	Rooms   []string          // that the client is in from the start
	Can     *auth.Permissions // nil for the default
	Data    json.RawMessage   // of a new socket; nil for none
	Expires time.Time         // when the connection ends; zero for never
	// Good is for how long after its connection was lost the client may reconnect without a question.
	Good time.Duration
}

// maxGood bounds Good, so that it does not overflow.
const maxGood = 24 * time.Hour

// verdict is the form of a Verdict in an answer and, without its data, in a session.
type verdict struct {
	User    *string         `json:"user"`
	Rooms   []string        `json:"rooms"`
	Can     json.RawMessage `json:"can"`
	Data    json.RawMessage `json:"data"`
	Expires *int64          `json:"expires"` // Unix time in seconds
	Good    *int64          `json:"good"`    // seconds
}

// Connect asks whether a client may connect. record is the verdict in the form for [ReadVerdict]; it is
// nil if the verdict is good for this connection only.
func (b *Backend) Connect(ctx context.Context, c Connect) (v Verdict, record []byte, err error) {
	q := &question{kind: typeConnect, id: newID(), subject: c.Namespace, owner: c.Owner}
	err = b.ask(ctx, q, struct {
		Type string `json:"type"`
		ID   string `json:"id"`
		Connect
	}{q.kind, q.id, c}, func(a answer) error {
		if a.status != http.StatusOK {
			return fmt.Errorf("status %d: a client is admitted with 200 and an object", a.status)
		}
		var err error
		v, record, err = parseVerdict(a.body)
		return err
	})
	return v, record, err
}

func parseVerdict(text []byte) (Verdict, []byte, error) {
	var raw verdict
	if err := strict.Decode(text, &raw); err != nil {
		return Verdict{}, nil, err
	}
	v, err := raw.check()
	if err != nil || v.Good <= 0 {
		return v, nil, err
	}
	raw.Data = nil // is in the session anyway
	record, err := encode(&raw)
	return v, record, err
}

func (raw *verdict) check() (v Verdict, err error) {
	if raw.User != nil {
		if err := auth.CheckUser(*raw.User); err != nil {
			return v, fmt.Errorf("user %w", err)
		}
		v.User = *raw.User
	}
	if err := auth.CheckRooms(raw.Rooms); err != nil {
		return v, fmt.Errorf("rooms: %w", err)
	}
	v.Rooms = raw.Rooms
	if isSet(raw.Can) {
		can, err := auth.ParsePermissions(string(raw.Can))
		if err != nil {
			return v, fmt.Errorf("can: %w", err)
		}
		v.Can = &can
	}
	if isSet(raw.Data) {
		v.Data = raw.Data
	}
	if raw.Expires != nil {
		if *raw.Expires <= 0 || *raw.Expires > lastSecond {
			return v, fmt.Errorf("expires must be a Unix time in seconds")
		}
		v.Expires = time.Unix(*raw.Expires, 0)
	}
	if raw.Good != nil {
		if *raw.Good < 0 {
			return v, fmt.Errorf("good must be a number of seconds")
		}
		v.Good = time.Duration(min(*raw.Good, int64(maxGood/time.Second))) * time.Second
	}
	return v, nil
}

// lastSecond is the end of the year 9999.
const lastSecond = 253402300799

func isSet(raw json.RawMessage) bool { return len(raw) > 0 && string(raw) != "null" }

// ReadVerdict reads a record of [Backend.Connect].
func ReadVerdict(record []byte) (Verdict, error) {
	v, _, err := parseVerdict(record)
	return v, err
}
