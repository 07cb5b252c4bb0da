package socketio

import (
	"time"

	"go.uber.org/zap"

	"github.com/rejoin-io/rejoin/pkg/engineio"
)

// Names of connection limits, in logs and metrics.
const (
	limitConnectPayload     = "connect_payload"
	limitUnconnected        = "unconnected_sessions"
	limitReceiveBudget      = "receive_budget"
	limitAttachmentDeadline = "attachment_deadline"
	limitRecoveries         = "session_recoveries"
	limitConnects           = "namespace_connects"
	limitArguments          = "event_arguments"
	limitMemberships        = "membership_budget"
	limitReplayBudget       = "replay_budget"
	limitHeldBudget         = "held_budget"
	limitReadProgress       = "read_progress"
	limitDynamicNamespaces  = "dynamic_namespaces"
	limitRewinds            = "concurrent_rewinds"

	// Counted by the engine.
	limitSendQueue   = "send_queue"
	limitQueueBudget = "queue_budget"
)

// A connLimits counts connections that were refused or closed because of a limit, and
// bounds their log lines, for each limit.
type connLimits struct {
	labelled
	logs map[string]*logLimit // constant
}

func (l *connLimits) init() {
	l.counts = zeros(limitConnectPayload, limitUnconnected, limitReceiveBudget, limitAttachmentDeadline, limitRecoveries, limitConnects, limitArguments, limitMemberships, limitReplayBudget, limitHeldBudget, limitReadProgress, limitDynamicNamespaces,
		limitRewinds)
	l.logs = map[string]*logLimit{limitSendQueue: {}, limitQueueBudget: {}}
	for limit := range l.counts {
		l.logs[limit] = new(logLimit)
	}
}

// limited counts and logs that a connection has reached a limit.
func (c *client) limited(limit string, maximum int, unit string) {
	c.srv.stats.limited.add(limit)
	c.logLimit(limit, maximum, unit)
}

func (c *client) logLimit(limit string, maximum int, unit string) {
	if c.srv.stats.limited.logs[limit].allow(time.Now()) {
		c.srv.log.Warn("connection limit reached", zap.String("limit", limit), zap.Int("limit_"+unit, maximum),
			zap.String("address", c.conn.Handshake().RemoteAddr))
	}
}

// cut closes the connection because of a limit. The client does not receive its queued
// packets. Stock clients reconnect.
func (c *client) cut() {
	c.conn.Close(engineio.TransportError)
	_ = c.conn.Finish(ended)
}
