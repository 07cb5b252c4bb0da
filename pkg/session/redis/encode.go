package redis

import (
	"encoding/binary"
	"fmt"
	"strconv"

	"github.com/rejoin-io/rejoin/pkg/session"
)

const (
	headSize = 32 // fence and write number
	version  = 1  // of the rest

	// A few bytes can represent a join position, so the memory of positions is bounded in addition
	// to the size of the value: one position, which with 64 partitions has less than 2 KiB, and the
	// total.
	maxPosition  = 2 << 10
	maxPositions = 32 << 20

	minRoom = 5 // minimum bytes of a room in a value: its kind and four numbers
)

// head returns the head of a new write.
func (s *Store) head(fence uint64) []byte {
	return fmt.Appendf(make([]byte, 0, headSize), "%016x%016d", fence, s.number())
}

// encode returns the value of a new write. Strings are preceded by their length. A room's join
// position often resembles that of the previous room, so only the difference is written.
func (s *Store) encode(sn session.Session) ([]byte, error) {
	size := headSize + 64 + len(sn.ID) + len(sn.Namespace) + len(sn.User) + len(sn.Data) + len(sn.Epoch) + len(sn.Owner)
	for _, m := range sn.Rooms {
		size += 8 + len(m.Name) + len(m.Join) + len(m.Leave)
	}
	b := make([]byte, 0, size)
	b = fmt.Appendf(b, "%016x%016d", sn.Fence, s.number())
	b = append(b, version)
	for _, part := range []string{sn.ID, sn.Namespace, sn.User, sn.Epoch, sn.Owner} {
		b = appendString(b, part)
	}
	b = binary.AppendUvarint(b, uint64(len(sn.Data)))
	b = append(b, sn.Data...)
	b = binary.AppendUvarint(b, uint64(len(sn.Rooms)))
	last, positions := "", 0
	for _, m := range sn.Rooms {
		if positions += len(m.Join); len(m.Join) > maxPosition || positions > maxPositions {
			return nil, fmt.Errorf("%w: positions in %d rooms", session.ErrTooLarge, len(sn.Rooms))
		}
		b = append(b, m.Kind)
		b = appendString(b, m.Name)
		same := shared(last, m.Join)
		b = binary.AppendUvarint(b, uint64(same))
		b = appendString(b, m.Join[same:])
		b = appendString(b, m.Leave)
		last = m.Join
	}
	if len(b) > s.options.MaxSize {
		return nil, fmt.Errorf("%w: %d bytes in %d rooms, at most %d bytes are allowed", session.ErrTooLarge, len(b), len(sn.Rooms), s.options.MaxSize)
	}
	return b, nil
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// shared returns the length of the common prefix of two strings.
func shared(a, b string) int {
	if a == b {
		return len(a)
	}
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

var errValue = fmt.Errorf("%w: malformed value", session.ErrUndecodable)

// decode returns the session of a value, without its private id. Its data are a copy.
func decode(value []byte) (sn session.Session, err error) {
	if len(value) <= headSize {
		return sn, errValue
	}
	if v := value[headSize]; v != version {
		return sn, fmt.Errorf("%w: version %d, this node knows %d", session.ErrUndecodable, v, version)
	}
	if sn.Fence, err = strconv.ParseUint(string(value[:16]), 16, 64); err != nil {
		return session.Session{}, errValue
	}
	d := decoder{rest: value[headSize+1:]}
	for _, part := range []*string{&sn.ID, &sn.Namespace, &sn.User, &sn.Epoch, &sn.Owner} {
		*part = d.string()
	}
	if data := d.string(); data != "" {
		sn.Data = []byte(data)
	}
	last, positions := "", 0
	n := d.number()
	if n > 0 {
		sn.Rooms = make([]session.Membership, 0, min(n, uint64(len(d.rest)/minRoom)))
	}
	for ; n > 0 && !d.failed; n-- {
		m := session.Membership{Kind: d.byte(), Name: d.string()}
		same := d.number()
		if same > uint64(len(last)) {
			return session.Session{}, errValue
		}
		rest := d.string()
		size := int(same) + len(rest)
		if positions += size; size > maxPosition || positions > maxPositions {
			return session.Session{}, errValue
		}
		if m.Join = last; size != len(last) || rest != "" {
			m.Join = last[:same] + rest
		}
		m.Leave = d.string()
		last = m.Join
		sn.Rooms = append(sn.Rooms, m)
	}
	if d.failed || len(d.rest) > 0 {
		return session.Session{}, errValue
	}
	return sn, nil
}

// A decoder reads values from the front. After an error all values are zero.
type decoder struct {
	rest   []byte
	failed bool
}

func (d *decoder) fail() { d.rest, d.failed = nil, true }

func (d *decoder) byte() byte {
	if len(d.rest) == 0 {
		d.fail()
		return 0
	}
	b := d.rest[0]
	d.rest = d.rest[1:]
	return b
}

func (d *decoder) number() uint64 {
	n, size := binary.Uvarint(d.rest)
	if size <= 0 {
		d.fail()
		return 0
	}
	d.rest = d.rest[size:]
	return n
}

// skip skips a string.
func (d *decoder) skip() {
	n := d.number()
	if n > uint64(len(d.rest)) {
		d.fail()
		return
	}
	d.rest = d.rest[n:]
}

func (d *decoder) string() string {
	n := d.number()
	if n > uint64(len(d.rest)) {
		d.fail()
		return ""
	}
	s := string(d.rest[:n])
	d.rest = d.rest[n:]
	return s
}
