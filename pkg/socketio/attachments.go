package socketio

import (
	"fmt"
	"sync"
	"time"
)

// smallPending is how many bytes of a packet may wait for attachments without being
// counted: little beside what a connection takes.
const smallPending = 4 << 10

// attachmentPatience is how long a packet may wait for attachments before its connection is
// closed rather than those of packets that have just begun, however large they are.
const attachmentPatience = time.Second

// pendingPackets counts the bytes of packets that wait for attachments. If there are too
// many, the connection that holds the most is closed, of those that have waited for some
// time if there are any.
type pendingPackets struct {
	mu      sync.Mutex
	clients map[*client]pendingPacket
	total   int
}

type pendingPacket struct {
	bytes int
	since time.Time
}

// hold says how many bytes a connection holds, and returns the one to close, or nil.
func (p *pendingPackets) hold(c *client, bytes, budget int) (largest *client) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.put(c, bytes)
	if p.total <= budget {
		return nil
	}
	var most pendingPacket
	late := time.Now().Add(-attachmentPatience)
	for other, is := range p.clients {
		waited, longer := is.since.Before(late), most.since.Before(late)
		if largest == nil || waited && !longer || waited == longer && is.bytes > most.bytes {
			largest, most = other, is
		}
	}
	p.put(largest, 0)
	return largest
}

func (p *pendingPackets) release(c *client) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.put(c, 0)
}

// put is for hold and release. p.mu is held.
func (p *pendingPackets) put(c *client, bytes int) {
	was, held := p.clients[c]
	p.total += bytes - was.bytes
	if bytes == 0 {
		delete(p.clients, c)
		return
	}
	if !held {
		was.since = time.Now()
	}
	if p.clients == nil {
		p.clients = make(map[*client]pendingPacket)
	}
	p.clients[c] = pendingPacket{bytes, was.since}
}

// hold counts what the connection's decoder holds, and gives the next attachment a time to
// come. It is called by the reader.
func (c *client) hold(bytes int) error {
	if bytes <= smallPending {
		c.release()
		return nil
	}
	c.holds = true
	within := c.srv.opts.Engine.PingInterval + c.srv.opts.Engine.PingTimeout
	if c.late == nil {
		c.late = time.AfterFunc(within, func() {
			c.limited(limitAttachmentDeadline, int(within.Seconds()), "seconds")
			c.cut()
		})
	} else {
		c.late.Reset(within)
	}
	most := c.srv.opts.AttachmentBudget
	largest := c.srv.pending.hold(c, bytes, most)
	if largest == nil {
		return nil
	}
	largest.limited(limitAttachmentBudget, most, "bytes")
	if largest == c {
		return fmt.Errorf("a packet of more than %d bytes waits for attachments", bytes)
	}
	largest.cut()
	return nil
}

// release says that no packet waits for attachments. It is called by the reader.
func (c *client) release() {
	if c.holds {
		c.holds = false
		c.late.Stop()
		c.srv.pending.release(c)
	}
}
