// Package auth determines a client's identity and permissions from a JSON Web Token.
//
// A [Verifier] has keys of up to three sources side by side, so that one can replace another: a
// secret, public keys, and the key set of a server. Each key serves only the algorithms of its own
// type, so an unsigned token is never accepted, nor one signed with a public key as the secret.
package auth

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"go.uber.org/zap"
)

// Leeway is the maximum difference between the clocks of the token's issuer and of the nodes: a
// token is valid longer by that time, and from a time that much earlier, than its claims state.
const Leeway = 10 * time.Second

// maxToken bounds the size of a token, in bytes, before any of it is parsed.
const maxToken = 16 << 10

// Options configure a [Verifier]. There must be a key of at least one source.
type Options struct {
	Secret     []byte // of HS256, HS384 and HS512
	PublicKeys []byte // PEM: public keys or certificates; RSA, ECDSA and Ed25519
	JWKSURL    string // URL of a server's public keys: http or https

	Issuer   string // required iss; "" for any
	Audience string // required member of aud; "" for any

	// Default is for tokens that do not state their clients' permissions. What their claims give by
	// the mapping is added.
	Default Permissions

	// Mapping reads claims of identity providers.
	Mapping Mapping

	// Logger receives the verifier's logs. By default nothing is logged.
	Logger *zap.Logger
}

// An Identity is the content of a token about its client.
type Identity struct {
	User  string   // the client's user
	Rooms []string // rooms that the token joins the client to
	Can   Permissions
	// Expires is when the token expires, including its leeway, at the latest in the year 9999.
	Expires time.Time
}

// MayBeIn reports whether the client may be in a room: because it is the user's own, because the
// token names it, or because the client may join it.
func (id *Identity) MayBeIn(room string) bool {
	if OfUser(room) {
		return room == UserRoom(id.User)
	}
	return slices.Contains(id.Rooms, room) || id.Can.MayJoin(room)
}

// SameRooms reports whether a client may be in the same rooms by either identity, without matching
// any. False proves nothing.
func (id *Identity) SameRooms(other *Identity) bool {
	return id.User == other.User && slices.Equal(id.Rooms, other.Rooms) &&
		id.Can.unbounded == other.Can.unbounded && slices.Equal(id.Can.Join, other.Can.Join)
}

// A Code is the reason why a token is refused, for programs.
type Code string

// The codes of an [Error].
const (
	TokenMissing Code = "token_missing"
	TokenInvalid Code = "token_invalid"
	TokenExpired Code = "token_expired"
	Unavailable  Code = "unavailable" // the keys to verify it are unavailable; it may be valid
)

// Codes lists all codes.
var Codes = []Code{TokenMissing, TokenInvalid, TokenExpired, Unavailable}

// An Error is the reason why a token is refused. Its message may be shown to the sender of the
// token: it contains nothing of the token.
type Error struct {
	Code    Code
	Message string
}

func (e *Error) Error() string { return "auth: " + e.Message }

// ErrNoKey means that the options contain no key.
var ErrNoKey = errors.New("auth: no key to verify tokens")

// A Verifier verifies tokens. Its methods are safe for concurrent use.
type Verifier struct {
	own      atomic.Pointer[ownKeys]
	remote   *remote // nil without a JWKS URL
	issuer   string
	audience string
	defaults Permissions
	mapping  Mapping
	// turns has a token for each verification of a public-key signature in progress. Forged tokens,
	// each of which can take milliseconds of CPU time, must leave some of that to everything else.
	turns chan struct{}
}

// ownKeys are the keys that are not the JWKS server's, and a parser that accepts the algorithms of all
// keys.
type ownKeys struct {
	keys   keyring
	parser *jwt.Parser
}

// New returns a verifier. If there is a JWKS URL it fetches the keys in the background, until
// Close.
func New(o Options) (*Verifier, error) {
	v := &Verifier{
		issuer: o.Issuer, audience: o.Audience, defaults: o.Default, mapping: o.Mapping,
		turns: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)),
	}
	if o.JWKSURL != "" {
		var err error
		if v.remote, err = newRemote(o.JWKSURL, cmp.Or(o.Logger, zap.NewNop())); err != nil {
			return nil, err
		}
	}
	if err := v.SetKeys(o.Secret, o.PublicKeys); err != nil {
		v.Close()
		return nil, err
	}
	return v, nil
}

// SetKeys replaces the secret and the public keys of the options. Without an error, the keys before them
// verify no more tokens; tokens that they have verified stay verified. After an error nothing has changed.
func (v *Verifier) SetKeys(secret, publicKeys []byte) error {
	keys, err := newKeyring(secret, publicKeys)
	if err != nil {
		return err
	}
	methods := keys.methods()
	if v.remote != nil {
		methods = append(methods, asymmetric...)
	}
	if len(methods) == 0 {
		return ErrNoKey
	}
	options := []jwt.ParserOption{jwt.WithValidMethods(methods), jwt.WithExpirationRequired(), jwt.WithLeeway(Leeway)}
	if v.issuer != "" {
		options = append(options, jwt.WithIssuer(v.issuer))
	}
	if v.audience != "" {
		options = append(options, jwt.WithAudience(v.audience))
	}
	v.own.Store(&ownKeys{keys, jwt.NewParser(options...)})
	return nil
}

// Close stops the goroutines that New has started and waits for them. A closed verifier still
// verifies with the keys that it has.
func (v *Verifier) Close() {
	if v.remote != nil {
		v.remote.close()
	}
}

// Ready returns nil, or, if the verifier cannot verify any token of its JWKS server, the reason: it
// has had no keys from there yet.
func (v *Verifier) Ready() error {
	if v.remote == nil {
		return nil
	}
	return v.remote.ready()
}

// Verify verifies a token. Its errors are of type *[Error]. It waits for its turn if half of the
// processors verify public-key signatures, and some seconds at most if the token's key is unknown
// and the server may have a new one. If ctx ends first the token is [Unavailable].
func (v *Verifier) Verify(ctx context.Context, token string) (Identity, error) {
	if token == "" {
		return Identity{}, &Error{TokenMissing, "a token is required"}
	}
	if len(token) > maxToken {
		return Identity{}, &Error{TokenInvalid, fmt.Sprintf("the token is larger than %d bytes", maxToken)}
	}
	c, unknownKey, err := v.parse(ctx, token)
	if unknownKey {
		fetched := v.remote.refresh(ctx)
		if c, unknownKey, err = v.parse(ctx, token); unknownKey && fetched != nil {
			return Identity{}, &Error{Unavailable, "the keys to verify the token are unavailable"}
		}
	}
	if errors.Is(err, errBusy) {
		return Identity{}, &Error{Unavailable, "too many tokens are being verified now"}
	}
	if err != nil {
		return Identity{}, refusal(err)
	}
	id, err := c.identity(v.defaults)
	if err != nil {
		return Identity{}, &Error{TokenInvalid, "the token is not valid: " + err.Error()}
	}
	return id, nil
}

// parse checks a token with the current keys. unknownKey means that none of these keys has signed
// the token, but the server may have the key that has.
func (v *Verifier) parse(ctx context.Context, token string) (c claims, unknownKey bool, err error) {
	c.mapping = &v.mapping
	unknown, turn := false, false
	defer func() {
		if turn {
			<-v.turns
		}
	}()
	own := v.own.Load()
	_, err = own.parser.ParseWithClaims(token, &c, func(t *jwt.Token) (any, error) {
		if _, critical := t.Header["crit"]; critical {
			return nil, errCritical
		}
		set := jwt.VerificationKeySet{Keys: own.keys.of(t.Method)}
		_, symmetric := t.Method.(*jwt.SigningMethodHMAC)
		if !symmetric { // an HMAC takes microseconds
			select {
			case v.turns <- struct{}{}:
				turn = true
			case <-ctx.Done():
				return nil, errBusy
			}
		}
		if v.remote != nil && !symmetric {
			var found []jwt.VerificationKey
			found, unknown = v.remote.find(t)
			set.Keys = append(found, set.Keys...)
		}
		return set, nil
	})
	unsigned := errors.Is(err, jwt.ErrTokenSignatureInvalid) || errors.Is(err, jwt.ErrTokenUnverifiable)
	return c, unknown && unsigned, err
}

// errBusy means that other tokens were being verified until the caller gave up.
var errBusy = errors.New("auth: timed out waiting to verify the token")

var errCritical = errors.New("auth: unknown critical extension")

// reasons map the parser's errors to those for clients.
var reasons = []struct {
	err  error
	code Code
	text string
}{
	{jwt.ErrTokenMalformed, TokenInvalid, "not a JSON Web Token, or a claim is duplicate or has the wrong type"},
	{errCritical, TokenInvalid, "unknown critical extension"},
	{jwt.ErrTokenSignatureInvalid, TokenInvalid, "signature does not match any key and algorithm of this server"},
	{jwt.ErrTokenUnverifiable, TokenInvalid, "signature does not match any key and algorithm of this server"},
	{jwt.ErrTokenNotValidYet, TokenInvalid, "nbf is in the future"},
	{jwt.ErrTokenInvalidIssuer, TokenInvalid, "wrong issuer"},
	{jwt.ErrTokenInvalidAudience, TokenInvalid, "wrong audience"},
	{jwt.ErrTokenRequiredClaimMissing, TokenInvalid, "a claim is missing: exp, or another required one"},
	{jwt.ErrTokenExpired, TokenExpired, ""}, // last: only for a token that is otherwise valid
}

// refusal describes an invalid token in fixed words, because the parser's message could contain
// parts of the token.
func refusal(err error) *Error {
	for _, r := range reasons {
		switch {
		case !errors.Is(err, r.err):
		case r.code == TokenExpired:
			return &Error{TokenExpired, "the token has expired"}
		default:
			return &Error{r.code, "the token is not valid: " + r.text}
		}
	}
	return &Error{TokenInvalid, "the token is not valid"}
}
