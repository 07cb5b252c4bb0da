// Package sioclient is a Socket.IO client for tests that need hundreds of them.
// In everything that decides about recovery it does what the stock client does:
// events that come before CONNECT wait for it, across connections; and the
// offset moves after the handler of an event has returned, and only then.
package sioclient

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

// Options say what a client wants.
type Options struct {
	URL       string         // ws://host:port
	Namespace string         // "" is the main one
	Auth      map[string]any // sent with CONNECT
	OnEvent   func(Event)    // called for one event after another; nil ignores them
}

// An Event is what the server emitted. The last argument is the offset, where
// the server sends one.
type Event struct {
	Name string
	Args []json.RawMessage
}

// ErrDisconnected: the connection ended before the answer came.
var ErrDisconnected = errors.New("sioclient: disconnected")

// A Client is one socket on a WebSocket of its own. Connect and Cut have one
// caller at a time; the other methods may be called by anyone.
type Client struct {
	o Options

	reading sync.WaitGroup

	mu        sync.Mutex
	conn      *websocket.Conn
	id        string
	pid       string
	offset    string
	recovered bool
	early     []Event // came before CONNECT
	lastAsk   int
	asks      map[string]chan []json.RawMessage
}

// New returns a client that is not connected yet.
func New(o Options) *Client {
	return &Client{o: o, asks: map[string]chan []json.RawMessage{}}
}

// Connect opens a connection and joins the namespace, with what the client knows
// from earlier connections. It returns once the server has answered; a refusal
// is an error with the server's message.
func (c *Client) Connect(ctx context.Context) error {
	conn, _, err := websocket.DefaultDialer.DialContext(ctx, c.o.URL+"/socket.io/?EIO=4&transport=websocket", nil)
	if err != nil {
		return err
	}
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetReadDeadline(deadline)
	}
	if err := c.join(conn); err != nil {
		_ = conn.Close()
		return err
	}
	_ = conn.SetReadDeadline(time.Time{})
	c.reading.Go(func() { c.read(conn) })
	return nil
}

// join waits for the CONNECT to be answered.
func (c *Client) join(conn *websocket.Conn) error {
	auth := map[string]any{}
	for k, v := range c.o.Auth {
		auth[k] = v
	}
	c.mu.Lock()
	if c.pid != "" {
		auth["pid"] = c.pid
		if c.offset != "" {
			auth["offset"] = c.offset
		}
	}
	c.mu.Unlock()
	payload, err := json.Marshal(auth)
	if err != nil {
		return err
	}
	if err := conn.WriteMessage(websocket.TextMessage, []byte("40"+c.prefix()+string(payload))); err != nil {
		return err
	}
	for {
		_, frame, err := conn.ReadMessage()
		if err != nil {
			return err
		}
		text := string(frame)
		switch {
		case strings.HasPrefix(text, "40"):
			return c.connected(conn, text[2:])
		case strings.HasPrefix(text, "44"):
			return fmt.Errorf("sioclient: refused: %s", text[2:])
		default:
			if err := c.take(conn, text, false); err != nil {
				return err
			}
		}
	}
}

func (c *Client) connected(conn *websocket.Conn, answer string) error {
	var who struct{ SID, PID string }
	if err := json.Unmarshal([]byte(strings.TrimPrefix(answer, c.prefix())), &who); err != nil {
		return err
	}
	c.mu.Lock()
	c.conn, c.id = conn, who.SID
	c.recovered = who.PID != "" && who.PID == c.pid
	c.pid = who.PID
	early := c.early
	c.early = nil
	c.mu.Unlock()
	for _, e := range early {
		c.handle(e)
	}
	return nil
}

// prefix names the namespace in a packet.
func (c *Client) prefix() string {
	if c.o.Namespace == "" || c.o.Namespace == "/" {
		return ""
	}
	return c.o.Namespace + ","
}

func (c *Client) read(conn *websocket.Conn) {
	for {
		_, frame, err := conn.ReadMessage()
		if err == nil {
			err = c.take(conn, string(frame), true)
		}
		if err != nil {
			_ = conn.Close()
			break
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn == conn {
		c.conn = nil
	}
	for id, waiting := range c.asks {
		close(waiting)
		delete(c.asks, id)
	}
}

// take handles one frame.
func (c *Client) take(conn *websocket.Conn, text string, connected bool) error {
	switch {
	case text == "2":
		return c.write(conn, "3")
	case strings.HasPrefix(text, "42"):
		_, body := c.split(text[2:])
		var args []json.RawMessage
		if err := json.Unmarshal([]byte(body), &args); err != nil {
			return fmt.Errorf("sioclient: %q: %w", text, err)
		}
		e := Event{Args: args[1:]}
		if err := json.Unmarshal(args[0], &e.Name); err != nil {
			return err
		}
		if !connected {
			c.mu.Lock()
			c.early = append(c.early, e)
			c.mu.Unlock()
			return nil
		}
		c.handle(e)
	case strings.HasPrefix(text, "43"):
		id, body := c.split(text[2:])
		var args []json.RawMessage
		if err := json.Unmarshal([]byte(body), &args); err != nil {
			return fmt.Errorf("sioclient: %q: %w", text, err)
		}
		c.mu.Lock()
		waiting := c.asks[id]
		delete(c.asks, id)
		c.mu.Unlock()
		if waiting != nil {
			waiting <- args
		}
	}
	return nil
}

// split takes a packet's id off its JSON.
func (c *Client) split(packet string) (id, body string) {
	packet = strings.TrimPrefix(packet, c.prefix())
	n := strings.IndexByte(packet, '[')
	return packet[:max(n, 0)], packet[max(n, 0):]
}

func (c *Client) handle(e Event) {
	if c.o.OnEvent != nil {
		c.o.OnEvent(e)
	}
	if len(e.Args) == 0 {
		return
	}
	var offset string
	if json.Unmarshal(e.Args[len(e.Args)-1], &offset) == nil {
		c.mu.Lock()
		if c.pid != "" {
			c.offset = offset
		}
		c.mu.Unlock()
	}
}

func (c *Client) write(conn *websocket.Conn, text string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return conn.WriteMessage(websocket.TextMessage, []byte(text))
}

// Emit sends an event.
func (c *Client) Emit(event string, args ...any) error {
	return c.send("", event, args)
}

// Ask emits and waits for the acknowledgement.
func (c *Client) Ask(ctx context.Context, event string, args ...any) ([]json.RawMessage, error) {
	c.mu.Lock()
	c.lastAsk++
	id, waiting := strconv.Itoa(c.lastAsk), make(chan []json.RawMessage, 1)
	c.asks[id] = waiting
	c.mu.Unlock()
	if err := c.send(id, event, args); err != nil {
		return nil, err
	}
	select {
	case answer, ok := <-waiting:
		if !ok {
			return nil, ErrDisconnected
		}
		return answer, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("sioclient: %s: no answer: %w", event, ctx.Err())
	}
}

func (c *Client) send(id, event string, args []any) error {
	body, err := json.Marshal(append([]any{event}, args...))
	if err != nil {
		return err
	}
	c.mu.Lock()
	conn := c.conn
	c.mu.Unlock()
	if conn == nil {
		return ErrDisconnected
	}
	return c.write(conn, "42"+c.prefix()+id+string(body))
}

// Cut resets the connection, as a network does, and returns once no more events
// come from it.
func (c *Client) Cut() {
	c.mu.Lock()
	conn := c.conn
	c.mu.Unlock()
	if conn != nil {
		if tcp, ok := conn.NetConn().(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		_ = conn.Close()
	}
	c.reading.Wait()
}

// ID returns the socket's public id.
func (c *Client) ID() string { return locked(c, func() string { return c.id }) }

// Offset returns what the client will say that it has received.
func (c *Client) Offset() string { return locked(c, func() string { return c.offset }) }

// Recovered says whether the last connection went on where the one before ended.
func (c *Client) Recovered() bool { return locked(c, func() bool { return c.recovered }) }

// Connected says whether there is a connection now.
func (c *Client) Connected() bool { return locked(c, func() bool { return c.conn != nil }) }

func locked[T any](c *Client, get func() T) T {
	c.mu.Lock()
	defer c.mu.Unlock()
	return get()
}
