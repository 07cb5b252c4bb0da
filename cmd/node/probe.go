package main

import (
	"context"
	"fmt"
	"net/http"
	"time"
)

// probeTimeout is the time limit of a probe. A node that takes longer to answer
// is not ready.
const probeTimeout = 3 * time.Second

// probe returns nil if a GET of the URL is answered with 200. It is the health
// check of images that hold nothing but this program, so it connects directly to
// the node: it uses no proxy and follows no redirection.
func probe(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("probe: %w", err)
	}
	response, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(request)
	if err != nil {
		return fmt.Errorf("probe %s: %w", request.URL.Redacted(), err)
	}
	if err := response.Body.Close(); err != nil {
		return fmt.Errorf("probe %s: %w", request.URL.Redacted(), err)
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("probe %s: %s", request.URL.Redacted(), response.Status)
	}
	return nil
}
