package adapter

import (
	"cmp"
	"errors"
	"strconv"
	"strings"
	"time"
)

// A Position is an event's place in the total order: the time at which it was
// issued and a number that makes it unique within that millisecond. The zero
// Position is before all events.
type Position struct {
	Ms  uint64 // Unix time in milliseconds, by the clock that issued it
	Seq uint64
}

// Compare returns -1, 0 or 1 as p lies before q, is q, or lies after it.
func (p Position) Compare(q Position) int {
	return cmp.Or(cmp.Compare(p.Ms, q.Ms), cmp.Compare(p.Seq, q.Seq))
}

// Time returns when the position was issued.
func (p Position) Time() time.Time { return time.UnixMilli(int64(p.Ms)) }

// A Cursor says how much of a history has been seen: everything up to a
// position, in the history that the epoch names. The zero Cursor has seen
// nothing of no history. Cursors are values; use the methods, not the fields,
// to compare them.
//
// As a string a cursor is the offset that rides in events: opaque to clients,
// which send it back unchanged.
type Cursor struct {
	Epoch string // letters and digits
	At    Position
}

// IsZero reports whether c is the zero Cursor.
func (c Cursor) IsZero() bool { return c == Cursor{} }

// Covers reports whether p, of the same history, has been seen.
func (c Cursor) Covers(p Position) bool { return p.Compare(c.At) <= 0 }

// SameHistory reports whether the two cursors can be compared at all.
func (c Cursor) SameHistory(d Cursor) bool { return c.Epoch == d.Epoch }

// Max returns the one of two cursors of the same history that has seen more.
// Of two histories it returns d.
func (c Cursor) Max(d Cursor) Cursor {
	if c.SameHistory(d) && c.Covers(d.At) {
		return c
	}
	return d
}

// String returns the cursor as an offset: epoch, milliseconds and number, the
// numbers in base 36. It is empty for the zero Cursor.
func (c Cursor) String() string {
	if c.IsZero() {
		return ""
	}
	b := make([]byte, 0, len(c.Epoch)+24)
	b = append(b, c.Epoch...)
	b = append(b, '.')
	b = strconv.AppendUint(b, c.At.Ms, 36)
	b = append(b, '.')
	b = strconv.AppendUint(b, c.At.Seq, 36)
	return string(b)
}

var errBadOffset = errors.New("adapter: malformed offset")

// ParseCursor reads what String wrote. Offsets come from strangers, so anything
// else is an error: the empty string too.
func ParseCursor(s string) (Cursor, error) {
	if len(s) > 64 {
		return Cursor{}, errBadOffset
	}
	parts := strings.Split(s, ".")
	if len(parts) != 3 || parts[0] == "" {
		return Cursor{}, errBadOffset
	}
	ms, err1 := strconv.ParseUint(parts[1], 36, 64)
	seq, err2 := strconv.ParseUint(parts[2], 36, 64)
	c := Cursor{Epoch: parts[0], At: Position{Ms: ms, Seq: seq}}
	if err1 != nil || err2 != nil || c.String() != s {
		return Cursor{}, errBadOffset
	}
	return c, nil
}
