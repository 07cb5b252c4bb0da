package redis

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"strings"

	goredis "github.com/redis/go-redis/v9"

	"github.com/rejoin-io/rejoin/pkg/adapter"
	"github.com/rejoin-io/rejoin/pkg/rooms"
)

// ErrPartitions: the cluster was created with another number of partitions.
var ErrPartitions = errors.New("adapter/redis: the cluster has another number of partitions")

// slots is the number of slots of a Redis Cluster.
const slots = 16384

// tags returns the hash tags of partitions. The first is "0", and the others are those numbers
// whose slots are spread most evenly around the circle of slots, so that servers with equal ranges
// of slots serve equal numbers of partitions.
func tags(partitions int) []string {
	list := []string{"0"}
	first := slot("0")
	for k := 1; k < partitions; k++ {
		want := (first + k*slots/partitions) % slots
		best, distance := "", slots
		for i := 1; i <= 4096; i++ {
			tag := strconv.Itoa(i)
			d := (slot(tag) - want + slots) % slots
			if d = min(d, slots-d); d < distance && !slices.Contains(list, tag) {
				best, distance = tag, d
			}
		}
		list = append(list, best)
	}
	return list
}

// slot returns the slot of a hash tag: its CRC-16/XMODEM.
func slot(tag string) int {
	crc := uint16(0)
	for i := range len(tag) {
		crc ^= uint16(tag[i]) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
	}
	return int(crc) % slots
}

// home returns the partition of a room, by its name.
func (a *Adapter) home(name string, partitions int) uint16 {
	if partitions == 1 {
		return 0
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(name))
	return uint16(h.Sum32() % uint32(partitions))
}

// A part holds the rooms of a list that are in one partition, with their names.
type part struct {
	p     *partition
	rooms []rooms.Room
	names []string
}

// split groups rooms by partition, in ascending order. Within one partition their order is
// unchanged, and duplicates are kept.
func (a *Adapter) split(list []rooms.Room) []part {
	if len(a.partitions) == 1 {
		names := make([]string, len(list))
		for i, r := range list {
			names[i] = name(r)
		}
		return []part{{a.partitions[0], list, names}}
	}
	var parts []part
	for _, r := range list {
		n := name(r)
		number := a.home(n, len(a.partitions))
		i, found := slices.BinarySearchFunc(parts, number, func(p part, n uint16) int { return int(p.p.number) - int(n) })
		if !found {
			parts = slices.Insert(parts, i, part{p: a.partitions[number]})
		}
		parts[i].rooms = append(parts[i].rooms, r)
		parts[i].names = append(parts[i].names, n)
	}
	return parts
}

// seen returns the node's position in the partition.
func (p *partition) seen() place {
	p.mu.Lock()
	defer p.mu.Unlock()
	return place{p.feed.Epoch(), p.feed.Tail()}
}

func (a *Adapter) seen() []place {
	places := make([]place, len(a.partitions))
	for i, p := range a.partitions {
		places[i] = p.seen()
	}
	return places
}

// condition returns the sum of the generations and whether any feed is
// interrupted.
func (a *Adapter) condition() (generation uint64, catchingUp bool) {
	for _, p := range a.partitions {
		g, c := p.condition()
		generation += g
		catchingUp = catchingUp || c
	}
	return generation, catchingUp
}

// cursor combines the places in each partition. Its At is the position in partition at.
func cursor(at uint16, places []place) adapter.Cursor {
	if len(places) == 1 {
		return adapter.Cursor{Epoch: places[0].epoch, At: places[0].at}
	}
	epochs, positions := make([]string, len(places)), make([]adapter.Position, len(places))
	for i, p := range places {
		epochs[i], positions[i] = p.epoch, p.at
	}
	return adapter.NewCursor(combine(epochs), at, positions)
}

// newest combines the places into a cursor whose At is the newest of them.
func newest(places []place) adapter.Cursor {
	at := 0
	for i, p := range places {
		if p.at.Compare(places[at].at) > 0 {
			at = i
		}
	}
	return cursor(uint16(at), places)
}

// combine combines the epochs of all partitions into one: when one of them loses its history, the
// cluster has a new one.
func combine(epochs []string) string {
	if len(epochs) == 1 {
		return epochs[0]
	}
	sum := sha256.Sum256([]byte(strings.Join(epochs, ",")))
	return base32.StdEncoding.EncodeToString(sum[:5])
}

// unique returns names without duplicates.
func unique(names []string) []string {
	if len(names) < 2 {
		return names
	}
	return slices.Compact(slices.Sorted(slices.Values(names)))
}

// agree makes sure that all nodes use the same number of partitions: otherwise they would look for
// rooms in different ones.
func (a *Adapter) agree(ctx context.Context) error {
	p := a.partitions[0]
	var agreed int
	err := p.read(ctx, func(ctx context.Context, c goredis.Cmdable) (err error) {
		if err := c.SetNX(ctx, p.names.partitions(), len(a.partitions), 0).Err(); err != nil {
			return err
		}
		agreed, err = c.Get(ctx, p.names.partitions()).Int()
		return atKey(p.names.partitions(), err)
	})
	if err == nil && agreed != len(a.partitions) {
		err = fmt.Errorf("%w: %d, not %d (stop all nodes and delete the key %s to change it)", ErrPartitions, agreed, len(a.partitions), p.names.partitions())
	}
	return err
}
