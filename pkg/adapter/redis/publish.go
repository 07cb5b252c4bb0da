package redis

import (
	"context"
	"crypto/rand"
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"go.uber.org/zap"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/adapter/redis/internal/feed"
)

//go:embed publish.lua
var publishSource string

var errNoClock = errors.New("adapter/redis: clock missing")

// A call is one execution of the publish script, with the messages sent beside it.
type call struct {
	id       string
	epoch    string
	since    feed.Entry // the newest entry known before its first attempt
	events   []*parcel
	messages []*parcel
	until    time.Time
	doubtful bool // an attempt may have been executed
	tried    bool // one was doubtful once: a lost history can't be searched for it
}

// runPublisher sends the contents of the outbox, one call at a time.
func (p *partition) runPublisher() {
	for {
		parcels := p.outbox.take(p.ctx)
		if parcels == nil {
			return
		}
		p.publish(parcels)
	}
}

// publish sends parcels, and answers each.
func (p *partition) publish(parcels []*parcel) {
	c := &call{id: rand.Text()[:12], until: time.Now().Add(p.timeout)}
	for _, it := range parcels {
		switch {
		case it.ctx.Err() != nil: // its caller has given up
		case time.Since(it.queued) > p.timeout:
			it.done <- it.unanswered(fmt.Errorf("not sent to Redis within %v", p.timeout))
		case len(it.rooms) == 0:
			c.messages = append(c.messages, it)
		default:
			c.events = append(c.events, it)
		}
	}
	if len(c.events)+len(c.messages) == 0 {
		return
	}
	began := time.Now()
	err := p.attempts(c)
	p.stats.published(len(c.events), time.Since(began))
	c.fail(err)
}

// fail answers the callers that have no answer yet.
func (c *call) fail(err error) {
	if err == nil {
		return
	}
	for _, list := range [][]*parcel{c.events, c.messages} {
		for _, it := range list {
			it.done <- it.unanswered(err)
		}
	}
	c.events, c.messages = nil, nil
}

// attempts retries a call until it is known to have been executed once, or not to be executed, or
// its time is over.
func (p *partition) attempts(c *call) error {
	ctx, cancel := context.WithDeadline(p.ctx, c.until)
	defer cancel()
	for {
		began := time.Now()
		l, err := p.current(ctx)
		if err == nil {
			err = p.bury(ctx, l)
		}
		if err == nil && c.doubtful {
			err = p.find(ctx, l, c)
		}
		if err == nil && !c.over() {
			err = p.attempt(ctx, l, c)
		}
		switch {
		case err == nil:
			p.worked()
			p.answered(nil)
			return nil
		case l == nil: // not connected
		case errors.Is(err, errNoClock):
			c.refused()
			p.log.Warn("history lost: its clock is missing", zap.String("epoch", c.epoch))
			c.epoch = ""
			if _, _, err = p.search(ctx); err != nil { // it can't begin a new one
				pause(ctx, relinkPause)
			}
			if c.tried {
				return errors.New("the history was lost before it was known whether the event was published")
			}
		case isReply(err) && elsewhere(err): // this server does not execute it, and has not
			c.refused()
			p.unlink(l, err, began)
			pause(ctx, relinkPause)
		case isReply(err) && refused(err) && !c.doubtful:
			c.refused()
			err = atKey(p.names.clock(c.epoch), err)
			p.answered(err)
			return fmt.Errorf("event refused by Redis: %w", err)
		case isReply(err): // a part of it may have been executed, now or before
			p.answered(err)
			return fmt.Errorf("publish: %w", err)
		default: // it is unknown whether it was executed
			if p.abandoned == nil { // otherwise it was not tried on this link
				c.doubtful, c.tried = true, true
				p.abandoned = &l.server
			}
			p.unlink(l, err, began)
		}
		if ctx.Err() != nil {
			return fmt.Errorf("no answer from Redis within %v: %w", p.timeout, err)
		}
	}
}

// refused notes that the last attempt was not executed. If an earlier one may have been, that
// remains unknown.
func (c *call) refused() {
	if c.tried {
		return
	}
	for _, it := range c.events {
		it.state.CompareAndSwap(stateSent, stateUnsent)
	}
}

// over reports whether all callers have been answered.
func (c *call) over() bool { return len(c.events)+len(c.messages) == 0 }

// bury makes sure that no further call that was sent on the last connection is executed: neither a
// second time, nor after later calls.
func (p *partition) bury(ctx context.Context, l *link) error {
	if p.abandoned == nil {
		return nil
	}
	if err := l.kill(ctx, *p.abandoned); err != nil {
		return err
	}
	p.abandoned = nil
	return nil
}

// elsewhere reports whether a reply says that the command was not executed because it must be sent
// to another server, or to this one later.
func elsewhere(err error) bool {
	return says(err, "READONLY", "MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "BUSY", "UNBLOCKED")
}

// refused reports whether a reply says that a script was ended before it changed anything: after
// other errors of a script, a part of it may have been executed. The key of the wrong type is the
// clock, which is written first, because those of rooms fail alone. The right to run a script at
// all is checked first; the rights to run its commands are not, and that error begins with other
// words.
func refused(err error) bool {
	return says(err, "OOM", "NOREPLICAS", "MISCONF", "WRONGTYPE") || strings.HasPrefix(err.Error(), "NOPERM")
}

// says reports whether a reply begins with one of some words. Before Redis 7 a script's reply has
// them in the middle.
func says(err error, words ...string) bool {
	reply := err.Error()
	return slices.ContainsFunc(words, func(word string) bool {
		return strings.HasPrefix(reply, word) || strings.Contains(reply, ": -"+word+" ")
	})
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
	c.events = slices.DeleteFunc(c.events, func(it *parcel) bool { return !it.begin() })
	if c.over() {
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
		sent[i] = p.pubsub.sendOn(ctx, l, pipe, it.inbox, it.payload)
	}
	_, err := pipe.Exec(ctx)
	if err != nil && !isReply(err) {
		c.forgetMessages(err)
		return err
	}
	for i, it := range c.messages {
		switch n, err := sent[i].Result(); {
		case err != nil:
			it.done <- outcome{err: fmt.Errorf("%w: %w", adapter.ErrUnavailable, err)}
		case n == 0:
			it.done <- outcome{err: adapter.ErrNoNode}
		default:
			it.done <- outcome{}
		}
	}
	c.messages = nil
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

// forgetMessages fails the messages: they are sent once or not at all.
func (c *call) forgetMessages(err error) {
	for _, it := range c.messages {
		it.done <- outcome{err: fmt.Errorf("%w: %w", adapter.ErrUnavailable, err)}
	}
	c.messages = nil
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
		for _, room := range it.rooms {
			keys = append(keys, base+room)
		}
		stored := 0
		if it.stored && p.limit > 0 {
			stored = 1
		}
		args = append(args, it.payload, stored, len(it.rooms), it.lists)
	}
	return keys, args
}

// answer tells the callers the positions of their events.
func (p *partition) answer(c *call, reply []any) error {
	if len(reply) != 1+len(c.events) {
		return fmt.Errorf("adapter/redis: publish: %d events, but %d values in the reply", len(c.events), len(reply))
	}
	id, _ := reply[0].(string)
	ms, seq, err := parseID(id)
	if err != nil {
		return fmt.Errorf("adapter/redis: publish: the reply begins with %q", id)
	}
	e := feed.Entry{Ms: ms, Seq: seq, Call: c.id}
	p.observe(c.epoch, e)
	p.settled(c, e, func(i int) (r reached, failure string) {
		switch v := reply[1+i].(type) {
		case int64:
			r.receivers = int(v)
		case []any: // some rooms are new
			if len(v) == 2 {
				receivers, _ := v[0].(int64)
				news, _ := v[1].(int64)
				r = reached{int(receivers), int(news)}
			}
		case string:
			failure = v
		}
		return r, failure
	})
	return nil
}

// settled answers the callers of events. result returns what the event with an index reached, or
// which key could not be written and why.
func (p *partition) settled(c *call, e feed.Entry, result func(int) (r reached, failure string)) {
	for i, it := range c.events {
		r, failure := result(i)
		if failure == "" {
			it.done <- outcome{place: place{c.epoch, e.Position(p.number, i)}, reached: r}
			continue
		}
		p.stats.notStored.Add(1)
		p.strange.Warn("event not stored; other events are not affected", zap.String("cause", failure))
		err := adapter.ErrUnavailable // other rooms may have stored it
		if len(it.rooms) == 1 {
			err = adapter.ErrNotPublished
		}
		it.done <- outcome{err: fmt.Errorf("%w: %s", err, failure)}
	}
	c.events = nil
}

// find searches the clock for a call without an answer, and answers it if it is there. It can't be
// executed any more. If it had been sent to another server, then what that server did and did not
// replicate is not part of this history.
func (p *partition) find(ctx context.Context, l *link, c *call) error {
	p.stats.retries.Add(1)
	const page = 1000
	for after := c.since; len(c.events) > 0; {
		entries, err := l.conn.XRangeN(ctx, p.names.clock(c.epoch), "("+after.ID(), "+", page).Result()
		if err != nil {
			return err
		}
		for _, m := range entries {
			if after, err = parseEntry(m); err != nil {
				return err
			}
			if after.Call == c.id {
				p.observe(c.epoch, after)
				failed, err := p.failures(ctx, l, c, after)
				if err != nil {
					return err
				}
				p.settled(c, after, func(i int) (r reached, failure string) {
					if slices.Contains(failed, strconv.Itoa(i)) {
						failure = "a key could not be written"
					}
					return r, failure
				})
				break
			}
		}
		if len(entries) < page {
			break
		}
	}
	c.doubtful = false
	return nil
}

// failures returns the indexes of the events of a call that could not be stored: if there are any,
// the next clock entry after that of the call has them.
func (p *partition) failures(ctx context.Context, l *link, c *call, e feed.Entry) ([]string, error) {
	next, err := l.conn.XRangeN(ctx, p.names.clock(c.epoch), "("+e.ID(), "+", 1).Result()
	if err != nil || len(next) == 0 || next[0].Values["c"] != c.id {
		return nil, err
	}
	list, _ := next[0].Values["f"].(string)
	return strings.Split(list, ","), nil
}

func parseEntry(m goredis.XMessage) (feed.Entry, error) {
	ms, seq, err := parseID(m.ID)
	if err != nil {
		return feed.Entry{}, fmt.Errorf("adapter/redis: an entry of the clock is %q", m.ID)
	}
	call, _ := m.Values["c"].(string)
	return feed.Entry{Ms: ms, Seq: seq, Call: call}, nil
}
