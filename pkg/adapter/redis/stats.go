package redis

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/rejoin-io/rejoin/pkg/adapter"
)

// Stats are statistics of an adapter since its start, and its present state.
type Stats struct {
	Epoch         string        // the current history
	Subscriptions int           // subscribed rooms, including lingering ones
	ProbeAge      time.Duration // since the last probe returned
	RoundTrip     time.Duration // of the last probe: through the publisher, Redis and the feed

	Published       uint64    // events
	Batches         Histogram // numbers of events in one call
	PublishSeconds  Histogram // durations of calls, in seconds
	Retries         uint64    // calls whose outcome had to be determined afterwards
	Generations     uint64    // subscriber connections that ended
	Gaps            uint64    // times that the feed's queue overflowed
	Repairs         uint64    // catch-ups that repaired a gap
	Repaired        uint64    // events in them
	Losses          uint64    // gaps that could not be repaired
	Epochs          uint64    // histories lost
	MessagesDropped uint64    // because of a full queue
	Malformed       uint64    // messages and entries that could not be decoded
	NotStored       uint64    // events that failed because of the key of their room or lists
	Ahead           uint64    // messages refused because they were ahead of the clock
	NewerVersion    uint64    // data of peers in a newer wire version
}

// A Histogram counts values by upper bounds. Values above the last bound are only in Count and Sum.
type Histogram struct {
	Bounds []float64 // ascending
	Counts []uint64  // for each bound, the number of values up to it, including those of lower bounds
	Count  uint64    // number of all values
	Sum    float64   // of all values
}

var (
	batchBounds   = []float64{1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024}
	latencyBounds = []float64{.00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5}
)

type counters struct {
	events, retries, generations, gaps, repairs, repaired, losses, epochs, messagesDropped, malformed, newer, notStored, ahead atomic.Uint64

	mu      sync.Mutex
	batches Histogram
	seconds Histogram
}

func newCounters() *counters {
	return &counters{
		batches: Histogram{Bounds: batchBounds, Counts: make([]uint64, len(batchBounds))},
		seconds: Histogram{Bounds: latencyBounds, Counts: make([]uint64, len(latencyBounds))},
	}
}

// called counts one call.
func (c *counters) called(events int, took time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.batches.add(float64(events))
	c.seconds.add(took.Seconds())
}

func (h *Histogram) add(v float64) {
	for i := len(h.Bounds) - 1; i >= 0 && v <= h.Bounds[i]; i-- {
		h.Counts[i]++
	}
	h.Count++
	h.Sum += v
}

func (h Histogram) clone() Histogram {
	h.Counts = append([]uint64(nil), h.Counts...)
	return h
}

// Stats returns the adapter's statistics.
func (a *Adapter) Stats() Stats {
	c := a.counters
	s := Stats{
		Published: c.events.Load(), Retries: c.retries.Load(), Generations: c.generations.Load(),
		Gaps: c.gaps.Load(), Repairs: c.repairs.Load(), Repaired: c.repaired.Load(), Losses: c.losses.Load(),
		Epochs: c.epochs.Load(), MessagesDropped: c.messagesDropped.Load(), Malformed: c.malformed.Load(),
		NewerVersion: c.newer.Load(), NotStored: c.notStored.Load(), Ahead: c.ahead.Load(),
	}
	c.mu.Lock()
	s.Batches, s.PublishSeconds = c.batches.clone(), c.seconds.clone()
	c.mu.Unlock()
	epochs := make([]string, len(a.partitions))
	for i, p := range a.partitions {
		epochs[i] = p.addTo(&s)
	}
	s.Epoch = adapter.CombineEpochs(epochs)
	return s
}

// addTo adds the partition's present state to statistics, and returns its epoch.
func (p *partition) addTo(s *Stats) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	s.Subscriptions += len(p.rooms)
	s.RoundTrip = max(s.RoundTrip, p.roundTrip)
	if !p.probed.IsZero() {
		s.ProbeAge = max(s.ProbeAge, time.Since(p.probed))
	}
	return p.feed.Epoch()
}
