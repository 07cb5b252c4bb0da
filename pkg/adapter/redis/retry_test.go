package redis

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/internal/redistest"
	"github.com/rejoin-io/rejoin/pkg/adapter"
)

// ways are the ways in which a node can make sure that an attempt is over. They depend on
// the server: some services have no CLIENT KILL, and do not report the identities of server
// and connection.
var ways = map[string][]string{
	"Kill":      nil,
	"Fence":     {"user default on nopass ~* &* +@all -client|kill"},
	"Anonymous": {`rename-command CLIENT ""`, `rename-command ROLE ""`, `rename-command INFO ""`},
}

// eachWay runs a test with a server of each kind.
func eachWay(t *testing.T, test func(t *testing.T, server *redistest.Server)) {
	for name, config := range ways {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // much of it is waiting
			test(t, redistest.Start(t, config...))
		})
	}
}

// buries reports whether a command of a node makes sure that an attempt is over.
func buries(what []byte) bool {
	what = bytes.ToLower(what)
	return bytes.Contains(what, []byte("\r\nkill\r\nid\r\n")) && !bytes.Contains(what, []byte("\r\n9007199254740992\r\n")) ||
		bytes.Contains(what, []byte("\r\nset\r\n")) && bytes.Contains(what, []byte("fence:"))
}

// Redis receives a publish only after its connection has ended and the call has been
// retried on another one.
func TestRetryIsExact(t *testing.T) { eachWay(t, retryIsExact) }

func retryIsExact(t *testing.T, server *redistest.Server) {
	const late = 300 * time.Millisecond
	relay := newRelay(t, server.Addr)
	a := start(t, relay.url(), "a", Options{})
	b := start(t, server.URL(), "b", Options{})
	subscribe(t, b, room("r"))
	var want []string
	for i := range 10 {
		data := fmt.Sprint("event ", i)
		want = append(want, data)
		said := onceSaid(relay, data)
		relay.slow(late)
		sent := make(chan error, 1)
		go func() {
			_, err := a.Publish(deadline(t), event(data, room("r")))
			sent <- err
		}()
		first := <-said
		relay.slow(0)
		first.sever()
		if err := <-sent; err != nil {
			t.Fatalf("Publish: %v", err)
		}
		<-first.done // the late call has arrived
	}
	publish(t, a, event("end", room("r")))
	expect(t, b, append(want, "end")...)
	if n := a.Stats().Retries; n < 10 {
		t.Errorf("%d retries: the test has tested nothing, want at least 10", n)
	}
}

// onceSaid returns the link on which a text is sent first.
func onceSaid(r *relay, text string) <-chan *wire {
	links := make(chan *wire, 1)
	r.watch(func(w *wire, what []byte) {
		if bytes.Contains(what, []byte(text)) {
			select {
			case links <- w:
			default:
			}
		}
	})
	return links
}

// Redis has executed the call, and its answer is lost.
func TestRetryFindsTheFirstAttempt(t *testing.T) { eachWay(t, retryFindsTheFirstAttempt) }

func retryFindsTheFirstAttempt(t *testing.T, server *redistest.Server) {
	relay := newRelay(t, server.Addr)
	a := start(t, relay.url(), "a", Options{})
	b := start(t, server.URL(), "b", Options{})
	subscribe(t, b, room("r"))
	relay.answers(false)
	sent := make(chan error, 1)
	var at adapter.Receipt
	go func() {
		var err error
		at, err = a.Publish(deadline(t), event("once", room("r")))
		sent <- err
	}()
	e, err := b.Next(deadline(t))
	if err != nil {
		t.Fatal(err)
	}
	relay.answers(true)
	relay.cut(publisher)
	if err := <-sent; err != nil || at.Cursor.At != e.Position {
		t.Errorf("Publish: %v, %v, and it came at %v", at, err, e.Position)
	}
	publish(t, a, event("end", room("r")))
	expect(t, b, "end")
}

// Redis has executed the call, and its answer is lost. The history is lost as well before
// the call could be searched for. The event may have been delivered, so it must not be
// delivered again in the next history.
func TestRetryEndsWithTheHistory(t *testing.T) { eachWay(t, retryEndsWithTheHistory) }

func retryEndsWithTheHistory(t *testing.T, server *redistest.Server) {
	relay := newRelay(t, server.Addr)
	a := start(t, relay.url(), "a", Options{Timeout: patience})
	b := start(t, server.URL(), "b", Options{})
	subscribe(t, b, room("r"))
	relay.answers(false)
	sent := make(chan error, 1)
	go func() {
		_, err := a.Publish(deadline(t), event("once", room("r")))
		sent <- err
	}()
	expect(t, b, "once")
	if err := server.Client().FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	relay.answers(true)
	relay.cut(publisher)
	if err := <-sent; !errors.Is(err, adapter.ErrUnavailable) {
		t.Errorf("Publish: %v, want ErrUnavailable", err)
	}
	if between := expectLoss(t, b); len(between) > 0 {
		t.Errorf("%q came before the loss was said", between)
	}
	publish(t, a, event("end", room("r")))
	expect(t, b, "end")
}

// The connection that should end the first attempt breaks before that.
func TestRetryPreventsTheFirstAttempt(t *testing.T) { eachWay(t, retryPreventsTheFirstAttempt) }

func retryPreventsTheFirstAttempt(t *testing.T, server *redistest.Server) {
	relay := newRelay(t, server.Addr)
	a := start(t, relay.url(), "a", Options{Timeout: 10 * time.Second})
	b := start(t, server.URL(), "b", Options{})
	subscribe(t, b, room("r"))

	said := make(chan *wire, 1)
	kills := 0
	relay.watch(func(w *wire, what []byte) {
		if bytes.Contains(what, []byte("doubted")) {
			select {
			case said <- w:
			default:
			}
		}
		if buries(what) {
			if kills++; kills == 1 { // the relay calls one at a time: only the publisher does it
				relay.slow(0)
				_ = w.server.Close()
				_ = w.client.Close()
			}
		}
	})
	relay.slow(time.Second)
	sent := make(chan error, 1)
	go func() {
		_, err := a.Publish(deadline(t), event("doubted", room("r")))
		sent <- err
	}()
	first := <-said
	first.sever()
	relay.slow(0)
	if err := <-sent; err != nil {
		t.Fatalf("Publish: %v", err)
	}
	<-first.done
	publish(t, a, event("end", room("r")))
	expect(t, b, "doubted", "end")
}

// An event with an unknown outcome is published once or not at all, and never behind a
// later one.
func TestUnknownOutcomesStayInOrder(t *testing.T) { eachWay(t, unknownOutcomesStayInOrder) }

func unknownOutcomesStayInOrder(t *testing.T, server *redistest.Server) {
	relay := newRelay(t, server.Addr)
	a := start(t, relay.url(), "a", Options{Timeout: 200 * time.Millisecond, ProbeInterval: 100 * time.Millisecond})
	b := start(t, server.URL(), "b", Options{})
	subscribe(t, b, room("r"))
	sent := 0
	sure, never := make(map[int]bool), make(map[int]bool)
	send := func() error {
		sent++
		_, err := a.Publish(deadline(t), event(fmt.Sprint(sent), room("r")))
		sure[sent], never[sent] = err == nil, errors.Is(err, adapter.ErrNotPublished)
		return err
	}
	for range 5 {
		said := onceSaid(relay, "evalsha")
		relay.slow(400 * time.Millisecond)
		first := <-said                                                                                         // a probe, or the event
		if err := send(); !errors.Is(err, adapter.ErrUnavailable) && !errors.Is(err, adapter.ErrNotPublished) { // behind a probe
			t.Fatalf("Publish on a link that is too slow: %v, want ErrUnavailable or ErrNotPublished", err)
		}
		relay.slow(0)
		eventually(t, "Redis reachable again", func() bool { return send() == nil })
		<-first.done
	}
	last := 0
	for last < sent {
		e, err := b.Next(deadline(t))
		if err != nil {
			t.Fatal(err)
		}
		n, err := strconv.Atoi(string(e.Data))
		if err != nil || n <= last {
			t.Fatalf("%q comes after %d", e.Data, last)
		}
		if never[n] {
			t.Errorf("%d came, and its sender was told that it was not published", n)
		}
		for last++; last < n; last++ {
			if sure[last] {
				t.Errorf("%d was acknowledged and did not come", last)
			}
		}
	}
}

// A call is abandoned while its first attempt is late: the next call makes sure that the
// attempt does not arrive behind it.
func TestNextCallPreventsTheAbandonedOne(t *testing.T) { eachWay(t, nextCallPreventsTheAbandonedOne) }

func nextCallPreventsTheAbandonedOne(t *testing.T, server *redistest.Server) {
	relay := newRelay(t, server.Addr)
	a := start(t, relay.url(), "a", Options{Timeout: time.Second, ProbeInterval: time.Hour})
	b := start(t, server.URL(), "b", Options{})
	subscribe(t, b, room("r"))
	said := onceSaid(relay, "given up")
	relay.slow(3 * time.Second)
	if _, err := a.Publish(deadline(t), event("given up", room("r"))); !errors.Is(err, adapter.ErrUnavailable) {
		t.Fatalf("Publish on a link that is too slow: %v, want ErrUnavailable", err)
	}
	first := <-said
	relay.slow(0)
	e := event("next", room("r"))
	payload, _ := encodeEvent(&e, 1)
	next := content{rooms: []string{name(room("r"))}, payload: payload}
	if o := a.partitions[0].enqueue(deadline(t), &next); o.err != nil {
		t.Fatalf("the next event: %v", o.err)
	}
	<-first.done
	publish(t, b, event("end", room("r")))
	expect(t, b, "next", "end")
}
