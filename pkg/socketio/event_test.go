package socketio

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/rejoin-io/rejoin/pkg/packet"
)

// Bind requires all requested arguments, and Arg none.
func TestMissingArguments(t *testing.T) {
	args := Args{raw: []json.RawMessage{[]byte(`"a"`), []byte(`null`)}}
	x, y, z := "x", "y", "z"
	if err := args.Bind(&x, &y); err != nil || x != "a" || y != "y" {
		t.Errorf("got %q, %q and error %v, want the argument and the former value for null", x, y, err)
	}
	x = "x"
	err := args.Bind(&x, &y, &z)
	if !errors.Is(err, ErrMissingArgument) || !strings.Contains(err.Error(), "argument 2: got 2 arguments, want 3") {
		t.Errorf("got error %v, want ErrMissingArgument with the index", err)
	}
	if x != "x" {
		t.Errorf(`Bind decoded %q before it failed, want "x"`, x)
	}
	if err := args.Arg(2, &z); err != nil || z != "z" {
		t.Errorf(`Arg made it %q, error %v, want "z"`, z, err)
	}
	if err := (Args{}).Bind(); err != nil {
		t.Errorf("nothing asked for: %v", err)
	}
}

// All arguments can be forwarded as one array, with their binary parts.
func TestArgumentsAsAnArray(t *testing.T) {
	for want, args := range map[string]Args{
		`[]`:        {},
		`[1,["a"]]`: {raw: []json.RawMessage{[]byte(`1`), []byte(`["a"]`)}},
		`[{"_placeholder":true,"num":0}]`: {
			raw: []json.RawMessage{[]byte(`{"_placeholder":true,"num":1}`)}, attachments: [][]byte{nil, []byte("b")},
		},
	} {
		text, attachments, err := packet.AppendArgs(nil, args.Array())
		if err != nil || string(text) != want || len(attachments) != strings.Count(want, "num") {
			t.Errorf("got %s with %d attachments, %v, want %s", text, len(attachments), err, want)
		}
	}
}

// An argument that the client sent as a string is not taken for base64.
func TestTextIsNotBinary(t *testing.T) {
	n := start(t, Options{})
	joining(n.Namespace)
	n.On("bytes", func(_ context.Context, e *Event) error {
		var plain []byte
		var binary packet.Binary
		return e.Ack(fmt.Sprint(e.Bind(&plain) == nil, e.Bind(&binary) == nil), plain)
	})
	w := n.client(t)
	if got := w.call(`["bytes","abcd"]`); got != `["false false",null]` {
		t.Errorf("a string: acked %s, want %s", got, `["false false",null]`)
	}
	w.write(`451-7["bytes",{"_placeholder":true,"num":0}]`)
	w.mu.Lock()
	err := w.ws.WriteMessage(2, []byte("abcd"))
	w.mu.Unlock()
	must(t, err)
	if got := w.next(); got != `461-7["true true",{"_placeholder":true,"num":0}]` {
		t.Errorf("binary data: acked %s, want %s", got, `461-7["true true",{"_placeholder":true,"num":0}]`)
	}
}

// The name set by middlewares determines the handlers of an event: those of the socket,
// once or always, and those of the namespace.
func TestRenamedEvent(t *testing.T) {
	n := start(t, Options{})
	joining(n.Namespace)
	var called []string // by one goroutine, and read after it
	note := func(text, name string) Handler {
		return func(_ context.Context, e *Event) error {
			called = append(called, text+" "+name+" "+e.Name)
			return nil
		}
	}
	for _, name := range []string{"old", "new"} {
		n.On(name, note("namespace", name))
	}
	n.OnAny(note("any", "*"))
	n.OnConnect(func(s *Socket) {
		for _, name := range []string{"old", "new"} {
			s.On(name, note("socket", name))
			s.Once(name, note("once", name))
		}
		s.Use(func(_ context.Context, e *Event) error {
			switch e.Name {
			case "old":
				e.Name = "new"
			case "refused":
				e.Name = "old"
				return errors.New("refused")
			}
			return nil
		})
	})
	w := n.client(t)
	w.write(`42["refused"]`)
	w.write(`42["old"]`)
	w.quiet()
	want := []string{"any * refused", "any * old", "once new new", "socket new new", "namespace new new", "any * ping me"}
	if !slices.Equal(called, want) {
		t.Errorf("called %q\nwant   %q", called, want)
	}
}
