package auth

import (
	"fmt"
	"slices"
	"unicode/utf8"
)

// CheckUser returns an error unless a name is one that a user may have. The error does not repeat it.
func CheckUser(name string) error {
	if name == "" || len(name) > maxUser || !utf8.ValidString(name) {
		return fmt.Errorf("must be 1 to %d bytes of UTF-8", maxUser)
	}
	return nil
}

// CheckRooms returns an error unless a list is one that a token may join its client to. The error does
// not repeat the names.
func CheckRooms(rooms []string) error {
	if err := checkNames(rooms); err != nil {
		return err
	}
	if slices.ContainsFunc(rooms, OfUser) {
		return fmt.Errorf("rooms with the prefix %q are reserved for users", userRooms)
	}
	return nil
}
