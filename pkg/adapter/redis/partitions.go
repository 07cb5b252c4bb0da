package redis

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	goredis "github.com/redis/go-redis/v9"
)

// ErrPartitions means that the cluster was created with another number of partitions.
var ErrPartitions = errors.New("adapter/redis: partition count differs from the cluster's")

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

// condition returns the sum of the generations and whether any feed is
// interrupted.
func (a *Adapter) condition() (generation uint64, catchingUp bool) {
	return a.counters.generations.Load(), slices.ContainsFunc(a.partitions, (*partition).catchingUp)
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
