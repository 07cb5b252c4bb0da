package hooks

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// secretPrefix is that of Standard Webhooks.
const secretPrefix = "whsec_"

// CheckSecret returns an error unless a text is a secret of Standard Webhooks: whsec_ and 24 to 64
// random bytes in base64. The error does not repeat it.
func CheckSecret(text string) error {
	encoded, ok := strings.CutPrefix(text, secretPrefix)
	if !ok {
		return errors.New("must begin with " + secretPrefix)
	}
	key, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil || len(key) < 24 || len(key) > 64 {
		return fmt.Errorf("must be %s and 24 to 64 bytes in base64", secretPrefix)
	}
	return nil
}

// newID returns the id of a question.
func newID() string { return "q_" + rand.Text() }

// NamedID returns the id of a question whose client has named it. It is the same for each attempt of
// the user in a namespace, on any node. The name itself is untrusted, so it is not part of the id.
func NamedID(namespace, user, name string) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %q", namespace, user, name))
	return "once_" + base64.RawURLEncoding.EncodeToString(sum[:])
}

// sign sets the headers of an attempt: those of Standard Webhooks, and the attributes of a CloudEvent
// in binary mode. The latter are not signed, so everything that decides is in the body too.
func (b *Backend) sign(h http.Header, q *question, body []byte, now time.Time) error {
	signatures := make([]string, len(b.signers))
	for i, signer := range b.signers {
		var err error
		if signatures[i], err = signer.Sign(q.id, now, body); err != nil {
			return err
		}
	}
	h.Set(standardwebhooks.HeaderWebhookID, q.id)
	h.Set(standardwebhooks.HeaderWebhookTimestamp, strconv.FormatInt(now.Unix(), 10))
	h.Set(standardwebhooks.HeaderWebhookSignature, strings.Join(signatures, " "))
	h.Set("Ce-Specversion", "1.0")
	h.Set("Ce-Id", q.id)
	h.Set("Ce-Type", q.kind)
	h.Set("Ce-Source", b.source)
	h.Set("Ce-Time", now.UTC().Format(time.RFC3339Nano))
	if q.subject != "" {
		h.Set("Ce-Subject", percentEncoded(q.subject))
	}
	return nil
}

// percentEncoded encodes the value of a header as the HTTP binding of CloudEvents requires (section
// 3.1.3.2).
func percentEncoded(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if c := s[i]; c <= ' ' || c >= utf8.RuneSelf || c == '%' || c == '"' || c == 0x7f {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}
