package engineio

import "testing"

// A small answer is queued while a very large one is being taken: that one waits behind nothing.
func TestASmallAnswerBesideAVeryLargeOne(t *testing.T) {
	const limit = 1000
	b := setUp(t, Options{SendQueueBytes: limit})
	sid := b.open()
	c := receive(t, b.conns)
	ahead := limit / 8
	large, small := Text(make([]byte, (waitingQueues+4)*limit)), Text([]byte("small"))
	if !c.TrySendPaced(ahead, large) {
		t.Fatal("the large answer is not queued")
	}
	if err := c.WaitPaced(t.Context(), ahead, small); err != nil {
		t.Fatal(err)
	}
	if err := c.SendPaced(small); err != nil {
		t.Fatalf("there is space for the small answer, but SendPaced returned %v", err)
	}
	if got, want := len(b.poll(sid)), len("4\x1e4small")+(waitingQueues+4)*limit; got != want {
		t.Errorf("polled %d bytes, want %d", got, want)
	}
}

// A small answer may wait although a very large one does.
func TestASmallAnswerWaitsBesideAVeryLargeOne(t *testing.T) {
	const limit = 1000
	b := setUp(t, Options{SendQueueBytes: 4 * limit}) // a goroutine counts 4 KiB
	b.open()
	c := receive(t, b.conns)
	defer c.HoldPaced(Text(make([]byte, (waitingQueues+4)*4*limit)))()
	defer c.HoldPaced(Text([]byte("small")))()
	if err := c.cause(); err != nil {
		t.Errorf("the client was cut: %v", err)
	}
}
