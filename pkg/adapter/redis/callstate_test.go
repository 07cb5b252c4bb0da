package redis

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/rejoin-io/rejoin/pkg/adapter"
)

// Every state of a call with every result of a step.
func TestCallStates(t *testing.T) {
	type step struct {
		next callState
		do   action
	}
	keep := func(s callState, do action) step { return step{s, do} }
	rejected, failed := step{callRejected, actionNone}, step{callFailed, actionNone}
	want := map[callState]map[result]step{
		callBehind: {
			resultDone:      {callUnsent, actionNone},
			resultAbsent:    rejected,
			resultUnlinked:  keep(callBehind, actionNone),
			resultNoClock:   keep(callBehind, actionRenew),
			resultElsewhere: keep(callBehind, actionRetreat),
			resultRefused:   rejected,
			resultError:     rejected,
			resultSilent:    keep(callBehind, actionRelink), // the earlier connection is still to be ended
		},
		callUnsent: {
			resultDone:      {callSettled, actionNone},
			resultAbsent:    failed,
			resultUnlinked:  keep(callUnsent, actionNone),
			resultNoClock:   keep(callUnsent, actionRenew),
			resultElsewhere: keep(callUnsent, actionRetreat),
			resultRefused:   rejected,
			resultError:     failed,
			resultSilent:    {callDoubtful, actionAbandon},
		},
		callDoubtful: {
			resultDone:      {callBuried, actionNone},
			resultAbsent:    failed,
			resultUnlinked:  keep(callDoubtful, actionNone),
			resultNoClock:   {callFailed, actionRenew},
			resultElsewhere: keep(callDoubtful, actionRetreat),
			resultRefused:   failed,
			resultError:     failed,
			resultSilent:    keep(callDoubtful, actionRelink), // the first connection is still to be ended
		},
		callBuried: {
			resultDone:      {callSettled, actionNone}, // it was found
			resultAbsent:    {callAbsent, actionNone},
			resultUnlinked:  keep(callBuried, actionNone),
			resultNoClock:   {callFailed, actionRenew},
			resultElsewhere: keep(callBuried, actionRetreat),
			resultRefused:   failed,
			resultError:     failed,
			resultSilent:    keep(callBuried, actionRelink), // a search can be repeated
		},
		callAbsent: {
			resultDone:      {callSettled, actionNone},
			resultAbsent:    failed,
			resultUnlinked:  keep(callAbsent, actionNone),
			resultNoClock:   {callFailed, actionRenew},   // the lost history may have contained it
			resultElsewhere: {callBuried, actionRetreat}, // it is searched for on the next server as well
			resultRefused:   failed,
			resultError:     failed,
			resultSilent:    {callDoubtful, actionAbandon},
		},
	}
	for _, s := range []callState{callSettled, callRejected, callFailed} {
		want[s] = make(map[result]step)
		for r := resultDone; r <= resultSilent; r++ {
			want[s][r] = keep(s, actionNone)
		}
	}
	for s := callBehind; s <= callFailed; s++ {
		for r := resultDone; r <= resultSilent; r++ {
			w, ok := want[s][r]
			if !ok {
				t.Fatalf("state %d, result %d: not in the table", s, r)
			}
			if next, do := s.after(r); next != w.next || do != w.do {
				t.Errorf("state %d, result %d: state %d and action %d, want %d and %d", s, r, next, do, w.next, w.do)
			}
		}
	}
}

// Invariants of every sequence of steps, from either initial state of a call.
func TestCallStatesAreSafe(t *testing.T) {
	type at struct {
		state  callState
		sent   bool // an attempt may have been executed
		alive  bool // and may still be: this attempt, or that of an earlier call
		looked bool // the server that comes next does not have the last attempt
	}
	seen := make(map[at]bool)
	var walk func(at)
	walk = func(a at) {
		if seen[a] {
			return
		}
		seen[a] = true
		if a.state.unsent() && a.sent {
			t.Errorf("%+v: its events are said to be unpublished", a)
		}
		if a.state.final() {
			return
		}
		sends := a.state == callUnsent || a.state == callAbsent
		if sends && (a.alive || a.sent && !a.looked) {
			t.Errorf("%+v: it is sent", a)
		}
		if a.state == callBuried && a.alive {
			t.Errorf("%+v: it is searched for while it may be executed", a)
		}
		for r := resultDone; r <= resultSilent; r++ {
			next, do := a.state.after(r)
			b := at{next, a.sent, a.alive, a.looked}
			switch {
			case r == resultDone && sends, r == resultError && sends:
				b.sent = true
			case r == resultSilent && sends:
				b.sent, b.looked, b.alive = true, false, true
				if do != actionAbandon {
					t.Errorf("%+v: its connection is not remembered", a)
				}
			case r == resultElsewhere:
				b.looked = false
			case do == actionAbandon:
				t.Errorf("%+v, result %d: another connection is remembered", a, r)
			case r == resultDone && (a.state == callBehind || a.state == callDoubtful):
				b.alive = false
			case r == resultAbsent && a.state == callBuried:
				b.looked = true
			}
			walk(b)
		}
	}
	walk(at{state: callUnsent})
	walk(at{state: callBehind, alive: true})
}

// replied is an error reply of Redis.
type replied string

func (e replied) Error() string { return string(e) }
func (replied) RedisError()     {}

func TestResults(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want result
	}{
		{nil, resultDone},
		{errAbsent, resultAbsent},
		{errNoClock, resultNoClock},
		{io.EOF, resultSilent},
		{context.DeadlineExceeded, resultSilent},
		{fmt.Errorf("%w: the reply begins with nonsense", errors.New("adapter/redis")), resultSilent},
		{fmt.Errorf("%w: no history", adapter.ErrUnavailable), resultSilent},
		{replied("MOVED 5 127.0.0.1:7000"), resultElsewhere},
		{replied("READONLY You can't write against a read only replica."), resultElsewhere},
		{replied("ERR Error running script: @user_script:7: -READONLY You can't write"), resultElsewhere}, // Redis 6
		{replied("LOADING Redis is loading the dataset in memory"), resultElsewhere},
		{replied("UNBLOCKED force unblock"), resultElsewhere},
		{replied("OOM command not allowed"), resultRefused},
		{replied("WRONGTYPE Operation against a key"), resultRefused},
		{replied("NOPERM this user has no permissions to run the 'evalsha' command"), resultRefused},
		{replied("ERR Error running script: -NOPERM this user"), resultError}, // in the middle of a script
		{replied("ERR something in the script"), resultError},
		{fmt.Errorf("CLIENT KILL: %w", replied("NOPERM this user")), resultError},
		{fmt.Errorf("fence an abandoned connection: %w", replied("OOM command not allowed")), resultError},
	} {
		if got := classify(tt.err); got != tt.want {
			t.Errorf("%v: result %d, want %d", tt.err, got, tt.want)
		}
	}
}
