package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A usage is what a server used in a stretch of time.
type usage struct {
	User     time.Duration `json:"user_ns"`
	Sys      time.Duration `json:"sys_ns"`
	Wall     time.Duration `json:"wall_ns"`
	Load     time.Duration `json:"load_cpu_ns"` // the load's own CPU time
	Reads    int           `json:"reads"`       // system calls of the read family
	Writes   int           `json:"writes"`      // and of the write family
	Switches int           `json:"switches"`    // of context: the server had nothing to do and waited

	// Of servers in Go that serve metrics; of others zero.
	Allocs    int `json:"allocs,omitempty"`    // on the heap
	Allocated int `json:"allocated,omitempty"` // bytes of these
}

func (u usage) cpu() time.Duration { return u.User + u.Sys }

// since returns what was used between two readings of the running totals.
func (u usage) since(v usage) usage {
	return usage{
		User: u.User - v.User, Sys: u.Sys - v.Sys, Wall: u.Wall - v.Wall, Load: u.Load - v.Load,
		Reads: u.Reads - v.Reads, Writes: u.Writes - v.Writes, Switches: u.Switches - v.Switches,
		Allocs: u.Allocs - v.Allocs, Allocated: u.Allocated - v.Allocated,
	}
}

// totals reads what the server has used since it began; Wall counts from start.
func (s *server) totals(start time.Time) (usage, error) {
	u, err := processTotals(s.pid, start)
	if err != nil || s.metrics == "" {
		return u, err
	}
	u.Allocs, u.Allocated, err = heapTotals(s.metrics)
	return u, err
}

// heapTotals reads from a node's metrics what it has allocated since it began.
// Reading them allocates too, about as much as a handshake.
func heapTotals(url string) (allocs, bytes int, err error) {
	res, err := (&http.Client{Timeout: setupTimeout}).Get(url)
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = res.Body.Close() }()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, 0, err
	}
	if allocs, err = metric(text, "go_memstats_mallocs_total"); err != nil {
		return 0, 0, err
	}
	bytes, err = metric(text, "go_memstats_alloc_bytes_total")
	return allocs, bytes, err
}

// metric finds the value of a counter without labels.
func metric(text []byte, name string) (int, error) {
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			f, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			return int(f), err
		}
	}
	return 0, fmt.Errorf("no %s in the metrics", name)
}

// processTotals reads what a process has used since it began, but not what it has
// allocated.
func processTotals(pid int, start time.Time) (usage, error) {
	u := usage{Wall: time.Since(start)}
	stat, err := os.ReadFile(procFile(pid, "stat"))
	if err != nil {
		return usage{}, err
	}
	if u.User, u.Sys, err = parseStat(stat); err != nil {
		return usage{}, err
	}
	io, err := os.ReadFile(procFile(pid, "io"))
	if err != nil {
		return usage{}, err
	}
	if u.Reads, err = field(io, "syscr"); err != nil {
		return usage{}, err
	}
	if u.Writes, err = field(io, "syscw"); err != nil {
		return usage{}, err
	}
	if u.Switches, err = switches(pid); err != nil {
		return usage{}, err
	}
	var self syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &self); err != nil {
		return usage{}, os.NewSyscallError("getrusage", err)
	}
	u.Load = time.Duration(self.Utime.Nano() + self.Stime.Nano())
	return u, nil
}

// tick is the unit of /proc/<pid>/stat, the same on every Linux port of Go's.
const tick = time.Second / 100

// parseStat finds utime and stime, fields 14 and 15 of /proc/<pid>/stat. The
// second field is the command's name in parentheses and may hold anything.
func parseStat(stat []byte) (user, sys time.Duration, err error) {
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	const utime, stime = 14 - 3, 15 - 3
	if len(fields) <= stime {
		return 0, 0, fmt.Errorf("unexpected stat of a process: %q", stat)
	}
	u, err := strconv.Atoi(fields[utime])
	if err != nil {
		return 0, 0, err
	}
	s, err := strconv.Atoi(fields[stime])
	return time.Duration(u) * tick, time.Duration(s) * tick, err
}

// switches sums up the voluntary context switches of the process's threads. A
// thread that ends takes its own along.
func switches(pid int) (int, error) {
	files, err := filepath.Glob(procFile(pid, "task/*/status"))
	if err != nil {
		return 0, err
	}
	var sum int
	for _, name := range files {
		status, err := os.ReadFile(name)
		if err != nil {
			continue // the thread has ended
		}
		n, err := field(status, "voluntary_ctxt_switches")
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

// residentKiB returns the process's resident memory.
func residentKiB(pid int) (int, error) {
	status, err := os.ReadFile(procFile(pid, "status"))
	if err != nil {
		return 0, err
	}
	return field(status, "VmRSS")
}

// field finds the number on the line of a /proc file that name begins.
func field(file []byte, name string) (int, error) {
	for line := range strings.Lines(string(file)) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(value), " kB"))
		}
	}
	return 0, fmt.Errorf("no %s in %.200q", name, file)
}

func procFile(pid int, name string) string {
	return filepath.Join("/proc", strconv.Itoa(pid), name)
}
