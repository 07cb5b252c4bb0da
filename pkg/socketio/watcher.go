package socketio

import (
	"sync"

	"go.uber.org/zap"
)

// watcherBytes bounds the queue of a watcher. Each call counts with its size and watcherCall, so
// their number is bounded as well: to 8,192.
const (
	watcherBytes = 1 << 20
	watcherCall  = 128
)

// A watcher calls functions of the application that only observe, in order and one at a time. They
// run on a goroutine that exists only while calls are queued, because the observed events happen
// under locks, and must not wait for them. If they fall too far behind, calls are dropped and this
// is logged.
type watcher struct {
	callback string // for the log
	mail     mailbox

	mu    sync.Mutex
	bytes int
	lost  int // since the last call that was not dropped
}

func newWatcher(callback string) *watcher {
	o := &watcher{callback: callback}
	o.mail.started = true
	return o
}

// report queues a call of f, which calls the application's functions and refers to size bytes. It
// does not wait.
func (o *watcher) report(srv *Server, size int, f func()) {
	size += watcherCall
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.bytes > 0 && o.bytes+size > watcherBytes || o.lost > 0 && o.bytes > watcherBytes/2 {
		if o.lost++; o.lost == 1 {
			srv.log.Warn("callback too slow, dropping calls", zap.String("callback", o.callback))
		}
		return
	}
	if o.lost > 0 {
		srv.log.Warn("slow callback: calls dropped", zap.String("callback", o.callback), zap.Int("calls", o.lost))
		o.lost = 0
	}
	o.bytes += size
	o.mail.put(&srv.tasks, func() {
		defer func() {
			o.mu.Lock()
			o.bytes -= size
			o.mu.Unlock()
		}()
		f()
	})
}
