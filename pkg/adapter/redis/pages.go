package redis

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/rejoin-io/rejoin/internal/batch"
	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

//go:embed page.lua
var pageSource string

var pageScript = goredis.NewScript(pageSource)

const (
	// pagesPerCall is the maximum number of pages in one pipeline.
	pagesPerCall = 16
	// spareEntries are read in addition if several requests share a page, because each has an end of its
	// own: their joins were some milliseconds apart.
	spareEntries = 32
)

// A pageRequest asks for a page of a room's backlog. Requests that arrive while all readers are busy
// go into one pipeline, and those for the newest events of one room up to a position each share one
// page: thousands of clients that join a room together cost a few reads.
type pageRequest struct {
	room rooms.Room
	adapter.Page
}

// shared reports whether the request can share a page.
func (r *pageRequest) shared() bool {
	return !r.UpTo.IsZero() && r.Before.IsZero() && r.After.IsZero() && r.Events > 0
}

type pageAnswer struct {
	events []*adapter.Event
	more   bool
	lost   bool // some after Page.After may have been lost
}

// History returns a page of a room's kept events, oldest first, and whether there are older ones.
// Redis sends only the events of the page.
func (p *partition) History(ctx context.Context, room rooms.Room, page adapter.Page) ([]*adapter.Event, bool, error) {
	if err := p.enter(ctx); err != nil {
		return nil, false, err
	}
	found, err := p.pages.Do(ctx, &pageRequest{room, page}, 0)
	switch {
	case err == nil && found.lost:
		err = fmt.Errorf("%w: events after the position may be lost in %s", adapter.ErrTrimmed, name(room))
	case err == nil:
	case p.ctx.Err() != nil:
		err = context.Cause(p.ctx)
	case ctx.Err() != nil:
		err = fmt.Errorf("%w: %w", adapter.ErrUnavailable, context.Cause(ctx))
	}
	return found.events, found.more, err
}

// runPages answers pending requests until the adapter closes.
func (p *partition) runPages() {
	var known map[rooms.Room]bool
	p.pages.Serve(func(n int, r *batch.Request[*pageRequest, pageAnswer]) bool {
		if n == 0 {
			known = make(map[rooms.Room]bool)
		}
		if n > 0 && len(known) == pagesPerCall && !(known[r.Value.room] && r.Value.shared()) {
			return false
		}
		known[r.Value.room] = true
		return n < pagesPerCall || r.Value.shared()
	}, p.answerPages)
}

func (p *partition) answerPages(all []*batch.Request[*pageRequest, pageAnswer]) {
	var reads []*pageRead
	of := make(map[rooms.Room]*pageRead)
	for _, r := range all {
		if read := of[r.Value.room]; read != nil && r.Value.shared() && read.UpTo.Epoch == r.Value.UpTo.Epoch {
			read.add(r)
			continue
		}
		read := newPageRead(r)
		reads = append(reads, read)
		if r.Value.shared() {
			of[r.Value.room] = read
		}
	}
	again := p.readPages(reads)
	for len(again) > 0 { // each for itself, so that they end
		n := min(len(again), pagesPerCall)
		reads = nil
		for _, r := range again[:n] {
			reads = append(reads, newPageRead(r))
		}
		again = append(p.readPages(reads), again[n:]...)
	}
}

// A pageRead is a page for one request or several.
type pageRead struct {
	pageRequest
	epoch string
	end   string
	empty bool // nothing can be in it
	all   []*batch.Request[*pageRequest, pageAnswer]
	cmd   *goredis.Cmd
}

func newPageRead(r *batch.Request[*pageRequest, pageAnswer]) *pageRead {
	return &pageRead{pageRequest: *r.Value, all: []*batch.Request[*pageRequest, pageAnswer]{r}}
}

// add makes the read large enough for another request.
func (r *pageRead) add(other *batch.Request[*pageRequest, pageAnswer]) {
	o := other.Value
	if len(r.all) == 1 {
		r.Events += spareEntries
	}
	r.UpTo, r.Events = r.UpTo.Max(o.UpTo), max(r.Events, o.Events+spareEntries)
	if r.Bytes > 0 {
		r.Bytes = max(r.Bytes, o.Bytes)
	}
	if o.Bytes == 0 {
		r.Bytes = 0
	}
	r.all = append(r.all, other)
}

// readPages reads pages in one pipeline and answers their requests. It returns those that share a page
// that does not answer them.
func (p *partition) readPages(reads []*pageRead) (again []*batch.Request[*pageRequest, pageAnswer]) {
	ctx, cancel := p.bounded(p.ctx)
	defer cancel()
	current := p.history()
	for _, r := range reads {
		if r.epoch = current; !r.UpTo.IsZero() {
			r.epoch = r.UpTo.Epoch
		}
		var ok bool
		r.end, ok = pageEnd(r.Page)
		r.empty = !ok
	}
	var epoch string
	var now time.Time
	err := p.read(ctx, func(ctx context.Context, c goredis.Cmdable) (err error) {
		epoch, now, err = p.callPages(ctx, c, reads)
		return err
	})
	for _, r := range reads {
		answer, failed := pageAnswer{}, err
		if err == nil && !r.UpTo.IsZero() && epoch != r.epoch { // nothing in it would look like no events
			failed = fmt.Errorf("%w: %s is not the current history", adapter.ErrHistoryLost, r.epoch)
		}
		if failed == nil {
			answer, failed = p.pageOf(r, now)
		}
		for _, one := range r.all {
			if len(r.all) == 1 || err != nil {
				one.Answer(answer, failed)
			} else if part, ok := answer.part(one.Value); ok && failed == nil {
				one.Answer(part, nil)
			} else {
				again = append(again, one)
			}
		}
	}
	return again
}

// callPages runs the scripts of pages, and returns the epoch and the time after that.
func (p *partition) callPages(ctx context.Context, c goredis.Cmdable, reads []*pageRead) (epoch string, now time.Time, err error) {
	run := pageScript.EvalSha
	for {
		var role *goredis.Cmd
		var current *goredis.StringCmd
		var clock *goredis.TimeCmd
		_, err = c.Pipelined(ctx, func(pipe goredis.Pipeliner) error {
			for _, r := range reads {
				after := ""
				if !r.After.IsZero() {
					after = formatPosition(r.After.At)
				}
				r.cmd = run(ctx, pipe, []string{p.names.room(r.epoch, name(r.room))},
					r.end, max(r.Events, 0), max(r.Bytes, 0), after, p.limit)
			}
			role, current, clock = p.askRole(ctx, pipe), pipe.Get(ctx, p.names.epoch()), pipe.Time(ctx)
			return nil
		})
		switch noScript := func(r *pageRead) bool { err := r.cmd.Err(); return err != nil && says(err, "NOSCRIPT") }; {
		case err != nil && !isReply(err):
			return "", now, err
		case slices.ContainsFunc(reads, noScript):
			run = pageScript.Eval // after which the server knows it
			continue
		}
		for _, r := range reads {
			if err := r.cmd.Err(); err != nil && !isWrongType(err) { // which fails alone
				return "", now, err
			}
		}
		if err := isPrimary(role); err != nil {
			return "", now, err
		}
		if err := current.Err(); err != nil && !errors.Is(err, goredis.Nil) {
			return "", now, atKey(p.names.epoch(), err)
		}
		return current.Val(), clock.Val(), clock.Err()
	}
}

// pageOf decodes a page.
func (p *partition) pageOf(r *pageRead, now time.Time) (a pageAnswer, err error) {
	if r.empty {
		return a, nil
	}
	reply, err := r.cmd.StringSlice()
	if isWrongType(err) {
		err = fmt.Errorf("%w: %w", adapter.ErrUndecodable, atKey(p.names.room(r.epoch, name(r.room)), err))
	}
	if err != nil {
		return a, err
	}
	if len(reply)%2 == 0 {
		return a, errMalformed
	}
	b := backlog{to: []rooms.Room{r.room}}
	for i := len(reply) - 2; i > 0; i -= 2 {
		p.parse(&b, reply[i], reply[i+1], math.MaxInt)
	}
	if len(b.broken) > 0 {
		return a, b.broken[0].err
	}
	a.events = b.events
	switch reply[0] {
	case "more":
		a.more = true
	case "lost":
		a.lost = true
	case "begun": // what was before it may have expired
		a.lost = p.limit <= 0 || r.After.At.Time().Before(now.Add(-p.cursorTTL()))
	}
	return a, nil
}

// part returns what a request gets of a shared page, if that has all of it.
func (a pageAnswer) part(r *pageRequest) (part pageAnswer, ok bool) {
	events := a.events
	for len(events) > 0 && !r.UpTo.Covers(events[len(events)-1].Position) {
		events = events[:len(events)-1]
	}
	n, bytes := 0, 0
	for ; n < len(events) && n < r.Events; n++ {
		bytes += payloadSize(events[len(events)-1-n])
		if r.Bytes > 0 && bytes > r.Bytes && n > 0 {
			break
		}
	}
	full := n == r.Events || n < len(events)
	return pageAnswer{events: events[len(events)-n:], more: a.more || n < len(events)}, full || !a.more
}

// pageEnd returns the end of a page's range of a stream, or false if nothing can be before it.
func pageEnd(page adapter.Page) (end string, ok bool) {
	before, upTo := page.Before.At, page.UpTo.At
	switch {
	case !page.Before.IsZero() && (page.UpTo.IsZero() || before.Compare(upTo) <= 0):
		if before.Ms == 0 && before.Seq == 0 {
			return "-", false
		}
		return "(" + formatPosition(before), true
	case !page.UpTo.IsZero():
		return formatPosition(upTo), true
	}
	return "+", true
}
