//go:build unix

package redistest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"testing"

	goredis "github.com/redis/go-redis/v9"
)

const slots = 16384

// A Cluster is three masters, which share the slots evenly, each with a replica, which takes over a
// second after its master has fallen silent.
type Cluster struct {
	Servers []*Server // initially the first three are masters and i+3 is the replica of i

	t testing.TB
}

// StartCluster starts the six servers and returns once they serve all slots and every replica
// follows its master. config holds lines for the configuration of each.
func StartCluster(t testing.TB, config ...string) *Cluster {
	t.Helper()
	c := &Cluster{t: t}
	for range 6 {
		c.Servers = append(c.Servers, Start(t, append([]string{
			"cluster-enabled yes", "cluster-node-timeout 1000", "cluster-replica-validity-factor 0",
		}, config...)...))
	}
	first := c.Servers[0]
	for i, s := range c.Servers {
		s.must("CLUSTER", "SET-CONFIG-EPOCH", i+1)
		if i < 3 {
			s.must("CLUSTER", "ADDSLOTSRANGE", i*slots/3, (i+1)*slots/3-1)
		}
	}
	eventually(t, "meeting", func() error {
		var errs []error
		for _, s := range c.Servers[1:] {
			errs = append(errs, first.meet(s))
		}
		return errors.Join(errs...)
	})
	for i, s := range c.Servers[3:] {
		master := c.Servers[i]
		eventually(t, "replication", func() error { // once it knows its master
			_, err := s.do("CLUSTER", "REPLICATE", master.ID())
			return err
		})
	}
	c.AwaitHealthy()
	return c
}

// meet introduces two servers to each other, and returns an error until they know each other: a
// server abandons a handshake that takes longer than the node timeout, and then it must be
// repeated.
func (s *Server) meet(other *Server) error {
	for _, pair := range [][2]*Server{{s, other}, {other, s}} {
		view, err := pair[0].view()
		if err != nil {
			return err
		}
		id := pair[1].ID()
		if slices.ContainsFunc(view, func(n shard) bool { return n.id == id }) {
			continue
		}
		s.must(other.introduction()...)
		return fmt.Errorf("%s does not know %s: %v", pair[0].Addr, pair[1].Addr, view)
	}
	return nil
}

// introduction is the command that makes another server begin a handshake with s.
func (s *Server) introduction() []any {
	host, port, _ := net.SplitHostPort(s.Addr) // an address of this package
	bus := s.must("CONFIG", "GET", "cluster-port").([]any)[1]
	return []any{"CLUSTER", "MEET", host, port, bus}
}

// URL names all servers.
func (c *Cluster) URL() string {
	query := url.Values{}
	for _, s := range c.Servers[1:] {
		query.Add("addr", s.Addr)
	}
	return "redis+cluster://" + c.Servers[0].Addr + "?" + query.Encode()
}

// ID returns a server's id in its cluster.
func (s *Server) ID() string {
	s.t.Helper()
	return s.must("CLUSTER", "MYID").(string)
}

// A shard is one line of CLUSTER NODES.
type shard struct{ id, addr, flags, master, link string }

// view returns a server's view of its cluster.
func (s *Server) view() ([]shard, error) {
	answer, err := s.do("CLUSTER", "NODES")
	if err != nil {
		return nil, err
	}
	var all []shard
	for line := range strings.Lines(answer.(string)) {
		f := strings.Fields(line)
		addr, _, _ := strings.Cut(f[1], "@")
		all = append(all, shard{id: f[0], addr: addr, flags: f[2], master: f[3], link: f[7]})
	}
	return all, nil
}

// AwaitHealthy returns once every server serves all slots, sees all others, and every replica
// follows its master. It fails the test if a server stays down.
func (c *Cluster) AwaitHealthy() {
	c.t.Helper()
	for _, s := range c.Servers {
		eventually(c.t, "cluster, seen from "+s.Addr, func() error { return s.healthy(len(c.Servers)) })
	}
}

func (s *Server) healthy(servers int) error {
	info, err := s.do("CLUSTER", "INFO")
	if err != nil {
		return err
	}
	view, err := s.view()
	if err != nil {
		return err
	}
	replicas, bad := 0, 0
	for _, n := range view {
		if strings.Contains(n.flags, "slave") {
			replicas++
		}
		if strings.Contains(n.flags, "fail") || strings.Contains(n.flags, "handshake") || n.link != "connected" {
			bad++
		}
	}
	replication := s.must("INFO", "replication").(string)
	if !strings.Contains(info.(string), "cluster_state:ok") || len(view) != servers || replicas != servers/2 || bad > 0 ||
		!strings.Contains(replication, "connected_slaves:1") && !strings.Contains(replication, "master_link_status:up") {
		return fmt.Errorf("%v\n%s%s", view, info, replication)
	}
	return nil
}

// Masters returns the servers that currently serve slots, in the view of the running servers.
func (c *Cluster) Masters() []*Server {
	c.t.Helper()
	var masters []*Server
	for _, s := range c.Servers {
		if s.isMaster() == nil {
			masters = append(masters, s)
		}
	}
	return masters
}

// Slot returns the hash slot of a key.
func (c *Cluster) Slot(key string) int {
	c.t.Helper()
	return int(c.Servers[0].must("CLUSTER", "KEYSLOT", key).(int64))
}

// Owner returns the master of a slot, in the view of the first running server.
func (c *Cluster) Owner(slot int) *Server {
	c.t.Helper()
	for _, s := range c.Servers {
		ranges, err := s.slots()
		if err != nil {
			continue
		}
		for _, r := range ranges {
			if r.Start <= slot && slot <= r.End {
				return find(c.t, c.Servers, r.Nodes[0].Addr)
			}
		}
	}
	c.t.Fatalf("redistest: slot %d has no owner", slot)
	return nil
}

// slots returns the owners of the slots in the view of a server.
func (s *Server) slots() ([]goredis.ClusterSlot, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	slots := goredis.NewClusterSlotsCmd(ctx, "CLUSTER", "SLOTS")
	err := s.client.Process(ctx, slots)
	return slots.Val(), err
}

// Replica returns a server that follows a master.
func (c *Cluster) Replica(master *Server) *Server {
	c.t.Helper()
	for _, s := range c.Servers {
		if s != master && s.follows(master) == nil {
			return s
		}
	}
	c.t.Fatalf("redistest: %s has no replica", master.Addr)
	return nil
}

// MoveSlot moves a slot with its keys, one after another, as redis-cli does, while
// clients use them.
func (c *Cluster) MoveSlot(slot int, to *Server) {
	c.t.Helper()
	from := c.Owner(slot)
	if from == to {
		return
	}
	to.must("CLUSTER", "SETSLOT", slot, "IMPORTING", from.ID())
	from.must("CLUSTER", "SETSLOT", slot, "MIGRATING", to.ID())
	host, port, _ := net.SplitHostPort(to.Addr) // an address of this package
	for {
		keys := from.must("CLUSTER", "GETKEYSINSLOT", slot, 10).([]any)
		if len(keys) == 0 {
			break
		}
		from.must(append([]any{"MIGRATE", host, port, "", 0, patience.Milliseconds(), "KEYS"}, keys...)...)
	}
	// The new owner first, so that clients are not redirected in circles.
	to.must("CLUSTER", "SETSLOT", slot, "NODE", to.ID())
	from.must("CLUSTER", "SETSLOT", slot, "NODE", to.ID())
	for _, s := range c.Masters() {
		if s != to && s != from {
			s.must("CLUSTER", "SETSLOT", slot, "NODE", to.ID())
		}
	}
	c.awaitAgreement()
}

// awaitAgreement returns once all running servers agree on the masters of all slots. A replica that
// takes over before it knows that a slot was moved to its master leaves that slot without an owner.
func (c *Cluster) awaitAgreement() {
	c.t.Helper()
	eventually(c.t, "agreement on the slots", func() error {
		first := ""
		for _, s := range c.Servers {
			ranges, err := s.slots()
			if err != nil {
				continue
			}
			var lines []string
			for _, r := range ranges {
				lines = append(lines, fmt.Sprint(r.Start, r.End, r.Nodes[0].Addr))
			}
			slices.Sort(lines)
			table := strings.Join(lines, "\n")
			if first == "" {
				first = table
			}
			if table != first {
				return fmt.Errorf("%s has slots %s, another node has %s", s.Addr, table, first)
			}
		}
		return nil
	})
}

// Failover makes a replica take over from its master, which becomes its replica, and returns once
// that is done.
func (c *Cluster) Failover(replica *Server) {
	c.t.Helper()
	replica.must("CLUSTER", "FAILOVER")
	c.AwaitMaster(replica)
	c.AwaitHealthy()
	c.awaitAgreement()
}

// LoseTail separates a replica from its master while during runs, so that the replica gets none of
// the writes meanwhile. Then it kills the master and returns once the replica has taken over. The
// master stays down; Restart restarts it as a replica. The others notice within a second that the
// replica is stopped, so during must be short.
func (c *Cluster) LoseTail(master *Server, during func()) {
	c.t.Helper()
	replica := c.Replica(master)
	replica.Pause()
	master.must("CLIENT", "KILL", "TYPE", "replica")
	during()
	master.Kill()
	replica.Resume()
	c.AwaitMaster(replica)
}

// AwaitMaster returns once a server is a master.
func (c *Cluster) AwaitMaster(s *Server) {
	c.t.Helper()
	eventually(c.t, "promotion of "+s.Addr, s.isMaster)
}
