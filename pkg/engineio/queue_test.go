package engineio

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
)

func TestSlowClientIsCut(t *testing.T) {
	packet := Text(make([]byte, 100))
	b := setUp(t, Options{SendQueueBytes: 10 * (packet.Len() + packetOverhead)})
	sid := b.open()
	c := receive(t, b.conns)
	if err := c.WaitQueue(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		if err := c.Send(packet); err != nil {
			t.Fatalf("packet %d: %v", i, err)
		}
	}
	if c.Queued() != b.o.SendQueueBytes || b.Stats().QueuedBytes != int64(c.Queued()) {
		t.Errorf("queued %d, %d of all", c.Queued(), b.Stats().QueuedBytes)
	}
	err := c.Send(packet)
	if closed := (*CloseError)(nil); !errors.Is(err, ErrSlowClient) || !errors.As(err, &closed) || closed.Reason != TransportError {
		t.Errorf("got %v", err)
	}
	if cause := context.Cause(c.Context()); !errors.Is(cause, ErrSlowClient) {
		t.Errorf("the cause is %v, want ErrSlowClient", cause)
	}
	b.endsBy(TransportError)
	b.unknown(sid)
	if s := b.Stats(); s.SlowClients != 1 || s.QueuedBytes != 0 {
		t.Errorf("got %+v, want one slow client and an empty queue", s)
	}
}

func TestOneLargePacketIsNotASlowClient(t *testing.T) {
	b := setUp(t, Options{SendQueueBytes: 1000})
	sid := b.open()
	c := receive(t, b.conns)
	if err := c.Send(Text([]byte("small"))); err != nil {
		t.Fatal(err)
	}
	if err := c.Send(Text(make([]byte, 5000))); err != nil {
		t.Fatal(err)
	}
	if got := b.poll(sid); len(got) != len("4small\x1e4")+5000 {
		t.Errorf("polled %d bytes, want %d", len(got), len("4small\x1e4")+5000)
	}
}

// A client that reads gets all volatile packets of a 60 Hz stream, also those that are
// sent while the previous ones are still being written.
func TestTrySendToReadingClient(t *testing.T) {
	b := setUp(t, Options{})
	ws, c := b.dialOpen()
	for tick := range 300 {
		must(t, c.Send(Text(fmt.Appendf(nil, "%d:state", tick))))
		for i := range 10 { // ten players
			if !c.TrySend(Text(fmt.Appendf(nil, "%d:%d", tick, i))) {
				t.Fatalf("tick %d: packet %d dropped, %d bytes queued", tick, i, c.Queued())
			}
		}
		if got, want := b.read(ws), fmt.Sprintf("4%d:state", tick); got != want {
			t.Fatalf("read %q, want %q", got, want)
		}
		for i := range 10 {
			if got, want := b.read(ws), fmt.Sprintf("4%d:%d", tick, i); got != want {
				t.Fatalf("read %q, want %q", got, want)
			}
		}
	}
}

// Packets to a client that stops reading are dropped, and its queue exceeds the limit by at
// most one packet.
func TestTrySendToStalledClient(t *testing.T) {
	b := setUp(t, Options{})
	_, c := b.dialStalled()
	p := Text(make([]byte, 1000))
	most := (volatileQueueBytes/p.Len() + 2) * (p.Len() + packetOverhead) // the last one exceeds the limit, and there is the handshake
	dropped := 0
	for n := 0; dropped < 1000; n++ {
		if !c.TrySend(p) {
			dropped++
		}
		if q := c.Queued(); q > most {
			t.Fatalf("got %d bytes queued, want at most %d", q, most)
		}
		if n > 100_000 {
			t.Fatal("nothing dropped")
		}
	}
	if err := c.cause(); err != nil {
		t.Errorf("closed: %v", err)
	}
}

// Between two polls volatile packets are queued up to the same limit.
func TestTrySendBetweenPolls(t *testing.T) {
	b := setUp(t, Options{})
	sid := b.open()
	c := receive(t, b.conns)
	a := Text([]byte("a"))
	if !c.TrySend(a) || !c.TrySend(a, a) {
		t.Error("dropped although little is queued")
	}
	if got := b.poll(sid); got != "4a\x1e4a\x1e4a" {
		t.Errorf(`polled %q, want "4a\x1e4a\x1e4a"`, got)
	}
	large := Text(make([]byte, volatileQueueBytes))
	if !c.TrySend(large) {
		t.Error("large packet dropped although nothing is queued")
	}
	if c.TrySend(a) {
		t.Error("sent beyond the limit")
	}
	b.poll(sid)
	b.until(func() bool { return c.Queued() == 0 }) // counted until the response is written
	if !c.TrySend(a) {
		t.Error("dropped after the queue was taken")
	}
	_ = c.Close(ForcedClose)
	if c.TrySend(a) {
		t.Error("sent although it is closed")
	}
}

// The limit for volatile packets is never above that of the send queue.
func TestTrySendWithSmallSendQueue(t *testing.T) {
	b := setUp(t, Options{SendQueueBytes: 1000})
	b.open()
	c := receive(t, b.conns)
	b.until(func() bool { return c.Queued() == 0 }) // the handshake counts until its response is written
	p := Text(make([]byte, 600))
	for range 2 {
		if !c.TrySend(p) {
			t.Error("dropped although less than the send queue is queued")
		}
	}
	if c.TrySend(p) {
		t.Error("sent beyond the send queue")
	}
}

func TestWaitQueue(t *testing.T) {
	b := setUp(t, Options{})
	sid := b.open()
	c := receive(t, b.conns)
	if err := c.WaitQueue(t.Context(), 0); err != nil {
		t.Errorf("nothing queued: %v", err)
	}
	_ = c.Send(Text([]byte("a")))
	if err := c.WaitQueue(t.Context(), c.Queued()); err != nil {
		t.Errorf("few queued: %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	cancel(why)
	if err := c.WaitQueue(ctx, 0); !errors.Is(err, why) {
		t.Errorf("its context ended: %v, want %v", err, why)
	}
	waited := make(chan error, 2)
	for range 2 {
		go func() { waited <- c.WaitQueue(t.Context(), 0) }()
	}
	b.until(func() bool { c.mu.Lock(); defer c.mu.Unlock(); return c.change != nil })
	b.poll(sid)
	for range 2 {
		if err := receive(t, waited); err != nil {
			t.Errorf("polled: %v", err)
		}
	}
	_ = c.Send(Text([]byte("a")))
	go func() { waited <- c.WaitQueue(t.Context(), 0) }()
	b.until(func() bool { c.mu.Lock(); defer c.mu.Unlock(); return c.change != nil })
	_ = c.Close(ForcedClose)
	if closed := (*CloseError)(nil); !errors.As(receive(t, waited), &closed) {
		t.Error("closed: no error")
	}
	b.poll(sid)
}

// Adjacent small frames become one buffer, large ones stay where they are.
func TestBatchBuffers(t *testing.T) {
	small, large := Text([]byte("small")), Text(make([]byte, smallFrame))
	for _, test := range []struct {
		packets []*Packet
		buffers int
	}{
		{[]*Packet{small}, 1},
		{[]*Packet{large}, 1},
		{[]*Packet{small, small, small}, 1},
		{[]*Packet{large, large}, 2},
		{[]*Packet{small, large, small, small}, 3},
		{[]*Packet{large, small, small, large}, 3},
	} {
		b := batches.New().(*batch)
		var want []byte
		for _, p := range test.packets {
			b.packets = append(b.packets, p)
			want = append(want, p.frame...)
		}
		v := b.buffers(func(p *Packet) []byte { return p.frame }, "")
		if len(*v) != test.buffers {
			t.Errorf("%d packets become %d buffers, want %d", len(test.packets), len(*v), test.buffers)
		}
		var got bytes.Buffer
		if _, err := v.WriteTo(&got); err != nil || !bytes.Equal(got.Bytes(), want) {
			t.Errorf("%d packets are changed on the way: %v", len(test.packets), err)
		}
	}
}

func TestPacketForms(t *testing.T) {
	for _, n := range []int{0, 1, 90, 91, 92, 93, 94, 124, 125, 126, 49_149, 49_150, 65_534, 65_535, 65_536} {
		data := bytes.Repeat([]byte("x"), n)
		text, binary := Text(data), Binary(data)
		if got := text.polling(); string(got) != "4"+string(data) {
			t.Errorf("%d bytes of text: %d polled", n, len(got))
		}
		if kind, got, err := decode(binary.polling()); kind != typeBinary || err != nil || !bytes.Equal(got, data) {
			t.Errorf("%d bytes of binary: %c, %d polled, %v", n, kind, len(got), err)
		}
		if first, again := binary.polling(), binary.polling(); &first[0] != &again[0] {
			t.Errorf("%d bytes of binary are encoded twice", n)
		}
		if text.Len() != len(text.frame) || cap(text.frame) != len(text.frame) {
			t.Errorf("%d bytes of text: length %d, capacity %d of %d", n, text.Len(), cap(text.frame), len(text.frame))
		}
	}
	data := []byte("mine")
	p := Text(data)
	data[0] = 'x'
	if got := p.polling(); string(got) != "4mine" {
		t.Errorf("the packet has changed with the caller's bytes: %q", got)
	}
}

func TestCloseErrorText(t *testing.T) {
	for want, err := range map[string]*CloseError{
		"engineio: ping timeout":                              {Reason: PingTimeout},
		"engineio: transport error: " + ErrSlowClient.Error(): {Reason: TransportError, Err: ErrSlowClient},
	} {
		if got := fmt.Sprint(err); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
