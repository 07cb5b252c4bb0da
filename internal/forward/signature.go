package forward

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"strconv"
	"time"
)

// Headers between nodes. None is accepted from a client or sent to one.
const (
	headerPrefix    = "X-Rejoin-"
	headerFrom      = headerPrefix + "From"      // the node that sends the request or the answer
	headerTo        = headerPrefix + "To"        // the node that must receive it
	headerClient    = headerPrefix + "Client"    // the client's address
	headerTime      = headerPrefix + "Time"      // when it was signed, in Unix milliseconds
	headerSignature = headerPrefix + "Signature" // HMAC-SHA256, in hexadecimal digits
	headerSigns     = headerPrefix + "Signs"     // set if the node understands informational responses, which some before 0.4 forward
	headerRefused   = headerPrefix + "Refused"   // in an answer: the reason why the request was refused
)

// busy is the value of headerRefused if the owner receives too many requests. It has not processed
// this one, which may be sent again.
const busy = "busy"

// maxSkew is the maximum difference of two nodes' clocks, including the time in flight.
const maxSkew = 30 * time.Second

// sign signs a request so that owner will serve it.
func (f *Forwarder) sign(r *http.Request, owner, client string) {
	strip(r.Header)
	r.Header.Set(headerFrom, f.o.Node)
	r.Header.Set(headerTo, owner)
	r.Header.Set(headerClient, client)
	r.Header.Set(headerSigns, "102")
	r.Header.Set(headerTime, strconv.FormatInt(f.now().UnixMilli(), 10))
	r.Header.Set(headerSignature, hex.EncodeToString(f.mac(r.Method, r.URL.RequestURI(), r.Header)))
}

// mac covers everything that the owner uses, except the body. None of the parts can contain a line
// feed.
func (f *Forwarder) mac(method, uri string, h http.Header) []byte {
	m := hmac.New(sha256.New, []byte(f.o.Secret))
	for _, part := range []string{
		"rejoin forward 1", method, uri,
		h.Get(headerFrom), h.Get(headerTo), h.Get(headerClient), h.Get(headerTime),
	} {
		_, _ = io.WriteString(m, part+"\n") // writes to a hash do not fail
	}
	return m.Sum(nil)
}

// verify returns the reason if a request must not be served, or "" if it may be.
func (f *Forwarder) verify(r *http.Request) Refusal {
	signature, err := hex.DecodeString(r.Header.Get(headerSignature))
	switch {
	case len(signature) == 0 && err == nil:
		return Unsigned
	case err != nil, !hmac.Equal(signature, f.mac(r.Method, r.RequestURI, r.Header)):
		return Forged
	case r.Header.Get(headerTo) != f.o.Node:
		return Misdirected
	}
	signed, err := strconv.ParseInt(r.Header.Get(headerTime), 10, 64)
	if err != nil || f.now().Sub(time.UnixMilli(signed)).Abs() > maxSkew {
		return Stale
	}
	return ""
}
