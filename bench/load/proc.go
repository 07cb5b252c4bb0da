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

// plus returns what was used together with some times what v is, which may be -1.
func (u usage) plus(v usage, times int) usage {
	d := time.Duration(times)
	return usage{
		User: u.User + d*v.User, Sys: u.Sys + d*v.Sys, Wall: u.Wall + d*v.Wall, Load: u.Load + d*v.Load,
		Reads: u.Reads + times*v.Reads, Writes: u.Writes + times*v.Writes, Switches: u.Switches + times*v.Switches,
		Allocs: u.Allocs + times*v.Allocs, Allocated: u.Allocated + times*v.Allocated,
	}
}

// totals reads what the server has used since it began.
func (s *server) totals() (usage, error) {
	u, err := processTotals(s.pid)
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
	value, err := field(text, name+" ")
	if err != nil {
		return 0, err
	}
	f, err := strconv.ParseFloat(value, 64)
	return int(f), err
}

// processTotals reads the CPU time and the system calls of a process since it began.
func processTotals(pid int) (u usage, err error) {
	stat, err := os.ReadFile(procFile(pid, "stat"))
	if err != nil {
		return u, err
	}
	if u.User, u.Sys, err = parseStat(stat); err != nil {
		return u, err
	}
	io, err := os.ReadFile(procFile(pid, "io"))
	if err != nil {
		return u, err
	}
	if u.Reads, err = number(io, "syscr"); err != nil {
		return u, err
	}
	if u.Writes, err = number(io, "syscw"); err != nil {
		return u, err
	}
	u.Switches, err = switches(pid)
	return u, err
}

// ownCPU returns the CPU time of the load since it began.
func ownCPU() (time.Duration, error) {
	var self syscall.Rusage
	err := syscall.Getrusage(syscall.RUSAGE_SELF, &self)
	return time.Duration(self.Utime.Nano() + self.Stime.Nano()), os.NewSyscallError("getrusage", err)
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
		n, err := number(status, "voluntary_ctxt_switches")
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
	return number(status, "VmRSS")
}

// number finds the number on the line of a /proc file that name begins.
func number(file []byte, name string) (int, error) {
	value, err := field(file, name+":")
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSuffix(value, " kB"))
}

// field finds the rest of the line that prefix begins.
func field(text []byte, prefix string) (string, error) {
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, prefix); ok {
			return strings.TrimSpace(value), nil
		}
	}
	return "", fmt.Errorf("no %s in %.200q", prefix, text)
}

func procFile(pid int, name string) string {
	return filepath.Join("/proc", strconv.Itoa(pid), name)
}
