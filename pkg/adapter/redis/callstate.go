package redis

import (
	"errors"
	"slices"
	"strings"
)

// A callState summarizes the knowledge of a call's attempts. It determines the next action.
type callState uint8

const (
	callBehind   callState = iota // unsent, and an earlier call may still be executed: end its connection
	callUnsent                    // no attempt may have been executed: send it
	callDoubtful                  // the last attempt may still be executed: end its connection
	callBuried                    // the last attempt may have been executed, and no longer can be: search for it
	callAbsent                    // no attempt is part of the history: send it again
	callSettled                   // it was executed once, and its callers know
	callRejected                  // no attempt was executed, and none will be
	callFailed                    // an attempt may have been executed, or a part of it
)

// unsent reports whether it is certain that no attempt was executed. A call that is absent from
// the history may have been executed in another one.
func (s callState) unsent() bool { return s == callBehind || s == callUnsent || s == callRejected }

// final reports whether a call needs no further action.
func (s callState) final() bool { return s >= callSettled }

// A result is the outcome of a step of a call: ending a connection, searching, or sending.
type result uint8

const (
	resultDone      result = iota
	resultAbsent           // the search has not found the call
	resultUnlinked         // there was no connection: nothing was tried
	resultNoClock          // the reply says that the history is lost
	resultElsewhere        // the reply says that this server does not execute it, or not now
	resultRefused          // the reply says that nothing was executed, and why
	resultError            // another error reply: a part may have been executed
	resultSilent           // no reply: it may have been executed, or may still be
)

// An action of the publisher comes between two steps of a call.
type action uint8

const (
	actionNone    action = iota
	actionAbandon        // close the connection, which must be ended before the next attempt
	actionRelink         // close the connection
	actionRetreat        // close the connection, and wait for the server to recover or be replaced
	actionRenew          // search for the current history
)

// after returns the state of a call after a step, and the next action.
func (s callState) after(r result) (callState, action) {
	switch {
	case s.final(), r == resultUnlinked:
		return s, actionNone
	case r == resultElsewhere && s == callAbsent: // the next server may have another history
		return callBuried, actionRetreat
	case r == resultElsewhere:
		return s, actionRetreat
	case r == resultSilent && (s == callUnsent || s == callAbsent): // it was sent
		return callDoubtful, actionAbandon
	case r == resultSilent: // the earlier connection is still the one to end
		return s, actionRelink
	case r == resultNoClock && s.unsent():
		return s, actionRenew
	case r == resultNoClock: // the call may have been part of the lost history
		return callFailed, actionRenew
	case s == callBehind && r != resultDone, s == callUnsent && r == resultRefused:
		return callRejected, actionNone
	case s == callBehind:
		return callUnsent, actionNone
	case s == callDoubtful && r == resultDone:
		return callBuried, actionNone
	case s == callBuried && r == resultAbsent:
		return callAbsent, actionNone
	case r == resultDone:
		return callSettled, actionNone
	}
	return callFailed, actionNone
}

var (
	errNoClock = errors.New("adapter/redis: clock missing")
	errAbsent  = errors.New("adapter/redis: call not found in the clock")
)

// classify returns the result of a step that ended with an error, or with nil.
func classify(err error) result {
	switch {
	case err == nil:
		return resultDone
	case errors.Is(err, errAbsent):
		return resultAbsent
	case errors.Is(err, errNoClock):
		return resultNoClock
	case !isReply(err):
		return resultSilent
	case elsewhere(err):
		return resultElsewhere
	case refused(err):
		return resultRefused
	}
	return resultError
}

// elsewhere reports whether a reply says that the command was not executed because it must be sent
// to another server, or to this one later.
func elsewhere(err error) bool {
	return says(err, "READONLY", "MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "BUSY", "UNBLOCKED")
}

// refused reports whether a reply says that a script was ended before it changed anything: after
// other errors of a script, a part of it may have been executed. A key of the wrong type can only
// be the clock, which is written first, because the keys of rooms fail alone. The right to run a
// script at all is checked first; the rights to run its commands are not, and that error begins
// with other words.
func refused(err error) bool {
	return says(err, "OOM", "NOREPLICAS", "MISCONF", "WRONGTYPE") || strings.HasPrefix(err.Error(), "NOPERM")
}

// says reports whether a reply begins with one of some words. Before Redis 7 a script's reply has
// them in the middle.
func says(err error, words ...string) bool {
	reply := err.Error()
	return slices.ContainsFunc(words, func(word string) bool {
		return strings.HasPrefix(reply, word) || strings.Contains(reply, ": -"+word+" ")
	})
}
