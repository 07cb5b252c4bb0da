package socketio_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"net"
	"net/http/httptest"
	"strings"

	"github.com/gorilla/websocket"

	"github.com/rejoin-io/rejoin/pkg/socketio"
)

// What the examples need of a client; in earnest that is the npm package
// socket.io-client.

// serve runs a server on a free port, and returns its address and how to end it.
func serve(srv *socketio.Server) (addr string, end func()) {
	front := httptest.NewServer(srv)
	return front.Listener.Addr().String(), func() {
		if err := srv.Close(context.Background()); err != nil {
			log.Print(err)
		}
		front.Close()
	}
}

// A guest is a client in one namespace. A guest remembers what it takes to come
// back, as the stock client does.
type guest struct {
	ws        *websocket.Conn
	namespace string
	id        string
	auth      map[string]any
}

// connect connects to a namespace. The error is the server's refusal.
func connect(addr, namespace string, auth map[string]any) (*guest, error) {
	ws, _, err := websocket.DefaultDialer.Dial("ws://"+addr+"/socket.io/?EIO=4&transport=websocket", nil)
	if err != nil {
		return nil, err
	}
	if auth == nil {
		auth = map[string]any{}
	}
	g := &guest{ws: ws, auth: auth}
	if namespace != "/" {
		g.namespace = namespace + ","
	}
	payload, err := json.Marshal(auth)
	if err != nil {
		return nil, err
	}
	g.read() // the handshake
	g.write("40" + g.namespace + string(payload))
	answer := g.read()
	var body struct{ SID, PID, Message string }
	if err := json.Unmarshal([]byte(answer[len("40"+g.namespace):]), &body); err != nil {
		return nil, err
	}
	if strings.HasPrefix(answer, "44") {
		ws.Close()
		return nil, fmt.Errorf("connect_error: %s", body.Message)
	}
	g.id, g.auth["pid"] = body.SID, body.PID
	return g, nil
}

// must is connect where nobody is refused.
func must(g *guest, err error) *guest {
	if err != nil {
		log.Panic(err)
	}
	return g
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

// answer acks the next event, which asks for it, with its own arguments.
func (g *guest) answer() {
	rest := strings.TrimPrefix(g.read(), "42"+g.namespace)
	id, data, _ := strings.Cut(rest, "[")
	var args []any
	if err := json.Unmarshal([]byte("["+data), &args); err != nil {
		log.Panic(err)
	}
	g.write("43" + g.namespace + id + encoded(args[1:]))
}

// cut loses the connection without a goodbye.
func (g *guest) cut() { _ = g.ws.NetConn().(*net.TCPConn).Close() }

func encoded(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		log.Panic(err)
	}
	return string(b)
}
