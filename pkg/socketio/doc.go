// Package socketio is a server for stock Socket.IO v4 clients.
//
// A [Server] is an http.Handler. Clients connect to it, join rooms, send and
// receive events; handlers run on the server:
//
//	srv, err := socketio.NewServer(socketio.Options{})
//	srv.OnConnect(func(s *socketio.Socket) { … })
//	srv.On("chat", func(ctx context.Context, e *socketio.Event) error {
//		return srv.To("lobby").Emit(ctx, "chat", e.Raw(0))
//	})
//	http.ListenAndServe("localhost:3000", srv)
//
// # Order
//
// Every event, also one to a single socket, gets its place in one order from
// the [adapter.Adapter] and reaches the sockets of every node from there. Two
// sockets never see two events in different orders. Only what Local sends stays
// on its node and has no place.
//
// # Recovery
//
// A client whose connection dies, for whatever reason, connects again, to this
// node or another, and gets every event that it missed, once and in order;
// [Socket.Recovered] is then true. Where that can't be proved, it is a new socket
// with a new id. Volatile events, events that ask for an ack and those of Local
// are not kept and so not replayed.
//
// # Goroutines
//
// A socket's handlers run one after another on a goroutine that exists only
// while the socket has something to handle. They may block; the socket's other
// events wait, other sockets do not. A Handler's context ends when its socket
// does. Everything that this package starts has ended when [Server.Close]
// returns.
package socketio
