package sioclient

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/gorilla/websocket"
)

// take handles one frame.
func (c *Client) take(conn *websocket.Conn, text string, connected bool) error {
	switch {
	case text == "2":
		c.alive(conn)
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
