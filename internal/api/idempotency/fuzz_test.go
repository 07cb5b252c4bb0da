package idempotency

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"
)

// FuzzRecord: a stored record is read as it was written, or refused.
func FuzzRecord(f *testing.F) {
	id := strings.Repeat("i", idLength)
	written, err := encode(Claim{}, &Response{})
	if err != nil {
		f.Fatal(err)
	}
	for _, text := range []string{"", id, id + "{}", id + "null", id + "[]", id + `{"call":7}`, string(written)} {
		f.Add(text, int64(1000))
	}
	s := &Redis{}
	s.o.Lifetime = time.Hour
	f.Fuzz(func(t *testing.T, text string, left int64) {
		r, err := s.record([]any{text, left})
		if err != nil {
			if r != nil {
				t.Errorf("%q: %+v, and %v", text, r, err)
			}
			return
		}
		b, err := json.Marshal(value{r.Call, r.Response})
		if err != nil {
			t.Fatal(err)
		}
		if again, err := s.record([]any{id + string(b), left}); err != nil || !reflect.DeepEqual(r, again) {
			t.Errorf("%q is read as %+v, and written again as %+v, %v, want %+v", text, r, again, err, again)
		}
	})
}
