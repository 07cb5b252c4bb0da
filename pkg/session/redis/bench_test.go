package redis

import (
	"fmt"
	"regexp"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/rejoin-io/rejoin/internal/redistest"
	"github.com/rejoin-io/rejoin/pkg/session"
)

// A thousand concurrent saves take a few pipelines, and four commands each in Redis: the
// script and its commands.
func TestSavesShareRoundTrips(t *testing.T) {
	server := redistest.Start(t)
	s := open(t, server.URL(), Options{})
	const n = 1000
	sessions := make([]session.Session, n)
	for i := range sessions {
		sessions[i] = mustCreate(t, s, fmt.Sprint(i))
	}
	if err := server.Client().ConfigResetStat(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	before := s.Stats()
	start := make(chan struct{})
	var saves sync.WaitGroup
	for _, sn := range sessions {
		saves.Go(func() {
			<-start
			if err := s.Save(within(t, 20*time.Second), sn, long); err != nil {
				t.Errorf("Save: %v", err)
			}
		})
	}
	close(start)
	saves.Wait()
	after := s.Stats()
	if pipelines := after.Pipelines - before.Pipelines; pipelines > n/10 {
		t.Errorf("%d saves took %d pipelines, want at most %d", n, pipelines, n/10)
	} else {
		t.Logf("%d saves took %d pipelines", n, pipelines)
	}
	for command, want := range map[string]uint64{"evalsha": n, "eval": after.Resent - before.Resent, "time": n, "getrange": n, "set": n} {
		// Commands that found no script count as evalsha, too.
		if got := calls(t, server, command); got != want {
			t.Errorf("%s was called %d times, want %d", command, got, want)
		}
	}
}

// calls returns how often Redis has executed a command.
func calls(t testing.TB, server *redistest.Server, command string) uint64 {
	t.Helper()
	info, err := server.Client().Info(t.Context(), "commandstats").Result()
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`cmdstat_` + command + `:calls=(\d+)`).FindStringSubmatch(info)
	if found == nil {
		return 0
	}
	n, err := strconv.ParseUint(found[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func BenchmarkSave(b *testing.B) {
	for _, writers := range []int{1, 64, 1000} {
		b.Run(fmt.Sprint(writers, " writers"), func(b *testing.B) {
			server := redistest.Start(b)
			s := open(b, server.URL(), Options{})
			sessions := make([]session.Session, writers)
			for i := range sessions {
				sn := full()
				sn.PID = fmt.Sprint(i)
				if err := s.Create(b.Context(), sn, long); err != nil {
					b.Fatal(err)
				}
				sn.Fence = 1
				sessions[i] = sn
			}
			before := s.Stats()
			b.ReportAllocs()
			b.ResetTimer()
			var wg sync.WaitGroup
			for i, sn := range sessions {
				wg.Go(func() {
					for range share(b.N, writers, i) {
						if err := s.Save(b.Context(), sn, long); err != nil {
							b.Errorf("Save: %v", err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/float64(s.Stats().Pipelines-before.Pipelines), "saves/pipeline")
		})
	}
}

// share returns the part of n for the i-th of several goroutines.
func share(n, of, i int) int { return (n + of - 1 - i) / of }

func BenchmarkRefresh(b *testing.B) {
	server := redistest.Start(b)
	s := open(b, server.URL(), Options{})
	refs := make([]session.Ref, 10_000)
	var wg sync.WaitGroup
	for i := range refs {
		refs[i] = session.Ref{PID: fmt.Sprint(i), Fence: 1}
		wg.Go(func() { mustCreate(b, s, refs[i].PID) })
	}
	wg.Wait()
	b.ReportAllocs()
	for b.Loop() {
		if gone, err := s.Refresh(b.Context(), refs, long); err != nil || len(gone) > 0 {
			b.Fatalf("Refresh: %d gone, %v, want 0", len(gone), err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(refs)), "ns/session")
}

// A claim reads, checks and writes.
func BenchmarkClaim(b *testing.B) {
	const writers = 500
	server := redistest.Start(b)
	s := open(b, server.URL(), Options{})
	for i := range writers {
		sn := full()
		sn.PID = fmt.Sprint(i)
		if err := s.Create(b.Context(), sn, long); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	b.ResetTimer()
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			for range share(b.N, writers, i) {
				if _, _, err := s.Claim(b.Context(), fmt.Sprint(i), "b", long, nil); err != nil {
					b.Errorf("Claim: %v", err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// A claim of a session with many rooms.
func BenchmarkClaimManyRooms(b *testing.B) {
	server := redistest.Start(b)
	s := open(b, server.URL(), Options{})
	if err := s.Create(b.Context(), manyRooms("p", 990), long); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := s.Claim(b.Context(), "p", "b", long, func(session.Session) error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
}

// The computations of a store for a claim, without round trips.
func BenchmarkManyRooms(b *testing.B) {
	s := &Store{options: Options{MaxSize: 1 << 20}}
	value, err := s.encode(manyRooms("p", 990))
	if err != nil {
		b.Fatal(err)
	}
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := decode(value); err != nil {
				b.Fatal(err)
			}
		}
	})
	sn := manyRooms("p", 990)
	b.Run("encode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := s.encode(sn); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("difference", func(b *testing.B) {
		b.ReportAllocs()
		sn.Owner = "another"
		other, _ := s.encode(sn)
		for b.Loop() {
			difference(value, other)
		}
	})
}
