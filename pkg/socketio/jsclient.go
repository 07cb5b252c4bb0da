package socketio

import (
	"encoding/json"
	"strconv"
	"strings"

	"github.com/rejoin-io/rejoin/pkg/engineio"
)

// recovers reports whether a client gets a private ID and offsets. The client's choice takes
// precedence over the application's conclusion from the handshake, and the choice for one
// namespace over that for the connection.
func (s *Server) recovers(namespace string, recovery json.RawMessage, pid string, h *engineio.Handshake) bool {
	if !s.opts.recovery() {
		return false
	}
	if choice, ok := choiceInAuth(recovery); ok {
		return choice
	}
	if choice, ok := choiceInQuery(h); ok {
		return choice
	}
	if isID(pid) { // applications may have their own pid in the payload
		return true
	}
	recovers := false
	s.guard("Recovers", func() { recovers = s.opts.Recovers(namespace, h) })
	return recovers
}

// choiceInAuth returns the choice in the field of a CONNECT payload; nil means that there
// is none.
func choiceInAuth(recovery json.RawMessage) (recovers, ok bool) {
	if recovery == nil {
		return false, false
	}
	var choice any
	if json.Unmarshal(recovery, &choice) != nil {
		return false, false
	}
	switch r := choice.(type) {
	case bool:
		return r, true
	case float64:
		return r == 1, r == 0 || r == 1
	case string:
		recovers, err := strconv.ParseBool(r)
		return recovers, err == nil
	}
	return false, false
}

// choiceInQuery returns the first choice in the URL of the first request.
func choiceInQuery(h *engineio.Handshake) (recovers, ok bool) {
	_, query, _ := strings.Cut(h.URL, "?")
	for param := range strings.SplitSeq(query, "&") { // without parsing all of them
		if value, ok := strings.CutPrefix(param, "recovery="); ok {
			if recovers, err := strconv.ParseBool(value); err == nil {
				return recovers, true
			}
		}
	}
	return false, false
}

// IsJavaScriptClient reports whether a handshake looks like one of the JavaScript client,
// socket.io-client, in a browser, in Node.js or in React Native. Only this client is known to use
// recovery without changes to its user's handlers: others ignore the private ID and pass the offset
// to the handlers. It decides by the order of the query and by User-Agent, Origin and
// Sec-WebSocket-Extensions, as docs/clients.md describes. Clients in other languages that run in a
// browser may look the same, and must state that they do not recover.
func IsJavaScriptClient(h *engineio.Handshake) bool {
	// The client appends its own parameters to the user's, always in this order.
	_, query, _ := strings.Cut(h.URL, "?")
	_, own, ordered := strings.Cut("&"+query, "&EIO=4&transport=")
	if !ordered {
		return false
	}
	transport, more, _ := strings.Cut(own, "&")
	agent := h.Header.Get("User-Agent")
	native := strings.HasPrefix(agent, "okhttp/") // of React Native on Android
	switch {
	case strings.HasPrefix(agent, "Mozilla/"):
		return true
	case agent == "node" || agent == "undici": // fetch and WebSocket that are built into Node.js
		return true
	case transport == engineio.Polling:
		// On iOS, React Native uses CFNetwork.
		native = native || strings.Contains(agent, " CFNetwork/")
		return agent == "node-XMLHttpRequest" || native && isTimestamp(more)
	case transport == engineio.WebSocket && (agent == "" || native):
		// Node.js always offers this extension; users' options for it differ. React Native
		// sends an Origin, which the clients of Java, .NET, Rust and Go do not.
		offer := h.Header.Get("Sec-Websocket-Extensions")
		return agent == "" && strings.HasPrefix(offer, "permessage-deflate; ") && strings.Contains(offer, "client_max_window_bits") ||
			h.Header.Get("Origin") != ""
	}
	return false
}

// isTimestamp reports whether the text that follows the transport in a query is the one that the
// JavaScript client appends since 4.8: t with eight digits and lower-case letters. The Java client
// uses okhttp too, appends a shorter one with capitals, and puts the user's parameters anywhere.
func isTimestamp(query string) bool {
	t, ok := strings.CutPrefix(strings.TrimSuffix(query, "&b64=1"), "t=")
	return ok && len(t) == 8 && strings.Trim(t, "0123456789abcdefghijklmnopqrstuvwxyz") == ""
}
