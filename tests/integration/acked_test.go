package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// TestAcknowledgedIsStored: whatever was acknowledged before a node is killed is in
// the backlog of its room.
func TestAcknowledgedIsStored(t *testing.T) {
	t.Parallel()
	const rounds, publishers = 6, 8
	c := startCluster(t, 2)
	victim, witness := c.nodes[0], listen(c.nodes[1].node)
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	defer cancel()
	defer witness.Cut()
	if err := witness.Connect(ctx); err != nil {
		t.Fatal(err)
	}
	acked, doubtful := 0, 0
	for round := range rounds {
		f := &fleet{t: t, cluster: c}
		over, stop := context.WithCancel(ctx)
		room := func(i int) string { return fmt.Sprintf("room %d of round %d", i, round) }
		for i := range publishers {
			f.publish(over, &publisher{name: fmt.Sprint("p", i), rooms: []string{room(i)}, node: func() string { return victim.public }})
		}
		wait(ctx, 50*time.Millisecond+rand.N(200*time.Millisecond))
		victim.kill()
		stop()
		f.sending.Wait()
		for i := range publishers {
			stored := backlog(ctx, t, witness, room(i))
			for name, s := range f.ledger.of(room(i)) {
				acked += s.acked
				doubtful += s.started - s.acked
				if got := stored[name]; len(got) < s.acked || len(got) > s.started || !slices.Equal(got, numbers(0, len(got))) {
					t.Errorf("of %s in %s %d events of %d were acknowledged, and the backlog has %v", name, room(i), s.acked, s.started, got)
				}
			}
		}
		victim.restart()
	}
	t.Logf("%d acknowledged, %d more sent", acked, doubtful)
	if acked < rounds*publishers {
		t.Errorf("only %d events were acknowledged", acked)
	}
}

// backlog returns the numbers that a room's backlog has of each publisher.
func backlog(ctx context.Context, t *testing.T, l *listener, room string) map[string][]int {
	t.Helper()
	if _, err := call(ctx, l.Client, "join", room); err != nil {
		t.Fatal(err)
	}
	stored := map[string][]int{}
	query := map[string]any{"limit": 200}
	for {
		page, err := call(ctx, l.Client, "history", room, query)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range slices.Backward(page.Events) {
			var name string
			var number int
			if json.Unmarshal(e.Args[0], &name) != nil || json.Unmarshal(e.Args[2], &number) != nil {
				t.Fatalf("the backlog has %s", e.Args)
			}
			stored[name] = append(stored[name], number)
		}
		if !page.More {
			break
		}
		query["before"] = page.Events[0].Offset
	}
	for _, all := range stored {
		slices.Reverse(all)
	}
	return stored
}

// TestAckFollowsEvents: the stock client gets the events that a handler of the node
// has emitted to it before that handler's ack, with one partition and with several.
func TestAckFollowsEvents(t *testing.T) {
	t.Parallel()
	for _, partitions := range []string{"1", "8"} {
		t.Run(partitions+" partitions", func(t *testing.T) {
			t.Parallel()
			c := startCluster(t, 2, "REJOIN_PARTITIONS="+partitions)
			program := `import { io } from "socket.io-client";
				const socket = io("` + c.nodes[0].url() + `", { transports: ["websocket"] });
				const heard = [];
				socket.on("state", (way, i) => heard.push(way + i));
				await socket.emitWithAck("join", ["a", "b", "c", "d"]);
				let early = 0;
				const ask = async (way, ...args) => {
					for (let i = 0; i < 50; i++) {
						await new Promise((resolve) => socket.emit(way, ...args, "state", way, i, () => {
							if (heard.at(-1) !== way + i) early++;
							resolve();
						}));
					}
				};
				await ask("self");
				await ask("all");
				await ask("private", socket.id);
				console.log(early, heard.length);
				socket.disconnect();`
			if got := runJS(t, program); got != "0 150\n" {
				t.Errorf("acks before their events, and events: %q, want 0 of 150", got)
			}
		})
	}
}
