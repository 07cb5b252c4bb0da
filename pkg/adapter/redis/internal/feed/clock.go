package feed

import (
	"fmt"
	"strconv"

	"github.com/rejoin-io/rejoin/pkg/adapter"
)

// PerCall is the number of positions of a call: its entry in the clock is issued once, and its k-th
// event is at ms-(seq*PerCall+k).
const PerCall = 1024

// An Entry is one call's entry in the clock.
type Entry struct {
	Ms, Seq uint64
	Call    string // its random id; "" if not known
}

// EntryOf returns the entry of the call that issued a position.
func EntryOf(p adapter.Position) Entry { return Entry{Ms: p.Ms, Seq: p.Seq / PerCall} }

// Position returns the position of the call's k-th event in a partition.
func (e Entry) Position(partition uint16, k int) adapter.Position {
	return adapter.Position{Ms: e.Ms, Seq: e.Seq*PerCall + uint64(k), Partition: partition}
}

// End returns the last position that the call can have issued.
func (e Entry) End(partition uint16) adapter.Position { return e.Position(partition, PerCall-1) }

// Before reports whether an entry precedes another one.
func (e Entry) Before(f Entry) bool { return e.Ms < f.Ms || e.Ms == f.Ms && e.Seq < f.Seq }

// ID returns the entry's id in the stream.
func (e Entry) ID() string {
	b := make([]byte, 0, 24)
	b = strconv.AppendUint(b, e.Ms, 10)
	b = append(b, '-')
	return string(strconv.AppendUint(b, e.Seq, 10))
}

// A Look is the result of one transaction that reads the clock of a history.
type Look struct {
	Epoch          string
	Oldest, Newest Entry
	Found          map[string]Entry // of the requested entries, by id
}

// Verdict returns an error if a position is proved not to be of this history. A position older than
// the clock's first entry proves nothing.
func (l *Look) Verdict(at adapter.Position) error {
	e := EntryOf(at)
	text := Entry{Ms: at.Ms, Seq: at.Seq}.ID()
	switch {
	case l.Newest.Before(e):
		return fmt.Errorf("%w: position %s is ahead of the clock of %s", adapter.ErrHistoryLost, text, l.Epoch)
	case e.Before(l.Oldest):
		return nil
	}
	if _, ok := l.Found[e.ID()]; !ok {
		return fmt.Errorf("%w: position %s is not in the clock of %s", adapter.ErrHistoryLost, text, l.Epoch)
	}
	return nil
}

// Lacks returns the proof that the clock lost one of some entries, or "".
func (l *Look) Lacks(memory []Entry) string {
	for _, e := range memory {
		if proof := l.lacks(e); proof != "" {
			return proof
		}
	}
	return ""
}

func (l *Look) lacks(e Entry) string {
	if e.Ms == 0 || e.Before(l.Oldest) {
		return ""
	}
	found, ok := l.Found[e.ID()]
	switch {
	case l.Newest.Before(e):
		return fmt.Sprintf("entry %s is ahead of the clock, which is at %s", e.ID(), l.Newest.ID())
	case !ok:
		return fmt.Sprintf("entry %s is not in the clock", e.ID())
	case e.Call != "" && found.Call != e.Call:
		return fmt.Sprintf("entry %s is of another call", e.ID())
	}
	return ""
}
