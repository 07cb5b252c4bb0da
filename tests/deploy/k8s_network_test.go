package deploy

import (
	"net/netip"
	"testing"

	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/rejoin-io/rejoin/tests/manifests"
)

// A peer is a pod, by its labels and those of its namespace, or an address outside
// of the cluster.
type peer struct {
	home      bool // it is in the namespace of the installation
	namespace labels.Set
	pod       labels.Set
	ip        string
}

// means reports whether a peer of a policy means p.
func means(t *testing.T, by networking.NetworkPolicyPeer, p peer) bool {
	t.Helper()
	if by.IPBlock != nil {
		return len(by.IPBlock.Except) == 0 && p.ip != "" && netip.MustParsePrefix(by.IPBlock.CIDR).Contains(netip.MustParseAddr(p.ip))
	}
	if p.ip != "" {
		return false
	}
	matches := func(s *meta.LabelSelector, l labels.Set) bool {
		selector, err := meta.LabelSelectorAsSelector(s)
		if err != nil {
			t.Fatal(err)
		}
		return selector.Matches(l)
	}
	if by.NamespaceSelector == nil {
		return p.home && matches(by.PodSelector, p.pod)
	}
	return matches(by.NamespaceSelector, p.namespace) && (by.PodSelector == nil || matches(by.PodSelector, p.pod))
}

// opens reports whether a rule permits a peer: without peers it is for all
// peers, without ports for all ports.
func opens(t *testing.T, peers []networking.NetworkPolicyPeer, ports []networking.NetworkPolicyPort, p peer, port int, protocol core.Protocol) bool {
	t.Helper()
	who, where := len(peers) == 0, len(ports) == 0
	for _, by := range peers {
		who = who || means(t, by, p)
	}
	for _, to := range ports {
		where = where || to.Port == nil || to.Port.IntValue() == port && (to.Protocol == nil && protocol == core.ProtocolTCP || is(to.Protocol, protocol))
	}
	return who && where
}

// allows reports whether policies permit pods with some labels to communicate with
// a peer, as Kubernetes interprets them: traffic is allowed if one policy allows
// it, or if none applies to these pods in this direction.
func (in installation) allows(t *testing.T, pod labels.Set, direction networking.PolicyType, p peer, port int, protocol core.Protocol) bool {
	t.Helper()
	bound := false
	for _, policy := range manifests.All[*networking.NetworkPolicy](in) {
		selector, err := meta.LabelSelectorAsSelector(&policy.Spec.PodSelector)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range policy.Spec.PolicyTypes {
			if d != direction || !selector.Matches(pod) {
				continue
			}
			bound = true
			for _, rule := range policy.Spec.Ingress {
				if direction == networking.PolicyTypeIngress && opens(t, rule.From, rule.Ports, p, port, protocol) {
					return true
				}
			}
			for _, rule := range policy.Spec.Egress {
				if direction == networking.PolicyTypeEgress && opens(t, rule.To, rule.Ports, p, port, protocol) {
					return true
				}
			}
		}
	}
	return !bound
}

// TestNetwork: exactly the intended peers can connect.
func TestNetwork(t *testing.T) {
	const in, out, tcp, udp = networking.PolicyTypeIngress, networking.PolicyTypeEgress, core.ProtocolTCP, core.ProtocolUDP
	const public, internal, redisPort = 3000, 3001, 6379
	forEach(t, func(t *testing.T, all installation) {
		nodes := labels.Set(only[*apps.Deployment](t, all).Spec.Template.Labels)
		home := func(pod labels.Set) peer { return peer{home: true, pod: pod} }
		labelled := func(label string) peer { return peer{namespace: labels.Set{label: "true"}} }
		stranger := peer{namespace: labels.Set{"kubernetes.io/metadata.name": "elsewhere"}, pod: nodes} // although it claims to be one of the nodes
		internet, metadata := peer{ip: "203.0.113.1"}, peer{ip: "169.254.169.254"}
		check := func(what string, pod labels.Set, direction networking.PolicyType, p peer, port int, protocol core.Protocol, want bool) {
			t.Helper()
			if got := all.allows(t, pod, direction, p, port, protocol); got != want {
				t.Errorf("%s, port %d: allowed is %v", what, port, got)
			}
		}
		for name, c := range map[string]struct {
			from             peer
			public, internal bool
		}{
			"from an ingress controller":       {labelled("rejoin.io/ingress"), true, false},
			"from Prometheus":                  {labelled("rejoin.io/monitoring"), false, true},
			"from a backend":                   {labelled("rejoin.io/backend"), false, true},
			"from another node":                {home(nodes), false, true},
			"from another pod beside":          {home(labels.Set{"app": "other"}), false, false},
			"from a pod of another namespace":  {stranger, false, false},
			"from outside":                     {internet, false, false},
			"from a namespace that is not one": {peer{namespace: labels.Set{"rejoin.io/backend": "false"}}, false, false},
		} {
			check(name, nodes, in, c.from, public, tcp, c.public)
			check(name, nodes, in, c.from, internal, tcp, c.internal)
			check(name, nodes, in, c.from, 6060, tcp, false)
		}
		dns := peer{namespace: labels.Set{"kubernetes.io/metadata.name": "kube-system"}, pod: labels.Set{"k8s-app": "kube-dns"}}
		check("to another node", nodes, out, home(nodes), internal, tcp, true)
		check("to the DNS", nodes, out, dns, 53, udp, true)
		check("to the DNS", nodes, out, dns, 53, tcp, true)
		check("to the machine's DNS cache", nodes, out, peer{ip: "169.254.20.10"}, 53, udp, true)
		check("to the API server", nodes, out, dns, 443, tcp, false)
		check("to the machine's metadata", nodes, out, metadata, 80, tcp, false)
		check("outside", nodes, out, internet, 443, tcp, false)
		check("outside", nodes, out, internet, redisPort, tcp, false)
		check("to a DNS outside", nodes, out, internet, 53, udp, false)

		switch stores := manifests.All[*apps.StatefulSet](all); {
		case len(stores) == 1:
			redis := labels.Set(stores[0].Spec.Template.Labels)
			check("to Redis", nodes, out, home(redis), redisPort, tcp, true)
			check("from a node to Redis", redis, in, home(nodes), redisPort, tcp, true)
			check("from another pod to Redis", redis, in, home(labels.Set{"app": "other"}), redisPort, tcp, false)
			check("from elsewhere to Redis", redis, in, stranger, redisPort, tcp, false)
			check("from Redis", redis, out, internet, 443, tcp, false)
			check("from Redis", redis, out, home(nodes), internal, tcp, false)
		case len(manifests.All[*networking.Ingress](all)) == 1: // in production
			check("to a private address", nodes, out, peer{ip: "10.20.30.40"}, redisPort, tcp, true)
			check("to a private address", nodes, out, peer{ip: "fd00::1"}, redisPort, tcp, true)
			check("to a Sentinel", nodes, out, peer{ip: "192.168.1.1"}, 26379, tcp, true)
			check("to a private address", nodes, out, peer{ip: "10.20.30.40"}, 443, tcp, false)
		}
	})
}

// TestPolicyPorts: the numbers in the policies are those of the pods that are meant.
func TestPolicyPorts(t *testing.T) {
	forEach(t, func(t *testing.T, in installation) {
		for _, policy := range manifests.All[*networking.NetworkPolicy](in) {
			chosen := in.selected(t, &policy.Spec.PodSelector)
			if len(chosen) != 1 {
				t.Errorf("the policy %s is for %d workloads", policy.Name, len(chosen))
				continue
			}
			for _, rule := range policy.Spec.Ingress {
				for _, p := range rule.Ports {
					if _, ok := chosen[0].port(*p.Port); !ok {
						t.Errorf("the policy %s: %s has no port %v", policy.Name, chosen[0].GetName(), p.Port)
					}
				}
			}
		}
	})
}
