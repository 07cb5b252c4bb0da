package socketio_test

import (
	"context"
	"encoding/json"
	"log"
	"net/http/httptest"
	"strings"

	"github.com/gorilla/websocket"

	"github.com/rejoin-io/rejoin/pkg/socketio"
)

// A minimal client for the examples, in place of the npm package socket.io-client.

// A site is a server on a free port, and its guests.
type site struct {
	srv    *socketio.Server
	front  *httptest.Server
	guests []*guest
}

func serve(srv *socketio.Server) *site { return &site{srv: srv, front: httptest.NewServer(srv)} }

func (s *site) close() {
	for _, g := range s.guests {
		g.cut()
	}
	if err := s.srv.Close(context.Background()); err != nil {
		log.Print(err)
	}
	s.front.Close()
}

// connect connects a client to a namespace.
func (s *site) connect(namespace string, auth map[string]any) *guest {
	g, refusal := s.try(namespace, auth)
	if refusal != "" {
		log.Panic(refusal)
	}
	return g
}

// try is connect for a client that the server may refuse, and returns the outcome.
func (s *site) try(namespace string, auth map[string]any) (_ *guest, refusal string) {
	ws, _, err := websocket.DefaultDialer.Dial("ws://"+s.front.Listener.Addr().String()+"/socket.io/?recovery=true&EIO=4&transport=websocket", nil)
	if err != nil {
		log.Panic(err)
	}
	if auth == nil {
		auth = map[string]any{}
	}
	g := &guest{ws: ws, auth: auth}
	s.guests = append(s.guests, g)
	if namespace != "/" {
		g.namespace = namespace + ","
	}
	g.read() // the handshake
	g.write("40" + g.namespace + encoded(auth))
	answer := g.read()
	var body struct{ SID, PID, Message string }
	if err := json.Unmarshal([]byte(answer[len("40"+g.namespace):]), &body); err != nil {
		log.Panic(err)
	}
	g.id, g.auth["pid"] = body.SID, body.PID
	return g, body.Message
}

// A guest is a client in one namespace. It keeps its private id and offset for a recovery,
// as the stock client does.
type guest struct {
	ws        *websocket.Conn
	namespace string // as packets have it
	id        string
	auth      map[string]any // to connect or to recover
}

func (g *guest) read() string {
	_, text, err := g.ws.ReadMessage()
	if err != nil {
		log.Panic(err)
	}
	return string(text)
}

func (g *guest) write(text string) {
	if err := g.ws.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
		log.Panic(err)
	}
}

// emit sends an event.
func (g *guest) emit(event ...any) { g.write("42" + g.namespace + encoded(event)) }

// ask sends an event and returns the ack.
func (g *guest) ask(event ...any) string {
	g.write("42" + g.namespace + "0" + encoded(event))
	return strings.TrimPrefix(g.read(), "43"+g.namespace+"0")
}

// hear returns the next event without its offset, which it remembers.
func (g *guest) hear() string {
	var args []any
	if err := json.Unmarshal([]byte(strings.TrimPrefix(g.read(), "42"+g.namespace)), &args); err != nil {
		log.Panic(err)
	}
	g.auth["offset"] = args[len(args)-1]
	return encoded(args[:len(args)-1])
}

// answer acks the next event, which requests it, with its own arguments.
func (g *guest) answer() {
	rest := strings.TrimPrefix(g.read(), "42"+g.namespace)
	id, data, _ := strings.Cut(rest, "[")
	var args []any
	if err := json.Unmarshal([]byte("["+data), &args); err != nil {
		log.Panic(err)
	}
	g.write("43" + g.namespace + id + encoded(args[1:]))
}

// cut drops the connection without a close.
func (g *guest) cut() { _ = g.ws.NetConn().Close() }

func encoded(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		log.Panic(err)
	}
	return string(b)
}
