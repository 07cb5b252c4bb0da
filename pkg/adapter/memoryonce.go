package adapter

import (
	"fmt"
	"time"
)

// maxOnces is the maximum number of ids that one memoryLog keeps: about 64 MiB.
const maxOnces = 1 << 19

// onces are the ids of the events that a memoryLog has published within OnceTTL. It is not safe for
// concurrent use.
type onces struct {
	byID  map[[16]byte]publishedOnce
	queue []onceExpiry // the oldest first
}

type publishedOnce struct {
	content [8]byte
	at      Position
}

type onceExpiry struct {
	id  [16]byte
	end time.Time
}

// find returns the position of the event with the id, or the zero position if it may be published.
func (os *onces) find(o *Once, now time.Time) (Position, error) {
	for len(os.queue) > 0 && !now.Before(os.queue[0].end) {
		delete(os.byID, os.queue[0].id)
		os.queue = os.queue[1:]
	}
	former, known := os.byID[o.ID]
	switch {
	case known && former.content != o.Content:
		return Position{}, fmt.Errorf("%w: %x", ErrReused, o.ID)
	case known:
		return former.at, nil
	case o.Until > 0 && uint64(now.UnixMilli()) > o.Until:
		return Position{}, fmt.Errorf("%w: %x", ErrIncomplete, o.ID)
	case len(os.byID) >= maxOnces:
		return Position{}, fmt.Errorf("%w: %d once ids are kept", ErrNotPublished, len(os.byID))
	}
	return Position{}, nil
}

// add adds the id of an event that is published at a position.
func (os *onces) add(o *Once, at Position, now time.Time) {
	if os.byID == nil {
		os.byID = make(map[[16]byte]publishedOnce)
	}
	os.byID[o.ID] = publishedOnce{o.Content, at}
	os.queue = append(os.queue, onceExpiry{o.ID, now.Add(OnceTTL)})
}
