package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/rejoin-io/rejoin/internal/app"
	"github.com/rejoin-io/rejoin/internal/auth"
)

// Application exports the numbers of the built-in application. stats is called once for each
// scrape.
func Application(stats func() app.Stats) prometheus.Collector {
	return collector[app.Stats]{stats, ofApplication}
}

var ofApplication = []metric[app.Stats]{
	counts("refusals_total", "Events of clients refused because of missing permissions, by event.", "event", func(s app.Stats) map[string]uint64 { return s.Forbidden }),
	counts("tokens_refused_total", "Tokens refused, at CONNECT or of connected clients, by the code that the client gets.", "code", func(s app.Stats) map[auth.Code]uint64 { return s.RefusedTokens }),
}
