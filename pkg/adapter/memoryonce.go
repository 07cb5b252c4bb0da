package adapter

import (
	"fmt"
	"time"
)

// Maximum numbers of ids that one memoryLog keeps: about 96 MiB. Those of clients cannot use up the others.
const (
	maxOnces       = 1 << 19
	maxClientOnces = 1 << 18
)

// onces are the ids of the events that a memoryLog has published within OnceTTL. It is not safe for
// concurrent use.
type onces struct {
	byID    map[[16]byte]publishedOnce
	queue   []onceExpiry // the oldest first
	clients int          // those of them that are untrusted
}

type publishedOnce struct {
	content [8]byte
	at      Position
}

type onceExpiry struct {
	id        [16]byte
	untrusted bool
	end       time.Time
}

// find returns the position of the event with the id, or the zero position if it may be published. The
// position of ErrIncomplete is that of now.
func (os *onces) find(o *Once, now time.Time) (Position, error) {
	for len(os.queue) > 0 && !now.Before(os.queue[0].end) {
		delete(os.byID, os.queue[0].id)
		if os.queue[0].untrusted {
			os.clients--
		}
		os.queue = os.queue[1:]
	}
	former, known := os.byID[o.ID]
	switch {
	case known && former.content != o.Content:
		return Position{}, fmt.Errorf("%w: %x", ErrReused, o.ID)
	case known:
		return former.at, nil
	case o.Until > 0 && uint64(now.UnixMilli()) > o.Until:
		return Position{Ms: uint64(now.UnixMilli())}, fmt.Errorf("%w: %x", ErrIncomplete, o.ID)
	case o.Untrusted && os.clients >= maxClientOnces, !o.Untrusted && len(os.byID)-os.clients >= maxOnces:
		return Position{}, fmt.Errorf("%w: %d once ids are kept, %d of them of clients", ErrNotPublished, len(os.byID), os.clients)
	}
	return Position{}, nil
}

// add adds the id of an event that is published at a position.
func (os *onces) add(o *Once, at Position, now time.Time) {
	if os.byID == nil {
		os.byID = make(map[[16]byte]publishedOnce)
	}
	os.byID[o.ID] = publishedOnce{o.Content, at}
	os.queue = append(os.queue, onceExpiry{o.ID, o.Untrusted, now.Add(OnceTTL)})
	if o.Untrusted {
		os.clients++
	}
}
