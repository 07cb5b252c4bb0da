package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"testing"

	"github.com/rejoin-io/rejoin/pkg/socketio"
)

// TestServerRequestsAcks: stock clients acknowledge events of a server. The built-in
// application requests no acks, so the server is the library's.
func TestServerRequestsAcks(t *testing.T) {
	t.Parallel()
	forVersions(t, func(t *testing.T, version string) {
		io, err := socketio.NewServer(socketio.Options{})
		if err != nil {
			t.Fatal(err)
		}
		answers := make(chan string, 1)
		io.OnConnect(func(s *socketio.Socket) {
			s.On("ask me", func(_ context.Context, e *socketio.Event) error {
				args := e.Rest(0)
				go func() { // ends with the answer, or with the socket
					answer, err := s.EmitWithAck(s.Context(), "question", args...)
					if err != nil {
						answers <- err.Error()
						return
					}
					values, err := answer.Values()
					text, jsonErr := json.Marshal(values)
					answers <- fmt.Sprint(string(text), err, jsonErr)
				}()
				return nil
			})
		})
		front := httptest.NewServer(io)
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			if err := io.Close(ctx); err != nil {
				t.Error(err)
			}
			front.Close()
		})
		d := startDriver(t)
		for name, options := range transports {
			s := d.open(name, version, front.URL, options)
			s.emit("ask me", "why", map[string]any{"n": 1}, bytesArg("c0ffee"))
			if r := s.next("question"); !r.Asked || len(r.Args) != 3 {
				t.Errorf("%s: asked %v", name, r)
			}
			select {
			case got := <-answers: // bytes are base64 in plain JSON
				if want := `["why",{"n":1},"wP/u"]<nil> <nil>`; got != want {
					t.Errorf("%s: answered %s, want %s", name, got, want)
				}
			case <-t.Context().Done():
				t.Fatal("no answer")
			}
			s.must("disconnect", nil)
		}
	})
}
