package main

import (
	"context"
	"net/url"
	"slices"

	"go.uber.org/zap"

	"github.com/rejoin-io/rejoin/internal/api"
	"github.com/rejoin-io/rejoin/internal/app"
	"github.com/rejoin-io/rejoin/internal/auth"
	"github.com/rejoin-io/rejoin/internal/hooks"
	"github.com/rejoin-io/rejoin/internal/limit"
	"github.com/rejoin-io/rejoin/pkg/socketio"
)

// A hookURL is the address of the backend. It may contain a password, so it is never shown.
type hookURL string

func (u *hookURL) Decode(s string) error { return (*jwksURL)(u).Decode(s) }

func (u hookURL) String() string { return jwksURL(u).String() }

// hookSecrets are never shown.
type hookSecrets struct{ list }

func (h *hookSecrets) Decode(s string) error {
	if s == "" {
		return nil
	}
	if err := h.list.Decode(s); err != nil {
		return err
	}
	for _, secret := range h.list {
		if err := hooks.CheckSecret(secret); err != nil {
			return err
		}
	}
	return nil
}

func (h hookSecrets) String() string { return hidden(len(h.list) > 0) }

// names are a list that may be empty.
type names []string

func (n *names) Decode(s string) error {
	if s == "" {
		return nil
	}
	return (*list)(n).Decode(s)
}

func (n names) elements() []string { return n }

// validateHooks checks the settings of the questions to the backend.
func (c *config) validateHooks(r *report) {
	if c.HookURL == "" {
		if len(c.HookSecrets.list) > 0 || c.HookConnect || len(c.HookEvents) > 0 || len(c.HookHeaders) > 0 {
			r.refuse("REJOIN_HOOK_URL", c.HookURL, "set with any other REJOIN_HOOK_ variable: without it the backend is not asked")
		}
		return
	}
	if jwksURL(c.HookURL).plain() && !c.HookAllowHTTP {
		r.refuse("REJOIN_HOOK_URL", c.HookURL, "https unless the host is a loopback address or REJOIN_HOOK_ALLOW_HTTP=true, because the answers decide who connects")
	}
	if u, err := url.Parse(string(c.HookURL)); err == nil && u.Fragment != "" {
		r.refuse("REJOIN_HOOK_URL", c.HookURL, "a URL without a fragment")
	}
	if len(c.HookSecrets.list) == 0 {
		r.refuse("REJOIN_HOOK_SECRETS", c.HookSecrets, "set: the backend must be able to tell the node's questions from those of others")
	}
	for _, name := range []string{"token", "once"} {
		if slices.Contains(c.HookEvents, name) {
			r.refuse("REJOIN_HOOK_EVENTS", name, "another event: the node handles token and once itself")
		}
	}
	if !c.HookConnect && len(c.HookEvents) == 0 {
		r.warn("REJOIN_HOOK_URL has no effect without REJOIN_HOOK_CONNECT=true or REJOIN_HOOK_EVENTS")
	}
	if len(c.HookHeaders) > 0 && !c.HookConnect {
		r.warn("REJOIN_HOOK_HEADERS has no effect without REJOIN_HOOK_CONNECT=true")
	}
}

// newBackend returns the backend that is asked, or nil if there is none.
func newBackend(c config, tally *limit.Tally, log *zap.Logger) (*hooks.Backend, error) {
	if c.HookURL == "" {
		return nil, nil
	}
	return hooks.New(hooks.Options{
		URL: string(c.HookURL), Secrets: c.HookSecrets.list, Timeout: c.HookTimeout, Concurrency: c.HookConcurrency,
		Node: c.NodeID, Tally: tally, Logger: log,
	})
}

// hooks returns the application's settings for the backend.
func (n *node) hooks(c config, a *api.API) app.Hooks {
	if n.backend == nil {
		return app.Hooks{}
	}
	return app.Hooks{
		Backend: n.backend, Connect: c.HookConnect, Headers: c.HookHeaders, Events: c.HookEvents,
		ParseEmit: func(body []byte, namespace string, to *socketio.Broadcast) (app.Emit, error) {
			e, err := a.ParseEmit(body, namespace, to)
			return app.Emit(e), err
		},
		Default: c.DefaultCan.or(auth.Permissions{}), Logger: n.log,
	}
}

// pingBackend asks the backend for nothing, if there is one, to check its settings.
func pingBackend(ctx context.Context, c config) error {
	b, err := newBackend(c, nil, nil)
	if b == nil || err != nil {
		return err
	}
	defer b.Close()
	return b.Ping(ctx)
}
