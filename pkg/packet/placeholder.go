package packet

import (
	"bytes"
	"strconv"
)

// A placeholder is an object that stands for an attachment. As in the reference it is an object
// whose member "_placeholder" is true, whatever its other members.
type placeholder struct {
	start, end int // its extent
	num        int // the attachment's index; -1 if it has no valid one
}

// appendPlaceholder appends the placeholder of an attachment to b.
func appendPlaceholder(b []byte, num int) []byte {
	b = append(b, `{"_placeholder":true,"num":`...)
	b = strconv.AppendInt(b, int64(num), 10)
	return append(b, '}')
}

// locate returns the value in r.JSON and its placeholders, each of which has its
// attachment. The value may be nested depth deep.
func locate(r Raw, depth int) (text []byte, found []placeholder, err error) {
	s := scanner{b: bytes.Trim(r.JSON, space), depth: depth, collect: len(r.Attachments) > 0}
	switch reason := s.document(nil); {
	case reason != "":
		return nil, nil, &Error{reason}
	case exceed(s.found, len(r.Attachments)):
		return nil, nil, &Error{BadPlaceholder}
	}
	return s.b, s.found, nil
}

// exceed reports whether a placeholder refers to none of n attachments.
func exceed(found []placeholder, n int) bool {
	for _, ph := range found {
		if ph.num < 0 || ph.num >= n {
			return true
		}
	}
	return false
}

// share reports whether two placeholders refer to the same attachment. Each refers to one of at
// most MaxAttachments, so if there are more placeholders some share one.
func share(found []placeholder) bool {
	if len(found) > MaxAttachments {
		return true
	}
	for i, ph := range found {
		for _, other := range found[:i] {
			if other.num == ph.num {
				return true
			}
		}
	}
	return false
}

// attachmentIndex returns the index in a JSON value, or -1 if it is not one.
func attachmentIndex(value []byte) int {
	f, err := strconv.ParseFloat(string(value), 64)
	if err != nil || f < 0 || f != float64(int(f)) {
		return -1
	}
	return int(f)
}
