package app

import (
	"unicode/utf8"

	"github.com/rejoin-io/rejoin/internal/auth"
)

// Limits of the arguments.
const (
	maxRooms    = 1000 // rooms named in one event
	maxRoomName = 200  // bytes
)

// memberRoom returns the room that the first argument names. The sender must be a member of it, and
// have the permission for the action.
func memberRoom(r *request, action string, may func(room string) bool) (string, error) {
	room, err := stringArg(r, 0, "a room")
	if err != nil {
		return "", err
	}
	if err := checkRoom(room); err != nil {
		return "", err
	}
	if err := permit(action, may)(room); err != nil {
		return "", err
	}
	if !r.Socket().InRoom(room) {
		return "", fail(notMember, "not a member of room %q", room)
	}
	return room, nil
}

// roomsArg returns the rooms that the first argument names, a string or an array
// of strings. Each must pass the checks.
func roomsArg(r *request, checks ...func(room string) error) ([]string, error) {
	var rooms []string
	if raw := r.Raw(0); len(raw) == 0 || raw[0] == '"' || r.Arg(0, &rooms) != nil {
		room, err := stringArg(r, 0, "a room or an array of rooms")
		if err != nil {
			return nil, err
		}
		rooms = []string{room}
	}
	if len(rooms) == 0 {
		return nil, fail(badRequest, "missing room")
	}
	if len(rooms) > maxRooms {
		return nil, fail(tooMany, "at most %d rooms in one event", maxRooms)
	}
	for _, check := range append([]func(string) error{checkRoom}, checks...) {
		for _, room := range rooms {
			if err := check(room); err != nil {
				return nil, err
			}
		}
	}
	return rooms, nil
}

func checkRoom(name string) error {
	if name == "" || len(name) > maxRoomName || !utf8.ValidString(name) {
		return fail(badRequest, "room names are 1 to %d bytes of UTF-8", maxRoomName)
	}
	return nil
}

func stringArg(r *request, i int, what string) (string, error) {
	var s string
	if err := r.Arg(i, &s); err != nil || s == "" { // or null, or missing
		return "", fail(badRequest, "argument %d of %q is %s", i+1, r.Name, what)
	}
	return s, nil
}

// permit returns a check that refuses rooms for which may does not allow the action.
func permit(action string, may func(room string) bool) func(room string) error {
	return func(room string) error {
		if !may(room) {
			return fail(forbidden, "the token does not permit %s for room %q", action, room)
		}
		return nil
	}
}

// own refuses rooms whose membership clients must not choose.
func own(room string) error {
	if auth.OfUser(room) {
		return fail(forbidden, "%q belongs to a user: all of the user's connections are in it, and no other", room)
	}
	return nil
}
