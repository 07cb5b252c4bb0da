package redis

import (
	"context"
	"crypto/rand"
	_ "embed"
	"fmt"
	"slices"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"go.uber.org/zap"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/adapter/redis/internal/feed"
)

//go:embed publish.lua
var publishSource string

// A call is one execution of the publish script, with the messages sent beside it.
type call struct {
	id       string
	state    callState
	epoch    string
	since    feed.Entry // the newest entry known before its first attempt
	events   []*parcel  // without an answer
	messages []*parcel
}

// runPublisher sends the contents of the outbox, one call at a time.
func (p *partition) runPublisher() {
	var l load
	p.outbox.Serve(l.fits, p.publish)
}

// publish sends parcels, and answers each.
func (p *partition) publish(parcels []*parcel) {
	c := &call{id: rand.Text()[:12], state: callUnsent}
	if p.abandoned != nil {
		c.state = callBehind
	}
	for _, it := range parcels {
		if len(it.Value.rooms) == 0 {
			c.messages = append(c.messages, it)
		} else {
			c.events = append(c.events, it)
		}
	}
	events, began := len(c.events), time.Now()
	err := p.attempts(c)
	p.stats.called(events, time.Since(began))
	if err == nil {
		p.stats.events.Add(uint64(events))
		return
	}
	for _, it := range parcels {
		it.Fail(err)
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// attempt sends a call on a link.
func (p *partition) attempt(ctx context.Context, l *link, c *call) error {
	if len(c.events) > 0 && c.epoch == "" {
		epoch, known, err := p.where(ctx)
		if err != nil {
			return err
		}
		c.epoch, c.since = epoch, known
	}
	for loaded := false; ; loaded = true {
		err := p.execute(ctx, l, c)
		if err == nil || loaded || !goredis.HasErrorPrefix(err, "NOSCRIPT") {
			return err
		}
		if err := p.pubsub.script(l).Load(ctx, l.conn).Err(); err != nil {
			return err
		}
	}
}

// execute makes the round trip, and answers the callers that it settles.
func (p *partition) execute(ctx context.Context, l *link, c *call) error {
	given := func(it *parcel) bool { return !it.Begin() }
	c.events, c.messages = slices.DeleteFunc(c.events, given), slices.DeleteFunc(c.messages, given)
	if len(c.events)+len(c.messages) == 0 {
		return nil
	}
	pipe := l.conn.Pipeline()
	var done *goredis.Cmd
	if len(c.events) > 0 {
		keys, args := p.arguments(c)
		if l.server.fence != "" {
			keys = append(keys, l.server.fence)
		}
		done = pipe.EvalSha(ctx, p.pubsub.script(l).Hash(), keys, args...)
	}
	sent := make([]*goredis.IntCmd, len(c.messages))
	for i, it := range c.messages {
		sent[i] = p.pubsub.sendOn(ctx, l, pipe, it.Value.inbox, it.Value.payload)
	}
	_, cause := pipe.Exec(ctx)
	silent := cause != nil && !isReply(cause)
	for i, it := range c.messages { // they are sent once or not at all
		switch n, err := sent[i].Result(); {
		case silent:
			it.Fail(cause)
		case err != nil:
			it.Fail(err)
		case n == 0:
			it.Answer(outcome{err: adapter.ErrNoNode}, nil)
		default:
			it.Answer(outcome{}, nil)
		}
	}
	c.messages = nil
	if silent {
		return cause
	}
	if done == nil {
		return nil
	}
	reply, err := done.Slice()
	if goredis.HasErrorPrefix(err, "NOCLOCK") {
		return errNoClock
	}
	if err != nil {
		return err
	}
	return p.answer(c, reply)
}

func (p *partition) arguments(c *call) (keys []string, args []any) {
	now := time.Now().UnixMilli()
	if c.since.Ms > 0 { // by Redis' own clock, which is decisive
		now = int64(c.since.Ms)
	}
	base := p.names.in(c.epoch)
	keys = append(make([]string, 0, 4+len(c.events)), p.names.clock(c.epoch), base+listsName, p.names.sizes(c.epoch))
	args = append(make([]any, 0, 5+4*len(c.events)), c.id, max(now-p.keep.Milliseconds(), 0),
		2*max(p.limit, 1), p.life.Milliseconds(), max(now-p.life.Milliseconds(), 0))
	for _, it := range c.events {
		e := &it.Value
		if e.once != nil {
			keys = append(keys, p.names.once(c.epoch, e.once.ID))
		}
		for _, room := range e.rooms {
			keys = append(keys, base+room)
		}
		args = append(args, e.payload, e.how(p.limit > 0), len(e.rooms), e.lists)
	}
	return keys, args
}

// answer returns the positions of the events to their callers.
func (p *partition) answer(c *call, reply []any) error {
	if len(reply) != 1+len(c.events) {
		return fmt.Errorf("adapter/redis: publish: %d events, but %d values in the reply", len(c.events), len(reply))
	}
	id, _ := reply[0].(string)
	ms, seq, err := parseID(id)
	if err != nil {
		return fmt.Errorf("adapter/redis: publish: reply begins with %q", id)
	}
	e := feed.Entry{Ms: ms, Seq: seq, Call: c.id}
	p.observe(c.epoch, e)
	p.settled(c, e, func(i int) (x execution) {
		switch v := reply[1+i].(type) {
		case int64:
			x.receivers = int(v)
		case []any:
			x.table(v)
		case string:
			x.failure = v
		}
		return x
	})
	return nil
}

// An execution is what the script has done with one event.
type execution struct {
	reached
	failure string    // the key that could not be written, and why
	once    *formerly // what its once key says, if that is known
}

// A formerly is the value of a once key, "" if there is none, and its TTL in milliseconds.
type formerly struct {
	value string
	ttl   int64
}

// table reads a reply for an event that is a table.
func (x *execution) table(v []any) {
	if len(v) != 2 {
		return
	}
	number, _ := v[1].(int64)
	switch first := v[0].(type) {
	case string: // it was published before
		x.once = &formerly{first, number}
	case int64: // some rooms are new
		x.reached = reached{int(first), int(number)}
	}
}

// settled answers the callers of events. result returns the execution of the event with an index.
func (p *partition) settled(c *call, e feed.Entry, result func(int) execution) {
	for i, it := range c.events {
		x := result(i)
		o := outcome{cursor: adapter.Cursor{Epoch: c.epoch, At: e.Position(p.number, i)}, reached: x.reached}
		switch {
		case x.failure != "":
			p.stats.notStored.Add(1)
			p.sampled.Warn("event not stored; other events are not affected", zap.String("cause", x.failure))
			o = notStored(&it.Value, x.failure)
		case x.once != nil:
			o = p.former(&it.Value, o, *x.once)
		}
		it.Answer(o, nil)
	}
	c.events = nil
}

func notStored(e *content, failure string) outcome {
	err := adapter.ErrUnavailable // other rooms may have stored it
	if len(e.rooms) == 1 {
		err = adapter.ErrNotPublished
	}
	return outcome{err: fmt.Errorf("%w: %s", err, failure)}
}

func parseEntry(m goredis.XMessage) (feed.Entry, error) {
	ms, seq, err := parseID(m.ID)
	if err != nil {
		return feed.Entry{}, fmt.Errorf("adapter/redis: malformed clock entry %q", m.ID)
	}
	call, _ := m.Values["c"].(string)
	return feed.Entry{Ms: ms, Seq: seq, Call: call}, nil
}
