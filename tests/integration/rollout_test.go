package integration

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	apps "k8s.io/api/apps/v1"
	autoscaling "k8s.io/api/autoscaling/v2"

	"github.com/rejoin-io/rejoin/tests/manifests"
)

// shortened is by how much a rollout is quicker in make test than in Kubernetes:
// the drain's times, the readiness probe's period and how long a node must have
// been ready. In make chaos nothing is.
const shortened = 5

// A deployment is the nodes' settings in the manifests.
type deployment struct {
	replicas, surge, unavailable int
	settled                      time.Duration // how long a node must have been ready to count
	grace                        time.Duration // from SIGTERM to SIGKILL
	probe                        probe
	variables                    []string
}

// production is the deployment that k8s/overlays/prod makes.
func production(t *testing.T) deployment {
	t.Helper()
	objects, err := manifests.Render("../../k8s", "overlays/prod")
	if err != nil {
		t.Fatal(err)
	}
	spec := manifests.All[*apps.Deployment](objects)[0].Spec
	environment, err := manifests.Environment(objects, spec.Template.Spec, "127.0.0.1", map[string]string{"REJOIN_REDIS_URL": "-", "REJOIN_CLUSTER_SECRET": "-"})
	if err != nil {
		t.Fatal(err)
	}
	quicker := func(d time.Duration) time.Duration { return d / lasting(1, shortened) }
	seconds := func(n int32) time.Duration { return time.Duration(n) * time.Second }
	ready := spec.Template.Spec.Containers[0].ReadinessProbe
	d := deployment{
		replicas:    int(*manifests.All[*autoscaling.HorizontalPodAutoscaler](objects)[0].Spec.MinReplicas),
		surge:       spec.Strategy.RollingUpdate.MaxSurge.IntValue(),
		unavailable: spec.Strategy.RollingUpdate.MaxUnavailable.IntValue(),
		settled:     quicker(seconds(spec.MinReadySeconds)),
		grace:       time.Duration(*spec.Template.Spec.TerminationGracePeriodSeconds) * time.Second,
		probe:       probe{quicker(seconds(ready.PeriodSeconds)), int(ready.FailureThreshold)},
	}
	for name, value := range environment {
		switch name {
		case "REJOIN_ADDR", "REJOIN_INTERNAL_ADDR", "REJOIN_ADVERTISE_ADDR", "REJOIN_REDIS_URL", "REJOIN_CLUSTER_SECRET":
			continue // the cluster's here
		case "REJOIN_DRAIN_DELAY", "REJOIN_DRAIN_BUDGET":
			whole, err := time.ParseDuration(value)
			if err != nil {
				t.Fatal(err)
			}
			d.grace -= whole - quicker(whole)
			value = quicker(whole).String()
		}
		d.variables = append(d.variables, name+"="+value)
	}
	return d
}

// A rollout replaces all nodes of a cluster by others, as Kubernetes does when the
// image of a Deployment changes.
type rollout struct {
	*testing.T
	deployment
	front    *balancer
	old, new []*clusterNode
	readyAt  map[*clusterNode]time.Time
	leaving  sync.WaitGroup
}

// observe learns from the balancer which nodes are ready, and returns how many are
// and are to stay, and how many of them have been for long enough.
func (r *rollout) observe() (ready, available int) {
	for i, n := range r.front.nodes {
		if !n.up() || !r.front.ready[i].Load() {
			delete(r.readyAt, n)
			continue
		}
		ready++
		if _, known := r.readyAt[n]; !known {
			r.readyAt[n] = time.Now()
		}
		if time.Since(r.readyAt[n]) >= r.settled {
			available++
		}
	}
	return ready, available
}

// step does all currently possible steps. It returns why further steps are needed,
// if they are.
func (r *rollout) step() error {
	running := func(nodes []*clusterNode) (up []*clusterNode) {
		return slices.DeleteFunc(slices.Clone(nodes), func(n *clusterNode) bool { return !n.up() })
	}
	ready, available := r.observe()
	if ready < r.replicas-r.unavailable {
		r.Errorf("only %d nodes are ready", ready)
	}
	old := running(r.old)
	switch next := len(running(r.new)); {
	case next < len(r.new) && next+len(old) < r.replicas+r.surge:
		r.Logf("%d nodes are available; starting %s", available, r.new[next].name)
		r.new[next].begin()
	case len(old) > 0 && available > r.replicas-r.unavailable:
		r.Logf("%d nodes are available; ending %s", available, old[0].name)
		old[0].down.Store(true) // from now on, for this loop; leave sets it too
		r.leaving.Go(func() { old[0].leave(r.grace) })
	}
	if len(old) > 0 || available < r.replicas {
		return fmt.Errorf("%d old nodes are left, and %d are available", len(old), available)
	}
	return nil
}

// play runs until the new nodes have replaced the old ones, which have ended.
func (r *rollout) play() {
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	late := time.After(time.Duration(r.replicas) * (r.settled + patience))
	for {
		err := r.step()
		if err == nil {
			break
		}
		select {
		case <-again.C:
		case <-late:
			r.Fatal(err)
		}
	}
	r.leaving.Wait()
}

// TestRollingUpdate: all nodes are replaced as Kubernetes would do it by the figures
// of k8s/overlays/prod, behind a balancer that knows only the readiness of a node.
// Stock clients on each transport, which exchange events meanwhile,
// end up on the new nodes, as the same sockets, and have got every event once; each
// old node ends well within its grace period.
func TestRollingUpdate(t *testing.T) {
	d := production(t)
	c := &cluster{t: t, redis: startRedis(t)}
	reach := func(*clusterNode) string { return c.redis.URL() }
	c.start(d.replicas, reach, d.variables)
	for range d.replicas {
		c.add(reach, d.variables)
	}
	r := &rollout{T: t, deployment: d, front: startProbing(t, c, d.probe), old: c.nodes[:d.replicas:d.replicas], new: c.nodes[d.replicas:], readyAt: map[*clusterNode]time.Time{}}
	f := &fleet{t: t, cluster: c}
	ctx, cancel := context.WithCancel(t.Context())
	defer f.clients.Wait()
	defer cancel()

	driver := startDriver(t)
	var clients []*npmSocket
	for name, options := range transports {
		for i := range 10 {
			s := driver.open(fmt.Sprint(name, i), newest, r.front.URL, options)
			if name == "upgrade" {
				s.awaitUpgrade()
			}
			clients = append(clients, s)
			f.roamStock(ctx, s, 0, fmt.Sprint("room ", i%5), fmt.Sprint("room ", (i+1)%5))
		}
	}
	f.awaitJoined()
	sending, stop := context.WithCancel(ctx)
	defer stop()
	for i := range 5 {
		f.publish(sending, &publisher{
			name: fmt.Sprint("p", i), rooms: []string{fmt.Sprint("room ", i)}, pause: 20 * time.Millisecond,
			node: r.front.Listener.Addr().String,
		})
	}
	r.play()
	eventually(t, "not all clients have moved", func() error {
		for _, s := range clients {
			now := s.state()
			owner := f.owner(now.Engine)
			if !now.Connected || !slices.ContainsFunc(r.new, func(n *clusterNode) bool { return n.name == owner }) {
				return fmt.Errorf("%s is connected: %v, on %s", s.name, now.Connected, owner)
			}
		}
		return nil
	})
	stop()
	f.settle()

	moved, sent, acked, failed := f.counts()
	if moved.refused > 0 || moved.recovered < len(clients) {
		t.Errorf("%d clients recovered %d times, and were refused %d times", len(clients), moved.recovered, moved.refused)
	}
	if acked < 100 || sent-acked > 10*len(f.publishers) {
		t.Errorf("%d of %d events were acknowledged: %v", acked, sent, failed)
	}
	for _, n := range r.old {
		if !strings.Contains(n.log.Tail(10), `"connections":0}`) {
			t.Errorf("not all connections of node %s were closed by its drain:\n%s", n.name, n.log.Tail(10))
		}
		if n.status != nil {
			t.Error(errors.Join(fmt.Errorf("node %s", n.name), n.status))
		}
	}
}
