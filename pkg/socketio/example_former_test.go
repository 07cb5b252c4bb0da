package socketio_test

import (
	"context"
	"time"

	"github.com/rejoin-io/rejoin/pkg/socketio"
)

// A client is looked up in a database. If it reconnects within a minute, perhaps with thousands of
// others after the failure of a node, what was found is used again.
func ExampleConnectRequest_Former() {
	srv, err := socketio.NewServer(socketio.Options{})
	if err != nil {
		panic(err)
	}
	defer srv.Close(context.Background())
	srv.Use(func(ctx context.Context, r *socketio.ConnectRequest) error {
		former, ok, err := r.Former(ctx)
		if err != nil {
			return err
		}
		if ok && former.Kept != nil && former.Away < time.Minute {
			r.SetUser(former.User)
			r.Keep(former.Kept)
			return r.Join(string(former.Kept))
		}
		user, team, err := lookUp(ctx, r)
		if err != nil {
			return err
		}
		r.SetUser(user)
		r.Keep([]byte(team))
		return r.Join(team)
	})
}

func lookUp(context.Context, *socketio.ConnectRequest) (user, team string, err error) {
	return "ann", "team 7", nil
}
