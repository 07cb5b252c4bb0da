package rooms_test

import (
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/rejoin-io/rejoin/pkg/rooms"
)

var (
	lobby = rooms.InNamed("/", "lobby")
	game  = rooms.InNamed("/", "game")
)

func TestIndexHoldsMemberships(t *testing.T) {
	var x rooms.Index[string]
	if !x.Add(lobby, "ann") || x.Add(lobby, "ann") {
		t.Error("Add must say yes the first time and no the second")
	}
	x.Add(lobby, "bob")
	x.Add(game, "ann")
	expectMembers(t, x.Members(lobby), "ann", "bob")
	if n := x.Len(lobby); n != 2 {
		t.Errorf("Len = %d, want 2", n)
	}
	if got, want := maps.Collect(x.Rooms()), map[rooms.Room]int{lobby: 2, game: 1}; !maps.Equal(got, want) {
		t.Errorf("Rooms = %v, want %v", got, want)
	}
	if !x.Remove(lobby, "ann") || x.Remove(lobby, "ann") || x.Remove(lobby, "eve") {
		t.Error("Remove must say yes for members only")
	}
	expectMembers(t, x.Members(lobby), "bob")
	x.Remove(lobby, "bob")
	x.Remove(game, "ann")
	if x.Remove(game, "ann") {
		t.Error("removed from a room that is gone")
	}
	for room := range x.Rooms() {
		t.Errorf("room %v outlived its members", room)
	}
}

// Rooms of different kinds with the same name are different.
func TestRoomsOfDifferentKindsAreDifferent(t *testing.T) {
	var x rooms.Index[string]
	x.Add(rooms.InOwn("/", "id-1"), "victim")
	x.Add(rooms.InNamed("/", "id-1"), "eavesdropper")
	x.Add(rooms.InOwn("/other", "id-1"), "stranger")
	expectMembers(t, x.Members(rooms.InOwn("/", "id-1")), "victim")
}

func TestCandidatesComeOnce(t *testing.T) {
	var x rooms.Index[string]
	x.Add(lobby, "ann")
	x.Add(lobby, "bob")
	x.Add(game, "bob")
	x.Add(game, "cat")
	empty := rooms.InNamed("/", "empty")
	for _, c := range []struct {
		to   []rooms.Room
		want []string
	}{
		{nil, nil},
		{[]rooms.Room{empty}, nil},
		{[]rooms.Room{lobby}, []string{"ann", "bob"}},
		{[]rooms.Room{lobby, lobby}, []string{"ann", "bob"}},
		{[]rooms.Room{lobby, empty, game}, []string{"ann", "bob", "cat"}},
	} {
		// Except is not applied here: only Match decides.
		target := rooms.Target{To: c.to, Except: []rooms.Room{game}}
		expectMembers(t, x.Candidates(target), c.want...)
	}
	for range x.Candidates(rooms.Target{To: []rooms.Room{lobby, game}}) {
		break // stops early
	}
}

// The index is compared with a plain map during growth, shrinking and walks. Every view
// must keep the state at which it was taken.
func TestIndexAgreesWithAMap(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	type view struct {
		walk func(func(int) bool)
		want map[int]struct{}
	}
	var (
		x     rooms.Index[int]
		model = map[int]struct{}{}
		views []view
	)
	for step := range 60_000 {
		// The room grows and shrinks: up to 5,000 of 10,000 possible members.
		m := rng.IntN(10_000)
		joins := rng.IntN(100) < 70
		if step/15_000%2 == 1 {
			joins = rng.IntN(100) < 5
		}
		_, in := model[m]
		if joins {
			if x.Add(lobby, m) == in {
				t.Fatalf("step %d: Add(%d) = %v", step, m, in)
			}
			model[m] = struct{}{}
		} else {
			if x.Remove(lobby, m) != in {
				t.Fatalf("step %d: Remove(%d) = %v", step, m, !in)
			}
			delete(model, m)
		}
		if x.Len(lobby) != len(model) {
			t.Fatalf("step %d: Len = %d, want %d", step, x.Len(lobby), len(model))
		}
		if step%1500 == 0 {
			views = append(views, view{x.Members(lobby), maps.Clone(model)})
		}
	}
	for i, v := range views {
		got := slices.Sorted(v.walk)
		if want := slices.Sorted(maps.Keys(v.want)); !slices.Equal(got, want) {
			t.Errorf("view %d shows %d members, want the %d of its time", i, len(got), len(want))
		}
	}
}

// The last member leaves while another joins, repeatedly: the joining member must be found
// in every interleaving. Each round starts both together, one a little ahead of the other.
func TestConcurrentCreationAndRemovalOfARoom(t *testing.T) {
	const rounds = 50_000
	var x rooms.Index[string]
	var started, left atomic.Int64
	var wg sync.WaitGroup
	x.Add(lobby, "leaver")
	wg.Go(func() {
		for round := range int64(rounds) {
			await(&started, round+1)
			spin(int(round) / 16 % 16)
			x.Remove(lobby, "leaver")
			left.Store(round + 1)
		}
	})
	defer wg.Wait()
	defer started.Store(rounds) // releases the leaving goroutine if this fails
	for round := range int64(rounds) {
		started.Store(round + 1)
		spin(int(round) % 16)
		x.Add(lobby, "joiner")
		await(&left, round+1)
		if found := slices.Collect(x.Members(lobby)); !slices.Equal(found, []string{"joiner"}) {
			t.Fatalf("round %d: the room holds %v, want the joiner", round, found)
		}
		x.Add(lobby, "leaver")
		x.Remove(lobby, "joiner")
	}
	x.Remove(lobby, "leaver")
	for room, n := range x.Rooms() {
		t.Errorf("%v still has %d members", room, n)
	}
}

func await(counter *atomic.Int64, value int64) {
	for counter.Load() < value {
		runtime.Gosched()
	}
}

func spin(n int) {
	var busy atomic.Int64
	for range n * 8 {
		busy.Add(1)
	}
}

// The same with many goroutines that yield to the scheduler at critical moments.
func TestConcurrentAddsToARoom(t *testing.T) {
	const workers, rounds = 8, 3_000
	var x rooms.Index[int]
	var lost atomic.Int64
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for round := range rounds {
				x.Add(lobby, w)
				if round%3 == 0 {
					runtime.Gosched()
				}
				if !slices.Contains(slices.Collect(x.Members(lobby)), w) {
					lost.Add(1)
				}
				if round%5 == 0 {
					runtime.Gosched()
				}
				if !x.Remove(lobby, w) {
					lost.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if n := lost.Load(); n > 0 {
		t.Errorf("%d times a member was not in the room that it had joined, want 0", n)
	}
}

// Walks see members that are present throughout exactly once, while enough others join and
// leave to make the table grow and shrink during the walk.
func TestWalksSeeEveryStayerOnce(t *testing.T) {
	const stayers, movers, walks = 1_000, 4_000, 50
	var x rooms.Index[int]
	for m := range stayers {
		x.Add(lobby, m)
		x.Add(game, m)
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(stop)
	for w := range 4 {
		wg.Go(func() {
			for {
				for _, change := range []func(rooms.Room, int) bool{x.Add, x.Remove} {
					for m := w; m < movers; m += 4 {
						change(lobby, stayers+m)
						change(game, stayers+m)
					}
				}
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	for range walks {
		for _, to := range [][]rooms.Room{{lobby}, {lobby, game}} {
			count := map[int]int{}
			for m := range x.Candidates(rooms.Target{To: to}) {
				count[m]++
				if len(count)%256 == 0 {
					runtime.Gosched()
				}
			}
			for m, n := range count {
				if n != 1 {
					t.Fatalf("member %d was seen %d times, want 1", m, n)
				}
			}
			for m := range stayers {
				if count[m] != 1 {
					t.Fatalf("member %d was there all the while and not seen", m)
				}
			}
		}
	}
}

// Joins and leaves do not wait for a walk: its own goroutine joins and leaves during it.
func TestWalksHoldNoLock(t *testing.T) {
	var x rooms.Index[int]
	for m := range 1_000 {
		x.Add(lobby, m)
	}
	for m := range x.Members(lobby) {
		x.Remove(lobby, m)
		x.Add(lobby, -1-m)
	}
	if n := x.Len(lobby); n != 1_000 {
		t.Errorf("Len = %d, want 1000", n)
	}
}

func TestWalkAllocatesNothingPerMember(t *testing.T) {
	var x rooms.Index[*int]
	for range 10_000 {
		x.Add(lobby, new(int))
	}
	target := rooms.Target{To: []rooms.Room{lobby}}
	allocs := testing.AllocsPerRun(10, func() {
		for range x.Candidates(target) {
		}
	})
	if allocs > 4 {
		t.Errorf("a walk over 10,000 members allocates %v times, want at most 4", allocs)
	}
}

// A join into a large room during a walk copies a part of the room.
func TestJoinCopiesLittle(t *testing.T) {
	var x rooms.Index[*int]
	for range 100_000 {
		x.Add(lobby, new(int))
	}
	const joins = 100
	members := make([]int, joins)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for i := range members {
		x.Members(lobby) // everything is shared with this view
		x.Add(lobby, &members[i])
	}
	runtime.ReadMemStats(&after)
	if perJoin := (after.TotalAlloc - before.TotalAlloc) / joins; perJoin > 20_000 {
		t.Errorf("a join into a room of 100,000 allocates %d bytes, want at most 20_000", perJoin)
	}
}

func expectMembers[M ~string](t *testing.T, walk func(func(M) bool), want ...M) {
	t.Helper()
	if got := slices.Sorted(walk); !slices.Equal(got, want) {
		t.Errorf("members are %v, want %v", got, want)
	}
}
