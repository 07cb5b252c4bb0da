package redis

import (
	"encoding/base64"
	"strings"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/adapter/redis/internal/feed"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// names builds the names of keys and channels. All those of one partition carry its hash tag, so
// that a script can use them together.
//
//	rejoin:{0}epoch                    the current epoch
//	rejoin:{0}<epoch>:clock            stream: one entry for each call
//	rejoin:{0}<epoch>:r/chat,lobby     stream: a room's backlog; and the room's channel
//	rejoin:{0}<epoch>:lists            stream: the lists of events that have long ones; and a channel
//	rejoin:{0}<epoch>:sizes            hash: the size of the largest stored event by when it was published
//	rejoin:{0}<epoch>:1/<once id>      string: the event that was published with this id
//	rejoin:{0}inbox:<node>             channel: messages for one node
//	rejoin:{0}news                     channel: a new epoch has begun
//	rejoin:{0}fence:<connection>       calls sent on that connection are no longer executed
//	rejoin:{0}partitions               the number of partitions
//	rejoin:{0}leases                   sorted set: node ids by the end of their lease
//	rejoin:{0}about                    hash: each node's description of itself
//
// The clock, the backlogs and the once ids carry the epoch in their names, so nodes that still use a lost history
// can neither write into the new one nor read from it.
type names struct{ tagged string }

func newNames(prefix, tag string) names {
	return names{prefix + "{" + tag + "}"}
}

func (n names) epoch() string             { return n.tagged + "epoch" }
func (n names) news() string              { return n.tagged + "news" }
func (n names) clock(epoch string) string { return n.in(epoch) + "clock" }
func (n names) sizes(epoch string) string { return n.in(epoch) + "sizes" }
func (n names) once(epoch string, id [16]byte) string {
	return n.in(epoch) + "1/" + base64.RawURLEncoding.EncodeToString(id[:])
}
func (n names) inbox(node adapter.NodeID) string { return n.tagged + "inbox:" + string(node) }
func (n names) partitions() string               { return n.tagged + "partitions" }
func (n names) fence(token string) string        { return n.tagged + "fence:" + token }
func (n names) leases() string                   { return n.tagged + "leases" }
func (n names) about() string                    { return n.tagged + "about" }

// in returns the prefix of the names of an epoch.
func (n names) in(epoch string) string { return n.tagged + epoch + ":" }

// probe returns the name of the channel for a node's own probes.
func probe(node adapter.NodeID) string { return feed.Probes + string(node) }

// listsName is the name of the stream and channel of lists that events have in common. No room has
// this name.
const listsName = feed.Lists

// letters are the first letters of rooms' names, by their kind.
const letters = "eron"

// escape keeps the comma after a namespace the first one. Namespaces that clients can connect to
// contain none.
var escape = strings.NewReplacer("%", "%25", ",", "%2C")

// name returns a room's name within its epoch: its kind's letter, the namespace, a comma, and its
// own name unchanged.
func name(r rooms.Room) string {
	kind := "?"
	if int(r.Kind) < len(letters) {
		kind = letters[r.Kind : r.Kind+1]
	}
	return kind + escape.Replace(r.Namespace) + "," + r.Name
}

func namesOf(list []rooms.Room) []string {
	names := make([]string, len(list))
	for i, r := range list {
		names[i] = name(r)
	}
	return names
}

var unescaper = strings.NewReplacer("%25", "%", "%2C", ",")

func unescape(namespace string) string {
	if !strings.Contains(namespace, "%") { // the replacer allocates
		return namespace
	}
	return unescaper.Replace(namespace)
}

// parseName returns the room with a name, or false if it is not the name of a room.
func parseName(s string) (r rooms.Room, ok bool) {
	namespace, own, ok := strings.Cut(s, ",")
	if !ok || namespace == "" {
		return r, false
	}
	kind := strings.IndexByte(letters, namespace[0])
	r = rooms.Room{Kind: rooms.Kind(max(kind, 0)), Namespace: unescape(namespace[1:]), Name: own}
	return r, kind >= 0
}
