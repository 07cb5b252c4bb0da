package redis

import (
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/rejoin-io/rejoin/pkg/adapter"
)

// An event with a once id has a key in its partition that the publish script writes together with the
// event. So both are replicated in one step, and a history that has lost one has lost the other.

// contentLength is the length of a content in the value of a once key.
const contentLength = 11

func contentOf(o *adapter.Once) string { return base64.RawURLEncoding.EncodeToString(o.Content[:]) }

// how returns the argument of the publish script that says how an event is published. The usual ones
// are constants, which allocate nothing.
func (c *content) how(storing bool) any {
	stored := c.stored && storing
	switch {
	case c.once == nil && stored:
		return "1"
	case c.once == nil:
		return "0"
	}
	how := "n" + contentOf(c.once)
	if stored {
		how = "s" + contentOf(c.once)
	}
	if c.once.Until > 0 {
		how += strconv.FormatUint(c.once.Until, 10)
	}
	return how
}

// former returns the outcome of an event whose once key says something. It is o if the event is at the
// same position.
func (p *partition) former(e *content, o outcome, once formerly) outcome {
	if once.value == "" {
		return outcome{cursor: o.cursor, err: e.keyless()}
	}
	end := max(0, strings.IndexAny(once.value, "sn"))
	at, err := p.parsePosition(once.value[:end])
	rest := once.value[end:]
	if err != nil || len(rest) < 1+contentLength {
		return outcome{err: fmt.Errorf("%w: a once key is %q", adapter.ErrUnavailable, once.value)}
	}
	switch failure := rest[1+contentLength:]; {
	case rest[1:1+contentLength] != contentOf(e.once):
		return outcome{err: fmt.Errorf("%w: %x", adapter.ErrReused, e.once.ID)}
	case failure != "":
		return notStored(e, "published before: "+failure)
	case at == o.cursor.At:
		return o
	}
	// Not the difference of the positions: these stand still if Redis' clock was set back.
	age := max(0, adapter.OnceTTL-time.Duration(once.ttl)*time.Millisecond)
	return outcome{cursor: adapter.Cursor{Epoch: o.cursor.Epoch, At: at}, repeated: true, age: age}
}

// keyless returns the error of an event that has been executed and whose once key is missing: it came too
// late after another copy, or the key has expired since.
func (c *content) keyless() error {
	if c.once.Until > 0 {
		return fmt.Errorf("%w: %x", adapter.ErrIncomplete, c.once.ID)
	}
	return fmt.Errorf("%w: the once key has expired", adapter.ErrUnavailable)
}
