package main

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// A sample is one measurement of one server.
type sample struct {
	Figure string  `json:"figure"`
	Server string  `json:"server"`
	Round  int     `json:"round"`
	Value  float64 `json:"value"`           // in the figure's unit
	Count  int     `json:"count"`           // of what the figure counts
	Bytes  float64 `json:"bytes,omitempty"` // on the wire, for each of those
	Usage  usage   `json:"usage"`

	// Of a cluster, whose Usage is that of its nodes.
	Of    int           `json:"of,omitempty"` // as many were tried
	Redis time.Duration `json:"redis_cpu_ns,omitempty"`
}

type machine struct {
	Time   time.Time `json:"time"`
	OS     string    `json:"os"`
	Cores  int       `json:"cores"`
	Kernel string    `json:"kernel"`
}

// A report is all that a run has measured. As a string it is a table for
// reading.
type report struct {
	Machine machine  `json:"machine"`
	Plan    plan     `json:"plan"`
	Samples []sample `json:"samples"`
}

func thisMachine() machine {
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease") // "" says as much
	return machine{
		Time:   time.Now().UTC().Truncate(time.Second),
		OS:     runtime.GOOS + "/" + runtime.GOARCH,
		Cores:  runtime.NumCPU(),
		Kernel: strings.TrimSpace(string(kernel)),
	}
}

func (r report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d cores, %s, Linux %s\n", r.Machine.Cores, r.Machine.OS, r.Machine.Kernel)
	for _, f := range figures {
		r.table(&b, f)
	}
	r.ratios(&b)
	return b.String()
}

// ratios compares the cost of reconnecting in other cases with that of a plain cut, which is 1.
func (r report) ratios(b *strings.Builder) {
	for _, cut := range r.byServer("cut") {
		for _, f := range figures {
			for _, of := range r.byServer(f.Name) {
				if f.Unit == recoveryUnit && f.Name != "cut" && of[0].Server == cut[0].Server && of[0].Count > 0 {
					fmt.Fprintf(b, "\n%s: %s is %.2f times cut", cut[0].Server, f.Name, median(of, value)/median(cut, value))
				}
			}
		}
	}
	b.WriteByte('\n')
}

// A column is one of the medians that a figure's table shows.
type column struct {
	head   string
	format string
	value  func(sample) float64
}

// Behind the value itself, what went into it.
var (
	loadColumns = []column{
		{"count", "%.0f", func(s sample) float64 { return float64(s.Count) }},
		{"/s", "%.0f", func(s sample) float64 { return float64(s.Count) / s.Usage.Wall.Seconds() }},
		{"bytes each", "%.0f", func(s sample) float64 { return s.Bytes }},
		{"user s", "%.2f", func(s sample) float64 { return s.Usage.User.Seconds() }},
		{"sys s", "%.2f", func(s sample) float64 { return s.Usage.Sys.Seconds() }},
		{"wall s", "%.2f", func(s sample) float64 { return s.Usage.Wall.Seconds() }},
		{"reads", "%.0f", func(s sample) float64 { return float64(s.Usage.Reads) }},
		{"writes", "%.0f", func(s sample) float64 { return float64(s.Usage.Writes) }},
		{"switches", "%.0f", func(s sample) float64 { return float64(s.Usage.Switches) }},
		{"load CPU s", "%.2f", func(s sample) float64 { return s.Usage.Load.Seconds() }},
		{"allocs each", "%.4f", func(s sample) float64 { return float64(s.Usage.Allocs) / float64(s.Count) }},
		{"allocated B each", "%.1f", func(s sample) float64 { return float64(s.Usage.Allocated) / float64(s.Count) }},
	}
	idleColumns = []column{
		{"connections", "%.0f", func(s sample) float64 { return float64(s.Count) }},
		{"CPU s", "%.2f", func(s sample) float64 { return s.Usage.cpu().Seconds() }},
		{"wall s", "%.2f", func(s sample) float64 { return s.Usage.Wall.Seconds() }},
	}
	recoveryColumns = []column{
		{"Redis ms", "%.3f", func(s sample) float64 { return per(s.Redis, s.Of, time.Millisecond) }},
		{"recovered", "%.0f", func(s sample) float64 { return float64(s.Count) }},
		{"of", "%.0f", func(s sample) float64 { return float64(s.Of) }},
		{"wall s", "%.2f", func(s sample) float64 { return s.Usage.Wall.Seconds() }},
		{"switches", "%.0f", func(s sample) float64 { return float64(s.Usage.Switches) }},
		{"load CPU s", "%.2f", func(s sample) float64 { return s.Usage.Load.Seconds() }},
		{"allocs each", "%.1f", func(s sample) float64 { return float64(s.Usage.Allocs) / float64(s.Of) }},
		{"allocated B each", "%.0f", func(s sample) float64 { return float64(s.Usage.Allocated) / float64(s.Of) }},
	}
	connectColumns = []column{
		{"Redis ms", "%.3f", func(s sample) float64 { return per(s.Redis, s.Of, time.Millisecond) }},
		{"wall s", "%.2f", func(s sample) float64 { return s.Usage.Wall.Seconds() }},
		{"reads", "%.1f", func(s sample) float64 { return float64(s.Usage.Reads) / float64(s.Of) }},
		{"writes", "%.1f", func(s sample) float64 { return float64(s.Usage.Writes) / float64(s.Of) }},
		{"switches", "%.0f", func(s sample) float64 { return float64(s.Usage.Switches) }},
		{"load CPU s", "%.2f", func(s sample) float64 { return s.Usage.Load.Seconds() }},
		{"allocs each", "%.1f", func(s sample) float64 { return float64(s.Usage.Allocs) / float64(s.Of) }},
		{"allocated B each", "%.0f", func(s sample) float64 { return float64(s.Usage.Allocated) / float64(s.Of) }},
	}
	publishColumns = []column{
		{"Redis µs", "%.1f", func(s sample) float64 { return per(s.Redis, s.Of, time.Microsecond) }},
		{"events", "%.0f", func(s sample) float64 { return float64(s.Count) }},
		{"/s", "%.0f", func(s sample) float64 { return float64(s.Count) / s.Usage.Wall.Seconds() }},
		{"switches", "%.0f", func(s sample) float64 { return float64(s.Usage.Switches) }},
		{"load CPU s", "%.2f", func(s sample) float64 { return s.Usage.Load.Seconds() }},
		{"allocs each", "%.1f", func(s sample) float64 { return float64(s.Usage.Allocs) / float64(s.Of) }},
		{"allocated B each", "%.0f", func(s sample) float64 { return float64(s.Usage.Allocated) / float64(s.Of) }},
	}
	catchUpColumns = []column{
		{"rooms", "%.0f", func(s sample) float64 { return float64(s.Count) }},
		{"nodes' CPU ms", "%.0f", func(s sample) float64 { return per(s.Usage.cpu(), 1, time.Millisecond) }},
		{"Redis CPU ms", "%.0f", func(s sample) float64 { return per(s.Redis, 1, time.Millisecond) }},
		{"wall ms", "%.0f", func(s sample) float64 { return per(s.Usage.Wall, 1, time.Millisecond) }},
	}
)

// table writes the figure's samples, a line for each server.
func (r report) table(b *strings.Builder, f figure) {
	servers := r.byServer(f.Name)
	if len(servers) == 0 {
		return
	}
	fmt.Fprintf(b, "\n%s: %s; medians of %d\n", f.Name, f.Unit, len(servers[0]))
	var lines strings.Builder
	first := median(servers[0], value)
	fmt.Fprintf(&lines, "server\t%s\tlowest\thighest\tto %s\t", f.Name, servers[0][0].Server)
	for _, c := range f.Columns {
		fmt.Fprintf(&lines, "%s\t", c.head)
	}
	for _, samples := range servers {
		values := sorted(samples, value)
		fmt.Fprintf(&lines, "\n%s\t", samples[0].Server)
		for _, v := range []float64{median(samples, value), values[0], values[len(values)-1]} {
			fmt.Fprintf(&lines, f.Format+"\t", v)
		}
		fmt.Fprintf(&lines, "%.2f\t", median(samples, value)/first)
		for _, c := range f.Columns {
			fmt.Fprintf(&lines, c.format+"\t", median(samples, c.value))
		}
	}
	aligned := tabwriter.NewWriter(b, 0, 0, 2, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprintln(aligned, &lines) // a Builder takes everything
	_ = aligned.Flush()
}

// byServer returns the figure's samples, those of one server together, the
// servers in the order of their first turns.
func (r report) byServer(figure string) [][]sample {
	var all [][]sample
	for _, s := range r.Samples {
		if s.Figure != figure {
			continue
		}
		i := slices.IndexFunc(all, func(of []sample) bool { return of[0].Server == s.Server })
		if i < 0 {
			i, all = len(all), append(all, nil)
		}
		all[i] = append(all[i], s)
	}
	return all
}

func (r report) save(name string) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(name, append(text, '\n'), 0o644)
}

// median returns the middle value, the lower one of two.
func median(samples []sample, value func(sample) float64) float64 {
	values := sorted(samples, value)
	return values[(len(values)-1)/2]
}

func value(s sample) float64 { return s.Value }

func sorted(samples []sample, value func(sample) float64) []float64 {
	var values []float64
	for _, s := range samples {
		values = append(values, value(s))
	}
	slices.Sort(values)
	return values
}
