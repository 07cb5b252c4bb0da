package engineio

import (
	"maps"
	"sync/atomic"
)

// Stats are a server's gauges and counters at one moment.
type Stats struct {
	// Open connections, by transport.
	Polling, WebSocket int
	// Opened counts opened connections, Closed ended ones, by reason.
	Opened uint64
	Closed map[Reason]uint64
	// Refused counts requests that were refused before they reached a connection, by the code
	// passed to OnRefused.
	Refused map[int]uint64
	// Upgrades counts moves from polling to WebSocket.
	Upgrades uint64
	// QueuedBytes is the memory held for queued packets, on all connections together.
	QueuedBytes int64
	// SlowClients counts connections that were closed because of their send queue.
	SlowClients uint64
	// BudgetCuts counts connections that were closed because of the queue budget.
	BudgetCuts uint64
	// ReceivingBytes is the memory of messages and polling requests of more than 4 KiB that count in
	// the receive budget. ReceiveCuts counts those that were given up because of it.
	ReceivingBytes int64
	ReceiveCuts    uint64
	// Uncompressed counts polling responses that were not compressed because of the budget for that.
	Uncompressed uint64
	// TooLarge counts messages and polling requests that exceeded MaxPayload.
	TooLarge uint64
	// Packets and bytes of Engine.IO, before compression on a WebSocket and after it on polling.
	PacketsIn, PacketsOut, BytesIn, BytesOut uint64
}

// counts are updated for every packet, without a lock.
type counts struct {
	queued                                   atomic.Int64
	slowClients, budgetCuts, tooLarge        atomic.Uint64
	uncompressed                             atomic.Uint64
	refused                                  [8]atomic.Uint64 // from busyCode on
	packetsIn, packetsOut, bytesIn, bytesOut atomic.Uint64
}

// Stats returns the current numbers.
func (s *Server) Stats() Stats {
	refused := make(map[int]uint64, len(s.counts.refused))
	for i := range s.counts.refused {
		refused[busyCode+i] = s.counts.refused[i].Load()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return Stats{
		Polling:        s.clients[Polling],
		WebSocket:      s.clients[WebSocket],
		Opened:         s.opened,
		Closed:         maps.Clone(s.closed),
		Refused:        refused,
		Upgrades:       s.upgradeCount,
		QueuedBytes:    s.counts.queued.Load(),
		SlowClients:    s.counts.slowClients.Load(),
		BudgetCuts:     s.counts.budgetCuts.Load(),
		ReceivingBytes: s.arriving.bytes.Load(),
		ReceiveCuts:    s.arriving.cuts.Load(),
		Uncompressed:   s.counts.uncompressed.Load(),
		TooLarge:       s.counts.tooLarge.Load(),
		PacketsIn:      s.counts.packetsIn.Load(),
		PacketsOut:     s.counts.packetsOut.Load(),
		BytesIn:        s.counts.bytesIn.Load(),
		BytesOut:       s.counts.bytesOut.Load(),
	}
}
