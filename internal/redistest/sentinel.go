//go:build unix

package redistest

import (
	"fmt"
	"net"
	"net/url"
	"testing"
)

// masterName is the Sentinels' name of the primary.
const masterName = "rejoin"

// Sentinels are a primary, its replica and the three Sentinels that monitor them and promote the
// replica half a second after the primary has fallen silent.
type Sentinels struct {
	Servers   []*Server // the two data servers, the primary and the replica
	Sentinels []*Server

	t testing.TB
}

// StartSentinels starts them and returns once every Sentinel knows all others and the replica.
// config holds lines for the configuration of both data servers.
func StartSentinels(t testing.TB, config ...string) *Sentinels {
	t.Helper()
	primary := Start(t, config...)
	replicaOf := "replicaof " + hostPort(primary.Addr)
	replica := Start(t, append([]string{replicaOf}, config...)...)
	s := &Sentinels{Servers: []*Server{primary, replica}, t: t}
	s.awaitReplication(primary)
	for range 3 {
		sentinel := start(t, []string{"--sentinel"}, []string{
			"sentinel monitor " + masterName + " " + hostPort(primary.Addr) + " 2",
			"sentinel down-after-milliseconds " + masterName + " " + fmt.Sprint(silence),
			"sentinel failover-timeout " + masterName + " 1000",
		})
		// By default Sentinels ping once a second at most, so a server that they have just
		// discovered would count as down before its first ping. While a primary is down they query
		// its replicas once a second, regardless of these settings, and promote none that has not
		// answered for five times the first of these. So the Sentinel that leads a failover may
		// detect only after a second that its replica is the primary, and then notifies the others. A
		// Sentinel without such a message for four times the last of these makes the new primary a
		// replica again.
		sentinel.must("SENTINEL", "DEBUG", "PING-PERIOD", 250, "ASK-PERIOD", 100, "INFO-PERIOD", 200, "PUBLISH-PERIOD", 400)
		s.Sentinels = append(s.Sentinels, sentinel)
	}
	s.AwaitWatched()
	return s
}

func hostPort(addr string) string {
	host, port, _ := net.SplitHostPort(addr) // an address of this package
	return host + " " + port
}

// URL names the three Sentinels and the primary's name.
func (s *Sentinels) URL() string {
	query := url.Values{"master_name": {masterName}}
	for _, other := range s.Sentinels[1:] {
		query.Add("addr", other.Addr)
	}
	return "redis+sentinel://" + s.Sentinels[0].Addr + "?" + query.Encode()
}

// Primary returns the server that the Sentinels name, running or not.
func (s *Sentinels) Primary() *Server {
	s.t.Helper()
	return s.named(s.Sentinels[0])
}

// named returns the server that a Sentinel considers the primary.
func (s *Sentinels) named(by *Server) *Server {
	s.t.Helper()
	addr := by.must("SENTINEL", "GET-MASTER-ADDR-BY-NAME", masterName).([]any)
	return find(s.t, s.Servers, net.JoinHostPort(addr[0].(string), addr[1].(string)))
}

// Replica returns the server that is not the primary.
func (s *Sentinels) Replica() *Server {
	s.t.Helper()
	return s.other(s.Primary())
}

func (s *Sentinels) other(than *Server) *Server {
	if than == s.Servers[0] {
		return s.Servers[1]
	}
	return s.Servers[0]
}

// Failover makes the Sentinels promote the replica while both servers run, and returns once it is
// the primary and the other follows it.
func (s *Sentinels) Failover() {
	s.t.Helper()
	old := s.Primary()
	eventually(s.t, "failover", func() error { // refused until the last one is over
		_, err := s.Sentinels[0].do("SENTINEL", "FAILOVER", masterName)
		return err
	})
	s.AwaitPrimary(s.other(old))
	s.awaitReplication(s.other(old))
}

// Handover is Failover without the loss of concurrent writes: the primary itself hands over once
// the replica has everything, and the Sentinels follow.
func (s *Sentinels) Handover() {
	s.t.Helper()
	primary := s.Primary()
	replica := s.other(primary)
	host, port, _ := net.SplitHostPort(replica.Addr) // an address of this package
	s.setDownAfter(10_000)                           // Sentinels' writes are paused like all others
	primary.must("FAILOVER", "TO", host, port)
	s.awaitReplication(replica)
	s.setDownAfter(silence)
	s.AwaitPrimary(replica)
}

// silence is the time in milliseconds after which a server counts as down.
const silence = 500

// setDownAfter sets how many milliseconds the Sentinels wait before the primary counts as down.
func (s *Sentinels) setDownAfter(milliseconds int) {
	s.t.Helper()
	for _, sentinel := range s.Sentinels {
		sentinel.must("SENTINEL", "SET", masterName, "down-after-milliseconds", milliseconds)
	}
}

// LoseTail separates the replica from its primary while during runs, so that the replica gets
// none of the writes meanwhile. Then it kills the primary and returns once the replica has taken
// over. The old primary stays down; Restart restarts it as the new one's replica. The Sentinels
// undo the separation within seconds, so during must be short.
func (s *Sentinels) LoseTail(during func()) {
	s.t.Helper()
	primary := s.Primary()
	replica := s.other(primary)
	replica.must("REPLICAOF", "127.0.0.1", 1) // where no server listens
	during()
	primary.Kill()
	s.AwaitPrimary(replica)
}

// AwaitPrimary returns once all Sentinels name a server and it considers itself the primary. Before
// that, a server that was killed and restarts empty might be taken for the primary that it was.
func (s *Sentinels) AwaitPrimary(server *Server) {
	s.t.Helper()
	eventually(s.t, "promotion of "+server.Addr, func() error {
		for _, sentinel := range s.Sentinels {
			if now := s.named(sentinel); now != server {
				return fmt.Errorf("primary is %s", now.Addr)
			}
		}
		return server.isMaster()
	})
}

// AwaitWatched returns once every Sentinel sees the primary, a healthy replica and the two other
// Sentinels: only then do they fail over reliably.
func (s *Sentinels) AwaitWatched() {
	s.t.Helper()
	for _, sentinel := range s.Sentinels {
		eventually(s.t, "Sentinel "+sentinel.Addr, func() error {
			master, err := pairs(sentinel.do("SENTINEL", "MASTER", masterName))
			if err == nil && (master["flags"] != "master" || master["num-other-sentinels"] != "2") {
				err = fmt.Errorf("primary's flags are %s, other Sentinels: %s", master["flags"], master["num-other-sentinels"])
			}
			if err != nil {
				return err
			}
			replicas, err := sentinel.do("SENTINEL", "REPLICAS", masterName)
			if err != nil {
				return err
			}
			for _, r := range replicas.([]any) {
				replica, err := pairs(r, nil)
				if err == nil && replica["flags"] == "slave" && replica["master-link-status"] == "ok" {
					return nil
				}
			}
			return fmt.Errorf("no healthy replica: %v", replicas)
		})
	}
}

// pairs turns a list of names and values into a map.
func pairs(list any, err error) (map[string]string, error) {
	if err != nil {
		return nil, err
	}
	m := make(map[string]string)
	for l := list.([]any); len(l) > 1; l = l[2:] {
		m[l[0].(string)] = fmt.Sprint(l[1])
	}
	return m, nil
}

// awaitReplication returns once the other server follows the primary.
func (s *Sentinels) awaitReplication(primary *Server) {
	s.t.Helper()
	eventually(s.t, "replication", func() error { return s.other(primary).follows(primary) })
}

// follows reports whether a server is a replica with a good link to its primary.
func (s *Server) follows(primary *Server) error {
	role, err := s.do("ROLE")
	if err != nil {
		return err
	}
	r := role.([]any)
	if r[0] != "slave" || net.JoinHostPort(r[1].(string), fmt.Sprint(r[2])) != primary.Addr || r[3] != "connected" {
		return fmt.Errorf("role is %v", role)
	}
	return nil
}
