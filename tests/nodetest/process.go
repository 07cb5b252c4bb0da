// Package nodetest runs the built node as a process and reads what it says of
// itself, for the tests of binaries.
package nodetest

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Patience bounds every wait for something that should happen soon. It is long
// because the race detector and a busy machine are slow, not because anything
// may take so long.
const Patience = 20 * time.Second

// Build builds the node into a folder, with the race detector and build tags, and
// returns the binary. The working directory is a package of the tests' module.
func Build(dir string, tags ...string) (binary string, err error) {
	return build(dir, "-race", "-tags", strings.Join(tags, ","))
}

// BuildPlain builds the node as it is shipped, for tests of what it takes.
func BuildPlain(dir string) (binary string, err error) { return build(dir) }

func build(dir string, flags ...string) (binary string, err error) {
	binary = filepath.Join(dir, "rejoin")
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	build := exec.CommandContext(ctx, "go", append(append([]string{"build"}, flags...), "-o", binary, "./cmd/node")...)
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the node: %w\n%s", err, out)
	}
	return binary, nil
}

// Command returns a node with some REJOIN_ variables and no others, yet to be
// started.
func Command(binary string, variables ...string) *exec.Cmd {
	cmd := exec.Command(binary)
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "REJOIN_") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.Env = append(append(cmd.Env, "GORACE=halt_on_error=1 atexit_sleep_ms=0"), variables...)
	return cmd
}

// Memory returns what a process uses, in bytes: VmRSS now, VmHWM at most so far.
func Memory(pid int, what string) (int, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, what+":"); ok {
			kib, err := strconv.Atoi(strings.Fields(value)[0])
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("%s not found in %s", what, status)
}

// HTTP keeps no connections, which would count as the node's own.
var HTTP = &http.Client{
	Transport: &http.Transport{DisableKeepAlives: true},
	Timeout:   Patience,
}

// Scrape returns the samples of a node's metrics by their names with labels, as
// they stand in the exposition format.
func Scrape(internal string) (map[string]float64, error) {
	response, err := HTTP.Get("http://" + internal + "/metrics")
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }() // what it has to say is read
	samples := map[string]float64{}
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() {
		i := strings.LastIndexByte(lines.Text(), ' ')
		if i < 0 || lines.Text()[0] == '#' {
			continue
		}
		value, err := strconv.ParseFloat(lines.Text()[i+1:], 64)
		if err != nil {
			return nil, err
		}
		samples[lines.Text()[:i]] = value
	}
	return samples, lines.Err()
}
