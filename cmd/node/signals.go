package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// signals turns the signals that the process receives into the two ways to stop. SIGTERM, which
// orchestrators send, ends draining: the clients are closed one by one. SIGINT, from a terminal,
// or a second signal ends ctx, too: all are closed immediately. One more signal kills the process.
// Each SIGHUP is a value of reloads, unless one waits there already.
func signals() (ctx, draining context.Context, reloads <-chan os.Signal) {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	received := make(chan os.Signal, 2)
	signal.Notify(received, os.Interrupt, syscall.SIGTERM)
	ctx, stop := context.WithCancel(context.Background())
	draining, drain := context.WithCancel(ctx)
	go func() { // runs until the process ends
		if <-received == syscall.SIGTERM {
			drain()
			<-received
		}
		signal.Stop(received)
		stop()
	}()
	return ctx, draining, hangups
}
