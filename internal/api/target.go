package api

import (
	"context"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/rejoin-io/rejoin/internal/auth"
	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/socketio"
)

// Limits of targets.
const (
	maxNames = adapter.MaxRooms // in one list, and in all lists of a target together
	maxName  = 200              // bytes
)

// A target holds the receivers of a call. everyone must be requested explicitly, because a program
// that loses a list would otherwise send an event for one socket to all.
type target struct {
	Namespace     *string      `json:"namespace"`
	Everyone      bool         `json:"everyone"`
	Rooms         list[string] `json:"rooms"`
	Users         list[string] `json:"users"`
	Sockets       list[string] `json:"sockets"`
	Except        list[string] `json:"except"`
	ExceptUsers   list[string] `json:"exceptUsers"`
	ExceptSockets list[string] `json:"exceptSockets"`
}

// broadcast returns the target for the library.
func (a *API) broadcast(ctx context.Context, t target) (b socketio.Broadcast, err error) {
	name := "/"
	if t.Namespace != nil {
		name = *t.Namespace
	}
	ns, err := a.namespace(ctx, name)
	if err != nil {
		return b, err
	}
	caller := callerOf(ctx)
	for _, l := range []struct {
		name  string
		names []string
		empty bool
	}{
		{"rooms", t.Rooms, false}, {"users", t.Users, false}, {"sockets", t.Sockets, false},
		{"except", t.Except, true}, {"exceptUsers", t.ExceptUsers, true}, {"exceptSockets", t.ExceptSockets, true},
	} {
		if l.names != nil && len(l.names) == 0 && !l.empty {
			return b, fail(badRequest, "%s is empty: the call would have no target", l.name)
		}
		if err := checkNames(l.name, l.names); err != nil {
			return b, err
		}
	}
	rooms, err := withUsers(t.Rooms, t.Users)
	if err != nil {
		return b, err
	}
	except, err := withUsers(t.Except, t.ExceptUsers)
	if err != nil {
		return b, err
	}
	if err := caller.mayUse(rooms...); err != nil {
		return b, err
	}
	aimed := len(rooms)+len(t.Sockets) > 0
	switch b = ns.Everyone(); {
	case aimed && t.Everyone:
		return b, fail(badRequest, "everyone must not be combined with rooms, users or sockets")
	case !aimed && !t.Everyone:
		return b, fail(badRequest, "no target: name rooms, users or sockets, or set everyone: true")
	case t.Everyone:
		if err := caller.mayReach("everyone"); err != nil {
			return b, err
		}
	case len(t.Sockets) > 0:
		if err := caller.mayReach("sockets"); err != nil {
			return b, err
		}
	}
	if aimed {
		b = b.To(rooms...).ToSocket(t.Sockets...)
	}
	return b.Except(except...).ExceptSocket(t.ExceptSockets...), nil
}

// namespace returns a namespace, until the call of ctx ends.
func (a *API) namespace(ctx context.Context, name string) (*socketio.Namespace, error) {
	if err := callerOf(ctx).mayName(name); err != nil {
		return nil, err
	}
	if ns := a.o.Namespaces[name]; ns != nil {
		return ns, nil
	}
	if a.o.Hold != nil {
		if ns, release, ok := a.o.Hold(name); ok {
			r := requestOf(ctx)
			r.held = append(r.held, release)
			return ns, nil
		}
	}
	if callerOf(ctx).Namespaces != nil { // the others are not for it
		return nil, fail(unknownNamespace, "unknown namespace %q", name)
	}
	served := slices.Sorted(maps.Keys(a.o.Namespaces))
	return nil, fail(unknownNamespace, "unknown namespace %q; the node has %s",
		name, strings.Join(append(served, a.o.Patterns...), ", "))
}

func checkNames(list string, names []string) error {
	if len(names) > maxNames {
		return fail(tooMany, "%s has more than %d names", list, maxNames)
	}
	for _, name := range names {
		if name == "" || len(name) > maxName || !utf8.ValidString(name) {
			return fail(badRequest, "%s: names are 1 to %d bytes of UTF-8", list, maxName)
		}
	}
	return nil
}

// withUsers adds the rooms of users to rooms.
func withUsers(rooms, users []string) ([]string, error) {
	all := slices.Clone(rooms)
	for _, user := range users {
		room := auth.UserRoom(user)
		if len(room) > maxName {
			return nil, fail(badRequest, "the name of a user is too long: the room %q has more than %d bytes", room, maxName)
		}
		all = append(all, room)
	}
	return all, nil
}
