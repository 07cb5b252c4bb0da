package socketio

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"hash"
	"strings"
	"sync"

	"github.com/rejoin-io/rejoin/pkg/adapter"
)

// offsets formats and parses cursors as clients see them. With a key each carries a tag that only
// nodes can make. An offset that is not in the history proves that the history has lost events,
// and then all clients are cut. So the offset must be one that a node has issued.
type offsets struct{ macs *sync.Pool }

// tagLength is the truncated length of the tag: 48 bits, in 8 characters.
const tagLength = 6

func newOffsets(key []byte) offsets {
	if len(key) == 0 {
		return offsets{}
	}
	return offsets{&sync.Pool{New: func() any { return &tagger{Hash: hmac.New(sha256.New, key)} }}}
}

// A tagger computes tags, one after the other.
type tagger struct {
	hash.Hash
	buf []byte
}

// format returns a cursor as an offset.
func (o offsets) format(c adapter.Cursor) string { return string(o.appendTo(nil, c)) }

// appendTo appends a cursor as an offset.
func (o offsets) appendTo(b []byte, c adapter.Cursor) []byte {
	from := len(b)
	b = c.AppendTo(b)
	if o.macs == nil || len(b) == from {
		return b
	}
	b = append(b, '~')
	return o.appendTag(b, b[from:len(b)-1])
}

// appendTag appends the tag of an offset's cursor.
func (o offsets) appendTag(b, cursor []byte) []byte {
	mac := o.macs.Get().(*tagger)
	defer o.macs.Put(mac)
	mac.Reset()
	mac.buf = append(append(mac.buf[:0], "offset "...), cursor...)
	mac.Write(mac.buf)
	mac.buf = mac.Sum(mac.buf[:0])
	return base64.RawURLEncoding.AppendEncode(b, mac.buf[:tagLength])
}

// received returns the position up to which a client has received everything in the history of now,
// as the offset in its CONNECT says, or nothing. Without an offset, or with one of an earlier
// history, it has received nothing in this one, because clients keep their offset when they get a
// new session. An offset that no node can have issued is an error, because the client's position is
// unknown. genuine is that of parse.
func (o offsets) received(offset json.RawMessage, now adapter.Cursor) (c adapter.Cursor, genuine bool, err error) {
	var text *string
	if len(offset) > 0 {
		if err := json.Unmarshal(offset, &text); err != nil {
			return c, false, errors.New("offset is not a string")
		}
	}
	if text == nil {
		return adapter.Cursor{}, false, nil
	}
	c, genuine, err = o.parse(*text)
	switch {
	case err != nil:
		return adapter.Cursor{}, false, err
	case c.Epoch == now.Epoch && !c.SameHistory(now):
		return adapter.Cursor{}, false, errors.New("offset has another number of partitions")
	case c.Epoch == now.Epoch:
		return c, genuine, nil
	case o.macs != nil && !genuine:
		return adapter.Cursor{}, false, errors.New("offset belongs to an unknown history")
	}
	return adapter.Cursor{}, false, nil
}

// parse reads an offset. genuine reports whether a node issued it. An offset that is not genuine,
// for example after a change of the key, still says which position its client assumes.
func (o offsets) parse(s string) (c adapter.Cursor, genuine bool, err error) {
	s, tag, tagged := strings.Cut(s, "~")
	if tagged && !isTag(tag) {
		return c, false, errors.New("offset does not end with a tag")
	}
	if c, err = adapter.ParseCursor(s); err != nil {
		return c, false, err
	}
	genuine = o.macs != nil && subtle.ConstantTimeCompare([]byte(tag), o.appendTag(nil, []byte(s))) == 1
	return c, genuine, nil
}

// isTag reports whether text has the form of a tag.
func isTag(text string) bool {
	tag, err := base64.RawURLEncoding.DecodeString(text)
	return err == nil && len(tag) == tagLength && !strings.ContainsAny(text, "\r\n") // which decoding skips
}
