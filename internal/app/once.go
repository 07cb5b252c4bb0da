package app

import (
	"context"
	"fmt"
	"time"

	"github.com/rejoin-io/rejoin/pkg/socketio"
)

// Lengths of the id of the event once. A shorter one could be that of another client.
const (
	minOnceID = 16
	maxOnceID = 64
)

// unwrap makes r the event inside once, whose arguments are an id, the name of an event, and that one's
// arguments.
func (r *request) unwrap() error {
	id, err := stringArg(r, 0, "an id")
	if err != nil {
		return err
	}
	if err := checkOnceID(id); err != nil {
		return err
	}
	if r.Name, err = stringArg(r, 1, "the name of an event"); err != nil {
		return err
	}
	if err := r.limits.Once(); err != nil {
		return fail(rateLimited, "%v; this one was dropped", err)
	}
	r.Args = r.Args.From(2)
	s, socket := r.Socket(), ""
	if r.Name == "self" {
		socket = s.ID()
	}
	r.once = &socketio.Once{ID: onceID(s.Namespace().Name(), s.User(), socket, id), Untrusted: true}
	args := r.Array()
	r.once.Content = fmt.Sprintf("%s %s %x", r.Name, args.JSON, args.Attachments)
	return nil
}

// onceID returns the id of an event in the cluster. It is the user's, because another attempt may come from
// another socket. Only that of self is the socket's: with several partitions the attempts of two sockets,
// which have different rooms, would not meet.
func onceID(namespace, user, socket, id string) string {
	return fmt.Sprintf("client %q %q %s %s", namespace, user, socket, id)
}

// checkOnceID checks the id with which a client names an event.
func checkOnceID(id string) error {
	if len(id) < minOnceID || len(id) > maxOnceID || !visible(id) {
		return fail(badRequest, "an id has %d to %d visible characters of ASCII, such as a UUID", minOnceID, maxOnceID)
	}
	return nil
}

func visible(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// place publishes an event. One with an id is tried until it is published, or it certainly can't be, or
// the time of the request is over: a stock client takes any ack for a success, and tries no more.
func (r *request) place(ctx context.Context, b socketio.Broadcast, name string, args []any) (placed socketio.Placed, err error) {
	again := func(err error) bool { return r.once != nil && failure(ctx, err).Code == unavailable }
	err = repeat(ctx, again, func() (err error) {
		placed, err = b.Keyed(r.once).Place(ctx, name, args...)
		return err
	})
	return placed, err
}

// repeat calls f until it succeeds, again does not accept its error, or ctx ends.
func repeat(ctx context.Context, again func(error) bool, f func() error) error {
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		err := f()
		if err == nil || !again(err) {
			return err
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return err
		}
	}
}
