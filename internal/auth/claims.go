package auth

import (
	"fmt"
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
