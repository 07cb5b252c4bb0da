//go:build unix

package redistest

import (
	"fmt"
	"testing"
)

func TestSentinels(t *testing.T) {
	s := StartSentinels(t)
	first, second := s.Primary(), s.Replica()
	if first != s.Servers[0] || second != s.Servers[1] {
		t.Fatalf("the primary is %s, the replica %s", first.Addr, second.Addr)
	}
	first.must("SET", "k", "kept")
	first.must("WAIT", 1, patience.Milliseconds())
	s.Failover()
	if s.Primary() != second || second.must("GET", "k") != "kept" {
		t.Error("the failover has lost something")
	}
	s.AwaitWatched()
	s.Handover()
	if s.Primary() != first {
		t.Error("nothing was handed over")
	}
	s.AwaitWatched()
	s.Handover()
	s.AwaitWatched()
	s.LoseTail(func() { second.must("SET", "k", "lost") })
	if s.Primary() != first || first.must("GET", "k") != "kept" {
		t.Error("the failover has lost nothing")
	}
	second.Restart()
	s.awaitReplication(first)
}

func TestCluster(t *testing.T) {
	c := StartCluster(t)
	if masters := c.Masters(); len(masters) != 3 {
		t.Fatalf("got %d masters, want 3", len(masters))
	}
	slot := c.Slot("{tag}")
	from := c.Owner(slot)
	for i := range 25 {
		from.must("SET", fmt.Sprintf("{tag}%d", i), i)
	}
	to := c.Servers[0]
	if to == from {
		to = c.Servers[1]
	}
	c.MoveSlot(slot, to)
	if now := c.Owner(slot); now != to || to.must("GET", "{tag}24") != "24" {
		t.Errorf("the slot's owner is %s", now.Addr)
	}
	c.MoveSlot(slot, to)

	replica := c.Replica(to)
	c.Failover(replica)
	replica.Kill()
	c.AwaitMaster(to)
	if to.must("GET", "{tag}24") != "24" {
		t.Error("the key is gone")
	}
	replica.Restart()
	c.AwaitHealthy()

	to.must("SET", "{tag}0", "kept")
	to.must("WAIT", 1, patience.Milliseconds())
	c.LoseTail(to, func() { to.must("SET", "{tag}0", "lost") })
	if got := replica.must("GET", "{tag}0"); got != "kept" {
		t.Errorf("after the failover got %v, want kept", got)
	}
	to.Restart()
	c.AwaitHealthy()
}

// The handshake with a slow server is repeated.
func TestClusterJoinIsRetried(t *testing.T) {
	c := []string{"cluster-enabled yes", "cluster-node-timeout 1000"}
	a, b := Start(t, c...), Start(t, c...)
	known := func(n int) error {
		if view, err := a.view(); err != nil || len(view) != n {
			return fmt.Errorf("it knows %v, %v", view, err)
		}
		return nil
	}
	introduction := b.introduction()
	b.Pause()
	a.must(introduction...)
	eventually(t, "the handshake", func() error { return known(2) })
	eventually(t, "its end", func() error { return known(1) })
	b.Resume()
	eventually(t, "meeting", func() error { return a.meet(b) })
}
