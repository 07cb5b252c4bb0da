package engineio

import "slices"

// A pollingState says how the requests of a session on long-polling are answered.
type pollingState uint8

const (
	pollingOpen      pollingState = iota // a GET waits for packets
	pollingUpgrading                     // the same, but a WebSocket was opened that has yet to send its probe
	pollingProbed                        // a GET does not wait, so that the client can stop polling
	pollingUpgraded                      // the connection has a WebSocket; Recv returns what was posted before
	pollingLeaving                       // the client has closed: Recv closes when it has returned what was posted before
	pollingClosing                       // the connection is closed, and a GET has yet to fetch the close
	pollingGone                          // the connection is closed, and no further GET is served
)

// pollingTransitions has, for each state, those that it may follow.
var pollingTransitions = [...][]pollingState{
	pollingOpen:      {pollingUpgrading, pollingProbed}, // the upgrade has failed
	pollingUpgrading: {pollingOpen},
	pollingProbed:    {pollingUpgrading},
	pollingUpgraded:  {pollingProbed},
	pollingLeaving:   {pollingOpen, pollingUpgrading, pollingProbed, pollingUpgraded},
	pollingClosing:   {pollingOpen, pollingUpgrading, pollingProbed, pollingLeaving},
	pollingGone:      {pollingOpen, pollingUpgrading, pollingProbed, pollingLeaving, pollingClosing},
}

// next changes the state if the transition is possible, and reports whether it is.
func (s *pollingState) next(to pollingState) bool {
	possible := slices.Contains(pollingTransitions[to], *s)
	if possible {
		*s = to
	}
	return possible
}

// A getState is the state of the session's GET.
type getState uint8

const (
	getNone   getState = iota // none, or its answer is being written: the next may arrive
	getWaits                  // until something is queued
	getWrites                 // it was woken as the connection's writer
	getCloses                 // it was woken to tell the client that the transport is closed
)
