package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// signals turns what the process is sent into the two ways to stop. drain is
// closed by SIGTERM, from whoever replaces the node: its clients are to go one by
// one. ctx ends with SIGINT, from somebody at a terminal who does not want to
// wait, or with a second signal: all go at once. One more ends the process where
// it stands.
func signals() (ctx context.Context, drain <-chan struct{}) {
	received := make(chan os.Signal, 2)
	signal.Notify(received, os.Interrupt, syscall.SIGTERM)
	ctx, stop := context.WithCancel(context.Background())
	asked := make(chan struct{})
	go func() { // for as long as the process lives
		if <-received == syscall.SIGTERM {
			close(asked)
			<-received
		}
		signal.Stop(received)
		stop()
	}()
	return ctx, asked
}
