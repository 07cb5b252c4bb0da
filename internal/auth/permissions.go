package auth

import (
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"strings"
	"unicode/utf8"
)

// userRooms is the prefix of the names of users' rooms.
const userRooms = "user:"

// UserRoom returns the name of a user's room: all of the user's connections are in it, and no
// others.
func UserRoom(user string) string { return userRooms + user }

// Limits of the lists in a token or a default.
const (
	maxNames    = 100  // patterns in one list, or rooms
	maxRoomName = 200  // bytes of a pattern or room
	maxSpecial  = 2000 // bytes of the patterns in one list with other special characters than *
	maxUser     = maxRoomName - len(userRooms)
)

// OfUser reports whether a room belongs to a user: clients can neither join nor leave it.
func OfUser(room string) bool { return strings.HasPrefix(room, userRooms) }

// Permissions are the permissions of a client. The lists hold patterns of rooms, as in
// [path.Match]: * is any text without a slash. The zero value allows nothing.
type Permissions struct {
	Join      []string
	To        []string
	History   []string
	Members   []string
	Broadcast bool
	All       bool
	Private   bool

	unbounded bool
}

// Everything returns all permissions.
func Everything() Permissions {
	return Permissions{Broadcast: true, All: true, Private: true, unbounded: true}
}

// UnmarshalJSON reads the permissions of a token by their exact names. It ignores others, which may
// belong to a later server.
func (p *Permissions) UnmarshalJSON(text []byte) error { return unmarshalExact(text, p.members(), nil) }

func (p *Permissions) members() map[string]any {
	all := map[string]any{"broadcast": &p.Broadcast, "all": &p.All, "private": &p.Private}
	for name, list := range p.lists() {
		all[name] = list
	}
	return all
}

// lists returns the lists of patterns by name.
func (p *Permissions) lists() map[string]*[]string {
	return map[string]*[]string{"join": &p.Join, "to": &p.To, "history": &p.History, "members": &p.Members}
}

// ParsePermissions parses permissions from JSON, in the form that they have in a token. An unknown
// name is an error, so that a typo does not silently grant nothing.
func ParsePermissions(text string) (Permissions, error) {
	var p Permissions
	if !json.Valid([]byte(text)) || strings.TrimSpace(text) == "null" {
		return p, errors.New("auth: permissions: want one JSON object")
	}
	unknown := func(name string) error { return fmt.Errorf("unknown name %q", name) }
	err := unmarshalExact([]byte(text), p.members(), unknown)
	if err == nil {
		err = p.check()
	}
	if err != nil {
		return Permissions{}, fmt.Errorf("auth: permissions: %w", err)
	}
	return p, nil
}

// check bounds the lists and validates the patterns.
func (p *Permissions) check() error {
	for name, patterns := range p.lists() {
		if err := checkPatterns(*patterns); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// checkPatterns bounds a list of patterns, and the work of matching a room with it.
func checkPatterns(patterns []string) error {
	if err := checkNames(patterns); err != nil {
		return err
	}
	size := 0
	for _, pattern := range patterns {
		if _, err := path.Match(pattern, ""); err != nil {
			return errors.New("malformed pattern")
		}
		if strings.ContainsAny(pattern, special) {
			size += len(pattern)
		}
	}
	if size > maxSpecial {
		return fmt.Errorf("patterns with ?, [ or \\ exceed %d bytes together", maxSpecial)
	}
	return nil
}

// checkNames bounds a list of rooms or patterns. Its errors do not repeat them, because they are
// untrusted.
func checkNames(names []string) error {
	if len(names) > maxNames {
		return fmt.Errorf("more than %d", maxNames)
	}
	for _, name := range names {
		if name == "" || len(name) > maxRoomName || !utf8.ValidString(name) {
			return fmt.Errorf("names must have 1 to %d bytes of UTF-8", maxRoomName)
		}
	}
	return nil
}

// MayJoin reports whether the client may join a room itself.
func (p Permissions) MayJoin(room string) bool { return p.may(p.Join, room) }

// MaySend reports whether the client may send events to a room.
func (p Permissions) MaySend(room string) bool { return p.may(p.To, room) }

// MayReadHistory reports whether the client, a member, may read a room's history.
func (p Permissions) MayReadHistory(room string) bool { return p.may(p.History, room) }

// MayListMembers reports whether the client, a member, may list a room's members.
func (p Permissions) MayListMembers(room string) bool { return p.may(p.Members, room) }

func (p Permissions) may(patterns []string, room string) bool {
	return p.unbounded || Patterns(patterns).Match(room)
}
