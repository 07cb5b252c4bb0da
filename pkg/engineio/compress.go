package engineio

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
)

// A compressor is the common interface of flate, gzip and zlib writers.
type compressor interface {
	io.WriteCloser
	Reset(io.Writer)
	Flush() error
}

// Compressors are large and are reset for each use. The level is the fastest, which is always valid:
// messages are short, and latency matters.
var (
	flatePool = &sync.Pool{New: func() any { w, _ := flate.NewWriter(nil, flate.BestSpeed); return w }}
	gzipPool  = &sync.Pool{New: func() any { w, _ := gzip.NewWriterLevel(nil, gzip.BestSpeed); return w }}
	zlibPool  = &sync.Pool{New: func() any { w, _ := zlib.NewWriterLevel(nil, zlib.BestSpeed); return w }}
)

// compress returns data as written through a compressor of the pool and ended by its finish. Writes
// to memory do not fail.
func compress(pool *sync.Pool, dst *bytes.Buffer, data *net.Buffers, finish func(compressor) error) {
	c := pool.Get().(compressor)
	defer pool.Put(c)
	c.Reset(dst)
	_, _ = data.WriteTo(c)
	_ = finish(c)
}

// Each polling session compresses its responses separately, even an event that thousands of sessions
// receive: 5 ms of a processor for 900 KB. So responses that are not small share a budget, beyond which
// they are sent uncompressed.
const (
	smallResponse    = 8 << 10 // always compressed: it costs no more than the rest of the request
	compressionRate  = 8 << 20 // bytes per second, on all connections together
	compressionBurst = 1 << 20 // bytes at any moment, so no longer response is compressed
)

// compressible reports whether a response of n bytes may be compressed now.
func (s *Server) compressible(n int) bool {
	if n <= smallResponse || s.compressed.AllowN(time.Now(), n) {
		return true
	}
	s.counts.uncompressed.Add(1)
	s.notCompressed.write(s.log, zap.InfoLevel, "polling response not compressed", zap.String("limit", "compression"), zap.Int("bytes", n))
	return false
}

// An encoding is a content encoding of polling responses.
type encoding struct {
	name string
	pool *sync.Pool
}

// encodings are the supported encodings, preferred one first. Brotli is not among them: it costs
// more time than it saves here.
var encodings = []encoding{{"gzip", gzipPool}, {"deflate", zlibPool}}

// chooseEncoding returns the encoding that the client prefers, or nil.
func chooseEncoding(h http.Header) *encoding {
	accepted := strings.Join(h.Values("Accept-Encoding"), ",")
	var best *encoding
	bestQ := 0.0
	for i := range encodings {
		if q := quality(accepted, encodings[i].name); q > bestQ {
			best, bestQ = &encodings[i], q
		}
	}
	return best
}

// quality returns an Accept-Encoding header's weight of an encoding, from 0 to 1 (RFC 9110, section
// 12.5.3).
func quality(accepted, name string) float64 {
	wildcard := 0.0
	for item := range strings.SplitSeq(accepted, ",") {
		token, params, _ := strings.Cut(item, ";")
		q := 1.0
		if v, ok := strings.CutPrefix(strings.TrimSpace(params), "q="); ok {
			q, _ = strconv.ParseFloat(v, 64) // malformed is 0: not acceptable
		}
		switch token = strings.TrimSpace(token); {
		case strings.EqualFold(token, name):
			return q
		case token == "*":
			wildcard = q
		}
	}
	return wildcard
}

// offersDeflate reports whether the peer offers permessage-deflate.
func offersDeflate(h http.Header) bool {
	for offer := range strings.SplitSeq(strings.Join(h.Values("Sec-Websocket-Extensions"), ","), ",") {
		name, _, _ := strings.Cut(offer, ";")
		if strings.TrimSpace(name) == "permessage-deflate" {
			return true
		}
	}
	return false
}
