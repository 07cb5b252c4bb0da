package socketio

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/rejoin-io/rejoin/pkg/engineio"
)

// A handler that returns Ack's error does not fill the log when its connection is closed.
func TestAnswersThatAreCutAreNotLogged(t *testing.T) {
	const size, waiting = 12 << 10, 4
	core, logs := observer.New(zapcore.WarnLevel)
	n := start(t, Options{Logger: zap.New(core), Engine: engineio.Options{SendQueueBytes: 16 << 10}})
	returned := make(chan struct{}, waiting)
	n.On("e", func(_ context.Context, e *Event) error {
		go func() {
			e.Socket().handle(&Event{Name: "ack", socket: e.Socket(), ackID: "1"})
			returned <- struct{}{}
		}()
		return nil
	})
	n.On("ack", func(_ context.Context, e *Event) error {
		if err := e.Ack(strings.Repeat("a", size)); err != nil {
			return fmt.Errorf("answer: %w", err)
		}
		return nil
	})
	for range 10 { // there are two orders in which connection and socket end
		poll, post := n.polling(t)
		post("40")
		poll()
		for range waiting {
			post(`42["e"]`)
		}
		eventually(t, "the answers wait", func() bool { return n.Stats().Engine.QueuedBytes > 2*size })
		for c := range n.Server.engine.Conns() {
			c.Close(engineio.ForcedClose)
		}
		for range waiting {
			receive(t, returned)
		}
	}
	if list := logs.FilterMessage("socket error").All(); len(list) > 0 {
		t.Errorf("got %d lines, the first: %v, want 0", len(list), list[0].ContextMap())
	}
	n.On("fails", func(context.Context, *Event) error { return fmt.Errorf("of another socket: %w", ErrDisconnected) })
	other := n.client(t)
	other.write(`42["fails"]`)
	eventually(t, "an error of an open connection is logged", func() bool { return logs.FilterMessage("socket error").Len() == 1 })
}
