package auth

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// identity checks the claims that the parser can't check, and maps them. Its errors contain nothing
// of the token.
func (c *claims) identity(defaults Permissions) (id Identity, err error) {
	id.Expires = c.ExpiresAt.Add(Leeway)
	m := c.mapping
	if m == nil {
		m = new(Mapping)
	}
	switch {
	case c.Rejoin.User != nil:
		id.User = *c.Rejoin.User
	case m.user != nil: // and never sub: that might be the name of another user
		if id.User, err = m.userOf(c.mapped); err != nil {
			return Identity{}, err
		}
	default:
		id.User = c.Subject
	}
	if err := CheckUser(id.User); err != nil {
		from := "sub"
		if m.user != nil {
			from = m.user.String()
		}
		return Identity{}, fmt.Errorf("user (rejoin.user, otherwise %s) %w", from, err)
	}
	if id.Rooms = c.Rejoin.Rooms; id.Rooms == nil {
		if id.Rooms, err = m.roomsOf(c.mapped); err != nil {
			return Identity{}, err
		}
	}
	if err := CheckRooms(id.Rooms); err != nil {
		return Identity{}, fmt.Errorf("rooms: %w", err)
	}
	if c.Rejoin.Can != nil {
		if err := c.Rejoin.Can.check(); err != nil {
			return Identity{}, fmt.Errorf("rejoin.can.%w", err)
		}
		id.Can = *c.Rejoin.Can
		return id, nil
	}
	if id.Can, err = m.permissionsOf(c.mapped, defaults); err != nil {
		return Identity{}, err
	}
	if len(m.can) > 0 {
		if err := id.Can.check(); err != nil {
			return Identity{}, fmt.Errorf("permissions of claims: %w", err)
		}
	}
	return id, nil
}

// claims are the parsed fields of a token.
type claims struct {
	jwt.RegisteredClaims
	ExpiresAt *date
	NotBefore *date
	Rejoin    ownClaims

	mapping *Mapping                   // nil for none
	mapped  map[string]json.RawMessage // the claims that it reads
}

// ownClaims are the claims that only this server uses.
type ownClaims struct {
	User  *string
	Rooms []string
	Can   *Permissions
}

// UnmarshalJSON reads the claims by their exact names, as RFC 7519, section 4,
// compares them, and refuses duplicates.
func (c *claims) UnmarshalJSON(text []byte) error {
	err := unmarshalExact(text, map[string]any{
		"iss": &c.Issuer, "sub": &c.Subject, "aud": &c.Audience, "iat": &c.IssuedAt, "exp": &c.ExpiresAt, "nbf": &c.NotBefore,
		"rejoin": &c.Rejoin,
	}, nil)
	if err == nil && c.mapping != nil {
		c.mapped, err = c.mapping.read(text)
	}
	return err
}

// UnmarshalJSON is like that of claims.
func (o *ownClaims) UnmarshalJSON(text []byte) error {
	return unmarshalExact(text, map[string]any{"user": &o.User, "rooms": &o.Rooms, "can": &o.Can}, nil)
}

// unmarshalExact decodes the named members of a JSON object, and passes the names of others to
// unknown, if that is not nil. encoding/json would accept a name in any case, and of duplicates the
// last.
func unmarshalExact(text []byte, members map[string]any, unknown func(name string) error) error {
	return eachMember(text, func(name string, d *json.Decoder) error {
		into := members[name]
		if into == nil {
			into = new(json.RawMessage)
			if unknown != nil {
				if err := unknown(name); err != nil {
					return err
				}
			}
		}
		return d.Decode(into)
	})
}

// eachMember calls f with each name in a JSON object, and a decoder at its value, which f decodes.
// A duplicate name is an error. null has no members.
func eachMember(text []byte, f func(name string, d *json.Decoder) error) error {
	d := json.NewDecoder(bytes.NewReader(text))
	if first, err := d.Token(); err != nil || first != json.Delim('{') {
		if first == nil && err == nil {
			return nil // null, which leaves everything unchanged
		}
		return errNoObject
	}
	seen := make(map[string]bool)
	for d.More() {
		token, err := d.Token()
		if err != nil {
			return err
		}
		name, _ := token.(string)
		if seen[name] {
			return errTwice
		}
		seen[name] = true
		if err := f(name, d); err != nil {
			return err
		}
	}
	return nil
}

var (
	errNoObject = errors.New("auth: not a JSON object")
	errTwice    = errors.New("auth: duplicate name")
)

// GetExpirationTime implements the parser's interface.
func (c *claims) GetExpirationTime() (*jwt.NumericDate, error) {
	return (*jwt.NumericDate)(c.ExpiresAt), nil
}

// GetAudience implements the parser's interface.
func (c *claims) GetAudience() (jwt.ClaimStrings, error) {
	if c.mapping == nil || c.mapping.audience == nil {
		return c.Audience, nil
	}
	return c.mapping.audience.values(c.mapped)
}

// GetNotBefore implements the parser's interface.
func (c *claims) GetNotBefore() (*jwt.NumericDate, error) {
	return (*jwt.NumericDate)(c.NotBefore), nil
}

// A date is a NumericDate (RFC 7519, section 2). Values out of range become the first or the last
// valid one, because the parser's own type would overflow.
type date jwt.NumericDate

var lastDate = time.Date(9999, time.December, 31, 0, 0, 0, 0, time.UTC)

// UnmarshalJSON reads seconds since 1970.
func (d *date) UnmarshalJSON(text []byte) error {
	var number json.Number
	if err := json.Unmarshal(text, &number); err != nil {
		return err
	}
	seconds, err := number.Float64()
	if err != nil {
		return err
	}
	d.Time = time.Unix(int64(min(max(seconds, 0), float64(lastDate.Unix()))), 0)
	return nil
}
