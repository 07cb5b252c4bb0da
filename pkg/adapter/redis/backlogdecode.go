package redis

import (
	"fmt"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// A decoded is the event in an entry of a backlog, or the error that prevents its decoding.
type decoded struct {
	event  *adapter.Event
	listed bool
	err    error
	to     []rooms.Room // the room
}

// held returns the size of the payload that it holds.
func (d decoded) held() int {
	if d.err != nil {
		return 0
	}
	return payloadSize(d.event)
}

// in returns the copy of the event in another backlog.
func (d decoded) in(b *backlog) decoded {
	switch {
	case d.event == nil && d.err == nil: // Redis has sent no event
		d.err = errMalformed
	case d.err == nil:
		e := *d.event
		if &e.Target.To[0] == &d.to[0] { // otherwise the event lists its rooms itself
			e.Target.To = b.to
		}
		d.event, d.to = &e, b.to
	}
	return d
}

// parse adds an entry of a backlog to it. The payload is omitted if it is larger than hold;
// otherwise parse returns its size.
func (p *partition) parse(b *backlog, id, payload string, hold int) (held int) {
	d := p.decode(b, payload, hold)
	p.add(b, id, d)
	return d.held()
}

func (p *partition) decode(b *backlog, payload string, hold int) decoded {
	p.sizes.saw(len(payload))
	b.bytes += len(payload)
	e, listed, err := decodeEvent(payload, b.to, hold)
	return decoded{e, listed, err, b.to}
}

// decodeHead decodes an event whose payload Redis has omitted; size is the payload's.
func (p *partition) decodeHead(b *backlog, head string, size int) decoded {
	p.sizes.saw(len(head) + size)
	b.bytes += len(head)
	d, e := decoder{rest: head}, &adapter.Event{Omitted: uint32(size)}
	listed, err := d.head(e, b.to)
	if err == nil && (d.rest != "" || size <= 0) {
		err = errMalformed
	}
	return decoded{e, listed, err, b.to}
}

// add adds an entry to a backlog.
func (p *partition) add(b *backlog, id string, d decoded) {
	b.last = id
	b.bytes += entryBytes
	at, err := p.parsePosition(id)
	if err == nil {
		err = d.err
	}
	if err != nil {
		p.stats.malformed.Add(1)
		b.broken = append(b.broken, broken{at, fmt.Errorf("%w: backlog entry %s", err, id)})
		return
	}
	d.event.Position = at
	b.events = append(b.events, d.event)
	if d.listed {
		b.listed = append(b.listed, d.event)
	}
}
