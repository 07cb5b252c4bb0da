// Command node is one Rejoin node: a server for stock Socket.IO v4 clients with
// an application built in. Its environment configures it; -h lists the
// variables.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"time"

	"go.uber.org/zap"

	"github.com/rejoin-io/rejoin/internal/metrics"
)

// version is the newest one in CHANGELOG.md.
const version = "0.4.0"

// revision is set with -ldflags -X by builds outside of a repository, such as
// that of the image.
var revision = "unknown"

const (
	// stopTimeout is the time limit of a clean stop.
	stopTimeout = 10 * time.Second
	// stopGrace is the time that a stop waits for clients' requests in progress. After a
	// drain, which waits for clients itself, drainedGrace applies.
	stopGrace    = time.Second
	drainedGrace = stopReserve / 2
)

// Exit codes.
const (
	exitOK      = 0
	exitFailure = 1
	exitUsage   = 2 // the arguments or the configuration are invalid
)

func main() {
	ctx, draining, reloads := signals()
	os.Exit(run(ctx, draining, reloads, os.Args[1:], os.Stdout, os.Stderr))
}

// run is the program, configured by the environment. It serves until draining
// ends and all clients are disconnected, or until its parent ctx ends. Then it stops
// cleanly, and returns the exit code. With each value of reloads it reads its configuration again.
func run(ctx, draining context.Context, reloads <-chan os.Signal, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("rejoin", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	check := flags.Bool("check", false, "check the configuration and exit: 0 if it is valid, else 2, or 1 if the backend of REJOIN_HOOK_URL does not answer a ping")
	online := flags.Bool("online", false, "with -check: also connect to Redis and the JWKS server as a node would, and exit with 1 if that fails")
	effective := flags.Bool("config", false, "print the configuration that a node would have, without secrets, and where each value comes from, and exit")
	probed := flags.String("probe", "", "request a node's /readyz or /healthz, a `URL`, and exit: 0 if it answers 200 within 3 s, else 1")
	claims := flags.String("token", "", "print a token with these `CLAIMS`, a JSON object such as {\"sub\": \"alice\"}, and exit; it is signed with "+
		"REJOIN_JWT_SECRET, has the configured issuer and audience, and expires in one hour unless exp is set. With -check, "+
		"print instead which user, rooms and permissions these claims give, and which claims map to nothing")
	showVersion := flags.Bool("version", false, "print the version and exit")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		writeHelp(stdout, flags)
		return exitOK
	} else if err != nil {
		fmt.Fprintf(stderr, "rejoin: %v (-h lists the arguments)\n", err)
		return exitUsage
	}
	if flags.NArg() > 0 {
		fmt.Fprintf(stderr, "rejoin: takes no arguments, got %q (-h shows how it is configured)\n", flags.Args())
		return exitUsage
	}
	build := thisBuild()
	if *showVersion {
		fmt.Fprintf(stdout, "rejoin %s (revision %s, %s, %s/%s)\n", build.Version, build.Revision, runtime.Version(), runtime.GOOS, runtime.GOARCH)
		return exitOK
	}

	if *probed != "" {
		if err := probe(ctx, *probed); err != nil {
			fmt.Fprintln(stderr, "rejoin:", err)
			return exitFailure
		}
		return exitOK
	}

	if *online && !*check {
		fmt.Fprintln(stderr, "rejoin: -online requires -check")
		return exitUsage
	}

	c, r := load()
	if len(r.problems) > 0 {
		runs := !*check && !*effective && *claims == ""
		for _, p := range r.problems {
			if runs { // the log is read by a program, which would not find other lines
				newLogger(c, stderr).Error("configuration refused", zap.String("problem", p))
			} else {
				fmt.Fprintln(stderr, "rejoin:", p)
			}
		}
		return exitUsage
	}
	if *effective {
		writeEffective(stdout, &c)
		return exitOK
	}
	if *check {
		for _, w := range r.warnings {
			fmt.Fprintln(stderr, "rejoin: warning:", w)
		}
		if *claims != "" {
			return explainClaims(c, *claims, stdout, stderr)
		}
		if *online {
			if code := checkOnline(ctx, c, stdout, stderr); code != exitOK {
				return code
			}
		}
		if err := pingBackend(ctx, c); err != nil {
			fmt.Fprintf(stderr, "rejoin: REJOIN_HOOK_URL: the backend has not answered the ping: %v\n", err)
			return exitFailure
		}
		fmt.Fprintln(stdout, "ok")
		return exitOK
	}

	if *claims != "" {
		return printToken(c, *claims, stdout, stderr)
	}

	log := newLogger(c, stderr)
	for _, w := range r.warnings {
		log.Warn(w)
	}
	if err := serve(ctx, draining, reloads, c, build, log); err != nil {
		log.Error("node failed", zap.Error(err))
		return exitFailure
	}
	return exitOK
}

// serve runs a node until ctx ends, it is drained, or it fails.
func serve(ctx, draining context.Context, reloads <-chan os.Signal, c config, build metrics.Build, log logger) error {
	n, err := start(draining, c, randomNodeID, build, log)
	if errors.Is(err, context.Canceled) {
		log.Info("stopped before the node was ready")
		return nil
	}
	if err != nil {
		return err
	}
	for running := true; running; {
		select {
		case <-reloads: // also one that arrived while the node started
			c = n.reload(c)
			continue
		case <-draining.Done():
		case err = <-n.failed:
		}
		running = false
	}
	grace := stopGrace
	if err == nil && ctx.Err() == nil {
		n.drain(ctx, c.DrainDelay, c.DrainBudget)
		if c.DrainBudget > 0 {
			grace = drainedGrace
		}
	}
	log.Info("stopping", zap.Duration("within", stopTimeout))
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	if err := errors.Join(err, n.stop(ctx, grace)); err != nil {
		return err
	}
	log.Info("stopped")
	return nil
}

func writeHelp(w io.Writer, flags *flag.FlagSet) {
	fmt.Fprint(w, `rejoin is a server for stock Socket.IO v4 clients. It is configured by environment variables.
Without arguments it runs a node. With one of these arguments it does not run a node:

`)
	writeArguments(w, flags)
	fmt.Fprint(w, "\nIf a value is read from a file, trailing newlines are ignored.\n")
	writeTable(w)
}

// thisBuild describes this binary.
func thisBuild() metrics.Build {
	b := metrics.Build{Version: version, Revision: revision}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	modified := ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			b.Revision = s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			modified = "+modified"
		}
	}
	b.Revision += modified
	return b
}
