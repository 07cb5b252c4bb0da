package api

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/packet"
	"github.com/rejoin-io/rejoin/pkg/socketio"
)

// Limits of asks.
const (
	defaultAsk = 5 * time.Second
	maxAnswers = 16 << 20 // bytes, total of all answers
)

// An answer is a socket's ack.
type answer struct {
	Socket string `json:"socket"`
	Node   string `json:"node"`
	arguments
}

// arguments are sent by a client: JSON, and the attachments of its placeholders.
type arguments struct {
	Args        json.RawMessage `json:"args"`
	Attachments [][]byte        `json:"attachments,omitempty"`
}

func argumentsOf(args socketio.Args) (arguments, error) {
	text, attachments, err := packet.AppendArgs([]byte{'['}, args.Rest(0)...)
	return arguments{append(text, ']'), attachments}, err
}

func (a arguments) size() int {
	n := len(a.Args)
	for _, b := range a.Attachments {
		n += len(b)
	}
	return n
}

// silent lists the sockets that have not answered.
type silent struct {
	Sockets []string `json:"silentSockets"`
	nodes
}

// nodes lists the nodes that have not answered; if there are any, the result may be incomplete.
type nodes struct {
	Partial bool     `json:"partial"`
	Nodes   []string `json:"silentNodes"`
}

func silentNodes(list []adapter.NodeID) nodes {
	n := nodes{Partial: len(list) > 0, Nodes: make([]string, len(list))}
	for i, id := range list {
		n.Nodes[i] = string(id)
	}
	return n
}

func (a *API) ask(ctx context.Context, body []byte) (any, error) {
	var q struct {
		target
		event
		Timeout *int `json:"timeout"`
	}
	if err := a.decode(ctx, body, &q); err != nil {
		return nil, err
	}
	wait := defaultAsk
	if q.Timeout != nil {
		if *q.Timeout < 1 || int64(*q.Timeout) > maxAsk.Milliseconds() {
			return nil, fail(badRequest, "timeout must be 1 to %d milliseconds", maxAsk.Milliseconds())
		}
		wait = time.Duration(*q.Timeout) * time.Millisecond
	}
	if err := callerOf(ctx).mayExcept(q.target); err != nil {
		return nil, err
	}
	b, values, err := a.addressed(ctx, q.target, q.event)
	if err != nil {
		return nil, err
	}
	var found struct {
		Answers []answer `json:"answers"`
		silent
	}
	found.Answers, found.Nodes, found.Sockets = []answer{}, []string{}, []string{}
	size := 0
	answers, err := b.Timeout(wait).EmitWithAck(ctx, q.Event, values...)
	if err != nil {
		return nil, err
	}
	for got, err := range answers.All() {
		var unanswered *socketio.UnansweredError
		switch {
		case errors.As(err, &unanswered):
			found.nodes = silentNodes(unanswered.Nodes)
			found.Sockets = append(found.Sockets, unanswered.Sockets...)
			found.Partial = true
			continue
		case err != nil:
			return nil, err
		}
		args, err := argumentsOf(got.Args)
		if err != nil {
			return nil, err
		}
		if size += args.size(); size > maxAnswers {
			return nil, open(tooMany, "the event was sent, but its answers are too large: request acks from fewer sockets")
		}
		found.Answers = append(found.Answers, answer{got.SocketID, string(got.Node), args})
	}
	return found, nil
}
