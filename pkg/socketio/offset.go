package socketio

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"hash"
	"strings"
	"sync"

	"github.com/rejoin-io/rejoin/pkg/adapter"
)

// offsets writes and reads cursors as clients see them. With a key each bears a
// tag that only nodes can make. A client whose offset is not in the history
// proves that the history has lost something, and then everybody is cut: so the
// offset must be one that was given out.
type offsets struct{ macs *sync.Pool }

// tagLength is how much of the tag is used: 48 bits, in 8 characters.
const tagLength = 6

func newOffsets(key []byte) offsets {
	if len(key) == 0 {
		return offsets{}
	}
	return offsets{&sync.Pool{New: func() any { return hmac.New(sha256.New, key) }}}
}

// format returns a cursor as an offset.
func (o offsets) format(c adapter.Cursor) string {
	s := c.String()
	if o.macs == nil || s == "" {
		return s
	}
	return s + "~" + o.tag(s)
}

func (o offsets) tag(s string) string {
	mac := o.macs.Get().(hash.Hash)
	defer o.macs.Put(mac)
	mac.Reset()
	mac.Write([]byte("offset " + s))
	var sum [sha256.Size]byte
	return base64.RawURLEncoding.EncodeToString(mac.Sum(sum[:0])[:tagLength])
}

// parse reads an offset. genuine says that a node has given it out. One that is
// not, as after a change of the key, still says where its client believes to be.
func (o offsets) parse(s string) (c adapter.Cursor, genuine bool, err error) {
	s, tag, _ := strings.Cut(s, "~")
	if c, err = adapter.ParseCursor(s); err != nil {
		return c, false, err
	}
	genuine = o.macs != nil && subtle.ConstantTimeCompare([]byte(tag), []byte(o.tag(s))) == 1
	return c, genuine, nil
}
