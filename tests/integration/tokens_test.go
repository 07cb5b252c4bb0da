package integration

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/rejoin-io/rejoin/internal/auth"
)

// fleetCan is the permissions of a fleet's tokens.
const fleetCan = `"can":{"join":["*"],"to":["*"]}`

// tokenLife is the lifetime of tokens that must expire during a test: long
// enough to connect, in most cases, and shorter than most connections.
func tokenLife() time.Duration { return 2*time.Second + rand.N(4*time.Second) }

// auth is the payload of a Go client of the fleet for each connect: a fresh token,
// which for every other client expires soon. A publisher, which has no witness,
// keeps its token.
func (f *fleet) auth(user string, w *witness) func() map[string]any {
	if !f.tokens {
		return nil
	}
	short := w != nil && rand.N(2) == 0
	return func() map[string]any {
		life := longLived
		if short {
			life = tokenLife()
		}
		var expires time.Time
		var token string
		for {
			expires = time.Now().Add(life).Truncate(time.Second)
			var err error
			token, err = auth.Sign(auth.Options{Secret: []byte(jwtSecret)},
				fmt.Sprintf(`{"sub":%q,"exp":%d,"rejoin":{%s}}`, user, expires.Add(-auth.Leeway).Unix(), fleetCan))
			if err == nil {
				break
			}
			if time.Now().Before(expires) { // otherwise this machine was too slow for such a short life
				f.t.Error(err)
				break
			}
		}
		if w != nil {
			w.shows(expires)
		}
		return map[string]any{"token": token}
	}
}

// showsTokens has a stock client of the fleet show a token from the next
// connection on, a fresh one each time, which ends soon.
func (f *fleet) showsTokens(s *npmSocket) {
	if f.tokens {
		s.must("tokens", map[string]any{
			"secret": jwtSecret,
			"claims": map[string]any{"sub": s.name, "rejoin": json.RawMessage("{" + fleetCan + "}")},
			"life":   (tokenLife() - auth.Leeway).Seconds(),
		})
	}
}
