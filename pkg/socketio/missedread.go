package socketio

import (
	"context"
	"errors"
	"slices"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// readTries bounds how often a replay is read again because commands in it joined further rooms,
// each through a room that another one has joined.
const readTries = 100

// read fixes an end and returns the events missed up to it, in order, starting from the position
// that the client has received. seen, its offset, proves a part of the history. Commands among them
// are executed: the memberships afterwards are those at the end. A room that a command joined has
// missed events too, and the node must be subscribed to it before the end is fixed. So it is
// subscribed and everything is read again.
func (r *recovery) read(ctx context.Context, from, seen adapter.Cursor) (*missedEvents, error) {
	s := r.socket
	ctx = r.count(ctx)
	page := s.ns.srv.replays.reserve()
	defer page.release()
	p := replay{socket: s, seen: from}
	var subscribed []string // of the rooms that commands joined
	var err error
	for range readTries {
		// Events that are not held are read when the limit allows it, so a session that has read
		// much holds little.
		p.payload = max(min(page.held, max(r.left(), recoveryRead)), 1)
		var end adapter.Cursor
		if end, err = p.begin(ctx, seen); err != nil {
			break
		}
		if err = p.read(ctx, end); err != nil && !errors.Is(err, errAgain) {
			break
		}
		if !p.again {
			var found *missedEvents
			if found, err = p.found(end); err != nil {
				break
			}
			if err := r.adopt(ctx, &p, found, subscribed); err != nil {
				found.release()
				for _, l := range found.leaves {
					s.endLeave(l)
				}
				return nil, err
			}
			return found, nil
		}
		if subscribed, err = r.subscribeJoined(ctx, p.joined, subscribed); err != nil {
			break
		}
		err = &refusal{refusedRooms, errors.New("commands repeatedly joined further rooms")}
	}
	s.mu.Lock()
	for _, name := range subscribed {
		s.unlist(name)
	}
	s.mu.Unlock()
	s.ns.srv.adapter.Unsubscribe(inNamed(s.nsName, subscribed)...)
	return nil, err
}

// subscribeJoined subscribes the socket to those of the joined rooms that it is not in and not yet subscribed
// to. It returns all that it is subscribed to now. The gate is shut.
func (r *recovery) subscribeJoined(ctx context.Context, joined map[string]adapter.Cursor, subscribed []string) ([]string, error) {
	s := r.socket
	var added []string
	s.mu.Lock()
	for name := range joined {
		if s.rooms.current(name) == nil && !slices.Contains(subscribed, name) {
			added = append(added, name)
		}
	}
	s.mu.Unlock()
	if len(added) == 0 {
		return subscribed, nil
	}
	if _, err := s.ns.srv.adapter.Subscribe(ctx, inNamed(s.nsName, added)...); err != nil {
		return subscribed, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range added {
		s.ns.index.Add(rooms.InNamed(s.nsName, name), s)
	}
	return append(subscribed, added...), nil
}

// adopt gives the socket the memberships at the end of a replay, and stores them if they are new,
// with the receipt of the replay. Beside its former rooms, the socket is subscribed to some that
// commands have joined. It stays listed in rooms that commands have left at positions beyond the end,
// until the replay has been sent.
func (r *recovery) adopt(ctx context.Context, p *replay, found *missedEvents, subscribed []string) error {
	s, stays, end := r.socket, p.stays, found.end
	s.mu.Lock()
	was := s.rooms.names()
	listed := append(subscribed, was...)
	var lingering []string
	if s.placed {
		stays.banned = nil // later events are not for it in any case
		stays.settle(end)
		stays.uncharged = stays.cost() - s.rooms.cost() + s.rooms.uncharged
		s.rooms, s.newestJoin = stays, stays.newestJoin()
		s.receipt.given, s.receipt.overlooked = end, p.overlooked
		s.owe(end, p.owed...)
		if n := len(p.missed); n > 0 {
			s.receipt.sent = p.missed[n-1].Cursor
		}
		listed = slices.DeleteFunc(listed, func(name string) bool {
			if stays.endsBehind(name, end) {
				lingering = append(lingering, name)
				return true
			}
			return stays.current(name) != nil
		})
		if len(lingering) > 0 {
			found.leaves = append(found.leaves, s.beginLeave(&command{names: lingering}, lingering, true))
		}
	} else { // displaced meanwhile, from the rooms that it was in
		listed = subscribed
	}
	for _, name := range listed {
		s.unlist(name)
	}
	placed, unsaved, connected := s.placed, stays.unsaved, s.stage.connected()
	s.rooms.unsaved = false
	s.mu.Unlock()
	if len(listed) > 0 {
		s.ns.srv.adapter.Unsubscribe(inNamed(s.nsName, listed)...)
	}
	if !placed {
		return ErrDisconnected
	}
	if connected { // a replay that was read again
		is := stays.sorted()
		slices.Sort(was)
		s.ns.reportRooms(s.ID(), true, without(is, was)...)
		s.ns.reportRooms(s.ID(), false, without(was, is)...)
	}
	if !unsaved && p.overlooked < overlookedEvents {
		return nil
	}
	return s.save(ctx)
}

// without returns those names that are not among others, which are sorted.
func without(names, others []string) (rest []string) {
	for _, name := range names {
		if _, found := slices.BinarySearch(others, name); !found {
			rest = append(rest, name)
		}
	}
	return rest
}
