package socketio_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/rejoin-io/rejoin/pkg/socketio"
)

// A handler that waits ends with its socket, and can read the reason.
func ExampleDisconnectError() {
	wait := func(ctx context.Context) {
		<-ctx.Done()
		var gone *socketio.DisconnectError
		if err := context.Cause(ctx); errors.As(err, &gone) && gone.Reason == socketio.PingTimeout {
			fmt.Println(errors.Is(err, socketio.ErrDisconnected), err)
		}
	}
	ctx, end := context.WithCancelCause(context.Background()) // as the socket's context ends
	end(&socketio.DisconnectError{Reason: socketio.PingTimeout})
	wait(ctx)
	// Output: true socketio: disconnected: ping timeout
}

// A server that reports the panics of its handlers in addition to the log.
func ExamplePanicError() {
	report := func(err *socketio.PanicError) {
		fmt.Println(err)
		fmt.Println(errors.Is(err, errOutOfStock))
	}
	srv, err := socketio.NewServer(socketio.Options{OnPanic: report})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer srv.Close(context.Background())

	report(&socketio.PanicError{Callback: "On", Value: errOutOfStock}) // as the server does
	// Output:
	// socketio: On function panicked: out of stock
	// true
}

var errOutOfStock = errors.New("out of stock")
