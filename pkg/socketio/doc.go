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
// Every event, including one to a single socket, gets its place in one order from the
// [adapter.Adapter] and reaches the sockets of every node from there. Two sockets never see two
// events in different orders. Only events sent with Local stay on their node and have no place.
//
// # Recovery
//
// A client that loses its connection, for any reason, reconnects to this node or another and gets
// every event that it missed, once and in order; [Socket.Recovered] is then true. If the server
// cannot prove that, the client gets a new socket with a new id. Volatile events, events that
// request an ack and local events are not kept and so not replayed.
//
// # Callbacks
//
// Registering a nil function, or a handler of an event that would never be called,
// panics, as http.Handle does: connect, connection, disconnect, disconnecting,
// connect_error, newListener and removeListener. The message
// names the method to use instead, such as OnConnect or [Socket.OnDisconnect].
//
// Functions that the application registers are called without any lock of this package, and may
// call every method. In OnDisconnecting and OnDisconnect methods behave as their comments say of a
// socket that has ended. Methods that wait for clients, other nodes or handlers (EmitWithAck,
// FetchSockets, Drain, Close) wait as long as their context allows. Close and Drain wait for
// handlers, so a call inside a handler returns only when its context ends.
//
// A panic in such a function ends neither the process nor other sockets: see
// [PanicError]. After a panic in
//
//   - NewID or a middleware (Use), the client is refused with "internal error";
//   - OnConnect, a handler, OnAny or Socket.Use, the remaining functions for that event are not
//     called and the connection is closed, in a way that makes clients reconnect;
//   - OfFunc, the name is not accepted; OnNamespace, the namespace refuses clients;
//   - ConnectRequest.KeepRooms, the room is not kept;
//   - a hook of Options.Engine, see [engineio.Options];
//   - OnError, OnDisconnecting, OnDisconnect, OnAnyOutgoing, OnRoom or OnServerSide,
//     the others are called and the connection is not affected.
//
// # Goroutines
//
// A socket's handlers run one after another on a goroutine that exists only while the socket has
// something to handle. They may block: the socket's other events wait, but other sockets do not.
// A Handler's context ends when its socket ends. Every goroutine that this package starts has
// ended when [Server.Close] returns.
package socketio
