package api

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/socketio"
)

// Limits of histories, as in the built-in application.
const (
	defaultHistory = 50
	maxHistory     = 200
)

// fetch queries all nodes for their sockets. The sockets of a silent node are missing, which
// the result reports.
func fetch(ctx context.Context, b socketio.Broadcast) ([]socketio.RemoteSocket, nodes, error) {
	all, err := b.Timeout(fetchTimeout).FetchSockets(ctx)
	missing := silentNodes(nil)
	var unanswered *socketio.UnansweredError
	switch {
	case errors.As(err, &unanswered):
		missing = silentNodes(unanswered.Nodes)
		missing.Partial = true
	case err != nil:
		return nil, nodes{}, err
	}
	slices.SortFunc(all, func(a, b socketio.RemoteSocket) int { return cmp.Compare(a.ID, b.ID) })
	return all, missing, nil
}

func socketID(s socketio.RemoteSocket) string { return s.ID }

type socketView struct {
	socketio.SocketInfo
	Node string `json:"node"`
}

func (a *API) sockets(ctx context.Context, q query) (any, error) {
	if err := q.only([]string{"namespace", "limit", "after"}, "room", "user", "socket", "except"); err != nil {
		return nil, err
	}
	p, err := pageOf(q)
	if err != nil {
		return nil, err
	}
	t := target{Rooms: q["room"], Users: q["user"], Sockets: q["socket"], Except: q["except"]}
	t.Everyone = len(t.Rooms)+len(t.Users)+len(t.Sockets) == 0
	if _, given := q["namespace"]; given {
		t.Namespace = &q["namespace"][0]
	}
	if err := callerOf(ctx).mayExcept(t); err != nil {
		return nil, err
	}
	b, err := a.broadcast(ctx, t)
	if err != nil {
		return nil, err
	}
	all, missing, err := fetch(ctx, b)
	if err != nil {
		return nil, err
	}
	all, next := cut(p, all, socketID)
	views := make([]socketView, len(all))
	for i, s := range all {
		s.Rooms = append([]string{}, callerOf(ctx).seen(s.Rooms)...) // always an array
		views[i] = socketView{s.SocketInfo, string(s.Node)}
	}
	return struct {
		Sockets []socketView `json:"sockets"`
		more
		nodes
	}{views, next, missing}, nil
}

type roomView struct {
	Name    string `json:"name"`
	Members int    `json:"members"`
}

func (a *API) rooms(ctx context.Context, q query) (any, error) {
	if err := q.only([]string{"namespace", "limit", "after"}); err != nil {
		return nil, err
	}
	p, err := pageOf(q)
	if err != nil {
		return nil, err
	}
	ns, err := a.asked(ctx, q)
	if err != nil {
		return nil, err
	}
	all, missing, err := fetch(ctx, ns.Everyone())
	if err != nil {
		return nil, err
	}
	counts := make(map[string]int)
	for _, s := range all {
		for _, room := range callerOf(ctx).seen(s.Rooms) {
			counts[room]++
		}
	}
	views := make([]roomView, 0, len(counts))
	for name, n := range counts {
		views = append(views, roomView{name, n})
	}
	slices.SortFunc(views, func(a, b roomView) int { return cmp.Compare(a.Name, b.Name) })
	views, next := cut(p, views, func(r roomView) string { return r.Name })
	return struct {
		Rooms []roomView `json:"rooms"`
		more
		nodes
	}{views, next, missing}, nil
}

type memberView struct {
	ID   string `json:"id"`
	User string `json:"user"`
}

func (a *API) members(ctx context.Context, q query) (any, error) {
	if err := q.only([]string{"namespace", "room", "limit", "after"}); err != nil {
		return nil, err
	}
	p, err := pageOf(q)
	if err != nil {
		return nil, err
	}
	ns, room, err := a.askedRoom(ctx, q)
	if err != nil {
		return nil, err
	}
	all, missing, err := fetch(ctx, ns.To(room))
	if err != nil {
		return nil, err
	}
	all, next := cut(p, all, socketID)
	views := make([]memberView, len(all))
	for i, s := range all {
		views[i] = memberView{s.ID, s.User}
	}
	return struct {
		Members []memberView `json:"members"`
		more
		nodes
	}{views, next, missing}, nil
}

type eventView struct {
	Offset string `json:"offset"`
	Event  string `json:"event"`
	arguments
	At int64 `json:"at"` // Unix time in milliseconds
}

func (a *API) history(ctx context.Context, q query) (any, error) {
	if err := q.only([]string{"namespace", "room", "limit", "before"}); err != nil {
		return nil, err
	}
	ns, room, err := a.askedRoom(ctx, q)
	if err != nil {
		return nil, err
	}
	limit, err := q.number("limit", 1, maxHistory, defaultHistory)
	if err != nil {
		return nil, err
	}
	past, more, err := ns.History(ctx, room, q.get("before"), limit)
	switch {
	case errors.Is(err, socketio.ErrOffset):
		return nil, fail(badRequest, "before must be the offset of an event")
	case errors.Is(err, adapter.ErrHistoryLost):
		return nil, fail(badRequest, "before belongs to a history that no longer exists")
	case err != nil:
		return nil, err
	}
	views := make([]eventView, len(past))
	for i, p := range past {
		args, err := argumentsOf(p.Args)
		if err != nil {
			return nil, err
		}
		views[i] = eventView{p.Offset, p.Event, args, p.At.UnixMilli()}
	}
	return struct {
		Events []eventView `json:"events"`
		More   bool        `json:"more"`
	}{views, more}, nil
}

// asked returns the namespace in a query.
func (a *API) asked(ctx context.Context, q query) (*socketio.Namespace, error) {
	if _, given := q["namespace"]; !given {
		return a.namespace(ctx, "/")
	}
	return a.namespace(ctx, q.get("namespace"))
}

// askedRoom returns the namespace and the room in a query.
func (a *API) askedRoom(ctx context.Context, q query) (*socketio.Namespace, string, error) {
	room := q.get("room")
	if err := checkNames("room", []string{room}); err != nil {
		return nil, "", err
	}
	if err := callerOf(ctx).mayUse(room); err != nil {
		return nil, "", err
	}
	ns, err := a.asked(ctx, q)
	return ns, room, err
}
