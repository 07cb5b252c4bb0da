package socketio

import "slices"

// A stage is a step in the lifetime of a socket.
type stage uint8

const (
	stageConnecting stage = iota // its CONNECT has arrived; middlewares run, and then it gets a session
	stageRecovering              // it has a session's state, and its gate belongs to the recovery
	stageReplaying               // CONNECT is answered, and the client gets its missed events
	stageLive                    // CONNECT is answered, and the client gets events as they arrive
	stageLeaving                 // delivery has ended; OnDisconnect has not run yet
	stageEnded                   // it was disconnected, refused or abandoned
)

// successors are the stages that can follow each stage. A recovery that is refused goes back to
// stageConnecting, for a new session.
var successors = [...][]stage{
	stageConnecting: {stageRecovering, stageLive, stageEnded},
	stageRecovering: {stageConnecting, stageReplaying, stageEnded},
	stageReplaying:  {stageLive, stageLeaving},
	stageLive:       {stageLeaving},
	stageLeaving:    {stageEnded},
	stageEnded:      nil,
}

// testMisstep is called, in tests, with a step that is not in the table and is not late.
var testMisstep func(from, to stage)

// become enters a stage. A socket can end at any time. A step that comes after its end has no
// effect.
func (s *stage) become(next stage) {
	switch {
	case slices.Contains(successors[*s], next):
		*s = next
	case !s.gone() && testMisstep != nil:
		testMisstep(*s, next)
	}
}

// connect is for a socket whose CONNECT has been answered.
func (s *stage) connect() {
	if *s == stageRecovering {
		s.become(stageReplaying)
	} else {
		s.become(stageLive)
	}
}

// finish ends delivery.
func (s *stage) finish() {
	switch {
	case s.gone():
	case s.connected():
		s.become(stageLeaving)
	default:
		s.become(stageEnded)
	}
}

// gone reports whether delivery has ended.
func (s stage) gone() bool { return s >= stageLeaving }

// connected reports whether CONNECT has been answered and OnDisconnect has not run yet.
func (s stage) connected() bool { return s >= stageReplaying && s <= stageLeaving }

// served reports whether the client is connected and can be given events.
func (s stage) served() bool { return s == stageReplaying || s == stageLive }

// catchingUp reports whether the socket's gate belongs to a recovery.
func (s stage) catchingUp() bool { return s == stageRecovering || s == stageReplaying }

// A sessionState is the state of the session of a socket.
type sessionState uint8

const (
	sessionKept  sessionState = iota // its client can recover it
	sessionOver                      // it has ended with the socket
	sessionMoved                     // another socket serves it
)
