// The load measures Socket.IO servers, each in a process of its own and by
// turns, and prints what a second of their CPU time and a KiB of their memory
// are good for. It counts every delivery: one that is missing, comes twice or
// out of order ends the run with an error.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	setupTimeout = 10 * time.Second // for a server to listen, and for each step of a handshake
	drainTimeout = 20 * time.Second // for the last deliveries after the last event
	stopTimeout  = 10 * time.Second
	quiet        = 100 * time.Millisecond // in which nothing more may arrive after the last delivery
)

// A plan says how much of everything a run takes.
type plan struct {
	Rounds     int           `json:"rounds"`
	Members    int           `json:"members"`    // of the room
	Publishers int           `json:"publishers"` // outside of it
	Callers    int           `json:"callers"`    // who ask for echoes
	Window     int           `json:"window"`     // events or echoes in flight, for each publisher or caller
	Idle       int           `json:"idle"`       // connections
	Warmup     time.Duration `json:"warmup_ns"`
	Measured   time.Duration `json:"measured_ns"`
	Settle     time.Duration `json:"settle_ns"` // from the last idle connection to the reading

	// Of a cluster.
	Roamers int `json:"roamers"` // clients that reconnect
	Rooms   int `json:"rooms"`   // they are in
	Missed  int `json:"missed"`  // events of each room while they are disconnected
	Others  int `json:"others"`  // and of other rooms
	Senders int `json:"senders"` // publishers to the cluster, each with an event in flight
	Stalls  int `json:"stalls"`  // rooms that they publish to
	Heard   int `json:"heard"`   // rooms of a subscriber that is cut
}

// A figure is one of the numbers that are measured.
type figure struct {
	Name    string
	Unit    string
	Format  string // of a value in that unit
	Columns []column
	Cluster bool // of two nodes with Redis, otherwise of one node
	Measure measurement
}

type measurement func(context.Context, *loop, *cluster, plan) (sample, error)

var figures = []figure{
	{"room", "deliveries per server CPU second", "%.0f", loadColumns, false, measureRoom},
	{"echo", "echoes per server CPU second", "%.0f", loadColumns, false, measureEcho},
	{"idle", "KiB resident per idle connection", "%.1f", idleColumns, false, measureIdle},
	{"connect", "ms of the nodes' CPU for each client that connects", "%.3f", connectColumns, true, measureConnect},
	{"cut", recoveryUnit, "%.3f", recoveryColumns, true, measureRecovery(cut)},
	{"busy", recoveryUnit, "%.3f", recoveryColumns, true, measureRecovery(cutAndBusy)},
	{"killed", recoveryUnit, "%.3f", recoveryColumns, true, measureRecovery(killed)},
	{"half-open", recoveryUnit, "%.3f", recoveryColumns, true, measureRecovery((*fleet).lose)},
	{"publish", "µs of the nodes' CPU for each event through the cluster", "%.1f", publishColumns, true, measurePublish},
	{"catch-up", "commands that repair the subscribers' cut", "%.0f", catchUpColumns, true, measureCatchUp},
}

const recoveryUnit = "ms of the nodes' CPU for each client that reconnects"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	var p plan
	flag.IntVar(&p.Rounds, "rounds", 3, "how often each server has its turn")
	flag.IntVar(&p.Members, "members", 1000, "members of the saturated room")
	flag.IntVar(&p.Publishers, "publishers", 4, "publishers to the room")
	flag.IntVar(&p.Callers, "callers", 100, "clients that ask for echoes")
	flag.IntVar(&p.Window, "window", 16, "events of one publisher, or echoes of one caller, in flight")
	flag.IntVar(&p.Idle, "idle", 10_000, "idle connections")
	flag.DurationVar(&p.Warmup, "warmup", time.Second, "load before each measurement")
	flag.DurationVar(&p.Measured, "measured", 3*time.Second, "length of each measurement")
	flag.DurationVar(&p.Settle, "settle", 5*time.Second, "from the last idle connection to the reading")
	flag.IntVar(&p.Roamers, "roamers", 500, "clients of a cluster that connect, and reconnect to another node")
	flag.IntVar(&p.Rooms, "rooms", 100, "rooms that they are in, each in one")
	flag.IntVar(&p.Missed, "missed", 20, "events in each of them while they are disconnected")
	flag.IntVar(&p.Others, "others", 20_000, "events in other rooms meanwhile, where the cluster is busy")
	flag.IntVar(&p.Senders, "senders", 64, "publishers to the cluster, each with one event in flight")
	flag.IntVar(&p.Stalls, "stalls", 500, "rooms that they publish to")
	flag.IntVar(&p.Heard, "heard", 2000, "rooms of a node whose subscriber is cut")
	only := flag.String("only", "", "comma-separated figures (room, echo, idle, connect, cut, busy, killed, half-open, publish, catch-up) to measure; empty for all")
	servers := flag.String("servers", "", "comma-separated servers to measure; empty for all")
	node := flag.String("node", "../rejoin", "the node's binary")
	before := flag.String("before", "", "binary of an earlier build of the node to measure beside it")
	peer := flag.String("peer", "peer", "the folder of the peer's server.js")
	out := flag.String("out", "", "file for the results as JSON")
	flag.Parse()

	contenders := nodeContenders("rejoin", *node)
	if *before != "" {
		contenders = append(contenders, nodeContenders("before", *before)...)
	}
	command := []string{"node", filepath.Join(*peer, "server.js")}
	contenders = append(contenders,
		contender{Name: "socket.io", Command: command},
		contender{Name: "socket.io+recovery", Command: command, Env: []string{"RECOVERY=on"}, Figures: []string{"room"}},
		contender{Name: "socket.io+streams", Command: command, Env: []string{"RECOVERY=on"}, Redis: "REDIS_URL",
			Figures: []string{"cut", "busy", "killed", "half-open", "publish"}},
		contender{Name: "socket.io+redis", Command: command, Env: []string{"ADAPTER=redis"}, Redis: "REDIS_URL", Figures: []string{"publish"}},
	)
	r := report{Machine: thisMachine(), Plan: p}
	for round := range p.Rounds { // the outermost, so that all that is compared is measured in the same minutes
		for _, f := range figures {
			for _, c := range contenders {
				if !chosen(*only, f.Name) || !chosen(*servers, c.Name) || !c.measuredFor(f) {
					continue
				}
				fmt.Fprintf(os.Stderr, "round %d of %d, %s: %s\n", round+1, p.Rounds, f.Name, c.Name)
				s, err := measure(ctx, c, f, p)
				if err != nil {
					return fmt.Errorf("%s of %s: %w", f.Name, c.Name, err)
				}
				s.Figure, s.Server, s.Round = f.Name, c.Name, round+1
				r.Samples = append(r.Samples, s)
			}
		}
	}
	fmt.Print(r)
	if *out == "" {
		return nil
	}
	return r.save(*out)
}

// nodeContenders returns a build of the node as two contenders: alone, and in a
// cluster over Redis.
func nodeContenders(name, binary string) []contender {
	env := []string{
		"REJOIN_ADDR=127.0.0.1:0", "REJOIN_INTERNAL_ADDR=127.0.0.1:0", "REJOIN_DRAIN_DELAY=0s", "REJOIN_DRAIN_BUDGET=0s",
		"REJOIN_LOG_LEVEL=info", "REJOIN_LOG_FORMAT=json", "REJOIN_HANDSHAKE_RATE=0",
		"REJOIN_SOCKET_EVENT_RATE=1000000", "REJOIN_SOCKET_BYTE_RATE=16GiB", // no client is so fast
	}
	clustered := append(slices.Clone(env), "REJOIN_CLUSTER_SECRET=only for measurements")
	return []contender{
		{Name: name, Command: []string{binary}, Env: env},
		{Name: name, Redis: "REJOIN_REDIS_URL", Command: []string{binary}, Env: clustered},
	}
}

// measuredFor reports whether a contender has a turn in a figure.
func (c contender) measuredFor(f figure) bool {
	return (c.Redis != "") == f.Cluster && (c.Figures == nil || slices.Contains(c.Figures, f.Name))
}

// measure takes one sample from nodes of its own.
func measure(ctx context.Context, c contender, f figure, p plan) (_ sample, err error) {
	cl, err := startCluster(ctx, c)
	if err != nil {
		return sample{}, err
	}
	defer func() { err = errors.Join(err, cl.stop()) }()
	l, err := newLoop()
	if err != nil {
		return sample{}, err
	}
	defer l.close()
	return f.Measure(ctx, l, cl, p)
}

// chosen reports whether name is in the comma-separated list, or the list empty.
func chosen(list, name string) bool {
	return list == "" || slices.Contains(strings.Split(list, ","), name)
}
