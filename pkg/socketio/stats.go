package socketio

import (
	"maps"
	"sync"
	"sync/atomic"

	"github.com/rejoin-io/rejoin/pkg/engineio"
)

// Stats are a server's counters since its start and its current totals.
type Stats struct {
	Engine            engineio.Stats
	Sockets           int // connected, in all namespaces
	Namespaces        int
	Connects          uint64            // sockets that were connected
	Disconnects       map[string]uint64 // by Reason
	Recoveries        map[string]uint64 // by outcome: "recovered", or the reason for refusal
	EventsIn          uint64            // received from clients
	EventsOut         uint64            // published
	Deliveries        uint64            // events queued to clients
	Replayed          uint64            // of Deliveries, those in recoveries
	ReplayBytes       int               // of missed events that recoveries hold until they are queued
	ReceivedBytes     int               // of clients' events until they are handled, beyond 1 KiB in each mailbox and handler
	MembershipBytes   int               // of the memberships of all sockets, approximately
	ConnectsPostponed uint64            // connects that were not answered, for a temporary reason
	TooManyRooms      uint64            // joins that were refused
	TooManyNamespaces uint64            // connects that were refused because of their number
	VolatileDropped   uint64            // volatile events that a client could not take
	AcksLate          uint64            // acks sent before the events that they should follow, because the events were late
	MailboxFull       map[string]uint64 // reading paused, by limit: "events", "bytes", "budget"; "pause": closed
	Limited           map[string]uint64 // connections and connects that were refused or closed, by limit
	Drained           uint64            // connections that Drain or SendAway closed
	Panics            uint64            // of functions that the application has registered
}

// Stats returns a snapshot.
func (s *Server) Stats() Stats {
	st := Stats{
		Engine:      s.engine.Stats(),
		Connects:    s.stats.connects.Load(),
		Disconnects: s.stats.disconnects.snapshot(),
		Recoveries:  s.stats.recoveries.snapshot(),
		EventsIn:    s.stats.eventsIn.Load(),
		EventsOut:   s.stats.eventsOut.Load(),
		Deliveries:  s.stats.deliveries.Load(),
		Replayed:    s.stats.replayed.Load(),

		ReplayBytes:       int(s.replays.held.Load()),
		ReceivedBytes:     int(s.received.total.Load()),
		MembershipBytes:   int(s.memberships.Load()),
		ConnectsPostponed: s.stats.connectsPostponed.Load(),

		VolatileDropped: s.stats.volatileDropped.Load(),
		AcksLate:        s.stats.acksLate.Load(),
		MailboxFull:     s.stats.mailboxFull.snapshot(),
		Limited:         s.stats.limited.snapshot(),
		Drained:         s.stats.drained.Load(),
		Panics:          s.stats.panics.Load(),
		TooManyRooms:    s.stats.tooManyRooms.Load(),

		TooManyNamespaces: s.stats.tooManyNamespaces.Load(),
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	st.Namespaces = len(s.namespaces)
	for _, n := range s.namespaces {
		st.Sockets += n.Len()
	}
	return st
}

type counters struct {
	connectsPostponed                     atomic.Uint64
	connects, eventsIn, eventsOut         atomic.Uint64
	deliveries, replayed, volatileDropped atomic.Uint64
	acksLate, drained, panics             atomic.Uint64
	tooManyRooms, tooManyNamespaces       atomic.Uint64
	disconnects, recoveries, mailboxFull  labelled
	limited                               connLimits
}

// init creates every outcome's counter at the start, so that a metric exists before its first
// event.
func (c *counters) init() {
	c.limited.init()
	c.disconnects.counts = zeros(ServerDisconnect, ClientDisconnect, ServerShutdown, TransportError, TransportClose, PingTimeout, ForcedClose, ParseError)
	c.mailboxFull.counts = zeros(limitEvents, limitBytes, limitBudget, limitPause)
	c.recoveries.counts = zeros(recoveredWell, refusedUnknown, refusedUser, refusedEpoch, refusedOffset, refusedHistory, refusedTrimmed, refusedLimit, refusedRooms, refusedRemoved)
}

// zeros returns a counter for each label.
func zeros[L ~string](labels ...L) map[string]uint64 {
	counts := make(map[string]uint64)
	for _, l := range labels {
		counts[string(l)] = 0
	}
	return counts
}

// labelled is a counter for each of a few labels.
type labelled struct {
	mu     sync.Mutex
	counts map[string]uint64
}

func (l *labelled) add(label string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts[label]++
}

func (l *labelled) snapshot() map[string]uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.counts)
}
