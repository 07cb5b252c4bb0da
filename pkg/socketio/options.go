package socketio

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"go.uber.org/zap"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/engineio"
	"github.com/rejoin-io/rejoin/pkg/session"
)

// Options configure a [Server]. A zero field means the default in its comment. NewServer refuses
// negative limits and durations, except for RecoveryWindow, and options that the engine refuses.
type Options struct {
	// Engine configures the connections. Its Path defaults to /socket.io/. In addition to the
	// queued packets, a quarter of its QueueBudget bounds the events that are held back during
	// recoveries and joins, and the acks that wait for events. Beyond it recoveries read the events
	// again, acks are sent early, and other connections are closed; their clients recover.
	Engine engineio.Options

	// Adapter connects this server to the other nodes. By default the server is alone and keeps its
	// backlogs in memory. The caller closes the adapter, after the server.
	Adapter adapter.Adapter

	// Sessions stores the sessions that clients recover, for the whole cluster. By default they are
	// in memory.
	Sessions session.Store

	// OffsetKey lets nodes distinguish offsets that they have issued from made-up ones; it is the
	// same for the whole cluster. It matters if the adapter can lose its history, because only a
	// genuine offset proves the loss. Without a key no offset is genuine.
	OffsetKey []byte

	// RecoveryWindow is the time for which a client may be disconnected and still be recovered as
	// the same socket with the events it missed: 2 minutes by default. A negative window disables
	// recovery: clients get no private id and events no offset.
	RecoveryWindow time.Duration

	// Recovers decides whether a client can use recovery: whether it gets a private id and offsets.
	// It is called at each CONNECT of a client that does not state its choice with recovery, true
	// or false, in its auth payload or in the query of its first request. By default
	// IsJavaScriptClient decides. It must not block, and may be called concurrently; a panic in it
	// counts as false.
	Recovers func(namespace string, h *engineio.Handshake) bool

	// ReplayLimit is the maximum number of missed events that a recovered client gets, in all its
	// rooms together: 10,000 by default. A client that missed more is not recovered.
	ReplayLimit int

	// ConnectTimeout is the maximum time from the start of a connection to its first socket in any
	// namespace: 45 seconds by default.
	ConnectTimeout time.Duration

	// AckTimeout is the maximum wait for acks and answers if neither the context nor Timeout sets
	// one: 10 seconds by default. It also bounds the time that an ack to a client is held for the
	// events that precede it; see [Event.Ack].
	AckTimeout time.Duration

	// RoomsPerSocket bounds the rooms that one socket can join: 1,000 by default. Ten times as many
	// memberships are kept, including those that have ended within the recovery window. The limit
	// does not apply to commands such as [Broadcast.SocketsJoin].
	RoomsPerSocket int

	// MembershipBudget bounds the memory, in bytes, of the memberships of all sockets, including those
	// that have ended within the recovery window: 512 MiB by default. A membership counts as 640 bytes
	// and 16 for each byte of its room's name, and with several partitions 32 for each of them. From
	// three quarters of the budget on, and for recoveries beyond all of it, a socket can have an equal
	// share of the rest and of an extra eighth of the budget; or, if that is more, 16 memberships, which
	// for all sockets of a connection are 16 KiB together. The recovery of a session with more is
	// postponed: its client's connection is closed. Sockets of a connection beside its first count as 4
	// KiB; from three quarters on a connection can have four, and more within its share.
	MembershipBudget int

	// MailboxEvents and MailboxBytes bound the received events of a socket that wait for its
	// handlers: 2,048 events by default, and 1 MiB or Engine.MaxPayload, whichever is more. Bytes
	// count the memory of events: their payload, about 256 bytes each and 24 for each argument. One
	// event may exceed the bytes.
	//
	// When a limit is reached the connection is not read until half of it is free, or, after a
	// quarter of Engine.PauseTimeout, until one more event has been handled. Meanwhile the client
	// is not cut for its silence, unless no event has been handled for Engine.PauseTimeout. While
	// the server waits for an ack of the client, it continues to read up to twice the limits,
	// because the ack follows the events.
	//
	// An event also waits for its handlers while half of Engine.SendQueueBytes is queued for its
	// client, so that a client which sends before it reads is not cut for its acks.
	MailboxEvents int
	MailboxBytes  int

	// NamespacesPerConnection bounds the namespaces that one connection can be connected to at a
	// time: 16 by default. A further CONNECT is answered with a connect_error, and the connection
	// stays open. A connection may send four times as many CONNECT packets in a burst, and after
	// that one a second; beyond that it is closed, and its client reconnects.
	NamespacesPerConnection int

	// UnconnectedSessions bounds the connections that have had no socket and are not connecting
	// one: 5,000 by default. One more closes the oldest. A client is in this state for one round
	// trip, from its handshake to its CONNECT.
	UnconnectedSessions int

	// ReceiveBudget bounds, in bytes, the memory of all clients' events until they are handled: 128
	// MiB by default, or twice Engine.MaxPayload if that is more. It counts packets that wait for
	// attachments, and events that wait for handlers or are being handled. Of each socket, 1 KiB
	// that waits and 1 KiB that is being handled are not counted.
	//
	// From half of the budget on, a connection is not read while 8 KiB of a socket's events wait
	// for its handlers, as with MailboxBytes, unless the server waits for an ack of the client.
	// Beyond the budget the connection that holds the most is closed, of those whose packets have
	// waited for attachments for a second if there are any, and its waiting events are dropped.
	//
	// Messages and polling requests that have not arrived completely have a budget of their own, of
	// half as much unless Engine.ReceiveBudget is set.
	//
	// In any case a connection is closed if the next attachment of a packet does not arrive
	// within the sum of Engine.PingInterval and PingTimeout.
	ReceiveBudget int

	// SessionRecoveries is the number of recoveries of one session that this server allows in a
	// burst: 30 by default, and after that one a second. A recovery with many rooms counts as up to
	// ten. Each recovery counts as ten until it has been read. Beyond the limit the client's
	// connection is closed before anything is read, and the client is recovered later.
	SessionRecoveries int

	// RecoveryLimit is optional. It returns the limit that a socket shares with others, such as all
	// of one user or of one address. Missed events that a recovery reads outside of the process
	// count for its session, as one more recovery for each 10 KiB, so that they delay the session's
	// next recovery by up to half a minute. Bytes beyond the burst of SessionRecoveries count for
	// this limit. If both are used up, a replay of more than 256 KiB, or of more than the rest of
	// the burst, waits, for at most 5 seconds in total. No recovery is refused because of this
	// limit. The function is called once for a recovery, when the middlewares have returned.
	RecoveryLimit func(r *ConnectRequest) RecoveryLimit

	// NewID makes the public id of a new socket, which must be unique in the cluster and over time.
	// By default it is 20 random characters. A recovered socket keeps its id.
	NewID func(ctx context.Context, r *ConnectRequest) (string, error)

	// KeepEmptyNamespaces keeps a dynamic namespace when its last socket leaves.
	KeepEmptyNamespaces bool

	// DynamicNamespaces bounds the dynamic namespaces of this server that clients have created and
	// whose middlewares have accepted a client: no limit by default. It does not count namespaces of
	// Of. Beyond it a client that would be the first in a namespace gets no answer and its connection
	// is closed, so that it retries, on another server if there is one.
	DynamicNamespaces int

	// Client holds the files of the JavaScript client, which are served beside the
	// connections: socket.io.js, socket.io.min.js, socket.io.msgpack.min.js and
	// socket.io.esm.min.js, and the .map of each. By default none is served.
	Client fs.FS

	// OnPanic is optional. It is called with every panic of a function that the application has
	// registered, after the panic was logged: to report it, or to end the process. It is called
	// concurrently, and must not block, because the goroutine that panicked waits for it.
	OnPanic func(*PanicError)

	// Logger receives the server's logs. By default nothing is logged.
	Logger *zap.Logger
}

// Limits that are not options.
const (
	// maxRoomName is the maximum length of a room name, in bytes.
	maxRoomName = 200
	// maxConnectPayload is the maximum size of a CONNECT payload, in bytes.
	maxConnectPayload = 64 << 10
	// maxNamespaceName bounds the names that clients can pass to patterns and functions, and so the
	// namespaces that they can create.
	maxNamespaceName = 200
	// staysPerRoom is the number of memberships that a socket may have, now and in the
	// recovery window, for each of RoomsPerSocket.
	staysPerRoom = 10
	// pendingEvents is the number of events that may wait for their CONNECT, in addition to
	// the bound of MailboxBytes.
	pendingEvents = 100
	// retryDelay is the default of Server.retryDelay.
	retryDelay = 5 * time.Second
	// storeTimeout bounds each round trip to the session store and the adapter that no caller's
	// context bounds.
	storeTimeout = 5 * time.Second
	// recoverTimeout bounds a recovery up to its CONNECT answer.
	recoverTimeout = 15 * time.Second
)

// RefreshPeriod returns how often a server extends the expiry of the sessions that it serves, given
// its recovery window. A session expires one window and one period after its last refresh, so
// backlogs must be kept longer than the sum of the window, this period, and the time in which a
// dead connection is detected. The node of this module checks its configuration with it.
func RefreshPeriod(window time.Duration) time.Duration {
	return min(max(window/4, time.Second), 30*time.Second)
}

// withDefaults replaces zero fields by their defaults. It returns an error for invalid options.
func (o Options) withDefaults() (Options, error) {
	o.Logger = cmp.Or(o.Logger, zap.NewNop())
	o.Engine.Logger = cmp.Or(o.Engine.Logger, o.Logger)
	o.Engine.Path = cmp.Or(o.Engine.Path, "/socket.io/")
	receiving := o.Engine.ReceiveBudget
	var err error
	if o.Engine, err = o.Engine.WithDefaults(); err != nil {
		return o, err
	}
	o.RecoveryWindow = cmp.Or(o.RecoveryWindow, 2*time.Minute)
	err = errors.Join(
		orDefault("ReplayLimit", &o.ReplayLimit, 10_000),
		orDefault("ConnectTimeout", &o.ConnectTimeout, 45*time.Second),
		orDefault("AckTimeout", &o.AckTimeout, 10*time.Second),
		orDefault("RoomsPerSocket", &o.RoomsPerSocket, 1000),
		orDefault("MembershipBudget", &o.MembershipBudget, 512<<20),
		orDefault("MailboxEvents", &o.MailboxEvents, 2048),
		orDefault("MailboxBytes", &o.MailboxBytes, max(1<<20, o.Engine.MaxPayload)),
		orDefault("NamespacesPerConnection", &o.NamespacesPerConnection, 16),
		orDefault("UnconnectedSessions", &o.UnconnectedSessions, 5000),
		orDefault("ReceiveBudget", &o.ReceiveBudget, max(128<<20, 2*o.Engine.MaxPayload)),
		orDefault("SessionRecoveries", &o.SessionRecoveries, 30),
	)
	o.Engine.ReceiveBudget = cmp.Or(receiving, max(o.ReceiveBudget/2, 2*o.Engine.MaxPayload))
	if o.Recovers == nil {
		o.Recovers = func(_ string, h *engineio.Handshake) bool { return IsJavaScriptClient(h) }
	}
	if o.NewID == nil {
		o.NewID = func(context.Context, *ConnectRequest) (string, error) { return newID(), nil }
	}
	return o, err
}

// orDefault replaces a limit of 0 by its default. It returns an error for a negative one.
func orDefault[T int | time.Duration](name string, value *T, byDefault T) error {
	if *value < 0 {
		return fmt.Errorf("socketio: %s is %v: write a positive value, or 0 for the default", name, *value)
	}
	*value = cmp.Or(*value, byDefault)
	return nil
}

// recovery reports whether clients can be recovered.
func (o *Options) recovery() bool { return o.RecoveryWindow > 0 }

func (o *Options) mailLimit() mailLimit { return mailLimit{o.MailboxEvents, o.MailboxBytes} }

// sessionLife is a session's TTL after it was last saved or refreshed.
func (o *Options) sessionLife() time.Duration {
	return o.RecoveryWindow + RefreshPeriod(o.RecoveryWindow)
}

// detection is the maximum time until a node notices that a client is no longer connected.
func (o *Options) detection() time.Duration { return o.Engine.PingInterval + o.Engine.PingTimeout }

// quiet is the time without events after which what a client has been given is noted before it is sent
// the next one. It must not be noted again while the client may have been cut before the first of them.
func (o *Options) quiet() time.Duration { return max(o.sessionLife(), o.detection()) }

// memory is the time for which a room that was left is remembered: as long as a client that was
// cut before, and perhaps detected late, may be recovered.
func (o *Options) memory() time.Duration { return o.quiet() + o.detection() + 10*time.Second }
