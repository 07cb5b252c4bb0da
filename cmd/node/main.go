// The rejoin node: a server for stock Socket.IO clients, with an application of
// its own, so that they can talk to one another without any server code. It is
// configured by environment variables, which -h lists.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/rejoin-io/rejoin/internal/metrics"
)

// version is set by the build: -ldflags "-X main.version=…".
var version = "0.1.0"

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

func main() {
	// The first signal ends the node cleanly; the second one, at once.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run is the program. It returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("rejoin", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {}
	check := flags.Bool("check", false, "")
	showVersion := flags.Bool("version", false, "")
	switch err := flags.Parse(args); {
	case err == flag.ErrHelp:
		fmt.Fprint(stdout, "Usage: rejoin [-h | -check | -version]\n\nA node for stock Socket.IO clients. Everything is set by these variables:\n\n")
		writeTable(stdout)
		return exitOK
	case err != nil || flags.NArg() > 0:
		fmt.Fprintln(stderr, "rejoin takes -h, -check and -version, and is set by environment variables, which -h lists")
		return exitUsage
	case *showVersion:
		b := build()
		fmt.Fprintf(stdout, "rejoin %s (%s)\n", b.Version, b.Revision)
		return exitOK
	}
	c, problems := load()
	for _, w := range problems.warnings {
		fmt.Fprintln(stderr, "warning:", w)
	}
	if len(problems.problems) > 0 {
		for _, p := range problems.problems {
			fmt.Fprintln(stderr, p)
		}
		return exitUsage
	}
	if *check {
		fmt.Fprintln(stdout, "the configuration is good")
		return exitOK
	}
	log := newLogger(c, stderr)
	if err := serve(ctx, c, log); err != nil {
		log.Error("the node failed", zap.Error(err))
		return exitFailed
	}
	return exitOK
}

// newLogger logs lines to w as the configuration says.
func newLogger(c config, w io.Writer) *zap.Logger {
	level, err := zapcore.ParseLevel(c.LogLevel)
	if err != nil {
		panic(err) // one of those that the configuration allows
	}
	encoding := zap.NewProductionEncoderConfig()
	encoding.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	encoder := zapcore.NewJSONEncoder(encoding)
	if c.LogFormat == "console" {
		encoding.EncodeTime = zapcore.TimeEncoderOfLayout("15:04:05.000")
		encoding.EncodeLevel = zapcore.CapitalLevelEncoder
		encoder = zapcore.NewConsoleEncoder(encoding)
	}
	return zap.New(zapcore.NewCore(encoder, zapcore.Lock(zapcore.AddSync(w)), level))
}

// build says what is running.
func build() metrics.Build {
	b := metrics.Build{Version: version, Revision: "unknown"}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				b.Revision = s.Value
			}
		}
	}
	return b
}
