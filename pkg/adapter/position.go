package adapter

import (
	"cmp"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"strconv"
	"strings"
	"time"
)

// A Position is an event's place in the order of its partition: the time at which
// it was issued and a number that makes it unique within that millisecond. The
// zero Position is before all events.
type Position struct {
	Ms  uint64 // Unix time in milliseconds, by the clock that issued it
	Seq uint64
	// Partition is the partition to whose order the position belongs. Rooms are spread over the
	// partitions of a cluster, and each has a clock of its own. Most clusters have one, 0.
	Partition uint16
}

// Compare returns -1, 0 or 1 if p is before q, is q, or is after it. Between partitions it compares
// times, which is useful for sorting and proves nothing.
func (p Position) Compare(q Position) int {
	switch {
	case p.Ms != q.Ms:
		return cmp.Compare(p.Ms, q.Ms)
	case p.Seq != q.Seq:
		return cmp.Compare(p.Seq, q.Seq)
	}
	return cmp.Compare(p.Partition, q.Partition)
}

// Time returns when the position was issued.
func (p Position) Time() time.Time { return time.UnixMilli(int64(p.Ms)) }

// A Cursor states how much of a history has been seen: in each partition everything up to a
// position, in the history that the epoch names. The zero Cursor has seen nothing and does not
// name a history. Cursors are values; use the methods, not the fields, to compare them.
//
// As a string a cursor is the offset carried by events: opaque to clients, which send it back
// unchanged.
type Cursor struct {
	Epoch string // letters and digits
	At    Position
	// all holds the packed positions of all partitions if there are several; At is one of them, the
	// one that changed last.
	all string
}

// MaxPartitions is the maximum number of partitions of a cluster.
const MaxPartitions = 64

// packed is the size of one position in Cursor.all.
const packed = 16

// NewCursor returns the cursor that has seen, in each partition of a history, everything up to a
// position: positions[i] is that of partition i. Its At is the position of partition at.
func NewCursor(epoch string, at uint16, positions []Position) Cursor {
	c := Cursor{Epoch: epoch, At: positions[at]}
	if len(positions) > 1 {
		b := make([]byte, 0, len(positions)*packed)
		for _, p := range positions {
			b = binary.BigEndian.AppendUint64(b, p.Ms)
			b = binary.BigEndian.AppendUint64(b, p.Seq)
		}
		c.all = string(b)
	}
	return c
}

// In returns the position up to which c has seen a partition.
func (c Cursor) In(partition uint16) Position {
	at := int(partition) * packed
	switch {
	case at+packed <= len(c.all):
		return Position{number(c.all[at:]), number(c.all[at+8:]), partition}
	case partition == c.At.Partition:
		return c.At
	}
	return Position{Partition: partition}
}

// number reads 8 bytes in big-endian order.
func number(s string) (n uint64) {
	for i := range 8 {
		n = n<<8 | uint64(s[i])
	}
	return n
}

// Partitions returns the number of partitions of the history.
func (c Cursor) Partitions() int { return max(1, len(c.all)/packed) }

// IsZero reports whether c is the zero Cursor.
func (c Cursor) IsZero() bool { return c.Epoch == "" && c.all == "" && c.At == Position{} }

// Covers reports whether p, of the same history, has been seen.
func (c Cursor) Covers(p Position) bool { return p.Compare(c.In(p.Partition)) <= 0 }

// Includes reports whether c has seen everything that d, of the same history, has seen.
func (c Cursor) Includes(d Cursor) bool { return c.Max(d).all == c.all && c.Covers(d.At) }

// SameHistory reports whether the two cursors can be compared.
func (c Cursor) SameHistory(d Cursor) bool { return c.Epoch == d.Epoch && len(c.all) == len(d.all) }

// Max returns the union of two cursors of the same history: it has seen everything that either
// has seen. If their histories differ it returns d.
func (c Cursor) Max(d Cursor) Cursor {
	switch {
	case !c.SameHistory(d):
		return d
	case c.all == "" && c.Covers(d.At):
		return c
	case c.all == "" || c.all == d.all:
		return d
	}
	positions := make([]Position, len(c.all)/packed)
	newest := uint16(0)
	for i := range positions {
		positions[i] = c.In(uint16(i))
		if q := d.In(uint16(i)); positions[i].Compare(q) < 0 {
			positions[i] = q
		}
		if positions[i].Compare(positions[newest]) > 0 {
			newest = uint16(i)
		}
	}
	return NewCursor(c.Epoch, newest, positions)
}

// Min returns the intersection of two cursors of the same history: it has seen everything that
// both have seen. If their histories differ it returns d.
func (c Cursor) Min(d Cursor) Cursor {
	if !c.SameHistory(d) {
		return d
	}
	positions := make([]Position, c.Partitions())
	for i := range positions {
		positions[i] = c.In(uint16(i))
		if q := d.In(uint16(i)); q.Compare(positions[i]) < 0 {
			positions[i] = q
		}
	}
	return NewCursor(c.Epoch, d.At.Partition, positions)
}

// String returns the cursor as an offset: epoch, milliseconds and number, the numbers in base 36.
// If there are several partitions, the positions of the others follow in base64. It is empty for
// the zero Cursor.
func (c Cursor) String() string {
	return string(c.AppendTo(make([]byte, 0, 96))) // usually on the stack
}

// AppendTo appends the result of String to b and returns the extended slice.
func (c Cursor) AppendTo(b []byte) []byte {
	if c.IsZero() {
		return b
	}
	b = append(b, c.Epoch...)
	b = append(b, '.')
	b = strconv.AppendUint(b, c.At.Ms, 36)
	b = append(b, '.')
	b = strconv.AppendUint(b, c.At.Seq, 36)
	if c.all != "" {
		b = append(b, '.')
		b = base64.RawURLEncoding.AppendEncode(b, c.others())
	}
	return b
}

// others encodes the rest of the cursor: the number of partitions, which one is At's, and the
// positions of the others, with times relative to At's.
func (c Cursor) others() []byte {
	n := len(c.all) / packed
	b := make([]byte, 0, 2+5*n)
	b = append(b, byte(n), byte(c.At.Partition))
	for i := range uint16(n) {
		if i != c.At.Partition {
			p := c.In(i)
			b = binary.AppendVarint(b, int64(p.Ms-c.At.Ms))
			b = binary.AppendUvarint(b, p.Seq)
		}
	}
	return b
}

var errBadOffset = errors.New("adapter: malformed offset")

// longestOffset is the maximum length of an offset.
const longestOffset = 64 + 28*MaxPartitions

// ParseCursor parses the result of String. Offsets come from untrusted clients, so everything else,
// including the empty string, is an error.
func ParseCursor(s string) (Cursor, error) {
	if len(s) > longestOffset {
		return Cursor{}, errBadOffset
	}
	parts := strings.Split(s, ".")
	if len(parts) < 3 || len(parts) > 4 || !isEpoch(parts[0]) {
		return Cursor{}, errBadOffset
	}
	ms, err1 := strconv.ParseUint(parts[1], 36, 64)
	seq, err2 := strconv.ParseUint(parts[2], 36, 64)
	c := Cursor{Epoch: parts[0], At: Position{Ms: ms, Seq: seq}}
	var err3 error
	if len(parts) == 4 {
		c, err3 = parseOthers(c, parts[3])
	}
	if err1 != nil || err2 != nil || err3 != nil || c.String() != s {
		return Cursor{}, errBadOffset
	}
	return c, nil
}

// isEpoch reports whether s can name a history: letters and digits.
func isEpoch(s string) bool {
	return s != "" && len(s) <= 32 && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
	})
}

// parseOthers parses the result of others.
func parseOthers(c Cursor, s string) (Cursor, error) {
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil || len(b) < 2 || b[0] < 2 || b[0] > MaxPartitions || b[1] >= b[0] {
		return c, errBadOffset
	}
	positions := make([]Position, b[0])
	at := uint16(b[1])
	c.At.Partition = at
	positions[at] = c.At
	b = b[2:]
	for i := range positions {
		if uint16(i) == at {
			continue
		}
		ms, n := binary.Varint(b)
		if n <= 0 {
			return c, errBadOffset
		}
		seq, k := binary.Uvarint(b[n:])
		if k <= 0 {
			return c, errBadOffset
		}
		positions[i] = Position{c.At.Ms + uint64(ms), seq, uint16(i)}
		b = b[n+k:]
	}
	return NewCursor(c.Epoch, at, positions), nil
}

// A Progress is a mutable cursor: it advances one partition at a time. It is not safe for
// concurrent use.
type Progress struct {
	epoch     string
	positions []Position
	one       [1]Position // backs positions if there is one partition
}

// NewProgress returns a progress that begins at a cursor.
func NewProgress(c Cursor) *Progress {
	p := &Progress{epoch: c.Epoch}
	if p.positions = p.one[:]; len(c.all) > 0 {
		p.positions = make([]Position, len(c.all)/packed)
	}
	for i := range p.positions {
		p.positions[i] = c.In(uint16(i))
	}
	return p
}

// To moves the progress forward to a position in its partition, and returns the resulting cursor. It
// never moves back: a position that the progress has passed has no effect.
func (p *Progress) To(at Position) Cursor {
	if p.positions[at.Partition].Compare(at) < 0 {
		p.positions[at.Partition] = at
	}
	return NewCursor(p.epoch, at.Partition, p.positions)
}

// Reset sets one partition to a position of another history.
func (p *Progress) Reset(epoch string, at Position) {
	p.epoch = epoch
	p.positions[at.Partition] = at
}
