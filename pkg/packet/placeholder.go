package packet

import (
	"bytes"
	"strconv"
)

// A placeholder is an object that stands for an attachment. As in the reference it is an object
// whose member "_placeholder" is true. Its other members do not matter.
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
// attachment. The value may be nested at most depth levels deep.
func locate(r Raw, depth int) (text []byte, found []placeholder, err error) {
	text = bytes.Trim(r.JSON, space)
	if found, err = checkJSON(text, depth, len(r.Attachments) > 0, nil); err != nil {
		return nil, nil, err
	}
	if !allRefer(found, len(r.Attachments), false) {
		return nil, nil, &Error{BadPlaceholder}
	}
	return text, found, nil
}

// allRefer reports whether each placeholder refers to one of n attachments. If alone is set each must
// refer to one of its own; then n is at most MaxAttachments.
func allRefer(found []placeholder, n int, alone bool) bool {
	used := uint64(0) // a bit for each attachment
	for _, ph := range found {
		if ph.num < 0 || ph.num >= n || alone && used>>ph.num&1 == 1 {
			return false
		}
		used |= 1 << ph.num
	}
	return true
}

// attachmentIndex returns the index in a JSON value, or -1 if it is not one.
func attachmentIndex(value []byte) int {
	f, err := strconv.ParseFloat(string(value), 64)
	if err != nil || f < 0 || f != float64(int(f)) {
		return -1
	}
	return int(f)
}
