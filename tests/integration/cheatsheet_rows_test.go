package integration

import (
	"context"
	"time"

	"github.com/rejoin-io/rejoin/pkg/socketio"
)

type (
	server  = *socketio.Server
	socket  = *socketio.Socket
	answers = *socketio.Answers
)

// serverRows are the rows 1 to 26: events of a server. Their code is the code
// in the document.
var serverRows = map[int]func(*party){
	1: func(p *party) {
		p.emits("news", func(ctx context.Context, _ server, s socket) error {
			return s.Emit(ctx, "news", 1)
		})
	},
	2: func(p *party) {
		p.asksMe(socketio.ErrDisconnected, func(ctx context.Context, s socket) (socketio.Args, error) {
			return s.EmitWithAck(ctx, "news", 1)
		})
	},
	3: func(p *party) {
		p.asksMe(context.DeadlineExceeded, func(ctx context.Context, s socket) (socketio.Args, error) {
			ctx, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			return s.EmitWithAck(ctx, "news", 1)
		})
	},
	4: func(p *party) {
		p.asksMe(socketio.ErrDisconnected, func(ctx context.Context, s socket) (socketio.Args, error) {
			return s.EmitWithAck(ctx, "news", 1)
		})
	},
	5: func(p *party) {
		p.asksMe(context.DeadlineExceeded, func(ctx context.Context, s socket) (socketio.Args, error) {
			ctx, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			return s.EmitWithAck(ctx, "news", 1)
		})
	},
	6: func(p *party) {
		p.emits("news", func(ctx context.Context, _ server, s socket) error {
			return s.Self().Volatile().Emit(ctx, "news", 1)
		})
	},
	7: func(p *party) {
		p.emits("news", func(ctx context.Context, _ server, s socket) error {
			return s.Self().Compress(false).Emit(ctx, "news", 1)
		})
	},
	8: func(p *party) {
		p.emits("message", func(ctx context.Context, _ server, s socket) error {
			return s.Send(ctx, 1)
		})
	},
	9: func(p *party) {
		p.emits("news", func(ctx context.Context, _ server, s socket) error {
			return s.Broadcast().Emit(ctx, "news", 1)
		})
	},
	10: func(p *party) {
		p.emits("news", func(ctx context.Context, _ server, s socket) error {
			return s.To("r1").Emit(ctx, "news", 1)
		})
		p.emits("news", func(ctx context.Context, _ server, s socket) error {
			return s.In("r1").Emit(ctx, "news", 1)
		})
	},
	11: func(p *party) {
		p.emits("news", func(ctx context.Context, _ server, s socket) error {
			return s.To("r1", "r3").Emit(ctx, "news", 1)
		})
		p.emits("news", func(ctx context.Context, _ server, s socket) error {
			return s.To("r1").To("r3").Emit(ctx, "news", 1)
		})
	},
	12: func(p *party) {
		p.emits("news", func(ctx context.Context, _ server, s socket) error {
			return s.Except("r3").Emit(ctx, "news", 1)
		})
	},
	13: func(p *party) {
		p.emits("news", func(ctx context.Context, _ server, s socket) error {
			return s.Local().Emit(ctx, "news", 1)
		})
	},
	14: func(p *party) {
		p.asks(func(ctx context.Context, _ server, s socket) (answers, error) {
			return s.To("r1").Timeout(time.Second).EmitWithAck(ctx, "news", 1)
		})
	},
	15: func(p *party) {
		p.asks(func(ctx context.Context, _ server, s socket) (answers, error) {
			return s.Broadcast().Timeout(time.Second).EmitWithAck(ctx, "news", 1)
		})
	},
	16: func(p *party) {
		p.emits("news", func(ctx context.Context, srv server, _ socket) error {
			return srv.Emit(ctx, "news", 1)
		})
		p.elsewhere(func(ctx context.Context, srv server) error {
			return srv.Of("/chat").Emit(ctx, "news", 1)
		})
	},
	17: func(p *party) {
		p.emits("message", func(ctx context.Context, srv server, _ socket) error {
			return srv.Send(ctx, 1)
		})
	},
	18: func(p *party) {
		p.emits("news", func(ctx context.Context, srv server, _ socket) error {
			return srv.To("r1").Emit(ctx, "news", 1)
		})
		p.emits("news", func(ctx context.Context, srv server, _ socket) error {
			return srv.In("r1").Emit(ctx, "news", 1)
		})
	},
	19: func(p *party) {
		p.emits("news", func(ctx context.Context, srv server, _ socket) error {
			return srv.To("r1").To("r2", "r3").Except("r4").Emit(ctx, "news", 1)
		})
	},
	20: func(p *party) {
		p.emits("news", func(ctx context.Context, srv server, _ socket) error {
			return srv.Except("r1").Emit(ctx, "news", 1)
		})
	},
	21: func(p *party) {
		id := p.id("bob")
		p.emits("news", func(ctx context.Context, srv server, _ socket) error {
			return srv.ToSocket(id).Emit(ctx, "news", 1)
		})
	},
	22: func(p *party) {
		p.emits("news", func(ctx context.Context, srv server, _ socket) error {
			return srv.Local().Emit(ctx, "news", 1)
		})
	},
	23: func(p *party) {
		p.emits("news", func(ctx context.Context, srv server, _ socket) error {
			return srv.Volatile().Emit(ctx, "news", 1)
		})
	},
	24: func(p *party) {
		p.emits("news", func(ctx context.Context, srv server, _ socket) error {
			return srv.Compress(false).Emit(ctx, "news", 1)
		})
	},
	25: func(p *party) {
		p.asks(func(ctx context.Context, srv server, _ socket) (answers, error) {
			return srv.Timeout(time.Second).EmitWithAck(ctx, "news", 1)
		})
	},
	26: func(p *party) {
		p.asks(func(ctx context.Context, srv server, _ socket) (answers, error) {
			return srv.To("r1").Timeout(time.Second).EmitWithAck(ctx, "news", 1)
		})
	},
}
