package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/rejoin-io/rejoin/internal/strict"
	"github.com/rejoin-io/rejoin/pkg/packet"
)

// Limits of requests.
const (
	maxBody     = 1 << 20          // bytes
	bodyTimeout = 10 * time.Second // time to send it
)

// readBody returns the JSON body of a request.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, *failure) {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != contentJSON {
		return nil, fail(notJSON, "the body must be JSON, with the Content-Type %s", contentJSON)
	}
	if r.URL.RawQuery != "" {
		return nil, fail(badRequest, "parameters belong in the body, not in the query")
	}
	// The server clears the deadline with the next request.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	switch {
	case errors.As(err, new(*http.MaxBytesError)):
		return nil, fail(tooLarge, "the body has more than %d bytes", maxBody)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, fail(badRequest, "the body did not arrive within %v", bodyTimeout)
	case err != nil:
		return nil, fail(badRequest, "the body could not be read")
	}
	return body, nil
}

// largeBody is the size of a body, in bytes, from which on few are decoded at a time: decoding copies a
// body several times.
const largeBody = 64 << 10

// decode decodes a body into a struct with all allowed fields.
func (a *API) decode(ctx context.Context, body []byte, v any) error {
	if len(body) >= largeBody {
		select {
		case a.decoding <- struct{}{}:
			defer func() { <-a.decoding }()
		case <-ctx.Done():
			return fail(unavailable, "too many large bodies are being decoded")
		}
	}
	return decode(body, v)
}

func decode(body []byte, v any) error {
	err := strict.Decode(body, v)
	switch {
	case errors.Is(err, strict.ErrUTF8):
		return fail(badRequest, "the body is not UTF-8")
	case err != nil:
		return fail(badRequest, "the body: %s", inJSON(err))
	}
	return nil
}

// maxList is the number of elements that is enough to refuse any list.
const maxList = max(maxNames, maxBatch, packet.MaxElements) + 1

// A list is an array in a body. At most maxList elements are decoded, because each takes far more
// memory than its bytes.
type list[T any] []T

// UnmarshalJSON implements [json.Unmarshaler].
func (l *list[T]) UnmarshalJSON(b []byte) error { return json.Unmarshal(head(b), (*[]T)(l)) }

// head returns an array with at most the first maxList elements of an array. Other values are
// unchanged. The value must be valid.
func head(value []byte) []byte {
	depth, elements, quoted := 0, 1, false
	for i := 0; i < len(value); i++ {
		switch c := value[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '[' || c == '{':
			depth++
		case c == ']' || c == '}':
			depth--
		case c == ',' && depth == 1:
			if elements++; elements > maxList {
				return append(value[:i:i], ']')
			}
		}
	}
	return value
}

// encode returns v as JSON. Raw JSON in it is unchanged, except for white space.
func encode(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(err) // consists of strings, numbers, and JSON that was read
	}
	return bytes.TrimSuffix(b.Bytes(), []byte{'\n'})
}

// A query holds the parameters of a reading call.
type query url.Values

// only refuses parameters that are unknown, or duplicate and not lists.
func (q query) only(single []string, lists ...string) error {
	for name, values := range q {
		switch {
		case slices.Contains(lists, name):
		case !slices.Contains(single, name):
			return fail(badRequest, "unknown parameter %q", name)
		case len(values) > 1:
			return fail(badRequest, "duplicate parameter %q", name)
		}
	}
	return nil
}

func (q query) get(name string) string { return url.Values(q).Get(name) }

// number returns a parameter as a number within bounds.
func (q query) number(name string, minimum, maximum, otherwise int) (int, error) {
	if _, given := q[name]; !given {
		return otherwise, nil
	}
	n, err := strconv.Atoi(q.get(name))
	if err != nil || n < minimum || n > maximum {
		return 0, fail(badRequest, "%s must be a number from %d to %d", name, minimum, maximum)
	}
	return n, nil
}
