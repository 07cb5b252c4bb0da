package nodetest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"sync"
)

// A Log collects what a node writes, and learns from it where it listens.
type Log struct {
	Addr, Internal, ID string        // to be read once Listening is closed
	Listening          chan struct{} // closed with the line that says so

	mu   sync.Mutex
	text bytes.Buffer
}

// NewLog returns an empty log.
func NewLog() *Log { return &Log{Listening: make(chan struct{})} }

// Read takes in what a node writes, until its end.
func (l *Log) Read(r io.Reader) {
	in := bufio.NewReader(r)
	for {
		line, err := in.ReadBytes('\n')
		l.mu.Lock()
		l.text.Write(line)
		l.mu.Unlock()
		var entry struct {
			Msg      string `json:"msg"`
			Addr     string `json:"addr"`
			Internal string `json:"internal_addr"`
			Node     string `json:"node"`
		}
		if l.Addr == "" && json.Unmarshal(line, &entry) == nil && entry.Msg == "listening" {
			l.Addr, l.Internal, l.ID = entry.Addr, entry.Internal, entry.Node
			close(l.Listening)
		}
		if err != nil {
			return
		}
	}
}

// Contains reports whether the node has written a text.
func (l *Log) Contains(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Contains(l.text.Bytes(), []byte(text))
}

// Len returns how many bytes the node has written.
func (l *Log) Len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Len()
}

func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// Tail returns the last lines.
func (l *Log) Tail(lines int) string {
	all := strings.Split(l.String(), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
