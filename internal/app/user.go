package app

// UserRoom returns the name of the room that stands for a user: all of the user's
// sockets are in it.
func UserRoom(user string) string { return "user:" + user }
