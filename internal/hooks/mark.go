package hooks

import (
	"crypto/hmac"
	"crypto/sha256"
	"slices"
)

// MarkSize is the size of a mark, in bytes.
const MarkSize = 16

// Mark returns bytes that identify a text, but reveal nothing of it to others than the backend and the
// nodes.
func (b *Backend) Mark(text []byte) []byte { return mark(b.secrets[0], text) }

// Marked reports whether a mark is that of a text, made with any of the secrets.
func (b *Backend) Marked(m, text []byte) bool {
	return slices.ContainsFunc(b.secrets, func(secret []byte) bool { return hmac.Equal(m, mark(secret, text)) })
}

func mark(secret, text []byte) []byte {
	h := hmac.New(sha256.New, secret)
	h.Write([]byte("rejoin credentials\n")) // never the content that is signed for a question
	h.Write(text)
	return h.Sum(nil)[:MarkSize]
}
