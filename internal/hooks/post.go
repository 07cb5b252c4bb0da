package hooks

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/http/httptrace"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"
)

// Limits of answers.
const (
	maxAnswer  = 1 << 20  // bytes of an answer
	maxRefusal = 16 << 10 // bytes of the body of a refusal
	maxCode    = 64       // bytes
	maxDetail  = 500      // bytes
)

// An answer is a response that is neither a failure nor a refusal.
type answer struct {
	status     int           // 200, or 204 without a body; 0 if there was no response
	body       []byte        // JSON
	retryAfter time.Duration // of a failure; 0 if the backend states none
}

// post sends one attempt. It returns within ctx's time, and reads no more than the limits.
func (b *Backend) post(ctx context.Context, q *question, body []byte) (answer, *Error) {
	r, err := http.NewRequest(http.MethodPost, b.url.String(), bytes.NewReader(body))
	if err != nil {
		return answer{}, failed("the request cannot be made")
	}
	if u := b.url.User; u != nil {
		password, _ := u.Password()
		r.SetBasicAuth(u.Username(), password)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept", "application/json, application/problem+json")
	r.Header.Set("User-Agent", "rejoin")
	if err := b.sign(r.Header, q, body, time.Now()); err != nil {
		return answer{}, failed("the request cannot be signed")
	}
	var sent atomic.Bool // the whole head of the request was written, so it may be processed
	trace := &httptrace.ClientTrace{
		GetConn:      func(string) { sent.Store(false) }, // the transport tries again only what was not sent
		WroteHeaders: func() { sent.Store(true) },
	}
	b.metrics.attempts.Inc()
	response, err := b.transport.RoundTrip(r.WithContext(httptrace.WithClientTrace(ctx, trace)))
	if err != nil {
		return answer{}, lost(ctx, err, sent.Load())
	}
	defer func() { _ = response.Body.Close() }() // before its end: the connection is closed
	return receive(ctx, response)
}

// lost returns the error of an attempt without a response.
func lost(ctx context.Context, err error, sent bool) *Error {
	if ctx.Err() != nil {
		return ended(context.Cause(ctx), sent)
	}
	if sent {
		return &Error{Outcome: Unavailable, Cause: err}
	}
	return &Error{Outcome: Busy, Cause: fmt.Errorf("not sent: %w", err)}
}

func receive(ctx context.Context, r *http.Response) (answer, *Error) {
	a := answer{status: r.StatusCode}
	switch {
	case r.StatusCode == http.StatusNoContent:
		return a, nil
	case r.StatusCode == http.StatusOK:
		if !isJSON(r, "application/json") {
			return a, failed("the answer has the Content-Type %.100q, not application/json", r.Header.Get("Content-Type"))
		}
		var err *Error
		a.body, err = readBody(ctx, r, maxAnswer)
		return a, err
	case r.StatusCode == http.StatusTooManyRequests, r.StatusCode == http.StatusServiceUnavailable:
		a.retryAfter = retryAfter(r.Header.Get("Retry-After"), time.Now())
		if r.StatusCode == http.StatusServiceUnavailable && a.retryAfter == 0 {
			return a, &Error{Outcome: Unavailable, Cause: fmt.Errorf("status %d", r.StatusCode)}
		}
		return a, &Error{Outcome: Busy, Cause: fmt.Errorf("%w: status %d", errRetryLater, r.StatusCode)}
	case r.StatusCode == http.StatusRequestTimeout, r.StatusCode >= http.StatusInternalServerError:
		return a, &Error{Outcome: Unavailable, Cause: fmt.Errorf("status %d", r.StatusCode)}
	case r.StatusCode >= http.StatusBadRequest:
		return a, refusal(ctx, r)
	}
	return a, failed("status %d: redirects are not followed, and success is 200 or 204", r.StatusCode)
}

// refusal returns the backend's definite refusal: a 4xx whose body names a code. Any other 4xx, such as
// that of a proxy without the backend behind it, is a failure, because clients do not try again after a
// refusal.
func refusal(ctx context.Context, r *http.Response) *Error {
	if !isJSON(r, "application/json", "application/problem+json") {
		return failed("status %d without a problem document", r.StatusCode)
	}
	body, err := readBody(ctx, r, maxRefusal)
	if err != nil {
		return err
	}
	var problem struct { // its other members are for people and for other programs
		Code   string `json:"code"`
		Detail string `json:"detail"`
	}
	if err := json.Unmarshal(body, &problem); err != nil {
		return failed("status %d with a malformed problem document", r.StatusCode)
	}
	if err := checkReason(problem.Code, problem.Detail); err != nil {
		return failed("status %d: %w", r.StatusCode, err)
	}
	return &Error{Outcome: Refused, Code: problem.Code, Detail: problem.Detail, Cause: fmt.Errorf("status %d", r.StatusCode)}
}

// checkReason checks the text that is sent to a client.
func checkReason(code, message string) error {
	switch {
	case code == "" || len(code) > maxCode || strings.ContainsFunc(code, func(r rune) bool { return r <= ' ' || r > '~' }):
		return fmt.Errorf("code must be 1 to %d visible characters of ASCII", maxCode)
	case len(message) > maxDetail || !utf8.ValidString(message):
		return fmt.Errorf("text for the client exceeds %d bytes", maxDetail)
	}
	return nil
}

func isJSON(r *http.Response, types ...string) bool {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		return false
	}
	for _, t := range types {
		if kind == t {
			return true
		}
	}
	return false
}

// readBody reads a body of at most limit bytes.
func readBody(ctx context.Context, r *http.Response, limit int64) ([]byte, *Error) {
	if r.ContentLength > limit {
		return nil, failed("the answer has %d bytes, at most %d are allowed", r.ContentLength, limit)
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, limit+1))
	switch {
	case ctx.Err() != nil && err != nil:
		return nil, ended(context.Cause(ctx), true)
	case err != nil:
		return nil, &Error{Outcome: Unavailable, Cause: errors.New("response incomplete")}
	case int64(len(body)) > limit:
		return nil, failed("the answer exceeds %d bytes", limit)
	}
	return body, nil
}

// retryAfter reads a header: seconds, or a date. It returns 0 if it states no time, and at least a
// millisecond otherwise.
func retryAfter(value string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
		return max(time.Duration(seconds)*time.Second, time.Millisecond)
	}
	if at, err := http.ParseTime(value); err == nil {
		return max(at.Sub(now), time.Millisecond)
	}
	return 0
}
