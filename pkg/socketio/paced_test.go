package socketio

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/pkg/engineio"
)

// Answers do not count in the limit of the send queue: what others publish to a client while it takes a
// large answer does not cut it, and the next large answer waits until it has taken most of that.
func TestEventsBehindLargeAnswers(t *testing.T) {
	const limit, size = 64 << 10, 60 << 10
	n := start(t, Options{Engine: engineio.Options{SendQueueBytes: limit}})
	acked := make(chan error, 2)
	n.On("large", func(_ context.Context, e *Event) error {
		err := e.Ack(strings.Repeat("a", size))
		acked <- err
		return err
	})
	poll, post := n.polling(t)
	post("40")
	poll()
	post(`421["large"]` + "\x1e" + `422["large"]`)
	must(t, receive(t, acked))
	events := 0
	for ; events < 55; events++ {
		must(t, n.Emit(t.Context(), "e", strings.Repeat("x", 1<<10)))
	}
	eventually(t, "the events are queued behind the answer", func() bool { return n.Stats().Engine.QueuedBytes > size+55<<10 })
	select {
	case err := <-acked:
		t.Errorf("the second answer is queued behind the events; Ack returned %v", err)
	default:
	}
	text := ""
	for strings.Count(text, "43") < 2 {
		text += poll()
	}
	must(t, receive(t, acked))
	if got := strings.Count(text, `"e"`); got != events || strings.Count(text, "43") != 2 {
		t.Errorf("%d events and %d answers, want %d and 2", got, strings.Count(text, "43"), events)
	}
}

// Answers that wait are counted, and a client to which far too many are owed is cut.
func TestAnswersThatWaitAreBounded(t *testing.T) {
	const limit, size, most = 16 << 10, 12 << 10, 16 * 16 / (12 + 4)
	n := start(t, Options{Engine: engineio.Options{SendQueueBytes: limit}})
	asked := make(chan *Event, 2*most)
	n.On("e", func(_ context.Context, e *Event) error {
		asked <- e
		return nil
	})
	poll, post := n.polling(t)
	post("40")
	poll()
	errs := make(chan error, 2*most)
	var acked sync.WaitGroup
	for range most + 1 {
		post(`421["e"]`)
	}
	ack := func() {
		e := receive(t, asked)
		acked.Go(func() { errs <- e.Ack(strings.Repeat("a", size)) })
	}
	ack()
	must(t, receive(t, errs)) // it is queued
	for i := range most - 1 {
		ack()
		eventually(t, "it is counted", func() bool { return n.Stats().Engine.QueuedBytes > int64(i+2)*size })
	}
	if n.Stats().Sockets != 1 || len(errs) > 0 {
		t.Fatalf("%d sockets, %d answers do not wait, want 1, 0", n.Stats().Sockets, len(errs))
	}
	ack()
	for range most {
		if err := receive(t, errs); !errors.Is(err, ErrDisconnected) {
			t.Errorf("Ack returned %v, want ErrDisconnected", err)
		}
	}
	acked.Wait()
	eventually(t, "nothing is counted", func() bool { return n.Stats().Engine.QueuedBytes == 0 })
	if cut := n.Stats().Engine.SlowClients; cut != 1 {
		t.Errorf("%d clients were cut as slow, want 1", cut)
	}
}

// A handler that answers later does not get more events while many of its answers wait.
func TestEventsWaitBehindWaitingAnswers(t *testing.T) {
	const limit, size = 16 << 10, 7 << 10
	n := start(t, Options{Engine: engineio.Options{SendQueueBytes: limit}})
	asked := make(chan *Event, 10)
	n.On("e", func(_ context.Context, e *Event) error {
		asked <- e
		return nil
	})
	poll, post := n.polling(t)
	post("40")
	poll()
	var acked sync.WaitGroup
	for range 3 { // one is queued, two wait
		post(`421["e"]`)
		e := receive(t, asked)
		acked.Go(func() { _ = e.Ack(strings.Repeat("a", size)) })
	}
	eventually(t, "they wait", func() bool { return n.Stats().Engine.QueuedBytes > 3*size })
	post(`42["e"]`)
	for range 3 {
		select {
		case <-asked:
			t.Fatal("an event is handled while answers wait")
		default:
		}
		poll()
	}
	receive(t, asked)
	acked.Wait()
}

// Large acks that were held in many namespaces are paced when they are released together: they do not cut
// the client, and its ping is not queued behind all of them.
func TestReleasedAcksOfManyNamespaces(t *testing.T) {
	const limit, size, namespaces = 32 << 10, 12 << 10, 8
	n, feed := startDelayed(t, Options{Engine: engineio.Options{SendQueueBytes: limit}})
	names := []string{"", "/1,", "/2,", "/3,", "/4,", "/5,", "/6,", "/7,"}[:namespaces]
	for _, name := range names {
		ns := n.Of("/" + strings.Trim(name, "/,"))
		ns.On("e", func(ctx context.Context, e *Event) error {
			if err := e.Socket().Emit(ctx, "self"); err != nil {
				return err
			}
			return e.Ack(strings.Repeat("a", size))
		})
	}
	poll, post := n.polling(t)
	for _, name := range names {
		post("40" + name)
		poll()
	}
	release := feed.shut()
	for _, name := range names {
		post("42" + name + `1["e"]`)
	}
	eventually(t, "the acks are held", func() bool { return n.held.bytes.Load() > namespaces*size })
	release()
	text := ""
	for strings.Count(text, "43") < namespaces {
		got := poll()
		if acks := strings.Count(got, "43"); acks > 2 {
			t.Errorf("%d acks were queued together, want one, and one that is being sent", acks)
		}
		text += got
	}
	must(t, n.Emit(t.Context(), "after"))
	for !strings.Contains(text, `["after"]`) {
		text += poll()
	}
	if got := strings.Count(text, `["self"`); got != namespaces {
		t.Errorf("%d events, want %d", got, namespaces)
	}
}

// A small answer does not wait for the large ones of other namespaces, however many wait.
func TestSmallAnswersBesideLargeOnes(t *testing.T) {
	const size = 60 << 10
	n := start(t, Options{Engine: engineio.Options{SendQueueBytes: 64 << 10}})
	names := []string{"/1", "/2", "/3"}
	for _, name := range names {
		n.Of(name).On("large", func(_ context.Context, e *Event) error { return e.Ack(strings.Repeat("a", size)) })
	}
	acked := make(chan error, 1)
	n.On("small", func(_ context.Context, e *Event) error {
		acked <- e.Ack("b")
		return nil
	})
	poll, post := n.polling(t)
	post("40")
	poll()
	for _, name := range names {
		post("40" + name + ",")
		poll()
	}
	for _, name := range names {
		post("42" + name + `,1["large"]`)
	}
	eventually(t, "one is queued and two wait", func() bool { return n.Stats().Engine.QueuedBytes > int64(len(names)*size) })
	post(`421["small"]`)
	must(t, receive(t, acked))
	if first := poll(); !strings.Contains(first, `431["b"]`) || strings.Count(first, "43") != 2 {
		t.Errorf("polled %d answers, want the small one and a large one", strings.Count(first, "43"))
	}
	for range len(names) - 1 {
		poll()
	}
}

// What others publish to a client that is behind does not stop its requests for long: it can leave the
// room, whether its answer fits beside what is queued or not.
func TestLeaveBehindALargeAnswer(t *testing.T) {
	for _, size := range []int{40 << 10, 900 << 10} {
		n := start(t, Options{Engine: engineio.Options{PingTimeout: 6 * time.Second}})
		joining(n.Namespace)
		n.On("page", func(_ context.Context, e *Event) error { return e.Ack(strings.Repeat("a", size)) })
		poll, post := n.polling(t)
		post("40")
		poll()
		post(`420["join","r"]`)
		poll()
		for range 200 {
			must(t, n.To("r").Emit(t.Context(), "e", strings.Repeat("x", 1<<10)))
		}
		eventually(t, "much is queued", func() bool { return n.Stats().Engine.QueuedBytes > 200<<10 })
		post(`421["page"]` + "\x1e" + `42["leave","r"]`)
		eventually(t, "the client has left the room", func() bool {
			for s := range n.Sockets() {
				return !s.InRoom("r")
			}
			return false
		})
	}
}

// One answer that waits may have any size.
func TestAVeryLargeAnswerWaits(t *testing.T) {
	const limit, size = 8 << 10, 32 * 8 << 10
	n := start(t, Options{Engine: engineio.Options{SendQueueBytes: limit}})
	n.On("large", func(_ context.Context, e *Event) error { return e.Ack(strings.Repeat("a", size)) })
	poll, post := n.polling(t)
	post("40")
	poll()
	post(`421["large"]` + "\x1e" + `422["large"]`)
	eventually(t, "the second answer waits, or the client is cut", func() bool {
		return n.Stats().Engine.QueuedBytes > 2*size || n.Stats().Sockets == 0
	})
	for text := ""; strings.Count(text, "43") < 2; {
		text += poll()
	}
}

// A handler whose small ack waits for an event waits itself while answers fill half of the send queue.
func TestHeldAnswersWaitForTheClient(t *testing.T) {
	n, feed := startDelayed(t, Options{Engine: engineio.Options{SendQueueBytes: 64 << 10}})
	acked := make(chan error, 2)
	n.On("e", func(ctx context.Context, e *Event) error {
		var size int
		if err := e.Bind(&size); err != nil {
			return err
		}
		if err := e.Socket().Emit(ctx, "self"); err != nil {
			return err
		}
		acked <- e.Ack(strings.Repeat("a", size))
		return nil
	})
	poll, post := n.polling(t)
	post("40")
	poll()
	post(fmt.Sprintf(`421["e",%d]`, 60<<10))
	must(t, receive(t, acked))
	eventually(t, "the large answer is queued", func() bool { return n.Stats().Engine.QueuedBytes > 60<<10 })
	release := feed.shut()
	post(`422["e",1000]`)
	eventually(t, "the small answer is held", func() bool { return n.held.bytes.Load() > 1000 })
	select {
	case err := <-acked:
		t.Errorf("Ack returned %v before the client has taken the large answer", err)
	case <-time.After(100 * time.Millisecond): // a handler that does not wait needs less
	}
	release()
	for text := ""; strings.Count(text, "43") < 2; {
		text += poll()
	}
	must(t, receive(t, acked))
}

// Acks whose events have come wait for the client, in the order of the calls, also with one that waits for
// them only. They count meanwhile.
func TestDueAcks(t *testing.T) {
	const size = 100 << 10
	n, feed := startDelayed(t, Options{AckTimeout: time.Hour})
	n.On("e", func(ctx context.Context, e *Event) error {
		if err := e.Socket().Emit(ctx, "self"); err != nil {
			return err
		}
		return e.Ack(strings.Repeat("a", size))
	})
	n.On("plain", func(_ context.Context, e *Event) error { return e.Ack() })
	poll, post := n.polling(t)
	post("40")
	poll()
	release := feed.shut()
	post(`421["e"]` + "\x1e" + `422["e"]`)
	eventually(t, "the acks are held", func() bool { return n.held.bytes.Load() > 2*size })
	release()
	eventually(t, "one is queued and the other one is due", func() bool {
		return n.held.bytes.Load() == 0 && n.Stats().Engine.QueuedBytes > 2*size
	})
	post(`423["plain"]`)
	text := ""
	for !strings.Contains(text, "433[") {
		text += poll()
	}
	if first, second := strings.Index(text, "431["), strings.Index(text, "432["); first < 0 || second < first {
		t.Errorf("the acks are at %d and %d, want both in order before the last one", first, second)
	}
	eventually(t, "nothing is counted any more", func() bool { return n.Stats().Engine.QueuedBytes == 0 })
}
